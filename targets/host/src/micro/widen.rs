//! Panels of `B` that lie in memory in a narrow type, some with a scale for each column: a block of them is widened to
//! f32 when it is used, as a block of an operand that is packed would be. Few rows do not pay for that: their tiles widen
//! what they read.

use super::Cpu;
use super::arithmetic::Arithmetic;
use super::tile::{Tile, sum};
use super::vector::Portable;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64 as arch;
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m128, __m256, __m512};

/// The type of narrow elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrow {
    /// Signed bytes.
    I8,
    /// Unsigned bytes.
    U8,
    /// The upper half of an f32.
    BF16,
}

impl Narrow {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            Narrow::I8 | Narrow::U8 => 1,
            Narrow::BF16 => 2,
        }
    }
}

/// What widened elements are multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Nothing.
    None,
    /// One number for all.
    One,
    /// A number for each column.
    Columns,
}

/// How panels are widened.
#[derive(Clone, Debug)]
pub(super) struct Widen {
    /// Elements from one panel to the next.
    pub(super) panel_stride: usize,
    pub(super) narrow: Narrow,
    pub(super) scale: Scale,
    function: WidenFunction,
    /// Tiles that widen what they read, by `(rows - 1) * 2 + vectors - 1`; where there are some, nothing is widened
    /// before.
    pub(super) tiles: Vec<NarrowTile>,
}

/// A tile over a narrow panel, with its scales and columns, as in [`Rows`].
///
/// # Safety
/// As for [`super::tile::TileFunction`], and the scales are readable.
pub(super) type NarrowTile = unsafe fn(&Tile, Scale, *const f32, usize);

/// The most rows whose tiles widen what they read.
const MOST_NARROW_ROWS: usize = 3;

/// Some rows of a panel.
pub(super) struct Rows {
    pub(super) count: usize,
    pub(super) from: *const u8,
    /// The scale of the first column, or of all.
    pub(super) scale: *const f32,
    /// Columns that there are; the others of the panel have no scale.
    pub(super) columns: usize,
    pub(super) to: *mut f32,
}

/// # Safety
/// The machine has the instruction set; `count` rows of two vectors are readable and writable, and as many scales as the
/// plan says.
type WidenFunction = unsafe fn(&Rows, Scale);

impl Widen {
    /// For a product of `m` rows, whose elements along `k` lie side by side or, packed, those of a `k` do.
    pub(super) fn new(
        [panel_stride, m]: [usize; 2],
        narrow: Narrow,
        scale: Scale,
        cpu: Cpu,
        a_is_packed: bool,
    ) -> Widen {
        let rows = if m <= MOST_NARROW_ROWS { m } else { 0 };
        let shapes = (1..=rows).flat_map(|rows| [(rows, 1), (rows, 2)]);
        let tiles = shapes
            .map(|(rows, vectors)| narrow_tile(cpu, narrow, (rows, vectors, a_is_packed)))
            .collect();
        Widen { panel_stride, narrow, scale, function: widen_function(cpu, narrow), tiles }
    }

    /// # Safety
    /// See [`WidenFunction`].
    pub(super) unsafe fn run(&self, rows: &Rows) {
        // SAFETY: the caller's promise is the function's.
        unsafe { (self.function)(rows, self.scale) }
    }
}

/// A vector that can be loaded from narrow elements.
///
/// # Safety
/// Every method needs the machine to have the implementor's instructions, and as many elements readable as it has lanes.
trait Wide: Arithmetic {
    unsafe fn from_i8(from: *const u8) -> Self;
    unsafe fn from_u8(from: *const u8) -> Self;
    unsafe fn from_bf16(from: *const u8) -> Self;
}

