//! `init + Σ a·b`. Both operands are gathered block by block into the order that the inner loops want, so a window is
//! never materialized whole. Each element's products are added one after another in the order of the summed axes.

use super::super::{Axis, Dims};
use super::Context;
use super::convert::{convert, none, rounds};
use super::source::Source;
use crate::evaluate::EvaluateError;
use crate::tensor::Values;
use crate::types::DType;

/// Rows of `a` that are gathered at once.
const ROWS: usize = 64;
/// Columns of `b` that are gathered at once.
const COLUMNS: usize = 256;
/// Summed positions that are worked on at once.
const DEPTH: usize = 256;

/// An arithmetic in which products are summed.
trait Product: Copy {
    fn add_product(self, a: Self, b: Self) -> Self;
}

impl Product for f32 {
    fn add_product(self, a: f32, b: f32) -> f32 {
        self + a * b
    }
}
impl Product for f64 {
    fn add_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}
impl Product for i64 {
    fn add_product(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}
impl Product for u64 {
    fn add_product(self, a: u64, b: u64) -> u64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// An operand with its element type.
#[derive(Clone, Copy)]
pub(super) struct Typed<'a> {
    pub(super) source: &'a Source,
    pub(super) dtype: DType,
}

/// The elements of the result, in the order of `dims`.
pub(super) fn contract(
    context: &Context<'_>,
    init: Typed<'_>,
    a: Typed<'_>,
    b: Typed<'_>,
    over: &[Axis],
    accumulate: DType,
    dims: &Dims,
) -> Result<Values, EvaluateError> {
    let has =
        |operand: &Typed<'_>, axis| operand.source.dims.iter().any(|&(other, _)| other == axis);
    let extent = |axis: Axis| {
        let mut all = a.source.dims.iter().chain(&b.source.dims);
        all.find(|(other, _)| *other == axis).map_or(1, |&(_, extent)| extent)
    };
    let depth: Dims = over.iter().map(|&axis| (axis, extent(axis))).collect();
    let only = |in_a: bool, in_b: bool| -> Dims {
        let wanted = |(axis, _): &&(Axis, usize)| has(&a, *axis) == in_a && has(&b, *axis) == in_b;
        dims.iter().filter(wanted).copied().collect()
    };
    let (batch, rows, columns) = (only(true, true), only(true, false), only(false, true));
    let count = |dims: &Dims| dims.iter().map(|&(_, extent)| extent).product::<usize>();
    // The innermost loop runs over columns: the operand with more of them comes second, unless there are enough.
    let (a, b, rows, columns) = if count(&columns) < 8 && count(&rows) > count(&columns) {
        (b, a, columns, rows)
    } else {
        (a, b, rows, columns)
    };
    let inner: Dims = batch.iter().chain(&rows).chain(&columns).copied().collect();
    let start = convert(init.source.all(&inner), init.dtype, accumulate);
    let nest = Nest { a, b, accumulate, batch, rows, columns, depth };
    let sum = if rounds(accumulate) {
        nest.rounded(context, start)?
    } else {
        match start {
            Values::F32(mut sum) => {
                nest.sum(context, &mut sum, as_f32)?;
                Values::F32(sum)
            }
            Values::F64(mut sum) => {
                nest.sum(context, &mut sum, as_f64)?;
                Values::F64(sum)
            }
            Values::Int(mut sum) => {
                nest.sum(context, &mut sum, as_int)?;
                Values::Int(sum).rounded(accumulate)
            }
            Values::Uint(mut sum) => {
                nest.sum(context, &mut sum, as_uint)?;
                Values::Uint(sum).rounded(accumulate)
            }
            Values::Bool(_) => unreachable!("a verified contract accumulates numbers"),
        }
    };
    if inner == *dims {
        return Ok(sum);
    }
    Ok(Source::dense(&inner, sum, &context.meter).all(dims))
}

fn as_f32(values: &Values) -> &[f32] {
    let Values::F32(values) = values else { unreachable!("converted to f32") };
    values
}
fn as_f64(values: &Values) -> &[f64] {
    let Values::F64(values) = values else { unreachable!("converted to f64") };
    values
}
fn as_int(values: &Values) -> &[i64] {
    let Values::Int(values) = values else { unreachable!("converted to integers") };
    values
}
fn as_uint(values: &Values) -> &[u64] {
    let Values::Uint(values) = values else { unreachable!("converted to integers") };
    values
}

/// The loops of a contraction. The result lies as `[batch, rows, columns]`.
struct Nest<'a> {
    a: Typed<'a>,
    b: Typed<'a>,
    accumulate: DType,
    batch: Dims,
    rows: Dims,
    columns: Dims,
    depth: Dims,
}

