//! Operators that choose elements by indices. Those over several dimensions become one dimension: positions in the
//! flattened operand.

use super::context::{Converted, ImportError, NodeContext, invalid, unsupported};
use super::convert::Item;
use super::table::{Row, row};
use crate::graph::ValueId;
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, strides};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("Gather", 1, gather),
    row("GatherElements", 1, gather_elements),
    row("GatherND", 1, gather_nd),
    row("Scatter", 1, scatter_elements),
    row("ScatterElements", 1, scatter_elements),
    row("ScatterND", 1, scatter_nd),
    row("TensorScatter", 1, tensor_scatter),
    row("OneHot", 1, one_hot),
    row("TopK", 1, top_k),
    row("NonZero", 1, non_zero),
    row("Compress", 1, compress),
    row("Unique", 1, unique),
];

/// The operators of domain ai.onnx.ml of this file.
pub(super) const ML: &[Row] = &[row("ArrayFeatureExtractor", 1, array_feature_extractor)];

/// Indices that count from zero: negative ones count from the end of a dimension of that size.
fn normalized(
    context: &mut NodeContext<'_, '_, '_>,
    indices: ValueId,
    size: usize,
) -> Result<ValueId, ImportError> {
    let indices = context.convert(indices, DType::I64)?;
    if let Item::Known { tensor, .. } = context.importer.item(indices) {
        let size = size as i64;
        let positions: Vec<i64> = tensor
            .to_i64()
            .into_iter()
            .map(|index| if index < 0 { index.saturating_add(size) } else { index })
            .collect();
        return Ok(context.known(Tensor::from_slice(tensor.shape(), &positions)));
    }
    let negative = context.map_scalar(ScalarFn::Lt, indices, 0.0)?;
    let shifted = context.map_scalar(ScalarFn::Add, indices, size as f64)?;
    Ok(context.builder.map(ScalarFn::Select, &[negative, shifted, indices])?)
}

fn gather(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, indices) = (context.input(0)?, context.input(1)?);
    let axis = context.axis(context.int("axis", 0), context.rank(x))?;
    let size = context.shape(x)[axis];
    let indices = normalized_input(context, 1, indices, size)?;
    Ok(vec![context.gather(x, indices, axis)?])
}

/// The same for an input, whose value may be known though it is of another integer type.
fn normalized_input(
    context: &mut NodeContext<'_, '_, '_>,
    index: usize,
    value: ValueId,
    size: usize,
) -> Result<ValueId, ImportError> {
    match context.optional_constant(index) {
        Ok(Some(tensor)) => {
            let wide = context.known(Tensor::from_slice(tensor.shape(), &tensor.to_i64()));
            normalized(context, wide, size)
        }
        Ok(None) | Err(_) => normalized(context, value, size),
    }
}

/// The positions in a flattened operand of `shape` of elements at the result's own position, but at `indices` along
/// `axis`. The indices have the operand's rank.
fn flat_positions(
    context: &mut NodeContext<'_, '_, '_>,
    indices: ValueId,
    shape: &[usize],
    axis: usize,
) -> Result<ValueId, ImportError> {
    let strides = strides(shape);
    let result = context.shape(indices).to_vec();
    let mut sum = if strides[axis] == 1 {
        indices
    } else {
        context.map_scalar(ScalarFn::Mul, indices, strides[axis] as f64)?
    };
    for dim in (0..shape.len()).filter(|&dim| dim != axis && result[dim] > 1) {
        let position = context.iota(DType::I64, &result, dim)?;
        let offset = if strides[dim] == 1 {
            position
        } else {
            context.map_scalar(ScalarFn::Mul, position, strides[dim] as f64)?
        };
        sum = context.builder.map(ScalarFn::Add, &[sum, offset])?;
    }
    Ok(sum)
}

/// Elements of `x` at the result's own position, but at `indices` (not negative) along `axis`.
pub(super) fn gather_elements_at(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    indices: ValueId,
    axis: usize,
) -> Result<ValueId, ImportError> {
    let shape = context.shape(x);
    let count = context.ty(x).count();
    // Flat positions must not leave the dimension that they index.
    let indices = context.map_scalar(ScalarFn::Max, indices, 0.0)?;
    let indices =
        context.map_scalar(ScalarFn::Min, indices, shape[axis].saturating_sub(1) as f64)?;
    let flat = context.reshape(x, &[count])?;
    let positions = flat_positions(context, indices, &shape, axis)?;
    context.gather(flat, positions, 0)
}

