//! Elementwise operators: numpy's broadcast, then functions of the scalar table. What takes several of them computes
//! in f32 at least, and rounds once.

use super::context::{Converted, ImportError, Items, NodeContext, invalid, unsupported};
use super::convert::Item;
use super::foreign::{Foreign, Rounding};
use super::table::{Row, items, row};
use crate::graph::ValueId;
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{Class, DType};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("Abs", 1, abs),
    row("Neg", 1, |c| unary(c, ScalarFn::Neg)),
    row("Sign", 1, |c| unary(c, ScalarFn::Sign)),
    row("Floor", 1, |c| unary(c, ScalarFn::Floor)),
    row("Ceil", 1, |c| unary(c, ScalarFn::Ceil)),
    row("Round", 1, |c| unary(c, ScalarFn::Round)),
    row("Sqrt", 1, |c| unary(c, ScalarFn::Sqrt)),
    row("Reciprocal", 1, |c| unary(c, ScalarFn::Reciprocal)),
    row("Exp", 1, |c| unary(c, ScalarFn::Exp)),
    row("Log", 1, |c| unary(c, ScalarFn::Log)),
    row("Sin", 1, |c| unary(c, ScalarFn::Sin)),
    row("Cos", 1, |c| unary(c, ScalarFn::Cos)),
    row("Tan", 1, |c| unary(c, ScalarFn::Tan)),
    row("Asin", 1, |c| unary(c, ScalarFn::Asin)),
    row("Acos", 1, |c| unary(c, ScalarFn::Acos)),
    row("Atan", 1, |c| unary(c, ScalarFn::Atan)),
    row("Sinh", 1, |c| unary(c, ScalarFn::Sinh)),
    row("Cosh", 1, |c| unary(c, ScalarFn::Cosh)),
    row("Tanh", 1, |c| unary(c, ScalarFn::Tanh)),
    row("Asinh", 1, |c| unary(c, ScalarFn::Asinh)),
    row("Acosh", 1, |c| unary(c, ScalarFn::Acosh)),
    row("Atanh", 1, |c| unary(c, ScalarFn::Atanh)),
    row("Erf", 1, |c| unary(c, ScalarFn::Erf)),
    row("Sigmoid", 1, |c| unary(c, ScalarFn::Sigmoid)),
    row("IsNaN", 1, |c| unary(c, ScalarFn::IsNan)),
    row("Not", 1, |c| unary(c, ScalarFn::Not)),
    row("BitwiseNot", 1, |c| unary(c, ScalarFn::Not)),
    row("IsInf", 1, is_inf),
    row("Add", 1, |c| binary(c, ScalarFn::Add)),
    row("Sub", 1, |c| binary(c, ScalarFn::Sub)),
    row("Mul", 1, |c| binary(c, ScalarFn::Mul)),
    row("Div", 1, |c| binary(c, ScalarFn::Div)),
    row("And", 1, |c| binary(c, ScalarFn::And)),
    row("Or", 1, |c| binary(c, ScalarFn::Or)),
    row("Xor", 1, |c| binary(c, ScalarFn::Xor)),
    row("BitwiseAnd", 1, |c| binary(c, ScalarFn::And)),
    row("BitwiseOr", 1, |c| binary(c, ScalarFn::Or)),
    row("BitwiseXor", 1, |c| binary(c, ScalarFn::Xor)),
    row("Equal", 1, |c| binary(c, ScalarFn::Eq)),
    row("Less", 1, |c| binary(c, ScalarFn::Lt)),
    row("LessOrEqual", 1, |c| binary(c, ScalarFn::Le)),
    row("Greater", 1, |c| binary(c, ScalarFn::Gt)),
    row("GreaterOrEqual", 1, |c| binary(c, ScalarFn::Ge)),
    row("Pow", 1, pow),
    row("Mod", 1, modulo),
    row("BitShift", 1, bit_shift),
    row("Min", 1, |c| variadic(c, ScalarFn::Min)),
    row("Max", 1, |c| variadic(c, ScalarFn::Max)),
    row("Sum", 1, |c| variadic(c, ScalarFn::Add)),
    row("Mean", 1, mean),
    row("Where", 1, choose),
    row("Clip", 1, clip),
    items("Cast", 1, cast),
    items("CastLike", 1, cast_like),
    row("BitCast", 1, bit_cast),
    row("Relu", 1, relu),
    row("PRelu", 1, prelu),
    row("LeakyRelu", 1, leaky_relu),
    row("ThresholdedRelu", 1, thresholded_relu),
    row("Elu", 1, elu),
    row("Selu", 1, selu),
    row("Celu", 1, celu),
    row("HardSigmoid", 1, hard_sigmoid),
    row("HardSwish", 1, hard_swish),
    row("Softplus", 1, softplus),
    row("Softsign", 1, softsign),
    row("Gelu", 1, gelu),
    row("Mish", 1, mish),
    row("Swish", 1, swish),
    row("Shrink", 1, shrink),
];

