//! Rules 4 to 7: what operations want of shapes and types.

use super::super::{Affine, Axis, Combine, Dims, OperandId, Role, Stmt, Tile, TileId, TileOp};
use super::Verifier;
use crate::expr::{Expr, ExprNode};
use crate::types::{Class, DType};

impl<'a> Verifier<'a> {
    pub(super) fn dims(&self, tile: TileId) -> &'a Dims {
        &self.kernel.tiles[tile].dims
    }

    pub(super) fn op(&mut self, stmt: &Stmt, op: &TileOp, results: &[TileId]) {
        let kernel = self.kernel;
        let result = &kernel.tiles[results[0]];
        let tile = |id: TileId| &kernel.tiles[id];
        let mut aligned: Vec<TileId> = op.reads().to_vec();
        match op {
            TileOp::Load { operand, at, pad } => {
                self.read_operand(stmt, *operand, at, &result.dims, pad.is_none());
                let dtype = kernel.operands[*operand].dtype;
                self.same_dtype(stmt, result.dtype, dtype, "a load");
                if let Some(pad) = pad {
                    self.same_dtype(stmt, pad.dtype, dtype, "padding");
                }
            }
            TileOp::Gather { operand, at, index } => {
                self.read_operand(stmt, *operand, at, &result.dims, false);
                self.same_dtype(stmt, result.dtype, kernel.operands[*operand].dtype, "a gather");
                self.index_tiles(stmt, index, &result.dims);
            }
            TileOp::Fill { value } => {
                self.same_dtype(stmt, result.dtype, value.dtype, "a fill");
            }
            TileOp::View { tile: viewed, at } => {
                // A view's axes are called like the tile's, but their extents are its own.
                aligned.clear();
                self.same_dtype(stmt, result.dtype, tile(*viewed).dtype, "a view");
                self.view(stmt, *viewed, at, &result.dims);
            }
            TileOp::Rearrange { tile: from } => {
                self.same_dtype(stmt, result.dtype, tile(*from).dtype, "a rearrangement");
                self.subset(stmt, axes(tile(*from)), &result.dims, "the result");
            }
            TileOp::Contract { init, a, b, over, accumulate } => {
                let both = axes(tile(*a)).chain(axes(tile(*b)));
                self.summed(stmt, over, both.clone());
                self.vanished(stmt, over, &result.dims);
                self.subset(
                    stmt,
                    both.filter(|axis| !over.contains(axis)),
                    &result.dims,
                    "the result",
                );
                self.starts(stmt, Some(*init), *accumulate, result);
                if accumulate.class() == Class::Bool {
                    self.report(6, stmt, "products are numbers, not bool");
                }
            }
            TileOp::Map { operands, expr } => {
                for &operand in operands {
                    self.subset(stmt, axes(tile(operand)), &result.dims, "the map's result");
                }
                self.expr(stmt, expr, operands, result);
            }
            TileOp::Reduce { combine, init, tile: reduced, over, accumulate } => {
                self.summed(stmt, over, axes(tile(*reduced)));
                self.vanished(stmt, over, &result.dims);
                let kept = axes(tile(*reduced)).filter(|axis| !over.contains(axis));
                self.subset(stmt, kept, &result.dims, "the result");
                self.starts(stmt, *init, *accumulate, result);
                self.combines(stmt, *combine, *accumulate);
            }
            TileOp::Scan { combine, tile: scanned, over, accumulate, .. } => {
                self.summed(stmt, &[*over], axes(tile(*scanned)));
                self.subset(stmt, axes(tile(*scanned)), &result.dims, "the result");
                self.starts(stmt, None, *accumulate, result);
                self.combines(stmt, *combine, *accumulate);
            }
            TileOp::ArgReduce { combine, tile: searched, over, .. } => {
                self.summed(stmt, &[*over], axes(tile(*searched)));
                self.vanished(stmt, &[*over], &result.dims);
                let kept = axes(tile(*searched)).filter(|axis| axis != over);
                self.subset(stmt, kept, &result.dims, "the result");
                self.integer(stmt, result.dtype);
                if !matches!(combine, Combine::Min | Combine::Max) {
                    self.report(6, stmt, "only min and max have a position");
                }
                if tile(*searched).extent(*over) == Some(0) {
                    self.report(5, stmt, "nothing is searched");
                }
            }
            TileOp::Sort { tile: keys, over, .. } => {
                self.summed(stmt, &[*over], axes(tile(*keys)));
                self.same_dtype(stmt, result.dtype, tile(*keys).dtype, "sorting");
                let positions = tile(results[1]);
                self.subset(stmt, axes(tile(*keys)), &result.dims, "the result");
                self.subset(stmt, axes(tile(*keys)), &positions.dims, "the result");
                self.integer(stmt, positions.dtype);
            }
        }
        aligned.extend(results);
        let reduces_away = matches!(op, TileOp::View { .. });
        if !reduces_away {
            self.aligned(stmt, &aligned);
        }
    }

    pub(super) fn store(&mut self, stmt: &Stmt, operand: OperandId, at: &[Affine], tile: TileId) {
        let tile = &self.kernel.tiles[tile];
        self.write_operand(stmt, operand, at, &tile.dims);
        self.injective(stmt, at, &tile.dims);
        self.same_dtype(stmt, self.kernel.operands[operand].dtype, tile.dtype, "a store");
        self.stored.insert(operand);
    }

    pub(super) fn scatter(
        &mut self,
        stmt: &Stmt,
        operand: OperandId,
        at: &[Affine],
        index: &[(usize, TileId)],
        tile: TileId,
        combine: Option<Combine>,
    ) {
        let data = &self.kernel.tiles[tile];
        self.write_operand(stmt, operand, at, &data.dims);
        self.same_dtype(stmt, self.kernel.operands[operand].dtype, data.dtype, "a scatter");
        self.index_tiles(stmt, index, &data.dims);
        let mut aligned: Vec<TileId> = index.iter().map(|&(_, tile)| tile).collect();
        aligned.push(tile);
        self.aligned(stmt, &aligned);
        if let Some(combine) = combine {
            self.combines(stmt, combine, data.dtype);
            let is_output = self.kernel.operands[operand].role == Role::Output;
            if is_output && !self.stored.contains(&operand) {
                let name = self.printer.names.operand(operand.index());
                self.report(10, stmt, format!("nothing was stored to %{name} to combine with"));
            }
        }
    }

    fn index_tiles(&mut self, stmt: &Stmt, index: &[(usize, TileId)], dims: &Dims) {
        for &(_, tile) in index {
            let tile = &self.kernel.tiles[tile];
            self.integer(stmt, tile.dtype);
            self.subset(stmt, axes(tile), dims, "what it gives positions for");
        }
    }

    /// Tiles that share an axis have one extent along it.
    fn aligned(&mut self, stmt: &Stmt, tiles: &[TileId]) {
        let mut known = Dims::new();
        for &tile in tiles {
            for &(axis, extent) in self.dims(tile) {
                match known.iter().find(|(other, _)| *other == axis) {
                    Some(&(_, other)) if other != extent => {
                        let axis = self.printer.names.axis(axis);
                        self.report(4, stmt, format!("axis {axis} is {other} and {extent} long"));
                    }
                    Some(_) => {}
                    None => known.push((axis, extent)),
                }
            }
        }
    }

    fn subset(&mut self, stmt: &Stmt, axes: impl Iterator<Item = Axis>, of: &Dims, what: &str) {
        let mut missing: Vec<Axis> =
            axes.filter(|axis| of.iter().all(|(other, _)| other != axis)).collect();
        missing.dedup();
        for axis in missing {
            let axis = self.printer.names.axis(axis);
            self.report(5, stmt, format!("axis {axis} is missing in {what}"));
        }
    }

    /// Summed axes vanish.
    fn vanished(&mut self, stmt: &Stmt, over: &[Axis], dims: &Dims) {
        for &axis in over {
            if dims.iter().any(|&(other, _)| other == axis) {
                let axis = self.printer.names.axis(axis);
                self.report(5, stmt, format!("axis {axis} is summed, but the result has it"));
            }
        }
    }

    /// Axes that vanish or are walked along are the operands'.
    fn summed(&mut self, stmt: &Stmt, over: &[Axis], of: impl Iterator<Item = Axis> + Clone) {
        for &axis in over {
            if !of.clone().any(|other| other == axis) {
                let axis = self.printer.names.axis(axis);
                self.report(5, stmt, format!("no operand has axis {axis}"));
            }
        }
    }

    fn starts(&mut self, stmt: &Stmt, init: Option<TileId>, accumulate: DType, result: &Tile) {
        let Some(init) = init else { return };
        let init = &self.kernel.tiles[init];
        self.same_dtype(stmt, init.dtype, accumulate, "accumulation");
        self.subset(stmt, axes(init), &result.dims, "the result");
    }

    fn combines(&mut self, stmt: &Stmt, combine: Combine, dtype: DType) {
        if let Err(why) = combine.function().result(&[dtype, dtype]) {
            self.report(6, stmt, why);
        }
    }

    fn same_dtype(&mut self, stmt: &Stmt, found: DType, wanted: DType, what: &str) {
        if found != wanted {
            self.report(6, stmt, format!("{what} does not convert {wanted} to {found}"));
        }
    }

    fn integer(&mut self, stmt: &Stmt, dtype: DType) {
        if !dtype.is_integer() {
            self.report(6, stmt, format!("a position is an integer, not {dtype}"));
        }
    }

    fn expr(&mut self, stmt: &Stmt, expr: &Expr, operands: &[TileId], result: &Tile) {
        let mut wrong = Vec::new();
        for (id, (node, dtype)) in expr.nodes.iter().enumerate() {
            let fits = match node {
                ExprNode::Operand(operand) => Ok(self.kernel.tiles[operands[*operand]].dtype),
                ExprNode::Constant(value) => Ok(value.dtype),
                ExprNode::Index(axis) if result.extent(*axis).is_none() => {
                    let axis = self.printer.names.axis(*axis);
                    Err(format!("the result has no axis {axis}"))
                }
                ExprNode::Var(var) if self.ranges[var.index()].is_none() => {
                    let var = self.printer.names.var(*var);
                    Err(format!("%{var} is used outside of its loop"))
                }
                ExprNode::Index(_) | ExprNode::Var(_) => Ok(DType::I64),
                ExprNode::Call(function, inputs) => {
                    let types: Vec<DType> =
                        inputs.iter().map(|&input| expr.nodes[input].1).collect();
                    function.result(&types)
                }
                ExprNode::Convert(_) => Ok(*dtype),
            };
            match fits {
                Ok(fits) if fits == *dtype => {}
                Ok(fits) => wrong.push(format!("node {id} is {fits}, not {dtype}")),
                Err(why) => wrong.push(why),
            }
        }
        wrong.into_iter().for_each(|why| self.report(7, stmt, why));
        self.same_dtype(stmt, result.dtype, expr.dtype(), "a map");
    }
}

fn axes(tile: &Tile) -> impl Iterator<Item = Axis> + Clone + '_ {
    tile.dims.iter().map(|&(axis, _)| axis)
}
