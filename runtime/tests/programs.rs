//! What compiled programs promise: they are saved and loaded, end when they are told to, run in workspaces and on pools.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use systole::{
    Cancel, Compiler, DType, Diagnostic, ErrorKind, Inputs, Model, Pool, Program, RunOptions,
    SavedProgram, Target, Team, Tensor, TensorType, Workspace, inputs,
};
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::pass::{Changed, Declined};
use systole_compiler::pipeline::{Go, Level, Observer};

const WIDE: &str = "func @main(%x: f32[300, 96]) -> (y: f32[300, 300], s: f32[300]) {
  %t = transpose %x {perm = [1, 0]}
  %a = contract %x, %t {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %y = softmax %a {axis = 1}
  %s: f32[300] = reduce %y {combine = max, axes = [1], accumulate = f32}
  return %y, %s
}
";

fn dense() -> Model {
    Model::from_bytes(support::dense()).expect("a model")
}

fn batch(rows: usize) -> Tensor {
    let elements: Vec<f32> = (0..rows * 3).map(|index| index as f32).collect();
    Tensor::from_slice(&[rows, 3], &elements)
}

fn wide() -> (Model, Inputs) {
    let elements: Vec<f32> = (0..300 * 96).map(|index| (index % 23) as f32 / 40.0).collect();
    let model = Model::from_text(WIDE).expect("a model");
    (model, inputs! { "x" => Tensor::from_slice(&[300, 96], &elements) })
}

fn tensors(program: &Program, options: &RunOptions, inputs: &Inputs) -> Vec<(String, Tensor)> {
    program.run_with(options, inputs.clone()).expect("outputs").into_entries()
}

#[test]
fn a_saved_program_gives_what_the_program_gave() {
    let folder = support::folder(&[]);
    let path = folder.path().join("dense.systole");
    let program = Compiler::new().bind("batch", 2).compile(&dense()).expect("a program");
    let expected = tensors(&program, &RunOptions::default(), &inputs! { "x" => batch(2) });
    program.save(&path).expect("it is saved");
    let names: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(names.len(), 1, "nothing but the file is left");

    assert!(SavedProgram::is_one(&path));
    let saved = SavedProgram::from_path(&path).expect("a program");
    assert_eq!(saved.signature().to_string(), "(x: f32[2, 3]) -> (y: f32[2, 2])");
    for target in [Target::host(), Target::kernels()] {
        let loaded = Compiler::new().target(target).load(&saved).expect("a program");
        assert_eq!(loaded.cached(), 1);
        let found = tensors(&loaded, &RunOptions::default(), &inputs! { "x" => batch(2) });
        assert_eq!(found, expected);
        let error = loaded.run(inputs! { "x" => batch(3) }).expect_err("other sizes");
        assert_eq!(error.kind(), ErrorKind::Input);
    }
    assert_eq!(
        tensors(
            &Program::load(&path).expect("it loads"),
            &RunOptions::default(),
            &inputs! { "x" => batch(2) }
        ),
        expected
    );

    let error = Model::from_path(&path).expect_err("no model");
    assert!(error.to_string().contains("saved program"), "{error}");
    let error = Compiler::new().bind("batch", 3).load(&saved).expect_err("sizes are fixed");
    assert_eq!(error.kind(), ErrorKind::Input);
    let error = Compiler::new().target(Target::reference()).load(&saved).expect_err("no graph");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let open = Compiler::new().compile(&dense()).expect("a program");
    assert_eq!(open.save(&path).expect_err("batch is not bound").kind(), ErrorKind::Input);
}

