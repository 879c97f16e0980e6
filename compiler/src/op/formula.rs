//! What the formulas of composites have in common. A composite of narrow floats computes in the type in which their
//! sums are kept, and rounds once at the end.

use crate::graph::{Builder, ValueId};
use crate::kernel::Combine;
use crate::narrow;
use crate::op::{Broadcast, Convert, Reduce, TypeError, rules};
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::DType;

type Formula = Result<ValueId, TypeError>;

/// The value in the type in which sums of its elements are kept.
pub(super) fn widened(builder: &mut Builder<'_>, x: ValueId) -> Formula {
    let dtype = builder.ty(x).dtype;
    if !dtype.is_float() {
        return rules::fail(format!("takes floating-point numbers, not {dtype}"));
    }
    converted(builder, x, dtype.accumulator())
}

/// The value in another type.
pub(super) fn converted(builder: &mut Builder<'_>, x: ValueId, dtype: DType) -> Formula {
    if builder.ty(x).dtype == dtype { Ok(x) } else { builder.add(Convert { dtype }, &[x]) }
}

/// The same number everywhere, with the shape and element type of `like`.
pub(super) fn number(builder: &mut Builder<'_>, like: ValueId, value: f64) -> Formula {
    let dtype = builder.ty(like).dtype;
    let bytes = narrow::encode(dtype, &Values::F64(vec![value]));
    let scalar = builder.constant(Tensor::from_values(dtype, &[], &narrow::decode(dtype, &bytes)));
    let shape = builder.shape(like).to_vec();
    if shape.is_empty() {
        return Ok(scalar);
    }
    builder.add(Broadcast { shape, dims: Vec::new() }, &[scalar])
}

/// A scalar function of a value and a number.
pub(super) fn with_number(
    builder: &mut Builder<'_>,
    function: ScalarFn,
    x: ValueId,
    value: f64,
) -> Formula {
    let value = number(builder, x, value)?;
    builder.map(function, &[x, value])
}

/// The elements joined over `axes`, each result at every position that it joins.
pub(super) fn joined(
    builder: &mut Builder<'_>,
    combine: Combine,
    x: ValueId,
    axes: &[usize],
) -> Formula {
    let accumulate = builder.ty(x).dtype.accumulator();
    let joined = builder.add(Reduce { combine, axes: axes.to_vec(), accumulate }, &[x])?;
    let shape = builder.shape(x).to_vec();
    let dims = (0..shape.len()).filter(|dim| !axes.contains(dim)).collect();
    builder.add(Broadcast { shape, dims }, &[joined])
}

/// The mean over `axes`, at every position that it is of.
pub(super) fn mean(builder: &mut Builder<'_>, x: ValueId, axes: &[usize]) -> Formula {
    let sum = joined(builder, Combine::Sum, x, axes)?;
    let count: usize = axes.iter().map(|&axis| builder.ty(x).shape[axis]).product();
    with_number(builder, ScalarFn::Div, sum, count as f64)
}

/// A value over the last dimensions of `like`, in its type and repeated along the others.
pub(super) fn over_last(builder: &mut Builder<'_>, x: ValueId, like: ValueId) -> Formula {
    let (rank, shape) = (builder.ty(x).rank(), builder.shape(like).to_vec());
    if rank > shape.len() {
        let (x, like) = (builder.ty(x), builder.ty(like));
        return rules::fail(format!("{x} has more dimensions than {like}"));
    }
    let x = converted(builder, x, builder.ty(like).dtype)?;
    let dims = (shape.len() - rank..shape.len()).collect();
    builder.add(Broadcast { shape, dims }, &[x])
}
