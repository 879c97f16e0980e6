//! Tensors in files: `.npy`, bundles of them in `.npz`, and ONNX `TensorProto` in `.pb` for what NumPy has no type for.
//!
//! Every size that a file states is checked against the bytes that are there before anything is allocated for it.

mod npy;
mod npz;
mod proto;
mod write;

pub use npz::Bundle;
pub(crate) use write::replace_with;
pub use write::{file_stem, read_text, write_text};

use crate::error::{Error, listed};
use bytes::Bytes;
use std::path::Path;
use systole_compiler::narrow;
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::{DType, TensorType};

/// A tensor as a file holds it, before its reader has said what its bytes mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// What the elements are.
    pub element: Stored,
    /// The size of each dimension.
    pub shape: Vec<usize>,
    /// The elements: little-endian, row-major, one byte for each bool and each 4-bit number.
    pub data: Bytes,
}

/// What a file says of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Their type.
    Known(DType),
    /// Only how many bytes each takes, as NumPy does for the types that it lacks.
    Raw(usize),
}

impl Array {
    /// The tensor. Raw bytes take the type that is wanted, where it has their width.
    pub fn into_tensor(self, wanted: Option<DType>) -> Result<Tensor, Error> {
        let dtype = match (self.element, wanted) {
            (Stored::Known(dtype), _) => dtype,
            (Stored::Raw(bytes), Some(dtype)) if dtype.bytes() == bytes => dtype,
            (Stored::Raw(bytes), Some(dtype)) => {
                let has = dtype.bytes();
                return Err(Error::file(format!(
                    "elements of {bytes} raw bytes cannot be {dtype}, which has {has}"
                )));
            }
            (Stored::Raw(bytes), None) => {
                return Err(Error::file(format!(
                    "elements are {bytes} raw bytes each, without a type"
                )));
            }
        };
        let data = canonical(dtype, self.data);
        let ty = TensorType::new(dtype, &self.shape);
        let length = data.len();
        Tensor::new(ty, data).ok_or_else(|| {
            Error::file(format!("{length} bytes of data do not make {dtype}{:?}", self.shape))
        })
    }
}

/// The same elements with the bits that carry nothing in their normal form, which the types with spare bits need.
fn canonical(dtype: DType, data: Bytes) -> Bytes {
    let is_normal = |byte: &u8| match dtype {
        DType::Bool => *byte <= 1,
        DType::U4 | DType::F4E2M1 => *byte <= 15,
        DType::I4 => (-8..8).contains(&(*byte as i8)),
        DType::I8
        | DType::I16
        | DType::I32
        | DType::I64
        | DType::U8
        | DType::U16
        | DType::U32
        | DType::U64
        | DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::F8E4M3
        | DType::F8E5M2 => true,
    };
    let spare = matches!(dtype, DType::Bool | DType::U4 | DType::I4 | DType::F4E2M1);
    if !spare || data.iter().all(is_normal) {
        return data;
    }
    let normal = |byte: &u8| {
        if dtype == DType::Bool {
            u8::from(*byte != 0)
        } else if dtype == DType::I4 {
            ((*byte << 4) as i8 >> 4) as u8
        } else {
            *byte & 15
        }
    };
    data.iter().map(normal).collect::<Vec<u8>>().into()
}

/// The tensor in a `.npy` or `.pb` file, or the entry `name` of an `.npz`.
pub fn read(path: &Path, name: Option<&str>) -> Result<Array, Error> {
    let shown = path.display();
    match (extension(path), name) {
        ("npz", Some(name)) => Bundle::open(path)?.read(name),
        ("npz", None) => {
            let mut bundle = Bundle::open(path)?;
            match bundle.names() {
                [only] => {
                    let only = only.clone();
                    bundle.read(&only)
                }
                names => Err(Error::file(format!(
                    "{shown} holds {} arrays ({}); name one of them after a colon",
                    names.len(),
                    listed(names.iter().map(String::as_str))
                ))),
            }
        }
        ("pb", None) => proto::decode(&read_file(path)?)
            .map_err(|error| error.in_file(&shown.to_string(), None)),
        (_, None) => {
            npy::decode(&read_file(path)?).map_err(|error| error.in_file(&shown.to_string(), None))
        }
        (_, Some(_)) => Err(Error::file(format!("{shown} is not an .npz, so it has no entries"))),
    }
}

/// Writes named tensors: to one `.npz`, to one `.npy` or `.pb` where there is a single tensor, else to a folder with a
/// file for each. Nothing is left behind under the final name where writing fails.
pub fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    match (extension(path), tensors) {
        ("npz", _) => npz::write(path, tensors),
        ("npy", [(_, tensor)]) => write::replace(path, &npy::encode(tensor)),
        ("pb", [(name, tensor)]) => write::replace(path, &proto::encode(name, tensor)),
        ("npy" | "pb", _) => Err(Error::file(format!(
            "{} would hold one tensor, and there are {}; name an .npz or a folder",
            path.display(),
            tensors.len()
        ))),
        (_, _) => write_folder(path, tensors),
    }
}

fn write_folder(folder: &Path, tensors: &[(String, Tensor)]) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(|error| {
        Error::file(format!("cannot make the folder {}: {error}", folder.display()))
    })?;
    for (name, tensor) in tensors {
        let stem = file_stem(name);
        if npy::has_type_for(tensor.dtype()) {
            write::replace(&folder.join(format!("{stem}.npy")), &npy::encode(tensor))?;
        } else {
            write::replace(&folder.join(format!("{stem}.pb")), &proto::encode(name, tensor))?;
        }
    }
    Ok(())
}

/// The bytes of a file.
pub(crate) fn read_file(path: &Path) -> Result<Bytes, Error> {
    std::fs::read(path)
        .map(Bytes::from)
        .map_err(|error| Error::file(format!("cannot read {}: {error}", path.display())))
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or("")
}

/// Fills a shape with numbers from a seed: floats in [-1, 1), or within the range; integers and bools 0 or 1, or within it.
/// The same seed gives the same numbers everywhere.
pub fn random(ty: &TensorType, seed: u64, range: Option<(f64, f64)>) -> Tensor {
    let mut state = seed;
    let mut unit = || {
        // SplitMix64: a counter through a mixer, so any seed will do.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let is_float = ty.dtype.is_float();
    let (low, high) = range.unwrap_or(if is_float { (-1.0, 1.0) } else { (0.0, 2.0) });
    let mut next = || {
        let value = low + (high - low) * unit();
        if is_float { value } else { value.floor() }
    };
    let values = Values::F64((0..ty.count()).map(|_| next()).collect());
    Tensor::new(ty.clone(), narrow::encode(ty.dtype, &values).into())
        .expect("one value for each element")
}