/// How many positions each group of axes has.
struct Counts {
    batch: usize,
    rows: usize,
    columns: usize,
    depth: usize,
}

impl Nest<'_> {
    fn counts(&self) -> Counts {
        let count = |dims: &Dims| dims.iter().map(|&(_, extent)| extent).product();
        Counts {
            batch: count(&self.batch),
            rows: count(&self.rows),
            columns: count(&self.columns),
            depth: count(&self.depth),
        }
    }

    fn sum<T: Product>(
        &self,
        context: &Context<'_>,
        sum: &mut [T],
        open: fn(&Values) -> &[T],
    ) -> Result<(), EvaluateError> {
        let counts = self.counts();
        if sum.is_empty() || counts.depth == 0 {
            return Ok(());
        }
        if counts.columns < 8 && counts.batch > counts.columns {
            return self.sum_along_batch(context, sum, open);
        }
        let join = |first: &Dims, second: &Dims, third: &Dims| -> Dims {
            first.iter().chain(second).chain(third).copied().collect()
        };
        let a_walk = self.a.source.walk(&join(&self.batch, &self.rows, &self.depth));
        // The columns come before the depth here, so that a block of columns is one range; it is turned afterwards.
        let b_walk = self.b.source.walk(&join(&self.batch, &self.depth, &self.columns));
        for batch in 0..counts.batch {
            for column in (0..counts.columns).step_by(COLUMNS) {
                let width = COLUMNS.min(counts.columns - column);
                let mut panel = none(self.accumulate, counts.depth * width);
                if width == counts.columns {
                    let start = batch * counts.depth * width;
                    panel = self.gather(self.b, &b_walk, start..start + counts.depth * width);
                } else {
                    for k in 0..counts.depth {
                        let start = (batch * counts.depth + k) * counts.columns + column;
                        let line = self.gather(self.b, &b_walk, start..start + width);
                        super::convert::extend(&mut panel, line);
                    }
                }
                let panel = open(&panel);
                for row in (0..counts.rows).step_by(ROWS) {
                    context.check_cancelled()?;
                    let height = ROWS.min(counts.rows - row);
                    let start = (batch * counts.rows + row) * counts.depth;
                    let block = self.gather(self.a, &a_walk, start..start + height * counts.depth);
                    let first = (batch * counts.rows + row) * counts.columns + column;
                    add_block(
                        &mut sum[first..],
                        counts.columns,
                        open(&block),
                        counts.depth,
                        panel,
                        width,
                        height,
                    );
                }
            }
        }
        Ok(())
    }

    /// Where there are few columns and many batches, the innermost loop runs over batches.
    fn sum_along_batch<T: Product>(
        &self,
        context: &Context<'_>,
        sum: &mut [T],
        open: fn(&Values) -> &[T],
    ) -> Result<(), EvaluateError> {
        let counts = self.counts();
        let join = |first: &Dims| -> Dims {
            first.iter().chain(&self.depth).chain(&self.batch).copied().collect()
        };
        let a_walk = self.a.source.walk(&join(&self.rows));
        let b_walk = self.b.source.walk(&join(&self.columns));
        let mut line = vec![sum[0]; counts.batch];
        for row in 0..counts.rows {
            for column in 0..counts.columns {
                context.check_cancelled()?;
                let place = |batch: usize| (batch * counts.rows + row) * counts.columns + column;
                line.iter_mut().enumerate().for_each(|(batch, item)| *item = sum[place(batch)]);
                for k in 0..counts.depth {
                    let range = |outer: usize| {
                        let start = (outer * counts.depth + k) * counts.batch;
                        start..start + counts.batch
                    };
                    let a = self.gather(self.a, &a_walk, range(row));
                    let b = self.gather(self.b, &b_walk, range(column));
                    for (item, (&a, &b)) in line.iter_mut().zip(open(&a).iter().zip(open(&b))) {
                        *item = item.add_product(a, b);
                    }
                }
                line.iter().enumerate().for_each(|(batch, &item)| sum[place(batch)] = item);
            }
        }
        Ok(())
    }

    fn gather(
        &self,
        operand: Typed<'_>,
        walk: &super::source::Walk,
        range: std::ops::Range<usize>,
    ) -> Values {
        convert(operand.source.gather(walk, range), operand.dtype, self.accumulate)
    }

    /// The plain form for accumulation in a narrow float: every product and every sum rounds.
    fn rounded(&self, context: &Context<'_>, start: Values) -> Result<Values, EvaluateError> {
        use crate::scalar::ScalarFn;
        let counts = self.counts();
        let join = |middle: &Dims| -> Dims {
            self.depth.iter().chain(&self.batch).chain(middle).copied().collect()
        };
        let all: Dims = self.rows.iter().chain(&self.columns).copied().collect();
        let (a_walk, b_walk) = (self.a.source.walk(&join(&all)), self.b.source.walk(&join(&all)));
        let count = start.len();
        let mut sum = start;
        for k in 0..counts.depth {
            context.check_cancelled()?;
            let range = k * count..(k + 1) * count;
            let a = self.gather(self.a, &a_walk, range.clone());
            let b = self.gather(self.b, &b_walk, range);
            let product = ScalarFn::Mul.evaluate(&[&a, &b]).rounded(self.accumulate);
            sum = ScalarFn::Add.evaluate(&[&sum, &product]).rounded(self.accumulate);
        }
        Ok(sum)
    }
}

