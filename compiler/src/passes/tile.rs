//! Tiles a kernel for the machine: chooses a schedule from its limits and preferences, and applies it.
//!
//! Only axes along which iterations are independent get loops here, in tiles that divide them, so that no tile is
//! ragged; what a machine cannot hold of a summed axis is a matter of its own schedule.

use crate::kernel::tiling::attention;
use crate::kernel::{Axis, Kernel, Schedule, Stmt, TileOp, tiling};
use crate::machine::{AttentionTile, Machine};
use crate::pass::{Changed, Context, Pass};

/// See the module.
pub const PASS: Pass<Kernel> = Pass {
    name: "tile",
    summary: "Puts loops around a kernel, over tiles that suit the machine.",
    run,
};

fn run(
    kernel: &mut Kernel,
    context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    if let Some(tile) = context.machine.attention
        && let Ok(found) = attention::find(kernel)
    {
        match tile_attention(kernel, &found, tile) {
            Ok(tiled) => {
                *kernel = tiled;
                return Ok(Changed::Yes);
            }
            Err(why) => context.decline(PASS.name, format!("@{}", kernel.name), why),
        }
    }
    if context.machine.schedules || kernel.body.iter().any(|stmt| matches!(stmt, Stmt::For(_))) {
        return Ok(Changed::No);
    }
    let schedule = choose(kernel, context.machine);
    if schedule.tiles.is_empty() {
        return Ok(Changed::No);
    }
    match tiling::apply(kernel, &schedule) {
        Ok(tiled) => {
            *kernel = tiled;
            Ok(Changed::Yes)
        }
        Err(why) => {
            context.decline(PASS.name, format!("@{}", kernel.name), why);
            Ok(Changed::No)
        }
    }
}

/// The schedule for a kernel without loops.
pub fn choose(kernel: &Kernel, machine: &Machine) -> Schedule {
    let mut schedule = Schedule::default();
    let free: Vec<(Axis, usize)> = free_axes(kernel);
    let product = kernel.body.iter().find_map(|stmt| match stmt {
        Stmt::Define { op: TileOp::Contract { a, b, over, .. }, .. } => {
            Some((*a, *b, over.clone()))
        }
        Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } | Stmt::For(_) => None,
    });
    let tiles = match product {
        Some((a, b, over)) => {
            let has = |tile, axis| kernel.tiles[tile].extent(axis).is_some();
            let of = |left: bool, right: bool| -> Vec<(Axis, usize)> {
                free.iter()
                    .copied()
                    .filter(|&(axis, _)| has(a, axis) == left && has(b, axis) == right)
                    .collect()
            };
            let summed = over
                .iter()
                .filter_map(|&axis| {
                    kernel.tiles[a].extent(axis).or_else(|| kernel.tiles[b].extent(axis))
                })
                .product();
            tile_product(&of(true, true), &of(true, false), &of(false, true), summed, machine)
        }
        None => tile_rows(kernel, &free, machine),
    };
    for (axis, size) in tiles {
        let name = kernel.axis_name(axis).to_owned();
        schedule.parallel.push(name.clone());
        schedule.tiles.push((name, size));
    }
    schedule
}

/// Attention in tiles of queries, for each batch by itself, and blocks of keys.
fn tile_attention(
    kernel: &Kernel,
    attention: &attention::Attention,
    tile: AttentionTile,
) -> Result<Kernel, String> {
    let mut parallel: Vec<(Axis, usize)> =
        attention.batch.iter().map(|&(axis, _)| (axis, 1)).collect();
    let queries = query_tiles(&attention.queries, tile.queries);
    let rows: usize = attention
        .queries
        .iter()
        .map(|(axis, extent)| {
            queries.iter().find(|(other, _)| other == axis).map_or(*extent, |&(_, size)| size)
        })
        .product();
    parallel.extend(queries);
    let keys = tiling::extent(kernel, attention.keys).unwrap_or(1);
    attention::apply(kernel, attention, &parallel, key_block(rows, keys, tile))
}

