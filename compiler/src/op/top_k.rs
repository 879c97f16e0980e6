//! `top-k`.

use crate::op::sort::sorted_along;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    /// How many are kept.
    pub k: usize,
    /// The dimension along which.
    pub axis: usize,
    /// Whether the largest comes first.
    pub descending: bool,
}

impl OpDef for TopK {
    const KIND: Kind = Kind::Order;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let k = attributes.required("k");
        let axis = attributes.required("axis");
        let descending = attributes.optional("descending").unwrap_or(true);
        Some(TopK { k: k?, axis: axis?, descending })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("k", self.k);
        attributes.put("axis", self.axis);
        attributes.put_unless("descending", self.descending, &true);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        let size = x.shape[self.axis];
        if self.k > size {
            return rules::fail(format!("k is {}, but the axis has {size} elements", self.k));
        }
        let mut shape = x.shape.clone();
        shape[self.axis] = self.k;
        let positions = TensorType { dtype: DType::I64, shape: shape.clone() };
        Ok(vec![TensorType { dtype: x.dtype, shape }, positions])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        sorted_along(x, self.axis, self.k, self.descending)
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let k = u.int_in_range(1..=shape[axis])?;
        let op = TopK { k, axis, descending: u.arbitrary()? };
        Ok((op, vec![TensorType { dtype: sample::dtype(u)?, shape }]))
    }
}
