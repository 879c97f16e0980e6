//! `all-to-all`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct AllToAll {
    /// The dimension that is divided.
    pub split: usize,
    /// The dimension that grows.
    pub concat: usize,
    /// The ranks of each group.
    pub groups: Vec<Vec<usize>>,
}

impl OpDef for AllToAll {
    const KIND: Kind = Kind::Collective;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let split = attributes.required("split");
        let concat = attributes.required("concat");
        let groups = attributes.required("groups");
        Some(AllToAll { split: split?, concat: concat?, groups: groups? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("split", self.split);
        attributes.put("concat", self.concat);
        attributes.put("groups", self.groups.clone());
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
