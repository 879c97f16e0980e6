//! `reduce`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::{TensorType, DType};
use crate::kernel::Combine;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    /// How elements join.
    pub combine: Combine,
    /// The dimensions that vanish, ascending.
    pub axes: Vec<usize>,
    /// The type of partial results; the result has the operand's.
    pub accumulate: DType,
}

impl OpDef for Reduce {
    const KIND: Kind = Kind::Reduce;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let axes = attributes.required("axes");
        let accumulate = attributes.required("accumulate");
        Some(Reduce { combine: combine?, axes: axes?, accumulate: accumulate? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("axes", self.axes.clone());
        attributes.put("accumulate", self.accumulate);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::ascending(&self.axes, x.rank())?;
        rules::combine(self.combine, x.dtype, self.accumulate)?;
        let kept = (0..x.rank()).filter(|axis| !self.axes.contains(axis));
        Ok(vec![TensorType { dtype: x.dtype, shape: kept.map(|axis| x.shape[axis]).collect() }])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
