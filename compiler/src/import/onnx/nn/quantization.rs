//! Quantization: linear codes of floats, and products of codes.

use super::Value;
use super::convolution::convolve;
use crate::graph::ValueId;
use crate::import::onnx::context::{
    Converted, ImportError, NodeContext, invalid, unsupported, widen,
};
use crate::import::onnx::table::{Row, row};
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::types::DType;

pub(in crate::import::onnx) const ROWS: &[Row] = &[
    row("QuantizeLinear", 10, quantize),
    row("DequantizeLinear", 10, dequantize),
    row("DynamicQuantizeLinear", 11, dynamic_quantize),
    row("MatMulInteger", 10, matmul_integer),
    row("ConvInteger", 10, conv_integer),
    row("QLinearMatMul", 10, qlinear_matmul),
    row("QLinearConv", 10, qlinear_conv),
];

/// A parameter (scale or zero point) over the whole shape: one number, one a slice of `axis`, or one a block of it.
fn over(
    context: &mut NodeContext<'_, '_, '_>,
    value: ValueId,
    like: &[usize],
    axis: i64,
    block: usize,
) -> Value {
    let shape = context.shape(value).to_vec();
    let single = shape.iter().product::<usize>() == 1;
    if single && shape.len() <= 1 {
        let scalar = context.reshape(value, &[])?;
        return context.broadcast_to(scalar, like);
    }
    let axis = context.axis(axis, like.len())?;
    if block > 0 || shape.len() == like.len() {
        let block = if block > 0 { block } else { like[axis].div_ceil(shape[axis].max(1)) };
        if shape.len() != like.len()
            || shape[axis].checked_mul(block).is_none_or(|size| size < like[axis])
        {
            return invalid("the blocks of the scale do not cover the operand");
        }
        let mut split = shape.clone();
        split.insert(axis + 1, block);
        let dims = (0..split.len()).filter(|&dim| dim != axis + 1).collect();
        let mut joined = shape;
        joined[axis] *= block;
        let spread = context.builder.add(op::Broadcast { shape: split, dims }, &[value])?;
        let spread = context.reshape(spread, &joined)?;
        return context.slice_axis(spread, axis, 0, like[axis], 1);
    }
    if shape.as_slice() != [like[axis]] {
        return invalid(format!("a scale of {shape:?} for axis {axis} of {like:?}"));
    }
    Ok(context.builder.add(op::Broadcast { shape: like.to_vec(), dims: vec![axis] }, &[value])?)
}

/// The lowest and the highest code of a type.
fn limits(dtype: DType) -> Result<(f64, f64), ImportError> {
    Ok(match dtype {
        DType::F8E4M3 => (-448.0, 448.0),
        DType::F8E5M2 => (-57344.0, 57344.0),
        DType::F4E2M1 => (-6.0, 6.0),
        dtype if dtype.is_integer() && dtype.bits() <= 32 => {
            (Combine::Max.identity(dtype).to_f64(), Combine::Min.identity(dtype).to_f64())
        }
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
        | DType::BF16 => return unsupported(format!("codes of type {dtype}")),
    })
}

/// Codes of a float value: divided by the scale, rounded to even, moved by the zero point, saturated.
fn encode(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    scale: ValueId,
    zero: Option<ValueId>,
    dtype: DType,
) -> Value {
    let (low, high) = limits(dtype)?;
    let mut y = context.map(ScalarFn::Div, &[x, scale])?;
    if dtype.is_integer() {
        y = context.map(ScalarFn::Round, &[y])?;
    }
    if let Some(zero) = zero {
        let wide = context.dtype(y);
        let zero = context.convert(zero, wide)?;
        y = context.map(ScalarFn::Add, &[y, zero])?;
    }
    y = context.map_scalar(ScalarFn::Max, y, low)?;
    y = context.map_scalar(ScalarFn::Min, y, high)?;
    context.convert(y, dtype)
}

fn quantize(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, scale) = (context.input(0)?, context.input(1)?);
    let zero = context.optional(2)?;
    let dtype = match (zero, context.dtype_attribute("output_dtype")?) {
        (Some(zero), _) => context.dtype(zero),
        (None, Some(dtype)) => dtype,
        (None, None) => DType::U8,
    };
    let like = context.shape(x);
    let axis = context.int("axis", 1);
    let block = usize::try_from(context.int("block_size", 0)).unwrap_or(0);
    let wide = widen(context.dtype(scale));
    let x = context.convert(x, wide)?;
    let scale = over(context, scale, &like, axis, block)?;
    let scale = context.convert(scale, wide)?;
    let zero = zero.map(|zero| over(context, zero, &like, axis, block)).transpose()?;
    Ok(vec![encode(context, x, scale, zero, dtype)?])
}

