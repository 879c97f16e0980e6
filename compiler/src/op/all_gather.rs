//! `all-gather`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, Simpler, TypeError, rules, sample};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct AllGather {
    /// The dimension that grows.
    pub axis: usize,
    /// The ranks of each group.
    pub groups: Vec<Vec<usize>>,
}

impl OpDef for AllGather {
    const KIND: Kind = Kind::Collective;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        let groups = attributes.required("groups");
        Some(AllGather { axis: axis?, groups: groups? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
        attributes.put("groups", self.groups.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        let mut result = x.clone();
        result.shape[self.axis] =
            rules::product(&[x.shape[self.axis], rules::group_size(&self.groups)?])?;
        Ok(vec![result])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs collectives")
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let x = TensorType { dtype: sample::dtype(u)?, shape: sample::shape(u, 1, 3)? };
        Ok((AllGather { axis: sample::axis(u, x.rank())?, groups: vec![vec![0]] }, vec![x]))
    }

    fn simplify(&self, _operands: &[&TensorType]) -> Option<Simpler> {
        self.groups.iter().all(|group| group.len() == 1).then_some(Simpler::Operand(0))
    }
}
