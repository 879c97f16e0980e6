//! Applies a schedule to a kernel without loops: each tiled axis becomes a loop, and in every index the axis becomes the
//! axis plus the loop's variable, so the tiled kernel computes what the whole one does.
//!
//! - An axis that every store is along, and that nothing sums over, becomes one loop around the whole kernel.
//! - Any other tiled axis is **split** (`split.rs`): each sum over it becomes a loop that carries the sum, and each store
//!   along it a loop of its own. What only such a loop needs is computed inside; what several need is computed in each,
//!   so that no tile is ever as long as the axis. These loops stand inside those around the kernel.
//! - Where a tile does not divide its axis, the last one is **ragged**: loads read zeros beyond the axis, stores must fall
//!   outside their operand there, and what would enter a sum from there is replaced by the element that changes nothing.
//!
//! A schedule that a kernel cannot follow is answered with why. Sums are added up in another order, so sums of floats may
//! round otherwise; nothing else changes.

pub mod attention;
mod hoist;
mod split;
mod substitute;

use super::{
    Affine, Axis, Dims, Kernel, Loop, LoopKind, OperandId, Schedule, Stmt, Term, TileId, TileOp,
    VarId, VarKind,
};
use std::collections::BTreeSet;

/// The kernel with the schedule's loops, or why the schedule does not fit it.
pub fn apply(kernel: &Kernel, schedule: &Schedule) -> Result<Kernel, String> {
    if kernel.body.iter().any(|stmt| matches!(stmt, Stmt::For(_))) {
        return Err(format!("@{} has loops already", kernel.name));
    }
    let (mut around, mut split) = (Vec::new(), Vec::new());
    for name in schedule.loops() {
        let size = schedule.tile(name).expect("the loops are the tiled axes");
        let Some(axis) = kernel.axes.iter().position(|other| other == name) else {
            return Err(format!("@{} has no axis {name}", kernel.name));
        };
        let axis = Axis(u32::try_from(axis).expect("a kernel has few axes"));
        let extent = extent(kernel, axis).ok_or_else(|| format!("no tile has axis {name}"))?;
        if size == 0 {
            return Err(format!("the tile of axis {name} is empty"));
        }
        if size >= extent {
            continue;
        }
        let cut = Cut { axis, size, extent };
        can_cut(kernel, cut)?;
        if sums_over(kernel, axis) || !stored_along(kernel, axis) {
            split.push(cut);
        } else {
            around.push(cut);
        }
    }
    let mut tiled = kernel.clone();
    let mut vars = Vec::new();
    for &cut in &around {
        vars.push(substitute::whole(&mut tiled, cut));
    }
    if !split.is_empty() {
        tiled = split::sums(&tiled, &split, schedule)?;
    }
    for (cut, var) in around.into_iter().zip(vars).rev() {
        let body = std::mem::take(&mut tiled.body);
        let name = kernel.axis_name(cut.axis);
        tiled.body = vec![loop_over(cut, var, body, LoopKind::Parallel, schedule.pipelined(name))];
    }
    hoist::all(&mut tiled, &schedule.hoist)?;
    // Iterations that may run in any order may run in this one, so that is checked for all alike.
    super::verify(&tiled).map_err(|found| {
        let what = found.0.first().map(|first| first.message.clone()).unwrap_or_default();
        format!("the loops do not keep what @{} means: {what}", kernel.name)
    })?;
    if !schedule.parallel.is_empty() {
        let names: BTreeSet<&str> = schedule.parallel.iter().map(String::as_str).collect();
        let mut body = std::mem::take(&mut tiled.body);
        run_in_order(&mut body, &tiled, &names);
        tiled.body = body;
    }
    Ok(tiled)
}

/// An axis that is cut into tiles.
#[derive(Clone, Copy, Debug)]
struct Cut {
    axis: Axis,
    size: usize,
    extent: usize,
}

impl Cut {
    fn is_ragged(self) -> bool {
        !self.extent.is_multiple_of(self.size)
    }
}

