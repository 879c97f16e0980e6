//! The time of a program on a modeled accelerator: where it goes, and what bounds it.

use crate::accelerator::Accelerator;
use std::collections::BTreeMap;
use systole_compiler::kernel::{Kernel, Stmt, TileId, TileOp};
use systole_compiler::module::{Module, Step};
use systole_compiler::types::DType;
use systole_systolic::machine::Machine;
use systole_systolic::program::Engine;
use systole_systolic::simulate::{self, Report};

/// The time of one run on a modeled core.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// The target's name.
    pub target: String,
    /// Whether the machine's numbers are announced ratios alone.
    pub announced: bool,
    /// The time of a run.
    pub time_us: f64,
    /// What steps at load take, once.
    pub load_us: f64,
    /// The least that the graph could take after fusion; `None` for programs that came without one.
    pub bound_us: Option<f64>,
    /// What gives the bound: `compute` or `memory`; without a bound, what was busiest.
    pub bound_by: String,
    /// Operations of products, each multiplication and addition once.
    pub flops: u64,
    /// Bytes from and to HBM.
    pub hbm_bytes: u64,
    /// Bytes of HBM that weights, inputs, results and everything between take.
    pub resident_bytes: u64,
    /// The largest of those tensors, with their bytes.
    pub largest_tensors: Vec<(String, u64)>,
    /// Operations of products, of what the array does at bf16 in that time.
    pub mfu: f64,
    /// The same for the operations that the hardware carries out: f32 counts four times.
    pub hfu: f64,
    /// Bytes from and to HBM, of what the memory could have moved.
    pub mbu: f64,
    /// Each engine, then the DMA engines together as `dma`.
    pub engines: Vec<EngineProfile>,
    /// Each kernel in the order of its first call.
    pub ops: Vec<OpProfile>,
    /// The most bytes of an SBUF partition in use at once.
    pub sbuf_peak_bytes: u64,
    /// The most bytes of a PSUM partition in use at once.
    pub psum_peak_bytes: u64,
    /// Instructions that ran.
    pub instructions: u64,
    /// How long the simulation took.
    pub simulate_ms: f64,
    /// Energy, for the core's share of the chip.
    pub energy_j: f64,
    /// What was narrowed, one line each.
    pub casts: Vec<String>,
    /// Kernels that ran as exact code on general processors, with the reason.
    pub fallbacks: Vec<(String, String)>,
    /// What happened when; empty unless asked for.
    pub events: Vec<ProfileEvent>,
}

/// One engine's share of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineProfile {
    /// The engine.
    pub name: &'static str,
    /// How long instructions held it.
    pub active_us: f64,
    /// Instructions, or transfers.
    pub instructions: u64,
}

/// One kernel's share of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct OpProfile {
    /// The kernel's name.
    pub name: String,
    /// The source nodes it came from.
    pub origins: Vec<String>,
    /// How often it ran.
    pub count: u64,
    /// What it adds to the time of the run.
    pub time_us: f64,
    /// `compute`, `memory`, `communication`, or `latency` where nothing was busy for half of the time.
    pub bound_by: &'static str,
    /// What was busiest: an engine, `dma`, or `fabric`.
    pub engine: &'static str,
}

/// Something that took time.
#[derive(Clone, Debug, PartialEq)]
pub struct ProfileEvent {
    /// The row that it belongs to: an engine, or a DMA queue.
    pub lane: String,
    /// When it began.
    pub start_us: f64,
    /// How long it took.
    pub duration_us: f64,
    /// What it was part of.
    pub name: String,
    /// The source nodes.
    pub origins: Vec<String>,
}

/// The least that a module could take on a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Bound {
    /// Products at the array's peak.
    pub(crate) compute_us: f64,
    /// Each kernel's tensors once from or to HBM, at the practical bandwidth.
    pub(crate) memory_us: f64,
}

impl Bound {
    pub(crate) fn us(&self) -> f64 {
        self.compute_us.max(self.memory_us)
    }

