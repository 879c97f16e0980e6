//! Runs the loops around the tiles. Where the caller has threads to spare, the tiles of a block are shared among them:
//! every element is computed by the same steps whoever does it.

use super::CACHE_LINE_BYTES;
use super::plan::{Feed, MOST_SHARES, Tiling};
use super::tile::{LEAF_COLUMNS, LEAF_ROWS, Tile};
use super::widen::{Rows, Scale, Widen};
use crate::pool;

/// The addresses of one run.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    pub(super) a: *const f32,
    /// The right operand; of elements of another type where the plan says so.
    pub(super) b: *const f32,
    /// What the right operand is scaled with, where the plan says so.
    pub(super) b_scale: *const f32,
    pub(super) acc: *mut f32,
    pub(super) acc_row_stride: usize,
    pub(super) add: bool,
}

/// How far ahead a panel is asked for that is read once.
const ASK_AHEAD_BYTES: isize = 2048;

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

/// What the shares of one block have in common.
#[derive(Clone, Copy)]
struct Work<'t> {
    tiling: &'t Tiling,
    block: Block,
    operands: Operands,
    a_scratch: *mut f32,
    b_scratch: *mut f32,
}

// SAFETY: shares write to different tiles of the result and to different panels of scratch, and read what was packed
// before they began.
unsafe impl Sync for Work<'_> {}

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
    let work = Work { tiling, block, operands, a_scratch, b_scratch };
    let whole = &work;
    let columns = (block.n.1 - block.n.0).div_ceil(tiling.columns);
    let rows = (block.m.1 - block.m.0).div_ceil(tiling.rows);
    match &tiling.a {
        // One after another: each overruns into the next, which is then written.
        Feed::Pack(_) => (0..rows).for_each(|row| {
            // SAFETY: the scratch holds every panel of the block and the overrun of the last.
            unsafe { whole.pack_row(row) }
        }),
        // SAFETY: the scratch holds every row of the block, and each is copied once.
        Feed::Copy { .. } => pool::share(rows, 4, &|row, _| unsafe { whole.copy_rows(row) }),
        Feed::Panels(_) | Feed::Direct { .. } | Feed::Widen(_) => {}
    }
    let packs_b = block.m.0 == 0
        && match &tiling.b {
            Feed::Pack(_) => true,
            Feed::Widen(widen) => widen.tiles.is_empty(),
            Feed::Panels(_) | Feed::Direct { .. } | Feed::Copy { .. } => false,
        };
    if columns <= MOST_SHARES && pool::has_help() && tiling.shares > 1 {
        if packs_b {
            // SAFETY: the scratch holds a panel for each share, and there are no more columns than shares.
            pool::share(columns, 1, &|column, _| unsafe { whole.pack_column(column, column) });
        }
        // SAFETY: the panels have been packed, and each tile is done once.
        pool::share(columns * rows, rows.div_ceil(4), &|index, _| unsafe {
            let (column, row) = (index / rows, index % rows);
            whole.tile(column, column, row);
        });
        return;
    }
    pool::share_among(tiling.shares, columns, 1, &|column, share| {
        let place = if tiling.one_row_block { share } else { column };
        // SAFETY: the scratch holds a panel for each share, or for each column; each tile is done once.
        unsafe {
            if packs_b {
                whole.pack_column(column, place);
            }
            for row in 0..rows {
                whole.tile(column, place, row);
            }
        }
    });
}