/// A loop over the tiles of an axis that carries nothing.
fn loop_over(cut: Cut, var: VarId, body: Vec<Stmt>, kind: LoopKind, pipelined: usize) -> Stmt {
    Stmt::For(Loop {
        var,
        start: Affine::constant(0),
        end: Affine::constant(cut.extent as i64),
        step: cut.size,
        kind,
        pipelined,
        carried: Vec::new(),
        body,
        yields: Vec::new(),
        results: Vec::new(),
    })
}

/// Makes the loops sequential that the schedule does not call parallel.
fn run_in_order(body: &mut [Stmt], kernel: &Kernel, parallel: &BTreeSet<&str>) {
    for stmt in body {
        let Stmt::For(inner) = stmt else { continue };
        if inner.kind == LoopKind::Parallel
            && !parallel.contains(kernel.vars[inner.var].name.as_str())
        {
            inner.kind = LoopKind::Sequential;
        }
        run_in_order(&mut inner.body, kernel, parallel);
    }
}

/// The extent of an axis in the kernel's tiles; nothing where no tile has it, the largest where they differ.
pub fn extent(kernel: &Kernel, axis: Axis) -> Option<usize> {
    kernel.tiles.iter().filter_map(|(_, tile)| tile.extent(axis)).max()
}

/// Whether an axis can be tiled by a loop whose iterations are independent.
pub fn is_parallel(kernel: &Kernel, axis: Axis) -> bool {
    // Tiles that divide the axis ask least of it.
    extent(kernel, axis).is_some_and(|extent| {
        !sums_over(kernel, axis)
            && can_cut(kernel, Cut { axis, size: extent, extent }).is_ok()
            && stored_along(kernel, axis)
    })
}

/// Whether the axis vanishes into some tile.
fn sums_over(kernel: &Kernel, axis: Axis) -> bool {
    kernel.body.iter().any(|stmt| match stmt {
        Stmt::Define { op, .. } => summed(op).contains(&axis),
        Stmt::Store { .. } | Stmt::Scatter { .. } | Stmt::For(_) => false,
    })
}

/// The axes that an operation sums over.
fn summed(op: &TileOp) -> &[Axis] {
    match op {
        TileOp::Contract { over, .. } | TileOp::Reduce { over, .. } => over,
        TileOp::Load { .. }
        | TileOp::Gather { .. }
        | TileOp::Fill { .. }
        | TileOp::View { .. }
        | TileOp::Map { .. }
        | TileOp::ArgReduce { .. }
        | TileOp::Scan { .. }
        | TileOp::Sort { .. }
        | TileOp::Rearrange { .. } => &[],
    }
}

/// Whether every store is along the axis, so that each iteration stores elsewhere. A scatter is along none.
fn stored_along(kernel: &Kernel, axis: Axis) -> bool {
    kernel.body.iter().all(|stmt| match stmt {
        Stmt::Store { at, .. } => at.iter().any(|at| at.coefficient(Term::Axis(axis)) != 0),
        Stmt::Scatter { .. } => false,
        Stmt::Define { .. } | Stmt::For(_) => true,
    })
}

/// Whether what the kernel does can be done tile by tile along the axis.
fn can_cut(kernel: &Kernel, cut: Cut) -> Result<(), String> {
    let name = kernel.axis_name(cut.axis);
    let has = |tile: TileId| kernel.tiles[tile].extent(cut.axis).is_some();
    for (_, tile) in kernel.tiles.iter() {
        if let Some(other) = tile.extent(cut.axis).filter(|other| *other != cut.extent) {
            return Err(format!("axis {name} is {} and {other} long", cut.extent));
        }
    }
    for stmt in &kernel.body {
        match stmt {
            Stmt::Define { results, op } => match op {
                TileOp::View { tile, at } => {
                    view_can_cut(kernel, cut, *tile, at, &kernel.tiles[results[0]].dims)?;
                }
                TileOp::ArgReduce { over, .. }
                | TileOp::Scan { over, .. }
                | TileOp::Sort { over, .. } => {
                    if *over == cut.axis {
                        return Err(format!("axis {name} is searched or sorted as a whole"));
                    }
                }
                TileOp::Load { .. }
                | TileOp::Gather { .. }
                | TileOp::Fill { .. }
                | TileOp::Contract { .. }
                | TileOp::Map { .. }
                | TileOp::Reduce { .. }
                | TileOp::Rearrange { .. } => {}
            },
            Stmt::Store { operand, at, tile } => {
                if cut.is_ragged()
                    && has(*tile)
                    && !is_outside(kernel, cut, *operand, at, &kernel.tiles[*tile].dims)
                {
                    let operand = &kernel.operands[*operand].name;
                    return Err(format!(
                        "tiles of {} do not divide axis {name}, and %{operand} goes on behind it",
                        cut.size
                    ));
                }
            }
            Stmt::Scatter { tile, .. } => {
                if has(*tile) {
                    return Err("a scatter's updates come one after another".to_owned());
                }
            }
            Stmt::For(_) => {}
        }
    }
    Ok(())
}