/// Adds `a · b` to rows of `sum`: `a` is `[height, depth]`, `b` is `[depth, width]`, rows of `sum` lie `pitch` apart.
fn add_block<T: Product>(
    sum: &mut [T],
    pitch: usize,
    a: &[T],
    depth: usize,
    b: &[T],
    width: usize,
    height: usize,
) {
    for first in (0..depth).step_by(DEPTH) {
        let last = depth.min(first + DEPTH);
        let b = &b[first * width..last * width];
        let mut row = 0;
        while row + 2 <= height {
            let (upper, lower) = sum[row * pitch..].split_at_mut(pitch);
            let a = [&a[row * depth..][first..last], &a[(row + 1) * depth..][first..last]];
            add_two_rows(&mut upper[..width], &mut lower[..width], a, b);
            row += 2;
        }
        if row < height {
            add_row(&mut sum[row * pitch..][..width], &a[row * depth..][first..last], b);
        }
    }
}

#[inline(never)]
fn add_two_rows<T: Product>(upper: &mut [T], lower: &mut [T], a: [&[T]; 2], b: &[T]) {
    let width = upper.len();
    let lower = &mut lower[..width];
    let blocks = a[0].len() / 4;
    for block in 0..blocks {
        let (x, y) = (&a[0][4 * block..4 * block + 4], &a[1][4 * block..4 * block + 4]);
        let b = &b[4 * block * width..][..4 * width];
        let (b0, rest) = b.split_at(width);
        let (b1, rest) = rest.split_at(width);
        let (b2, b3) = rest.split_at(width);
        let b3 = &b3[..width];
        for j in 0..width {
            upper[j] = upper[j]
                .add_product(x[0], b0[j])
                .add_product(x[1], b1[j])
                .add_product(x[2], b2[j])
                .add_product(x[3], b3[j]);
            lower[j] = lower[j]
                .add_product(y[0], b0[j])
                .add_product(y[1], b1[j])
                .add_product(y[2], b2[j])
                .add_product(y[3], b3[j]);
        }
    }
    let done = blocks * 4;
    add_row(upper, &a[0][done..], &b[done * width..]);
    add_row(lower, &a[1][done..], &b[done * width..]);
}

fn add_row<T: Product>(sum: &mut [T], a: &[T], b: &[T]) {
    let width = sum.len();
    for (k, &a) in a.iter().enumerate() {
        for (sum, &b) in sum.iter_mut().zip(&b[k * width..][..width]) {
            *sum = sum.add_product(a, b);
        }
    }
}
