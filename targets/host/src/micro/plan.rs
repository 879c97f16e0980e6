//! Decides how a product is computed: what is packed and how large the blocks are.

use super::codes::Codes;
use super::dots::Dots;
use super::pack::{Packer, unit_runs};
use super::tile::{
    LEAF_COLUMNS, LEAF_ROWS, Leaf, MOST_DIRECT_ROWS, Reads, TileFunction, most_rows, tile_function,
};
use super::widen::Widen;
use super::{Cpu, Side, panel_widths};

/// How a product is computed.
#[derive(Clone, Debug)]
pub(super) enum Method {
    /// Tiles in registers over packed panels.
    Tiles(Box<Tiling>),
    /// Dot products along `k`.
    Dots(Dots),
    /// Sums of products of bytes.
    Codes(Codes),
}

impl Method {
    pub(super) fn new(
        sizes: [usize; 3],
        a: &Side,
        b: &Side,
        cpu: Cpu,
        leaf: Option<Leaf>,
    ) -> Method {
        match Dots::new(sizes, a, b, cpu) {
            Some(dots) => Method::Dots(dots),
            None => Method::Tiles(Box::new(Tiling::new(sizes, a, b, cpu, leaf))),
        }
    }

    /// Whether an operand is packed in every run.
    pub(super) fn packs(&self) -> bool {
        match self {
            Method::Tiles(tiling) => {
                matches!(tiling.a, Feed::Pack(_)) || matches!(tiling.b, Feed::Pack(_))
            }
            Method::Dots(_) | Method::Codes(_) => false,
        }
    }

    /// Elements of scratch that a run needs.
    pub(super) fn scratch_elements(&self) -> usize {
        match self {
            Method::Tiles(tiling) => tiling.a_elements() + tiling.b_elements(),
            Method::Dots(dots) => dots.scratch_elements(),
            Method::Codes(codes) => codes.scratch_bytes().div_ceil(size_of::<f32>()),
        }
    }
}

/// How one operand reaches the tiles.
#[derive(Clone, Debug)]
pub(super) enum Feed {
    /// Packed ahead, panels this many elements apart.
    Panels(usize),
    /// Packed block by block.
    Pack(Packer),
    /// Packed ahead in a narrow type, and widened block by block; for `B` alone.
    Widen(Widen),
    /// Rows whose elements along `k` lie side by side, copied block by block because they would meet in the cache where
    /// they lie: row `outer` starts at `first + outer * outer_stride`.
    Copy { first: isize, outer_stride: usize },
    /// Read where it lies: element (outer, k) at `first + outer * outer_stride + k * k_stride`, one stride being one.
    Direct { first: isize, outer_stride: usize, k_stride: usize },
}

/// A product by tiles.
#[derive(Clone, Debug)]
pub(super) struct Tiling {
    pub(super) a: Feed,
    pub(super) b: Feed,
    /// Rows of a tile and of a panel of `A`.
    pub(super) rows: usize,
    /// Columns of a tile and of a panel of `B`.
    pub(super) columns: usize,
    /// Columns of one vector.
    pub(super) lanes: usize,
    /// Rows of `A` in a block: a multiple of `rows`.
    pub(super) m_block: usize,
    /// Columns of `B` in a block: a multiple of `columns`.
    pub(super) n_block: usize,
    /// Summed elements in a block.
    pub(super) k_block: usize,
    /// Whether there is one block of rows: a packed panel of `B` is used at once, and its place taken by the next.
    pub(super) one_row_block: bool,
    /// Among how many threads a block may be shared: scratch has a panel of columns for each.
    pub(super) shares: usize,
    /// Computes whole tiles over packed panels in place of a function.
    pub(super) leaf: Option<Leaf>,
    /// Functions by `(rows - 1) * 2 + vectors - 1`, for whole vectors of `B`.
    pub(super) whole: Vec<TileFunction>,
    /// The same where the last vector of `B` is masked.
    pub(super) masked: Vec<TileFunction>,
}

