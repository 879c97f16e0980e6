//! `pad`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// How many before each dimension.
    pub low: Vec<usize>,
    /// How many after.
    pub high: Vec<usize>,
    /// How many between neighbours.
    pub interior: Vec<usize>,
}

impl OpDef for Pad {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let low = attributes.required("low");
        let high = attributes.required("high");
        let interior = attributes.required("interior");
        Some(Pad { low: low?, high: high?, interior: interior? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("low", self.low.clone());
        attributes.put("high", self.high.clone());
        attributes.put("interior", self.interior.clone());
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
