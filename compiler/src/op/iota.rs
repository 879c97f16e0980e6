//! `iota`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType, strides};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Iota {
    /// The result's type.
    pub ty: TensorType,
    /// The dimension along which the elements count.
    pub axis: usize,
}

impl OpDef for Iota {
    const KIND: Kind = Kind::Source;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let ty = attributes.result_types.first().cloned();
        let axis = attributes.required("axis");
        Some(Iota { ty: ty?, axis: axis? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        context.operands::<0>()?;
        rules::axis(self.axis, self.ty.rank())?;
        if self.ty.dtype == DType::Bool {
            return rules::fail("positions are numbers, not bool");
        }
        Ok(vec![self.ty.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        let (shape, step) = (&self.ty.shape, strides(&self.ty.shape)[self.axis]);
        let position = |index: usize| (index / step % shape[self.axis]) as i64;
        let values = Values::Int((0..self.ty.count()).map(position).collect());
        vec![Tensor::from_values(self.ty.dtype, shape, &values)]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let numbers = &DType::ALL[1..];
        let axis = sample::axis(u, shape.len())?;
        Ok((Iota { ty: TensorType { dtype: *u.choose(numbers)?, shape }, axis }, Vec::new()))
    }
}
