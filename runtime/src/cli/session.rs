//! What the verbs have in common: target, model, program and inputs.

use super::args::{InputArgs, LookArgs, ModeName, ModelArgs, ModeledArgs, PrecisionName};
use super::failure::Failure;
use super::guard::Context;
use super::look::Look;
use super::spec::{self, Spec};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use systole::data::Bundle;
use systole::{
    CompileTimes, Compiler, Dim, Inputs, Mode, Model, Port, Precision, Program, SavedProgram,
    Signature, Target, Tensor,
};

/// A program, with the times that it took.
pub(super) struct Session {
    pub(super) name: String,
    pub(super) target: Target,
    pub(super) program: Program,
    pub(super) load_ms: f64,
    pub(super) compile_ms: f64,
}

/// The target of that name, with the flags that only one of them knows.
pub(super) fn target(
    name: &str,
    cpu: Option<&str>,
    threads: Option<u16>,
    modeled: &ModeledArgs,
) -> Result<Target, Failure> {
    let target = match modeled.settings.as_slice() {
        [] => Target::from_name(name)?,
        settings => {
            if !Target::from_name(name)?.is_modeled() {
                return Err(no_effect("--set", name));
            }
            Target::systolic_with(name, settings)?
        }
    };
    if name == "host" {
        let target = cpu.map_or(target, Target::host_with_cpu);
        return match modeled.precision {
            None => Ok(target),
            Some(precision) => Ok(target.with_precision(narrowed(precision))?),
        };
    }
    let useless = [
        ("--cpu", cpu.is_some()),
        ("--threads", threads.is_some() && !target.is_modeled()),
        ("--precision", modeled.precision.is_some() && !target.is_modeled()),
    ];
    if let Some((flag, _)) = useless.into_iter().find(|(_, given)| *given) {
        return Err(no_effect(flag, name));
    }
    match modeled.precision {
        None => Ok(target),
        Some(precision) => Ok(target.with_precision(narrowed(precision))?),
    }
}

fn narrowed(precision: PrecisionName) -> Precision {
    match precision {
        PrecisionName::F32 => Precision::F32,
        PrecisionName::Bf16 => Precision::Bf16,
        PrecisionName::F8 => Precision::F8,
        PrecisionName::Bf16All => Precision::Bf16All,
        PrecisionName::F8All => Precision::F8All,
    }
}

/// The target for runs of that mode.
pub(super) fn with_mode(target: Target, mode: Option<ModeName>) -> Result<Target, Failure> {
    let Some(mode) = mode else { return Ok(target) };
    if !target.is_modeled() {
        return Err(no_effect("--mode", target.name()));
    }
    Ok(target.with_mode(match mode {
        ModeName::Values => Mode::Values,
        ModeName::Time => Mode::Time,
        ModeName::Both => Mode::Both,
    })?)
}

fn no_effect(flag: &str, target: &str) -> Failure {
    Failure::usage_with_help(
        format!("{flag} has no effect on the target {target}"),
        format!("leave out {flag}, or use another --target"),
    )
}

/// Loads and compiles.
pub(super) fn open(
    context: &Context,
    args: &ModelArgs,
    threads: Option<u16>,
    look: Option<&LookArgs>,
    mode: Option<ModeName>,
) -> Result<Session, Failure> {
    let target = target(&args.target, args.cpu.as_deref(), threads, &args.modeled)?;
    let target = with_mode(target, mode)?;
    let look = look.filter(|look| Look::is_asked(look) || context.talk.verbose);
    if let (Some(flag), "reference") = (look.and_then(Look::first_flag), target.name()) {
        return Err(no_effect(flag, "reference"));
    }
    let mut compiler = compiler(context, args, &target);
    if let Some(threads) = threads {
        compiler = compiler.threads(usize::from(threads));
    }
    if let Some(look) = look {
        compiler = compiler.observe(Arc::new(Mutex::new(Look::new(context, look, None)?)));
    }
    let start = Instant::now();
    let loaded = load_any(context, &args.model)?;
    let load_ms = milliseconds(start);
    context.enter("compile");
    let start = Instant::now();
    let (name, program) = match loaded {
        Loaded::Model(model) => (model.name().to_owned(), compiler.compile(&model)?),
        Loaded::Program(saved) => (saved.name().to_owned(), compiler.load(&saved)?),
    };
    let compile_ms = milliseconds(start);
    say_times(context, &program);
    Ok(Session { name, target, program, load_ms, compile_ms })
}