/// Bytes of the second-level cache that a block of `A` may take; every machine of note has twice this or more.
const A_BLOCK_BYTES: usize = 448 << 10;
/// Elements of a row of copied `A`: `k` and this many more, so that rows start in different sets of the cache.
pub(super) const COPY_GAP: usize = 16;
/// Elements after which rows meet in the same set of the first-level cache.
const SET_ELEMENTS: usize = 1024;
/// Bytes that a block of packed `B` may take, in the last-level cache.
const B_BLOCK_BYTES: usize = 4 << 20;
/// The most rows of `A` for which `B` is not packed.
const MOST_DIRECT_B_ROWS: usize = 16;
/// Bytes of an unpacked `B` that is read as if it were in cache.
const DIRECT_B_BYTES: usize = 256 << 10;
/// Longest run of `k` in a block of a larger unpacked `B`.
const DIRECT_K_BLOCK: usize = 16;
/// The most threads that share a product.
pub(super) const MOST_SHARES: usize = 8;
/// The fewest multiplications of a product that is shared.
pub(crate) const WORTH_SHARING: usize = 1 << 19;
/// Longest run of `k` in a block.
const K_BLOCK: usize = 768;

impl Tiling {
    fn new([m, n, k]: [usize; 3], a: &Side, b: &Side, cpu: Cpu, leaf: Option<Leaf>) -> Tiling {
        let (m_width, columns) = panel_widths(cpu);
        // Equal tiles waste least: 15 rows are 8 and 7, not 14 and 1.
        let rows = match a {
            Side::Panels { .. } | Side::Narrow { .. } => m_width,
            Side::Gather { .. } if cpu != Cpu::Avx512 && direct_a(a, m, n, cpu).is_some() => {
                equal_rows(m, MOST_DIRECT_ROWS.min(most_rows(cpu)))
            }
            Side::Gather { .. } if leaf.is_some() && m >= LEAF_ROWS => LEAF_ROWS,
            Side::Gather { .. } => equal_rows(m, most_rows(cpu)),
        };
        let a = feed_a(a, rows, [m, n], cpu);
        let a_is_packed = matches!(a, Feed::Pack(_) | Feed::Panels(_));
        let b = feed_b(b, columns, m, cpu, a_is_packed);
        // Rows of an unpacked B are read a little at a time, so that few pages are in use and each is read in order.
        let far_b = matches!(b, Feed::Direct { .. }) && k * n * size_of::<f32>() > DIRECT_B_BYTES;
        let k_block = block(
            k,
            match far_b {
                // Rows a page apart share a set of the first-level cache, which holds eight lines or more.
                true if m <= 3 => DIRECT_K_BLOCK / 2,
                true => DIRECT_K_BLOCK,
                false => K_BLOCK,
            },
            8,
        );
        let m_block = block(m, A_BLOCK_BYTES / (4 * k_block.max(1)), rows);
        let one_row_block = m <= m_block;
        let n_block = match &b {
            Feed::Pack(_) | Feed::Widen(_) if !one_row_block => {
                block(n, B_BLOCK_BYTES / (4 * k_block.max(1)), columns)
            }
            Feed::Panels(_)
            | Feed::Direct { .. }
            | Feed::Copy { .. }
            | Feed::Pack(_)
            | Feed::Widen(_) => n.next_multiple_of(columns).max(columns),
        };
        let leaf = leaf.filter(|_| {
            let packed = |feed: &Feed| !matches!(feed, Feed::Direct { .. });
            packed(&a) && packed(&b) && rows == LEAF_ROWS && columns == LEAF_COLUMNS
        });
        let is_shared = m.saturating_mul(n).saturating_mul(k) >= WORTH_SHARING;
        let shares = if is_shared { MOST_SHARES } else { 1 };
        let is_direct = matches!(a, Feed::Direct { .. } | Feed::Copy { .. });
        let functions = |reads| {
            let shapes = (1..=rows).flat_map(|rows| [(rows, 1), (rows, 2)]);
            shapes.map(|(rows, vectors)| tile_function(cpu, rows, vectors, reads)).collect()
        };
        let whole = functions(if is_direct { Reads::DirectA } else { Reads::Packed });
        let masked = functions(if is_direct { Reads::Direct } else { Reads::DirectB });
        Tiling {
            a,
            b,
            rows,
            columns,
            lanes: columns / 2,
            m_block,
            n_block,
            k_block,
            one_row_block,
            shares,
            leaf,
            whole,
            masked,
        }
    }

    /// Elements of scratch for the block of `A`.
    pub(super) fn a_elements(&self) -> usize {
        match self.a {
            Feed::Pack(_) => (self.m_block * self.k_block + Packer::OVERRUN).next_multiple_of(16),
            Feed::Copy { .. } => self.m_block * self.copy_stride(),
            Feed::Panels(_) | Feed::Direct { .. } | Feed::Widen(_) => 0,
        }
    }

