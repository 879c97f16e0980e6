//! `transpose`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    /// The operand's dimension for each of the result's.
    pub perm: Vec<usize>,
}

impl OpDef for Transpose {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let perm = attributes.required("perm");
        Some(Transpose { perm: perm? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("perm", self.perm.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::one_each("perm", &self.perm, x.rank())?;
        rules::distinct(&self.perm, x.rank())?;
        let shape = self.perm.iter().map(|&dim| x.shape[dim]).collect();
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