    pub(crate) fn by(&self) -> &'static str {
        if self.compute_us >= self.memory_us { "compute" } else { "memory" }
    }
}

/// What a module asks of a machine at least, kernel by kernel.
pub(crate) fn bound(module: &Module, machine: &Machine) -> Bound {
    let needs: Vec<Need> = module.kernels.iter().map(|(_, kernel)| need(kernel, machine)).collect();
    let mut total = Need::default();
    steps(module, &module.steps, &needs, 1.0, &mut total);
    let peak = machine.tensor_flops();
    Bound {
        compute_us: total.array_flops / peak * 1e6,
        memory_us: total.bytes / (machine.dma.practical_gbs * 1e3),
    }
}

/// What a kernel asks of a device at least.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Operations of products, by the wider type of their operands.
    pub(crate) flops: BTreeMap<DType, f64>,
    /// Each tensor once from or to memory.
    pub(crate) bytes: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Need {
    /// Operations, as many as the array could have done at bf16 instead.
    array_flops: f64,
    bytes: f64,
}

fn steps(module: &Module, list: &[Step], needs: &[Need], times: f64, total: &mut Need) {
    for step in list {
        match step {
            Step::Kernel { kernel, .. } => {
                let need = needs[kernel.index()];
                total.array_flops += need.array_flops * times;
                total.bytes += need.bytes * times;
            }
            Step::Copy { from, to } => {
                let bytes = module.buffers[*from].bytes() + module.buffers[*to].bytes();
                total.bytes += bytes as f64 * times;
            }
            // What ranks exchange goes over the fabric, whose time is not the core's.
            Step::Collective { .. } => {}
            // Of two ways the first counts, and of an open number of repetitions one: nothing less is certain.
            Step::If { then, .. } => steps(module, then, needs, times, total),
            Step::While { before, body, .. } => {
                steps(module, before, needs, times, total);
                steps(module, body, needs, times, total);
            }
            Step::For { count, body, .. } => {
                steps(module, body, needs, times * *count as f64, total);
            }
        }
    }
}

fn need(kernel: &Kernel, machine: &Machine) -> Need {
    let work = work(kernel);
    let passes = |dtype: DType| match dtype.bytes() {
        0 | 1 => 1.0 / machine.array.double_row_count.max(1) as f64,
        2 => 1.0,
        _ => machine.array.f32_pass_count as f64,
    };
    let array_flops = work.flops.iter().map(|(&dtype, flops)| flops * passes(dtype)).sum();
    Need { array_flops, bytes: work.bytes }
}

/// What a kernel asks of a device.
pub(crate) fn work(kernel: &Kernel) -> Work {
    let mut moved = BTreeMap::new();
    let mut work = Work::default();
    walk(kernel, &kernel.body, 1.0, &mut work, &mut moved);
    for (at, (_, operand)) in kernel.operands.iter().enumerate() {
        let bytes = (operand.ty().count() * operand.dtype.bytes()) as f64;
        let (read, written) = moved.get(&at).copied().unwrap_or_default();
        work.bytes += f64::min(read, bytes) + f64::min(written, bytes);
    }
    work
}