#[test]
fn a_saved_program_keeps_state_and_the_values_it_was_made_for() {
    let folder = support::folder(&[]);
    let path = folder.path().join("program");
    let model = Model::from_text(support::COUNTER).expect("a model");
    let program = Compiler::new().state("before", "after").compile(&model).expect("a program");
    program.save(&path).expect("it is saved");
    let program = Program::load(&path).expect("a program");
    let mut state = program.state().expect("a state");
    for expected in [2f32, 4.0] {
        program
            .run_stateful(&RunOptions::default(), inputs! { "step" => 2f32 }, &mut state)
            .expect("outputs");
        assert_eq!(state.get("before").expect("a value"), &Tensor::scalar(expected));
    }

    let model = Model::from_bytes(support::reshape()).expect("a model");
    let x = Tensor::from_slice(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let given = inputs! { "x" => &x, "shape" => [3i64, 2] };
    Compiler::new().save(&model, &given, &path).expect("it is saved");
    let program = Program::load(&path).expect("a program");
    let outputs = program.run(given).expect("outputs");
    assert_eq!(outputs.get("y").expect("y").shape(), [3, 2]);
    let error = program.run(inputs! { "x" => &x, "shape" => [6i64, 1] }).expect_err("another");
    assert_eq!(error.kind(), ErrorKind::Input);
    assert!(error.to_string().contains("`shape`"), "{error}");
}

#[test]
fn damaged_programs_are_refused() {
    let folder = support::folder(&[]);
    let path = folder.path().join("program");
    Compiler::new().bind("batch", 2).save(&dense(), &Inputs::new(), &path).expect("it is saved");
    let good = std::fs::read(&path).expect("a file");
    let read = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a file");
        SavedProgram::from_path(&path).map(|_| ())
    };
    assert!(read(&good).is_ok());
    for length in (0..good.len()).step_by(7) {
        let error = read(&good[..length]).expect_err("it is cut off");
        assert_eq!(error.kind(), ErrorKind::Program, "{error}");
    }
    for at in (0..good.len()).step_by(5) {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let error = read(&bad).expect_err("it is damaged");
        assert_eq!(error.kind(), ErrorKind::Program, "{error}");
    }
    let mut long = good.clone();
    long.push(0);
    assert!(read(&long).is_err());
    let mut newer = good.clone();
    newer[8] = 2;
    assert!(read(&newer).expect_err("newer").to_string().contains("version 2"));

    // With a right checksum, so that what lies behind it is tried too.
    let sealed = |from: &str, to: &str| {
        let find =
            |bytes: &[u8]| bytes.windows(from.len()).position(|found| found == from.as_bytes());
        let at = find(&good).unwrap_or_else(|| panic!("there is no {from}"));
        assert_eq!(from.len(), to.len());
        let mut bad = good.clone();
        bad[at..at + to.len()].copy_from_slice(to.as_bytes());
        let checksum = crc32fast::hash(&bad[16..]);
        bad[12..16].copy_from_slice(&checksum.to_le_bytes());
        bad
    };
    for (from, to) in [
        ("\"x\",\"dtype\":\"f32\"", "\"x\",\"dtype\":\"f64\""),
        ("\"shape\":[2,3]", "\"shape\":[9,9]"),
        ("\"state\":[]", "\"stade\":[]"),
        ("module @", "modula @"),
        ("run {", "sun {"),
        ("\"tensors\":[{\"dtype\":\"f32\"", "\"tensors\":[{\"dtype\":\"f64\""),
    ] {
        let error = read(&sealed(from, to)).expect_err(from);
        assert_eq!(error.kind(), ErrorKind::Program, "{from}: {error}");
    }
}

/// Ends a compilation after some passes.
struct Ender {
    cancel: Cancel,
    left: usize,
}

impl Observer for Ender {
    fn before(&mut self, _level: &'static str, _pass: &'static str) -> Go {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.cancel.cancel(),
        }
        Go::Run
    }

    fn after(
        &mut self,
        _pass: &'static str,
        _changed: Changed,
        _level: Level<'_>,
        _declined: &[Declined],
    ) -> Result<(), Diagnostics> {
        Ok(())
    }
}

#[test]
fn compilations_end_when_they_are_told_to() {
    let (model, given) = wide();
    // Before the first pass, between two of them, and after the last, when code is generated.
    for left in [0, 3, 12] {
        let cancel = Cancel::new();
        let ender = Arc::new(Mutex::new(Ender { cancel: cancel.clone(), left }));
        let error = Compiler::new().cancel(cancel).observe(ender).compile(&model);
        let error = error.expect_err("it was cancelled");
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        let said: Vec<&Diagnostic> = error.diagnostics().iter().collect();
        assert!(said[0].message.contains("the compilation was cancelled"), "{error}");
    }
    let past = Instant::now() - Duration::from_millis(1);
    let error = Compiler::new().deadline(past).compile(&model).expect_err("it is late");
    assert!(error.to_string().contains("the deadline of the compilation passed"), "{error}");

    // What a run has to compile is ended by the run's options, and the program goes on.
    let program = Compiler::new().compile(&dense()).expect("a program");
    let late = RunOptions { deadline: Some(past), ..RunOptions::default() };
    let error = program.run_with(&late, inputs! { "x" => batch(2) }).expect_err("it is late");
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert_eq!(program.cached(), 0);
    assert!(program.run(inputs! { "x" => batch(2) }).is_ok());
    drop(given);
}

