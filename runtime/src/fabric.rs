//! What exchanges between ranks take on a modeled system: the partitioner chooses by it, and it can be asked afterwards.

use crate::error::{Error, ErrorKind};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use systole_compiler::diagnostic::Code;
use systole_compiler::graph::{Graph, NodeId};
use systole_compiler::mesh::Mesh;
use systole_compiler::op::{Kind as OpKind, Op};
use systole_compiler::passes::shard::{BytesSent, Cost, Divided, Exchanged};
use systole_compiler::ranks::{self, Parts};
use systole_compiler::types::{DType, TensorType};
use systole_interconnect::{Element, Group, Kind, Options, PRESETS, System, collective_time};

/// A system as the partitioner sees it: rank `n` is place `n`, a chip, or a core where cores are the ranks.
#[derive(Debug)]
pub(crate) struct Fabric {
    pub(crate) system: System,
    /// How many cores of a chip are ranks.
    pub(crate) cores: usize,
    /// What has been asked before.
    known: Mutex<BTreeMap<Asked, Option<(f64, String)>>>,
}

/// A collective, the bytes as the interconnect counts them, the element type, and the ranks.
type Asked = (Kind, usize, &'static str, Vec<usize>);

/// An exchange between ranks of a compiled program, as a system is predicted to do it.
#[derive(Clone, Debug, PartialEq)]
pub struct Communication {
    /// `all-reduce`, `all-gather`, `reduce-scatter`, `all-to-all` or `permute`.
    pub kind: &'static str,
    /// What each rank gives.
    pub operand: TensorType,
    /// How many ranks take part together.
    pub ranks: usize,
    /// The source nodes that it came from.
    pub origins: Vec<String>,
    /// How long it takes, where the system can do it.
    pub time_us: Option<f64>,
    /// The algorithm that is predicted fastest.
    pub algorithm: Option<String>,
}

impl Fabric {
    /// The system of that name, or of that description file, with a chip for each of so many ranks.
    pub(crate) fn named(name: &str, ranks: usize) -> Result<Fabric, Error> {
        let system = crate::plan::load(name, &[]).map_err(wrong)?;
        Fabric::of(system, ranks, "chips")
    }

    /// The same with a core for each rank. Where no system is named, it is the first one whose cores that machine is, as many
    /// as are needed.
    pub(crate) fn of_cores(
        name: Option<&str>,
        machine: &str,
        ranks: usize,
    ) -> Result<Fabric, Error> {
        let system = match name {
            Some(name) => crate::plan::load(name, &[]).map_err(wrong)?,
            None => {
                let presets = PRESETS.iter().filter(|preset| preset.name.starts_with(machine));
                let systems = presets.filter_map(|preset| System::named(preset.name, &[])?.ok());
                let is_it = |system: &System| {
                    let own = system.device.machine.as_ref();
                    own.is_some_and(|(name, cores)| name == machine && *cores > 1)
                };
                let found = systems.into_iter().find(is_it).ok_or_else(|| {
                    wrong(format!("no system is known whose cores are {machine}"))
                        .with_help("name one with --system")
                })?;
                let cores = found.device.machine.as_ref().map_or(1, |(_, cores)| *cores);
                let count = ranks.div_ceil(found.chips() * cores);
                found.times(count).unwrap_or(found)
            }
        };
        let own = system.device.machine.as_ref().map(|(name, _)| name.as_str());
        if own != Some(machine) {
            let device = &system.device.name;
            let message = format!("{} has chips of {device}, not cores of {machine}", system.name);
            return Err(wrong(message));
        }
        Fabric::of(system.by_cores(), ranks, "cores")
    }

    fn of(system: System, ranks: usize, what: &str) -> Result<Fabric, Error> {
        let places = system.chips();
        if places < ranks {
            let name = &system.name;
            let message = format!("{name} has {places} {what}, but the mesh has {ranks} ranks");
            return Err(wrong(message).with_help("several of one system are NAME*COUNT"));
        }
        let inner = system.tiers.first().map_or(1, |tier| tier.size());
        let cores = if what == "cores" { inner } else { 1 };
        Ok(Fabric { system, cores, known: Mutex::default() })
    }

    fn predict(
        &self,
        kind: Kind,
        ranks: &[usize],
        bytes: usize,
        dtype: DType,
    ) -> Option<(f64, String)> {
        let key = (kind, bytes, dtype.name(), ranks.to_vec());
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(&key) {
            return found.clone();
        }
        let found = self.predict_anew(kind, ranks, bytes, dtype);
        known().insert(key, found.clone());
        found
    }

    /// How long an op takes among those ranks who meet in it, from what each gives; with the algorithm.
    pub(crate) fn time(
        &self,
        op: &Op,
        operand: &TensorType,
        group: &[usize],
    ) -> Result<(f64, String), String> {
        let refused = || format!("{} cannot do {} among {group:?}", self.system.name, op.name());
        let kind = kind(op).ok_or_else(refused)?;
        let bytes = whole_bytes(kind, operand.bytes(), group.len());
        if bytes == 0 {
            return Ok((0.0, "none".to_owned()));
        }
        self.predict(kind, group, bytes, operand.dtype).ok_or_else(refused)
    }

    fn predict_anew(
        &self,
        kind: Kind,
        ranks: &[usize],
        bytes: usize,
        dtype: DType,
    ) -> Option<(f64, String)> {
        let chips = ranks.iter().map(|&rank| u32::try_from(rank).ok()).collect::<Option<_>>()?;
        let element = Element::named(dtype.name()).unwrap_or_else(Element::bf16);
        let options = Options { element, ..Options::default() };
        let found =
            collective_time(&self.system, kind, &Group::of(chips), bytes as u64, &options).ok()?;
        Some((found.time_us, found.algorithm))
    }

    /// The exchanges of the programs of ranks, each where it is first issued.
    pub(crate) fn communications(&self, divided: &Divided) -> Vec<Communication> {
        let mut found = Vec::new();
        for program in &divided.programs {
            let function = program.graph.entry();
            function.visit(&function.body, &mut |id| {
                found.extend(self.communication(&program.graph, id));
            });
        }
        found
    }

    fn communication(&self, graph: &Graph, id: NodeId) -> Option<Communication> {
        let function = graph.entry();
        let node = &function.nodes[id];
        if node.op.kind() != OpKind::Collective || node.operands.is_empty() {
            return None;
        }
        let operand = function.ty(node.operands[0]).clone();
        let group = match ranks::parts(&node.op) {
            Parts::Groups(groups) => groups.first()?.clone(),
            Parts::Pairs(pairs) => pairs.first()?.clone(),
        };
        let predicted = kind(&node.op).and_then(|kind| {
            let bytes = whole_bytes(kind, operand.bytes(), group.len());
            self.predict(kind, &group, bytes, operand.dtype)
        });
        let origins =
            node.origins.iter().filter_map(|&index| graph.origins.get_index(index as usize));
        Some(Communication {
            kind: node.op.name(),
            ranks: group.len(),
            origins: origins.cloned().collect(),
            time_us: predicted.as_ref().map(|(time_us, _)| *time_us),
            algorithm: predicted.map(|(_, algorithm)| algorithm),
            operand,
        })
    }
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Input, Code::Input, message)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "only collectives are exchanged")]
fn kind(op: &Op) -> Option<Kind> {
    match op {
        Op::AllReduce(_) => Some(Kind::AllReduce),
        Op::AllGather(_) => Some(Kind::AllGather),
        Op::ReduceScatter(_) => Some(Kind::ReduceScatter),
        Op::AllToAll(_) => Some(Kind::AllToAll),
        Op::Permute(_) => Some(Kind::PointToPoint),
        _ => None,
    }
}

