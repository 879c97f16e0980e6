//! The ONNX backend tests and trained models, from the command line. `--help` says how.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command prints its report")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use systole::Target;
use systole_tests::data;
use systole_tests::engine::Engine;
use systole_tests::suite::{self, Verdict, index, models, report};

const HELP: &str = "\
The ONNX backend tests, and folders of trained models, run in this process.

  cargo run --release -p systole-tests --bin onnx -- suite --data DIR [options]
      --data DIR          what tests/onnx_suite/prepare.py wrote
      --engine NAME       reference, kernels, host or trn2 (default host)
      --ops FILE          only tests that use no operator but the listed ones
      --filter TEXT       only tests with TEXT in their names
      --failures          every test that does not pass, with the reason
      --check, --update   fail where a test of the engine's list no longer passes, or rewrite the list
      --jobs N            tests at a time (default: one for each CPU)
      --time-limit S      seconds for one test (default 20)
  cargo run --release -p systole-tests --bin onnx -- models --models DIR [--target a,b,c]
      every folder of DIR with model.onnx, inputs.npz and expected.npz";

struct Options {
    command: String,
    folder: PathBuf,
    engines: Vec<Engine>,
    /// For models: engines or any other target.
    targets: Vec<String>,
    ops: Option<BTreeSet<String>>,
    filter: String,
    failures: bool,
    check: bool,
    update: bool,
    jobs: usize,
    limit: Duration,
}

fn main() -> ExitCode {
    let options = match read_options(std::env::args().skip(1).collect()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("{error}; --help says how");
            return ExitCode::from(2);
        }
    };
    let outcome = match options.command.as_str() {
        "suite" => run_suite(&options),
        _ => run_models(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn read_options(arguments: Vec<String>) -> Result<Option<Options>, String> {
    let mut arguments = arguments.into_iter();
    let command = match arguments.next().as_deref() {
        Some(command @ ("suite" | "models")) => command.to_owned(),
        None | Some("--help" | "-h") => return Ok(None),
        Some(other) => return Err(format!("no command `{other}`")),
    };
    let mut options = Options {
        command,
        folder: PathBuf::new(),
        engines: vec![Engine::Reference],
        targets: vec!["reference".to_owned()],
        ops: None,
        filter: String::new(),
        failures: false,
        check: false,
        update: false,
        jobs: suite::default_jobs(),
        limit: Duration::from_secs(20),
    };
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} wants a value"));
        match flag.as_str() {
            "--data" | "--models" => options.folder = PathBuf::from(value()?),
            "--engine" | "--target" => {
                let names = value()?;
                options.targets = names.split(',').map(str::to_owned).collect();
                if options.command == "suite" {
                    options.engines = read_engines(&names)?;
                }
            }
            "--ops" => options.ops = Some(read_ops(Path::new(&value()?))?),
            "--filter" => options.filter = value()?,
            "--jobs" => options.jobs = number(&flag, &value()?)?,
            "--time-limit" => options.limit = Duration::from_secs(number(&flag, &value()?)? as u64),
            "--failures" => options.failures = true,
            "--check" => options.check = true,
            "--update" => options.update = true,
            "--help" | "-h" => return Ok(None),
            _ => return Err(format!("no flag `{flag}`")),
        }
    }
    if options.folder.as_os_str().is_empty() {
        return Err("no folder is given".into());
    }
    Ok(Some(options))
}

fn read_engines(names: &str) -> Result<Vec<Engine>, String> {
    let find = |name| Engine::ALL.into_iter().find(|engine| engine.name() == name);
    names.split(',').map(|name| find(name).ok_or_else(|| format!("no engine `{name}`"))).collect()
}

fn number(flag: &str, text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{flag} wants a whole number, not `{text}`"))
}

fn read_ops(path: &Path) -> Result<BTreeSet<String>, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

fn run_suite(options: &Options) -> Result<(), String> {
    if options.update && (options.ops.is_some() || !options.filter.is_empty()) {
        return Err("--update wants the whole suite, without --ops and --filter".into());
    }
    let mut tests = index::read(&options.folder)?;
    tests.retain(|test| {
        let listed =
            options.ops.as_ref().is_none_or(|ops| test.ops.iter().all(|op| ops.contains(op)));
        listed && test.name.contains(&options.filter)
    });
    suite::silence_panics();
    let mut wrong = String::new();
    for engine in &options.engines {
        let start = Instant::now();
        let outcomes = suite::run(tests.clone(), *engine, options.jobs, options.limit);
        if options.failures {
            print!("{}", report::failures(&outcomes));
        }
        print!("{}", report::tables(&outcomes));
        let passed = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Passed).count();
        let seconds = start.elapsed().as_secs_f64();
        println!("{}: passed {passed} of {} in {seconds:.1} s", engine.name(), outcomes.len());
        let list = data().join(format!("onnx_suite/passing/{}.txt", engine.name()));
        if options.update {
            report::update(&outcomes, &list)?;
        } else if options.check {
            let changes = report::check(&outcomes, &list)?;
            if !changes.gained.is_empty() {
                println!(
                    "{} tests more than listed pass: `--update` lists them",
                    changes.gained.len()
                );
            }
            changes.lost.iter().for_each(|name| wrong.push_str(&format!("lost: {name}\n")));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn run_models(options: &Options) -> Result<(), String> {
    let mut wrong = 0;
    for folder in models::folders(&options.folder)? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for target in &options.targets {
            let target = Target::from_name(target).map_err(|error| error.to_string())?;
            match models::run(&folder, &target) {
                Ok(figures) => println!("ok    {name:20} {target:10} {figures}"),
                Err(error) => {
                    wrong += 1;
                    println!("WRONG {name:20} {target:10} {error}");
                }
            }
        }
    }
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} runs of models are wrong")) }
}
