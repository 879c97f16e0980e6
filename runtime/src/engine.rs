//! A graph made ready to run on a target.

use crate::accelerator::Accelerator;
use crate::compiler::{Compiler, SharedObserver};
use crate::error::{Error, ErrorKind};
use crate::fabric::Communication;
use crate::limits::Limits;
use crate::options::RunOptions;
use crate::ranks::{self, Ranks};
use crate::report::{CompileTimes, MemoryPlan};
use crate::target::{Kind, Listing, Target};
use std::sync::PoisonError;
use std::time::Instant;
use systole_compiler::diagnostic::{Code, Diagnostics};
use systole_compiler::evaluate::{self, Budget, EvaluateError};
use systole_compiler::graph::Graph;
use systole_compiler::machine::Machine;
use systole_compiler::module::{self, Module};
use systole_compiler::pass::{Changed, Declined};
use systole_compiler::passes::plan_buffers;
use systole_compiler::pipeline::{self, Go, Level, Observer};
use systole_compiler::ranks::{Alone, Exchange};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::TensorType;
use systole_host::{Executable, HostError, Threads};

/// What runs.
#[derive(Debug)]
pub(crate) enum Engine {
    Reference(Graph),
    Kernels(Module),
    Host(Box<Host>),
    Accelerator(Box<Accelerator>),
    Ranks(Box<Ranks>),
}

/// Code for the host.
#[derive(Debug)]
pub(crate) struct Host {
    executable: Executable,
    lower_bound: usize,
}

/// What a workspace holds for an engine.
#[derive(Debug)]
pub(crate) enum Memory {
    /// The results of an evaluator, which makes them anew each time.
    Tensors(Vec<Tensor>),
    Host(systole_host::Workspace),
}

/// What compiling goes by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) compiler: &'a Compiler,
    pub(crate) limits: &'a Limits,
    /// The program's own threads.
    pub(crate) threads: &'a Threads,
}

/// Whether the target can be compiled for at all, before any work is done.
pub(crate) fn check_available(target: &Target) -> Result<(), Error> {
    match &target.kind {
        Kind::Reference | Kind::Kernels | Kind::Systolic(_) => Ok(()),
        Kind::Host { .. } => machine(target).map(|_| ()),
    }
}

/// Whether graphs are evaluated as they are.
pub(crate) fn is_reference(target: &Target) -> bool {
    matches!(target.kind, Kind::Reference)
}

/// The machine that the passes compile for. The interpreter of kernels takes what the host would run.
pub(crate) fn machine(target: &Target) -> Result<Machine, Error> {
    let (cpu, weights) = match &target.kind {
        Kind::Host { cpu, weights } => (cpu.as_deref(), *weights),
        Kind::Reference | Kind::Kernels => (None, None),
        Kind::Systolic(systolic) => {
            return Ok(systole_systolic::limits::Limits::of(&systolic.machine).tiled());
        }
    };
    let machine = systole_host::machine(cpu).map_err(no_cpu)?;
    Ok(Machine { weights, ..machine })
}

/// What a module becomes, as text.
pub(crate) fn listing(target: &Target, module: &Module, listing: Listing) -> Result<String, Error> {
    check_available(target)?;
    if let (Kind::Systolic(systolic), Listing::Asm) = (&target.kind, listing) {
        return Ok(Accelerator::new(module, systolic)?.listing());
    }
    let Kind::Host { cpu, .. } = &target.kind else {
        let message = format!("the target {target} makes no machine code");
        return Err(Error::new(ErrorKind::Input, Code::Input, message)
            .with_help("use --target host, or --emit kernels"));
    };
    let listing = match listing {
        Listing::Asm => systole_host::Listing::Asm,
        Listing::Clif => systole_host::Listing::Clif,
    };
    let options = systole_host::Options { cpu: cpu.clone(), ..systole_host::Options::default() };
    let executable = systole_host::compile(module, &options)
        .map_err(|error| host(error, &Limits::default(), "compilation"))?;
    Ok(executable.listing(listing))
}

