//! Every code of every narrow type, against formulas that share nothing with the code.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it is about")]

use super::*;

/// What a code stands for, digit by digit: sign, exponent, mantissa, by the standards' tables.
fn meaning(dtype: DType, code: u8) -> f32 {
    let (sign, exponent, mantissa) = match dtype {
        DType::F8E4M3 => (code >> 7, code >> 3 & 15, code & 7),
        DType::F8E5M2 => (code >> 7, code >> 2 & 31, code & 3),
        _ => (code >> 3, code >> 1 & 3, code & 1),
    };
    let magnitude = match (dtype, exponent, mantissa) {
        (DType::F8E4M3, 15, 7) => f32::NAN,
        (DType::F8E4M3, 0, m) => f32::from(m) / 512.0,
        (DType::F8E4M3, e, m) => (8.0 + f32::from(m)) / 8.0 * 2f32.powi(i32::from(e) - 7),
        (DType::F8E5M2, 31, 0) => f32::INFINITY,
        (DType::F8E5M2, 31, _) => f32::NAN,
        (DType::F8E5M2, 0, m) => f32::from(m) / 65536.0,
        (DType::F8E5M2, e, m) => (4.0 + f32::from(m)) / 4.0 * 2f32.powi(i32::from(e) - 15),
        (_, e, m) => {
            [[0.0, 0.5], [1.0, 1.5], [2.0, 3.0], [4.0, 6.0]][usize::from(e)][usize::from(m)]
        }
    };
    if sign == 1 { -magnitude } else { magnitude }
}

const NARROW: [(DType, u8, u8); 3] =
    [(DType::F8E4M3, 255, 0x7e), (DType::F8E5M2, 255, 0x7b), (DType::F4E2M1, 15, 7)];

fn decoded(dtype: DType, code: u8) -> f32 {
    match decode(dtype, &[code]) {
        Values::F32(values) => values[0],
        other => panic!("{dtype} decodes to f32, not {other:?}"),
    }
}

fn encoded(dtype: DType, value: f64) -> u8 {
    encode(dtype, &Values::F64(vec![value]))[0]
}

#[test]
fn every_code_means_what_the_standard_says_and_comes_back() {
    for (dtype, last, _) in NARROW {
        for code in 0..=last {
            let (value, wanted) = (decoded(dtype, code), meaning(dtype, code));
            if wanted.is_nan() {
                assert!(value.is_nan(), "{dtype} {code:#x}");
                assert!(decoded(dtype, encoded(dtype, f64::NAN)).is_nan());
                continue;
            }
            assert_eq!(value.to_bits(), wanted.to_bits(), "{dtype} {code:#x}");
            assert_eq!(encoded(dtype, f64::from(value)), code, "{dtype} {value}");
        }
    }
}

#[test]
fn between_neighbours_the_nearer_is_taken_and_the_even_one_of_both() {
    for (dtype, _, largest) in NARROW {
        for code in 0..largest {
            let [low, high] = [code, code + 1].map(|code| f64::from(decoded(dtype, code)));
            let middle = (low + high) / 2.0;
            let even = if code % 2 == 0 { code } else { code + 1 };
            let sign = encoded(dtype, -1.0) ^ encoded(dtype, 1.0);
            for (value, wanted) in [
                (middle, even),
                (middle.next_down(), code),
                (middle.next_up(), code + 1),
                (low.next_up(), code),
                (high.next_down(), code + 1),
            ] {
                assert_eq!(encoded(dtype, value), wanted, "{dtype} {value}");
                assert_eq!(encoded(dtype, -value), wanted | sign, "{dtype} -{value}");
            }
        }
    }
}

#[test]
fn beyond_the_largest_each_type_has_its_own_way() {
    for (value, code) in
        [(448.0, 0x7e), (464.0, 0x7e), (464.1, 0x7f), (1e9, 0x7f), (f64::INFINITY, 0x7f)]
    {
        assert_eq!(encoded(DType::F8E4M3, value), code, "f8e4m3 {value}");
    }
    for (value, code) in [(57344.0, 0x7b), (61439.9, 0x7b), (61440.0, 0x7c), (f64::INFINITY, 0x7c)]
    {
        assert_eq!(encoded(DType::F8E5M2, value), code, "f8e5m2 {value}");
    }
    for (value, code) in [(6.0, 7), (1e9, 7), (f64::NEG_INFINITY, 15), (f64::NAN, 0)] {
        assert_eq!(encoded(DType::F4E2M1, value), code, "f4e2m1 {value}");
    }
}

