//! Panels of `B` that lie in memory in a narrow type, some with a scale for each column: a block of them is widened to
//! f32 when it is used, as a block of an operand that is packed would be.

use super::Cpu;
use super::arithmetic::Arithmetic;
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
#[derive(Clone, Copy, Debug)]
pub(super) struct Widen {
    /// Elements from one panel to the next.
    pub(super) panel_stride: usize,
    pub(super) narrow: Narrow,
    pub(super) scale: Scale,
    function: WidenFunction,
}

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
    pub(super) fn new(panel_stride: usize, narrow: Narrow, scale: Scale, cpu: Cpu) -> Widen {
        Widen { panel_stride, narrow, scale, function: widen_function(cpu, narrow) }
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
        let factors: [V; 2] = match scale {
            Scale::None => [V::splat(1.0); 2],
            Scale::One => [V::splat(*rows.scale); 2],
            Scale::Columns => core::array::from_fn(|vector| {
                let first = vector * V::LANES;
                let columns = rows.columns.saturating_sub(first).min(V::LANES);
                V::load_masked(rows.scale.wrapping_add(first), V::mask(0, columns))
            }),
        };
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

macro_rules! instruction_set {
    ($module:ident, $vector:ty $(, #[$features:meta])?) => {
        mod $module {
            use super::*;

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
