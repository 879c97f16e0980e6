//! Builds the actions of a kernel whose tiles have their homes.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use super::{Action, Address, Flat, Home, Planner, apply};
use crate::nest::{
    Access, AccessDim, Base, Digit, Guard, Nest, Node, NodeId, Sink, loop_term, term_loop,
};
use smallvec::SmallVec;
use systole_compiler::expr::{Expr, ExprNode, Scalar};
use systole_compiler::kernel::{
    Affine, Axis, Combine, Loop, OperandId, Stmt, Term, TileId, TileOp,
};
use systole_compiler::types::DType;

/// The position along each axis of a tile, over the loops of a nest.
type Places = Vec<(Axis, Affine)>;

impl<'k> Planner<'k> {
    /// The actions of some statements, the first of which has the number `place`.
    pub(super) fn actions(&mut self, body: &'k [Stmt], place: &mut usize) -> Vec<Action> {
        let mut actions = Vec::new();
        for stmt in body {
            *place += 1;
            match stmt {
                Stmt::Define { results, op } => self.define(results, op, &mut actions),
                Stmt::Store { operand, at, tile } => {
                    if !matches!(self.homes[tile], Home::Stored { .. }) {
                        actions.push(self.store(*operand, at, *tile));
                    }
                }
                Stmt::Scatter { operand, at, index, tile, combine } => {
                    actions.push(self.scatter(*operand, at, index, *tile, *combine));
                }
                Stmt::For(inner) => self.repeat(inner, place, &mut actions),
            }
        }
        actions
    }

    fn repeat(&mut self, inner: &'k Loop, place: &mut usize, actions: &mut Vec<Action>) {
        for &(tile, initial) in &inner.carried {
            actions.push(self.copy(initial, tile));
        }
        let mut body = self.actions(&inner.body, place);
        let same = |x: &Home, y: &Home| matches!((x, y), (Home::Slot { slot: x, .. }, Home::Slot { slot: y, .. }) if x == y);
        for (&tile, &(carried, _)) in inner.yields.iter().zip(&inner.carried) {
            if !same(&self.homes[&tile], &self.homes[&carried]) {
                body.push(self.copy(tile, carried));
            }
        }
        let flat = Flat {
            var: inner.var,
            start: inner.start.clone(),
            end: inner.end.clone(),
            step: inner.step,
        };
        actions.push(Action::For(flat, body));
    }

    /// A nest over the axes of a tile (and others), which writes there.
    fn nest(&self, tile: TileId, others: &[(Axis, usize)]) -> (Nest, Places) {
        let dims = &self.kernel.tiles[tile].dims;
        let all: Vec<(Axis, usize)> = dims.iter().chain(others).copied().collect();
        let places = all
            .iter()
            .enumerate()
            .map(|(index, &(axis, _))| (axis, Affine::term(loop_term(index))))
            .collect();
        let nest = Nest {
            extents: all.iter().map(|&(_, extent)| extent).collect(),
            nodes: Vec::new(),
            sink: Sink::Store { root: 0 },
            to: Access {
                base: Base::Scratch(0),
                dtype: self.kernel.tiles[tile].dtype,
                offset: Affine::default(),
                dims: Vec::new(),
                pad: None,
            },
        };
        (nest, places)
    }

    /// Where a tile that is not folded is written.
    fn target(&self, tile: TileId, places: &[(Axis, Affine)], extents: &[usize]) -> Access {
        self.home_access(&self.homes[&tile], tile, places, extents)
    }

    /// Where a tile with that home is written.
    pub(super) fn home_access(
        &self,
        home: &Home,
        tile: TileId,
        places: &[(Axis, Affine)],
        extents: &[usize],
    ) -> Access {
        match home {
            Home::Folded => unreachable!("only tiles with a home are written"),
            Home::Slot { .. } => self.access(tile, places, extents).expect("a slot is memory"),
            Home::Stored { operand, at } => {
                let positions = at.iter().map(|position| apply(position, places)).collect();
                self.operand_access(*operand, positions, &[], Guard::Pad, None, extents)
            }
        }
    }

