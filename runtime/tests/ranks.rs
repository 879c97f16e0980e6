//! Models on the ranks of a mesh give what they give on one device: on the host and by every evaluator.

use std::collections::BTreeMap;
use std::fmt::Write;
use systole::{
    Compiler, ErrorKind, Inputs, Mesh, Model, RankTimeline, RunOptions, Target, Tensor, Timeline,
};

/// Numbers in -1..1 that depend on name and position alone.
fn random(name: &str, shape: &[usize]) -> Tensor {
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 2001) as f32 / 1000.0 - 1.0
    };
    let count = shape.iter().product();
    let elements: Vec<f32> = (0..count).map(|_| next()).collect();
    Tensor::from_slice(shape, &elements)
}

fn inputs(model: &Model) -> Inputs {
    model
        .signature()
        .inputs
        .iter()
        .map(|port| {
            let shape = port.ty().expect("sizes are fixed").shape.to_vec();
            (port.name.clone(), random(&port.name, &shape))
        })
        .collect()
}

fn run(model: &Model, compiler: &Compiler) -> Vec<(String, Tensor)> {
    let program = compiler.compile(model).unwrap_or_else(|error| panic!("{error}"));
    let first = program.run(inputs(model)).unwrap_or_else(|error| panic!("{error}"));
    let again = program.run(inputs(model)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(first, again, "every run gives the same");
    first.into_entries()
}

fn check(model: &Model, mesh: &str, shardings: &[(&str, &str)]) {
    let expected = run(model, &Compiler::new().target(Target::reference()));
    let mesh = Mesh::parse(mesh).expect("it is a mesh");
    for target in [Target::host(), Target::kernels(), Target::reference()] {
        let compiler = Compiler::new().target(target.clone()).threads(1).mesh(mesh.clone());
        let compiler =
            shardings.iter().fold(compiler, |compiler, (name, text)| compiler.shard(*name, *text));
        let found = run(model, &compiler);
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            assert_eq!(found.ty(), expected.ty(), "{name}");
            let pairs = found.values().to_f64().into_iter().zip(expected.values().to_f64());
            for (x, y) in pairs {
                let near = (x - y).abs() <= 1e-3 + 1e-3 * y.abs();
                assert!(near, "{name} on {target} and {mesh}: {x} is not {y}");
            }
        }
    }
}

/// On modeled cores: the values of one device, and the same time whether all ranks are simulated with values, or one of each
/// program without.
fn check_cores(model: &Model, mesh: &str, shardings: &[(&str, &str)]) -> Timeline {
    let expected = run(model, &Compiler::new().target(Target::reference()));
    let mesh = Mesh::parse(mesh).expect("it is a mesh");
    let target = Target::systolic("trn2").expect("there is one");
    let compiler = Compiler::new().target(target).mesh(mesh.clone());
    let compiler =
        shardings.iter().fold(compiler, |compiler, (name, text)| compiler.shard(*name, *text));
    let program = compiler.compile(model).unwrap_or_else(|error| panic!("{error}"));
    let found = program.run(inputs(model)).unwrap_or_else(|error| panic!("{error}"));
    for ((name, found), (_, expected)) in found.into_entries().iter().zip(&expected) {
        let pairs = found.values().to_f64().into_iter().zip(expected.values().to_f64());
        for (x, y) in pairs {
            let near = (x - y).abs() <= 1e-3 + 1e-3 * y.abs();
            assert!(near, "{name} on {mesh}: {x} is not {y}");
        }
    }
    let ran = program.last_timeline().expect("modeled cores have a time");
    let timed = program.timeline(&BTreeMap::new(), true, &RunOptions::default());
    let timed = timed.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(ran.ranks, mesh.ranks());
    assert_eq!(ran.time_us, timed.time_us, "{mesh}");
    assert_eq!(ran.path, timed.path, "{mesh}");
    let sum: f64 = timed.path.iter().map(|part| part.time_us).sum();
    assert!((sum - timed.time_us).abs() < 1e-3, "{sum} of {}", timed.time_us);
    timed
}