impl Work<'_> {
    /// # Safety
    /// The scratch holds every panel of rows of the block and the overrun of the last.
    unsafe fn pack_row(&self, row: usize) {
        let Feed::Pack(packer) = &self.tiling.a else { return };
        let (rows, (_, k_count)) = (self.tiling.rows, self.block.k);
        let target = self.a_scratch.wrapping_add(row * rows * k_count);
        let panel = self.block.m.0 / rows + row;
        // SAFETY: the caller's promise.
        unsafe { packer.pack_panel(panel, self.block.k, self.operands.a, target) };
    }

    /// Copies the rows of one tile.
    ///
    /// # Safety
    /// The scratch holds every row of the block, and nobody else copies these.
    unsafe fn copy_rows(&self, row: usize) {
        let Feed::Copy { first, outer_stride } = &self.tiling.a else { return };
        let (begin, (k_begin, k_count)) = (row * self.tiling.rows, self.block.k);
        let end = (begin + self.tiling.rows).min(self.block.m.1 - self.block.m.0);
        for row in begin..end {
            let from = self
                .operands
                .a
                .wrapping_offset(*first)
                .wrapping_add((self.block.m.0 + row) * outer_stride + k_begin);
            let target = self.a_scratch.wrapping_add(row * self.tiling.copy_stride());
            // SAFETY: the caller makes the operand readable and gives the row of scratch.
            unsafe { target.copy_from_nonoverlapping(from, k_count) };
        }
    }

    /// # Safety
    /// The scratch holds a panel of columns at that place, which nobody else uses.
    unsafe fn pack_column(&self, column: usize, place: usize) {
        let panel = self.block.n.0 / self.tiling.columns + column;
        let (_, k_count) = self.block.k;
        // SAFETY: the caller's promise.
        unsafe {
            match &self.tiling.b {
                Feed::Pack(packer) => {
                    packer.pack_panel(panel, self.block.k, self.operands.b, self.b_panel(place))
                }
                Feed::Widen(widen) => {
                    let first = panel * self.tiling.columns;
                    let (from, scale) = self.narrow_panel(widen, panel);
                    widen.run(&Rows {
                        count: k_count,
                        from,
                        scale,
                        columns: self.block.n.1 - first,
                        to: self.b_panel(place),
                    });
                }
                Feed::Panels(_) | Feed::Direct { .. } | Feed::Copy { .. } => {}
            }
        }
    }

    /// Where a narrow panel's part of this block starts, and the scale of its first column.
    fn narrow_panel(&self, widen: &Widen, panel: usize) -> (*const u8, *const f32) {
        let columns = self.tiling.columns;
        let element = panel * widen.panel_stride + self.block.k.0 * columns;
        let scale = match widen.scale {
            Scale::None | Scale::One => self.operands.b_scale,
            Scale::Columns => self.operands.b_scale.wrapping_add(panel * columns),
        };
        let from = self.operands.b.cast::<u8>();
        (from.wrapping_add(element * widen.narrow.bytes()), scale)
    }

    fn b_panel(&self, place: usize) -> *mut f32 {
        self.b_scratch.wrapping_add(place * self.tiling.columns * self.block.k.1)
    }

    /// A tile of the result; its panel of packed columns, if they are packed here, is at a place in scratch.
    ///
    /// # Safety
    /// Its panels have been packed, and nobody else writes this tile.
    unsafe fn tile(&self, column: usize, place: usize, row: usize) {
        let Work { tiling, block, operands, .. } = self;
        let (k_begin, k_count) = block.k;
        let column_index = column;
        let column = block.n.0 + column * tiling.columns;
        let row_index = row;
        let row = block.m.0 + row * tiling.rows;
        let columns = tiling.columns.min(block.n.1 - column);
        let rows = tiling.rows.min(block.m.1 - row);
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
            Feed::Pack(_) | Feed::Copy { .. } | Feed::Widen(_) => {
                Panel { start: self.b_panel(place), stride: tiling.columns }
            }
        };
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
            Feed::Copy { .. } => Panel {
                start: self.a_scratch.wrapping_add(row_index * tiling.rows * tiling.copy_stride()),
                stride: tiling.copy_stride(),
            },
            Feed::Pack(_) | Feed::Widen(_) => Panel {
                start: self.a_scratch.wrapping_add(row_index * tiling.rows * k_count),
                stride: tiling.rows,
            },
        };
        let ask = match &tiling.b {
            Feed::Panels(_) if block.m.1 - block.m.0 <= tiling.rows => ASK_AHEAD_BYTES,
            // The lines of the next panel by turns: one of two with the first tile of a panel, the other with the second.
            // After the last panel of one call there is often another call's first.
            Feed::Panels(panel_stride) if row_index < 2 => {
                (panel_stride * size_of::<f32>() + row_index * CACHE_LINE_BYTES).cast_signed()
            }
            Feed::Panels(_)
            | Feed::Pack(_)
            | Feed::Widen(_)
            | Feed::Copy { .. }
            | Feed::Direct { .. } => 0,
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
            ask,
        };
        if let Feed::Widen(widen) = &tiling.b
            && !widen.tiles.is_empty()
        {
            let (from, scale) = self.narrow_panel(widen, block.n.0 / tiling.columns + column_index);
            let tile = Tile { b: from.cast(), ..tile };
            let function = widen.tiles[(rows - 1) * 2 + vectors - 1];
            // SAFETY: the tile lies inside the product; the panel and its scales are the caller's.
            unsafe { function(&tile, widen.scale, scale, columns) };
            return;
        }
        if let Some(leaf) = tiling.leaf
            && rows == LEAF_ROWS
            && columns == LEAF_COLUMNS
        {
            // SAFETY: the tile lies inside the product, is whole, and its panels are packed.
            unsafe {
                leaf(tile.k, tile.a, tile.b, tile.acc, tile.acc_row_stride, i64::from(tile.add))
            };
            return;
        }
        let functions = if masked { &tiling.masked } else { &tiling.whole };
        // SAFETY: the tile lies inside the product, and its operands were packed or are the caller's.
        unsafe { functions[(rows - 1) * 2 + vectors - 1](&tile) };
    }
}
