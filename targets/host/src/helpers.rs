//! Functions that generated code calls: libm, conversions of rare element types, sorting. Each is registered with the
//! module under its name, so that code refers to symbols and not to addresses.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]
#![expect(unsafe_code, reason = "generated code passes raw addresses of elements")]

use crate::micro;
use cranelift_codegen::ir::{AbiParam, Signature, Type, types};
use cranelift_codegen::isa::CallConv;
use std::cell::RefCell;
use std::sync::LazyLock;
use systole_compiler::narrow;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::tensor::Values;
use systole_compiler::types::{Class, DType};

/// A function that generated code may call.
pub(crate) struct Helper {
    /// The symbol.
    pub(crate) name: &'static str,
    parameters: &'static [Type],
    result: Option<Type>,
    /// Where it is in this process.
    pub(crate) address: *const u8,
}

// SAFETY: the address is of a function, which any thread may call; everything else is constant data.
unsafe impl Sync for Helper {}

impl Helper {
    /// The signature for a calling convention.
    pub(crate) fn signature(&self, convention: CallConv) -> Signature {
        let mut signature = Signature::new(convention);
        signature.params.extend(self.parameters.iter().map(|&ty| AbiParam::new(ty)));
        signature.returns.extend(self.result.map(AbiParam::new));
        signature
    }
}

/// The position in [`TABLE`] of the helper of that name.
pub(crate) fn find(name: &str) -> Option<usize> {
    TABLE.iter().position(|helper| helper.name == name)
}

/// The helper that computes a scalar function in an arithmetic; `suffix` is `f32`, `f64`, `i64` or `u64`.
pub(crate) fn scalar(function: ScalarFn, suffix: &str) -> Option<usize> {
    find(&format!("systole_{}_{suffix}", function.name()))
}

/// The helper that decodes a type's codes to f32.
pub(crate) fn decoder(dtype: DType) -> Option<usize> {
    find(&format!("systole_decode_{dtype}"))
}

/// The helper that encodes f64 in a type.
pub(crate) fn encoder(dtype: DType) -> Option<usize> {
    find(&format!("systole_encode_{dtype}"))
}

macro_rules! ty {
    (f32) => {
        types::F32
    };
    (f64) => {
        types::F64
    };
    (i32) => {
        types::I32
    };
    (u32) => {
        types::I32
    };
    (i64) => {
        types::I64
    };
    (u64) => {
        types::I64
    };
    (ptr) => {
        types::I64
    };
}

macro_rules! helpers {
    ($($name:literal = $ident:ident($($param:ident: $ty:ident),*) -> $result:ident $body:expr;)*) => {
        $(extern "C" fn $ident($($param: $ty),*) -> $result { $body })*
        const SCALARS: &[Helper] = &[$(Helper {
            name: concat!("systole_", $name),
            parameters: &[$(ty!($ty)),*],
            result: Some(ty!($result)),
            address: $ident as *const u8,
        },)*];
    };
}

