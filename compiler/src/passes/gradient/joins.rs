//! Elements that are joined: sums give their worth to all, extremes to those that are equal to them, products to each
//! times all the others.

use super::products::{Spread, Windows};
use super::rule::{along, positions, slice};
use super::values::{filled, kept, reshaped, shared, spread, summed, zeros};
use crate::graph::{Builder, ValueId};
use crate::kernel::Combine;
use crate::op::{Concat, Pad, Reduce, Scan, Slice, Transpose, TypeError, WindowReduce};
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;

/// The most elements of a window of a product or an extreme.
const MOST_PLACES: usize = 1 << 12;

fn no_derivative(combine: Combine) -> TypeError {
    TypeError::new(format!("{} has no derivative", combine.name()))
}

pub(super) fn reduce(
    builder: &mut Builder<'_>,
    op: &Reduce,
    x: ValueId,
    y: ValueId,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    let shape = builder.shape(x).to_vec();
    let each = spread(builder, g, &shape, &op.axes)?;
    match op.combine {
        Combine::Sum => Ok(each),
        Combine::Min | Combine::Max => {
            let y = spread(builder, y, &shape, &op.axes)?;
            let equal = builder.map(ScalarFn::Eq, &[x, y])?;
            shared(builder, each, equal, &op.axes)
        }
        Combine::Product => {
            let kept: Vec<usize> = (0..shape.len()).filter(|dim| !op.axes.contains(dim)).collect();
            let perm: Vec<usize> = kept.iter().chain(&op.axes).copied().collect();
            let last = builder.add(Transpose { perm: perm.clone() }, &[x])?;
            let ordered = builder.shape(last).to_vec();
            let count = op.axes.iter().map(|&axis| shape[axis]).product();
            let mut flat: Vec<usize> = kept.iter().map(|&dim| shape[dim]).collect();
            flat.push(count);
            let last = reshaped(builder, last, &flat)?;
            let mut side = |reverse: bool| {
                let (combine, axis, accumulate) = (Combine::Product, kept.len(), op.accumulate);
                let scan = Scan { combine, axis, exclusive: true, reverse, accumulate };
                builder.add(scan, &[last])
            };
            let (before, after) = (side(false)?, side(true)?);
            let others = builder.map(ScalarFn::Mul, &[before, after])?;
            let others = reshaped(builder, others, &ordered)?;
            let mut back = vec![0; perm.len()];
            perm.iter().enumerate().for_each(|(to, &from)| back[from] = to);
            let others = builder.add(Transpose { perm: back }, &[others])?;
            builder.map(ScalarFn::Mul, &[each, others])
        }
        Combine::And | Combine::Or => Err(no_derivative(op.combine)),
    }
}

pub(super) fn scan(
    builder: &mut Builder<'_>,
    op: &Scan,
    x: ValueId,
    y: ValueId,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    if op.combine == Combine::Sum {
        return builder.add(Scan { reverse: !op.reverse, ..op.clone() }, &[g]);
    }
    // A matrix of sources `from` and results `to` stands in the place of the axis.
    let (from, to) = (op.axis, op.axis + 1);
    let mut shape = builder.shape(x).to_vec();
    shape.insert(to, shape[from]);
    let (sources, results) = (positions(builder, &shape, from)?, positions(builder, &shape, to)?);
    let function = match (op.exclusive, op.reverse) {
        (false, false) => ScalarFn::Le,
        (true, false) => ScalarFn::Lt,
        (false, true) => ScalarFn::Ge,
        (true, true) => ScalarFn::Gt,
    };
    let counts = builder.map(function, &[sources, results])?;
    let each = along(builder, g, &shape, from)?;
    let matrix = match op.combine {
        Combine::Min | Combine::Max => {
            let (source, result) =
                (along(builder, x, &shape, to)?, along(builder, y, &shape, from)?);
            let equal = builder.map(ScalarFn::Eq, &[source, result])?;
            let equal = builder.map(ScalarFn::And, &[equal, counts])?;
            shared(builder, each, equal, &[from])?
        }
        Combine::Product => {
            // Of each row one element is left out.
            let same = builder.map(ScalarFn::Eq, &[sources, results])?;
            let all = along(builder, x, &shape, from)?;
            let ty = builder.ty(all).clone();
            let one = filled(builder, &ty, 1.0)?;
            let others = builder.map(ScalarFn::Select, &[same, one, all])?;
            let others = builder.add(Scan { axis: to, ..op.clone() }, &[others])?;
            let part = builder.map(ScalarFn::Mul, &[each, others])?;
            kept(builder, counts, part)?
        }
        Combine::Sum | Combine::And | Combine::Or => return Err(no_derivative(op.combine)),
    };
    summed(builder, matrix, &[to])
}

