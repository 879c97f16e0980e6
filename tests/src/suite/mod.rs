//! Runs prepared ONNX tests in this process: each on a thread of its own, with a time limit, panics caught.

pub mod index;
pub mod models;
pub mod report;

use crate::engine::Engine;
use crate::execute::{self, Failure};
use crate::levels::Program;
use crate::tolerance;
use index::{Tensors, Test};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;
use systole_compiler::diagnostic::{Code, Diagnostics};
use systole_compiler::import::Bindings;
use systole_compiler::import::onnx::Source;
use systole_compiler::types::DType;

/// How one test ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which.
    pub test: Test,
    /// How.
    pub verdict: Verdict,
}

/// How a test can end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Passed,
    /// The model needs something that this version does not have, and is told so.
    Unsupported(String),
    /// Other values, or values of another type.
    Wrong(String),
    /// An error, though the model is right.
    Error(String),
    /// A panic.
    Panic(String),
    /// No end within the limit.
    TimeOut,
}

/// Runs every test, `jobs` at a time. Outcomes come in the order of the tests.
pub fn run(tests: Vec<Test>, engine: Engine, jobs: usize, limit: Duration) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(vec![None; tests.len()]);
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(test) = tests.get(at) else { return };
                    let verdict = run_within(test, engine, limit);
                    verdicts.lock().expect("no holder panics")[at] = Some(verdict);
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().expect("no holder panics");
    tests
        .into_iter()
        .zip(verdicts)
        .map(|(test, verdict)| Outcome { test, verdict: verdict.expect("every test has run") })
        .collect()
}

/// A test that does not end in time keeps its thread, which the process's end stops.
fn run_within(test: &Test, engine: Engine, limit: Duration) -> Verdict {
    if !test.others.is_empty() {
        return Verdict::Unsupported(test.others.join(", "));
    }
    let (sender, receiver) = mpsc::channel();
    let owned = test.clone();
    let body = move || {
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_one(&owned, engine)));
        let verdict = outcome.unwrap_or_else(|payload| Verdict::Panic(panic_text(&*payload)));
        // Nobody listens any more after a time-out.
        drop(sender.send(verdict));
    };
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(body);
    if let Err(error) = thread {
        return Verdict::Error(format!("no thread: {error}"));
    }
    receiver.recv_timeout(limit).unwrap_or(Verdict::TimeOut)
}

/// What a panic said.
pub fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}

fn run_one(test: &Test, engine: Engine) -> Verdict {
    let (model, sets) = match (std::fs::read(test.folder.join("model.onnx")), test.values()) {
        (Ok(model), Ok(sets)) => (bytes::Bytes::from(model), sets),
        (Err(error), _) => return Verdict::Error(error.to_string()),
        (_, Err(error)) => return Verdict::Error(error),
    };
    for (inputs, expected) in sets {
        match outputs(&model, inputs, engine) {
            Ok(actual) => {
                if let Err(difference) = compare(&actual, &expected, test.tolerance) {
                    return Verdict::Wrong(difference);
                }
            }
            Err(verdict) => return verdict,
        }
    }
    Verdict::Passed
}

/// Imports, compiles and runs.
fn outputs(model: &bytes::Bytes, inputs: Tensors, engine: Engine) -> Result<Tensors, Verdict> {
    let source = Source::parse(model.clone(), &|_| Err("no other file".into())).map_err(refused)?;
    let mut bindings = Bindings::default();
    for (name, tensor) in &inputs {
        bindings.inputs.insert(name.clone(), tensor.ty().clone());
    }
    // Each round can only make more inputs constant, so it ends.
    loop {
        let wanted = source.wanted_constants(&bindings);
        let before = bindings.constants.len();
        for (name, tensor) in inputs.iter().filter(|(name, _)| wanted.contains(name)) {
            bindings.constants.insert(name.clone(), tensor.clone());
        }
        if bindings.constants.len() == before {
            break;
        }
    }
    let program = Program::Graph(source.bind(&bindings).map_err(refused)?);
    program.verify().map_err(|error| Verdict::Error(format!("a rule is broken: {error}")))?;
    let signature = program.signature();
    let mut values = Vec::new();
    for (name, _) in &signature.inputs {
        let Some((_, tensor)) = inputs.iter().find(|(other, _)| other == name) else {
            return Err(Verdict::Error(format!("the graph has an input `{name}`, the model none")));
        };
        values.push(tensor.clone());
    }
    let results =
        execute::run(engine, &program, &values, &[]).map_err(|failure| match failure {
            Failure::Unsupported(why) => Verdict::Unsupported(why),
            Failure::Wrong(why) => Verdict::Error(why),
        })?;
    Ok(signature.outputs.into_iter().map(|(name, _)| name).zip(results).collect())
}

fn refused(error: Diagnostics) -> Verdict {
    if error.0.iter().all(|problem| problem.code == Code::Unsupported) {
        return Verdict::Unsupported(error.to_string());
    }
    Verdict::Error(error.to_string())
}

fn compare(
    actual: &Tensors,
    expected: &Tensors,
    (absolute, relative): tolerance::Tolerance,
) -> Result<(), String> {
    for (name, expected) in expected {
        let Some((_, actual)) = actual.iter().find(|(other, _)| other == name) else {
            return Err(format!("no output `{name}`"));
        };
        // The suite's own expectation of a bfloat16 may be one unit in the last place off.
        let relative = if expected.dtype() == DType::BF16 { relative.max(1e-2) } else { relative };
        tolerance::compare(actual, expected, (absolute, relative))
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// Keeps panics of tests from standard error; they are in the report.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

/// Shared by the runner and the models: how many at a time.
pub fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