/// Tiles of queries of about `most` positions, whole where that is not far from all.
fn query_tiles(axes: &[(Axis, usize)], most: usize) -> Vec<(Axis, usize)> {
    let mut left: usize = axes.iter().map(|&(_, extent)| extent).product();
    let mut tiles = Vec::new();
    for &(axis, extent) in axes {
        if left <= most {
            break;
        }
        let inner = left / extent.max(1);
        let wanted = (most / inner.max(1)).clamp(1, extent);
        let divides = |size: &usize| extent.is_multiple_of(*size);
        let size = (wanted.div_ceil(2)..=wanted).rev().find(divides);
        // Tiles that do not divide the axis cost a copy of their queries.
        let size = size.unwrap_or(if left <= 4 * most { extent } else { wanted });
        left = inner * size;
        if size < extent {
            tiles.push((axis, size));
        }
    }
    tiles
}

/// The keys of a block: all, where one tile takes their scores; else so many that blocks are equal and not far from what the
/// machine prefers; else what it prefers, and the last block is ragged.
fn key_block(queries: usize, keys: usize, tile: AttentionTile) -> usize {
    if queries.saturating_mul(keys) <= tile.most_scores {
        return keys;
    }
    let divides = |size: &usize| keys.is_multiple_of(*size);
    (tile.keys / 2..=tile.keys).rev().find(divides).unwrap_or(tile.keys).max(1)
}

/// The axes that may be parallel loops, in order, with their extents.
fn free_axes(kernel: &Kernel) -> Vec<(Axis, usize)> {
    (0..kernel.axes.len())
        .map(|index| Axis(u32::try_from(index).expect("a kernel has few axes")))
        .filter_map(|axis| tiling::extent(kernel, axis).map(|extent| (axis, extent)))
        .filter(|&(axis, extent)| extent > 1 && tiling::is_parallel(kernel, axis))
        .collect()
}

/// The fewest multiplications of a product of matrices that are worth an iteration, and of one that is cut at all.
const WORTH_ITERATION: usize = 1 << 20;
/// Iterations that a product of matrices is cut into where it is large enough: some for every thread.
const ITERATIONS: usize = 16;

/// Tiles of a product: batches one by one, then columns and rows so that the result's tile stays in the cache. Rows are
/// kept whole where that leaves room for a fair number of columns, since each tile of rows reads the columns anew.
fn tile_product(
    batch: &[(Axis, usize)],
    rows: &[(Axis, usize)],
    columns: &[(Axis, usize)],
    summed: usize,
    machine: &Machine,
) -> Vec<(Axis, usize)> {
    let mut tiles: Vec<(Axis, usize)> = Vec::new();
    let depthwise = rows.is_empty() || columns.is_empty();
    let whole: usize = rows.iter().chain(columns).map(|&(_, extent)| extent).product();
    // Small products are worth an iteration only together.
    let mut grain = (4096 / whole.max(1)).max(1);
    for &(axis, extent) in batch.iter().rev() {
        let size = if depthwise { 1 } else { divisor(extent, 1, grain) };
        grain /= size;
        tiles.insert(0, (axis, size));
    }
    let most = machine.near_bytes / 4 / 2;
    let count = |axes: &[(Axis, usize)]| axes.iter().map(|&(_, extent)| extent).product::<usize>();
    let (m, n) = (count(rows), count(columns));
    if let ([row], [column]) = (rows, columns) {
        tiles.extend(cut_matrix(*row, *column, summed, machine));
    } else if m * n > most || m * n > 4 * machine.map_elements {
        let m_tile = m.min(machine.contract.m.1);
        let n_tile = (most / m_tile).clamp(machine.contract.n.0, machine.contract.n.1);
        tiles.extend(cut(columns, n_tile, machine.contract.n.0));
        tiles.extend(cut(rows, m_tile, machine.contract.m.0));
    }
    tiles.retain(|&(axis, size)| {
        let extent = batch
            .iter()
            .chain(rows)
            .chain(columns)
            .find(|(other, _)| *other == axis)
            .map(|&(_, extent)| extent);
        extent.is_some_and(|extent| size < extent)
    });
    tiles
}

