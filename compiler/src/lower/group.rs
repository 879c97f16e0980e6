//! One fused group of the graph as one kernel without loops. Values are pulled: asking for a value at an affine index
//! asks its operands at the index that the op's meaning gives, down to loads. Views vanish on the way, elementwise
//! functions become one expression, and what is reduced or contracted becomes a tile.
//!
//! A dimension of size 1 has no axis: its index is 0. An axis that a reshape must take apart is split, and the group is
//! lowered anew with the parts as axes.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use crate::expr::{Expr, ExprId, ExprNode, Scalar};
use crate::graph::{Block, Function, Node, NodeId, ValueId};
use crate::kernel::{
    Affine, Axis, Dims, Kernel, Operand, OperandId, Role, Stmt, Term, TileId, TileOp, Var, VarId,
    VarKind,
};
use crate::op::{Broadcast, Op};
use crate::scalar::ScalarFn;
use crate::types::{DType, Shape};
use smallvec::{SmallVec, smallvec};
use std::collections::{BTreeMap, BTreeSet};

/// A kernel with what it is called with.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The kernel.
    pub kernel: Kernel,
    /// For each operand that is read, the block's parameter.
    pub inputs: Vec<ValueId>,
    /// For each scalar parameter, the integer value that gives it.
    pub scalars: Vec<ValueId>,
}

/// Why a group is not lowered.
pub(super) enum Failure {
    /// The named axis must be split; the number is the extent of the inner part.
    Split(String, usize),
    /// The group cannot be one kernel.
    Cannot(String),
}

pub(super) type Result<T> = std::result::Result<T, Failure>;

pub(super) fn cannot<T>(why: impl Into<String>) -> Result<T> {
    Err(Failure::Cannot(why.into()))
}

/// The position along each dimension of a value.
pub(super) type Index = Vec<Affine>;

/// The kernel of the block's nodes: its parameters are read, its results written. The reason where it cannot be.
pub fn lower_group(
    function: &Function,
    block: &Block,
    name: &str,
) -> std::result::Result<Lowered, String> {
    let mut splits = BTreeMap::new();
    for _ in 0..MOST_SPLITS {
        let mut group = Group::new(function, block, name, &splits);
        match group.lower(block) {
            Ok(inputs) => {
                return Ok(Lowered { kernel: group.kernel, inputs, scalars: group.scalars });
            }
            Err(Failure::Cannot(why)) => return Err(why),
            Err(Failure::Split(axis, inner)) => {
                // Two reshapes that want one axis in different parts do not go into one kernel.
                if splits.insert(axis, inner).is_some() {
                    break;
                }
            }
        }
    }
    Err("the reshapes take the axes apart in too many ways".to_owned())
}

/// How often an axis may be split before a group is declined.
const MOST_SPLITS: usize = 24;

pub(super) struct Group<'a> {
    pub(super) function: &'a Function,
    pub(super) kernel: Kernel,
    pub(super) extents: Vec<usize>,
    pub(super) scalars: Vec<ValueId>,
    producers: BTreeMap<ValueId, NodeId>,
    inputs: BTreeMap<ValueId, OperandId>,
    uses: BTreeMap<ValueId, usize>,
    tiles: BTreeMap<(ValueId, Index), TileId>,
    splits: &'a BTreeMap<String, usize>,
    pub(super) root_shape: Shape,
    pub(super) root_index: Index,
    summed: BTreeMap<(usize, usize), Vec<Affine>>,
    /// For a dimension and its extent, the axes along which something is repeated there.
    repeated: BTreeMap<(usize, usize), Vec<Affine>>,
}