helpers! {
    "exp_f32" = exp_f32(x: f32) -> f32 libm::expf(x);
    "exp2_f32" = exp2_f32(x: f32) -> f32 libm::exp2f(x);
    "expm1_f32" = expm1_f32(x: f32) -> f32 libm::expm1f(x);
    "log_f32" = log_f32(x: f32) -> f32 libm::logf(x);
    "log1p_f32" = log1p_f32(x: f32) -> f32 libm::log1pf(x);
    "sin_f32" = sin_f32(x: f32) -> f32 libm::sinf(x);
    "cos_f32" = cos_f32(x: f32) -> f32 libm::cosf(x);
    "tan_f32" = tan_f32(x: f32) -> f32 libm::tanf(x);
    "asin_f32" = asin_f32(x: f32) -> f32 libm::asinf(x);
    "acos_f32" = acos_f32(x: f32) -> f32 libm::acosf(x);
    "atan_f32" = atan_f32(x: f32) -> f32 libm::atanf(x);
    "sinh_f32" = sinh_f32(x: f32) -> f32 libm::sinhf(x);
    "cosh_f32" = cosh_f32(x: f32) -> f32 libm::coshf(x);
    "tanh_f32" = tanh_f32(x: f32) -> f32 libm::tanhf(x);
    "asinh_f32" = asinh_f32(x: f32) -> f32 libm::asinhf(x);
    "acosh_f32" = acosh_f32(x: f32) -> f32 libm::acoshf(x);
    "atanh_f32" = atanh_f32(x: f32) -> f32 libm::atanhf(x);
    "erf_f32" = erf_f32(x: f32) -> f32 libm::erff(x);
    "rem_f32" = rem_f32(x: f32, y: f32) -> f32 libm::fmodf(x, y);
    "pow_f32" = pow_f32(x: f32, y: f32) -> f32 libm::powf(x, y);
    "atan2_f32" = atan2_f32(x: f32, y: f32) -> f32 libm::atan2f(x, y);
    "exp_f64" = exp_f64(x: f64) -> f64 libm::exp(x);
    "exp2_f64" = exp2_f64(x: f64) -> f64 libm::exp2(x);
    "expm1_f64" = expm1_f64(x: f64) -> f64 libm::expm1(x);
    "log_f64" = log_f64(x: f64) -> f64 libm::log(x);
    "log1p_f64" = log1p_f64(x: f64) -> f64 libm::log1p(x);
    "sin_f64" = sin_f64(x: f64) -> f64 libm::sin(x);
    "cos_f64" = cos_f64(x: f64) -> f64 libm::cos(x);
    "tan_f64" = tan_f64(x: f64) -> f64 libm::tan(x);
    "asin_f64" = asin_f64(x: f64) -> f64 libm::asin(x);
    "acos_f64" = acos_f64(x: f64) -> f64 libm::acos(x);
    "atan_f64" = atan_f64(x: f64) -> f64 libm::atan(x);
    "sinh_f64" = sinh_f64(x: f64) -> f64 libm::sinh(x);
    "cosh_f64" = cosh_f64(x: f64) -> f64 libm::cosh(x);
    "tanh_f64" = tanh_f64(x: f64) -> f64 libm::tanh(x);
    "asinh_f64" = asinh_f64(x: f64) -> f64 libm::asinh(x);
    "acosh_f64" = acosh_f64(x: f64) -> f64 libm::acosh(x);
    "atanh_f64" = atanh_f64(x: f64) -> f64 libm::atanh(x);
    "erf_f64" = erf_f64(x: f64) -> f64 libm::erf(x);
    "rem_f64" = rem_f64(x: f64, y: f64) -> f64 libm::fmod(x, y);
    "pow_f64" = pow_f64(x: f64, y: f64) -> f64 libm::pow(x, y);
    "atan2_f64" = atan2_f64(x: f64, y: f64) -> f64 libm::atan2(x, y);
    "pow_i64" = pow_i64(x: i64, y: i64) -> i64 integer_power(x, y);
    "pow_u64" = pow_u64(x: u64, y: u64) -> u64 unsigned_power(x, y);
    "decode_f8e4m3" = decode_f8e4m3(code: u32) -> f32 decode(&DECODED[0], code);
    "decode_f8e5m2" = decode_f8e5m2(code: u32) -> f32 decode(&DECODED[1], code);
    "decode_f4e2m1" = decode_f4e2m1(code: u32) -> f32 decode(&DECODED[2], code);
    "encode_f8e4m3" = encode_f8e4m3(x: f64) -> u32 encode(DType::F8E4M3, x);
    "encode_f8e5m2" = encode_f8e5m2(x: f64) -> u32 encode(DType::F8E5M2, x);
    "encode_f4e2m1" = encode_f4e2m1(x: f64) -> u32 encode(DType::F4E2M1, x);
    "encode_f16" = encode_f16(x: f64) -> u32 u32::from(half::f16::from_f64(x).to_bits());
    "encode_bf16" = encode_bf16(x: f64) -> u32 u32::from(half::bf16::from_f64(x).to_bits());
}

