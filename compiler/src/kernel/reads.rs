//! What statements read and define.

use super::{Combine, Stmt, TileId, TileOp};
use crate::expr::ExprNode;
use smallvec::SmallVec;

impl TileOp {
    /// The tiles that the operation reads, in the order in which it names them.
    pub fn reads(&self) -> SmallVec<[TileId; 4]> {
        match self {
            TileOp::Load { .. } | TileOp::Fill { .. } => SmallVec::new(),
            TileOp::Gather { index, .. } => index.iter().map(|&(_, tile)| tile).collect(),
            TileOp::View { tile, .. }
            | TileOp::ArgReduce { tile, .. }
            | TileOp::Scan { tile, .. }
            | TileOp::Sort { tile, .. }
            | TileOp::Rearrange { tile } => SmallVec::from_slice(&[*tile]),
            TileOp::Contract { init, a, b, .. } => SmallVec::from_slice(&[*init, *a, *b]),
            TileOp::Map { operands, .. } => SmallVec::from_slice(operands),
            TileOp::Reduce { init, tile, .. } => init.iter().chain([tile]).copied().collect(),
        }
    }
}

impl TileOp {
    /// How the operation joins `tile` with what else it reads, where that is all it does with it.
    pub(super) fn combine_with(&self, tile: TileId) -> Option<Combine> {
        match self {
            TileOp::Contract { init, a, b, .. } => {
                (*init == tile && *a != tile && *b != tile).then_some(Combine::Sum)
            }
            TileOp::Reduce { combine, init, tile: reduced, .. } => {
                (*init == Some(tile) && *reduced != tile).then_some(*combine)
            }
            TileOp::Map { operands, expr } => {
                let [first, second] = operands[..] else { return None };
                let (ExprNode::Call(function, inputs), _) = &expr.nodes[expr.root] else {
                    return None;
                };
                let is_operand =
                    |input: &usize| matches!(expr.nodes[*input].0, ExprNode::Operand(_));
                let plain = inputs.len() == 2
                    && inputs[0] != inputs[1]
                    && inputs.iter().all(is_operand)
                    && first != second
                    && (first == tile || second == tile);
                let found = Combine::ALL.iter().map(|&(combine, _)| combine);
                found.filter(|_| plain).find(|combine| combine.function() == *function)
            }
            TileOp::Load { .. }
            | TileOp::Gather { .. }
            | TileOp::Fill { .. }
            | TileOp::View { .. }
            | TileOp::ArgReduce { .. }
            | TileOp::Scan { .. }
            | TileOp::Sort { .. }
            | TileOp::Rearrange { .. } => None,
        }
    }
}

impl Stmt {
    /// The tiles that the statement defines for those after it.
    pub fn results(&self) -> &[TileId] {
        match self {
            Stmt::Define { results, .. } => results,
            Stmt::For(looped) => &looped.results,
            Stmt::Store { .. } | Stmt::Scatter { .. } => &[],
        }
    }

    /// Calls `visitor` for every tile that the statement reads, with those that statements inside a loop read.
    pub fn visit_reads(&self, visitor: &mut dyn FnMut(TileId)) {
        match self {
            Stmt::Define { op, .. } => op.reads().into_iter().for_each(visitor),
            Stmt::Store { tile, .. } => visitor(*tile),
            Stmt::Scatter { index, tile, .. } => {
                index.iter().for_each(|&(_, index)| visitor(index));
                visitor(*tile);
            }
            Stmt::For(looped) => {
                looped.carried.iter().for_each(|&(_, start)| visitor(start));
                looped.body.iter().for_each(|stmt| stmt.visit_reads(visitor));
                looped.yields.iter().for_each(|&tile| visitor(tile));
            }
        }
    }
}
