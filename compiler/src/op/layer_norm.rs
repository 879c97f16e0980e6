//! `layer-norm`: operands are `x`, the scale, and perhaps the bias, which have the normalized dimensions of `x`.

use crate::graph::{Builder, ValueId};
use crate::op::formula::{converted, mean, over_last, widened, with_number};
use crate::op::{AttrReader, AttrWriter, Composite, TypeError, rules, sample};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// The first normalized dimension; all after it are normalized with it.
    pub axis: usize,
    /// What is added to the variance.
    pub epsilon: f64,
}

impl Composite for LayerNorm {
    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        let epsilon = attributes.required("epsilon");
        Some(LayerNorm { axis: axis?, epsilon: epsilon? })
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
        let [x, scale, ref bias @ ..] = *operands else {
            return rules::fail("takes an operand, a scale, and perhaps a bias");
        };
        rules::axis(self.axis, builder.ty(x).rank())?;
        let axes: Vec<usize> = (self.axis..builder.ty(x).rank()).collect();
        let wide = widened(builder, x)?;
        let middle = mean(builder, wide, &axes)?;
        let centred = builder.map(ScalarFn::Sub, &[wide, middle])?;
        let square = builder.map(ScalarFn::Mul, &[centred, centred])?;
        let variance = mean(builder, square, &axes)?;
        let variance = with_number(builder, ScalarFn::Add, variance, self.epsilon)?;
        let factor = builder.map(ScalarFn::Rsqrt, &[variance])?;
        let normal = builder.map(ScalarFn::Mul, &[centred, factor])?;
        let scale = over_last(builder, scale, wide)?;
        let mut result = builder.map(ScalarFn::Mul, &[normal, scale])?;
        match *bias {
            [] => {}
            [bias] => {
                let bias = over_last(builder, bias, wide)?;
                result = builder.map(ScalarFn::Add, &[result, bias])?;
            }
            _ => return rules::fail("takes at most 3 operands"),
        }
        Ok(vec![converted(builder, result, builder.ty(x).dtype)?])
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let dtype = *u.choose(&[DType::F32, DType::BF16])?;
        let scale = TensorType::new(dtype, &shape[axis..]);
        let mut types = vec![TensorType { dtype, shape }, scale.clone()];
        if u.arbitrary()? {
            types.push(scale);
        }
        Ok((LayerNorm { axis, epsilon: 1e-5 }, types))
    }
}
