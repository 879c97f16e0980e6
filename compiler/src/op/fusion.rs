//! `fusion`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Fusion {
}

impl OpDef for Fusion {
    const KIND: Kind = Kind::Control;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let _ = attributes;
        Some(Fusion {})
    }

    fn write(&self, attributes: &mut AttrWriter) {
        let _ = attributes;
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [body] = context.blocks()?;
        let operands: Vec<TensorType> = context.operands.iter().map(|&ty| ty.clone()).collect();
        rules::equal_types("the block's parameters", &body.params, &operands)?;
        Ok(body.results.clone())
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs blocks and calls")
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
