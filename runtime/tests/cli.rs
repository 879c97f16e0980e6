//! What the command line promises: exit codes, JSON forms, files, and words for who makes a mistake.

mod support;

use serde_json::json;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::{Ended, folder, systole};
use tempfile::TempDir;

const EXP: &str = "func @main(%x: f32[2, 2]) -> (y: f32[2, 2]) {\n  %y = exp %x\n  return %y\n}\n";

/// A folder with a model of each kind.
fn models() -> TempDir {
    folder(&[
        ("dense.onnx", &support::dense()),
        ("reshape.onnx", &support::reshape()),
        ("exp.tir", EXP.as_bytes()),
        ("wide.tir", b"func @main(%x: f64[2]) -> (y: f64[2]) {\n  %y = exp %x\n  return %y\n}\n"),
        ("wrong.tir", b"func @main(%x: f32[2]) -> f32[2] {\n  return %z\n}\n"),
    ])
}

/// The error that the arguments give, and its exit code.
fn refused(arguments: &[&str]) -> String {
    let ended = systole(models().path(), arguments);
    assert_eq!(ended.out, "", "{ended:?}");
    format!("exit {}\n{}", ended.code.expect("no signal"), ended.err)
}

fn ok(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended
}

#[test]
fn run_prints_outputs_and_times() {
    let ended = ok(systole(
        models().path(),
        &["run", "exp.tir", "--target", "reference", "--input", "x=2x2xf32=0 0 1 -1"],
    ));
    let mut lines = ended.out.lines();
    assert_eq!(lines.next(), Some("y: f32[2, 2] = 1 1 2.7182817 0.36787945"));
    let times = lines.next().expect("a line");
    assert!(
        times.starts_with("reference: loaded in ") && times.contains(" ms, ran in "),
        "{times}"
    );
    assert_eq!((lines.next(), ended.err.as_str()), (None, ""));
}

#[test]
fn run_json_has_the_documented_form() {
    let folder = models();
    let input = "x=2x2xf32=0 0 0 0";
    let run = |more: &[&str]| {
        let arguments = ["run", "exp.tir", "--target", "reference", "--input", input, "--json"];
        systole(folder.path(), &[&arguments[..], more].concat())
    };
    let object = ok(run(&["--outputs", "y.npz"])).json();
    let keys: Vec<&String> = object.as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        ["schema", "model", "target", "outputs", "compile_ms", "run_ms", "time_us", "compare"]
    );
    assert_eq!(object["schema"], 1);
    assert_eq!(object["model"], "exp.tir");
    assert_eq!(object["target"], "reference");
    assert_eq!(object["outputs"], json!([{"name": "y", "dtype": "f32", "shape": [2, 2]}]));
    assert!(object["compile_ms"].is_f64() && object["run_ms"].is_f64());
    assert!(object["time_us"].is_null() && object["compare"].is_null());
    let object = ok(run(&["--expect", "y.npz"])).json();
    assert_eq!(object["compare"], json!({"ok": true, "max_abs": 0.0, "max_rel": 0.0}));
}

#[test]
fn bench_json_has_the_documented_form() {
    let ended = ok(systole(
        models().path(),
        &[
            "bench",
            "dense.onnx",
            "--target",
            "reference",
            "--dim",
            "batch=4",
            "--input",
            "*=random:0",
            "--runs",
            "5",
            "--json",
        ],
    ));
    let object = ended.json();
    let keys: Vec<&String> = object.as_object().expect("an object").keys().collect();
    assert_eq!(
        keys,
        [
            "schema",
            "model",
            "target",
            "threads",
            "load_ms",
            "compile_ms",
            "runs",
            "latency_ms",
            "peak_rss_mib",
            "compile_parts_ms",
            "kernels",
            "memory_bytes"
        ]
    );
    assert_eq!(
        (&object["schema"], &object["runs"], &object["threads"]),
        (&json!(1), &json!(5), &json!(1))
    );
    let latency = |key: &str| object["latency_ms"][key].as_f64().expect("a number");
    assert!(latency("min") <= latency("median") && latency("median") <= latency("p90"));
}

