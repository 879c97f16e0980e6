//! Operations on tiles from text: what they read, and the type that their result has where none is written.

use super::super::{
    Affine, Axis, Combine, Dims, Operand, OperandId, Place, Stmt, Tile, TileId, TileOp,
};
use super::ast::{self, At, Name};
use super::expr::{Scope, literal_type};
use super::resolve::{Bound, Position, Resolver};
use crate::diagnostic::{Code, Diagnostic, Span};
use crate::expr::Expr;
use crate::types::DType;
use smallvec::SmallVec;

/// What is known of a tile's type.
#[derive(Clone, Debug, Default)]
pub(super) struct Guess {
    pub(super) dtype: Option<DType>,
    pub(super) dims: Option<Dims>,
    pub(super) place: Option<Place>,
    pub(super) rows: SmallVec<[Axis; 2]>,
}

impl Guess {
    pub(super) fn of(tile: &Tile) -> Guess {
        Guess {
            dtype: Some(tile.dtype),
            dims: Some(tile.dims.clone()),
            place: Some(tile.place),
            rows: tile.rows.clone(),
        }
    }

    /// What is written, and where nothing is, the guess.
    pub(super) fn or(self, written: Option<&Guess>) -> Guess {
        match written {
            None => self,
            Some(written) => Guess {
                dtype: written.dtype.or(self.dtype),
                dims: written.dims.clone().or(self.dims),
                place: written.place.or(self.place),
                rows: if written.rows.is_empty() { self.rows } else { written.rows.clone() },
            },
        }
    }
}

/// An operation, and for each of its results what its type is.
pub(super) type Found = (TileOp, Vec<Guess>);

