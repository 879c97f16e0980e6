//! `constant`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, sample};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Constant {
    /// The value.
    pub value: Tensor,
}

impl OpDef for Constant {
    const KIND: Kind = Kind::Source;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let value = attributes.required("value");
        Some(Constant { value: value? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("value", self.value.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        context.operands::<0>()?;
        Ok(vec![self.value.ty().clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        vec![self.value.clone()]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 3)?;
        let value = Tensor::zeros(TensorType { dtype: sample::dtype(u)?, shape });
        Ok((Constant { value }, Vec::new()))
    }
}
