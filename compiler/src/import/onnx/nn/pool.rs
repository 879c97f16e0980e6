//! Pools: windows joined by maximum, mean or norm.

use super::{Value, Window, sizes};
use crate::graph::ValueId;
use crate::import::onnx::context::{Converted, ImportError, NodeContext, invalid, unsupported};
use crate::import::onnx::table::{Row, row};
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::DType;

pub(in crate::import::onnx) const ROWS: &[Row] = &[
    row("MaxPool", 1, max_pool),
    row("AveragePool", 1, average_pool),
    row("LpPool", 1, lp_pool),
    row("GlobalMaxPool", 1, |c| global(c, |c, x, axes| c.reduce_keep(Combine::Max, x, axes))),
    row("GlobalAveragePool", 1, |c| global(c, |c, x, axes| c.mean_keep(x, axes))),
    row("GlobalLpPool", 1, |c| {
        let p = f64::from(c.int("p", 2) as f32);
        let powers = c.input(0)?;
        let powers = power(c, powers, p)?;
        let axes: Vec<usize> = (2..c.rank(powers)).collect();
        let sum = c.reduce_keep(Combine::Sum, powers, &axes)?;
        Ok(vec![c.map_scalar(ScalarFn::Pow, sum, 1.0 / p)?])
    }),
];

