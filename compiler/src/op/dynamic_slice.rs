//! `dynamic-slice`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicSlice {
    /// The result's shape.
    pub sizes: Vec<usize>,
}

impl OpDef for DynamicSlice {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let sizes = attributes.required("sizes");
        Some(DynamicSlice { sizes: sizes? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("sizes", self.sizes.clone());
    }

    fn infer(&self, _context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        Err(TypeError::new("not written yet"))
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
