//! Mixtures of experts: which serve a token, with which weights, and what they make of it.

use super::config::{Experts, Family};
use super::layer::Scope;
use super::model::{ExpertForm, everywhere, reshaped};
use crate::graph::ValueId;
use crate::kernel::Combine;
use crate::op::{
    Broadcast, Concat, Contract, Convert, Gather, Iota, Reduce, Slice, Softmax, TopK, TypeError,
};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};

/// What the weights of all experts are, stacked: each begins with the dimension of experts.
struct Stacked {
    /// Gate and up projections: two of `[experts, width, hidden]`, or one of `[experts, hidden, 2 · width]` in which they
    /// alternate.
    inner: Vec<ValueId>,
    inner_bias: Option<ValueId>,
    /// `[experts, hidden, width]`, or `[experts, width, hidden]` with the biases.
    outer: ValueId,
    outer_bias: Option<ValueId>,
}

/// The sum of what the chosen experts make of each token.
pub(super) fn experts(
    scope: &mut Scope<'_, '_>,
    mixture: &Experts,
    prefix: &str,
    x: ValueId,
) -> Result<ValueId, TypeError> {
    let shape = scope.builder.shape(x).to_vec();
    let (rows, hidden) = (shape[0] * shape[1], shape[2]);
    let gpt_oss = scope.config.family == Family::GptOss;
    let router = match scope.config.family {
        Family::Mixtral => "block_sparse_moe.gate",
        Family::GptOss => "mlp.router",
        Family::Qwen3Moe
        | Family::Llama
        | Family::Mistral
        | Family::Qwen2
        | Family::Qwen3
        | Family::Gpt2 => "mlp.gate",
    };
    let logits = scope.linear(&format!("{prefix}.{router}"), x, mixture.count, gpt_oss)?;
    let logits = reshaped(scope.builder, logits, &[rows, mixture.count])?;
    let (weights, chosen) = route(scope, mixture, logits)?;
    let flat = reshaped(scope.builder, x, &[rows, hidden])?;
    let stacked = stack(scope, mixture, prefix)?;
    let result = match scope.options.experts {
        ExpertForm::Gathered => gathered(scope, mixture, &stacked, flat, weights, chosen)?,
        ExpertForm::Dense => {
            let weights = spread(scope, mixture, weights, chosen)?;
            apply(scope, mixture, &stacked, flat, weights, false)?
        }
    };
    reshaped(scope.builder, result, &shape)
}

/// The weights `f32[rows, chosen]` and numbers `i64[rows, chosen]` of the experts that serve each row.
fn route(
    scope: &mut Scope<'_, '_>,
    mixture: &Experts,
    logits: ValueId,
) -> Result<(ValueId, ValueId), TypeError> {
    let builder = &mut *scope.builder;
    let accumulate = builder.ty(logits).dtype.accumulator();
    let logits = builder.add(Convert { dtype: accumulate }, &[logits])?;
    let shares = builder.add(Softmax { axis: 1 }, &[logits])?;
    let top = TopK { k: mixture.chosen, axis: 1, descending: true };
    let top = builder.add_many(top, &[shares], Vec::new())?;
    let mut weights = top[0];
    if mixture.normalized {
        let sum = Reduce { combine: Combine::Sum, axes: vec![1], accumulate };
        let sum = builder.add(sum, &[weights])?;
        let sum = builder.spread(sum, weights, 1)?;
        weights = builder.map(ScalarFn::Div, &[weights, sum])?;
    }
    Ok((weights, top[1]))
}

/// The weight of every expert for each row: zero where it is not chosen.
fn spread(
    scope: &mut Scope<'_, '_>,
    mixture: &Experts,
    weights: ValueId,
    chosen: ValueId,
) -> Result<ValueId, TypeError> {
    let builder = &mut *scope.builder;
    let accumulate = builder.ty(weights).dtype;
    let shape = [builder.ty(weights).shape[0], mixture.chosen, mixture.count];
    let expert = Iota { ty: TensorType::new(DType::I64, &shape), axis: 2 };
    let expert = builder.add(expert, &[])?;
    let broadcast = Broadcast { shape: shape.to_vec(), dims: vec![0, 1] };
    let chosen = builder.add(broadcast.clone(), &[chosen])?;
    let weights = builder.add(broadcast, &[weights])?;
    let is = builder.map(ScalarFn::Eq, &[expert, chosen])?;
    let zero = everywhere(builder, weights, 0.0)?;
    let weights = builder.map(ScalarFn::Select, &[is, weights, zero])?;
    builder.add(Reduce { combine: Combine::Sum, axes: vec![1], accumulate }, &[weights])
}

