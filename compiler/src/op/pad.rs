//! `pad`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::{TensorType, Shape};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// How many before each dimension.
    pub low: Vec<usize>,
    /// How many after.
    pub high: Vec<usize>,
    /// How many between neighbours.
    pub interior: Vec<usize>,
}

impl OpDef for Pad {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let low = attributes.required("low");
        let high = attributes.required("high");
        let interior = attributes.required("interior");
        Some(Pad { low: low?, high: high?, interior: interior? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("low", self.low.clone());
        attributes.put("high", self.high.clone());
        attributes.put("interior", self.interior.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x, value] = context.operands()?;
        rules::one_each("low", &self.low, x.rank())?;
        rules::one_each("high", &self.high, x.rank())?;
        rules::one_each("interior", &self.interior, x.rank())?;
        if value.rank() != 0 || value.dtype != x.dtype {
            return rules::fail(format!("the value is a scalar of type {}, not {value}", x.dtype));
        }
        let mut shape = Shape::new();
        for dim in 0..x.rank() {
            let size = x.shape[dim];
            let between = rules::product(&[size.saturating_sub(1), self.interior[dim]])?;
            shape.push(rules::sum(&[self.low[dim], size, between, self.high[dim]])?);
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
