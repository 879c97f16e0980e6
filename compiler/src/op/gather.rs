//! `gather`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// The operand's dimension that the indices replace.
    pub axis: usize,
}

impl OpDef for Gather {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        Some(Gather { axis: axis? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x, indices] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        let result = indexed(x, indices, self.axis)?;
        if x.shape[self.axis] == 0 && result.shape.iter().all(|&size| size > 0) {
            return rules::fail(format!("axis {} has no element to choose", self.axis));
        }
        Ok(vec![result])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}

/// The type of the slices of `x` along `axis` that `indices` choose: the indices' dimensions replace the axis.
pub(super) fn indexed(
    x: &TensorType,
    indices: &TensorType,
    axis: usize,
) -> Result<TensorType, TypeError> {
    if !indices.dtype.is_integer() {
        return rules::fail(format!("indices are integers, not {}", indices.dtype));
    }
    let (before, after) = (&x.shape[..axis], &x.shape[axis + 1..]);
    let shape = before.iter().chain(&indices.shape).chain(after).copied().collect();
    Ok(TensorType { dtype: x.dtype, shape })
}
