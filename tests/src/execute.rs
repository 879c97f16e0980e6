//! What each engine does to give a program's values.

use crate::case::Case;
use crate::engine::Engine;
use crate::levels::Program;
use crate::values;
use std::cell::RefCell;
use std::fmt::Display;
use systole_compiler::arena::Id;
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::evaluate::{self, Budget};
use systole_compiler::graph::Graph;
use systole_compiler::kernel::{self, Kernel, Role};
use systole_compiler::machine::{AttentionTile, ContractTile, Machine};
use systole_compiler::module::{Lifetime, Module};
use systole_compiler::pass::{Changed, Context, Pass};
use systole_compiler::passes;
use systole_compiler::passes::shard::Divided;
use systole_compiler::pipeline::{self, Silent};
use systole_compiler::ranks;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::tensor::Tensor;
use systole_compiler::types::DType;
use systole_systolic::machine::Machine as Core;
use systole_systolic::{check, lower, simulate};

/// The values of a case's parameters, and those of its scalar parameters.
pub fn arguments(case: &Case, program: &Program) -> Result<(Vec<Tensor>, Vec<i64>), String> {
    let signature = program.signature();
    for (name, _) in &case.inputs {
        if !signature.inputs.iter().any(|(other, _)| other == name) {
            return Err(format!("there is no input `{name}`"));
        }
    }
    let mut inputs = Vec::new();
    for (position, (name, ty)) in signature.inputs.iter().enumerate() {
        let given = case.inputs.iter().find(|(other, _)| other == name);
        let spec = given.map_or(format!("random:{}", position + 1), |(_, spec)| spec.clone());
        inputs.push(values::read(&spec, ty).map_err(|error| format!("input {name}: {error}"))?);
    }
    let scalar = |(name, low, _): &(String, i64, i64)| {
        case.scalars.iter().find(|(other, _)| other == name).map_or(*low, |(_, value)| *value)
    };
    Ok((inputs, signature.scalars.iter().map(scalar).collect()))
}

/// Why an engine gives no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The target says that it cannot.
    Unsupported(String),
    /// Something is wrong.
    Wrong(String),
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Failure::Unsupported(message) | Failure::Wrong(message)) = self;
        f.write_str(message)
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::Wrong(message)
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        failure.to_string()
    }
}

/// The values of a verified program's results.
pub fn run(
    engine: Engine,
    program: &Program,
    inputs: &[Tensor],
    scalars: &[i64],
) -> Result<Vec<Tensor>, Failure> {
    let values = match engine {
        Engine::Reference => evaluate(program, inputs, scalars)?,
        Engine::Roundtrip => {
            let text = program.print_full();
            let again = Program::parse(program.level(), &text)
                .map_err(|error| format!("the printed text does not parse: {error}\n{text}"))?;
            evaluate(&again, inputs, scalars)?
        }
        Engine::Optimized => {
            let mut program = program.clone();
            optimize(&mut program)?;
            evaluate(&program, inputs, scalars)?
        }
        Engine::Kernels => {
            let module = compile(program, scalars, &machine())?;
            evaluate(&Program::Module(module), inputs, &[])?
        }
        Engine::Host => {
            let module = compile(program, scalars, &host_machine()?)?;
            run_host(&module, inputs)?
        }
        Engine::Trn2 => {
            let core = core()?;
            let limits = systole_systolic::limits::Limits::of(&core);
            let module = compile(program, scalars, &limits.tiled())?;
            run_core(&module, inputs, &core)?
        }
    };
    Ok(values)
}

/// The machine that tests compile for, whatever machine they run on, so that snapshots are the same everywhere.
pub fn machine() -> Machine {
    Machine {
        name: "test".into(),
        near_rows: 1,
        near_bytes: 256 << 10,
        vector_elements: 4,
        contract: ContractTile { m: (8, 64), n: (16, 256), k: (1, 256) },
        attention: Some(AttentionTile { queries: 8, keys: 4, most_scores: 24 }),
        map_elements: 4096,
        reduce_elements: 4096,
        schedules: false,
        widens: vec![DType::I8, DType::U8, DType::BF16],
        bytes_together: 4,
        weights: None,
        native: ScalarFn::CATALOG.iter().map(|(function, _)| *function).collect(),
    }
}

/// Applies the passes that `text` lists, `a,b{key=value}`, each to the level that it is of.
pub fn apply(program: &mut Program, text: &str) -> Result<(), String> {
    for (name, options) in read_passes(text)? {
        match program {
            Program::Graph(graph) => apply_one(
                graph,
                passes::GRAPH_PASSES,
                systole_compiler::verify::graph,
                (&name, options),
            )?,
            Program::Kernel(kernel) => apply_one(
                kernel,
                passes::KERNEL_PASSES,
                systole_compiler::kernel::verify,
                (&name, options),
            )?,
            Program::Module(module) => apply_one(
                module,
                passes::MODULE_PASSES,
                systole_compiler::module::verify,
                (&name, options),
            )?,
        }
    }
    Ok(())
}

