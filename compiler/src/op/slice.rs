//! `slice`.

use crate::op::movement::{View, viewed};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample, Simpler};
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

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        let mut from = View::of(x.shape());
        let mut shape = Shape::new();
        for dim in 0..x.shape().len() {
            from.start += self.start[dim] * from.steps[dim] as usize;
            // Of a single element the stride may be beyond all memory.
            from.steps[dim] = from.steps[dim].saturating_mul(self.stride[dim] as isize);
            shape.push((self.limit[dim] - self.start[dim]).div_ceil(self.stride[dim]));
        }
        vec![viewed(x, &from, TensorType { dtype: x.dtype(), shape })]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 4)?;
        let mut op = Slice { start: Vec::new(), limit: Vec::new(), stride: Vec::new() };
        for &size in &shape {
            let start = u.int_in_range(0..=size - 1)?;
            op.start.push(start);
            op.limit.push(u.int_in_range(start + 1..=size)?);
            op.stride.push(u.int_in_range(1..=3)?);
        }
        Ok((op, vec![TensorType { dtype: sample::dtype(u)?, shape }]))
    }

    fn simplify(&self, operands: &[&TensorType]) -> Option<Simpler> {
        let whole = self.limit == operands[0].shape.as_slice()
            && self.start.iter().all(|&start| start == 0)
            && self.stride.iter().all(|&stride| stride == 1);
        whole.then_some(Simpler::Operand(0))
    }
}
