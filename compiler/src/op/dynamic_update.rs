//! `dynamic-update`.

use crate::op::dynamic_slice::start_types;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicUpdate {
}

impl OpDef for DynamicUpdate {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let _ = attributes;
        Some(DynamicUpdate {})
    }

    fn write(&self, attributes: &mut AttrWriter) {
        let _ = attributes;
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x, update, ref starts @ ..] = *context.operands else {
            return rules::fail("takes an operand, an update, and a start for each dimension");
        };
        if update.dtype != x.dtype || update.rank() != x.rank() {
            return rules::fail(format!("an update of type {update} is not a part of {x}"));
        }
        start_types(x, &update.shape, starts)?;
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}