fn dequantize(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, scale) = (context.input(0)?, context.input(1)?);
    let like = context.shape(x);
    let axis = context.int("axis", 1);
    let block = usize::try_from(context.int("block_size", 0)).unwrap_or(0);
    let dtype = context.dtype_attribute("output_dtype")?.unwrap_or(context.dtype(scale));
    let wide = widen(context.dtype(scale));
    // Codes of 16 bits and their differences are exact in f32, where weights of codes can stay as they are.
    let coded = context.dtype(x);
    let is_long = coded.is_integer() && coded.bits() > 16;
    let mut y = context.convert(x, if is_long { DType::I32 } else { wide })?;
    if let Some(zero) = zero_point(context, 2)? {
        let zero = over(context, zero, &like, axis, block)?;
        let same = context.dtype(y);
        let zero = context.convert(zero, same)?;
        y = context.map(ScalarFn::Sub, &[y, zero])?;
    }
    let y = context.convert(y, wide)?;
    let scale = over(context, scale, &like, axis, block)?;
    let scale = context.convert(scale, wide)?;
    let y = context.map(ScalarFn::Mul, &[y, scale])?;
    Ok(vec![context.convert(y, dtype)?])
}

fn dynamic_quantize(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let dtype = context.dtype(x);
    let axes: Vec<usize> = (0..context.rank(x)).collect();
    let zero = context.scalar(dtype, 0.0);
    let low = context.reduce(Combine::Min, x, &axes)?;
    let high = context.reduce(Combine::Max, x, &axes)?;
    let low = context.map(ScalarFn::Min, &[low, zero])?;
    let high = context.map(ScalarFn::Max, &[high, zero])?;
    let range = context.map(ScalarFn::Sub, &[high, low])?;
    let scale = context.map_scalar(ScalarFn::Div, range, 255.0)?;
    let flat = context.map(ScalarFn::Eq, &[scale, zero])?;
    let one = context.scalar(dtype, 1.0);
    let divisor = context.map(ScalarFn::Select, &[flat, one, scale])?;
    let start = context.map(ScalarFn::Neg, &[low])?;
    let start = context.map(ScalarFn::Div, &[start, divisor])?;
    let start = context.map_scalar(ScalarFn::Max, start, 0.0)?;
    let start = context.map_scalar(ScalarFn::Min, start, 255.0)?;
    let start = context.map(ScalarFn::Round, &[start])?;
    let point = context.convert(start, DType::U8)?;
    let y = encode(context, x, divisor, Some(point), DType::U8)?;
    Ok(vec![y, scale, point])
}

/// Codes less their zero point, in i32. The zero point is one number, or one a slice of `axis`.
fn centred(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    zero: Option<ValueId>,
    axis: i64,
) -> Value {
    let wide = context.convert(x, DType::I32)?;
    let Some(zero) = zero else { return Ok(wide) };
    let like = context.shape(x);
    let zero = context.convert(zero, DType::I32)?;
    let zero = if context.rank(zero) > 1 {
        context.broadcast_to(zero, &like)?
    } else {
        over(context, zero, &like, axis, 0)?
    };
    context.map(ScalarFn::Sub, &[wide, zero])
}

/// A product of codes less their zero points, in i32. Where the shapes are plain, the codes themselves are multiplied, as
/// machines can; the zero points are taken from the sums, which wrap like the products.
fn codes_product(
    context: &mut NodeContext<'_, '_, '_>,
    [a, b]: [ValueId; 2],
    [a_zero, b_zero]: [Option<ValueId>; 2],
) -> Value {
    let is_code = |context: &NodeContext<'_, '_, '_>, value| {
        matches!(context.dtype(value), DType::I8 | DType::U8)
    };
    let (a_shape, b_shape) = (context.shape(a).to_vec(), context.shape(b).to_vec());
    let count = |context: &NodeContext<'_, '_, '_>, zero: Option<ValueId>| {
        zero.map_or(0, |zero| context.shape(zero).iter().product::<usize>())
    };
    let vector = [a_zero, b_zero].into_iter().flatten().all(|zero| context.rank(zero) <= 1);
    let plain = a_shape.len() >= 2
        && b_shape.len() == 2
        && count(context, a_zero) <= 1
        && vector
        && is_code(context, a)
        && is_code(context, b);
    if !plain {
        let a = centred(context, a, a_zero, -2)?;
        let b = centred(context, b, b_zero, -1)?;
        return context.matmul(a, b, DType::I32);
    }
    let mut sum = context.matmul(a, b, DType::I32)?;
    let like = context.shape(sum).to_vec();
    let columns = like.len() - 1;
    let mut columns_less = None;
    if let Some(zero) = a_zero {
        // What the zero point of `A` has added to each column.
        let wide = context.convert(b, DType::I32)?;
        let mut column = context.reduce(Combine::Sum, wide, &[0])?;
        if let Some(zero) = b_zero {
            let zero = context.convert(zero, DType::I32)?;
            let zero = over(context, zero, &b_shape[1..], 0, 0)?;
            let zeros = context.map_scalar(ScalarFn::Mul, zero, b_shape[0] as f64)?;
            column = context.map(ScalarFn::Sub, &[column, zeros])?;
        }
        let zero = context.convert(zero, DType::I32)?;
        let zero = over(context, zero, &b_shape[1..], 0, 0)?;
        columns_less = Some(context.map(ScalarFn::Mul, &[zero, column])?);
    }
    if let Some(zero) = b_zero {
        let wide = context.convert(a, DType::I32)?;
        let row = context.reduce_keep(Combine::Sum, wide, &[a_shape.len() - 1])?;
        let row = context.broadcast_to(row, &like)?;
        let zero = context.convert(zero, DType::I32)?;
        let zero = over(context, zero, &like, columns as i64, 0)?;
        let less = context.map(ScalarFn::Mul, &[row, zero])?;
        sum = context.map(ScalarFn::Sub, &[sum, less])?;
    }
    match columns_less {
        None => Ok(sum),
        Some(less) => {
            let less = context.broadcast_to(less, &like)?;
            context.map(ScalarFn::Sub, &[sum, less])
        }
    }
}