    fn copy(&mut self, from: TileId, to: TileId) -> Action {
        let (mut nest, places) = self.nest(to, &[]);
        nest.to = self.target(to, &places, &nest.extents);
        // Both have the same axes, so the same places serve.
        let root = self.point(&mut nest, from, &places);
        nest.sink = Sink::Store { root };
        Action::Nest(nest)
    }

    fn store(&mut self, operand: OperandId, at: &[Affine], tile: TileId) -> Action {
        let (mut nest, places) = self.nest(tile, &[]);
        let root = self.point(&mut nest, tile, &places);
        let positions = at.iter().map(|position| apply(position, &places)).collect();
        nest.to = self.operand_access(operand, positions, &[], Guard::Pad, None, &nest.extents);
        nest.sink = Sink::Store { root };
        Action::Nest(nest)
    }

    fn scatter(
        &mut self,
        operand: OperandId,
        at: &[Affine],
        index: &[(usize, TileId)],
        tile: TileId,
        combine: Option<Combine>,
    ) -> Action {
        let (mut nest, places) = self.nest(tile, &[]);
        let root = self.point(&mut nest, tile, &places);
        let indices: Vec<(usize, NodeId)> =
            index.iter().map(|&(dim, tile)| (dim, self.point(&mut nest, tile, &places))).collect();
        let positions = at.iter().map(|position| apply(position, &places)).collect();
        nest.to =
            self.operand_access(operand, positions, &indices, Guard::Pad, None, &nest.extents);
        nest.sink = Sink::Scatter { root, combine };
        Action::Nest(nest)
    }

    fn define(&mut self, results: &'k [TileId], op: &'k TileOp, actions: &mut Vec<Action>) {
        let result = results[0];
        if let TileOp::Sort { tile, over, descending } = op {
            return actions.push(self.sort(results, *tile, *over, *descending));
        }
        if matches!(self.homes[&result], Home::Folded) {
            return;
        }
        if let Some(action) = self.product_action(result, op, actions) {
            return actions.push(action);
        }
        let extent = |tile: TileId, axis: Axis| {
            self.kernel.tiles[tile]
                .extent(axis)
                .expect("a verified operation names axes that are there")
        };
        let over: Vec<(Axis, usize)> = match op {
            TileOp::Reduce { tile, over, .. } => {
                over.iter().map(|&axis| (axis, extent(*tile, axis))).collect()
            }
            TileOp::Contract { a, b, over, .. } => over
                .iter()
                .map(|&axis| {
                    let tile = if self.kernel.tiles[*a].extent(axis).is_some() { *a } else { *b };
                    (axis, extent(tile, axis))
                })
                .collect(),
            TileOp::ArgReduce { tile, over, .. } => vec![(*over, extent(*tile, *over))],
            _ => Vec::new(),
        };
        let (mut nest, places) = self.nest(result, &over);
        let kept = self.kernel.tiles[result].dims.len();
        let reduced: Vec<usize> = (kept..kept + over.len()).collect();
        nest.to = self.target(result, &places, &nest.extents);
        nest.sink = match op {
            TileOp::Reduce { combine, init, tile, accumulate, .. } => {
                let element = self.point_as(&mut nest, *tile, &places, *accumulate);
                let init = init.map(|init| self.point_as(&mut nest, init, &places, *accumulate));
                let identity = combine.identity(self.kernel.tiles[*tile].dtype);
                Sink::Reduce {
                    combine: *combine,
                    element,
                    factor: None,
                    init,
                    identity: Scalar { dtype: *accumulate, ..identity },
                    accumulate: *accumulate,
                    over: reduced,
                }
            }
            TileOp::Contract { init, a, b, accumulate, .. } => {
                let element = self.point_as(&mut nest, *a, &places, *accumulate);
                let factor = self.point_as(&mut nest, *b, &places, *accumulate);
                let init = self.point_as(&mut nest, *init, &places, *accumulate);
                Sink::Reduce {
                    combine: Combine::Sum,
                    element,
                    factor: Some(factor),
                    init: Some(init),
                    identity: Combine::Sum.identity(*accumulate),
                    accumulate: *accumulate,
                    over: reduced,
                }
            }
            TileOp::ArgReduce { combine, tile, last, .. } => {
                let element = self.point(&mut nest, *tile, &places);
                Sink::ArgReduce {
                    largest: *combine == Combine::Max,
                    element,
                    over: kept,
                    last: *last,
                }
            }
            TileOp::Scan { combine, tile, over, exclusive, reverse, accumulate } => {
                let element = self.point_as(&mut nest, *tile, &places, *accumulate);
                let dims = &self.kernel.tiles[result].dims;
                let over = dims.iter().position(|(axis, _)| axis == over);
                Sink::Scan {
                    combine: *combine,
                    element,
                    over: over.expect("a scan keeps its axis"),
                    exclusive: *exclusive,
                    reverse: *reverse,
                    identity: Scalar {
                        dtype: *accumulate,
                        ..combine.identity(self.kernel.tiles[*tile].dtype)
                    },
                    accumulate: *accumulate,
                }
            }
            TileOp::Load { .. }
            | TileOp::Gather { .. }
            | TileOp::Map { .. }
            | TileOp::Fill { .. }
            | TileOp::View { .. }
            | TileOp::Rearrange { .. } => {
                Sink::Store { root: self.computed(&mut nest, result, op, &places) }
            }
            TileOp::Sort { .. } => unreachable!("sorts are done above"),
        };
        actions.push(Action::Nest(nest));
    }

