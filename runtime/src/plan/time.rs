//! How long one step takes on a mesh, and what it needs: products at the device's roofline, elementwise work at its
//! memory, exchanges by the fabric, the pipeline's bubble, and what of all that hides behind something else.

use super::cost::{self, Pairs};
use super::mesh::{Mesh, Recompute, Shard};
use super::platform::{Answers, Exchange, Platform};
use super::task::{Scores, Task, Work};
use systole_compiler::import::llm::FeedForward;

/// What products inside a step reach of what large ones reach alone: their sizes differ, chips run hot, and all wait for
/// the slowest. Fitted to the two published steps of the 175 B model on 64 A100 (Megatron-LM, arXiv 2205.05198); the
/// other published steps are predicted, see `docs/validation-plan.md`.
const WITHIN_STEP: f64 = 0.89;

/// Bytes of one chip's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    /// Weights.
    pub weights: f64,
    /// Gradients.
    pub gradients: f64,
    /// The state of the optimizer.
    pub optimizer: f64,
    /// What the backward pass needs of the forward pass, or the working set of a step without one.
    pub activations: f64,
    /// Keys and values.
    pub cache: f64,
}

impl Memory {
    /// All together.
    pub fn total(&self) -> f64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.cache
    }

    /// The largest part, with its name.
    pub fn largest(&self) -> (&'static str, f64) {
        let parts = [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer state", self.optimizer),
            ("activations", self.activations),
            ("keys and values", self.cache),
        ];
        parts.into_iter().fold(parts[0], |a, b| if b.1 > a.1 { b } else { a })
    }
}

/// Where the time of a step goes, in seconds on the slowest chip.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Products.
    pub products: f64,
    /// Elementwise work.
    pub elementwise: f64,
    /// Kernels that wait for each other, besides what they compute and move.
    pub launches: f64,
    /// Exchanges of tensor parallelism.
    pub tensor: f64,
    /// Exchanges of expert parallelism.
    pub expert: f64,
    /// Sends between pipeline stages.
    pub pipeline: f64,
    /// Exchanges of data parallelism that do not hide behind computation.
    pub data: f64,
    /// Waiting for the pipeline to fill and drain.
    pub bubble: f64,
    /// The optimizer.
    pub optimizer: f64,
}

impl Parts {
    /// All together.
    pub fn total(&self) -> f64 {
        self.named().iter().map(|(_, seconds)| seconds).sum()
    }

    /// Each with its name.
    pub fn named(&self) -> [(&'static str, f64); 9] {
        [
            ("products", self.products),
            ("elementwise", self.elementwise),
            ("kernel launches", self.launches),
            ("tensor exchange", self.tensor),
            ("expert exchange", self.expert),
            ("pipeline sends", self.pipeline),
            ("data exchange", self.data),
            ("pipeline bubble", self.bubble),
            ("optimizer", self.optimizer),
        ]
    }
}

/// What one chip does in a step, for energy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Effort {
    /// Operations, recomputed ones too.
    pub operations: f64,
    /// Bytes from and to memory.
    pub memory_bytes: f64,
    /// Bytes sent within tensor and expert groups.
    pub near_bytes: f64,
    /// Bytes sent between copies and stages.
    pub far_bytes: f64,
}

/// A step on a mesh.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How long it takes, in seconds.
    pub seconds: f64,
    /// Where the time goes.
    pub parts: Parts,
    /// What it needs.
    pub memory: Memory,
    /// What one chip does.
    pub effort: Effort,
}

/// Sizes of a stage of the pipeline that everything here needs.
struct Stage {
    /// Layers of the slowest stage.
    layers: f64,
    /// Its weights on one chip, of each layer: dense ones and experts.
    dense: f64,
    experts: f64,
    /// Embedding or head on one chip, whichever is larger; both where there is one stage.
    ends: f64,
    /// Whether the slowest stage computes logits.
    head: f64,
}