/// The bytes as the interconnect counts them, from those that each rank gives.
fn whole_bytes(kind: Kind, bytes: usize, ranks: usize) -> usize {
    match kind {
        Kind::AllGather => bytes.saturating_mul(ranks),
        Kind::AllReduce
        | Kind::ReduceScatter
        | Kind::AllToAll
        | Kind::Broadcast
        | Kind::Permute
        | Kind::PointToPoint => bytes,
    }
}

impl Cost for Fabric {
    fn cost(&self, what: Exchanged, bytes: usize, axes: &[usize], mesh: &Mesh) -> f64 {
        let kind = match what {
            Exchanged::AllReduce => Kind::AllReduce,
            Exchanged::AllGather => Kind::AllGather,
            Exchanged::ReduceScatter => Kind::ReduceScatter,
            Exchanged::AllToAll => Kind::AllToAll,
            Exchanged::Permute => Kind::Permute,
        };
        let groups = mesh.groups(axes, |_| true);
        let Some(group) = groups.first().filter(|_| bytes > 0) else { return 0.0 };
        let bytes_counted = whole_bytes(kind, bytes, group.len());
        // What the system cannot do is dear, but can be compared.
        let dear = || 1e9 + BytesSent.cost(what, bytes, axes, mesh);
        self.predict(kind, group, bytes_counted, DType::F32).map_or_else(dear, |(time, _)| time)
    }
}
