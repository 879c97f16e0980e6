//! `softmax`: the largest element is taken off first, so no exponential overflows.

use crate::graph::{Builder, ValueId};
use crate::kernel::Combine;
use crate::op::formula::{converted, joined, widened};
use crate::op::{AttrReader, AttrWriter, Composite, TypeError, sample};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Softmax {
    /// The dimension along which the results sum to one.
    pub axis: usize,
}

impl Composite for Softmax {
    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        Some(Softmax { axis: attributes.required("axis")? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
    }

    fn expand(
        &self,
        builder: &mut Builder<'_>,
        operands: &[ValueId],
    ) -> Result<Vec<ValueId>, TypeError> {
        let [x] = *operands else { return Err(TypeError::new("takes 1 operand")) };
        let wide = widened(builder, x)?;
        let top = joined(builder, Combine::Max, wide, &[self.axis])?;
        let shifted = builder.map(ScalarFn::Sub, &[wide, top])?;
        let power = builder.map(ScalarFn::Exp, &[shifted])?;
        let sum = joined(builder, Combine::Sum, power, &[self.axis])?;
        let quotient = builder.map(ScalarFn::Div, &[power, sum])?;
        Ok(vec![converted(builder, quotient, builder.ty(x).dtype)?])
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let dtype = *u.choose(&[DType::F32, DType::BF16])?;
        Ok((Softmax { axis: sample::axis(u, shape.len())? }, vec![TensorType { dtype, shape }]))
    }
}
