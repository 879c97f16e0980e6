//! Ranks on modeled cores: with values every rank has a simulator, without them one rank stands for all that run its program.

use super::{Made, Ranks, wrong};
use crate::accelerator::{Accelerator, Others};
use crate::carrier::{Carried, Carrier};
use crate::engine::{self, Setting};
use crate::error::{Error, ErrorKind};
use crate::options::RunOptions;
use crate::profile;
use crate::report::CompileTimes;
use crate::roofline;
use crate::target::{Kind, Systolic};
use crate::timeline::{self, RankTimeline, Span, Timeline};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use systole_compiler::diagnostic::Code;
use systole_compiler::graph::Function;
use systole_compiler::op::{Constant, Op};
use systole_compiler::passes::shard::Divided;
use systole_compiler::ranks::{self, Exchange};
use systole_compiler::rewrite::{Rewrite, rewrite};
use systole_compiler::tensor::Tensor;
use systole_systolic::simulate::Report;

impl Ranks {
    /// The timeline of the last run on modeled cores.
    pub(crate) fn last(&self) -> Option<Timeline> {
        match &self.made {
            Made::Cores { last, .. } => last.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Made::Engines(_) => None,
        }
    }

    pub(super) fn run_core(
        &self,
        bases: &[Accelerator],
        weights: &[(String, Tensor)],
        (rank, exchange): (usize, &dyn Exchange),
        inputs: &[Tensor],
        options: &RunOptions,
    ) -> Result<(Vec<Tensor>, Time), Error> {
        let number = self.divided.program_of[rank];
        let weight = |name: &str| {
            let (_, whole) = weights.iter().find(|(known, _)| known == name)?;
            self.divided.weight(rank, name, whole)
        };
        let core = bases[number].with_weights(&weight)?;
        let fabric = self.fabric.as_ref().expect("modeled cores have a fabric");
        let carrier = Carrier { fabric, exchange, rank, programs: None, carried: Mutex::default() };
        let others = Others { exchanger: &carrier, busy_cores: self.busy_cores() };
        let parts = self.divided.inputs(rank, inputs);
        let (outputs, report, simulate_ms) = core.run_with(&parts, options, Some(&others))?;
        let carried = carrier.carried.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((outputs, Time { report, carried, simulate_ms }))
    }

    /// How many cores of one chip are ranks.
    fn busy_cores(&self) -> usize {
        let cores = self.fabric.as_ref().map_or(1, |fabric| fabric.cores);
        cores.min(self.divided.program_of.len())
    }

    /// The timeline of all ranks: of those that run one program, the one that takes longest stands for all.
    pub(super) fn of_all(
        &self,
        bases: &[Accelerator],
        times: Vec<Time>,
        simulate_ms: f64,
    ) -> Option<Timeline> {
        let mut longest: BTreeMap<usize, Time> = BTreeMap::new();
        for (&number, time) in self.divided.program_of.iter().zip(times) {
            if time.report.time_us <= 0.0 {
                return None;
            }
            let known = longest.get(&number);
            if known.is_none_or(|known| time.report.time_us > known.report.time_us) {
                longest.insert(number, time);
            }
        }
        let programs = longest
            .into_iter()
            .map(|(number, time)| self.rank_timeline(number, &bases[number], &time));
        Some(self.timeline_of(
            programs.collect(),
            bases[0].systolic.machine.name.clone(),
            simulate_ms,
        ))
    }

    fn rank_timeline(&self, number: usize, core: &Accelerator, time: &Time) -> RankTimeline {
        let profile = profile::of_report(core, &time.report, time.simulate_ms);
        let mut carried = time.carried.iter();
        let made = time.report.made.iter();
        let spans = made.map(|call| {
            let of = &time.report.calls[call.call];
            if let Some(carried) = call.ready_us.and_then(|_| carried.next()) {
                let span = Span::of_exchange(carried, of.origins.clone(), call.needs.clone());
                // The core's clock has the last word.
                return Span { end_us: call.end_us, ..span };
            }
            let op = &profile.ops[call.call];
            let cause = if op.bound_by == "latency" { op.bound_by } else { op.engine };
            Span {
                name: of.kernel.clone(),
                origins: of.origins.clone(),
                start_us: call.start_us,
                end_us: call.end_us,
                cause,
                needs: call.needs.clone(),
                exchange: None,
            }
        });
        let spans = spans.collect();
        RankTimeline::new(self.ranks_of(number), spans, Some(profile))
    }

    fn ranks_of(&self, number: usize) -> Vec<usize> {
        let all = self.divided.program_of.iter().enumerate();
        all.filter(|(_, program)| **program == number).map(|(rank, _)| rank).collect()
    }