fn stage(task: &Task, mesh: &Mesh) -> Stage {
    let config = &task.config;
    let weights = cost::weights(config);
    let groups = mesh.pp * mesh.interleave;
    let layers = config.layers.div_ceil(groups) * mesh.interleave;
    // The last stage has what the others leave, and the logits.
    let before = layers * (mesh.pp - 1);
    let last = config.layers.saturating_sub(before);
    let rows = cost::operations(config, 0, 1.0, task.length as f64, Pairs::Window).total();
    let last_work = last as f64 * rows + cost::logits_operations(config, 1.0);
    let is_last = mesh.pp == 1 || last_work > layers as f64 * rows;
    let tp = mesh.tp as f64;
    let ends = if mesh.pp == 1 {
        weights.embedding + weights.head
    } else {
        weights.embedding.max(if config.tied { weights.embedding } else { weights.head })
    };
    Stage {
        layers: if is_last { last as f64 } else { layers as f64 },
        dense: weights.dense / tp,
        experts: weights.experts / (tp * mesh.ep as f64),
        ends: ends / tp,
        head: f64::from(u8::from(is_last)),
    }
}

/// Bytes of one chip's memory on that mesh.
pub fn memory(task: &Task, mesh: &Mesh) -> Memory {
    let stage = stage(task, mesh);
    let config = &task.config;
    let most = (config.layers.div_ceil(mesh.pp * mesh.interleave) * mesh.interleave) as f64;
    let (dense, experts) = (stage.dense * most + stage.ends, stage.experts * most);
    let count = dense + experts;
    let state = task.precision.state_bytes();
    let tp = mesh.tp as f64;
    match task.work {
        Work::Train => {
            let copies = mesh.dp as f64;
            let expert_copies = copies / mesh.ep as f64;
            let shared = dense / copies + experts / expert_copies;
            // Two moments and the weights themselves, in f32. Gradients are summed in f32.
            let optimizer = 12.0 * shared;
            let (weights, gradients) = match mesh.shard {
                Shard::Optimizer => (state * count, 4.0 * count),
                // The layer at hand and the next are whole.
                Shard::Weights => {
                    let whole = 2.0 * (stage.dense + stage.experts);
                    (state * (shared + whole), 4.0 * (shared + whole / 2.0))
                }
            };
            let tokens = mesh.microbatch as f64 * task.length as f64;
            let (divided, common) = cost::saved_elements(config);
            let layer = tokens * (divided + common) / tp * state;
            let input = tokens * config.hidden as f64 / tp * state;
            let kept = match mesh.recompute {
                Recompute::Attention => layer * most,
                Recompute::Layers => input * most,
            };
            let microbatches = microbatches(task, mesh);
            let (pp, parts) = (mesh.pp as f64, mesh.interleave as f64);
            let in_flight = if parts > 1.0 { pp * (1.0 + (pp - 1.0) / (pp * parts)) } else { pp };
            let in_flight = in_flight.min(microbatches);
            let working = match mesh.recompute {
                Recompute::Attention => 0.0,
                Recompute::Layers => layer,
            };
            // Logits and their gradient.
            let logits = tokens * config.vocabulary as f64 / tp * (4.0 + state);
            let activations = kept * in_flight + working + logits;
            Memory { weights, gradients, optimizer, activations, cache: 0.0 }
        }
        Work::Prefill | Work::Decode => {
            let sequences = (task.batch as f64 / mesh.dp as f64).ceil();
            let element = task.precision.cache_bytes();
            let shares = tp.min(config.groups as f64);
            let cached: f64 = (0..config.layers)
                .map(|index| {
                    let window = config.windows.get(index).copied().flatten();
                    let positions = window.map_or(task.length, |window| window.min(task.length));
                    positions as f64 * cost::cached_bytes(config, element)
                })
                .sum();
            let cache = sequences * cached / (shares * mesh.pp as f64);
            let tokens = match task.work {
                Work::Decode => sequences,
                Work::Prefill | Work::Train => mesh.microbatch as f64 * task.length as f64,
            };
            let (divided, common) = cost::saved_elements(config);
            let layer = tokens * (divided + common) / tp * state;
            let logits = sequences * config.vocabulary as f64 / tp * 4.0;
            let weights =
                expert_weight_bytes(task) * experts + task.precision.weight_bytes() * dense;
            Memory { weights, activations: layer + logits, cache, ..Memory::default() }
        }
    }
}

