//! Runs the loops around the tiles.

use super::plan::{Feed, Tiling};
use super::tile::{LEAF_COLUMNS, LEAF_ROWS, Tile};

/// The addresses of one run.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) a: *const f32,
    pub(super) b: *const f32,
    pub(super) acc: *mut f32,
    pub(super) acc_row_stride: usize,
    pub(super) add: bool,
}

/// Where a panel is read: its first element and the stride of its tiles.
#[derive(Clone, Copy)]
struct Panel {
    start: *const f32,
    stride: usize,
}

/// Computes the whole product by blocks.
///
/// # Safety
/// As for [`super::contract`]; `scratch` is aligned to a cache line and holds what the tiling asks for.
pub(super) unsafe fn run(
    tiling: &Tiling,
    [m, n, k]: [usize; 3],
    operands: Operands,
    scratch: *mut f32,
) {
    let b_scratch = scratch.wrapping_add(tiling.a_elements());
    for n_begin in (0..n).step_by(tiling.n_block) {
        let n_end = n.min(n_begin + tiling.n_block);
        for k_begin in (0..k).step_by(tiling.k_block) {
            let k_count = tiling.k_block.min(k - k_begin);
            let add = operands.add || k_begin > 0;
            for m_begin in (0..m).step_by(tiling.m_block) {
                let m_end = m.min(m_begin + tiling.m_block);
                let block =
                    Block { m: (m_begin, m_end), n: (n_begin, n_end), k: (k_begin, k_count), add };
                // SAFETY: the blocks partition the product; see the caller's promise.
                unsafe { run_block(tiling, block, operands, scratch, b_scratch) };
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Block {
    m: (usize, usize),
    n: (usize, usize),
    /// Begin and count.
    k: (usize, usize),
    add: bool,
}

/// One block of rows against one block of columns. The first block of rows packs the columns for the others.
///
/// # Safety
/// As for [`run`].
unsafe fn run_block(
    tiling: &Tiling,
    block: Block,
    operands: Operands,
    a_scratch: *mut f32,
    b_scratch: *mut f32,
) {
    let (k_begin, k_count) = block.k;
    let a_panel_elements = tiling.rows * k_count;
    if let Feed::Pack(packer) = &tiling.a {
        for (index, row) in (block.m.0..block.m.1).step_by(tiling.rows).enumerate() {
            // SAFETY: the scratch holds every panel of the block and the overrun of the last.
            unsafe {
                packer.pack_panel(
                    row / tiling.rows,
                    block.k,
                    operands.a,
                    a_scratch.add(index * a_panel_elements),
                );
            }
        }
    }
    for column in (block.n.0..block.n.1).step_by(tiling.columns) {
        let columns = tiling.columns.min(block.n.1 - column);
        let vectors = columns.div_ceil(tiling.lanes);
        let last_columns = columns - (vectors - 1) * tiling.lanes;
        let mut masked = false;
        let b = match &tiling.b {
            Feed::Panels(panel_stride) => Panel {
                start: operands.b.wrapping_add(
                    column / tiling.columns * panel_stride + k_begin * tiling.columns,
                ),
                stride: tiling.columns,
            },
            Feed::Direct { first, k_stride, .. } => {
                masked = last_columns < tiling.lanes;
                let start =
                    operands.b.wrapping_offset(*first).wrapping_add(column + k_begin * k_stride);
                Panel { start, stride: *k_stride }
            }
            Feed::Pack(packer) => {
                let index =
                    if tiling.one_row_block { 0 } else { (column - block.n.0) / tiling.columns };
                let start = b_scratch.wrapping_add(index * tiling.columns * k_count);
                if block.m.0 == 0 {
                    // SAFETY: the scratch holds every panel of the block.
                    unsafe {
                        packer.pack_panel(column / tiling.columns, block.k, operands.b, start)
                    };
                }
                Panel { start, stride: tiling.columns }
            }
        };
        let functions = if masked { &tiling.masked } else { &tiling.whole };
        for row in (block.m.0..block.m.1).step_by(tiling.rows) {
            let rows = tiling.rows.min(block.m.1 - row);
            let a = match &tiling.a {
                Feed::Panels(panel_stride) => Panel {
                    start: operands
                        .a
                        .wrapping_add(row / tiling.rows * panel_stride + k_begin * tiling.rows),
                    stride: tiling.rows,
                },
                Feed::Direct { first, outer_stride, .. } => Panel {
                    start: operands
                        .a
                        .wrapping_offset(*first)
                        .wrapping_add(row * outer_stride + k_begin),
                    stride: *outer_stride,
                },
                Feed::Pack(_) => Panel {
                    start: a_scratch
                        .wrapping_add((row - block.m.0) / tiling.rows * a_panel_elements),
                    stride: tiling.rows,
                },
            };
            let tile = Tile {
                k: k_count,
                a: a.start,
                a_stride: a.stride,
                b: b.start,
                b_step: b.stride,
                acc: operands.acc.wrapping_add(row * operands.acc_row_stride + column),
                acc_row_stride: operands.acc_row_stride,
                add: block.add,
                last_columns,
            };
            if let Some(leaf) = tiling.leaf
                && rows == LEAF_ROWS
                && columns == LEAF_COLUMNS
            {
                // SAFETY: the tile lies inside the product, is whole, and its panels are packed.
                unsafe {
                    leaf(tile.k, tile.a, tile.b, tile.acc, tile.acc_row_stride, i64::from(tile.add))
                };
                continue;
            }
            // SAFETY: the tile lies inside the product, and its operands were packed above or are the caller's.
            unsafe { functions[(rows - 1) * 2 + vectors - 1](&tile) };
        }
    }
}
