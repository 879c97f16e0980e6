//! What one layer of a language model takes: operations, weights and saved activations, from its configuration alone.
//! The operations are those of the products in the graph that the compiler makes of it, one by one.

use systole_compiler::import::llm::{AttentionBias, Config, Family, FeedForward};

/// Which pairs of a query and a key count as work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// All of them, as a graph that masks computes them.
    All,
    /// Those of a layer's window; all of them where it has none, also those that a causal mask hides. This is how the
    /// field counts utilization.
    Window,
}

/// Operations of one forward pass of some tokens, an addition and a multiplication being two.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Operations {
    /// Products with weights of attention.
    pub projections: f64,
    /// Products of queries and keys, and of their weights and values.
    pub attention: f64,
    /// What follows attention: products with weights of feed-forward layers, or of the chosen experts and their router.
    pub feed_forward: f64,
}

impl Operations {
    /// All together.
    pub fn total(&self) -> f64 {
        self.projections + self.attention + self.feed_forward
    }
}

/// The operations of layer `index` for `tokens` tokens, each of which looks at `keys` keys.
pub fn operations(
    config: &Config,
    index: usize,
    tokens: f64,
    keys: f64,
    pairs: Pairs,
) -> Operations {
    let (hidden, queries) = (config.hidden as f64, config.query_width() as f64);
    let shared = config.key_width() as f64;
    let seen = match (pairs, config.windows.get(index).copied().flatten()) {
        (Pairs::Window, Some(window)) => keys.min(window as f64),
        (Pairs::All, Some(_)) | (_, None) => keys,
    };
    let feed_forward = match &config.feed_forward {
        FeedForward::Gated { width, .. } => 3.0 * hidden * *width as f64,
        FeedForward::Plain { width } => 2.0 * hidden * *width as f64,
        FeedForward::Experts(experts) => {
            let router = hidden * experts.count as f64;
            let chosen = experts.chosen as f64;
            // gpt-oss sums the biases of the chosen experts with their weights, which is a product too.
            let biases = if experts.clamp.is_some() { chosen * hidden } else { 0.0 };
            router + chosen * 3.0 * hidden * experts.width as f64 + biases
        }
    };
    Operations {
        projections: 2.0 * tokens * hidden * (2.0 * queries + 2.0 * shared),
        attention: 2.0 * tokens * seen * 2.0 * queries,
        feed_forward: 2.0 * tokens * feed_forward,
    }
}

/// The operations of the logits of `tokens` tokens.
pub(super) fn logits_operations(config: &Config, tokens: f64) -> f64 {
    2.0 * tokens * config.hidden as f64 * config.vocabulary as f64
}

/// The operations of a whole forward pass over `sequences` sequences of `length`, logits of every token included.
pub fn forward_operations(config: &Config, sequences: f64, length: f64, pairs: Pairs) -> f64 {
    let layers = (0..config.layers)
        .map(|index| operations(config, index, sequences * length, length, pairs).total());
    layers.sum::<f64>() + logits_operations(config, sequences * length)
}

/// How many weights there are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weights {
    /// Of attention, norms and routers of one layer, or of its feed-forward layer where it has no experts.
    pub dense: f64,
    /// Of all experts of one layer.
    pub experts: f64,
    /// Of the embedding, and of learned positions.
    pub embedding: f64,
    /// Of the output projection, where it is not the embedding, and of the last norm.
    pub head: f64,
}

