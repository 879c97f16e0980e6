//! The product of the systolic array in f32, in a fixed order: each element is summed along `k` from zero.

/// `out[s, m] = Σ_k a[k, s] · b[k, m]` for row-major operands. The scratch vectors only save allocations.
pub(super) fn product(
    (k, s, m): (usize, usize, usize),
    a: &[f32],
    b: &[f32],
    packed: &mut (Vec<f32>, Vec<f32>),
    out: &mut Vec<f32>,
) {
    const ROWS: usize = 4;
    const WIDTH: usize = 8;
    out.clear();
    out.resize(s * m, 0.0);
    let (columns, panels) = packed;
    pack::<ROWS>(a, k, s, columns);
    pack::<WIDTH>(b, k, m, panels);
    for (panel, right) in panels.chunks_exact(k * WIDTH).enumerate() {
        let width = WIDTH.min(m - panel * WIDTH);
        for (block, left) in columns.chunks_exact(k * ROWS).enumerate() {
            let (left, _) = left.as_chunks::<ROWS>();
            let (right, _) = right.as_chunks::<WIDTH>();
            let mut sums = [[0.0f32; WIDTH]; ROWS];
            for (x, y) in left.iter().zip(right) {
                for (sums, &x) in sums.iter_mut().zip(x) {
                    for (sum, &y) in sums.iter_mut().zip(y) {
                        *sum += x * y;
                    }
                }
            }
            for (row, sum) in sums.iter().enumerate().take(ROWS.min(s - block * ROWS)) {
                let start = (block * ROWS + row) * m + panel * WIDTH;
                out[start..start + width].copy_from_slice(&sum[..width]);
            }
        }
    }
}

/// Puts `WIDTH` neighbouring columns of a row-major `k × n` matrix together, for all `k`; missing ones are zero.
fn pack<const WIDTH: usize>(matrix: &[f32], k: usize, n: usize, into: &mut Vec<f32>) {
    into.clear();
    into.resize(n.div_ceil(WIDTH) * k * WIDTH, 0.0);
    for (row, values) in matrix.chunks_exact(n).enumerate() {
        for (block, part) in values.chunks(WIDTH).enumerate() {
            let start = (block * k + row) * WIDTH;
            into[start..start + part.len()].copy_from_slice(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_sums_in_order() {
        for (k, s, m) in [(1, 1, 1), (3, 5, 9), (128, 128, 512), (17, 4, 8)] {
            let a: Vec<f32> = (0..k * s).map(|i| ((i * 7) % 13) as f32 * 0.3 - 1.0).collect();
            let b: Vec<f32> = (0..k * m).map(|i| ((i * 5) % 11) as f32 * 0.7 - 2.0).collect();
            let mut out = Vec::new();
            product((k, s, m), &a, &b, &mut Default::default(), &mut out);
            for row in 0..s {
                for column in 0..m {
                    let terms = (0..k).map(|k| a[k * s + row] * b[k * m + column]);
                    let sum = terms.fold(0.0f32, |sum, term| sum + term);
                    assert_eq!(out[row * m + column], sum, "{k} {s} {m} at {row}, {column}");
                }
            }
        }
    }
}
