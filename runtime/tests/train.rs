//! A small transformer trained by its own training graph: the host follows the reference, on one device and on the ranks of
//! a mesh, and computing layers anew on the way back changes nothing.

use systole::{Compiler, Inputs, Mesh, Model, RunOptions, State, Target, Tensor};
use systole_compiler::import::llm::{self, Config, Form, Options, Workload};
use systole_compiler::passes::gradient::{Optimizer, Training, training_step};
use systole_compiler::tensor::Values;

const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 24, "vocab_size": 17,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "torch_dtype": "float32"}"#;
const BATCH: usize = 2;
const LENGTH: usize = 8;

fn model(training: &Training) -> Model {
    let config = Config::parse(CONFIG).unwrap_or_else(|error| panic!("{error}"));
    let workload = Workload::Train { batch: BATCH, tokens: LENGTH };
    let options = Options { form: Form::Inputs, ..Options::new(&config, workload) };
    let graph = llm::build(&config, &options).unwrap_or_else(|error| panic!("{error}"));
    let step = training_step(&graph, training).unwrap_or_else(|error| panic!("{error}"));
    systole_compiler::verify::graph(&step).unwrap_or_else(|error| panic!("{error}"));
    Model::from_graph("training", step)
}

/// Sequences in which each token follows from the one before, so that there is something to learn.
fn tokens(step: usize) -> (Tensor, Tensor) {
    let mut ids = Vec::new();
    let mut next = Vec::new();
    for sequence in 0..BATCH {
        let mut token = (step * 7 + sequence * 5) % 17;
        for _ in 0..LENGTH {
            ids.push(token as i64);
            token = (token * 3 + 1) % 17;
            next.push(token as i64);
        }
    }
    (Tensor::from_slice(&[BATCH, LENGTH], &ids), Tensor::from_slice(&[BATCH, LENGTH], &next))
}

/// The losses of that many steps, from the same weights each time.
fn losses(training: &Training, target: Target, steps: usize) -> Vec<f64> {
    losses_by(training, &Compiler::new().target(target), steps)
}

fn losses_by(training: &Training, compiler: &Compiler, steps: usize) -> Vec<f64> {
    let program = compiler.compile(&model(training)).unwrap_or_else(|error| panic!("{error}"));
    let mut state: State = program.state().expect("its sizes are known");
    let names: Vec<(String, systole::TensorType)> =
        state.iter().map(|(name, value)| (name.to_owned(), value.ty().clone())).collect();
    for (index, (name, ty)) in names.iter().enumerate() {
        if name == "step" || name.ends_with(".mean") || name.ends_with(".square") {
            continue;
        }
        let norm = name.contains("norm");
        let mut seed = index as u64 * 0x9E37_79B9 + 1;
        let values = (0..ty.count())
            .map(|_| {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let part = (seed >> 40) as f64 / f64::from(1u32 << 24) - 0.5;
                if norm { 1.0 } else { 0.5 * part }
            })
            .collect();
        let value = Tensor::from_values(ty.dtype, &ty.shape, &Values::F64(values));
        state.set(name, value).unwrap_or_else(|error| panic!("{error}"));
    }
    (0..steps)
        .map(|step| {
            let (ids, next) = tokens(step);
            let inputs = Inputs::new().with("tokens", ids).with("targets", next);
            let outputs = program
                .run_stateful(&RunOptions::default(), inputs, &mut state)
                .unwrap_or_else(|error| panic!("{error}"));
            outputs.get("loss").expect("there is a loss").tensor().values().to_f64()[0]
        })
        .collect()
}

const ADAM: Optimizer =
    Optimizer::AdamW { rate: 0.01, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, decay: 0.01 };

fn near(found: &[f64], wanted: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), wanted.len());
    for (step, (f, w)) in found.iter().zip(wanted).enumerate() {
        assert!((f - w).abs() <= tolerance * (1.0 + w.abs()), "{what}, step {step}: {f}, not {w}");
    }
}

#[test]
fn the_host_follows_the_reference_for_200_steps() {
    let training = Training { optimizer: ADAM, recompute: false };
    let reference = losses(&training, Target::reference(), 200);
    let host = losses(&training, Target::host(), 200);
    assert!((2.0..4.0).contains(&reference[0]), "ln 17 is 2.83, not {}", reference[0]);
    let last = reference[190..].iter().sum::<f64>() / 10.0;
    assert!(last < 0.2, "nothing was learned: {last}");
    near(&host, &reference, 2e-3, "host");
    for (mesh, shardings) in MESHES {
        let mesh = Mesh::parse(mesh).expect("it is a mesh");
        let compiler = Compiler::new().threads(1).mesh(mesh.clone());
        let compiler =
            shardings.iter().fold(compiler, |compiler, (name, text)| compiler.shard(*name, *text));
        near(&losses_by(&training, &compiler, 200), &reference, 2e-3, &format!("{mesh}"));
    }
}

/// A batch over copies; weights and the state of the optimizer over tensor ranks, too.
const MESHES: &[(&str, &[(&str, &str)])] = &[
    ("dp=2", &[("tokens", "{dp, _}"), ("targets", "{dp, _}")]),
    (
        "dp=2,tp=2",
        &[
            ("tokens", "{dp, _}"),
            ("targets", "{dp, _}"),
            ("model.layers.0.mlp.gate_proj.weight", "{tp, _}"),
            ("model.layers.0.mlp.up_proj.weight", "{tp, _}"),
            ("model.layers.1.mlp.gate_proj.weight", "{tp, _}"),
            ("model.layers.1.self_attn.q_proj.weight", "{tp, _}"),
        ],
    ),
];

#[test]
fn computing_layers_anew_changes_nothing() {
    let kept = Training { optimizer: Optimizer::Sgd { rate: 0.1 }, recompute: false };
    let anew = Training { recompute: true, ..kept };
    let wanted = losses(&kept, Target::reference(), 12);
    assert!(wanted[11] < wanted[0]);
    near(&losses(&anew, Target::reference(), 12), &wanted, 1e-6, "reference");
    near(&losses(&anew, Target::host(), 12), &wanted, 1e-4, "host");
}
