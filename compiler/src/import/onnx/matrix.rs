//! Linear algebra.

use super::context::{Converted, NodeContext, invalid, unsupported};
use super::table::{Row, row};
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::types::DType;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[row("Det", 11, determinant)];

/// Larger matrices would make very long programs.
const MOST_ROWS: usize = 64;

/// Elimination with the largest element of each column as its pivot; the determinant is the product of the pivots, with a
/// change of sign for each exchange of rows.
fn determinant(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x).to_vec();
    let Some((outer, &[rows, columns])) = shape.split_last_chunk::<2>() else {
        return invalid("a determinant is of matrices");
    };
    if rows != columns {
        return invalid(format!(
            "a matrix of {rows} rows and {columns} columns has no determinant"
        ));
    }
    if rows > MOST_ROWS {
        return unsupported(format!("determinants of more than {MOST_ROWS} rows"));
    }
    let batch: usize = outer.iter().product();
    let outer = outer.to_vec();
    let result = context.widened(x, |context, x| {
        let mut matrix = context.reshape(x, &[batch, rows, rows])?;
        let one = context.scalar(context.dtype(matrix), 1.0);
        let mut product = context.broadcast_to(one, &[batch])?;
        for step in 0..rows {
            let left = rows - step;
            // The rest of the matrix: [batch, left, left].
            let column = context.slice_axis(matrix, 2, 0, 1, 1)?;
            let column = context.reshape(column, &[batch, left])?;
            let magnitude = context.map(ScalarFn::Abs, &[column])?;
            let largest = op::ArgReduce { combine: Combine::Max, axis: 1, last: false };
            let place = context.builder.add(largest, &[magnitude])?;
            let place = context.unsqueeze(place, &[1])?;
            let number = context.iota(DType::I64, &[batch, left], 1)?;
            let is_pivot = context.map(ScalarFn::Eq, &[number, place])?;
            let mask = context.unsqueeze(is_pivot, &[2])?;
            let zero = context.scalar_like(matrix, 0.0)?;
            let only = context.map(ScalarFn::Select, &[mask, matrix, zero])?;
            let row = context.reduce(Combine::Sum, only, &[1])?;
            let pivot = context.slice_axis(row, 1, 0, 1, 1)?;
            let zeros = context.scalar_like(place, 0.0)?;
            let stays = context.map(ScalarFn::Eq, &[place, zeros])?;
            let minus = context.map(ScalarFn::Neg, &[pivot])?;
            let signed = context.map(ScalarFn::Select, &[stays, pivot, minus])?;
            let signed = context.reshape(signed, &[batch])?;
            product = context.map(ScalarFn::Mul, &[product, signed])?;
            if left == 1 {
                break;
            }
            // The first row takes the pivot's place, and the others lose their first element.
            let top = context.slice_axis(matrix, 1, 0, 1, 1)?;
            let moved = context.map(ScalarFn::Select, &[mask, top, matrix])?;
            let rest = context.slice_axis(moved, 1, 1, left, 1)?;
            let head = context.slice_axis(rest, 2, 0, 1, 1)?;
            let tail = context.slice_axis(rest, 2, 1, left, 1)?;
            let pivot = context.unsqueeze(pivot, &[2])?;
            // Without a pivot the determinant is 0 already.
            let none = context.scalar_like(pivot, 0.0)?;
            let is_zero = context.map(ScalarFn::Eq, &[pivot, none])?;
            let ones = context.scalar_like(pivot, 1.0)?;
            let divisor = context.map(ScalarFn::Select, &[is_zero, ones, pivot])?;
            let factor = context.map(ScalarFn::Div, &[head, divisor])?;
            let row = context.slice_axis(row, 1, 1, left, 1)?;
            let row = context.unsqueeze(row, &[1])?;
            let taken = context.map(ScalarFn::Mul, &[factor, row])?;
            matrix = context.map(ScalarFn::Sub, &[tail, taken])?;
        }
        context.reshape(product, &outer)
    })?;
    Ok(vec![result])
}
