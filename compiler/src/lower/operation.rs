//! The ops that become tile operations of their own: reductions, products, windows, gathers, order.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use super::group::{Group, Index, Result, axes_in, cannot};
use crate::expr::{Expr, Scalar};
use crate::graph::{Node, ValueId};
use crate::kernel::{Affine, Axis, OperandId, Stmt, Term, TileId, TileOp};
use crate::op::{Contract, Convolve, Op, WindowReduce};
use crate::types::DType;

impl<'a> Group<'a> {
    /// The tile of a node's result at an index.
    pub(super) fn operation(
        &mut self,
        node: &'a Node,
        value: ValueId,
        index: &[Affine],
    ) -> Result<TileId> {
        match &node.op {
            Op::Reduce(op) => {
                let x = node.operands[0];
                let shape = self.shape(x).clone();
                let (at, over) = self.with_summed(&shape, &op.axes, index);
                let tile = self.tile(x, &at)?;
                if over.is_empty() {
                    return Ok(tile);
                }
                let tile = self.widen(tile, &over);
                let axes = self.axes_left(tile, &over);
                let accumulate = op.accumulate;
                let op = TileOp::Reduce { combine: op.combine, init: None, tile, over, accumulate };
                let reduced = self.define(op, accumulate, &axes);
                Ok(self.converted(reduced, accumulate, self.dtype(value)))
            }
            Op::ArgReduce(op) => {
                let x = node.operands[0];
                let axis = self.fresh_axis("k", self.shape(x)[op.axis]);
                let mut at = index.to_vec();
                at.insert(op.axis, Affine::axis(axis));
                let tile = self.tile(x, &at)?;
                let tile = self.widen(tile, &[axis]);
                let axes = self.axes_left(tile, &[axis]);
                let op = TileOp::ArgReduce { combine: op.combine, tile, over: axis, last: op.last };
                Ok(self.define(op, self.dtype(value), &axes))
            }
            Op::Scan(op) => {
                let x = node.operands[0];
                let (axis, at) = self.along(x, op.axis, index);
                let tile = self.tile(x, &at)?;
                let tile = self.widen(tile, &[axis]);
                let axes = self.tile_axes(tile);
                let scan = TileOp::Scan {
                    combine: op.combine,
                    tile,
                    over: axis,
                    exclusive: op.exclusive,
                    reverse: op.reverse,
                    accumulate: op.accumulate,
                };
                let whole = self.define(scan, op.accumulate, &axes);
                let whole = self.converted(whole, op.accumulate, self.dtype(value));
                Ok(self.pick(whole, axis, &index[op.axis]))
            }
            Op::Sort(op) => self.sorted(node, value, index, op.axis, op.descending),
            Op::TopK(op) => self.sorted(node, value, index, op.axis, op.descending),
            Op::Contract(op) => self.contract(op, node, index),
            Op::Convolve(op) => self.convolve(op, node, index),
            Op::WindowReduce(op) => self.window_reduce(op, node, value, index),
            Op::Gather(op) => {
                let Some(operand) = self.is_input(node.operands[0]) else {
                    return cannot("a gather reads a value that is computed in the group");
                };
                let rank = self.shape(node.operands[1]).len();
                let positions = self.tile(node.operands[1], &index[op.axis..op.axis + rank])?;
                let mut at = index.to_vec();
                at.splice(op.axis..op.axis + rank, [Affine::constant(0)]);
                let mut axes = axes_in(&at);
                axes.extend(self.tile_axes(positions));
                let gather = TileOp::Gather { operand, at, index: vec![(op.axis, positions)] };
                Ok(self.define(gather, self.dtype(value), &axes))
            }
            Op::Pad(op) => {
                let (Some(operand), Some(fill)) =
                    (self.is_input(node.operands[0]), self.constant_scalar(node.operands[1]))
                else {
                    return cannot("a pad needs an operand in memory and a constant value");
                };
                if op.interior.iter().any(|&size| size > 0) {
                    return cannot("a pad between elements is no view");
                }
                let at: Index = index
                    .iter()
                    .zip(&op.low)
                    .map(|(at, &low)| at.plus(&Affine::constant(low as i64), -1))
                    .collect();
                self.load(operand, &at, Some(fill))
            }
            Op::Constant(_)
            | Op::Parameter(_)
            | Op::Iota(_)
            | Op::Map(_)
            | Op::Convert(_)
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Broadcast(_)
            | Op::Slice(_)
            | Op::Concat(_)
            | Op::Reverse(_)
            | Op::Scatter(_)
            | Op::DynamicSlice(_)
            | Op::DynamicUpdate(_)
            | Op::Random(_)
            | Op::If(_)
            | Op::While(_)
            | Op::For(_)
            | Op::Call(_)
            | Op::Fusion(_)
            | Op::AllReduce(_)
            | Op::AllGather(_)
            | Op::ReduceScatter(_)
            | Op::AllToAll(_)
            | Op::Permute(_) => cannot(format!("{} has no tile", node.op.name())),
            composite => cannot(format!("{} is a composite", composite.name())),
        }
    }

