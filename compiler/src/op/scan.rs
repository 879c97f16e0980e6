//! `scan`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::{TensorType, DType};
use crate::kernel::Combine;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// How elements join.
    pub combine: Combine,
    /// The dimension along which.
    pub axis: usize,
    /// Whether an element is left out of its own result.
    pub exclusive: bool,
    /// Whether it runs from the end.
    pub reverse: bool,
    /// The type of partial results.
    pub accumulate: DType,
}

impl OpDef for Scan {
    const KIND: Kind = Kind::Order;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let axis = attributes.required("axis");
        let exclusive = attributes.optional("exclusive").unwrap_or(false);
        let reverse = attributes.optional("reverse").unwrap_or(false);
        let accumulate = attributes.required("accumulate");
        Some(Scan { combine: combine?, axis: axis?, exclusive, reverse, accumulate: accumulate? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("axis", self.axis);
        attributes.put_unless("exclusive", self.exclusive, &false);
        attributes.put_unless("reverse", self.reverse, &false);
        attributes.put("accumulate", self.accumulate);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        rules::combine(self.combine, x.dtype, self.accumulate)?;
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