/// The operators of domain com.microsoft of this file.
pub(super) const MICROSOFT: &[Row] = &[
    row("Gelu", 1, gelu),
    row("FastGelu", 1, |c| biased_gelu(c, op::Approximation::Tanh)),
    row("BiasGelu", 1, |c| biased_gelu(c, op::Approximation::None)),
    row("QuickGelu", 1, quick_gelu),
];

fn unary(context: &mut NodeContext<'_, '_, '_>, function: ScalarFn) -> Converted {
    let x = context.input(0)?;
    Ok(vec![context.builder.map(function, &[x])?])
}

fn abs(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    if context.dtype(x).class() == Class::Unsigned {
        return Ok(vec![x]);
    }
    unary(context, ScalarFn::Abs)
}

/// The second operand with dimensions behind, where a version before 7 says at which axis it starts.
fn aligned(
    context: &mut NodeContext<'_, '_, '_>,
    a: ValueId,
    b: ValueId,
) -> Result<ValueId, ImportError> {
    if context.opset >= 7 || context.attribute("axis").is_none() {
        return Ok(b);
    }
    let (rank, own) = (context.rank(a), context.rank(b));
    let axis = context.axis(context.int("axis", 0), rank.max(1))?;
    let Some(behind) = rank.checked_sub(axis + own) else {
        return invalid(format!("{own} dimensions do not fit at axis {axis} of {rank}"));
    };
    let mut shape = context.shape(b).to_vec();
    shape.extend(std::iter::repeat_n(1, behind));
    context.reshape(b, &shape)
}

fn binary(context: &mut NodeContext<'_, '_, '_>, function: ScalarFn) -> Converted {
    let (a, b) = (context.input(0)?, context.input(1)?);
    let b = aligned(context, a, b)?;
    Ok(vec![context.map(function, &[a, b])?])
}

fn variadic(context: &mut NodeContext<'_, '_, '_>, function: ScalarFn) -> Converted {
    let operands = context.all_inputs()?;
    let operands = context.broadcast_together(&operands)?;
    let Some((&first, rest)) = operands.split_first() else { return invalid("no inputs") };
    let mut result = first;
    for &operand in rest {
        result = context.builder.map(function, &[result, operand])?;
    }
    Ok(vec![result])
}

fn mean(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let count = context.inputs.len();
    let sum = variadic(context, ScalarFn::Add)?[0];
    Ok(vec![context.map_scalar(ScalarFn::Div, sum, count as f64)?])
}

fn is_inf(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let (negative, positive) =
        (context.int("detect_negative", 1) != 0, context.int("detect_positive", 1) != 0);
    // f8e4m3 and f4e2m1 have no infinity of their own, but f32 has.
    let dtype = super::context::widen(context.dtype(x));
    let x = context.convert(x, dtype)?;
    Ok(vec![match (negative, positive) {
        (true, true) => context.builder.map(ScalarFn::IsInf, &[x])?,
        (true, false) => context.map_scalar(ScalarFn::Eq, x, f64::NEG_INFINITY)?,
        (false, true) => context.map_scalar(ScalarFn::Eq, x, f64::INFINITY)?,
        (false, false) => {
            let none = context.scalar(DType::Bool, 0.0);
            let shape = context.shape(x);
            context.broadcast_to(none, &shape)?
        }
    }])
}

fn pow(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let base = context.input(0)?;
    let dtype = context.dtype(base);
    if let Ok(Some(exponent)) = context.optional_constant(1)
        && exponent.count() == 1
        && exponent.values().to_f64()[0] == 2.0
        && exponent.shape().len() <= context.rank(base)
    {
        return Ok(vec![context.builder.map(ScalarFn::Mul, &[base, base])?]);
    }
    let exponent = context.input(1)?;
    let exponent = aligned(context, base, exponent)?;
    if !dtype.is_float() && context.dtype(exponent).is_float() {
        let wide = context.convert(base, DType::F64)?;
        let exponent = context.convert(exponent, DType::F64)?;
        let power = context.map(ScalarFn::Pow, &[wide, exponent])?;
        return Ok(vec![context.convert(power, dtype)?]);
    }
    let exponent = context.convert(exponent, dtype)?;
    Ok(vec![context.map(ScalarFn::Pow, &[base, exponent])?])
}

