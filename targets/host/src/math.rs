//! Transcendental functions of f32 as polynomial code, the same for one element and for vectors, so that a result does
//! not depend on where its element lies. The polynomials are minimax fits of our own; bounds are checked by the tests:
//! exp 2, log 2, tanh 4, erf 4 units in the last place of the result, over all of f32.

use crate::code::Code;
use crate::micro::polynomials::{ERF, EXP, LN2_HIGH, LN2_LOW, LOG_ERFC, TANH};
use crate::shape::Shape;
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Value};

/// (ln(1 + f) − f + f²/2) / f³ for √½ − 1 ≤ f < √2 − 1.
const LOG: [f32; 9] = [
    0.333_333_13,
    -0.250_000_1,
    0.200_021_19,
    -0.166_679_96,
    0.142_195_53,
    -0.124_055_88,
    0.118_881_59,
    -0.116_756_54,
    0.067_466_51,
];

fn polynomial(code: &mut Code<'_>, shape: Shape, coefficients: &[f32], x: Value) -> Value {
    let (&last, rest) = coefficients.split_last().expect("a polynomial has coefficients");
    let mut sum = code.f32(shape, last);
    for &coefficient in rest.iter().rev() {
        let coefficient = code.f32(shape, coefficient);
        sum = code.multiply_add(sum, x, coefficient);
    }
    sum
}

/// The smaller of `x` and a constant; NaN stays.
fn at_most(code: &mut Code<'_>, shape: Shape, x: Value, limit: f32) -> Value {
    let limit = code.f32(shape, limit);
    let beyond = code.fcmp(shape, FloatCC::LessThan, limit, x);
    code.choose(shape, beyond, limit, x)
}

/// The larger of `x` and a constant; NaN stays.
fn at_least(code: &mut Code<'_>, shape: Shape, x: Value, limit: f32) -> Value {
    let limit = code.f32(shape, limit);
    let beyond = code.fcmp(shape, FloatCC::LessThan, x, limit);
    code.choose(shape, beyond, limit, x)
}

/// e^x as a product `significand * 2^n`: the significand and n.
fn exp_parts(code: &mut Code<'_>, shape: Shape, x: Value) -> (Value, Value) {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    let magic = code.f32(shape, 12_582_912.0);
    let log2e = code.f32(shape, std::f32::consts::LOG2_E);
    let shifted = code.multiply_add(x, log2e, magic);
    let count = code.b.ins().fsub(shifted, magic);
    let high = code.f32(shape, -LN2_HIGH);
    let low = code.f32(shape, -LN2_LOW);
    let rest = code.multiply_add(count, high, x);
    let rest = code.multiply_add(count, low, rest);
    let tail = polynomial(code, shape, &EXP, rest);
    let square = code.b.ins().fmul(rest, rest);
    let tail = code.multiply_add(tail, square, rest);
    let one = code.f32(shape, 1.0);
    let significand = code.b.ins().fadd(tail, one);
    let bits = code.bits(shape, shifted);
    let magic_bits = code.i32(shape, 12_582_912f32.to_bits().cast_signed());
    (significand, code.b.ins().isub(bits, magic_bits))
}

fn power_of_two(code: &mut Code<'_>, shape: Shape, exponent: Value) -> Value {
    let bias = code.i32(shape, 127);
    let biased = code.b.ins().iadd(exponent, bias);
    let bits = code.shift_left(biased, 23);
    code.float(shape, bits)
}

/// e to the operand.
pub(crate) fn exp(code: &mut Code<'_>, shape: Shape, x: Value) -> Value {
    let x = at_most(code, shape, x, 89.0);
    let x = at_least(code, shape, x, -104.0);
    let (significand, count) = exp_parts(code, shape, x);
    // Two factors, because 2^n itself may be out of range at either end.
    let first = code.shift_right_signed(count, 1);
    let second = code.b.ins().isub(count, first);
    let first = power_of_two(code, shape, first);
    let second = power_of_two(code, shape, second);
    let scaled = code.b.ins().fmul(significand, first);
    code.b.ins().fmul(scaled, second)
}

/// e to an operand that is not positive, where results below 1e-37 do not matter.
fn exp_negative(code: &mut Code<'_>, shape: Shape, x: Value) -> Value {
    let x = at_least(code, shape, x, -86.0);
    let (significand, count) = exp_parts(code, shape, x);
    let scale = power_of_two(code, shape, count);
    code.b.ins().fmul(significand, scale)
}

