//! Evaluates nodes whose operands are constants. A large constant of a narrow type that products widen as they read it
//! stays as it is. What only moves the elements of a large constant is left alone: a
//! kernel reads it through a view, or `layout` packs it once. A broadcast stays too, whatever its size: where it is read,
//! it is the constant that it repeats.

use crate::graph::{Graph, ValueId};
use crate::op::{Constant, Kind, Op};
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};
use crate::tensor::Tensor;
use crate::types::DType;
use std::collections::BTreeMap;

/// See the module.
pub const PASS: Pass<Graph> = Pass {
    name: "fold-constants",
    summary: "Evaluates nodes whose operands are all constants.",
    run,
};

/// Results up to this size are always folded.
const SMALL_BYTES: usize = 1 << 16;
/// No result above this size is folded: it would be kept in memory beside its operands.
const LARGE_BYTES: usize = 1 << 30;

fn run(
    graph: &mut Graph,
    context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(super::each_function(graph, |function| {
        let mut constants: BTreeMap<ValueId, Tensor> = BTreeMap::new();
        let mut folded = false;
        let result = rewrite(function, &mut |builder, node, operands| {
            if let Op::Constant(constant) = &node.op {
                let value = builder.constant(constant.value.clone());
                constants.insert(value, constant.value.clone());
                return Ok(Rewrite::Replace(smallvec::smallvec![value]));
            }
            let known: Option<Vec<Tensor>> =
                operands.iter().map(|value| constants.get(value).cloned()).collect();
            let Some(known) = known else { return Ok(Rewrite::Keep) };
            let types: Vec<_> = node.results.iter().map(|&result| function.ty(result)).collect();
            let bytes: usize = types.iter().map(|ty| ty.bytes()).sum();
            let place = || format!("{} -> {bytes} bytes", node.op.name());
            match node.op.kind() {
                Kind::Control | Kind::Collective | Kind::Composite => return Ok(Rewrite::Keep),
                Kind::Source if matches!(node.op, Op::Parameter(_)) => return Ok(Rewrite::Keep),
                // An iota that is not folded costs nothing: a kernel computes it from the index.
                Kind::Source | Kind::View | Kind::Index | Kind::Order if bytes > SMALL_BYTES => {
                    if !matches!(node.op, Op::Random(_)) {
                        context.decline(PASS.name, place(), "the elements are only moved");
                        return Ok(Rewrite::Keep);
                    }
                }
                Kind::Contract if bytes > SMALL_BYTES => {
                    context.decline(PASS.name, place(), "a large product is left to the target");
                    return Ok(Rewrite::Keep);
                }
                Kind::Source
                | Kind::View
                | Kind::Index
                | Kind::Order
                | Kind::Contract
                | Kind::Map
                | Kind::Reduce => {}
            }
            if matches!(node.op, Op::Convert(_))
                && bytes > SMALL_BYTES
                && types[0].dtype == DType::F32
                && context.machine.widens.contains(&known[0].dtype())
                && bytes > known[0].bytes().len()
            {
                context.decline(PASS.name, place(), "the constant stays narrow in memory");
                return Ok(Rewrite::Keep);
            }
            if bytes > LARGE_BYTES {
                context.decline(PASS.name, place(), "the result is too large to keep");
                return Ok(Rewrite::Keep);
            }
            let values = node.op.evaluate(&known);
            if matches!(node.op, Op::Broadcast(_)) && known[0].count() < values[0].count() {
                let value = builder.add(node.op.clone(), operands)?;
                constants.insert(value, values[0].clone());
                return Ok(Rewrite::Replace(smallvec::smallvec![value]));
            }
            folded = true;
            let values = values.into_iter().map(|tensor| {
                let value = builder
                    .add(Constant { value: tensor.clone() }, &[])
                    .expect("a tensor has a type");
                constants.insert(value, tensor);
                value
            });
            Ok(Rewrite::Replace(values.collect()))
        });
        let result = result.expect("constants have types");
        folded.then_some(result)
    }))
}
