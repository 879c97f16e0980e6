//! Language models made from configurations: the graphs give what plain loops give, on the reference and on the host,
//! and decoding step by step gives what one prefill gives.

mod naive;

use std::collections::BTreeMap;
use systole::{Compiler, Inputs, Model, RunOptions, Target, Tensor};
use systole_compiler::evaluate::{self, Budget};
use systole_compiler::import::llm::{self, Config, ExpertForm, Form, Logits, Options, Workload};
use systole_compiler::passes::gradient;
use systole_compiler::tensor::Values;
use systole_compiler::types::{DType, TensorType};

const SIZES: &str = r#""hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 6,
  "num_key_value_heads": 2, "intermediate_size": 24, "vocab_size": 29, "max_position_embeddings": 64,
  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "torch_dtype": "float32""#;

/// A small model of every family.
fn configs() -> Vec<(&'static str, Config)> {
    let json = |architecture: &str, rest: &str| {
        let text = format!(r#"{{"architectures": ["{architecture}"], {SIZES} {rest}}}"#);
        Config::parse(&text).unwrap_or_else(|error| panic!("{error}"))
    };
    let gpt2 = r#"{"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32,
        "vocab_size": 29, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "torch_dtype": "float32"}"#;
    vec![
        ("llama", json("LlamaForCausalLM", "")),
        (
            "llama with tied embeddings",
            json("LlamaForCausalLM", r#", "tie_word_embeddings": true"#),
        ),
        ("mistral with a window", json("MistralForCausalLM", r#", "sliding_window": 3"#)),
        ("qwen2 with biases", json("Qwen2ForCausalLM", "")),
        ("qwen3 with normalized heads", json("Qwen3ForCausalLM", "")),
        (
            "mixtral",
            json("MixtralForCausalLM", r#", "num_local_experts": 5, "num_experts_per_tok": 2"#),
        ),
        (
            "qwen3 with experts",
            json(
                "Qwen3MoeForCausalLM",
                r#", "num_experts": 4, "num_experts_per_tok": 3, "moe_intermediate_size": 10"#,
            ),
        ),
        (
            "gpt-oss",
            json(
                "GptOssForCausalLM",
                r#", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 3, "attention_bias": true,
                "swiglu_limit": 0.9, "layer_types": ["sliding_attention", "full_attention"]"#,
            ),
        ),
        ("gpt2", Config::parse(gpt2).unwrap_or_else(|error| panic!("{error}"))),
    ]
}

fn random(ty: &TensorType, seed: u64, spread: f64) -> Tensor {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values = (0..ty.count())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 2001) as f64 / 1000.0 * spread - spread
        })
        .collect();
    Tensor::from_values(ty.dtype, &ty.shape, &Values::F64(values))
}

fn weights(config: &Config) -> BTreeMap<String, Tensor> {
    let names = llm::weights(config, None).unwrap_or_else(|error| panic!("{error}"));
    names
        .iter()
        .enumerate()
        .map(|(index, (name, ty))| (name.clone(), random(ty, index as u64, 0.6)))
        .collect()
}

fn options(config: &Config, workload: Workload, experts: ExpertForm) -> Options {
    let (form, logits) = (Form::Inputs, Logits::All);
    Options { form, logits, experts, ..Options::new(config, workload) }
}

fn program(config: &Config, options: &Options, target: &Target) -> systole::Program {
    let graph = llm::build(config, options).unwrap_or_else(|error| panic!("{error}"));
    systole_compiler::verify::graph(&graph).unwrap_or_else(|error| panic!("{error}\n{graph}"));
    let model = Model::from_graph("llm", graph);
    Compiler::new().target(target.clone()).compile(&model).unwrap_or_else(|error| panic!("{error}"))
}

fn with_weights(weights: &BTreeMap<String, Tensor>) -> Inputs {
    weights.iter().fold(Inputs::new(), |inputs, (name, value)| inputs.with(name, value.clone()))
}

const TOKENS: [i64; 7] = [3, 17, 4, 4, 28, 0, 11];

fn close(found: &[f64], wanted: &[f64], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (index, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= 2e-4 + 2e-4 * w.abs(), "{what}, element {index}: {f}, not {w}");
    }
}

fn wanted(config: &Config, weights: &BTreeMap<String, Tensor>) -> Vec<f64> {
    let plain =
        weights.iter().map(|(name, value)| (name.clone(), value.values().to_f64())).collect();
    let tokens: Vec<usize> = TOKENS.iter().map(|&token| token as usize).collect();
    naive::logits(config, &plain, &tokens).concat()
}

