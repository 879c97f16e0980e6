//! Language models from their `config.json`, without weights: prefill, decoding with a cache of keys and values, and
//! the forward pass of training. Weights are named as checkpoints name them.

mod attend;
mod config;
mod experts;
mod fields;
mod layer;
mod model;
mod rope;

pub use config::{AttentionBias, Config, Experts, FAMILIES, Family, FeedForward, Rope, Scaling};
pub use model::{ExpertForm, Form, Logits, Options, Workload, build, weights};
