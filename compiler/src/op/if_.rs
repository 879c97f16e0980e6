//! `if`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct If {
}

impl OpDef for If {
    const KIND: Kind = Kind::Control;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let _ = attributes;
        Some(If {})
    }

    fn write(&self, attributes: &mut AttrWriter) {
        let _ = attributes;
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [condition] = context.operands()?;
        scalar_bool(condition)?;
        let [yes, no] = context.blocks()?;
        rules::equal_types("the first block's parameters", &yes.params, &[])?;
        rules::equal_types("the second block's parameters", &no.params, &[])?;
        rules::equal_types("the second block's results", &no.results, &yes.results)?;
        Ok(yes.results.clone())
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs blocks and calls")
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}

/// A condition is a bool without dimensions.
pub(super) fn scalar_bool(ty: &TensorType) -> Result<(), TypeError> {
    if ty.dtype == DType::Bool && ty.rank() == 0 {
        return Ok(());
    }
    rules::fail(format!("a condition is bool[], not {ty}"))
}
