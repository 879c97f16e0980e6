//! One layer: attention and what follows it, each behind a norm and around a residual.

use super::attend::{Masks, attend};
use super::config::{AttentionBias, Config, Family, FeedForward};
use super::experts::experts;
use super::model::{Form, Options, reshaped};
use super::rope::{Rotations, rotate};
use crate::graph::{Builder, Origins, ValueId};
use crate::op::{
    Approximation, Broadcast, Contract, DynamicUpdate, Gelu, Iota, LayerNorm, Parameter, RmsNorm,
    Silu, Slice, Transpose, TypeError,
};
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use indexmap::IndexSet;

/// What the parts of a model are built with.
pub(super) struct Scope<'a, 'b> {
    pub(super) builder: &'a mut Builder<'b>,
    pub(super) config: &'a Config,
    pub(super) options: &'a Options,
    pub(super) dtype: DType,
    origins: &'a mut IndexSet<String>,
}

impl<'a, 'b> Scope<'a, 'b> {
    pub(super) fn new(
        config: &'a Config,
        options: &'a Options,
        origins: &'a mut IndexSet<String>,
        builder: &'a mut Builder<'b>,
    ) -> Scope<'a, 'b> {
        let dtype = options.dtype.unwrap_or(config.dtype);
        Scope { builder, config, options, dtype, origins }
    }

    /// Says where the nodes that follow come from.
    pub(super) fn enter(&mut self, place: &str) {
        let (index, _) = self.origins.insert_full(place.to_owned());
        let index = u32::try_from(index).expect("a model has few layers");
        self.builder.origins = Origins::from_slice(&[index]);
    }

    /// A weight of that name and shape.
    pub(super) fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let ty = TensorType::new(self.dtype, shape);
        match self.options.form {
            Form::Inputs => self.builder.function.parameter(ty, name),
            Form::Parameters => {
                let parameter = Parameter { name: name.to_owned(), ty };
                let value = self.builder.add(parameter, &[]).expect("a weight's sizes are checked");
                self.builder.function.values[value].name = Some(name.to_owned());
                value
            }
        }
    }

    /// The positions of the tokens, `i64[tokens]`.
    pub(super) fn positions(&mut self, first: Option<ValueId>) -> Result<ValueId, TypeError> {
        let (_, tokens, _) = self.options.workload.sizes();
        let ty = TensorType::new(DType::I64, &[tokens]);
        let steps = self.builder.add(Iota { ty, axis: 0 }, &[])?;
        let Some(first) = first else { return Ok(steps) };
        let broadcast = Broadcast { shape: vec![tokens], dims: Vec::new() };
        let first = self.builder.add(broadcast, &[first])?;
        self.builder.map(ScalarFn::Add, &[first, steps])
    }

    /// The product of hidden states and a weight, over those dimensions.
    pub(super) fn product(
        &mut self,
        x: ValueId,
        weight: ValueId,
        over: [usize; 2],
    ) -> Result<ValueId, TypeError> {
        let (dtype, accumulate) = (self.dtype, self.dtype.accumulator());
        let contract = Contract { batch: Vec::new(), over: vec![over.to_vec()], accumulate, dtype };
        self.builder.add(contract, &[x, weight])
    }

    /// A projection `name.weight`, and `name.bias` where there is one.
    pub(super) fn linear(
        &mut self,
        name: &str,
        x: ValueId,
        width: usize,
        bias: bool,
    ) -> Result<ValueId, TypeError> {
        let from = self.builder.ty(x).shape[2];
        // GPT-2 keeps its projections the other way round.
        let (shape, over) = match self.config.family {
            Family::Gpt2 => ([from, width], [2, 0]),
            Family::Llama
            | Family::Mistral
            | Family::Qwen2
            | Family::Qwen3
            | Family::Qwen3Moe
            | Family::Mixtral
            | Family::GptOss => ([width, from], [2, 1]),
        };
        let weight = self.weight(&format!("{name}.weight"), &shape);
        let result = self.product(x, weight, over)?;
        if !bias {
            return Ok(result);
        }
        let bias = self.weight(&format!("{name}.bias"), &[width]);
        self.added(result, bias)
    }

    /// A vector added to the last dimension.
    fn added(&mut self, x: ValueId, vector: ValueId) -> Result<ValueId, TypeError> {
        let shape = self.builder.shape(x).to_vec();
        let dims = vec![shape.len() - 1];
        let vector = self.builder.add(Broadcast { shape, dims }, &[vector])?;
        self.builder.map(ScalarFn::Add, &[x, vector])
    }

    /// The family's norm over the last dimension.
    pub(super) fn norm(&mut self, name: &str, x: ValueId) -> Result<ValueId, TypeError> {
        let axis = self.builder.ty(x).rank() - 1;
        let size = self.builder.ty(x).shape[axis];
        let epsilon = self.config.epsilon;
        let scale = self.weight(&format!("{name}.weight"), &[size]);
        if self.config.family == Family::Gpt2 {
            let bias = self.weight(&format!("{name}.bias"), &[size]);
            return self.builder.add(LayerNorm { axis, epsilon }, &[x, scale, bias]);
        }
        self.builder.add(RmsNorm { axis, epsilon }, &[x, scale])
    }
}

