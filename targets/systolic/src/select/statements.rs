//! Statement by statement: where each tile lies, and the instructions that make it.

use super::contract::{self, Part, Product};
use super::gather;
use super::map::{self, Held, copy_piece, memset};
use super::place::{self, Domain, Piece, Place, Rows, allocate, count, pieces};
use super::plan;
use super::reduce;
use super::rowwise;
use super::search;
use super::tiling::{self, Choice};
use super::transfer::{self, Far};
use super::tree::{Buffer, Builder, Node};
use super::vars::Vars;
use crate::isa::{Alu, Op};
use crate::limits::{Limits, PARTITIONS};
use crate::program::{Engine, Space, VarInfo};
use std::collections::BTreeMap;
use systole_compiler::expr::{Expr, ExprNode};
use systole_compiler::kernel::{
    Affine, Axis, Combine, Kernel, Loop, OperandId, Stmt, Term, TileId, TileOp,
};
use systole_compiler::types::{Class, DType};

/// What a tile is.
#[derive(Clone, Debug)]
enum State {
    /// The same number everywhere, or a tile in SBUF.
    Held(Held),
    /// The parts of a product's result in PSUM.
    Parts(Vec<Part>),
}

/// A factor of a product, by the product's result and the side.
type Factor = (TileId, bool);

struct Selector<'a> {
    kernel: &'a Kernel,
    builder: Builder<'a>,
    vars: Vars,
    states: Vec<Option<State>>,
    /// What lies on partitions, of this kernel's tiles.
    rows: Rows,
    constants: &'a [bool],
    products: BTreeMap<TileId, Planned>,
    /// Tiles that are read otherwise than as factors.
    read: Vec<bool>,
    /// Factors with their summed axes on partitions.
    factors: BTreeMap<Factor, Place>,
    /// Where a yielded tile is made: the carried one's place.
    targets: BTreeMap<TileId, Place>,
    /// Buffers that stand for operands whose accesses have an order.
    ordered: BTreeMap<OperandId, usize>,
}

/// A product with what is chosen for it.
#[derive(Clone, Debug)]
struct Planned {
    product: Product,
    /// Whether the left factor is stationary.
    left_stationary: bool,
    /// Whether each row sums for itself.
    by_rows: bool,
}

/// What comes out of selection: the tree, its buffers and variables, and what it takes.
pub(crate) type Emitted = (Vec<Node>, Vec<Buffer>, Vec<VarInfo>, Vec<String>, u32, u8);

/// The instructions of a kernel.
pub(crate) fn emit(
    kernel: &Kernel,
    limits: &Limits,
    constants: &[bool],
    choice: &Choice,
    single: bool,
) -> Result<Emitted, String> {
    for (_, tile) in kernel.tiles.iter() {
        if matches!(tile.dtype, DType::I4 | DType::U4 | DType::F4E2M1) {
            return Err(format!("{} tiles", tile.dtype));
        }
        if tile.count() == 0 {
            return Err("a tile is empty".to_owned());
        }
    }
    let extent = |axis: Axis| systole_compiler::kernel::tiling::extent(kernel, axis).unwrap_or(1);
    let rows: Rows = choice.rows.iter().map(|&axis| (axis, extent(axis))).collect();
    let mut selector = Selector {
        kernel,
        builder: Builder::new(limits, crate::lower::scalar_vars(kernel)),
        vars: Vars::of(kernel),
        states: vec![None; kernel.tiles.len()],
        rows,
        constants,
        products: BTreeMap::new(),
        read: vec![false; kernel.tiles.len()],
        factors: BTreeMap::new(),
        targets: BTreeMap::new(),
        ordered: BTreeMap::new(),
    };
    selector.builder.single = single;
    selector.plan()?;
    selector.body(&kernel.body)?;
    Ok(selector.builder.finish())
}

