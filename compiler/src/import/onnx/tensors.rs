//! ONNX tensors as ours. Raw data stays a slice of the file; typed fields and packed 4-bit data are copied. Sizes are
//! compared with the data before anything is allocated.

use super::foreign::Foreign;
use super::proto::{SparseTensorProto, TensorProto};
use crate::tensor::Tensor;
use crate::types::{Class, DType, TensorType};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Files of external data by the location that tensors name.
pub(crate) type External = BTreeMap<String, Result<Bytes, String>>;

/// Why a tensor has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TensorError {
    /// The element type is not one of ours.
    Unsupported(String),
    /// The message contradicts itself.
    Malformed(String),
    /// The data is elsewhere, and not there.
    Missing(String),
}

/// The element type of an ONNX number.
pub(crate) fn dtype_of(number: i32) -> Result<DType, TensorError> {
    let unsupported = |name: &str| Err(TensorError::Unsupported(format!("element type {name}")));
    Ok(match number {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        16 => DType::BF16,
        17 => DType::F8E4M3,
        19 => DType::F8E5M2,
        21 => DType::U4,
        22 => DType::I4,
        23 => DType::F4E2M1,
        8 => return unsupported("string"),
        14 => return unsupported("complex64"),
        15 => return unsupported("complex128"),
        27 => return unsupported("float6e2m3"),
        28 => return unsupported("float6e3m2"),
        0 => return Err(TensorError::Malformed("the element type is missing".to_owned())),
        other => match Foreign::of(other) {
            Some(foreign) => return unsupported(foreign.name()),
            None => {
                return Err(TensorError::Malformed(format!("there is no element type {other}")));
            }
        },
    })
}

/// The element type that holds a tensor of an ONNX number: another one for those that the graph has not.
pub(crate) fn carrier_of(number: i32) -> Result<DType, TensorError> {
    match Foreign::of(number) {
        Some(foreign) => Ok(foreign.carrier()),
        None => dtype_of(number),
    }
}

/// The type of what holds a tensor, checked for size.
pub(crate) fn type_of(proto: &TensorProto) -> Result<TensorType, TensorError> {
    let dtype = carrier_of(proto.data_type)?;
    let ty = TensorType { dtype, shape: sizes(&proto.dims)?.into() };
    match ty.checked_count() {
        Some(_) => Ok(ty),
        None => Err(TensorError::Malformed(format!("{ty} is larger than any memory"))),
    }
}

fn sizes(dims: &[i64]) -> Result<Vec<usize>, TensorError> {
    dims.iter()
        .map(|&size| {
            usize::try_from(size)
                .map_err(|_| TensorError::Malformed(format!("a dimension of {size} elements")))
        })
        .collect()
}

/// The value of a tensor.
pub(crate) fn tensor(proto: &TensorProto, external: &External) -> Result<Tensor, TensorError> {
    let ty = type_of(proto)?;
    let count = ty.count();
    let bits = match Foreign::of(proto.data_type) {
        Some(foreign) => foreign.bits(),
        None => ty.dtype.bits(),
    };
    // Bool takes a byte, and what takes less is packed.
    let bits = if ty.dtype == DType::Bool { 8 } else { bits };
    let data = if proto.data_location == 1 {
        raw(&ty, bits, external_bytes(proto, external, (count * bits).div_ceil(8))?)?
    } else if let Some(bytes) = &proto.raw_data {
        raw(&ty, bits, bytes.clone())?
    } else if bits == 2 {
        let bytes: Vec<u8> = proto.int32_data.iter().map(|&value| value as u8).collect();
        raw(&ty, bits, bytes.into())?
    } else {
        typed(proto, ty.dtype, count)?
    };
    let found = data.len() / ty.dtype.bytes();
    Tensor::new(ty.clone(), data)
        .ok_or_else(|| TensorError::Malformed(format!("{ty} has {count} elements, not {found}")))
}

fn raw(ty: &TensorType, bits: usize, bytes: Bytes) -> Result<Bytes, TensorError> {
    let wanted = (ty.count() * bits).div_ceil(8);
    if bytes.len() != wanted {
        return Err(TensorError::Malformed(format!(
            "{ty} takes {wanted} bytes, but there are {}",
            bytes.len()
        )));
    }
    Ok(if bits < 8 { unpack(ty.dtype, bits, &bytes, ty.count()) } else { bytes })
}

/// One byte for each element of packed data, the first in the lowest bits.
fn unpack(dtype: DType, bits: usize, bytes: &[u8], count: usize) -> Bytes {
    let mask = (1u8 << bits) - 1;
    let sign = 1u8 << (bits - 1);
    let signed = dtype.class() == Class::Signed;
    let extend = |part: u8| if signed && part & sign != 0 { part | !mask } else { part };
    let parts =
        bytes.iter().flat_map(|&byte| (0..8 / bits).map(move |at| (byte >> (at * bits)) & mask));
    Bytes::from(parts.take(count).map(extend).collect::<Vec<u8>>())
}