fn global(
    context: &mut NodeContext<'_, '_, '_>,
    compute: fn(&mut NodeContext<'_, '_, '_>, ValueId, &[usize]) -> Value,
) -> Converted {
    let x = context.input(0)?;
    let axes: Vec<usize> = (2..context.rank(x)).collect();
    Ok(vec![context.widened(x, |c, x| compute(c, x, &axes))?])
}

/// The window of a pool, with the padding behind made so that exactly the wanted windows are there; and their counts.
fn geometry(
    context: &NodeContext<'_, '_, '_>,
    x: ValueId,
) -> Result<(Window, Window, Vec<usize>), ImportError> {
    let shape = context.shape(x);
    if shape.len() < 3 {
        return invalid(format!("a pool of rank {}", shape.len()));
    }
    let rank = shape.len() - 2;
    let Some(size) = sizes(context, "kernel_shape", rank)? else {
        return invalid("attribute kernel_shape is missing");
    };
    let stated = Window::read(context, size, &shape[2..])?;
    let ceil = context.int("ceil_mode", 0) != 0;
    let mut exact = stated.clone();
    let mut counts = Vec::new();
    for dim in 0..rank {
        let count = stated.outputs(dim, shape[dim + 2], ceil)?;
        let end = (count.max(1) - 1) * stated.strides[dim] + stated.reach(dim);
        exact.high[dim] = end.saturating_sub(shape[dim + 2] + stated.low[dim]);
        counts.push(count);
    }
    Ok((stated, exact, counts))
}

fn reduce_windows(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    window: &Window,
    combine: Combine,
) -> Value {
    let with = |edge: usize, inner: &[usize]| [&[edge, edge], inner].concat();
    let dtype = context.dtype(x);
    let op = op::WindowReduce {
        combine,
        window: with(1, &window.size),
        strides: with(1, &window.strides),
        dilations: with(1, &window.dilations),
        low: with(0, &window.low),
        high: with(0, &window.high),
        accumulate: dtype.accumulator(),
    };
    Ok(context.builder.add(op, &[x])?)
}

fn max_pool(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let (_, window, counts) = geometry(context, x)?;
    let y = reduce_windows(context, x, &window, Combine::Max)?;
    if !context.has_output(1) {
        return Ok(vec![y]);
    }
    let indices = max_positions(context, x, &window, &counts)?;
    Ok(vec![y, indices])
}

/// For each window, the position in the whole tensor of its first largest element.
fn max_positions(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    window: &Window,
    counts: &[usize],
) -> Value {
    let shape = context.shape(x);
    let rank = counts.len();
    let taps: usize = window.size.iter().product();
    if taps > 256 {
        return unsupported("positions of the maximum in windows of more than 256 elements");
    }
    let column_major = context.int("storage_order", 0) != 0;
    let dtype = context.dtype(x);
    let lowest =
        context.known(Tensor::from_values(dtype, &[], &Combine::Max.identity(dtype).values(1)));
    let (mut low, mut high) = (vec![0, 0], vec![0, 0]);
    low.extend_from_slice(&window.low);
    high.extend_from_slice(&window.high);
    let padded = context.pad(x, lowest, &low, &high)?;
    let positions = whole_positions(&shape, column_major);
    let positions = context.known(Tensor::from_slice(&shape, &positions));
    let nowhere = context.known(Tensor::scalar(-1i64));
    let positions = context.pad(positions, nowhere, &low, &high)?;
    let (mut best, mut place) = (None::<ValueId>, None::<ValueId>);
    for tap in 0..taps {
        let (mut value, mut position, mut rest) = (padded, positions, tap);
        for dim in (0..rank).rev() {
            let start = rest % window.size[dim] * window.dilations[dim];
            rest /= window.size[dim];
            let limit = start + (counts[dim].max(1) - 1) * window.strides[dim] + 1;
            value = context.slice_axis(value, dim + 2, start, limit, window.strides[dim])?;
            position = context.slice_axis(position, dim + 2, start, limit, window.strides[dim])?;
        }
        (best, place) = match (best, place) {
            (Some(old), Some(at)) => {
                let larger = context.map(ScalarFn::Gt, &[value, old])?;
                let none = context.scalar_like(at, -1.0)?;
                let unset = context.map(ScalarFn::Eq, &[at, none])?;
                let take = context.map(ScalarFn::Or, &[larger, unset])?;
                (
                    Some(context.map(ScalarFn::Select, &[take, value, old])?),
                    Some(context.map(ScalarFn::Select, &[take, position, at])?),
                )
            }
            _ => (Some(value), Some(position)),
        };
    }
    Ok(place.expect("a window has an element"))
}

/// The flat position of every element; in column-major order the spatial dimensions count the other way.
fn whole_positions(shape: &[usize], column_major: bool) -> Vec<i64> {
    let count: usize = shape.iter().product();
    if !column_major {
        return (0..count as i64).collect();
    }
    let spatial = &shape[2..];
    let inner: usize = spatial.iter().product();
    (0..count)
        .map(|flat| {
            let (outer, mut rest) = (flat / inner.max(1), flat % inner.max(1));
            let mut index = vec![0; spatial.len()];
            for dim in (0..spatial.len()).rev() {
                index[dim] = rest % spatial[dim];
                rest /= spatial[dim];
            }
            let column = index.iter().zip(spatial).rev().fold(0, |sum, (&i, &size)| sum * size + i);
            (outer * inner + column) as i64
        })
        .collect()
}

fn average_pool(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let (stated, window, counts) = geometry(context, x)?;
    let include = context.int("count_include_pad", 0) != 0;
    let spatial = context.shape(x)[2..].to_vec();
    let rank = spatial.len();
    // How many elements each window's mean is over: a product of what it is along each dimension.
    let along = |dim: usize| -> Vec<usize> {
        let (low, end) = (stated.low[dim], stated.low[dim] + spatial[dim]);
        let (first, last) = if include { (0, end + stated.high[dim]) } else { (low, end) };
        let (size, dilation) = (stated.size[dim], stated.dilations[dim]);
        let taps = |start: usize| (0..size).map(move |tap| start + tap * dilation);
        (0..counts[dim])
            .map(|output| {
                taps(output * stated.strides[dim])
                    .filter(|at| (first..last).contains(at))
                    .count()
                    .max(1)
            })
            .collect()
    };
    let mut divisors = vec![1usize];
    for dim in 0..rank {
        let next = along(dim);
        divisors = divisors
            .iter()
            .flat_map(|&outer| next.iter().map(move |&inner| outer * inner))
            .collect();
    }
    let result = context.widened(x, |context, x| {
        let sum = reduce_windows(context, x, &window, Combine::Sum)?;
        let dtype = context.dtype(sum);
        if divisors.iter().all(|&divisor| divisor == divisors[0]) {
            return context.map_scalar(ScalarFn::Div, sum, divisors[0] as f64);
        }
        let shape = [&[1, 1], counts.as_slice()].concat();
        let values = Values::F64(divisors.iter().map(|&divisor| divisor as f64).collect());
        let divisors = context.known(Tensor::from_values(dtype, &shape, &values));
        context.map(ScalarFn::Div, &[sum, divisors])
    })?;
    Ok(vec![result])
}

fn power(context: &mut NodeContext<'_, '_, '_>, x: ValueId, p: f64) -> Value {
    let magnitude = context.map(ScalarFn::Abs, &[x])?;
    if p == 1.0 { Ok(magnitude) } else { context.map_scalar(ScalarFn::Pow, magnitude, p) }
}

fn lp_pool(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let (_, window, _) = geometry(context, x)?;
    let p = context.int("p", 2) as f64;
    if context.dtype(x) == DType::Bool {
        return invalid("a pool of bool");
    }
    let powers = power(context, x, p)?;
    let sum = reduce_windows(context, powers, &window, Combine::Sum)?;
    Ok(vec![context.map_scalar(ScalarFn::Pow, sum, 1.0 / p)?])
}
