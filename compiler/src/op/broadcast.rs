//! `broadcast`.

use crate::op::movement::{View, viewed};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample, Simpler, Reshape};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;
use smallvec::smallvec;

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

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        let all = View::of(x.shape());
        let mut from = View { start: 0, steps: smallvec![0; self.shape.len()] };
        for (dim, &to) in self.dims.iter().enumerate().filter(|&(dim, _)| x.shape()[dim] != 1) {
            from.steps[to] = all.steps[dim];
        }
        vec![viewed(x, &from, TensorType::new(x.dtype(), &self.shape))]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 4)?.to_vec();
        let dims = sample::axes(u, shape.len())?;
        let sizes: Vec<usize> = dims
            .iter()
            .map(|&dim| Ok(if u.ratio(1, 3)? { 1 } else { shape[dim] }))
            .collect::<arbitrary::Result<_>>()?;
        let x = TensorType::new(sample::dtype(u)?, &sizes);
        Ok((Broadcast { shape, dims }, vec![x]))
    }

    fn simplify(&self, operands: &[&TensorType]) -> Option<Simpler> {
        let x = operands[0];
        if x.shape.as_slice() == self.shape {
            return Some(Simpler::Operand(0));
        }
        // Where nothing is repeated, only the shape changes.
        let same = x.count() == self.shape.iter().product::<usize>();
        same.then(|| Simpler::Op(Box::new(Reshape { shape: self.shape.clone() }.into())))
    }
}
