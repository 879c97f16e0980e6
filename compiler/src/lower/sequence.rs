//! A `for` as one kernel: a sequential loop that carries the state as tiles. What does not change from one iteration to the
//! next stands before the loop, the loads of weights with it. A carried tensor that each iteration only writes a part of
//! is no state: the parts are stored where they belong.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use super::group::{Group, Index, Result, axes_in, cannot, read_elements};
use crate::expr::{Expr, ExprNode};
use crate::graph::{Block, Node, ValueId};
use crate::kernel::{
    Affine, Axis, Loop, LoopKind, OperandId, Role, Stmt, Term, TileId, TileOp, Var, VarId, VarKind,
};
use crate::op::Op;
use crate::scalar::ScalarFn;
use crate::types::{Class, DType};
use std::collections::{BTreeMap, BTreeSet};

/// The loop that a group becomes, and what its body may read of it.
pub(super) struct Sequence {
    /// The number of the iteration, as a value.
    counter: ValueId,
    pub(super) var: VarId,
    pub(super) count: usize,
    /// The carried tiles by the body's parameters, with the index at which each holds the whole value.
    state: BTreeMap<ValueId, (TileId, Index)>,
    /// The axes over which shapes are computed as a whole, dimensions of one element left out.
    axes: BTreeMap<Vec<usize>, Vec<Affine>>,
}

/// A carried tensor of which each iteration writes a part.
struct Written<'a> {
    initial: ValueId,
    output: OperandId,
    update: &'a Node,
    /// Whether the iterations together write all of it.
    whole: bool,
}

/// A carried tensor that is a tile.
struct State {
    param: ValueId,
    initial: ValueId,
    yielded: ValueId,
    output: Option<OperandId>,
}

impl<'a> Group<'a> {
    /// Fills the kernel with the loop that `node` is; gives the parameters that it reads, in the order of its operands.
    pub(super) fn sequence(
        &mut self,
        block: &Block,
        node: &'a Node,
        count: usize,
    ) -> Result<Vec<ValueId>> {
        let body = &node.blocks[0];
        if count == 0 {
            return cannot("a loop without iterations is no kernel");
        }
        self.enter(node);
        let var = self.kernel.vars.push(Var { name: "t".to_owned(), kind: VarKind::Loop });
        self.sequence = Some(Sequence {
            counter: body.params[0],
            var,
            count,
            state: BTreeMap::new(),
            axes: BTreeMap::new(),
        });
        let updates: Vec<Option<&Node>> =
            (0..node.operands.len()).map(|position| self.only_update(body, position)).collect();
        let loaded = self.declare_read(block, node, &updates);
        let mut outputs = BTreeMap::new();
        for (position, &result) in block.results.iter().enumerate() {
            outputs.insert(result, self.declare(result, &format!("y{position}"), Role::Output));
        }
        let (mut written, mut state) = (Vec::new(), Vec::new());
        for (position, update) in updates.into_iter().enumerate() {
            let initial = node.operands[position];
            let output = outputs.get(&node.results[position]).copied();
            match (update, output) {
                (Some(update), Some(output)) => {
                    let whole = self.writes_all(update);
                    written.push(Written { initial, output, update, whole });
                }
                // Nobody wants what the iterations write.
                (Some(_), None) => {}
                (None, _) => state.push(State {
                    param: body.params[position + 1],
                    initial,
                    yielded: body.results[position],
                    output,
                }),
            }
        }
        for tensor in written.iter().filter(|tensor| !tensor.whole) {
            let index = self.axes_for(&self.shape(tensor.initial).clone());
            let tile = self.tile(tensor.initial, &index)?;
            self.store(tensor.output, index, tile);
        }
        self.repeat(&written, &state)?;
        Ok(loaded)
    }

    /// Declares the parameters whose elements the kernel reads.
    fn declare_read(
        &mut self,
        block: &Block,
        node: &Node,
        updates: &[Option<&Node>],
    ) -> Vec<ValueId> {
        let mut elements = read_elements(self.function, &node.blocks[0]);
        for (position, &initial) in node.operands.iter().enumerate() {
            let is_read = match updates[position] {
                Some(update) => {
                    block.results.contains(&node.results[position]) && !self.writes_all(update)
                }
                None => true,
            };
            if is_read {
                elements.insert(initial);
            }
        }
        let mut loaded = Vec::new();
        for (position, &param) in block.params.iter().enumerate() {
            if elements.contains(&param) {
                self.read_operand(param, position);
                loaded.push(param);
            }
        }
        loaded
    }

