//! The scalar table as code: one function on values in registers, exactly as `compiler/src/scalar.rs` says, transcendental
//! functions within the bounds of [`crate::math`].

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use crate::code::Code;
use crate::helpers;
use crate::math;
use crate::shape::Shape;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types};
use systole_compiler::kernel::Combine;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::{Class, DType};

/// A function of values of the type `dtype` (of `select`, the type of what is selected), rounded to it; `None` where
/// vectors cannot, and scalars have to.
pub(crate) fn call(
    code: &mut Code<'_>,
    shape: Shape,
    function: ScalarFn,
    dtype: DType,
    x: &[Value],
) -> Option<Value> {
    if shape == Shape::Vector && dtype.bits() == 64 {
        return None;
    }
    if function == ScalarFn::Select {
        return Some(code.choose(shape, x[0], x[1], x[2]));
    }
    let value = match dtype.class() {
        Class::Bool => return Some(of_bools(code, shape, function, x)),
        Class::Float => of_floats(code, shape, function, dtype, x)?,
        Class::Signed | Class::Unsigned => of_integers(code, shape, function, dtype, x)?,
    };
    let types = vec![dtype; function.arity()];
    match function.result(&types) {
        Ok(DType::Bool) => Some(value),
        Ok(_) | Err(_) => code.round(shape, dtype, value),
    }
}

/// Whether `call` has vector code for a function of that type.
pub(crate) fn is_heavy(function: ScalarFn) -> bool {
    use ScalarFn as F;
    matches!(
        function,
        F::Exp
            | F::Log
            | F::Tanh
            | F::Erf
            | F::Sigmoid
            | F::Sin
            | F::Cos
            | F::Pow
            | F::Exp2
            | F::Expm1
            | F::Log1p
    )
}

fn of_bools(code: &mut Code<'_>, shape: Shape, function: ScalarFn, x: &[Value]) -> Value {
    use ScalarFn as F;
    let not = |code: &mut Code<'_>, value| match shape {
        Shape::Scalar => code.b.ins().bxor_imm_u(value, 1),
        Shape::Vector => code.b.ins().bnot(value),
    };
    match function {
        F::Not => not(code, x[0]),
        F::And => code.b.ins().band(x[0], x[1]),
        F::Or => code.b.ins().bor(x[0], x[1]),
        F::Xor | F::Ne => code.b.ins().bxor(x[0], x[1]),
        F::Eq => {
            let differ = code.b.ins().bxor(x[0], x[1]);
            not(code, differ)
        }
        F::Lt => {
            let first = not(code, x[0]);
            code.b.ins().band(first, x[1])
        }
        F::Le => {
            let first = not(code, x[0]);
            code.b.ins().bor(first, x[1])
        }
        F::Gt => {
            let second = not(code, x[1]);
            code.b.ins().band(x[0], second)
        }
        F::Ge => {
            let second = not(code, x[1]);
            code.b.ins().bor(x[0], second)
        }
        other => unreachable!("{} does not take bools", other.name()),
    }
}

