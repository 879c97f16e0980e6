//! Which keys a query sees, where that follows from the positions of both alone.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use crate::expr::{Expr, ExprId, ExprNode};
use crate::kernel::{Affine, Axis, Term};
use crate::scalar::ScalarFn;
use crate::types::Class;

/// A query at `i` along an axis sees the keys up to `i + shift`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Causal {
    pub(super) queries: Axis,
    pub(super) shift: i64,
}

/// Whether scores hide, behind the lowest finite number or −∞, just the keys behind a query, and what is seen is made of
/// one operand and constants. Each query must see a key: one that sees none weighs all keys alike.
pub(super) fn find(expr: &Expr, keys: Axis) -> Option<Causal> {
    let (ExprNode::Call(ScalarFn::Select, inner), _) = &expr.nodes[expr.root] else { return None };
    let [seen, _, hidden] = inner[..] else { return None };
    let operands =
        expr.nodes.iter().filter(|(node, _)| matches!(node, ExprNode::Operand(_))).count();
    let ExprNode::Constant(hidden) = &expr.nodes[hidden].0 else { return None };
    if operands != 1 || hidden.to_f64() > f64::from(f32::MIN) {
        return None;
    }
    let (ExprNode::Call(function, sides), _) = &expr.nodes[seen] else { return None };
    let (left, right) = (position(expr, *sides.first()?)?, position(expr, *sides.get(1)?)?);
    // The key is at most the bound.
    let (key, bound) = match function {
        ScalarFn::Le => (left, right),
        ScalarFn::Lt => (left, right.plus(&Affine::constant(-1), 1)),
        ScalarFn::Ge => (right, left),
        ScalarFn::Gt => (right, left.plus(&Affine::constant(-1), 1)),
        _ => return None,
    };
    let difference = bound.plus(&key, -1);
    let query = difference.terms().iter().find_map(|&(term, coefficient)| match term {
        Term::Axis(axis) if coefficient == 1 => Some(axis),
        Term::Axis(_) | Term::Var(_) => None,
    })?;
    let is_causal = difference.terms().len() == 2
        && difference.coefficient(Term::Axis(keys)) == -1
        && difference.constant >= 0;
    is_causal.then_some(Causal { queries: query, shift: difference.constant })
}

/// The integer that a node is, where it is affine in positions.
fn position(expr: &Expr, node: ExprId) -> Option<Affine> {
    let (node, dtype) = &expr.nodes[node];
    if !matches!(dtype.class(), Class::Signed | Class::Unsigned) || dtype.bits() < 32 {
        return None;
    }
    match node {
        ExprNode::Index(axis) => Some(Affine::axis(*axis)),
        ExprNode::Constant(value) => Some(Affine::constant(value.bits as i64)),
        ExprNode::Convert(inner) => position(expr, *inner),
        ExprNode::Call(ScalarFn::Add, inner) => {
            Some(position(expr, inner[0])?.plus(&position(expr, inner[1])?, 1))
        }
        ExprNode::Call(ScalarFn::Sub, inner) => {
            Some(position(expr, inner[0])?.plus(&position(expr, inner[1])?, -1))
        }
        ExprNode::Call(..) | ExprNode::Operand(_) | ExprNode::Var(_) => None,
    }
}
