//! Conv and ConvTranspose.

use super::{Value, Window, sizes};
use crate::graph::ValueId;
use crate::import::onnx::context::{Converted, NodeContext, invalid};
use crate::import::onnx::table::{Row, row};
use crate::op;
use crate::scalar::ScalarFn;
use crate::types::DType;

pub(in crate::import::onnx) const ROWS: &[Row] =
    &[row("Conv", 1, conv), row("ConvTranspose", 1, conv_transpose)];

fn conv(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, w) = (context.input(0)?, context.input(1)?);
    let dtype = context.dtype(x);
    let y = convolve(context, x, w, dtype)?;
    let y = add_bias(context, y, 2)?;
    Ok(vec![y])
}

/// The convolution that the node's attributes describe.
pub(super) fn convolve(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    w: ValueId,
    dtype: DType,
) -> Value {
    let (x_shape, w_shape) = (context.shape(x), context.shape(w));
    if x_shape.len() < 3 || w_shape.len() != x_shape.len() {
        return invalid(format!(
            "a convolution of rank {} by rank {}",
            x_shape.len(),
            w_shape.len()
        ));
    }
    let size =
        sizes(context, "kernel_shape", w_shape.len() - 2)?.unwrap_or_else(|| w_shape[2..].to_vec());
    if size != w_shape[2..] {
        return invalid("kernel_shape is not the shape of the weights");
    }
    let window = Window::read(context, size, &x_shape[2..])?;
    let op = op::Convolve {
        strides: window.strides,
        dilations: window.dilations,
        low: window.low,
        high: window.high,
        groups: usize::try_from(context.int("group", 1)).unwrap_or(0),
        accumulate: if dtype == DType::I32 { DType::I32 } else { dtype.accumulator() },
        dtype,
    };
    Ok(context.builder.add(op, &[x, w])?)
}

/// Adds the optional input at `index`, one number a channel.
fn add_bias(context: &mut NodeContext<'_, '_, '_>, y: ValueId, index: usize) -> Value {
    let Some(bias) = context.optional(index)? else { return Ok(y) };
    let shape = context.shape(y).to_vec();
    if context.shape(bias).as_slice() != [shape[1]] {
        return invalid("the bias has one number a channel");
    }
    let bias = context.builder.add(op::Broadcast { shape, dims: vec![1] }, &[bias])?;
    context.map(ScalarFn::Add, &[y, bias])
}

/// A convolution of the operand spread by the strides with the weights turned round.
fn conv_transpose(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, w) = (context.input(0)?, context.input(1)?);
    let (x_shape, w_shape) = (context.shape(x), context.shape(w));
    let dtype = context.dtype(x);
    if x_shape.len() < 3 || w_shape.len() != x_shape.len() || w_shape[0] != x_shape[1] {
        return invalid("the weights do not fit the operand's channels");
    }
    let rank = x_shape.len() - 2;
    let groups = usize::try_from(context.int("group", 1)).unwrap_or(0);
    if groups == 0 || x_shape[1] % groups != 0 {
        return invalid("the groups do not divide the channels");
    }
    let strides = sizes(context, "strides", rank)?.unwrap_or_else(|| vec![1; rank]);
    let dilations = sizes(context, "dilations", rank)?.unwrap_or_else(|| vec![1; rank]);
    let extra = sizes(context, "output_padding", rank)?.unwrap_or_else(|| vec![0; rank]);
    if strides.contains(&0)
        || dilations.contains(&0)
        || w_shape[2..].contains(&0)
        || x_shape[2..].contains(&0)
    {
        return invalid("strides, dilations and sizes are at least 1");
    }
    let reach = |dim: usize| (w_shape[dim + 2] - 1) * dilations[dim] + 1;
    let auto = context.string("auto_pad", "NOTSET");
    let mut pads = sizes(context, "pads", 2 * rank)?.unwrap_or_else(|| vec![0; 2 * rank]);
    let wanted = match sizes(context, "output_shape", rank)? {
        Some(shape) => Some(shape),
        None if auto.starts_with("SAME") => {
            Some((0..rank).map(|dim| x_shape[dim + 2] * strides[dim]).collect())
        }
        None => None,
    };
    let mut extra_high = vec![0; rank];
    if let Some(wanted) = wanted {
        for dim in 0..rank {
            let full = strides[dim] * (x_shape[dim + 2] - 1) + extra[dim] + reach(dim);
            let total = full.saturating_sub(wanted[dim]);
            extra_high[dim] = wanted[dim].saturating_sub(full);
            let less = total / 2;
            (pads[dim], pads[rank + dim]) =
                if auto == "SAME_UPPER" { (less, total - less) } else { (total - less, less) };
        }
    }
    // Weights [C, M/g, ..] become [M, C/g, ..] turned round in space.
    let (inputs, outputs) = (w_shape[0] / groups, w_shape[1]);
    let mut split = vec![groups, inputs, outputs];
    split.extend_from_slice(&w_shape[2..]);
    let mut perm: Vec<usize> = (0..split.len()).collect();
    perm.swap(1, 2);
    let mut joined = vec![groups * outputs, inputs];
    joined.extend_from_slice(&w_shape[2..]);
    let w = context.reshape(w, &split)?;
    let w = context.transpose(w, &perm)?;
    let w = context.reshape(w, &joined)?;
    let w = context.builder.add(op::Reverse { axes: (2..rank + 2).collect() }, &[w])?;
    let mut interior = vec![0, 0];
    interior.extend(strides.iter().map(|stride| stride - 1));
    let zero = context.scalar(dtype, 0.0);
    let mut high = vec![0; rank + 2];
    for dim in 0..rank {
        high[dim + 2] = extra[dim] + extra_high[dim];
    }
    let spread = op::Pad { low: vec![0; rank + 2], high, interior };
    let x = match spread.interior.iter().chain(&spread.high).all(|&size| size == 0) {
        true => x,
        false => context.builder.add(spread, &[x, zero])?,
    };
    let around: Vec<usize> = (0..rank).map(|dim| reach(dim) - 1).collect();
    // More padding taken off than the window reaches is cut from the result.
    let low: Vec<usize> = (0..rank).map(|dim| around[dim].saturating_sub(pads[dim])).collect();
    let after: Vec<usize> =
        (0..rank).map(|dim| around[dim].saturating_sub(pads[rank + dim])).collect();
    let op = op::Convolve {
        strides: vec![1; rank],
        dilations,
        low,
        high: after,
        groups,
        accumulate: dtype.accumulator(),
        dtype,
    };
    let mut y = context.builder.add(op, &[x, w])?;
    for dim in 0..rank {
        let cut_low = pads[dim].saturating_sub(around[dim]);
        let cut_high = pads[rank + dim].saturating_sub(around[dim]);
        let extent = context.shape(y)[dim + 2];
        if cut_low + cut_high >= extent && cut_low + cut_high > 0 {
            return invalid("the pads leave nothing of the result");
        }
        y = context.slice_axis(y, dim + 2, cut_low, extent - cut_high, 1)?;
    }
    let y = add_bias(context, y, 2)?;
    Ok(vec![y])
}
