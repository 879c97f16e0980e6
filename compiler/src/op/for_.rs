//! `for`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct For {
    /// How often.
    pub count: usize,
}

impl OpDef for For {
    const KIND: Kind = Kind::Control;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let count = attributes.required("count");
        Some(For { count: count? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("count", self.count);
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
