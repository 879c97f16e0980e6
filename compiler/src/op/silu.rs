//! `silu`: x · sigmoid(x).

use crate::graph::{Builder, ValueId};
use crate::op::formula::{converted, widened};
use crate::op::{AttrReader, AttrWriter, Composite, TypeError, sample};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Silu {}

impl Composite for Silu {
    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let _ = attributes;
        Some(Silu {})
    }

    fn write(&self, attributes: &mut AttrWriter) {
        let _ = attributes;
    }

    fn expand(
        &self,
        builder: &mut Builder<'_>,
        operands: &[ValueId],
    ) -> Result<Vec<ValueId>, TypeError> {
        let [x] = *operands else { return Err(TypeError::new("takes 1 operand")) };
        let wide = widened(builder, x)?;
        let gate = builder.map(ScalarFn::Sigmoid, &[wide])?;
        let result = builder.map(ScalarFn::Mul, &[wide, gate])?;
        Ok(vec![converted(builder, result, builder.ty(x).dtype)?])
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let dtype = *u.choose(&[DType::F32, DType::BF16])?;
        Ok((Silu {}, vec![TensorType { dtype, shape: sample::shape(u, 0, 3)? }]))
    }
}
