//! `slice`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The first position in each dimension.
    pub start: Vec<usize>,
    /// One past the last.
    pub limit: Vec<usize>,
    /// The step; at least 1.
    pub stride: Vec<usize>,
}

impl OpDef for Slice {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let start = attributes.required("start");
        let limit = attributes.required("limit");
        let stride = attributes.required("stride");
        Some(Slice { start: start?, limit: limit?, stride: stride? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("start", self.start.clone());
        attributes.put("limit", self.limit.clone());
        attributes.put("stride", self.stride.clone());
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
