//! What a simulation tells.

use super::clock::{Clock, Ticks};
use super::code::ENGINES;
use super::engine::Simulation;
use super::feed::Feeder;
use crate::program::{Engine, Step};
use std::collections::BTreeMap;
use systole_compiler::tensor::Tensor;

/// Values, times and counts of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The results in the order of the program's, each as a flat tensor of its memory, padding included; empty without values.
    pub outputs: Vec<Tensor>,
    /// From the call to the last completion; 0 without time.
    pub time_us: f64,
    /// The same in the simulator's exact unit.
    pub time_ticks: u64,
    /// The unit: so many to a microsecond.
    pub ticks_per_us: u64,
    /// The time of the steps at load, which is not in `time_us`.
    pub load_us: f64,
    /// Each engine.
    pub engines: BTreeMap<Engine, EngineReport>,
    /// The DMA engines together.
    pub dma: DmaReport,
    /// Each call that was made, with all that repeated it, in the order of the steps.
    pub calls: Vec<CallReport>,
    /// Each source of each kernel that took time.
    pub ops: Vec<OpReport>,
    /// Useful operations of products.
    pub flops: u64,
    /// Operations that the array could have done at bf16 in the time that products hold it at full rate: f32 counts four
    /// times, partly filled arrays count as full.
    pub array_flops: u64,
    /// How long products hold TensorE.
    pub array_busy_us: f64,
    /// Bytes read from HBM.
    pub hbm_read_bytes: u64,
    /// Bytes written to HBM.
    pub hbm_written_bytes: u64,
    /// The most bytes of an SBUF partition in use at once.
    pub sbuf_peak_bytes: u64,
    /// The most bytes of a PSUM partition in use at once.
    pub psum_peak_bytes: u64,
    /// Instructions that ran, those skipped over in steady loops included.
    pub instructions: u64,
    /// Energy, for the core's share of the chip.
    pub energy_j: f64,
    /// Every call in order; empty where there is nobody to exchange with.
    pub made: Vec<CallTime>,
    /// What happened when; empty unless asked for.
    pub trace: Vec<TraceEvent>,
}

/// One call that was made.
#[derive(Clone, Debug, PartialEq)]
pub struct CallTime {
    /// Which of [`Report::calls`].
    pub call: usize,
    /// When its first instruction began, or its exchange.
    pub start_us: f64,
    /// When it was complete.
    pub end_us: f64,
    /// Of an exchange, when this rank was ready for it.
    pub ready_us: Option<f64>,
    /// The calls that it waited for.
    pub needs: Vec<usize>,
}

/// One engine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineReport {
    /// How long instructions held it.
    pub active_us: f64,
    /// Instructions.
    pub instructions: u64,
}

/// The DMA engines together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DmaReport {
    /// How long they were busy, all of them counted as one.
    pub active_us: f64,
    /// Bytes moved.
    pub bytes: u64,
    /// Transfers.
    pub transfers: u64,
    /// Contiguous rows.
    pub rows: u64,
}

/// All runs of one call.
#[derive(Clone, Debug, PartialEq)]
pub struct CallReport {
    /// The kernel's name.
    pub kernel: String,
    /// Source nodes.
    pub origins: Vec<String>,
    /// How often it was called.
    pub count: u64,
    /// When the first began.
    pub start_us: f64,
    /// When the last was complete.
    pub end_us: f64,
    /// What these calls add to the time: from the completion of all before to their own.
    pub time_us: f64,
    /// Whether it is an exchange with other ranks.
    pub exchange: bool,
}

/// The instructions of one source of one kernel, over all calls.
#[derive(Clone, Debug, PartialEq)]
pub struct OpReport {
    /// The kernel's name.
    pub kernel: String,
    /// What it is called in the kernel.
    pub name: String,
    /// Source nodes of the kernel.
    pub origins: Vec<String>,
    /// How long it held each engine.
    pub engines_us: BTreeMap<Engine, f64>,
    /// How long it held the DMA engines.
    pub dma_us: f64,
    /// The longest of these.
    pub time_us: f64,
    /// What that was: an engine's name, or `dma`.
    pub bound_by: &'static str,
}

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// On an engine.
    Engine(Engine),
    /// On a DMA queue.
    Queue(u8),
    /// Between ranks.
    Exchange,
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceEvent {
    /// Where.
    pub lane: Lane,
    /// When it began.
    pub start_us: f64,
    /// How long it took.
    pub duration_us: f64,
    /// The kernel's name.
    pub kernel: String,
    /// The source's name.
    pub name: String,
    /// Source nodes of the call.
    pub origins: Vec<String>,
}