/// Whether a view can be taken tile by tile.
fn view_can_cut(
    kernel: &Kernel,
    cut: Cut,
    tile: TileId,
    at: &[Affine],
    dims: &Dims,
) -> Result<(), String> {
    let name = kernel.axis_name(cut.axis);
    let viewed = &kernel.tiles[tile];
    for (&(own, size), at) in viewed.dims.iter().zip(at) {
        if own == cut.axis {
            if *at != Affine::axis(cut.axis) {
                return Err(format!("a view reads other positions along axis {name}"));
            }
            continue;
        }
        if at.coefficient(Term::Axis(cut.axis)) == 0 {
            continue;
        }
        if viewed.extent(cut.axis).is_some() {
            return Err(format!("a view mixes axis {name} with another"));
        }
        // There is no padding in a view.
        let rounded = cut.extent.next_multiple_of(cut.size);
        let (low, high) = at.range(|term| match term {
            Term::Axis(axis) if axis == cut.axis => (0, rounded as i64 - 1),
            Term::Axis(axis) => (0, extent_in(dims, axis)),
            Term::Var(_) => (0, 0),
        });
        if low < 0 || high >= size as i64 {
            return Err(format!(
                "tiles of {} do not divide axis {name}, along which a view is taken",
                cut.size
            ));
        }
    }
    Ok(())
}

/// Whether positions beyond the axis are all outside of the operand along one of its dimensions.
fn is_outside(kernel: &Kernel, cut: Cut, operand: OperandId, at: &[Affine], dims: &Dims) -> bool {
    let operand = &kernel.operands[operand];
    at.iter().zip(&operand.dims).any(|(at, &(_, size))| {
        let factor = at.coefficient(Term::Axis(cut.axis));
        // Loops add to an axis, and its tiles may go beyond it: only what cannot bring a position back may be there.
        let moves_on = |&(term, other): &(Term, i64)| {
            let is_scalar = matches!(term, Term::Var(var) if scalar_range(kernel, var).is_some());
            is_scalar || (other > 0) == (factor > 0)
        };
        let (low, high) = at.range(|term| match term {
            Term::Axis(axis) if axis == cut.axis => (cut.extent as i64, cut.extent as i64),
            Term::Axis(axis) => (0, extent_in(dims, axis)),
            Term::Var(var) => scalar_range(kernel, var).unwrap_or((0, 0)),
        });
        let is_beyond = if factor > 0 { low >= size as i64 } else { high < 0 };
        factor != 0 && at.terms().iter().all(moves_on) && is_beyond
    })
}

fn scalar_range(kernel: &Kernel, var: VarId) -> Option<(i64, i64)> {
    match kernel.vars[var].kind {
        VarKind::Scalar(low, high) => Some((low, high)),
        VarKind::Loop => None,
    }
}

/// The last position along an axis of a tile.
fn extent_in(dims: &Dims, axis: Axis) -> i64 {
    let found = dims.iter().find(|(other, _)| *other == axis);
    found.map_or(0, |&(_, extent)| extent.saturating_sub(1) as i64)
}