/// Cuts the result of a product of matrices: into enough iterations for several threads, each of a result that stays in
/// the cache with what is done to it afterwards. Rows are cut only where there are too many, or too few columns.
fn cut_matrix(
    (row, m): (Axis, usize),
    (column, n): (Axis, usize),
    summed: usize,
    machine: &Machine,
) -> Vec<(Axis, usize)> {
    let work = m.saturating_mul(n).saturating_mul(summed);
    let wanted = (work / WORTH_ITERATION).min(ITERATIONS);
    let (m_unit, m_most) = machine.contract.m;
    let n_unit = machine.contract.n.0;
    if wanted < 2 || m * n < machine.map_elements {
        return Vec::new();
    }
    let elements = (m * n / wanted).clamp(machine.map_elements / 2, machine.near_bytes / 4 / 2);
    let wide = n >= 4 * n_unit;
    let m_tile = if wide { m_most } else { elements.div_ceil(n).max(m_unit) };
    let m_tile = if m <= m_tile { m } else { divisor(m, m_unit, m_tile) };
    let n_tile = if wide { (elements / m_tile).max(2 * n_unit) } else { n };
    let n_tile = if n <= n_tile { n } else { divisor(n, n_unit, n_tile) };
    vec![(column, n_tile), (row, m_tile)]
}

/// Cuts axes, the outermost first, until at most `most` positions are left; the innermost in multiples of `multiple`.
fn cut(axes: &[(Axis, usize)], most: usize, multiple: usize) -> Vec<(Axis, usize)> {
    let mut left: usize = axes.iter().map(|&(_, extent)| extent).product();
    let mut tiles = Vec::new();
    for (index, &(axis, extent)) in axes.iter().enumerate() {
        if left <= most {
            break;
        }
        let inner = left / extent;
        let wanted = (most / inner.max(1)).max(1);
        let last = index + 1 == axes.len();
        let size = divisor(extent, if last { multiple } else { 1 }, wanted);
        left = inner * size;
        if size < extent {
            tiles.push((axis, size));
        }
    }
    tiles
}

/// The largest divisor of `extent` up to `most` that is a multiple of `multiple`; without one, the largest divisor from
/// a quarter of `most` up; without one, the whole.
fn divisor(extent: usize, multiple: usize, most: usize) -> usize {
    let divides = |size: &usize| extent.is_multiple_of(*size);
    let fits =
        (1..=most.min(extent)).rev().filter(divides).find(|size| size.is_multiple_of(multiple));
    let near = || {
        (1..=most.min(extent)).rev().filter(divides).find(|size| *size * 4 >= most || multiple == 1)
    };
    fits.or_else(near).unwrap_or(extent)
}

/// Tiles of what is no product: outer axes, until a tile has about as many elements as are worth an iteration.
fn tile_rows(kernel: &Kernel, free: &[(Axis, usize)], machine: &Machine) -> Vec<(Axis, usize)> {
    let mut elements = kernel.tiles.iter().map(|(_, tile)| tile.count()).max().unwrap_or(0);
    let reduces = kernel
        .body
        .iter()
        .any(|stmt| matches!(stmt, Stmt::Define { op: TileOp::Reduce { .. }, .. }));
    let worth = if reduces { machine.reduce_elements } else { machine.map_elements };
    let mut tiles = Vec::new();
    for (index, &(axis, extent)) in free.iter().enumerate() {
        if elements <= worth {
            break;
        }
        let inner = (elements / extent).max(1);
        let wanted = (worth / inner).max(1);
        let last = index + 1 == free.len() && free.len() > 1;
        let multiple = if last { machine.vector_elements * 4 } else { 1 };
        let size = divisor(extent, multiple, wanted.max(multiple));
        elements = inner * size;
        if size < extent {
            tiles.push((axis, size));
        }
    }
    tiles
}
