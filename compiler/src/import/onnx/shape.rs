//! Operators that keep elements and change their places.

use super::context::{
    Converted, ImportError, Items, NodeContext, broadcast_shape, invalid, unsupported,
};
use super::convert::Item;
use super::table::{Row, items, row};
use crate::graph::ValueId;
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::{DType, Shape, TensorType};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    items("Constant", 1, constant),
    items("Identity", 1, identity),
    row("ConstantOfShape", 1, constant_of_shape),
    row("Shape", 1, shape),
    row("Size", 1, size),
    row("Reshape", 1, reshape),
    row("Flatten", 1, flatten),
    row("Squeeze", 1, squeeze),
    row("Unsqueeze", 1, unsqueeze),
    row("Transpose", 1, transpose),
    row("Concat", 1, concat),
    row("Split", 1, split),
    row("Slice", 1, slice),
    row("Expand", 1, expand),
    row("Tile", 1, tile),
    row("Pad", 1, pad),
    row("CenterCropPad", 1, center_crop_pad),
    row("Range", 1, range),
    row("EyeLike", 1, eye_like),
    row("Trilu", 1, trilu),
    row("DepthToSpace", 1, depth_to_space),
    row("SpaceToDepth", 1, space_to_depth),
    row("Dropout", 1, dropout),
    row("ReverseSequence", 1, reverse_sequence),
    row("Col2Im", 1, col2im),
];

fn constant(context: &mut NodeContext<'_, '_, '_>) -> Items {
    let Some(attribute) = context.node.attribute.first() else {
        return invalid("the constant has no value");
    };
    let tensor = match attribute.name.as_str() {
        "value" => match context.tensor("value")? {
            Some(tensor) => tensor,
            None => return invalid("the constant has no value"),
        },
        "value_float" => Tensor::scalar(attribute.f),
        "value_int" => Tensor::scalar(attribute.i),
        "value_floats" => Tensor::from_slice(&[attribute.floats.len()], &attribute.floats),
        "value_ints" => Tensor::from_slice(&[attribute.ints.len()], &attribute.ints),
        "sparse_value" => match &attribute.sparse_tensor {
            Some(sparse) => context.importer.sparse(sparse)?,
            None => return invalid("the constant has no value"),
        },
        other => return unsupported(format!("a constant given by {other}")),
    };
    let number = match (&attribute.t, attribute.name.as_str()) {
        (Some(proto), "value") => proto.data_type,
        (_, _) => 0,
    };
    Ok(vec![Item::known(tensor).carrying(number)])
}

fn identity(context: &mut NodeContext<'_, '_, '_>) -> Items {
    match context.inputs.first().cloned().flatten() {
        Some(item) => Ok(vec![item]),
        None => invalid("input 0 is missing"),
    }
}

/// A dimension list with every size at least zero.
fn sizes(values: &[i64]) -> Result<Vec<usize>, ImportError> {
    values
        .iter()
        .map(|&size| match usize::try_from(size) {
            Ok(size) => Ok(size),
            Err(_) => invalid(format!("a dimension of {size} elements")),
        })
        .collect()
}

fn constant_of_shape(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let shape = sizes(&context.constant_ints(0)?)?;
    let value = match context.tensor("value")? {
        Some(tensor) => match tensor.reshaped(&[]) {
            Some(scalar) => scalar,
            None => return invalid("the value has one element"),
        },
        None => Tensor::scalar(0.0f32),
    };
    let scalar = context.known(value);
    Ok(vec![context.broadcast_to(scalar, &shape)?])
}

fn shape(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape: Vec<i64> = context.shape(x).iter().map(|&size| size as i64).collect();
    let rank = shape.len() as i64;
    let clamp = |position: i64| {
        (if position < 0 { position.saturating_add(rank) } else { position }).clamp(0, rank)
    };
    let start = clamp(context.int("start", 0));
    let end = clamp(context.int("end", rank)).max(start);
    Ok(vec![context.known_ints(&shape[start as usize..end as usize])])
}