#[test]
fn bench_tells_where_compile_time_and_memory_go() {
    let folder = models();
    let run = |more: &[&str]| {
        let arguments =
            ["bench", "dense.onnx", "--dim", "batch=4", "--input", "*=random:0", "--runs", "3"];
        ok(systole(folder.path(), &[&arguments[..], more].concat()))
    };
    let object = run(&["--json", "--threads", "1"]).json();
    for part in ["import", "passes", "code", "packing"] {
        assert!(object["compile_parts_ms"][part].is_f64(), "{part}");
    }
    let bytes = |key: &str| object["memory_bytes"][key].as_u64().expect("a number");
    assert!(bytes("arena_lower_bound") <= bytes("arena"));
    assert_eq!(bytes("results"), 4 * 2 * 4);
    assert!(object["kernels"].as_u64().expect("a number") > 0);
    let text = run(&[]).out;
    assert!(text.contains("packing") && text.contains("must be live at once"), "{text}");
}

#[test]
fn a_saved_program_stands_for_its_model() {
    let folder = models();
    let at = |arguments: &[&str]| systole(folder.path(), arguments);
    ok(at(&["compile", "dense.onnx", "--dim", "batch=2", "-o", "dense.systole"]));
    let x = ["--input", "x=2x3xf32=0 1 2 3 4 5"];
    let run = |more: &[&str]| ok(at(&[&["run"], more, &x[..]].concat()));
    run(&["dense.onnx", "--outputs", "y.npz"]);
    run(&["dense.systole", "--expect", "y.npz", "--tol", "0,0"]);
    run(&["dense.systole", "--expect", "y.npz", "--target", "kernels"]);
    ok(at(&[&["bench", "dense.systole", "--runs", "2"], &x[..]].concat()));
    let checked = ok(at(&["check", "dense.systole"]));
    assert!(checked.out.contains("all of it compiles"), "{}", checked.out);
    let object = ok(at(&["inspect", "dense.systole", "--json"])).json();
    assert_eq!(object["format"], "program");
    assert_eq!(object["inputs"], json!([{"name": "x", "type": "f32[2, 3]"}]));
    assert!(ok(at(&["inspect", "dense.systole"])).out.contains("x: f32[2, 3]"));

    let ended = at(&["run", "dense.systole", "--dim", "batch=2", "--input", "*=zeros"]);
    assert_eq!(ended.code, Some(2), "{}", ended.err);
    assert_eq!(at(&["compile", "dense.systole", "--emit", "module"]).code, Some(1));
    assert_eq!(
        at(&["compile", "dense.onnx", "--dim", "batch=2"]).code,
        Some(2),
        "nothing is asked for"
    );
    let late = ["compile", "dense.onnx", "--dim", "batch=2", "--time-limit", "1ms", "-o"];
    let late = at(&[&late[..], &["late.systole"]].concat());
    assert!(
        late.code == Some(6)
            || (late.code == Some(0) && folder.path().join("late.systole").exists())
    );
    let bytes = std::fs::read(folder.path().join("dense.systole")).expect("a file");
    std::fs::write(folder.path().join("cut"), &bytes[..bytes.len() - 3]).expect("a file");
    let ended = at(&["run", "cut", "--input", "*=zeros"]);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("cut off"), "{}", ended.err);
}

#[test]
fn a_comparison_that_fails_ends_with_5() {
    let folder = models();
    let run = |input: &str, more: &[&str]| {
        let arguments = ["run", "exp.tir", "--target", "reference", "--input", input];
        systole(folder.path(), &[&arguments[..], more].concat())
    };
    ok(run("x=2x2xf32=0 0 0 0", &["--outputs", "y.npz"]));
    let ended = run("x=2x2xf32=0 0 0.5 0", &["--expect", "y.npz"]);
    assert_eq!(ended.code, Some(5));
    let line = ended.out.lines().find(|line| line.starts_with("compare")).expect("a line");
    insta::assert_snapshot!(line, @"compare y: FAILED, 1 of 4 elements differ, first at [1, 0]: 1.6487212181091309, expected 1; largest difference 0.6487 absolute, 0.6487 relative");
    ok(run("x=2x2xf32=0 0 0.5 0", &["--expect", "y.npz", "--tol", "1,0"]));
    let json = run("x=2x2xf32=0 0 0.5 0", &["--expect", "y.npz", "--json"]);
    assert_eq!((json.code, &json.json()["compare"]["ok"]), (Some(5), &json!(false)));
}

