//! Constants and shapes that derivatives are made of.

use crate::graph::{Builder, ValueId};
use crate::kernel::Combine;
use crate::op::{Broadcast, Convert, Reduce, Reshape, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType};

type Made = Result<ValueId, TypeError>;

/// The same number everywhere.
pub(super) fn filled(builder: &mut Builder<'_>, ty: &TensorType, value: f64) -> Made {
    let bytes = crate::narrow::encode(ty.dtype, &Values::F64(vec![value]));
    let scalar = Tensor::from_values(ty.dtype, &[], &crate::narrow::decode(ty.dtype, &bytes));
    let scalar = builder.constant(scalar);
    if ty.rank() == 0 {
        return Ok(scalar);
    }
    builder.add(Broadcast { shape: ty.shape.to_vec(), dims: Vec::new() }, &[scalar])
}

pub(super) fn zeros(builder: &mut Builder<'_>, ty: &TensorType) -> Made {
    filled(builder, ty, 0.0)
}

/// The value in another type.
pub(super) fn converted(builder: &mut Builder<'_>, x: ValueId, dtype: DType) -> Made {
    if builder.ty(x).dtype == dtype { Ok(x) } else { builder.add(Convert { dtype }, &[x]) }
}

/// The value where `condition` holds, else zero.
pub(super) fn kept(builder: &mut Builder<'_>, condition: ValueId, x: ValueId) -> Made {
    let ty = builder.ty(x).clone();
    let zero = zeros(builder, &ty)?;
    builder.map(ScalarFn::Select, &[condition, x, zero])
}

/// The sum over those dimensions, which vanish.
pub(super) fn summed(builder: &mut Builder<'_>, x: ValueId, axes: &[usize]) -> Made {
    if axes.is_empty() {
        return Ok(x);
    }
    let accumulate = builder.ty(x).dtype.accumulator();
    builder.add(Reduce { combine: Combine::Sum, axes: axes.to_vec(), accumulate }, &[x])
}

pub(super) fn reshaped(builder: &mut Builder<'_>, x: ValueId, shape: &[usize]) -> Made {
    if builder.ty(x).shape.as_slice() == shape {
        return Ok(x);
    }
    builder.add(Reshape { shape: shape.to_vec() }, &[x])
}

/// The value repeated: its dimensions become `dims` of `shape`.
pub(super) fn repeated(
    builder: &mut Builder<'_>,
    x: ValueId,
    shape: &[usize],
    dims: &[usize],
) -> Made {
    builder.add(Broadcast { shape: shape.to_vec(), dims: dims.to_vec() }, &[x])
}

/// The value repeated along `axes` of `shape`, which it lacks.
pub(super) fn spread(
    builder: &mut Builder<'_>,
    x: ValueId,
    shape: &[usize],
    axes: &[usize],
) -> Made {
    let dims: Vec<usize> = (0..shape.len()).filter(|dim| !axes.contains(dim)).collect();
    repeated(builder, x, shape, &dims)
}

/// `part` over the sum of `of` along `axes`: what is shared among equals. Nothing is shared where nobody is equal.
pub(super) fn shared(
    builder: &mut Builder<'_>,
    part: ValueId,
    equal: ValueId,
    axes: &[usize],
) -> Made {
    let ty = builder.ty(part).clone();
    let count = converted(builder, equal, ty.dtype)?;
    let count = summed(builder, count, axes)?;
    let small = builder.ty(count).clone();
    let one = filled(builder, &small, 1.0)?;
    let count = builder.map(ScalarFn::Max, &[count, one])?;
    let count = spread(builder, count, &ty.shape, axes)?;
    let each = builder.map(ScalarFn::Div, &[part, count])?;
    kept(builder, equal, each)
}