fn size(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let count = context.ty(x).count() as i64;
    Ok(vec![context.known(Tensor::scalar(count))])
}

fn reshape(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let own = context.shape(x);
    let wanted = match context.ints_or_input("shape", 1)? {
        Some(wanted) => wanted,
        None => return invalid("the shape is missing"),
    };
    let allow_zero = context.int("allowzero", 0) != 0;
    let mut shape = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (axis, &size) in wanted.iter().enumerate() {
        shape.push(match size {
            0 if !allow_zero => match own.get(axis) {
                Some(&size) => size,
                None => {
                    return invalid(format!(
                        "dimension {axis} is copied, but the rank is {}",
                        own.len()
                    ));
                }
            },
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            size => sizes(&[size])?[0],
        });
    }
    if let Some(axis) = open {
        let rest = TensorType::new(DType::Bool, &shape).checked_count().unwrap_or(0);
        let count = context.ty(x).count();
        shape[axis] = match count.checked_rem(rest) {
            Some(0) => count / rest,
            None if count == 0 => 0,
            Some(_) | None => return invalid(format!("{count} elements do not divide by {rest}")),
        };
    }
    Ok(vec![context.reshape(x, &shape)?])
}

fn flatten(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    let axis = context.int("axis", 1);
    let axis = match axis {
        axis if axis == shape.len() as i64 => shape.len(),
        axis => context.axis(axis, shape.len())?,
    };
    let pair = [shape[..axis].iter().product(), shape[axis..].iter().product()];
    Ok(vec![context.reshape(x, &pair)?])
}

