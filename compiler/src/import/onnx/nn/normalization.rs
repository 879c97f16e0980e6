//! Normalizations.

use super::Value;
use crate::graph::ValueId;
use crate::import::onnx::context::{Converted, NodeContext, invalid};
use crate::import::onnx::table::{Row, row};
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;

pub(in crate::import::onnx) const ROWS: &[Row] = &[
    row("BatchNormalization", 1, batch_norm),
    row("LayerNormalization", 17, layer_norm),
    row("RMSNormalization", 23, rms_norm),
    row("SimplifiedLayerNormalization", 1, rms_norm),
    row("InstanceNormalization", 1, instance_norm),
    row("GroupNormalization", 18, group_norm),
    row("LpNormalization", 1, lp_norm),
    row("MeanVarianceNormalization", 9, mean_variance),
    row("LRN", 1, lrn),
];

/// One number a channel, over the whole shape.
fn channels(context: &mut NodeContext<'_, '_, '_>, value: ValueId, like: ValueId) -> Value {
    let shape = context.shape(like).to_vec();
    if shape.len() < 2 || context.shape(value).as_slice() != [shape[1]] {
        return invalid("a normalization takes one number a channel");
    }
    Ok(context.builder.add(op::Broadcast { shape, dims: vec![1] }, &[value])?)
}

/// The mean and the variance over axes, which stay with one element.
fn moments(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    axes: &[usize],
) -> Result<(ValueId, ValueId, ValueId), crate::import::onnx::context::ImportError> {
    let mean = context.mean_keep(x, axes)?;
    let centred = context.map(ScalarFn::Sub, &[x, mean])?;
    let square = context.map(ScalarFn::Mul, &[centred, centred])?;
    let variance = context.mean_keep(square, axes)?;
    Ok((mean, centred, variance))
}

fn batch_norm(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let dtype = context.dtype(x);
    let wide = crate::import::onnx::context::widen(dtype);
    let epsilon = f64::from(context.float("epsilon", 1e-5));
    let mut inputs = Vec::new();
    for index in 1..5 {
        let value = context.input(index)?;
        inputs.push(context.convert(value, wide)?);
    }
    let (scale, bias, mut mean, mut variance) = (inputs[0], inputs[1], inputs[2], inputs[3]);
    let x = context.convert(x, wide)?;
    let mut outputs = Vec::new();
    if context.int("training_mode", 0) != 0 {
        let momentum = f64::from(context.float("momentum", 0.9));
        let axes: Vec<usize> = (0..context.rank(x)).filter(|&axis| axis != 1).collect();
        let (now, _, spread) = moments(context, x, &axes)?;
        let count = context.shape(mean).to_vec();
        let (now, spread) = (context.reshape(now, &count)?, context.reshape(spread, &count)?);
        for (old, new, index) in [(mean, now, 3), (variance, spread, 4)] {
            let old = context.map_scalar(ScalarFn::Mul, old, momentum)?;
            let new = context.map_scalar(ScalarFn::Mul, new, 1.0 - momentum)?;
            let next = context.map(ScalarFn::Add, &[old, new])?;
            let narrow = context.input(index)?;
            let narrow = context.dtype(narrow);
            outputs.push(context.convert(next, narrow)?);
        }
        (mean, variance) = (now, spread);
    }
    // One factor and one offset a channel, so that the whole is a product and a sum.
    let shifted = context.map_scalar(ScalarFn::Add, variance, epsilon)?;
    let deviation = context.map(ScalarFn::Sqrt, &[shifted])?;
    let factor = context.map(ScalarFn::Div, &[scale, deviation])?;
    let moved = context.map(ScalarFn::Mul, &[mean, factor])?;
    let offset = context.map(ScalarFn::Sub, &[bias, moved])?;
    let (factor, offset) = (channels(context, factor, x)?, channels(context, offset, x)?);
    let product = context.map(ScalarFn::Mul, &[x, factor])?;
    let y = context.map(ScalarFn::Add, &[product, offset])?;
    outputs.insert(0, context.convert(y, dtype)?);
    Ok(outputs)
}

fn layer_norm(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    let axis = context.axis(context.int("axis", -1), shape.len())?;
    let epsilon = f64::from(context.float("epsilon", 1e-5));
    let mut operands = vec![x];
    for index in 1..3 {
        if let Some(value) = context.optional(index)? {
            operands.push(context.broadcast_to(value, &shape[axis..])?);
        }
    }
    if operands.len() < 2 {
        return invalid("the scale is missing");
    }
    let y = context.builder.add(op::LayerNorm { axis, epsilon }, &operands)?;
    if !context.has_output(1) && !context.has_output(2) {
        return Ok(vec![y]);
    }
    let axes: Vec<usize> = (axis..shape.len()).collect();
    let wide = context.convert(x, crate::import::onnx::context::widen(context.dtype(x)))?;
    let (mean, _, variance) = moments(context, wide, &axes)?;
    let shifted = context.map_scalar(ScalarFn::Add, variance, epsilon)?;
    let inverse = context.map(ScalarFn::Rsqrt, &[shifted])?;
    Ok(vec![y, mean, inverse])
}

fn rms_norm(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, scale) = (context.input(0)?, context.input(1)?);
    let shape = context.shape(x);
    let axis = context.axis(context.int("axis", -1), shape.len())?;
    let epsilon = f64::from(context.float("epsilon", 1e-5));
    let dtype = context.dtype(x);
    let axes: Vec<usize> = (axis..shape.len()).collect();
    let wide = context.convert(x, crate::import::onnx::context::widen(dtype))?;
    let square = context.map(ScalarFn::Mul, &[wide, wide])?;
    let mean = context.mean_keep(square, &axes)?;
    let shifted = context.map_scalar(ScalarFn::Add, mean, epsilon)?;
    let inverse = context.map(ScalarFn::Rsqrt, &[shifted])?;
    let normal = context.map(ScalarFn::Mul, &[wide, inverse])?;
    let normal = context.convert(normal, dtype)?;
    let scale = context.convert(scale, dtype)?;
    Ok(vec![context.map(ScalarFn::Mul, &[normal, scale])?])
}