/// What statements read and write of each operand, and their products.
fn walk(
    kernel: &Kernel,
    body: &[Stmt],
    times: f64,
    work: &mut Work,
    moved: &mut BTreeMap<usize, (f64, f64)>,
) {
    let bytes = |tile: TileId, dtype: DType| {
        let count: f64 = kernel.tiles[tile].dims.iter().map(|&(_, size)| size as f64).product();
        count * dtype.bytes() as f64 * times
    };
    for stmt in body {
        match stmt {
            Stmt::Define { results, op } => match op {
                TileOp::Load { operand, .. } | TileOp::Gather { operand, .. } => {
                    let dtype = kernel.operands[*operand].dtype;
                    let read: f64 = results.iter().map(|&tile| bytes(tile, dtype)).sum();
                    moved.entry(operand.index()).or_default().0 += read;
                }
                TileOp::Contract { a, b, over, .. } => {
                    if let Some((dtype, flops)) = products(kernel, *a, *b, over) {
                        *work.flops.entry(dtype).or_default() += flops * times;
                    }
                }
                TileOp::Fill { .. }
                | TileOp::View { .. }
                | TileOp::Map { .. }
                | TileOp::Reduce { .. }
                | TileOp::ArgReduce { .. }
                | TileOp::Scan { .. }
                | TileOp::Sort { .. }
                | TileOp::Rearrange { .. } => {}
            },
            Stmt::Store { operand, tile, .. } => {
                let dtype = kernel.operands[*operand].dtype;
                moved.entry(operand.index()).or_default().1 += bytes(*tile, dtype);
            }
            Stmt::Scatter { operand, tile, combine, .. } => {
                let dtype = kernel.operands[*operand].dtype;
                let entry = moved.entry(operand.index()).or_default();
                entry.1 += bytes(*tile, dtype);
                if combine.is_some() {
                    entry.0 += bytes(*tile, dtype);
                }
            }
            Stmt::For(inner) => {
                let trips = trips(inner);
                walk(kernel, &inner.body, times * trips, work, moved);
            }
        }
    }
}

/// How often a loop runs; where its ends vary, half of its greatest range is as likely as any.
fn trips(inner: &systole_compiler::kernel::Loop) -> f64 {
    let range = inner.end.constant.saturating_sub(inner.start.constant).max(0) as f64;
    (range / inner.step.max(1) as f64).ceil().max(1.0)
}

/// Operations of a product, and the wider type of its operands.
fn products(
    kernel: &Kernel,
    a: TileId,
    b: TileId,
    over: &[systole_compiler::kernel::Axis],
) -> Option<(DType, f64)> {
    let mut axes = BTreeMap::new();
    for tile in [a, b] {
        axes.extend(kernel.tiles[tile].dims.iter().copied());
    }
    // Without an axis to sum there is no product for the array.
    if over.is_empty() {
        return None;
    }
    let count: f64 = axes.values().map(|&size| size as f64).product();
    let types = [a, b].map(|tile| kernel.tiles[tile].dtype);
    let widest = if types[0].bytes() >= types[1].bytes() { types[0] } else { types[1] };
    Some((widest, 2.0 * count))
}

/// The profile of a run.
pub(crate) fn of_report(code: &Accelerator, report: &Report, simulate_ms: f64) -> Profile {
    let machine = &code.systolic.machine;
    let seconds = report.time_us * 1e-6;
    let share =
        |amount: f64, rate: f64| if seconds > 0.0 { amount / (rate * seconds) } else { 0.0 };
    let peak = machine.tensor_flops();
    let hbm_bytes = report.hbm_read_bytes + report.hbm_written_bytes;
    let mut engines: Vec<EngineProfile> =
        [Engine::Tensor, Engine::Vector, Engine::Scalar, Engine::GpSimd, Engine::Sync]
            .into_iter()
            .map(|engine| {
                let found = report.engines.get(&engine).copied().unwrap_or_default();
                let name = simulate::engine_name(engine);
                EngineProfile { name, active_us: found.active_us, instructions: found.instructions }
            })
            .collect();
    engines.push(EngineProfile {
        name: "dma",
        active_us: report.dma.active_us,
        instructions: report.dma.transfers,
    });
    let busiest = engines
        .iter()
        .max_by(|a, b| a.active_us.total_cmp(&b.active_us))
        .map_or("dma", |engine| engine.name);
    Profile {
        target: machine.name.clone(),
        announced: machine.announced,
        time_us: report.time_us,
        load_us: report.load_us,
        bound_us: code.bound.map(|bound| bound.us()),
        bound_by: code.bound.map_or(side(busiest), |bound| bound.by()).to_owned(),
        flops: report.flops,
        hbm_bytes,
        resident_bytes: resident_bytes(&code.program),
        largest_tensors: largest_tensors(&code.program),
        mfu: share(report.flops as f64, peak),
        hfu: share(report.array_flops as f64, peak),
        mbu: share(hbm_bytes as f64, machine.hbm.stack_gbs * 1e9),
        engines,
        ops: ops(report),
        sbuf_peak_bytes: report.sbuf_peak_bytes,
        psum_peak_bytes: report.psum_peak_bytes,
        instructions: report.instructions,
        simulate_ms,
        energy_j: report.energy_j,
        casts: code.casts.clone(),
        fallbacks: code.fallbacks.clone(),
        events: events(report),
    }
}