    /// The index of an operand from which dimensions vanish, and the axes that are summed.
    fn with_summed(
        &mut self,
        shape: &[usize],
        dims: &[usize],
        index: &[Affine],
    ) -> (Index, Vec<Axis>) {
        let mut at = Index::new();
        let mut kept = index.iter();
        let mut taken = index.to_vec();
        for (dim, &extent) in shape.iter().enumerate() {
            if dims.contains(&dim) {
                let summed = self.summed_axis(shape.len(), dim, extent, &taken);
                taken.push(summed.clone());
                at.push(summed);
            } else {
                at.push(
                    kept.next().expect("the result has the dimensions that do not vanish").clone(),
                );
            }
        }
        let summed: Vec<Affine> = dims.iter().map(|&dim| at[dim].clone()).collect();
        (at, axes_in(&summed))
    }

    /// The tile with axes along which it may repeat: an axis that is summed must be there.
    fn widen(&mut self, tile: TileId, over: &[Axis]) -> TileId {
        let has = self.tile_axes(tile);
        if over.iter().all(|axis| has.contains(axis)) {
            return tile;
        }
        let at = has.iter().map(|&axis| Affine::axis(axis)).collect();
        let mut axes = has;
        axes.extend_from_slice(over);
        let dtype = self.kernel.tiles[tile].dtype;
        self.define(TileOp::View { tile, at }, dtype, &axes)
    }

    /// The axes of a tile but those that vanish.
    fn axes_left(&self, tile: TileId, over: &[Axis]) -> Vec<Axis> {
        self.tile_axes(tile).into_iter().filter(|axis| !over.contains(axis)).collect()
    }

    /// The index with one dimension read along a whole axis: its own where it is one, else a new one.
    fn along(&mut self, x: ValueId, dim: usize, index: &[Affine]) -> (Axis, Index) {
        let extent = self.shape(x)[dim];
        let mut at = index.to_vec();
        let others =
            || index.iter().enumerate().filter(|(other, _)| *other != dim).map(|(_, at)| at);
        if let [(Term::Axis(axis), 1)] = index[dim].terms() {
            let free = others().all(|at| at.coefficient(Term::Axis(*axis)) == 0);
            if index[dim].constant == 0 && self.extent(*axis) == extent && free {
                return (*axis, at);
            }
        }
        let axis = self.fresh_axis("k", extent);
        at[dim] = Affine::axis(axis);
        (axis, at)
    }

    /// The part of a tile at a position along one of its axes.
    fn pick(&mut self, tile: TileId, axis: Axis, position: &Affine) -> TileId {
        if *position == Affine::axis(axis) {
            return tile;
        }
        let has = self.tile_axes(tile);
        let at: Index = has
            .iter()
            .map(|&other| if other == axis { position.clone() } else { Affine::axis(other) })
            .collect();
        let axes = axes_in(&at);
        let dtype = self.kernel.tiles[tile].dtype;
        self.define(TileOp::View { tile, at }, dtype, &axes)
    }