fn modulo(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let function = if context.int("fmod", 0) != 0 { ScalarFn::Rem } else { ScalarFn::Mod };
    binary(context, function)
}

fn bit_shift(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    match context.string("direction", "").as_str() {
        "LEFT" => binary(context, ScalarFn::Shl),
        "RIGHT" => binary(context, ScalarFn::Shr),
        other => invalid(format!("direction is LEFT or RIGHT, not {other:?}")),
    }
}

fn choose(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let operands = [context.input(0)?, context.input(1)?, context.input(2)?];
    Ok(vec![context.map(ScalarFn::Select, &operands)?])
}

fn clip(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let mut x = context.input(0)?;
    if context.opset < 11 {
        for (name, function) in [("min", ScalarFn::Max), ("max", ScalarFn::Min)] {
            if context.attribute(name).is_some() {
                let limit = f64::from(context.float(name, 0.0));
                x = context.map_scalar(function, x, limit)?;
            }
        }
        return Ok(vec![x]);
    }
    for (index, function) in [(1, ScalarFn::Max), (2, ScalarFn::Min)] {
        if let Some(limit) = context.optional(index)? {
            let limit = context.reshape(limit, &[])?;
            let limit = context.broadcast_to(limit, &context.shape(x).clone())?;
            x = context.builder.map(function, &[x, limit])?;
        }
    }
    Ok(vec![x])
}

/// The value in another type as `Cast` has it: out of the range of an 8-bit float gives the largest, or what the
/// format has for it.
pub(super) fn cast_to(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    to: DType,
    saturate: bool,
) -> Result<ValueId, ImportError> {
    let largest = match to {
        DType::F8E4M3 => 448.0,
        DType::F8E5M2 => 57344.0,
        DType::Bool
        | DType::I4
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U4
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::F4E2M1 => return context.convert(x, to),
    };
    if !saturate || context.dtype(x) == to {
        return context.convert(x, to);
    }
    let from = super::context::widen(context.dtype(x));
    let from = if from.is_float() { from } else { DType::F32 };
    let x = context.convert(x, from)?;
    let x = context.map_scalar(ScalarFn::Min, x, largest)?;
    let x = context.map_scalar(ScalarFn::Max, x, -largest)?;
    context.convert(x, to)
}

/// What a cast gives.
#[derive(Clone, Copy)]
enum Target {
    Own(DType),
    Foreign(Foreign),
}

fn cast(context: &mut NodeContext<'_, '_, '_>) -> Items {
    let to = if context.opset < 6 {
        match context.string("to", "").as_str() {
            "FLOAT" => Target::Own(DType::F32),
            "INT32" => Target::Own(DType::I32),
            "INT64" => Target::Own(DType::I64),
            other => return unsupported(format!("a cast to {other:?}")),
        }
    } else {
        match Foreign::of(i32::try_from(context.int("to", 0)).unwrap_or(0)) {
            Some(foreign) => Target::Foreign(foreign),
            None => match context.dtype_attribute("to")? {
                Some(to) => Target::Own(to),
                None => return invalid("attribute to is missing"),
            },
        }
    };
    cast_item(context, to)
}

fn cast_like(context: &mut NodeContext<'_, '_, '_>) -> Items {
    let to = match context.inputs.get(1).cloned().flatten() {
        Some(Item::Foreign(_, foreign)) => Target::Foreign(foreign),
        _ => {
            let like = context.input(1)?;
            Target::Own(context.dtype(like))
        }
    };
    cast_item(context, to)
}

fn cast_item(context: &mut NodeContext<'_, '_, '_>, to: Target) -> Items {
    let saturate = context.int("saturate", 1) != 0;
    let x = match context.inputs.first().cloned().flatten() {
        Some(Item::Foreign(carrier, foreign)) => {
            let carrier = context.value(&carrier)?;
            super::foreign::decode(context, carrier, foreign)?
        }
        _ => context.input(0)?,
    };
    match to {
        Target::Own(to) => Ok(vec![Item::Value(cast_to(context, x, to, saturate)?)]),
        Target::Foreign(foreign) => {
            let rounding = match context.string("round_mode", "up").as_str() {
                "down" => Rounding::Down,
                "nearest" => Rounding::Nearest,
                _ => Rounding::Up,
            };
            let carrier = super::foreign::encode(context, x, foreign, rounding, saturate)?;
            Ok(vec![Item::Foreign(Box::new(Item::Value(carrier)), foreign)])
        }
    }
}

