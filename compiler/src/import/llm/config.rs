//! The configuration of a language model, as its `config.json` says it: every size checked, every problem reported.

use super::fields::Fields;
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::types::DType;
use serde_json::Value;

/// A decoder-only language model. Every size is at least 1 and within the limits of this module.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Which family it is of: it tells the names of the weights.
    pub family: Family,
    /// The elements of a hidden state.
    pub hidden: usize,
    /// The number of layers.
    pub layers: usize,
    /// The heads of queries.
    pub heads: usize,
    /// The heads of keys and values; each serves `heads / groups` heads of queries.
    pub groups: usize,
    /// The elements of one head.
    pub head_size: usize,
    /// The number of tokens that there are.
    pub vocabulary: usize,
    /// The longest sequence.
    pub positions: usize,
    /// What is added to a variance or mean square.
    pub epsilon: f64,
    /// How positions enter.
    pub rope: Option<Rope>,
    /// For each layer, how many positions a query sees, itself included; all where not given.
    pub windows: Vec<Option<usize>>,
    /// Whether the output projection is the embedding.
    pub tied: bool,
    /// Which projections of attention have a bias.
    pub bias: AttentionBias,
    /// Whether queries and keys are normalized for each head.
    pub normalized_heads: bool,
    /// Whether each head has a learned score of looking at nothing.
    pub sinks: bool,
    /// What follows attention in each layer.
    pub feed_forward: FeedForward,
    /// The type in which the weights are kept.
    pub dtype: DType,
    /// Bytes of one weight of an expert, where they are kept in a narrower type than the others.
    pub expert_bytes: Option<f64>,
}

/// The families that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    Qwen3Moe,
    Mixtral,
    GptOss,
    Gpt2,
}

/// Which projections of attention have a bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionBias {
    /// None.
    Absent,
    /// Those of queries, keys and values.
    Inputs,
    /// All four.
    All,
}

/// What follows attention in a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForward {
    /// `down(silu(gate(x)) · up(x))`.
    Gated {
        /// The elements between.
        width: usize,
        /// Whether the projections have a bias.
        bias: bool,
    },
    /// `down(gelu(up(x)))`, with biases.
    Plain {
        /// The elements between.
        width: usize,
    },
    /// Some of many gated ones, chosen for each token.
    Experts(Experts),
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many serve one token.
    pub chosen: usize,
    /// The elements between the projections of one.
    pub width: usize,
    /// Whether the weights of the chosen sum to one.
    pub normalized: bool,
    /// The limit of gpt-oss's clamped activation; plain `silu` where not given.
    pub clamp: Option<f64>,
}

/// Rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// How the frequencies change for long sequences.
    pub scaling: Scaling,
}

/// How rotary frequencies change for sequences longer than those of training.
#[derive(Clone, Debug, PartialEq)]
pub enum Scaling {
    /// They do not.
    Absent,
    /// All are divided.
    Linear {
        /// By what.
        factor: f64,
    },
    /// The low ones are divided, the high ones are not, and those between are mixed.
    Llama3 {
        /// By what the low ones are divided.
        factor: f64,
        /// Wavelengths above the original length over this are low.
        low: f64,
        /// Wavelengths below the original length over this are high.
        high: f64,
        /// The length of the sequences of training.
        original: f64,
    },
    /// YaRN: as above by the number of rotations, and the scores are scaled.
    Yarn {
        /// By what the low ones are divided.
        factor: f64,
        /// Rotations above which a frequency stays.
        fast: f64,
        /// Rotations below which a frequency is divided.
        slow: f64,
        /// The length of the sequences of training.
        original: f64,
        /// Whether the range between is widened to whole dimensions.
        truncate: bool,
    },
}

/// Each family: how `architectures` names it, how `model_type` does.
pub const FAMILIES: &[(Family, &str, &str)] = &[
    (Family::Llama, "LlamaForCausalLM", "llama"),
    (Family::Mistral, "MistralForCausalLM", "mistral"),
    (Family::Qwen2, "Qwen2ForCausalLM", "qwen2"),
    (Family::Qwen3, "Qwen3ForCausalLM", "qwen3"),
    (Family::Qwen3Moe, "Qwen3MoeForCausalLM", "qwen3_moe"),
    (Family::Mixtral, "MixtralForCausalLM", "mixtral"),
    (Family::GptOss, "GptOssForCausalLM", "gpt_oss"),
    (Family::Gpt2, "GPT2LMHeadModel", "gpt2"),
];

/// The largest width, count or length that is read: products of three stay far from overflow.
const MOST: usize = 1 << 24;
/// The most layers that are read.
const MOST_LAYERS: usize = 1 << 12;