#[test]
fn runs_on_the_host_end_when_they_are_told_to() {
    let model = Model::from_text(
        "func @main(%x: f32[4096]) -> (y: f32[4096]) {
          %y = for %x {count = 1000000000} do (%n: i64[], %v: f32[4096]) { %w = tanh %v yield %w }
          return %y }",
    );
    let program = Compiler::new().threads(1).compile(&model.expect("a model")).expect("a program");
    let given = inputs! { "x" => Tensor::from_slice(&[4096], &[0.5f32; 4096]) };
    let deadline = Instant::now() + Duration::from_millis(50);
    let late = RunOptions { deadline: Some(deadline), ..RunOptions::default() };
    assert_eq!(program.run_with(&late, given.clone()).expect_err("late").kind(), ErrorKind::Limit);
    let cancel = Cancel::new();
    let options = RunOptions { cancel: Some(cancel.clone()), ..RunOptions::default() };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            cancel.cancel();
        });
        let error = program.run_in(&mut Workspace::new(), &options, &given).expect_err("cancelled");
        assert!(error.to_string().contains("the run was cancelled"), "{error}");
    });
    let (model, given) = wide();
    let program = Compiler::new().compile(&model).expect("a program");
    let plan = program.memory_plan().expect("a plan");
    assert!(plan.arena_lower_bound_bytes <= plan.arena_bytes);
    assert_eq!(
        plan.result_bytes.next_multiple_of(64),
        (300 * 300 * 4 + 300 * 4usize).next_multiple_of(64)
    );
    let needed = plan.arena_bytes + plan.scratch_bytes + plan.result_bytes;
    let run = |memory_limit| {
        let options = RunOptions { threads: Some(1), memory_limit, ..RunOptions::default() };
        program.run_with(&options, given.clone()).map(|_| ())
    };
    assert!(run(Some(needed)).is_ok());
    assert_eq!(run(Some(needed - 1)).expect_err("too much").kind(), ErrorKind::Limit);
}

/// Does the work in another order, on the caller's thread, and says that it has many.
struct Backwards(AtomicUsize);

impl Pool for Backwards {
    fn threads(&self) -> usize {
        7
    }

    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        self.0.fetch_add(1, Ordering::Relaxed);
        (0..count).rev().for_each(work);
    }
}

/// Calls what it should not, and leaves out what it should call.
struct Careless;

impl Pool for Careless {
    fn threads(&self) -> usize {
        3
    }

    fn run(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        if count.is_multiple_of(2) {
            return;
        }
        std::thread::scope(|scope| {
            for _ in 0..count + 2 {
                scope.spawn(|| work(0));
            }
        });
    }
}

#[test]
fn any_pool_gives_the_same_bytes() {
    let (model, given) = wide();
    let alone = Compiler::new().threads(1).compile(&model).expect("a program");
    let expected = tensors(&alone, &RunOptions::default(), &given);
    for threads in [2, 3, 8] {
        let options = RunOptions { threads: Some(threads), ..RunOptions::default() };
        assert_eq!(tensors(&alone, &options, &given), expected, "{threads} threads");
    }
    let backwards = Arc::new(Backwards(AtomicUsize::new(0)));
    let pools: [Arc<dyn Pool>; 3] =
        [Arc::clone(&backwards) as Arc<dyn Pool>, Arc::new(Careless), Arc::new(Team::new(3))];
    for pool in pools {
        let options = RunOptions { pool: Some(Arc::clone(&pool)), ..RunOptions::default() };
        assert_eq!(tensors(&alone, &RunOptions { threads: Some(5), ..options }, &given), expected);
        let program = Compiler::new().pool(pool).compile(&model).expect("a program");
        assert_eq!(tensors(&program, &RunOptions::default(), &given), expected);
    }
    assert!(backwards.0.load(Ordering::Relaxed) > 2, "the pool was used");

    // A kernel that is one product, without a loop to split: its tiles are shared.
    let model = Model::from_text(
        "func @main(%x: f32[33, 384], %w: f32[384, 900]) -> (y: f32[33, 900]) {
          %a = contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
          %y = gelu %a
          return %y }",
    );
    let random = |shape: &[usize], seed| {
        systole::data::random(&TensorType::new(DType::F32, shape), seed, None)
    };
    let given = inputs! { "x" => random(&[33, 384], 1), "w" => random(&[384, 900], 2) };
    let program = Compiler::new().threads(1).compile(&model.expect("a model")).expect("a program");
    let expected = tensors(&program, &RunOptions::default(), &given);
    let counted = Arc::new(Backwards(AtomicUsize::new(0)));
    let pools: [Arc<dyn Pool>; 3] =
        [Arc::clone(&counted) as Arc<dyn Pool>, Arc::new(Careless), Arc::new(Team::new(3))];
    for pool in pools {
        let options = RunOptions { pool: Some(pool), threads: Some(3), ..RunOptions::default() };
        assert_eq!(tensors(&program, &options, &given), expected);
    }
    assert!(counted.0.load(Ordering::Relaxed) > 0, "the pool was used");
}