fn stack(scope: &mut Scope<'_, '_>, mixture: &Experts, prefix: &str) -> Result<Stacked, TypeError> {
    let (count, width, hidden) = (mixture.count, mixture.width, scope.config.hidden);
    if scope.config.family == Family::GptOss {
        let name = |what: &str| format!("{prefix}.mlp.experts.{what}");
        let inner = scope.weight(&name("gate_up_proj"), &[count, hidden, 2 * width]);
        let inner_bias = scope.weight(&name("gate_up_proj_bias"), &[count, 2 * width]);
        let outer = scope.weight(&name("down_proj"), &[count, width, hidden]);
        let outer_bias = scope.weight(&name("down_proj_bias"), &[count, hidden]);
        let (inner_bias, outer_bias) = (Some(inner_bias), Some(outer_bias));
        return Ok(Stacked { inner: vec![inner], inner_bias, outer, outer_bias });
    }
    let (folder, names) = match scope.config.family {
        Family::Mixtral => ("block_sparse_moe", ["w1", "w3", "w2"]),
        Family::Qwen3Moe
        | Family::GptOss
        | Family::Llama
        | Family::Mistral
        | Family::Qwen2
        | Family::Qwen3
        | Family::Gpt2 => ("mlp", ["gate_proj", "up_proj", "down_proj"]),
    };
    let mut joined = |what: &str, shape: [usize; 2]| {
        let parts = (0..count)
            .map(|expert| {
                let name = format!("{prefix}.{folder}.experts.{expert}.{what}.weight");
                let weight = scope.weight(&name, &shape);
                reshaped(scope.builder, weight, &[1, shape[0], shape[1]])
            })
            .collect::<Result<Vec<ValueId>, TypeError>>()?;
        scope.builder.add(Concat { axis: 0 }, &parts)
    };
    let gate = joined(names[0], [width, hidden])?;
    let up = joined(names[1], [width, hidden])?;
    let outer = joined(names[2], [hidden, width])?;
    Ok(Stacked { inner: vec![gate, up], inner_bias: None, outer, outer_bias: None })
}

/// The same with the weights of the chosen experts gathered for each row.
fn gathered(
    scope: &mut Scope<'_, '_>,
    mixture: &Experts,
    stacked: &Stacked,
    x: ValueId,
    weights: ValueId,
    chosen: ValueId,
) -> Result<ValueId, TypeError> {
    let mut pick = |weight: ValueId| scope.builder.add(Gather { axis: 0 }, &[weight, chosen]);
    let picked = Stacked {
        inner: stacked.inner.iter().map(|&weight| pick(weight)).collect::<Result<_, _>>()?,
        inner_bias: stacked.inner_bias.map(&mut pick).transpose()?,
        outer: pick(stacked.outer)?,
        outer_bias: stacked.outer_bias.map(&mut pick).transpose()?,
    };
    apply(scope, mixture, &picked, x, weights, true)
}