    fn sorted(
        &mut self,
        node: &Node,
        value: ValueId,
        index: &[Affine],
        dim: usize,
        descending: bool,
    ) -> Result<TileId> {
        let x = node.operands[0];
        let (axis, at) = self.along(x, dim, index);
        let tile = self.tile(x, &at)?;
        let tile = self.widen(tile, &[axis]);
        let axes = self.tile_axes(tile);
        let keys = self.define(TileOp::Sort { tile, over: axis, descending }, self.dtype(x), &axes);
        // The second result stands in the same statement.
        let dims: Vec<(Axis, usize)> = self.kernel.tiles[keys].dims.to_vec();
        let name = format!("t{}", self.kernel.tiles.len());
        let places = self.kernel.tile(&name, DType::I64, &dims);
        if let Some(Stmt::Define { results, .. }) = self.kernel.body.last_mut() {
            results.push(places);
        }
        let keys = self.pick(keys, axis, &index[dim]);
        let places = self.pick(places, axis, &index[dim]);
        self.remember(node.results[0], index, keys);
        self.remember(node.results[1], index, places);
        Ok(if value == node.results[0] { keys } else { places })
    }

    fn contract(&mut self, op: &Contract, node: &Node, index: &[Affine]) -> Result<TileId> {
        let (a, b) = (node.operands[0], node.operands[1]);
        let (a_shape, b_shape) = (self.shape(a).clone(), self.shape(b).clone());
        let mut at_a: Vec<Option<Affine>> = vec![None; a_shape.len()];
        let mut at_b: Vec<Option<Affine>> = vec![None; b_shape.len()];
        let mut next = index.iter().cloned();
        let mut take = || next.next().expect("the result has batch, left and right dimensions");
        for pair in &op.batch {
            let at = take();
            at_a[pair[0]] = Some(at.clone());
            at_b[pair[1]] = Some(at);
        }
        let mut summed = Vec::new();
        for pair in &op.over {
            let at = self.fresh("k", a_shape[pair[0]]);
            at_a[pair[0]] = Some(at.clone());
            at_b[pair[1]] = Some(at.clone());
            summed.push(at);
        }
        let at_a: Index = at_a.into_iter().map(|at| at.unwrap_or_else(&mut take)).collect();
        let at_b: Index = at_b.into_iter().map(|at| at.unwrap_or_else(&mut take)).collect();
        let a = self.tile(a, &at_a)?;
        let b = self.tile(b, &at_b)?;
        self.product(a, b, &summed, op.accumulate, op.dtype)
    }

    fn product(
        &mut self,
        a: TileId,
        b: TileId,
        summed: &[Affine],
        accumulate: DType,
        dtype: DType,
    ) -> Result<TileId> {
        let over: Vec<Axis> =
            summed.iter().flat_map(|at| axes_in(std::slice::from_ref(at))).collect();
        let (a, b) = (self.widen(a, &over), self.widen(b, &over));
        let mut axes = self.tile_axes(a);
        axes.extend(self.tile_axes(b));
        axes.retain(|axis| !over.contains(axis));
        let init = self.fill(Scalar::from_i64(accumulate, 0));
        let sum = self.define(TileOp::Contract { init, a, b, over, accumulate }, accumulate, &axes);
        Ok(self.converted(sum, accumulate, dtype))
    }

    /// A tile in another type: what accumulates has the accumulation type until then.
    fn converted(&mut self, tile: TileId, from: DType, to: DType) -> TileId {
        if from == to {
            return tile;
        }
        let mut expr = Expr::new();
        let x = expr.operand(0, from);
        expr.convert(x, to);
        self.map(vec![tile], expr)
    }