const SUM: &str = "accumulate = f32, dtype = f32";

fn mlp() -> Model {
    let text = format!(
        "func @main(%x: f32[8, 16], %w1: f32[16, 32], %w2: f32[32, 16]) -> (y: f32[8, 16]) {{
  %h = contract %x, %w1 {{batch = [], over = [[1, 0]], {SUM}}}
  %g = gelu %h
  %y = contract %g, %w2 {{batch = [], over = [[1, 0]], {SUM}}}
  return %y
}}"
    );
    Model::from_text(&text).expect("a model")
}

/// Two layers: norms, rotary positions, eight heads that share four heads of keys and values, a causal mask, a gated
/// feed-forward. A batch of 8, 8 tokens, width 16.
fn llama() -> Model {
    let mut params = String::from("%x: f32[8, 8, 16]");
    for layer in 0..2 {
        let _ = write!(
            params,
            ", %an{layer}: f32[16], %wq{layer}: f32[16, 8, 4], %wk{layer}: f32[16, 4, 4], %wv{layer}: f32[16, 4, 4], \
             %wo{layer}: f32[8, 4, 16], %fn{layer}: f32[16], %gate{layer}: f32[16, 32], %up{layer}: f32[16, 32], \
             %down{layer}: f32[32, 16]"
        );
    }
    let mut text = format!(
        "func @main({params}) -> (y: f32[8, 8, 16]) {{\n  %h0 = reshape %x {{shape = [8, 8, 16]}}\n"
    );
    for i in 0..2 {
        let next = i + 1;
        let product =
            |a: &str, b: &str, pairs: &str| format!("contract {a}, {b} {{{pairs}, {SUM}}}");
        let plain = "batch = [], over = [[2, 0]]";
        let _ = write!(
            text,
            "  %n{i} = rms-norm %h{i}, %an{i} {{axis = 2, epsilon = 1e-5}}
  %q{i} = {}
  %k{i} = {}
  %v{i} = {}
  %tq{i} = call %q{i} {{function = turn_eight}}
  %tk{i} = call %k{i} {{function = turn_four}}
  %grouped{i} = reshape %tq{i} {{shape = [8, 8, 4, 2, 4]}}
  %products{i} = {}
  %scale{i}: f32[8, 4, 8, 2, 8] = constant {{value = splat(0.5)}}
  %scores{i} = mul %products{i}, %scale{i}
  %query{i}: i64[8, 4, 8, 2, 8] = iota {{axis = 2}}
  %key{i}: i64[8, 4, 8, 2, 8] = iota {{axis = 4}}
  %seen{i} = le %key{i}, %query{i}
  %lowest{i}: f32[8, 4, 8, 2, 8] = constant {{value = splat(-3.4028235e38)}}
  %masked{i} = select %seen{i}, %scores{i}, %lowest{i}
  %weights{i} = softmax %masked{i} {{axis = 4}}
  %mixed{i} = {}
  %ordered{i} = transpose %mixed{i} {{perm = [0, 2, 1, 3, 4]}}
  %heads{i} = reshape %ordered{i} {{shape = [8, 8, 8, 4]}}
  %attended{i} = {}
  %r{i} = add %h{i}, %attended{i}
  %m{i} = rms-norm %r{i}, %fn{i} {{axis = 2, epsilon = 1e-5}}
  %gated{i} = {}
  %opened{i} = silu %gated{i}
  %wide{i} = {}
  %hidden{i} = mul %opened{i}, %wide{i}
  %fed{i} = {}
  %h{next} = add %r{i}, %fed{i}
",
            product(&format!("%n{i}"), &format!("%wq{i}"), plain),
            product(&format!("%n{i}"), &format!("%wk{i}"), plain),
            product(&format!("%n{i}"), &format!("%wv{i}"), plain),
            product(
                &format!("%grouped{i}"),
                &format!("%tk{i}"),
                "batch = [[0, 0], [2, 2]], over = [[4, 3]]"
            ),
            product(
                &format!("%weights{i}"),
                &format!("%v{i}"),
                "batch = [[0, 0], [1, 2]], over = [[4, 1]]"
            ),
            product(
                &format!("%heads{i}"),
                &format!("%wo{i}"),
                "batch = [], over = [[2, 0], [3, 1]]"
            ),
            product(&format!("%m{i}"), &format!("%gate{i}"), plain),
            product(&format!("%m{i}"), &format!("%up{i}"), plain),
            product(&format!("%hidden{i}"), &format!("%down{i}"), plain),
        );
    }
    text.push_str("  return %h2\n}\n");
    for (name, heads) in [("turn_eight", 8), ("turn_four", 4)] {
        let _ = write!(
            text,
            "
func @{name}(%x: f32[8, 8, {heads}, 4]) -> (y: f32[8, 8, {heads}, 4]) {{
  %token: f32[8, 8, {heads}, 2] = iota {{axis = 1}}
  %frequency: f32[2] = constant {{value = [1.0, 0.01]}}
  %frequencies = broadcast %frequency {{shape = [8, 8, {heads}, 2], dims = [3]}}
  %angle = mul %token, %frequencies
  %c = cos %angle
  %s = sin %angle
  %first = slice %x {{start = [0, 0, 0, 0], limit = [8, 8, {heads}, 2], stride = [1, 1, 1, 1]}}
  %second = slice %x {{start = [0, 0, 0, 2], limit = [8, 8, {heads}, 4], stride = [1, 1, 1, 1]}}
  %first_cos = mul %first, %c
  %second_sin = mul %second, %s
  %turned_first = sub %first_cos, %second_sin
  %second_cos = mul %second, %c
  %first_sin = mul %first, %s
  %turned_second = add %second_cos, %first_sin
  %y = concat %turned_first, %turned_second {{axis = 3}}
  return %y
}}
"
        );
    }
    Model::from_text(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The weights of both layers over heads and hidden width.
const TENSOR: &[(&str, &str)] = &[
    ("wq0", "{_, tp, _}"),
    ("wk0", "{_, tp, _}"),
    ("wv0", "{_, tp, _}"),
    ("gate0", "{_, tp}"),
    ("up0", "{_, tp}"),
    ("wq1", "{_, tp, _}"),
    ("wk1", "{_, tp, _}"),
    ("wv1", "{_, tp, _}"),
    ("gate1", "{_, tp}"),
    ("up1", "{_, tp}"),
];

#[test]
fn an_mlp_on_ranks() {
    let model = mlp();
    for mesh in ["dp=2", "dp=4", "dp=8", "tp=2", "dp=2,tp=4"] {
        check(&model, mesh, &[]);
    }
    check(&model, "tp=4", &[("x", "{tp, _}"), ("w1", "{_, tp}"), ("y", "{tp, _}")]);
    check(&model, "pp=2,tp=2", &[("w1", "{_, tp}"), ("y", "{_, _, pp = 1}")]);
}

#[test]
fn a_llama_over_a_batch_and_heads() {
    let model = llama();
    check(&model, "dp=2", &[("x", "{dp, _, _}")]);
    check(&model, "dp=8", &[("x", "{dp, _, _}")]);
    check(&model, "tp=2", TENSOR);
    check(&model, "tp=4", TENSOR);
    check(&model, "tp=8", &[("wq0", "{_, tp, _}"), ("gate0", "{_, tp}"), ("up1", "{_, tp}")]);
    check(&model, "dp=2,tp=4", &[TENSOR, &[("x", "{dp, _, _}")]].concat());
}

#[test]
fn a_llama_over_sequences() {
    let model = llama();
    check(&model, "sp=4", &[("x", "{_, sp, _}"), ("y", "{_, sp, _}")]);
    // Between products, what is per token is divided by tokens.
    let sequence = [
        TENSOR,
        &[
            ("x", "{_, tp, _}"),
            ("r0", "{_, tp, _}"),
            ("h1", "{_, tp, _}"),
            ("r1", "{_, tp, _}"),
            ("y", "{_, tp, _}"),
        ],
    ]
    .concat();
    check(&model, "tp=2", &sequence);
    check(&model, "tp=4", &sequence);
}

#[test]
fn a_llama_on_stages() {
    let model = llama();
    check(&model, "pp=2", &[("h1", "{_, _, _, pp = 1}")]);
    let stages = [TENSOR, &[("x", "{dp, _, _}"), ("n1", "{_, _, _, pp = 1}")]].concat();
    check(&model, "dp=2,pp=2,tp=2", &stages);
}

fn kinds(program: &RankTimeline) -> Vec<&str> {
    let exchanges = program.spans.iter().filter(|span| span.exchange.is_some());
    exchanges.map(|span| span.name.as_str()).collect()
}

#[test]
fn an_mlp_on_modeled_cores() {
    let model = mlp();
    let timeline = check_cores(&model, "tp=2", &[("w1", "{_, tp}")]);
    assert_eq!(timeline.programs.len(), 1);
    assert_eq!(timeline.programs[0].ranks, [0, 1]);
    assert_eq!(kinds(&timeline.programs[0]), ["all-reduce"]);
    assert!(timeline.programs[0].exchange_us > 0.0);
    assert!(timeline.path.iter().any(|part| part.exchange && part.cause == "all-reduce"));
    // Nothing is exchanged over a batch.
    let timeline = check_cores(&model, "dp=4", &[("x", "{dp, _}")]);
    assert!(timeline.programs[0].exchange_us == 0.0);
    // Ranks that cut out their parts by their number.
    check_cores(&model, "tp=4", &[("x", "{tp, _}"), ("w1", "{_, tp}"), ("y", "{tp, _}")]);
}

#[test]
fn exchanges_hide_behind_kernels_that_do_not_wait_for_them() {
    let product =
        |a: &str, b: &str| format!("contract {a}, {b} {{batch = [], over = [[1, 0]], {SUM}}}");
    let text = format!(
        "func @main(%x: f32[256, 512], %w: f32[512, 256], %z: f32[256, 256], %v: f32[256, 256]) -> (y: f32[256, 256], u: f32[256, 256]) {{
  %y = {}
  %q = {}
  %u = tanh %q
  return %y, %u
}}",
        product("%x", "%w"),
        product("%z", "%v")
    );
    let model = Model::from_text(&text).expect("a model");
    let timeline = check_cores(&model, "tp=2", &[("x", "{_, tp}"), ("y", "{_, _}")]);
    let ranks = &timeline.programs[0];
    assert_eq!(kinds(ranks), ["all-reduce"]);
    assert!(ranks.exchange_us > 0.0 && ranks.exposed_us < 0.5 * ranks.exchange_us, "{ranks:?}");
}

