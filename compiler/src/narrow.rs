//! Decoding and encoding of elements, with the exact conversions of the narrow float types.
//!
//! f8e4m3 is the "fn" form (no infinities, S.1111.111 is NaN, largest 448); f8e5m2 is IEEE-like (largest 57344);
//! f4e2m1 has neither (largest 6). Conversions round to nearest even. Out of range: f8e5m2 overflows to infinity,
//! f8e4m3 to NaN, f4e2m1 saturates (it has no other value to give).

use crate::tensor::Values;
use crate::types::DType;
use half::{bf16, f16};

/// Decodes little-endian elements.
pub fn decode(dtype: DType, bytes: &[u8]) -> Values {
    macro_rules! read {
        ($rust:ty, $into:ident, |$x:ident| $convert:expr) => {
            Values::$into(
                bytes
                    .chunks_exact(size_of::<$rust>())
                    .map(|chunk| {
                        let $x =
                            <$rust>::from_le_bytes(chunk.try_into().expect("chunks are exact"));
                        $convert
                    })
                    .collect(),
            )
        };
    }
    match dtype {
        DType::Bool => Values::Bool(bytes.iter().map(|&byte| byte != 0).collect()),
        DType::I4 => read!(i8, Int, |x| i64::from((x << 4) >> 4)),
        DType::I8 => read!(i8, Int, |x| i64::from(x)),
        DType::I16 => read!(i16, Int, |x| i64::from(x)),
        DType::I32 => read!(i32, Int, |x| i64::from(x)),
        DType::I64 => read!(i64, Int, |x| x),
        DType::U4 => read!(u8, Uint, |x| u64::from(x & 15)),
        DType::U8 => read!(u8, Uint, |x| u64::from(x)),
        DType::U16 => read!(u16, Uint, |x| u64::from(x)),
        DType::U32 => read!(u32, Uint, |x| u64::from(x)),
        DType::U64 => read!(u64, Uint, |x| x),
        DType::F64 => read!(f64, F64, |x| x),
        DType::F32 => read!(f32, F32, |x| x),
        DType::F16 => read!(u16, F32, |x| f16::from_bits(x).to_f32()),
        DType::BF16 => read!(u16, F32, |x| bf16::from_bits(x).to_f32()),
        DType::F8E4M3 => Values::F32(bytes.iter().map(|&x| E4M3.decode(x)).collect()),
        DType::F8E5M2 => Values::F32(bytes.iter().map(|&x| E5M2.decode(x)).collect()),
        DType::F4E2M1 => Values::F32(bytes.iter().map(|&x| E2M1.decode(x)).collect()),
    }
}

/// Encodes values as little-endian elements: floats round to nearest even, integers wrap, bool is "not zero".
/// Values of another arithmetic convert: float to integer truncates and saturates at 64 bits, then wraps.
pub fn encode(dtype: DType, values: &Values) -> Vec<u8> {
    fn put<S: Copy, const N: usize>(values: &[S], bytes: impl Fn(S) -> [u8; N]) -> Vec<u8> {
        let mut data = Vec::with_capacity(values.len() * N);
        for &value in values {
            data.extend_from_slice(&bytes(value));
        }
        data
    }
    macro_rules! each {
        (|$x:ident: $as:ty| $bytes:expr) => {
            match values {
                Values::Bool(v) => put(v, |$x| {
                    let $x = u8::from($x) as $as;
                    $bytes
                }),
                Values::Int(v) => put(v, |$x| {
                    let $x = $x as $as;
                    $bytes
                }),
                Values::Uint(v) => put(v, |$x| {
                    let $x = $x as $as;
                    $bytes
                }),
                Values::F32(v) => put(v, |$x| {
                    let $x = $x as $as;
                    $bytes
                }),
                Values::F64(v) => put(v, |$x| {
                    let $x = $x as $as;
                    $bytes
                }),
            }
        };
    }
    match dtype {
        DType::Bool => match values {
            Values::Bool(v) => put(v, |x| [u8::from(x)]),
            Values::Int(v) => put(v, |x| [u8::from(x != 0)]),
            Values::Uint(v) => put(v, |x| [u8::from(x != 0)]),
            Values::F32(v) => put(v, |x| [u8::from(x != 0.0)]),
            Values::F64(v) => put(v, |x| [u8::from(x != 0.0)]),
        },
        DType::I4 => each!(|x: i64| [((x as i8) << 4 >> 4) as u8]),
        DType::I8 => each!(|x: i64| (x as i8).to_le_bytes()),
        DType::I16 => each!(|x: i64| (x as i16).to_le_bytes()),
        DType::I32 => each!(|x: i64| (x as i32).to_le_bytes()),
        DType::I64 => each!(|x: i64| x.to_le_bytes()),
        DType::U4 => each!(|x: i64| [(x as u8) & 15]),
        DType::U8 => each!(|x: i64| (x as u8).to_le_bytes()),
        DType::U16 => each!(|x: i64| (x as u16).to_le_bytes()),
        DType::U32 => each!(|x: i64| (x as u32).to_le_bytes()),
        DType::U64 => match values {
            Values::F32(v) => {
                put(v, |x| if x < 0.0 { (x as i64) as u64 } else { x as u64 }.to_le_bytes())
            }
            Values::F64(v) => {
                put(v, |x| if x < 0.0 { (x as i64) as u64 } else { x as u64 }.to_le_bytes())
            }
            Values::Bool(_) | Values::Int(_) | Values::Uint(_) => each!(|x: u64| x.to_le_bytes()),
        },
        DType::F64 => each!(|x: f64| x.to_le_bytes()),
        DType::F32 => each!(|x: f32| x.to_le_bytes()),
        DType::F16 => match values {
            Values::Bool(v) => put(v, |x| f16::from_f32(f32::from(u8::from(x))).to_le_bytes()),
            Values::Int(v) => put(v, |x| f16::from_f32(odd_integer(x.into())).to_le_bytes()),
            Values::Uint(v) => put(v, |x| f16::from_f32(odd_integer(x.into())).to_le_bytes()),
            Values::F32(v) => put(v, |x| f16::from_f32(x).to_le_bytes()),
            Values::F64(v) => put(v, |x| f16::from_f32(odd(x)).to_le_bytes()),
        },
        DType::BF16 => match values {
            Values::Bool(v) => put(v, |x| bf16::from_f32(f32::from(u8::from(x))).to_le_bytes()),
            Values::Int(v) => put(v, |x| bf16::from_f32(odd_integer(x.into())).to_le_bytes()),
            Values::Uint(v) => put(v, |x| bf16::from_f32(odd_integer(x.into())).to_le_bytes()),
            Values::F32(v) => put(v, |x| bf16::from_f32(x).to_le_bytes()),
            Values::F64(v) => put(v, |x| bf16::from_f32(odd(x)).to_le_bytes()),
        },
        DType::F8E4M3 => each!(|x: f64| [E4M3.encode(x)]),
        DType::F8E5M2 => each!(|x: f64| [E5M2.encode(x)]),
        DType::F4E2M1 => each!(|x: f64| [E2M1.encode(x)]),
    }
}

