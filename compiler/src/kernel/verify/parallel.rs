//! Rule 13: iterations of a parallel loop do not meet in memory.

use super::super::{Affine, Dims, Loop, OperandId, Stmt, Term, TileOp, VarId};
use super::Verifier;
use std::collections::BTreeSet;

/// One read or write of an operand inside the loop.
struct Access<'a> {
    operand: OperandId,
    writes: bool,
    at: &'a [Affine],
    dims: &'a Dims,
    /// Dimensions whose position values give.
    indexed: Vec<usize>,
}

impl Verifier<'_> {
    pub(super) fn disjoint(&mut self, stmt: &Stmt, looped: &Loop) {
        let (first, last) = self.ranges[looped.var.index()].unwrap_or((0, 0));
        if last.saturating_sub(first) < looped.step as i64 {
            return;
        }
        let mut accesses = Vec::new();
        let mut inner = Vec::new();
        self.collect(&looped.body, &mut accesses, &mut inner);
        let written: BTreeSet<OperandId> =
            accesses.iter().filter(|access| access.writes).map(|access| access.operand).collect();
        for operand in written {
            let group: Vec<&Access<'_>> =
                accesses.iter().filter(|access| access.operand == operand).collect();
            let rank = self.kernel.operands[operand].dims.len();
            if !(0..rank).any(|dim| self.apart(looped, &group, &inner, dim)) {
                let name = self.printer.names.operand(operand.index());
                let what = format!("two iterations may meet in %{name}");
                self.report(13, stmt, what);
            }
        }
    }

    /// Whether positions along one dimension keep the iterations apart.
    fn apart(
        &self,
        looped: &Loop,
        group: &[&Access<'_>],
        inner: &[(VarId, (i64, i64))],
        dim: usize,
    ) -> bool {
        let own = Term::Var(looped.var);
        let is_inner = |var: VarId| inner.iter().find(|(other, _)| *other == var);
        let factor = group[0].at[dim].coefficient(own);
        // What does not change within the loop must be the same for all, so that only the rest has a range.
        let outer = |at: &Affine| -> Vec<(Term, i64)> {
            let fixed = |term: Term| match term {
                Term::Var(var) => term != own && is_inner(var).is_none(),
                Term::Axis(_) => false,
            };
            at.terms().iter().filter(|(term, _)| fixed(*term)).copied().collect()
        };
        let fixed = outer(&group[0].at[dim]);
        let (mut low, mut high) = (i64::MAX, i64::MIN);
        for access in group {
            let at = &access.at[dim];
            if access.indexed.contains(&dim) || at.coefficient(own) != factor || outer(at) != fixed
            {
                return false;
            }
            let (first, last) = at.range(|term| match term {
                Term::Axis(axis) => {
                    let found = access.dims.iter().find(|(other, _)| *other == axis);
                    (0, found.map_or(0, |&(_, extent)| extent.saturating_sub(1) as i64))
                }
                Term::Var(var) => is_inner(var).map_or((0, 0), |&(_, range)| range),
            });
            low = low.min(first);
            high = high.max(last);
        }
        factor.saturating_abs().saturating_mul(looped.step as i64) > high.saturating_sub(low)
    }

    /// All accesses of a body, and the ranges of the loops in it.
    fn collect<'a>(
        &self,
        body: &'a [Stmt],
        accesses: &mut Vec<Access<'a>>,
        inner: &mut Vec<(VarId, (i64, i64))>,
    ) where
        Self: 'a,
    {
        // The kernel outlives the walk, but its tiles are reached through `self`.
        for stmt in body {
            match stmt {
                Stmt::Define { op, results } => {
                    let dims = results.first().map(|&tile| self.dims(tile));
                    let Some(dims) = dims else { continue };
                    match op {
                        TileOp::Load { operand, at, .. } => accesses.push(Access {
                            operand: *operand,
                            writes: false,
                            at,
                            dims,
                            indexed: Vec::new(),
                        }),
                        TileOp::Gather { operand, at, index } => accesses.push(Access {
                            operand: *operand,
                            writes: false,
                            at,
                            dims,
                            indexed: index.iter().map(|&(dim, _)| dim).collect(),
                        }),
                        TileOp::Fill { .. }
                        | TileOp::View { .. }
                        | TileOp::Contract { .. }
                        | TileOp::Map { .. }
                        | TileOp::Reduce { .. }
                        | TileOp::ArgReduce { .. }
                        | TileOp::Scan { .. }
                        | TileOp::Sort { .. }
                        | TileOp::Rearrange { .. } => {}
                    }
                }
                Stmt::Store { operand, at, tile } => accesses.push(Access {
                    operand: *operand,
                    writes: true,
                    at,
                    dims: self.dims(*tile),
                    indexed: Vec::new(),
                }),
                Stmt::Scatter { operand, at, index, tile, .. } => accesses.push(Access {
                    operand: *operand,
                    writes: true,
                    at,
                    dims: self.dims(*tile),
                    indexed: index.iter().map(|&(dim, _)| dim).collect(),
                }),
                Stmt::For(looped) => {
                    inner.push((looped.var, self.inner_range(looped, inner)));
                    self.collect(&looped.body, accesses, inner);
                }
            }
        }
    }

    /// The range of a loop inside the one that is looked at, whose variables are out of scope by now.
    fn inner_range(&self, looped: &Loop, inner: &[(VarId, (i64, i64))]) -> (i64, i64) {
        let value = |term: Term| match term {
            Term::Axis(_) => (0, 0),
            Term::Var(var) => match inner.iter().find(|(other, _)| *other == var) {
                Some(&(_, range)) => range,
                None => self.ranges[var.index()].unwrap_or((0, 0)),
            },
        };
        let (low, start_high) = looped.start.range(value);
        let (_, high) = looped.end.range(value);
        let (last, step) = (high.saturating_sub(1).max(low), looped.step as i64);
        if low == start_high { (low, low + (last - low) / step * step) } else { (low, last) }
    }
}