    /// Elements from one copied row of `A` to the next.
    pub(super) fn copy_stride(&self) -> usize {
        let stride = self.k_block.next_multiple_of(16) + COPY_GAP;
        if stride.is_multiple_of(SET_ELEMENTS) { stride + COPY_GAP } else { stride }
    }

    /// Elements of scratch for the block of `B`.
    pub(super) fn b_elements(&self) -> usize {
        match self.b {
            Feed::Pack(_) | Feed::Widen(_) if self.one_row_block => {
                (self.shares * self.columns * self.k_block).next_multiple_of(16)
            }
            Feed::Pack(_) | Feed::Widen(_) => (self.n_block * self.k_block).next_multiple_of(16),
            Feed::Panels(_) | Feed::Copy { .. } | Feed::Direct { .. } => 0,
        }
    }
}

/// The smallest block of equal shares of `extent` that are at most about `most`, as a multiple of `unit`.
fn block(extent: usize, most: usize, unit: usize) -> usize {
    let most = (most / unit * unit).max(unit);
    let shares = extent.div_ceil(most).max(1);
    extent.div_ceil(shares).next_multiple_of(unit).max(unit)
}

/// The rows of equal tiles, of which none has more than `most`.
fn equal_rows(m: usize, most: usize) -> usize {
    m.div_ceil(m.div_ceil(most).max(1)).max(1)
}

/// Reads `A` where it lies, or copies it row by row, where its elements along `k` lie side by side and that costs less
/// than packing: always with AVX-512, otherwise where it is used too little to pay for packing.
fn direct_a(side: &Side, m: usize, n: usize, cpu: Cpu) -> Option<Feed> {
    let Side::Gather { outer_offsets, k_offsets } = side else { return None };
    let few = m <= MOST_DIRECT_ROWS || n <= 32;
    if !few && cpu != Cpu::Avx512 {
        return None;
    }
    let first = first(outer_offsets) + first(k_offsets);
    let outer_stride = stride(outer_offsets)?;
    if stride(k_offsets)? != 1 {
        return None;
    }
    if !few && outer_stride.is_multiple_of(SET_ELEMENTS) {
        return Some(Feed::Copy { first, outer_stride });
    }
    Some(Feed::Direct { first, outer_stride, k_stride: 1 })
}

fn feed_a(side: &Side, rows: usize, [m, n]: [usize; 2], cpu: Cpu) -> Feed {
    match side {
        Side::Panels { panel_stride } => Feed::Panels(*panel_stride),
        Side::Narrow { .. } => unreachable!("the left operand is not narrow"),
        Side::Gather { outer_offsets, k_offsets } => {
            direct_a(side, m, n, cpu).unwrap_or_else(|| {
                Feed::Pack(Packer::new(rows, outer_offsets.clone(), k_offsets.clone(), cpu))
            })
        }
    }
}

fn feed_b(side: &Side, columns: usize, m: usize, cpu: Cpu, a_is_packed: bool) -> Feed {
    match side {
        Side::Panels { panel_stride } => Feed::Panels(*panel_stride),
        Side::Narrow { panel_stride, narrow, scale } => {
            Feed::Widen(Widen::new([*panel_stride, m], *narrow, *scale, cpu, a_is_packed))
        }
        Side::Gather { outer_offsets, k_offsets } => {
            if unit_runs(outer_offsets).len() <= 1
                && let Some(k_stride) = stride(k_offsets)
                && m <= MOST_DIRECT_B_ROWS
            {
                let first = first(outer_offsets) + first(k_offsets);
                return Feed::Direct { first, outer_stride: 1, k_stride };
            }
            Feed::Pack(Packer::new(columns, outer_offsets.clone(), k_offsets.clone(), cpu))
        }
    }
}

fn first(offsets: &[isize]) -> isize {
    offsets.first().copied().unwrap_or(0)
}

/// The common difference of the offsets, if there is one that is not negative. One offset alone has any; one is taken.
pub(super) fn stride(offsets: &[isize]) -> Option<usize> {
    let [first, second, ..] = offsets else { return Some(1) };
    let stride = usize::try_from(second.checked_sub(*first)?).ok()?;
    let regular =
        offsets.windows(2).all(|pair| pair[1].checked_sub(pair[0]) == Some(stride.cast_signed()));
    regular.then_some(stride)
}