/// Rounds to odd: an inexact result has its last bit set, so that rounding it again to a type of at least two fewer
/// digits gives what rounding `value` itself would.
fn odd(value: f64) -> f32 {
    let near = value as f32;
    let back = f64::from(near);
    sticky(near, back.abs() > value.abs(), back == value)
}

/// The same of an integer.
fn odd_integer(value: i128) -> f32 {
    let near = value as f32;
    let back = near as i128;
    sticky(near, back.abs() > value.abs(), back == value)
}

fn sticky(near: f32, is_above: bool, is_exact: bool) -> f32 {
    if is_exact || !near.is_finite() {
        return near;
    }
    f32::from_bits((near.to_bits() - u32::from(is_above)) | 1)
}

/// What the codes beyond the largest finite number mean.
#[derive(Clone, Copy, PartialEq)]
enum Top {
    /// As in IEEE 754: the highest exponent holds infinity and NaNs.
    Ieee,
    /// Only the all-ones code is NaN; there is no infinity.
    OneNan,
    /// Every code is a finite number.
    Finite,
}

/// A binary float format of at most eight bits.
struct Narrow {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    top: Top,
}

const E4M3: Narrow = Narrow { exponent_bits: 4, mantissa_bits: 3, bias: 7, top: Top::OneNan };
const E5M2: Narrow = Narrow { exponent_bits: 5, mantissa_bits: 2, bias: 15, top: Top::Ieee };
const E2M1: Narrow = Narrow { exponent_bits: 2, mantissa_bits: 1, bias: 1, top: Top::Finite };

impl Narrow {
    fn sign_bit(&self) -> u8 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }

    /// The code of the largest finite magnitude.
    fn largest(&self) -> u8 {
        let all = self.sign_bit() - 1;
        match self.top {
            Top::Ieee => all - (1 << self.mantissa_bits),
            Top::OneNan => all - 1,
            Top::Finite => all,
        }
    }

    fn magnitude(&self, code: u8) -> f64 {
        let exponent = i32::from(code >> self.mantissa_bits);
        let mantissa = f64::from(code & ((1 << self.mantissa_bits) - 1));
        let one = f64::from(1u32 << self.mantissa_bits);
        match exponent {
            0 => mantissa / one * libm::exp2(f64::from(1 - self.bias)),
            _ => (1.0 + mantissa / one) * libm::exp2(f64::from(exponent - self.bias)),
        }
    }

    fn decode(&self, code: u8) -> f32 {
        let magnitude = code & (self.sign_bit() - 1);
        let value = if magnitude <= self.largest() {
            self.magnitude(magnitude) as f32
        } else if self.top == Top::Ieee && magnitude == self.largest() + 1 {
            f32::INFINITY
        } else {
            f32::NAN
        };
        if code & self.sign_bit() != 0 { -value } else { value }
    }

    fn encode(&self, value: f64) -> u8 {
        let sign = if value.is_sign_negative() { self.sign_bit() } else { 0 };
        let above = match self.top {
            Top::Ieee | Top::OneNan => self.largest() + 1,
            Top::Finite => self.largest(),
        };
        if value.is_nan() {
            return match self.top {
                Top::Ieee | Top::OneNan => sign | (self.sign_bit() - 1),
                Top::Finite => sign,
            };
        }
        let magnitude = value.abs();
        let largest = self.magnitude(self.largest());
        // Half a unit in the last place above the largest number still rounds down to it, unless the tie goes up.
        let unit = largest - self.magnitude(self.largest() - 1);
        let limit = largest + unit / 2.0;
        if magnitude > limit || (magnitude == limit && self.largest() & 1 == 1) {
            return sign | above;
        }
        let (mut low, mut high) = (0, self.largest());
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            if self.magnitude(middle) <= magnitude {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        if low == self.largest() {
            return sign | low;
        }
        let (below, next) = (magnitude - self.magnitude(low), self.magnitude(low + 1) - magnitude);
        let up = below > next || (below == next && low & 1 == 1);
        sign | (low + u8::from(up))
    }
}

#[cfg(test)]
mod tests;
