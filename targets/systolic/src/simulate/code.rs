//! Streams in a compact form: words without nesting, costs in units of time, all that depends on the machine computed once.

use super::clock::{Clock, Ticks};
use super::cost::{self, Transfer};
use crate::isa::Op;
use crate::machine::Machine;
use crate::program::{
    Bound, Dma, Engine, Index, Instruction, Item, Kernel, Program, Side, Space, Term, Test,
};
use smallvec::SmallVec;

/// Every engine, in the order of [`Engine`].
pub(super) const ENGINES: [Engine; 5] =
    [Engine::Tensor, Engine::Vector, Engine::Scalar, Engine::GpSimd, Engine::Sync];

/// A kernel ready to run.
#[derive(Debug)]
pub(super) struct KernelCode<'p> {
    pub(super) kernel: &'p Kernel,
    pub(super) streams: [Stream<'p>; 5],
    /// The engine with most to do, at whose loops steady states are looked for.
    pub(super) primary: usize,
    /// Where its sources begin in the counters.
    pub(super) first_source: usize,
}

/// What one engine does for a kernel.
#[derive(Debug, Default)]
pub(super) struct Stream<'p> {
    pub(super) words: Vec<Word>,
    pub(super) timed: Vec<Timed<'p>>,
    pub(super) loops: Vec<LoopCode<'p>>,
}

/// One word of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    /// An instruction.
    Run(u32),
    /// The start of a loop.
    Begin(u32),
    /// The end of a loop's body.
    End(u32),
}

/// A loop.
#[derive(Debug)]
pub(super) struct LoopCode<'p> {
    pub(super) var: usize,
    pub(super) start: &'p Index,
    pub(super) end: &'p Index,
    pub(super) step: i64,
    /// The word behind its beginning.
    pub(super) body: u32,
    /// The word behind its end.
    pub(super) exit: u32,
    /// What must not change for its iterations to take the same time.
    pub(super) fixed: Vec<Fixed>,
}

/// What must not change with a loop's variable.
#[derive(Debug, PartialEq)]
pub(super) enum Fixed {
    /// It always does.
    Never,
    /// It repeats after so many iterations.
    Turns(u64),
    /// The outcome of a test.
    Test(Index, Test),
    /// Whether the number, from the least to the greatest added to it, is from 0 to below the extent.
    Inside { at: Index, least: i64, greatest: i64, extent: i64 },
}

/// An instruction with its costs.
#[derive(Debug)]
pub(super) struct Timed<'p> {
    pub(super) instruction: &'p Instruction,
    pub(super) interval: Ticks,
    pub(super) hold: Ticks,
    pub(super) latency: Ticks,
    pub(super) load: Ticks,
    /// Of the array, in thousandths.
    pub(super) used: u16,
    pub(super) kind: Kind,
    /// On machines where engines share ports: which of them it uses.
    pub(super) ports: u8,
    pub(super) array_flops: u64,
    pub(super) flops: u64,
    pub(super) source: usize,
}

/// What sort of instruction it is.
#[derive(Debug)]
pub(super) enum Kind {
    Compute,
    Product,
    /// ScalarE, with the set of functions that it wants.
    Function(u8),
    /// A transfer whose cost is known.
    Transfer(Moved),
    /// A transfer whose cost depends on variables.
    Edge,
    Nop,
}

/// A transfer's cost in units of time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) cost: Transfer,
    pub(super) busy: Ticks,
    pub(super) hbm: Ticks,
    /// The first and one past the last DMA engine.
    pub(super) engines: (u16, u16),
}

/// The port between VectorE and GpSimdE.
pub(super) const SBUF_PORT: u8 = 1;
/// The port between VectorE and ScalarE.
pub(super) const PSUM_PORT: u8 = 2;

/// Compiles every kernel.
pub(super) fn compile<'p>(
    program: &'p Program,
    machine: &Machine,
    clock: &Clock,
) -> Vec<KernelCode<'p>> {
    let mut first_source = 0;
    let kernels = program.kernels.iter().map(|kernel| {
        let mut streams: [Stream<'p>; 5] = Default::default();
        for (&engine, items) in &kernel.streams {
            let stream = &mut streams[engine as usize];
            let mut compiler =
                Compiler { kernel, machine, clock, engine, stream, loops: Vec::new() };
            compiler.items(items);
        }
        let work = |items: &[Item]| weight(items, 1);
        let primary = kernel.streams.iter().max_by_key(|(_, items)| work(items));
        let code = KernelCode {
            kernel,
            streams,
            primary: primary.map_or(0, |(&engine, _)| engine as usize),
            first_source,
        };
        first_source += kernel.sources.len() + 1;
        code
    });
    kernels.collect()
}