impl<'a> Selector<'a> {
    /// Looks over the kernel: products, what is read how, operands whose accesses have an order.
    fn plan(&mut self) -> Result<(), String> {
        let kernel = self.kernel;
        let mut accesses: BTreeMap<OperandId, (usize, usize)> = BTreeMap::new();
        let read = &mut self.read;
        tiling::each(&kernel.body, &mut |stmt| {
            match stmt {
                Stmt::Define { op: TileOp::Contract { init, .. }, .. } => {
                    read[init.index()] = true;
                }
                Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => {
                    stmt.visit_reads(&mut |tile| read[tile.index()] = true);
                }
                Stmt::For(_) => {}
            }
            match stmt {
                Stmt::For(inner) => {
                    inner.yields.iter().for_each(|tile| read[tile.index()] = true);
                    inner.carried.iter().for_each(|(_, tile)| read[tile.index()] = true);
                }
                Stmt::Store { operand, .. } => accesses.entry(*operand).or_default().1 += 1,
                Stmt::Define { op: TileOp::Load { operand, .. }, .. } => {
                    accesses.entry(*operand).or_default().0 += 1;
                }
                Stmt::Define { .. } | Stmt::Scatter { .. } => {}
            }
        });
        for (operand, (loads, stores)) in accesses {
            if stores > 1 || (stores == 1 && loads > 0) {
                let buffer = Buffer { space: Space::Sbuf, base: 0, bytes: 1, turns: 1, turn: None };
                self.builder.buffers.push(buffer);
                self.ordered.insert(operand, self.builder.buffers.len() - 1);
            }
        }
        for found in tiling::products(kernel) {
            let planned = self.plan_product(&found)?;
            if planned.by_rows {
                self.read[found.1.index()] = true;
                self.read[found.2.index()] = true;
            }
            self.products.insert(found.0, planned);
        }
        Ok(())
    }

    fn plan_product(&self, found: &(TileId, TileId, TileId, Vec<Axis>)) -> Result<Planned, String> {
        let (result, a, b, over) = found;
        let [left, right, batch] = tiling::sides(self.kernel, found);
        let on_rows = |side: &Rows| {
            side.len() == self.rows.len()
                && side.iter().all(|(axis, _)| self.rows.iter().any(|(row, _)| row == axis))
        };
        let by_rows = on_rows(&batch) && rowwise::rows(self.kernel, found).is_some();
        let left_stationary = match (on_rows(&left), on_rows(&right)) {
            _ if by_rows => left.is_empty(),
            (true, _) => true,
            (false, true) => false,
            (false, false) => return Err("a product's rows are not those of the kernel".to_owned()),
        };
        let mut columns = if left_stationary { right } else { left };
        // The result's order decides how parts lie.
        let dims = &self.kernel.tiles[*result].dims;
        columns.sort_by_key(|(axis, _)| dims.iter().position(|(other, _)| other == axis));
        let extent = |axis: Axis| {
            let tiles = &self.kernel.tiles;
            tiles[*a].extent(axis).or_else(|| tiles[*b].extent(axis)).unwrap_or(1)
        };
        let (inner, taps) = summed(self.kernel, over, *a, *b, &extent);
        Ok(Planned {
            product: Product { inner, taps, rows: self.rows.clone(), columns, batch },
            left_stationary,
            by_rows,
        })
    }

