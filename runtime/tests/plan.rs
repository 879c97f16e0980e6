//! Plans: their operations are those of the graph, published steps come out, and the command says so in JSON.

use serde_json::Value;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use systole::Target;
use systole::plan::{
    Checkpoints, Fixed, Pairs, Precision, Scores, Task, Work, forward_operations, load, operations,
    plan, platform, weights,
};
use systole_compiler::graph::Graph;
use systole_compiler::import::llm::{self, Config, ExpertForm, Form, Logits, Options, Workload};
use systole_compiler::op::Op;
use systole_compiler::pass::Context;
use systole_compiler::passes::{expand, gradient};

const SIZES: &str = r#""hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 6,
  "num_key_value_heads": 2, "intermediate_size": 24, "vocab_size": 29, "max_position_embeddings": 64,
  "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "torch_dtype": "float32""#;

fn configs() -> Vec<Config> {
    let json = |architecture: &str, rest: &str| {
        let text = format!(r#"{{"architectures": ["{architecture}"], {SIZES} {rest}}}"#);
        Config::parse(&text).unwrap_or_else(|error| panic!("{error}"))
    };
    let gpt2 = r#"{"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32,
        "vocab_size": 29, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new"}"#;
    vec![
        json("LlamaForCausalLM", ""),
        json("LlamaForCausalLM", r#", "tie_word_embeddings": true"#),
        json("MistralForCausalLM", r#", "sliding_window": 3"#),
        json("Qwen2ForCausalLM", ""),
        json("Qwen3ForCausalLM", ""),
        json("MixtralForCausalLM", r#", "num_local_experts": 5, "num_experts_per_tok": 2"#),
        json(
            "GptOssForCausalLM",
            r#", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 3, "attention_bias": true"#,
        ),
        Config::parse(gpt2).unwrap_or_else(|error| panic!("{error}")),
    ]
}

fn graph(config: &Config, workload: Workload) -> Graph {
    let (form, logits, experts) = (Form::Inputs, Logits::All, ExpertForm::Gathered);
    let options = Options { form, logits, experts, ..Options::new(config, workload) };
    llm::build(config, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// Operations of every product of the graph.
fn counted(mut graph: Graph) -> f64 {
    let machine = Target::host().machine().expect("this machine is known");
    let context = Context { machine: &machine, options: Vec::new(), declined: Default::default() };
    let _ = (expand::PASS.run)(&mut graph, &context).expect("composites expand");
    let function = graph.entry();
    let mut total = 0.0;
    function.visit(&function.body, &mut |id| {
        let node = &function.nodes[id];
        let Op::Contract(contract) = &node.op else { return };
        let summed: usize =
            contract.over.iter().map(|pair| function.ty(node.operands[0]).shape[pair[0]]).product();
        total += 2.0 * function.ty(node.results[0]).count() as f64 * summed as f64;
    });
    total
}

#[test]
fn operations_are_those_of_the_graph() {
    for config in configs() {
        let prefill = graph(&config, Workload::Prefill { batch: 2, tokens: 7 });
        let told = forward_operations(&config, 2.0, 7.0, Pairs::All);
        assert_eq!(counted(prefill), told, "{config:?}");
        let decode = graph(&config, Workload::Decode { batch: 3, tokens: 1, capacity: 11 });
        let layers = (0..config.layers)
            .map(|index| operations(&config, index, 3.0, 11.0, Pairs::All).total());
        let logits = 2.0 * 3.0 * (config.hidden * config.vocabulary) as f64;
        assert_eq!(counted(decode), layers.sum::<f64>() + logits, "{config:?}");
    }
}

#[test]
fn training_takes_three_times_the_products_and_scores_once_more() {
    let config = &configs()[0];
    let forward = graph(config, Workload::Train { batch: 2, tokens: 5 });
    let training = gradient::differentiate(&forward).expect("it has a derivative");
    let told = forward_operations(config, 2.0, 5.0, Pairs::All);
    let attention: f64 = (0..config.layers)
        .map(|index| operations(config, index, 10.0, 5.0, Pairs::All).attention)
        .sum();
    assert_eq!(counted(forward), told);
    assert_eq!(counted(training), 3.0 * told + attention);
}

#[test]
fn weights_are_those_of_the_graph() {
    for config in configs() {
        let listed: usize = llm::weights(&config, None)
            .expect("it has weights")
            .iter()
            .map(|(_, ty)| ty.count())
            .sum();
        assert_eq!(weights(&config).total(config.layers), listed as f64, "{config:?}");
    }
}

fn validation() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/validation/published-steps.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

const PAGE: &str = "# Published steps of training, and what `systole plan` says\n
Each row is a step of training that was published with its mesh; `tests/validation/published-steps.json` has the rows and
their sources. Utilization is that of the model's own operations, without recomputed ones, of the peak. The planner has one
constant of its own, what products inside a step reach of what they reach alone; it was fitted to the rows that say so, with
the others in sight. All else comes from the descriptions of systems, which were made without these rows. The last column is
the error of a row where that constant is fitted anew to all rows but this one.\n
| model and mesh | system | step here, s | utilization published, % | here, % | error, % | | left out, % |
| --- | --- | --- | --- | --- | --- | --- | --- |
";

const SERVING: &str = "
## Serving\n
Nothing is fitted to these rows. They come from bandwidth of memory and links, from exchanges among all cores, and from
`kernel_us` times the kernels of a layer. What makes one sequence slower still is not known here:
libraries have more kernels, and matrices of one row stream worse than large ones.\n
| model and mesh | system | published, ms | here, ms | error, % |
| --- | --- | --- | --- | --- |
";

/// One row of serving: its name, the published time and ours.
fn served(file: &Value, row: &Value) -> (String, f64, f64) {
    let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}"));
    let size = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{key} of {row}")) as usize;
    let config = Config::parse(&file["models"][text("model")].to_string())
        .unwrap_or_else(|error| panic!("{error}"));
    let platform = platform(&load(text("system"), &[]).unwrap_or_else(|error| panic!("{error}")));
    let work = if text("workload") == "decode" { Work::Decode } else { Work::Prefill };
    let (batch, length) = (size("batch"), size("seq"));
    let (precision, scores) = (Precision::BF16, Scores::Fused);
    let task = Task { config, work, batch, length, precision, scores };
    let fixed = Fixed::parse(text("mesh")).unwrap_or_else(|error| panic!("{error}"));
    let plan = plan(&platform, &task, &fixed, &Checkpoints::default(), &|_, _| true)
        .unwrap_or_else(|trouble| panic!("{trouble:?}"));
    let name = format!("{} {} {}", text("model"), text("workload"), text("mesh"));
    (name, row["time_s"].as_f64().expect("a time"), plan.best.candidate.step.seconds)
}

/// One row of the published steps: its name, what was published and what comes out, as utilizations.
/// Products are `factor` times as fast as the system's description says.
fn published(file: &Value, row: &Value, factor: f64) -> (String, f64, f64, f64) {
    let text = |key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}"));
    let size = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{key} of {row}")) as usize;
    let config = Config::parse(&file["models"][text("model")].to_string())
        .unwrap_or_else(|error| panic!("{error}"));
    let system = load(text("system"), &[]).unwrap_or_else(|error| panic!("{error}"));
    let mut platform = platform(&system);
    platform.compute_efficiency *= factor;
    let precision = if text("precision") == "f16" { Precision::F16 } else { Precision::BF16 };
    let scores = if text("scores") == "kept" { Scores::Kept } else { Scores::Fused };
    let (batch, length) = (size("batch"), size("seq"));
    let task = Task { config, work: Work::Train, batch, length, precision, scores };
    let fixed = Fixed::parse(text("mesh")).unwrap_or_else(|error| panic!("{error}"));
    let plan = plan(&platform, &task, &fixed, &Checkpoints::default(), &|_, _| true)
        .unwrap_or_else(|trouble| panic!("{trouble:?}"));
    let best = &plan.best;
    let step = best.candidate.step.seconds;
    let known = match row["time_s"].as_f64() {
        Some(seconds) => best.mfu * step / seconds,
        None => row["mfu"].as_f64().expect("a row has a time or a utilization"),
    };
    (format!("{} {}", text("model"), text("mesh")), known, best.mfu, step)
}

/// The error of each row where the speed of products is fitted to all others: the one of a grid with the least mean error.
fn left_out(file: &Value, rows: &[Value]) -> Vec<f64> {
    let factors: Vec<f64> = (0..17).map(|step| 0.84 + 0.02 * f64::from(step)).collect();
    let errors: Vec<Vec<f64>> = factors
        .iter()
        .map(|&factor| {
            let error = |row: &Value| {
                let (_, known, found, _) = published(file, row, factor);
                found / known - 1.0
            };
            rows.iter().map(error).collect()
        })
        .collect();
    (0..rows.len())
        .map(|row| {
            let sum = |errors: &Vec<f64>| -> f64 {
                let others = errors.iter().enumerate().filter(|(other, _)| *other != row);
                others.map(|(_, error)| error.abs()).sum()
            };
            let best = errors.iter().min_by(|a, b| sum(a).total_cmp(&sum(b)));
            best.map_or(f64::NAN, |errors| errors[row])
        })
        .collect()
}

#[test]
fn published_steps_come_out() {
    let file = validation();
    let rows = file["rows"].as_array().expect("there are rows");
    let mut predicted = Vec::new();
    let mut page = PAGE.to_owned();
    let mut figures = Vec::new();
    let left_out = left_out(&file, rows);
    for (row, left_out) in rows.iter().zip(&left_out) {
        let (name, known, found, seconds) = published(&file, row, 1.0);
        let error = found / known - 1.0;
        let fitted = row["fitted"] == true;
        page += &format!(
            "| {name} | {} | {seconds:.2} | {:.1} | {:.1} | {:+.1} | {} | {:+.1} |\n",
            row["system"].as_str().expect("a row has a system"),
            100.0 * known,
            100.0 * found,
            100.0 * error,
            if fitted { "fitted" } else { "predicted" },
            100.0 * left_out
        );
        figures.push((name, 100.0 * found));
        if !fitted {
            predicted.push(error.abs());
        }
    }
    let mean = predicted.iter().sum::<f64>() / predicted.len() as f64;
    let mean_left_out =
        left_out.iter().map(|error| error.abs()).sum::<f64>() / left_out.len() as f64;
    page += &format!(
        "\nMean absolute error of the predicted rows: {:.1} %; of all rows, each left out: {:.1} %.\n",
        100.0 * mean,
        100.0 * mean_left_out
    );
    page += SERVING;
    for row in file["serving"].as_array().expect("there are rows") {
        let (name, known, seconds) = served(&file, row);
        page += &format!(
            "| {name} | {} | {:.2} | {:.2} | {:+.0} |\n",
            row["system"].as_str().expect("a row has a system"),
            1e3 * known,
            1e3 * seconds,
            100.0 * (seconds / known - 1.0)
        );
        assert!((0.45..=1.15).contains(&(seconds / known)), "{name}: {seconds} s, not {known}");
    }
    assert!(predicted.iter().all(|error| *error <= 0.15) && mean <= 0.09, "mean {mean}\n{page}");

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/validation-plan.md");
    if std::env::var_os("SYSTOLE_WRITE_PAGES").is_some() {
        std::fs::write(path, &page).expect("the page is written");
    }
    // Descriptions of systems are sharpened now and then: the page may be two points behind.
    let written = std::fs::read_to_string(path).unwrap_or_default();
    for (name, found) in figures {
        let line = written.lines().find(|line| line.contains(&format!("| {name} |")));
        let known = line.and_then(|line| line.split('|').nth(5)?.trim().parse::<f64>().ok());
        assert!(
            known.is_some_and(|known| (known - found).abs() <= 2.0),
            "{path} is not current: SYSTOLE_WRITE_PAGES=1 cargo test -p systole --test plan\n{page}"
        );
    }
}

fn systole(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_systole")).args(arguments).output().expect("it starts")
}

/// The configuration of the 405 B model, in a file.
fn large() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let config = validation()["models"]["llama-3-405b"].to_string();
    std::fs::write(file.path(), config).expect("it is written");
    file
}

fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn large_systems_are_planned_fast_and_the_same_each_time() {
    let config = large();
    let path = config.path().to_str().expect("a path");
    for system in ["trn3-gen2-144*64", "trn2-ultra64*64", "gb200-nvl72*64"] {
        let start = Instant::now();
        let first = systole(&["plan", path, "--system", system, "--json"]);
        assert!(start.elapsed() < Duration::from_secs(60), "{system} took {:?}", start.elapsed());
        assert_eq!(first.status.code(), Some(0), "{}", String::from_utf8_lossy(&first.stderr));
        let again = systole(&["plan", path, "--system", system, "--json"]);
        assert_eq!(first.stdout, again.stdout, "{system}");
        let object = json(&first);
        let keys: Vec<&String> = object.as_object().expect("an object").keys().collect();
        assert_eq!(
            keys,
            [
                "schema",
                "system",
                "chips",
                "mesh",
                "workload",
                "time_s",
                "tokens_per_s",
                "mfu",
                "memory_gib_per_chip",
                "energy_j_per_token",
                "usd_per_million_tokens",
                "power_kw",
                "goodput",
                "candidates",
                "alternatives"
            ]
        );
        let mesh = &object["mesh"];
        let product = ["dp", "tp", "pp"].map(|key| mesh[key].as_u64().expect("a size"));
        assert_eq!(product.iter().product::<u64>(), object["chips"].as_u64().expect("a number"));
        let mfu = object["mfu"].as_f64().expect("a number");
        assert!((0.1..0.9).contains(&mfu), "{system}: {mfu}");
        let slower = object["alternatives"][0]["time_s"].as_f64().expect("a runner-up");
        assert!(slower >= object["time_s"].as_f64().expect("a number"));
    }
}

#[test]
fn what_does_not_fit_says_what_is_too_large() {
    let config = large();
    let path = config.path().to_str().expect("a path");
    let output = systole(&["plan", path, "--system", "dgx-a100", "--batch", "8", "--json"]);
    assert_eq!(output.status.code(), Some(4));
    let message = json(&output)["error"]["diagnostics"][0].to_string();
    assert!(message.contains("GiB a chip of 80.0"), "{message}");
    assert!(message.contains("the largest part: optimizer state"), "{message}");
}

#[test]
fn runs_power_and_comparisons() {
    let config = large();
    let path = config.path().to_str().expect("a path");
    let run = ["plan", path, "--system", "dgx-h100*1024", "--train-tokens", "15e12", "--json"];
    let object = json(&systole(&run));
    let number = |key: &str| object[key].as_f64().unwrap_or_else(|| panic!("{key} of {object}"));
    let days = 15e12 / (number("tokens_per_s") * number("goodput")) / 86_400.0;
    assert!((number("days") / days - 1.0).abs() < 1e-9);
    let mwh = number("power_kw") * days * 24.0 / 1e3;
    assert!((number("mwh") / mwh - 1.0).abs() < 1e-9);
    assert!(number("failures") > 100.0 && number("checkpoint_interval_s") > 60.0);

    let power = [
        "plan",
        path,
        "--system",
        "aifactory-trn3",
        "--power-mw",
        "5",
        "--workload",
        "decode",
        "--json",
    ];
    let output = systole(&power);
    let object = json(&output);
    assert!(object["racks"].as_f64().is_some_and(|racks| racks >= 2.0), "{object}");
    assert!(object["power_kw"].as_f64().is_some_and(|power| power <= 5000.0), "{object}");

    let both =
        ["plan", path, "--system", "dgx-h100*64", "--system", "trn2-ultra64*8", "--batch", "512"];
    let output = systole(&both);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("dgx-h100*64") && table.contains("trn2-ultra64*8"), "{table}");
    let one = [
        "plan",
        path,
        "--system",
        "dgx-h100",
        "--system",
        "trn2-ultra64*8",
        "--batch",
        "512",
        "--json",
    ];
    let object = json(&systole(&one));
    assert_eq!(object["does_not_fit"][0], "dgx-h100");
    assert_eq!(object["systems"][0]["system"], "trn2-ultra64*8");
}

#[test]
fn mistakes_are_told() {
    let config = large();
    let path = config.path().to_str().expect("a path");
    let told = |arguments: &[&str], code: i32, words: &str| {
        let output = systole(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.contains(words), "{text}");
    };
    told(&["plan", path, "--system", "dgx-h10"], 2, "there is no system `dgx-h10`");
    told(
        &["plan", path, "--system", "dgx-h100", "--mesh", "tp=8,qp=2"],
        2,
        "`qp` is not a part of a mesh",
    );
    told(&["plan", path, "--system", "dgx-h100*16", "--mesh", "tp=7"], 2, "no mesh of 128 chips");
    told(&["plan", path, "--system", "dgx-h100", "--seq", "1000000"], 2, "131072 positions");
    told(&["plan", "nowhere.json", "--system", "dgx-h100"], 2, "cannot read nowhere.json");
    let other = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(other.path(), r#"{"architectures": ["BertModel"]}"#).expect("it is written");
    let other = other.path().to_str().expect("a path");
    told(&["plan", other, "--system", "dgx-h100"], 3, "`BertModel` is not supported");
}

#[test]
fn claims_are_recomputed() {
    let output = systole(&["claims", "--json"]);
    let object = json(&output);
    let claims = object["claims"].as_array().expect("there are claims");
    assert!(claims.len() >= 30, "{}", claims.len());
    let figure = |words: &str| {
        let found = claims
            .iter()
            .find(|claim| claim["claim"].as_str().is_some_and(|text| text.contains(words)));
        let found = found.unwrap_or_else(|| panic!("no claim says {words}"));
        (found["figure"].as_f64(), found["verdict"].as_str().expect("a verdict").to_owned())
    };
    assert_eq!(figure("144 chips"), (Some(144.0), "holds".to_owned()));
    let (compute, verdict) = figure("more than four times");
    assert!(compute.is_some_and(|compute| (4.3..4.4).contains(&compute)) && verdict == "holds");
    let (memory, verdict) = figure("it has four times the memory");
    assert!(memory.is_some_and(|memory| memory < 3.4) && verdict == "does not hold");
    assert_eq!(figure("50 %").1, "cannot be checked");
}
