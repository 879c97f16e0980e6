//! Operators that keep elements and change their places.

use super::context::{
    Converted, ImportError, Items, NodeContext, broadcast_shape, invalid, unsupported,
};
use super::convert::Item;
use super::table::{Row, items, row};
use crate::graph::ValueId;
use crate::op;
use crate::tensor::Tensor;
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
    row("Dropout", 1, dropout),
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
pub(super) fn sizes(values: &[i64]) -> Result<Vec<usize>, ImportError> {
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
