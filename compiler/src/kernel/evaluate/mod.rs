//! What a kernel means, statement by statement. Elements are decoded to the wide arithmetic of their type; every
//! operation rounds its result to the type of its tile. Tiles are dropped after their last use.

mod contract;
mod convert;
mod index;
mod lifetimes;
mod map;
mod reduce;
mod source;
#[cfg(test)]
mod tests;

use super::{
    Affine, Combine, Dims, Kernel, Loop, LoopKind, OperandId, Role, Stmt, Term, TileId, TileOp,
};
use crate::evaluate::{Budget, EvaluateError};
use crate::expr::Scalar;
use crate::tensor::{Tensor, Values};
use crate::types::DType;
use contract::Typed;
use index::Positions;
use lifetimes::Lifetimes;
use smallvec::SmallVec;
use source::{Block, Check, Meter, Source, Walk};
use std::rc::Rc;

/// Runs a verified kernel. `operands` are in the kernel's order: inputs are left alone, outputs and updates are
/// replaced; of an output only the type is looked at, and what no statement writes is zero.
pub fn evaluate(
    kernel: &Kernel,
    operands: &mut [Tensor],
    scalars: &[i64],
    budget: &Budget<'_>,
) -> Result<(), EvaluateError> {
    check_operands(kernel, operands)?;
    let mut context = Context {
        kernel,
        budget,
        meter: Rc::new(Meter::default()),
        vars: check_scalars(kernel, scalars)?,
        operands: Vec::new(),
        tiles: vec![None; kernel.tiles.len()],
    };
    for ((_, operand), tensor) in kernel.operands.iter().zip(operands.iter()) {
        context.reserve(operand.dtype, tensor.count())?;
        let values = match operand.role {
            Role::Input | Role::Update => tensor.values(),
            Role::Output => Scalar::from_i64(operand.dtype, 0).values(tensor.count()),
        };
        context.operands.push(Rc::new(Block::new(values, &context.meter)));
    }
    let lifetimes = lifetimes::lifetimes(kernel, &kernel.body, &[], &[]);
    context.run(&kernel.body, &lifetimes)?;
    for (id, operand) in kernel.operands.iter().filter(|(_, operand)| operand.role.writes()) {
        let tensor = &mut operands[id.index()];
        let values = &context.operands[id.index()].values;
        *tensor = Tensor::from_values(operand.dtype, tensor.shape(), values);
    }
    Ok(())
}

fn check_operands(kernel: &Kernel, operands: &[Tensor]) -> Result<(), EvaluateError> {
    let (wanted, found) = (kernel.operands.len(), operands.len());
    if wanted != found {
        let message = format!("kernel {} takes {wanted} operands, not {found}", kernel.name);
        return Err(EvaluateError::Input(message));
    }
    for ((_, operand), tensor) in kernel.operands.iter().zip(operands) {
        let ty = operand.ty();
        if ty != *tensor.ty() {
            let message = format!("operand {} is {ty}, not {}", operand.name, tensor.ty());
            return Err(EvaluateError::Input(message));
        }
    }
    Ok(())
}

/// The values of all variables: the scalars given, and zero for variables of loops.
fn check_scalars(kernel: &Kernel, scalars: &[i64]) -> Result<Vec<i64>, EvaluateError> {
    let mut values = vec![0; kernel.vars.len()];
    let mut given = scalars.iter();
    let wanted = kernel.scalars().len();
    for (id, low, high) in kernel.scalars() {
        let Some(&value) = given.next() else {
            let found = scalars.len();
            let message = format!("kernel {} takes {wanted} scalars, not {found}", kernel.name);
            return Err(EvaluateError::Input(message));
        };
        if !(low..=high).contains(&value) {
            let name = &kernel.vars[id].name;
            let message = format!("scalar {name} is {value}, outside of {low} to {high}");
            return Err(EvaluateError::Input(message));
        }
        values[id.index()] = value;
    }
    if given.next().is_some() {
        let found = scalars.len();
        let message = format!("kernel {} takes {wanted} scalars, not {found}", kernel.name);
        return Err(EvaluateError::Input(message));
    }
    Ok(values)
}

