//! Operators that put elements around a tensor, or take them away there.

use super::context::{Converted, ImportError, NodeContext, invalid};
use super::table::{Row, row};
use crate::graph::ValueId;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[row("Pad", 1, pad), row("CenterCropPad", 1, center_crop_pad)];

fn pad(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let rank = context.rank(x);
    let attribute = if context.opset < 2 { "paddings" } else { "pads" };
    let Some(pads) = context.ints_or_input(attribute, 1)? else {
        return invalid("the pads are missing");
    };
    let axes = match context.optional_constant(3)? {
        Some(axes) if context.opset >= 18 => axes
            .to_i64()
            .iter()
            .map(|&axis| context.axis(axis, rank))
            .collect::<Result<Vec<_>, _>>()?,
        Some(_) | None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return invalid(format!("{} pads for {} dimensions", pads.len(), axes.len()));
    }
    let (mut low, mut high) = (vec![0i64; rank], vec![0i64; rank]);
    for (index, &axis) in axes.iter().enumerate() {
        (low[axis], high[axis]) = (pads[index], pads[axes.len() + index]);
    }
    let dtype = context.dtype(x);
    let mode = context.string("mode", "constant");
    if mode == "constant" {
        let fill = match context.optional(2)? {
            Some(fill) if context.opset >= 11 => context.reshape(fill, &[])?,
            Some(_) | None => {
                let fill = f64::from(context.float("value", 0.0));
                context.scalar(dtype, fill)
            }
        };
        return Ok(vec![pad_constant(context, x, fill, &low, &high)?]);
    }
    let mut x = x;
    for axis in 0..rank {
        let size = context.shape(x)[axis] as i64;
        let Some(count) = size.checked_add(low[axis]).and_then(|sum| sum.checked_add(high[axis]))
        else {
            return invalid("a pad beyond any memory");
        };
        if low[axis] == 0 && high[axis] == 0 {
            continue;
        }
        if !(0..=1 << 24).contains(&count) {
            return invalid(format!("a dimension of {count} elements"));
        }
        if size == 0 {
            return invalid("nothing to repeat in an empty dimension");
        }
        let positions: Vec<i64> = (0..count)
            .map(|index| {
                let position = index - low[axis];
                match mode.as_str() {
                    "edge" => position.clamp(0, size - 1),
                    "wrap" => position.rem_euclid(size),
                    _ => {
                        let period = (2 * (size - 1)).max(1);
                        let folded = position.rem_euclid(period);
                        folded.min(period - folded).min(size - 1)
                    }
                }
            })
            .collect();
        let positions = context.known_ints(&positions);
        x = context.gather(x, positions, axis)?;
    }
    Ok(vec![x])
}

/// Elements of value `fill` before and after each dimension; negative counts take elements away.
fn pad_constant(
    context: &mut NodeContext<'_, '_, '_>,
    mut x: ValueId,
    fill: ValueId,
    low: &[i64],
    high: &[i64],
) -> Result<ValueId, ImportError> {
    for axis in 0..low.len() {
        let size = context.shape(x)[axis];
        let less = |count: i64| usize::try_from(count.saturating_neg()).unwrap_or(0);
        let (start, end) = (less(low[axis]), size.saturating_sub(less(high[axis])));
        if start > end {
            return invalid(format!("more than {size} elements taken from dimension {axis}"));
        }
        x = context.slice_axis(x, axis, start, end, 1)?;
    }
    let more = |counts: &[i64]| -> Vec<usize> {
        counts.iter().map(|&count| usize::try_from(count).unwrap_or(0)).collect()
    };
    context.pad(x, fill, &more(low), &more(high))
}

fn center_crop_pad(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let rank = context.rank(x);
    let wanted = context.constant_ints(1)?;
    let axes = match context.ints("axes") {
        Some(axes) => {
            axes.iter().map(|&axis| context.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..rank).collect(),
    };
    if wanted.len() != axes.len() {
        return invalid(format!("{} sizes for {} axes", wanted.len(), axes.len()));
    }
    let (mut low, mut high) = (vec![0i64; rank], vec![0i64; rank]);
    for (&axis, &wanted) in axes.iter().zip(&wanted) {
        let more = wanted.saturating_sub(context.shape(x)[axis] as i64);
        // The smaller half is before, whether elements come or go.
        low[axis] = more / 2;
        high[axis] = more - more / 2;
    }
    let fill = context.scalar(context.dtype(x), 0.0);
    Ok(vec![pad_constant(context, x, fill, &low, &high)?])
}
