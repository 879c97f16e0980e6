//! Elementwise functions and normalised rows over runs of f32, by the widest vectors of the machine.
//!
//! Generated code has 128-bit vectors. Where a transcendental function is applied to a run of neighbours, it may call one
//! of these on the run instead; a few hundred elements make the call worth its while. Generated code evaluates the same
//! `polynomials.rs` in the same order, so that with fused multiply-add both give the same bits, and the same element gives the
//! same result wherever it lies in a run. Errors are bounded over all of f32 and checked by the tests, in units in the
//! last place of the exact result: exp 2, tanh 4, erf 4, sigmoid 4 (but 0 where it is below the smallest normal number).
//! `gelu` errs by 4e-7 of max(|x|, 1), a softmax by 1e-6 of its largest element, both as far as tests sampled.
//!
//! To call one: [`function`] gives the address for the instruction set, with the C calling convention and the
//! parameters `(target, source, count)`. It keeps no state and may be called from any thread. Target and source are the
//! same run or do not overlap.

use super::Cpu;
use super::arithmetic::{Arithmetic, MAGIC};
use super::polynomials::{ERF, EXP, LN2_HIGH, LN2_LOW, LOG_ERFC, TANH};
use super::vector::{Portable, Vector};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m128, __m256, __m512};
use core::f32::consts::{FRAC_1_SQRT_2, LOG2_E};

/// A function of a run of neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wide {
    /// e to the element.
    Exp,
    /// The hyperbolic tangent.
    Tanh,
    /// The error function.
    Erf,
    /// 1 / (1 + e^−x).
    Sigmoid,
    /// x · Φ(x), by the error function.
    Gelu,
    /// The approximation of gelu by the hyperbolic tangent.
    GeluTanh,
    /// x / (1 + e^−x).
    Silu,
    /// e^(x − largest) divided by the sum of these over the run.
    Softmax,
}

/// `(target, source, count)`.
///
/// # Safety
/// The machine has the instruction set; `count` elements are writable at the target and readable at the source, and the
/// two are the same run or do not overlap.
pub type WideFunction = unsafe extern "C" fn(*mut f32, *const f32, usize);

/// `(target, source, count, scale, shift, epsilon)`: `(x − mean) / √(variance + epsilon) · scale + shift` over a row. Scale
/// and shift are rows too; either may be null.
///
/// # Safety
/// As for [`WideFunction`]; scale and shift are null or have `count` readable elements.
pub type NormFunction =
    unsafe extern "C" fn(*mut f32, *const f32, usize, *const f32, *const f32, f32);

#[inline(always)]
unsafe fn polynomial<V: Arithmetic>(coefficients: &[f32], x: V) -> V {
    // SAFETY: as for `Arithmetic`, here and below; the entry functions enable the features.
    unsafe {
        let mut sum = V::splat(coefficients[coefficients.len() - 1]);
        for coefficient in coefficients[..coefficients.len() - 1].iter().rev() {
            sum = sum.multiply_add(x, V::splat(*coefficient));
        }
        sum
    }
}

/// e^x as a significand and `n + MAGIC`, where e^x is `significand · 2^n`.
#[inline(always)]
unsafe fn exp_parts<V: Arithmetic>(x: V) -> (V, V) {
    unsafe {
        let shifted = x.multiply_add(V::splat(LOG2_E), V::splat(MAGIC));
        let count = shifted.subtract(V::splat(MAGIC));
        let rest = count.multiply_add(V::splat(-LN2_HIGH), x);
        let rest = count.multiply_add(V::splat(-LN2_LOW), rest);
        let tail = polynomial(&EXP, rest).multiply_add(rest.multiply(rest), rest);
        (tail.add(V::splat(1.0)), shifted)
    }
}

#[inline(always)]
unsafe fn exp<V: Arithmetic>(x: V) -> V {
    unsafe {
        let x = x.at_most(V::splat(89.0)).at_least(V::splat(-104.0));
        let (significand, shifted) = exp_parts(x);
        significand.scale(shifted)
    }
}

/// e^x where x is not positive and results below 1e-37 do not matter.
#[inline(always)]
unsafe fn exp_negative<V: Arithmetic>(x: V) -> V {
    unsafe {
        let (significand, shifted) = exp_parts(x.at_least(V::splat(-86.0)));
        significand.scale(shifted)
    }
}

#[inline(always)]
unsafe fn tanh<V: Arithmetic>(x: V) -> V {
    unsafe {
        let size = x.magnitude();
        let square = x.multiply(x);
        let small = polynomial(&TANH, square).multiply(square).multiply_add(x, x);
        let power = exp_negative(size.multiply(V::splat(-2.0)));
        let one = V::splat(1.0);
        let large = one.subtract(power).divide(one.add(power)).with_sign_of(x);
        size.if_less(V::splat(0.625), small, large)
    }
}

