//! `arg-reduce`.

use crate::op::order::{compare, is_nan};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType, strides};
use crate::kernel::Combine;
use arbitrary::Unstructured;
use std::cmp::Ordering;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgReduce {
    /// `Min` or `Max`.
    pub combine: Combine,
    /// The dimension that vanishes.
    pub axis: usize,
    /// Whether the last of equals is taken.
    pub last: bool,
}

impl OpDef for ArgReduce {
    const KIND: Kind = Kind::Reduce;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let axis = attributes.required("axis");
        let last = attributes.optional("last").unwrap_or(false);
        Some(ArgReduce { combine: combine?, axis: axis?, last })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("axis", self.axis);
        attributes.put_unless("last", self.last, &false);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        if !matches!(self.combine, Combine::Min | Combine::Max) {
            return rules::fail(format!("combine is min or max, not {}", self.combine.name()));
        }
        if x.shape[self.axis] == 0 {
            return rules::fail(format!("axis {} has no element to choose", self.axis));
        }
        let mut shape = x.shape.clone();
        shape.remove(self.axis);
        Ok(vec![TensorType { dtype: DType::I64, shape }])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        let (size, step) = (x.shape()[self.axis], strides(x.shape())[self.axis]);
        let values = x.values();
        let better = |candidate: usize, best: usize| {
            let order = match (is_nan(&values, candidate), is_nan(&values, best), self.combine) {
                (false, false, Combine::Min) => compare(&values, best, candidate),
                (left, right, _) if left || right => left.cmp(&right),
                (_, _, _) => compare(&values, candidate, best),
            };
            order == Ordering::Greater || (order == Ordering::Equal && self.last)
        };
        let firsts = (0..values.len()).filter(|index| index / step % size == 0);
        let positions: Vec<i64> = firsts
            .map(|first| {
                let mut best = 0;
                for position in 1..size {
                    if better(first + position * step, first + best * step) {
                        best = position;
                    }
                }
                best as i64
            })
            .collect();
        let mut shape = x.shape().to_vec();
        shape.remove(self.axis);
        vec![Tensor::from_slice(&shape, &positions)]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let combine = *u.choose(&[Combine::Min, Combine::Max])?;
        let op = ArgReduce { combine, axis, last: u.arbitrary()? };
        Ok((op, vec![TensorType { dtype: sample::dtype(u)?, shape }]))
    }
}