fn expert_weight_bytes(task: &Task) -> f64 {
    let own = task.precision.weight_bytes();
    task.config.expert_bytes.map_or(own, |bytes| bytes.min(own))
}

/// How many microbatches go through each pipeline.
fn microbatches(task: &Task, mesh: &Mesh) -> f64 {
    (task.batch as f64 / (mesh.dp * mesh.microbatch) as f64).ceil()
}

/// The time of products alone on that mesh, below which no step can be: what prunes the search.
pub(super) fn bound(platform: &Platform, task: &Task, mesh: &Mesh) -> Result<f64, String> {
    let (peak, attention_peak) = peaks(platform, task)?;
    let efficiency = platform.compute_efficiency;
    let stage = stage(task, mesh);
    let tokens = mesh.microbatch as f64 * new_tokens(task);
    let (weighted, attention) = mean_operations(task, tokens);
    let passes = passes(task, mesh);
    let head = stage.head * cost::logits_operations(&task.config, logit_tokens(task, mesh));
    let one = passes * stage.layers * (weighted / peak + attention / attention_peak) / efficiency
        + passes.min(3.0) * head / peak / efficiency;
    let rounds = match task.work {
        Work::Train | Work::Prefill => {
            microbatches(task, mesh) + (mesh.pp as f64 - 1.0) / mesh.interleave as f64
        }
        Work::Decode => mesh.pp as f64,
    };
    Ok(one / mesh.tp as f64 * rounds)
}

fn peaks(platform: &Platform, task: &Task) -> Result<(f64, f64), String> {
    let peak = |name: &str| {
        let peak = (platform.peak)(name).map(|peak| peak * WITHIN_STEP);
        peak.ok_or_else(|| format!("{} states no peak for {name}", platform.device))
    };
    Ok((peak(task.precision.name())?, peak(task.precision.attention_name())?))
}

/// New tokens of each sequence.
fn new_tokens(task: &Task) -> f64 {
    match task.work {
        Work::Train | Work::Prefill => task.length as f64,
        Work::Decode => 1.0,
    }
}

/// Tokens of a microbatch that logits are computed of.
fn logit_tokens(task: &Task, mesh: &Mesh) -> f64 {
    match task.work {
        Work::Train => mesh.microbatch as f64 * task.length as f64,
        Work::Prefill | Work::Decode => mesh.microbatch as f64,
    }
}

/// Operations of a mean layer: with weights, and of attention.
fn mean_operations(task: &Task, tokens: f64) -> (f64, f64) {
    let config = &task.config;
    let keys = task.length as f64;
    let (mut weighted, mut attention) = (0.0, 0.0);
    for index in 0..config.layers {
        let operations = cost::operations(config, index, tokens, keys, Pairs::Window);
        weighted += operations.projections + operations.feed_forward;
        attention += operations.attention;
    }
    (weighted / config.layers as f64, attention / config.layers as f64)
}

/// How often a layer's products are computed: backward passes have two for each of the forward pass.
fn passes(task: &Task, mesh: &Mesh) -> f64 {
    match (task.work, mesh.recompute) {
        (Work::Train, Recompute::Attention) => 3.0,
        (Work::Train, Recompute::Layers) => 4.0,
        (Work::Prefill | Work::Decode, _) => 1.0,
    }
}

