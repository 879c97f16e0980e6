//! Which derivative each operation has.

use super::values::{converted, reshaped, spread, summed, zeros};
use super::{Worth, blocks, index, joins, order, products};
use crate::expr::{Expr, ExprId, ExprNode};
use crate::graph::{Builder, Node, ValueId};
use crate::kernel::Combine;
use crate::op::{
    AllGather, AllReduce, AllToAll, Broadcast, Convert, Map, Op, Pad, Permute, ReduceScatter,
    Reverse, Slice, Transpose, TypeError,
};
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// Gives the operands of a node their part of what its results are worth.
pub(super) fn node(
    builder: &mut Builder<'_>,
    node: &Node,
    results: &[Option<ValueId>],
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let x = &node.operands;
    // Every op but those with blocks and those that sort gives one result, or its first is the one with a worth.
    let first = results.first().copied().flatten();
    match &node.op {
        Op::If(_) => return blocks::if_(builder, node, results, worth),
        Op::For(op) => return blocks::for_(builder, node, op.count, results, worth),
        Op::Fusion(_) => return blocks::fusion(builder, node, results, worth),
        Op::While(_) => {
            return Err(TypeError::new(
                "a `while` has no derivative, for nothing says how often it runs; use `for`",
            ));
        }
        Op::Call(call) => {
            let name = &call.function;
            return Err(TypeError::new(format!("the call of @{name} must be inlined first")));
        }
        Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::Gelu(_)
        | Op::Silu(_)
        | Op::Attention(_) => return blocks::composite(builder, node, results, worth),
        Op::Constant(_)
        | Op::Parameter(_)
        | Op::Iota(_)
        | Op::Map(_)
        | Op::Convert(_)
        | Op::Reduce(_)
        | Op::Scan(_)
        | Op::ArgReduce(_)
        | Op::Contract(_)
        | Op::Convolve(_)
        | Op::WindowReduce(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Pad(_)
        | Op::Concat(_)
        | Op::Reverse(_)
        | Op::Gather(_)
        | Op::Scatter(_)
        | Op::Sort(_)
        | Op::TopK(_)
        | Op::DynamicSlice(_)
        | Op::DynamicUpdate(_)
        | Op::Random(_)
        | Op::AllReduce(_)
        | Op::AllGather(_)
        | Op::ReduceScatter(_)
        | Op::AllToAll(_)
        | Op::Permute(_)
        | Op::Rank(_) => {}
    }
    let Some(g) = first else { return Ok(()) };
    let part = match &node.op {
        Op::Constant(_)
        | Op::Parameter(_)
        | Op::Iota(_)
        | Op::Random(_)
        | Op::Rank(_)
        | Op::ArgReduce(_)
        | Op::If(_)
        | Op::For(_)
        | Op::Fusion(_)
        | Op::While(_)
        | Op::Call(_)
        | Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::Gelu(_)
        | Op::Silu(_)
        | Op::Attention(_) => return Ok(()),
        Op::Map(op) => return map(builder, op, x, g, worth),
        Op::Contract(op) => return products::contract(builder, op, x, g, worth),
        Op::Convolve(op) => return products::convolve(builder, op, x, g, worth),
        Op::Pad(op) => return pad(builder, op, x, g, worth),
        Op::Concat(op) => return concat(builder, op.axis, x, g, worth),
        Op::Scatter(op) => return index::scatter(builder, op, x, node.results[0], g, worth),
        Op::DynamicUpdate(_) => return index::dynamic_update(builder, x, g, worth),
        Op::Convert(_) => {
            let dtype = builder.ty(x[0]).dtype;
            builder.add(Convert { dtype }, &[g])?
        }
        Op::Reduce(op) => joins::reduce(builder, op, x[0], node.results[0], g)?,
        Op::Scan(op) => joins::scan(builder, op, x[0], node.results[0], g)?,
        Op::WindowReduce(op) => joins::window_reduce(builder, op, x[0], node.results[0], g)?,
        Op::Reshape(_) => {
            let shape = builder.shape(x[0]);
            reshaped(builder, g, &shape)?
        }
        Op::Transpose(op) => {
            let mut perm = vec![0; op.perm.len()];
            op.perm.iter().enumerate().for_each(|(to, &from)| perm[from] = to);
            builder.add(Transpose { perm }, &[g])?
        }
        Op::Broadcast(op) => broadcast(builder, op, x[0], g)?,
        Op::Slice(op) => {
            let ty = builder.ty(x[0]).clone();
            slice(builder, op, &ty, g)?
        }
        Op::Reverse(op) => builder.add(Reverse { axes: op.axes.clone() }, &[g])?,
        Op::Gather(op) => index::gather(builder, op.axis, x[0], x[1], g)?,
        Op::Sort(op) => order::placed(builder, x[0], node.results[1], op.axis, g)?,
        Op::TopK(op) => order::placed(builder, x[0], node.results[1], op.axis, g)?,
        Op::DynamicSlice(_) => index::dynamic_slice(builder, x, g)?,
        // Each rank has a worth of its own, and the whole is their sum, so that what is added on the way there is added
        // on the way back, and what is gathered is scattered.
        Op::AllReduce(op) => {
            sums(op.combine, node)?;
            let back = AllReduce { combine: Combine::Sum, groups: op.groups.clone() };
            builder.add(back, &[g])?
        }
        Op::AllGather(op) => {
            let (axis, groups) = (op.axis, op.groups.clone());
            builder.add(ReduceScatter { combine: Combine::Sum, axis, groups }, &[g])?
        }
        Op::ReduceScatter(op) => {
            sums(op.combine, node)?;
            builder.add(AllGather { axis: op.axis, groups: op.groups.clone() }, &[g])?
        }
        Op::AllToAll(op) => {
            let (split, concat, groups) = (op.concat, op.split, op.groups.clone());
            builder.add(AllToAll { split, concat, groups }, &[g])?
        }
        Op::Permute(op) => {
            let pairs = op.pairs.iter().map(|pair| vec![pair[1], pair[0]]).collect();
            builder.add(Permute { pairs }, &[g])?
        }
    };
    worth.add(builder, x[0], part)
}

fn sums(combine: Combine, node: &Node) -> Result<(), TypeError> {
    if combine == Combine::Sum {
        return Ok(());
    }
    let (name, combine) = (node.op.name(), combine.name());
    Err(TypeError::new(format!("{name} of {combine} has no derivative; that of sum has one")))
}

/// By the column of the scalar table. Narrow floats compute in f32 and round once.
fn map(
    builder: &mut Builder<'_>,
    op: &Map,
    x: &[ValueId],
    g: ValueId,
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let Some(derivative) = op.function.derivative() else { return Ok(()) };
    let dtype = builder.ty(g).dtype;
    let wide = dtype.accumulator();
    let mut operands = Vec::new();
    for &value in x.iter().chain([&g]) {
        let float = builder.ty(value).dtype.is_float();
        operands.push(if float { converted(builder, value, wide)? } else { value });
    }
    for (position, &value) in x.iter().enumerate() {
        if !worth.wants(value) {
            continue;
        }
        let mut expr = Expr::new();
        let nodes: Vec<ExprId> = operands
            .iter()
            .enumerate()
            .map(|(index, &value)| expr.operand(index, builder.ty(value).dtype))
            .collect();
        let (g, x) = nodes.split_last().expect("the worth is among them");
        let root = derivative(&mut expr, x, *g, wide, position);
        let part = emit(builder, &expr, root, &operands)?;
        let part = converted(builder, part, dtype)?;
        worth.add(builder, value, part)?;
    }
    Ok(())
}

/// The nodes of an expression over values of one shape.
fn emit(
    builder: &mut Builder<'_>,
    expr: &Expr,
    root: ExprId,
    operands: &[ValueId],
) -> Result<ValueId, TypeError> {
    let shape = builder.shape(operands[0]);
    let mut made: Vec<ValueId> = Vec::with_capacity(expr.nodes.len());
    for (node, dtype) in &expr.nodes {
        let value = match node {
            ExprNode::Operand(position) => operands[*position],
            ExprNode::Constant(scalar) => {
                let scalar = Tensor::from_values(*dtype, &[], &scalar.values(1));
                let scalar = builder.constant(scalar);
                builder.add(Broadcast { shape: shape.to_vec(), dims: Vec::new() }, &[scalar])?
            }
            ExprNode::Call(function, operands) => {
                let operands: Vec<ValueId> = operands.iter().map(|&id| made[id]).collect();
                builder.map(*function, &operands)?
            }
            ExprNode::Convert(operand) => converted(builder, made[*operand], *dtype)?,
            ExprNode::Index(_) | ExprNode::Var(_) => {
                unreachable!("derivatives of the table know no positions")
            }
        };
        made.push(value);
    }
    Ok(made[root])
}

fn broadcast(
    builder: &mut Builder<'_>,
    op: &Broadcast,
    x: ValueId,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    let ty = builder.ty(x).clone();
    let repeated = |dim: &usize| match op.dims.iter().position(|to| to == dim) {
        Some(from) => ty.shape[from] != op.shape[*dim],
        None => true,
    };
    let axes: Vec<usize> = (0..op.shape.len()).filter(repeated).collect();
    let sum = summed(builder, g, &axes)?;
    reshaped(builder, sum, &ty.shape)
}

/// A slice's worth at its place in zeros.
pub(super) fn slice(
    builder: &mut Builder<'_>,
    op: &Slice,
    ty: &TensorType,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    let shape = builder.shape(g);
    if shape.contains(&0) {
        return zeros(builder, ty);
    }
    let high = (0..ty.rank())
        .map(|dim| ty.shape[dim] - (op.start[dim] + (shape[dim] - 1) * op.stride[dim] + 1))
        .collect();
    let interior = op.stride.iter().map(|stride| stride - 1).collect();
    let zero = zeros(builder, &TensorType::new(ty.dtype, &[]))?;
    builder.add(Pad { low: op.start.clone(), high, interior }, &[g, zero])
}

fn pad(
    builder: &mut Builder<'_>,
    op: &Pad,
    x: &[ValueId],
    g: ValueId,
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let shape = builder.shape(x[0]);
    let stride: Vec<usize> = op.interior.iter().map(|between| between + 1).collect();
    let limit = (0..shape.len())
        .map(|dim| op.low[dim] + (shape[dim] * stride[dim]).saturating_sub(op.interior[dim]))
        .collect();
    let inner = if shape.contains(&0) {
        let ty = builder.ty(x[0]).clone();
        zeros(builder, &ty)?
    } else {
        builder.add(Slice { start: op.low.clone(), limit, stride }, &[g])?
    };
    worth.add(builder, x[0], inner)?;
    if worth.wants(x[1]) {
        let all: Vec<usize> = (0..shape.len()).collect();
        let (whole, inner) = (summed(builder, g, &all)?, summed(builder, inner, &all)?);
        let rest = builder.map(ScalarFn::Sub, &[whole, inner])?;
        worth.add(builder, x[1], rest)?;
    }
    Ok(())
}

fn concat(
    builder: &mut Builder<'_>,
    axis: usize,
    x: &[ValueId],
    g: ValueId,
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let shape = builder.shape(g).to_vec();
    let mut begin = 0;
    for &value in x {
        let end = begin + builder.ty(value).shape[axis];
        if worth.wants(value) {
            let (mut start, mut limit) = (vec![0; shape.len()], shape.clone());
            (start[axis], limit[axis]) = (begin, end);
            let part = builder.add(Slice { start, limit, stride: vec![1; shape.len()] }, &[g])?;
            worth.add(builder, value, part)?;
        }
        begin = end;
    }
    Ok(())
}

/// Positions along `axis` of `shape`.
pub(super) fn positions(
    builder: &mut Builder<'_>,
    shape: &[usize],
    axis: usize,
) -> Result<ValueId, TypeError> {
    builder.add(crate::op::Iota { ty: TensorType::new(DType::I64, shape), axis }, &[])
}

/// Kept for those that need the value spread along one more axis.
pub(super) fn along(
    builder: &mut Builder<'_>,
    x: ValueId,
    shape: &[usize],
    axis: usize,
) -> Result<ValueId, TypeError> {
    spread(builder, x, shape, &[axis])
}
