//! `gelu`: x · Φ(x), with Φ by the error function, or by its approximation with a hyperbolic tangent.

use crate::graph::{Builder, ValueId};
use crate::op::attributes::{AttrValue, FromAttr};
use crate::op::formula::{converted, widened, with_number};
use crate::op::{AttrReader, AttrWriter, Composite, TypeError, sample};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Gelu {
    /// How Φ is computed.
    pub approximate: Approximation,
}

/// How the normal distribution function is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approximation {
    /// By the error function.
    None,
    /// By a hyperbolic tangent.
    Tanh,
}

impl FromAttr for Approximation {
    const WHAT: &'static str = "none or tanh";
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match String::from_attr(value)?.as_str() {
            "none" => Some(Approximation::None),
            "tanh" => Some(Approximation::Tanh),
            _ => None,
        }
    }
}

impl Composite for Gelu {
    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let approximate = attributes.optional("approximate").unwrap_or(Approximation::None);
        Some(Gelu { approximate })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        match self.approximate {
            Approximation::None => {}
            Approximation::Tanh => attributes.put("approximate", "tanh"),
        }
    }

    fn expand(
        &self,
        builder: &mut Builder<'_>,
        operands: &[ValueId],
    ) -> Result<Vec<ValueId>, TypeError> {
        let [x] = *operands else { return Err(TypeError::new("takes 1 operand")) };
        let wide = widened(builder, x)?;
        let curve = match self.approximate {
            Approximation::None => {
                let root = std::f64::consts::FRAC_1_SQRT_2;
                let scaled = with_number(builder, ScalarFn::Mul, wide, root)?;
                builder.map(ScalarFn::Erf, &[scaled])?
            }
            Approximation::Tanh => {
                let square = builder.map(ScalarFn::Mul, &[wide, wide])?;
                let cube = builder.map(ScalarFn::Mul, &[square, wide])?;
                let cube = with_number(builder, ScalarFn::Mul, cube, 0.044715)?;
                let sum = builder.map(ScalarFn::Add, &[wide, cube])?;
                let root = libm::sqrt(2.0 / std::f64::consts::PI);
                let scaled = with_number(builder, ScalarFn::Mul, sum, root)?;
                builder.map(ScalarFn::Tanh, &[scaled])?
            }
        };
        let raised = with_number(builder, ScalarFn::Add, curve, 1.0)?;
        let half = with_number(builder, ScalarFn::Mul, wide, 0.5)?;
        let result = builder.map(ScalarFn::Mul, &[half, raised])?;
        Ok(vec![converted(builder, result, builder.ty(x).dtype)?])
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let approximate = *u.choose(&[Approximation::None, Approximation::Tanh])?;
        let dtype = *u.choose(&[DType::F32, DType::BF16])?;
        Ok((Gelu { approximate }, vec![TensorType { dtype, shape: sample::shape(u, 0, 3)? }]))
    }
}