/// The natural logarithm.
pub(crate) fn log(code: &mut Code<'_>, shape: Shape, x: Value) -> Value {
    let smallest = code.f32(shape, f32::MIN_POSITIVE);
    let is_denormal = code.fcmp(shape, FloatCC::LessThan, x, smallest);
    let up = code.f32(shape, 8_388_608.0);
    let larger = code.b.ins().fmul(x, up);
    let normal = code.choose(shape, is_denormal, larger, x);
    let bits = code.bits(shape, normal);
    let root = code.i32(shape, std::f32::consts::FRAC_1_SQRT_2.to_bits().cast_signed());
    let above = code.b.ins().isub(bits, root);
    let exponent = code.shift_right_signed(above, 23);
    let exponent_bits = code.shift_left(exponent, 23);
    let significand = code.b.ins().isub(bits, exponent_bits);
    let significand = code.float(shape, significand);
    let less = code.i32(shape, 23);
    let lower = code.b.ins().isub(exponent, less);
    let exponent = code.choose(shape, is_denormal, lower, exponent);
    let count = code.b.ins().fcvt_from_sint(shape.of(cranelift_codegen::ir::types::F32), exponent);
    let one = code.f32(shape, 1.0);
    let f = code.b.ins().fsub(significand, one);
    let square = code.b.ins().fmul(f, f);
    let tail = polynomial(code, shape, &LOG, f);
    let tail = code.b.ins().fmul(tail, f);
    let half = code.f32(shape, -0.5);
    let tail = code.b.ins().fadd(tail, half);
    let low = code.f32(shape, LN2_LOW);
    let low = code.b.ins().fmul(count, low);
    let tail = code.multiply_add(tail, square, low);
    let tail = code.b.ins().fadd(tail, f);
    let high = code.f32(shape, LN2_HIGH);
    let value = code.multiply_add(count, high, tail);
    let infinity = code.f32(shape, f32::INFINITY);
    let is_finite = code.fcmp(shape, FloatCC::LessThan, x, infinity);
    let value = code.choose(shape, is_finite, value, x);
    let zero = code.f32(shape, 0.0);
    let is_zero = code.fcmp(shape, FloatCC::Equal, x, zero);
    let lowest = code.f32(shape, f32::NEG_INFINITY);
    let value = code.choose(shape, is_zero, lowest, value);
    let is_negative = code.fcmp(shape, FloatCC::LessThan, x, zero);
    let nan = code.f32(shape, f32::NAN);
    code.choose(shape, is_negative, nan, value)
}

fn magnitude(code: &mut Code<'_>, x: Value) -> Value {
    code.b.ins().fabs(x)
}

/// `magnitude` with the sign of `x`.
fn with_sign(code: &mut Code<'_>, shape: Shape, magnitude: Value, x: Value) -> Value {
    let bits = code.bits(shape, x);
    let sign = code.and_imm(shape, bits, i32::MIN);
    let bits = code.bits(shape, magnitude);
    let bits = code.b.ins().bor(bits, sign);
    code.float(shape, bits)
}

/// The hyperbolic tangent.
pub(crate) fn tanh(code: &mut Code<'_>, shape: Shape, x: Value) -> Value {
    let size = magnitude(code, x);
    let square = code.b.ins().fmul(x, x);
    let tail = polynomial(code, shape, &TANH, square);
    let tail = code.b.ins().fmul(tail, square);
    let small = code.multiply_add(tail, x, x);
    let minus_two = code.f32(shape, -2.0);
    let power = code.b.ins().fmul(size, minus_two);
    let power = exp_negative(code, shape, power);
    let one = code.f32(shape, 1.0);
    let below = code.b.ins().fsub(one, power);
    let above = code.b.ins().fadd(one, power);
    let large = code.b.ins().fdiv(below, above);
    let large = with_sign(code, shape, large, x);
    let limit = code.f32(shape, 0.625);
    let is_small = code.fcmp(shape, FloatCC::LessThan, size, limit);
    code.choose(shape, is_small, small, large)
}

/// The error function.
pub(crate) fn erf(code: &mut Code<'_>, shape: Shape, x: Value) -> Value {
    let size = magnitude(code, x);
    let square = code.b.ins().fmul(x, x);
    let tail = polynomial(code, shape, &ERF, square);
    let small = code.multiply_add(tail, x, x);
    let bounded = at_most(code, shape, size, 4.0);
    let power = polynomial(code, shape, &LOG_ERFC, bounded);
    let power = exp_negative(code, shape, power);
    let one = code.f32(shape, 1.0);
    let large = code.b.ins().fsub(one, power);
    let large = with_sign(code, shape, large, x);
    let is_small = code.fcmp(shape, FloatCC::LessThan, size, one);
    code.choose(shape, is_small, small, large)
}

/// 1 / (1 + e^−x).
pub(crate) fn sigmoid(code: &mut Code<'_>, shape: Shape, x: Value) -> Value {
    let minus = code.b.ins().fneg(x);
    let power = exp(code, shape, minus);
    let one = code.f32(shape, 1.0);
    let sum = code.b.ins().fadd(one, power);
    code.b.ins().fdiv(one, sum)
}
