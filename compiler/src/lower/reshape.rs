//! A reshape as a view: the index of its operand for an index of its result, where that is affine.

use super::group::{Failure, Group, Index, Result, cannot};
use crate::kernel::{Affine, Term};

/// The operand's index. Where a result dimension covers several of the operand's, its index is taken apart; where an
/// axis crosses the parts, the axis must be split.
pub(super) fn operand_index(
    group: &Group<'_>,
    from: &[usize],
    to: &[usize],
    index: &[Affine],
) -> Result<Index> {
    let mut at = vec![Affine::constant(0); from.len()];
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        // The smallest next runs of dimensions with equal products.
        let (first_i, first_j) = (i, j);
        let (mut left, mut right) = (1, 1);
        while i < from.len() || j < to.len() {
            if left == right && (i > first_i || j > first_j) && left != 1 {
                break;
            }
            if (left <= right && i < from.len()) || j >= to.len() {
                left *= from[i];
                i += 1;
            } else {
                right *= to[j];
                j += 1;
            }
            if left == right && left != 1 {
                break;
            }
        }
        if left == 0 || right == 0 {
            return cannot("an empty tensor is reshaped");
        }
        let mut position = Affine::constant(0);
        for dim in first_j..j {
            position = position.times(to[dim] as i64).plus(&index[dim], 1);
        }
        let mut rest = position;
        let mut dims: Vec<usize> = (first_i..i).filter(|&dim| from[dim] != 1).collect();
        let Some(first) = (!dims.is_empty()).then(|| dims.remove(0)) else { continue };
        for &dim in dims.iter().rev() {
            let (high, low) = divide(group, &rest, from[dim])?;
            at[dim] = low;
            rest = high;
        }
        at[first] = rest;
    }
    Ok(at)
}

/// Quotient and remainder of a position by `size`, where both are affine.
fn divide(group: &Group<'_>, position: &Affine, size: usize) -> Result<(Affine, Affine)> {
    let size = size as i64;
    let mut high = Affine::constant(position.constant.div_euclid(size));
    let mut low = Affine::constant(position.constant.rem_euclid(size));
    for &(term, coefficient) in position.terms() {
        if coefficient % size == 0 {
            high = high.plus(&Affine::term(term), coefficient / size);
            continue;
        }
        let Term::Axis(axis) = term else { return cannot("a reshape divides a run-time position") };
        let extent = group.extent(axis) as i64;
        if coefficient > 0 && coefficient * (extent - 1) < size {
            low = low.plus(&Affine::term(term), coefficient);
            continue;
        }
        // The axis runs through several multiples of `size`: its inner part is what stays below one.
        let crosses =
            coefficient > 0 && size % coefficient == 0 && extent % (size / coefficient) == 0;
        if !crosses {
            return cannot("a reshape regroups dimensions whose sizes do not divide");
        }
        let inner = size / coefficient;
        return Err(Failure::Split(group.kernel.axis_name(axis).to_owned(), inner as usize));
    }
    let (first, last) = group.range(&low);
    if first < 0 || last >= size {
        return cannot("a reshape takes a sum of axes apart");
    }
    Ok((high, low))
}