#[cfg(target_arch = "x86_64")]
impl Wide for __m512 {
    #[inline(always)]
    unsafe fn from_i8(from: *const u8) -> Self {
        unsafe {
            let bytes = arch::_mm_loadu_si128(from.cast());
            arch::_mm512_cvtepi32_ps(arch::_mm512_cvtepi8_epi32(bytes))
        }
    }
    #[inline(always)]
    unsafe fn from_u8(from: *const u8) -> Self {
        unsafe {
            let bytes = arch::_mm_loadu_si128(from.cast());
            arch::_mm512_cvtepi32_ps(arch::_mm512_cvtepu8_epi32(bytes))
        }
    }
    #[inline(always)]
    unsafe fn from_bf16(from: *const u8) -> Self {
        unsafe {
            let halves = arch::_mm256_loadu_si256(from.cast());
            arch::_mm512_castsi512_ps(arch::_mm512_slli_epi32::<16>(arch::_mm512_cvtepu16_epi32(
                halves,
            )))
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for __m256 {
    #[inline(always)]
    unsafe fn from_i8(from: *const u8) -> Self {
        unsafe {
            let bytes = arch::_mm_loadl_epi64(from.cast());
            arch::_mm256_cvtepi32_ps(arch::_mm256_cvtepi8_epi32(bytes))
        }
    }
    #[inline(always)]
    unsafe fn from_u8(from: *const u8) -> Self {
        unsafe {
            let bytes = arch::_mm_loadl_epi64(from.cast());
            arch::_mm256_cvtepi32_ps(arch::_mm256_cvtepu8_epi32(bytes))
        }
    }
    #[inline(always)]
    unsafe fn from_bf16(from: *const u8) -> Self {
        unsafe {
            let halves = arch::_mm_loadu_si128(from.cast());
            arch::_mm256_castsi256_ps(arch::_mm256_slli_epi32::<16>(arch::_mm256_cvtepu16_epi32(
                halves,
            )))
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Wide for __m128 {
    #[inline(always)]
    unsafe fn from_i8(from: *const u8) -> Self {
        unsafe { arch::_mm_loadu_ps(lanes(from, |byte: i8| f32::from(byte)).as_ptr()) }
    }
    #[inline(always)]
    unsafe fn from_u8(from: *const u8) -> Self {
        unsafe { arch::_mm_loadu_ps(lanes(from, |byte: u8| f32::from(byte)).as_ptr()) }
    }
    #[inline(always)]
    unsafe fn from_bf16(from: *const u8) -> Self {
        unsafe { arch::_mm_loadu_ps(lanes(from, widen_bf16).as_ptr()) }
    }
}

impl Wide for Portable {
    #[inline(always)]
    unsafe fn from_i8(from: *const u8) -> Self {
        Portable(unsafe { lanes(from, |byte: i8| f32::from(byte)) })
    }
    #[inline(always)]
    unsafe fn from_u8(from: *const u8) -> Self {
        Portable(unsafe { lanes(from, |byte: u8| f32::from(byte)) })
    }
    #[inline(always)]
    unsafe fn from_bf16(from: *const u8) -> Self {
        Portable(unsafe { lanes(from, widen_bf16) })
    }
}

fn widen_bf16(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

/// Four elements, one by one.
#[inline(always)]
unsafe fn lanes<N: Copy>(from: *const u8, widen: impl Fn(N) -> f32) -> [f32; 4] {
    // SAFETY: the caller makes four elements readable.
    unsafe { from.cast::<[N; 4]>().read_unaligned() }.map(widen)
}

#[inline(always)]
unsafe fn widen<V: Wide>(rows: &Rows, scale: Scale, bytes: usize, load: impl Fn(*const u8) -> V) {
    // SAFETY: the caller vouches for the rows and the scales; see `WidenFunction`.
    unsafe {
        let factors = factors::<V>(scale, rows.scale, rows.columns);
        for vector in 0..2 * rows.count {
            let element = vector * V::LANES;
            let mut wide = load(rows.from.add(element * bytes));
            if scale != Scale::None {
                wide = wide.multiply(factors[vector % 2]);
            }
            wide.store(rows.to.add(element));
        }
    }
}

/// What the two vectors of a panel's row are multiplied with.
#[inline(always)]
unsafe fn factors<V: Wide>(scale: Scale, from: *const f32, columns: usize) -> [V; 2] {
    // SAFETY: the caller makes as many scales readable as the plan says.
    unsafe {
        match scale {
            Scale::None => [V::splat(1.0); 2],
            Scale::One => [V::splat(*from); 2],
            Scale::Columns => core::array::from_fn(|vector| {
                let first = vector * V::LANES;
                let columns = columns.saturating_sub(first).min(V::LANES);
                V::load_masked(from.wrapping_add(first), V::mask(0, columns))
            }),
        }
    }
}

/// A tile that widens what it reads, to the same elements that [`widen`] would write.
#[inline(always)]
unsafe fn narrow<V: Wide, const ROWS: usize, const VECTORS: usize, const DIRECT_A: bool>(
    tile: &Tile,
    factors: [V; 2],
    scaled: bool,
    bytes: usize,
    load: impl Fn(*const u8) -> V,
) {
    // SAFETY: the caller vouches for what the tile addresses; a panel has two vectors for each `k`.
    unsafe {
        let columns = |b: *const u8| {
            core::array::from_fn(|vector| {
                let wide = load(b.wrapping_add(vector * V::LANES * bytes));
                if scaled { wide.multiply(factors[vector]) } else { wide }
            })
        };
        sum::<V, ROWS, VECTORS, DIRECT_A>(tile, 2 * V::LANES * bytes, columns);
    }
}

macro_rules! narrow_tiles {
    ($name:ident, $of:ident, $vector:ty, $bytes:literal, $load:ident $(, #[$features:meta])?) => {
        $(#[$features])?
        unsafe fn $of<const ROWS: usize, const VECTORS: usize, const DIRECT_A: bool>(
            tile: &Tile,
            scale: Scale,
            from: *const f32,
            columns: usize,
        ) {
            // SAFETY: the features are enabled, and the caller vouches for the addresses.
            unsafe {
                let load = |from| <$vector>::$load(from);
                let factors = factors::<$vector>(scale, from, columns);
                match scale {
                    Scale::None => narrow::<$vector, ROWS, VECTORS, DIRECT_A>(tile, factors, false, $bytes, load),
                    Scale::One | Scale::Columns => {
                        narrow::<$vector, ROWS, VECTORS, DIRECT_A>(tile, factors, true, $bytes, load);
                    }
                }
            }
        }

        fn $name(shape: (usize, usize, bool)) -> NarrowTile {
            match shape {
                (1, 1, false) => $of::<1, 1, true>,
                (1, _, false) => $of::<1, 2, true>,
                (2, 1, false) => $of::<2, 1, true>,
                (2, _, false) => $of::<2, 2, true>,
                (_, 1, false) => $of::<3, 1, true>,
                (_, _, false) => $of::<3, 2, true>,
                (1, 1, true) => $of::<1, 1, false>,
                (1, _, true) => $of::<1, 2, false>,
                (2, 1, true) => $of::<2, 1, false>,
                (2, _, true) => $of::<2, 2, false>,
                (_, 1, true) => $of::<3, 1, false>,
                (_, _, true) => $of::<3, 2, false>,
            }
        }
    };
}

macro_rules! instruction_set {
    ($module:ident, $vector:ty $(, #[$features:meta])?) => {
        mod $module {
            use super::*;

            narrow_tiles!(tiles_of_i8, tile_of_i8, $vector, 1, from_i8 $(, #[$features])?);
            narrow_tiles!(tiles_of_u8, tile_of_u8, $vector, 1, from_u8 $(, #[$features])?);
            narrow_tiles!(tiles_of_bf16, tile_of_bf16, $vector, 2, from_bf16 $(, #[$features])?);

            pub(super) fn tile(narrow: Narrow, shape: (usize, usize, bool)) -> NarrowTile {
                match narrow {
                    Narrow::I8 => tiles_of_i8(shape),
                    Narrow::U8 => tiles_of_u8(shape),
                    Narrow::BF16 => tiles_of_bf16(shape),
                }
            }

            $(#[$features])?
            unsafe fn from_i8(rows: &Rows, scale: Scale) {
                // SAFETY: the features are enabled, and the caller vouches for the addresses.
                unsafe { widen::<$vector>(rows, scale, 1, |from| <$vector>::from_i8(from)) }
            }

            $(#[$features])?
            unsafe fn from_u8(rows: &Rows, scale: Scale) {
                // SAFETY: the features are enabled, and the caller vouches for the addresses.
                unsafe { widen::<$vector>(rows, scale, 1, |from| <$vector>::from_u8(from)) }
            }

            $(#[$features])?
            unsafe fn from_bf16(rows: &Rows, scale: Scale) {
                // SAFETY: the features are enabled, and the caller vouches for the addresses.
                unsafe { widen::<$vector>(rows, scale, 2, |from| <$vector>::from_bf16(from)) }
            }

            pub(super) fn function(narrow: Narrow) -> WidenFunction {
                match narrow {
                    Narrow::I8 => from_i8,
                    Narrow::U8 => from_u8,
                    Narrow::BF16 => from_bf16,
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(avx512, __m512, #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, __m256, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
instruction_set!(sse, __m128);
instruction_set!(portable, Portable);

/// The tile of so many rows and vectors, over packed `A` or not.
fn narrow_tile(cpu: Cpu, narrow: Narrow, shape: (usize, usize, bool)) -> NarrowTile {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 => avx512::tile(narrow, shape),
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2 => avx2::tile(narrow, shape),
        #[cfg(target_arch = "x86_64")]
        Cpu::Baseline => sse::tile(narrow, shape),
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Avx512 | Cpu::Avx2 | Cpu::Baseline => portable::tile(narrow, shape),
        Cpu::Neon => portable::tile(narrow, shape),
    }
}

fn widen_function(cpu: Cpu, narrow: Narrow) -> WidenFunction {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 => avx512::function(narrow),
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2 => avx2::function(narrow),
        #[cfg(target_arch = "x86_64")]
        Cpu::Baseline => sse::function(narrow),
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Avx512 | Cpu::Avx2 | Cpu::Baseline => portable::function(narrow),
        Cpu::Neon => portable::function(narrow),
    }
}
