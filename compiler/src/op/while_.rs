//! `while`.

use crate::op::if_::scalar_bool;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct While {
}

impl OpDef for While {
    const KIND: Kind = Kind::Control;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let _ = attributes;
        Some(While {})
    }

    fn write(&self, attributes: &mut AttrWriter) {
        let _ = attributes;
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [condition, body] = context.blocks()?;
        let carried: Vec<TensorType> = context.operands.iter().map(|&ty| ty.clone()).collect();
        rules::equal_types("the condition's parameters", &condition.params, &carried)?;
        let [ref verdict] = *condition.results else {
            return rules::fail("the condition gives 1 result");
        };
        scalar_bool(verdict)?;
        rules::equal_types("the body's parameters", &body.params, &carried)?;
        rules::equal_types("the body's results", &body.results, &carried)?;
        Ok(carried)
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs blocks and calls")
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}


