//! Takes slices of constants before what is computed of them: of a table of codes and scales, only the rows that are
//! looked up are converted, and the table stays as narrow as it is.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use crate::graph::{Builder, Graph, ValueId};
use crate::op::{Broadcast, Gather, Op, TypeError};
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};
use crate::types::Shape;
use std::collections::BTreeMap;

/// See the module.
pub const PASS: Pass<Graph> = Pass {
    name: "gather-first",
    summary: "Gathers from constants before computing on them, where fewer elements are left then.",
    run,
};

/// What was computed of constants alone: the operation and its operands.
type Made = BTreeMap<ValueId, (Op, Vec<ValueId>)>;

fn run(
    graph: &mut Graph,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(super::each_function(graph, |function| {
        let mut made = Made::new();
        let mut moved = false;
        let result = rewrite(function, &mut |builder, node, operands| {
            let known = operands.iter().all(|value| made.contains_key(value));
            match &node.op {
                Op::Constant(_)
                | Op::Parameter(_)
                | Op::Convert(_)
                | Op::Map(_)
                | Op::Broadcast(_)
                    if known =>
                {
                    let value = builder.add(node.op.clone(), operands)?;
                    made.insert(value, (node.op.clone(), operands.to_vec()));
                    Ok(Rewrite::Replace(smallvec::smallvec![value]))
                }
                Op::Gather(gather) => {
                    let (x, indices) = (operands[0], operands[1]);
                    let fewer = function.ty(node.results[0]).count() < builder.ty(x).count();
                    let computed = matches!(made.get(&x), Some((Op::Convert(_) | Op::Map(_), _)));
                    if !fewer || !computed || !is_slices(builder, &made, x, gather.axis) {
                        return Ok(Rewrite::Keep);
                    }
                    moved = true;
                    let value = gathered(builder, &made, x, gather.axis, indices)?;
                    Ok(Rewrite::Replace(smallvec::smallvec![value]))
                }
                _ => Ok(Rewrite::Keep),
            }
        });
        let result = result.expect("slices of operands have the types of slices of results");
        moved.then_some(result)
    }))
}

/// Whether slices of a value are computed of slices of constants.
fn is_slices(builder: &Builder<'_>, made: &Made, value: ValueId, axis: usize) -> bool {
    match made.get(&value) {
        Some((Op::Constant(_) | Op::Parameter(_), _)) => builder.ty(value).rank() > axis,
        Some((Op::Convert(_) | Op::Map(_), operands)) => {
            let same = |&operand: &ValueId| builder.ty(operand).shape == builder.ty(value).shape;
            operands.iter().all(same)
                && operands.iter().all(|&operand| is_slices(builder, made, operand, axis))
        }
        Some((Op::Broadcast(_), _)) => true,
        _ => false,
    }
}

/// The slices of a value along an axis, of slices of what it is computed of.
fn gathered(
    builder: &mut Builder<'_>,
    made: &Made,
    value: ValueId,
    axis: usize,
    indices: ValueId,
) -> Result<ValueId, TypeError> {
    match &made[&value] {
        (op @ (Op::Convert(_) | Op::Map(_)), operands) => {
            let operands = operands
                .iter()
                .map(|&operand| gathered(builder, made, operand, axis, indices))
                .collect::<Result<Vec<_>, _>>()?;
            builder.add(op.clone(), &operands)
        }
        (Op::Broadcast(broadcast), operands) => {
            let places = builder.ty(indices).shape.to_vec();
            let splice = |sizes: &[usize], at: usize| -> Vec<usize> {
                [&sizes[..at], places.as_slice(), &sizes[at + 1..]].concat()
            };
            let source = operands[0];
            let sizes: Shape = builder.ty(source).shape.clone();
            // Dimensions behind the axis move by what the indices bring.
            let moved = |dim: usize| if dim > axis { dim + places.len() - 1 } else { dim };
            let along = broadcast.dims.iter().position(|&dim| dim == axis);
            let shape = splice(&broadcast.shape, axis);
            let repeats = |at: usize| sizes[at] != broadcast.shape[axis];
            match along {
                Some(at) if !repeats(at) => {
                    let source = gathered(builder, made, source, at, indices)?;
                    let dims = broadcast.dims.iter().enumerate().flat_map(|(place, &dim)| {
                        let count = if place == at { places.len() } else { 1 };
                        let first = moved(dim);
                        first..first + count
                    });
                    let dims = dims.collect();
                    builder.add(Broadcast { shape, dims }, &[source])
                }
                // One element stands for all: it still does.
                Some(at) => {
                    let kept: Vec<usize> = (0..sizes.len()).filter(|&place| place != at).collect();
                    let reshaped: Shape = kept.iter().map(|&place| sizes[place]).collect();
                    let source =
                        builder.add(crate::op::Reshape { shape: reshaped.to_vec() }, &[source])?;
                    let dims = kept.iter().map(|&place| moved(broadcast.dims[place])).collect();
                    builder.add(Broadcast { shape, dims }, &[source])
                }
                None => {
                    let dims = broadcast.dims.iter().map(|&dim| moved(dim)).collect();
                    builder.add(Broadcast { shape, dims }, &[source])
                }
            }
        }
        _ => builder.add(Gather { axis }, &[value, indices]),
    }
}
