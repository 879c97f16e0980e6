//! `concat`.

use crate::op::movement::{View, copy};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample, Simpler};
use crate::tensor::{Tensor, shape_of};
use crate::types::TensorType;
use arbitrary::Unstructured;
use bytes::Bytes;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    /// The dimension along which.
    pub axis: usize,
}

impl OpDef for Concat {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        Some(Concat { axis: axis? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let Some(&first) = context.operands.first() else {
            return rules::fail("takes at least 1 operand");
        };
        rules::axis(self.axis, first.rank())?;
        let mut result = first.clone();
        for (position, other) in context.operands.iter().enumerate().skip(1) {
            let differs = |dim| dim != self.axis && other.shape[dim] != first.shape[dim];
            if other.dtype != first.dtype
                || other.rank() != first.rank()
                || (0..first.rank()).any(differs)
            {
                return rules::fail(format!(
                    "operand {position} of type {other} does not follow {first} along axis {}",
                    self.axis
                ));
            }
            result.shape[self.axis] =
                rules::sum(&[result.shape[self.axis], other.shape[self.axis]])?;
        }
        Ok(vec![result])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let first = &operands[0];
        let mut shape = shape_of(first.shape());
        shape[self.axis] = operands.iter().map(|operand| operand.shape()[self.axis]).sum();
        let ty = TensorType { dtype: first.dtype(), shape };
        let mut target = vec![0; ty.bytes()];
        let mut to = View::of(&ty.shape);
        for operand in operands {
            let from = View::of(operand.shape());
            let bytes = ty.dtype.bytes();
            copy(bytes, operand.shape(), operand.bytes(), &from, &mut target, &to);
            to.start += operand.shape()[self.axis] * to.steps[self.axis] as usize;
        }
        vec![Tensor::new(ty, Bytes::from(target)).expect("the target has the type's size")]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let mut types = vec![TensorType { dtype: sample::dtype(u)?, shape }];
        for _ in 1..u.int_in_range(1..=3)? {
            let mut next = types[0].clone();
            next.shape[axis] = u.int_in_range(1..=4)?;
            types.push(next);
        }
        Ok((Concat { axis }, types))
    }

    fn simplify(&self, operands: &[&TensorType]) -> Option<Simpler> {
        (operands.len() == 1).then_some(Simpler::Operand(0))
    }
}
