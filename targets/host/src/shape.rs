//! Whether code works on one element or on a vector of four, and which register types that means.

use cranelift_codegen::ir::{Type, types};
use systole_compiler::types::{Class, DType};

/// One element or four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One element.
    Scalar,
    /// Four neighbours.
    Vector,
}

impl Shape {
    /// A 32-bit type, or four of it.
    pub(crate) fn of(self, ty: Type) -> Type {
        match self {
            Shape::Scalar => ty,
            Shape::Vector => ty.by(4).expect("four 32-bit lanes are a vector"),
        }
    }

    /// The register that holds elements of a type; 64-bit types have no vector.
    pub(crate) fn register(self, dtype: DType) -> Option<Type> {
        let scalar = match dtype.class() {
            Class::Bool if self == Shape::Vector => types::I32,
            Class::Bool => types::I8,
            Class::Signed | Class::Unsigned if dtype.bits() == 64 => types::I64,
            Class::Signed | Class::Unsigned => types::I32,
            Class::Float if dtype == DType::F64 => types::F64,
            Class::Float => types::F32,
        };
        match self {
            Shape::Scalar => Some(scalar),
            Shape::Vector => (dtype.bits() < 64).then(|| self.of(scalar)),
        }
    }
}
