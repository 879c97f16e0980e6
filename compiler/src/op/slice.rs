//! `slice`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::{TensorType, Shape};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The first position in each dimension.
    pub start: Vec<usize>,
    /// One past the last.
    pub limit: Vec<usize>,
    /// The step; at least 1.
    pub stride: Vec<usize>,
}

impl OpDef for Slice {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let start = attributes.required("start");
        let limit = attributes.required("limit");
        let stride = attributes.required("stride");
        Some(Slice { start: start?, limit: limit?, stride: stride? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("start", self.start.clone());
        attributes.put("limit", self.limit.clone());
        attributes.put("stride", self.stride.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::one_each("start", &self.start, x.rank())?;
        rules::one_each("limit", &self.limit, x.rank())?;
        rules::one_each("stride", &self.stride, x.rank())?;
        rules::positive("stride", &self.stride)?;
        let mut shape = Shape::new();
        for dim in 0..x.rank() {
            let (start, limit, size) = (self.start[dim], self.limit[dim], x.shape[dim]);
            if limit > size || start > limit {
                return rules::fail(format!(
                    "{start} to {limit} is not a part of dimension {dim} of size {size}"
                ));
            }
            shape.push((limit - start).div_ceil(self.stride[dim]));
        }
        Ok(vec![TensorType { dtype: x.dtype, shape }])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