fn of_floats(
    code: &mut Code<'_>,
    shape: Shape,
    function: ScalarFn,
    dtype: DType,
    x: &[Value],
) -> Option<Value> {
    use ScalarFn as F;
    let wide = dtype == DType::F64;
    let constant = |code: &mut Code<'_>, value: f64| {
        if wide { code.b.ins().f64const(value) } else { code.f32(shape, value as f32) }
    };
    Some(match function {
        F::Neg => code.b.ins().fneg(x[0]),
        F::Abs => code.b.ins().fabs(x[0]),
        F::Sign => {
            let zero = constant(code, 0.0);
            let one = constant(code, 1.0);
            let minus = constant(code, -1.0);
            let below = code.fcmp(shape, FloatCC::LessThan, x[0], zero);
            let above = code.fcmp(shape, FloatCC::LessThan, zero, x[0]);
            let low = code.choose(shape, below, minus, x[0]);
            code.choose(shape, above, one, low)
        }
        F::Floor => code.b.ins().floor(x[0]),
        F::Ceil => code.b.ins().ceil(x[0]),
        F::Round => code.b.ins().nearest(x[0]),
        F::Trunc => code.b.ins().trunc(x[0]),
        F::Sqrt => code.b.ins().sqrt(x[0]),
        F::Rsqrt => {
            let one = constant(code, 1.0);
            let root = code.b.ins().sqrt(x[0]);
            code.b.ins().fdiv(one, root)
        }
        F::Reciprocal => {
            let one = constant(code, 1.0);
            code.b.ins().fdiv(one, x[0])
        }
        F::IsNan => code.fcmp(shape, FloatCC::Unordered, x[0], x[0]),
        F::IsInf => {
            let size = code.b.ins().fabs(x[0]);
            let infinity = constant(code, f64::INFINITY);
            code.fcmp(shape, FloatCC::Equal, size, infinity)
        }
        F::Add => code.b.ins().fadd(x[0], x[1]),
        F::Sub => code.b.ins().fsub(x[0], x[1]),
        F::Mul => code.b.ins().fmul(x[0], x[1]),
        F::Div => code.b.ins().fdiv(x[0], x[1]),
        F::Min | F::Max => extreme(code, shape, function == F::Max, x[0], x[1]),
        F::Eq => code.fcmp(shape, FloatCC::Equal, x[0], x[1]),
        F::Ne => code.fcmp(shape, FloatCC::NotEqual, x[0], x[1]),
        F::Lt => code.fcmp(shape, FloatCC::LessThan, x[0], x[1]),
        F::Le => code.fcmp(shape, FloatCC::LessThanOrEqual, x[0], x[1]),
        F::Gt => code.fcmp(shape, FloatCC::GreaterThan, x[0], x[1]),
        F::Ge => code.fcmp(shape, FloatCC::GreaterThanOrEqual, x[0], x[1]),
        F::Exp if !wide => math::exp(code, shape, x[0]),
        F::Log if !wide => math::log(code, shape, x[0]),
        F::Tanh if !wide => math::tanh(code, shape, x[0]),
        F::Erf if !wide => math::erf(code, shape, x[0]),
        F::Sigmoid if !wide => math::sigmoid(code, shape, x[0]),
        F::Sigmoid => {
            let minus = code.b.ins().fneg(x[0]);
            let power = of_floats(code, shape, F::Exp, dtype, &[minus])?;
            let one = constant(code, 1.0);
            let sum = code.b.ins().fadd(one, power);
            code.b.ins().fdiv(one, sum)
        }
        F::Mod => {
            let r = of_floats(code, shape, F::Rem, dtype, x)?;
            let zero = constant(code, 0.0);
            let inexact = code.fcmp(shape, FloatCC::NotEqual, r, zero);
            let negative = code.fcmp(shape, FloatCC::LessThan, r, zero);
            let below = code.fcmp(shape, FloatCC::LessThan, x[1], zero);
            let differ = code.b.ins().bxor(negative, below);
            let wrong = code.b.ins().band(inexact, differ);
            let right = code.b.ins().fadd(r, x[1]);
            code.choose(shape, wrong, right, r)
        }
        other => {
            if shape == Shape::Vector {
                return None;
            }
            let helper = helpers::scalar(other, helpers::suffix(dtype));
            let helper =
                helper.unwrap_or_else(|| panic!("bug: no code for {} of {dtype}", other.name()));
            code.call_helper(helper, x)?
        }
    })
}

/// The smaller or larger of two floats; NaN where either is NaN.
pub(crate) fn extreme(
    code: &mut Code<'_>,
    shape: Shape,
    largest: bool,
    x: Value,
    y: Value,
) -> Value {
    // This order is what one vector instruction does; it gives NaN for a NaN in `x` alone.
    let better = if largest {
        code.fcmp(shape, FloatCC::LessThan, x, y)
    } else {
        code.fcmp(shape, FloatCC::LessThan, y, x)
    };
    let value = code.choose(shape, better, y, x);
    let missing = code.fcmp(shape, FloatCC::Unordered, y, y);
    code.choose(shape, missing, y, value)
}

