//! `sort`.

use crate::op::order::sorted;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, shape_of};
use crate::types::{DType, TensorType, strides};
use arbitrary::Unstructured;
use bytes::Bytes;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Sort {
    /// The dimension along which.
    pub axis: usize,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl OpDef for Sort {
    const KIND: Kind = Kind::Order;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        let descending = attributes.optional("descending").unwrap_or(false);
        Some(Sort { axis: axis?, descending })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
        attributes.put_unless("descending", self.descending, &false);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        Ok(vec![x.clone(), TensorType { dtype: DType::I64, shape: x.shape.clone() }])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        sorted_along(x, self.axis, x.shape()[self.axis], self.descending)
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let op = Sort { axis, descending: u.arbitrary()? };
        Ok((op, vec![TensorType { dtype: sample::dtype(u)?, shape }]))
    }
}

/// The first `count` elements of `x` sorted along `axis`, and the positions they came from.
pub(super) fn sorted_along(
    x: &Tensor,
    axis: usize,
    count: usize,
    descending: bool,
) -> Vec<Tensor> {
    let (size, step, bytes) = (x.shape()[axis], strides(x.shape())[axis], x.dtype().bytes());
    let mut shape = shape_of(x.shape());
    shape[axis] = count;
    let ty = TensorType { dtype: x.dtype(), shape };
    let values = x.values();
    let mut data = vec![0; ty.bytes()];
    let mut positions = vec![0i64; ty.count()];
    let rows = if ty.count() == 0 { 0 } else { x.count() / size };
    for row in 0..rows {
        let (outer, inner) = (row / step, row % step);
        let first = outer * size * step + inner;
        let order = sorted(&values, [first, size, step], descending);
        for (place, position) in order.into_iter().take(count).enumerate() {
            let (from, to) = (first + position * step, (outer * count + place) * step + inner);
            let element = &x.bytes()[from * bytes..(from + 1) * bytes];
            data[to * bytes..(to + 1) * bytes].copy_from_slice(element);
            positions[to] = position as i64;
        }
    }
    let positions = Tensor::from_slice(&ty.shape, &positions);
    vec![Tensor::new(ty, Bytes::from(data)).expect("the data has the type's size"), positions]
}
