//! `rms-norm`: operands are `x` and the scale, which has the normalized dimensions of `x`.

use crate::graph::{Builder, ValueId};
use crate::op::formula::{converted, mean, over_last, widened, with_number};
use crate::op::{AttrReader, AttrWriter, Composite, TypeError, rules, sample};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct RmsNorm {
    /// The first normalized dimension; all after it are normalized with it.
    pub axis: usize,
    /// What is added to the mean square.
    pub epsilon: f64,
}

impl Composite for RmsNorm {
    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        let epsilon = attributes.required("epsilon");
        Some(RmsNorm { axis: axis?, epsilon: epsilon? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
        attributes.put("epsilon", self.epsilon);
    }

    fn expand(
        &self,
        builder: &mut Builder<'_>,
        operands: &[ValueId],
    ) -> Result<Vec<ValueId>, TypeError> {
        let [x, scale] = *operands else { return rules::fail("takes an operand and a scale") };
        rules::axis(self.axis, builder.ty(x).rank())?;
        let axes: Vec<usize> = (self.axis..builder.ty(x).rank()).collect();
        let wide = widened(builder, x)?;
        let square = builder.map(ScalarFn::Mul, &[wide, wide])?;
        let size = mean(builder, square, &axes)?;
        let size = with_number(builder, ScalarFn::Add, size, self.epsilon)?;
        let factor = builder.map(ScalarFn::Rsqrt, &[size])?;
        let normal = builder.map(ScalarFn::Mul, &[wide, factor])?;
        let scale = over_last(builder, scale, wide)?;
        let result = builder.map(ScalarFn::Mul, &[normal, scale])?;
        Ok(vec![converted(builder, result, builder.ty(x).dtype)?])
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let dtype = *u.choose(&[DType::F32, DType::BF16])?;
        let scale = TensorType::new(dtype, &shape[axis..]);
        Ok((RmsNorm { axis, epsilon: 1e-5 }, vec![TensorType { dtype, shape }, scale]))
    }
}
