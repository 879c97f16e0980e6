//! Nodes with blocks, and composites. A block's backward pass computes the block anew and goes back through the copy, so
//! that nothing of its inside has to be kept.

use super::values::{reshaped, zeros};
use super::{Worth, pull_back};
use crate::graph::{Block, Builder, Node, NodeId, ValueId};
use crate::op::{DynamicSlice, DynamicUpdate, For, If, Op, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use smallvec::SmallVec;
use std::collections::BTreeMap;

type Map = BTreeMap<ValueId, ValueId>;

fn mapped(map: &Map, value: ValueId) -> ValueId {
    map.get(&value).copied().unwrap_or(value)
}

/// Adds copies of nodes; `map` says what stands for which value, and learns the copies' results.
pub(super) fn copy(
    builder: &mut Builder<'_>,
    nodes: &[NodeId],
    map: &mut Map,
) -> Result<(), TypeError> {
    for &id in nodes {
        let mut node = builder.function.nodes[id].clone();
        node.operands.iter_mut().for_each(|value| *value = mapped(map, *value));
        let mut blocks = Vec::new();
        for block in &node.blocks {
            let types: Vec<TensorType> =
                block.params.iter().map(|&param| builder.ty(param).clone()).collect();
            blocks.push(builder.block(&types, |inner, params| {
                map.extend(block.params.iter().copied().zip(params.iter().copied()));
                copy(inner, &block.nodes, map)?;
                Ok(block.results.iter().map(|&result| mapped(map, result)).collect())
            })?);
        }
        node.blocks = blocks;
        let mut results = SmallVec::new();
        for &result in &node.results {
            let ty = builder.ty(result).clone();
            let copy = builder.function.value(ty, None);
            map.insert(result, copy);
            results.push(copy);
        }
        node.results = results;
        let copy = builder.function.nodes.push(node);
        builder.nodes.push(copy);
    }
    Ok(())
}

/// Each wanted value once.
fn distinct(values: impl IntoIterator<Item = ValueId>, worth: &Worth) -> Vec<ValueId> {
    let mut found = Vec::new();
    for value in values {
        if worth.wants(value) && !found.contains(&value) {
            found.push(value);
        }
    }
    found
}

pub(super) fn composite(
    builder: &mut Builder<'_>,
    node: &Node,
    results: &[Option<ValueId>],
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let before = builder.nodes.len();
    let Some(formula) = node.op.expand(builder, &node.operands) else { return Ok(()) };
    let formula = formula?;
    through(builder, before, &formula, node, results, worth)
}

pub(super) fn fusion(
    builder: &mut Builder<'_>,
    node: &Node,
    results: &[Option<ValueId>],
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let before = builder.nodes.len();
    let block = &node.blocks[0];
    let mut map: Map = block.params.iter().copied().zip(node.operands.iter().copied()).collect();
    copy(builder, &block.nodes, &mut map)?;
    let copies: Vec<ValueId> = block.results.iter().map(|&value| mapped(&map, value)).collect();
    through(builder, before, &copies, node, results, worth)
}

/// Goes back through the nodes from `before` on, which compute the results of `node` anew.
fn through(
    builder: &mut Builder<'_>,
    before: usize,
    copies: &[ValueId],
    node: &Node,
    results: &[Option<ValueId>],
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let nodes: Vec<NodeId> = builder.nodes[before..].to_vec();
    let seeds: Vec<(ValueId, ValueId)> =
        copies.iter().zip(results).filter_map(|(&copy, &g)| Some((copy, g?))).collect();
    let wanted = distinct(node.operands.iter().copied(), worth);
    let parts = pull_back(builder, &nodes, &seeds, &wanted)?;
    for (value, part) in wanted.into_iter().zip(parts) {
        if let Some(part) = part {
            worth.add(builder, value, part)?;
        }
    }
    Ok(())
}

/// What `wanted` are worth by a copy of a block inside the block under construction; zeros where nothing.
fn within(
    inner: &mut Builder<'_>,
    block: &Block,
    map: &mut Map,
    seeds: &[(usize, ValueId)],
    wanted: &[ValueId],
) -> Result<Vec<ValueId>, TypeError> {
    let before = inner.nodes.len();
    copy(inner, &block.nodes, map)?;
    let nodes: Vec<NodeId> = inner.nodes[before..].to_vec();
    let seeds: Vec<(ValueId, ValueId)> =
        seeds.iter().map(|&(result, g)| (mapped(map, block.results[result]), g)).collect();
    let parts = pull_back(inner, &nodes, &seeds, wanted)?;
    let mut found = Vec::new();
    for (&value, part) in wanted.iter().zip(parts) {
        let ty = inner.ty(value).clone();
        found.push(match part {
            Some(part) => part,
            None => zeros(inner, &ty)?,
        });
    }
    Ok(found)
}

pub(super) fn if_(
    builder: &mut Builder<'_>,
    node: &Node,
    results: &[Option<ValueId>],
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let captured = node.blocks.iter().flat_map(|block| builder.function.captures(block));
    let wanted = distinct(captured.collect::<Vec<ValueId>>(), worth);
    let seeds: Vec<(usize, ValueId)> =
        results.iter().enumerate().filter_map(|(index, &g)| Some((index, g?))).collect();
    let mut blocks = Vec::new();
    for block in &node.blocks {
        blocks.push(
            builder
                .block(&[], |inner, _| within(inner, block, &mut Map::new(), &seeds, &wanted))?,
        );
    }
    let parts = builder.add_many(Op::If(If {}), &node.operands, blocks)?;
    for (&value, &part) in wanted.iter().zip(&parts) {
        worth.add(builder, value, part)?;
    }
    Ok(())
}

/// A first loop runs forward again and keeps what is carried into each iteration; a second runs back.
pub(super) fn for_(
    builder: &mut Builder<'_>,
    node: &Node,
    count: usize,
    results: &[Option<ValueId>],
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let block = &node.blocks[0];
    let types: Vec<TensorType> =
        node.operands.iter().map(|&value| builder.ty(value).clone()).collect();
    let floats: Vec<usize> = (0..types.len()).filter(|&i| types[i].dtype.is_float()).collect();
    let captures = distinct(builder.function.captures(block), worth);
    let kept = keep(builder, node, count, &types)?;

    // Worths of what is carried, then sums for what is captured.
    let mut carried = Vec::new();
    for &index in &floats {
        carried.push(match results[index] {
            Some(g) => g,
            None => zeros(builder, &types[index])?,
        });
    }
    for &value in &captures {
        let ty = builder.ty(value).clone();
        carried.push(zeros(builder, &ty)?);
    }
    let counter = TensorType::new(DType::I64, &[]);
    let mut params = vec![counter];
    params.extend(carried.iter().map(|&value| builder.ty(value).clone()));
    let body = builder.block(&params, |inner, params| {
        let last = inner.constant(Tensor::scalar(count.saturating_sub(1) as i64));
        let step = inner.map(ScalarFn::Sub, &[last, params[0]])?;
        let mut map = Map::from([(block.params[0], step)]);
        let mut wanted = Vec::new();
        for (index, ty) in types.iter().enumerate() {
            let value = taken(inner, kept[index], step, ty)?;
            map.insert(block.params[index + 1], value);
            if ty.dtype.is_float() {
                wanted.push(value);
            }
        }
        wanted.extend(&captures);
        let seeds: Vec<(usize, ValueId)> =
            floats.iter().copied().zip(params[1..].iter().copied()).collect();
        let mut parts = within(inner, block, &mut map, &seeds, &wanted)?;
        let sums = &params[1 + floats.len()..];
        for (part, &sum) in parts[floats.len()..].iter_mut().zip(sums) {
            *part = inner.map(ScalarFn::Add, &[sum, *part])?;
        }
        Ok(parts)
    })?;
    let parts = builder.add_many(For { count }, &carried, vec![body])?;
    for (&index, &part) in floats.iter().zip(&parts) {
        worth.add(builder, node.operands[index], part)?;
    }
    for (&value, &part) in captures.iter().zip(&parts[floats.len()..]) {
        worth.add(builder, value, part)?;
    }
    Ok(())
}

/// For each carried value the stack of what it was at the begin of every iteration.
fn keep(
    builder: &mut Builder<'_>,
    node: &Node,
    count: usize,
    types: &[TensorType],
) -> Result<Vec<ValueId>, TypeError> {
    let block = &node.blocks[0];
    let stack = |ty: &TensorType| {
        let mut shape = ty.shape.clone();
        shape.insert(0, count);
        TensorType { dtype: ty.dtype, shape }
    };
    let mut carried = node.operands.clone();
    for ty in types {
        carried.push(zeros(builder, &stack(ty))?);
    }
    let mut params = vec![TensorType::new(DType::I64, &[])];
    params.extend(types.iter().cloned());
    params.extend(types.iter().map(stack));
    let body = builder.block(&params, |inner, params| {
        let (values, stacks) = params[1..].split_at(types.len());
        let zero = inner.constant(Tensor::scalar(0i64));
        let mut stored = Vec::new();
        for ((&value, &stack), ty) in values.iter().zip(stacks).zip(types) {
            let row = reshaped(inner, value, &row(ty))?;
            let mut operands = vec![stack, row, params[0]];
            operands.resize(3 + ty.rank(), zero);
            stored.push(inner.add(DynamicUpdate {}, &operands)?);
        }
        let mut map: Map = block.params.iter().copied().zip(params.iter().copied()).collect();
        copy(inner, &block.nodes, &mut map)?;
        let results = block.results.iter().map(|&value| mapped(&map, value));
        Ok(results.chain(stored).collect())
    })?;
    let results = builder.add_many(For { count }, &carried, vec![body])?;
    Ok(results[types.len()..].to_vec())
}

fn row(ty: &TensorType) -> Vec<usize> {
    let mut shape = vec![1];
    shape.extend(&ty.shape);
    shape
}

/// One row of a stack.
fn taken(
    builder: &mut Builder<'_>,
    stack: ValueId,
    step: ValueId,
    ty: &TensorType,
) -> Result<ValueId, TypeError> {
    let zero = builder.constant(Tensor::scalar(0i64));
    let mut operands = vec![stack, step];
    operands.resize(2 + ty.rank(), zero);
    let row = builder.add(DynamicSlice { sizes: row(ty) }, &operands)?;
    reshaped(builder, row, &ty.shape)
}

/// Goes back through a segment of nodes by a copy inside a loop of one iteration. What the segment made in between is
/// then needed by nobody else, and no pass joins the copy with the original, as it would outside of a block.
pub(super) fn segment(
    builder: &mut Builder<'_>,
    nodes: &[NodeId],
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let mut results = Vec::new();
    let mut read = Vec::new();
    for &id in nodes {
        let node = &builder.function.nodes[id];
        read.extend(super::reads(builder, node));
        results.extend(node.results.iter().copied());
    }
    let seeds: Vec<(usize, ValueId)> = results
        .iter()
        .enumerate()
        .filter_map(|(index, value)| Some((index, *worth.found.get(value)?)))
        .collect();
    let outside = read.into_iter().filter(|value| !results.contains(value));
    let wanted = distinct(outside.collect::<Vec<ValueId>>(), worth);
    if seeds.is_empty() || wanted.is_empty() {
        return Ok(());
    }
    let mut carried = Vec::new();
    for &value in &wanted {
        let ty = builder.ty(value).clone();
        carried.push(zeros(builder, &ty)?);
    }
    let block = Block { params: Vec::new(), nodes: nodes.to_vec(), results };
    let mut params = vec![TensorType::new(DType::I64, &[])];
    params.extend(carried.iter().map(|&value| builder.ty(value).clone()));
    let body = builder
        .block(&params, |inner, _| within(inner, &block, &mut Map::new(), &seeds, &wanted))?;
    let parts = builder.add_many(For { count: 1 }, &carried, vec![body])?;
    for (&value, &part) in wanted.iter().zip(&parts) {
        worth.add(builder, value, part)?;
    }
    Ok(())
}
