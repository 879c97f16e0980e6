//! `for`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct For {
    /// How often.
    pub count: usize,
}

impl OpDef for For {
    const KIND: Kind = Kind::Control;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let count = attributes.required("count");
        Some(For { count: count? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("count", self.count);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [body] = context.blocks()?;
        let carried: Vec<TensorType> = context.operands.iter().map(|&ty| ty.clone()).collect();
        let mut params = vec![TensorType::new(DType::I64, &[])];
        params.extend(carried.iter().cloned());
        rules::equal_types("the block's parameters", &body.params, &params)?;
        rules::equal_types("the block's results", &body.results, &carried)?;
        Ok(carried)
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs blocks and calls")
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
