//! What elementwise functions need of a vector beyond products.

use super::vector::{Portable, Vector};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64 as arch;

/// 1.5 · 2²³: added to a small number, it leaves the nearest integer in the low bits.
pub(super) const MAGIC: f32 = 12_582_912.0;

/// Arithmetic on all lanes.
///
/// # Safety
/// Every method needs the machine to have the implementor's instructions.
pub(super) trait Arithmetic: Vector {
    unsafe fn subtract(self, other: Self) -> Self;
    unsafe fn multiply(self, other: Self) -> Self;
    unsafe fn divide(self, other: Self) -> Self;
    /// The smaller of a lane and the limit; NaN stays.
    unsafe fn at_most(self, limit: Self) -> Self;
    /// The larger of a lane and the limit; NaN stays.
    unsafe fn at_least(self, limit: Self) -> Self;
    unsafe fn magnitude(self) -> Self;
    /// The lanes, which have no sign, with the signs of `other`.
    unsafe fn with_sign_of(self, other: Self) -> Self;
    /// `then` where `self < other`, else `otherwise`.
    unsafe fn if_less(self, other: Self, then: Self, otherwise: Self) -> Self;
    /// `self · 2^n`, where `shifted` is `n + MAGIC` and the result may be out of range at either end.
    unsafe fn scale(self, shifted: Self) -> Self;
    /// The largest lane, where none is NaN.
    unsafe fn largest(self) -> f32;
}

