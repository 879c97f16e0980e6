//! `arg-reduce`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use crate::kernel::Combine;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgReduce {
    /// `Min` or `Max`.
    pub combine: Combine,
    /// The dimension that vanishes.
    pub axis: usize,
    /// Whether the last of equals is taken.
    pub last: bool,
}

impl OpDef for ArgReduce {
    const KIND: Kind = Kind::Reduce;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let axis = attributes.required("axis");
        let last = attributes.optional("last").unwrap_or(false);
        Some(ArgReduce { combine: combine?, axis: axis?, last })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("axis", self.axis);
        attributes.put_unless("last", self.last, &false);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        if !matches!(self.combine, Combine::Min | Combine::Max) {
            return rules::fail(format!("combine is min or max, not {}", self.combine.name()));
        }
        if x.shape[self.axis] == 0 {
            return rules::fail(format!("axis {} has no element to choose", self.axis));
        }
        let mut shape = x.shape.clone();
        shape.remove(self.axis);
        Ok(vec![TensorType { dtype: DType::I64, shape }])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