#[test]
fn every_half_code_comes_back() {
    for dtype in [DType::F16, DType::BF16] {
        let codes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let values = decode(dtype, &codes);
        let back = encode(dtype, &values);
        let Values::F32(values) = values else { panic!("{dtype} decodes to f32") };
        for (index, value) in values.iter().enumerate() {
            let (code, again) = (&codes[index * 2..index * 2 + 2], &back[index * 2..index * 2 + 2]);
            let again_value = match decode(dtype, again) {
                Values::F32(values) => values[0],
                other => panic!("{dtype} decodes to f32, not {other:?}"),
            };
            assert!(
                code == again || (value.is_nan() && again_value.is_nan()),
                "{dtype} {index:#x}"
            );
        }
    }
}

#[test]
fn half_types_round_to_nearest_even() {
    // 1 + 2^-11 lies between 1 and 1 + 2^-10 in f16; 1 + 2^-8 between 1 and 1 + 2^-7 in bf16.
    for (dtype, half) in [(DType::F16, 2f32.powi(-11)), (DType::BF16, 2f32.powi(-8))] {
        let round = |value: f32| decode(dtype, &encode(dtype, &Values::F32(vec![value])));
        let three = 1.0 + 3.0 * half;
        for (value, wanted) in [
            (1.0 + half, 1.0),
            ((1.0 + half).next_up(), 1.0 + 2.0 * half),
            (three, 1.0 + 4.0 * half),
        ] {
            assert_eq!(round(value), Values::F32(vec![wanted]), "{dtype} {value}");
        }
    }
}

#[test]
fn a_conversion_from_f64_rounds_once() {
    // Rounded to f32 first, this would become the midpoint 1 + 2^-11, and then 1.
    let value = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    assert_eq!(encode(DType::F16, &Values::F64(vec![value])), [0x01, 0x3c]);
    // The same with an integer: 2^62 + 2^54 is between two bf16, and one more is above the middle.
    let value = (1i64 << 62) + (1 << 54);
    assert_eq!(encode(DType::BF16, &Values::Int(vec![value, value + 1])), [0x80, 0x5e, 0x81, 0x5e]);
    // Every midpoint of f16 goes to the even neighbour, and what is a little off goes to the nearer one.
    for code in 0u16..0x7bff {
        let [low, high] = [code, code + 1].map(|code| f16::from_bits(code).to_f64());
        let middle = (low + high) / 2.0;
        for (value, wanted) in
            [(middle, code + code % 2), (middle.next_down(), code), (middle.next_up(), code + 1)]
        {
            assert_eq!(encode(DType::F16, &Values::F64(vec![value])), wanted.to_le_bytes());
        }
    }
}

#[test]
fn integers_wrap_and_floats_truncate() {
    let wrapped = |dtype, value: i64| decode(dtype, &encode(dtype, &Values::Int(vec![value])));
    assert_eq!(wrapped(DType::I4, 9), Values::Int(vec![-7]));
    assert_eq!(wrapped(DType::U4, -1), Values::Uint(vec![15]));
    assert_eq!(wrapped(DType::I8, 200), Values::Int(vec![-56]));
    assert_eq!(wrapped(DType::U64, -1), Values::Uint(vec![u64::MAX]));
    let cut = |dtype, value: f64| decode(dtype, &encode(dtype, &Values::F64(vec![value])));
    assert_eq!(cut(DType::I32, -2.9), Values::Int(vec![-2]));
    assert_eq!(cut(DType::I64, 1e300), Values::Int(vec![i64::MAX]));
    assert_eq!(cut(DType::I64, f64::NAN), Values::Int(vec![0]));
    assert_eq!(cut(DType::U64, 1e300), Values::Uint(vec![u64::MAX]));
    assert_eq!(cut(DType::U8, -1.5), Values::Uint(vec![255]));
    assert_eq!(cut(DType::Bool, 0.25), Values::Bool(vec![true]));
}