impl Resolver<'_> {
    pub(super) fn op(
        &mut self,
        ast: &At<ast::Op<'_>>,
        expected: &Guess,
        body: &mut Vec<Stmt>,
    ) -> Option<Found> {
        let span = ast.span;
        let one = |op: TileOp, guess: Guess| Some((op, vec![guess]));
        match &ast.item {
            ast::Op::Load { access, pad } => self.load(access, pad.as_ref(), expected),
            ast::Op::Gather { access } => {
                let (operand, positions) = self.positions(access)?;
                let dims =
                    expected.dims.clone().unwrap_or_else(|| self.read_dims(operand, &positions));
                let dtype = self.kernel.operands[operand].dtype;
                let called = called(&self.kernel.operands[operand]);
                let (at, index) = implied(positions, &called, &dims);
                one(TileOp::Gather { operand, at, index }, self.near_in_loops(dtype, dims))
            }
            ast::Op::Fill { value, dims } => {
                let dtype = expected.dtype.unwrap_or(literal_type(&value.item));
                let dims = dims.as_ref().map(|dims| self.dims(dims));
                let dims = dims.or(expected.dims.clone()).unwrap_or_default();
                let value = self.literal(&value.item, dtype, value.span)?;
                one(TileOp::Fill { value }, self.near_in_loops(dtype, dims))
            }
            ast::Op::View { tile, dims, at } => {
                self.view(tile, dims.as_deref(), at, expected, body)
            }
            ast::Op::Contract { tiles, over, accumulate } => {
                let accumulate = self.written(accumulate.as_ref())?;
                self.contract(tiles, over, accumulate, expected, body, span)
            }
            ast::Op::Map { operands, named, expr } => {
                self.map(operands, named, expr, expected, body)
            }
            ast::Op::Reduce { combine, tiles, over, accumulate } => {
                let accumulate = self.written(accumulate.as_ref())?;
                let dtype = accumulate.or(expected.dtype);
                let expected = Guess { dtype, ..expected.clone() };
                self.reduce(combine, tiles, over, &expected, body, span)
            }
            ast::Op::ArgReduce { combine, tile, over, last } => {
                let combine = self.combine(combine);
                let tile = self.operand(tile, &Guess::default(), body)?;
                let over = self.kernel.axis(&over.item);
                let dims = self.without(tile, &[over]);
                let guess = self.like(tile, DType::I64, dims);
                one(TileOp::ArgReduce { combine: combine?, tile, over, last: *last }, guess)
            }
            ast::Op::Scan { combine, tile, over, flags, accumulate } => {
                let written = self.written(accumulate.as_ref())?;
                let combine = self.combine(combine)?;
                let tile = self.operand(tile, &Guess::default(), body)?;
                let over = self.kernel.axis(&over.item);
                let accumulate = self.accumulate(combine, tile, written.or(expected.dtype));
                let dims = self.kernel.tiles[tile].dims.clone();
                let guess = self.like(tile, accumulate, dims);
                let has = |flag: &str| flags.iter().any(|found| found.item == flag);
                let (exclusive, reverse) = (has("exclusive"), has("reverse"));
                one(TileOp::Scan { combine, tile, over, exclusive, reverse, accumulate }, guess)
            }
            ast::Op::Sort { tile, over, descending } => {
                let tile = self.operand(tile, &Guess::default(), body)?;
                let over = self.kernel.axis(&over.item);
                let positions = self.like(tile, DType::I64, self.kernel.tiles[tile].dims.clone());
                let keys = Guess::of(&self.kernel.tiles[tile]);
                let op = TileOp::Sort { tile, over, descending: *descending };
                Some((op, vec![keys, positions]))
            }
            ast::Op::Rearrange { tile } => {
                let tile = self.operand(tile, &Guess::default(), body)?;
                one(TileOp::Rearrange { tile }, Guess::of(&self.kernel.tiles[tile]))
            }
        }
    }

    /// Without a written place, what comes from far memory is near inside loops.
    fn near_in_loops(&self, dtype: DType, dims: Dims) -> Guess {
        let place = if self.loops > 0 { Place::Near } else { Place::Far };
        Guess { dtype: Some(dtype), dims: Some(dims), place: Some(place), rows: SmallVec::new() }
    }

    /// The type of something made from a tile: where that is, with another element type and shape.
    fn like(&self, tile: TileId, dtype: DType, dims: Dims) -> Guess {
        let place = Some(self.kernel.tiles[tile].place);
        Guess { dtype: Some(dtype), dims: Some(dims), place, rows: SmallVec::new() }
    }

    fn without(&self, tile: TileId, over: &[Axis]) -> Dims {
        let dims = &self.kernel.tiles[tile].dims;
        dims.iter().filter(|(axis, _)| !over.contains(axis)).copied().collect()
    }

    fn load(
        &mut self,
        access: &ast::Access<'_>,
        pad: Option<&At<ast::Literal<'_>>>,
        expected: &Guess,
    ) -> Option<Found> {
        let (operand, positions) = self.positions(access)?;
        let dtype = self.kernel.operands[operand].dtype;
        let pad = match pad {
            Some(pad) => Some(self.literal(&pad.item, dtype, pad.span)?),
            None => None,
        };
        if let Some((_, span)) = positions.iter().find_map(|position| position.index) {
            let message = "a load's position is affine";
            let diagnostic = Diagnostic::error(Code::OpType, message).at(span);
            self.push(diagnostic.with_help("`gather` reads at positions that a tile gives"));
            return None;
        }
        let dims = expected.dims.clone().unwrap_or_else(|| self.read_dims(operand, &positions));
        let called = called(&self.kernel.operands[operand]);
        let (at, _) = implied(positions, &called, &dims);
        Some((TileOp::Load { operand, at, pad }, vec![self.near_in_loops(dtype, dims)]))
    }

    /// The shape of what is read where none is written: the operand's axes; one whose position has the variable of a loop
    /// that is called like it is as long as the loop's step.
    fn read_dims(&self, operand: OperandId, positions: &[Position]) -> Dims {
        let dims = &self.kernel.operands[operand].dims;
        let mut read = Dims::new();
        for (position, &(axis, size)) in positions.iter().zip(dims) {
            if let Some((tile, _)) = position.index {
                for &dim in &self.kernel.tiles[tile].dims {
                    if read.iter().all(|&(other, _)| other != dim.0) {
                        read.push(dim);
                    }
                }
                continue;
            }
            let name = self.kernel.axis_name(axis);
            let step = self.steps.iter().find(|(var, _)| {
                let term = super::super::Term::Var(**var);
                self.kernel.vars[**var].name == name && position.affine.coefficient(term) == 1
            });
            let extent = match step {
                Some((_, &step)) => step,
                None => self.extents.get(&axis).copied().unwrap_or(size),
            };
            if read.iter().all(|&(other, _)| other != axis) {
                read.push((axis, extent));
            }
        }
        read
    }

    /// The operand and the position along each of its dimensions.
    fn positions(&mut self, access: &ast::Access<'_>) -> Option<(OperandId, Vec<Position>)> {
        let name = &access.operand;
        let operand = match self.lookup(&name.item) {
            Some(Bound::Operand(operand)) => operand,
            Some(Bound::Tile(_) | Bound::Var(_)) => {
                let message = format!("%{} is not an operand of the kernel", name.item);
                self.error(Code::UnknownName, message, name.span);
                return None;
            }
            None => {
                self.error(
                    Code::UnknownName,
                    format!("nothing is called %{} here", name.item),
                    name.span,
                );
                return None;
            }
        };
        let rank = self.kernel.operands[operand].dims.len();
        if access.at.len() != rank {
            let message = format!("%{} has {rank} dimensions, not {}", name.item, access.at.len());
            self.error(Code::OpType, message, name.span);
            return None;
        }
        let positions: Vec<Option<Position>> = access.at.iter().map(|at| self.affine(at)).collect();
        Some((operand, positions.into_iter().collect::<Option<_>>()?))
    }

    pub(super) fn store(
        &mut self,
        span: Span,
        combine: Option<&At<&str>>,
        access: &ast::Access<'_>,
        tile: &ast::Operand<'_>,
        body: &mut Vec<Stmt>,
        scatters: bool,
    ) {
        let combine = match combine {
            Some(name) => match self.combine(name) {
                Some(combine) => Some(combine),
                None => return,
            },
            None => None,
        };
        let found = self.positions(access);
        let dtype = found.as_ref().map(|(operand, _)| self.kernel.operands[*operand].dtype);
        let expected = Guess { dtype, ..Guess::default() };
        let tile = self.operand(tile, &expected, body);
        let (Some((operand, positions)), Some(tile)) = (found, tile) else { return };
        let called = called(&self.kernel.operands[operand]);
        let (at, index) = implied(positions, &called, &self.kernel.tiles[tile].dims);
        if scatters {
            body.push(Stmt::Scatter { operand, at, index, tile, combine });
        } else if index.is_empty() {
            body.push(Stmt::Store { operand, at, tile });
        } else {
            let diagnostic =
                Diagnostic::error(Code::OpType, "a store's position is affine").at(span);
            self.push(diagnostic.with_help("`scatter` writes at positions that a tile gives"));
        }
    }

    fn view(
        &mut self,
        tile: &ast::Operand<'_>,
        dims: Option<&[ast::Dim<'_>]>,
        entries: &[(Name<'_>, Option<At<ast::Affine<'_>>>)],
        expected: &Guess,
        body: &mut Vec<Stmt>,
    ) -> Option<Found> {
        let viewed = self.operand(tile, &Guess::default(), body)?;
        let own = self.kernel.tiles[viewed].dims.clone();
        let dims = dims.map(|dims| self.dims(dims)).or(expected.dims.clone());
        let dims = dims.unwrap_or_else(|| own.clone());
        let mut positions = vec![Position::default(); own.len()];
        for (axis, at) in entries {
            let found = self.kernel.axis(&axis.item);
            let Some(place) = own.iter().position(|&(other, _)| other == found) else {
                let message = format!("the tile has no axis {}", axis.item);
                self.error(Code::UnknownName, message, axis.span);
                return None;
            };
            // An axis alone is at its own position.
            positions[place] = match at {
                Some(at) => self.affine(at)?,
                None => {
                    Position { affine: Affine::axis(found), mentioned: vec![found], index: None }
                }
            };
            if let Some((_, span)) = positions[place].index {
                self.error(Code::OpType, "a view's position is affine", span);
                return None;
            }
        }
        let called: Vec<Axis> = own.iter().map(|&(axis, _)| axis).collect();
        let (at, _) = implied(positions, &called, &dims);
        let guess = self.like(viewed, self.kernel.tiles[viewed].dtype, dims);
        Some((TileOp::View { tile: viewed, at }, vec![guess]))
    }

    fn contract(
        &mut self,
        tiles: &[ast::Operand<'_>],
        over: &[Name<'_>],
        written: Option<DType>,
        expected: &Guess,
        body: &mut Vec<Stmt>,
        span: Span,
    ) -> Option<Found> {
        let [init, a, b] = tiles else {
            let message = format!("contract takes 3 tiles (init, a, b), not {}", tiles.len());
            self.error(Code::OpType, message, span);
            return None;
        };
        let a = self.operand(a, &Guess::default(), body);
        let b = self.operand(b, &Guess::default(), body);
        let (a, b) = (a?, b?);
        let over = self.axes(over);
        let mut dims = self.without(a, &over);
        for dim in self.without(b, &over) {
            if dims.iter().all(|&(other, _)| other != dim.0) {
                dims.push(dim);
            }
        }
        let known = written.or(expected.dtype);
        let accumulate = known.unwrap_or(self.kernel.tiles[a].dtype.accumulator());
        let place = Some(self.kernel.tiles[a].place);
        let start = Guess { dtype: Some(accumulate), dims: None, place, rows: SmallVec::new() };
        let init = self.operand(init, &start, body)?;
        let accumulate = known.unwrap_or(self.kernel.tiles[init].dtype);
        let guess = self.like(a, accumulate, dims);
        Some((TileOp::Contract { init, a, b, over, accumulate }, vec![guess]))
    }

    fn reduce(
        &mut self,
        combine: &At<&str>,
        tiles: &[ast::Operand<'_>],
        over: &[Name<'_>],
        expected: &Guess,
        body: &mut Vec<Stmt>,
        span: Span,
    ) -> Option<Found> {
        let combine = self.combine(combine)?;
        let (init, tile) = match tiles {
            [tile] => (None, tile),
            [init, tile] => (Some(init), tile),
            _ => {
                let message = format!("reduce takes 1 or 2 tiles, not {}", tiles.len());
                self.error(Code::OpType, message, span);
                return None;
            }
        };
        // What stands first is defined first.
        let init = match init {
            Some(init @ ast::Operand::Named(_)) => {
                Some(self.operand(init, &Guess::default(), body)?)
            }
            Some(init @ ast::Operand::Nested(_)) => {
                let start = Guess { dtype: expected.dtype, ..Guess::default() };
                Some(self.operand(init, &start, body)?)
            }
            None => None,
        };
        let tile = self.operand(tile, &Guess::default(), body)?;
        let over = self.axes(over);
        let started = init.map(|init| self.kernel.tiles[init].dtype);
        let accumulate = self.accumulate(combine, tile, expected.dtype.or(started));
        let guess = self.like(tile, accumulate, self.without(tile, &over));
        Some((TileOp::Reduce { combine, init, tile, over, accumulate }, vec![guess]))
    }

    /// The accumulation type that is written: nothing where it is wrong.
    fn written(&mut self, accumulate: Option<&At<&str>>) -> Option<Option<DType>> {
        match accumulate {
            None => Some(None),
            Some(name) => self.dtype(name).map(Some),
        }
    }

    fn accumulate(&self, combine: Combine, tile: TileId, known: Option<DType>) -> DType {
        let dtype = self.kernel.tiles[tile].dtype;
        known.unwrap_or(match combine {
            Combine::Sum | Combine::Product => dtype.accumulator(),
            Combine::Min | Combine::Max | Combine::And | Combine::Or => dtype,
        })
    }

    fn map(
        &mut self,
        operands: &[ast::Operand<'_>],
        named: &[(Name<'_>, At<ast::Expr<'_>>)],
        ast: &At<ast::Expr<'_>>,
        expected: &Guess,
        body: &mut Vec<Stmt>,
    ) -> Option<Found> {
        let operands: Vec<Option<TileId>> =
            operands.iter().map(|operand| self.operand(operand, &Guess::default(), body)).collect();
        let operands: Vec<TileId> = operands.into_iter().collect::<Option<_>>()?;
        let mut scope =
            Scope { operands: &operands, named: Vec::new(), expr: Expr::new(), axes: Vec::new() };
        for (name, part) in named {
            let id = self.expr(&mut scope, part, None)?;
            scope.named.push((name.item.as_ref().to_owned(), id));
        }
        scope.expr.root = self.expr(&mut scope, ast, expected.dtype)?;
        let Scope { expr, axes, .. } = scope;
        let expr = super::super::print::in_print_order(&expr);
        let dims = expected.dims.clone().unwrap_or_else(|| self.union(&operands, &axes));
        let near = operands.iter().any(|&tile| self.kernel.tiles[tile].place == Place::Near);
        let mut guess = self.near_in_loops(expr.dtype(), dims);
        if !operands.is_empty() {
            guess.place = Some(if near { Place::Near } else { Place::Far });
        }
        Some((TileOp::Map { operands, expr }, vec![guess]))
    }

    /// The axes of the operand that has most, then those of the others, then those of `index`.
    fn union(&self, operands: &[TileId], indexed: &[Axis]) -> Dims {
        let tile = |id: &TileId| &self.kernel.tiles[*id];
        let most = operands.iter().map(|id| tile(id).dims.len()).max().unwrap_or(0);
        let first = operands.iter().find(|id| tile(id).dims.len() == most);
        let mut dims: Dims = first.map(|id| tile(id).dims.clone()).unwrap_or_default();
        let mut add = |axis: Axis, extent: usize| {
            if dims.iter().all(|&(other, _)| other != axis) {
                dims.push((axis, extent));
            }
        };
        operands.iter().flat_map(|id| &tile(id).dims).for_each(|&(axis, extent)| add(axis, extent));
        for &axis in indexed {
            if let Some(extent) = self.extent(axis) {
                add(axis, extent);
            }
        }
        dims
    }
}

fn called(operand: &Operand) -> Vec<Axis> {
    operand.dims.iter().map(|&(axis, _)| axis).collect()
}

/// Positions by the access rule: a dimension whose axis the tile has, and which no position mentions, gets that axis by
/// itself; the first such dimension, where several are called alike. Index tiles come apart.
fn implied(
    positions: Vec<Position>,
    called: &[Axis],
    dims: &Dims,
) -> (Vec<Affine>, Vec<(usize, TileId)>) {
    let mut mentioned: Vec<Axis> =
        positions.iter().flat_map(|position| position.mentioned.clone()).collect();
    let mut index = Vec::new();
    let mut at = Vec::new();
    for (dim, position) in positions.into_iter().enumerate() {
        let mut affine = position.affine;
        let axis = called[dim];
        let has_axis = dims.iter().any(|&(other, _)| other == axis);
        match position.index {
            Some((tile, _)) => index.push((dim, tile)),
            None if has_axis && !mentioned.contains(&axis) => {
                affine = affine.plus(&Affine::axis(axis), 1);
                mentioned.push(axis);
            }
            None => {}
        }
        at.push(affine);
    }
    (at, index)
}