fn weight(items: &[Item], times: u64) -> u64 {
    let each = items.iter().map(|item| match item {
        Item::Instruction(_) => times,
        Item::Loop { start, end, step, body, .. } => {
            let range = end.constant.saturating_sub(start.constant).max(1);
            let trips = (range / (*step).max(1)).max(1) as u64;
            weight(body, times.saturating_mul(trips))
        }
    });
    each.fold(0, u64::saturating_add)
}

struct Compiler<'p, 'c> {
    kernel: &'p Kernel,
    machine: &'c Machine,
    clock: &'c Clock,
    engine: Engine,
    stream: &'c mut Stream<'p>,
    /// The loops around, with what is known of the range of their variables.
    loops: Vec<(usize, Option<(i64, i64)>)>,
}

impl<'p> Compiler<'p, '_> {
    fn items(&mut self, items: &'p [Item]) {
        for item in items {
            match item {
                Item::Instruction(instruction) => self.instruction(instruction),
                Item::Loop { var, start, end, step, body } => {
                    let at = self.stream.loops.len();
                    // An inner loop with bounds that move with an outer variable runs differently each time.
                    for around in 0..self.loops.len() {
                        if depends(self, start, around) || depends(self, end, around) {
                            let outer = self.loops[around].0;
                            self.stream.loops[outer].fixed.push(Fixed::Never);
                        }
                    }
                    let constant = start.terms.is_empty() && end.terms.is_empty();
                    let range =
                        constant.then(|| (start.constant, (end.constant - 1).max(start.constant)));
                    self.stream.words.push(Word::Begin(at as u32));
                    self.stream.loops.push(LoopCode {
                        var: usize::from(var.0),
                        start,
                        end,
                        step: (*step).max(1),
                        body: self.stream.words.len() as u32,
                        exit: 0,
                        fixed: Vec::new(),
                    });
                    self.loops.push((at, range));
                    self.items(body);
                    self.loops.pop();
                    self.stream.words.push(Word::End(at as u32));
                    self.stream.loops[at].exit = self.stream.words.len() as u32;
                }
            }
        }
    }

    fn instruction(&mut self, instruction: &'p Instruction) {
        let mut cost = cost::cost(&instruction.op, self.engine, self.machine);
        if self.is_dynamic(&instruction.op) {
            cost.interval = cost.interval.max(self.machine.sync.dynamic_interval_cycles);
        }
        let cycles = |cycles| self.clock.cycles(self.engine, cycles);
        let kind = if let Op::Dma(dma) = &instruction.op {
            match static_partition(dma) {
                Some(partition) if !has_bounds(dma) => {
                    Kind::Transfer(moved(dma, &dma.sizes, partition, self.machine, self.clock))
                }
                Some(_) | None => Kind::Edge,
            }
        } else if let Op::Activation { function, .. } = &instruction.op {
            cost::function_set(*function).map_or(Kind::Compute, Kind::Function)
        } else if matches!(instruction.op, Op::Matmul { .. } | Op::Transpose { .. }) {
            Kind::Product
        } else if matches!(instruction.op, Op::Nop) {
            Kind::Nop
        } else {
            Kind::Compute
        };
        let uses = |space| cost::accesses(&instruction.op).iter().any(|a| a.space == space);
        let ports = &self.machine.ports;
        let sbuf = ports.vector_gpsimd_share_sbuf
            && matches!(self.engine, Engine::Vector | Engine::GpSimd)
            && uses(Space::Sbuf);
        let psum = ports.vector_scalar_share_psum
            && matches!(self.engine, Engine::Vector | Engine::Scalar)
            && uses(Space::Psum);
        let cells = self.machine.array.row_count * self.machine.array.column_count;
        let timed = Timed {
            instruction,
            interval: cycles(cost.interval),
            hold: cycles(cost.interval.saturating_add(cost.overhead)),
            latency: cycles(cost.latency),
            load: cycles(cost.load),
            used: cost.used,
            array_flops: if matches!(kind, Kind::Product) {
                cost.interval.saturating_mul(2 * cells)
            } else {
                0
            },
            flops: flops(&instruction.op),
            kind,
            ports: if sbuf { SBUF_PORT } else { 0 } | if psum { PSUM_PORT } else { 0 },
            source: usize::from(instruction.source).min(self.kernel.sources.len()),
        };
        self.note_fixed(instruction);
        self.stream.words.push(Word::Run(self.stream.timed.len() as u32));
        self.stream.timed.push(timed);
    }

    /// Whether an engine other than the array addresses memory by a number that data decide.
    fn is_dynamic(&self, op: &Op) -> bool {
        let varies = |index: &Index| {
            index.terms.iter().any(|(term, _)| match term {
                Term::Var(var) | Term::Turn(var, _) => {
                    let info = self.kernel.vars.get(usize::from(var.0));
                    info.is_some_and(|info| info.range.is_some())
                }
            })
        };
        self.engine != Engine::Tensor
            && !matches!(op, Op::Dma(_))
            && cost::accesses(op).iter().any(|at| varies(&at.offset) || varies(&at.partition))
    }

    /// Tells the loops around what this instruction's time depends on.
    fn note_fixed(&mut self, instruction: &Instruction) {
        let mut notes: Vec<(usize, Fixed)> = Vec::new();
        for around in 0..self.loops.len() {
            if let Some((index, test)) = &instruction.when {
                self.note(index, around, &mut notes, |index, inner| match inner {
                    Some(_) => Fixed::Never,
                    None => Fixed::Test(index, *test),
                });
            }
            let Op::Dma(dma) = &instruction.op else { continue };
            for side in [&dma.from, &dma.to] {
                match side {
                    Side::Near { partition, .. } => {
                        self.note(partition, around, &mut notes, |_, _| Fixed::Never);
                    }
                    Side::Far { bounds, .. } => {
                        for bound in bounds {
                            let (least, greatest) = span(bound, &dma.sizes);
                            self.note(&bound.at, around, &mut notes, |at, inner| {
                                let (low, high) = inner.unwrap_or((0, 0));
                                Fixed::Inside {
                                    at,
                                    least: least.saturating_add(low),
                                    greatest: greatest.saturating_add(high),
                                    extent: bound.extent,
                                }
                            });
                        }
                    }
                }
            }
        }
        for (outer, fixed) in notes {
            let known = &mut self.stream.loops[outer].fixed;
            if !known.contains(&fixed) {
                known.push(fixed);
            }
        }
    }

    /// Notes for the loop at `around` that `index` must not change in the way that `make` says; `make` gets the index
    /// without the variables of loops further in, and the range of what those add, where there are such.
    fn note(
        &self,
        index: &Index,
        around: usize,
        notes: &mut Vec<(usize, Fixed)>,
        make: impl Fn(Index, Option<(i64, i64)>) -> Fixed,
    ) {
        let outer = self.loops[around].0;
        let var = self.stream.loops[outer].var;
        let (mut own, mut turning) = (false, false);
        let mut stripped = index.clone();
        let mut inner: Option<(i64, i64)> = None;
        for &(term, factor) in &index.terms {
            let (of, turns) = match term {
                Term::Var(of) => (usize::from(of.0), None),
                Term::Turn(of, turns) => (usize::from(of.0), Some(u64::from(turns))),
            };
            if of == var {
                match turns {
                    Some(turns) => {
                        notes.push((outer, Fixed::Turns(turns.max(1))));
                        turning = true;
                    }
                    None => own = true,
                }
                continue;
            }
            let further = &self.loops[around + 1..];
            let Some((_, range)) = further.iter().find(|(at, _)| self.stream.loops[*at].var == of)
            else {
                continue;
            };
            stripped.terms.retain(|(other, _)| *other != term);
            let Some((low, high)) = *range else {
                notes.push((outer, Fixed::Never));
                return;
            };
            let (low, high) = match turns {
                Some(turns) => (0, turns as i64),
                None => (low, high),
            };
            let ends = (low.saturating_mul(factor), high.saturating_mul(factor));
            let (least, greatest) = inner.unwrap_or((0, 0));
            inner = Some((
                least.saturating_add(ends.0.min(ends.1)),
                greatest.saturating_add(ends.0.max(ends.1)),
            ));
        }
        if own {
            notes.push((outer, if turning { Fixed::Never } else { make(stripped, inner) }));
        }
    }
}

