//! Nests that wide vectors compute: chains of elementwise functions of f32 that are busy for longer than memory, and
//! reductions of rows. They become programs of [`crate::micro::program`]; everything else stays with generated code.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a function that is not named has no wide form"
)]

use super::{Action, Address};
use crate::emit::{Schedule, schedule, stride};
use crate::micro::Cpu;
use crate::micro::program::{
    BLOCK, End, Join, MOST_ACCESSES, MOST_REGISTERS, One, Program, Source, Step, Target, Two,
};
use crate::nest::{Access, Nest, Node, NodeId, Sink, loop_term};
use systole_compiler::kernel::{Affine, Combine};
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::DType;

/// The fewest columns of a row, and elements of a program, that are worth a call.
const FEWEST_COLUMNS: usize = 48;
const FEWEST_ELEMENTS: usize = 256;

/// Puts calls of programs in place of nests that wide vectors compute faster.
pub(super) fn widen(actions: &mut [Action], cpu: Cpu, programs: &mut Vec<Program>) {
    if !matches!(cpu, Cpu::Avx2 | Cpu::Avx512) {
        return;
    }
    for action in actions {
        match action {
            Action::Nest(nest) => {
                if let Some((program, extents, accesses)) = program(nest, cpu) {
                    *action = Action::Program { program: programs.len(), extents, accesses };
                    programs.push(program);
                }
            }
            Action::For(_, body) => widen(body, cpu, programs),
            Action::Product { .. } | Action::Sort { .. } | Action::Program { .. } => {}
        }
    }
}

/// The program of a nest, the loops around it, and the addresses of its accesses over these; the target first.
fn program(nest: &Nest, cpu: Cpu) -> Option<(Program, Vec<usize>, Vec<Address>)> {
    // What cannot be decided without the order of loops is decided first, as it is cheap.
    let is_plain = |access: &Access| access.dims.is_empty() && access.dtype == DType::F32;
    if !is_plain(&nest.to) {
        return None;
    }
    match &nest.sink {
        Sink::Store { .. } => {}
        Sink::Reduce { factor: None, accumulate: DType::F32, .. } => {}
        Sink::Reduce { .. } | Sink::ArgReduce { .. } | Sink::Scan { .. } | Sink::Scatter { .. } => {
            return None;
        }
    }
    let schedule = schedule(nest.clone());
    if !schedule.clips.is_empty() {
        return None;
    }
    let nest = &schedule.nest;
    let (&across, outer) = schedule.order.split_last()?;
    let (rows, outer) = match outer.split_last() {
        Some((&rows, outer)) => (Some(rows), outer),
        None => (None, outer),
    };
    let columns = nest.extents[across];
    let count = rows.map_or(1, |rows| nest.extents[rows]);
    if columns < FEWEST_COLUMNS || columns * count < FEWEST_ELEMENTS {
        return None;
    }
    let mut writer = Writer {
        schedule: &schedule,
        across,
        values: vec![None; nest.nodes.len()],
        accesses: vec![&nest.to],
        row_steps: Vec::new(),
        steps: Vec::new(),
        registers: 0,
        is_heavy: false,
    };
    let end = writer.end()?;
    let Writer { accesses, mut row_steps, mut steps, .. } = writer;
    let end = pack_registers(&mut row_steps, &mut steps, end)?;
    let row_strides = accesses
        .iter()
        .map(|access| rows.map_or(0, |rows| access.offset.coefficient(loop_term(rows)) as isize))
        .collect();
    let addresses = accesses
        .iter()
        .map(|access| Address { base: access.base, offset: over(&access.offset, outer) })
        .collect();
    let extents = outer.iter().map(|&index| nest.extents[index]).collect();
    let program = Program { rows: count, columns, row_strides, row_steps, steps, end, cpu };
    Some((program, extents, addresses))
}

