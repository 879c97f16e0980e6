//! `convert`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::{TensorType, DType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Convert {
    /// The result's element type.
    pub dtype: DType,
}

impl OpDef for Convert {
    const KIND: Kind = Kind::Map;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let dtype = attributes.required("dtype");
        Some(Convert { dtype: dtype? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("dtype", self.dtype);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        Ok(vec![TensorType { dtype: self.dtype, shape: x.shape.clone() }])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