#[test]
fn prefill_gives_what_plain_loops_give() {
    for (name, config) in configs() {
        let weights = weights(&config);
        let wanted = wanted(&config, &weights);
        for target in [Target::reference(), Target::host()] {
            for experts in [ExpertForm::Dense, ExpertForm::Gathered] {
                if config.experts().is_none() && experts == ExpertForm::Gathered {
                    continue;
                }
                let workload = Workload::Prefill { batch: 1, tokens: TOKENS.len() };
                let program = program(&config, &options(&config, workload, experts), &target);
                let tokens = Tensor::from_slice(&[1, TOKENS.len()], &TOKENS);
                let outputs =
                    program.run(with_weights(&weights).with("tokens", tokens)).expect("it runs");
                let logits =
                    outputs.get("logits").expect("there are logits").tensor().values().to_f64();
                close(&logits, &wanted, &format!("{name} on {target} {experts:?}"));
            }
        }
    }
}

#[test]
fn decoding_step_by_step_gives_what_prefill_gives() {
    for (name, config) in configs() {
        let weights = weights(&config);
        let wanted = wanted(&config, &weights);
        for target in [Target::reference(), Target::host()] {
            for step in [1, 7] {
                let workload = Workload::Decode { batch: 1, tokens: step, capacity: 9 };
                let experts = Options::new(&config, workload).experts;
                let program = program(&config, &options(&config, workload, experts), &target);
                let mut state = program.state().expect("its sizes are known");
                let mut logits = Vec::new();
                for first in (0..TOKENS.len()).step_by(step) {
                    let tokens = Tensor::from_slice(&[1, step], &TOKENS[first..first + step]);
                    let inputs = with_weights(&weights)
                        .with("tokens", tokens)
                        .with("position", Tensor::scalar(first as i64));
                    let outputs = program
                        .run_stateful(&RunOptions::default(), inputs, &mut state)
                        .unwrap_or_else(|error| panic!("{error}"));
                    logits.extend(
                        outputs.get("logits").expect("there are").tensor().values().to_f64(),
                    );
                }
                close(&logits, &wanted, &format!("{name} on {target} by {step}"));
            }
        }
    }
}

#[test]
fn the_loss_is_the_mean_of_minus_log_probability() {
    let (_, config) = configs().swap_remove(0);
    let weights = weights(&config);
    let logits = wanted(&config, &weights);
    let targets: Vec<i64> = TOKENS.iter().map(|token| (token * 5 + 1) % 29).collect();
    let loss = logits
        .chunks(29)
        .zip(&targets)
        .map(|(row, &target)| {
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            sum.ln() - row[target as usize]
        })
        .sum::<f64>()
        / TOKENS.len() as f64;
    for target in [Target::reference(), Target::host()] {
        let workload = Workload::Train { batch: 1, tokens: TOKENS.len() };
        let program = program(&config, &options(&config, workload, ExpertForm::Dense), &target);
        let inputs = with_weights(&weights)
            .with("tokens", Tensor::from_slice(&[1, TOKENS.len()], &TOKENS))
            .with("targets", Tensor::from_slice(&[1, TOKENS.len()], &targets));
        let outputs = program.run(inputs).expect("it runs");
        close(&outputs.get("loss").expect("there is").tensor().values().to_f64(), &[loss], "loss");
    }
}

