//! Shardings for programs that say nothing: a batch over `dp`, the weights of products over `tp`, by columns and rows in
//! turn. And weights out of constants, so that each rank holds its part alone.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "each match names the few ops that are special here"
)]

use super::propagate::propagate;
use crate::graph::{Function, Graph, ValueId};
use crate::mesh::{Mesh, Sharding};
use crate::op::{Constant, Op, Parameter};
use crate::rewrite::{Rewrite, rewrite};
use crate::tensor::Tensor;

/// How many products are looked at: each asks how far the shardings before have spread.
const MOST_PRODUCTS: usize = 400;

/// Writes shardings to a program with a mesh that has none.
pub fn annotate(graph: &mut Graph) {
    let Some(mesh) = graph.mesh.clone() else { return };
    let function = graph.entry_mut();
    if mesh.divided || !function.shardings.is_empty() {
        return;
    }
    if let Some(axis) = mesh.axis("dp") {
        for param in function.body.params.clone() {
            if function.ty(param).rank() > 0 {
                cut(function, &mesh, param, 0, axis);
            }
        }
    }
    let Some(axis) = mesh.axis("tp") else { return };
    let products: Vec<_> = function
        .body
        .nodes
        .iter()
        .filter_map(|&id| match &function.nodes[id].op {
            Op::Contract(op) => Some((op.clone(), function.nodes[id].operands.clone())),
            _ => None,
        })
        .take(MOST_PRODUCTS)
        .collect();
    for (op, operands) in products {
        let (x, weight) = (operands[0], operands[1]);
        if !is_source(function, weight) || !op.batch.is_empty() {
            continue;
        }
        let plan = propagate(function, &mesh);
        let uses = |value: ValueId| plan.shardings[value.index()].uses(axis);
        if uses(x) || uses(weight) {
            continue;
        }
        let free = (0..function.ty(weight).rank())
            .rev()
            .find(|dim| op.over.iter().all(|pair| pair[1] != *dim));
        if let Some(dim) = free {
            cut(function, &mesh, weight, dim, axis);
        }
    }
}

fn is_source(function: &Function, value: ValueId) -> bool {
    function.body.nodes.iter().any(|&id| {
        let node = &function.nodes[id];
        matches!(node.op, Op::Constant(_) | Op::Parameter(_)) && node.results.contains(&value)
    })
}

fn cut(function: &mut Function, mesh: &Mesh, value: ValueId, dim: usize, axis: usize) {
    let ty = function.ty(value).clone();
    if !ty.shape[dim].is_multiple_of(mesh.size(axis)) || ty.shape[dim] == 0 {
        return;
    }
    let mut sharding = Sharding::whole(ty.rank());
    sharding.dims[dim].push(axis);
    function.shardings.entry(value).or_insert(sharding);
}

/// Constants from this many elements on become weights.
const LIFTED_ELEMENTS: usize = 64;

/// Makes constants weights with names, and gives these with their values: a rank then holds no more than its part.
pub fn lift_constants(graph: &mut Graph) -> Vec<(String, Tensor)> {
    let mut lifted = Vec::new();
    for function in graph.functions.values_mut() {
        let rebuilt = rewrite(function, &mut |builder, node, _| {
            let Op::Constant(Constant { value }) = &node.op else { return Ok(Rewrite::Keep) };
            let width = value.dtype().bytes();
            let first = value.bytes().get(..width).unwrap_or_default();
            let alike = value.bytes().chunks_exact(width).all(|element| element == first);
            if alike || value.count() < LIFTED_ELEMENTS {
                return Ok(Rewrite::Keep);
            }
            let name = format!("constant {}", lifted.len());
            lifted.push((name.clone(), value.clone()));
            let weight = builder.add(Parameter { name, ty: value.ty().clone() }, &[])?;
            Ok(Rewrite::Replace(smallvec::smallvec![weight]))
        });
        *function = rebuilt.expect("a weight has its constant's type");
    }
    lifted
}