/// An offset over loops that keep their order, where all others stand at their start.
fn over(offset: &Affine, loops: &[usize]) -> Affine {
    let mut result = Affine::constant(offset.constant);
    for &(term, coefficient) in offset.terms() {
        match crate::nest::term_loop(term) {
            None => result = result.plus(&Affine::term(term), coefficient),
            Some(index) => {
                if let Some(place) = loops.iter().position(|&other| other == index) {
                    result = result.plus(&Affine::term(loop_term(place)), coefficient);
                }
            }
        }
    }
    result
}

struct Writer<'s> {
    schedule: &'s Schedule,
    /// The loop along a row.
    across: usize,
    /// Where the value of each node is, once it is computed.
    values: Vec<Option<Source>>,
    accesses: Vec<&'s Access>,
    row_steps: Vec<Step>,
    steps: Vec<Step>,
    registers: usize,
    /// Whether a step takes longer than memory.
    is_heavy: bool,
}

impl Writer<'_> {
    /// Writes the steps that the sink needs.
    fn end(&mut self) -> Option<End> {
        let nest = &self.schedule.nest;
        match &nest.sink {
            Sink::Store { root } => {
                if stride(&nest.to, self.across) != 4 || nest.nodes[*root].1 != DType::F32 {
                    return None;
                }
                let value = self.value(*root)?;
                if !self.is_heavy {
                    return None;
                }
                // The last step writes to memory where it made the value.
                match (self.steps.last_mut(), value) {
                    (
                        Some(Step::One(_, _, to) | Step::Two(_, _, _, to)),
                        Source::Register(from),
                    ) if *to == Target::Register(from) => {
                        *to = Target::Memory;
                    }
                    _ => self.steps.push(Step::One(One::Copy, value, Target::Memory)),
                }
                Some(End::Store)
            }
            Sink::Reduce { combine, element, init, over, .. } => {
                if over[..] != [self.across] || nest.nodes[*element].1 != DType::F32 {
                    return None;
                }
                let join = match combine {
                    Combine::Sum => Join::Sum,
                    Combine::Max => Join::Max,
                    Combine::Min => Join::Min,
                    Combine::Product | Combine::And | Combine::Or => return None,
                };
                let element = self.value(*element)?;
                if !matches!(element, Source::Memory(_) | Source::Register(_)) {
                    return None;
                }
                let init = match init {
                    None => None,
                    Some(init) => match self.value(*init)? {
                        Source::Memory(_) | Source::Register(_) => return None,
                        init @ (Source::Row(_) | Source::RowRegister(_) | Source::Constant(_)) => {
                            Some(init)
                        }
                    },
                };
                Some(End::Reduce(join, element, init))
            }
            Sink::ArgReduce { .. } | Sink::Scan { .. } | Sink::Scatter { .. } => None,
        }
    }

    /// Where a node's value is; the steps that compute it are written.
    fn value(&mut self, node: NodeId) -> Option<Source> {
        if let Some(source) = self.values[node] {
            return Some(source);
        }
        let (kind, dtype) = &self.schedule.nest.nodes[node];
        if *dtype != DType::F32 {
            return None;
        }
        let source = match kind {
            Node::Constant(value) => Source::Constant(value.to_f64() as f32),
            Node::Load(access) => self.load(access)?,
            Node::Call(ScalarFn::Erf, operands) if self.scaled(operands[0]).is_some() => {
                let (x, factor) = self.scaled(operands[0])?;
                let x = self.value(x)?;
                let x = self.two(Two::Mul, x, Source::Constant(factor))?;
                self.one(One::Erf, x)?
            }
            Node::Call(function, operands) => {
                let operands: Vec<Source> = operands
                    .iter()
                    .map(|&operand| self.value(operand))
                    .collect::<Option<Vec<_>>>()?;
                self.call(*function, &operands)?
            }
            Node::Index(_) | Node::Convert(_) => return None,
        };
        self.values[node] = Some(source);
        Some(source)
    }

    /// `x` and the reciprocal of `c` where a node is `x / c` for `erf` alone, to which a unit in the last place of its
    /// operand makes less difference than its own error.
    fn scaled(&self, node: NodeId) -> Option<(NodeId, f32)> {
        let nest = &self.schedule.nest;
        let (Node::Call(ScalarFn::Div, operands), DType::F32) = &nest.nodes[node] else {
            return None;
        };
        let Node::Constant(divisor) = &nest.nodes[operands[1]].0 else { return None };
        let readers = (0..nest.nodes.len()).filter(|&other| nest.uses(other).contains(&node));
        let factor = 1.0 / divisor.to_f64() as f32;
        let alone = readers.count() == 1 && !nest.roots().contains(&node);
        (alone && factor.is_normal()).then_some((operands[0], factor))
    }

    fn load(&mut self, access: &Access) -> Option<Source> {
        if !access.dims.is_empty() || access.dtype != DType::F32 {
            return None;
        }
        let step = stride(access, self.across);
        let schedule = self.schedule;
        let found = schedule.nest.nodes.iter().find_map(|(node, _)| match node {
            Node::Load(other) if other == access => Some(other),
            Node::Load(_) | Node::Constant(_) | Node::Index(_) | Node::Call(..) => None,
            Node::Convert(_) => None,
        })?;
        if self.accesses.len() >= MOST_ACCESSES {
            return None;
        }
        self.accesses.push(found);
        match step {
            4 => Some(Source::Memory(self.accesses.len() - 1)),
            0 => Some(Source::Row(self.accesses.len() - 1)),
            _ => None,
        }
    }

    fn call(&mut self, function: ScalarFn, x: &[Source]) -> Option<Source> {
        let number = |source: Source| match source {
            Source::Constant(value) if !value.is_nan() => Some(value),
            _ => None,
        };
        let one = Source::Constant(1.0);
        match function {
            ScalarFn::Add => self.two(Two::Add, x[0], x[1]),
            ScalarFn::Sub => self.two(Two::Sub, x[0], x[1]),
            ScalarFn::Mul => self.two(Two::Mul, x[0], x[1]),
            ScalarFn::Div => match number(x[1]) {
                // Halving and doubling are exact either way.
                Some(divisor) if is_power_of_two(divisor) => {
                    self.two(Two::Mul, x[0], Source::Constant(1.0 / divisor))
                }
                Some(_) | None => self.two(Two::Div, x[0], x[1]),
            },
            ScalarFn::Neg => self.two(Two::Mul, x[0], Source::Constant(-1.0)),
            ScalarFn::Max | ScalarFn::Min => {
                let two = if function == ScalarFn::Max { Two::Max } else { Two::Min };
                match (number(x[0]), number(x[1])) {
                    (_, Some(_)) => self.two(two, x[0], x[1]),
                    (Some(_), None) => self.two(two, x[1], x[0]),
                    (None, None) => None,
                }
            }
            ScalarFn::Pow if number(x[1]) == Some(2.0) => self.two(Two::Mul, x[0], x[0]),
            ScalarFn::Pow if number(x[1]) == Some(3.0) => {
                let square = self.two(Two::Mul, x[0], x[0])?;
                self.two(Two::Mul, square, x[0])
            }
            ScalarFn::Abs => self.one(One::Abs, x[0]),
            ScalarFn::Sqrt => self.one(One::Sqrt, x[0]),
            ScalarFn::Rsqrt => {
                let root = self.one(One::Sqrt, x[0])?;
                self.two(Two::Div, one, root)
            }
            ScalarFn::Reciprocal => self.two(Two::Div, one, x[0]),
            ScalarFn::Exp => self.one(One::Exp, x[0]),
            ScalarFn::Tanh => self.one(One::Tanh, x[0]),
            ScalarFn::Erf => self.one(One::Erf, x[0]),
            ScalarFn::Sigmoid => self.one(One::Sigmoid, x[0]),
            _ => None,
        }
    }

    fn one(&mut self, function: One, x: Source) -> Option<Source> {
        let per_row = is_per_row(x);
        self.is_heavy |= !per_row && !matches!(function, One::Abs | One::Copy);
        self.push(per_row, |to| Step::One(function, x, to))
    }

    fn two(&mut self, function: Two, x: Source, y: Source) -> Option<Source> {
        let per_row = is_per_row(x) && is_per_row(y);
        self.is_heavy |= !per_row && function == Two::Div;
        self.push(per_row, |to| Step::Two(function, x, y, to))
    }

    fn push(&mut self, per_row: bool, step: impl FnOnce(Target) -> Step) -> Option<Source> {
        let register = self.registers;
        self.registers += 1;
        let step = step(Target::Register(register));
        if per_row {
            self.row_steps.push(step);
            return Some(Source::RowRegister(register));
        }
        self.steps.push(step);
        Some(Source::Register(register))
    }
}

