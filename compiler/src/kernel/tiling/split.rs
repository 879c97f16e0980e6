//! Rebuilds a kernel so that sums over the split axes are carried by loops, and stores along them have loops of their own.
//!
//! What stands in no such loop is kept in order. Anything along a split axis is made where it is needed, inside the
//! innermost loop that it varies with and no deeper, once for each such loop.

use super::substitute::{self, shift, shift_op, shorten, variable};
use super::{Cut, is_outside, loop_over, summed};
use crate::expr::{Expr, Scalar};
use crate::kernel::{
    Affine, Axis, Combine, Kernel, Loop, LoopKind, Schedule, Stmt, Tile, TileId, TileOp, VarId,
};
use crate::types::DType;
use std::collections::{BTreeMap, BTreeSet};

/// The kernel with loops over the split axes, which are given from the outermost in.
pub(super) fn sums(kernel: &Kernel, cuts: &[Cut], schedule: &Schedule) -> Result<Kernel, String> {
    let mut new = kernel.clone();
    new.body.clear();
    new.tiles = crate::arena::Arena::new();
    let mut definitions = vec![None; kernel.tiles.len()];
    for (place, stmt) in kernel.body.iter().enumerate() {
        stmt.results().iter().for_each(|tile| definitions[tile.index()] = Some(place));
    }
    let mut splitter = Splitter {
        old: kernel,
        new,
        cuts,
        schedule,
        definitions,
        levels: vec![Level { loops: None, body: Vec::new() }],
        made: BTreeMap::new(),
    };
    splitter.check_effects()?;
    splitter.body()?;
    let body = splitter.levels.pop().map(|level| level.body).unwrap_or_default();
    Ok(Kernel { body, ..splitter.new })
}

/// A loop that is open, or what stands around all; with the statements so far.
struct Level {
    loops: Option<(Cut, VarId)>,
    body: Vec<Stmt>,
}

struct Splitter<'a> {
    old: &'a Kernel,
    new: Kernel,
    cuts: &'a [Cut],
    schedule: &'a Schedule,
    /// The statement that defines each old tile.
    definitions: Vec<Option<usize>>,
    levels: Vec<Level>,
    /// The new tiles: for an old one and the loops that it varies with.
    made: BTreeMap<(TileId, Vec<VarId>), TileId>,
}

/// A loop that carries a sum.
struct Sum {
    cut: Cut,
    var: VarId,
    kind: LoopKind,
    start: TileId,
    carried: TileId,
    result: TileId,
}

