//! `permute`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Permute {
    /// Sender and receiver of each message.
    pub pairs: Vec<Vec<usize>>,
}

impl OpDef for Permute {
    const KIND: Kind = Kind::Collective;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let pairs = attributes.required("pairs");
        Some(Permute { pairs: pairs? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("pairs", self.pairs.clone());
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