    /// The update that makes the carried value of the next iteration out of this one's, where nothing else reads either.
    fn only_update(&self, body: &Block, position: usize) -> Option<&'a Node> {
        let node = self.node_of(body.results[position])?;
        let alone = |value: ValueId| self.uses.get(&value) == Some(&1);
        let param = body.params[position + 1];
        let is_update = matches!(node.op, Op::DynamicUpdate(_)) && node.operands[0] == param;
        (is_update && alone(param) && alone(body.results[position])).then_some(node)
    }

    /// Whether the iterations write every element: the part is whole but along one dimension, along which each iteration
    /// goes on by as much as it writes.
    fn writes_all(&self, update: &Node) -> bool {
        let sequence = self.sequence.as_ref().expect("the group is a loop");
        let (whole, part) = (self.shape(update.operands[0]), self.shape(update.operands[1]));
        let mut moving = 0;
        let fits = whole.iter().zip(part).enumerate().all(|(dim, (&whole, &part))| {
            let Some(start) = self.affine_of(update.operands[dim + 2]) else { return false };
            let step = start.coefficient(Term::Var(sequence.var));
            if step == 0 {
                return start.constant == 0 && part == whole;
            }
            moving += 1;
            let (low, high) = self.range(&start);
            step.unsigned_abs() == part as u64 && low == 0 && high + part as i64 == whole as i64
        });
        fits && moving == 1
    }

    /// The loop, and after it the stores of the states' last values.
    fn repeat(&mut self, written: &[Written<'a>], state: &[State]) -> Result<()> {
        let mut carried = Vec::new();
        for part in state {
            let index = self.axes_for(&self.shape(part.param).clone());
            let initial = self.tile(part.initial, &index)?;
            let initial = self.spread_over(initial, &index);
            let tile = self.new_tile(self.dtype(part.param), &axes_in(&index));
            carried.push((tile, initial));
            let sequence = self.sequence.as_mut().expect("the group is a loop");
            sequence.state.insert(part.param, (tile, index));
        }
        let mut before = std::mem::take(&mut self.kernel.body);
        let known = self.tiles.clone();
        let mut yields = Vec::new();
        for part in state {
            let index =
                self.sequence.as_ref().expect("the group is a loop").state[&part.param].1.clone();
            let tile = self.tile(part.yielded, &index)?;
            let tile = self.spread_over(tile, &index);
            // What an iteration gives is a tile of its own, and not a look at one that the next iteration overwrites.
            let tile = if self.is_look(tile) { self.copied(tile) } else { tile };
            yields.push(tile);
        }
        for tensor in written {
            self.store_update(tensor)?;
        }
        let body = std::mem::take(&mut self.kernel.body);
        self.tiles = known;
        let sequence = self.sequence.as_ref().expect("the group is a loop");
        let (var, end) = (sequence.var, Affine::constant(sequence.count as i64));
        let (hoisted, body) = hoist(body, var, carried.iter().map(|&(tile, _)| tile).collect());
        before.extend(hoisted);
        self.kernel.body = before;
        let results: Vec<TileId> = carried
            .iter()
            .map(|&(tile, _)| {
                let dtype = self.kernel.tiles[tile].dtype;
                let axes = self.tile_axes(tile);
                self.new_tile(dtype, &axes)
            })
            .collect();
        self.kernel.body.push(Stmt::For(Loop {
            var,
            start: Affine::constant(0),
            end,
            step: 1,
            kind: LoopKind::Sequential,
            pipelined: 1,
            carried,
            body,
            yields,
            results: results.clone(),
        }));
        for (part, tile) in state.iter().zip(results) {
            let Some(output) = part.output else { continue };
            let index =
                self.sequence.as_ref().expect("the group is a loop").state[&part.param].1.clone();
            self.store(output, index, tile);
        }
        Ok(())
    }

    fn store_update(&mut self, tensor: &Written<'a>) -> Result<()> {
        let (x, part) = (tensor.update.operands[0], tensor.update.operands[1]);
        let (whole, shape) = (self.shape(x).clone(), self.shape(part).clone());
        let index = self.axes_for(&shape);
        let tile = self.tile(part, &index)?;
        let mut at = Index::new();
        for (dim, position) in index.iter().enumerate() {
            let start = self.start(tensor.update.operands[dim + 2], whole[dim] - shape[dim])?;
            at.push(position.plus(&start, 1));
        }
        self.store(tensor.output, at, tile);
        Ok(())
    }

    /// Where a part starts: within 0 and `last`, as a scalar parameter, or from the number of the iteration.
    pub(super) fn start(&mut self, value: ValueId, last: usize) -> Result<Affine> {
        if self.sequence.is_none() {
            return Ok(Affine::var(self.scalar(value, last)));
        }
        match self.affine_of(value) {
            Some(start) => {
                let (low, high) = self.range(&start);
                match low >= 0 && high <= last as i64 {
                    true => Ok(start),
                    false => cannot("a part would be moved to stay inside"),
                }
            }
            None if self.node_of(value).is_none() && self.state_of(value).is_none() => {
                Ok(Affine::var(self.scalar(value, last)))
            }
            None => cannot("a start is computed in the loop"),
        }
    }

    /// An integer value as an affine expression of the number of the iteration.
    fn affine_of(&self, value: ValueId) -> Option<Affine> {
        let sequence = self.sequence.as_ref()?;
        if value == sequence.counter {
            return Some(Affine::var(sequence.var));
        }
        let node = self.node_of(value)?;
        let found = match &node.op {
            Op::Constant(constant) => {
                let dtype = constant.value.dtype();
                if constant.value.count() != 1
                    || !matches!(dtype.class(), Class::Signed | Class::Unsigned)
                {
                    return None;
                }
                Affine::constant(*constant.value.to_i64().first()?)
            }
            Op::Convert(convert)
                if is_wide(convert.dtype) && is_wide(self.dtype(node.operands[0])) =>
            {
                self.affine_of(node.operands[0])?
            }
            Op::Reshape(_) if self.function.ty(value).count() == 1 => {
                self.affine_of(node.operands[0])?
            }
            Op::Map(map) => {
                let a = self.affine_of(node.operands[0])?;
                let b = self.affine_of(*node.operands.get(1)?)?;
                match map.function {
                    ScalarFn::Add => a.plus(&b, 1),
                    ScalarFn::Sub => a.plus(&b, -1),
                    ScalarFn::Mul if b.terms().is_empty() => a.times(b.constant),
                    ScalarFn::Mul if a.terms().is_empty() => b.times(a.constant),
                    _ => return None,
                }
            }
            _ => return None,
        };
        // So small a number is the same in every type that holds one.
        let (low, high) = self.range(&found);
        (low >= -SMALL && high <= SMALL).then_some(found)
    }

    /// The number of the iteration, where the value is that.
    pub(super) fn counter(&self, value: ValueId) -> Option<Affine> {
        let sequence = self.sequence.as_ref()?;
        (value == sequence.counter).then(|| Affine::var(sequence.var))
    }

    pub(super) fn state_of(&self, value: ValueId) -> Option<(TileId, Index)> {
        self.sequence.as_ref()?.state.get(&value).cloned()
    }

    /// Axes over which a shape is computed as a whole: the same for all shapes that differ by dimensions of one element.
    fn axes_for(&mut self, shape: &[usize]) -> Index {
        let key: Vec<usize> = shape.iter().copied().filter(|&size| size != 1).collect();
        let known = self.sequence.as_ref().and_then(|sequence| sequence.axes.get(&key).cloned());
        let axes = known.unwrap_or_else(|| {
            let axes = self.axes_of(&key);
            let sequence = self.sequence.as_mut().expect("the group is a loop");
            sequence.axes.insert(key, axes.clone());
            axes
        });
        let mut axes = axes.into_iter();
        let mut at = |size: usize| match size {
            1 => Affine::constant(0),
            _ => axes.next().expect("an axis for each dimension"),
        };
        shape.iter().map(|&size| at(size)).collect()
    }

    /// What an operation gives at an index, in a loop: computed once, as a whole, and seen from there.
    pub(super) fn once(
        &mut self,
        node: &'a Node,
        value: ValueId,
        index: &[Affine],
    ) -> Result<TileId> {
        if self.is_whole(value, index) {
            return self.operation(node, value, index);
        }
        let whole = self.axes_for(&self.shape(value).clone());
        if !self.is_whole(value, &whole) {
            return cannot("a part of a value whose axes are split is read");
        }
        let tile = self.tile(value, &whole)?;
        Ok(self.seen(tile, &whole, index))
    }

    /// A tile that holds a value at `whole`, seen at another index.
    pub(super) fn seen(&mut self, tile: TileId, whole: &[Affine], index: &[Affine]) -> TileId {
        if whole == index {
            return tile;
        }
        let dim_of = |axis: Axis| whole.iter().position(|at| *at == Affine::axis(axis));
        let at: Index = self
            .tile_axes(tile)
            .into_iter()
            .map(|axis| {
                index[dim_of(axis).expect("a whole value has a dimension for each axis")].clone()
            })
            .collect();
        let dtype = self.kernel.tiles[tile].dtype;
        let axes = axes_in(&at);
        self.define(TileOp::View { tile, at }, dtype, &axes)
    }

    fn spread_over(&mut self, tile: TileId, index: &[Affine]) -> TileId {
        let axes = axes_in(index);
        match axes.iter().all(|&axis| self.kernel.tiles[tile].extent(axis).is_some()) {
            true => tile,
            false => self.spread(tile, &axes),
        }
    }

    /// Whether a tile only shows another, or what an operand holds.
    fn is_look(&self, tile: TileId) -> bool {
        let made = self.kernel.body.iter().find(|stmt| stmt.results().contains(&tile));
        match made {
            Some(Stmt::Define { op, .. }) => {
                matches!(op, TileOp::View { .. } | TileOp::Load { .. } | TileOp::Fill { .. })
            }
            _ => true,
        }
    }

    fn copied(&mut self, tile: TileId) -> TileId {
        let dtype = self.kernel.tiles[tile].dtype;
        let mut expr = Expr::new();
        expr.root = expr.operand(0, dtype);
        self.map(vec![tile], expr)
    }
}