#[test]
fn stages_on_modeled_cores_wait_for_messages() {
    let timeline = check_cores(&mlp(), "pp=2,tp=2", &[("w1", "{_, tp}"), ("y", "{_, _, pp = 1}")]);
    let ranks: Vec<&[usize]> =
        timeline.programs.iter().map(|program| program.ranks.as_slice()).collect();
    assert_eq!(ranks, [&[0, 1], &[2, 3]]);
    let [first, second] = timeline.programs.as_slice() else { panic!("there are two stages") };
    assert!(kinds(first).contains(&"permute") && kinds(second).contains(&"permute"));
    assert!(second.time_us > first.time_us);
    assert!(timeline.path.iter().any(|part| part.cause == "permute"));
}

#[test]
fn a_llama_on_modeled_cores() {
    check_cores(&llama(), "tp=2", TENSOR);
}

#[test]
fn chips_that_nobody_compiles_for_are_rooflines() {
    let compiler = Compiler::new().target(Target::kernels()).mesh(Mesh::new(&[("tp", 4)]));
    let compiler = compiler.shard("w1", "{_, tp}").system("dgx-h100");
    let program = compiler.compile(&mlp()).unwrap_or_else(|error| panic!("{error}"));
    let timeline = program.timeline(&BTreeMap::new(), false, &RunOptions::default());
    let timeline = timeline.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(timeline.target, "H100 SXM");
    assert_eq!(kinds(&timeline.programs[0]), ["all-reduce"]);
    let exchange = program.communications()[0].time_us.expect("it has a time");
    assert!((timeline.programs[0].exchange_us - exchange).abs() < 1e-9);
    assert!(timeline.time_us >= exchange);
}

