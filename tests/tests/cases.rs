//! Every data file on every engine, as ordinary tests: `folder/file::engine`.

use libtest_mimic::{Arguments, Failed, Trial};
use std::process::ExitCode;
use std::sync::Arc;
use systole_compiler::import::Bindings;
use systole_compiler::import::onnx::Source;
use systole_compiler::kernel;
use systole_compiler::machine::Machine;
use systole_compiler::text;
use systole_tests::case::{self, Case, Kind, Level};
use systole_tests::engine::Engine;
use systole_tests::execute;
use systole_tests::levels::Program;
use systole_tests::skips::{self, Skip};
use systole_tests::{data, marks, snapshot, tolerance, values};

type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match trials() {
        Ok(trials) => trials,
        Err(error) => {
            let failed = Trial::test("data", move || Err(Failed::from(error)));
            return libtest_mimic::run(&arguments, vec![failed]).exit_code();
        }
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn trials() -> Result<Vec<Trial>, String> {
    let skips = Arc::new(skips::read(&data().join("skips.txt"))?);
    let mut trials = Vec::new();
    for case in case::all(&data())? {
        let case = Arc::new(case);
        match &case.kind {
            Kind::Parse => trials.push(trial(&case, "parse", &skips, parse)),
            Kind::Verify => trials.push(trial(&case, "verify", &skips, verify)),
            Kind::Pass(_) => trials.push(trial(&case, "pass", &skips, pass)),
            Kind::Schedule(_) => trials.push(trial(&case, "schedule", &skips, schedule)),
            Kind::Pipeline => {
                trials.push(trial(&case, "pipeline", &skips, pipeline));
                push_engines(&case, &skips, &mut trials);
            }
            Kind::Run => push_engines(&case, &skips, &mut trials),
        }
    }
    let digits = || digits().map_err(Failed::from);
    trials.push(Trial::test("examples/digits::pipeline", digits));
    Ok(trials)
}

/// The example's trained model, level by level; that its values stay is a test of the examples.
fn digits() -> Outcome {
    let path = systole_tests::workspace().join("examples/digits/model.onnx");
    let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let source = Source::parse(bytes.into(), &|_| Err("no other file".into()))
        .map_err(|error| error.to_string())?;
    let mut bindings = Bindings::default();
    bindings.dims.insert("batch".to_owned(), 2);
    let graph = source.bind(&bindings).map_err(|error| error.to_string())?;
    let graph = Program::Graph(graph);
    let mut optimized = graph.clone();
    execute::optimize(&mut optimized)?;
    let folder = data().join("pipeline");
    snapshot::check_in(&folder, "digits.graph", &optimized.print());
    let module = execute::compile(&graph, &[], &execute::machine())?;
    snapshot::check_in(&folder, "digits.module", &module.to_string());
    Ok(())
}

fn push_engines(case: &Arc<Case>, skips: &Arc<Vec<Skip>>, trials: &mut Vec<Trial>) {
    for engine in Engine::ALL {
        trials.push(trial(case, engine.name(), skips, move |case| run(case, engine)));
    }
}

fn trial(
    case: &Arc<Case>,
    engine: &'static str,
    skips: &Arc<Vec<Skip>>,
    test: impl Fn(&Case) -> Outcome + Send + 'static,
) -> Trial {
    let (case, skips) = (Arc::clone(case), Arc::clone(skips));
    Trial::test(format!("{}::{engine}", case.name), move || {
        let Some(skip) = skips.iter().find(|skip| skip.covers(engine, &case.name)) else {
            return test(&case).map_err(Failed::from);
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| test(&case)));
        match outcome {
            Ok(Ok(())) if skip.case == case.name => {
                Err(Failed::from("passes, but `skips.txt` has a row for it: delete the row"))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    })
}

/// The program of a case that must be right.
fn program(case: &Case) -> Result<Program, String> {
    let shown = |error| text::render(&error, &format!("{}.tir", case.name), Some(&case.source));
    let program = Program::parse(case.level, &case.source).map_err(shown)?;
    program.verify().map_err(shown)?;
    Ok(program)
}

fn parse(case: &Case) -> Outcome {
    if marks::any(&case.source) || blessing() {
        let found = Program::parse(case.level, &marks::strip(&case.source)).err();
        if found.is_some() || marks::any(&case.source) {
            return check_marks(case, found.unwrap_or_default());
        }
    }
    let program = Program::parse(case.level, &case.source).map_err(|error| error.to_string())?;
    let printed = program.print_full();
    let again = Program::parse(case.level, &printed)
        .map_err(|error| format!("the printed text does not parse: {error}\n{printed}"))?;
    match again.print_full() {
        twice if twice == printed => Ok(()),
        twice => Err(format!("printed once:\n{printed}\nprinted, parsed and printed:\n{twice}")),
    }
}

fn verify(case: &Case) -> Outcome {
    let found = Program::parse(case.level, &marks::strip(&case.source))
        .and_then(|program| {
            program.verify()?;
            match (&program, case.near) {
                (Program::Kernel(kernel), Some((near_bytes, near_rows))) => {
                    let machine = Machine { near_bytes, near_rows, ..execute::machine() };
                    kernel::verify_placed(kernel, &machine)
                }
                _ => Ok(()),
            }
        })
        .err();
    check_marks(case, found.unwrap_or_default())
}

fn blessing() -> bool {
    std::env::var_os("SYSTOLE_BLESS").is_some()
}

fn check_marks(case: &Case, found: systole_compiler::diagnostic::Diagnostics) -> Outcome {
    let outcome = marks::check(&case.source, &found);
    if outcome.is_ok() || !blessing() {
        return outcome;
    }
    let text = marks::rewrite(&case.source, &found);
    std::fs::write(&case.path, text).map_err(|error| error.to_string())
}

fn pass(case: &Case) -> Outcome {
    let Kind::Pass(passes) = &case.kind else { return Err("not a pass case".into()) };
    let before = program(case)?;
    let mut after = before.clone();
    execute::apply(&mut after, passes)?;
    snapshot::check(case, "pass", &after.print());
    let (inputs, scalars) = execute::arguments(case, &before)?;
    let expected = execute::run(Engine::Reference, &before, &inputs, &scalars)?;
    let actual = execute::run(Engine::Reference, &after, &inputs, &scalars)?;
    compare(case, &before, Engine::Optimized, &actual, &expected)
}

fn schedule(case: &Case) -> Outcome {
    let Kind::Schedule(schedule) = &case.kind else { return Err("not a schedule case".into()) };
    let before = program(case)?;
    let after = execute::schedule(&before, schedule)?;
    snapshot::check(case, "schedule", &after.print());
    let (inputs, scalars) = execute::arguments(case, &before)?;
    let expected = execute::run(Engine::Reference, &before, &inputs, &scalars)?;
    for engine in [Engine::Reference, Engine::Kernels, Engine::Host] {
        let actual = execute::run(engine, &after, &inputs, &scalars)?;
        compare(case, &before, Engine::Optimized, &actual, &expected)
            .map_err(|error| format!("{}: {error}", engine.name()))?;
    }
    Ok(())
}

fn pipeline(case: &Case) -> Outcome {
    let program = program(case)?;
    let mut optimized = program.clone();
    execute::optimize(&mut optimized)?;
    snapshot::check(case, "graph", &optimized.print());
    let module = execute::compile(&program, &[], &execute::machine())?;
    snapshot::check(case, "module", &module.to_string());
    Ok(())
}

fn run(case: &Case, engine: Engine) -> Outcome {
    let program = program(case)?;
    let (inputs, scalars) = execute::arguments(case, &program)?;
    let actual = execute::run(engine, &program, &inputs, &scalars)?;
    if engine == Engine::Reference || !case.expected.is_empty() {
        compare_written(case, &program, engine, &actual)?;
    }
    if engine == Engine::Reference {
        return same_as(case, &program, &inputs, &actual);
    }
    let expected = execute::run(Engine::Reference, &program, &inputs, &scalars)?;
    compare(case, &program, engine, &actual, &expected)
}

type Values = Vec<systole_compiler::tensor::Tensor>;

/// Compares the reference's values with those of the graph below `// same as`, whose parameters and results have the
/// names of the program's.
fn same_as(case: &Case, program: &Program, inputs: &Values, actual: &Values) -> Outcome {
    let Some(source) = &case.same_as else { return Ok(()) };
    let shown = |error| text::render(&error, &format!("{}.tir", case.name), Some(source));
    let graph = Program::parse(Level::Graph, source).map_err(shown)?;
    graph.verify().map_err(shown)?;
    let (ours, theirs) = (program.signature(), graph.signature());
    let mut given = Vec::new();
    for (name, ty) in &theirs.inputs {
        let position = ours
            .inputs
            .iter()
            .position(|(other, own)| other == name && own == ty)
            .ok_or_else(|| format!("the program has no input `{name}` of type {ty}"))?;
        given.push(inputs[position].clone());
    }
    let expected = execute::run(Engine::Reference, &graph, &given, &[])?;
    if ours.outputs.len() != theirs.outputs.len() {
        return Err(format!("the graph has {} results", theirs.outputs.len()));
    }
    for (position, (name, ty)) in ours.outputs.iter().enumerate() {
        let found = theirs
            .outputs
            .iter()
            .position(|(other, _)| other == name)
            .ok_or_else(|| format!("the graph has no result `{name}`"))?;
        let tolerance = case.tolerance.unwrap_or_else(|| tolerance::written(ty.dtype));
        tolerance::compare(&actual[position], &expected[found], tolerance)
            .map_err(|error| format!("{name}, compared with the graph: {error}"))?;
    }
    Ok(())
}

fn compare_written(case: &Case, program: &Program, engine: Engine, actual: &Values) -> Outcome {
    let signature = program.signature();
    for (name, spec) in &case.expected {
        let position = signature
            .outputs
            .iter()
            .position(|(other, _)| other == name)
            .ok_or_else(|| format!("there is no result `{name}`"))?;
        let ty = &signature.outputs[position].1;
        let expected = values::read(spec, ty).map_err(|error| format!("expect {name}: {error}"))?;
        let tolerance = case.tolerance.unwrap_or_else(|| tolerance::written(ty.dtype));
        tolerance::compare(&actual[position], &expected, tolerance).map_err(|error| {
            format!("{name} on {}: {error}\n{:?}", engine.name(), actual[position])
        })?;
    }
    Ok(())
}

fn compare(
    case: &Case,
    program: &Program,
    engine: Engine,
    actual: &Values,
    expected: &Values,
) -> Outcome {
    if actual.len() != expected.len() {
        return Err(format!("{} results instead of {}", actual.len(), expected.len()));
    }
    let signature = program.signature();
    for ((name, ty), (actual, expected)) in
        signature.outputs.iter().zip(actual.iter().zip(expected))
    {
        let tolerance = match case.tolerance {
            Some(tolerance) if engine != Engine::Roundtrip => tolerance,
            Some(_) | None => tolerance::of(engine, ty.dtype),
        };
        tolerance::compare(actual, expected, tolerance)
            .map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}
