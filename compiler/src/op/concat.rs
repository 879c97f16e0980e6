//! `concat`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

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

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