fn squeeze(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    let axes = match context.ints_or_input("axes", 1)? {
        Some(axes) => context.axes(&axes, shape.len())?,
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if let Some(axis) = axes.iter().find(|&&axis| shape[axis] != 1) {
        return invalid(format!("dimension {axis} has {} elements, not 1", shape[*axis]));
    }
    let kept: Vec<usize> =
        (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    Ok(vec![context.reshape(x, &kept)?])
}

fn unsqueeze(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let Some(axes) = context.ints_or_input("axes", 1)? else {
        return invalid("the axes are missing");
    };
    let axes = context.axes(&axes, context.rank(x).saturating_add(axes.len()))?;
    Ok(vec![context.unsqueeze(x, &axes)?])
}

fn transpose(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let rank = context.rank(x);
    let perm = match context.ints("perm") {
        Some(perm) => {
            perm.iter().map(|&axis| context.axis(axis, rank)).collect::<Result<Vec<_>, _>>()?
        }
        None => (0..rank).rev().collect(),
    };
    Ok(vec![context.transpose(x, &perm)?])
}

fn concat(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let values = context.all_inputs()?;
    let Some(&first) = values.first() else { return invalid("no inputs") };
    let axis = context.axis(context.int("axis", 1), context.rank(first))?;
    Ok(vec![context.concat(&values, axis)?])
}

fn split(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let axis = context.axis(context.int("axis", 0), context.rank(x))?;
    let size = context.shape(x)[axis];
    let parts = match context.ints_or_input("split", 1)? {
        Some(parts) => sizes(&parts)?,
        None => {
            let outputs = context.node.output.len() as i64;
            let count = usize::try_from(context.int("num_outputs", outputs)).unwrap_or(0);
            if count == 0 || count > size.clamp(1, 1 << 16) {
                return invalid(format!("{size} elements in {count} parts"));
            }
            let part = size.div_ceil(count);
            (0..count).map(|index| part.min(size.saturating_sub(index * part))).collect()
        }
    };
    let total = parts.iter().try_fold(0usize, |sum, &part| sum.checked_add(part));
    if total != Some(size) {
        return invalid(format!("the parts do not sum to {size}"));
    }
    let mut start = 0;
    let mut values = Vec::with_capacity(parts.len());
    for part in parts {
        values.push(context.slice_axis(x, axis, start, start + part, 1)?);
        start += part;
    }
    Ok(values)
}

fn slice(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let mut x = context.input(0)?;
    let rank = context.rank(x);
    let (starts, ends, axes, steps) = if context.opset < 10 {
        let list = |name: &str| context.ints(name);
        let (Some(starts), Some(ends)) = (list("starts"), list("ends")) else {
            return invalid("starts and ends are missing");
        };
        (starts, ends, list("axes"), None)
    } else {
        let optional = |index: usize| -> Result<Option<Vec<i64>>, ImportError> {
            Ok(context.optional_constant(index)?.map(|tensor| tensor.to_i64()))
        };
        (context.constant_ints(1)?, context.constant_ints(2)?, optional(3)?, optional(4)?)
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return invalid("starts, ends, axes and steps have one length");
    }
    for (index, &axis) in axes.iter().enumerate() {
        let axis = context.axis(axis, rank)?;
        x = slice_one(context, x, axis, [starts[index], ends[index], steps[index]])?;
    }
    Ok(vec![x])
}

/// Elements from `start` to `end` by `step`, by Python's rules.
fn slice_one(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    axis: usize,
    [start, end, step]: [i64; 3],
) -> Result<ValueId, ImportError> {
    let size = context.shape(x)[axis] as i64;
    let from_end =
        |position: i64| if position < 0 { position.saturating_add(size) } else { position };
    match step {
        0 => invalid("a step of 0"),
        step if step > 0 => {
            let start = from_end(start).clamp(0, size);
            let end = from_end(end).clamp(start, size);
            context.slice_axis(x, axis, start as usize, end as usize, step as usize)
        }
        step => {
            let start = from_end(start).clamp(-1, size - 1);
            let end = from_end(end).clamp(-1, start.max(-1));
            let stride = step.unsigned_abs() as usize;
            let count = ((start - end) as usize).div_ceil(stride);
            // From the last position that the steps reach, forwards, then turned round.
            let first = match count {
                0 => return context.slice_axis(x, axis, 0, 0, 1),
                count => start as usize - (count - 1) * stride,
            };
            let part = context.slice_axis(x, axis, first, start as usize + 1, stride)?;
            Ok(context.builder.add(op::Reverse { axes: vec![axis] }, &[part])?)
        }
    }
}

fn expand(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let wanted: Shape = sizes(&context.constant_ints(1)?)?.into();
    let shape = broadcast_shape(&[context.shape(x), wanted])?;
    Ok(vec![context.broadcast_to(x, &shape)?])
}

fn tile(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    let repeats = if context.opset < 6 {
        let (tiles, axis) = (context.constant_ints(1)?, context.constant_ints(2)?);
        let (Some(&tiles), Some(&axis)) = (tiles.first(), axis.first()) else {
            return invalid("tiles and axis have one element");
        };
        let mut repeats = vec![1; shape.len()];
        let axis = context.axis(axis, shape.len())?;
        repeats[axis] = sizes(&[tiles])?[0];
        repeats
    } else {
        sizes(&context.constant_ints(1)?)?
    };
    if repeats.len() != shape.len() {
        return invalid(format!("{} repeats for {} dimensions", repeats.len(), shape.len()));
    }
    if repeats.iter().all(|&count| count == 1) {
        return Ok(vec![x]);
    }
    let mut wide = Vec::new();
    let mut dims = Vec::new();
    let mut result = Vec::new();
    for (&size, &count) in shape.iter().zip(&repeats) {
        if count != 1 {
            wide.push(count);
        }
        dims.push(wide.len());
        wide.push(size);
        match size.checked_mul(count) {
            Some(size) => result.push(size),
            None => return invalid(format!("{size} elements {count} times")),
        }
    }
    let spread = context.builder.add(op::Broadcast { shape: wide, dims }, &[x])?;
    Ok(vec![context.reshape(spread, &result)?])
}

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

fn range(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (start, limit, delta) = (context.constant(0)?, context.constant(1)?, context.constant(2)?);
    if [&start, &limit, &delta].iter().any(|tensor| tensor.count() != 1) {
        return invalid("start, limit and delta are scalars");
    }
    let dtype = start.dtype();
    const MOST: usize = 1 << 24;
    let values = if dtype.is_float() {
        let first = |tensor: &Tensor| tensor.values().to_f64()[0];
        let (start, limit, delta) = (first(&start), first(&limit), first(&delta));
        let count = libm::ceil((limit - start) / delta);
        if !count.is_finite() || count > MOST as f64 {
            return invalid(format!("a range of {count} elements"));
        }
        let count = count.max(0.0) as usize;
        if dtype == DType::F64 {
            Values::F64((0..count).map(|index| start + index as f64 * delta).collect())
        } else {
            Values::F32(
                (0..count).map(|index| start as f32 + index as f32 * delta as f32).collect(),
            )
        }
    } else {
        let first = |tensor: &Tensor| i128::from(tensor.to_i64()[0]);
        let (start, limit, delta) = (first(&start), first(&limit), first(&delta));
        if delta == 0 {
            return invalid("a step of 0");
        }
        let distance = if delta > 0 { limit - start } else { start - limit };
        let count = usize::try_from((distance.max(0) as u128).div_ceil(delta.unsigned_abs()))
            .unwrap_or(usize::MAX);
        if count > MOST {
            return invalid(format!("a range of {count} elements"));
        }
        Values::Int((0..count as i128).map(|index| (start + index * delta) as i64).collect())
    };
    let count = values.len();
    Ok(vec![context.known(Tensor::from_values(dtype, &[count], &values))])
}

/// Whether the column is at most `k` to the right of the row.
fn below_diagonal(
    context: &mut NodeContext<'_, '_, '_>,
    shape: &[usize],
    relation: ScalarFn,
    k: i64,
) -> Result<ValueId, ImportError> {
    let rank = shape.len();
    let rows = context.iota(DType::I64, shape, rank - 2)?;
    let columns = context.iota(DType::I64, shape, rank - 1)?;
    let k = context.known(Tensor::scalar(k));
    let k = context.broadcast_to(k, shape)?;
    let limit = context.builder.map(ScalarFn::Add, &[rows, k])?;
    Ok(context.builder.map(relation, &[columns, limit])?)
}

fn eye_like(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    if shape.len() != 2 {
        return invalid(format!("a matrix is wanted, not {} dimensions", shape.len()));
    }
    let dtype = context.dtype_attribute("dtype")?.unwrap_or(context.dtype(x));
    let k = context.int("k", 0);
    let on = below_diagonal(context, &shape, ScalarFn::Eq, k)?;
    Ok(vec![context.convert(on, dtype)?])
}

fn trilu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    if shape.len() < 2 {
        return invalid("a matrix is wanted");
    }
    let k = match context.optional_constant(1)? {
        Some(k) => k.to_i64().first().copied().unwrap_or(0),
        None => 0,
    };
    let relation = if context.int("upper", 1) != 0 { ScalarFn::Ge } else { ScalarFn::Le };
    let kept = below_diagonal(context, &shape[shape.len() - 2..], relation, k)?;
    let kept = context.broadcast_to(kept, &shape)?;
    let zero = context.scalar(context.dtype(x), 0.0);
    let zero = context.broadcast_to(zero, &shape)?;
    Ok(vec![context.builder.map(ScalarFn::Select, &[kept, x, zero])?])
}

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

fn dropout(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let training = match context.optional_constant(2)? {
        Some(flag) => flag.to_i64().first() == Some(&1),
        None => context.opset < 7 && context.int("is_test", 0) == 0,
    };
    let ratio = match context.optional_constant(1)? {
        Some(ratio) => ratio.values().to_f64().first().copied().unwrap_or(0.5),
        None => f64::from(context.float("ratio", 0.5)),
    };
    if training && context.opset >= 12 && ratio != 0.0 {
        return unsupported("training with a random mask");
    }
    let dtype = if context.opset < 10 { context.dtype(x) } else { DType::Bool };
    let mut results = vec![x];
    if context.has_output(1) {
        let all = context.scalar(dtype, 1.0);
        let shape = context.shape(x);
        results.push(context.broadcast_to(all, &shape)?);
    }
    Ok(results)
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
