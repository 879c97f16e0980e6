//! `all-reduce`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, Simpler, TypeError, rules, sample};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use crate::kernel::Combine;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct AllReduce {
    /// How elements join.
    pub combine: Combine,
    /// The ranks of each group.
    pub groups: Vec<Vec<usize>>,
}

impl OpDef for AllReduce {
    const KIND: Kind = Kind::Collective;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let groups = attributes.required("groups");
        Some(AllReduce { combine: combine?, groups: groups? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("groups", self.groups.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::group_size(&self.groups)?;
        rules::joins(self.combine, x.dtype)?;
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs collectives")
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let x = TensorType { dtype: DType::F32, shape: sample::shape(u, 0, 3)? };
        Ok((AllReduce { combine: Combine::Sum, groups: vec![vec![0]] }, vec![x]))
    }

    fn simplify(&self, _operands: &[&TensorType]) -> Option<Simpler> {
        self.groups.iter().all(|group| group.len() == 1).then_some(Simpler::Operand(0))
    }
}