impl Config {
    /// Reads a `config.json`. Reports every problem.
    pub fn parse(text: &str) -> Result<Config, Diagnostics> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let message = format!("this is not JSON: {error}");
            Diagnostics::from(Diagnostic::error(Code::Malformed, message))
        })?;
        let Value::Object(object) = value else {
            let message = "a configuration is a JSON object";
            return Err(Diagnostic::error(Code::Malformed, message).into());
        };
        let mut fields = Fields::new(&object);
        let Some(family) = family(&mut fields) else { return Err(fields.problems) };
        let config = match family {
            Family::Gpt2 => gpt2(&mut fields),
            Family::Llama
            | Family::Mistral
            | Family::Qwen2
            | Family::Qwen3
            | Family::Qwen3Moe
            | Family::Mixtral
            | Family::GptOss => rotary(family, &mut fields),
        };
        match config {
            Some(config) => fields.problems.into_result(config),
            None => Err(fields.problems),
        }
    }

    /// The elements of all heads of queries.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_size
    }

    /// The elements of all heads of keys.
    pub fn key_width(&self) -> usize {
        self.groups * self.head_size
    }

    /// The experts, where there are any.
    pub fn experts(&self) -> Option<&Experts> {
        match &self.feed_forward {
            FeedForward::Experts(experts) => Some(experts),
            FeedForward::Gated { .. } | FeedForward::Plain { .. } => None,
        }
    }
}

fn family(fields: &mut Fields<'_>) -> Option<Family> {
    let named = fields.first_text("architectures");
    let model_type = fields.optional_text("model_type");
    let supported = || {
        let names: Vec<&str> = FAMILIES.iter().map(|(_, name, _)| *name).collect();
        format!("the supported architectures are {}", names.join(", "))
    };
    let found = match (&named, &model_type) {
        (Some(name), _) => FAMILIES.iter().find(|(_, known, _)| known == name),
        (None, Some(name)) => FAMILIES.iter().find(|(_, _, known)| known == name),
        (None, None) => {
            let message = "neither `architectures` nor `model_type` says what model this is";
            let problem = Diagnostic::error(Code::Malformed, message);
            fields.problems.push(problem.with_help(supported()));
            return None;
        }
    };
    if found.is_none() {
        let name = named.or(model_type).unwrap_or_default();
        let message = format!("the architecture `{name}` is not supported");
        let problem = Diagnostic::error(Code::Unsupported, message);
        fields.problems.push(problem.with_help(supported()));
    }
    found.map(|&(family, _, _)| family)
}

/// The families with rotary positions and root-mean-square norms.
fn rotary(family: Family, fields: &mut Fields<'_>) -> Option<Config> {
    let hidden = fields.size("hidden_size", MOST);
    let layers = fields.size("num_hidden_layers", MOST_LAYERS);
    let heads = fields.size("num_attention_heads", MOST);
    let groups = fields.optional_size("num_key_value_heads", MOST).or(heads);
    let head_size = head_size(fields, hidden, heads);
    let vocabulary = fields.size("vocab_size", MOST);
    let positions = fields.size("max_position_embeddings", 1 << 31);
    let epsilon = fields.number("rms_norm_eps");
    let rope = rope(fields, positions);
    let tied = fields.flag("tie_word_embeddings");
    let dtype = dtype(fields);
    let bias = if family == Family::Qwen2 {
        AttentionBias::Inputs
    } else if fields.flag("attention_bias") {
        AttentionBias::All
    } else {
        AttentionBias::Absent
    };
    let windows = windows(family, fields, layers);
    let feed_forward = feed_forward(family, fields);
    // gpt-oss says silu, and means its own clamped form of it.
    fields.one_of("hidden_act", &["silu", "swish"]);
    let expert_bytes = quantization(fields);
    let (heads, groups) = (heads?, groups?);
    if heads % groups != 0 {
        let message = format!(
            "num_attention_heads is {heads}, not a multiple of num_key_value_heads {groups}"
        );
        fields.wrong(message);
    }
    let head_size = head_size?;
    if head_size % 2 != 0 {
        fields
            .wrong(format!("the size of a head is {head_size}, but rotary positions want it even"));
    }
    Some(Config {
        family,
        hidden: hidden?,
        layers: layers?,
        heads,
        groups,
        head_size,
        vocabulary: vocabulary?,
        positions: positions?,
        epsilon: epsilon?,
        rope: Some(rope?),
        windows: windows?,
        tied,
        bias,
        normalized_heads: matches!(family, Family::Qwen3 | Family::Qwen3Moe),
        sinks: family == Family::GptOss,
        feed_forward: feed_forward?,
        dtype: dtype?,
        expert_bytes,
    })
}

