//! `reshape`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample, Simpler};
use crate::tensor::{Tensor, shape_text};
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    /// The result's shape.
    pub shape: Vec<usize>,
}

impl OpDef for Reshape {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let shape = attributes.required("shape");
        Some(Reshape { shape: shape? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("shape", self.shape.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        let result = TensorType::new(x.dtype, &self.shape);
        if result.checked_count() != Some(x.count()) {
            return rules::fail(format!(
                "{x} has {} elements, which {} has not",
                x.count(),
                shape_text(&self.shape)
            ));
        }
        Ok(vec![result])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        vec![x.reshaped(&self.shape).expect("the type rule counts elements")]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 4)?;
        let split = u.int_in_range(0..=shape.len())?;
        let (left, right) = shape.split_at(split);
        let joined = vec![left.iter().product(), right.iter().product(), 1];
        let (from, to) = if u.arbitrary()? { (shape.to_vec(), joined) } else { (joined, shape.to_vec()) };
        Ok((Reshape { shape: to }, vec![TensorType::new(sample::dtype(u)?, &from)]))
    }

    fn simplify(&self, operands: &[&TensorType]) -> Option<Simpler> {
        (operands[0].shape.as_slice() == self.shape).then_some(Simpler::Operand(0))
    }
}
