//! `pad`.

use crate::op::movement::{View, copy};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample, Simpler};
use crate::tensor::Tensor;
use crate::types::{TensorType, Shape};
use arbitrary::Unstructured;
use bytes::Bytes;

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

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x, value] = operands else { unreachable!("the type rule counts operands") };
        let mut shape = Shape::new();
        for (dim, &size) in x.shape().iter().enumerate() {
            let between = size.saturating_sub(1) * self.interior[dim];
            shape.push(self.low[dim] + size + between + self.high[dim]);
        }
        let mut to = View::of(&shape);
        for dim in 0..shape.len() {
            to.start += self.low[dim] * to.steps[dim] as usize;
            // Of a single element the distance may be beyond all memory.
            to.steps[dim] = to.steps[dim].saturating_mul((self.interior[dim] as isize).saturating_add(1));
        }
        let ty = TensorType { dtype: x.dtype(), shape };
        let mut target = value.bytes().repeat(ty.count());
        let from = View::of(x.shape());
        copy(ty.dtype.bytes(), x.shape(), x.bytes(), &from, &mut target, &to);
        vec![Tensor::new(ty, Bytes::from(target)).expect("every element is filled")]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 3)?;
        let rank = shape.len();
        let op = Pad {
            low: sample::numbers(u, rank, 0..=2)?,
            high: sample::numbers(u, rank, 0..=2)?,
            interior: sample::numbers(u, rank, 0..=1)?,
        };
        let dtype = sample::dtype(u)?;
        Ok((op, vec![TensorType { dtype, shape }, TensorType::new(dtype, &[])]))
    }

    fn simplify(&self, _operands: &[&TensorType]) -> Option<Simpler> {
        let mut added = self.low.iter().chain(&self.high).chain(&self.interior);
        added.all(|&count| count == 0).then_some(Simpler::Operand(0))
    }
}
