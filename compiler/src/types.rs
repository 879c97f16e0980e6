//! Element types and tensor types. Shapes are static here: symbolic sizes are bound before a graph exists.

use smallvec::SmallVec;
use std::fmt;

/// The type of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum DType {
    Bool,
    I4,
    I8,
    I16,
    I32,
    I64,
    U4,
    U8,
    U16,
    U32,
    U64,
    F64,
    F32,
    F16,
    BF16,
    F8E4M3,
    F8E5M2,
    F4E2M1,
}

/// What kind of number an element is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Class {
    Bool,
    Signed,
    Unsigned,
    Float,
}

impl DType {
    /// Every element type.
    pub const ALL: [DType; 18] = [
        DType::Bool,
        DType::I4,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U4,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::F64,
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F8E4M3,
        DType::F8E5M2,
        DType::F4E2M1,
    ];

    /// How the type is written.
    pub fn name(self) -> &'static str {
        match self {
            DType::Bool => "bool",
            DType::I4 => "i4",
            DType::I8 => "i8",
            DType::I16 => "i16",
            DType::I32 => "i32",
            DType::I64 => "i64",
            DType::U4 => "u4",
            DType::U8 => "u8",
            DType::U16 => "u16",
            DType::U32 => "u32",
            DType::U64 => "u64",
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F8E4M3 => "f8e4m3",
            DType::F8E5M2 => "f8e5m2",
            DType::F4E2M1 => "f4e2m1",
        }
    }

    /// The type of that name.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The significant bits of one element.
    pub fn bits(self) -> usize {
        match self {
            DType::Bool => 1,
            DType::I4 | DType::U4 | DType::F4E2M1 => 4,
            DType::I8 | DType::U8 | DType::F8E4M3 | DType::F8E5M2 => 8,
            DType::I16 | DType::U16 | DType::F16 | DType::BF16 => 16,
            DType::I32 | DType::U32 | DType::F32 => 32,
            DType::I64 | DType::U64 | DType::F64 => 64,
        }
    }

    /// The bytes that one element takes in memory here: 4-bit types and bool take a whole byte.
    pub fn bytes(self) -> usize {
        self.bits().div_ceil(8)
    }

    /// What kind of number it is.
    pub fn class(self) -> Class {
        match self {
            DType::Bool => Class::Bool,
            DType::I4 | DType::I8 | DType::I16 | DType::I32 | DType::I64 => Class::Signed,
            DType::U4 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => Class::Unsigned,
            DType::F64
            | DType::F32
            | DType::F16
            | DType::BF16
            | DType::F8E4M3
            | DType::F8E5M2
            | DType::F4E2M1 => Class::Float,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        self.class() == Class::Float
    }

    /// Whether it is a signed or unsigned integer.
    pub fn is_integer(self) -> bool {
        matches!(self.class(), Class::Signed | Class::Unsigned)
    }

    /// The type in which sums of such elements are kept: f64 for f64, f32 for other floats, i64 or u64 for integers.
    pub fn accumulator(self) -> DType {
        match self.class() {
            Class::Float if self == DType::F64 => DType::F64,
            Class::Float => DType::F32,
            Class::Unsigned => DType::U64,
            Class::Bool | Class::Signed => DType::I64,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The sizes of a tensor's dimensions, outermost first.
pub type Shape = SmallVec<[usize; 6]>;

/// The largest number of bytes a tensor may have; larger types are rejected before anything is allocated.
pub const MAX_TENSOR_BYTES: usize = 1 << 44;

/// An element type and a static shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// The type of each element.
    pub dtype: DType,
    /// The size of each dimension.
    pub shape: Shape,
}

impl TensorType {
    /// The type with that element type and shape.
    pub fn new(dtype: DType, shape: &[usize]) -> TensorType {
        TensorType { dtype, shape: Shape::from_slice(shape) }
    }

    /// How many dimensions there are.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// How many elements there are; `None` where their bytes exceed [`MAX_TENSOR_BYTES`].
    pub fn checked_count(&self) -> Option<usize> {
        let mut nonzero = self.dtype.bytes();
        for &size in self.shape.iter().filter(|&&size| size > 0) {
            nonzero = nonzero.checked_mul(size).filter(|&bytes| bytes <= MAX_TENSOR_BYTES)?;
        }
        Some(self.shape.iter().product())
    }

    /// How many elements there are, of a type that has been checked.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many bytes the elements take, of a type that has been checked.
    pub fn bytes(&self) -> usize {
        self.count() * self.dtype.bytes()
    }
}

/// The distance in elements between neighbours along each dimension of a row-major tensor.
pub fn strides(shape: &[usize]) -> SmallVec<[usize; 6]> {
    let mut strides: SmallVec<[usize; 6]> = SmallVec::from_elem(1, shape.len());
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype)?;
        for (axis, size) in self.shape.iter().enumerate() {
            let comma = if axis > 0 { ", " } else { "" };
            write!(f, "{comma}{size}")?;
        }
        f.write_str("]")
    }
}
