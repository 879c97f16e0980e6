//! A graph made ready to run on a target.

use crate::compiler::{Compiler, SharedObserver};
use crate::error::{Error, ErrorKind};
use crate::options::RunOptions;
use crate::target::{Kind, Listing, Target};
use std::sync::PoisonError;
use systole_compiler::diagnostic::Code;
use systole_compiler::evaluate::{self, Budget, EvaluateError};
use systole_compiler::graph::Graph;
use systole_compiler::machine::Machine;
use systole_compiler::module::{self, Module};
use systole_compiler::pipeline;
use systole_compiler::tensor::Tensor;
use systole_host::{Executable, HostError};

/// What runs.
#[derive(Debug)]
pub(crate) enum Engine {
    Reference(Graph),
    Kernels(Module),
    Host(Box<Executable>),
}

/// Whether the target can be compiled for at all, before any work is done.
pub(crate) fn check_available(target: &Target) -> Result<(), Error> {
    match &target.kind {
        Kind::Reference | Kind::Kernels => Ok(()),
        Kind::Host { .. } => machine(target).map(|_| ()),
        Kind::Systolic(name) => Err(Error::unsupported(format!(
            "cannot compile for {name}: the accelerator target is not in this version"
        ))
        .with_help("the targets of this version are `host`, `reference` and `kernels`")),
    }
}

/// The machine that the passes compile for. The interpreter of kernels takes what the host would run.
pub(crate) fn machine(target: &Target) -> Result<Machine, Error> {
    let cpu = match &target.kind {
        Kind::Host { cpu } => cpu.as_deref(),
        Kind::Reference | Kind::Kernels => None,
        Kind::Systolic(_) => {
            check_available(target)?;
            None
        }
    };
    systole_host::machine(cpu).map_err(|message| Error::new(ErrorKind::Input, Code::Input, message))
}

/// What a module becomes, as text.
pub(crate) fn listing(target: &Target, module: &Module, listing: Listing) -> Result<String, Error> {
    check_available(target)?;
    let Kind::Host { cpu } = &target.kind else {
        let message = format!("the target {target} makes no machine code");
        return Err(Error::new(ErrorKind::Input, Code::Input, message)
            .with_help("use --target host, or --emit kernels"));
    };
    let listing = match listing {
        Listing::Asm => systole_host::Listing::Asm,
        Listing::Clif => systole_host::Listing::Clif,
    };
    Ok(executable(module, cpu.as_deref())?.listing(listing))
}

fn executable(module: &Module, cpu: Option<&str>) -> Result<Executable, Error> {
    let options =
        systole_host::Options { cpu: cpu.map(str::to_owned), ..systole_host::Options::default() };
    systole_host::compile(module, &options).map_err(|error| host(error, &RunOptions::default()))
}

/// The module of a graph.
pub(crate) fn lowered(graph: Graph, compiler: &Compiler) -> Result<Module, Error> {
    let machine = machine(&compiler.target)?;
    let module = match &compiler.observer {
        None => pipeline::compile(graph, &machine, pipeline::DEFAULT, &mut pipeline::Silent),
        Some(SharedObserver(observer)) => {
            // An observer that panicked has said what it had to say.
            let mut observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
            pipeline::compile(graph, &machine, pipeline::DEFAULT, &mut *observer)
        }
    };
    module?.ok_or_else(|| Error::limit("the observer stopped the compilation"))
}

impl Engine {
    /// Compiles a graph.
    pub(crate) fn new(graph: Graph, compiler: &Compiler) -> Result<Engine, Error> {
        check_available(&compiler.target)?;
        match &compiler.target.kind {
            Kind::Reference => Ok(Engine::Reference(graph)),
            Kind::Kernels | Kind::Systolic(_) => Ok(Engine::Kernels(lowered(graph, compiler)?)),
            Kind::Host { cpu } => {
                let module = lowered(graph, compiler)?;
                Ok(Engine::Host(Box::new(executable(&module, cpu.as_deref())?)))
            }
        }
    }

    /// The results on inputs that have been checked.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        options: &RunOptions,
    ) -> Result<Vec<Tensor>, Error> {
        let cancelled = || options.is_over();
        let budget =
            Budget { cancelled: &cancelled, bytes: options.memory_limit.unwrap_or(usize::MAX) };
        let results = match self {
            Engine::Reference(graph) => evaluate::graph(graph, inputs, &budget),
            Engine::Kernels(module) => module::evaluate(module, inputs, &budget),
            Engine::Host(executable) => return run_on_host(executable, inputs, options),
        };
        results.map_err(|error| evaluation(error, options))
    }
}

fn run_on_host(
    executable: &Executable,
    inputs: &[Tensor],
    options: &RunOptions,
) -> Result<Vec<Tensor>, Error> {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.threads.unwrap_or_else(all);
    let scratch = executable.scratch_bytes().saturating_mul(threads);
    let needed = executable.arena_bytes().saturating_add(scratch);
    if let Some(limit) = options.memory_limit.filter(|limit| needed > *limit) {
        return Err(evaluation(EvaluateError::Memory { needed, limit }, options));
    }
    let cancelled = || options.is_over();
    let run = systole_host::RunOptions {
        threads,
        cancelled: Some(&cancelled),
        deadline: options.deadline,
    };
    executable.run(inputs, &run).map_err(|error| host(error, options))
}

fn host(error: HostError, options: &RunOptions) -> Error {
    match error {
        HostError::Unsupported(what) => Error::unsupported(what),
        HostError::Input(what) => Error::new(ErrorKind::Input, Code::Input, what),
        HostError::Memory(bytes) => {
            let message = format!("the system has no memory for {bytes} bytes");
            Error::new(ErrorKind::DoesNotFit, Code::TooLarge, message)
        }
        HostError::Cancelled | HostError::Deadline => options.over(),
    }
}

fn evaluation(error: EvaluateError, options: &RunOptions) -> Error {
    match error {
        EvaluateError::Cancelled => options.over(),
        EvaluateError::Memory { needed, limit } => {
            Error::limit(format!("the run needs {needed} bytes at once; the limit is {limit}"))
        }
        EvaluateError::Unsupported(what) => Error::unsupported(what),
        EvaluateError::Input(what) => Error::new(ErrorKind::Input, Code::Input, what),
    }
}