/// The same while simulating.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    pub(super) lane: Lane,
    pub(super) start: Ticks,
    pub(super) end: Ticks,
    pub(super) call: u32,
    pub(super) source: u32,
}

/// What is counted: all of it adds up, so that repetitions multiply.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counters(Vec<u64>);

/// One number of [`Counters`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Counter {
    Instructions(usize),
    Active(usize),
    Flops,
    ArrayFlops,
    ArrayBusy,
    DmaBytes,
    DmaBusy,
    DmaRows,
    DmaTransfers,
    HbmRead,
    HbmWritten,
    /// A source, and an engine or 5 for DMA.
    Source(usize, usize),
}

const FIXED: usize = 19;

impl Counters {
    pub(super) fn new(sources: usize) -> Counters {
        Counters(vec![0; FIXED + 6 * (sources + 1)])
    }

    fn index(counter: Counter) -> usize {
        match counter {
            Counter::Instructions(engine) => engine,
            Counter::Active(engine) => 5 + engine,
            Counter::Flops => 10,
            Counter::ArrayFlops => 11,
            Counter::ArrayBusy => 12,
            Counter::DmaBytes => 13,
            Counter::DmaBusy => 14,
            Counter::DmaRows => 15,
            Counter::DmaTransfers => 16,
            Counter::HbmRead => 17,
            Counter::HbmWritten => 18,
            Counter::Source(source, engine) => FIXED + 6 * source + engine,
        }
    }

    pub(super) fn add(&mut self, counter: Counter, amount: u64) {
        let number = &mut self.0[Counters::index(counter)];
        *number = number.saturating_add(amount);
    }

    pub(super) fn get(&self, counter: Counter) -> u64 {
        self.0[Counters::index(counter)]
    }

    /// Adds `times` what was counted since `before`.
    pub(super) fn repeat(&mut self, before: &Counters, times: u64) {
        for (now, before) in self.0.iter_mut().zip(&before.0) {
            *now = now.saturating_add((*now - before).saturating_mul(times));
        }
    }
}

/// How an engine is written.
pub fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Tensor => "tensor",
        Engine::Vector => "vector",
        Engine::Scalar => "scalar",
        Engine::GpSimd => "gpsimd",
        Engine::Sync => "sync",
    }
}

/// Makes the report of a simulation that has ended.
pub(super) fn report(simulation: &Simulation<'_>, feeder: &Feeder<'_>, timed: bool) -> Report {
    let clock = simulation.clock;
    let counters = &simulation.counters;
    let us = |ticks| if timed { clock.microseconds(ticks) } else { 0.0 };
    let engines = ENGINES.iter().enumerate().filter_map(|(at, &engine)| {
        let instructions = counters.get(Counter::Instructions(at));
        let active_us = us(counters.get(Counter::Active(at)));
        (instructions > 0).then_some((engine, EngineReport { active_us, instructions }))
    });
    let engines: BTreeMap<Engine, EngineReport> = engines.collect();
    let (sbuf_peak_bytes, psum_peak_bytes) = peaks(simulation);
    let energy = &simulation.machine.energy;
    let last = simulation.finish.max(simulation.exchanged);
    let finish = if simulation.calls.is_empty() { 0 } else { last };
    let hbm_read_bytes = counters.get(Counter::HbmRead);
    let hbm_written_bytes = counters.get(Counter::HbmWritten);
    let array_flops = counters.get(Counter::ArrayFlops);
    let moving_j = (hbm_read_bytes + hbm_written_bytes) as f64 * energy.hbm_byte_pj * 1e-12;
    let energy_j = array_flops as f64 * energy.flop_pj * 1e-12
        + moving_j
        + us(finish) * 1e-6 * energy.static_watts;
    Report {
        outputs: Vec::new(),
        time_us: us(finish),
        time_ticks: if timed { finish } else { 0 },
        ticks_per_us: clock.units_per_us,
        load_us: 0.0,
        dma: DmaReport {
            active_us: us(counters.get(Counter::DmaBusy)),
            bytes: counters.get(Counter::DmaBytes),
            transfers: counters.get(Counter::DmaTransfers),
            rows: counters.get(Counter::DmaRows),
        },
        calls: if timed { calls(simulation, feeder, &clock) } else { Vec::new() },
        ops: if timed { ops(simulation, &clock) } else { Vec::new() },
        flops: counters.get(Counter::Flops),
        array_flops,
        array_busy_us: us(counters.get(Counter::ArrayBusy)),
        hbm_read_bytes,
        hbm_written_bytes,
        sbuf_peak_bytes,
        psum_peak_bytes,
        instructions: engines.values().map(|engine| engine.instructions).sum(),
        energy_j,
        made: if timed { made(simulation, &clock) } else { Vec::new() },
        trace: trace(simulation, feeder, &clock),
        engines,
    }
}