/// Learned positions, layer norms and biases everywhere.
fn gpt2(fields: &mut Fields<'_>) -> Option<Config> {
    let hidden = fields.size("n_embd", MOST);
    let layers = fields.size("n_layer", MOST_LAYERS);
    let heads = fields.size("n_head", MOST);
    let vocabulary = fields.size("vocab_size", MOST);
    let positions = fields.optional_size("n_positions", 1 << 31);
    let positions = match positions {
        Some(positions) => Some(positions),
        None => fields.size("n_ctx", 1 << 31),
    };
    let epsilon = fields.number("layer_norm_epsilon");
    let inner = fields.optional_size("n_inner", MOST);
    let head_size = head_size(fields, hidden, heads);
    let tied = fields.flag_or("tie_word_embeddings", true);
    fields.one_of("activation_function", &["gelu_new", "gelu_pytorch_tanh"]);
    let dtype = dtype(fields);
    let width = inner.or(hidden.map(|hidden| hidden * 4))?;
    let heads = heads?;
    Some(Config {
        family: Family::Gpt2,
        hidden: hidden?,
        layers: layers?,
        heads,
        groups: heads,
        head_size: head_size?,
        vocabulary: vocabulary?,
        positions: positions?,
        epsilon: epsilon?,
        rope: None,
        windows: vec![None; layers?],
        tied,
        bias: AttentionBias::All,
        normalized_heads: false,
        sinks: false,
        feed_forward: FeedForward::Plain { width },
        dtype: dtype?,
        expert_bytes: None,
    })
}

fn head_size(
    fields: &mut Fields<'_>,
    hidden: Option<usize>,
    heads: Option<usize>,
) -> Option<usize> {
    if let Some(size) = fields.optional_size("head_dim", 1 << 16) {
        return Some(size);
    }
    let (hidden, heads) = (hidden?, heads?);
    if hidden % heads != 0 {
        fields.wrong(format!(
            "head_dim is not given, and {hidden} hidden elements do not divide among {heads} heads"
        ));
        return None;
    }
    Some(hidden / heads)
}

fn dtype(fields: &mut Fields<'_>) -> Option<DType> {
    let key = if fields.has("torch_dtype") { "torch_dtype" } else { "dtype" };
    match fields.optional_text(key).as_deref() {
        None | Some("bfloat16") => Some(DType::BF16),
        Some("float16") => Some(DType::F16),
        Some("float32") => Some(DType::F32),
        Some(other) => {
            fields.wrong(format!("{key} is `{other}`, not bfloat16, float16 or float32"));
            None
        }
    }
}

/// The windows of each layer.
fn windows(
    family: Family,
    fields: &mut Fields<'_>,
    layers: Option<usize>,
) -> Option<Vec<Option<usize>>> {
    let size = fields.optional_size("sliding_window", 1 << 31);
    let layers = layers?;
    if let Some(kinds) = fields.optional_texts("layer_types") {
        if kinds.len() != layers {
            let count = kinds.len();
            fields.wrong(format!("layer_types has {count} entries, but there are {layers} layers"));
            return None;
        }
        return kinds
            .iter()
            .map(|kind| match kind.as_str() {
                "full_attention" => Some(None),
                "sliding_attention" if size.is_some() => Some(size),
                "sliding_attention" => {
                    fields.wrong("layer_types asks for a window, but sliding_window gives none");
                    None
                }
                other => {
                    fields.unsupported(format!("the kind of layer `{other}` is not supported"));
                    None
                }
            })
            .collect();
    }
    let used = match family {
        Family::Mistral | Family::Mixtral => true,
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => fields.flag("use_sliding_window"),
        Family::Llama | Family::Gpt2 => false,
        Family::GptOss => {
            return Some((0..layers).map(|layer| size.filter(|_| layer % 2 == 0)).collect());
        }
    };
    let first = match family {
        Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe => {
            fields.optional_count("max_window_layers").unwrap_or(0)
        }
        Family::Mistral | Family::Mixtral | Family::Llama | Family::Gpt2 | Family::GptOss => 0,
    };
    Some((0..layers).map(|layer| size.filter(|_| used && layer >= first)).collect())
}