/// The kernel under a schedule, whose text is printed and read back first.
pub fn schedule(program: &Program, source: &str) -> Result<Program, String> {
    let Program::Kernel(kernel) = program else { return Err("only kernels have schedules".into()) };
    let schedule = kernel::parse_schedule(source).map_err(text)?;
    let printed = schedule.to_string();
    if printed != source.trim() {
        return Err(format!("the schedule prints as `{printed}`"));
    }
    let tiled = kernel::tiling::apply(kernel, &schedule)?;
    kernel::verify(&tiled).map_err(|error| format!("{printed} broke a rule: {error}\n{tiled}"))?;
    Ok(Program::Kernel(tiled))
}

type Options = Vec<(String, String)>;
type Verify<I> = fn(&I) -> Result<(), Diagnostics>;

fn read_passes(text: &str) -> Result<Vec<(String, Options)>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find([',', '{']).unwrap_or(rest.len());
        let name = rest[..end].trim().to_owned();
        rest = &rest[end..];
        let mut options = Options::new();
        if let Some(inside) = rest.strip_prefix('{') {
            let close = inside.find('}').ok_or_else(|| format!("no `}}` in `{text}`"))?;
            for option in inside[..close].split(',').filter(|option| !option.trim().is_empty()) {
                let (key, value) =
                    option.split_once('=').ok_or_else(|| format!("no `=` in `{option}`"))?;
                options.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            rest = &inside[close + 1..];
        }
        rest = rest.trim_start().trim_start_matches(',').trim_start();
        found.push((name, options));
    }
    Ok(found)
}

fn apply_one<I: Display>(
    ir: &mut I,
    passes: &[Pass<I>],
    verify: Verify<I>,
    (name, options): (&str, Options),
) -> Result<(), String> {
    let pass = passes
        .iter()
        .find(|pass| pass.name == name)
        .ok_or_else(|| format!("no pass of this level is called `{name}`"))?;
    let machine = machine();
    let context = Context { machine: &machine, options, declined: RefCell::default() };
    let before = ir.to_string();
    let changed = (pass.run)(ir, &context).map_err(|error| format!("{name}: {error}"))?;
    if changed == Changed::No && ir.to_string() != before {
        return Err(format!("{name} changed the program and says that it did not"));
    }
    verify(ir).map_err(|error| format!("{name} broke a rule: {error}\n{ir}"))
}

/// Applies every pass of the level's pipeline, and verifies.
pub fn optimize(program: &mut Program) -> Result<(), String> {
    match program {
        Program::Graph(graph) => {
            let machine = machine();
            let optimized =
                pipeline::optimize(graph.clone(), &machine, pipeline::DEFAULT, &mut Silent)
                    .map_err(text)?;
            *graph = optimized.expect("nothing stops the pipeline");
            systole_compiler::verify::graph(graph).map_err(text)
        }
        Program::Kernel(kernel) => {
            apply_all(kernel, passes::KERNEL_PASSES, systole_compiler::kernel::verify)
        }
        Program::Module(module) => {
            apply_all(module, passes::MODULE_PASSES, systole_compiler::module::verify)
        }
    }
}

fn apply_all<I: Display>(ir: &mut I, passes: &[Pass<I>], verify: Verify<I>) -> Result<(), String> {
    passes.iter().try_for_each(|pass| apply_one(ir, passes, verify, (pass.name, Options::new())))
}

/// The module that a target would get.
pub fn compile(program: &Program, scalars: &[i64], machine: &Machine) -> Result<Module, String> {
    match program {
        Program::Graph(graph) => {
            let module = pipeline::compile(graph.clone(), machine, pipeline::DEFAULT, &mut Silent)
                .map_err(text)?
                .expect("nothing stops the pipeline");
            systole_compiler::module::verify(&module)
                .map_err(|error| format!("the compiled module breaks a rule: {error}\n{module}"))?;
            Ok(module)
        }
        Program::Kernel(kernel) => {
            let mut module = Module::of_kernel(kernel, scalars);
            apply_all(&mut module, passes::MODULE_PASSES, systole_compiler::module::verify)?;
            Ok(module)
        }
        Program::Module(module) => Ok(module.clone()),
    }
}