fn gather_elements(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, indices) = (context.input(0)?, context.input(1)?);
    let rank = context.rank(x);
    if context.rank(indices) != rank {
        return invalid("data and indices have one rank");
    }
    let axis = context.axis(context.int("axis", 0), rank)?;
    let size = context.shape(x)[axis];
    let indices = normalized_input(context, 1, indices, size)?;
    Ok(vec![gather_elements_at(context, x, indices, axis)?])
}

/// For index tuples along the last dimension of `indices`: the position of each in dimensions `sizes` flattened, after
/// `batch` dimensions in which each stays at its own place.
fn tuple_positions(
    context: &mut NodeContext<'_, '_, '_>,
    indices: ValueId,
    sizes: &[usize],
    batch: usize,
) -> Result<ValueId, ImportError> {
    let strides = strides(sizes);
    let shape = context.shape(indices);
    let (tuple, outer) = (shape[shape.len() - 1], shape[..shape.len() - 1].to_vec());
    let zero = context.known(Tensor::scalar(0i64));
    let mut sum = context.broadcast_to(zero, &outer)?;
    for dim in 0..batch {
        let position = context.iota(DType::I64, &outer, dim)?;
        let offset = context.map_scalar(ScalarFn::Mul, position, strides[dim] as f64)?;
        sum = context.builder.map(ScalarFn::Add, &[sum, offset])?;
    }
    for entry in 0..tuple {
        let index = context.slice_axis(indices, shape.len() - 1, entry, entry + 1, 1)?;
        let index = context.reshape(index, &outer)?;
        let index = normalized(context, index, sizes[batch + entry])?;
        let offset = context.map_scalar(ScalarFn::Mul, index, strides[batch + entry] as f64)?;
        sum = context.builder.map(ScalarFn::Add, &[sum, offset])?;
    }
    Ok(sum)
}

fn gather_nd(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, indices) = (context.input(0)?, context.input(1)?);
    let batch = usize::try_from(context.int("batch_dims", 0)).unwrap_or(usize::MAX);
    let shape = context.shape(x);
    let Some((&tuple, outer)) = context.shape(indices).split_last().map(|(t, o)| (t, o.to_vec()))
    else {
        return invalid("indices have at least one dimension");
    };
    let whole = batch.saturating_add(tuple);
    if whole > shape.len() || batch > outer.len() || shape[..batch] != outer[..batch] {
        return invalid(format!(
            "tuples of {tuple} after {batch} batch dimensions do not fit rank {}",
            shape.len()
        ));
    }
    let positions = tuple_positions(context, indices, &shape[..whole], batch)?;
    let mut flat = vec![shape[..whole].iter().product()];
    flat.extend_from_slice(&shape[whole..]);
    let flat = context.reshape(x, &flat)?;
    Ok(vec![context.gather(flat, positions, 0)?])
}

fn reduction(context: &NodeContext<'_, '_, '_>) -> Result<Option<Combine>, ImportError> {
    Ok(match context.string("reduction", "none").as_str() {
        "none" => None,
        "add" => Some(Combine::Sum),
        "mul" => Some(Combine::Product),
        "min" => Some(Combine::Min),
        "max" => Some(Combine::Max),
        other => return unsupported(format!("reduction {other:?}")),
    })
}

fn scatter_elements(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, indices, updates) = (context.input(0)?, context.input(1)?, context.input(2)?);
    let shape = context.shape(x);
    if context.rank(indices) != shape.len() || context.shape(updates) != context.shape(indices) {
        return invalid("indices have the rank of the data and the shape of the updates");
    }
    let axis = context.axis(context.int("axis", 0), shape.len())?;
    let combine = reduction(context)?;
    let indices = normalized_input(context, 1, indices, shape[axis])?;
    let positions = flat_positions(context, indices, &shape, axis)?;
    let (count, changes) = (context.ty(x).count(), context.ty(updates).count());
    let flat = context.reshape(x, &[count])?;
    let positions = context.reshape(positions, &[changes])?;
    let updates = context.reshape(updates, &[changes])?;
    let result =
        context.builder.add(op::Scatter { axis: 0, combine }, &[flat, positions, updates])?;
    Ok(vec![context.reshape(result, &shape)?])
}

