//! From a configuration to a graph: embedding, layers, logits, and what each workload adds around them.

use super::config::{Config, Family};
use super::layer::{Scope, layer};
use super::{attend, rope};
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::graph::{Builder, Function, Graph, ValueId};
use crate::kernel::Combine;
use crate::op::{Broadcast, Convert, Gather, Iota, LogSoftmax, Reduce, Reshape, Slice, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use indexmap::IndexSet;

/// What the graph computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// From `tokens` the `logits`, and the keys and values of every layer as `layers.N.key` and `layers.N.value`.
    Prefill {
        /// How many sequences.
        batch: usize,
        /// How long each is.
        tokens: usize,
    },
    /// From `tokens` at `position` and what follows it the `logits`; keys and values of every layer are state.
    Decode {
        /// How many sequences, all at the same position.
        batch: usize,
        /// How many tokens each gets at once.
        tokens: usize,
        /// For how many positions there is room.
        capacity: usize,
    },
    /// From `tokens` and the `targets` that should follow each the `loss`: the mean of −log of their probabilities.
    Train {
        /// How many sequences.
        batch: usize,
        /// How long each is.
        tokens: usize,
    },
}

/// What the weights are in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Parameters with a name and no data.
    Parameters,
    /// Inputs of the function, behind all others.
    Inputs,
}

/// Of which tokens there are logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// Of each.
    All,
    /// Of the last of each sequence.
    Last,
}

/// How experts are computed. Both give the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpertForm {
    /// The weights of the chosen ones are gathered for each token: no needless product, good for few tokens.
    Gathered,
    /// All of them for every token, with weight zero where they are not chosen: good for tests and few experts.
    Dense,
}

/// How a graph is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What it computes.
    pub workload: Workload,
    /// What the weights are.
    pub form: Form,
    /// The type of weights and hidden states; the configuration's where not given.
    pub dtype: Option<DType>,
    /// Of which tokens there are logits; training wants all.
    pub logits: Logits,
    /// How experts are computed.
    pub experts: ExpertForm,
}

impl Options {
    /// That workload with the configuration's type, weights as parameters, logits of the last token, and experts as
    /// suits the number of tokens.
    pub fn new(config: &Config, workload: Workload) -> Options {
        let (batch, tokens, _) = workload.sizes();
        let few = config.experts().is_some_and(|experts| {
            batch.saturating_mul(tokens).saturating_mul(experts.chosen) <= experts.count
        });
        Options {
            workload,
            form: Form::Parameters,
            dtype: None,
            logits: Logits::Last,
            experts: if few { ExpertForm::Gathered } else { ExpertForm::Dense },
        }
    }
}

impl Workload {
    /// Sequences, new tokens of each, and positions that a query may see.
    pub(super) fn sizes(self) -> (usize, usize, usize) {
        match self {
            Workload::Prefill { batch, tokens } | Workload::Train { batch, tokens } => {
                (batch, tokens, tokens)
            }
            Workload::Decode { batch, tokens, capacity } => (batch, tokens, capacity),
        }
    }
}

/// The graph of a model. Sizes that do not fit together are reported.
pub fn build(config: &Config, options: &Options) -> Result<Graph, Diagnostics> {
    let (batch, tokens, capacity) = options.workload.sizes();
    let wrong = |message: String| Err(Diagnostic::error(Code::Input, message).into());
    if batch == 0 || tokens == 0 {
        return wrong(format!("{batch} sequences of {tokens} tokens are none"));
    }
    if tokens > capacity {
        return wrong(format!("{tokens} tokens do not fit into a cache of {capacity} positions"));
    }
    if capacity > config.positions {
        let most = config.positions;
        return wrong(format!("{capacity} positions are more than the model's {most}"));
    }
    let mut graph = Graph::new("main");
    let mut origins = IndexSet::new();
    fill(config, options, graph.entry_mut(), &mut origins)
        .map_err(|error| Diagnostics::from(Diagnostic::error(Code::TooLarge, error.message)))?;
    graph.origins = origins;
    Ok(graph)
}

/// Every weight, in the order in which the model uses them.
pub fn weights(
    config: &Config,
    dtype: Option<DType>,
) -> Result<Vec<(String, TensorType)>, Diagnostics> {
    let workload = Workload::Prefill { batch: 1, tokens: 1 };
    let options = Options { form: Form::Inputs, dtype, ..Options::new(config, workload) };
    let graph = build(config, &options)?;
    let function = graph.entry();
    let named = |&value: &ValueId| {
        let value = &function.values[value];
        (value.name.clone().unwrap_or_default(), value.ty.clone())
    };
    // The first parameter is `tokens`.
    Ok(function.body.params.iter().skip(1).map(named).collect())
}