fn evaluate(program: &Program, inputs: &[Tensor], scalars: &[i64]) -> Result<Vec<Tensor>, String> {
    let budget = Budget { cancelled: &|| false, bytes: 4 << 30 };
    match program {
        Program::Graph(graph) => match Divided::of_rank(graph) {
            Some(divided) => on_ranks(&divided, graph, inputs),
            None => evaluate::graph(graph, inputs, &budget).map_err(text),
        },
        Program::Kernel(kernel) => evaluate_kernel(kernel, inputs, scalars, &budget),
        Program::Module(module) => {
            systole_compiler::module::evaluate(module, inputs, &budget).map_err(text)
        }
    }
}

fn evaluate_kernel(
    kernel: &Kernel,
    inputs: &[Tensor],
    scalars: &[i64],
    budget: &Budget<'_>,
) -> Result<Vec<Tensor>, String> {
    let mut given = inputs.iter();
    let mut operands: Vec<Tensor> = kernel
        .operands
        .iter()
        .map(|(_, operand)| match operand.role {
            Role::Input | Role::Update => given.next().expect("a value for each operand").clone(),
            Role::Output => Tensor::zeros(operand.ty()),
        })
        .collect();
    kernel::evaluate(kernel, &mut operands, scalars, budget).map_err(text)?;
    let written: Vec<usize> =
        kernel.operands_that(Role::writes).into_iter().map(Id::index).collect();
    Ok(written.into_iter().map(|position| operands[position].clone()).collect())
}

fn host_machine() -> Result<Machine, String> {
    systole_host::machine(None)
}

/// Runs on one thread and on three, which must give the same bytes.
fn run_host(module: &Module, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    let executable =
        systole_host::compile(module, &systole_host::Options::default()).map_err(text)?;
    let one = systole_host::RunOptions::default();
    let three = systole_host::RunOptions { threads: 3, ..one };
    let results = executable.run(inputs, &one).map_err(text)?;
    let again = executable.run(inputs, &three).map_err(text)?;
    match results.iter().zip(&again).position(|(a, b)| a.bytes() != b.bytes()) {
        Some(at) => Err(format!("result {at} is not the same on one thread and on three")),
        None => Ok(results),
    }
}

/// The modeled core of the tests.
fn core() -> Result<Core, String> {
    Core::preset("trn2").ok_or_else(|| "there is no machine trn2".to_owned())
}

/// Compiles for a modeled core, checks the program independently, and simulates it: time alone must be the time of the
/// run with values.
fn run_core(module: &Module, inputs: &[Tensor], core: &Core) -> Result<Vec<Tensor>, Failure> {
    let limits = systole_systolic::limits::Limits::of(core);
    let compiled = lower::compile(module, &limits, &lower::Options::default()).map_err(
        |error| match error {
            lower::CompileError::Unsupported(_) => Failure::Unsupported(error.to_string()),
            lower::CompileError::DoesNotFit(_) => Failure::Wrong(error.to_string()),
        },
    )?;
    let lower::Compiled { program, module, constants, .. } = compiled;
    check::check(&program, &check::Limits::of(core)).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        format!("the checker says:\n{}", lines.join("\n"))
    })?;
    let mut values = inputs.to_vec();
    for id in constants {
        let Lifetime::Constant(value) = &module.buffers[id].lifetime else {
            return Err(format!("%{} has no value", module.buffers[id].name).into());
        };
        values.push(value.clone());
    }
    let run = |mode| simulate::run(&program, core, mode, &values, simulate::Options::default());
    let report = run(simulate::Mode::Both).map_err(text)?;
    // Where data decide the time, time alone refuses.
    if let Ok(timed) = run(simulate::Mode::Time)
        && timed.time_ticks != report.time_ticks
    {
        let (alone, both) = (timed.time_us, report.time_us);
        return Err(format!("{alone} us without values and {both} us with them").into());
    }
    let shaped = report.outputs.iter().zip(&module.outputs).map(|(flat, (_, buffer))| {
        let ty = module.buffers[*buffer].ty.clone();
        Tensor::new(ty, flat.bytes().clone()).ok_or_else(|| "a result has another size".to_owned())
    });
    Ok(shaped.collect::<Result<Vec<Tensor>, String>>()?)
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// The whole results of a rank's program, run on all ranks with their parts of whole inputs.
fn on_ranks(divided: &Divided, graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    ranks::check(&[graph], &divided.program_of).map_err(|error| error.to_string())?;
    let results = ranks::run(divided.mesh.ranks(), |why| why, &|rank, exchange| {
        let inputs = divided.inputs(rank, inputs);
        evaluate::graph_as(graph, &inputs, &Budget::UNLIMITED, exchange)
            .map_err(|error| error.to_string())
    })?;
    Ok(divided.outputs(&results))
}
