//! `all-to-all`.

use crate::op::reduce_scatter::part;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, Simpler, TypeError, rules, sample};
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

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.split, x.rank())?;
        rules::axis(self.concat, x.rank())?;
        let ranks = rules::group_size(&self.groups)?;
        let mut result = x.clone();
        result.shape[self.split] = part(x, self.split, ranks)?;
        result.shape[self.concat] = rules::product(&[result.shape[self.concat], ranks])?;
        Ok(vec![result])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs collectives")
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let x = TensorType { dtype: sample::dtype(u)?, shape: sample::shape(u, 1, 3)? };
        let (split, concat) = (sample::axis(u, x.rank())?, sample::axis(u, x.rank())?);
        Ok((AllToAll { split, concat, groups: vec![vec![0]] }, vec![x]))
    }

    fn simplify(&self, _operands: &[&TensorType]) -> Option<Simpler> {
        self.groups.iter().all(|group| group.len() == 1).then_some(Simpler::Operand(0))
    }
}