fn bit_cast(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.constant(0)?;
    let Some(to) = context.dtype_attribute("to")? else {
        return invalid("attribute to is missing");
    };
    if to.bytes() != x.dtype().bytes() {
        return invalid(format!("{} and {to} differ in size", x.dtype()));
    }
    let ty = crate::types::TensorType::new(to, x.shape());
    match Tensor::new(ty, x.bytes().clone()) {
        Some(tensor) => Ok(vec![context.known(tensor)]),
        None => unsupported(format!("bits of {} as {to}", x.dtype())),
    }
}

fn relu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    Ok(vec![context.map_scalar(ScalarFn::Max, x, 0.0)?])
}

/// `yes` where `x` is related to a number, else `no`.
fn pick(
    context: &mut NodeContext<'_, '_, '_>,
    relation: ScalarFn,
    x: ValueId,
    number: f64,
    yes: ValueId,
    no: ValueId,
) -> Result<ValueId, ImportError> {
    let condition = context.map_scalar(relation, x, number)?;
    Ok(context.builder.map(ScalarFn::Select, &[condition, yes, no])?)
}

fn prelu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, mut slope) = (context.input(0)?, context.input(1)?);
    let shape = context.shape(x);
    // Before version 7, a vector of slopes is one for each channel.
    if context.opset < 7
        && context.rank(slope) == 1
        && shape.len() > 2
        && context.shape(slope)[0] != 1
    {
        let mut wide = vec![1; shape.len() - 1];
        wide[0] = context.shape(slope)[0];
        slope = context.reshape(slope, &wide)?;
    }
    let slope = context.broadcast_to(slope, &shape)?;
    let low = context.builder.map(ScalarFn::Mul, &[x, slope])?;
    Ok(vec![pick(context, ScalarFn::Lt, x, 0.0, low, x)?])
}

fn leaky_relu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let alpha = f64::from(context.float("alpha", 0.01));
    activation(context, |c, x| {
        let low = c.map_scalar(ScalarFn::Mul, x, alpha)?;
        pick(c, ScalarFn::Lt, x, 0.0, low, x)
    })
}

fn thresholded_relu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let alpha = f64::from(context.float("alpha", 1.0));
    activation(context, |c, x| {
        let zero = c.scalar_like(x, 0.0)?;
        pick(c, ScalarFn::Gt, x, alpha, x, zero)
    })
}

fn activation(
    context: &mut NodeContext<'_, '_, '_>,
    compute: impl FnOnce(&mut NodeContext<'_, '_, '_>, ValueId) -> Result<ValueId, ImportError>,
) -> Converted {
    let x = context.input(0)?;
    Ok(vec![context.widened(x, |c, x| compute(c, x))?])
}

/// `alpha` (e^x − 1) below zero, else x.
pub(super) fn elu_of(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    alpha: f64,
) -> Result<ValueId, ImportError> {
    let power = context.builder.map(ScalarFn::Expm1, &[x])?;
    let low = context.map_scalar(ScalarFn::Mul, power, alpha)?;
    pick(context, ScalarFn::Lt, x, 0.0, low, x)
}

fn elu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let alpha = f64::from(context.float("alpha", 1.0));
    activation(context, |c, x| elu_of(c, x, alpha))
}

fn selu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let alpha = f64::from(context.float("alpha", 1.673_263_2));
    let gamma = f64::from(context.float("gamma", 1.050_701));
    activation(context, |c, x| {
        let elu = elu_of(c, x, alpha)?;
        c.map_scalar(ScalarFn::Mul, elu, gamma)
    })
}

fn celu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let alpha = f64::from(context.float("alpha", 1.0));
    activation(context, |c, x| {
        let scaled = c.map_scalar(ScalarFn::Div, x, alpha)?;
        let power = c.builder.map(ScalarFn::Expm1, &[scaled])?;
        let low = c.map_scalar(ScalarFn::Mul, power, alpha)?;
        let low = c.map_scalar(ScalarFn::Min, low, 0.0)?;
        let high = c.map_scalar(ScalarFn::Max, x, 0.0)?;
        Ok(c.builder.map(ScalarFn::Add, &[low, high])?)
    })
}

