//! Language models written as plain loops over f64: what the graphs are held against. Rotary positions and causal,
//! windowed and sunk attention are spelled out; nothing is shared with the graphs but the names of weights.

use std::collections::BTreeMap;
use systole_compiler::import::llm::{Config, Experts, Family, FeedForward};

pub(crate) type Weights = BTreeMap<String, Vec<f64>>;

/// The logits of every token of one sequence.
pub(crate) fn logits(config: &Config, weights: &Weights, tokens: &[usize]) -> Vec<Vec<f64>> {
    let gpt2 = config.family == Family::Gpt2;
    let table = &weights[if gpt2 { "transformer.wte.weight" } else { "model.embed_tokens.weight" }];
    let h = config.hidden;
    let mut states: Vec<Vec<f64>> =
        tokens.iter().map(|&token| table[token * h..(token + 1) * h].to_vec()).collect();
    if gpt2 {
        for (position, state) in states.iter_mut().enumerate() {
            add(state, &weights["transformer.wpe.weight"][position * h..(position + 1) * h]);
        }
    }
    for index in 0..config.layers {
        layer(config, weights, index, &mut states);
    }
    let name = if gpt2 { "transformer.ln_f" } else { "model.norm" };
    let head = if config.tied { table } else { &weights["lm_head.weight"] };
    states.iter().map(|state| times(head, &norm(config, weights, name, state))).collect()
}

fn layer(config: &Config, weights: &Weights, index: usize, states: &mut [Vec<f64>]) {
    let gpt2 = config.family == Family::Gpt2;
    let prefix =
        if gpt2 { format!("transformer.h.{index}") } else { format!("model.layers.{index}") };
    let before = if gpt2 { "ln_1" } else { "input_layernorm" };
    let d = config.head_size;
    let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
    for (position, state) in states.iter().enumerate() {
        let x = norm(config, weights, &format!("{prefix}.{before}"), state);
        let mut parts: Vec<Vec<f64>> = if gpt2 {
            let all = linear(config, weights, &format!("{prefix}.attn.c_attn"), &x);
            let (a, b) = (config.heads * d, config.groups * d);
            vec![all[..a].to_vec(), all[a..a + b].to_vec(), all[a + b..].to_vec()]
        } else {
            let name = |what: &str| format!("{prefix}.self_attn.{what}_proj");
            ["q", "k", "v"].iter().map(|what| linear(config, weights, &name(what), &x)).collect()
        };
        for (part, what) in ["q", "k"].iter().enumerate() {
            for head in parts[part].chunks_mut(d) {
                if config.normalized_heads {
                    let name = format!("{prefix}.self_attn.{what}_norm");
                    let normal = norm(config, weights, &name, head);
                    head.copy_from_slice(&normal);
                }
                if config.rope.is_some() {
                    rotate(config, head, position);
                }
            }
        }
        v.push(parts.remove(2));
        k.push(parts.remove(1));
        q.push(parts.remove(0));
    }
    let name = if gpt2 { "attn.c_proj" } else { "self_attn.o_proj" };
    for (position, state) in states.iter_mut().enumerate() {
        let seen = attend(config, weights, index, position, [&q, &k, &v]);
        add(state, &linear(config, weights, &format!("{prefix}.{name}"), &seen));
    }
    let before = if gpt2 { "ln_2" } else { "post_attention_layernorm" };
    for state in states.iter_mut() {
        let x = norm(config, weights, &format!("{prefix}.{before}"), state);
        let mlp =
            |what: &str, x: &[f64]| linear(config, weights, &format!("{prefix}.mlp.{what}"), x);
        let out = match &config.feed_forward {
            FeedForward::Gated { .. } => {
                let (gate, up) = (mlp("gate_proj", &x), mlp("up_proj", &x));
                let both: Vec<f64> =
                    gate.iter().zip(&up).map(|(g, u)| g * sigmoid(*g) * u).collect();
                mlp("down_proj", &both)
            }
            FeedForward::Plain { .. } => {
                let up = mlp("c_fc", &x);
                let root = (2.0 / std::f64::consts::PI).sqrt();
                let active: Vec<f64> = up
                    .iter()
                    .map(|x| 0.5 * x * (1.0 + (root * (x + 0.044715 * x * x * x)).tanh()))
                    .collect();
                mlp("c_proj", &active)
            }
            FeedForward::Experts(mixture) => experts(config, mixture, weights, &prefix, &x),
        };
        add(state, &out);
    }
}

/// What one position sees, head by head.
fn attend(
    config: &Config,
    weights: &Weights,
    index: usize,
    position: usize,
    [q, k, v]: [&[Vec<f64>]; 3],
) -> Vec<f64> {
    let d = config.head_size;
    let mut result = Vec::new();
    for head in 0..config.heads {
        let group = head / (config.heads / config.groups);
        let first = config.windows[index].map_or(0, |window| (position + 1).saturating_sub(window));
        let scores: Vec<f64> = (first..=position)
            .map(|other| {
                let query = &q[position][head * d..(head + 1) * d];
                let key = &k[other][group * d..(group + 1) * d];
                query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt()
            })
            .collect();
        let mut sum: f64 = scores.iter().map(|score| score.exp()).sum();
        if config.sinks {
            sum += weights[&format!("model.layers.{index}.self_attn.sinks")][head].exp();
        }
        for element in 0..d {
            let values = (first..=position).map(|other| v[other][group * d + element]);
            result.push(scores.iter().zip(values).map(|(s, v)| s.exp() / sum * v).sum());
        }
    }
    result
}