fn depends(compiler: &Compiler<'_, '_>, index: &Index, around: usize) -> bool {
    let var = compiler.stream.loops[compiler.loops[around].0].var;
    index.terms.iter().any(|&(term, _)| match term {
        Term::Var(of) | Term::Turn(of, _) => usize::from(of.0) == var,
    })
}

/// What the positions of a transfer add to a bound's number, at least and at most.
pub(super) fn span(bound: &Bound, sizes: &[u32]) -> (i64, i64) {
    let mut least = 0i64;
    let mut greatest = 0i64;
    for &(dim, factor) in &bound.dims {
        let size = sizes.get(usize::from(dim)).copied().unwrap_or(1);
        let far = factor.saturating_mul(i64::from(size.saturating_sub(1)));
        least = least.saturating_add(far.min(0));
        greatest = greatest.saturating_add(far.max(0));
    }
    (least, greatest)
}

pub(super) fn has_bounds(dma: &Dma) -> bool {
    [&dma.from, &dma.to].into_iter().any(|side| match side {
        Side::Far { bounds, .. } => !bounds.is_empty(),
        Side::Near { .. } => false,
    })
}

/// The first partition that a transfer touches, where it is always the same: that of the destination, if both ends are near.
fn static_partition(dma: &Dma) -> Option<u32> {
    let mut found = Some(0);
    for side in [&dma.from, &dma.to] {
        if let Side::Near { partition, .. } = side {
            let constant = u32::try_from(partition.constant).ok();
            found = if partition.terms.is_empty() { constant } else { None };
        }
    }
    found
}