/// Far below where any integer type of indices ends.
const SMALL: i64 = 1 << 30;

fn is_wide(dtype: DType) -> bool {
    matches!(dtype, DType::I32 | DType::I64 | DType::U32 | DType::U64)
}

/// The statements that do not vary with the loop, and the others.
fn hoist(body: Vec<Stmt>, var: VarId, carried: BTreeSet<TileId>) -> (Vec<Stmt>, Vec<Stmt>) {
    let mut inside = carried;
    let (mut before, mut kept) = (Vec::new(), Vec::new());
    for stmt in body {
        let stays = match &stmt {
            Stmt::Define { op, .. } => {
                uses_var(op, var) || op.reads().iter().any(|tile| inside.contains(tile))
            }
            Stmt::Store { .. } | Stmt::Scatter { .. } | Stmt::For(_) => true,
        };
        if stays {
            inside.extend(stmt.results());
            kept.push(stmt);
        } else {
            before.push(stmt);
        }
    }
    (before, kept)
}

fn uses_var(op: &TileOp, var: VarId) -> bool {
    let moves = |at: &[Affine]| at.iter().any(|at| at.coefficient(Term::Var(var)) != 0);
    match op {
        TileOp::Load { at, .. } | TileOp::Gather { at, .. } | TileOp::View { at, .. } => moves(at),
        TileOp::Map { expr, .. } => {
            expr.nodes.iter().any(|(node, _)| matches!(node, ExprNode::Var(other) if *other == var))
        }
        TileOp::Fill { .. }
        | TileOp::Contract { .. }
        | TileOp::Reduce { .. }
        | TileOp::ArgReduce { .. }
        | TileOp::Scan { .. }
        | TileOp::Sort { .. }
        | TileOp::Rearrange { .. } => false,
    }
}