#[test]
fn a_mesh_in_the_text_divides_the_model() {
    let text = "mesh @m [dp = 2, tp = 2]
func @main(%x: f32[4, 8] {dp, tp}) -> (y: f32[4]) {
  %y = reduce %x {combine = sum, axes = [1], accumulate = f32}
  return %y
}";
    let model = Model::from_text(text).expect("a model");
    let plain = text.replace("mesh @m [dp = 2, tp = 2]", "").replace(" {dp, tp}", "");
    let plain = Model::from_text(&plain).expect("a model");
    let found = run(&model, &Compiler::new());
    let expected = run(&plain, &Compiler::new());
    for (x, y) in found[0].1.values().to_f64().iter().zip(expected[0].1.values().to_f64()) {
        assert!((x - y).abs() < 1e-5);
    }
    // Axes have the sizes that the compiler says.
    let larger = run(&model, &Compiler::new().mesh(Mesh::new(&[("dp", 4), ("tp", 2)])));
    assert_eq!(larger[0].1.shape(), [4]);
}

#[test]
fn what_a_mesh_cannot_do_is_said() {
    let refused = |mesh: &str, name: &str, text: &str| {
        let mesh = Mesh::parse(mesh).expect("it is a mesh");
        let error = Compiler::new().mesh(mesh).shard(name, text).compile(&mlp());
        error.expect_err("it is refused").to_string()
    };
    assert!(refused("dp=3", "x", "{dp, _}").contains("does not divide into 3 parts"));
    assert!(refused("dp=2", "z", "{dp, _}").contains("there is no value `z` to divide"));
    assert!(refused("dp=2", "x", "{tp, _}").contains("has no axis tp"));
    assert!(refused("dp=2", "x", "{dp, dp}").contains("axis dp is used twice"));
}

