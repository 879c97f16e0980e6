//! `rank`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Rank {}

impl OpDef for Rank {
    const KIND: Kind = Kind::Collective;

    fn read(_attributes: &mut AttrReader<'_>) -> Option<Self> {
        Some(Rank {})
    }

    fn write(&self, _attributes: &mut AttrWriter) {}

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        context.operands::<0>()?;
        Ok(vec![TensorType::new(DType::I64, &[])])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs collectives")
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Ok((Rank {}, Vec::new()))
    }
}
