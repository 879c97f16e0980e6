//! `reduce-scatter`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, Simpler, TypeError, rules, sample};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
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

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        rules::joins(self.combine, x.dtype)?;
        let mut result = x.clone();
        result.shape[self.axis] = part(x, self.axis, rules::group_size(&self.groups)?)?;
        Ok(vec![result])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs collectives")
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let x = TensorType { dtype: DType::F32, shape: sample::shape(u, 1, 3)? };
        let axis = sample::axis(u, x.rank())?;
        Ok((ReduceScatter { combine: Combine::Sum, axis, groups: vec![vec![0]] }, vec![x]))
    }

    fn simplify(&self, _operands: &[&TensorType]) -> Option<Simpler> {
        self.groups.iter().all(|group| group.len() == 1).then_some(Simpler::Operand(0))
    }
}

/// The size of each rank's part of `x` along `axis`.
pub(super) fn part(x: &TensorType, axis: usize, ranks: usize) -> Result<usize, TypeError> {
    let size = x.shape[axis];
    if size.is_multiple_of(ranks) {
        return Ok(size / ranks);
    }
    rules::fail(format!("{size} elements along axis {axis} do not divide among {ranks} ranks"))
}