#[cfg(target_arch = "x86_64")]
impl Arithmetic for arch::__m512 {
    #[inline(always)]
    unsafe fn subtract(self, other: Self) -> Self {
        unsafe { arch::_mm512_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn multiply(self, other: Self) -> Self {
        unsafe { arch::_mm512_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn divide(self, other: Self) -> Self {
        unsafe { arch::_mm512_div_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn at_most(self, limit: Self) -> Self {
        unsafe { arch::_mm512_min_ps(limit, self) }
    }
    #[inline(always)]
    unsafe fn at_least(self, limit: Self) -> Self {
        unsafe { arch::_mm512_max_ps(limit, self) }
    }
    #[inline(always)]
    unsafe fn magnitude(self) -> Self {
        unsafe { arch::_mm512_abs_ps(self) }
    }
    #[inline(always)]
    unsafe fn with_sign_of(self, other: Self) -> Self {
        unsafe { arch::_mm512_or_ps(self, arch::_mm512_and_ps(other, arch::_mm512_set1_ps(-0.0))) }
    }
    #[inline(always)]
    unsafe fn if_less(self, other: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let less = arch::_mm512_cmp_ps_mask::<{ arch::_CMP_LT_OQ }>(self, other);
            arch::_mm512_mask_blend_ps(less, otherwise, then)
        }
    }
    #[inline(always)]
    unsafe fn scale(self, shifted: Self) -> Self {
        unsafe {
            arch::_mm512_scalef_ps(self, arch::_mm512_sub_ps(shifted, arch::_mm512_set1_ps(MAGIC)))
        }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe { arch::_mm512_reduce_max_ps(self) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Arithmetic for arch::__m256 {
    #[inline(always)]
    unsafe fn subtract(self, other: Self) -> Self {
        unsafe { arch::_mm256_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn multiply(self, other: Self) -> Self {
        unsafe { arch::_mm256_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn divide(self, other: Self) -> Self {
        unsafe { arch::_mm256_div_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn at_most(self, limit: Self) -> Self {
        unsafe { arch::_mm256_min_ps(limit, self) }
    }
    #[inline(always)]
    unsafe fn at_least(self, limit: Self) -> Self {
        unsafe { arch::_mm256_max_ps(limit, self) }
    }
    #[inline(always)]
    unsafe fn magnitude(self) -> Self {
        unsafe { arch::_mm256_andnot_ps(arch::_mm256_set1_ps(-0.0), self) }
    }
    #[inline(always)]
    unsafe fn with_sign_of(self, other: Self) -> Self {
        unsafe { arch::_mm256_or_ps(self, arch::_mm256_and_ps(other, arch::_mm256_set1_ps(-0.0))) }
    }
    #[inline(always)]
    unsafe fn if_less(self, other: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let less = arch::_mm256_cmp_ps::<{ arch::_CMP_LT_OQ }>(self, other);
            arch::_mm256_blendv_ps(otherwise, then, less)
        }
    }
    #[inline(always)]
    unsafe fn scale(self, shifted: Self) -> Self {
        unsafe {
            let magic = arch::_mm256_set1_epi32(MAGIC.to_bits().cast_signed());
            let count = arch::_mm256_sub_epi32(arch::_mm256_castps_si256(shifted), magic);
            // Two factors, because 2^n itself may be out of range.
            let first = arch::_mm256_srai_epi32::<1>(count);
            let second = arch::_mm256_sub_epi32(count, first);
            let bias = arch::_mm256_set1_epi32(127);
            let power = |n| {
                arch::_mm256_castsi256_ps(arch::_mm256_slli_epi32::<23>(arch::_mm256_add_epi32(
                    n, bias,
                )))
            };
            arch::_mm256_mul_ps(arch::_mm256_mul_ps(self, power(first)), power(second))
        }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe {
            let half = arch::_mm_max_ps(
                arch::_mm256_castps256_ps128(self),
                arch::_mm256_extractf128_ps::<1>(self),
            );
            half.largest()
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Arithmetic for arch::__m128 {
    #[inline(always)]
    unsafe fn subtract(self, other: Self) -> Self {
        unsafe { arch::_mm_sub_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn multiply(self, other: Self) -> Self {
        unsafe { arch::_mm_mul_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn divide(self, other: Self) -> Self {
        unsafe { arch::_mm_div_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn at_most(self, limit: Self) -> Self {
        unsafe { arch::_mm_min_ps(limit, self) }
    }
    #[inline(always)]
    unsafe fn at_least(self, limit: Self) -> Self {
        unsafe { arch::_mm_max_ps(limit, self) }
    }
    #[inline(always)]
    unsafe fn magnitude(self) -> Self {
        unsafe { arch::_mm_andnot_ps(arch::_mm_set1_ps(-0.0), self) }
    }
    #[inline(always)]
    unsafe fn with_sign_of(self, other: Self) -> Self {
        unsafe { arch::_mm_or_ps(self, arch::_mm_and_ps(other, arch::_mm_set1_ps(-0.0))) }
    }
    #[inline(always)]
    unsafe fn if_less(self, other: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let less = arch::_mm_cmplt_ps(self, other);
            arch::_mm_or_ps(arch::_mm_and_ps(less, then), arch::_mm_andnot_ps(less, otherwise))
        }
    }
    #[inline(always)]
    unsafe fn scale(self, shifted: Self) -> Self {
        unsafe {
            let magic = arch::_mm_set1_epi32(MAGIC.to_bits().cast_signed());
            let count = arch::_mm_sub_epi32(arch::_mm_castps_si128(shifted), magic);
            // Two factors, because 2^n itself may be out of range.
            let first = arch::_mm_srai_epi32::<1>(count);
            let second = arch::_mm_sub_epi32(count, first);
            let bias = arch::_mm_set1_epi32(127);
            let power = |n| {
                arch::_mm_castsi128_ps(arch::_mm_slli_epi32::<23>(arch::_mm_add_epi32(n, bias)))
            };
            arch::_mm_mul_ps(arch::_mm_mul_ps(self, power(first)), power(second))
        }
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        unsafe {
            let pairs = arch::_mm_max_ps(self, arch::_mm_movehl_ps(self, self));
            let both = arch::_mm_max_ss(pairs, arch::_mm_shuffle_ps::<1>(pairs, pairs));
            arch::_mm_cvtss_f32(both)
        }
    }
}

impl Portable {
    #[inline(always)]
    fn zip(self, other: Portable, function: impl Fn(f32, f32) -> f32) -> Portable {
        Portable(core::array::from_fn(|lane| function(self.0[lane], other.0[lane])))
    }
}

impl Arithmetic for Portable {
    #[inline(always)]
    unsafe fn subtract(self, other: Self) -> Self {
        self.zip(other, |x, y| x - y)
    }
    #[inline(always)]
    unsafe fn multiply(self, other: Self) -> Self {
        self.zip(other, |x, y| x * y)
    }
    #[inline(always)]
    unsafe fn divide(self, other: Self) -> Self {
        self.zip(other, |x, y| x / y)
    }
    #[inline(always)]
    unsafe fn at_most(self, limit: Self) -> Self {
        self.zip(limit, |x, limit| if limit < x { limit } else { x })
    }
    #[inline(always)]
    unsafe fn at_least(self, limit: Self) -> Self {
        self.zip(limit, |x, limit| if limit > x { limit } else { x })
    }
    #[inline(always)]
    unsafe fn magnitude(self) -> Self {
        Portable(self.0.map(f32::abs))
    }
    #[inline(always)]
    unsafe fn with_sign_of(self, other: Self) -> Self {
        self.zip(other, f32::copysign)
    }
    #[inline(always)]
    unsafe fn if_less(self, other: Self, then: Self, otherwise: Self) -> Self {
        Portable(core::array::from_fn(|lane| {
            if self.0[lane] < other.0[lane] { then.0[lane] } else { otherwise.0[lane] }
        }))
    }
    #[inline(always)]
    unsafe fn scale(self, shifted: Self) -> Self {
        self.zip(shifted, |x, shifted| {
            let count = shifted.to_bits().wrapping_sub(MAGIC.to_bits()).cast_signed();
            // Two factors, because 2^n itself may be out of range.
            let power = |n: i32| f32::from_bits((n.wrapping_add(127).cast_unsigned()) << 23);
            x * power(count >> 1) * power(count.wrapping_sub(count >> 1))
        })
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        a.max(b).max(c.max(d))
    }
}
