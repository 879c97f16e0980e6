//! Element types of ONNX that the graph has not: three 8-bit floats as their codes in u8, and 2-bit integers as bytes.
//! They are read and written by casts alone; inside, values are of the graph's own types.

use super::context::{ImportError, NodeContext, unsupported, widen};
use crate::graph::ValueId;
use crate::kernel::Combine;
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::DType;

/// An element type that the graph has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Like f8e4m3, but the bias is 8 and the code of −0 is the only NaN.
    F8E4M3Fnuz,
    /// Like f8e5m2, but the bias is 16 and the code of −0 is the only NaN.
    F8E5M2Fnuz,
    /// A power of two, without sign; the highest code is NaN.
    F8E8M0,
    /// 0 to 3.
    U2,
    /// −2 to 1.
    I2,
}

/// How a cast to [`Foreign::F8E8M0`] rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    Up,
    Down,
    Nearest,
}

impl Foreign {
    /// The type of that ONNX number.
    pub(crate) fn of(number: i32) -> Option<Foreign> {
        match number {
            18 => Some(Foreign::F8E4M3Fnuz),
            20 => Some(Foreign::F8E5M2Fnuz),
            24 => Some(Foreign::F8E8M0),
            25 => Some(Foreign::U2),
            26 => Some(Foreign::I2),
            _ => None,
        }
    }

    /// What ONNX calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Foreign::F8E4M3Fnuz => "float8e4m3fnuz",
            Foreign::F8E5M2Fnuz => "float8e5m2fnuz",
            Foreign::F8E8M0 => "float8e8m0",
            Foreign::U2 => "uint2",
            Foreign::I2 => "int2",
        }
    }

    /// The type that carries it.
    pub(crate) fn carrier(self) -> DType {
        match self {
            Foreign::F8E4M3Fnuz | Foreign::F8E5M2Fnuz | Foreign::F8E8M0 | Foreign::U2 => DType::U8,
            Foreign::I2 => DType::I8,
        }
    }

    /// The bits of one element in raw data.
    pub(crate) fn bits(self) -> usize {
        match self {
            Foreign::F8E4M3Fnuz | Foreign::F8E5M2Fnuz | Foreign::F8E8M0 => 8,
            Foreign::U2 | Foreign::I2 => 2,
        }
    }

    /// The value of a code of an 8-bit float.
    fn decode(self, code: u8) -> f32 {
        let (mantissa_bits, bias) = match self {
            Foreign::F8E4M3Fnuz => (3, 8),
            Foreign::F8E5M2Fnuz => (2, 16),
            Foreign::F8E8M0 if code == 255 => return f32::NAN,
            Foreign::F8E8M0 => return libm::exp2(f64::from(code) - 127.0) as f32,
            Foreign::U2 | Foreign::I2 => return f32::from(code),
        };
        if code == 0x80 {
            return f32::NAN;
        }
        let magnitude = i32::from(code & 0x7f);
        let (exponent, mantissa) =
            (magnitude >> mantissa_bits, magnitude & ((1 << mantissa_bits) - 1));
        let fraction = f64::from(mantissa) / f64::from(1 << mantissa_bits);
        let value = match exponent {
            0 => fraction * libm::exp2(f64::from(1 - bias)),
            _ => (1.0 + fraction) * libm::exp2(f64::from(exponent - bias)),
        };
        (if code & 0x80 == 0 { value } else { -value }) as f32
    }

    /// For each code from 1 on, the largest magnitude that is still below it.
    fn limits(self, rounding: Rounding, saturate: bool) -> Vec<f32> {
        let below = |limit: f64| f32::from_bits((limit as f32).to_bits() - 1);
        match self {
            Foreign::F8E4M3Fnuz | Foreign::F8E5M2Fnuz => (1..=127u8 + u8::from(!saturate))
                .map(|code| {
                    let low = f64::from(self.decode(code - 1));
                    let high = match code {
                        // The code after the last: as far above it as the one before is below.
                        128 => 2.0 * low - f64::from(self.decode(126)),
                        code => f64::from(self.decode(code)),
                    };
                    let middle = (low + high) / 2.0;
                    // A tie goes to the even code.
                    if code % 2 == 0 { below(middle) } else { middle as f32 }
                })
                .collect(),
            Foreign::F8E8M0 => (1..=254u32 + u32::from(!saturate))
                .map(|code| {
                    let power = libm::exp2(f64::from(code) - 127.0);
                    match (rounding, code) {
                        (Rounding::Up, 1) => 0.0,
                        (Rounding::Up, _) => (power / 2.0) as f32,
                        (Rounding::Down, 255) => f32::MAX,
                        (Rounding::Down, _) => below(power),
                        (Rounding::Nearest, 1) => (power / 2.0) as f32,
                        (Rounding::Nearest, _) => below(power * 0.75),
                    }
                })
                .collect(),
            Foreign::U2 | Foreign::I2 => Vec::new(),
        }
    }
}