#[inline(always)]
unsafe fn erf<V: Arithmetic>(x: V) -> V {
    unsafe {
        let size = x.magnitude();
        let small = polynomial(&ERF, x.multiply(x)).multiply_add(x, x);
        let power = exp_negative(polynomial(&LOG_ERFC, size.at_most(V::splat(4.0))));
        let large = V::splat(1.0).subtract(power).with_sign_of(x);
        size.if_less(V::splat(1.0), small, large)
    }
}

#[inline(always)]
unsafe fn one_and_exp_of_minus<V: Arithmetic>(x: V) -> V {
    unsafe { V::splat(1.0).add(exp(V::zero().subtract(x))) }
}

#[inline(always)]
unsafe fn gelu<V: Arithmetic>(x: V) -> V {
    unsafe {
        let half = x.multiply(V::splat(0.5));
        half.multiply(erf(x.multiply(V::splat(FRAC_1_SQRT_2))).add(V::splat(1.0)))
    }
}

#[inline(always)]
unsafe fn gelu_tanh<V: Arithmetic>(x: V) -> V {
    /// √(2/π).
    const SLOPE: f32 = 0.797_884_6;
    unsafe {
        let cube = x.multiply(x).multiply(x);
        let inner = cube.multiply_add(V::splat(0.044_715), x).multiply(V::splat(SLOPE));
        x.multiply(V::splat(0.5)).multiply(tanh(inner).add(V::splat(1.0)))
    }
}

/// Runs a body for every vector of a run: `$index` is its first element, `$mask` its lanes where these are not all. A macro,
/// because a closure that is called from two places may stay a function without the instruction set's features.
macro_rules! each_vector {
    ($vector:ty, $count:expr, |$index:ident, $mask:ident| $body:expr) => {{
        let mut $index = 0;
        while $index + <$vector>::LANES <= $count {
            let $mask: Option<<$vector>::Mask> = None;
            $body;
            $index += <$vector>::LANES;
        }
        if $index < $count {
            let $mask = Some(<$vector>::mask(0, $count - $index));
            $body;
        }
    }};
}

/// Applies a function to every element.
#[inline(always)]
unsafe fn map<V: Arithmetic>(
    target: *mut f32,
    source: *const f32,
    count: usize,
    function: impl Fn(V) -> V,
) {
    unsafe {
        each_vector!(V, count, |index, mask| match mask {
            None => function(V::load(source.add(index))).store(target.add(index)),
            Some(mask) => function(V::load_masked(source.add(index), mask))
                .store_masked(target.add(index), mask),
        });
    }
}

#[inline(always)]
unsafe fn softmax<V: Arithmetic>(target: *mut f32, source: *const f32, count: usize) {
    unsafe {
        let lowest = V::splat(f32::NEG_INFINITY);
        let mut largest = [lowest; 2];
        each_vector!(V, count, |index, mask| {
            let which = index / V::LANES % 2;
            let vector = match mask {
                None => V::load(source.add(index)),
                Some(mask) => lowest.or_masked(source.add(index), mask),
            };
            // A NaN may get lost here; the sum meets it again.
            largest[which] = vector.at_least(largest[which]);
        });
        let top = V::splat(largest[0].at_least(largest[1]).largest());
        let mut sums = [V::zero(); 2];
        each_vector!(V, count, |index, mask| {
            let which = index / V::LANES % 2;
            let vector = match mask {
                None => V::load(source.add(index)),
                Some(mask) => lowest.or_masked(source.add(index), mask),
            };
            let power = exp(vector.subtract(top));
            match mask {
                None => {
                    sums[which] = sums[which].add(power);
                    power.store(target.add(index));
                }
                Some(mask) => {
                    power.store_masked(target.add(index), mask);
                    sums[which] = sums[which].add(V::load_masked(target.add(index), mask));
                }
            }
        });
        let share = V::splat(1.0 / sums[0].add(sums[1]).sum());
        map::<V>(target, target, count, |power| power.multiply(share));
    }
}