/// Times a step on that mesh.
pub(super) fn step(
    platform: &Platform,
    answers: &Answers<'_>,
    task: &Task,
    mesh: &Mesh,
) -> Result<Step, String> {
    let config = &task.config;
    let (peak, attention_peak) = peaks(platform, task)?;
    let stage = stage(task, mesh);
    let tp = mesh.tp as f64;
    let state = task.precision.state_bytes();
    let sequences = mesh.microbatch as f64;
    let tokens = sequences * new_tokens(task);
    let hidden = config.hidden as f64;
    let train = task.work == Work::Train;
    let passes = passes(task, mesh);
    let (weighted, attention) = mean_operations(task, tokens);

    // One layer, one forward pass, one microbatch.
    let touched = touched_experts(task, mesh, tokens);
    let weight_bytes = if train {
        state * (stage.dense + stage.experts * touched)
    } else {
        task.precision.weight_bytes() * stage.dense
            + expert_weight_bytes(task) * stage.experts * touched
    };
    let products = platform.product_s(weighted / tp, peak, weight_bytes);
    let shares = tp.min(config.groups as f64);
    let keys: f64 = (0..config.layers)
        .map(|index| {
            let window = config.windows.get(index).copied().flatten();
            window.map_or(task.length, |window| window.min(task.length)) as f64
        })
        .sum::<f64>()
        / config.layers as f64;
    let cache_bytes = match task.work {
        Work::Decode => {
            sequences * keys * cost::cached_bytes(config, task.precision.cache_bytes()) / shares
        }
        Work::Train | Work::Prefill => 0.0,
    };
    let attended = platform.product_s(attention / tp, attention_peak, cache_bytes);
    let (divided, common) = cost::moved_elements(config);
    let moved = tokens * (divided + common) / tp * state;
    let score_bytes = match (task.scores, task.work) {
        (Scores::Kept, Work::Train | Work::Prefill) => {
            cost::score_elements(config, sequences, task.length as f64) / tp * state
        }
        (Scores::Fused, _) | (Scores::Kept, Work::Decode) => 0.0,
    };
    let (elementwise, scores) = (platform.moving_s(moved), platform.moving_s(score_bytes));

    // Exchanges of one layer: hidden states are gathered before and scattered after each half of it.
    let axes = mesh.tensor_axes();
    let whole = tokens * hidden * state;
    let tensor = {
        // Whichever of the two ways to join partial sums is faster.
        let joined = answers.seconds_by_cores(Exchange::AllReduce, &axes, whole)?;
        let parted = answers.seconds_by_cores(Exchange::AllGather, &axes, whole)?
            + answers.seconds_by_cores(Exchange::ReduceScatter, &axes, whole)?;
        2.0 * if train { parted } else { joined.min(parted) }
    };
    let expert = match &config.feed_forward {
        FeedForward::Experts(experts) if mesh.ep > 1 => {
            let bytes = tokens * experts.chosen as f64 * hidden * state / tp;
            2.0 * answers.seconds(Exchange::AllToAll, &mesh.expert_axes(), bytes)?
        }
        FeedForward::Experts(_) | FeedForward::Gated { .. } | FeedForward::Plain { .. } => 0.0,
    };
    let exchange_passes = if train { passes - 1.0 } else { 1.0 };

    // The head, on the slowest stage where it is there.
    let rows = logit_tokens(task, mesh);
    let head_operations = stage.head * cost::logits_operations(config, rows);
    let head_bytes = task.precision.weight_bytes() * hidden * config.vocabulary as f64 / tp;
    let head = stage.head * platform.product_s(head_operations / tp, peak, head_bytes);
    let head_passes = if train { 3.0 } else { 1.0 };
    // Logits are written, read for the softmax, and their gradient written and read.
    let logit_bytes = stage.head * rows * config.vocabulary as f64 / tp * 4.0;
    let head_moving = platform.moving_s(logit_bytes * head_passes * 2.0);

    let send = if mesh.pp > 1 {
        let bytes = whole / tp;
        let both_ways = if train { 2.0 } else { 1.0 };
        both_ways
            * mesh.interleave as f64
            * answers.seconds(Exchange::Send, &mesh.pipeline_axes(), bytes)?
    } else {
        0.0
    };

    // One microbatch through the slowest stage, there and back.
    let layers = stage.layers;
    // Scores and what is cheap are computed once more on the way back in either case.
    let attention_passes = if train { passes.max(4.0) } else { 1.0 };
    let mut parts = Parts {
        products: layers * (passes * products + attention_passes * attended) + head_passes * head,
        elementwise: layers * (attention_passes * (elementwise + scores)) + head_moving,
        launches: (layers * passes * cost::kernels(config) + head_passes * stage.head)
            * platform.kernel_s,
        tensor: layers * exchange_passes * tensor,
        expert: layers * exchange_passes * expert,
        pipeline: send,
        ..Parts::default()
    };
    let one = parts.total();
    let (rounds, filling) = match task.work {
        Work::Train | Work::Prefill => {
            (microbatches(task, mesh), (mesh.pp as f64 - 1.0) / mesh.interleave as f64)
        }
        // Every stage has a part of the sequences at hand: each takes its turn at every stage.
        Work::Decode => (mesh.pp as f64, 0.0),
    };
    for part in [
        &mut parts.products,
        &mut parts.elementwise,
        &mut parts.launches,
        &mut parts.tensor,
        &mut parts.expert,
        &mut parts.pipeline,
    ] {
        *part *= rounds;
    }
    parts.bubble = one * filling;

    let memory = memory(task, mesh);
    let mut effort = Effort {
        operations: rounds
            * (layers * (passes * weighted + attention_passes * attention) / tp
                + head_passes * head_operations / tp),
        memory_bytes: rounds
            * (layers
                * (passes * (weight_bytes + cache_bytes)
                    + attention_passes * (moved + score_bytes))
                + head_passes * (head_bytes * stage.head + logit_bytes)),
        near_bytes: rounds * layers * exchange_passes * 4.0 * whole * (tp - 1.0) / tp,
        far_bytes: rounds * if mesh.pp > 1 { whole / tp * passes.min(2.0) } else { 0.0 },
    };
    if train {
        data_parallel(platform, answers, task, mesh, &stage, one, rounds, &mut parts, &mut effort)?;
    }
    Ok(Step { seconds: parts.total(), parts, memory, effort })
}

