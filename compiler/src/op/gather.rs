//! `gather`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;
use bytes::Bytes;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// The operand's dimension that the indices replace.
    pub axis: usize,
}

impl OpDef for Gather {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        Some(Gather { axis: axis? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x, indices] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        let result = indexed(x, indices, self.axis)?;
        if x.shape[self.axis] == 0 && result.shape.iter().all(|&size| size > 0) {
            return rules::fail(format!("axis {} has no element to choose", self.axis));
        }
        Ok(vec![result])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x, indices] = operands else { unreachable!("the type rule counts operands") };
        let ty = indexed(x.ty(), indices.ty(), self.axis).expect("the type rule was checked");
        let size = x.shape()[self.axis];
        let row = x.shape()[self.axis + 1..].iter().product::<usize>() * x.dtype().bytes();
        let mut data = Vec::with_capacity(ty.bytes());
        if ty.bytes() > 0 {
            let positions = positions(indices);
            for slab in x.bytes().chunks_exact(size * row) {
                for &position in &positions {
                    let begin = clamped(position, size - 1) * row;
                    data.extend_from_slice(&slab[begin..begin + row]);
                }
            }
        }
        vec![Tensor::new(ty, Bytes::from(data)).expect("every slice was copied")]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let x = TensorType { dtype: sample::dtype(u)?, shape };
        Ok((Gather { axis }, vec![x, sample_indices(u)?]))
    }
}

/// The type of the slices of `x` along `axis` that `indices` choose: the indices' dimensions replace the axis.
pub(super) fn indexed(
    x: &TensorType,
    indices: &TensorType,
    axis: usize,
) -> Result<TensorType, TypeError> {
    if !indices.dtype.is_integer() {
        return rules::fail(format!("indices are integers, not {}", indices.dtype));
    }
    let (before, after) = (&x.shape[..axis], &x.shape[axis + 1..]);
    let shape = before.iter().chain(&indices.shape).chain(after).copied().collect();
    Ok(TensorType { dtype: x.dtype, shape })
}

/// Indices as signed integers; those beyond are the largest.
pub(super) fn positions(indices: &Tensor) -> Vec<i64> {
    match indices.values() {
        Values::Uint(values) => {
            values.into_iter().map(|value| i64::try_from(value).unwrap_or(i64::MAX)).collect()
        }
        values @ (Values::Bool(_) | Values::Int(_) | Values::F32(_) | Values::F64(_)) => {
            values.into_i64()
        }
    }
}

/// The nearest position from 0 to `last`.
pub(super) fn clamped(position: i64, last: usize) -> usize {
    usize::try_from(position).unwrap_or(0).min(last)
}

/// The type of some indices.
pub(super) fn sample_indices(u: &mut Unstructured<'_>) -> arbitrary::Result<TensorType> {
    let dtype = *u.choose(&[DType::I64, DType::I32, DType::U8])?;
    Ok(TensorType { dtype, shape: sample::shape(u, 0, 2)? })
}