/// A zero point, where it is not known to be zero.
fn zero_point(
    context: &mut NodeContext<'_, '_, '_>,
    index: usize,
) -> Result<Option<ValueId>, ImportError> {
    if let Ok(Some(tensor)) = context.optional_constant(index)
        && tensor.dtype().is_integer()
        && tensor.to_i64().iter().all(|&zero| zero == 0)
    {
        return Ok(None);
    }
    context.optional(index)
}

fn matmul_integer(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (a, b) = (context.input(0)?, context.input(1)?);
    let zeros = [zero_point(context, 2)?, zero_point(context, 3)?];
    Ok(vec![codes_product(context, [a, b], zeros)?])
}

fn conv_integer(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, w) = (context.input(0)?, context.input(1)?);
    let (x_zero, w_zero) = (context.optional(2)?, context.optional(3)?);
    let x = centred(context, x, x_zero, 1)?;
    let w = centred(context, w, w_zero, 0)?;
    Ok(vec![convolve(context, x, w, DType::I32)?])
}

/// Sums of products of codes as codes of the result.
fn requantize(
    context: &mut NodeContext<'_, '_, '_>,
    sum: ValueId,
    factors: [ValueId; 2],
    scale: ValueId,
    zero: ValueId,
    axis: i64,
) -> Value {
    let like = context.shape(sum);
    let wide = widen(context.dtype(scale));
    let mut y = context.convert(sum, wide)?;
    let mut scales = Vec::new();
    for factor in factors.into_iter().chain([scale]) {
        let factor = context.convert(factor, wide)?;
        scales.push(if context.rank(factor) > 1 {
            context.broadcast_to(factor, &like)?
        } else {
            over(context, factor, &like, axis, 0)?
        });
    }
    let factor = context.map(ScalarFn::Mul, &[scales[0], scales[1]])?;
    y = context.map(ScalarFn::Mul, &[y, factor])?;
    let dtype = context.dtype(zero);
    let zero = over(context, zero, &like, axis, 0)?;
    encode(context, y, scales[2], Some(zero), dtype)
}

fn qlinear_matmul(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let inputs = context.all_inputs()?;
    let [a, a_scale, _, b, b_scale, _, y_scale, y_zero] = *inputs else {
        return invalid("takes 8 inputs");
    };
    let zeros = [zero_point(context, 2)?, zero_point(context, 5)?];
    let sum = codes_product(context, [a, b], zeros)?;
    Ok(vec![requantize(context, sum, [a_scale, b_scale], y_scale, y_zero, -1)?])
}

fn qlinear_conv(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, x_scale, x_zero) = (context.input(0)?, context.input(1)?, context.input(2)?);
    let (w, w_scale, w_zero) = (context.input(3)?, context.input(4)?, context.input(5)?);
    let (y_scale, y_zero) = (context.input(6)?, context.input(7)?);
    let x = centred(context, x, Some(x_zero), 1)?;
    let w = centred(context, w, Some(w_zero), 0)?;
    let mut sum = convolve(context, x, w, DType::I32)?;
    if let Some(bias) = context.optional(8)? {
        let shape = context.shape(sum).to_vec();
        let bias = context.builder.add(op::Broadcast { shape, dims: vec![1] }, &[bias])?;
        sum = context.map(ScalarFn::Add, &[sum, bias])?;
    }
    Ok(vec![requantize(context, sum, [x_scale, w_scale], y_scale, y_zero, 1)?])
}
