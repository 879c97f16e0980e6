//! What the embedding library promises.

mod support;

use std::time::{Duration, Instant};
use systole::{
    Cancel, Code, Compiler, ErrorKind, Inputs, Model, Program, RunOptions, Target, Tensor, inputs,
};

fn dense() -> Model {
    Model::from_bytes(support::dense()).expect("a model")
}

fn compiler() -> Compiler {
    Compiler::new().target(Target::reference())
}

fn batch(rows: usize) -> Tensor {
    let elements: Vec<f32> = (0..rows * 3).map(|index| index as f32).collect();
    Tensor::from_slice(&[rows, 3], &elements)
}

#[test]
fn everything_shared_is_send_sync_and_static() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Model>();
    check::<Program>();
    check::<Compiler>();
    check::<Inputs>();
    check::<systole::Outputs>();
    check::<systole::State>();
    check::<systole::Error>();
    check::<RunOptions>();
    fn clones<T: Clone>() {}
    clones::<Program>();
    clones::<systole::Error>();
}

#[test]
fn a_signature_prints_names_types_and_symbols() {
    let model = dense();
    assert_eq!(model.signature().to_string(), "(x: f32[batch, 3]) -> (y: f32[batch, 2])");
    let program = compiler().bind("batch", 8).compile(&model).expect("a program");
    assert_eq!(program.signature().to_string(), "(x: f32[8, 3]) -> (y: f32[8, 2])");
}

#[test]
fn a_model_runs_by_name_on_every_target() {
    for target in [Target::reference(), Target::kernels(), Target::host()] {
        let program = Compiler::new().target(target).bind("batch", 2).compile(&dense());
        let outputs =
            program.expect("a program").run(inputs! { "x" => batch(2) }).expect("outputs");
        let y = outputs.get("y").expect("y");
        assert_eq!(y.shape(), [2, 2]);
        assert_eq!(y.as_slice::<f32>().expect("f32")[..], [2.5, 0.0, 8.5, 0.0]);
    }
}

#[test]
fn one_program_runs_from_several_threads_at_several_sizes() {
    let program = compiler().compile(&dense()).expect("a program");
    std::thread::scope(|scope| {
        for rows in 1..5 {
            let program = &program;
            scope.spawn(move || {
                for _ in 0..10 {
                    let outputs = program.run(inputs! { "x" => batch(rows) }).expect("outputs");
                    let y = outputs.get("y").expect("y").tensor();
                    assert_eq!(y.shape(), [rows, 2]);
                    assert_eq!(y.as_slice::<f32>().expect("f32")[0], 2.5);
                }
            });
        }
    });
    assert_eq!(program.cached(), 4);
}

#[test]
fn the_cache_keeps_no_more_than_it_may() {
    let program = compiler().cache_entries(2).compile(&dense()).expect("a program");
    assert_eq!(program.cached(), 0);
    for rows in [1, 2, 3, 1] {
        program.run(inputs! { "x" => batch(rows) }).expect("outputs");
    }
    assert_eq!(program.cached(), 2);
}

