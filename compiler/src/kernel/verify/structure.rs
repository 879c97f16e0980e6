//! Rule 1, 3 and 14: what is named exists, and numbers are bounded.

use super::super::{Affine, Axis, Loop, Stmt, Term, TileId, TileOp};
use super::{MAX_DEPTH, MAX_NUMBER, Verifier};
use crate::expr::ExprNode;

impl Verifier<'_> {
    pub(super) fn structure(&mut self) {
        let kernel = self.kernel;
        for (index, name) in kernel.axes.iter().enumerate() {
            if kernel.axes[..index].contains(name) {
                self.report_at(1, format!("two axes are called {name}"));
            }
        }
        for (_, operand) in kernel.operands.iter() {
            let known = operand.dims.iter().all(|&(axis, _)| self.has_axis(axis));
            if !known {
                self.report_at(1, format!("operand {} has an unknown axis", operand.name));
            }
            if operand.ty().checked_count().is_none() {
                let message = format!("operand {} is larger than any memory", operand.name);
                self.report_at(3, message);
            }
        }
        for (id, tile) in kernel.tiles.iter() {
            let name = self.printer.value(id);
            let mut axes = tile.dims.iter().map(|&(axis, _)| axis).chain(tile.rows.iter().copied());
            if !axes.all(|axis| self.has_axis(axis)) {
                self.report_at(1, format!("tile {name} has an unknown axis"));
            }
            for (place, &(axis, _)) in tile.dims.iter().enumerate() {
                if tile.dims[..place].iter().any(|&(other, _)| other == axis) {
                    let axis = self.printer.names.axis(axis);
                    self.report_at(3, format!("tile {name} has axis {axis} twice"));
                }
            }
            if tile.ty().checked_count().is_none() {
                self.report_at(3, format!("tile {name} is larger than any memory"));
            }
        }
        for (id, low, high) in kernel.scalars() {
            let name = self.printer.names.var(id);
            if low > high {
                self.report_at(14, format!("scalar %{name} starts at {low}, above its end {high}"));
            }
            if low < -MAX_NUMBER || high > MAX_NUMBER {
                self.report_at(3, format!("scalar %{name} has more than 40 bits"));
            }
        }
        self.known_body(&kernel.body, 0);
    }

    fn has_axis(&self, axis: Axis) -> bool {
        (axis.0 as usize) < self.kernel.axes.len()
    }

    fn known_body(&mut self, body: &[Stmt], depth: usize) {
        for stmt in body {
            let mut tiles: Vec<TileId> = stmt.results().to_vec();
            match stmt {
                Stmt::Define { results, op } => {
                    tiles.extend(op.reads());
                    let wanted = if matches!(op, TileOp::Sort { .. }) { 2 } else { 1 };
                    if results.len() != wanted {
                        let what = format!("{wanted} results are wanted, not {}", results.len());
                        self.report(1, stmt, what);
                    }
                    self.known_op(stmt, op);
                }
                Stmt::Store { operand, at, tile } => {
                    tiles.push(*tile);
                    self.known_access(stmt, operand.index(), at, &[]);
                }
                Stmt::Scatter { operand, at, index, tile, .. } => {
                    tiles.extend(index.iter().map(|&(_, tile)| tile));
                    tiles.push(*tile);
                    self.known_access(stmt, operand.index(), at, index);
                }
                Stmt::For(looped) => {
                    for &(inside, initial) in &looped.carried {
                        tiles.extend([inside, initial]);
                    }
                    tiles.extend(&looped.yields);
                    self.known_loop(stmt, looped, depth);
                }
            }
            if tiles.iter().any(|&tile| self.kernel.tiles.get(tile).is_none()) {
                self.report(1, stmt, "a tile is not one of the kernel");
            }
        }
    }

    fn known_loop(&mut self, stmt: &Stmt, looped: &Loop, depth: usize) {
        if self.kernel.vars.get(looped.var).is_none() {
            self.report(1, stmt, "the variable is not one of the kernel");
        }
        self.known_affine(stmt, &looped.start);
        self.known_affine(stmt, &looped.end);
        let counts = [looped.yields.len(), looped.results.len()];
        if let Some(other) = counts.iter().find(|&&count| count != looped.carried.len()) {
            let what = format!("{} tiles are carried, not {other}", looped.carried.len());
            self.report(1, stmt, what);
        }
        if looped.step == 0 || looped.step as u64 > MAX_NUMBER as u64 {
            self.report(3, stmt, "a step is positive and has at most 40 bits");
        }
        if looped.pipelined == 0 {
            self.report(3, stmt, "at least one iteration is in flight");
        }
        if depth >= MAX_DEPTH {
            self.report(3, stmt, format!("loops nest deeper than {MAX_DEPTH}"));
            return;
        }
        self.known_body(&looped.body, depth + 1);
    }

    fn known_access(
        &mut self,
        stmt: &Stmt,
        operand: usize,
        at: &[Affine],
        index: &[(usize, TileId)],
    ) {
        let id = crate::arena::Id::from_index(operand);
        let Some(operand) = self.kernel.operands.get(id) else {
            self.report(1, stmt, "the operand is not one of the kernel");
            return;
        };
        let rank = operand.dims.len();
        self.known_positions(stmt, rank, at);
        for (place, (dim, _)) in index.iter().enumerate() {
            let twice = index[..place].iter().any(|(other, _)| other == dim);
            if *dim >= rank || twice {
                self.report(1, stmt, format!("dimension {dim} has no place for an index"));
            }
        }
    }

    fn known_positions(&mut self, stmt: &Stmt, rank: usize, at: &[Affine]) {
        if at.len() != rank {
            self.report(1, stmt, format!("{rank} positions are wanted, not {}", at.len()));
        }
        at.iter().for_each(|at| self.known_affine(stmt, at));
    }

    fn known_affine(&mut self, stmt: &Stmt, affine: &Affine) {
        let known = |term: Term| match term {
            Term::Axis(axis) => self.has_axis(axis),
            Term::Var(var) => self.kernel.vars.get(var).is_some(),
        };
        if !affine.terms().iter().all(|&(term, _)| known(term)) {
            self.report(1, stmt, "a position uses an unknown axis or variable");
        }
        let numbers = affine.terms().iter().map(|&(_, factor)| factor).chain([affine.constant]);
        if numbers.into_iter().any(|number| number.unsigned_abs() > MAX_NUMBER as u64) {
            self.report(3, stmt, "a position has a number of more than 40 bits");
        }
    }

    fn known_op(&mut self, stmt: &Stmt, op: &TileOp) {
        match op {
            TileOp::Load { operand, at, .. } => self.known_access(stmt, operand.index(), at, &[]),
            TileOp::Gather { operand, at, index } => {
                self.known_access(stmt, operand.index(), at, index);
            }
            TileOp::View { tile, at } => {
                let rank = self.kernel.tiles.get(*tile).map_or(at.len(), |tile| tile.dims.len());
                self.known_positions(stmt, rank, at);
            }
            TileOp::Contract { over, .. } | TileOp::Reduce { over, .. } => {
                self.known_axes(stmt, over);
            }
            TileOp::ArgReduce { over, .. }
            | TileOp::Scan { over, .. }
            | TileOp::Sort { over, .. } => self.known_axes(stmt, &[*over]),
            TileOp::Map { operands, expr } => {
                if expr.root >= expr.nodes.len() {
                    self.report(1, stmt, "the expression has no result");
                }
                for (id, (node, _)) in expr.nodes.iter().enumerate() {
                    let known = match node {
                        ExprNode::Operand(operand) => *operand < operands.len(),
                        ExprNode::Constant(_) => true,
                        ExprNode::Index(axis) => self.has_axis(*axis),
                        ExprNode::Var(var) => self.kernel.vars.get(*var).is_some(),
                        ExprNode::Call(_, inputs) => inputs.iter().all(|&input| input < id),
                        ExprNode::Convert(input) => *input < id,
                    };
                    if !known {
                        self.report(1, stmt, format!("node {id} uses what is not there"));
                    }
                }
            }
            TileOp::Fill { .. } | TileOp::Rearrange { .. } => {}
        }
    }

    fn known_axes(&mut self, stmt: &Stmt, axes: &[Axis]) {
        for (place, &axis) in axes.iter().enumerate() {
            if !self.has_axis(axis) {
                self.report(1, stmt, "an axis is not one of the kernel");
            } else if axes[..place].contains(&axis) {
                let axis = self.printer.names.axis(axis);
                self.report(1, stmt, format!("axis {axis} is summed twice"));
            }
        }
    }
}