    fn convolve(&mut self, op: &Convolve, node: &'a Node, index: &[Affine]) -> Result<TileId> {
        let (x, w) = (node.operands[0], node.operands[1]);
        let (x_shape, w_shape) = (self.shape(x).clone(), self.shape(w).clone());
        let (channels, outputs) = (w_shape[1], w_shape[0] / op.groups);
        let c = self.fresh("k", channels);
        let group = if op.groups == 1 {
            Affine::constant(0)
        } else if outputs == 1 {
            index[1].clone()
        } else {
            super::reshape::operand_index(self, &[op.groups, outputs], &[w_shape[0]], &index[1..2])?
                [0]
            .clone()
        };
        let mut at_x = vec![index[0].clone(), group.times(channels as i64).plus(&c, 1)];
        let mut at_w = vec![index[1].clone(), c.clone()];
        let mut summed = vec![c];
        for dim in 0..w_shape.len() - 2 {
            let tap = self.fresh("r", w_shape[dim + 2]);
            let low = Affine::constant(-(op.low[dim] as i64));
            at_x.push(
                low.plus(&index[dim + 2], op.strides[dim] as i64)
                    .plus(&tap, op.dilations[dim] as i64),
            );
            at_w.push(tap.clone());
            summed.push(tap);
        }
        let zero = Scalar::from_i64(self.dtype(x), 0);
        let window = self.window(x, &x_shape, at_x, zero)?;
        let weights = self.tile(w, &at_w)?;
        self.product(weights, window, &summed, op.accumulate, op.dtype)
    }

    /// A read that may leave the value, which then must lie in memory.
    fn window(
        &mut self,
        x: ValueId,
        shape: &[usize],
        at: Index,
        outside: Scalar,
    ) -> Result<TileId> {
        let inside = self.stays_inside(&at, shape.iter().copied());
        if inside {
            return self.tile(x, &at);
        }
        match self.is_input(x) {
            Some(operand) => self.load(operand, &at, Some(outside)),
            None => self.window_of_transpose(x, at, outside),
        }
    }

    fn window_of_transpose(&mut self, x: ValueId, at: Index, outside: Scalar) -> Result<TileId> {
        let node = self.node_of(x).expect("a group's values are parameters or made in it");
        let Op::Transpose(op) = &node.op else {
            return cannot("a padded window reads a value that is computed in the group");
        };
        let mut inner = vec![Affine::default(); at.len()];
        for (dim, &from) in op.perm.iter().enumerate() {
            inner[from] = at[dim].clone();
        }
        let shape = self.shape(node.operands[0]).clone();
        self.window(node.operands[0], &shape, inner, outside)
    }

    fn window_reduce(
        &mut self,
        op: &WindowReduce,
        node: &'a Node,
        value: ValueId,
        index: &[Affine],
    ) -> Result<TileId> {
        let x = node.operands[0];
        let shape = self.shape(x).clone();
        let mut at = Index::new();
        let mut taps = Vec::new();
        for (dim, position) in index.iter().enumerate() {
            let tap = self.fresh("r", op.window[dim]);
            let low = Affine::constant(-(op.low[dim] as i64));
            let start = low.plus(position, op.strides[dim] as i64);
            at.push(start.plus(&tap, op.dilations[dim] as i64));
            taps.push(tap);
        }
        let over = axes_in(&taps);
        let outside = op.combine.identity(self.dtype(x));
        let tile = self.window(x, &shape, at, outside)?;
        if over.is_empty() {
            return Ok(tile);
        }
        let tile = self.widen(tile, &over);
        let axes = self.axes_left(tile, &over);
        let accumulate = op.accumulate;
        let reduce = TileOp::Reduce { combine: op.combine, init: None, tile, over, accumulate };
        let reduced = self.define(reduce, accumulate, &axes);
        Ok(self.converted(reduced, accumulate, self.dtype(value)))
    }