#[test]
fn a_rank_that_fails_ends_the_run() {
    let compiler = Compiler::new().target(Target::reference()).mesh(Mesh::new(&[("tp", 4)]));
    let program =
        compiler.shard("w1", "{_, tp}").compile(&mlp()).unwrap_or_else(|error| panic!("{error}"));
    let options = RunOptions { memory_limit: Some(600), ..RunOptions::default() };
    let error = program.run_with(&options, inputs(&mlp())).expect_err("memory does not suffice");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    // The program is as good as before.
    program.run(inputs(&mlp())).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn exchanges_have_times_on_a_system() {
    let compiler = Compiler::new().target(Target::reference()).mesh(Mesh::new(&[("tp", 4)]));
    let compiler = compiler.shard("w1", "{_, tp}");
    let without = compiler.compile(&mlp()).unwrap_or_else(|error| panic!("{error}"));
    assert!(without.communications().is_empty());
    let program = compiler.clone().system("dgx-h100").compile(&mlp());
    let program = program.unwrap_or_else(|error| panic!("{error}"));
    let found = program.communications();
    assert_eq!(found.iter().map(|one| one.kind).collect::<Vec<_>>(), ["all-reduce"]);
    assert_eq!(found[0].ranks, 4);
    assert!(found[0].time_us.is_some_and(|time_us| time_us > 0.0), "{found:?}");
    let none = compiler.system("nowhere").compile(&mlp()).expect_err("there is none");
    assert!(none.to_string().contains("there is no system `nowhere`"), "{none}");
    let large = Compiler::new().mesh(Mesh::new(&[("dp", 16)])).system("dgx-h100");
    assert!(large.compile(&mlp()).is_err());
}