#[test]
fn outputs_of_one_run_are_inputs_of_the_next() {
    let folder = models();
    let text = "func @main(%x: f32[2, 2], %n: i64[3], %h: bf16[2]) -> (x: f32[2, 2], n: i64[3], h: bf16[2]) {\n  return %x, %n, %h\n}\n";
    std::fs::write(folder.path().join("same.tir"), text).expect("a file");
    let run = |arguments: &[&str]| {
        let first = ["run", "same.tir", "--target", "reference"];
        ok(systole(folder.path(), &[&first[..], arguments].concat()))
    };
    run(&["--input", "*=random:3", "--outputs", "a.npz"]);
    run(&["--inputs", "a.npz", "--expect", "a.npz", "--outputs", "b"]);
    let mut names: Vec<String> = std::fs::read_dir(folder.path().join("b"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["h.pb", "n.npy", "x.npy"]);
    let (n, x) = ("n=b/n.npy", "x=@b/x.npy");
    run(&[
        "--input",
        n,
        "--input",
        x,
        "--input",
        "h=@b/h.pb",
        "--expect",
        "a.npz",
        "--outputs",
        "c.npz",
    ]);
    run(&["--input", "x=@c.npz:x", "--inputs", "a.npz", "--expect", "a.npz", "--tol", "0,0"]);
}

#[test]
fn sizes_come_from_flags_or_from_inputs() {
    let folder = models();
    let run = |arguments: &[&str]| {
        let first = ["run", "dense.onnx", "--target", "reference", "--json"];
        systole(folder.path(), &[&first[..], arguments].concat())
    };
    let shape = |ended: Ended| ok(ended).json()["outputs"][0]["shape"].clone();
    assert_eq!(shape(run(&["--dim", "batch=5", "--input", "x=zeros"])), json!([5, 2]));
    assert_eq!(shape(run(&["--input", "x=4x3xf32=random:1"])), json!([4, 2]));
    assert_eq!(run(&["--input", "x=zeros"]).code, Some(2));
    let reshape = ["run", "reshape.onnx", "--target", "reference", "--json", "--input", "x=zeros"];
    let ended = systole(folder.path(), &[&reshape[..], &["--input", "shape=2xi64=6 1"]].concat());
    assert_eq!(shape(ended), json!([6, 1]));
}

#[test]
fn mistakes_are_explained() {
    let run = |more: &[&'static str]| {
        refused(&[&["run", "dense.onnx", "--target", "reference"], more].concat())
    };
    insta::assert_snapshot!(run(&[]), @r"
    exit 2
    error[usage]: 1 input is missing
      x: f32[batch, 3]   --input 'x=@FILE.npy'
      help: give each with --input, all in a bundle with --inputs FILE.npz, or try --input '*=random:0' with sizes by --dim NAME=N
    ");
    insta::assert_snapshot!(run(&["--input", "x=zeros"]), @r"
    exit 2
    error[usage]: the size `batch` of input x: f32[batch, 3] is not known
      help: bind it, as in --dim batch=1
    ");
    insta::assert_snapshot!(run(&["--input", "X=zeros"]), @r"
    exit 2
    error[usage]: the model has no input `X`
      help: the inputs are x: f32[batch, 3]
    ");
    insta::assert_snapshot!(run(&["--input", "x=4xf32=1 2"]), @r"
    exit 2
    error[usage]: input `x`: f32[4] has 4 elements, but 2 are given
    ");
    insta::assert_snapshot!(run(&["--input", "x=what"]), @r"
    exit 2
    error[usage]: cannot read the input `what`
      help: an input is written as @x.npy, @b.npz:x, @x.pb, zeros, random:SEED, random:SEED:LO..HI, or its elements as in '2x2xf32=1 2 3 4' or 'f32=0.5'
    ");
    insta::assert_snapshot!(run(&["--input", "x=@none.npy"]), @r"
    exit 2
    error[file]: cannot read none.npy: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(run(&["--dim", "batch=two"]), @r"
    exit 2
    error: invalid value 'batch=two' for '--dim <NAME=N>': `two` is not a size

    For more information, try '--help'.
    ");
    insta::assert_snapshot!(run(&["--dim", "rows=2"]), @r"
    exit 2
    error[unbound-dimension]: the model has no symbolic size `rows`
      help: it has `batch`
    ");
    insta::assert_snapshot!(run(&["--threads", "2"]), @r"
    exit 2
    error[usage]: --threads has no effect on the target reference
      help: leave out --threads, or use another --target
    ");
    insta::assert_snapshot!(run(&["--print-changed"]), @r"
    exit 2
    error[usage]: --print-changed has no effect on the target reference
      help: leave out --print-changed, or use another --target
    ");
    insta::assert_snapshot!(refused(&["run", "wrong.tir", "--target", "reference"]), @r"
    exit 1
    error[unknown-name]: nothing defines %z here
     --> wrong.tir:2:10
      |
    2 |   return %z
      |          ^^
      |
      = help: there is %x
    ");
    insta::assert_snapshot!(refused(&["run", "none.onnx"]), @r"
    exit 2
    error[file]: cannot read none.onnx: No such file or directory (os error 2)
    ");
    insta::assert_snapshot!(
        refused(&["run", "wide.tir", "--target", "trn2", "--input", "x=2xf64=0 1"]),
        @r"
    exit 3
    error[unsupported]: @exp_0: no engine computes in f64
     |
     = note: at node @exp_0
    "
    );
    insta::assert_snapshot!(refused(&["run", "exp.tir", "--target", "cuda"]), @r"
    exit 2
    error[unknown-name]: there is no target `cuda`
      help: the targets are `host`, `reference`, `kernels`, `trn1`, `trn2`, `trn3`, `trn4`
    ");
    insta::assert_snapshot!(refused(&["opt", "exp.tir", "--passes", "simplify,fuze"]), @r"
    exit 2
    error[usage]: no pass over this level is called `fuze`
      help: the passes are inline-calls, simplify, expand, shard, gather-first, narrow-weights, fold-constants, merge-duplicates, drop-dead, fuse
    ");
    insta::assert_snapshot!(refused(&["explain", "E0001"]), @r"
    exit 2
    error[usage]: there is no code `E0001`
      help: the codes are syntax, unknown-name, duplicate-name, unknown-op, attribute, op-type, verify, malformed, missing-data, unbound-dimension, unsupported, too-large, input, limit, file
    ");
    insta::assert_snapshot!(refused(&["frobnicate"]), @r"
    exit 2
    error: unrecognized subcommand 'frobnicate'

    Usage: systole <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let folder = models();
    for (arguments, exit, code) in [
        (&["run", "wrong.tir", "--target", "reference", "--json"][..], 1, "unknown-name"),
        (&["run", "exp.tir", "--target", "reference", "--json"], 2, "usage"),
        (&["run", "exp.tir", "--json", "--tarjet", "host"], 2, "usage"),
        (
            &["run", "wide.tir", "--target", "trn1", "--input", "x=2xf64=0 1", "--json"],
            3,
            "unsupported",
        ),
    ] {
        let ended = systole(folder.path(), arguments);
        assert_eq!(ended.code, Some(exit), "{ended:?}");
        let error = &ended.json()["error"];
        assert_eq!((&error["exit"], &error["code"]), (&json!(exit), &json!(code)), "{ended:?}");
        assert!(error["message"].is_string() && !ended.err.is_empty());
    }
}

#[test]
fn limits_end_with_6() {
    let folder = models();
    let long = "func @main(%x: f32[600, 600]) -> (y: f32[600, 600]) {\n".to_owned()
        + "  %y = for %x {count = 100000} do (%i: i64[], %a: f32[600, 600]) {\n"
        + "    %b = contract %a, %a {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}\n"
        + "    yield %b\n  }\n  return %y\n}\n";
    std::fs::write(folder.path().join("long.tir"), long).expect("a file");
    let start = Instant::now();
    let ended = systole(
        folder.path(),
        &[
            "run",
            "long.tir",
            "--target",
            "reference",
            "--input",
            "*=zeros",
            "--time-limit",
            "300ms",
            "--json",
        ],
    );
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert_eq!(ended.json()["error"]["code"], "limit");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    let ended = systole(
        folder.path(),
        &[
            "run",
            "exp.tir",
            "--target",
            "reference",
            "--input",
            "x=99999x9999xf32=zeros",
            "--mem-limit",
            "256MiB",
        ],
    );
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert_eq!(ended.err, "error[limit]: more memory is needed than the limit of 256 MiB\n");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = models();
    let mut child = Command::new(env!("CARGO_BIN_EXE_systole"))
        .args(["list", "ops"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary is built");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn the_canonical_text_of_a_program_is_a_fixed_point() {
    let folder = models();
    let first = ok(systole(folder.path(), &["opt", "exp.tir"])).out;
    std::fs::write(folder.path().join("again.tir"), &first).expect("a file");
    assert_eq!(ok(systole(folder.path(), &["opt", "again.tir"])).out, first);
}

#[test]
fn passes_run_one_by_one_and_say_what_they_did() {
    let folder = models();
    let text = "func @main(%x: f32[2]) -> (y: f32[2]) {\n  %a = exp %x\n  %b = exp %x\n  %y = add %a, %a\n  return %y\n}\n";
    std::fs::write(folder.path().join("dead.tir"), text).expect("a file");
    let ended = ok(systole(
        folder.path(),
        &[
            "opt",
            "dead.tir",
            "--passes",
            "simplify,drop-dead",
            "--print-changed",
            "--dump-dir",
            "dump",
            "--verify",
        ],
    ));
    assert!(!ended.out.contains("%b"), "{}", ended.out);
    assert!(ended.err.starts_with("// after drop-dead (graph)\n"), "{}", ended.err);
    let dumped =
        std::fs::read_to_string(folder.path().join("dump/002.drop-dead.tir")).expect("a dump");
    assert_eq!(dumped.trim_end(), ended.out.trim_end());
    let first_only = ok(systole(
        folder.path(),
        &["opt", "dead.tir", "--passes", "drop-dead", "--bisect-limit", "0"],
    ));
    assert!(first_only.out.contains("%b"), "{}", first_only.out);
}

#[test]
fn every_level_is_printed_and_the_same_each_time() {
    let folder = models();
    for level in ["graph", "kernels", "module"] {
        let arguments =
            ["compile", "dense.onnx", "--target", "kernels", "--dim", "batch=2", "--emit", level];
        let first = ok(systole(folder.path(), &arguments)).out;
        assert!(!first.is_empty());
        assert_eq!(ok(systole(folder.path(), &arguments)).out, first, "{level}");
    }
}

#[test]
fn check_counts_operators_and_names_what_is_missing() {
    let folder = models();
    let unknown = support::model(support::GraphProto {
        node: vec![support::node("Relu", &["x"], "z"), support::node("Mystery", &["z"], "y")],
        input: vec![support::port("x", support::FLOAT, &["2"])],
        output: vec![support::port("y", support::FLOAT, &["2"])],
        ..support::GraphProto::default()
    });
    std::fs::write(folder.path().join("unknown.onnx"), unknown).expect("a file");
    let ended = systole(folder.path(), &["check", "unknown.onnx", "--target", "reference"]);
    assert_eq!(ended.code, Some(3));
    insta::assert_snapshot!(format!("{}---\n{}", ended.out, ended.err), @r"
    1  Mystery  not supported
    1  Relu
    1 of 2 nodes are covered (50.0 %)
    reference: it does not compile
    ---
    error[unsupported]: there is no operator Mystery
      --> node the Mystery
      in unknown.onnx
    ");
    let ended =
        ok(systole(folder.path(), &["check", "dense.onnx", "--target", "reference", "--json"]));
    assert_eq!(ended.json()["compiles"], json!(null));
    let arguments = ["check", "dense.onnx", "--target", "reference", "--dim", "batch=1", "--json"];
    assert_eq!(ok(systole(folder.path(), &arguments)).json()["compiles"], json!(true));
}

#[test]
fn diff_agrees_where_targets_do() {
    let folder = models();
    let arguments =
        ["diff", "dense.onnx", "reference", "kernels", "--dim", "batch=3", "--input", "*=random:1"];
    let ended = ok(systole(folder.path(), &arguments));
    assert!(ended.out.starts_with("reference and kernels agree on all "), "{}", ended.out);
}

#[test]
fn inspect_says_what_a_file_holds() {
    let folder = models();
    insta::assert_snapshot!(ok(systole(folder.path(), &["inspect", "dense.onnx"])).out, @r"
    format   onnx
    opset    ai.onnx 17
    input    x: f32[batch, 3]
    output   y: f32[batch, 2]
    weights  2
    nodes        1  Add
    nodes        1  MatMul
    nodes        1  Relu
    ");
    let arguments = [
        "run",
        "exp.tir",
        "--target",
        "reference",
        "--input",
        "x=2x2xf32=0 0 0 0",
        "--outputs",
        "y.npz",
    ];
    ok(systole(folder.path(), &arguments));
    insta::assert_snapshot!(ok(systole(folder.path(), &["inspect", "y.npz"])).out, @"y: f32[2, 2] = 1 1 1 1");
}

#[test]
fn tables_are_complete_and_json_has_the_same_rows() {
    let folder = models();
    for table in ["passes", "ops", "targets", "functions", "codes", "dtypes"] {
        let text = ok(systole(folder.path(), &["list", table])).out;
        let object = ok(systole(folder.path(), &["list", table, "--json"])).json();
        let rows = object["rows"].as_array().expect("rows");
        assert!(rows.len() > 4, "{table}");
        assert_eq!(rows.len(), text.lines().count(), "{table}");
        for row in rows {
            assert!(row["name"].as_str().is_some_and(|name| !name.is_empty()), "{table}: {row}");
        }
    }
}

#[test]
fn a_mesh_gives_what_one_device_gives() {
    let text = "func @main(%x: f32[4, 8], %w: f32[8, 4]) -> (y: f32[4, 4]) {
  %y = contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  return %y
}
";
    let folder = folder(&[("product.tir", text.as_bytes())]);
    let all = ["--input", "*=random:1"];
    ok(systole(
        folder.path(),
        &[&["run", "product.tir", "--outputs", "one.npz"][..], &all].concat(),
    ));
    for target in ["host", "kernels", "reference"] {
        let flags = [
            "run",
            "product.tir",
            "--target",
            target,
            "--mesh",
            "dp=2,tp=2",
            "--shard",
            "x={dp,tp}",
            "--expect",
            "one.npz",
            "--tol",
            "1e-4,1e-4",
        ];
        ok(systole(folder.path(), &[&flags[..], &all].concat()));
    }
    let wrong = ["run", "product.tir", "--mesh", "dp=3", "--shard", "x={dp,_}"];
    let ended = systole(folder.path(), &[&wrong[..], &all].concat());
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.err.contains("does not divide into 3 parts"), "{ended:?}");
    let ended = systole(folder.path(), &["run", "product.tir", "--mesh", "dp"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}

#[test]
fn ranks_of_modeled_cores_have_one_timeline() {
    let product = "contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}";
    let text = format!(
        "func @main(%x: f32[128, 256], %w: f32[256, 128]) -> (y: f32[128, 128]) {{\n  %y = {product}\n  return %y\n}}\n"
    );
    let folder = folder(&[("product.tir", text.as_bytes())]);
    let mesh = ["--mesh", "tp=4", "--shard", "x={_,tp}", "--shard", "y={_,_}", "--json"];
    let profile = |more: &[&str]| {
        let arguments = [&["profile", "product.tir"][..], &mesh, more].concat();
        ok(systole(folder.path(), &arguments)).json()
    };
    let told = profile(&["--system", "trn2-ultra64", "--trace", "trace.json"]);
    assert_eq!((&told["target"], &told["ranks"]), (&json!("trn2"), &json!(4)));
    let program = &told["programs"][0];
    assert_eq!(program["ranks"], json!([0, 1, 2, 3]));
    assert_eq!(program["exchanges"][0]["kind"], "all-reduce");
    assert_eq!(program["exchanges"][0]["bytes"], 128 * 128 * 4);
    let time = told["time_us"].as_f64().expect("a number");
    let path = told["critical_path"].as_array().expect("a list");
    let sum: f64 = path.iter().filter_map(|part| part["time_us"].as_f64()).sum();
    assert!((sum - time).abs() < 1e-3, "{told}");
    assert!(path.iter().any(|part| part["exchange"] == true), "{told}");
    let trace = std::fs::read_to_string(folder.path().join("trace.json")).expect("it is there");
    let trace: serde_json::Value = serde_json::from_str(&trace).expect("it is JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    let row = |name: &str| events.iter().any(|event| event["args"]["name"] == name);
    assert!(row("tensor") && row("exchanges") && row("trn2-ultra64"), "{trace}");
    // A run with values takes the same time.
    let run =
        [&["run", "product.tir", "--target", "trn2", "--input", "*=random:0"][..], &mesh].concat();
    let ran =
        ok(systole(folder.path(), &[&run[..], &["--system", "trn2-ultra64"]].concat())).json();
    assert_eq!(ran["time_us"].as_f64().map(|time| (time * 1e6).round() / 1e6), Some(time), "{ran}");
    // Chips that are not compiled for are rooflines.
    let gpus = profile(&["--system", "dgx-h100"]);
    assert_eq!(gpus["target"], "H100 SXM");
    let wrong = systole(folder.path(), &["profile", "product.tir", "--target", "roofline"]);
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[test]
fn what_is_no_model_is_told_once() {
    let folder = folder(&[("notes.md", b"# Notes\n\nNothing runs here.\n")]);
    let ended = systole(folder.path(), &["run", "notes.md"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.err.matches("error[").count(), 1, "{ended:?}");
    assert!(ended.err.contains("neither an ONNX model nor"), "{ended:?}");
}

/// The fourth version of the published walk through a product: blocks of 2 x 2 tiles along both sides, whole along the sum.
const BLOCKED: &str = "kernel @blocked(%a: f32[k: 8192, m: 4096], %b: f32[k: 8192, n: 8192]) -> (%y: f32[m: 4096, n: 8192]) {
  for %m in 0..4096 step 256 parallel {
    for %n in 0..8192 step 1024 parallel {
      %left: near f32[k: 8192, m: 256] = load %a[0, %m]
      %right: near f32[k: 8192, n: 1024] = load %b[0, %n]
      store %y[%m, %n] = contract (fill 0.0), %left, %right over k
    }
  }
}
";

#[test]
fn a_schedule_that_was_written_and_exceeds_sbuf_does_not_fit() {
    let folder = folder(&[("blocked.tir", BLOCKED.as_bytes())]);
    let ended = systole(folder.path(), &["profile", "blocked.tir", "--target", "trn2"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(4), ""), "{ended:?}");
    for word in ["%right takes", "262144 bytes", "of 212984", "%left", "would fit", "@blocked"] {
        assert!(ended.err.contains(word), "no {word} in {}", ended.err);
    }
}

#[test]
fn profile_and_check_have_the_documented_forms() {
    let folder = models();
    let run = |arguments: &[&str]| ok(systole(folder.path(), arguments)).json();
    let keys = |object: &serde_json::Value| -> Vec<String> {
        object.as_object().expect("an object").keys().cloned().collect()
    };
    let object = run(&["profile", "dense.onnx", "--dim", "batch=4", "--json"]);
    let wanted = [
        "schema",
        "target",
        "time_us",
        "bound_us",
        "bound_by",
        "flops",
        "hbm_bytes",
        "mfu",
        "mbu",
        "engines",
        "ops",
        "sbuf_peak_bytes",
        "psum_peak_bytes",
        "instructions",
        "simulate_ms",
        "energy_j",
    ];
    assert_eq!(keys(&object), wanted);
    assert_eq!(keys(&object["engines"]["tensor"]), ["active_us", "instructions"]);
    assert_eq!(keys(&object["ops"][0]), ["name", "origins", "time_us", "bound_by", "engine"]);
    let object = run(&["check", "dense.onnx", "--dim", "batch=4", "--target", "trn2", "--json"]);
    let wanted = ["schema", "supported", "ops", "fits", "hbm_bytes", "predicted_us", "bound_by"];
    assert_eq!(keys(&object), wanted);
    assert_eq!(keys(&object["ops"][0]), ["op", "count", "supported", "why"]);
}

#[test]
fn profile_takes_the_configuration_of_a_language_model() {
    let config = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96, "vocab_size": 50,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "torch_dtype": "bfloat16"}"#;
    let folder = folder(&[("config.json", config.as_bytes())]);
    let time = |dims: &[&str]| {
        let ended =
            ok(systole(folder.path(), &[&["profile", "config.json", "--json"], dims].concat()));
        ended.json()["time_us"].as_f64().expect("a number")
    };
    let one = time(&["--dim", "tokens=128", "--dim", "layers=1"]);
    let two = time(&["--dim", "tokens=128"]);
    assert!(one < two, "{one} {two}");
    let ended = systole(folder.path(), &["profile", "config.json", "--dim", "width=3"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}
