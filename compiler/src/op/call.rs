//! `call`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The function's name, without `@`.
    pub function: String,
    /// The types of its results.
    pub results: Vec<TensorType>,
}

impl OpDef for Call {
    const KIND: Kind = Kind::Control;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let function = attributes.required("function");
        let results = Some(attributes.result_types.clone());
        Some(Call { function: function?, results: results? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("function", self.function.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        context.blocks::<0>()?;
        Ok(self.results.clone())
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs blocks and calls")
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