#[test]
fn gradients_of_every_family_follow_a_small_change_of_all_weights() {
    let unlimited = Budget::UNLIMITED;
    for (name, config) in configs() {
        let workload = Workload::Train { batch: 1, tokens: TOKENS.len() };
        let experts = ExpertForm::Gathered;
        let options = Options { dtype: Some(DType::F64), ..options(&config, workload, experts) };
        let graph = llm::build(&config, &options).unwrap_or_else(|error| panic!("{error}"));
        let with =
            gradient::differentiate(&graph).unwrap_or_else(|error| panic!("{name}: {error}"));
        systole_compiler::verify::graph(&with).unwrap_or_else(|error| panic!("{name}: {error}"));
        let function = graph.entry();
        let targets: Vec<i64> = TOKENS.iter().map(|token| (token * 5 + 1) % 29).collect();
        let ids = |ids: &[i64]| Tensor::from_slice(&[1, TOKENS.len()], ids);
        let weights: Vec<Tensor> = function.body.params[2..]
            .iter()
            .enumerate()
            .map(|(index, &param)| random(function.ty(param), index as u64, 0.6))
            .collect();
        let ways: Vec<Tensor> = weights
            .iter()
            .enumerate()
            .map(|(index, weight)| random(weight.ty(), 1000 + index as u64, 1.0))
            .collect();
        let inputs = |by: f64| -> Vec<Tensor> {
            let moved = weights.iter().zip(&ways).map(|(weight, way)| {
                let pairs = weight.values().to_f64().into_iter().zip(way.values().to_f64());
                let values = Values::F64(pairs.map(|(weight, way)| weight + by * way).collect());
                Tensor::from_values(DType::F64, weight.shape(), &values)
            });
            [ids(&TOKENS), ids(&targets)].into_iter().chain(moved).collect()
        };
        let loss = |by: f64| {
            let found = evaluate::graph(&graph, &inputs(by), &unlimited).expect("it runs");
            found[0].values().to_f64()[0]
        };
        const STEP: f64 = 1e-4;
        let slope = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
        let found = evaluate::graph(&with, &inputs(0.0), &unlimited).expect("it runs");
        let told: f64 = found[1..]
            .iter()
            .zip(&ways)
            .map(|(gradient, way)| {
                let pairs = gradient.values().to_f64().into_iter().zip(way.values().to_f64());
                pairs.map(|(gradient, way)| gradient * way).sum::<f64>()
            })
            .sum();
        assert!((told - slope).abs() <= 5e-3 * (1.0 + slope.abs()), "{name}: {told}, not {slope}");
    }
}

#[test]
fn steps_of_training_are_well_formed_in_narrow_types_too() {
    for (name, config) in configs() {
        let workload = Workload::Train { batch: 2, tokens: 4 };
        let options =
            Options { dtype: Some(DType::BF16), ..options(&config, workload, ExpertForm::Dense) };
        let graph = llm::build(&config, &options).unwrap_or_else(|error| panic!("{error}"));
        let optimizer = gradient::Optimizer::AdamW {
            rate: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            decay: 0.1,
        };
        for recompute in [false, true] {
            let training = gradient::Training { optimizer, recompute };
            let step = gradient::training_step(&graph, &training)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            systole_compiler::verify::graph(&step)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let floats = graph.entry().body.params.len() - 2;
            assert_eq!(step.entry().state.len(), 3 * floats + 1, "{name}");
        }
    }
}

#[test]
fn weights_are_named_as_checkpoints_name_them() {
    let (_, config) = configs().swap_remove(0);
    let weights = llm::weights(&config, Some(DType::BF16)).expect("it has weights");
    let text: Vec<String> = weights.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
    assert_eq!(text.len(), 3 + 2 * 9);
    assert_eq!(text[0], "model.embed_tokens.weight: bf16[29, 16]");
    assert_eq!(text[2], "model.layers.0.self_attn.q_proj.weight: bf16[24, 16]");
    assert_eq!(text[20], "lm_head.weight: bf16[29, 16]");
    let parameters = Options::new(&config, Workload::Prefill { batch: 2, tokens: 3 });
    let graph = llm::build(&config, &parameters).expect("it builds");
    assert_eq!(graph.entry().body.params.len(), 1);
}

#[test]
fn configurations_report_every_problem() {
    let problems = |text: &str| {
        let error = Config::parse(text).expect_err("it is wrong");
        error.0.iter().map(|one| one.message.clone()).collect::<Vec<String>>()
    };
    let text = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 0, "num_hidden_layers": -3,
        "num_attention_heads": "many", "vocab_size": 1e99, "rms_norm_eps": 1e-5, "intermediate_size": 9}"#;
    assert_eq!(
        problems(text),
        [
            "hidden_size is 0, not a whole number from 1 to 16777216",
            "num_hidden_layers is -3, not a whole number from 1 to 4096",
            "num_attention_heads is \"many\", not a whole number from 1 to 16777216",
            "vocab_size is 1e+99, not a whole number from 1 to 16777216",
            "max_position_embeddings is missing",
        ]
    );
    let error = Config::parse(r#"{"architectures": ["MambaForCausalLM"]}"#).expect_err("unknown");
    assert_eq!(error.0[0].message, "the architecture `MambaForCausalLM` is not supported");
    let help = error.0[0].help.as_deref().unwrap_or_default();
    assert!(help.contains("LlamaForCausalLM") && help.contains("GptOssForCausalLM"), "{help}");
    assert_eq!(problems("[]"), ["a configuration is a JSON object"]);
    assert!(problems("{")[0].starts_with("this is not JSON"));
}