fn executable(
    module: &Module,
    cpu: Option<&str>,
    setting: Setting<'_>,
) -> Result<Executable, Error> {
    let cancelled = || setting.limits.is_over();
    let options = systole_host::Options {
        cpu: cpu.map(str::to_owned),
        pool: setting.compiler.pool.as_deref(),
        compile_threads: setting.compiler.threads,
        threads: setting.threads.clone(),
        cancelled: Some(&cancelled),
        ..systole_host::Options::default()
    };
    systole_host::compile(module, &options)
        .map_err(|error| host(error, setting.limits, "compilation"))
}

/// An observer that ends a compilation whose limits are reached.
struct Limited<'a> {
    inner: &'a mut dyn Observer,
    limits: &'a Limits,
}

impl Observer for Limited<'_> {
    fn before(&mut self, level: &'static str, pass: &'static str) -> Go {
        if self.limits.is_over() { Go::Stop } else { self.inner.before(level, pass) }
    }

    fn after(
        &mut self,
        pass: &'static str,
        changed: Changed,
        level: Level<'_>,
        declined: &[Declined],
    ) -> Result<(), Diagnostics> {
        self.inner.after(pass, changed, level, declined)
    }
}

/// The name of the instruction set that a target's code is made for; `None` where no code is made.
pub(crate) fn cpu(target: &Target) -> Result<Option<String>, Error> {
    let Kind::Host { cpu, .. } = &target.kind else { return Ok(None) };
    let name = systole_host::cpu_name(cpu.as_deref());
    name.map(|name| Some(name.to_owned())).map_err(no_cpu)
}

fn no_cpu(message: String) -> Error {
    Error::new(ErrorKind::Input, Code::Input, message)
}

/// The module of a graph.
pub(crate) fn lowered(graph: Graph, setting: Setting<'_>) -> Result<Module, Error> {
    let machine = machine(&setting.compiler.target)?;
    let limits = setting.limits;
    let compile = |inner: &mut dyn Observer| {
        pipeline::compile(graph, &machine, pipeline::DEFAULT, &mut Limited { inner, limits })
    };
    let module = match &setting.compiler.observer {
        None => compile(&mut pipeline::Silent),
        Some(SharedObserver(observer)) => {
            // An observer that panicked has said what it had to say.
            compile(&mut *observer.lock().unwrap_or_else(PoisonError::into_inner))
        }
    };
    module?.ok_or_else(|| match limits.is_over() {
        true => limits.over("compilation"),
        false => Error::limit("the observer stopped the compilation"),
    })
}

impl Engine {
    /// Compiles a graph, and tells how long it took.
    pub(crate) fn new(graph: Graph, setting: Setting<'_>) -> Result<(Engine, CompileTimes), Error> {
        let target = &setting.compiler.target;
        check_available(target)?;
        if ranks::are_wanted(&graph, setting) {
            let (ranks, times) = Ranks::new(graph, setting)?;
            return Ok((Engine::Ranks(Box::new(ranks)), times));
        }
        if let Kind::Reference = target.kind {
            return Ok((Engine::Reference(graph), CompileTimes::default()));
        }
        let start = Instant::now();
        let module = lowered(graph, setting)?;
        let passes = start.elapsed();
        let (engine, times) = Engine::of_module(module, setting)?;
        Ok((engine, CompileTimes { passes, ..times }))
    }

    /// Makes a verified module run.
    pub(crate) fn of_module(
        module: Module,
        setting: Setting<'_>,
    ) -> Result<(Engine, CompileTimes), Error> {
        let none = CompileTimes::default();
        match &setting.compiler.target.kind {
            Kind::Reference | Kind::Kernels => Ok((Engine::Kernels(module), none)),
            Kind::Systolic(systolic) => {
                let start = Instant::now();
                let accelerator = Accelerator::new(&module, systolic)?;
                let times = CompileTimes { code: start.elapsed(), ..none };
                Ok((Engine::Accelerator(Box::new(accelerator)), times))
            }
            Kind::Host { cpu, .. } => {
                let executable = executable(&module, cpu.as_deref(), setting)?;
                let times = executable.compile_times();
                let lower_bound = plan_buffers::lower_bound(&module);
                let times = CompileTimes { code: times.code, packing: times.packing, ..none };
                Ok((Engine::Host(Box::new(Host { executable, lower_bound })), times))
            }
        }
    }