/// The smaller or larger of a float and a constant that is a number; NaN stays.
pub(crate) fn extreme_of_constant(
    code: &mut Code<'_>,
    shape: Shape,
    largest: bool,
    x: Value,
    limit: Value,
) -> Value {
    let better = if largest {
        code.fcmp(shape, FloatCC::LessThan, x, limit)
    } else {
        code.fcmp(shape, FloatCC::LessThan, limit, x)
    };
    code.choose(shape, better, limit, x)
}

fn of_integers(
    code: &mut Code<'_>,
    shape: Shape,
    function: ScalarFn,
    dtype: DType,
    x: &[Value],
) -> Option<Value> {
    use ScalarFn as F;
    let signed = dtype.class() == Class::Signed;
    let wide = dtype.bits() == 64;
    let pick = |yes: IntCC, no: IntCC| if signed { yes } else { no };
    let constant = |code: &mut Code<'_>, value: i64| {
        if wide { code.int(value) } else { code.i32(shape, value as i32) }
    };
    Some(match function {
        F::Neg => code.b.ins().ineg(x[0]),
        F::Abs if signed => code.b.ins().iabs(x[0]),
        F::Abs => x[0],
        F::Sign => {
            let zero = constant(code, 0);
            let one = constant(code, 1);
            let minus = constant(code, -1);
            let positive =
                code.icmp(shape, pick(IntCC::SignedGreaterThan, IntCC::NotEqual), x[0], zero);
            let value = code.choose(shape, positive, one, zero);
            if !signed {
                return Some(value);
            }
            let negative = code.icmp(shape, IntCC::SignedLessThan, x[0], zero);
            code.choose(shape, negative, minus, value)
        }
        F::Not => code.b.ins().bnot(x[0]),
        F::Add => code.b.ins().iadd(x[0], x[1]),
        F::Sub => code.b.ins().isub(x[0], x[1]),
        F::Mul => code.b.ins().imul(x[0], x[1]),
        F::And => code.b.ins().band(x[0], x[1]),
        F::Or => code.b.ins().bor(x[0], x[1]),
        F::Xor => code.b.ins().bxor(x[0], x[1]),
        F::Min if signed => code.b.ins().smin(x[0], x[1]),
        F::Min => code.b.ins().umin(x[0], x[1]),
        F::Max if signed => code.b.ins().smax(x[0], x[1]),
        F::Max => code.b.ins().umax(x[0], x[1]),
        F::Eq => code.icmp(shape, IntCC::Equal, x[0], x[1]),
        F::Ne => code.icmp(shape, IntCC::NotEqual, x[0], x[1]),
        F::Lt => code.icmp(shape, pick(IntCC::SignedLessThan, IntCC::UnsignedLessThan), x[0], x[1]),
        F::Le => code.icmp(
            shape,
            pick(IntCC::SignedLessThanOrEqual, IntCC::UnsignedLessThanOrEqual),
            x[0],
            x[1],
        ),
        F::Gt => {
            code.icmp(shape, pick(IntCC::SignedGreaterThan, IntCC::UnsignedGreaterThan), x[0], x[1])
        }
        F::Ge => code.icmp(
            shape,
            pick(IntCC::SignedGreaterThanOrEqual, IntCC::UnsignedGreaterThanOrEqual),
            x[0],
            x[1],
        ),
        F::Div | F::Rem | F::Mod | F::Shl | F::Shr | F::Pow if shape == Shape::Vector => {
            return None;
        }
        F::Div => {
            let zero = constant(code, 0);
            let is_zero = code.icmp(shape, IntCC::Equal, x[1], zero);
            let divisor = safe_divisor(code, dtype, x[0], x[1]);
            let quotient = if signed {
                code.b.ins().sdiv(x[0], divisor)
            } else {
                code.b.ins().udiv(x[0], divisor)
            };
            code.choose(shape, is_zero, zero, quotient)
        }
        F::Rem => {
            let divisor = safe_divisor(code, dtype, x[0], x[1]);
            if signed { code.b.ins().srem(x[0], divisor) } else { code.b.ins().urem(x[0], divisor) }
        }
        F::Mod => {
            let r = of_integers(code, shape, F::Rem, dtype, x)?;
            if !signed {
                return Some(r);
            }
            let zero = constant(code, 0);
            let inexact = code.icmp(shape, IntCC::NotEqual, r, zero);
            let signs = code.b.ins().bxor(r, x[1]);
            let differ = code.icmp(shape, IntCC::SignedLessThan, signs, zero);
            let wrong = code.b.ins().band(inexact, differ);
            let right = code.b.ins().iadd(r, x[1]);
            code.choose(shape, wrong, right, r)
        }
        F::Shl => {
            let width = constant(code, if wide { 64 } else { 32 });
            let zero = constant(code, 0);
            let inside = code.icmp(shape, IntCC::UnsignedLessThan, x[1], width);
            let shifted = code.b.ins().ishl(x[0], x[1]);
            code.choose(shape, inside, shifted, zero)
        }
        F::Shr if signed => {
            let most = constant(code, if wide { 63 } else { 31 });
            let inside = code.icmp(shape, IntCC::UnsignedLessThan, x[1], most);
            let amount = code.choose(shape, inside, x[1], most);
            code.b.ins().sshr(x[0], amount)
        }
        F::Shr => {
            let width = constant(code, if wide { 64 } else { 32 });
            let zero = constant(code, 0);
            let inside = code.icmp(shape, IntCC::UnsignedLessThan, x[1], width);
            let shifted = code.b.ins().ushr(x[0], x[1]);
            code.choose(shape, inside, shifted, zero)
        }
        F::Pow => {
            let helper = helpers::scalar(F::Pow, helpers::suffix(dtype))?;
            let operands: Vec<Value> = x
                .iter()
                .map(|&value| match (wide, signed) {
                    (true, _) => value,
                    (false, true) => code.b.ins().sextend(types::I64, value),
                    (false, false) => code.b.ins().uextend(types::I64, value),
                })
                .collect();
            let value = code.call_helper(helper, &operands)?;
            if wide { value } else { code.b.ins().ireduce(types::I32, value) }
        }
        other => unreachable!("{} does not take integers", other.name()),
    })
}