    fn dims(&self, tile: TileId) -> &'a [(Axis, usize)] {
        &self.kernel.tiles[tile].dims
    }

    /// The rows of a tile: the kernel's where it has any of them, else none.
    fn rows_of(&self, tile: TileId) -> Rows {
        let has = |axis: Axis| self.kernel.tiles[tile].extent(axis).is_some();
        if self.rows.iter().any(|&(axis, _)| has(axis)) { self.rows.clone() } else { Rows::new() }
    }

    fn domain(&self, tile: TileId) -> Domain {
        Domain::of(self.dims(tile), &self.rows_of(tile))
    }

    fn body(&mut self, body: &'a [Stmt]) -> Result<(), String> {
        for stmt in body {
            match stmt {
                Stmt::Define { results, op } => self.define(results[0], op)?,
                Stmt::Store { operand, at, tile } => self.store(*operand, at, *tile)?,
                Stmt::Scatter { .. } => return Err("a scatter".to_owned()),
                Stmt::For(inner) => self.looped(inner)?,
            }
        }
        Ok(())
    }

    fn define(&mut self, result: TileId, op: &'a TileOp) -> Result<(), String> {
        let name = self.kernel.tiles[result].name.clone();
        self.builder.source(&name);
        match op {
            TileOp::Load { operand, at, pad } => self.load(result, *operand, at, *pad)?,
            TileOp::Fill { value } => {
                self.states[result.index()] = Some(State::Held(Held::Constant(*value)));
            }
            TileOp::View { tile, at } => {
                let held = match self.settle(*tile)? {
                    Held::Constant(value) => Held::Constant(value),
                    Held::At(place) => {
                        Held::At(place::view(&place, self.dims(*tile), at, self.dims(result))?)
                    }
                };
                self.states[result.index()] = Some(State::Held(held));
            }
            TileOp::Rearrange { tile } => {
                let held = self.settle(*tile)?;
                self.states[result.index()] = Some(State::Held(held));
            }
            TileOp::Contract { init, a, b, accumulate, .. } => {
                if *accumulate != DType::F32 {
                    return Err(format!("sums in {accumulate} are exact"));
                }
                self.contract(result, *init, *a, *b)?;
            }
            TileOp::Map { operands, expr } => self.map(result, operands, expr)?,
            TileOp::Reduce { combine, init, tile, over, accumulate } => {
                if *accumulate != DType::F32 {
                    return Err(format!("sums in {accumulate} are exact"));
                }
                self.reduce(result, *combine, *init, *tile, over)?;
            }
            TileOp::Gather { operand, at, index } => self.gather(result, *operand, at, index)?,
            TileOp::ArgReduce { last: true, .. } => {
                return Err("a search for the last of equals".to_owned());
            }
            TileOp::ArgReduce { combine, tile, over, last: false } => {
                let from = self.floats(*tile, "search")?;
                let to = self.target(result, self.kernel.tiles[result].dtype)?;
                let domain = self.domain(*tile);
                let (builder, vars) = (&mut self.builder, &self.vars);
                search::arg_reduce(builder, vars, *combine, (&from, &to), &domain, *over)?;
                self.states[result.index()] = Some(State::Held(Held::At(to)));
            }
            TileOp::Scan { reverse: true, .. } => return Err("a scan from the end".to_owned()),
            TileOp::Scan { combine, tile, over, exclusive, reverse: false, accumulate } => {
                if *accumulate != DType::F32 {
                    return Err(format!("sums in {accumulate} are exact"));
                }
                let from = self.floats(*tile, "scan")?;
                let to = self.target(result, self.kernel.tiles[result].dtype)?;
                let domain = self.domain(*tile);
                let builder = &mut self.builder;
                search::scan(builder, *combine, (&from, &to), &domain, *over, *exclusive)?;
                self.states[result.index()] = Some(State::Held(Held::At(to)));
            }
            TileOp::Sort { .. } => return Err("a sort".to_owned()),
        }
        self.as_factors(result)
    }

    /// The queue on which an operand is loaded: weights never wait for what other calls do.
    fn queue(&self, operand: OperandId) -> Engine {
        let constant = self.constants.get(operand.index()).copied().unwrap_or(false);
        if constant || self.builder.depth() > 0 { Engine::Sync } else { Engine::GpSimd }
    }

    fn load(
        &mut self,
        result: TileId,
        operand: OperandId,
        at: &'a [Affine],
        pad: Option<systole_compiler::expr::Scalar>,
    ) -> Result<(), String> {
        let far = Far {
            index: u16::try_from(operand.index()).map_err(|_| "too many operands".to_owned())?,
            operand: &self.kernel.operands[operand],
            at,
            ordered: self.ordered.get(&operand).copied(),
        };
        let queue = self.queue(operand);
        let dims = self.dims(result);
        let name = self.kernel.tiles[result].name.clone();
        if self.read[result.index()] {
            let rows = self.rows_of(result);
            let place = transfer::load(
                &mut self.builder,
                &self.vars,
                queue,
                &far,
                dims,
                &rows,
                pad,
                &name,
            )?;
            self.states[result.index()] = Some(State::Held(Held::At(place)));
        }
        let mut loaded: Vec<(Rows, Place)> = Vec::new();
        for ((product, left), planned) in self.factors_of(result) {
            let inner = planned.product.inner.clone();
            let place = match loaded.iter().find(|(rows, _)| *rows == inner) {
                Some((_, place)) => place.clone(),
                None => {
                    let last = at.iter().rev().find(|at| {
                        at.terms().iter().any(|(term, _)| matches!(term, Term::Axis(_)))
                    });
                    let contiguous = |axis: Axis| {
                        last.is_some_and(|at| at.coefficient(Term::Axis(axis)).abs() == 1)
                    };
                    let summed = inner.iter().any(|&(axis, _)| contiguous(axis));
                    let others = self.other_rows(result, &planned.product);
                    let narrow = self.kernel.tiles[result].dtype.bytes() == 2;
                    let by_copy = narrow && self.builder.limits.dma_transposes;
                    if summed && !by_copy && count(&others) > 1 && count(&inner) > 1 {
                        let place = transfer::load(
                            &mut self.builder,
                            &self.vars,
                            queue,
                            &far,
                            dims,
                            &others,
                            pad,
                            &name,
                        )?;
                        let dtype = place.dtype;
                        contract::transpose(&mut self.builder, &planned.product, &place, dtype)?
                    } else {
                        transfer::load(
                            &mut self.builder,
                            &self.vars,
                            queue,
                            &far,
                            dims,
                            &inner,
                            pad,
                            &name,
                        )?
                    }
                }
            };
            loaded.push((inner, place.clone()));
            self.factors.insert((product, left), place);
        }
        Ok(())
    }

    /// The axes of a factor that are neither summed nor the product's batch.
    fn other_rows(&self, tile: TileId, product: &Product) -> Rows {
        let is = |axes: &Rows, axis: Axis| axes.iter().any(|&(other, _)| other == axis);
        let others = self.dims(tile).iter().copied().filter(|&(axis, _)| {
            !is(&product.inner, axis) && !is(&product.taps, axis) && !is(&product.batch, axis)
        });
        others.collect()
    }

    /// The products that a tile is a factor of.
    fn factors_of(&self, tile: TileId) -> Vec<(Factor, Planned)> {
        let mut found = Vec::new();
        for (result, a, b, _) in tiling::products(self.kernel) {
            for (factor, left) in [(a, true), (b, false)] {
                if factor == tile && !self.products[&result].by_rows {
                    found.push(((result, left), self.products[&result].clone()));
                }
            }
        }
        found
    }

    /// Makes the factors that a computed tile is.
    fn as_factors(&mut self, tile: TileId) -> Result<(), String> {
        for (factor, planned) in self.factors_of(tile) {
            if self.factors.contains_key(&factor) {
                continue;
            }
            let Held::At(place) = self.settle(tile)? else {
                return Err("a factor is a number".to_owned());
            };
            let product = &planned.product;
            let found = if place.rows == product.inner {
                place
            } else if place.rows.is_empty() {
                return Err("a factor has no rows".to_owned());
            } else {
                let sums = |&(axis, _): &(Axis, usize)| {
                    product.inner.iter().chain(&product.taps).any(|&(other, _)| other == axis)
                };
                if place.rows.iter().any(sums) {
                    return Err("a factor has a part of the summed axes on rows".to_owned());
                }
                contract::transpose(&mut self.builder, product, &place, place.dtype)?
            };
            self.factors.insert(factor, found);
        }
        Ok(())
    }

    /// Where a result is made: a place of its own, or the one of the tile that it replaces.
    fn target(&mut self, tile: TileId, dtype: DType) -> Result<Place, String> {
        if let Some(place) = self.targets.get(&tile) {
            return Ok(place.clone());
        }
        let domain = self.domain(tile);
        let name = self.kernel.tiles[tile].name.clone();
        allocate(&mut self.builder, &domain, dtype, 2, &name)
    }

    /// The tile in SBUF, or its number.
    fn settle(&mut self, tile: TileId) -> Result<Held, String> {
        match self.states[tile.index()].clone() {
            Some(State::Held(held)) => Ok(held),
            Some(State::Parts(parts)) => {
                let dtype = self.kernel.tiles[tile].dtype;
                let place = self.target(tile, dtype)?;
                let domain = self.domain(tile);
                for (piece, part) in &parts {
                    copy_piece(&mut self.builder, piece, &domain, part, &place);
                }
                let held = Held::At(place);
                self.states[tile.index()] = Some(State::Held(held.clone()));
                Ok(held)
            }
            None => Err(format!("%{} is not at hand", self.kernel.tiles[tile].name)),
        }
    }

    fn contract(
        &mut self,
        result: TileId,
        init: TileId,
        a: TileId,
        b: TileId,
    ) -> Result<(), String> {
        let planned = self.products[&result].clone();
        if planned.by_rows {
            return self.sum_rows(result, init, (a, b), &planned.product);
        }
        let factor = |left: bool| {
            let found = self.factors.get(&(result, left)).cloned();
            found.ok_or_else(|| "a factor is not at hand".to_owned())
        };
        let stationary = factor(planned.left_stationary)?;
        let moving = factor(!planned.left_stationary)?;
        let domain = self.domain(result);
        let start = match self.settle(init)? {
            Held::Constant(value) if value.to_f64() == 0.0 => None,
            Held::Constant(_) => return Err("a sum starts from a number".to_owned()),
            Held::At(place) => Some(place),
        };
        let dtype = self.kernel.tiles[result].dtype;
        let mut settled: Option<Place> = None;
        let known = self.targets.get(&result).cloned();
        let name = self.kernel.tiles[result].name.clone();
        let over = domain.clone();
        let from = start.clone();
        let mut evict = |builder: &mut Builder<'_>, parts: &[Part]| -> Result<(), String> {
            if settled.is_none() {
                settled = Some(match &known {
                    Some(place) => place.clone(),
                    None => allocate(builder, &over, dtype, 2, &name)?,
                });
            }
            let Some(place) = &settled else { return Ok(()) };
            for (piece, part) in parts {
                match &from {
                    None => copy_piece(builder, piece, &over, part, place),
                    Some(start) => add_piece(builder, piece, &over, part, start, place),
                }
            }
            Ok(())
        };
        let product = &planned.product;
        let (parts, evicted) = contract::contract(
            &mut self.builder,
            product,
            &stationary,
            &moving,
            &domain,
            &mut evict,
        )?;
        if !evicted && (start.is_some() || known.is_some()) {
            evict(&mut self.builder, &parts)?;
        }
        self.states[result.index()] = Some(match settled {
            Some(place) => State::Held(Held::At(place)),
            None => State::Parts(parts),
        });
        Ok(())
    }

    /// A product in which each row sums for itself.
    fn sum_rows(
        &mut self,
        result: TileId,
        init: TileId,
        (a, b): (TileId, TileId),
        product: &Product,
    ) -> Result<(), String> {
        let (Held::At(a), Held::At(b)) = (self.settle(a)?, self.settle(b)?) else {
            return Err("a factor is a number".to_owned());
        };
        let start = match self.settle(init)? {
            Held::Constant(value) if value.to_f64() == 0.0 => None,
            Held::Constant(_) => return Err("a sum starts from a number".to_owned()),
            Held::At(place) => Some(place),
        };
        let taps: Rows = product.inner.iter().chain(&product.taps).copied().collect();
        let domain = self.domain(result);
        let dtype = self.kernel.tiles[result].dtype;
        let out = self.target(result, dtype)?;
        let name = self.kernel.tiles[result].name.clone();
        let sum = if dtype == DType::F32 {
            out.clone()
        } else {
            allocate(&mut self.builder, &domain, DType::F32, 2, &name)?
        };
        let (builder, start) = (&mut self.builder, start.as_ref());
        rowwise::contract(builder, &domain, &taps, (&a, &b), start, &sum)?;
        if dtype != DType::F32 {
            for piece in pieces(&domain) {
                copy_piece(builder, &piece, &domain, &sum, &out);
            }
        }
        self.states[result.index()] = Some(State::Held(Held::At(out)));
        Ok(())
    }

    fn gather(
        &mut self,
        result: TileId,
        operand: OperandId,
        at: &'a [Affine],
        index: &[(usize, TileId)],
    ) -> Result<(), String> {
        let [(dim, positions)] = *index else {
            return Err("a gather along several dimensions".to_owned());
        };
        let far = Far {
            index: u16::try_from(operand.index()).map_err(|_| "too many operands".to_owned())?,
            operand: &self.kernel.operands[operand],
            at,
            ordered: self.ordered.get(&operand).copied(),
        };
        let held = self.settle(positions)?;
        let index = (&held, self.dims(positions));
        let rows = self.rows_of(result);
        let (dims, name) = (self.dims(result), self.kernel.tiles[result].name.clone());
        let (builder, vars) = (&mut self.builder, &self.vars);
        let place = gather::gather(builder, vars, &far, dim, index, dims, &rows, &name)?;
        self.states[result.index()] = Some(State::Held(Held::At(place)));
        Ok(())
    }

    /// What is searched or scanned: a tile of numbers that f32 holds.
    fn floats(&mut self, tile: TileId, what: &str) -> Result<Place, String> {
        let dtype = self.kernel.tiles[tile].dtype;
        if dtype.class() != Class::Float {
            return Err(format!("a {what} of {dtype} is exact"));
        }
        match self.settle(tile)? {
            Held::At(place) if place.rows == self.rows_of(tile) => Ok(place),
            Held::At(_) => Err(format!("a {what} of what all rows share")),
            Held::Constant(_) => Err(format!("a {what} of a number")),
        }
    }

    fn map(&mut self, result: TileId, operands: &[TileId], expr: &Expr) -> Result<(), String> {
        let domain = self.domain(result);
        // A conversion between floating-point types that loses nothing is only another way to read.
        if let (ExprNode::Convert(0), DType::F32) = (&expr.nodes[expr.root].0, expr.dtype())
            && let (ExprNode::Operand(0), from) = &expr.nodes[0]
            && from.class() == Class::Float
            && *from != DType::F64
            && self.dims(result) == self.dims(operands[0])
            && !self.targets.contains_key(&result)
        {
            self.states[result.index()] = self.states[operands[0].index()].clone();
            return Ok(());
        }
        let numbers: Vec<Option<f64>> = operands
            .iter()
            .map(|&tile| match &self.states[tile.index()] {
                Some(State::Held(Held::Constant(value))) if value.dtype.class() == Class::Float => {
                    Some(value.to_f64())
                }
                Some(_) | None => None,
            })
            .collect();
        let small: Vec<bool> = operands
            .iter()
            .map(|&tile| match &self.states[tile.index()] {
                Some(State::Held(Held::At(place))) => map::is_small(place, &domain),
                Some(_) | None => false,
            })
            .collect();
        let dtype = self.kernel.tiles[result].dtype;
        let planned = plan::plan(expr, &small, &numbers);
        let Ok(steps) = planned else {
            let mut held = Vec::new();
            for &tile in operands {
                held.push(self.settle(tile)?);
            }
            let out = self.target(result, dtype)?;
            map::custom(&mut self.builder, &self.vars, &domain, &held, expr, &out)?;
            self.states[result.index()] = Some(State::Held(Held::At(out)));
            return Ok(());
        };
        // The parts of one product are taken where they are, if they are parts of this domain too.
        let mut in_parts = None;
        // GpSimdE, which tests positions, does not reach PSUM.
        for step in &steps {
            if let plan::Does::Masked(plan::Source::Operand(index), ..) = &step.does {
                self.settle(operands[*index])?;
            }
        }
        for &tile in operands {
            if let Some(State::Parts(_)) = &self.states[tile.index()] {
                if in_parts.is_none() && self.domain(tile).free == domain.free {
                    in_parts = Some(tile);
                } else if in_parts != Some(tile) {
                    self.settle(tile)?;
                }
            }
        }
        let out = self.target(result, dtype)?;
        let mut work: Vec<(Piece, Vec<Held>)> = Vec::new();
        let parts: Vec<(Piece, Option<Place>)> = match in_parts {
            Some(tile) => match &self.states[tile.index()] {
                Some(State::Parts(parts)) => parts
                    .iter()
                    .map(|(piece, place)| (piece.clone(), Some(place.clone())))
                    .collect(),
                Some(State::Held(_)) | None => return Err("parts are gone".to_owned()),
            },
            None => pieces(&domain).into_iter().map(|piece| (piece, None)).collect(),
        };
        for (piece, place) in parts {
            let mut held = Vec::new();
            for &tile in operands {
                held.push(match &place {
                    Some(place) if Some(tile) == in_parts => Held::At(place.clone()),
                    Some(_) | None => self.settle(tile)?,
                });
            }
            work.push((piece, held));
        }
        map::run(&mut self.builder, &self.vars, &domain, &work, &steps, &out)?;
        self.states[result.index()] = Some(State::Held(Held::At(out)));
        Ok(())
    }

    fn reduce(
        &mut self,
        result: TileId,
        combine: Combine,
        init: Option<TileId>,
        tile: TileId,
        over: &[Axis],
    ) -> Result<(), String> {
        if self.kernel.tiles[tile].dtype.class() != Class::Float {
            return Err(format!("{} is combined exactly", self.kernel.tiles[tile].dtype));
        }
        let Held::At(from) = self.settle(tile)? else {
            return Err("a number is reduced".to_owned());
        };
        let rows = self.rows_of(tile);
        if rows != self.rows_of(result) {
            return Err("rows are reduced".to_owned());
        }
        let name = self.kernel.tiles[result].name.clone();
        let start = match init {
            Some(init) => Some(self.settle(init)?),
            None => None,
        };
        let (builder, dims) = (&mut self.builder, self.kernel.tiles[tile].dims.as_slice());
        let partial = reduce::reduce(builder, combine, &from, dims, &rows, over, &name)?;
        let dtype = self.kernel.tiles[result].dtype;
        let domain = self.domain(result);
        let place = match start {
            None if dtype == DType::F32 && !self.targets.contains_key(&result) => partial,
            None => {
                let place = self.target(result, dtype)?;
                for piece in pieces(&domain) {
                    copy_piece(&mut self.builder, &piece, &domain, &partial, &place);
                }
                place
            }
            Some(start) => {
                let mut expr = Expr::new();
                let a = expr.operand(0, DType::F32);
                let b = expr.operand(1, DType::F32);
                let joined = expr.call(combine.function(), &[a, b]);
                expr.convert(joined, dtype);
                let number = match &start {
                    Held::Constant(value) => Some(value.to_f64()),
                    Held::At(_) => None,
                };
                let small = [false, false];
                let steps = plan::plan(&expr, &small, &[number, None])?;
                let place = self.target(result, dtype)?;
                let held = vec![start, Held::At(partial)];
                let work: Vec<(Piece, Vec<Held>)> =
                    pieces(&domain).into_iter().map(|piece| (piece, held.clone())).collect();
                map::run(&mut self.builder, &self.vars, &domain, &work, &steps, &place)?;
                place
            }
        };
        self.states[result.index()] = Some(State::Held(Held::At(place)));
        Ok(())
    }

    fn store(&mut self, operand: OperandId, at: &'a [Affine], tile: TileId) -> Result<(), String> {
        let name = self.kernel.tiles[tile].name.clone();
        self.builder.source(&name);
        let dtype = self.kernel.tiles[tile].dtype;
        let domain = self.domain(tile);
        let mut place = match self.settle(tile)? {
            Held::At(place) => place,
            Held::Constant(value) => {
                let place = allocate(&mut self.builder, &domain, dtype, 2, &name)?;
                let rows = domain.rows.clone();
                memset(&mut self.builder, place.buffer, dtype, &rows, place.chunk, value);
                place
            }
        };
        let far = Far {
            index: u16::try_from(operand.index()).map_err(|_| "too many operands".to_owned())?,
            operand: &self.kernel.operands[operand],
            at,
            ordered: self.ordered.get(&operand).copied(),
        };
        let has = |axis: Axis| self.kernel.tiles[tile].extent(axis).is_some();
        if place.rows.iter().any(|&(axis, _)| !has(axis)) {
            return Err("a stored tile has some of the rows".to_owned());
        }
        if place.dtype != dtype {
            let wide = allocate(&mut self.builder, &domain, dtype, 2, &name)?;
            for piece in pieces(&domain) {
                copy_piece(&mut self.builder, &piece, &domain, &place, &wide);
            }
            place = wide;
        }
        transfer::store(&mut self.builder, &self.vars, Engine::GpSimd, &far, &domain, &place)
    }

    fn looped(&mut self, inner: &'a Loop) -> Result<(), String> {
        let (start, end) = (self.vars.index(&inner.start), self.vars.index(&inner.end));
        let step = i64::try_from(inner.step).map_err(|_| "a long step".to_owned())?;
        // Carried tiles have places of their own, outside the loop.
        for (&(carried, initial), &yielded) in inner.carried.iter().zip(&inner.yields) {
            let domain = self.domain(carried);
            let dtype = self.kernel.tiles[carried].dtype;
            let name = self.kernel.tiles[carried].name.clone();
            let held = self.settle(initial)?;
            let place = allocate(&mut self.builder, &domain, dtype, 1, &name)?;
            match held {
                Held::Constant(value) => {
                    let rows = domain.rows.clone();
                    memset(&mut self.builder, place.buffer, dtype, &rows, place.chunk, value);
                }
                Held::At(from) => {
                    for piece in pieces(&domain) {
                        copy_piece(&mut self.builder, &piece, &domain, &from, &place);
                    }
                }
            }
            self.states[carried.index()] = Some(State::Held(Held::At(place.clone())));
            if replaces(inner, carried, yielded) {
                self.targets.insert(yielded, place);
            }
        }
        let low = self.vars.range_of(&inner.start).0;
        let high = self.vars.range_of(&inner.end).1 - 1;
        let last = if inner.start.terms().is_empty() {
            low + (high - low).max(0) / step * step
        } else {
            high
        };
        let name = self.kernel.vars[inner.var].name.clone();
        let var = self.builder.begin(&name, start, end, step);
        self.vars.set(inner.var, var, (low, last.max(low)));
        self.body(&inner.body)?;
        let mut moved = Vec::new();
        for (&(carried, _), &yielded) in inner.carried.iter().zip(&inner.yields) {
            let Held::At(from) = self.settle(yielded)? else {
                return Err("a loop yields a number".to_owned());
            };
            let Some(State::Held(Held::At(to))) = self.states[carried.index()].clone() else {
                return Err("a carried tile is gone".to_owned());
            };
            if from.buffer != to.buffer {
                let aliased = inner.carried.iter().any(|&(other, _)| {
                    matches!(&self.states[other.index()],
                        Some(State::Held(Held::At(place))) if place.buffer == from.buffer)
                });
                if aliased {
                    return Err("a loop exchanges its tiles".to_owned());
                }
                moved.push((carried, from, to));
            }
        }
        for (carried, from, to) in moved {
            let domain = self.domain(carried);
            for piece in pieces(&domain) {
                copy_piece(&mut self.builder, &piece, &domain, &from, &to);
            }
        }
        self.builder.end();
        for (&(carried, _), &result) in inner.carried.iter().zip(&inner.results) {
            self.states[result.index()] = self.states[carried.index()].clone();
        }
        for &result in &inner.results {
            self.as_factors(result)?;
        }
        Ok(())
    }
}

