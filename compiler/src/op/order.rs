//! How elements compare, for sorting and for the extreme element: by value, and NaN is larger than every number.

use crate::tensor::Values;
use std::cmp::Ordering;

/// The order of two elements of `values`.
pub(crate) fn compare(values: &Values, left: usize, right: usize) -> Ordering {
    match values {
        Values::Bool(values) => values[left].cmp(&values[right]),
        Values::Int(values) => values[left].cmp(&values[right]),
        Values::Uint(values) => values[left].cmp(&values[right]),
        Values::F32(values) => compare_floats(f64::from(values[left]), f64::from(values[right])),
        Values::F64(values) => compare_floats(values[left], values[right]),
    }
}

fn compare_floats(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or_else(|| left.is_nan().cmp(&right.is_nan()))
}

/// Whether an element is not a number.
pub(crate) fn is_nan(values: &Values, position: usize) -> bool {
    match values {
        Values::F32(values) => values[position].is_nan(),
        Values::F64(values) => values[position].is_nan(),
        Values::Bool(_) | Values::Int(_) | Values::Uint(_) => false,
    }
}

/// The positions along an axis of `size` elements, `step` apart from `first` on, in sorted order. Equal elements keep
/// theirs.
pub(crate) fn sorted(
    values: &Values,
    [first, size, step]: [usize; 3],
    descending: bool,
) -> Vec<usize> {
    let mut positions: Vec<usize> = (0..size).collect();
    let at = |position: usize| first + position * step;
    positions.sort_by(|&left, &right| match descending {
        false => compare(values, at(left), at(right)),
        true => compare(values, at(right), at(left)),
    });
    positions
}
