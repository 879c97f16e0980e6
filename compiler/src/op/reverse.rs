//! `reverse`.

use crate::op::movement::{View, viewed};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample, Simpler};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Reverse {
    /// The dimensions that turn round, ascending.
    pub axes: Vec<usize>,
}

impl OpDef for Reverse {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axes = attributes.required("axes");
        Some(Reverse { axes: axes? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axes", self.axes.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::ascending(&self.axes, x.rank())?;
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        let mut from = View::of(x.shape());
        for &axis in self.axes.iter().filter(|&&axis| x.shape()[axis] > 0) {
            from.start += (x.shape()[axis] - 1) * from.steps[axis] as usize;
            from.steps[axis] = -from.steps[axis];
        }
        vec![viewed(x, &from, x.ty().clone())]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 4)?;
        let axes = sample::axes(u, shape.len())?;
        Ok((Reverse { axes }, vec![TensorType { dtype: sample::dtype(u)?, shape }]))
    }

    fn simplify(&self, operands: &[&TensorType]) -> Option<Simpler> {
        self.axes.iter().all(|&axis| operands[0].shape[axis] <= 1).then_some(Simpler::Operand(0))
    }
}