const MEMORY: &[Helper] = &[
    Helper {
        name: "systole_contract",
        parameters: &[types::I64; 8],
        result: None,
        address: micro::contract as *const u8,
    },
    Helper {
        name: "systole_sort",
        parameters: &[types::I64; 9],
        result: None,
        address: sort as *const u8,
    },
];

/// Every helper.
pub(crate) static TABLE: LazyLock<Vec<&'static Helper>> =
    LazyLock::new(|| SCALARS.iter().chain(MEMORY).collect());

static DECODED: LazyLock<[[f32; 256]; 3]> = LazyLock::new(|| {
    [DType::F8E4M3, DType::F8E5M2, DType::F4E2M1].map(|dtype| {
        let codes: Vec<u8> = (0..=255).collect();
        let Values::F32(values) = narrow::decode(dtype, &codes) else {
            unreachable!("narrow floats decode to f32");
        };
        values.try_into().expect("one value a code")
    })
});

fn decode(table: &[f32; 256], code: u32) -> f32 {
    table[(code & 255) as usize]
}

fn encode(dtype: DType, value: f64) -> u32 {
    u32::from(narrow::encode(dtype, &Values::F64(vec![value]))[0])
}

fn integer_power(base: i64, exponent: i64) -> i64 {
    match ScalarFn::Pow.evaluate(&[&Values::Int(vec![base]), &Values::Int(vec![exponent])]) {
        Values::Int(values) => values[0],
        other => unreachable!("powers of integers are integers, not {other:?}"),
    }
}

fn unsigned_power(base: u64, exponent: u64) -> u64 {
    match ScalarFn::Pow.evaluate(&[&Values::Uint(vec![base]), &Values::Uint(vec![exponent])]) {
        Values::Uint(values) => values[0],
        other => unreachable!("powers of integers are integers, not {other:?}"),
    }
}

/// Sorts `count` elements of the type numbered `dtype` (its place in [`DType::ALL`]), stably, and writes the keys and the
/// positions (i64) they came from. Strides are in bytes; `keys` or `positions` may be null. NaN is above every number.
///
/// # Safety
/// The addresses and strides are those of `count` elements of three separate blocks of memory.
unsafe extern "C" fn sort(
    dtype: i64,
    descending: i64,
    count: i64,
    from: *const u8,
    stride: i64,
    keys: *mut u8,
    key_stride: i64,
    positions: *mut u8,
    position_stride: i64,
) {
    let dtype = DType::ALL[usize::try_from(dtype).expect("generated code gives a type's number")];
    let bytes = dtype.bytes();
    let count = usize::try_from(count).expect("generated code gives an extent");
    SORTING.with_borrow_mut(|Sorting { data, order }| {
        data.clear();
        order.clear();
        for index in 0..count {
            // SAFETY: the caller vouches for `count` elements at this stride.
            let element = unsafe {
                std::slice::from_raw_parts(from.offset(index as isize * stride as isize), bytes)
            };
            data.extend_from_slice(element);
            let key = sort_key(dtype, element);
            order.push((if descending != 0 { !key } else { key }, index));
        }
        // Pairs are distinct, and equal keys keep their order by the position.
        order.sort_unstable();
        for (place, &(_, index)) in order.iter().enumerate() {
            // SAFETY: as above; `data` is a copy, so writing may not disturb what is still read.
            unsafe {
                if !keys.is_null() {
                    let target = keys.offset(place as isize * key_stride as isize);
                    target.copy_from_nonoverlapping(data[index * bytes..].as_ptr(), bytes);
                }
                if !positions.is_null() {
                    let target = positions.offset(place as isize * position_stride as isize);
                    target.cast::<i64>().write_unaligned(index as i64);
                }
            }
        }
    });
}

