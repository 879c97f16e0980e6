//! `softmax`: the largest element is taken off first, so no exponential overflows.

use crate::graph::{Builder, ValueId};
use crate::kernel::Combine;
use crate::op::{AttrReader, AttrWriter, Composite, Reduce, TypeError};
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

    fn expand(&self, builder: &mut Builder<'_>, operands: &[ValueId]) -> Result<Vec<ValueId>, TypeError> {
        let [x] = *operands else { return Err(TypeError::new("takes 1 operand")) };
        let accumulate = builder.ty(x).dtype.accumulator();
        let reduce = |combine| Reduce { combine, axes: vec![self.axis], accumulate };
        let top = builder.add(reduce(Combine::Max), &[x])?;
        let top = builder.spread(top, x, self.axis)?;
        let shifted = builder.map(ScalarFn::Sub, &[x, top])?;
        let power = builder.map(ScalarFn::Exp, &[shifted])?;
        let sum = builder.add(reduce(Combine::Sum), &[power])?;
        let sum = builder.spread(sum, x, self.axis)?;
        Ok(vec![builder.map(ScalarFn::Div, &[power, sum])?])
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = [u.int_in_range(1..=4)?, u.int_in_range(1..=9)?];
        Ok((Softmax { axis: u.int_in_range(0..=1)? }, vec![TensorType::new(DType::F32, &shape)]))
    }
}
