//! `convert`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, sample, Simpler};
use crate::tensor::Tensor;
use crate::types::{TensorType, DType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Convert {
    /// The result's element type.
    pub dtype: DType,
}

impl OpDef for Convert {
    const KIND: Kind = Kind::Map;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let dtype = attributes.required("dtype");
        Some(Convert { dtype: dtype? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("dtype", self.dtype);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        Ok(vec![TensorType { dtype: self.dtype, shape: x.shape.clone() }])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        if x.dtype() == self.dtype {
            return vec![x.clone()];
        }
        vec![Tensor::from_values(self.dtype, x.shape(), &x.values())]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let (from, dtype) = (sample::dtype(u)?, *u.choose(&DType::ALL)?);
        let x = TensorType { dtype: from, shape: sample::shape(u, 0, 3)? };
        Ok((Convert { dtype }, vec![x]))
    }

    fn simplify(&self, operands: &[&TensorType]) -> Option<Simpler> {
        (operands[0].dtype == self.dtype).then_some(Simpler::Operand(0))
    }
}