    fn sort(&mut self, results: &[TileId], tile: TileId, over: Axis, descending: bool) -> Action {
        let dims = &self.kernel.tiles[tile].dims;
        let count = self.kernel.tiles[tile].extent(over).expect("a sort's axis is the tile's");
        let others: Vec<(Axis, usize)> =
            dims.iter().copied().filter(|&(axis, _)| axis != over).collect();
        let extents: Vec<usize> = others.iter().map(|&(_, extent)| extent).collect();
        let mut places: Places = others
            .iter()
            .enumerate()
            .map(|(index, &(axis, _))| (axis, Affine::term(loop_term(index))))
            .collect();
        let last = loop_term(extents.len());
        places.push((over, Affine::term(last)));
        let mut all = extents.clone();
        all.push(count);
        let locate = |tile: TileId| {
            let access = self.access(tile, &places, &all).expect("sorted tiles are in memory");
            let stride = access.offset.coefficient(last);
            let offset = access.offset.substitute(last, &Affine::default());
            (Address { base: access.base, offset }, stride)
        };
        Action::Sort {
            dtype: DType::ALL
                .iter()
                .position(|&dtype| dtype == self.kernel.tiles[tile].dtype)
                .expect("every type is listed"),
            descending,
            count,
            from: locate(tile),
            keys: results.first().map(|&keys| locate(keys)),
            positions: results.get(1).map(|&positions| locate(positions)),
            extents,
        }
    }

    fn point_as(
        &self,
        nest: &mut Nest,
        tile: TileId,
        places: &[(Axis, Affine)],
        dtype: DType,
    ) -> NodeId {
        let node = self.point(nest, tile, places);
        nest.convert(node, dtype)
    }

    /// The node of a tile's element at a position.
    pub(super) fn point(&self, nest: &mut Nest, tile: TileId, places: &[(Axis, Affine)]) -> NodeId {
        match &self.homes[&tile] {
            Home::Slot { .. } => {
                let access = self.access(tile, places, &nest.extents).expect("a slot is memory");
                let dtype = access.dtype;
                nest.push(Node::Load(access), dtype)
            }
            Home::Stored { .. } => unreachable!("only its store reads such a tile"),
            Home::Folded => self.computed(nest, tile, self.definitions[&tile].op, places),
        }
    }

