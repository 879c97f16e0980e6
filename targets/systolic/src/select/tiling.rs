//! Which axes lie on partitions, and which tiles a kernel without loops is cut into.

use super::contract::{Product, part_count};
use super::place::{Rows, count};
use crate::limits::{Limits, PARTITIONS};
use std::collections::BTreeMap;
use systole_compiler::kernel::{
    Affine, Axis, Kernel, Loop, Schedule, Stmt, Term, TileId, TileOp, tiling,
};

/// How many sizes of tiles are tried.
pub(crate) const LEVELS: usize = 5;

/// What lies on partitions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The axes, the outermost first.
    pub(crate) rows: Vec<Axis>,
}

/// The kernel with views of loads as loads of their own.
pub(crate) fn fold_views(kernel: &Kernel) -> Kernel {
    let mut folded = kernel.clone();
    let mut loads: BTreeMap<TileId, TileOp> = BTreeMap::new();
    let tiles = kernel.tiles.clone();
    let body = std::mem::take(&mut folded.body);
    folded.body = fold_body(body, &mut loads, &tiles);
    drop_unread(&mut folded);
    folded
}

fn fold_body(
    body: Vec<Stmt>,
    loads: &mut BTreeMap<TileId, TileOp>,
    tiles: &systole_compiler::arena::Arena<systole_compiler::kernel::Tile>,
) -> Vec<Stmt> {
    let mut found = Vec::with_capacity(body.len());
    for stmt in body {
        match stmt {
            Stmt::Define { results, op: TileOp::View { tile, at } } => {
                let op = match loads.get(&tile) {
                    Some(TileOp::Load { operand, at: from, pad }) => {
                        let seen = |affine: &Affine| {
                            let mut moved = Affine::constant(affine.constant);
                            for &(term, coefficient) in affine.terms() {
                                let axis = tiles[tile]
                                    .dims
                                    .iter()
                                    .position(|&(axis, _)| term == Term::Axis(axis));
                                match axis {
                                    Some(index) => moved = moved.plus(&at[index], coefficient),
                                    None => moved = moved.plus(&Affine::term(term), coefficient),
                                }
                            }
                            moved
                        };
                        let at = from.iter().map(seen).collect();
                        TileOp::Load { operand: *operand, at, pad: *pad }
                    }
                    Some(_) | None => TileOp::View { tile, at },
                };
                if matches!(op, TileOp::Load { .. }) {
                    loads.insert(results[0], op.clone());
                }
                found.push(Stmt::Define { results, op });
            }
            Stmt::Define { results, op } => {
                if matches!(op, TileOp::Load { .. }) {
                    loads.insert(results[0], op.clone());
                }
                found.push(Stmt::Define { results, op });
            }
            Stmt::For(inner) => {
                let body = fold_body(inner.body, loads, tiles);
                found.push(Stmt::For(Loop { body, ..inner }));
            }
            Stmt::Store { .. } | Stmt::Scatter { .. } => found.push(stmt),
        }
    }
    found
}

fn drop_unread(kernel: &mut Kernel) {
    loop {
        let mut read = vec![false; kernel.tiles.len()];
        mark(&kernel.body, &mut read);
        let before = size(&kernel.body);
        let body = std::mem::take(&mut kernel.body);
        kernel.body = keep(body, &read);
        if size(&kernel.body) == before {
            return;
        }
    }
}

fn mark(body: &[Stmt], read: &mut [bool]) {
    for stmt in body {
        stmt.visit_reads(&mut |tile| read[tile.index()] = true);
        if let Stmt::For(inner) = stmt {
            inner.yields.iter().for_each(|tile| read[tile.index()] = true);
            inner.carried.iter().for_each(|(_, tile)| read[tile.index()] = true);
            mark(&inner.body, read);
        }
    }
}

fn size(body: &[Stmt]) -> usize {
    body.iter()
        .map(|stmt| match stmt {
            Stmt::For(inner) => 1 + size(&inner.body),
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => 1,
        })
        .sum()
}

fn keep(body: Vec<Stmt>, read: &[bool]) -> Vec<Stmt> {
    let mut kept = Vec::with_capacity(body.len());
    for stmt in body {
        match stmt {
            Stmt::Define { results, op } => {
                if results.iter().any(|tile| read[tile.index()]) {
                    kept.push(Stmt::Define { results, op });
                }
            }
            Stmt::For(inner) => {
                let body = keep(inner.body, read);
                kept.push(Stmt::For(Loop { body, ..inner }));
            }
            Stmt::Store { .. } | Stmt::Scatter { .. } => kept.push(stmt),
        }
    }
    kept
}