    /// The results on inputs that have been checked.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        options: &RunOptions,
    ) -> Result<Vec<Tensor>, Error> {
        match self {
            Engine::Ranks(ranks) => ranks.run(inputs, options),
            Engine::Accelerator(engine) => engine.run(inputs, options),
            Engine::Reference(_) | Engine::Kernels(_) | Engine::Host(_) => {
                self.run_as(inputs, options, &Alone)
            }
        }
    }

    /// The results on one rank of several.
    pub(crate) fn run_as(
        &self,
        inputs: &[Tensor],
        options: &RunOptions,
        exchange: &dyn Exchange,
    ) -> Result<Vec<Tensor>, Error> {
        match self {
            Engine::Reference(_) | Engine::Kernels(_) => self.evaluate(inputs, options, exchange),
            Engine::Host(engine) => {
                engine.run(options, exchange, |run| engine.executable.run(inputs, run))
            }
            Engine::Accelerator(engine) => engine.run(inputs, options),
            Engine::Ranks(_) => unreachable!("a rank has no ranks of its own"),
        }
    }

    /// Memory for [`Engine::run_in`].
    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        match self {
            Engine::Reference(_)
            | Engine::Kernels(_)
            | Engine::Accelerator(_)
            | Engine::Ranks(_) => Ok(Memory::Tensors(Vec::new())),
            Engine::Host(engine) => {
                let workspace = engine.executable.workspace();
                let workspace =
                    workspace.map_err(|error| host(error, &Limits::default(), "run"))?;
                Ok(Memory::Host(workspace))
            }
        }
    }

    /// Leaves the results, on inputs that have been checked, in memory of its own.
    pub(crate) fn run_in<'i>(
        &self,
        memory: &mut Memory,
        inputs: &'i dyn Fn(usize) -> &'i Tensor,
        count: usize,
        options: &RunOptions,
    ) -> Result<(), Error> {
        match (self, memory) {
            (Engine::Host(engine), Memory::Host(workspace)) => {
                engine.run(options, &Alone, |run| engine.executable.run_in(workspace, inputs, run))
            }
            (_, memory) => {
                let inputs: Vec<Tensor> = (0..count).map(|index| inputs(index).clone()).collect();
                *memory = Memory::Tensors(self.run(&inputs, options)?);
                Ok(())
            }
        }
    }

    /// A result of the last run in that memory.
    pub(crate) fn result<'m>(
        &'m self,
        memory: &'m Memory,
        index: usize,
    ) -> (&'m TensorType, &'m [u8]) {
        match (self, memory) {
            (Engine::Host(engine), Memory::Host(workspace)) => {
                workspace.result(&engine.executable, index)
            }
            (_, Memory::Tensors(tensors)) => (tensors[index].ty(), tensors[index].bytes()),
            (
                Engine::Reference(_)
                | Engine::Kernels(_)
                | Engine::Accelerator(_)
                | Engine::Ranks(_),
                Memory::Host(_),
            ) => {
                unreachable!("memory is used by the engine that made it")
            }
        }
    }

    /// Code for a modeled core, where it is that.
    pub(crate) fn accelerator(&self) -> Option<&Accelerator> {
        match self {
            Engine::Accelerator(accelerator) => Some(accelerator),
            Engine::Reference(_) | Engine::Kernels(_) | Engine::Host(_) | Engine::Ranks(_) => None,
        }
    }

    /// The ranks, where there are several.
    pub(crate) fn ranks(&self) -> Option<&Ranks> {
        match self {
            Engine::Ranks(ranks) => Some(ranks),
            Engine::Reference(_)
            | Engine::Kernels(_)
            | Engine::Host(_)
            | Engine::Accelerator(_) => None,
        }
    }

    /// What ranks exchange.
    pub(crate) fn communications(&self) -> &[Communication] {
        match self {
            Engine::Ranks(ranks) => ranks.communications(),
            Engine::Reference(_)
            | Engine::Kernels(_)
            | Engine::Host(_)
            | Engine::Accelerator(_) => &[],
        }
    }

    /// What memory a run needs, where there is a plan of it.
    pub(crate) fn memory_plan(&self) -> Option<MemoryPlan> {
        let Engine::Host(engine) = self else { return None };
        let executable = &engine.executable;
        Some(MemoryPlan {
            arena_bytes: executable.arena_bytes(),
            arena_lower_bound_bytes: engine.lower_bound,
            scratch_bytes: executable.scratch_bytes(),
            result_bytes: executable.result_bytes(),
            constant_bytes: executable.constant_bytes(),
            kernels: executable.kernel_count(),
        })
    }

    fn evaluate(
        &self,
        inputs: &[Tensor],
        options: &RunOptions,
        exchange: &dyn Exchange,
    ) -> Result<Vec<Tensor>, Error> {
        let cancelled = || options.is_over();
        let budget =
            Budget { cancelled: &cancelled, bytes: options.memory_limit.unwrap_or(usize::MAX) };
        let results = match self {
            Engine::Reference(graph) => evaluate::graph_as(graph, inputs, &budget, exchange),
            Engine::Kernels(module) => module::evaluate_as(module, inputs, &budget, exchange),
            Engine::Host(_) | Engine::Accelerator(_) | Engine::Ranks(_) => {
                unreachable!("machine code is not evaluated")
            }
        };
        results.map_err(|error| evaluation(error, options))
    }
}

