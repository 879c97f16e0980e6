//! `dynamic-slice`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicSlice {
    /// The result's shape.
    pub sizes: Vec<usize>,
}

impl OpDef for DynamicSlice {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let sizes = attributes.required("sizes");
        Some(DynamicSlice { sizes: sizes? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("sizes", self.sizes.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let Some((x, starts)) = context.operands.split_first() else {
            return rules::fail("takes an operand and a start for each of its dimensions");
        };
        rules::one_each("sizes", &self.sizes, x.rank())?;
        start_types(x, &self.sizes, starts)?;
        Ok(vec![TensorType::new(x.dtype, &self.sizes)])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}

/// A part of those sizes fits into `x`, and there is an integer scalar for each dimension.
pub(super) fn start_types(
    x: &TensorType,
    sizes: &[usize],
    starts: &[&TensorType],
) -> Result<(), TypeError> {
    for (dim, (&part, &size)) in sizes.iter().zip(&x.shape).enumerate() {
        if part > size {
            return rules::fail(format!("a part of {part} does not fit into dimension {dim} of {size}"));
        }
    }
    if starts.len() != x.rank() {
        return rules::fail(format!("{} starts are given for {} dimensions", starts.len(), x.rank()));
    }
    starts.iter().try_for_each(|ty| rules::integer_scalar("a start", ty))
}
