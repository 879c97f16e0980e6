//! The innermost product: a tile of the result in registers, over a run of `k`. Rows beyond a full tile have functions of
//! their own and columns beyond it are masked, so an edge costs what it holds.

use super::Cpu;
use super::vector::{Portable, Vector};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m128, __m256, __m512};

/// The operands of one tile. `A[row, k]` lies at `a + row * a_row + k * a_step`, where one of the strides is one.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Length of the sum.
    pub(super) k: usize,
    pub(super) a: *const f32,
    /// The stride that is not one.
    pub(super) a_stride: usize,
    pub(super) b: *const f32,
    /// Elements from one `k` to the next; columns lie side by side.
    pub(super) b_step: usize,
    pub(super) acc: *mut f32,
    pub(super) acc_row_stride: usize,
    /// Whether the tile adds to `acc` or overwrites it.
    pub(super) add: bool,
    /// Columns in the last vector of a row.
    pub(super) last_columns: usize,
    /// Bytes from each `k` of `B` to the line that is asked for meanwhile; zero asks for what is read anyway.
    pub(super) ask: isize,
}

/// A compiled tile.
///
/// # Safety
/// The machine has the instruction set, and what the tile addresses is readable and writable.
pub(super) type TileFunction = unsafe fn(&Tile);

/// A tile of [`LEAF_ROWS`] by [`LEAF_COLUMNS`] over packed panels, whole: `(k, a_panel, b_panel, acc, acc_row_stride, add)`.
///
/// # Safety
/// As for [`TileFunction`].
pub(super) type Leaf = unsafe extern "C" fn(usize, *const f32, *const f32, *mut f32, usize, i64);

/// Rows of a [`Leaf`]: a panel of the instruction sets that may have one.
pub(super) const LEAF_ROWS: usize = 6;
/// Columns of a [`Leaf`].
pub(super) const LEAF_COLUMNS: usize = 8;

/// How a tile reads its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reads {
    /// Both panels packed: rows of `A` side by side, whole vectors of `B` readable.
    Packed,
    /// `A` packed; `B` read where it lies, so that only `last_columns` of the last vector are readable.
    DirectB,
    /// `A` read where it lies, elements along `k` side by side; `B` packed.
    DirectA,
    /// Both read where they lie.
    Direct,
}

/// The most rows that a tile has which reads `A` where it lies: each takes an address register.
pub(super) const MOST_DIRECT_ROWS: usize = 8;

/// The most rows that a tile has.
pub(super) fn most_rows(cpu: Cpu) -> usize {
    super::panel_widths(cpu).0
}

#[inline(always)]
unsafe fn tile<
    V: Vector,
    const ROWS: usize,
    const VECTORS: usize,
    const DIRECT_A: bool,
    const MASK_B: bool,
>(
    tile: &Tile,
) {
    // SAFETY: the caller vouches for everything that the tile addresses; see `TileFunction`.
    unsafe {
        let mask = V::mask(0, tile.last_columns);
        let load = |b: *const u8| {
            core::array::from_fn(|vector| {
                let from = b.cast::<f32>().wrapping_add(vector * V::LANES);
                if MASK_B && vector + 1 == VECTORS {
                    V::load_masked(from, mask)
                } else {
                    V::load(from)
                }
            })
        };
        let step_bytes = tile.b_step * size_of::<f32>();
        sum::<V, ROWS, VECTORS, DIRECT_A>(tile, step_bytes, load);
    }
}

/// Computes a tile of which `load` gives the columns of `B` for one `k`; the next is so many bytes further.
///
/// # Safety
/// As for [`TileFunction`].
#[expect(
    clippy::needless_range_loop,
    reason = "slices of the accumulators would keep them in memory"
)]
#[inline(always)]
pub(super) unsafe fn sum<
    V: Vector,
    const ROWS: usize,
    const VECTORS: usize,
    const DIRECT_A: bool,
