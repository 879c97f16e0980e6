//! `contract`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::{TensorType, DType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    /// Pairs of dimensions of both operands that are kept once: first in the result.
    pub batch: Vec<Vec<usize>>,
    /// Pairs of dimensions of both operands that are summed.
    pub over: Vec<Vec<usize>>,
    /// The type of products and partial sums.
    pub accumulate: DType,
    /// The result's element type.
    pub dtype: DType,
}

impl OpDef for Contract {
    const KIND: Kind = Kind::Contract;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let batch = attributes.required("batch");
        let over = attributes.required("over");
        let accumulate = attributes.required("accumulate");
        let dtype = attributes.required("dtype");
        Some(Contract { batch: batch?, over: over?, accumulate: accumulate?, dtype: dtype? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("batch", self.batch.clone());
        attributes.put("over", self.over.clone());
        attributes.put("accumulate", self.accumulate);
        attributes.put("dtype", self.dtype);
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
