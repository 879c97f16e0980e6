//! `broadcast`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// The result's shape.
    pub shape: Vec<usize>,
    /// The result's dimension for each of the operand's, ascending; sizes are equal, or the operand's is 1.
    pub dims: Vec<usize>,
}

impl OpDef for Broadcast {
    const KIND: Kind = Kind::View;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let shape = attributes.required("shape");
        let dims = attributes.required("dims");
        Some(Broadcast { shape: shape?, dims: dims? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("shape", self.shape.clone());
        attributes.put("dims", self.dims.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::one_each("dims", &self.dims, x.rank())?;
        rules::ascending(&self.dims, self.shape.len())?;
        for (dim, &to) in self.dims.iter().enumerate() {
            let (size, wanted) = (x.shape[dim], self.shape[to]);
            if size != wanted && size != 1 {
                return rules::fail(format!("dimension {dim} of size {size} cannot become {wanted}"));
            }
        }
        Ok(vec![TensorType::new(x.dtype, &self.shape)])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}
