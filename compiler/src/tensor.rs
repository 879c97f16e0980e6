//! Tensor values. The bytes are little-endian, row-major, shared and possibly mapped from a file, so they may be
//! unaligned: [`Tensor::values`] decodes them, [`Tensor::as_slice`] borrows them where it can.

use crate::narrow;
use crate::types::{Class, DType, Shape, TensorType};
use bytemuck::{AnyBitPattern, NoUninit};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;

/// A type and the bytes of its elements. Cloning shares the bytes.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    ty: TensorType,
    data: Bytes,
}

/// Decoded elements, one vector per arithmetic: narrow integers widen to 64 bits, narrow floats to f32.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Uint(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

/// A Rust type that is the element of a tensor.
pub trait Element: AnyBitPattern + NoUninit {
    /// The element type that it holds.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($rust:ty => $dtype:ident,)*) => { $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })* };
}
elements! {
    i8 => I8, i16 => I16, i32 => I32, i64 => I64, u8 => U8, u16 => U16, u32 => U32, u64 => U64, f32 => F32, f64 => F64,
}

impl Tensor {
    /// The tensor of that type over those bytes; `None` where their number is not the type's.
    pub fn new(ty: TensorType, data: Bytes) -> Option<Tensor> {
        (ty.checked_count()? * ty.dtype.bytes() == data.len()).then_some(Tensor { ty, data })
    }

    /// A tensor with a copy of `elements`, whose number must be the shape's.
    pub fn from_slice<T: Element>(shape: &[usize], elements: &[T]) -> Tensor {
        let data = Bytes::copy_from_slice(bytemuck::cast_slice(elements));
        Tensor::new(TensorType::new(T::DTYPE, shape), data)
            .expect("as many elements as the shape has")
    }

    /// A tensor without dimensions.
    pub fn scalar<T: Element>(element: T) -> Tensor {
        Tensor::from_slice(&[], &[element])
    }

    /// A tensor with every element zero.
    pub fn zeros(ty: TensorType) -> Tensor {
        let data = Bytes::from(vec![0; ty.bytes()]);
        Tensor { ty, data }
    }

    /// Encodes values: floats round to nearest even, integers wrap to the width.
    pub fn from_values(dtype: DType, shape: &[usize], values: &Values) -> Tensor {
        let data = Bytes::from(narrow::encode(dtype, values));
        Tensor::new(TensorType::new(dtype, shape), data).expect("as many values as the shape has")
    }

    /// Decodes every element.
    pub fn values(&self) -> Values {
        narrow::decode(self.ty.dtype, &self.data)
    }

    /// The type.
    pub fn ty(&self) -> &TensorType {
        &self.ty
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.ty.dtype
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.ty.shape
    }

    /// The number of elements.
    pub fn count(&self) -> usize {
        self.ty.count()
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The same elements in another shape with as many of them.
    pub fn reshaped(&self, shape: &[usize]) -> Option<Tensor> {
        Tensor::new(TensorType::new(self.dtype(), shape), self.data.clone())
    }

    /// The elements, where `T` is their type: borrowed where the bytes are aligned, else copied.
    pub fn as_slice<T: Element>(&self) -> Option<Cow<'_, [T]>> {
        if T::DTYPE != self.dtype() {
            return None;
        }
        Some(match bytemuck::try_cast_slice(&self.data) {
            Ok(slice) => Cow::Borrowed(slice),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(&self.data)),
        })
    }

    /// The elements as integers (floats truncate), for shapes and indices.
    pub fn to_i64(&self) -> Vec<i64> {
        self.values().into_i64()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.ty)?;
        if self.count() <= 16 { self.values().fmt(f) } else { f.write_str("…") }
    }
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Values::Bool(values) => values.len(),
            Values::Int(values) => values.len(),
            Values::Uint(values) => values.len(),
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values as integers; floats truncate and saturate.
    pub fn into_i64(self) -> Vec<i64> {
        match self {
            Values::Bool(values) => values.into_iter().map(i64::from).collect(),
            Values::Int(values) => values,
            Values::Uint(values) => values.into_iter().map(|value| value as i64).collect(),
            Values::F32(values) => values.into_iter().map(|value| value as i64).collect(),
            Values::F64(values) => values.into_iter().map(|value| value as i64).collect(),
        }
    }

    /// The values as f64; 64-bit integers round.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Values::Bool(values) => {
                values.iter().map(|&value| f64::from(u8::from(value))).collect()
            }
            Values::Int(values) => values.iter().map(|&value| value as f64).collect(),
            Values::Uint(values) => values.iter().map(|&value| value as f64).collect(),
            Values::F32(values) => values.iter().map(|&value| f64::from(value)).collect(),
            Values::F64(values) => values.clone(),
        }
    }

    /// Values of type `from` as values of type `to`, in its arithmetic.
    pub fn convert(self, from: DType, to: DType) -> Values {
        let wider = match to.class() {
            Class::Bool => true,
            Class::Signed | Class::Unsigned => from.bits() <= to.bits(),
            Class::Float => from == to || (to == DType::F32 && from != DType::F64),
        };
        if from.class() == to.class() && wider {
            return self;
        }
        narrow::decode(to, &narrow::encode(to, &self))
    }

    /// Rounds or wraps each value to `dtype` and back, so that it is a value of that type. The arithmetic must be
    /// that of `dtype`.
    pub fn rounded(self, dtype: DType) -> Values {
        match dtype {
            DType::Bool | DType::I64 | DType::U64 | DType::F32 | DType::F64 => self,
            DType::I4
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::U4
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::F16
            | DType::BF16
            | DType::F8E4M3
            | DType::F8E5M2
            | DType::F4E2M1 => narrow::decode(dtype, &narrow::encode(dtype, &self)),
        }
    }
}

/// A shape as it is written in messages: `[2, 3]`.
pub fn shape_text(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("[{}]", sizes.join(", "))
}

/// The shape as a list that owns its sizes.
pub fn shape_of(sizes: &[usize]) -> Shape {
    Shape::from_slice(sizes)
}