/// Gives the registers of steps the numbers of those that are there, each free again after its last read.
fn pack_registers(row_steps: &mut [Step], steps: &mut [Step], end: End) -> Option<End> {
    let mut last = vec![0; row_steps.len() + steps.len()];
    let mut note = |source: Source, place: usize| {
        if let Source::Register(register) | Source::RowRegister(register) = source {
            last[register] = place;
        }
    };
    for (place, step) in row_steps.iter().chain(&*steps).enumerate() {
        match *step {
            Step::One(_, x, _) => note(x, place),
            Step::Two(_, x, y, _) => {
                note(x, place);
                note(y, place);
            }
        }
    }
    match end {
        End::Store => {}
        End::Reduce(_, element, init) => {
            note(element, usize::MAX);
            init.into_iter().for_each(|init| note(init, usize::MAX));
        }
    }
    // What a row shares is read in every block.
    let kept: Vec<usize> = row_steps
        .iter()
        .filter_map(|step| match step {
            Step::One(_, _, Target::Register(to)) | Step::Two(_, _, _, Target::Register(to)) => {
                Some(*to)
            }
            Step::One(..) | Step::Two(..) => None,
        })
        .collect();
    let mut numbers: Vec<Option<usize>> = vec![None; last.len()];
    let mut owners: [Option<usize>; MOST_REGISTERS] = [None; MOST_REGISTERS];
    let renamed = |source: Source, numbers: &[Option<usize>]| match source {
        Source::Register(register) => Source::Register(numbers[register].unwrap_or(0)),
        Source::RowRegister(register) => Source::RowRegister(numbers[register].unwrap_or(0)),
        Source::Memory(_) | Source::Row(_) | Source::Constant(_) => source,
    };
    for (place, step) in row_steps.iter_mut().chain(steps).enumerate() {
        let to = match step {
            Step::One(_, x, to) => {
                *x = renamed(*x, &numbers);
                to
            }
            Step::Two(_, x, y, to) => {
                *x = renamed(*x, &numbers);
                *y = renamed(*y, &numbers);
                to
            }
        };
        let Target::Register(register) = *to else { continue };
        let free = owners.iter().position(|owner| {
            owner.is_none_or(|owner| !kept.contains(&owner) && last[owner] <= place)
        })?;
        owners[free] = Some(register);
        numbers[register] = Some(free);
        *to = Target::Register(free);
    }
    Some(match end {
        End::Store => End::Store,
        End::Reduce(join, element, init) => {
            End::Reduce(join, renamed(element, &numbers), init.map(|init| renamed(init, &numbers)))
        }
    })
}

/// Whether a number and its reciprocal have no significand.
fn is_power_of_two(value: f32) -> bool {
    value.is_normal() && (1.0 / value).is_normal() && value.to_bits() << 9 == 0
}

/// Whether a row has one such value.
fn is_per_row(source: Source) -> bool {
    match source {
        Source::Memory(_) | Source::Register(_) => false,
        Source::Row(_) | Source::RowRegister(_) | Source::Constant(_) => true,
    }
}

const _: () = assert!(BLOCK.is_multiple_of(16), "blocks hold whole vectors");
