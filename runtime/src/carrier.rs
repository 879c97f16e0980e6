//! The exchanges of modeled cores: values meet as those of any ranks do, and times go over the fabric.

use crate::fabric::Fabric;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use systole_compiler::kernel::Combine;
use systole_compiler::op::{AllReduce, Op, Permute};
use systole_compiler::ranks::{self, Exchange, Parts};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::TensorType;
use systole_systolic::program;
use systole_systolic::simulate::{Exchanged, Exchanger};

/// Carries what one rank exchanges.
pub(crate) struct Carrier<'a> {
    pub(crate) fabric: &'a Fabric,
    /// Where ranks meet; where programs stand for all ranks that run them, these meet.
    pub(crate) exchange: &'a dyn Exchange,
    pub(crate) rank: usize,
    /// The program of each rank, where programs meet.
    pub(crate) programs: Option<&'a [usize]>,
    pub(crate) carried: Mutex<Vec<Carried>>,
}

/// An exchange that was carried out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Carried {
    pub(crate) kind: &'static str,
    pub(crate) operand: TensorType,
    /// Who met.
    pub(crate) group: Vec<usize>,
    pub(crate) algorithm: String,
    /// When this rank was ready, when all were, and when it was done.
    pub(crate) ready_us: f64,
    pub(crate) start_us: f64,
    pub(crate) end_us: f64,
}

impl Exchanger for Carrier<'_> {
    fn exchange(
        &self,
        exchange: &program::Exchange,
        given: Option<Tensor>,
        ready_us: f64,
    ) -> Result<Exchanged, String> {
        let operand = exchange.operand.as_ref();
        let value = match given {
            Some(given) => Some(self.exchange.exchange(&exchange.op, &given)?),
            None if operand.is_none() => Some(Tensor::scalar(self.rank as i64)),
            None => None,
        };
        let carried = match operand {
            Some(operand) => self.carry(&exchange.op, operand, ready_us)?,
            None => self.at_once(&exchange.op, &exchange.result, ready_us),
        };
        let (start_us, end_us) = (carried.start_us, carried.end_us);
        self.carried.lock().unwrap_or_else(PoisonError::into_inner).push(carried);
        Ok(Exchanged { value, start_us, end_us })
    }
}

impl Carrier<'_> {
    /// When an exchange begins and ends for which this rank is ready.
    pub(crate) fn carry(
        &self,
        op: &Op,
        operand: &TensorType,
        ready_us: f64,
    ) -> Result<Carried, String> {
        let mut carried = self.at_once(op, operand, ready_us);
        match ranks::parts(op) {
            Parts::Groups(groups) => {
                let group = groups.iter().find(|group| group.contains(&self.rank));
                let group = group
                    .ok_or_else(|| format!("rank {} is in no group of {}", self.rank, op.name()))?;
                if group.len() > 1 {
                    carried.start_us = self.last_of(group, ready_us)?;
                    let (time_us, algorithm) = self.fabric.time(op, operand, group)?;
                    carried.end_us = carried.start_us + time_us;
                    carried.algorithm = algorithm;
                    carried.group.clone_from(group);
                }
            }
            Parts::Pairs(pairs) => self.send(op, operand, pairs, &mut carried)?,
        }
        Ok(carried)
    }

    fn at_once(&self, op: &Op, operand: &TensorType, ready_us: f64) -> Carried {
        Carried {
            kind: op.name(),
            operand: operand.clone(),
            group: vec![self.rank],
            algorithm: "none".to_owned(),
            ready_us,
            start_us: ready_us,
            end_us: ready_us,
        }
    }

    /// When the last of a group is ready.
    fn last_of(&self, group: &[usize], ready_us: f64) -> Result<f64, String> {
        let who: Vec<usize> = match self.programs {
            None => group.to_vec(),
            Some(programs) => {
                let all: BTreeSet<usize> = group.iter().map(|&rank| programs[rank]).collect();
                all.into_iter().collect()
            }
        };
        // Ranks of one program are ready at one time.
        if who.len() == 1 {
            return Ok(ready_us);
        }
        let last = Op::from(AllReduce { combine: Combine::Max, groups: vec![who] });
        self.meet(&last, ready_us)
    }

    fn meet(&self, op: &Op, time_us: f64) -> Result<f64, String> {
        let met = self.exchange.exchange(op, &Tensor::scalar(time_us))?;
        Ok(met.values().to_f64().first().copied().unwrap_or(time_us))
    }

    /// A receiver waits for its message; a sender goes on when its own is sent.
    fn send(
        &self,
        op: &Op,
        operand: &TensorType,
        pairs: &[Vec<usize>],
        carried: &mut Carried,
    ) -> Result<(), String> {
        let sent = pairs.iter().find(|pair| pair[0] == self.rank);
        let received = pairs.iter().find(|pair| pair[1] == self.rank);
        let ready_us = carried.ready_us;
        let sender_us = match self.programs {
            None => self.meet(op, ready_us)?,
            Some(programs) => {
                let other = |pair: &&Vec<usize>| programs[pair[0]] != programs[pair[1]];
                let crossing = sent.filter(other).into_iter().chain(received.filter(other));
                let by_program =
                    |pair: &Vec<usize>| pair.iter().map(|&rank| programs[rank]).collect();
                let pairs: Vec<Vec<usize>> = crossing.map(by_program).collect();
                // Ranks of one program send to each other at one time.
                if pairs.is_empty() {
                    ready_us
                } else {
                    self.meet(&Op::from(Permute { pairs }), ready_us)?
                }
            }
        };
        for (pair, since) in [(received, sender_us), (sent, ready_us)] {
            let Some(pair) = pair else { continue };
            carried.group.clone_from(pair);
            if pair[0] != pair[1] {
                let (time_us, algorithm) = self.fabric.time(op, operand, pair)?;
                carried.algorithm = algorithm;
                carried.end_us = carried.end_us.max(since + time_us);
            }
        }
        if received.is_some() {
            carried.start_us = ready_us.max(sender_us).min(carried.end_us);
        }
        Ok(())
    }
}
