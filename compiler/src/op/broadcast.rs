//! `broadcast`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// The result's shape.
    pub shape: Vec<usize>,
    /// The result's dimension for each of the operand's, ascending; sizes are equal, or the operand's is 1.
    pub dims: Vec<usize>,
}

impl OpDef for Broadcast {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let shape = attributes.required("shape");
        let dims = attributes.required("dims");
        Some(Broadcast { shape: shape?, dims: dims? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("shape", self.shape.clone());
        attributes.put("dims", self.dims.clone());
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