fn feed_forward(family: Family, fields: &mut Fields<'_>) -> Option<FeedForward> {
    let experts = match family {
        Family::Llama | Family::Mistral | Family::Qwen2 | Family::Qwen3 | Family::Gpt2 => {
            let width = fields.size("intermediate_size", MOST);
            let bias = fields.flag("mlp_bias");
            return Some(FeedForward::Gated { width: width?, bias });
        }
        Family::Mixtral | Family::GptOss => fields.size("num_local_experts", 1 << 16),
        Family::Qwen3Moe => {
            let step = fields.optional_size("decoder_sparse_step", MOST).unwrap_or(1);
            if step != 1 || fields.has_entries("mlp_only_layers") {
                fields
                    .unsupported("layers without experts among layers with them are not supported");
            }
            fields.size("num_experts", 1 << 16)
        }
    };
    let chosen = fields.size("num_experts_per_tok", 1 << 16);
    let width = match family {
        Family::Qwen3Moe => fields.size("moe_intermediate_size", MOST),
        Family::Mixtral
        | Family::GptOss
        | Family::Llama
        | Family::Mistral
        | Family::Qwen2
        | Family::Qwen3
        | Family::Gpt2 => fields.size("intermediate_size", MOST),
    };
    let clamp = match family {
        Family::GptOss => Some(fields.optional_number("swiglu_limit").unwrap_or(7.0)),
        Family::Llama
        | Family::Mistral
        | Family::Qwen2
        | Family::Qwen3
        | Family::Qwen3Moe
        | Family::Mixtral
        | Family::Gpt2 => None,
    };
    let normalized = family != Family::Qwen3Moe || fields.flag("norm_topk_prob");
    let (count, chosen) = (experts?, chosen?);
    if chosen > count {
        fields.wrong(format!("{chosen} experts are chosen for a token, but there are {count}"));
    }
    Some(FeedForward::Experts(Experts { count, chosen, width: width?, normalized, clamp }))
}

fn rope(fields: &mut Fields<'_>, positions: Option<usize>) -> Option<Rope> {
    let theta = fields.optional_number("rope_theta").unwrap_or(10_000.0);
    let Some(object) = fields.optional_object("rope_scaling") else {
        return Some(Rope { theta, scaling: Scaling::Absent });
    };
    let mut inner = Fields::within(object, "rope_scaling.");
    let kind = inner.optional_text("rope_type").or_else(|| inner.optional_text("type"));
    let trained = positions.map(|positions| positions as f64);
    let scaling = match kind.as_deref() {
        None | Some("default") => Some(Scaling::Absent),
        Some("linear") => inner.number("factor").map(|factor| Scaling::Linear { factor }),
        Some("llama3") => {
            let factor = inner.number("factor");
            let (low, high) = (inner.number("low_freq_factor"), inner.number("high_freq_factor"));
            let original = inner.number("original_max_position_embeddings");
            match (factor, low, high, original) {
                (Some(factor), Some(low), Some(high), Some(original)) if low < high => {
                    Some(Scaling::Llama3 { factor, low, high, original })
                }
                (Some(_), Some(low), Some(high), Some(_)) => {
                    inner.wrong(format!(
                        "low_freq_factor {low} is not below high_freq_factor {high}"
                    ));
                    None
                }
                (_, _, _, _) => None,
            }
        }
        Some("yarn") => {
            let factor = inner.number("factor");
            let fast = inner.optional_number("beta_fast").unwrap_or(32.0);
            let slow = inner.optional_number("beta_slow").unwrap_or(1.0);
            let original = inner.optional_number("original_max_position_embeddings").or(trained);
            let truncate = inner.flag_or("truncate", true);
            match (factor, original) {
                (Some(factor), Some(original)) => {
                    Some(Scaling::Yarn { factor, fast, slow, original, truncate })
                }
                (_, _) => None,
            }
        }
        Some(other) => {
            inner.unsupported(format!(
                "rotary scaling `{other}` is not supported; default, linear, llama3 and yarn are"
            ));
            None
        }
    };
    fields.problems.0.append(&mut inner.problems.0);
    Some(Rope { theta, scaling: scaling? })
}

/// The bytes of an expert's weight, where a quantization narrows them.
fn quantization(fields: &mut Fields<'_>) -> Option<f64> {
    let object = fields.optional_object("quantization_config")?;
    let mut inner = Fields::within(object, "quantization_config.");
    let method = inner.optional_text("quant_method");
    let bytes = match method.as_deref() {
        // Elements of 4 bits, and a scale of 8 bits for each 32 of them.
        Some("mxfp4") => Some(0.5 + 1.0 / 32.0),
        Some(other) => {
            inner.unsupported(format!("the quantization `{other}` is not supported; mxfp4 is"));
            None
        }
        None => None,
    };
    fields.problems.0.append(&mut inner.problems.0);
    bytes
}