/// The weights of a model, of which `dense` and `experts` are those of one layer.
pub fn weights(config: &Config) -> Weights {
    let (hidden, queries) = (config.hidden as f64, config.query_width() as f64);
    let shared = config.key_width() as f64;
    let norm = if config.family == Family::Gpt2 { 2.0 * hidden } else { hidden };
    let heads = if config.normalized_heads { 2.0 * config.head_size as f64 } else { 0.0 };
    let sinks = if config.sinks { config.heads as f64 } else { 0.0 };
    let bias = match config.bias {
        AttentionBias::Absent => 0.0,
        AttentionBias::Inputs => queries + 2.0 * shared,
        AttentionBias::All => queries + 2.0 * shared + hidden,
    };
    let attention = hidden * (2.0 * queries + 2.0 * shared) + bias + heads + sinks + 2.0 * norm;
    let (dense, experts) = match &config.feed_forward {
        FeedForward::Gated { width, bias } => {
            let width = *width as f64;
            let bias = if *bias { 2.0 * width + hidden } else { 0.0 };
            (3.0 * hidden * width + bias, 0.0)
        }
        FeedForward::Plain { width } => {
            let width = *width as f64;
            (2.0 * hidden * width + width + hidden, 0.0)
        }
        FeedForward::Experts(experts) => {
            let (count, width) = (experts.count as f64, experts.width as f64);
            let biased = experts.clamp.is_some();
            let router = hidden * count + if biased { count } else { 0.0 };
            let biases = if biased { count * (2.0 * width + hidden) } else { 0.0 };
            (router, count * 3.0 * hidden * width + biases)
        }
    };
    let vocabulary = config.vocabulary as f64;
    let learned = if config.rope.is_none() { config.positions as f64 * hidden } else { 0.0 };
    let head = if config.tied { 0.0 } else { vocabulary * hidden };
    Weights {
        dense: attention + dense,
        experts,
        embedding: vocabulary * hidden + learned,
        head: head + norm,
    }
}

impl Weights {
    /// All of them.
    pub fn total(&self, layers: usize) -> f64 {
        (self.dense + self.experts) * layers as f64 + self.embedding + self.head
    }
}

/// Elements that the backward pass of one layer reads again, for each token: those that tensor parallelism divides, and
/// those that only sequence parallelism does. What is cheap to compute anew is not among them: scores of attention, what
/// norms give, and products of gates.
pub(super) fn saved_elements(config: &Config) -> (f64, f64) {
    let (hidden, queries) = (config.hidden as f64, config.query_width() as f64);
    let shared = config.key_width() as f64;
    let between = match &config.feed_forward {
        FeedForward::Gated { width, .. } => 2.0 * *width as f64,
        FeedForward::Plain { width } => *width as f64,
        FeedForward::Experts(experts) => {
            experts.chosen as f64 * (2.0 * experts.width as f64 + hidden) + experts.count as f64
        }
    };
    (2.0 * queries + 2.0 * shared + between, 2.0 * hidden)
}

/// Elements that elementwise work of one layer reads and writes in a forward pass, for each token: norms, residuals,
/// rotations, activations. The first part is divided by tensor parallelism, the second by sequence parallelism.
pub(super) fn moved_elements(config: &Config) -> (f64, f64) {
    let (hidden, queries) = (config.hidden as f64, config.query_width() as f64);
    let shared = config.key_width() as f64;
    let between = match &config.feed_forward {
        FeedForward::Gated { width, .. } => 3.0 * *width as f64,
        FeedForward::Plain { width } => 2.0 * *width as f64,
        FeedForward::Experts(experts) => {
            experts.chosen as f64 * (3.0 * experts.width as f64 + 4.0 * hidden)
        }
    };
    let rotated = if config.rope.is_some() { 2.0 * (queries + shared) } else { 0.0 };
    // A norm reads and writes, a residual reads two and writes one; there are two of each.
    (rotated + between, 10.0 * hidden)
}

/// Bytes of keys and values of one position of one layer, at that many bytes an element.
pub(super) fn cached_bytes(config: &Config, element_bytes: f64) -> f64 {
    2.0 * config.key_width() as f64 * element_bytes
}

/// Kernels of one layer that wait for each other in a forward pass: as many as the compiler made of each family's graph of
/// decoding when they were counted.
pub fn kernels(config: &Config) -> f64 {
    let attention = if config.rope.is_some() { 13.0 } else { 9.0 };
    let norms = if config.normalized_heads { 2.0 } else { 0.0 };
    let feed_forward = match &config.feed_forward {
        FeedForward::Gated { .. } => 3.0,
        FeedForward::Plain { .. } => 2.0,
        FeedForward::Experts(experts) if experts.clamp.is_some() => 12.0,
        FeedForward::Experts(_) => 13.0,
    };
    attention + norms + feed_forward
}

/// Elements of scores that attention reads and writes in a forward pass of one layer where it keeps them in memory: they
/// are written, scaled and masked, made weights, thinned out, and read.
pub(super) fn score_elements(config: &Config, sequences: f64, length: f64) -> f64 {
    const TIMES: f64 = 6.0;
    TIMES * sequences * config.heads as f64 * length * length
}
