//! Reductions, scans, sorts and searches along axes. Elements join one after another in the order of the axes, and
//! each step rounds to the accumulation type.

use super::super::{Axis, Combine, Dims};
use super::Context;
use super::convert::{convert, rounds};
use super::source::Source;
use crate::evaluate::EvaluateError;
use crate::scalar::Arithmetic;
use crate::tensor::Values;
use crate::types::DType;
use std::cmp::Ordering;

/// Elements that are gathered at once.
const CHUNK: usize = 4096;

/// What is reduced or scanned, and how.
pub(super) struct Fold<'a> {
    pub(super) combine: Combine,
    pub(super) tile: &'a Source,
    pub(super) dtype: DType,
    pub(super) accumulate: DType,
}

/// The elements of the tile reduced over axes, in the order of `dims`, starting from `start`.
pub(super) fn reduce(
    context: &Context<'_>,
    fold: &Fold<'_>,
    start: Values,
    over: &[Axis],
    dims: &Dims,
) -> Result<Values, EvaluateError> {
    let extent = |axis: Axis| {
        fold.tile.dims.iter().find(|(other, _)| *other == axis).map_or(1, |&(_, extent)| extent)
    };
    let over: Dims = over.iter().map(|&axis| (axis, extent(axis))).collect();
    let kept: usize = dims.iter().map(|&(_, extent)| extent).product();
    let depth: usize = over.iter().map(|&(_, extent)| extent).product();
    let function = fold.combine.function();
    let along = |values: Values| convert(values, fold.dtype, fold.accumulate);
    let nearest_is_summed =
        fold.tile.nearest().is_some_and(|axis| over.iter().any(|&(other, _)| other == axis));
    let mut joined = start;
    if kept == 0 {
        return Ok(joined);
    }
    if rounds(fold.accumulate) || (kept >= 16 && !nearest_is_summed) {
        let order: Dims = over.iter().chain(dims).copied().collect();
        let walk = fold.tile.walk(&order);
        for step in 0..depth {
            context.check_cancelled()?;
            let more = along(fold.tile.gather(&walk, step * kept..(step + 1) * kept));
            joined = function.evaluate(&[&joined, &more]).rounded(fold.accumulate);
        }
        return Ok(joined);
    }
    let order: Dims = dims.iter().chain(&over).copied().collect();
    let walk = fold.tile.walk(&order);
    for start in (0..kept * depth).step_by(CHUNK) {
        context.check_cancelled()?;
        let range = start..(kept * depth).min(start + CHUNK);
        let more = along(fold.tile.gather(&walk, range));
        join_rows(&mut joined, &more, fold.combine, start, depth);
    }
    Ok(joined.rounded(fold.accumulate))
}

/// Joins elements that lie row by row into one value a row; the first is element `start` of all.
fn join_rows(joined: &mut Values, more: &Values, combine: Combine, start: usize, depth: usize) {
    fn join<T: Arithmetic>(
        joined: &mut [T],
        more: &[T],
        combine: Combine,
        start: usize,
        depth: usize,
    ) {
        let pair =
            T::pair(combine.function()).expect("a verified reduction's type has the function");
        let mut place = start;
        let mut rest = more;
        while !rest.is_empty() {
            let count = rest.len().min(depth - place % depth);
            let (row, after) = rest.split_at(count);
            let item = &mut joined[place / depth];
            *item = row.iter().fold(*item, |all, &element| pair(all, element));
            place += count;
            rest = after;
        }
    }
    match (joined, more) {
        (Values::Bool(joined), Values::Bool(more)) => join(joined, more, combine, start, depth),
        (Values::Int(joined), Values::Int(more)) => join(joined, more, combine, start, depth),
        (Values::Uint(joined), Values::Uint(more)) => join(joined, more, combine, start, depth),
        (Values::F32(joined), Values::F32(more)) => join(joined, more, combine, start, depth),
        (Values::F64(joined), Values::F64(more)) => join(joined, more, combine, start, depth),
        (joined, _) => unreachable!("elements were converted to the arithmetic of {joined:?}"),
    }
}

/// The dimensions with one axis moved to the end, and the extent along it.
fn axis_last(dims: &Dims, axis: Axis) -> (Dims, usize) {
    let mut order: Dims = dims.iter().filter(|(other, _)| *other != axis).copied().collect();
    let extent = dims.iter().find(|(other, _)| *other == axis).map_or(1, |&(_, extent)| extent);
    order.push((axis, extent));
    (order, extent)
}

