//! Reductions, products of matrices, softmax and what runs along an axis.

use super::context::{Converted, ImportError, NodeContext, invalid, widen};
use super::table::{Row, row};
use crate::graph::ValueId;
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::types::DType;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("ReduceSum", 1, |c| reduce(c, 13, |c, x, axes| c.reduce_keep(Combine::Sum, x, axes))),
    row("ReduceProd", 1, |c| reduce(c, 18, |c, x, axes| c.reduce_keep(Combine::Product, x, axes))),
    row("ReduceMax", 1, |c| reduce(c, 18, |c, x, axes| extreme(c, Combine::Max, x, axes))),
    row("ReduceMin", 1, |c| reduce(c, 18, |c, x, axes| extreme(c, Combine::Min, x, axes))),
    row("ReduceMean", 1, |c| reduce(c, 18, |c, x, axes| c.mean_keep(x, axes))),
    row("ReduceSumSquare", 1, |c| reduce(c, 18, sum_square)),
    row("ReduceL1", 1, |c| reduce(c, 18, l1)),
    row("ReduceL2", 1, |c| reduce(c, 18, l2)),
    row("ReduceLogSum", 1, |c| reduce(c, 18, log_sum)),
    row("ReduceLogSumExp", 1, |c| reduce(c, 18, log_sum_exp)),
    row("ArgMax", 1, |c| arg_reduce(c, Combine::Max)),
    row("ArgMin", 1, |c| arg_reduce(c, Combine::Min)),
    row("CumSum", 1, |c| scan(c, Combine::Sum)),
    row("CumProd", 1, |c| scan(c, Combine::Product)),
    row("MatMul", 1, matmul),
    row("Gemm", 1, gemm),
    row("Softmax", 1, |c| along(c, softmax_of)),
    row("LogSoftmax", 1, |c| along(c, log_softmax_of)),
    row("Hardmax", 1, |c| along(c, hardmax_of)),
];

/// The operators of domain com.microsoft of this file.
pub(super) const MICROSOFT: &[Row] = &[row("FusedMatMul", 1, fused_matmul)];

type Value = Result<ValueId, ImportError>;

