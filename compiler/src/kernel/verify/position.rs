//! Rules 8 to 11: positions.

use super::super::{Affine, Dims, OperandId, Stmt, Term, TileId};
use super::{MAX_NUMBER, Verifier};

impl Verifier<'_> {
    /// The expression uses axes of the tile and variables in scope, and its values are bounded.
    pub(super) fn position(&mut self, stmt: &Stmt, affine: &Affine, dims: &Dims) {
        for &(term, _) in affine.terms() {
            match term {
                Term::Axis(axis) if dims.iter().all(|&(other, _)| other != axis) => {
                    let axis = self.printer.names.axis(axis);
                    self.report(8, stmt, format!("axis {axis} is not one of the tile's"));
                }
                Term::Var(var) if self.ranges[var.index()].is_none() => {
                    let var = self.printer.names.var(var);
                    self.report(8, stmt, format!("%{var} is used outside of its loop"));
                }
                Term::Axis(_) | Term::Var(_) => {}
            }
        }
        let (low, high) = self.range(affine, dims);
        if low < -MAX_NUMBER || high > MAX_NUMBER {
            self.report(3, stmt, "a position has values of more than 40 bits");
        }
    }

    /// The position stays in `0..size` along dimension `dim` of what is read.
    fn inside(&mut self, stmt: &Stmt, affine: &Affine, dims: &Dims, size: usize, dim: &str) {
        if dims.iter().any(|&(_, extent)| extent == 0) {
            return;
        }
        let (low, high) = self.range(affine, dims);
        if low < 0 || high >= size as i64 {
            let what = format!("{dim} is read from {low} to {high}, but it has {size} elements");
            self.report(9, stmt, what);
        }
    }

    /// A load's or gather's positions. Those of a padded load may lie anywhere, those of a gather are clamped.
    pub(super) fn read_operand(
        &mut self,
        stmt: &Stmt,
        operand: OperandId,
        at: &[Affine],
        dims: &Dims,
        must_be_inside: bool,
    ) {
        let data = &self.kernel.operands[operand];
        if !data.role.reads() {
            let name = self.printer.names.operand(operand.index());
            self.report(10, stmt, format!("output %{name} is read"));
        }
        for (&(axis, size), at) in data.dims.iter().zip(at) {
            self.position(stmt, at, dims);
            if must_be_inside {
                let axis = format!("dimension {}", self.printer.names.axis(axis));
                self.inside(stmt, at, dims, size, &axis);
            }
        }
    }

    pub(super) fn view(&mut self, stmt: &Stmt, viewed: TileId, at: &[Affine], dims: &Dims) {
        for (&(axis, size), at) in self.kernel.tiles[viewed].dims.iter().zip(at) {
            self.position(stmt, at, dims);
            let axis = format!("axis {}", self.printer.names.axis(axis));
            self.inside(stmt, at, dims, size, &axis);
        }
    }

    /// A store's or scatter's positions.
    pub(super) fn write_operand(
        &mut self,
        stmt: &Stmt,
        operand: OperandId,
        at: &[Affine],
        dims: &Dims,
    ) {
        if !self.kernel.operands[operand].role.writes() {
            let name = self.printer.names.operand(operand.index());
            self.report(10, stmt, format!("input %{name} is written"));
        }
        at.iter().for_each(|at| self.position(stmt, at, dims));
    }

    /// Two elements of a stored tile have different positions.
    pub(super) fn injective(&mut self, stmt: &Stmt, at: &[Affine], dims: &Dims) {
        if dims.iter().any(|&(_, extent)| extent == 0) {
            return;
        }
        let mut open: Dims = dims.iter().filter(|(_, extent)| *extent > 1).copied().collect();
        // A position tells the index along all its axes, where each moves it further than all smaller ones together.
        loop {
            let told = at.iter().find_map(|at| {
                let mut moving: Vec<(i64, i64)> = Vec::new();
                let mut axes = Vec::new();
                for &(axis, extent) in &open {
                    let step = at.coefficient(Term::Axis(axis)).saturating_abs();
                    if step != 0 {
                        moving.push((step, step.saturating_mul(extent as i64 - 1)));
                        axes.push(axis);
                    }
                }
                moving.sort_unstable();
                let mut reach: i64 = 0;
                let apart = moving.iter().all(|&(step, span)| {
                    let apart = step > reach;
                    reach = reach.saturating_add(span);
                    apart
                });
                (apart && !axes.is_empty()).then_some(axes)
            });
            let Some(told) = told else { break };
            open.retain(|(axis, _)| !told.contains(axis));
        }
        if let Some(&(axis, _)) = open.first() {
            let axis = self.printer.names.axis(axis);
            self.report(11, stmt, format!("elements along {axis} may be stored to one position"));
        }
    }
}