fn peaks(simulation: &Simulation<'_>) -> (u64, u64) {
    let bank = simulation.machine.psum.bank_bytes;
    let ends = simulation.calls.iter().map(|call| (u64::from(call.sbuf.1), u64::from(call.psum.1)));
    ends.fold((0, 0), |(sbuf, psum), (top, banks)| (sbuf.max(top), psum.max(banks * bank)))
}

fn calls(simulation: &Simulation<'_>, feeder: &Feeder<'_>, clock: &Clock) -> Vec<CallReport> {
    let mut reports: Vec<CallReport> = Vec::new();
    for step in &feeder.steps {
        let (kernel, origins) = match step {
            Step::Call { kernel, origins, .. } => (*kernel as usize, origins.clone()),
            Step::If { .. } | Step::While { .. } | Step::For { .. } => (0, Vec::new()),
        };
        reports.push(CallReport {
            kernel: simulation.program.kernels[kernel].name.clone(),
            origins,
            count: 0,
            start_us: f64::INFINITY,
            end_us: 0.0,
            time_us: 0.0,
            exchange: simulation.program.kernels[kernel].exchange.is_some(),
        });
    }
    let mut reached = 0;
    for call in &simulation.calls {
        let report = &mut reports[call.step];
        let end = call.completed.unwrap_or(call.latest);
        let start = clock.microseconds(call.first.unwrap_or(end));
        report.count += 1;
        report.start_us = report.start_us.min(start);
        report.end_us = report.end_us.max(clock.microseconds(end));
        report.time_us += clock.microseconds(end.saturating_sub(reached));
        reached = reached.max(end);
    }
    reports
}

fn made(simulation: &Simulation<'_>, clock: &Clock) -> Vec<CallTime> {
    if !simulation.exchanges() {
        return Vec::new();
    }
    let calls = simulation.calls.iter().map(|call| {
        let end = call.completed.unwrap_or(call.latest);
        let exchange = simulation.code[call.kernel].kernel.exchange.is_some();
        let mut needs: Vec<usize> =
            call.data.iter().flatten().chain(&call.space).copied().collect();
        needs.sort_unstable();
        needs.dedup();
        CallTime {
            call: call.step,
            start_us: clock.microseconds(call.first.unwrap_or(end)),
            end_us: clock.microseconds(end),
            ready_us: exchange.then(|| clock.microseconds(call.began)),
            needs,
        }
    });
    calls.collect()
}

fn ops(simulation: &Simulation<'_>, clock: &Clock) -> Vec<OpReport> {
    let mut reports = Vec::new();
    for code in simulation.code {
        for source in 0..=code.kernel.sources.len() {
            let at = code.first_source + source;
            let held = |engine| {
                let ticks = simulation.counters.get(Counter::Source(at, engine));
                clock.microseconds(ticks)
            };
            let engines_us: BTreeMap<Engine, f64> = ENGINES
                .iter()
                .enumerate()
                .map(|(at, &engine)| (engine, held(at)))
                .filter(|(_, time)| *time > 0.0)
                .collect();
            let dma_us = held(5);
            let (mut time_us, mut bound_by) = (dma_us, "dma");
            for (&engine, &time) in &engines_us {
                if time > time_us {
                    (time_us, bound_by) = (time, engine_name(engine));
                }
            }
            if time_us > 0.0 {
                reports.push(OpReport {
                    kernel: code.kernel.name.clone(),
                    name: code.kernel.sources.get(source).cloned().unwrap_or_default(),
                    origins: code.kernel.origins.clone(),
                    engines_us,
                    dma_us,
                    time_us,
                    bound_by,
                });
            }
        }
    }
    reports
}

fn trace(simulation: &Simulation<'_>, feeder: &Feeder<'_>, clock: &Clock) -> Vec<TraceEvent> {
    let events = simulation.events.iter().map(|event| {
        let call = &simulation.calls[event.call as usize];
        let kernel = simulation.code[call.kernel].kernel;
        let origins = match feeder.steps.get(call.step) {
            Some(Step::Call { origins, .. }) => origins.clone(),
            Some(Step::If { .. } | Step::While { .. } | Step::For { .. }) | None => Vec::new(),
        };
        TraceEvent {
            lane: event.lane,
            start_us: clock.microseconds(event.start),
            duration_us: clock.microseconds(event.end - event.start),
            kernel: kernel.name.clone(),
            name: kernel.sources.get(event.source as usize).cloned().unwrap_or_default(),
            origins,
        }
    });
    events.collect()
}