/// Every statement, loops before their bodies.
pub(crate) fn each<'k>(body: &'k [Stmt], visit: &mut dyn FnMut(&'k Stmt)) {
    for stmt in body {
        visit(stmt);
        if let Stmt::For(inner) = stmt {
            each(&inner.body, visit);
        }
    }
}

/// The products of a kernel: result, factors, summed axes.
pub(crate) fn products(kernel: &Kernel) -> Vec<(TileId, TileId, TileId, Vec<Axis>)> {
    let mut found = Vec::new();
    each(&kernel.body, &mut |stmt| {
        if let Stmt::Define { results, op: TileOp::Contract { a, b, over, .. } } = stmt {
            found.push((results[0], *a, *b, over.clone()));
        }
    });
    found
}

/// The axes of one factor alone, and of both, in the order of the result.
pub(crate) fn sides(
    kernel: &Kernel,
    (result, a, b, over): &(TileId, TileId, TileId, Vec<Axis>),
) -> [Rows; 3] {
    let mut found: [Rows; 3] = Default::default();
    let _ = result;
    let all = kernel.tiles[*a].dims.iter().chain(&kernel.tiles[*b].dims);
    for &(axis, extent) in all {
        if over.contains(&axis) {
            continue;
        }
        let left = kernel.tiles[*a].extent(axis).is_some();
        let right = kernel.tiles[*b].extent(axis).is_some();
        let side = match (left, right) {
            (true, true) => 2,
            (true, false) => 0,
            (false, _) => 1,
        };
        if !found[side].contains(&(axis, extent)) {
            found[side].push((axis, extent));
        }
    }
    found
}

/// The innermost axis of what is stored, by the operand's last dimension.
fn innermost(kernel: &Kernel) -> Option<Axis> {
    let mut found = None;
    let mut largest = 0;
    each(&kernel.body, &mut |stmt| {
        if let Stmt::Store { at, tile, .. } = stmt
            && kernel.tiles[*tile].count() >= largest
            && let Some(last) = at
                .iter()
                .rev()
                .find(|at| at.terms().iter().any(|(term, _)| matches!(term, Term::Axis(_))))
        {
            largest = kernel.tiles[*tile].count();
            let unit = last.terms().iter().find_map(|&(term, coefficient)| match term {
                Term::Axis(axis) if coefficient == 1 => Some(axis),
                Term::Axis(_) | Term::Var(_) => None,
            });
            found = unit;
        }
    });
    found
}