impl<'a> Group<'a> {
    fn new(
        function: &'a Function,
        block: &Block,
        name: &str,
        splits: &'a BTreeMap<String, usize>,
    ) -> Group<'a> {
        let mut group = Group {
            function,
            kernel: Kernel { name: name.to_owned(), ..Kernel::default() },
            extents: Vec::new(),
            scalars: Vec::new(),
            producers: BTreeMap::new(),
            inputs: BTreeMap::new(),
            uses: BTreeMap::new(),
            tiles: BTreeMap::new(),
            splits,
            root_shape: Shape::new(),
            root_index: Index::new(),
            summed: BTreeMap::new(),
            repeated: BTreeMap::new(),
        };
        for &id in &block.nodes {
            let node = &function.nodes[id];
            group.producers.extend(node.results.iter().map(|&result| (result, id)));
            for &operand in &node.operands {
                *group.uses.entry(operand).or_default() += 1;
            }
        }
        for &result in &block.results {
            *group.uses.entry(result).or_default() += 1;
        }
        group
    }

    /// Fills the kernel; gives the parameters that it reads, in the order of its operands.
    fn lower(&mut self, block: &Block) -> Result<Vec<ValueId>> {
        let mut loaded = Vec::new();
        let elements = read_elements(self.function, block);
        for (position, &param) in block.params.iter().enumerate() {
            if elements.contains(&param) {
                let operand = self.declare(param, &format!("x{position}"), Role::Input);
                self.inputs.insert(param, operand);
                loaded.push(param);
            }
        }
        let mut outputs = Vec::new();
        for (position, &result) in block.results.iter().enumerate() {
            outputs.push((result, self.declare(result, &format!("y{position}"), Role::Output)));
        }
        // The largest result comes first, of equals the one that is computed last: its axes are those that the others
        // are stored over, and those before it have been computed over them by then.
        let mut order: Vec<usize> = (0..outputs.len()).collect();
        let count = |position: usize| self.function.ty(outputs[position].0).count();
        order.sort_by_key(|&position| std::cmp::Reverse((count(position), position)));
        if let Some(&first) = order.first() {
            self.root_shape = self.function.ty(outputs[first].0).shape.clone();
            self.root_index = self.axes_of(&self.root_shape.clone());
        }
        for position in order {
            let (value, operand) = outputs[position];
            self.store_result(value, operand)?;
        }
        Ok(loaded)
    }

    fn declare(&mut self, value: ValueId, name: &str, role: Role) -> OperandId {
        let ty = self.function.ty(value).clone();
        let dims: Vec<(Axis, usize)> = ty
            .shape
            .iter()
            .enumerate()
            .map(|(dim, &size)| (self.name_axis(&format!("d{dim}"), size), size))
            .collect();
        self.kernel.operands.push(Operand {
            name: name.to_owned(),
            role,
            dtype: ty.dtype,
            dims: Dims::from_vec(dims),
        })
    }

    /// An axis that only names an operand's dimension.
    fn name_axis(&mut self, name: &str, size: usize) -> Axis {
        let axis = self.kernel.axis(name);
        if self.extents.len() < self.kernel.axes.len() {
            self.extents.push(size);
        }
        axis
    }

    /// Axes for a shape, one a dimension, as an index that reads the whole of it.
    fn axes_of(&mut self, shape: &[usize]) -> Index {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        shape.iter().enumerate().map(|(dim, &size)| self.fresh(NAMES[dim.min(7)], size)).collect()
    }

    /// A new axis, or the sum of its parts where it is split, or 0 where its extent is 1.
    pub(super) fn fresh(&mut self, hint: &str, extent: usize) -> Affine {
        if extent == 1 {
            return Affine::constant(0);
        }
        let name = unique(&self.kernel.axes, hint);
        self.fresh_named(&name, extent)
    }

    fn fresh_named(&mut self, name: &str, extent: usize) -> Affine {
        if let Some(&inner) = self.splits.get(name) {
            // The name is taken, so that the next fresh axis of this hint is called as it was before the split.
            self.kernel.axis(name);
            self.extents.push(extent);
            let outer = self.fresh_named(&format!("{name}o"), extent / inner);
            return outer
                .times(inner as i64)
                .plus(&self.fresh_named(&format!("{name}i"), inner), 1);
        }
        let axis = self.kernel.axis(name);
        self.extents.push(extent);
        Affine::axis(axis)
    }

    /// A new axis that is there even where its extent is 1.
    pub(super) fn fresh_axis(&mut self, hint: &str, extent: usize) -> Axis {
        let name = unique(&self.kernel.axes, hint);
        let axis = self.kernel.axis(&name);
        self.extents.push(extent);
        axis
    }

    pub(super) fn extent(&self, axis: Axis) -> usize {
        self.extents[axis.0 as usize]
    }

    pub(super) fn range(&self, at: &Affine) -> (i64, i64) {
        at.range(|term| match term {
            Term::Axis(axis) => (0, self.extent(axis) as i64 - 1),
            Term::Var(var) => match self.kernel.vars[var].kind {
                VarKind::Scalar(first, last) => (first, last),
                VarKind::Loop => (0, 0),
            },
        })
    }

    /// Whether every position that the index gives lies within those sizes. An index without positions does.
    pub(super) fn stays_inside(
        &self,
        index: &[Affine],
        sizes: impl Iterator<Item = usize>,
    ) -> bool {
        let empty = axes_in(index).iter().any(|&axis| self.extent(axis) == 0);
        let within = |(at, size): (&Affine, usize)| {
            let (low, high) = self.range(at);
            low >= 0 && high < size as i64
        };
        empty || index.iter().zip(sizes).all(within)
    }

    pub(super) fn node_of(&self, value: ValueId) -> Option<&'a Node> {
        self.producers.get(&value).map(|&id| &self.function.nodes[id])
    }

    pub(super) fn shape(&self, value: ValueId) -> &'a Shape {
        &self.function.ty(value).shape
    }

    pub(super) fn dtype(&self, value: ValueId) -> DType {
        self.function.ty(value).dtype
    }

    pub(super) fn is_input(&self, value: ValueId) -> Option<OperandId> {
        self.inputs.get(&value).copied()
    }

    /// Writes a result of the group.
    fn store_result(&mut self, value: ValueId, operand: OperandId) -> Result<()> {
        let shape = self.shape(value).clone();
        if let Some(node) = self.node_of(value)
            && self.store_pieces(node, value, operand)?
        {
            return Ok(());
        }
        let index = if shape == self.root_shape {
            self.root_index.clone()
        } else if let Some(index) = self.whole_index(value) {
            index
        } else {
            self.axes_of(&shape)
        };
        let tile = self.tile(value, &index)?;
        self.store(operand, index, tile);
        Ok(())
    }

    /// An index at which the value is already computed as a whole.
    fn whole_index(&self, value: ValueId) -> Option<Index> {
        let shape = self.shape(value);
        let is_whole = |index: &Index| {
            let mut seen: SmallVec<[Axis; 6]> = SmallVec::new();
            index.iter().zip(shape).all(|(at, &size)| match at.terms() {
                [] => at.constant == 0 && size == 1,
                [(Term::Axis(axis), 1)]
                    if at.constant == 0 && self.extent(*axis) == size && !seen.contains(axis) =>
                {
                    seen.push(*axis);
                    true
                }
                _ => false,
            })
        };
        self.tiles
            .keys()
            .filter(|(other, _)| *other == value)
            .map(|(_, index)| index)
            .find(|index| is_whole(index))
            .cloned()
    }

    pub(super) fn store(&mut self, operand: OperandId, at: Index, tile: TileId) {
        let axes: Vec<Axis> = axes_in(&at);
        let has = |axis: &Axis| self.kernel.tiles[tile].extent(*axis).is_some();
        let tile = if axes.iter().all(has) { tile } else { self.spread(tile, &axes) };
        self.kernel.body.push(Stmt::Store { operand, at, tile });
    }

    /// A view of the tile with more axes, along which it repeats.
    fn spread(&mut self, tile: TileId, axes: &[Axis]) -> TileId {
        let at = self.kernel.tiles[tile].dims.iter().map(|&(axis, _)| Affine::axis(axis)).collect();
        let mut all: Vec<Axis> =
            self.kernel.tiles[tile].dims.iter().map(|&(axis, _)| axis).collect();
        all.extend(axes.iter().filter(|axis| !all.contains(axis)).copied().collect::<Vec<_>>());
        let dtype = self.kernel.tiles[tile].dtype;
        self.define(TileOp::View { tile, at }, dtype, &all)
    }

    /// A tile over those axes, in the kernel's order of axes.
    pub(super) fn define(&mut self, op: TileOp, dtype: DType, axes: &[Axis]) -> TileId {
        let mut axes = axes.to_vec();
        axes.sort_unstable();
        axes.dedup();
        let dims: Vec<(Axis, usize)> = axes.iter().map(|&axis| (axis, self.extent(axis))).collect();
        let name = format!("t{}", self.kernel.tiles.len());
        let result = self.kernel.tile(&name, dtype, &dims);
        self.kernel.body.push(Stmt::Define { results: smallvec![result], op });
        result
    }

    pub(super) fn tile_axes(&self, tile: TileId) -> Vec<Axis> {
        self.kernel.tiles[tile].dims.iter().map(|&(axis, _)| axis).collect()
    }

    pub(super) fn fill(&mut self, value: Scalar) -> TileId {
        self.define(TileOp::Fill { value }, value.dtype, &[])
    }

    /// The value at an index, as a tile over the axes that it varies with.
    pub(super) fn tile(&mut self, value: ValueId, index: &[Affine]) -> Result<TileId> {
        let key = (value, index.to_vec());
        if let Some(&tile) = self.tiles.get(&key) {
            return Ok(tile);
        }
        let tile = self.make_tile(value, index)?;
        self.tiles.insert(key, tile);
        Ok(tile)
    }

    pub(super) fn remember(&mut self, value: ValueId, index: &[Affine], tile: TileId) {
        self.tiles.insert((value, index.to_vec()), tile);
    }

    fn make_tile(&mut self, value: ValueId, index: &[Affine]) -> Result<TileId> {
        if let Some(operand) = self.is_input(value) {
            return self.load(operand, index, None);
        }
        let node = self.node_of(value).expect("a group's values are parameters or made in it");
        if let Some((operand, at)) = self.through_view(node, index)? {
            return self.tile(operand, &at);
        }
        if is_elementwise(&node.op) {
            let mut expr = Expr::new();
            let mut operands = Vec::new();
            let root = self.expand(node, index, &mut expr, &mut operands)?;
            expr.root = root;
            return Ok(self.map(operands, expr));
        }
        self.operation(node, value, index)
    }

    /// A map over the union of its operands' axes and those that the expression reads.
    pub(super) fn map(&mut self, operands: Vec<TileId>, expr: Expr) -> TileId {
        let mut axes: Vec<Axis> =
            operands.iter().flat_map(|&operand| self.tile_axes(operand)).collect();
        for (node, _) in &expr.nodes {
            if let ExprNode::Index(axis) = node {
                axes.push(*axis);
            }
        }
        let dtype = expr.dtype();
        self.define(TileOp::Map { operands, expr }, dtype, &axes)
    }

    /// Reads an operand; outside it gives `pad`, and where the index may leave it without a pad, the group is declined.
    pub(super) fn load(
        &mut self,
        operand: OperandId,
        index: &[Affine],
        pad: Option<Scalar>,
    ) -> Result<TileId> {
        let dims = self.kernel.operands[operand].dims.clone();
        let inside = self.stays_inside(index, dims.iter().map(|&(_, size)| size));
        if !inside && pad.is_none() {
            return cannot("a read may leave its operand");
        }
        let dtype = self.kernel.operands[operand].dtype;
        let axes = axes_in(index);
        let pad = if inside { None } else { pad };
        Ok(self.define(TileOp::Load { operand, at: index.to_vec(), pad }, dtype, &axes))
    }

    /// The operand that a view shows, and the index there; nothing where the node is no view.
    fn through_view(&mut self, node: &Node, index: &[Affine]) -> Result<Option<(ValueId, Index)>> {
        let x = match node.operands.first() {
            Some(&x) => x,
            None => return Ok(None),
        };
        let shape = self.shape(x);
        let at = match &node.op {
            Op::Transpose(op) => {
                let mut at = vec![Affine::default(); shape.len()];
                for (dim, &from) in op.perm.iter().enumerate() {
                    at[from] = index[dim].clone();
                }
                at
            }
            Op::Broadcast(op) => {
                self.note_repeated(op, shape, index);
                op.dims
                    .iter()
                    .zip(shape)
                    .map(
                        |(&dim, &size)| {
                            if size == 1 { Affine::constant(0) } else { index[dim].clone() }
                        },
                    )
                    .collect()
            }
            Op::Slice(op) => index
                .iter()
                .enumerate()
                .map(|(dim, at)| {
                    Affine::constant(op.start[dim] as i64).plus(at, op.stride[dim] as i64)
                })
                .collect(),
            Op::Reverse(op) => index
                .iter()
                .enumerate()
                .map(|(dim, at)| match op.axes.contains(&dim) {
                    true => Affine::constant(shape[dim] as i64 - 1).plus(at, -1),
                    false => at.clone(),
                })
                .collect(),
            Op::Reshape(_) => {
                let to = self.shape(node.results[0]).clone();
                super::reshape::operand_index(self, shape, &to, index)?
            }
            Op::DynamicSlice(op) => {
                let vars: Vec<VarId> = node.operands[1..]
                    .iter()
                    .enumerate()
                    .map(|(dim, &start)| self.scalar(start, shape[dim] - op.sizes[dim]))
                    .collect();
                index.iter().zip(vars).map(|(at, var)| at.plus(&Affine::var(var), 1)).collect()
            }
            _ => return Ok(None),
        };
        Ok(Some((x, at)))
    }

    /// A scalar parameter from 0 to `last` that an integer value gives.
    pub(super) fn scalar(&mut self, value: ValueId, last: usize) -> VarId {
        let position = self.scalars.iter().position(|&other| other == value);
        let vars: Vec<VarId> = self.kernel.vars.ids().collect();
        if let Some(position) = position
            && self.kernel.vars[vars[position]].kind == VarKind::Scalar(0, last as i64)
        {
            return vars[position];
        }
        self.scalars.push(value);
        let name = format!("s{}", vars.len());
        self.kernel.vars.push(Var { name, kind: VarKind::Scalar(0, last as i64) })
    }

    /// Adds an elementwise node to an expression.
    fn expand(
        &mut self,
        node: &Node,
        index: &[Affine],
        expr: &mut Expr,
        operands: &mut Vec<TileId>,
    ) -> Result<ExprId> {
        match &node.op {
            Op::Constant(constant) => {
                let bytes = &constant.value.bytes()[..constant.value.dtype().bytes()];
                Ok(expr.constant(Scalar::from_tensor_element(constant.value.dtype(), bytes)))
            }
            Op::Iota(iota) => {
                let position = position_of(expr, &index[iota.axis]);
                Ok(expr.convert(position, iota.ty.dtype))
            }
            Op::Convert(convert) => {
                let x = self.element(node.operands[0], index, expr, operands, false)?;
                Ok(expr.convert(x, convert.dtype))
            }
            Op::Map(map) => {
                let mut values: SmallVec<[ExprId; 3]> = SmallVec::new();
                for &operand in &node.operands {
                    values.push(self.element(operand, index, expr, operands, false)?);
                }
                Ok(expr.call(map.function, &values))
            }
            other => cannot(format!("{} is not elementwise", other.name())),
        }
    }

    /// The element of a value at an index, as a node of the expression. A value that is used more than once is computed
    /// once, as a tile.
    fn element(
        &mut self,
        value: ValueId,
        index: &[Affine],
        expr: &mut Expr,
        operands: &mut Vec<TileId>,
        shared: bool,
    ) -> Result<ExprId> {
        let shared = shared || self.uses.get(&value).is_some_and(|&uses| uses > 1);
        if self.is_input(value).is_none() {
            let node = self.node_of(value).expect("a group's values are parameters or made in it");
            let free = matches!(node.op, Op::Constant(_) | Op::Iota(_));
            if is_elementwise(&node.op) && (free || !shared) && expr.nodes.len() < 200 {
                return self.expand(node, index, expr, operands);
            }
            if let Some((operand, at)) = self.through_view(node, index)? {
                return self.element(operand, &at, expr, operands, shared);
            }
        }
        let tile = self.tile(value, index)?;
        let position = operands.iter().position(|&other| other == tile).unwrap_or_else(|| {
            operands.push(tile);
            operands.len() - 1
        });
        Ok(expr.operand(position, self.dtype(value)))
    }

    /// Notes along which axes a value is repeated: a reduction that it may be of best sums along those too, so that one
    /// tile serves the reduction and what follows.
    fn note_repeated(&mut self, op: &Broadcast, shape: &[usize], index: &[Affine]) {
        for (dim, at) in index.iter().enumerate() {
            let kept = op.dims.iter().zip(shape).any(|(&own, &size)| own == dim && size != 1);
            if let [(Term::Axis(axis), 1)] = at.terms()
                && at.constant == 0
                && !kept
                && self.extent(*axis) == op.shape[dim]
            {
                let known = self.repeated.entry((dim, op.shape[dim])).or_default();
                if !known.contains(at) {
                    known.push(at.clone());
                }
            }
        }
    }

    /// The index along a dimension that a reduction sums: an axis of the result where that is what is read there, so
    /// that one tile serves the reduction and what follows; else a new axis, the same for equal dimensions.
    pub(super) fn summed_axis(
        &mut self,
        rank: usize,
        dim: usize,
        extent: usize,
        kept: &[Affine],
    ) -> Affine {
        let used = |at: &Affine, kept: &[Affine]| {
            at.terms()
                .iter()
                .any(|&(term, _)| kept.iter().any(|other| other.coefficient(term) != 0))
        };
        let repeated = self.repeated.get(&(dim, extent)).into_iter().flatten();
        if let Some(found) = repeated.rev().find(|at| !used(at, kept)) {
            return found.clone();
        }
        if rank == self.root_shape.len() && self.root_shape[dim] == extent {
            let at = self.root_index[dim].clone();
            if !used(&at, kept) {
                return at;
            }
        }
        let key = (dim, extent);
        if let Some(found) =
            self.summed.get(&key).and_then(|all| all.iter().find(|at| !used(at, kept)))
        {
            return found.clone();
        }
        let at = self.fresh("k", extent);
        self.summed.entry(key).or_default().push(at.clone());
        at
    }
}

