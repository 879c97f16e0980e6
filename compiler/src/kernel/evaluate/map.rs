//! Maps: the expression is evaluated node by node over a chunk of positions, and every node rounds to its type.

use super::super::{Dims, Term};
use super::Context;
use super::convert::{convert, extend, none};
use super::source::{Source, Walk};
use crate::evaluate::EvaluateError;
use crate::expr::{Expr, ExprNode};
use crate::tensor::Values;
use smallvec::SmallVec;

/// Positions that are evaluated at once.
const CHUNK: usize = 2048;

/// The elements of the result, in the order of `dims`.
pub(super) fn map(
    context: &Context<'_>,
    expr: &Expr,
    operands: &[&Source],
    dims: &Dims,
) -> Result<Values, EvaluateError> {
    let needed = needed(expr);
    let count: usize = dims.iter().map(|&(_, extent)| extent).product();
    let walks: Vec<Walk> = operands.iter().map(|operand| operand.walk(dims)).collect();
    let indices: Vec<Option<Walk>> =
        expr.nodes.iter().map(|(node, _)| index_walk(node, dims)).collect();
    let mut result = none(expr.dtype(), count);
    for start in (0..count).step_by(CHUNK) {
        context.check_cancelled()?;
        let range = start..count.min(start + CHUNK);
        let mut values: Vec<Option<Values>> = vec![None; expr.nodes.len()];
        let last = |values: &[Option<Values>], id: usize| {
            values[id].clone().expect("a node uses only earlier ones")
        };
        for (id, (node, dtype)) in expr.nodes.iter().enumerate() {
            if !needed[id] {
                continue;
            }
            let value = match node {
                ExprNode::Operand(operand) => {
                    operands[*operand].gather(&walks[*operand], range.clone())
                }
                ExprNode::Constant(scalar) => scalar.values(range.len()),
                ExprNode::Index(_) => {
                    let walk = indices[id].as_ref().expect("every index has a walk");
                    Values::Int(walk.offsets(range.clone()))
                }
                ExprNode::Var(var) => {
                    Values::Int(vec![context.value(Term::Var(*var)); range.len()])
                }
                ExprNode::Call(function, inputs) => {
                    let inputs: SmallVec<[&Values; 3]> = inputs
                        .iter()
                        .map(|&input| {
                            values[input].as_ref().expect("a node uses only earlier ones")
                        })
                        .collect();
                    function.evaluate(&inputs).rounded(*dtype)
                }
                ExprNode::Convert(input) => {
                    convert(last(&values, *input), expr.nodes[*input].1, *dtype)
                }
            };
            values[id] = Some(value);
        }
        extend(&mut result, values[expr.root].take().expect("the result is a node"));
    }
    Ok(result)
}

/// Which nodes the result depends on.
fn needed(expr: &Expr) -> Vec<bool> {
    let mut needed = vec![false; expr.nodes.len()];
    needed[expr.root] = true;
    for id in (0..expr.nodes.len()).rev().filter(|&id| id <= expr.root) {
        if !needed[id] {
            continue;
        }
        match &expr.nodes[id].0 {
            ExprNode::Call(_, inputs) => inputs.iter().for_each(|&input| needed[input] = true),
            ExprNode::Convert(input) => needed[*input] = true,
            ExprNode::Operand(_)
            | ExprNode::Constant(_)
            | ExprNode::Index(_)
            | ExprNode::Var(_) => {}
        }
    }
    needed
}

/// The way that gives the position along an axis.
fn index_walk(node: &ExprNode, dims: &Dims) -> Option<Walk> {
    let ExprNode::Index(axis) = node else { return None };
    let extents = dims.iter().map(|&(_, extent)| extent).collect();
    let steps = dims.iter().map(|(other, _)| i64::from(other == axis)).collect();
    Some(Walk::new(extents, 0, steps, SmallVec::new()))
}