/// Which summed axes lie on partitions together, and which are taken one by one.
pub(crate) fn summed(
    kernel: &Kernel,
    over: &[Axis],
    a: TileId,
    b: TileId,
    extent: &dyn Fn(Axis) -> usize,
) -> (Rows, Rows) {
    // An axis along which a factor is contiguous in memory, together with another, makes poor copies.
    let windowed = |axis: Axis| {
        [a, b].iter().any(|&tile| {
            let Some((_, at)) = load_of(kernel, tile) else { return false };
            at.last().is_some_and(|at| {
                let mixed = at.terms().iter().filter(|(term, _)| matches!(term, Term::Axis(_)));
                at.coefficient(Term::Axis(axis)) != 0 && mixed.count() > 1
            })
        })
    };
    let mut inner = Rows::new();
    let mut taps = Rows::new();
    let mut order: Vec<Axis> = over.to_vec();
    // The longest axis first decides; smaller ones join it while the rows are not full.
    order.sort_by_key(|&axis| (windowed(axis), std::cmp::Reverse(extent(axis))));
    for axis in order {
        let size = extent(axis);
        let rows = count(&inner);
        let joins = inner.is_empty()
            || (rows * size <= PARTITIONS && !windowed(axis))
            || (rows < PARTITIONS
                && !windowed(axis)
                && PARTITIONS.is_multiple_of(rows)
                && inner.len() == 1);
        if joins { inner.push((axis, size)) } else { taps.push((axis, size)) }
    }
    // On partitions the order of the sum stays: the axis that comes first is the outermost.
    let place = |axis: Axis| over.iter().position(|&other| other == axis);
    inner.sort_by_key(|&(axis, _)| place(axis));
    taps.sort_by_key(|&(axis, _)| place(axis));
    let tail = count(inner.get(1..).unwrap_or(&[]));
    if count(&inner) > PARTITIONS && !PARTITIONS.is_multiple_of(tail.max(1)) {
        // Rows of the inner axes would end inside a set: keep the longest alone.
        let longest = inner.iter().copied().max_by_key(|&(_, size)| size);
        if let Some(longest) = longest {
            taps.extend(inner.iter().copied().filter(|&step| step != longest));
            inner = Rows::from_slice(&[longest]);
        }
    }
    (inner, taps)
}

