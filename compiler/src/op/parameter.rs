//! `parameter`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// The weight's name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
}

impl OpDef for Parameter {
    const KIND: Kind = Kind::Source;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let name = attributes.required("name");
        let ty = attributes.result_types.first().cloned();
        Some(Parameter { name: name?, ty: ty? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("name", self.name.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        context.operands::<0>()?;
        Ok(vec![self.ty.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator asks for the data of weight {}", self.name)
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