    fn timeline_of(
        &self,
        programs: Vec<RankTimeline>,
        target: String,
        simulate_ms: f64,
    ) -> Timeline {
        let axes = self.divided.mesh.axes.iter();
        let axes: Vec<String> = axes.map(|(name, size)| format!("{name}={size}")).collect();
        Timeline {
            target,
            system: self.fabric.as_ref().map_or(String::new(), |fabric| fabric.system.name.clone()),
            mesh: axes.join(","),
            ranks: self.divided.program_of.len(),
            time_us: programs.iter().map(|program| program.time_us).fold(0.0, f64::max),
            path: timeline::path(&programs),
            programs,
            simulate_ms,
        }
    }

    /// The timeline of a run without values. Ranks that run one program are alike, and one of each is simulated. Without
    /// modeled cores, the chips of the system are rooflines.
    pub(crate) fn timeline(
        &self,
        setting: Setting<'_>,
        scalars: &BTreeMap<String, i64>,
        trace: bool,
    ) -> Result<Timeline, Error> {
        let start = Instant::now();
        let Some(fabric) = &self.fabric else {
            return Err(wrong("there is no system to time the ranks on".to_owned())
                .with_help("name one with --system"));
        };
        let programs = self.divided.programs.len();
        let no_thread = |why: String| Error::new(ErrorKind::DoesNotFit, Code::TooLarge, why);
        let found = ranks::run(programs, no_thread, &|number, exchange| {
            let program_of = &self.divided.program_of;
            let first = program_of.iter().position(|&program| program == number);
            let rank = first.expect("a program is that of a rank");
            let carrier = Carrier {
                fabric,
                exchange,
                rank,
                programs: Some(program_of),
                carried: Mutex::default(),
            };
            match &self.made {
                Made::Cores { bases, .. } => {
                    let own = self.core_of(number, rank, setting)?;
                    let core = own.as_ref().unwrap_or(&bases[number]);
                    let others = Others { exchanger: &carrier, busy_cores: self.busy_cores() };
                    let (report, simulate_ms) =
                        core.time(scalars, trace, setting.limits, Some(&others))?;
                    let carried =
                        carrier.carried.into_inner().unwrap_or_else(PoisonError::into_inner);
                    let time = Time { report, carried, simulate_ms };
                    Ok(self.rank_timeline(number, core, &time))
                }
                Made::Engines(_) => {
                    let module =
                        engine::lowered(self.divided.programs[number].graph.clone(), setting)?;
                    let spans = roofline::spans(&module, &fabric.system.device, &carrier, scalars)?;
                    Ok(RankTimeline::new(self.ranks_of(number), spans, None))
                }
            }
        })?;
        let target = match &self.made {
            Made::Cores { bases, .. } => bases[0].systolic.machine.name.clone(),
            Made::Engines(_) => fabric.system.device.name.clone(),
        };
        Ok(self.timeline_of(found, target, start.elapsed().as_secs_f64() * 1e3))
    }

    /// The code of one rank, whose number is then no matter of data: nothing where the program never asks for it.
    fn core_of(
        &self,
        number: usize,
        rank: usize,
        setting: Setting<'_>,
    ) -> Result<Option<Accelerator>, Error> {
        let Kind::Systolic(systolic) = &setting.compiler.target.kind else { return Ok(None) };
        let mut graph = self.divided.programs[number].graph.clone();
        let asks = |function: &Function| {
            function.nodes.iter().any(|(_, node)| matches!(node.op, Op::Rank(_)))
        };
        if !graph.functions.values().any(asks) {
            return Ok(None);
        }
        for function in graph.functions.values_mut() {
            let told = rewrite(function, &mut |builder, node, _| {
                let Op::Rank(_) = &node.op else { return Ok(Rewrite::Keep) };
                let value = builder.add(Constant { value: Tensor::scalar(rank as i64) }, &[])?;
                Ok(Rewrite::Replace(std::iter::once(value).collect()))
            });
            *function = told.expect("a rank's number has the type of the question");
        }
        let module = engine::lowered(graph, setting)?;
        Accelerator::new(&module, systolic).map(Some)
    }
}

/// What one rank's run took.
#[derive(Debug)]
pub(super) struct Time {
    report: Report,
    carried: Vec<Carried>,
    simulate_ms: f64,
}

/// Code for modeled cores.
pub(super) fn cores(
    divided: &Divided,
    weights: Vec<(String, Tensor)>,
    systolic: &Arc<Systolic>,
    setting: Setting<'_>,
) -> Result<(Made, CompileTimes), Error> {
    let mut bases = Vec::new();
    let mut times = CompileTimes::default();
    for program in &divided.programs {
        let module = engine::lowered(program.graph.clone(), setting)?;
        let start = Instant::now();
        bases.push(Accelerator::new(&module, systolic)?);
        times.code += start.elapsed();
    }
    Ok((Made::Cores { bases, weights, last: Mutex::default() }, times))
}
