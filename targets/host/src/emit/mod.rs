//! Emits nests as code: loops, hoisted values, vectors and their tails.

mod loops;
mod point;
mod schedule;
mod sinks;

use crate::code::{Code, LANES};
use crate::nest::{Base, term_loop};
use cranelift_codegen::ir::{InstBuilder, Value};
use schedule::Schedule;
use systole_compiler::kernel::{Affine, Term};

pub(crate) use loops::{Bound, begin, end, only_if};
pub(crate) use schedule::stride;

/// What the code around a nest provides.
pub(crate) struct Frame {
    /// The address of each operand.
    pub(crate) operands: Vec<Value>,
    /// The address of the scratch buffer.
    pub(crate) scratch: Value,
    /// The value of each variable that is in scope.
    pub(crate) vars: Vec<Option<Value>>,
}

/// A value in registers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Val {
    /// One scalar, the same for all lanes.
    One(Value),
    /// A vector.
    Vector(Value),
    /// A scalar for each lane.
    Lanes([Value; LANES]),
}

/// Emits one nest.
pub(crate) struct Emitter<'e, 'f> {
    code: &'e mut Code<'f>,
    frame: &'e Frame,
    schedule: &'e Schedule,
    /// For each node, after how many loops its value is known.
    depths: Vec<usize>,
    /// For each node, whether it varies along the vectorised loop.
    varies: Vec<bool>,
    /// For each node, whether the sink needs it.
    live: Vec<bool>,
    /// For each node, whether it is the same for all lanes and meets vectors.
    splat: Vec<bool>,
}

/// Emits a nest.
pub(crate) fn emit(code: &mut Code<'_>, frame: &Frame, nest: crate::nest::Nest) {
    let schedule = schedule::schedule(nest);
    if schedule.nothing_to_do() {
        return;
    }
    let mut emitter = Emitter::new(code, frame, &schedule);
    emitter.run();
}

impl Schedule {
    fn nothing_to_do(&self) -> bool {
        let over: &[usize] = match &self.nest.sink {
            crate::nest::Sink::Reduce { over, .. } => over,
            crate::nest::Sink::Store { .. }
            | crate::nest::Sink::ArgReduce { .. }
            | crate::nest::Sink::Scan { .. }
            | crate::nest::Sink::Scatter { .. } => &[],
        };
        self.order.iter().any(|index| self.nest.extents[*index] == 0 && !over.contains(index))
    }
}

/// `base + coefficient * counter`.
pub(crate) fn add_scaled(
    code: &mut Code<'_>,
    base: Value,
    counter: Value,
    coefficient: i64,
) -> Value {
    let scaled = scale(code, counter, coefficient);
    code.b.ins().iadd(base, scaled)
}

fn scale(code: &mut Code<'_>, counter: Value, coefficient: i64) -> Value {
    if coefficient == 1 {
        return counter;
    }
    if coefficient > 0 && coefficient.count_ones() == 1 {
        return code.b.ins().ishl_imm_u(counter, i64::from(coefficient.trailing_zeros()));
    }
    let coefficient = code.int(coefficient);
    code.b.ins().imul(counter, coefficient)
}

/// The value of an affine expression over variables and counters.
pub(crate) fn affine(
    code: &mut Code<'_>,
    frame: &Frame,
    counters: &[Option<Value>],
    expression: &Affine,
) -> Value {
    let mut sum: Option<Value> = None;
    for &(term, coefficient) in expression.terms() {
        let value = match term {
            Term::Var(var) => {
                frame.vars[var.index()].expect("a variable is in scope where it is used")
            }
            Term::Axis(_) => {
                let index = term_loop(term).expect("an axis is a loop");
                counters[index].expect("a position is known where it is used")
            }
        };
        sum = Some(match sum {
            None => scale(code, value, coefficient),
            Some(sum) => add_scaled(code, sum, value, coefficient),
        });
    }
    match sum {
        None => code.int(expression.constant),
        Some(sum) if expression.constant == 0 => sum,
        Some(sum) => code.b.ins().iadd_imm_s(sum, expression.constant),
    }
}

/// The address at which memory starts.
pub(crate) fn base(code: &mut Code<'_>, frame: &Frame, base: Base) -> Value {
    match base {
        Base::Operand(index) => frame.operands[index],
        Base::Scratch(0) => frame.scratch,
        Base::Scratch(offset) => code.b.ins().iadd_imm_s(frame.scratch, offset as i64),
    }
}
