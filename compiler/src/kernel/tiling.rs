//! Applies a schedule to a kernel without loops: each tiled axis becomes a loop, and in every index the axis becomes the
//! axis plus the loop's variable. Nothing else changes, so the tiled kernel means what the whole one does.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use super::{
    Affine, Axis, Kernel, Loop, LoopKind, Schedule, Stmt, Term, TileId, TileOp, Var, VarId, VarKind,
};
use crate::expr::{Expr, ExprNode, Scalar};
use crate::scalar::ScalarFn;
use crate::types::DType;
use std::collections::BTreeSet;

/// The kernel with the schedule's loops, or why the schedule does not fit it.
pub fn apply(kernel: &Kernel, schedule: &Schedule) -> Result<Kernel, String> {
    if kernel.body.iter().any(|stmt| matches!(stmt, Stmt::For(_))) {
        return Err(format!("@{} has loops already", kernel.name));
    }
    let mut tiled = kernel.clone();
    let mut parallel = Vec::new();
    let mut summed = Vec::new();
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
        let summing = summing(&tiled.body, axis);
        let var = substitute(&mut tiled, axis, size, extent)?;
        let step = LoopOver { axis, var, size, extent, name: name.to_owned() };
        if summing.is_empty() {
            check_stores(kernel, axis)?;
            parallel.push(step);
        } else {
            summed.push(step);
        }
    }
    for step in summed.into_iter().rev() {
        sum_in_loop(&mut tiled, &step, schedule)?;
    }
    for step in parallel.into_iter().rev() {
        let kind = if schedule.parallel.is_empty() || schedule.parallel.contains(&step.name) {
            LoopKind::Parallel
        } else {
            LoopKind::Sequential
        };
        let body = std::mem::take(&mut tiled.body);
        tiled.body = vec![Stmt::For(Loop {
            var: step.var,
            start: Affine::constant(0),
            end: Affine::constant(step.extent as i64),
            step: step.size,
            kind,
            pipelined: schedule.pipelined(&step.name),
            carried: Vec::new(),
            body,
            yields: Vec::new(),
            results: Vec::new(),
        })];
    }
    Ok(tiled)
}

struct LoopOver {
    axis: Axis,
    var: VarId,
    size: usize,
    extent: usize,
    name: String,
}

/// The extent of an axis in the kernel's tiles.
pub fn extent(kernel: &Kernel, axis: Axis) -> Option<usize> {
    kernel.tiles.iter().find_map(|(_, tile)| tile.extent(axis))
}

/// The tiles that the axis vanishes into.
fn summing(body: &[Stmt], axis: Axis) -> Vec<TileId> {
    let mut found = Vec::new();
    for stmt in body {
        if let Stmt::Define {
            results,
            op: TileOp::Contract { over, .. } | TileOp::Reduce { over, .. },
        } = stmt
            && over.contains(&axis)
        {
            found.push(results[0]);
        }
    }
    found
}

/// Whether an axis can be tiled by a loop whose iterations are independent.
pub fn is_parallel(kernel: &Kernel, axis: Axis) -> bool {
    summing(&kernel.body, axis).is_empty()
        && can_substitute(kernel, axis).is_ok()
        && check_stores(kernel, axis).is_ok()
}

/// Each iteration must store elsewhere.
fn check_stores(kernel: &Kernel, axis: Axis) -> Result<(), String> {
    for stmt in &kernel.body {
        match stmt {
            Stmt::Store { operand, at, .. } => {
                if at.iter().all(|at| at.coefficient(Term::Axis(axis)) == 0) {
                    let name = &kernel.operands[*operand].name;
                    return Err(format!(
                        "%{name} is not stored along axis {}",
                        kernel.axis_name(axis)
                    ));
                }
            }
            Stmt::Scatter { .. } => {
                return Err("a scatter's updates come one after another".to_owned());
            }
            Stmt::Define { .. } | Stmt::For(_) => {}
        }
    }
    Ok(())
}

