//! `random`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Random {
    /// The result's type: a float type.
    pub ty: TensorType,
    /// The seed.
    pub seed: i64,
    /// Whether elements are normal (mean 0, deviation 1) and not uniform in [0, 1).
    pub normal: bool,
}

impl OpDef for Random {
    const KIND: Kind = Kind::Source;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let ty = attributes.result_types.first().cloned();
        let seed = attributes.required("seed");
        let normal = attributes.optional("normal").unwrap_or(false);
        Some(Random { ty: ty?, seed: seed?, normal })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("seed", self.seed);
        attributes.put_unless("normal", self.normal, &false);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        context.operands::<0>()?;
        if !self.ty.dtype.is_float() {
            return rules::fail(format!("elements are floating-point numbers, not {}", self.ty.dtype));
        }
        Ok(vec![self.ty.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