fn typed(proto: &TensorProto, dtype: DType, count: usize) -> Result<Bytes, TensorError> {
    fn put<S: Copy, const N: usize>(values: &[S], bytes: impl Fn(S) -> [u8; N]) -> Bytes {
        Bytes::from(values.iter().flat_map(|&value| bytes(value)).collect::<Vec<u8>>())
    }
    let ints = &proto.int32_data;
    let found = match dtype {
        DType::F32 => proto.float_data.len(),
        DType::F64 => proto.double_data.len(),
        DType::I64 => proto.int64_data.len(),
        DType::U64 | DType::U32 => proto.uint64_data.len(),
        DType::I4 | DType::U4 | DType::F4E2M1 if ints.len() == count.div_ceil(2) => count,
        DType::I4 | DType::U4 | DType::F4E2M1 => ints.len() * 2,
        DType::Bool
        | DType::I8
        | DType::I16
        | DType::I32
        | DType::U8
        | DType::U16
        | DType::F16
        | DType::BF16
        | DType::F8E4M3
        | DType::F8E5M2 => ints.len(),
    };
    if found != count {
        return Err(TensorError::Malformed(format!(
            "the shape has {count} elements, but the data {found}"
        )));
    }
    Ok(match dtype {
        DType::F32 => put(&proto.float_data, f32::to_le_bytes),
        DType::F64 => put(&proto.double_data, f64::to_le_bytes),
        DType::I64 => put(&proto.int64_data, i64::to_le_bytes),
        DType::U64 => put(&proto.uint64_data, u64::to_le_bytes),
        DType::U32 => put(&proto.uint64_data, |value| (value as u32).to_le_bytes()),
        DType::I32 => put(ints, i32::to_le_bytes),
        DType::Bool => put(ints, |value| [u8::from(value != 0)]),
        DType::I8 | DType::U8 | DType::F8E4M3 | DType::F8E5M2 => put(ints, |value| [value as u8]),
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
            put(ints, |value| (value as u16).to_le_bytes())
        }
        DType::I4 | DType::U4 | DType::F4E2M1 => {
            let bytes: Vec<u8> = ints.iter().map(|&value| value as u8).collect();
            unpack(dtype, 4, &bytes, count)
        }
    })
}

/// The place that a tensor's external data is at.
pub(crate) fn location(proto: &TensorProto) -> Option<&str> {
    let entry = proto.external_data.iter().find(|entry| entry.key == "location")?;
    (proto.data_location == 1).then_some(entry.value.as_str())
}

fn external_bytes(
    proto: &TensorProto,
    external: &External,
    wanted: usize,
) -> Result<Bytes, TensorError> {
    let location = location(proto)
        .ok_or_else(|| TensorError::Malformed("external data without a location".to_owned()))?;
    let number =
        |key: &str, default: usize| match proto.external_data.iter().find(|entry| entry.key == key)
        {
            None => Ok(default),
            Some(entry) => entry.value.trim().parse::<usize>().map_err(|_| {
                TensorError::Malformed(format!("external {key} is not a size: {:?}", entry.value))
            }),
        };
    let (offset, length) = (number("offset", 0)?, number("length", wanted)?);
    let file = match external.get(location) {
        Some(Ok(file)) => file,
        Some(Err(reason)) => return Err(TensorError::Missing(format!("{location}: {reason}"))),
        None => return Err(TensorError::Missing(format!("{location} was not read"))),
    };
    match offset.checked_add(length) {
        Some(end) if end <= file.len() => Ok(file.slice(offset..end)),
        Some(_) | None => Err(TensorError::Missing(format!(
            "{location} has {} bytes, but {length} at {offset} are wanted",
            file.len()
        ))),
    }
}

/// The value of a sparse tensor, made dense.
pub(crate) fn dense(proto: &SparseTensorProto, external: &External) -> Result<Tensor, TensorError> {
    let missing = || TensorError::Malformed("a sparse tensor without values".to_owned());
    let values = tensor(proto.values.as_ref().ok_or_else(missing)?, external)?;
    let indices = tensor(proto.indices.as_ref().ok_or_else(missing)?, external)?;
    let shape = sizes(&proto.dims)?;
    let ty = TensorType::new(values.dtype(), &shape);
    // Only the data that is there bounds a sparse tensor from below; a gigabyte made of nothing is refused.
    if ty.checked_count().is_none_or(|count| count > 1 << 26) {
        return Err(TensorError::Malformed(format!("the sparse tensor {ty} is too large")));
    }
    let outside = || TensorError::Malformed("an index of a sparse tensor is outside".to_owned());
    let count = values.count();
    let flat = indices.to_i64();
    let strides = crate::types::strides(&shape);
    let width = dtype_bytes(&values);
    let mut data = vec![0; ty.bytes()];
    for entry in 0..count {
        let position = match indices.shape().len() {
            1 => usize::try_from(*flat.get(entry).ok_or_else(outside)?).map_err(|_| outside())?,
            _ => {
                let mut position = 0;
                for axis in 0..shape.len() {
                    let index = flat.get(entry * shape.len() + axis).ok_or_else(outside)?;
                    let index = usize::try_from(*index).map_err(|_| outside())?;
                    if index >= shape[axis] {
                        return Err(outside());
                    }
                    position += index * strides[axis];
                }
                position
            }
        };
        let target = data.get_mut(position.saturating_mul(width)..).ok_or_else(outside)?;
        let target = target.get_mut(..width).ok_or_else(outside)?;
        target.copy_from_slice(&values.bytes()[entry * width..(entry + 1) * width]);
    }
    Tensor::new(ty, Bytes::from(data)).ok_or_else(missing)
}

fn dtype_bytes(tensor: &Tensor) -> usize {
    tensor.dtype().bytes()
}