/// The values of which elements are read: all that are used, but for those that only say where a dynamic slice starts.
fn read_elements(function: &Function, block: &Block) -> BTreeSet<ValueId> {
    let mut read: BTreeSet<ValueId> = block.results.iter().copied().collect();
    for &id in &block.nodes {
        let node = &function.nodes[id];
        let elements = match node.op {
            Op::DynamicSlice(_) => 1,
            Op::DynamicUpdate(_) => 2,
            _ => node.operands.len(),
        };
        read.extend(&node.operands[..elements.min(node.operands.len())]);
    }
    read
}

/// The axes that an index varies with, in order.
pub(super) fn axes_in(index: &[Affine]) -> Vec<Axis> {
    let mut axes: Vec<Axis> = index
        .iter()
        .flat_map(|at| at.terms())
        .filter_map(|&(term, _)| match term {
            Term::Axis(axis) => Some(axis),
            Term::Var(_) => None,
        })
        .collect();
    axes.sort_unstable();
    axes.dedup();
    axes
}

/// Whether the op computes each element from those at the same position, or from the position.
fn is_elementwise(op: &Op) -> bool {
    match op {
        Op::Map(_) | Op::Convert(_) | Op::Iota(_) => true,
        Op::Constant(constant) => constant.value.count() == 1,
        _ => false,
    }
}

