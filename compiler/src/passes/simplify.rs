//! Local algebra: each op's own rules, and a few that look at the op which made an operand.

use crate::graph::{Builder, Function, Graph, Node, NodeId, ValueId};
use crate::op::{Convolve, Op, Reshape, Simpler, Transpose, TypeError};
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};
use std::collections::BTreeMap;

/// See the module.
pub const PASS: Pass<Graph> =
    Pass { name: "simplify", summary: "Replaces nodes by cheaper ones of the same meaning.", run };

fn run(
    graph: &mut Graph,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(super::each_function(graph, |function| {
        let mut changed = false;
        let mut producers: BTreeMap<ValueId, NodeId> = BTreeMap::new();
        let result = rewrite(function, &mut |builder, node, operands| {
            let Some(rewritten) = simpler(builder, node, operands, &producers)? else {
                if node.blocks.is_empty() {
                    let values = builder.add_many(node.op.clone(), operands, Vec::new())?;
                    remember(builder, &mut producers);
                    return Ok(Rewrite::Replace(values));
                }
                return Ok(Rewrite::Keep);
            };
            changed = true;
            remember(builder, &mut producers);
            Ok(Rewrite::Replace(smallvec::smallvec![rewritten]))
        });
        let result = result.expect("a rule keeps the types");
        changed.then_some(result)
    }))
}

fn remember(builder: &Builder<'_>, producers: &mut BTreeMap<ValueId, NodeId>) {
    for &node in &builder.nodes {
        producers.extend(builder.function.nodes[node].results.iter().map(|&result| (result, node)));
    }
}

fn simpler(
    builder: &mut Builder<'_>,
    node: &Node,
    operands: &[ValueId],
    producers: &BTreeMap<ValueId, NodeId>,
) -> Result<Option<ValueId>, TypeError> {
    let types: Vec<_> = operands.iter().map(|&value| builder.ty(value).clone()).collect();
    let types: Vec<_> = types.iter().collect();
    match node.op.simplify(&types) {
        Some(Simpler::Operand(position)) => return Ok(Some(operands[position])),
        Some(Simpler::Op(op)) => return Ok(Some(builder.add(*op, operands)?)),
        None => {}
    }
    let made_by = |builder: &Builder<'_>, value: ValueId| -> Option<(Op, Vec<ValueId>)> {
        let producer = &builder.function.nodes[*producers.get(&value)?];
        Some((producer.op.clone(), producer.operands.clone()))
    };
    let Some((inner, sources)) = operands.first().and_then(|&value| made_by(builder, value)) else {
        return Ok(None);
    };
    match (&node.op, inner) {
        (Op::Transpose(outer), Op::Transpose(inner)) => {
            let perm: Vec<usize> = outer.perm.iter().map(|&dim| inner.perm[dim]).collect();
            if perm.iter().enumerate().all(|(index, &dim)| index == dim) {
                return Ok(Some(sources[0]));
            }
            Ok(Some(builder.add(Transpose { perm }, &sources)?))
        }
        (Op::Reshape(outer), Op::Reshape(_)) => {
            if *builder.shape(sources[0]) == outer.shape[..] {
                return Ok(Some(sources[0]));
            }
            Ok(Some(builder.add(Reshape { shape: outer.shape.clone() }, &sources)?))
        }
        (Op::Convolve(convolve), Op::Pad(pad)) => {
            let Some((Op::Constant(value), _)) = made_by(builder, sources[1]) else {
                return Ok(None);
            };
            let zero = value.value.values().to_f64().iter().all(|&element| element == 0.0);
            let channels = pad.low[..2].iter().chain(&pad.high[..2]).all(|&size| size == 0);
            if !zero || !channels || pad.interior.iter().any(|&size| size > 0) {
                return Ok(None);
            }
            let sum = |a: &[usize], b: &[usize]| a.iter().zip(b).map(|(a, b)| a + b).collect();
            let low = sum(&convolve.low, &pad.low[2..]);
            let high = sum(&convolve.high, &pad.high[2..]);
            let joined = Convolve { low, high, ..convolve.clone() };
            Ok(Some(builder.add(joined, &[sources[0], operands[1]])?))
        }
        _ => Ok(None),
    }
}

/// The node that made each value of a function's outer block.
pub fn producers(function: &Function) -> BTreeMap<ValueId, NodeId> {
    let mut producers = BTreeMap::new();
    for &node in &function.body.nodes {
        producers.extend(function.nodes[node].results.iter().map(|&result| (result, node)));
    }
    producers
}
