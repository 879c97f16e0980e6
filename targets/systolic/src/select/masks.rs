//! Conditions on positions alone, as causal and edge masks have them: GpSimdE's `affine-select` tests them itself, so that
//! no position is ever computed.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a function that is not named is none that positions are compared with"
)]

use super::place::{Domain, Place};
use super::vars::Vars;
use crate::limits::PARTITIONS;
use crate::program::Index;
use systole_compiler::expr::{Expr, ExprId, ExprNode};
use systole_compiler::kernel::{Affine, Term};
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::Class;

/// Numbers that must all be zero or more: a condition on positions and variables.
pub(crate) fn condition(expr: &Expr, node: ExprId) -> Option<Vec<Affine>> {
    let (ExprNode::Call(function, inputs), _) = &expr.nodes[node] else { return None };
    let [a, b] = inputs[..] else { return None };
    if *function == ScalarFn::And {
        let mut all = condition(expr, a)?;
        all.extend(condition(expr, b)?);
        return Some(all);
    }
    let (a, b) = (affine(expr, a)?, affine(expr, b)?);
    let one = Affine::constant(1);
    let found = match function {
        ScalarFn::Lt => vec![b.plus(&a, -1).plus(&one, -1)],
        ScalarFn::Le => vec![b.plus(&a, -1)],
        ScalarFn::Gt => vec![a.plus(&b, -1).plus(&one, -1)],
        ScalarFn::Ge => vec![a.plus(&b, -1)],
        ScalarFn::Eq => vec![a.plus(&b, -1), b.plus(&a, -1)],
        _ => return None,
    };
    // A comparison of constants is no matter of positions.
    found.iter().any(|at| !at.terms().is_empty()).then_some(found)
}

/// An integer expression of positions, variables and constants.
fn affine(expr: &Expr, node: ExprId) -> Option<Affine> {
    let (what, dtype) = &expr.nodes[node];
    let wide = matches!(dtype.class(), Class::Signed | Class::Unsigned) && dtype.bits() >= 32;
    if !wide {
        return None;
    }
    match what {
        ExprNode::Constant(value) => Some(Affine::constant(value.to_f64() as i64)),
        ExprNode::Index(axis) => Some(Affine::axis(*axis)),
        ExprNode::Var(var) => Some(Affine::var(*var)),
        ExprNode::Convert(input) => affine(expr, *input),
        ExprNode::Call(function, inputs) => {
            let [a, b] = inputs[..] else { return None };
            let (a, b) = (affine(expr, a)?, affine(expr, b)?);
            match function {
                ScalarFn::Add => Some(a.plus(&b, 1)),
                ScalarFn::Sub => Some(a.plus(&b, -1)),
                ScalarFn::Mul if b.terms().is_empty() => {
                    Some(Affine::constant(0).plus(&a, b.constant))
                }
                ScalarFn::Mul if a.terms().is_empty() => {
                    Some(Affine::constant(0).plus(&b, a.constant))
                }
                _ => None,
            }
        }
        ExprNode::Operand(_) => None,
    }
}

/// The number on a domain: for each partition, and as a place whose strides are what each free position adds.
pub(crate) struct Walk {
    /// What variables and constants add.
    pub(crate) base: Index,
    /// What each partition adds.
    pub(crate) channel: i64,
    /// What positions add: its strides and its origin are numbers, not elements.
    pub(crate) numbers: Place,
}

/// How the number moves over a domain, whose places `like` is one of.
pub(crate) fn walk(
    at: &Affine,
    domain: &Domain,
    vars: &Vars,
    like: &Place,
) -> Result<Walk, String> {
    for &(term, _) in at.terms() {
        match term {
            Term::Var(var) if vars.register(var).is_none() => {
                return Err("a variable without a loop".to_owned());
            }
            Term::Var(_) => {}
            Term::Axis(axis) => {
                let known = domain.free.iter().chain(&domain.rows).any(|&(own, _)| own == axis);
                if !known {
                    return Err("a position along no axis of the tile".to_owned());
                }
            }
        }
    }
    // Rows of several axes count on where the outer one adds as much as all of the inner.
    let mut channel = 0;
    let mut inner = 1;
    for (place, &(axis, extent)) in domain.rows.iter().rev().enumerate() {
        let coefficient = at.coefficient(Term::Axis(axis));
        if place == 0 {
            channel = coefficient;
        } else if coefficient != channel * inner {
            return Err("positions along one of several row axes".to_owned());
        }
        inner *= extent as i64;
    }
    let axes = domain.free.iter().map(|&(axis, _)| (axis, at.coefficient(Term::Axis(axis))));
    let numbers = Place {
        chunk: channel * PARTITIONS as i64,
        axes: axes.collect(),
        origin: 0,
        rows: domain.rows.clone(),
        ..like.clone()
    };
    Ok(Walk { base: vars.index(at), channel, numbers })
}
