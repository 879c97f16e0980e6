//! Operators that move blocks of elements: between channels and space, windows into an image, sequences turned.

use super::context::{Converted, ImportError, NodeContext, invalid, unsupported};
use super::shape::sizes;
use super::table::{Row, row};
use crate::graph::ValueId;
use crate::op;
use crate::scalar::ScalarFn;
use crate::types::{DType, Shape};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("DepthToSpace", 1, depth_to_space),
    row("SpaceToDepth", 1, space_to_depth),
    row("ReverseSequence", 1, reverse_sequence),
    row("Col2Im", 1, col2im),
];

fn block_size(
    context: &NodeContext<'_, '_, '_>,
    x: ValueId,
) -> Result<(Shape, usize), ImportError> {
    let shape = context.shape(x);
    let block = usize::try_from(context.int("blocksize", 0)).unwrap_or(0);
    if shape.len() != 4 || block == 0 {
        return invalid("4 dimensions and a positive blocksize are wanted");
    }
    Ok((shape, block))
}

fn depth_to_space(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let (shape, block) = block_size(context, x)?;
    let [n, c, h, w] = [shape[0], shape[1], shape[2], shape[3]];
    let Some(depth) = block.checked_mul(block).filter(|&area| c % area == 0).map(|area| c / area)
    else {
        return invalid(format!("{c} channels do not divide by blocks of {block}"));
    };
    let (wide, perm) = match context.string("mode", "DCR").as_str() {
        "CRD" => ([n, depth, block, block, h, w], [0, 1, 4, 2, 5, 3]),
        _ => ([n, block, block, depth, h, w], [0, 3, 4, 1, 5, 2]),
    };
    let x = context.reshape(x, &wide)?;
    let x = context.transpose(x, &perm)?;
    Ok(vec![context.reshape(x, &[n, depth, h * block, w * block])?])
}

fn space_to_depth(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let (shape, block) = block_size(context, x)?;
    let [n, c, h, w] = [shape[0], shape[1], shape[2], shape[3]];
    if h % block != 0 || w % block != 0 {
        return invalid(format!("{h} times {w} does not divide by blocks of {block}"));
    }
    let (rows, columns) = (h / block, w / block);
    let x = context.reshape(x, &[n, c, rows, block, columns, block])?;
    let perm = match context.string("mode", "DCR").as_str() {
        "CRD" => [0, 1, 3, 5, 2, 4],
        _ => [0, 3, 5, 1, 2, 4],
    };
    let x = context.transpose(x, &perm)?;
    Ok(vec![context.reshape(x, &[n, c * block * block, rows, columns])?])
}

fn reverse_sequence(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let lengths = context.input(1)?;
    let shape = context.shape(x);
    let rank = shape.len();
    let time = context.axis(context.int("time_axis", 0), rank)?;
    let batch = context.axis(context.int("batch_axis", 1), rank)?;
    if time == batch {
        return invalid("time and batch are different axes");
    }
    let mut column = vec![1; rank];
    column[batch] = shape[batch];
    let lengths = context.reshape(lengths, &column)?;
    let lengths = context.convert(lengths, DType::I64)?;
    let lengths = context.broadcast_to(lengths, &shape)?;
    let position = context.iota(DType::I64, &shape, time)?;
    let last = context.map_scalar(ScalarFn::Sub, lengths, 1.0)?;
    let turned = context.builder.map(ScalarFn::Sub, &[last, position])?;
    let inside = context.builder.map(ScalarFn::Lt, &[position, lengths])?;
    let from = context.builder.map(ScalarFn::Select, &[inside, turned, position])?;
    Ok(vec![super::index::gather_elements_at(context, x, from, time)?])
}

fn col2im(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let (image, block) = (sizes(&context.constant_ints(1)?)?, sizes(&context.constant_ints(2)?)?);
    let dims = image.len();
    let list = |name: &str, count: usize, default: i64| -> Result<Vec<usize>, ImportError> {
        sizes(&context.ints(name).unwrap_or_else(|| vec![default; count]))
    };
    let (dilations, strides) = (list("dilations", dims, 1)?, list("strides", dims, 1)?);
    let pads = list("pads", 2 * dims, 0)?;
    let shape = context.shape(x);
    if block.len() != dims
        || dilations.len() != dims
        || strides.len() != dims
        || pads.len() != 2 * dims
        || shape.len() != 3
    {
        return invalid("image, block, strides, dilations and pads are of one rank");
    }
    if block.contains(&0) || strides.contains(&0) || image.contains(&0) {
        return invalid("image, block and strides are positive");
    }
    let mut windows = Vec::new();
    for dim in 0..dims {
        let extent = dilations[dim].checked_mul(block[dim] - 1).and_then(|e| e.checked_add(1));
        let padded =
            image[dim].checked_add(pads[dim]).and_then(|e| e.checked_add(pads[dims + dim]));
        match (extent, padded) {
            (Some(extent), Some(padded)) if extent <= padded => {
                windows.push((padded - extent) / strides[dim] + 1)
            }
            (_, _) => return invalid("the block does not fit into the image"),
        }
    }
    let taps: usize = block.iter().product();
    if !shape[1].is_multiple_of(taps) || shape[2] != windows.iter().product::<usize>() {
        return invalid("the columns do not fit image and block");
    }
    if shape[2].checked_mul(taps).is_none_or(|count| count > 1 << 24) {
        return unsupported(format!("{} columns of {taps} elements", shape[2]));
    }
    let channels = shape[1] / taps;
    // The place in the image of every tap of every window; outside, one past the last.
    let pixels: usize = image.iter().product();
    let mut places = Vec::with_capacity(taps * shape[2]);
    for tap in 0..taps {
        for window in 0..shape[2] {
            let (mut tap, mut window, mut place, mut scale) = (tap, window, 0, 1);
            let mut inside = true;
            for dim in (0..dims).rev() {
                let (t, v) = (tap % block[dim], window % windows[dim]);
                (tap, window) = (tap / block[dim], window / windows[dim]);
                let position = (v * strides[dim] + t * dilations[dim]).checked_sub(pads[dim]);
                match position {
                    Some(position) if position < image[dim] => place += position * scale,
                    Some(_) | None => inside = false,
                }
                scale *= image[dim];
            }
            places.push(if inside { place as i64 } else { pixels as i64 });
        }
    }
    let x = context.reshape(x, &[shape[0] * channels, taps * shape[2]])?;
    let zero = context.scalar(context.dtype(x), 0.0);
    let blank = context.broadcast_to(zero, &[shape[0] * channels, pixels])?;
    let places = context.known_ints(&places);
    let scatter = op::Scatter { axis: 1, combine: Some(crate::kernel::Combine::Sum) };
    let sum = context.builder.add(scatter, &[blank, places, x])?;
    let mut result = vec![shape[0], channels];
    result.extend(&image);
    Ok(vec![context.reshape(sum, &result)?])
}