impl Host {
    /// Runs with the options as the host takes them, where they leave enough memory.
    fn run<R>(
        &self,
        options: &RunOptions,
        exchange: &dyn Exchange,
        run: impl FnOnce(&systole_host::RunOptions<'_>) -> Result<R, HostError>,
    ) -> Result<R, Error> {
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        let pool = options.pool.as_deref();
        let threads =
            options.threads.unwrap_or_else(|| pool.map_or_else(all, |pool| pool.threads()));
        let scratch = self.executable.scratch_bytes().saturating_mul(threads);
        let own = self.executable.arena_bytes().saturating_add(self.executable.result_bytes());
        let needed = own.saturating_add(scratch);
        if let Some(limit) = options.memory_limit.filter(|limit| needed > *limit) {
            return Err(evaluation(EvaluateError::Memory { needed, limit }, options));
        }
        let cancelled = || options.is_over();
        let watched = options.cancel.is_some() || options.deadline.is_some();
        let run_options = systole_host::RunOptions {
            threads,
            pool,
            cancelled: watched.then_some(&cancelled as &(dyn Fn() -> bool + Sync)),
            deadline: None,
            exchange: Some(exchange),
        };
        run(&run_options).map_err(|error| host(error, &Limits::of(options), "run"))
    }
}

fn host(error: HostError, limits: &Limits, what: &str) -> Error {
    match error {
        HostError::Unsupported(what) => Error::unsupported(what),
        HostError::Input(what) => Error::new(ErrorKind::Input, Code::Input, what),
        HostError::Memory(bytes) => {
            let message = format!("the system has no memory for {bytes} bytes");
            Error::new(ErrorKind::DoesNotFit, Code::TooLarge, message)
        }
        HostError::Cancelled | HostError::Deadline => limits.over(what),
        HostError::Ranks(what) => Error::unsupported(what),
    }
}

fn evaluation(error: EvaluateError, options: &RunOptions) -> Error {
    match error {
        EvaluateError::Cancelled => options.over(),
        EvaluateError::Memory { needed, limit } => {
            Error::limit(format!("the run needs {needed} bytes at once; the limit is {limit}"))
        }
        EvaluateError::Unsupported(what) | EvaluateError::Ranks(what) => Error::unsupported(what),
        EvaluateError::Input(what) => Error::new(ErrorKind::Input, Code::Input, what),
    }
}