/// A transfer's cost in units of time.
pub(super) fn moved(
    dma: &Dma,
    sizes: &[u32],
    partition: u32,
    machine: &Machine,
    clock: &Clock,
) -> Moved {
    let cost = cost::transfer(dma, sizes, partition, machine);
    let engines = machine.dma.engine_count.max(1);
    let per_engine = machine.sbuf.partition_count.div_ceil(engines).max(1) as u32;
    let engines = match cost.partitions {
        None => (0, engines.min(cost.rows.max(1)) as u16),
        Some((first, last)) => {
            let engine = |partition: u32| u64::from(partition / per_engine).min(engines - 1) as u16;
            (engine(first), engine(last) + 1)
        }
    };
    let hbm = (cost.hbm_read + cost.hbm_written) as f64 / machine.hbm.stack_gbs;
    Moved { cost, busy: clock.nanoseconds(cost.busy_ns), hbm: clock.nanoseconds(hbm), engines }
}

/// What remains of a transfer inside its bounds: the sizes of the box of positions inside, for its cost.
pub(super) fn inside(dma: &Dma, value: &dyn Fn(Term) -> i64) -> SmallVec<[u32; 4]> {
    let mut sizes = dma.sizes.clone();
    for side in [&dma.from, &dma.to] {
        let Side::Far { bounds, .. } = side else { continue };
        for bound in bounds {
            let at = bound.at.evaluate(value);
            let (least, greatest) = span(bound, &dma.sizes);
            if at.saturating_add(greatest) < 0 || at.saturating_add(least) >= bound.extent {
                sizes.fill(0);
                return sizes;
            }
            // Each dimension keeps the positions that are inside for some positions of the others.
            for &(dim, factor) in &bound.dims {
                let Some(size) = sizes.get_mut(usize::from(dim)) else { continue };
                let far = factor.saturating_mul(i64::from(dma.sizes[usize::from(dim)].max(1) - 1));
                let (low, high) = (least - far.min(0), greatest - far.max(0));
                let fits = |position: i64| {
                    let own = at.saturating_add(factor.saturating_mul(position));
                    own.saturating_add(high) >= 0 && own.saturating_add(low) < bound.extent
                };
                // Those that fit are neighbours; how many there are is all that the cost needs.
                *size = (0..i64::from(*size)).filter(|&position| fits(position)).count() as u32;
            }
        }
    }
    sizes
}

/// The useful operations of an instruction: of products alone.
fn flops(op: &Op) -> u64 {
    let Op::Matmul { stationary, moving, pace, .. } = op else { return 0 };
    let k = u64::from(stationary.partitions) * pace.rows();
    let (columns, width) = (stationary.free() / pace.rows(), moving.free() / pace.rows());
    2u64.saturating_mul(k).saturating_mul(columns).saturating_mul(width)
}
