//! Conversions of decoded elements between element types.

use crate::narrow;
use crate::tensor::Values;
use crate::types::{Class, DType};

/// Values of one type as values of another: floats round to nearest even, float to integer truncates, integers wrap, to
/// bool is "not zero".
pub(super) fn convert(values: Values, from: DType, to: DType) -> Values {
    if holds(from, to) { values } else { narrow::decode(to, &narrow::encode(to, &values)) }
}

/// Whether every value of `from` is one of `to`, decoded alike.
fn holds(from: DType, to: DType) -> bool {
    if from == to {
        return true;
    }
    match (from.class(), to.class()) {
        (Class::Float, Class::Float) => to == DType::F32 && from != DType::F64,
        (Class::Signed, Class::Signed) | (Class::Unsigned, Class::Unsigned) => {
            from.bits() <= to.bits()
        }
        (Class::Bool | Class::Signed | Class::Unsigned | Class::Float, _) => false,
    }
}

/// Whether sums and products of such elements round in each step, beyond the arithmetic they are decoded to.
pub(super) fn rounds(dtype: DType) -> bool {
    dtype.is_float() && !matches!(dtype, DType::F32 | DType::F64)
}

/// Adds values at the end of others of the same arithmetic.
pub(super) fn extend(all: &mut Values, more: Values) {
    match (all, more) {
        (Values::Bool(all), Values::Bool(more)) => all.extend(more),
        (Values::Int(all), Values::Int(more)) => all.extend(more),
        (Values::Uint(all), Values::Uint(more)) => all.extend(more),
        (Values::F32(all), Values::F32(more)) => all.extend(more),
        (Values::F64(all), Values::F64(more)) => all.extend(more),
        (all, _) => unreachable!("parts of a tile are decoded alike, not as {all:?}"),
    }
}

/// No values yet, in the arithmetic of a type.
pub(super) fn none(dtype: DType, capacity: usize) -> Values {
    match dtype.class() {
        Class::Bool => Values::Bool(Vec::with_capacity(capacity)),
        Class::Signed => Values::Int(Vec::with_capacity(capacity)),
        Class::Unsigned => Values::Uint(Vec::with_capacity(capacity)),
        Class::Float if dtype == DType::F64 => Values::F64(Vec::with_capacity(capacity)),
        Class::Float => Values::F32(Vec::with_capacity(capacity)),
    }
}
