//! ONNX `TensorProto` files, which hold every element type that we have.

use super::{Array, Stored};
use crate::error::Error;
use bytes::Bytes;
use prost::Message;
use systole_compiler::narrow;
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::{DType, TensorType};

/// The fields of ONNX's message that a file on its own may use.
#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(float, repeated, tag = "4")]
    float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "bytes", optional, tag = "9")]
    raw_data: Option<Bytes>,
    #[prost(double, repeated, tag = "10")]
    double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    uint64_data: Vec<u64>,
    #[prost(int32, tag = "14")]
    data_location: i32,
}

/// ONNX's numbers of the element types.
const NUMBERS: [(DType, i32); 18] = [
    (DType::F32, 1),
    (DType::U8, 2),
    (DType::I8, 3),
    (DType::U16, 4),
    (DType::I16, 5),
    (DType::I32, 6),
    (DType::I64, 7),
    (DType::Bool, 9),
    (DType::F16, 10),
    (DType::F64, 11),
    (DType::U32, 12),
    (DType::U64, 13),
    (DType::BF16, 16),
    (DType::F8E4M3, 17),
    (DType::F8E5M2, 19),
    (DType::U4, 21),
    (DType::I4, 22),
    (DType::F4E2M1, 23),
];

/// Types of ONNX that we have not: their codes are carried by another type. Number, carrier, bits of a code.
const CARRIED: [(i32, DType, usize); 5] = [
    (18, DType::U8, 8),
    (20, DType::U8, 8),
    (24, DType::U8, 8),
    (25, DType::U8, 2),
    (26, DType::I8, 2),
];

pub(super) fn decode(file: &Bytes) -> Result<Array, Error> {
    let proto = TensorProto::decode(file.clone())
        .map_err(|error| Error::file(format!("not an ONNX TensorProto ({error})")))?;
    let number = proto.data_type;
    let own = NUMBERS.into_iter().map(|(dtype, known)| (known, dtype, dtype.bits()));
    let (_, dtype, bits) = own
        .chain(CARRIED)
        .find(|&(known, _, _)| known == number)
        .ok_or_else(|| Error::unsupported(format!("tensors of ONNX element type {number}")))?;
    if proto.data_location != 0 {
        return Err(Error::unsupported("a tensor file whose data lies in yet another file"));
    }
    let shape: Vec<usize> = proto
        .dims
        .iter()
        .map(|&size| usize::try_from(size).map_err(|_| Error::file(format!("a size of {size}"))))
        .collect::<Result<_, _>>()?;
    let count = TensorType::new(dtype, &shape)
        .checked_count()
        .ok_or_else(|| Error::file(format!("{dtype}{shape:?} is larger than any memory")))?;
    let data = match &proto.raw_data {
        Some(raw) if bits == 4 => unpacked(raw, count, dtype),
        Some(raw) if bits == 2 => quarters(raw, count, dtype),
        None if bits == 2 => {
            let bytes: Vec<u8> = proto.int32_data.iter().map(|&value| value as u8).collect();
            quarters(&bytes, count, dtype)
        }
        Some(raw) => raw.clone(),
        None => typed_data(&proto, dtype, count),
    };
    if data.len() != count * dtype.bytes() {
        return Err(Error::file(format!(
            "{} bytes of data do not make {dtype}{shape:?}",
            data.len()
        )));
    }
    Ok(Array { element: Stored::Known(dtype), shape, data })
}

/// The elements from the typed fields: narrow integers and float bits are kept in `int32_data`, 4-bit ones in pairs.
fn typed_data(proto: &TensorProto, dtype: DType, count: usize) -> Bytes {
    let narrowed = |bytes: usize| {
        proto
            .int32_data
            .iter()
            .flat_map(|value| value.to_le_bytes().into_iter().take(bytes))
            .collect::<Vec<u8>>()
    };
    let encoded = |values: Values| narrow::encode(dtype, &values);
    match dtype {
        DType::F32 => encoded(Values::F32(proto.float_data.clone())),
        DType::F64 => encoded(Values::F64(proto.double_data.clone())),
        DType::I64 => encoded(Values::Int(proto.int64_data.clone())),
        DType::U32 | DType::U64 => encoded(Values::Uint(proto.uint64_data.clone())),
        DType::I4 | DType::U4 | DType::F4E2M1 => return unpacked(&narrowed(1), count, dtype),
        DType::Bool
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::U8
        | DType::U16
        | DType::F16
        | DType::BF16
        | DType::F8E4M3
        | DType::F8E5M2 => narrowed(dtype.bytes()),
    }
    .into()
}

/// One byte for each 2-bit element; the first of four is in the lowest bits.
fn quarters(packed: &[u8], count: usize, dtype: DType) -> Bytes {
    let extended =
        |part: u8| if dtype == DType::I8 { ((part << 6) as i8 >> 6) as u8 } else { part };
    let parts = packed.iter().flat_map(|&byte| (0..4).map(move |at| (byte >> (2 * at)) & 3));
    parts.take(count).map(extended).collect::<Vec<u8>>().into()
}

/// One byte for each 4-bit element; the first of a pair is in the low half.
fn unpacked(packed: &[u8], count: usize, dtype: DType) -> Bytes {
    let extended =
        |half: u8| if dtype == DType::I4 { ((half << 4) as i8 >> 4) as u8 } else { half };
    let halves = packed.iter().flat_map(|byte| [byte & 15, byte >> 4]).map(extended);
    // A byte too many is only the padding of an odd count; anything else is found by the check of the length.
    let keep = if packed.len() == count.div_ceil(2) { count } else { usize::MAX };
    halves.take(keep).collect::<Vec<u8>>().into()
}

pub(super) fn encode(name: &str, tensor: &Tensor) -> Vec<u8> {
    let dtype = tensor.dtype();
    let number = NUMBERS.iter().find_map(|(known, number)| (*known == dtype).then_some(*number));
    let raw = if dtype.bits() == 4 {
        let pair = |pair: &[u8]| (pair[0] & 15) | (pair.get(1).copied().unwrap_or(0) << 4);
        tensor.bytes().chunks(2).map(pair).collect::<Vec<u8>>().into()
    } else {
        tensor.bytes().clone()
    };
    TensorProto {
        dims: tensor.shape().iter().map(|&size| size as i64).collect(),
        data_type: number.expect("every element type has a number"),
        name: name.to_owned(),
        raw_data: Some(raw),
        ..TensorProto::default()
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        for dtype in DType::ALL {
            for shape in [&[][..], &[3], &[2, 3], &[0]] {
                let tensor = super::super::random(&TensorType::new(dtype, shape), 3, None);
                let array = decode(&encode("x", &tensor).into()).expect("its own file");
                assert_eq!(array.into_tensor(None).expect("its own type"), tensor);
            }
        }
    }

    #[test]
    fn narrow_numbers_may_stand_in_int32_data() {
        let proto = TensorProto {
            dims: vec![3],
            data_type: 22,
            int32_data: vec![0x21, 0x0f],
            ..TensorProto::default()
        };
        let array = decode(&proto.encode_to_vec().into()).expect("valid");
        assert_eq!(&array.data[..], &[1, 2, 0xff]);
    }
}
