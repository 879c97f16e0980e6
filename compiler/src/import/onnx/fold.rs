//! Evaluates the nodes that one node of the file became, where everything they read is known.

use super::convert::Item;
use crate::graph::{Builder, ValueId};
use crate::op::{Kind, Op};
use crate::tensor::Tensor;
use crate::types::Class;
use indexmap::IndexMap;

/// The most elements of any value on the way.
const MAX_ELEMENTS: usize = 1 << 20;
/// The most elements of a floating-point result that is worth knowing: shapes and scales, not weights.
const MAX_FLOATS: usize = 1 << 12;

/// The tensors of `items`, which nodes from `start` on compute; `None` where something is not known or too large.
pub(crate) fn fold(
    builder: &Builder<'_>,
    start: usize,
    items: &[Item],
    known: &IndexMap<ValueId, Tensor>,
    budget: &mut usize,
) -> Option<Vec<Tensor>> {
    let mut values: IndexMap<ValueId, Tensor> = IndexMap::new();
    for item in items {
        let Item::Value(value) = item else { return None };
        let ty = builder.ty(*value);
        let small = match ty.dtype.class() {
            Class::Float => ty.count() <= MAX_FLOATS,
            Class::Bool | Class::Signed | Class::Unsigned => ty.count() <= MAX_ELEMENTS,
        };
        if !small && !known.contains_key(value) {
            return None;
        }
    }
    for &node in &builder.nodes[start..] {
        let node = &builder.function.nodes[node];
        if let Op::Constant(constant) = &node.op {
            values.insert(node.results[0], constant.value.clone());
            continue;
        }
        if !affordable(builder, &node.op, &node.operands, &node.results) {
            return None;
        }
        let work =
            node.operands.iter().chain(&node.results).map(|&value| builder.ty(value).count());
        *budget = budget.checked_sub(work.fold(0, usize::saturating_add))?;
        let operands = node
            .operands
            .iter()
            .map(|operand| values.get(operand).or_else(|| known.get(operand)).cloned())
            .collect::<Option<Vec<Tensor>>>()?;
        let results = node.op.evaluate(&operands);
        if results.len() != node.results.len() {
            return None;
        }
        values.extend(node.results.iter().copied().zip(results));
    }
    items
        .iter()
        .map(|item| match item {
            Item::Value(value) => values.get(value).or_else(|| known.get(value)).cloned(),
            Item::Known { .. }
            | Item::Foreign(..)
            | Item::Sequence(_)
            | Item::Nothing
            | Item::Unusable(_)
            | Item::Failed => None,
        })
        .collect()
}

fn affordable(builder: &Builder<'_>, op: &Op, operands: &[ValueId], results: &[ValueId]) -> bool {
    let counts = |values: &[ValueId]| -> Vec<usize> {
        values.iter().map(|&value| builder.ty(value).count()).collect()
    };
    let small = counts(results).iter().all(|&count| count <= MAX_ELEMENTS);
    small
        && match op.kind() {
            Kind::Source
            | Kind::Map
            | Kind::View
            | Kind::Reduce
            | Kind::Index
            | Kind::Order
            | Kind::Composite => true,
            Kind::Contract => counts(operands)
                .iter()
                .try_fold(1usize, |a, &b| a.checked_mul(b))
                .is_some_and(|work| work <= MAX_ELEMENTS * 16),
            Kind::Control | Kind::Collective => false,
        }
}