fn scatter_nd(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, indices, updates) = (context.input(0)?, context.input(1)?, context.input(2)?);
    let shape = context.shape(x);
    let Some((&tuple, outer)) = context.shape(indices).split_last().map(|(t, o)| (t, o.to_vec()))
    else {
        return invalid("indices have at least one dimension");
    };
    if tuple > shape.len() {
        return invalid(format!("tuples of {tuple} do not fit rank {}", shape.len()));
    }
    let combine = reduction(context)?;
    let positions = tuple_positions(context, indices, &shape[..tuple], 0)?;
    let count: usize = outer.iter().product();
    let positions = context.reshape(positions, &[count])?;
    let with = |first: usize| {
        let mut wide = vec![first];
        wide.extend_from_slice(&shape[tuple..]);
        wide
    };
    let flat = context.reshape(x, &with(shape[..tuple].iter().product()))?;
    let updates = context.reshape(updates, &with(count))?;
    let result =
        context.builder.add(op::Scatter { axis: 0, combine }, &[flat, positions, updates])?;
    Ok(vec![context.reshape(result, &shape)?])
}

/// Writes updates into a cache at each batch entry's own position along one axis.
fn tensor_scatter(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (past, update) = (context.input(0)?, context.input(1)?);
    let shape = context.shape(past);
    let axis = context.axis(context.int("axis", -2), shape.len())?;
    if axis == 0 || context.rank(update) != shape.len() {
        return invalid("the axis is not the batch, and the update has the cache's rank");
    }
    let moved = context.shape(update).to_vec();
    let position = context.iota(DType::I64, &moved, axis)?;
    let mut position = position;
    if let Some(start) = context.optional(2)? {
        let mut column = vec![1; shape.len()];
        column[0] = shape[0];
        let start = context.convert(start, DType::I64)?;
        let start = context.reshape(start, &column)?;
        let start = context.broadcast_to(start, &moved)?;
        position = context.builder.map(ScalarFn::Add, &[position, start])?;
    }
    if context.string("mode", "linear") == "circular" {
        position = context.map_scalar(ScalarFn::Mod, position, shape[axis] as f64)?;
    }
    let positions = flat_positions(context, position, &shape, axis)?;
    let (count, changes) = (context.ty(past).count(), context.ty(update).count());
    let flat = context.reshape(past, &[count])?;
    let positions = context.reshape(positions, &[changes])?;
    let update = context.reshape(update, &[changes])?;
    let scatter = op::Scatter { axis: 0, combine: None };
    let result = context.builder.add(scatter, &[flat, positions, update])?;
    Ok(vec![context.reshape(result, &shape)?])
}

fn one_hot(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let indices = context.input(0)?;
    let depth = context.constant_ints(1)?.first().copied().unwrap_or(0);
    let values = context.input(2)?;
    let Ok(size) = usize::try_from(depth) else {
        return invalid(format!("a depth of {depth}"));
    };
    let indices = normalized(context, indices, size)?;
    let mut shape = context.shape(indices).to_vec();
    let axis = context.axis(context.int("axis", -1), shape.len() + 1)?;
    let column = context.unsqueeze(indices, &[axis])?;
    shape.insert(axis, size);
    let column = context.broadcast_to(column, &shape)?;
    let position = context.iota(DType::I64, &shape, axis)?;
    let hot = context.builder.map(ScalarFn::Eq, &[column, position])?;
    let mut ends = Vec::new();
    for end in 0..2 {
        let value = context.slice_axis(values, 0, end, end + 1, 1)?;
        let value = context.reshape(value, &[])?;
        ends.push(context.broadcast_to(value, &shape)?);
    }
    Ok(vec![context.builder.map(ScalarFn::Select, &[hot, ends[1], ends[0]])?])
}