fn can_substitute(kernel: &Kernel, axis: Axis) -> Result<(), String> {
    let name = kernel.axis_name(axis);
    for stmt in &kernel.body {
        let Stmt::Define { op, .. } = stmt else { continue };
        match op {
            TileOp::View { tile, at } => {
                for (&(own, _), at) in kernel.tiles[*tile].dims.iter().zip(at) {
                    if own == axis && *at != Affine::axis(axis) {
                        return Err(format!("a view reads other positions along axis {name}"));
                    }
                    if own != axis
                        && at.coefficient(Term::Axis(axis)) != 0
                        && kernel.tiles[*tile].extent(axis).is_some()
                    {
                        return Err(format!("a view mixes axis {name} with another"));
                    }
                }
            }
            TileOp::ArgReduce { over, .. }
            | TileOp::Scan { over, .. }
            | TileOp::Sort { over, .. } => {
                if *over == axis {
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
        }
    }
    Ok(())
}

/// Makes the axis run over a tile, and the new variable over the tiles.
fn substitute(
    kernel: &mut Kernel,
    axis: Axis,
    size: usize,
    extent: usize,
) -> Result<VarId, String> {
    can_substitute(kernel, axis)?;
    let name = kernel.axis_name(axis).to_owned();
    let var = kernel.vars.push(Var { name, kind: VarKind::Loop });
    let shifted = Affine::axis(axis).plus(&Affine::var(var), 1);
    let ragged = !extent.is_multiple_of(size);
    for (_, tile) in kernel.tiles.iter_mut() {
        for (other, own) in &mut tile.dims {
            if *other == axis {
                *own = size;
            }
        }
    }
    let shift = |at: &mut Vec<Affine>| {
        at.iter_mut().for_each(|at| *at = at.substitute(Term::Axis(axis), &shifted))
    };
    let tiles = kernel.tiles.clone();
    let operands = kernel.operands.clone();
    for stmt in &mut kernel.body {
        match stmt {
            Stmt::Define { op: TileOp::Load { at, pad, operand }, .. } => {
                if ragged
                    && pad.is_none()
                    && at.iter().any(|at| at.coefficient(Term::Axis(axis)) != 0)
                {
                    *pad = Some(Scalar::from_i64(operands[*operand].dtype, 0));
                }
                shift(at);
            }
            Stmt::Define { op: TileOp::Gather { at, .. }, .. }
            | Stmt::Store { at, .. }
            | Stmt::Scatter { at, .. } => shift(at),
            Stmt::Define { op: TileOp::View { tile, at }, .. } => {
                for (&(own, _), at) in tiles[*tile].dims.iter().zip(at) {
                    if own != axis {
                        *at = at.substitute(Term::Axis(axis), &shifted);
                    }
                }
            }
            Stmt::Define { op: TileOp::Map { expr, .. }, .. } => {
                *expr = shift_index(expr, axis, var)
            }
            Stmt::Define { .. } | Stmt::For(_) => {}
        }
    }
    Ok(var)
}

/// The expression with `index(axis)` counted from the start of the whole axis.
fn shift_index(expr: &Expr, axis: Axis, var: VarId) -> Expr {
    if !expr.nodes.iter().any(|(node, _)| *node == ExprNode::Index(axis)) {
        return expr.clone();
    }
    let mut shifted = Expr::new();
    let mut map = Vec::with_capacity(expr.nodes.len());
    for (node, dtype) in &expr.nodes {
        let id = match node {
            ExprNode::Index(other) if *other == axis => {
                let index = shifted.push(ExprNode::Index(axis), DType::I64);
                let start = shifted.push(ExprNode::Var(var), DType::I64);
                shifted.call(ScalarFn::Add, &[index, start])
            }
            ExprNode::Call(function, operands) => {
                let operands: Vec<_> = operands.iter().map(|&operand| map[operand]).collect();
                shifted.call(*function, &operands)
            }
            ExprNode::Convert(operand) => shifted.push(ExprNode::Convert(map[*operand]), *dtype),
            ExprNode::Operand(_)
            | ExprNode::Constant(_)
            | ExprNode::Index(_)
            | ExprNode::Var(_) => shifted.push(node.clone(), *dtype),
        };
        map.push(id);
    }
    shifted.root = map[expr.root];
    shifted
}

/// Puts the one operation that sums over the axis, with what only it needs, into a loop that carries the sum.
fn sum_in_loop(kernel: &mut Kernel, step: &LoopOver, schedule: &Schedule) -> Result<(), String> {
    let name = &step.name;
    let position = kernel.body.iter().position(|stmt| match stmt {
        Stmt::Define { op, .. } => sums_over(op, step.axis),
        Stmt::For(inner) => inner
            .body
            .iter()
            .any(|stmt| matches!(stmt, Stmt::Define { op, .. } if sums_over(op, step.axis))),
        Stmt::Store { .. } | Stmt::Scatter { .. } => false,
    });
    let Some(position) = position else { return Err(format!("nothing sums over axis {name}")) };
    if !step.extent.is_multiple_of(step.size) {
        return Err(format!(
            "the tile {} of the summed axis {name} does not divide {}",
            step.size, step.extent
        ));
    }
    let mut inside: BTreeSet<usize> = BTreeSet::from([position]);
    let needs = |tile: TileId, kernel: &Kernel| kernel.tiles[tile].extent(step.axis).is_some();
    for index in (0..position).rev() {
        let Stmt::Define { results, .. } = &kernel.body[index] else { continue };
        let read = inside
            .iter()
            .any(|&user| results.iter().any(|&result| reads(&kernel.body[user], result)));
        if read && results.iter().any(|&result| needs(result, kernel)) {
            inside.insert(index);
        }
    }
    for (index, stmt) in kernel.body.iter().enumerate() {
        let made = |tile: TileId| {
            inside.iter().any(|&index| matches!(&kernel.body[index], Stmt::Define { results, .. } if index != position && results.contains(&tile)))
        };
        if !inside.contains(&index)
            && (0..kernel.tiles.len())
                .map(TileId::from_index)
                .any(|tile| made(tile) && reads(stmt, tile))
        {
            return Err(format!("axis {name} is summed and read elsewhere too"));
        }
    }
    let body = std::mem::take(&mut kernel.body);
    let (mut inner, mut outer) = (Vec::new(), Vec::new());
    for (index, stmt) in body.into_iter().enumerate() {
        if inside.contains(&index) { inner.push(stmt) } else { outer.push((index, stmt)) }
    }
    let last = inner.pop().expect("the summing operation is inside");
    let (init, carried, value, result, mut setup) = carry_through(kernel, last, &mut inner)?;
    let sum = Stmt::For(Loop {
        var: step.var,
        start: Affine::constant(0),
        end: Affine::constant(step.extent as i64),
        step: step.size,
        kind: if schedule.parallel.contains(name) {
            LoopKind::ReduceParallel
        } else {
            LoopKind::Reduce
        },
        pipelined: schedule.pipelined(name),
        carried: vec![(carried, init)],
        body: inner,
        yields: vec![value],
        results: vec![result],
    });
    let later = outer.iter().position(|&(index, _)| index > position).unwrap_or(outer.len());
    let mut outer: Vec<Stmt> = outer.into_iter().map(|(_, stmt)| stmt).collect();
    setup.push(sum);
    outer.splice(later..later, setup);
    kernel.body = outer;
    Ok(())
}

/// Turns the summing statement into one that adds to a carried tile, at the end of `inner`: the tile before the loop,
/// the carried one, its value after an iteration, the loop's result, and the statements that make the first.
fn carry_through(
    kernel: &mut Kernel,
    last: Stmt,
    inner: &mut Vec<Stmt>,
) -> Result<(TileId, TileId, TileId, TileId, Vec<Stmt>), String> {
    match last {
        Stmt::Define { results, mut op } => {
            let result = results[0];
            let ty = kernel.tiles[result].clone();
            let copy = |kernel: &mut Kernel, suffix: &str| {
                let tile = super::Tile { name: format!("{}{suffix}", ty.name), ..ty.clone() };
                kernel.tiles.push(tile)
            };
            let (init, carried, value) = (copy(kernel, "i"), copy(kernel, "c"), copy(kernel, "n"));
            let setup = match &mut op {
                TileOp::Contract { init: start, .. } => {
                    let from = std::mem::replace(start, carried);
                    spread(init, from, &ty.dims, kernel)
                }
                TileOp::Reduce { init: start, combine, .. } => match start.replace(carried) {
                    Some(from) => spread(init, from, &ty.dims, kernel),
                    None => Stmt::Define {
                        results: smallvec::smallvec![init],
                        op: TileOp::Fill { value: combine.identity(ty.dtype) },
                    },
                },
                _ => return Err("only products and reductions are summed in a loop".to_owned()),
            };
            inner.push(Stmt::Define { results: smallvec::smallvec![value], op });
            Ok((init, carried, value, result, vec![setup]))
        }
        Stmt::For(mut nested) => {
            let (first, start) = nested.carried[0];
            let result = nested.results[0];
            let ty = kernel.tiles[result].clone();
            let copy = |kernel: &mut Kernel, suffix: &str| {
                let tile = super::Tile { name: format!("{}{suffix}", ty.name), ..ty.clone() };
                kernel.tiles.push(tile)
            };
            let (carried, value) = (copy(kernel, "c"), copy(kernel, "n"));
            nested.carried = vec![(first, carried)];
            nested.results = vec![value];
            inner.push(Stmt::For(nested));
            Ok((start, carried, value, result, Vec::new()))
        }
        Stmt::Store { .. } | Stmt::Scatter { .. } => Err("a store sums nothing".to_owned()),
    }
}

/// The tile `init` as `from` over those axes.
fn spread(init: TileId, from: TileId, dims: &[(Axis, usize)], kernel: &mut Kernel) -> Stmt {
    let at = kernel.tiles[from].dims.iter().map(|&(axis, _)| Affine::axis(axis)).collect();
    kernel.tiles[init].dims = super::Dims::from_slice(dims);
    Stmt::Define { results: smallvec::smallvec![init], op: TileOp::View { tile: from, at } }
}

fn sums_over(op: &TileOp, axis: Axis) -> bool {
    matches!(op, TileOp::Contract { over, .. } | TileOp::Reduce { over, .. } if over.contains(&axis))
}

/// Whether a statement reads a tile.
pub fn reads(stmt: &Stmt, tile: TileId) -> bool {
    match stmt {
        Stmt::Define { op, .. } => operands_of(op).contains(&tile),
        Stmt::Store { tile: stored, .. } => *stored == tile,
        Stmt::Scatter { tile: stored, index, .. } => {
            *stored == tile || index.iter().any(|&(_, index)| index == tile)
        }
        Stmt::For(inner) => {
            inner.carried.iter().any(|&(_, start)| start == tile)
                || inner.yields.contains(&tile)
                || inner.body.iter().any(|stmt| reads(stmt, tile))
        }
    }
}

/// The tiles that an operation reads.
pub fn operands_of(op: &TileOp) -> Vec<TileId> {
    match op {
        TileOp::Load { .. } | TileOp::Fill { .. } => Vec::new(),
        TileOp::Gather { index, .. } => index.iter().map(|&(_, tile)| tile).collect(),
        TileOp::View { tile, .. }
        | TileOp::ArgReduce { tile, .. }
        | TileOp::Scan { tile, .. }
        | TileOp::Sort { tile, .. }
        | TileOp::Rearrange { tile } => vec![*tile],
        TileOp::Contract { init, a, b, .. } => vec![*init, *a, *b],
        TileOp::Map { operands, .. } => operands.clone(),
        TileOp::Reduce { init, tile, .. } => init.iter().copied().chain([*tile]).collect(),
    }
}