/// What a sort needs.
#[derive(Default)]
struct Sorting {
    /// A copy of the elements.
    data: Vec<u8>,
    /// Their keys, with their positions.
    order: Vec<(u64, usize)>,
}

thread_local! {
    /// Kept for the next sort, so that only the first allocates.
    static SORTING: RefCell<Sorting> = RefCell::default();
}

/// A number that is ordered as the elements of a type are: NaN above every number, and both zeros alike.
fn sort_key(dtype: DType, bytes: &[u8]) -> u64 {
    const SIGN: u64 = 1 << 63;
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    let word = u64::from_le_bytes(word);
    let float = |value: f64| {
        // Adding zero makes the negative zero positive.
        let bits = (value + 0.0).to_bits();
        match (value.is_nan(), bits & SIGN != 0) {
            (true, _) => u64::MAX,
            (false, true) => !bits,
            (false, false) => bits | SIGN,
        }
    };
    match dtype {
        DType::Bool => u64::from(word != 0),
        DType::U4 => word & 15,
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => word,
        DType::I4 => ((word << 60).cast_signed() >> 60).cast_unsigned() ^ SIGN,
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => {
            let unused = 64 - dtype.bits();
            ((word << unused).cast_signed() >> unused).cast_unsigned() ^ SIGN
        }
        DType::F64 => float(f64::from_bits(word)),
        DType::F32 => float(f64::from(f32::from_bits(word as u32))),
        DType::F16 => float(half::f16::from_bits(word as u16).to_f64()),
        DType::BF16 => float(half::bf16::from_bits(word as u16).to_f64()),
        DType::F8E4M3 => float(f64::from(decode(&DECODED[0], word as u32))),
        DType::F8E5M2 => float(f64::from(decode(&DECODED[1], word as u32))),
        DType::F4E2M1 => float(f64::from(decode(&DECODED[2], word as u32))),
    }
}

/// How a function's helpers are named for a type.
pub(crate) fn suffix(dtype: DType) -> &'static str {
    match dtype.class() {
        Class::Float if dtype == DType::F64 => "f64",
        Class::Float => "f32",
        Class::Unsigned => "u64",
        Class::Signed | Class::Bool => "i64",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(dtype: DType, values: &[f64], descending: bool) -> Vec<i64> {
        let data = narrow::encode(dtype, &Values::F64(values.to_vec()));
        let number = DType::ALL.iter().position(|other| *other == dtype).expect("it is one");
        let mut positions = vec![0i64; values.len()];
        // SAFETY: the elements and the positions are as many as are said, and lie one after another.
        unsafe {
            sort(
                number as i64,
                i64::from(descending),
                values.len() as i64,
                data.as_ptr(),
                dtype.bytes() as i64,
                std::ptr::null_mut(),
                0,
                positions.as_mut_ptr().cast(),
                8,
            );
        }
        positions
    }

    #[test]
    fn equal_elements_keep_their_order_and_nan_is_largest() {
        let values = [1.0, f64::NAN, -0.0, 1.0, 0.0, -2.0, f64::INFINITY];
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            assert_eq!(sorted(dtype, &values, false), [5, 2, 4, 0, 3, 6, 1], "{dtype}");
            assert_eq!(sorted(dtype, &values, true), [1, 6, 0, 3, 2, 4, 5], "{dtype}");
        }
        for dtype in [DType::I4, DType::I8, DType::I16, DType::I32, DType::I64] {
            assert_eq!(sorted(dtype, &[3.0, -7.0, 3.0, 0.0, -1.0], false), [1, 4, 3, 0, 2]);
            assert_eq!(sorted(dtype, &[3.0, -7.0, 3.0, 0.0, -1.0], true), [0, 2, 3, 4, 1]);
        }
        for dtype in [DType::U4, DType::U8, DType::U16, DType::U32, DType::U64] {
            assert_eq!(sorted(dtype, &[9.0, 1.0, 9.0, 15.0], true), [3, 0, 2, 1]);
        }
    }
}