/// Each element joined with those before it along an axis, in the order of `dims`.
pub(super) fn scan(
    context: &Context<'_>,
    fold: &Fold<'_>,
    over: Axis,
    exclusive: bool,
    reverse: bool,
    dims: &Dims,
) -> Values {
    fn rows<T: Arithmetic>(
        elements: Vec<T>,
        identity: T,
        extent: usize,
        (exclusive, reverse): (bool, bool),
        join: impl Fn(T, T) -> T,
    ) -> Vec<T> {
        let mut scanned = elements;
        for row in scanned.chunks_mut(extent.max(1)) {
            let mut all = identity;
            let mut visit = |element: &mut T| {
                let before = all;
                all = join(all, *element);
                *element = if exclusive { before } else { all };
            };
            if reverse {
                row.iter_mut().rev().for_each(&mut visit);
            } else {
                row.iter_mut().for_each(&mut visit);
            }
        }
        scanned
    }
    let (order, extent) = axis_last(dims, over);
    let elements = convert(fold.tile.all(&order), fold.dtype, fold.accumulate);
    let function = fold.combine.function();
    let identity = fold.combine.identity(fold.dtype).values(1);
    let identity = convert(identity, fold.dtype, fold.accumulate);
    let how = (exclusive, reverse);
    macro_rules! each {
        ($($class:ident => $rust:ty),*) => {
            match (elements, identity) {
                $((Values::$class(elements), Values::$class(identity)) => {
                    let pair = <$rust>::pair(function).expect("a verified scan's type has the function");
                    let wrap = |value: $rust| -> $rust {
                        match Values::$class(vec![value]).rounded(fold.accumulate) {
                            Values::$class(values) => values[0],
                            other => unreachable!("rounding keeps the arithmetic, not {other:?}"),
                        }
                    };
                    let wide = !rounds(fold.accumulate);
                    let join = |x, y| if wide { pair(x, y) } else { wrap(pair(x, y)) };
                    Values::$class(rows(elements, identity[0], extent, how, join))
                })*
                (elements, _) => unreachable!("an identity has the type of {elements:?}"),
            }
        };
    }
    let scanned = each!(Bool => bool, Int => i64, Uint => u64, F32 => f32, F64 => f64);
    in_order(context, &order, scanned.rounded(fold.accumulate), dims)
}

/// Values that lie in one order of axes, in another.
fn in_order(context: &Context<'_>, order: &Dims, values: Values, dims: &Dims) -> Values {
    if order == dims { values } else { Source::dense(order, values, &context.meter).all(dims) }
}

/// An order of all elements: NaN is the largest, and equal to itself.
trait Total: Copy {
    fn order(&self, other: &Self) -> Ordering;
    fn is_nan(&self) -> bool;
}

macro_rules! totals {
    ($($rust:ty: |$x:ident| $nan:expr;)*) => {
        $(impl Total for $rust {
            fn order(&self, other: &Self) -> Ordering {
                self.partial_cmp(other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }
            fn is_nan(&self) -> bool {
                let $x = *self;
                $nan
            }
        })*
    };
}
totals! {
    bool: |_x| false;
    i64: |_x| false;
    u64: |_x| false;
    f32: |x| f32::is_nan(x);
    f64: |x| f64::is_nan(x);
}

/// The elements sorted along an axis, stably, and the position each came from; in the order of `dims`.
pub(super) fn sort(
    context: &Context<'_>,
    tile: &Source,
    over: Axis,
    descending: bool,
    dims: &Dims,
) -> (Values, Values) {
    fn rows<T: Total>(elements: Vec<T>, extent: usize, descending: bool) -> (Vec<T>, Vec<i64>) {
        let mut sorted = Vec::with_capacity(elements.len());
        let mut positions = Vec::with_capacity(elements.len());
        for row in elements.chunks(extent.max(1)) {
            let mut order: Vec<usize> = (0..row.len()).collect();
            order.sort_by(|&x, &y| {
                let order = row[x].order(&row[y]);
                if descending { order.reverse() } else { order }
            });
            sorted.extend(order.iter().map(|&from| row[from]));
            positions.extend(order.iter().map(|&from| from as i64));
        }
        (sorted, positions)
    }
    let (order, extent) = axis_last(dims, over);
    macro_rules! each {
        ($($class:ident),*) => {
            match tile.all(&order) {
                $(Values::$class(elements) => {
                    let (sorted, positions) = rows(elements, extent, descending);
                    (Values::$class(sorted), Values::Int(positions))
                })*
            }
        };
    }
    let (sorted, positions) = each!(Bool, Int, Uint, F32, F64);
    (in_order(context, &order, sorted, dims), in_order(context, &order, positions, dims))
}

/// The position along an axis of the extreme element, in the order of `dims`. A NaN is extreme.
pub(super) fn arg_reduce(
    combine: Combine,
    tile: &Source,
    over: Axis,
    last: bool,
    dims: &Dims,
) -> Values {
    fn rows<T: Total>(elements: &[T], extent: usize, smallest: bool, last: bool) -> Vec<i64> {
        let better = |new: &T, best: &T| match (new.is_nan(), best.is_nan()) {
            (true, false) => true,
            (false, true) => false,
            (true, true) => last,
            (false, false) => match new.order(best) {
                Ordering::Equal => last,
                Ordering::Less => smallest,
                Ordering::Greater => !smallest,
            },
        };
        let find = |row: &[T]| {
            let mut best = 0;
            for place in 1..row.len() {
                if better(&row[place], &row[best]) {
                    best = place;
                }
            }
            best as i64
        };
        elements.chunks(extent.max(1)).map(find).collect()
    }
    let extent =
        tile.dims.iter().find(|(other, _)| *other == over).map_or(1, |&(_, extent)| extent);
    let mut order = dims.clone();
    order.push((over, extent));
    let smallest = combine == Combine::Min;
    Values::Int(match tile.all(&order) {
        Values::Bool(elements) => rows(&elements, extent, smallest, last),
        Values::Int(elements) => rows(&elements, extent, smallest, last),
        Values::Uint(elements) => rows(&elements, extent, smallest, last),
        Values::F32(elements) => rows(&elements, extent, smallest, last),
        Values::F64(elements) => rows(&elements, extent, smallest, last),
    })
}