/// `alpha` x + `beta`, limited to 0 and 1.
pub(super) fn hard_sigmoid_of(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    alpha: f64,
    beta: f64,
) -> Result<ValueId, ImportError> {
    let line = context.map_scalar(ScalarFn::Mul, x, alpha)?;
    let line = context.map_scalar(ScalarFn::Add, line, beta)?;
    let line = context.map_scalar(ScalarFn::Min, line, 1.0)?;
    context.map_scalar(ScalarFn::Max, line, 0.0)
}

fn hard_sigmoid(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let alpha = f64::from(context.float("alpha", 0.2));
    let beta = f64::from(context.float("beta", 0.5));
    activation(context, |c, x| hard_sigmoid_of(c, x, alpha, beta))
}

fn hard_swish(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    activation(context, |c, x| {
        let gate = hard_sigmoid_of(c, x, 1.0 / 6.0, 0.5)?;
        Ok(c.builder.map(ScalarFn::Mul, &[x, gate])?)
    })
}

/// log(1 + e^x), without overflow.
pub(super) fn softplus_of(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
) -> Result<ValueId, ImportError> {
    let magnitude = context.builder.map(ScalarFn::Abs, &[x])?;
    let minus = context.builder.map(ScalarFn::Neg, &[magnitude])?;
    let power = context.builder.map(ScalarFn::Exp, &[minus])?;
    let rest = context.builder.map(ScalarFn::Log1p, &[power])?;
    let positive = context.map_scalar(ScalarFn::Max, x, 0.0)?;
    Ok(context.builder.map(ScalarFn::Add, &[positive, rest])?)
}

fn softplus(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    activation(context, softplus_of)
}

/// x / (1 + |x|).
pub(super) fn softsign_of(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
) -> Result<ValueId, ImportError> {
    let magnitude = context.builder.map(ScalarFn::Abs, &[x])?;
    let below = context.map_scalar(ScalarFn::Add, magnitude, 1.0)?;
    Ok(context.builder.map(ScalarFn::Div, &[x, below])?)
}

fn softsign(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    activation(context, softsign_of)
}

fn gelu_of(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    approximate: op::Approximation,
) -> Converted {
    Ok(vec![context.builder.add(op::Gelu { approximate }, &[x])?])
}

fn gelu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    match context.string("approximate", "none").as_str() {
        "tanh" => gelu_of(context, x, op::Approximation::Tanh),
        _ => gelu_of(context, x, op::Approximation::None),
    }
}

fn biased_gelu(context: &mut NodeContext<'_, '_, '_>, approximate: op::Approximation) -> Converted {
    let mut x = context.input(0)?;
    if let Some(bias) = context.optional(1)? {
        x = context.map(ScalarFn::Add, &[x, bias])?;
    }
    gelu_of(context, x, approximate)
}

fn gated(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    alpha: f64,
) -> Result<ValueId, ImportError> {
    if alpha == 1.0 {
        return Ok(context.builder.add(op::Silu {}, &[x])?);
    }
    let scaled = context.map_scalar(ScalarFn::Mul, x, alpha)?;
    let gate = context.builder.map(ScalarFn::Sigmoid, &[scaled])?;
    Ok(context.builder.map(ScalarFn::Mul, &[x, gate])?)
}

fn quick_gelu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let alpha = f64::from(context.float("alpha", 1.702));
    activation(context, |c, x| gated(c, x, alpha))
}

fn swish(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let alpha = f64::from(context.float("alpha", 1.0));
    activation(context, |c, x| gated(c, x, alpha))
}

fn mish(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    activation(context, |c, x| {
        let plus = softplus_of(c, x)?;
        let gate = c.builder.map(ScalarFn::Tanh, &[plus])?;
        Ok(c.builder.map(ScalarFn::Mul, &[x, gate])?)
    })
}

fn shrink(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (bias, limit) =
        (f64::from(context.float("bias", 0.0)), f64::from(context.float("lambd", 0.5)));
    let x = context.input(0)?;
    let dtype = context.dtype(x);
    let x = context.convert(x, if dtype == DType::F64 { dtype } else { DType::F32 })?;
    let low = context.map_scalar(ScalarFn::Add, x, bias)?;
    let high = context.map_scalar(ScalarFn::Sub, x, bias)?;
    let zero = context.scalar_like(x, 0.0)?;
    let rest = pick(context, ScalarFn::Lt, x, -limit, low, zero)?;
    let result = pick(context, ScalarFn::Gt, x, limit, high, rest)?;
    Ok(vec![context.convert(result, dtype)?])
}