>(
    tile: &Tile,
    step_bytes: usize,
    load: impl Fn(*const u8) -> [V; VECTORS],
) {
    // Few accumulators would wait for one another, so they are doubled over alternate k.
    let ways = const {
        if ROWS * VECTORS <= 2 {
            4
        } else if ROWS * VECTORS <= 5 {
            2
        } else {
            1
        }
    };
    // SAFETY: the caller vouches for everything that the tile addresses.
    unsafe {
        let mask = V::mask(0, tile.last_columns);
        let mut sums = [[[V::zero(); VECTORS]; ROWS]; 4];
        let (mut a, mut b) = (tile.a, tile.b.cast::<u8>());
        let unrolled = if ways == 1 { 2 } else { ways };
        let mut left = tile.k;
        while left >= unrolled {
            for turn in 0..unrolled {
                step::<V, ROWS, VECTORS, DIRECT_A>(
                    a,
                    tile.a_stride,
                    load(b),
                    &mut sums[turn % ways],
                );
                a = a.wrapping_add(if DIRECT_A { 1 } else { tile.a_stride });
                b = b.wrapping_add(step_bytes);
            }
            left -= unrolled;
        }
        for _ in 0..left {
            step::<V, ROWS, VECTORS, DIRECT_A>(a, tile.a_stride, load(b), &mut sums[0]);
            a = a.wrapping_add(if DIRECT_A { 1 } else { tile.a_stride });
            b = b.wrapping_add(step_bytes);
        }
        for row in 0..ROWS {
            for vector in 0..VECTORS {
                let mut sum = sums[0][row][vector];
                for way in 1..ways {
                    sum = sum.add(sums[way][row][vector]);
                }
                let target = tile.acc.wrapping_add(row * tile.acc_row_stride + vector * V::LANES);
                if vector + 1 < VECTORS || tile.last_columns == V::LANES {
                    let sum = if tile.add { sum.add(V::load(target)) } else { sum };
                    sum.store(target);
                } else {
                    let sum = if tile.add { sum.add(V::load_masked(target, mask)) } else { sum };
                    sum.store_masked(target, mask);
                }
            }
        }
    }
}

/// Adds the products of one `k`.
#[inline(always)]
unsafe fn step<V: Vector, const ROWS: usize, const VECTORS: usize, const DIRECT_A: bool>(
    a: *const f32,
    a_stride: usize,
    columns: [V; VECTORS],
    sums: &mut [[V; VECTORS]; ROWS],
) {
    // SAFETY: as for `tile`.
    unsafe {
        for (row, sums) in sums.iter_mut().enumerate() {
            let factor = V::splat(*a.wrapping_add(if DIRECT_A { row * a_stride } else { row }));
            for (sum, column) in sums.iter_mut().zip(columns) {
                *sum = factor.multiply_add(column, *sum);
            }
        }
    }
}

/// Instantiates [`tile`] for one instruction set and finds the function for a shape.
macro_rules! instruction_set {
    ($module:ident, $vector:ty, $(#[$features:meta])?, rows $($rows:literal)* ; direct $($direct:literal)*) => {
        mod $module {
            use super::*;

            $(#[$features])?
            unsafe fn run<const ROWS: usize, const VECTORS: usize, const DIRECT_A: bool, const MASK_B: bool>(
                operands: &Tile,
            ) {
                // SAFETY: the features are enabled, and the caller vouches for the addresses.
                unsafe { tile::<$vector, ROWS, VECTORS, DIRECT_A, MASK_B>(operands) }
            }

            fn packed<const MASK_B: bool>(rows: usize, vectors: usize) -> TileFunction {
                match (rows, vectors) {
                    $(($rows, 1) => run::<$rows, 1, false, MASK_B>,)*
                    $(($rows, 2) => run::<$rows, 2, false, MASK_B>,)*
                    _ => unreachable!("no tile has {rows} rows of {vectors} vectors"),
                }
            }

            fn direct<const MASK_B: bool>(rows: usize, vectors: usize) -> TileFunction {
                match (rows, vectors) {
                    $(($direct, 1) => run::<$direct, 1, true, MASK_B>,)*
                    $(($direct, 2) => run::<$direct, 2, true, MASK_B>,)*
                    _ => unreachable!("no direct tile has {rows} rows of {vectors} vectors"),
                }
            }

            pub(super) fn function(rows: usize, vectors: usize, reads: Reads) -> TileFunction {
                match reads {
                    Reads::Packed => packed::<false>(rows, vectors),
                    Reads::DirectB => packed::<true>(rows, vectors),
                    Reads::DirectA => direct::<false>(rows, vectors),
                    Reads::Direct => direct::<true>(rows, vectors),
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(avx512, __m512, #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")],
    rows 1 2 3; direct 1 2 3);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, __m256, #[target_feature(enable = "avx2,fma")], rows 1 2 3 4 5 6; direct 1 2 3 4 5 6);
#[cfg(target_arch = "x86_64")]
instruction_set!(sse, __m128,, rows 1 2 3 4 5 6; direct 1 2 3 4 5 6);
instruction_set!(portable, Portable,, rows 1 2 3 4 5 6; direct 1 2 3 4 5 6);

/// The tile of a shape: `rows` up to [`most_rows`], one or two vectors.
pub(super) fn tile_function(cpu: Cpu, rows: usize, vectors: usize, reads: Reads) -> TileFunction {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 => super::zmm::tile_function(rows, vectors, reads)
            .unwrap_or_else(|| avx512::function(rows, vectors, reads)),
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2 => avx2::function(rows, vectors, reads),
        #[cfg(target_arch = "x86_64")]
        Cpu::Baseline => sse::function(rows, vectors, reads),
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Avx512 | Cpu::Avx2 | Cpu::Baseline => portable::function(rows, vectors, reads),
        Cpu::Neon => portable::function(rows, vectors, reads),
    }
}