/// The part of its experts' weights that a chip reads for so many tokens.
fn touched_experts(task: &Task, mesh: &Mesh, tokens: f64) -> f64 {
    let Some(experts) = task.config.experts() else { return 1.0 };
    let missed = 1.0 - experts.chosen as f64 / experts.count as f64;
    // Every copy that shares the experts sends its tokens.
    1.0 - missed.powf(tokens * mesh.ep as f64)
}

/// Gradients, gathering of weights and the optimizer.
#[expect(clippy::too_many_arguments, reason = "it is a part of `step`, told by itself")]
fn data_parallel(
    platform: &Platform,
    answers: &Answers<'_>,
    task: &Task,
    mesh: &Mesh,
    stage: &Stage,
    one: f64,
    rounds: f64,
    parts: &mut Parts,
    effort: &mut Effort,
) -> Result<(), String> {
    let state = task.precision.state_bytes();
    let (copies, expert_copies) = (mesh.data_axes(), mesh.expert_copy_axes());
    let dense = stage.dense * stage.layers + stage.ends;
    let experts = stage.experts * stage.layers;
    // Gradients travel in the type of the weights.
    let exchange = |what: Exchange| -> Result<f64, String> {
        let dense = answers.seconds(what, &copies, dense * state)?;
        Ok(dense + answers.seconds(what, &expert_copies, experts * state)?)
    };
    let (reduce, gather) = (exchange(Exchange::ReduceScatter)?, exchange(Exchange::AllGather)?);
    // Backward is two thirds of a microbatch's time and more; forward one third at most.
    let (forward, backward) = (one / 3.0, one * 2.0 / 3.0);
    parts.data = match mesh.shard {
        // Gradients are reduced behind the last backward pass, weights gathered behind the first forward pass.
        Shard::Optimizer => (reduce - backward).max(0.0) + (gather - forward).max(0.0),
        // Weights are gathered for each pass and gradients reduced after each, layer by layer.
        Shard::Weights => {
            rounds * ((gather - forward).max(0.0) + (gather + reduce - backward).max(0.0))
        }
    };
    let own = dense / mesh.dp as f64 + experts * mesh.ep as f64 / mesh.dp as f64;
    // Three values of f32 are read and written, the gradient is read and the weight written.
    let bytes = own * (2.0 * 12.0 + 4.0 + state);
    parts.optimizer = platform.moving_s(bytes);
    effort.memory_bytes += bytes;
    let times = match mesh.shard {
        Shard::Optimizer => 2.0,
        Shard::Weights => 3.0 * rounds,
    };
    effort.far_bytes += if mesh.dp > 1 { times * (dense + experts) * state } else { 0.0 };
    Ok(())
}