    /// The node of what defines a tile, at a position.
    fn computed(
        &self,
        nest: &mut Nest,
        tile: TileId,
        op: &TileOp,
        places: &[(Axis, Affine)],
    ) -> NodeId {
        match op {
            TileOp::Load { operand, at, pad } => {
                let positions = at.iter().map(|position| apply(position, places)).collect();
                let guard = if pad.is_some() { Guard::Pad } else { Guard::None };
                let access =
                    self.operand_access(*operand, positions, &[], guard, *pad, &nest.extents);
                let dtype = access.dtype;
                nest.push(Node::Load(access), dtype)
            }
            TileOp::Gather { operand, at, index } => {
                let indices: Vec<(usize, NodeId)> = index
                    .iter()
                    .map(|&(dim, tile)| (dim, self.point(nest, tile, places)))
                    .collect();
                let positions = at.iter().map(|position| apply(position, places)).collect();
                let access = self.operand_access(
                    *operand,
                    positions,
                    &indices,
                    Guard::Clamp,
                    None,
                    &nest.extents,
                );
                let dtype = access.dtype;
                nest.push(Node::Load(access), dtype)
            }
            TileOp::Fill { value } => {
                let dtype = self.kernel.tiles[tile].dtype;
                let node = nest.push(Node::Constant(*value), value.dtype);
                nest.convert(node, dtype)
            }
            TileOp::View { tile: source, at } => {
                let dims = &self.kernel.tiles[*source].dims;
                let inner: Places = dims
                    .iter()
                    .zip(at)
                    .map(|(&(axis, _), position)| (axis, apply(position, places)))
                    .collect();
                self.point(nest, *source, &inner)
            }
            TileOp::Rearrange { tile } => self.point(nest, *tile, places),
            TileOp::Map { operands, expr } => {
                let root = self.expression(nest, operands, expr, places);
                nest.convert(root, self.kernel.tiles[tile].dtype)
            }
            TileOp::Contract { .. }
            | TileOp::Reduce { .. }
            | TileOp::ArgReduce { .. }
            | TileOp::Scan { .. }
            | TileOp::Sort { .. } => unreachable!("these have homes"),
        }
    }

    fn expression(
        &self,
        nest: &mut Nest,
        operands: &[TileId],
        expr: &Expr,
        places: &[(Axis, Affine)],
    ) -> NodeId {
        let mut nodes: Vec<NodeId> = Vec::new();
        for (node, dtype) in &expr.nodes {
            let built = match node {
                ExprNode::Operand(position) => self.point(nest, operands[*position], places),
                ExprNode::Constant(value) => nest.push(Node::Constant(*value), *dtype),
                ExprNode::Index(axis) => {
                    let place = places.iter().find(|(other, _)| other == axis);
                    let place =
                        place.expect("a verified expression names axes that are there").1.clone();
                    nest.push(Node::Index(place), *dtype)
                }
                ExprNode::Var(var) => nest.push(Node::Index(Affine::var(*var)), *dtype),
                ExprNode::Call(function, arguments) => {
                    let arguments: SmallVec<[NodeId; 3]> =
                        arguments.iter().map(|&argument| nodes[argument]).collect();
                    nest.push(Node::Call(*function, arguments), *dtype)
                }
                ExprNode::Convert(operand) => nest.convert(nodes[*operand], *dtype),
            };
            nodes.push(built);
        }
        nodes[expr.root]
    }