/// A compiler as the arguments and limits say.
pub(super) fn compiler(context: &Context, args: &ModelArgs, target: &Target) -> Compiler {
    let mut compiler = Compiler::new().target(target.clone()).cancel(context.cancel());
    if let Some(deadline) = context.deadline() {
        compiler = compiler.deadline(deadline);
    }
    if let Some(mesh) = &args.mesh {
        compiler = compiler.mesh(mesh.clone());
    }
    if let Some(system) = &args.system {
        compiler = compiler.system(system);
    }
    for (name, sharding) in &args.shardings {
        compiler = compiler.shard(name, sharding);
    }
    args.dims.iter().fold(compiler, |compiler, (name, size)| compiler.bind(name, *size))
}

/// A model, or a program that was made of one.
pub(super) enum Loaded {
    Model(Model),
    Program(SavedProgram),
}

/// Loads a model or a saved program.
pub(super) fn load_any(context: &Context, path: &Path) -> Result<Loaded, Failure> {
    if !SavedProgram::is_one(path) {
        return load(context, path).map(Loaded::Model);
    }
    context.enter("load");
    let saved = SavedProgram::from_path(path)?;
    if context.talk.verbose {
        context.note(&format!("signature: {}", saved.signature()));
    }
    Ok(Loaded::Program(saved))
}

/// What compiling took so far, where it is wished.
fn say_times(context: &Context, program: &Program) {
    if context.talk.verbose && program.cached() > 0 {
        context.note(&times_text(&program.compile_times()));
    }
}

/// The parts of compiling in one line.
pub(super) fn times_text(times: &CompileTimes) -> String {
    let [import, passes, code, packing] = parts(times);
    format!(
        "import {import:.1} ms, passes {passes:.1} ms, code {code:.1} ms, packing {packing:.1} ms"
    )
}

/// The parts of compiling in milliseconds: import, passes, code, packing.
pub(super) fn parts(times: &CompileTimes) -> [f64; 4] {
    [times.import, times.passes, times.code, times.packing]
        .map(|part| part.as_micros() as f64 / 1e3)
}

/// Loads a model.
pub(super) fn load(context: &Context, path: &Path) -> Result<Model, Failure> {
    context.enter("load");
    let model = Model::from_path(path)?;
    if context.talk.verbose {
        context.note(&format!("signature: {}", model.signature()));
    }
    Ok(model)
}

impl Session {
    /// Makes the code for these inputs, where compiling could not know them.
    pub(super) fn prepare(&mut self, context: &Context, inputs: &Inputs) -> Result<(), Failure> {
        let is_new = self.program.cached() == 0;
        if is_new {
            context.enter("compile for these inputs");
        }
        let start = Instant::now();
        self.program.prepare(inputs)?;
        self.compile_ms += milliseconds(start);
        if is_new {
            say_times(context, &self.program);
        }
        Ok(())
    }
}

/// The inputs that the arguments give. Where `all` is wanted, each input must be among them.
pub(super) fn inputs(
    context: &Context,
    signature: &Signature,
    args: &InputArgs,
    wanted: Wanted,
) -> Result<Inputs, Failure> {
    context.enter("read inputs");
    let Given { specs, rest } = given(signature, args)?;
    let mut tensors: BTreeMap<String, Tensor> = BTreeMap::new();
    if let Some(path) = &args.inputs {
        read_bundle(signature, path, &specs, &mut tensors)?;
    }
    let none = |_: &str| None;
    for (port, spec) in &specs {
        if spec.is_sized() {
            tensors.insert(port.name.clone(), spec.tensor(port, &none)?);
        }
    }
    let sizes = sizes_of(signature, &tensors);
    let size_of = |symbol: &str| sizes.get(symbol).copied();
    for port in &signature.inputs {
        let spec = specs.iter().find_map(|(known, spec)| (known.name == port.name).then_some(spec));
        if tensors.contains_key(&port.name) {
            continue;
        }
        if let Some(spec) = spec.or(rest.as_ref()) {
            tensors.insert(port.name.clone(), spec.tensor(port, &size_of)?);
        }
    }
    let missing = signature.inputs.iter().filter(|port| !tensors.contains_key(&port.name));
    let missing: Vec<&Port> = missing.collect();
    if wanted == Wanted::All && !missing.is_empty() {
        return Err(missing_inputs(&missing));
    }
    Ok(tensors.into_iter().collect())
}