#[test]
fn values_that_decide_shapes_are_part_of_the_cache() {
    let model = Model::from_bytes(support::reshape()).expect("a model");
    let program = compiler().compile(&model).expect("a program");
    let x = Tensor::from_slice(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    for shape in [[3i64, 2], [1, 6], [6, -1], [3, 2]] {
        let outputs = program.run(inputs! { "x" => &x, "shape" => shape }).expect("outputs");
        let expected = shape.map(|size| if size < 0 { 1 } else { size as usize });
        assert_eq!(outputs.get("y").expect("y").shape(), expected);
    }
    let error = program.run(inputs! { "x" => &x, "shape" => [4i64, 2] }).expect_err("too many");
    assert_eq!(error.kind(), ErrorKind::Program, "{error}");
    assert_eq!(program.cached(), 3);
}

#[test]
fn all_problems_of_the_inputs_come_at_once() {
    let model = Model::from_text(
        "func @main(%x: f32[2, 3], %mask: i32[2], %z: f32[]) -> (y: f32[2, 3]) {\n  %y = exp %x\n  return %y\n}\n",
    );
    let program = compiler().compile(&model.expect("a model")).expect("a program");
    let wrong = inputs! {
        "x" => Tensor::from_slice(&[2, 4], &[0f64; 8]),
        "mesk" => 1i32,
        "z" => 1f32,
        "z" => 2f32,
    };
    let error = program.run(wrong).expect_err("wrong inputs");
    assert_eq!(error.kind(), ErrorKind::Input);
    insta::assert_snapshot!(error, @r"
    error[input]: there is no input `mesk`
      help: did you mean `mask`?
    error[input]: input `z` is given twice
    error[input]: input `x` has elements of f64, not f32
    error[input]: input `x` has size 4 at axis 1, not 3
    error[input]: input `mask` is missing; it is i32[2]
    ");
}

#[test]
fn sizes_that_contradict_each_other_name_both_places() {
    let text = support::model(support::GraphProto {
        node: vec![support::node("Add", &["a", "b"], "y")],
        input: vec![
            support::port("a", support::FLOAT, &["n"]),
            support::port("b", support::FLOAT, &["n"]),
        ],
        output: vec![support::port("y", support::FLOAT, &["n"])],
        ..support::GraphProto::default()
    });
    let program =
        compiler().compile(&Model::from_bytes(text).expect("a model")).expect("a program");
    let error = program.run(inputs! { "a" => [1f32, 2.0], "b" => [1f32] }).expect_err("2 is not 1");
    insta::assert_snapshot!(error, @"error[input]: `n` is 2 at axis 0 of `a`, but 1 at axis 0 of `b`");
}

#[test]
fn unknown_names_come_with_candidates() {
    let model = dense();
    let error = compiler().bind("bach", 2).compile(&model).expect_err("no such size");
    insta::assert_snapshot!(error, @r"
    error[unbound-dimension]: the model has no symbolic size `bach`
      help: it has `batch`
    ");
    let program = compiler().bind("batch", 1).compile(&model).expect("a program");
    let outputs = program.run(inputs! { "x" => batch(1) }).expect("outputs");
    insta::assert_snapshot!(outputs.get("z").expect_err("no such output"), @r"
    error[unknown-name]: there is no output `z`
      help: the outputs are `y`
    ");
    insta::assert_snapshot!(outputs.get("y").expect("y").as_slice::<i64>().expect_err("f32"), @"error[input]: output `y` has elements of f32, not i64");
    insta::assert_snapshot!(Target::from_name("cuda").expect_err("no such target"), @r"
    error[unknown-name]: there is no target `cuda`
      help: the targets are `host`, `reference`, `kernels`, `trn1`, `trn2`, `trn3`, `trn4`
    ");
}

#[test]
fn errors_have_code_node_and_span() {
    let error =
        Model::from_text("func @main(%x: f32[2]) -> f32[2] {\n  %y = exq %x\n  return %y\n}\n")
            .expect_err("no such op");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Program, Code::UnknownOp));
    let span = error.span().expect("a place");
    assert_eq!(&error.source_text().expect("the text")[span.start..span.end], "exq");

    let unknown = support::model(support::GraphProto {
        node: vec![support::node("Mystery", &["x"], "y")],
        input: vec![support::port("x", support::FLOAT, &["2"])],
        output: vec![support::port("y", support::FLOAT, &["2"])],
        ..support::GraphProto::default()
    });
    let model = Model::from_bytes(unknown).expect("a model");
    let error = compiler().compile(&model).expect_err("no such operator");
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unsupported, Code::Unsupported));
    assert_eq!(error.node(), Some("the Mystery"));
    assert_eq!(error.diagnostics().len(), 1);
}

#[test]
fn accelerators_give_values_and_time() {
    let run = |target: Target| {
        let program = Compiler::new().target(target).bind("batch", 2).compile(&dense());
        let program = program.unwrap_or_else(|error| panic!("{error}"));
        let outputs = program.run(inputs! { "x" => batch(2) }).expect("outputs");
        let values = outputs.iter().next().expect("an output").1.as_slice::<f32>();
        (values.expect("floats").to_vec(), program.last_profile())
    };
    let (host, no_profile) = run(Target::host());
    let (modeled, profile) = run(Target::from_name("trn2").expect("a name"));
    assert!(no_profile.is_none());
    assert!(profile.is_some_and(|profile| profile.time_us > 0.0));
    assert_eq!(host.len(), modeled.len());
    for (expected, given) in host.iter().zip(&modeled) {
        assert!((expected - given).abs() <= 1e-4 + 1e-4 * expected.abs(), "{given} for {expected}");
    }
}

#[test]
fn runs_end_when_they_are_cancelled_or_late_or_too_large() {
    let program = compiler().bind("batch", 1).compile(&dense()).expect("a program");
    let run = |options: RunOptions| {
        program.run_with(&options, inputs! { "x" => batch(1) }).expect_err("it must end").kind()
    };
    let cancel = Cancel::new();
    cancel.cancel();
    assert_eq!(run(RunOptions { cancel: Some(cancel), ..RunOptions::default() }), ErrorKind::Limit);
    let past = Instant::now() - Duration::from_millis(1);
    assert_eq!(run(RunOptions { deadline: Some(past), ..RunOptions::default() }), ErrorKind::Limit);
    assert_eq!(
        run(RunOptions { memory_limit: Some(4), ..RunOptions::default() }),
        ErrorKind::Limit
    );
}

#[test]
fn state_is_kept_between_runs() {
    let model = Model::from_text(support::COUNTER).expect("a model");
    let program = compiler().state("before", "after").compile(&model).expect("a program");
    let mut state = program.state().expect("a state");
    let mut other = state.clone();
    for expected in [2.0f32, 4.0, 6.0] {
        let options = RunOptions::default();
        let outputs = program
            .run_stateful(&options, inputs! { "step" => 2f32 }, &mut state)
            .expect("outputs");
        assert_eq!(
            outputs.get("after").expect("after").as_slice::<f32>().expect("f32")[0],
            expected
        );
    }
    assert_eq!(state.get("before").expect("a value"), &Tensor::scalar(6f32));
    other.set("before", Tensor::scalar(10f32)).expect("a state");
    let outputs =
        program.run_stateful(&RunOptions::default(), inputs! { "step" => 1f32 }, &mut other);
    assert_eq!(
        outputs.expect("outputs").get("twice").expect("twice").tensor(),
        &Tensor::scalar(22f32)
    );
    let error = compiler().state("befor", "after").compile(&model).expect_err("no such input");
    insta::assert_snapshot!(error, @r"
    error[unknown-name]: there is no input `befor` to keep as state
      help: the inputs are `step`, `before`
    ");
}

#[test]
fn external_data_lies_beside_the_model_and_nowhere_else() {
    let model = |location: &str| {
        let entry = support::StringStringEntryProto {
            key: "location".to_owned(),
            value: location.to_owned(),
        };
        let outside = support::TensorProto {
            dims: vec![2],
            data_type: support::FLOAT,
            name: "w".to_owned(),
            external_data: vec![entry],
            data_location: 1,
            ..support::TensorProto::default()
        };
        support::model(support::GraphProto {
            node: vec![support::node("Add", &["x", "w"], "y")],
            initializer: vec![outside],
            input: vec![support::port("x", support::FLOAT, &["2"])],
            output: vec![support::port("y", support::FLOAT, &["2"])],
            ..support::GraphProto::default()
        })
    };
    let data: Vec<u8> = [1f32, 2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let folder = support::folder(&[
        ("models/good.onnx", &model("sub/w.bin")),
        ("models/sub/w.bin", &data),
        ("models/up.onnx", &model("../secret.bin")),
        ("models/link.onnx", &model("link.bin")),
        ("models/absolute.onnx", &model("/etc/hostname")),
        ("secret.bin", &data),
    ]);
    let models = folder.path().join("models");
    #[cfg(unix)]
    std::os::unix::fs::symlink("../secret.bin", models.join("link.bin")).expect("a link");

    let model = Model::from_path(models.join("good.onnx")).expect("a model");
    let program = compiler().compile(&model).expect("a program");
    let outputs = program.run(inputs! { "x" => [1f32, 1.0] }).expect("outputs");
    assert_eq!(outputs.get("y").expect("y").as_slice::<f32>().expect("f32")[..], [2.0, 3.0]);
    for name in ["up.onnx", "link.onnx", "absolute.onnx"] {
        let error =
            Model::from_path(models.join(name)).and_then(|model| compiler().compile(&model));
        let error = error.expect_err("it leaves the folder");
        assert!(error.to_string().contains("folder"), "{name}: {error}");
    }
}

#[test]
fn files_that_are_no_models_say_what_they_are() {
    let folder =
        support::folder(&[("a.bin", b"PK\x03\x04"), ("b.bin", b""), ("c.tir", b"\xff\xfe")]);
    for name in ["a.bin", "b.bin", "c.tir"] {
        let error = Model::from_path(folder.path().join(name)).expect_err("no model");
        assert_eq!(error.kind(), ErrorKind::Program, "{name}: {error}");
    }
    let error = Model::from_path(folder.path().join("none.onnx")).expect_err("no file");
    assert_eq!((error.kind(), error.code()), (ErrorKind::File, Code::File));
}
