//! Sums of products, for `contract` and `convolve`. Every element of the result is summed in the order of `k`, one
//! product after another, so that blocking does not change a value.

use crate::tensor::{Tensor, Values};
use crate::types::{Class, DType};

/// How many columns of the right operand lie together.
pub(super) const PANEL: usize = 8;

/// A type in which products and sums are computed.
pub(super) trait Number: Copy {
    /// The sum of nothing.
    const ZERO: Self;
    /// `self + a · b`, rounded after the product and after the sum.
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Number for f32 {
    const ZERO: f32 = 0.0;
    #[inline]
    fn add_product(self, a: f32, b: f32) -> f32 {
        self + a * b
    }
}

impl Number for f64 {
    const ZERO: f64 = 0.0;
    #[inline]
    fn add_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Number for i64 {
    const ZERO: i64 = 0;
    #[inline]
    fn add_product(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// Both operands' elements in the arithmetic of their sums. Integers wrap, so that 64 bits stand for every width.
pub(super) enum Pair {
    F32(Vec<f32>, Vec<f32>),
    F64(Vec<f64>, Vec<f64>),
    Int(Vec<i64>, Vec<i64>),
}

impl Pair {
    /// Decodes both operands and converts them to the accumulation type.
    pub(super) fn new(a: &Tensor, b: &Tensor, accumulate: DType) -> Pair {
        let widened = |x: &Tensor| x.values().convert(x.dtype(), accumulate);
        match (widened(a), widened(b)) {
            (Values::F32(a), Values::F32(b)) => Pair::F32(a, b),
            (Values::F64(a), Values::F64(b)) => Pair::F64(a, b),
            (a, b) => Pair::Int(a.into_i64(), b.into_i64()),
        }
    }
}

/// Sums in the accumulation type, rounded once to the result's.
pub(super) fn rounded(sums: Values, accumulate: DType, dtype: DType, shape: &[usize]) -> Tensor {
    let sums = match (sums, accumulate.class()) {
        (Values::Int(sums), Class::Unsigned) => {
            Values::Uint(sums.into_iter().map(|sum| sum as u64).collect())
        }
        (sums, Class::Bool | Class::Signed | Class::Unsigned | Class::Float) => sums,
    };
    Tensor::from_values(dtype, shape, &sums.rounded(accumulate))
}

/// Multiplies the rows of `a` (`[m, k]`) with a panel (`[k, PANEL]`) into `columns` columns of `result`, whose rows are
/// `row_step` apart.
pub(super) fn multiply_panel<T: Number>(
    a: &[T],
    k: usize,
    panel: &[T],
    result: &mut [T],
    row_step: usize,
    columns: usize,
) {
    if k == 0 {
        return;
    }
    let panel = &panel.as_chunks().0[..k];
    let whole = a.len() / k / 4 * 4;
    let mut put = |row: usize, sums: &[T; PANEL]| {
        let begin = row * row_step;
        result[begin..begin + columns].copy_from_slice(&sums[..columns]);
    };
    for (tile, a) in a.chunks_exact(4 * k).enumerate() {
        let sums = multiply_rows::<T, 4>(a, panel);
        sums.iter().enumerate().for_each(|(row, sums)| put(tile * 4 + row, sums));
    }
    for (row, a) in a[whole * k..].chunks_exact(k).enumerate() {
        let [sums] = multiply_rows::<T, 1>(a, panel);
        put(whole + row, &sums);
    }
}

/// The products of a few rows with a panel; so few that all sums stay in registers.
fn multiply_rows<T: Number, const ROWS: usize>(
    a: &[T],
    panel: &[[T; PANEL]],
) -> [[T; PANEL]; ROWS] {
    let a: [&[T]; ROWS] = std::array::from_fn(|row| &a[row * panel.len()..(row + 1) * panel.len()]);
    let mut sums = [[T::ZERO; PANEL]; ROWS];
    for (k, b) in panel.iter().enumerate() {
        for row in 0..ROWS {
            for column in 0..PANEL {
                sums[row][column] = sums[row][column].add_product(a[row][k], b[column]);
            }
        }
    }
    sums
}

/// The products of `batch` pairs of matrices `[m, k]` and `[k, n]`; nothing where `cancelled` says so.
pub(super) fn multiply<T: Number>(
    a: &[T],
    b: &[T],
    [batch, m, k, n]: [usize; 4],
    cancelled: &dyn Fn() -> bool,
) -> Option<Vec<T>> {
    let mut result = vec![T::ZERO; batch * m * n];
    let mut panel = vec![T::ZERO; k * PANEL];
    if result.is_empty() || k == 0 {
        return Some(result);
    }
    let matrices = a.chunks_exact(m * k).zip(b.chunks_exact(k * n));
    for ((a, b), result) in matrices.zip(result.chunks_exact_mut(m * n)) {
        // So few rows do not repay the copying of panels.
        if m < 4 {
            for (a, result) in a.chunks_exact(k).zip(result.chunks_exact_mut(n)) {
                for (&a, b) in a.iter().zip(b.chunks_exact(n)) {
                    for (sum, &b) in result.iter_mut().zip(b) {
                        *sum = sum.add_product(a, b);
                    }
                }
            }
            continue;
        }
        for column in (0..n).step_by(PANEL) {
            if cancelled() {
                return None;
            }
            let columns = PANEL.min(n - column);
            for (to, from) in panel.as_chunks_mut::<PANEL>().0.iter_mut().zip(b.chunks_exact(n)) {
                to[..columns].copy_from_slice(&from[column..column + columns]);
            }
            multiply_panel(a, k, &panel, &mut result[column..], n, columns);
        }
    }
    Some(result)
}