/// A kernel that runs.
struct Context<'a> {
    kernel: &'a Kernel,
    budget: &'a Budget<'a>,
    meter: Rc<Meter>,
    vars: Vec<i64>,
    operands: Vec<Rc<Block>>,
    tiles: Vec<Option<Source>>,
}

impl Context<'_> {
    fn check_cancelled(&self) -> Result<(), EvaluateError> {
        if (self.budget.cancelled)() { Err(EvaluateError::Cancelled) } else { Ok(()) }
    }

    /// Checks that so many more elements may live.
    fn reserve(&self, dtype: DType, count: usize) -> Result<(), EvaluateError> {
        let wide = match dtype {
            DType::Bool => 1,
            DType::I4 | DType::I8 | DType::I16 | DType::I32 | DType::I64 => 8,
            DType::U4 | DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::F64 => 8,
            DType::F32 | DType::F16 | DType::BF16 => 4,
            DType::F8E4M3 | DType::F8E5M2 | DType::F4E2M1 => 4,
        };
        let needed = count.saturating_mul(wide).saturating_add(self.meter.live_bytes());
        let limit = self.budget.bytes;
        if needed > limit { Err(EvaluateError::Memory { needed, limit }) } else { Ok(()) }
    }

    fn value(&self, term: Term) -> i64 {
        match term {
            Term::Var(var) => self.vars[var.index()],
            Term::Axis(_) => 0,
        }
    }

    /// An affine expression as a base and a step for each axis.
    fn steps(&self, affine: &Affine, dims: &Dims) -> (i64, SmallVec<[i64; 6]>) {
        let base = affine.evaluate(|term| self.value(term));
        (base, dims.iter().map(|&(axis, _)| affine.coefficient(Term::Axis(axis))).collect())
    }

    fn source(&self, tile: TileId) -> &Source {
        self.tiles[tile.index()].as_ref().expect("a tile is defined before it is used")
    }

    fn typed(&self, tile: TileId) -> Typed<'_> {
        Typed { source: self.source(tile), dtype: self.kernel.tiles[tile].dtype }
    }

    fn define(&mut self, tile: TileId, values: Values) {
        let source = Source::dense(&self.kernel.tiles[tile].dims, values, &self.meter);
        self.tiles[tile.index()] = Some(source);
    }

    fn run(&mut self, body: &[Stmt], lifetimes: &Lifetimes) -> Result<(), EvaluateError> {
        for (place, stmt) in body.iter().enumerate() {
            self.check_cancelled()?;
            match stmt {
                Stmt::Define { results, op } => self.op(results, op)?,
                Stmt::Store { operand, at, tile } => self.store(*operand, at, *tile),
                Stmt::Scatter { operand, at, index, tile, combine } => {
                    self.scatter(*operand, at, index, *tile, *combine)?;
                }
                Stmt::For(looped) => self.repeat(looped, &lifetimes.inner[place])?,
            }
            for tile in &lifetimes.dropped[place] {
                self.tiles[tile.index()] = None;
            }
        }
        Ok(())
    }

    fn op(&mut self, results: &[TileId], op: &TileOp) -> Result<(), EvaluateError> {
        let kernel = self.kernel;
        let result = results[0];
        let tile = &kernel.tiles[result];
        let dims = &tile.dims;
        match op {
            TileOp::Load { operand, at, pad } => {
                let source = self.load(*operand, at, *pad, dims);
                // Elements of an update may be written while the tile lives.
                if kernel.operands[*operand].role == Role::Input {
                    self.tiles[result.index()] = Some(source);
                    return Ok(());
                }
                self.reserve(tile.dtype, tile.count())?;
                self.define(result, source.all(dims));
            }
            TileOp::Fill { value } => {
                self.tiles[result.index()] = Some(Source::constant(dims, *value, &self.meter));
            }
            TileOp::View { tile, at } => {
                let source = self.view(self.source(*tile), at, dims);
                self.tiles[result.index()] = Some(source);
            }
            TileOp::Rearrange { tile } => {
                let at: Vec<Affine> =
                    self.source(*tile).dims.iter().map(|&(axis, _)| Affine::axis(axis)).collect();
                let source = self.view(self.source(*tile), &at, dims);
                self.tiles[result.index()] = Some(source);
            }
            TileOp::Contract { init, a, b, over, accumulate } => {
                self.reserve(*accumulate, tile.count())?;
                let (init, a, b) = (self.typed(*init), self.typed(*a), self.typed(*b));
                let values = contract::contract(self, init, a, b, over, *accumulate, dims)?;
                self.define(result, convert::convert(values, *accumulate, tile.dtype));
            }
            TileOp::Map { operands, expr } => {
                self.reserve(tile.dtype, tile.count())?;
                let operands: Vec<&Source> =
                    operands.iter().map(|&operand| self.source(operand)).collect();
                let values = map::map(self, expr, &operands, dims)?;
                self.define(result, values);
            }
            TileOp::Reduce { combine, init, tile: reduced, over, accumulate } => {
                self.reserve(*accumulate, tile.count())?;
                let start = match init {
                    Some(init) => {
                        let dtype = kernel.tiles[*init].dtype;
                        convert::convert(self.source(*init).all(dims), dtype, *accumulate)
                    }
                    // The identity is one of the elements' type, so that nothing at all has a value of that type.
                    None => {
                        let dtype = kernel.tiles[*reduced].dtype;
                        let identity = combine.identity(dtype).values(tile.count());
                        convert::convert(identity, dtype, *accumulate)
                    }
                };
                let fold = self.fold(*combine, *reduced, *accumulate);
                let values = reduce::reduce(self, &fold, start, over, dims)?;
                self.define(result, convert::convert(values, *accumulate, tile.dtype));
            }
            TileOp::ArgReduce { combine, tile: searched, over, last } => {
                self.reserve(tile.dtype, tile.count())?;
                let found =
                    reduce::arg_reduce(*combine, self.source(*searched), *over, *last, dims);
                self.define(result, convert::convert(found, DType::I64, tile.dtype));
            }
            TileOp::Scan { combine, tile: scanned, over, exclusive, reverse, accumulate } => {
                self.reserve(*accumulate, tile.count())?;
                let fold = self.fold(*combine, *scanned, *accumulate);
                let values = reduce::scan(self, &fold, *over, *exclusive, *reverse, dims);
                self.define(result, convert::convert(values, *accumulate, tile.dtype));
            }
            TileOp::Sort { tile: keys, over, descending } => {
                self.reserve(DType::I64, tile.count().saturating_mul(2))?;
                let (sorted, from) =
                    reduce::sort(self, self.source(*keys), *over, *descending, dims);
                self.define(result, sorted);
                let positions = results[1];
                let dtype = kernel.tiles[positions].dtype;
                self.define(positions, convert::convert(from, DType::I64, dtype));
            }
            TileOp::Gather { operand, at, index } => {
                self.reserve(tile.dtype, tile.count())?;
                let positions =
                    Positions::new(self, &kernel.operands[*operand], at, index, dims, |tile| {
                        self.source(tile)
                    });
                let elements = &self.operands[operand.index()].values;
                let values = index::gather(self, elements, &positions, tile.count())?;
                self.define(result, values);
            }
        }
        Ok(())
    }

    fn fold(&self, combine: Combine, tile: TileId, accumulate: DType) -> reduce::Fold<'_> {
        let dtype = self.kernel.tiles[tile].dtype;
        reduce::Fold { combine, tile: self.source(tile), dtype, accumulate }
    }

    fn load(&self, operand: OperandId, at: &[Affine], pad: Option<Scalar>, dims: &Dims) -> Source {
        let sizes: SmallVec<[usize; 6]> =
            self.kernel.operands[operand].dims.iter().map(|&(_, size)| size).collect();
        let strides = crate::types::strides(&sizes);
        let mut source = Source {
            block: Rc::clone(&self.operands[operand.index()]),
            dims: dims.clone(),
            base: 0,
            steps: SmallVec::from_elem(0, dims.len()),
            checks: SmallVec::new(),
            pad,
        };
        for (dim, at) in at.iter().enumerate() {
            let (base, steps) = self.steps(at, dims);
            let (size, stride) = (sizes[dim] as i64, strides[dim] as i64);
            source.add(base, &steps, stride);
            if may_leave(base, &steps, dims, size) {
                source.checks.push(Check { size, base, steps });
            }
        }
        source
    }

    /// A tile whose position along each axis of `viewed` is affine in the axes of `dims`.
    fn view(&self, viewed: &Source, at: &[Affine], dims: &Dims) -> Source {
        let mut source = Source {
            block: Rc::clone(&viewed.block),
            dims: dims.clone(),
            base: viewed.base,
            steps: SmallVec::from_elem(0, dims.len()),
            checks: SmallVec::new(),
            pad: viewed.pad,
        };
        let at: Vec<_> = at.iter().map(|at| self.steps(at, dims)).collect();
        for (&outer, (base, steps)) in viewed.steps.iter().zip(&at) {
            source.add(*base, steps, outer);
        }
        for check in &viewed.checks {
            let mut seen = Check { steps: SmallVec::from_elem(0, dims.len()), ..check.clone() };
            for (&outer, (base, steps)) in check.steps.iter().zip(&at) {
                seen.base += outer * base;
                seen.steps.iter_mut().zip(steps).for_each(|(sum, step)| *sum += outer * step);
            }
            source.checks.push(seen);
        }
        source
    }

    fn store(&mut self, operand: OperandId, at: &[Affine], tile: TileId) {
        let dims = &self.kernel.tiles[tile].dims;
        let extents: SmallVec<[usize; 6]> = dims.iter().map(|&(_, extent)| extent).collect();
        // Only the geometry of the load is kept: while it held the operand's block, every store would copy that.
        let walk = {
            let target = self.load(operand, at, None, dims);
            Walk::new(extents, target.base, target.steps, target.checks)
        };
        let values = self.source(tile).all(dims);
        source::put(&walk, self.written(operand), &values);
    }

    fn scatter(
        &mut self,
        operand: OperandId,
        at: &[Affine],
        index: &[(usize, TileId)],
        tile: TileId,
        combine: Option<Combine>,
    ) -> Result<(), EvaluateError> {
        let kernel = self.kernel;
        let dims = &kernel.tiles[tile].dims;
        // The positions borrow tiles of the context, so what is written is taken out of it meanwhile.
        let nothing = Rc::new(Block::new(Values::Bool(Vec::new()), &self.meter));
        let mut block = std::mem::replace(&mut self.operands[operand.index()], nothing);
        let written = writable(&mut block, &self.meter);
        let operand_data = &kernel.operands[operand];
        let positions =
            Positions::new(self, operand_data, at, index, dims, |tile| self.source(tile));
        let values = self.source(tile).all(dims);
        index::scatter(self, written, operand_data, &positions, &values, combine)?;
        self.operands[operand.index()] = block;
        Ok(())
    }

    fn written(&mut self, operand: OperandId) -> &mut Values {
        writable(&mut self.operands[operand.index()], &self.meter)
    }

    fn repeat(&mut self, looped: &Loop, lifetimes: &Lifetimes) -> Result<(), EvaluateError> {
        let start = looped.start.evaluate(|term| self.value(term));
        let end = looped.end.evaluate(|term| self.value(term));
        if looped.kind == LoopKind::ReduceParallel {
            return self.repeat_in_tree(looped, lifetimes, start, end);
        }
        for &(inside, initial) in &looped.carried {
            self.tiles[inside.index()] = Some(self.source(initial).clone());
        }
        let mut value = start;
        while value < end {
            self.vars[looped.var.index()] = value;
            self.run(&looped.body, lifetimes)?;
            let after: Vec<Source> =
                looped.yields.iter().map(|&tile| self.source(tile).clone()).collect();
            looped.yields.iter().for_each(|tile| self.drop_inner(looped, *tile));
            for (&(inside, _), source) in looped.carried.iter().zip(after) {
                self.tiles[inside.index()] = Some(source);
            }
            value += looped.step as i64;
        }
        for (&(inside, _), result) in looped.carried.iter().zip(&looped.results) {
            self.tiles[result.index()] = self.tiles[inside.index()].take();
        }
        Ok(())
    }

    /// Forgets a tile that was yielded, unless it is one of an outer body.
    fn drop_inner(&mut self, looped: &Loop, tile: TileId) {
        let ours = |stmt: &Stmt| stmt.results().contains(&tile);
        if looped.body.iter().any(ours) {
            self.tiles[tile.index()] = None;
        }
    }

    /// Every iteration starts from the identity. Partial results of equally many iterations join, the earlier first;
    /// at the end those that are left join from the last to the first, and with what the loop starts from.
    fn repeat_in_tree(
        &mut self,
        looped: &Loop,
        lifetimes: &Lifetimes,
        start: i64,
        end: i64,
    ) -> Result<(), EvaluateError> {
        let kernel = self.kernel;
        let combines: Vec<Combine> = looped
            .partial_combines()
            .expect("a verified parallel reduction combines its carried tiles");
        let mut partials: Vec<(usize, Vec<Source>)> = Vec::new();
        let mut value = start;
        while value < end {
            for (&(inside, _), combine) in looped.carried.iter().zip(&combines) {
                let tile = &kernel.tiles[inside];
                let identity = combine.identity(tile.dtype);
                let source = Source::constant(&tile.dims, identity, &self.meter);
                self.tiles[inside.index()] = Some(source);
            }
            self.vars[looped.var.index()] = value;
            self.run(&looped.body, lifetimes)?;
            let mut partial: Vec<Source> =
                looped.yields.iter().map(|&tile| self.source(tile).clone()).collect();
            let mut count = 1;
            while let Some((_, earlier)) = partials.pop_if(|(others, _)| *others == count) {
                partial = self.join(looped, &combines, &earlier, &partial);
                count *= 2;
            }
            partials.push((count, partial));
            value += looped.step as i64;
        }
        let mut total: Option<Vec<Source>> = None;
        while let Some((_, earlier)) = partials.pop() {
            total = Some(match total {
                Some(later) => self.join(looped, &combines, &earlier, &later),
                None => earlier,
            });
        }
        let initial: Vec<Source> =
            looped.carried.iter().map(|&(_, tile)| self.source(tile).clone()).collect();
        let results = match total {
            Some(total) => self.join(looped, &combines, &initial, &total),
            None => initial,
        };
        for (result, source) in looped.results.iter().zip(results) {
            self.tiles[result.index()] = Some(source);
        }
        Ok(())
    }

    fn join(
        &self,
        looped: &Loop,
        combines: &[Combine],
        earlier: &[Source],
        later: &[Source],
    ) -> Vec<Source> {
        let pairs = earlier.iter().zip(later).zip(combines).zip(&looped.carried);
        pairs
            .map(|(((earlier, later), combine), &(tile, _))| {
                let tile = &self.kernel.tiles[tile];
                let operands = [&earlier.all(&tile.dims), &later.all(&tile.dims)];
                let joined = combine.function().evaluate(&operands).rounded(tile.dtype);
                Source::dense(&tile.dims, joined, &self.meter)
            })
            .collect()
    }
}

/// The elements, to be changed: copied first where a tile still sees them.
fn writable<'a>(block: &'a mut Rc<Block>, meter: &Rc<Meter>) -> &'a mut Values {
    if Rc::get_mut(block).is_none() {
        *block = Rc::new(Block::new(block.values.clone(), meter));
    }
    &mut Rc::get_mut(block).expect("the block was just made").values
}

/// Whether a position may lie outside of `0..size`.
fn may_leave(base: i64, steps: &[i64], dims: &Dims, size: i64) -> bool {
    let (mut low, mut high) = (base, base);
    for (&step, &(_, extent)) in steps.iter().zip(dims) {
        let last = step.saturating_mul(extent.saturating_sub(1) as i64);
        low = low.saturating_add(last.min(0));
        high = high.saturating_add(last.max(0));
    }
    low < 0 || high >= size
}