/// A reduction whose axes are an attribute before version `input_since`, and an input from then on. `compute` keeps
/// the axes with one element.
fn reduce(
    context: &mut NodeContext<'_, '_, '_>,
    input_since: i64,
    compute: fn(&mut NodeContext<'_, '_, '_>, ValueId, &[usize]) -> Value,
) -> Converted {
    let x = context.input(0)?;
    let rank = context.rank(x);
    let axes = if context.opset < input_since {
        context.ints("axes")
    } else {
        context.optional_constant(1)?.map(|tensor| tensor.to_i64())
    };
    let axes = match axes {
        Some(axes) if !axes.is_empty() => context.axes(&axes, rank)?,
        Some(_) | None if context.int("noop_with_empty_axes", 0) != 0 => Vec::new(),
        Some(_) | None => (0..rank).collect(),
    };
    let shape = context.shape(x);
    let result = context.widened(x, |c, x| compute(c, x, &axes))?;
    if context.int("keepdims", 1) != 0 {
        return Ok(vec![result]);
    }
    let kept: Vec<usize> =
        (0..rank).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    Ok(vec![context.reshape(result, &kept)?])
}

fn extreme(
    context: &mut NodeContext<'_, '_, '_>,
    combine: Combine,
    x: ValueId,
    axes: &[usize],
) -> Value {
    if context.dtype(x) == DType::Bool {
        let combine = if combine == Combine::Max { Combine::Or } else { Combine::And };
        return context.reduce_keep(combine, x, axes);
    }
    context.reduce_keep(combine, x, axes)
}

fn sum_square(context: &mut NodeContext<'_, '_, '_>, x: ValueId, axes: &[usize]) -> Value {
    let square = context.builder.map(ScalarFn::Mul, &[x, x])?;
    context.reduce_keep(Combine::Sum, square, axes)
}

fn l1(context: &mut NodeContext<'_, '_, '_>, x: ValueId, axes: &[usize]) -> Value {
    let magnitude = context.builder.map(ScalarFn::Abs, &[x])?;
    context.reduce_keep(Combine::Sum, magnitude, axes)
}

fn l2(context: &mut NodeContext<'_, '_, '_>, x: ValueId, axes: &[usize]) -> Value {
    let sum = sum_square(context, x, axes)?;
    rooted(context, sum, ScalarFn::Sqrt)
}

fn log_sum(context: &mut NodeContext<'_, '_, '_>, x: ValueId, axes: &[usize]) -> Value {
    let sum = context.reduce_keep(Combine::Sum, x, axes)?;
    rooted(context, sum, ScalarFn::Log)
}

/// A float function, of integers by way of f64.
fn rooted(context: &mut NodeContext<'_, '_, '_>, x: ValueId, function: ScalarFn) -> Value {
    let dtype = context.dtype(x);
    let wide = context.convert(x, if dtype.is_float() { dtype } else { DType::F64 })?;
    let result = context.builder.map(function, &[wide])?;
    context.convert(result, dtype)
}

/// The largest element is taken off first, unless it is infinite.
pub(super) fn log_sum_exp(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    axes: &[usize],
) -> Value {
    let dtype = context.dtype(x);
    let x = context.convert(x, if dtype.is_float() { dtype } else { DType::F64 })?;
    let top = context.reduce_keep(Combine::Max, x, axes)?;
    let infinite = context.builder.map(ScalarFn::IsInf, &[top])?;
    let zero = context.scalar_like(top, 0.0)?;
    let top = context.builder.map(ScalarFn::Select, &[infinite, zero, top])?;
    let shifted = context.map(ScalarFn::Sub, &[x, top])?;
    let power = context.builder.map(ScalarFn::Exp, &[shifted])?;
    let sum = context.reduce_keep(Combine::Sum, power, axes)?;
    let log = context.builder.map(ScalarFn::Log, &[sum])?;
    let result = context.builder.map(ScalarFn::Add, &[log, top])?;
    context.convert(result, dtype)
}

fn arg_reduce(context: &mut NodeContext<'_, '_, '_>, combine: Combine) -> Converted {
    let x = context.input(0)?;
    let mut shape = context.shape(x).to_vec();
    let axis = context.axis(context.int("axis", 0), shape.len())?;
    let last = context.int("select_last_index", 0) != 0;
    let found = context.builder.add(op::ArgReduce { combine, axis, last }, &[x])?;
    if context.int("keepdims", 1) == 0 {
        return Ok(vec![found]);
    }
    shape[axis] = 1;
    Ok(vec![context.reshape(found, &shape)?])
}

fn scan(context: &mut NodeContext<'_, '_, '_>, combine: Combine) -> Converted {
    let x = context.input(0)?;
    let axis = context.constant_ints(1)?.first().copied().unwrap_or(0);
    let axis = context.axis(axis, context.rank(x))?;
    let exclusive = context.int("exclusive", 0) != 0;
    let reverse = context.int("reverse", 0) != 0;
    let accumulate = context.dtype(x).accumulator();
    let op = op::Scan { combine, axis, exclusive, reverse, accumulate };
    Ok(vec![context.builder.add(op, &[x])?])
}

fn matmul(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (a, b) = (context.input(0)?, context.input(1)?);
    let dtype = context.dtype(a);
    Ok(vec![context.matmul(a, b, dtype)?])
}

/// The last two dimensions in the other order.
fn turned(context: &mut NodeContext<'_, '_, '_>, x: ValueId) -> Value {
    let rank = context.rank(x);
    let mut perm: Vec<usize> = (0..rank).collect();
    if rank >= 2 {
        perm.swap(rank - 1, rank - 2);
    }
    context.transpose(x, &perm)
}

fn fused_matmul(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (mut a, mut b) = (context.input(0)?, context.input(1)?);
    if context.int("transA", 0) != 0 {
        a = turned(context, a)?;
    }
    if context.int("transB", 0) != 0 {
        b = turned(context, b)?;
    }
    let dtype = context.dtype(a);
    let product = context.matmul(a, b, dtype)?;
    let alpha = f64::from(context.float("alpha", 1.0));
    match alpha {
        1.0 => Ok(vec![product]),
        alpha => Ok(vec![context.map_scalar(ScalarFn::Mul, product, alpha)?]),
    }
}

fn gemm(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (a, b) = (context.input(0)?, context.input(1)?);
    if context.rank(a) != 2 || context.rank(b) != 2 {
        return invalid("two matrices are wanted");
    }
    let (ta, tb) = (context.int("transA", 0) != 0, context.int("transB", 0) != 0);
    let dtype = context.dtype(a);
    let (alpha, beta) =
        (f64::from(context.float("alpha", 1.0)), f64::from(context.float("beta", 1.0)));
    let wide = widen(dtype);
    let over = (usize::from(!ta), usize::from(tb));
    let mut product = context.contract(a, b, &[], &[over], wide)?;
    if alpha != 1.0 {
        product = scaled(context, product, alpha)?;
    }
    if let Some(mut c) = context.optional(2)? {
        c = context.convert(c, wide)?;
        if beta != 1.0 {
            c = scaled(context, c, beta)?;
        }
        let shape = context.shape(product);
        // Before version 7 a vector may be one for each row of the result only where it is written so.
        let c = context.broadcast_to(c, &shape)?;
        product = context.builder.map(ScalarFn::Add, &[product, c])?;
    }
    Ok(vec![context.convert(product, dtype)?])
}

fn scaled(context: &mut NodeContext<'_, '_, '_>, x: ValueId, factor: f64) -> Value {
    let dtype = context.dtype(x);
    if dtype.is_float() {
        return context.map_scalar(ScalarFn::Mul, x, factor);
    }
    let wide = context.convert(x, DType::F64)?;
    let result = context.map_scalar(ScalarFn::Mul, wide, factor)?;
    context.convert(result, dtype)
}

/// A function along one axis; before version 13, along all from an axis on, taken as one.
fn along(
    context: &mut NodeContext<'_, '_, '_>,
    compute: fn(&mut NodeContext<'_, '_, '_>, ValueId, usize) -> Value,
) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    let default = if context.opset < 13 { 1 } else { -1 };
    let axis = context.int("axis", default);
    if shape.is_empty() {
        let x = context.reshape(x, &[1])?;
        let result = compute(context, x, 0)?;
        return Ok(vec![context.reshape(result, &[])?]);
    }
    let axis = match axis {
        axis if axis == shape.len() as i64 && context.opset < 13 => shape.len(),
        axis => context.axis(axis, shape.len())?,
    };
    if context.opset >= 13 || axis + 1 == shape.len() {
        return Ok(vec![compute(context, x, axis)?]);
    }
    let pair: [usize; 2] = [shape[..axis].iter().product(), shape[axis..].iter().product()];
    let flat = context.reshape(x, &pair)?;
    let result = compute(context, flat, 1)?;
    Ok(vec![context.reshape(result, &shape)?])
}

pub(super) fn softmax_of(context: &mut NodeContext<'_, '_, '_>, x: ValueId, axis: usize) -> Value {
    context.widened(x, |c, x| Ok(c.builder.add(op::Softmax { axis }, &[x])?))
}

pub(super) fn log_softmax_of(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    axis: usize,
) -> Value {
    Ok(context.builder.add(op::LogSoftmax { axis }, &[x])?)
}

fn hardmax_of(context: &mut NodeContext<'_, '_, '_>, x: ValueId, axis: usize) -> Value {
    let op = op::ArgReduce { combine: Combine::Max, axis, last: false };
    let found = context.builder.add(op, &[x])?;
    let shape = context.shape(x);
    let found = context.unsqueeze(found, &[axis])?;
    let found = context.broadcast_to(found, &shape)?;
    let position = context.iota(DType::I64, &shape, axis)?;
    let hot = context.builder.map(ScalarFn::Eq, &[found, position])?;
    context.convert(hot, context.dtype(x))
}