impl Splitter<'_> {
    /// Loads along a split axis move, so nothing may be stored to what they read.
    fn check_effects(&self) -> Result<(), String> {
        let mut written = BTreeSet::new();
        for stmt in &self.old.body {
            if let Stmt::Store { operand, .. } | Stmt::Scatter { operand, .. } = stmt {
                written.insert(*operand);
            }
        }
        for stmt in &self.old.body {
            if let Stmt::Define {
                op: TileOp::Load { operand, .. } | TileOp::Gather { operand, .. },
                results,
            } = stmt
                && written.contains(operand)
                && !self.along(results[0]).is_empty()
            {
                let name = &self.old.operands[*operand].name;
                return Err(format!("%{name} is read tile by tile, and written"));
            }
        }
        Ok(())
    }

    fn body(&mut self) -> Result<(), String> {
        let body = &self.old.body;
        let mut place = 0;
        while let Some(stmt) = body.get(place) {
            place += 1;
            match stmt {
                Stmt::Define { results, op } => {
                    let is_lazy = matches!(op, TileOp::Fill { .. });
                    if !is_lazy && self.along(results[0]).is_empty() {
                        self.need(results[0])?;
                    }
                }
                Stmt::Store { tile, .. } => {
                    let cuts = self.along(*tile);
                    self.open(&cuts);
                    self.write(stmt)?;
                    // Stores along the same axes share the loops.
                    while let Some(next) = body.get(place) {
                        match next {
                            Stmt::Store { tile, .. }
                                if !cuts.is_empty() && same(&self.along(*tile), &cuts) =>
                            {
                                self.write(next)?;
                            }
                            Stmt::Define { results, .. } if !self.along(results[0]).is_empty() => {}
                            Stmt::Define { .. }
                            | Stmt::Store { .. }
                            | Stmt::Scatter { .. }
                            | Stmt::For(_) => break,
                        }
                        place += 1;
                    }
                    self.close(cuts.len());
                }
                Stmt::Scatter { .. } => self.write(stmt)?,
                Stmt::For(_) => return Err("there are loops already".to_owned()),
            }
        }
        Ok(())
    }

    /// The cut axes that an old tile has, from the outermost loop in.
    fn along(&self, tile: TileId) -> Vec<Cut> {
        let tile = &self.old.tiles[tile];
        self.cuts.iter().filter(|cut| tile.extent(cut.axis).is_some()).copied().collect()
    }

    fn open(&mut self, cuts: &[Cut]) {
        for &cut in cuts {
            let var = variable(&mut self.new, cut.axis);
            self.levels.push(Level { loops: Some((cut, var)), body: Vec::new() });
        }
    }

    fn close(&mut self, count: usize) {
        for _ in 0..count {
            let Some(Level { loops: Some((cut, var)), body }) = self.levels.pop() else { return };
            let pipelined = self.schedule.pipelined(self.old.axis_name(cut.axis));
            self.push(loop_over(cut, var, body, LoopKind::Parallel, pipelined));
        }
    }

    fn push(&mut self, stmt: Stmt) {
        self.levels.last_mut().expect("the outermost level stays").body.push(stmt);
    }

    /// The innermost open loop over an axis: its place and its variable.
    fn bound(&self, axis: Axis) -> Option<(usize, VarId)> {
        let mut levels = self.levels.iter().enumerate().rev();
        levels.find_map(|(place, level)| {
            level.loops.filter(|(cut, _)| cut.axis == axis).map(|(_, var)| (place, var))
        })
    }

    /// Writes a store or scatter with its tiles.
    fn write(&mut self, stmt: &Stmt) -> Result<(), String> {
        let mut stmt = stmt.clone();
        if let Stmt::Store { at, tile, .. } | Stmt::Scatter { at, tile, .. } = &mut stmt {
            for cut in self.along(*tile) {
                let Some((_, var)) = self.bound(cut.axis) else {
                    return Err("a scatter's updates come one after another".to_owned());
                };
                shift(at, cut.axis, var);
            }
            *tile = self.need(*tile)?;
        }
        if let Stmt::Scatter { index, .. } = &mut stmt {
            for (_, tile) in index {
                *tile = self.need(*tile)?;
            }
        }
        self.push(stmt);
        Ok(())
    }

    /// The new tile for an old one, made now where it is not there.
    fn need(&mut self, tile: TileId) -> Result<TileId, String> {
        let (mut level, mut vars) = (0, Vec::new());
        for cut in self.along(tile) {
            let Some((place, var)) = self.bound(cut.axis) else {
                let axis = self.old.axis_name(cut.axis);
                return Err(format!("axis {axis} is summed and read elsewhere too"));
            };
            level = level.max(place);
            vars.push(var);
        }
        if let Some(&made) = self.made.get(&(tile, vars.clone())) {
            return Ok(made);
        }
        let place = self.definitions[tile.index()].ok_or("a tile is not defined")?;
        let Stmt::Define { results, op } = &self.old.body[place] else {
            return Err("there are loops already".to_owned());
        };
        let deeper = self.levels.split_off(level + 1);
        let made = self.define(results, op);
        self.levels.extend(deeper);
        for (&old, new) in results.iter().zip(made?) {
            self.made.insert((old, vars.clone()), new);
        }
        Ok(self.made[&(tile, vars)])
    }

    /// Does an operation at the innermost level.
    fn define(&mut self, results: &[TileId], op: &TileOp) -> Result<Vec<TileId>, String> {
        let sums: Vec<Cut> =
            self.cuts.iter().filter(|cut| summed(op).contains(&cut.axis)).copied().collect();
        if !sums.is_empty() {
            return self.sum(results[0], op, &sums).map(|made| vec![made]);
        }
        let mut op = op.clone();
        for cut in self.along(results[0]) {
            let (_, var) = self.bound(cut.axis).expect("the level is inside its loops");
            shift_op(&mut op, cut, var, &self.old.operands, &self.old.tiles);
        }
        for read in reads_mut(&mut op) {
            *read = self.need(*read)?;
        }
        let made: Vec<TileId> = results.iter().map(|&tile| self.copy(tile, None)).collect();
        self.push(Stmt::Define { results: made.as_slice().into(), op });
        Ok(made)
    }

    /// A new tile like an old one, perhaps of another type.
    fn copy(&mut self, tile: TileId, dtype: Option<DType>) -> TileId {
        let mut tile = self.old.tiles[tile].clone();
        self.cuts.iter().for_each(|&cut| shorten(&mut tile, cut));
        self.new.tiles.push(Tile { dtype: dtype.unwrap_or(tile.dtype), ..tile })
    }

    fn add(&mut self, result: TileId, op: TileOp) -> TileId {
        self.push(Stmt::Define { results: smallvec::smallvec![result], op });
        result
    }

    /// Sums in loops that carry the sum.
    fn sum(&mut self, tile: TileId, op: &TileOp, sums: &[Cut]) -> Result<TileId, String> {
        let (combine, init, accumulate) = match op {
            TileOp::Contract { init, accumulate, .. } => (Combine::Sum, Some(*init), *accumulate),
            TileOp::Reduce { combine, init, accumulate, .. } => (*combine, *init, *accumulate),
            TileOp::Load { .. }
            | TileOp::Gather { .. }
            | TileOp::Fill { .. }
            | TileOp::View { .. }
            | TileOp::Map { .. }
            | TileOp::ArgReduce { .. }
            | TileOp::Scan { .. }
            | TileOp::Sort { .. }
            | TileOp::Rearrange { .. } => {
                return Err("only products and reductions are summed in a loop".to_owned());
            }
        };
        let mut start = match init {
            Some(init) => self.start(init, tile, accumulate)?,
            None => self.identity(tile, combine, accumulate),
        };
        let mut loops: Vec<Sum> = Vec::new();
        for &cut in sums {
            if let Some(outer) = loops.last() {
                // A parallel loop may do nothing with what it carries but combine into it.
                start = match outer.kind {
                    LoopKind::ReduceParallel => self.identity(tile, combine, accumulate),
                    LoopKind::Parallel | LoopKind::Sequential | LoopKind::Reduce => outer.carried,
                };
            }
            let name = self.old.axis_name(cut.axis);
            let is_parallel = self.schedule.parallel.iter().any(|other| other == name);
            let kind = if is_parallel { LoopKind::ReduceParallel } else { LoopKind::Reduce };
            let var = variable(&mut self.new, cut.axis);
            let carried = self.copy(tile, Some(accumulate));
            let result = self.copy(tile, Some(accumulate));
            loops.push(Sum { cut, var, kind, start, carried, result });
            self.levels.push(Level { loops: Some((cut, var)), body: Vec::new() });
        }
        let innermost = loops.last().expect("something is summed").carried;
        let identity = |dtype| combine.identity(dtype);
        let mut op = op.clone();
        match &mut op {
            TileOp::Contract { init, a, b, .. } => {
                *init = innermost;
                *a = self.summand(*a, sums, &identity)?;
                *b = self.summand(*b, sums, &identity)?;
            }
            TileOp::Reduce { init, tile, .. } => {
                *init = Some(innermost);
                *tile = self.summand(*tile, sums, &identity)?;
            }
            TileOp::Load { .. }
            | TileOp::Gather { .. }
            | TileOp::Fill { .. }
            | TileOp::View { .. }
            | TileOp::Map { .. }
            | TileOp::ArgReduce { .. }
            | TileOp::Scan { .. }
            | TileOp::Sort { .. }
            | TileOp::Rearrange { .. } => {}
        }
        let next = self.copy(tile, Some(accumulate));
        let mut value = self.add(next, op);
        while let Some(inner) = loops.pop() {
            let body = self.levels.pop().map(|level| level.body).unwrap_or_default();
            self.push(Stmt::For(Loop {
                var: inner.var,
                start: Affine::constant(0),
                end: Affine::constant(inner.cut.extent as i64),
                step: inner.cut.size,
                kind: inner.kind,
                pipelined: self.schedule.pipelined(self.old.axis_name(inner.cut.axis)),
                carried: vec![(inner.carried, inner.start)],
                body,
                yields: vec![value],
                results: vec![inner.result],
            }));
            value = inner.result;
            if let Some(outer) = loops.last().filter(|it| it.kind == LoopKind::ReduceParallel) {
                let mut expr = Expr::new();
                let (left, right) = (expr.operand(0, accumulate), expr.operand(1, accumulate));
                expr.call(combine.function(), &[left, right]);
                let joined = TileOp::Map { operands: vec![outer.carried, value], expr };
                let result = self.copy(tile, Some(accumulate));
                value = self.add(result, joined);
            }
        }
        let dtype = self.old.tiles[tile].dtype;
        if dtype == accumulate {
            return Ok(value);
        }
        let mut expr = Expr::new();
        let sum = expr.operand(0, accumulate);
        expr.convert(sum, dtype);
        let result = self.copy(tile, None);
        Ok(self.add(result, TileOp::Map { operands: vec![value], expr }))
    }

    /// A tile of elements that change nothing, like the sum of an old one.
    fn identity(&mut self, tile: TileId, combine: Combine, accumulate: DType) -> TileId {
        let result = self.copy(tile, Some(accumulate));
        self.add(result, TileOp::Fill { value: combine.identity(accumulate) })
    }

    /// What a sum starts from, with all axes of the sum.
    fn start(&mut self, init: TileId, tile: TileId, dtype: DType) -> Result<TileId, String> {
        let place = self.definitions[init.index()].ok_or("a tile is not defined")?;
        if let Stmt::Define { op: TileOp::Fill { value }, .. } = &self.old.body[place] {
            let result = self.copy(tile, Some(dtype));
            return Ok(self.add(result, TileOp::Fill { value: *value }));
        }
        let init = self.need(init)?;
        let mut wanted = self.old.tiles[tile].clone();
        self.cuts.iter().for_each(|&cut| shorten(&mut wanted, cut));
        wanted.dtype = dtype;
        let from = &self.new.tiles[init];
        if from.same_type(&wanted) {
            return Ok(init);
        }
        let at = from.dims.iter().map(|&(axis, _)| Affine::axis(axis)).collect();
        let result = self.new.tiles.push(wanted);
        Ok(self.add(result, TileOp::View { tile: init, at }))
    }

    /// What is summed, with elements that change nothing where a cut axis has ended.
    fn summand(
        &mut self,
        tile: TileId,
        sums: &[Cut],
        identity: &dyn Fn(DType) -> Scalar,
    ) -> Result<TileId, String> {
        let dtype = self.old.tiles[tile].dtype;
        let identity = identity(dtype);
        let mut ragged: Vec<Cut> = sums.iter().filter(|cut| cut.is_ragged()).copied().collect();
        if ragged.is_empty() {
            return self.need(tile);
        }
        let place = self.definitions[tile.index()].ok_or("a tile is not defined")?;
        let mut padded = None;
        if let Stmt::Define { op: TileOp::Load { operand, at, pad }, results } =
            &self.old.body[place]
        {
            let dims = &self.old.tiles[tile].dims;
            // What lies outside of the operand is padding.
            let gives = pad.is_none_or(|pad| same_number(pad, identity));
            let is_covered = |cut: &Cut| gives && is_outside(self.old, *cut, *operand, at, dims);
            let before = ragged.len();
            ragged.retain(|cut| !is_covered(cut));
            if ragged.len() < before && pad.is_none() && identity.to_f64() != 0.0 {
                let load = TileOp::Load { operand: *operand, at: at.clone(), pad: Some(identity) };
                padded = Some((results, load));
            }
        }
        let mut made = match padded {
            Some((results, load)) => self.define(results, &load)?[0],
            None => self.need(tile)?,
        };
        for cut in ragged {
            let (_, var) = self.bound(cut.axis).expect("the sum's loops are open");
            let mut masked = self.new.tiles[made].clone();
            if masked.extent(cut.axis).is_none() {
                masked.dims.push((cut.axis, cut.size));
            }
            let masked = self.new.tiles.push(masked);
            made = self.add(masked, substitute::within(made, dtype, identity, cut, var));
        }
        Ok(made)
    }
}

fn same(left: &[Cut], right: &[Cut]) -> bool {
    left.iter().map(|cut| cut.axis).eq(right.iter().map(|cut| cut.axis))
}

/// Equal as numbers: the zeros are.
fn same_number(left: Scalar, right: Scalar) -> bool {
    left == right || left.dtype == right.dtype && left.to_f64() == right.to_f64()
}

/// The tiles that an operation reads, to be replaced.
pub(super) fn reads_mut(op: &mut TileOp) -> Vec<&mut TileId> {
    match op {
        TileOp::Load { .. } | TileOp::Fill { .. } => Vec::new(),
        TileOp::Gather { index, .. } => index.iter_mut().map(|(_, tile)| tile).collect(),
        TileOp::View { tile, .. }
        | TileOp::ArgReduce { tile, .. }
        | TileOp::Scan { tile, .. }
        | TileOp::Sort { tile, .. }
        | TileOp::Rearrange { tile } => vec![tile],
        TileOp::Contract { init, a, b, .. } => vec![init, a, b],
        TileOp::Map { operands, .. } => operands.iter_mut().collect(),
        TileOp::Reduce { init, tile, .. } => init.iter_mut().chain([tile]).collect(),
    }
}
