//! Counting positions from the start of the whole axis where the axis has become that of a tile.

use super::Cut;
use crate::arena::Arena;
use crate::expr::{Expr, ExprId, ExprNode, Scalar};
use crate::kernel::{Affine, Axis, Kernel, Operand, OperandId, Stmt, Term, Tile, TileId};
use crate::kernel::{TileOp, Var, VarId, VarKind};
use crate::scalar::ScalarFn;
use crate::types::DType;

/// Makes the axis run over a tile everywhere in the kernel, and the variable that is returned over the tiles.
pub(super) fn whole(kernel: &mut Kernel, cut: Cut) -> VarId {
    let var = variable(kernel, cut.axis);
    let whole_tiles = kernel.tiles.clone();
    for (_, tile) in kernel.tiles.iter_mut() {
        shorten(tile, cut);
    }
    let mut body = std::mem::take(&mut kernel.body);
    for stmt in &mut body {
        match stmt {
            Stmt::Define { op, .. } => shift_op(op, cut, var, &kernel.operands, &whole_tiles),
            Stmt::Store { at, .. } | Stmt::Scatter { at, .. } => shift(at, cut.axis, var),
            Stmt::For(_) => {}
        }
    }
    kernel.body = body;
    var
}

/// A new variable for a loop over an axis.
pub(super) fn variable(kernel: &mut Kernel, axis: Axis) -> VarId {
    let name = kernel.axis_name(axis).to_owned();
    kernel.vars.push(Var { name, kind: VarKind::Loop })
}

/// Makes a tile as long as the cut says.
pub(super) fn shorten(tile: &mut Tile, cut: Cut) {
    for (axis, extent) in &mut tile.dims {
        if *axis == cut.axis {
            *extent = cut.size;
        }
    }
}

/// Adds the variable to the axis in positions.
pub(super) fn shift(at: &mut [Affine], axis: Axis, var: VarId) {
    let shifted = Affine::axis(axis).plus(&Affine::var(var), 1);
    at.iter_mut().for_each(|at| *at = at.substitute(Term::Axis(axis), &shifted));
}

/// Adds the variable to the axis wherever an operation counts along it. A load that would leave its operand with the last
/// tile reads zeros there.
pub(super) fn shift_op(
    op: &mut TileOp,
    cut: Cut,
    var: VarId,
    operands: &Arena<Operand>,
    tiles: &Arena<Tile>,
) {
    match op {
        TileOp::Load { at, pad, operand } => {
            pad_ragged(pad, at, cut, operands, *operand);
            shift(at, cut.axis, var);
        }
        TileOp::Gather { at, .. } => shift(at, cut.axis, var),
        TileOp::View { tile, at } => {
            for (&(own, _), at) in tiles[*tile].dims.iter().zip(at) {
                if own != cut.axis {
                    shift(std::slice::from_mut(at), cut.axis, var);
                }
            }
        }
        TileOp::Map { expr, .. } => *expr = shift_index(expr, cut.axis, var),
        TileOp::Fill { .. }
        | TileOp::Contract { .. }
        | TileOp::Reduce { .. }
        | TileOp::ArgReduce { .. }
        | TileOp::Scan { .. }
        | TileOp::Sort { .. }
        | TileOp::Rearrange { .. } => {}
    }
}

fn pad_ragged(
    pad: &mut Option<Scalar>,
    at: &[Affine],
    cut: Cut,
    operands: &Arena<Operand>,
    operand: OperandId,
) {
    let is_along = at.iter().any(|at| at.coefficient(Term::Axis(cut.axis)) != 0);
    if cut.is_ragged() && pad.is_none() && is_along {
        *pad = Some(Scalar::from_i64(operands[operand].dtype, 0));
    }
}

/// The expression with `index(axis)` counted from the start of the whole axis.
fn shift_index(expr: &Expr, axis: Axis, var: VarId) -> Expr {
    if !expr.nodes.iter().any(|(node, _)| *node == ExprNode::Index(axis)) {
        return expr.clone();
    }
    let mut shifted = Expr::new();
    let mut map = Vec::with_capacity(expr.nodes.len());
    for (node, dtype) in &expr.nodes {
        let id = match node {
            ExprNode::Index(other) if *other == axis => whole_index(&mut shifted, axis, var),
            ExprNode::Call(function, operands) => {
                let operands: Vec<_> = operands.iter().map(|&operand| map[operand]).collect();
                shifted.call(*function, &operands)
            }
            ExprNode::Convert(operand) => shifted.push(ExprNode::Convert(map[*operand]), *dtype),
            ExprNode::Operand(_)
            | ExprNode::Constant(_)
            | ExprNode::Index(_)
            | ExprNode::Var(_) => shifted.push(node.clone(), *dtype),
        };
        map.push(id);
    }
    shifted.root = map[expr.root];
    shifted
}

fn whole_index(expr: &mut Expr, axis: Axis, var: VarId) -> usize {
    let index = expr.push(ExprNode::Index(axis), DType::I64);
    let start = expr.push(ExprNode::Var(var), DType::I64);
    expr.call(ScalarFn::Add, &[index, start])
}

/// Whether the position is one of the axis.
pub(super) fn is_within(expr: &mut Expr, cut: Cut, var: VarId) -> ExprId {
    let index = whole_index(expr, cut.axis, var);
    let end = expr.constant(Scalar::from_i64(DType::I64, cut.extent as i64));
    expr.call(ScalarFn::Lt, &[index, end])
}

/// What a tile holds, and `instead` where the axis has ended.
pub(super) fn within(
    operand: TileId,
    dtype: DType,
    instead: Scalar,
    cut: Cut,
    var: VarId,
) -> TileOp {
    let mut expr = Expr::new();
    let inside = is_within(&mut expr, cut, var);
    let value = expr.operand(0, dtype);
    let instead = expr.constant(instead);
    expr.call(ScalarFn::Select, &[inside, value, instead]);
    TileOp::Map { operands: vec![operand], expr }
}