#[test]
fn equal_kernels_are_compiled_once() {
    let model = Model::from_text(
        "func @main(%x: f32[16, 64], %u: f32[64, 64], %v: f32[64, 64], %w: f32[64, 64]) -> (y: f32[16, 64]) {
          %a = contract %x, %u {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
          %b = contract %a, %v {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
          %y = contract %b, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
          return %y }",
    );
    let program = Compiler::new().compile(&model.expect("a model")).expect("a program");
    assert_eq!(program.memory_plan().expect("a plan").kernels, 1);
    let times = program.compile_times();
    assert!(times.passes > Duration::ZERO && times.code > Duration::ZERO);
    assert_eq!(times.total(), times.import + times.passes + times.code + times.packing);
}

#[test]
fn one_workspace_serves_many_programs_and_sizes() {
    let mut workspace = Workspace::new();
    let options = RunOptions::default();
    for target in [Target::host(), Target::kernels(), Target::reference()] {
        let program = Compiler::new().target(target).compile(&dense()).expect("a program");
        for rows in [1, 3, 3, 2] {
            let given = inputs! { "x" => batch(rows) };
            let outputs = program.run_in(&mut workspace, &options, &given).expect("outputs");
            let y = outputs.get("y").expect("y");
            assert_eq!((y.name(), y.shape()), ("y", &[rows, 2][..]));
            assert_eq!(y.as_slice::<f32>().expect("f32")[0], 2.5);
            assert!(y.as_slice::<i32>().is_err());
            assert!(outputs.get("z").is_err());
            let owned = program.run(given).expect("outputs");
            assert_eq!(owned.get("y").expect("y").tensor(), &y.to_tensor());
        }
        let error = program.run_in(&mut workspace, &options, &inputs! { "z" => 1f32 });
        assert_eq!(error.expect_err("no such input").kind(), ErrorKind::Input);
    }
}

#[test]
fn values_that_decide_shapes_are_seen_in_a_workspace_too() {
    let program = Compiler::new().compile(&Model::from_bytes(support::reshape()).expect("a model"));
    let (program, mut workspace) = (program.expect("a program"), Workspace::new());
    let x = Tensor::from_slice(&[2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    for shape in [[3i64, 2], [6, 1], [3, 2]] {
        let given = inputs! { "x" => &x, "shape" => shape };
        let outputs = program.run_in(&mut workspace, &RunOptions::default(), &given);
        let y = outputs.expect("outputs").get("y").expect("y");
        assert_eq!(y.shape(), shape.map(|size| size as usize));
    }
}

#[test]
fn every_instruction_set_gives_the_same_values() {
    let (model, given) = wide();
    let expected = Compiler::new().target(Target::reference()).compile(&model).expect("a program");
    let expected = expected.run(given.clone()).expect("outputs");
    let mut ran = 0;
    for cpu in ["sse", "neon", "avx2", "avx512"] {
        let program = match Compiler::new().target(Target::host_with_cpu(cpu)).compile(&model) {
            Ok(program) => program,
            Err(error) => {
                assert!(error.to_string().contains("this machine lacks"), "{error}");
                continue;
            }
        };
        ran += 1;
        let outputs = program.run(given.clone()).expect("outputs");
        for (name, tensor) in outputs.iter() {
            let expected = expected.get(name).expect("the same outputs");
            let pairs = expected.values().to_f64().into_iter().zip(tensor.values().to_f64());
            for (index, (x, y)) in pairs.enumerate() {
                assert!((x - y).abs() <= 1e-5 + 1e-5 * x.abs(), "{cpu}: {name}[{index}]: {x}, {y}");
            }
        }
    }
    assert!(ran > 0, "this machine has one of them");
}