/// Normalized over axes, in f32 where the operand is narrower.
fn normalized(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    axes: &[usize],
    epsilon: f64,
) -> Value {
    let (_, centred, variance) = moments(context, x, axes)?;
    let shifted = context.map_scalar(ScalarFn::Add, variance, epsilon)?;
    let inverse = context.map(ScalarFn::Rsqrt, &[shifted])?;
    context.map(ScalarFn::Mul, &[centred, inverse])
}

fn instance_norm(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, scale, bias) = (context.input(0)?, context.input(1)?, context.input(2)?);
    let epsilon = f64::from(context.float("epsilon", 1e-5));
    let axes: Vec<usize> = (2..context.rank(x)).collect();
    let normal = context.widened(x, |context, x| normalized(context, x, &axes, epsilon))?;
    let (scale, bias) = (channels(context, scale, x)?, channels(context, bias, x)?);
    let product = context.map(ScalarFn::Mul, &[normal, scale])?;
    Ok(vec![context.map(ScalarFn::Add, &[product, bias])?])
}

fn group_norm(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, mut scale, mut bias) = (context.input(0)?, context.input(1)?, context.input(2)?);
    let epsilon = f64::from(context.float("epsilon", 1e-5));
    let groups = usize::try_from(context.int("num_groups", 0)).unwrap_or(0);
    let shape = context.shape(x);
    if shape.len() < 2 || groups == 0 || !shape[1].is_multiple_of(groups) {
        return invalid(format!("{groups} groups do not divide the channels"));
    }
    let mut split = vec![shape[0], groups, shape[1] / groups];
    split.extend_from_slice(&shape[2..]);
    let axes: Vec<usize> = (2..split.len()).collect();
    let normal = context.widened(x, |context, x| {
        let parts = context.reshape(x, &split)?;
        let normal = normalized(context, parts, &axes, epsilon)?;
        context.reshape(normal, &shape)
    })?;
    if context.opset < 21 {
        // One number a group, before version 21.
        for value in [&mut scale, &mut bias] {
            let each = vec![groups, shape[1] / groups];
            let spread =
                context.builder.add(op::Broadcast { shape: each, dims: vec![0] }, &[*value])?;
            *value = context.reshape(spread, &[shape[1]])?;
        }
    }
    let (scale, bias) = (channels(context, scale, x)?, channels(context, bias, x)?);
    let product = context.map(ScalarFn::Mul, &[normal, scale])?;
    Ok(vec![context.map(ScalarFn::Add, &[product, bias])?])
}

fn lp_norm(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let axis = context.axis(context.int("axis", -1), context.rank(x))?;
    let squared = context.int("p", 2) == 2;
    let powers = if squared {
        context.map(ScalarFn::Mul, &[x, x])?
    } else {
        context.map(ScalarFn::Abs, &[x])?
    };
    let sum = context.reduce_keep(Combine::Sum, powers, &[axis])?;
    let norm = if squared { context.map(ScalarFn::Sqrt, &[sum])? } else { sum };
    let zero = context.scalar_like(norm, 0.0)?;
    let one = context.scalar_like(norm, 1.0)?;
    let none = context.map(ScalarFn::Eq, &[norm, zero])?;
    let divisor = context.map(ScalarFn::Select, &[none, one, norm])?;
    Ok(vec![context.map(ScalarFn::Div, &[x, divisor])?])
}

fn mean_variance(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let axes = context.ints("axes").unwrap_or_else(|| vec![0, 2, 3]);
    let axes = context.axes(&axes, context.rank(x))?;
    let y = context.widened(x, |context, x| {
        let (_, centred, variance) = moments(context, x, &axes)?;
        let deviation = context.map(ScalarFn::Sqrt, &[variance])?;
        let divisor = context.map_scalar(ScalarFn::Add, deviation, 1e-9)?;
        context.map(ScalarFn::Div, &[centred, divisor])
    })?;
    Ok(vec![y])
}

fn lrn(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let size = usize::try_from(context.int("size", 1)).unwrap_or(0);
    let rank = context.rank(x);
    if size == 0 || rank < 2 || size > 1 << 20 {
        return invalid(format!("a window of {size} channels"));
    }
    let (alpha, beta) =
        (f64::from(context.float("alpha", 1e-4)), f64::from(context.float("beta", 0.75)));
    let bias = f64::from(context.float("bias", 1.0));
    let square = context.map(ScalarFn::Mul, &[x, x])?;
    let only = |inner: usize, other: usize| {
        (0..rank).map(|dim| if dim == 1 { inner } else { other }).collect::<Vec<_>>()
    };
    let windows = op::WindowReduce {
        combine: Combine::Sum,
        window: only(size, 1),
        strides: vec![1; rank],
        dilations: vec![1; rank],
        low: only((size - 1) / 2, 0),
        high: only(size / 2, 0),
        accumulate: context.dtype(x).accumulator(),
    };
    let sum = context.builder.add(windows, &[square])?;
    let part = context.map_scalar(ScalarFn::Mul, sum, alpha / size as f64)?;
    let base = context.map_scalar(ScalarFn::Add, part, bias)?;
    let divisor = context.map_scalar(ScalarFn::Pow, base, beta)?;
    Ok(vec![context.map(ScalarFn::Div, &[x, divisor])?])
}
