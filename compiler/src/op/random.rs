//! `random`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Random {
    /// The result's type: a float type.
    pub ty: TensorType,
    /// The seed.
    pub seed: i64,
    /// Whether elements are normal (mean 0, deviation 1) and not uniform in [0, 1).
    pub normal: bool,
}

impl OpDef for Random {
    const KIND: Kind = Kind::Source;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let ty = attributes.result_types.first().cloned();
        let seed = attributes.required("seed");
        let normal = attributes.optional("normal").unwrap_or(false);
        Some(Random { ty: ty?, seed: seed?, normal })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("seed", self.seed);
        attributes.put_unless("normal", self.normal, &false);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        context.operands::<0>()?;
        if !self.ty.dtype.is_float() {
            return rules::fail(format!("elements are floating-point numbers, not {}", self.ty.dtype));
        }
        Ok(vec![self.ty.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        let count = self.ty.count() as u64;
        let values = match (self.ty.dtype, self.normal) {
            (DType::F64, false) => {
                Values::F64((0..count).map(|i| unit(bits(self.seed, i), 53)).collect())
            }
            (DType::F64, true) => Values::F64((0..count).map(|i| normal(self.seed, i)).collect()),
            (dtype, false) => {
                let digits = uniform_digits(dtype);
                let uniform = |i| unit(bits(self.seed, i), digits) as f32;
                Values::F32((0..count).map(uniform).collect())
            }
            (_, true) => {
                Values::F32((0..count).map(|i| normal(self.seed, i) as f32).collect())
            }
        };
        vec![Tensor::from_values(self.ty.dtype, &self.ty.shape, &values)]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let dtype = *u.choose(&[DType::F32, DType::F64, DType::F16, DType::BF16])?;
        let ty = TensorType { dtype, shape: sample::shape(u, 0, 3)? };
        Ok((Random { ty, seed: u.arbitrary()?, normal: u.arbitrary()? }, Vec::new()))
    }
}

/// 64 bits for each seed and position: the SplitMix64 sequence from the seed.
fn bits(seed: i64, position: u64) -> u64 {
    let mut z = (seed as u64).wrapping_add(position.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The number in [0, 1) whose binary digits are the topmost bits.
fn unit(bits: u64, digits: u32) -> f64 {
    (bits >> (64 - digits)) as f64 / (1u64 << digits) as f64
}

/// How many binary digits below one a type can hold, so that rounding does not reach one.
fn uniform_digits(dtype: DType) -> u32 {
    match dtype {
        DType::F64 => 53,
        DType::F32 => 24,
        DType::F16 => 11,
        DType::BF16 => 8,
        DType::F8E4M3 => 4,
        DType::F8E5M2 => 3,
        DType::F4E2M1 => 1,
        DType::Bool
        | DType::I4
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U4
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64 => unreachable!("the type rule admits floating-point types"),
    }
}

/// A normal number, from two uniform ones by Box and Muller's formula.
fn normal(seed: i64, position: u64) -> f64 {
    let counter = position.wrapping_mul(2);
    let radius = 1.0 - unit(bits(seed, counter), 53);
    let angle = unit(bits(seed, counter.wrapping_add(1)), 53);
    libm::sqrt(-2.0 * libm::log(radius)) * libm::cos(2.0 * std::f64::consts::PI * angle)
}