/// How many tensors are told of where the memory is too small.
const LARGEST: usize = 6;

fn largest_tensors(program: &systole_systolic::program::Program) -> Vec<(String, u64)> {
    let own = program.tensors.iter().filter(|tensor| tensor.alias.is_none());
    let bytes = |tensor: &systole_systolic::program::Tensor| {
        tensor.elements.saturating_mul(tensor.dtype.bytes() as u64)
    };
    let mut all: Vec<(String, u64)> =
        own.map(|tensor| (tensor.name.clone(), bytes(tensor))).collect();
    all.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    all.truncate(LARGEST);
    all
}

/// What all tensors take that are not the memory of another one.
fn resident_bytes(program: &systole_systolic::program::Program) -> u64 {
    let own = program.tensors.iter().filter(|tensor| tensor.alias.is_none());
    own.map(|tensor| tensor.elements.saturating_mul(tensor.dtype.bytes() as u64))
        .fold(0, u64::saturating_add)
}

fn side(busiest: &str) -> &'static str {
    if busiest == "dma" { "memory" } else { "compute" }
}

fn ops(report: &Report) -> Vec<OpProfile> {
    // How long each kernel held what, over all of its calls.
    let mut held: BTreeMap<&str, BTreeMap<&'static str, f64>> = BTreeMap::new();
    for op in &report.ops {
        let entry = held.entry(&op.kernel).or_default();
        for (&engine, &us) in &op.engines_us {
            *entry.entry(simulate::engine_name(engine)).or_default() += us;
        }
        *entry.entry("dma").or_default() += op.dma_us;
    }
    let mut whole: BTreeMap<&str, f64> = BTreeMap::new();
    for call in &report.calls {
        *whole.entry(&call.kernel).or_default() += call.time_us;
    }
    let row = |call: &simulate::CallReport| {
        let busiest = held.get(call.kernel.as_str()).and_then(|engines| {
            engines.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(&name, &us)| (name, us))
        });
        let (engine, busy) = busiest.unwrap_or(("sync", 0.0));
        if call.exchange {
            return OpProfile {
                name: call.kernel.clone(),
                origins: call.origins.clone(),
                count: call.count,
                time_us: call.time_us,
                bound_by: "communication",
                engine: "fabric",
            };
        }
        let time = whole.get(call.kernel.as_str()).copied().unwrap_or(0.0);
        let bound_by = if busy < time / 2.0 { "latency" } else { side(engine) };
        OpProfile {
            name: call.kernel.clone(),
            origins: call.origins.clone(),
            count: call.count,
            time_us: call.time_us,
            bound_by,
            engine,
        }
    };
    report.calls.iter().map(row).collect()
}

fn events(report: &Report) -> Vec<ProfileEvent> {
    let event = |event: &simulate::TraceEvent| ProfileEvent {
        lane: match event.lane {
            simulate::Lane::Engine(engine) => simulate::engine_name(engine).to_owned(),
            simulate::Lane::Queue(queue) => format!("dma queue {queue}"),
            simulate::Lane::Exchange => "exchanges".to_owned(),
        },
        start_us: event.start_us,
        duration_us: event.duration_us,
        name: if event.name.is_empty() { event.kernel.clone() } else { event.name.clone() },
        origins: event.origins.clone(),
    };
    report.trace.iter().map(event).collect()
}