/// The divisor, or 1 where dividing would trap: by zero, and the least number by −1.
fn safe_divisor(code: &mut Code<'_>, dtype: DType, x: Value, y: Value) -> Value {
    let ty = code.b.func.dfg.value_type(y);
    let one = code.b.ins().iconst(ty, 1);
    let mut bad = code.b.ins().icmp_imm_s(IntCC::Equal, y, 0);
    if dtype.class() == Class::Signed {
        let least = if dtype.bits() == 64 { i64::MIN } else { i64::from(i32::MIN) };
        let least =
            code.b.ins().iconst(ty, if ty == types::I32 { least & 0xffff_ffff } else { least });
        let is_least = code.b.ins().icmp(IntCC::Equal, x, least);
        let is_minus = code.b.ins().icmp_imm_s(IntCC::Equal, y, -1);
        let overflow = code.b.ins().band(is_least, is_minus);
        bad = code.b.ins().bor(bad, overflow);
    }
    code.b.ins().select(bad, one, y)
}

/// Joins an element to a partial result; both are of the type `dtype`.
pub(crate) fn combine(
    code: &mut Code<'_>,
    shape: Shape,
    combine: Combine,
    dtype: DType,
    sum: Value,
    x: Value,
) -> Value {
    let function = combine.function();
    let function = match (dtype.class(), function) {
        // A reduction of bools by sum or product is one by or, and.
        (Class::Bool, ScalarFn::Add | ScalarFn::Max) => ScalarFn::Or,
        (Class::Bool, ScalarFn::Mul | ScalarFn::Min) => ScalarFn::And,
        (_, function) => function,
    };
    call(code, shape, function, dtype, &[sum, x])
        .expect("combining has vector code for every type with vectors")
}