/// The next hidden states, and the keys and values of the layer.
pub(super) fn layer(
    scope: &mut Scope<'_, '_>,
    index: usize,
    hidden: ValueId,
    rotations: Option<Rotations>,
    masks: &mut Masks,
    cache: Option<([ValueId; 2], ValueId)>,
) -> Result<(ValueId, ValueId, ValueId), TypeError> {
    let config = scope.config;
    let gpt2 = config.family == Family::Gpt2;
    let prefix =
        if gpt2 { format!("transformer.h.{index}") } else { format!("model.layers.{index}") };
    scope.enter(&format!("layers.{index}.attention"));
    let before = if gpt2 { "ln_1" } else { "input_layernorm" };
    let normal = scope.norm(&format!("{prefix}.{before}"), hidden)?;
    let [q, k, v] = projections(scope, &prefix, normal)?;
    let rotated = |scope: &mut Scope<'_, '_>, x: ValueId| match rotations {
        Some(rotations) => rotate(scope.builder, x, rotations),
        None => Ok(x),
    };
    let (q, mut k) = (rotated(scope, q)?, rotated(scope, k)?);
    let mut v = v;
    if let Some((caches, position)) = cache {
        let zero = scope.builder.constant(Tensor::scalar(0i64));
        let mut stored = |cache: ValueId, new: ValueId| {
            scope.builder.add(DynamicUpdate {}, &[cache, new, zero, zero, position, zero])
        };
        (k, v) = (stored(caches[0], k)?, stored(caches[1], v)?);
    }
    let sinks =
        config.sinks.then(|| scope.weight(&format!("{prefix}.self_attn.sinks"), &[config.heads]));
    let window = config.windows[index];
    let seen = attend(scope.builder, [q, k, v], sinks, masks, window, cache.is_none())?;
    let seen = scope.builder.add(Transpose { perm: vec![0, 2, 1, 3] }, &[seen])?;
    let (batch, tokens, _) = scope.options.workload.sizes();
    let seen = reshaped(scope.builder, seen, &[batch, tokens, config.query_width()])?;
    let name = if gpt2 { "attn.c_proj" } else { "self_attn.o_proj" };
    let bias = config.bias == AttentionBias::All;
    let out = scope.linear(&format!("{prefix}.{name}"), seen, config.hidden, bias)?;
    let hidden = scope.builder.map(ScalarFn::Add, &[hidden, out])?;

    scope.enter(&format!("layers.{index}.feed-forward"));
    let before = if gpt2 { "ln_2" } else { "post_attention_layernorm" };
    let normal = scope.norm(&format!("{prefix}.{before}"), hidden)?;
    let out = match &config.feed_forward {
        FeedForward::Gated { width, bias } => {
            let gate = scope.linear(&format!("{prefix}.mlp.gate_proj"), normal, *width, *bias)?;
            let gate = scope.builder.add(Silu {}, &[gate])?;
            let up = scope.linear(&format!("{prefix}.mlp.up_proj"), normal, *width, *bias)?;
            let both = scope.builder.map(ScalarFn::Mul, &[gate, up])?;
            scope.linear(&format!("{prefix}.mlp.down_proj"), both, config.hidden, *bias)?
        }
        FeedForward::Plain { width } => {
            let up = scope.linear(&format!("{prefix}.mlp.c_fc"), normal, *width, true)?;
            let up = scope.builder.add(Gelu { approximate: Approximation::Tanh }, &[up])?;
            scope.linear(&format!("{prefix}.mlp.c_proj"), up, config.hidden, true)?
        }
        FeedForward::Experts(mixture) => experts(scope, mixture, &prefix, normal)?,
    };
    let hidden = scope.builder.map(ScalarFn::Add, &[hidden, out])?;
    Ok((hidden, k, v))
}

/// Queries, keys and values, `[batch, heads, tokens, size]`.
fn projections(
    scope: &mut Scope<'_, '_>,
    prefix: &str,
    x: ValueId,
) -> Result<[ValueId; 3], TypeError> {
    let config = scope.config;
    let bias = config.bias != AttentionBias::Absent;
    let (queries, keys) = (config.query_width(), config.key_width());
    if config.family == Family::Gpt2 {
        let all = scope.linear(&format!("{prefix}.attn.c_attn"), x, queries + 2 * keys, bias)?;
        let shape = scope.builder.shape(all).to_vec();
        let mut part = |from: usize, width: usize| {
            let slice = Slice {
                start: vec![0, 0, from],
                limit: vec![shape[0], shape[1], from + width],
                stride: vec![1; 3],
            };
            scope.builder.add(slice, &[all])
        };
        let parts = [part(0, queries)?, part(queries, keys)?, part(queries + keys, keys)?];
        let [q, k, v] = parts;
        return Ok([
            split(scope, q, config.heads, None)?,
            split(scope, k, config.groups, None)?,
            split(scope, v, config.groups, None)?,
        ]);
    }
    let norm =
        |what: &str| config.normalized_heads.then(|| format!("{prefix}.self_attn.{what}_norm"));
    let q = scope.linear(&format!("{prefix}.self_attn.q_proj"), x, queries, bias)?;
    let q = split(scope, q, config.heads, norm("q"))?;
    let k = scope.linear(&format!("{prefix}.self_attn.k_proj"), x, keys, bias)?;
    let k = split(scope, k, config.groups, norm("k"))?;
    let v = scope.linear(&format!("{prefix}.self_attn.v_proj"), x, keys, bias)?;
    let v = split(scope, v, config.groups, None)?;
    Ok([q, k, v])
}

/// `[batch, tokens, heads · size]` as `[batch, heads, tokens, size]`, normalized where asked.
fn split(
    scope: &mut Scope<'_, '_>,
    x: ValueId,
    heads: usize,
    norm: Option<String>,
) -> Result<ValueId, TypeError> {
    let (batch, tokens, _) = scope.options.workload.sizes();
    let mut x = reshaped(scope.builder, x, &[batch, tokens, heads, scope.config.head_size])?;
    if let Some(name) = norm {
        x = scope.norm(&name, x)?;
    }
    scope.builder.add(Transpose { perm: vec![0, 2, 1, 3] }, &[x])
}
