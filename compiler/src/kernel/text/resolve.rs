//! From the syntax to a kernel: names become ids, and statements what they define. Everything that is wrong is
//! collected; a statement that is wrong defines its names all the same, so that its readers are not wrong too.

use super::super::{
    Affine, Axis, Combine, Dims, Kernel, Loop, LoopKind, Operand, OperandId, Place, Role, Stmt,
    Term, Tile, TileId, Var, VarId, VarKind,
};
use super::ast::{self, At, Atom, Name};
use super::expr;
use super::tile::Guess;
use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::expr::Scalar;
use crate::text::lexer::{Spanned, Token};
use crate::types::DType;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// The names of all values in a text.
pub(super) fn names(tokens: &[Spanned<'_>]) -> BTreeSet<String> {
    let value = |(_, token): &Spanned<'_>| {
        let Token::Value(name) = token else { return None };
        Some(name.as_ref().to_owned())
    };
    tokens.iter().filter_map(value).collect()
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    Operand(OperandId),
    Var(VarId),
    Tile(TileId),
}

/// A kernel under construction.
pub(super) struct Resolver<'a> {
    pub(super) kernel: Kernel,
    diagnostics: &'a mut Diagnostics,
    taken: &'a BTreeSet<String>,
    unnamed: usize,
    scope: BTreeMap<String, Bound>,
    /// How many loops are open, and the step of each variable.
    pub(super) loops: usize,
    pub(super) steps: BTreeMap<VarId, usize>,
    /// The extent that an axis had first in a tile.
    pub(super) extents: BTreeMap<Axis, usize>,
}

/// The kernel of one item of a text.
pub(super) fn kernel(
    ast: &ast::Kernel<'_>,
    taken: &BTreeSet<String>,
    diagnostics: &mut Diagnostics,
) -> Kernel {
    let mut resolver = Resolver {
        kernel: Kernel { name: ast.name.item.as_ref().to_owned(), ..Kernel::default() },
        diagnostics,
        taken,
        unnamed: 0,
        scope: BTreeMap::new(),
        loops: 0,
        steps: BTreeMap::new(),
        extents: BTreeMap::new(),
    };
    resolver.kernel.origins = ast.origins.iter().map(|origin| origin.as_ref().to_owned()).collect();
    resolver.kernel.origins.sort();
    let mut sizes = BTreeMap::new();
    for param in &ast.params {
        resolver.param(param, Role::Input, &mut sizes);
    }
    for result in &ast.results {
        resolver.param(result, Role::Output, &mut sizes);
    }
    let mut body = Vec::new();
    resolver.body(&ast.body, &mut body, None);
    resolver.kernel.body = body;
    resolver.kernel
}

