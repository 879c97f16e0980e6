//! Random shapes, types and attributes for the ops' samplers. Everything is small enough to be evaluated at once.

use crate::types::{DType, Shape};
use arbitrary::{Result, Unstructured};

/// A shape of between `least` and `most` dimensions of 1 to 5 elements.
pub(super) fn shape(u: &mut Unstructured<'_>, least: usize, most: usize) -> Result<Shape> {
    let rank = u.int_in_range(least..=most)?;
    (0..rank).map(|_| u.int_in_range(1..=5)).collect()
}

/// Any element type; f32 more often than the others.
pub(super) fn dtype(u: &mut Unstructured<'_>) -> Result<DType> {
    if u.ratio(1, 2)? { Ok(DType::F32) } else { u.choose(&DType::ALL).copied() }
}

/// An element type whose sums are kept in the second.
pub(super) fn accumulated(u: &mut Unstructured<'_>) -> Result<(DType, DType)> {
    u.choose(&[
        (DType::F32, DType::F32),
        (DType::F32, DType::F32),
        (DType::F32, DType::F64),
        (DType::F64, DType::F64),
        (DType::F16, DType::F32),
        (DType::BF16, DType::F32),
        (DType::F8E4M3, DType::F32),
        (DType::F8E5M2, DType::F32),
        (DType::F4E2M1, DType::F32),
        (DType::I4, DType::I32),
        (DType::I8, DType::I32),
        (DType::I32, DType::I32),
        (DType::I64, DType::I64),
        (DType::U8, DType::U32),
        (DType::U64, DType::U64),
    ])
    .copied()
}

/// One of the axes of a shape that has some.
pub(super) fn axis(u: &mut Unstructured<'_>, rank: usize) -> Result<usize> {
    u.int_in_range(0..=rank - 1)
}

/// Some of the axes, ascending.
pub(super) fn axes(u: &mut Unstructured<'_>, rank: usize) -> Result<Vec<usize>> {
    let chosen: Vec<bool> = (0..rank).map(|_| u.arbitrary()).collect::<Result<_>>()?;
    Ok((0..rank).filter(|&axis| chosen[axis]).collect())
}

/// All axes, in any order.
pub(super) fn permutation(u: &mut Unstructured<'_>, rank: usize) -> Result<Vec<usize>> {
    let mut perm: Vec<usize> = (0..rank).collect();
    for last in (1..rank).rev() {
        perm.swap(last, u.int_in_range(0..=last)?);
    }
    Ok(perm)
}

/// One number for each dimension, from a range.
pub(super) fn numbers(
    u: &mut Unstructured<'_>,
    rank: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<Vec<usize>> {
    (0..rank).map(|_| u.int_in_range(range.clone())).collect()
}