fn top_k(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let axis = context.axis(context.int("axis", -1), context.rank(x))?;
    let k = match context.attribute("k") {
        Some(attribute) => attribute.i,
        None => context.constant_ints(1)?.first().copied().unwrap_or(0),
    };
    let Ok(k) = usize::try_from(k) else { return invalid(format!("k is {k}")) };
    let descending = context.int("largest", 1) != 0;
    Ok(context.builder.add_many(op::TopK { k, axis, descending }, &[x], Vec::new())?.to_vec())
}

/// Whether each element of a tensor that is known is not zero.
fn flags(tensor: &Tensor) -> Vec<bool> {
    tensor.values().to_f64().iter().map(|&value| value != 0.0).collect()
}

fn non_zero(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.constant(0)?;
    let strides = strides(x.shape());
    let found: Vec<usize> =
        flags(&x).iter().enumerate().filter(|(_, flag)| **flag).map(|(index, _)| index).collect();
    let mut positions = Vec::with_capacity(found.len() * x.shape().len());
    for (axis, &size) in x.shape().iter().enumerate() {
        positions.extend(found.iter().map(|index| (index / strides[axis] % size.max(1)) as i64));
    }
    let shape = [x.shape().len(), found.len()];
    Ok(vec![context.known(Tensor::from_slice(&shape, &positions))])
}

fn compress(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let mut x = context.input(0)?;
    let condition = flags(&context.constant(1)?);
    let axis = match context.attribute("axis") {
        Some(attribute) => context.axis(attribute.i, context.rank(x))?,
        None => {
            let count = context.ty(x).count();
            x = context.reshape(x, &[count])?;
            0
        }
    };
    let size = context.shape(x)[axis];
    let chosen: Vec<i64> = (0..size.min(condition.len()))
        .filter(|&index| condition[index])
        .map(|index| index as i64)
        .collect();
    let chosen = context.known_ints(&chosen);
    Ok(vec![context.gather(x, chosen, axis)?])
}

fn unique(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.constant(0)?;
    let (shape, axis) = match context.attribute("axis") {
        Some(attribute) => (x.shape().to_vec(), context.axis(attribute.i, x.shape().len())?),
        None => (vec![x.count()], 0),
    };
    let values = x.values().to_f64();
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let length = shape[axis];
    // What stands at one position along the axis, as a list to compare.
    let slice = |position: usize| -> Vec<f64> {
        (0..outer)
            .flat_map(|o| (0..inner).map(move |i| (o * length + position) * inner + i))
            .map(|index| values[index])
            .collect()
    };
    let mut groups: Vec<(Vec<f64>, Vec<usize>)> = Vec::new();
    if shape[axis] > 1 << 14 {
        return unsupported("more than 16384 elements");
    }
    for position in 0..shape[axis] {
        let key = slice(position);
        match groups.iter_mut().find(|(other, _)| *other == key) {
            Some((_, positions)) => positions.push(position),
            None => groups.push((key, vec![position])),
        }
    }
    if context.int("sorted", 1) != 0 {
        groups.sort_by(|a, b| {
            let pairs = a.0.iter().zip(&b.0);
            pairs
                .map(|(x, y)| x.total_cmp(y))
                .find(|order| order.is_ne())
                .unwrap_or(std::cmp::Ordering::Equal)
        });
    }
    let first: Vec<i64> = groups.iter().map(|(_, positions)| positions[0] as i64).collect();
    let counts: Vec<i64> = groups.iter().map(|(_, positions)| positions.len() as i64).collect();
    let mut inverse = vec![0i64; shape[axis]];
    for (group, (_, positions)) in groups.iter().enumerate() {
        positions.iter().for_each(|&position| inverse[position] = group as i64);
    }
    let value = context.known(x);
    let value = context.reshape(value, &shape)?;
    let first = context.known_ints(&first);
    let chosen = context.gather(value, first, axis)?;
    let (inverse, counts) = (context.known_ints(&inverse), context.known_ints(&counts));
    Ok(vec![chosen, first, inverse, counts])
}

fn array_feature_extractor(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (x, indices) = (context.input(0)?, context.input(1)?);
    let count = context.ty(indices).count();
    let indices = context.reshape(indices, &[count])?;
    let rank = context.rank(x);
    if rank == 0 {
        return invalid("at least one dimension is wanted");
    }
    Ok(vec![context.gather(x, indices, rank - 1)?])
}
