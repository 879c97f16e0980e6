//! `transpose`.

use crate::op::movement::transposed;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample, Simpler, Reshape};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    /// The operand's dimension for each of the result's.
    pub perm: Vec<usize>,
}

impl OpDef for Transpose {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let perm = attributes.required("perm");
        Some(Transpose { perm: perm? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("perm", self.perm.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::one_each("perm", &self.perm, x.rank())?;
        rules::distinct(&self.perm, x.rank())?;
        let shape = self.perm.iter().map(|&dim| x.shape[dim]).collect();
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        vec![transposed(x, &self.perm)]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 4)?;
        let perm = sample::permutation(u, shape.len())?;
        Ok((Transpose { perm }, vec![TensorType { dtype: sample::dtype(u)?, shape }]))
    }

    fn simplify(&self, operands: &[&TensorType]) -> Option<Simpler> {
        if self.perm.is_sorted() {
            return Some(Simpler::Operand(0));
        }
        // Where only dimensions of one element move, no element does.
        let shape = &operands[0].shape;
        let moving: Vec<usize> = self.perm.iter().copied().filter(|&dim| shape[dim] != 1).collect();
        let result = self.perm.iter().map(|&dim| shape[dim]).collect();
        moving.is_sorted().then(|| Simpler::Op(Box::new(Reshape { shape: result }.into())))
    }
}
