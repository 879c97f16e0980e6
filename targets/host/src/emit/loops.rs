//! Loops over blocks with parameters: ranges that are known now or when the code runs, and values carried around.

use crate::code::Code;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, BlockArg, InstBuilder, Value};

/// The end of a range.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// Known now.
    Static(i64),
    /// Known when the code runs.
    Dynamic(Value),
}

/// A loop that has begun and not ended.
#[derive(Debug)]
pub(crate) enum Open {
    /// It has one iteration, so there is none.
    Once,
    /// It goes back to a block.
    Blocks {
        /// The body.
        block: Block,
        /// What follows.
        exit: Block,
        /// The position.
        counter: Value,
        /// The first position that is not taken.
        end: Value,
        /// What is added each time.
        step: i64,
    },
}

impl Bound {
    /// The bound as a value.
    pub(crate) fn value(self, code: &mut Code<'_>) -> Value {
        match self {
            Bound::Static(value) => code.int(value),
            Bound::Dynamic(value) => value,
        }
    }
}

/// Begins a loop from `first` below `end`: the loop, its position, and the carried values inside. `None` where it is
/// known to have no iteration.
pub(crate) fn begin(
    code: &mut Code<'_>,
    first: Bound,
    end: Bound,
    step: i64,
    carried: &[Value],
) -> Option<(Open, Value, Vec<Value>)> {
    let mut enters = None;
    if let (Bound::Static(first), Bound::Static(end)) = (first, end) {
        if first >= end {
            return None;
        }
        if first + step >= end {
            return Some((Open::Once, code.int(first), carried.to_vec()));
        }
        enters = Some(());
    }
    let start = first.value(code);
    let end = end.value(code);
    let block = code.b.create_block();
    let exit = code.b.create_block();
    let ty = code.b.func.dfg.value_type(start);
    code.b.append_block_param(block, ty);
    for &value in carried {
        let ty = code.b.func.dfg.value_type(value);
        code.b.append_block_param(block, ty);
        code.b.append_block_param(exit, ty);
    }
    let outside = arguments(carried);
    let mut inside = vec![BlockArg::Value(start)];
    inside.extend(&outside);
    match enters {
        Some(()) => {
            code.b.ins().jump(block, &inside);
        }
        None => {
            let enters = code.b.ins().icmp(IntCC::SignedLessThan, start, end);
            code.b.ins().brif(enters, block, &inside, exit, &outside);
        }
    }
    code.b.switch_to_block(block);
    let parameters = code.b.block_params(block).to_vec();
    let counter = parameters[0];
    Some((Open::Blocks { block, exit, counter, end, step }, counter, parameters[1..].to_vec()))
}

/// Ends a loop: the carried values after it.
pub(crate) fn end(code: &mut Code<'_>, open: Open, carried: Vec<Value>) -> Vec<Value> {
    let Open::Blocks { block, exit, counter, end, step } = open else { return carried };
    let next = code.b.ins().iadd_imm_s(counter, step);
    let again = code.b.ins().icmp(IntCC::SignedLessThan, next, end);
    let outside = arguments(&carried);
    let mut inside = vec![BlockArg::Value(next)];
    inside.extend(&outside);
    code.b.ins().brif(again, block, &inside, exit, &outside);
    code.b.switch_to_block(exit);
    code.b.block_params(exit).to_vec()
}

fn arguments(values: &[Value]) -> Vec<BlockArg> {
    values.iter().map(|&value| BlockArg::Value(value)).collect()
}

/// Code that runs only where a condition holds.
pub(crate) fn only_if<'f>(code: &mut Code<'f>, condition: Value, body: impl FnOnce(&mut Code<'f>)) {
    let block = code.b.create_block();
    let exit = code.b.create_block();
    code.b.ins().brif(condition, block, &[], exit, &[]);
    code.b.switch_to_block(block);
    body(code);
    code.b.ins().jump(exit, &[]);
    code.b.switch_to_block(exit);
}