/// What experts make of rows `[rows, hidden]`, summed with the weights `[rows, experts]`. Where the experts' weights are
/// of each row, they begin with its dimension.
fn apply(
    scope: &mut Scope<'_, '_>,
    mixture: &Experts,
    stacked: &Stacked,
    x: ValueId,
    weights: ValueId,
    of_each_row: bool,
) -> Result<ValueId, TypeError> {
    let (dtype, accumulate) = (scope.dtype, scope.dtype.accumulator());
    let own = usize::from(of_each_row);
    let rows = if of_each_row { vec![vec![0, 0]] } else { Vec::new() };
    let interleaved = stacked.inner.len() == 1;
    let hidden = if interleaved { 1 + own } else { 2 + own };
    let mut inner = Vec::new();
    for &weight in &stacked.inner {
        let over = vec![vec![1, hidden]];
        let contract = Contract { batch: rows.clone(), over, accumulate, dtype: accumulate };
        inner.push(scope.builder.add(contract, &[x, weight])?);
    }
    if let Some(bias) = stacked.inner_bias {
        inner[0] = added(scope, inner[0], bias, own)?;
    }
    if interleaved {
        let both = inner[0];
        inner = vec![every_other(scope, both, 0)?, every_other(scope, both, 1)?];
    }
    let active = activate(scope, mixture, inner[0], inner[1])?;
    let shape = scope.builder.shape(active).to_vec();
    let share = Broadcast { shape, dims: vec![0, 1] };
    let share = scope.builder.add(share, &[weights])?;
    let active = scope.builder.map(ScalarFn::Mul, &[active, share])?;
    let active = scope.builder.add(Convert { dtype }, &[active])?;
    // Down projections are `[experts, width, hidden]` where gate and up alternate, else `[experts, hidden, width]`.
    let width = if interleaved { 1 + own } else { 2 + own };
    let over = vec![vec![1, own], vec![2, width]];
    let contract = Contract { batch: rows.clone(), over, accumulate, dtype: accumulate };
    let mut result = scope.builder.add(contract, &[active, stacked.outer])?;
    if let Some(bias) = stacked.outer_bias {
        let bias = scope.builder.add(Convert { dtype: accumulate }, &[bias])?;
        let over = vec![vec![1, own]];
        let contract = Contract { batch: rows, over, accumulate, dtype: accumulate };
        let bias = scope.builder.add(contract, &[weights, bias])?;
        result = scope.builder.map(ScalarFn::Add, &[result, bias])?;
    }
    scope.builder.add(Convert { dtype }, &[result])
}

/// A bias `[experts, width]`, or `[rows, experts, width]`, added to `[rows, experts, width]`.
fn added(
    scope: &mut Scope<'_, '_>,
    x: ValueId,
    bias: ValueId,
    own: usize,
) -> Result<ValueId, TypeError> {
    let ty = scope.builder.ty(x).clone();
    let bias = scope.builder.add(Convert { dtype: ty.dtype }, &[bias])?;
    let dims = (1 - own..3).collect();
    let bias = scope.builder.add(Broadcast { shape: ty.shape.to_vec(), dims }, &[bias])?;
    scope.builder.map(ScalarFn::Add, &[x, bias])
}

/// Every second element of the last dimension.
fn every_other(scope: &mut Scope<'_, '_>, x: ValueId, first: usize) -> Result<ValueId, TypeError> {
    let shape = scope.builder.shape(x).to_vec();
    let slice = Slice { start: vec![0, 0, first], limit: shape, stride: vec![1, 1, 2] };
    scope.builder.add(slice, &[x])
}

fn activate(
    scope: &mut Scope<'_, '_>,
    mixture: &Experts,
    gate: ValueId,
    up: ValueId,
) -> Result<ValueId, TypeError> {
    let builder = &mut *scope.builder;
    let Some(limit) = mixture.clamp else {
        let share = builder.map(ScalarFn::Sigmoid, &[gate])?;
        let gate = builder.map(ScalarFn::Mul, &[gate, share])?;
        return builder.map(ScalarFn::Mul, &[gate, up]);
    };
    let high = everywhere(builder, gate, limit)?;
    let low = everywhere(builder, gate, -limit)?;
    let gate = builder.map(ScalarFn::Min, &[gate, high])?;
    let up = builder.map(ScalarFn::Min, &[up, high])?;
    let up = builder.map(ScalarFn::Max, &[up, low])?;
    const SHARPNESS: f64 = 1.702;
    let sharpness = everywhere(builder, gate, SHARPNESS)?;
    let share = builder.map(ScalarFn::Mul, &[gate, sharpness])?;
    let share = builder.map(ScalarFn::Sigmoid, &[share])?;
    let gate = builder.map(ScalarFn::Mul, &[gate, share])?;
    let one = everywhere(builder, up, 1.0)?;
    let up = builder.map(ScalarFn::Add, &[up, one])?;
    builder.map(ScalarFn::Mul, &[gate, up])
}