impl Resolver<'_> {
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    pub(super) fn error(&mut self, code: Code, message: impl Into<String>, span: Span) {
        self.push(Diagnostic::error(code, message).at(span));
    }

    pub(super) fn lookup(&self, name: &str) -> Option<Bound> {
        self.scope.get(name).copied()
    }

    fn bind(&mut self, name: &Name<'_>, bound: Bound) -> bool {
        let text = name.item.as_ref();
        if self.scope.contains_key(text) {
            self.error(Code::DuplicateName, format!("%{text} is defined already"), name.span);
            return false;
        }
        self.scope.insert(text.to_owned(), bound);
        true
    }

    fn param(&mut self, ast: &ast::Param<'_>, role: Role, sizes: &mut BTreeMap<Axis, usize>) {
        match ast {
            ast::Param::Scalar { name, range } => {
                let (low, high) = range.item;
                let (Ok(low), Ok(high)) = (i64::try_from(low), i64::try_from(high)) else {
                    self.error(Code::TooLarge, "a range has 64 bits", range.span);
                    return;
                };
                let kind = VarKind::Scalar(low, high);
                let name_text = name.item.as_ref().to_owned();
                let var = self.kernel.vars.push(Var { name: name_text, kind });
                self.bind(name, Bound::Var(var));
            }
            ast::Param::Operand { name, role: written, dtype, dims } => {
                let role = match written {
                    Some("update") => Role::Update,
                    Some(_) => Role::Output,
                    None => role,
                };
                let dtype = self.dtype(dtype);
                let dims: Dims = dims
                    .iter()
                    .filter_map(|dim| {
                        let axis = self.kernel.axis(&dim.axis.item);
                        let size = match dim.extent {
                            Some(size) => self.size(size, dim.axis.span)?,
                            None => match sizes.get(&axis) {
                                Some(&size) => size,
                                None => {
                                    let message =
                                        format!("the size of {} is not known", dim.axis.item);
                                    self.error(Code::UnboundDimension, message, dim.axis.span);
                                    return None;
                                }
                            },
                        };
                        sizes.entry(axis).or_insert(size);
                        Some((axis, size))
                    })
                    .collect();
                let Some(dtype) = dtype else { return };
                let name_text = name.item.as_ref().to_owned();
                let operand =
                    self.kernel.operands.push(Operand { name: name_text, role, dtype, dims });
                self.bind(name, Bound::Operand(operand));
            }
        }
    }

    pub(super) fn dtype(&mut self, name: &At<&str>) -> Option<DType> {
        let dtype = DType::from_name(name.item);
        if dtype.is_none() {
            self.error(
                Code::UnknownOp,
                format!("there is no element type {}", name.item),
                name.span,
            );
        }
        dtype
    }

    pub(super) fn size(&mut self, size: i128, span: Span) -> Option<usize> {
        match usize::try_from(size) {
            Ok(size) if size <= crate::types::MAX_TENSOR_BYTES => Some(size),
            Ok(_) | Err(_) => {
                self.error(Code::TooLarge, format!("{size} is more than any memory"), span);
                None
            }
        }
    }

    /// Statements; their yields become those of the loop around them, whose carried tiles are given.
    fn body(
        &mut self,
        statements: &[ast::Stmt<'_>],
        body: &mut Vec<Stmt>,
        carried: Option<&[TileId]>,
    ) -> Vec<TileId> {
        let mut yields = None;
        for (place, statement) in statements.iter().enumerate() {
            match statement {
                ast::Stmt::Define { results, op } => self.define(results, op, body),
                ast::Stmt::Store { place, access, tile } => {
                    self.store(*place, None, access, tile, body, false);
                }
                ast::Stmt::Scatter { place, combine, access, tile } => {
                    self.store(*place, combine.as_ref(), access, tile, body, true);
                }
                ast::Stmt::For(looped) => self.repeat(looped, body),
                ast::Stmt::Yield { place: span, tiles } => match carried {
                    Some(carried) if place + 1 == statements.len() => {
                        yields = self.yields(*span, tiles, carried, body);
                    }
                    Some(_) => self.error(Code::Syntax, "a yield ends the body of a loop", *span),
                    None => self.error(Code::Syntax, "only a loop yields", *span),
                },
                ast::Stmt::Error => {}
            }
        }
        yields.unwrap_or_default()
    }

    fn yields(
        &mut self,
        span: Span,
        tiles: &[ast::Operand<'_>],
        carried: &[TileId],
        body: &mut Vec<Stmt>,
    ) -> Option<Vec<TileId>> {
        if tiles.len() != carried.len() {
            let (wanted, found) = (carried.len(), tiles.len());
            self.error(Code::OpType, format!("{wanted} tiles are carried, not {found}"), span);
            return None;
        }
        let pairs = tiles.iter().zip(carried);
        pairs
            .map(|(tile, &inside)| {
                let guess = Guess::of(&self.kernel.tiles[inside]);
                self.operand(tile, &guess, body)
            })
            .collect()
    }

    /// `%x: type = op`
    fn define(&mut self, results: &[ast::Binding<'_>], op: &At<ast::Op<'_>>, body: &mut Vec<Stmt>) {
        let wanted = if matches!(op.item, ast::Op::Sort { .. }) { 2 } else { 1 };
        if results.len() != wanted {
            let message = format!("{wanted} results are defined, not {}", results.len());
            self.error(Code::OpType, message, op.span);
        }
        let written: Vec<Option<Guess>> =
            results.iter().map(|binding| self.binding_type(binding)).collect();
        let expected = written.first().cloned().flatten().unwrap_or_default();
        let found = self.op(op, &expected, body);
        let mut tiles = SmallVec::new();
        for (position, (binding, written)) in results.iter().zip(&written).enumerate() {
            let guess = match &found {
                Some((_, guesses)) => guesses.get(position).cloned().unwrap_or_default(),
                None => Guess::default(),
            };
            let name = binding.name.item.as_ref();
            let tile = self.new_tile(name, guess.or(written.as_ref()));
            self.bind(&binding.name, Bound::Tile(tile));
            tiles.push(tile);
        }
        if let Some((op, _)) = found
            && results.len() == wanted
        {
            body.push(Stmt::Define { results: tiles, op });
        }
    }

    pub(super) fn new_tile(&mut self, name: &str, guess: Guess) -> TileId {
        let dims = guess.dims.unwrap_or_default();
        for &(axis, extent) in &dims {
            self.extents.entry(axis).or_insert(extent);
        }
        self.kernel.tiles.push(Tile {
            name: name.to_owned(),
            place: guess.place.unwrap_or(Place::Far),
            dtype: guess.dtype.unwrap_or(DType::F32),
            dims,
            rows: guess.rows,
        })
    }

    /// A name that no value of the text has.
    pub(super) fn fresh_name(&mut self) -> String {
        loop {
            let name = self.unnamed.to_string();
            self.unnamed += 1;
            if !self.taken.contains(&name) {
                return name;
            }
        }
    }

    /// A tile: one with a name, or one that an operation defines just before.
    pub(super) fn operand(
        &mut self,
        ast: &ast::Operand<'_>,
        expected: &Guess,
        body: &mut Vec<Stmt>,
    ) -> Option<TileId> {
        match ast {
            ast::Operand::Named(name) => match self.lookup(&name.item) {
                Some(Bound::Tile(tile)) => Some(tile),
                Some(Bound::Operand(_)) => {
                    let message = format!("%{} is an operand, not a tile", name.item);
                    let diagnostic = Diagnostic::error(Code::UnknownName, message).at(name.span);
                    self.push(diagnostic.with_help("load it first"));
                    None
                }
                Some(Bound::Var(_)) => {
                    let message = format!("%{} is a number, not a tile", name.item);
                    self.error(Code::UnknownName, message, name.span);
                    None
                }
                None => {
                    let message = format!("nothing is called %{} here", name.item);
                    self.error(Code::UnknownName, message, name.span);
                    None
                }
            },
            ast::Operand::Nested(op) => {
                let (op, guesses) = self.op(op, expected, body)?;
                let name = self.fresh_name();
                let results: SmallVec<[TileId; 1]> = guesses
                    .into_iter()
                    .map(|guess| self.new_tile(&name, guess.or(Some(expected))))
                    .collect();
                let first = results.first().copied();
                body.push(Stmt::Define { results, op });
                first
            }
        }
    }

    /// The type that is written beside a name.
    fn binding_type(&mut self, binding: &ast::Binding<'_>) -> Option<Guess> {
        let ty = binding.ty.as_ref()?;
        let dtype = self.dtype(&ty.dtype);
        let dims = self.dims(&ty.dims);
        let rows = ty.rows.iter().map(|row| self.kernel.axis(&row.item)).collect();
        let place = Some(if ty.is_near { Place::Near } else { Place::Far });
        Some(Guess { dtype, dims: Some(dims), place, rows })
    }

    /// Axes with their extents; one without has that of the axis elsewhere.
    pub(super) fn dims(&mut self, dims: &[ast::Dim<'_>]) -> Dims {
        dims.iter()
            .filter_map(|dim| {
                let axis = self.kernel.axis(&dim.axis.item);
                if let Some(extent) = dim.extent {
                    return self.size(extent, dim.axis.span).map(|extent| (axis, extent));
                }
                let extent = self.extent(axis);
                if extent.is_none() {
                    let message = format!("the extent of {} is not known", dim.axis.item);
                    self.error(Code::UnboundDimension, message, dim.axis.span);
                }
                extent.map(|extent| (axis, extent))
            })
            .collect()
    }

    /// The extent of an axis in tiles so far, else in an operand.
    pub(super) fn extent(&self, axis: Axis) -> Option<usize> {
        self.extents.get(&axis).copied().or_else(|| {
            let mut dims = self.kernel.operands.iter().flat_map(|(_, operand)| &operand.dims);
            dims.find(|(other, _)| *other == axis).map(|&(_, size)| size)
        })
    }

    pub(super) fn literal(
        &mut self,
        literal: &ast::Literal<'_>,
        dtype: DType,
        span: Span,
    ) -> Option<Scalar> {
        expr::scalar(literal, dtype).map_err(|why| self.error(Code::OpType, why, span)).ok()
    }

    pub(super) fn combine(&mut self, name: &At<&str>) -> Option<Combine> {
        let combine = Combine::from_name(name.item);
        if combine.is_none() {
            let message = format!("{} is not one of sum, product, min, max, and, or", name.item);
            self.error(Code::Attribute, message, name.span);
        }
        combine
    }

    pub(super) fn axes(&mut self, names: &[Name<'_>]) -> Vec<Axis> {
        names.iter().map(|name| self.kernel.axis(&name.item)).collect()
    }

    /// An expression in axes and variables, the axes that it mentions, and the index tile in it.
    pub(super) fn affine(&mut self, ast: &At<ast::Affine<'_>>) -> Option<Position> {
        let mut position = Position::default();
        let mut constant: i128 = 0;
        let mut fits = true;
        for (factor, atom) in &ast.item {
            let Ok(small) = i64::try_from(*factor) else {
                fits = false;
                continue;
            };
            let term = match atom {
                Atom::One => {
                    constant += i128::from(small);
                    continue;
                }
                Atom::Axis(axis) => {
                    let axis = self.kernel.axis(&axis.item);
                    position.mentioned.push(axis);
                    Term::Axis(axis)
                }
                Atom::Value(name) => match self.lookup(&name.item) {
                    Some(Bound::Var(var)) => Term::Var(var),
                    Some(Bound::Tile(tile)) if small == 1 && position.index.is_none() => {
                        position.index = Some((tile, name.span));
                        continue;
                    }
                    Some(Bound::Tile(_) | Bound::Operand(_)) => {
                        let message = format!("%{} is no number", name.item);
                        self.error(Code::UnknownName, message, name.span);
                        return None;
                    }
                    None => {
                        let message = format!("nothing is called %{} here", name.item);
                        self.error(Code::UnknownName, message, name.span);
                        return None;
                    }
                },
            };
            let sum = i128::from(position.affine.coefficient(term)) + i128::from(small);
            fits &= i64::try_from(sum).is_ok();
            position.affine = position.affine.plus(&Affine::term(term), small);
        }
        match i64::try_from(constant) {
            Ok(constant) if fits => {
                position.affine.constant = constant;
                Some(position)
            }
            Ok(_) | Err(_) => {
                self.error(Code::TooLarge, "a position's numbers have 64 bits", ast.span);
                None
            }
        }
    }

    /// A loop's end: no axes, no tiles.
    fn bound(&mut self, ast: &At<ast::Affine<'_>>) -> Affine {
        match self.affine(ast) {
            Some(Position { affine, index: None, .. }) => affine,
            Some(Position { index: Some((_, span)), .. }) => {
                self.error(Code::OpType, "a loop does not run to a tile", span);
                Affine::default()
            }
            None => Affine::default(),
        }
    }

    fn repeat(&mut self, ast: &ast::For<'_>, body: &mut Vec<Stmt>) {
        let written: Vec<Option<Guess>> =
            ast.results.iter().map(|binding| self.binding_type(binding)).collect();
        let (start, end) = (self.bound(&ast.start), self.bound(&ast.end));
        let step = match &ast.step {
            None => 1,
            Some(step) => self.size(step.item, step.span).unwrap_or(1),
        };
        let mut initial = Vec::new();
        for (position, carried) in ast.carried.iter().enumerate() {
            let own = self.binding_type(&carried.binding);
            let result = written.get(position).cloned().flatten();
            let expected = own.or(result).unwrap_or_default();
            initial.push(self.operand(&carried.init, &expected, body));
        }
        let outer = self.scope.clone();
        self.loops += 1;
        let name = ast.var.item.as_ref().to_owned();
        let var = self.kernel.vars.push(Var { name, kind: VarKind::Loop });
        self.steps.insert(var, step);
        self.bind(&ast.var, Bound::Var(var));
        let mut inside = Vec::new();
        for (carried, initial) in ast.carried.iter().zip(&initial) {
            let name = carried.binding.name.item.as_ref();
            let guess = initial.map(|tile| Guess::of(&self.kernel.tiles[tile])).unwrap_or_default();
            let own = self.binding_type(&carried.binding);
            let tile = self.new_tile(name, guess.or(own.as_ref()));
            self.bind(&carried.binding.name, Bound::Tile(tile));
            inside.push(tile);
        }
        let mut inner = Vec::new();
        let yields = self.body(&ast.body, &mut inner, Some(&inside));
        if yields.len() != inside.len() && !matches!(ast.body.last(), Some(ast::Stmt::Yield { .. }))
        {
            self.error(Code::Syntax, "a loop that carries tiles ends with a yield", ast.place);
        }
        self.loops -= 1;
        self.scope = outer;
        let results = self.loop_results(ast, &written, &inside);
        let carried: Option<Vec<(TileId, TileId)>> = inside
            .iter()
            .zip(initial)
            .map(|(&inside, initial)| initial.map(|initial| (inside, initial)))
            .collect();
        let (kind, pipelined) = self.loop_kind(ast);
        if let Some(carried) = carried
            && yields.len() == carried.len()
        {
            body.push(Stmt::For(Loop {
                var,
                start,
                end,
                step,
                kind,
                pipelined,
                carried,
                body: inner,
                yields,
                results,
            }));
        }
    }

    fn loop_results(
        &mut self,
        ast: &ast::For<'_>,
        written: &[Option<Guess>],
        inside: &[TileId],
    ) -> Vec<TileId> {
        let mut results = Vec::new();
        for (position, &carried) in inside.iter().enumerate() {
            let guess = Guess::of(&self.kernel.tiles[carried]);
            let written = written.get(position).and_then(Option::as_ref);
            let name = match ast.results.get(position) {
                Some(binding) => binding.name.item.as_ref().to_owned(),
                None => self.fresh_name(),
            };
            let tile = self.new_tile(&name, guess.or(written));
            if let Some(binding) = ast.results.get(position) {
                self.bind(&binding.name, Bound::Tile(tile));
            }
            results.push(tile);
        }
        if ast.results.len() > inside.len() {
            let message = format!("the loop carries {} tiles", inside.len());
            self.error(Code::OpType, message, ast.results[inside.len()].name.span);
        }
        results
    }

    fn loop_kind(&mut self, ast: &ast::For<'_>) -> (LoopKind, usize) {
        let (mut parallel, mut reduce, mut pipelined) = (false, false, 1);
        for attribute in &ast.attributes {
            match attribute.item {
                ast::LoopAttribute::Parallel => parallel = true,
                ast::LoopAttribute::Reduce => reduce = true,
                ast::LoopAttribute::Sequential => {}
                ast::LoopAttribute::Pipelined(depth) => {
                    pipelined = self.size(depth, attribute.span).unwrap_or(1);
                }
            }
        }
        let kind = match (parallel, reduce) {
            (false, false) => LoopKind::Sequential,
            (true, false) => LoopKind::Parallel,
            (false, true) => LoopKind::Reduce,
            (true, true) => LoopKind::ReduceParallel,
        };
        (kind, pipelined)
    }
}

/// A position: affine, and perhaps the values of a tile.
#[derive(Clone, Debug, Default)]
pub(super) struct Position {
    pub(super) affine: Affine,
    /// The axes that the text names, even where they cancel.
    pub(super) mentioned: Vec<Axis>,
    pub(super) index: Option<(TileId, Span)>,
}