/// What a tile is loaded from.
pub(crate) fn load_of(kernel: &Kernel, tile: TileId) -> Option<(OperandId, &[Affine])> {
    let mut found = None;
    tiling::each(&kernel.body, &mut |stmt| {
        if let Stmt::Define { results, op: TileOp::Load { operand, at, .. } } = stmt
            && results[0] == tile
        {
            found = Some((*operand, at.as_slice()));
        }
    });
    found
}

/// Whether a yielded tile can be made in the place of the carried one: nothing reads the carried tile after it.
fn replaces(inner: &Loop, carried: TileId, yielded: TileId) -> bool {
    let made = inner.body.iter().position(|stmt| stmt.results().contains(&yielded));
    let Some(made) = made else { return false };
    // A product or a map reads each element before it writes it; a reduction adds at the end.
    let direct = matches!(
        &inner.body[made],
        Stmt::Define {
            op: TileOp::Contract { .. } | TileOp::Map { .. } | TileOp::Reduce { .. },
            ..
        }
    );
    let mut later = false;
    tiling::each(&inner.body[made + 1..], &mut |stmt| {
        stmt.visit_reads(&mut |tile| later |= tile == carried);
    });
    direct && !later && inner.yields.iter().filter(|&&tile| tile == yielded).count() == 1
}

/// `to = part + start` on one piece.
fn add_piece(
    builder: &mut Builder<'_>,
    piece: &Piece,
    domain: &Domain,
    part: &Place,
    start: &Place,
    to: &Place,
) {
    for cut in place::split(piece, domain, &[part, start, to], usize::MAX) {
        let found = place::accesses(builder, &cut, domain, &[part, start, to]);
        let op = Op::TensorTensor {
            alu: Alu::Add,
            a: found[0].access.clone(),
            b: found[1].access.clone(),
            out: found[2].access.clone(),
        };
        map::charge(builder, Engine::Vector, found[2].access.free() as f64);
        builder.emit(Engine::Vector, op, &[&found[0], &found[1]], &[&found[2]]);
    }
}
