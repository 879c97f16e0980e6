//! `scatter`.

use crate::op::gather::indexed;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::kernel::Combine;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    /// The dimension that is indexed.
    pub axis: usize,
    /// How an update joins what is there; overwrites where not given.
    pub combine: Option<Combine>,
}

impl OpDef for Scatter {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        let combine = attributes.optional("combine");
        Some(Scatter { axis: axis?, combine })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
        if let Some(combine) = self.combine {
            attributes.put("combine", combine);
        }
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x, indices, updates] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        if let Some(combine) = self.combine {
            rules::joins(combine, x.dtype)?;
        }
        let wanted = indexed(x, indices, self.axis)?;
        if *updates != wanted {
            return rules::fail(format!("the updates are {wanted}, not {updates}"));
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}


