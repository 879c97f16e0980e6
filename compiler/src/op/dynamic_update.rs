//! `dynamic-update`.

use crate::op::dynamic_slice::{start, start_types};
use crate::op::movement::{View, copy};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;
use bytes::Bytes;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicUpdate {
}

impl OpDef for DynamicUpdate {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let _ = attributes;
        Some(DynamicUpdate {})
    }

    fn write(&self, attributes: &mut AttrWriter) {
        let _ = attributes;
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x, update, ref starts @ ..] = *context.operands else {
            return rules::fail("takes an operand, an update, and a start for each dimension");
        };
        if update.dtype != x.dtype || update.rank() != x.rank() {
            return rules::fail(format!("an update of type {update} is not a part of {x}"));
        }
        start_types(x, &update.shape, starts)?;
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x, update, starts @ ..] = operands else {
            unreachable!("the type rule counts operands")
        };
        let mut data = x.bytes().to_vec();
        let mut to = View::of(x.shape());
        to.start = start(x.shape(), update.shape(), starts);
        let from = View::of(update.shape());
        copy(x.dtype().bytes(), update.shape(), update.bytes(), &from, &mut data, &to);
        vec![Tensor::new(x.ty().clone(), Bytes::from(data)).expect("the size is unchanged")]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 3)?;
        let dtype = sample::dtype(u)?;
        let part =
            shape.iter().map(|&size| u.int_in_range(1..=size)).collect::<arbitrary::Result<_>>()?;
        let mut types = vec![TensorType::new(DType::I64, &[]); shape.len() + 2];
        types[0] = TensorType { dtype, shape };
        types[1] = TensorType { dtype, shape: part };
        Ok((DynamicUpdate {}, types))
    }
}