/// What may lie on partitions, the best first.
pub(crate) fn choices(kernel: &Kernel) -> Vec<Choice> {
    let inner = innermost(kernel);
    let mut found: Vec<(f64, Choice)> = Vec::new();
    let products = products(kernel);
    if let Some(product) = products.last() {
        if let Some(rows) = super::rowwise::rows(kernel, product) {
            found.push((0.0, Choice { rows }));
        }
        let [left, right, _] = sides(kernel, product);
        for side in [left, right] {
            if side.is_empty() {
                continue;
            }
            let contiguous = side.iter().all(|&(axis, _)| Some(axis) != inner);
            let rows = count(&side);
            let waste = rows.div_ceil(PARTITIONS) as f64 * PARTITIONS as f64 / rows as f64;
            let cost = waste.min(8.0) * if contiguous { 1.0 } else { 16.0 };
            let axes: Vec<Axis> = side.iter().map(|&(axis, _)| axis).collect();
            found.push((cost, Choice { rows: axes }));
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        return found.into_iter().map(|(_, choice)| choice).collect();
    }
    let mut forbidden: Vec<Axis> = Vec::new();
    let mut main: Option<TileId> = None;
    each(&kernel.body, &mut |stmt| match stmt {
        Stmt::Define { op: TileOp::Reduce { over, .. }, .. } => forbidden.extend(over),
        Stmt::Define { op: TileOp::ArgReduce { over, .. }, .. }
        | Stmt::Define { op: TileOp::Scan { over, .. }, .. }
        | Stmt::Define { op: TileOp::Sort { over, .. }, .. } => forbidden.push(*over),
        Stmt::Store { tile, .. } => {
            let count = |tile: TileId| kernel.tiles[tile].count();
            if main.is_none_or(|main| count(*tile) > count(main)) {
                main = Some(*tile);
            }
        }
        Stmt::Define { .. } | Stmt::Scatter { .. } | Stmt::For(_) => {}
    });
    let Some(main) = main else { return Vec::new() };
    let dims = &kernel.tiles[main].dims;
    let total = kernel.tiles[main].count() as f64;
    for first in 0..dims.len() {
        for last in first..dims.len() {
            let axes: Vec<Axis> = dims[first..=last].iter().map(|&(axis, _)| axis).collect();
            if axes.iter().any(|axis| forbidden.contains(axis)) {
                continue;
            }
            let rows = count(&dims[first..=last]).max(1);
            let per_partition = rows.div_ceil(PARTITIONS) as f64 * total / rows as f64;
            let contiguous = axes.iter().all(|&axis| Some(axis) != inner);
            let cost = per_partition * if contiguous { 1.0 } else { 8.0 } + axes.len() as f64;
            found.push((cost, Choice { rows: axes }));
        }
    }
    if dims.is_empty() {
        found.push((0.0, Choice { rows: Vec::new() }));
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.truncate(6);
    found.into_iter().map(|(_, choice)| choice).collect()
}

/// The kernel in tiles of that level, or nothing where the level gives what another one gave.
pub(crate) fn tile(
    kernel: &Kernel,
    choice: &Choice,
    level: usize,
    limits: &Limits,
) -> Result<Option<Kernel>, String> {
    let mut looped = false;
    each(&kernel.body, &mut |stmt| looped |= matches!(stmt, Stmt::For(_)));
    if looped {
        return Ok((level == 0).then(|| kernel.clone()));
    }
    let products = products(kernel);
    let schedule = match products.last() {
        Some(product) if super::rowwise::rows(kernel, product).as_ref() == Some(&choice.rows) => {
            row_tiles(kernel, choice, level, limits)
        }
        Some(product) => product_tiles(kernel, product, choice, level, limits),
        None => row_tiles(kernel, choice, level, limits),
    };
    let Some(schedule) = schedule else { return Ok(None) };
    if schedule.tiles.is_empty() {
        return Ok(Some(kernel.clone()));
    }
    let mut tiled = tiling::apply(kernel, &schedule)?;
    let body = std::mem::take(&mut tiled.body);
    tiled.body = hoist(body);
    Ok(Some(tiled))
}

/// Cuts an axis: the tile, and whether that is a cut at all.
fn cut(kernel: &Kernel, schedule: &mut Schedule, axis: Axis, extent: usize, tile: usize) {
    if tile >= extent {
        return;
    }
    let name = kernel.axis_name(axis).to_owned();
    schedule.parallel.push(name.clone());
    schedule.tiles.push((name, tile));
}

/// The largest divisor of an extent up to `most`, or `most` itself where that is much larger.
fn fitting(extent: usize, most: usize) -> usize {
    let most = most.max(1);
    if extent <= most {
        return extent;
    }
    let divisor = (1..=most).rev().find(|&size| extent.is_multiple_of(size)).unwrap_or(1);
    if divisor * 2 >= most { divisor } else { most }
}

fn product_tiles(
    kernel: &Kernel,
    product: &(TileId, TileId, TileId, Vec<Axis>),
    choice: &Choice,
    level: usize,
    limits: &Limits,
) -> Option<Schedule> {
    let bank = limits.product_columns;
    let [left, right, batch] = sides(kernel, product);
    let on_rows = |side: &Rows| {
        side.len() == choice.rows.len() && side.iter().all(|(axis, _)| choice.rows.contains(axis))
    };
    let (rows, columns) = if on_rows(&left) { (left, right) } else { (right, left) };
    let mut schedule = Schedule::default();
    let whole = Product {
        inner: Rows::new(),
        taps: Rows::new(),
        rows: rows.clone(),
        columns: columns.clone(),
        batch: batch.clone(),
    };
    let most = [8, 4, 2, 1, 1][level];
    if part_count(&whole, bank) <= most {
        // A smaller level cuts what fits anyway.
        return (level == 0).then_some(schedule);
    }
    if level == 0 {
        return None;
    }
    for &(axis, extent) in &batch {
        cut(kernel, &mut schedule, axis, extent, 1);
    }
    let (row_count, column_count) = (count(&rows), count(&columns));
    let chunks = row_count.div_ceil(PARTITIONS);
    let banks = column_count.div_ceil(bank);
    if chunks * banks > most {
        // Rows first: each set of rows reads the moving factor again.
        let row_sets = if banks >= most { 1 } else { (most / banks).min(chunks).max(1) };
        let (row_sets, column_banks) = if banks == 1 {
            (most.min(chunks), 1)
        } else if chunks == 1 {
            (1, most.min(banks))
        } else if level == 1 {
            (most.min(chunks), (most / most.min(chunks)).max(1).min(banks))
        } else {
            (row_sets, (most / row_sets).max(1).min(banks))
        };
        // The outer loop keeps its factor. A factor that has to be transposed is kept, or else the one that is longer.
        let rows_outside = transposed(kernel, product, &rows)
            || (!transposed(kernel, product, &columns) && row_count > 4 * column_count);
        let cuts = [(&columns, column_banks * bank), (&rows, row_sets * PARTITIONS)];
        let order = if rows_outside { [1, 0] } else { [0, 1] };
        for index in order {
            cut_sides(kernel, &mut schedule, cuts[index].0, cuts[index].1);
        }
    }
    Some(schedule)
}

/// Whether the factor with those axes lies in HBM with a summed axis innermost.
fn transposed(
    kernel: &Kernel,
    (_, a, b, over): &(TileId, TileId, TileId, Vec<Axis>),
    side: &Rows,
) -> bool {
    [*a, *b].iter().any(|&tile| {
        let own = side.iter().all(|&(axis, _)| kernel.tiles[tile].extent(axis).is_some());
        own && super::statements::load_of(kernel, tile).is_some_and(|(_, at)| {
            at.last().is_some_and(|at| {
                over.iter().any(|&axis| at.coefficient(Term::Axis(axis)).abs() == 1)
            })
        })
    })
}

/// Cuts axes, the outermost first, until at most `most` positions are left.
fn cut_sides(kernel: &Kernel, schedule: &mut Schedule, axes: &Rows, most: usize) {
    let mut left = count(axes);
    for &(axis, extent) in axes {
        if left <= most {
            return;
        }
        let inner = left / extent;
        let size = fitting(extent, (most / inner).max(1));
        cut(kernel, schedule, axis, extent, size);
        left = inner * size;
    }
}

fn row_tiles(kernel: &Kernel, choice: &Choice, level: usize, limits: &Limits) -> Option<Schedule> {
    let mut schedule = Schedule::default();
    let on_rows = |axis: &Axis| choice.rows.contains(axis);
    let extent = |axis: Axis| tiling::extent(kernel, axis).unwrap_or(1);
    // Bytes of each row, of all tiles together.
    let mut bytes = 0;
    let mut longest = 1;
    for (_, tile) in kernel.tiles.iter() {
        let free: usize =
            tile.dims.iter().filter(|(axis, _)| !on_rows(axis)).map(|&(_, size)| size).product();
        bytes += free * 4;
        longest = longest.max(free);
    }
    let rows: Rows = choice.rows.iter().map(|&axis| (axis, extent(axis))).collect();
    let budget = (limits.sbuf_bytes as usize / 3) >> level;
    let mut chunks = (budget / bytes.max(1)).max(1);
    chunks = chunks.min((8192 / longest.max(1)).max(1));
    if level > 0 && chunks >= count(&rows).div_ceil(PARTITIONS) && bytes <= budget {
        return None;
    }
    cut_sides(kernel, &mut schedule, &rows, chunks * PARTITIONS);
    if bytes > budget {
        // Rows are too long: free axes that iterations may be cut along.
        let mut wanted = bytes.div_ceil(budget);
        for index in 0..kernel.axes.len() {
            let axis = Axis(u32::try_from(index).expect("a kernel has few axes"));
            let size = extent(axis);
            if wanted <= 1 || on_rows(&axis) || size < 2 || !tiling::is_parallel(kernel, axis) {
                continue;
            }
            let tile = fitting(size, (size / wanted).max(1));
            cut(kernel, &mut schedule, axis, size, tile);
            wanted = wanted.div_ceil(size.div_ceil(tile));
        }
    }
    Some(schedule)
}

/// Moves what does not vary with a loop before it.
fn hoist(body: Vec<Stmt>) -> Vec<Stmt> {
    let mut found = Vec::new();
    for stmt in body {
        let Stmt::For(inner) = stmt else {
            found.push(stmt);
            continue;
        };
        let mut kept = Vec::new();
        let mut varies: Vec<TileId> = inner.carried.iter().map(|&(tile, _)| tile).collect();
        for stmt in hoist(inner.body) {
            let moves = match &stmt {
                Stmt::Define { op: TileOp::Load { at, .. }, .. } => {
                    at.iter().all(|at| at.coefficient(Term::Var(inner.var)) == 0)
                }
                Stmt::Define { op: TileOp::Fill { .. }, .. } => true,
                Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } | Stmt::For(_) => {
                    false
                }
            };
            if moves {
                found.push(stmt);
                continue;
            }
            varies.extend(stmt.results());
            kept.push(stmt);
        }
        found.push(Stmt::For(Loop { body: kept, ..inner }));
    }
    found
}