    /// The memory of a tile that is in memory, or a view of such a one.
    pub(super) fn access(
        &self,
        tile: TileId,
        places: &[(Axis, Affine)],
        extents: &[usize],
    ) -> Option<Access> {
        let declared = &self.kernel.tiles[tile];
        match &self.homes[&tile] {
            Home::Slot { slot, strides } => {
                let bytes = declared.dtype.bytes() as i64;
                let mut offset = Affine::default();
                for (&(axis, _), &stride) in declared.dims.iter().zip(strides) {
                    let place = &places.iter().find(|(other, _)| *other == axis)?.1;
                    offset = offset.plus(place, stride * bytes);
                }
                Some(Access {
                    base: Base::Scratch(self.slots[*slot].offset),
                    dtype: declared.dtype,
                    offset,
                    dims: Vec::new(),
                    pad: None,
                })
            }
            Home::Stored { .. } => None,
            Home::Folded => match self.definitions[&tile].op {
                TileOp::Load { operand, at, pad } => {
                    let positions = at.iter().map(|position| apply(position, places)).collect();
                    let guard = if pad.is_some() { Guard::Pad } else { Guard::None };
                    Some(self.operand_access(*operand, positions, &[], guard, *pad, extents))
                }
                TileOp::View { tile: source, at } => {
                    let dims = &self.kernel.tiles[*source].dims;
                    let inner: Places = dims
                        .iter()
                        .zip(at)
                        .map(|(&(axis, _), position)| (axis, apply(position, places)))
                        .collect();
                    self.access(*source, &inner, extents)
                }
                TileOp::Rearrange { tile } => self.access(*tile, places, extents),
                TileOp::Gather { .. }
                | TileOp::Fill { .. }
                | TileOp::Contract { .. }
                | TileOp::Map { .. }
                | TileOp::Reduce { .. }
                | TileOp::ArgReduce { .. }
                | TileOp::Scan { .. }
                | TileOp::Sort { .. } => None,
            },
        }
    }

    /// The memory of an operand at positions over the loops of a nest with those extents.
    fn operand_access(
        &self,
        operand: OperandId,
        positions: Vec<Affine>,
        indices: &[(usize, NodeId)],
        guard: Guard,
        pad: Option<Scalar>,
        extents: &[usize],
    ) -> Access {
        let declared = &self.kernel.operands[operand];
        let bytes = declared.dtype.bytes() as i64;
        let digits = digits(&self.layouts[operand.index()], declared.dims.len(), bytes);
        let mut access = Access {
            base: Base::Operand(operand.index()),
            dtype: declared.dtype,
            offset: Affine::default(),
            dims: Vec::new(),
            pad,
        };
        for (dim, (position, digits)) in positions.into_iter().zip(digits).enumerate() {
            let extent = declared.dims[dim].1;
            let index = indices.iter().find(|&&(other, _)| other == dim).map(|&(_, node)| node);
            let (low, high) = self.range(&position, extents);
            let leaves = index.is_some() || low < 0 || high >= extent as i64;
            let guard = if leaves { guard } else { Guard::None };
            let plain = matches!(digits.as_slice(), [digit] if digit.divisor == 1 && digit.modulus.is_none());
            if guard == Guard::None && plain && index.is_none() {
                access.offset = access.offset.plus(&position, digits[0].stride);
            } else {
                access.dims.push(AccessDim { position, index, extent, guard, digits });
            }
        }
        access
    }

    fn range(&self, position: &Affine, extents: &[usize]) -> (i64, i64) {
        position.range(|term| match (term, term_loop(term)) {
            (_, Some(index)) => (0, (extents[index] as i64 - 1).max(0)),
            (Term::Var(var), None) => self.var_ranges[var.index()],
            (Term::Axis(_), None) => (0, 0),
        })
    }
}

/// How the position along each dimension becomes an offset in a layout.
fn digits(
    layout: &systole_compiler::module::Layout,
    rank: usize,
    bytes: i64,
) -> Vec<SmallVec<[Digit; 1]>> {
    let mut result: Vec<SmallVec<[Digit; 1]>> = vec![SmallVec::new(); rank];
    let mut divisors = vec![1; rank];
    let mut stride = bytes;
    for piece in layout.pieces.iter().rev() {
        result[piece.dim].push(Digit {
            divisor: divisors[piece.dim],
            modulus: Some(piece.size),
            stride,
        });
        divisors[piece.dim] *= piece.size;
        stride *= piece.size as i64;
    }
    for digits in &mut result {
        // The outermost digit needs no reduction.
        if let Some(last) = digits.last_mut() {
            last.modulus = None;
        }
    }
    result
}