/// The elements that `carrier` stands for, as f32, or as the 8-bit integers they are.
pub(super) fn decode(
    context: &mut NodeContext<'_, '_, '_>,
    carrier: ValueId,
    foreign: Foreign,
) -> Result<ValueId, ImportError> {
    match foreign {
        Foreign::U2 | Foreign::I2 => Ok(carrier),
        Foreign::F8E4M3Fnuz | Foreign::F8E5M2Fnuz | Foreign::F8E8M0 => {
            let values: Vec<f32> = (0..=255).map(|code| foreign.decode(code)).collect();
            let table = context.known(Tensor::from_slice(&[256], &values));
            let codes = context.convert(carrier, DType::I32)?;
            context.gather(table, codes, 0)
        }
    }
}

/// What carries the nearest elements of a foreign type.
pub(super) fn encode(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    foreign: Foreign,
    rounding: Rounding,
    saturate: bool,
) -> Result<ValueId, ImportError> {
    match foreign {
        Foreign::U2 | Foreign::I2 => {
            let whole = context.convert(x, DType::I64)?;
            let low = context.map_scalar(ScalarFn::And, whole, 3.0)?;
            if foreign == Foreign::U2 {
                return context.convert(low, DType::U8);
            }
            let turned = context.map_scalar(ScalarFn::Xor, low, 2.0)?;
            let signed = context.map_scalar(ScalarFn::Sub, turned, 2.0)?;
            context.convert(signed, DType::I8)
        }
        Foreign::F8E4M3Fnuz | Foreign::F8E5M2Fnuz | Foreign::F8E8M0 => {
            let from = widen(context.dtype(x));
            if !from.is_float() {
                return unsupported(format!("a cast of {from} to {}", foreign.name()));
            }
            let x = context.convert(x, DType::F32)?;
            float_code(context, x, foreign, rounding, saturate)
        }
    }
}

/// The code is the number of limits that the magnitude is above.
fn float_code(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    foreign: Foreign,
    rounding: Rounding,
    saturate: bool,
) -> Result<ValueId, ImportError> {
    let limits = foreign.limits(rounding, saturate);
    let rank = context.rank(x);
    let magnitude = context.builder.map(ScalarFn::Abs, &[x])?;
    let column = context.unsqueeze(magnitude, &[rank])?;
    let limits = context.known(Tensor::from_slice(&[limits.len()], &limits));
    let above = context.map(ScalarFn::Gt, &[column, limits])?;
    let above = context.convert(above, DType::I32)?;
    let code = context.reduce(Combine::Sum, above, &[rank])?;
    let (code, invalid, nan) = if foreign == Foreign::F8E8M0 {
        let infinite = context.map_scalar(ScalarFn::Eq, magnitude, f64::INFINITY)?;
        let odd = context.builder.map(ScalarFn::IsNan, &[x])?;
        (code, context.builder.map(ScalarFn::Or, &[infinite, odd])?, 255.0)
    } else {
        // The code after the last is NaN with either sign, and zero has none.
        let negative = context.map_scalar(ScalarFn::Lt, x, 0.0)?;
        let some = context.map_scalar(ScalarFn::Gt, code, 0.0)?;
        let few = context.map_scalar(ScalarFn::Lt, code, 128.0)?;
        let signed = context.builder.map(ScalarFn::And, &[negative, some])?;
        let signed = context.builder.map(ScalarFn::And, &[signed, few])?;
        let with_sign = context.map_scalar(ScalarFn::Add, code, 128.0)?;
        let code = context.builder.map(ScalarFn::Select, &[signed, with_sign, code])?;
        (code, context.builder.map(ScalarFn::IsNan, &[x])?, 128.0)
    };
    let nan = context.scalar_like(code, nan)?;
    let code = context.builder.map(ScalarFn::Select, &[invalid, nan, code])?;
    context.convert(code, DType::U8)
}