fn fill(
    config: &Config,
    options: &Options,
    function: &mut Function,
    origins: &mut IndexSet<String>,
) -> Result<(), TypeError> {
    let (batch, tokens, capacity) = options.workload.sizes();
    let dtype = options.dtype.unwrap_or(config.dtype);
    let ids = TensorType::new(DType::I64, &[batch, tokens]);
    let input = function.parameter(ids.clone(), "tokens");
    let mut targets = None;
    let mut position = None;
    let mut caches = Vec::new();
    match options.workload {
        Workload::Prefill { .. } => {}
        Workload::Train { .. } => targets = Some(function.parameter(ids, "targets")),
        Workload::Decode { .. } => {
            position = Some(function.parameter(TensorType::new(DType::I64, &[]), "position"));
            let ty = TensorType::new(dtype, &[batch, config.groups, capacity, config.head_size]);
            for layer in 0..config.layers {
                let mut cache =
                    |what: &str| function.parameter(ty.clone(), &format!("layers.{layer}.{what}"));
                caches.push([cache("key"), cache("value")]);
            }
        }
    }
    let mut builder = Builder::new(function);
    let mut scope = Scope::new(config, options, origins, &mut builder);
    let positions = scope.positions(position)?;
    let rotations = match &config.rope {
        Some(rope) => Some(rope::tables(scope.builder, rope, config.head_size, positions)?),
        None => None,
    };
    scope.enter("embedding");
    let prefix = if config.family == Family::Gpt2 { "transformer" } else { "model" };
    let name = if config.family == Family::Gpt2 { "wte" } else { "embed_tokens" };
    let table = [config.vocabulary, config.hidden];
    let embedding = scope.weight(&format!("{prefix}.{name}.weight"), &table);
    let mut hidden = scope.builder.add(Gather { axis: 0 }, &[embedding, input])?;
    if config.rope.is_none() {
        let table = [config.positions, config.hidden];
        let learned = scope.weight(&format!("{prefix}.wpe.weight"), &table);
        let learned = scope.builder.add(Gather { axis: 0 }, &[learned, positions])?;
        let shape = scope.builder.shape(hidden).to_vec();
        let learned = scope.builder.add(Broadcast { shape, dims: vec![1, 2] }, &[learned])?;
        hidden = scope.builder.map(ScalarFn::Add, &[hidden, learned])?;
    }
    let mut masks = attend::Masks::new(positions, capacity);
    let mut kept = Vec::new();
    for index in 0..config.layers {
        let cache = caches.get(index).map(|&cache| (cache, position.expect("decoding has one")));
        let (next, keys, values) = layer(&mut scope, index, hidden, rotations, &mut masks, cache)?;
        hidden = next;
        kept.push([keys, values]);
    }
    scope.enter("logits");
    let name = if config.family == Family::Gpt2 { "transformer.ln_f" } else { "model.norm" };
    hidden = scope.norm(name, hidden)?;
    if options.logits == Logits::Last && targets.is_none() && tokens > 1 {
        let last = Slice {
            start: vec![0, tokens - 1, 0],
            limit: vec![batch, tokens, config.hidden],
            stride: vec![1, 1, 1],
        };
        hidden = scope.builder.add(last, &[hidden])?;
    }
    let head = if config.tied { embedding } else { scope.weight("lm_head.weight", &table) };
    let logits = scope.product(hidden, head, [2, 1])?;
    let mut results = Vec::new();
    let mut state = Vec::new();
    match targets {
        Some(targets) => results.push((loss(scope.builder, logits, targets)?, "loss".to_owned())),
        None => {
            results.push((logits, "logits".to_owned()));
            let suffix = if caches.is_empty() { "" } else { ".next" };
            for (index, pair) in kept.iter().enumerate() {
                for (part, what) in ["key", "value"].into_iter().enumerate() {
                    if !caches.is_empty() {
                        // The parameters are `tokens`, `position` and then the caches.
                        state.push((2 + 2 * index + part, results.len()));
                    }
                    results.push((pair[part], format!("layers.{index}.{what}{suffix}")));
                }
            }
        }
    }
    let nodes = std::mem::take(&mut builder.nodes);
    function.body.nodes = nodes;
    function.state = state;
    for (value, name) in results {
        function.result(value, &name);
    }
    Ok(())
}

/// The mean of −log of the probabilities of the targets.
fn loss(
    builder: &mut Builder<'_>,
    logits: ValueId,
    targets: ValueId,
) -> Result<ValueId, TypeError> {
    let accumulate = builder.ty(logits).dtype.accumulator();
    let wide = builder.add(Convert { dtype: accumulate }, &[logits])?;
    let log = builder.add(LogSoftmax { axis: 2 }, &[wide])?;
    let shape = builder.shape(log).to_vec();
    let count = shape[0] * shape[1];
    let ids = TensorType::new(DType::I64, &shape);
    let ids = builder.add(Iota { ty: ids, axis: 2 }, &[])?;
    let wanted = Broadcast { shape: shape.clone(), dims: vec![0, 1] };
    let wanted = builder.add(wanted, &[targets])?;
    let wanted = builder.map(ScalarFn::Eq, &[ids, wanted])?;
    let zero = number(builder, accumulate, 0.0);
    let zero = builder.add(Broadcast { shape, dims: Vec::new() }, &[zero])?;
    let log = builder.map(ScalarFn::Select, &[wanted, log, zero])?;
    let sum = Reduce { combine: Combine::Sum, axes: vec![0, 1, 2], accumulate };
    let sum = builder.add(sum, &[log])?;
    let scale = number(builder, accumulate, -1.0 / count as f64);
    builder.map(ScalarFn::Mul, &[sum, scale])
}

/// A scalar constant.
pub(super) fn number(builder: &mut Builder<'_>, dtype: DType, value: f64) -> ValueId {
    let wide = crate::tensor::Values::F64(vec![value]);
    let bytes = crate::narrow::encode(dtype, &wide);
    let value = Tensor::from_values(dtype, &[], &crate::narrow::decode(dtype, &bytes));
    builder.constant(value)
}

/// A scalar constant everywhere in the shape of `like`.
pub(super) fn everywhere(
    builder: &mut Builder<'_>,
    like: ValueId,
    value: f64,
) -> Result<ValueId, TypeError> {
    let dtype = builder.ty(like).dtype;
    let scalar = number(builder, dtype, value);
    let shape = builder.shape(like).to_vec();
    builder.add(Broadcast { shape, dims: Vec::new() }, &[scalar])
}

/// The same elements in another shape.
pub(super) fn reshaped(
    builder: &mut Builder<'_>,
    x: ValueId,
    shape: &[usize],
) -> Result<ValueId, TypeError> {
    builder.add(Reshape { shape: shape.to_vec() }, &[x])
}