    /// The value of a constant with one element.
    fn constant_scalar(&self, value: ValueId) -> Option<Scalar> {
        match &self.node_of(value)?.op {
            Op::Constant(constant) if constant.value.count() == 1 => {
                let bytes = &constant.value.bytes()[..constant.value.dtype().bytes()];
                Some(Scalar::from_tensor_element(constant.value.dtype(), bytes))
            }
            _ => None,
        }
    }

    /// Writes a result that consists of parts written one after another; false where the op is not of that kind.
    pub(super) fn store_pieces(
        &mut self,
        node: &'a Node,
        value: ValueId,
        output: OperandId,
    ) -> Result<bool> {
        match &node.op {
            Op::Concat(op) => {
                let mut offset = 0;
                for &x in &node.operands {
                    let shape = self.shape(x).clone();
                    let index = self.index_like(&shape);
                    let tile = self.tile(x, &index)?;
                    let mut at = index;
                    at[op.axis] = at[op.axis].plus(&Affine::constant(offset), 1);
                    offset += shape[op.axis] as i64;
                    if shape.iter().all(|&size| size > 0) {
                        self.store(output, at, tile);
                    }
                }
                Ok(true)
            }
            Op::Pad(op) => {
                let simple = self.constant_scalar(node.operands[1]).is_some()
                    && self.is_input(node.operands[0]).is_some();
                if simple && op.interior.iter().all(|&size| size == 0) {
                    return Ok(false);
                }
                let shape = self.shape(value).clone();
                let index = self.index_like(&shape);
                let fill = self.tile(node.operands[1], &[])?;
                self.store(output, index, fill);
                let shape = self.shape(node.operands[0]).clone();
                let index = self.index_like(&shape);
                let tile = self.tile(node.operands[0], &index)?;
                let place = |(dim, at): (usize, &Affine)| {
                    Affine::constant(op.low[dim] as i64).plus(at, 1 + op.interior[dim] as i64)
                };
                let at = index.iter().enumerate().map(place).collect();
                self.store(output, at, tile);
                Ok(true)
            }
            Op::Scatter(op) => {
                let (x, indices, updates) = (node.operands[0], node.operands[1], node.operands[2]);
                self.copy_to(x, output)?;
                let shape = self.shape(updates).clone();
                let index = self.index_like(&shape);
                let rank = self.shape(indices).len();
                let tile = self.tile(updates, &index)?;
                let tile = self.widen(tile, &axes_in(&index));
                let positions = self.tile(indices, &index[op.axis..op.axis + rank])?;
                let mut at = index;
                at.splice(op.axis..op.axis + rank, [Affine::constant(0)]);
                let index = vec![(op.axis, positions)];
                self.kernel.body.push(Stmt::Scatter {
                    operand: output,
                    at,
                    index,
                    tile,
                    combine: op.combine,
                });
                Ok(true)
            }
            Op::DynamicUpdate(_) => {
                let (x, update) = (node.operands[0], node.operands[1]);
                self.copy_to(x, output)?;
                let (whole, shape) = (self.shape(x).clone(), self.shape(update).clone());
                let index = self.index_like(&shape);
                let tile = self.tile(update, &index)?;
                let mut at = Index::new();
                for (dim, position) in index.iter().enumerate() {
                    let var = self.scalar(node.operands[dim + 2], whole[dim] - shape[dim]);
                    at.push(position.plus(&Affine::var(var), 1));
                }
                self.store(output, at, tile);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Axes for a part that is stored on its own.
    fn index_like(&mut self, shape: &[usize]) -> Index {
        if *shape == self.root_shape[..] {
            return self.root_index.clone();
        }
        shape.iter().map(|&size| self.fresh("p", size)).collect()
    }

    fn copy_to(&mut self, x: ValueId, output: OperandId) -> Result<()> {
        let shape = self.shape(x).clone();
        let index = self.index_like(&shape);
        let tile = self.tile(x, &index)?;
        self.store(output, index, tile);
        Ok(())
    }
}
