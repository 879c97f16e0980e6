//! `scan`.

use crate::op::reduce::{joined, start};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType, strides};
use crate::kernel::Combine;
use crate::scalar::{Arithmetic, by_arithmetic};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// How elements join.
    pub combine: Combine,
    /// The dimension along which.
    pub axis: usize,
    /// Whether an element is left out of its own result.
    pub exclusive: bool,
    /// Whether it runs from the end.
    pub reverse: bool,
    /// The type of partial results.
    pub accumulate: DType,
}

impl OpDef for Scan {
    const KIND: Kind = Kind::Order;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let axis = attributes.required("axis");
        let exclusive = attributes.optional("exclusive").unwrap_or(false);
        let reverse = attributes.optional("reverse").unwrap_or(false);
        let accumulate = attributes.required("accumulate");
        Some(Scan { combine: combine?, axis: axis?, exclusive, reverse, accumulate: accumulate? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("axis", self.axis);
        attributes.put_unless("exclusive", self.exclusive, &false);
        attributes.put_unless("reverse", self.reverse, &false);
        attributes.put("accumulate", self.accumulate);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        rules::combine(self.combine, x.dtype, self.accumulate)?;
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        let (size, step) = (x.shape()[self.axis], strides(x.shape())[self.axis]);
        let values = x.values().convert(x.dtype(), self.accumulate);
        let start = start(self.combine, x.dtype(), self.accumulate);
        let function = self.combine.function();
        let values = by_arithmetic!(&values, &start, |values, start| {
            let join = Arithmetic::pair(function).expect("the type rule was checked");
            let mut results = values.clone();
            for first in (0..values.len()).filter(|index| index / step % size == 0) {
                let mut sum = start[0];
                for position in 0..size {
                    let position = if self.reverse { size - 1 - position } else { position };
                    let index = first + position * step;
                    let next = join(sum, values[index]);
                    results[index] = if self.exclusive { sum } else { next };
                    sum = next;
                }
            }
            results
        });
        vec![Tensor::from_values(x.dtype(), x.shape(), &values.rounded(self.accumulate))]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let (combine, dtype, accumulate) = joined(u)?;
        let (exclusive, reverse) = (u.arbitrary()?, u.arbitrary()?);
        let op = Scan { combine, axis, exclusive, reverse, accumulate };
        Ok((op, vec![TensorType { dtype, shape }]))
    }
}