fn experts(
    config: &Config,
    mixture: &Experts,
    weights: &Weights,
    prefix: &str,
    x: &[f64],
) -> Vec<f64> {
    let mixtral = config.family == Family::Mixtral;
    let gpt_oss = config.family == Family::GptOss;
    let router = if mixtral {
        format!("{prefix}.block_sparse_moe.gate")
    } else if gpt_oss {
        format!("{prefix}.mlp.router")
    } else {
        format!("{prefix}.mlp.gate")
    };
    let scores = linear(config, weights, &router, x);
    let total: f64 = scores.iter().map(|score| score.exp()).sum();
    let mut order: Vec<usize> = (0..mixture.count).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(mixture.chosen);
    let chosen: f64 = order.iter().map(|&expert| scores[expert].exp()).sum();
    let mut result = vec![0.0; config.hidden];
    for &expert in &order {
        let share = scores[expert].exp() / if mixture.normalized { chosen } else { total };
        let (w, h) = (mixture.width, config.hidden);
        let out = if gpt_oss {
            let all = |what: &str| &weights[&format!("{prefix}.mlp.experts.{what}")];
            let inner = &all("gate_up_proj")[expert * h * 2 * w..(expert + 1) * h * 2 * w];
            let bias = &all("gate_up_proj_bias")[expert * 2 * w..(expert + 1) * 2 * w];
            let both: Vec<f64> = (0..2 * w)
                .map(|o| bias[o] + (0..h).map(|i| x[i] * inner[i * 2 * w + o]).sum::<f64>())
                .collect();
            let limit = mixture.clamp.expect("gpt-oss clamps");
            let active: Vec<f64> = (0..w)
                .map(|i| {
                    let gate = both[2 * i].min(limit);
                    let up = both[2 * i + 1].clamp(-limit, limit);
                    (up + 1.0) * gate * sigmoid(1.702 * gate)
                })
                .collect();
            let outer = &all("down_proj")[expert * w * h..(expert + 1) * w * h];
            let bias = &all("down_proj_bias")[expert * h..(expert + 1) * h];
            (0..h)
                .map(|o| bias[o] + (0..w).map(|i| active[i] * outer[i * h + o]).sum::<f64>())
                .collect()
        } else {
            let (folder, names) = if mixtral {
                ("block_sparse_moe", ["w1", "w3", "w2"])
            } else {
                ("mlp", ["gate_proj", "up_proj", "down_proj"])
            };
            let weight =
                |what: &str| &weights[&format!("{prefix}.{folder}.experts.{expert}.{what}.weight")];
            let (gate, up) = (times(weight(names[0]), x), times(weight(names[1]), x));
            let both: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g * sigmoid(*g) * u).collect();
            times(weight(names[2]), &both)
        };
        add(&mut result, &out.iter().map(|element| element * share).collect::<Vec<f64>>());
    }
    result
}

fn rotate(config: &Config, head: &mut [f64], position: usize) {
    let theta = config.rope.as_ref().expect("it has rotary positions").theta;
    let half = head.len() / 2;
    for pair in 0..half {
        let angle = position as f64 * theta.powf(-(pair as f64) / half as f64);
        let (a, b) = (head[pair], head[pair + half]);
        head[pair] = a * angle.cos() - b * angle.sin();
        head[pair + half] = b * angle.cos() + a * angle.sin();
    }
}

fn norm(config: &Config, weights: &Weights, name: &str, x: &[f64]) -> Vec<f64> {
    let scale = &weights[&format!("{name}.weight")];
    let count = x.len() as f64;
    if config.family == Family::Gpt2 {
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
        let root = (variance + config.epsilon).sqrt();
        let bias = &weights[&format!("{name}.bias")];
        return x
            .iter()
            .zip(scale.iter().zip(bias))
            .map(|(x, (s, b))| (x - mean) / root * s + b)
            .collect();
    }
    let root = (x.iter().map(|x| x * x).sum::<f64>() / count + config.epsilon).sqrt();
    x.iter().zip(scale).map(|(x, s)| x / root * s).collect()
}

fn linear(config: &Config, weights: &Weights, name: &str, x: &[f64]) -> Vec<f64> {
    let weight = &weights[&format!("{name}.weight")];
    let mut result = if config.family == Family::Gpt2 {
        let width = weight.len() / x.len();
        (0..width)
            .map(|o| x.iter().enumerate().map(|(i, x)| x * weight[i * width + o]).sum())
            .collect()
    } else {
        times(weight, x)
    };
    if let Some(bias) = weights.get(&format!("{name}.bias")) {
        add(&mut result, bias);
    }
    result
}

/// A matrix of rows as long as `x`, times `x`.
fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
    matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

fn add(to: &mut [f64], from: &[f64]) {
    assert_eq!(to.len(), from.len());
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