/// How many of the inputs must be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Any,
}

struct Given<'a> {
    specs: Vec<(&'a Port, Spec)>,
    /// For inputs that are not named.
    rest: Option<Spec>,
}

fn given<'a>(signature: &'a Signature, args: &InputArgs) -> Result<Given<'a>, Failure> {
    let mut found = Given { specs: Vec::new(), rest: None };
    for text in &args.input {
        let (name, spec) = text.split_once('=').ok_or_else(|| {
            Failure::usage_with_help(format!("`--input {text}` is not NAME=SPEC"), spec::FORMS)
        })?;
        let spec = Spec::parse(spec)?;
        if name == "*" {
            found.rest = Some(spec);
            continue;
        }
        let port = signature.input(name).ok_or_else(|| unknown_input(signature, name))?;
        if found.specs.iter().any(|(known, _)| known.name == name) {
            return Err(Failure::usage(format!("input `{name}` is given twice")));
        }
        found.specs.push((port, spec));
    }
    Ok(found)
}

fn unknown_input(signature: &Signature, name: &str) -> Failure {
    let known: Vec<String> = signature.inputs.iter().map(Port::to_string).collect();
    let help = match known.as_slice() {
        [] => "the model takes no inputs".to_owned(),
        known => format!("the inputs are {}", known.join(", ")),
    };
    Failure::usage_with_help(format!("the model has no input `{name}`"), help)
}

fn read_bundle(
    signature: &Signature,
    path: &Path,
    specs: &[(&Port, Spec)],
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<(), Failure> {
    let mut bundle = Bundle::open(path)?;
    for name in bundle.names().to_vec() {
        let port = signature.input(&name).ok_or_else(|| unknown_input(signature, &name))?;
        // An input that is also given by itself is taken from there.
        if specs.iter().all(|(known, _)| known.name != name) {
            tensors.insert(name.clone(), bundle.read(&name)?.into_tensor(port.dtype)?);
        }
    }
    Ok(())
}

fn sizes_of(signature: &Signature, tensors: &BTreeMap<String, Tensor>) -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    for port in &signature.inputs {
        let Some(tensor) = tensors.get(&port.name) else { continue };
        for (dim, &size) in port.dims.iter().flatten().zip(tensor.shape()) {
            if let Dim::Symbol(symbol) = dim {
                sizes.entry(symbol.clone()).or_insert(size);
            }
        }
    }
    sizes
}

fn missing_inputs(missing: &[&Port]) -> Failure {
    let count = missing.len();
    let what = if count == 1 {
        "1 input is missing".to_owned()
    } else {
        format!("{count} inputs are missing")
    };
    let width = missing.iter().map(|port| port.to_string().chars().count()).max().unwrap_or(0);
    let lines: Vec<String> = missing
        .iter()
        .map(|port| {
            let (name, text) = (&port.name, port.to_string());
            format!("\n  {text:width$}   --input '{name}=@FILE.npy'")
        })
        .collect();
    let mut help = "give each with --input, all in a bundle with --inputs FILE.npz, or try --input '*=random:0'".to_owned();
    if missing.iter().any(|port| port.ty().is_none()) {
        help.push_str(" with sizes by --dim NAME=N");
    }
    Failure::usage_with_help(format!("{what}{}", lines.concat()), help)
}

/// The milliseconds since then, to the microsecond.
pub(super) fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_micros() as f64 / 1e3
}