pub(super) fn window_reduce(
    builder: &mut Builder<'_>,
    op: &WindowReduce,
    x: ValueId,
    y: ValueId,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    let ty = builder.ty(x).clone();
    if builder.ty(g).count() == 0 {
        return zeros(builder, &ty);
    }
    if op.combine == Combine::Sum {
        let windows = Windows {
            sizes: &ty.shape,
            window: &op.window,
            strides: &op.strides,
            dilations: &op.dilations,
            low: &op.low,
        };
        let Spread { value, low, high } = windows.spread(builder, g, 0)?;
        let strides = vec![1; ty.rank()];
        return builder.add(WindowReduce { strides, low, high, ..op.clone() }, &[value]);
    }
    let places: usize = op.window.iter().product();
    if places > MOST_PLACES {
        let name = op.combine.name();
        return Err(TypeError::new(format!(
            "a window of {places} elements joined by {name} is more than the {MOST_PLACES} that are differentiated"
        )));
    }
    let identity = op.combine.identity(ty.dtype);
    let identity = builder.constant(Tensor::from_values(ty.dtype, &[], &identity.values(1)));
    let pad = Pad { low: op.low.clone(), high: op.high.clone(), interior: vec![0; ty.rank()] };
    let padded = builder.add(pad, &[x, identity])?;
    let whole = builder.ty(padded).clone();
    let result = builder.shape(g).to_vec();
    let slices: Vec<Slice> = (0..places).map(|place| part_of(op, place, &result)).collect();
    let mut row = vec![1];
    row.extend(&result);
    let mut parts = Vec::new();
    for part in &slices {
        let part = builder.add(part.clone(), &[padded])?;
        parts.push(reshaped(builder, part, &row)?);
    }
    let stacked = builder.add(Concat { axis: 0 }, &parts)?;
    let joined = Reduce { combine: op.combine, axes: vec![0], accumulate: op.accumulate };
    let stacked = reduce(builder, &joined, stacked, y, g)?;
    let mut sum: Option<ValueId> = None;
    for (place, part) in slices.iter().enumerate() {
        let (mut start, mut limit) = (vec![0; row.len()], row.clone());
        (start[0], limit[0]) = (place, place + 1);
        let own = builder.add(Slice { start, limit, stride: vec![1; row.len()] }, &[stacked])?;
        let own = reshaped(builder, own, &result)?;
        let own = slice(builder, part, &whole, own)?;
        sum = Some(match sum {
            Some(sum) => builder.map(ScalarFn::Add, &[sum, own])?,
            None => own,
        });
    }
    let sum = sum.expect("a window has an element");
    let limit = (0..ty.rank()).map(|dim| op.low[dim] + ty.shape[dim]).collect();
    builder.add(Slice { start: op.low.clone(), limit, stride: vec![1; ty.rank()] }, &[sum])
}

/// What one place of the window sees of the padded operand.
fn part_of(op: &WindowReduce, place: usize, result: &[usize]) -> Slice {
    let rank = op.window.len();
    let mut rest = place;
    let mut start = vec![0; rank];
    for dim in (0..rank).rev() {
        start[dim] = rest % op.window[dim] * op.dilations[dim];
        rest /= op.window[dim];
    }
    let limit = (0..rank).map(|dim| start[dim] + (result[dim] - 1) * op.strides[dim] + 1).collect();
    Slice { start, limit, stride: op.strides.clone() }
}
