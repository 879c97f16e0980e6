//! `reduce-scatter`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::kernel::Combine;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct ReduceScatter {
    /// How elements join.
    pub combine: Combine,
    /// The dimension that is divided.
    pub axis: usize,
    /// The ranks of each group.
    pub groups: Vec<Vec<usize>>,
}

impl OpDef for ReduceScatter {
    const KIND: Kind = Kind::Collective;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let axis = attributes.required("axis");
        let groups = attributes.required("groups");
        Some(ReduceScatter { combine: combine?, axis: axis?, groups: groups? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("axis", self.axis);
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