/// An affine position as an i64 node of an expression.
pub(super) fn position_of(expr: &mut Expr, at: &Affine) -> ExprId {
    let mut sum: Option<ExprId> = None;
    for &(term, coefficient) in at.terms() {
        let node = match term {
            Term::Axis(axis) => ExprNode::Index(axis),
            Term::Var(var) => ExprNode::Var(var),
        };
        let mut part = expr.push(node, DType::I64);
        if coefficient != 1 {
            let factor = expr.constant(Scalar::from_i64(DType::I64, coefficient));
            part = expr.call(ScalarFn::Mul, &[part, factor]);
        }
        sum = Some(match sum {
            Some(sum) => expr.call(ScalarFn::Add, &[sum, part]),
            None => part,
        });
    }
    match sum {
        Some(sum) if at.constant == 0 => sum,
        Some(sum) => {
            let constant = expr.constant(Scalar::from_i64(DType::I64, at.constant));
            expr.call(ScalarFn::Add, &[sum, constant])
        }
        None => expr.constant(Scalar::from_i64(DType::I64, at.constant)),
    }
}

fn unique(names: &[String], hint: &str) -> String {
    let mut name = hint.to_owned();
    let mut number = 1;
    while names.contains(&name) {
        number += 1;
        name = format!("{hint}{number}");
    }
    name
}