#[inline(always)]
unsafe fn layer_norm<V: Arithmetic>(
    target: *mut f32,
    source: *const f32,
    count: usize,
    scale: *const f32,
    shift: *const f32,
    epsilon: f32,
) {
    unsafe {
        let mut sums = [V::zero(); 2];
        each_vector!(V, count, |index, mask| {
            let which = index / V::LANES % 2;
            sums[which] = sums[which].add(load(source.add(index), mask));
        });
        let mean = V::splat(sums[0].add(sums[1]).sum() / count as f32);
        let mut squares = [V::zero(); 2];
        each_vector!(V, count, |index, mask| {
            let which = index / V::LANES % 2;
            // Lanes beyond the run hold the mean, so that they add nothing.
            let vector = match mask {
                None => V::load(source.add(index)),
                Some(mask) => mean.or_masked(source.add(index), mask),
            };
            let distance = vector.subtract(mean);
            squares[which] = distance.multiply_add(distance, squares[which]);
        });
        let variance = squares[0].add(squares[1]).sum() / count as f32;
        let factor = V::splat(1.0 / (variance + epsilon).sqrt());
        each_vector!(V, count, |index, mask| {
            let mut vector = load::<V>(source.add(index), mask).subtract(mean).multiply(factor);
            if !scale.is_null() {
                vector = vector.multiply(load(scale.add(index), mask));
            }
            if !shift.is_null() {
                vector = vector.add(load(shift.add(index), mask));
            }
            match mask {
                None => vector.store(target.add(index)),
                Some(mask) => vector.store_masked(target.add(index), mask),
            }
        });
    }
}

#[inline(always)]
unsafe fn load<V: Vector>(from: *const f32, mask: Option<V::Mask>) -> V {
    unsafe {
        match mask {
            None => V::load(from),
            Some(mask) => V::load_masked(from, mask),
        }
    }
}

macro_rules! entry {
    ($name:ident, $vector:ty, ($($features:literal)?), |$x:ident| $value:expr) => {
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn $name(target: *mut f32, source: *const f32, count: usize) {
            // SAFETY: the features are enabled, and the caller vouches for the addresses.
            unsafe { map::<$vector>(target, source, count, |$x| $value) }
        }
    };
}

macro_rules! instruction_set {
    ($module:ident, $vector:ty, $features:tt) => {
        mod $module {
            use super::*;

            entry!(exp, $vector, $features, |x| super::exp(x));
            entry!(tanh, $vector, $features, |x| super::tanh(x));
            entry!(erf, $vector, $features, |x| super::erf(x));
            entry!(sigmoid, $vector, $features, |x| <$vector>::splat(1.0)
                .divide(one_and_exp_of_minus(x)));
            entry!(silu, $vector, $features, |x| x.divide(one_and_exp_of_minus(x)));
            entry!(gelu, $vector, $features, |x| super::gelu(x));
            entry!(gelu_tanh, $vector, $features, |x| super::gelu_tanh(x));
            rows!($vector, $features);

            pub(super) fn function(wide: Wide) -> WideFunction {
                match wide {
                    Wide::Exp => exp,
                    Wide::Tanh => tanh,
                    Wide::Erf => erf,
                    Wide::Sigmoid => sigmoid,
                    Wide::Gelu => gelu,
                    Wide::GeluTanh => gelu_tanh,
                    Wide::Silu => silu,
                    Wide::Softmax => softmax,
                }
            }
        }
    };
}

macro_rules! rows {
    ($vector:ty, ($($features:literal)?)) => {
        $(#[target_feature(enable = $features)])?
        unsafe extern "C" fn softmax(target: *mut f32, source: *const f32, count: usize) {
            // SAFETY: the features are enabled, and the caller vouches for the addresses.
            unsafe { super::softmax::<$vector>(target, source, count) }
        }

        $(#[target_feature(enable = $features)])?
        pub(super) unsafe extern "C" fn layer_norm(
            target: *mut f32,
            source: *const f32,
            count: usize,
            scale: *const f32,
            shift: *const f32,
            epsilon: f32,
        ) {
            // SAFETY: the features are enabled, and the caller vouches for the addresses.
            unsafe { super::layer_norm::<$vector>(target, source, count, scale, shift, epsilon) }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(avx512, __m512, ("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"));
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, __m256, ("avx2,fma"));
#[cfg(target_arch = "x86_64")]
instruction_set!(sse, __m128, ());
instruction_set!(portable, Portable, ());

/// The function for an instruction set, which the machine that calls it must have.
pub fn function(cpu: Cpu, wide: Wide) -> WideFunction {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 => avx512::function(wide),
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2 => avx2::function(wide),
        #[cfg(target_arch = "x86_64")]
        Cpu::Baseline => sse::function(wide),
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Avx512 | Cpu::Avx2 | Cpu::Baseline => portable::function(wide),
        Cpu::Neon => portable::function(wide),
    }
}

/// The layer normalisation for an instruction set, which the machine that calls it must have.
pub fn layer_norm_function(cpu: Cpu) -> NormFunction {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 => avx512::layer_norm,
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2 => avx2::layer_norm,
        #[cfg(target_arch = "x86_64")]
        Cpu::Baseline => sse::layer_norm,
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Avx512 | Cpu::Avx2 | Cpu::Baseline => portable::layer_norm,
        Cpu::Neon => portable::layer_norm,
    }
}
