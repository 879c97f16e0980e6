//! A graph made ready to run on a target.

use crate::compiler::{Compiler, SharedObserver};
use crate::error::Error;
use crate::options::RunOptions;
use crate::target::{Kind, Listing, Target};
use std::sync::PoisonError;
use systole_compiler::evaluate::{self, Budget, EvaluateError};
use systole_compiler::graph::Graph;
use systole_compiler::machine::{ContractTile, Machine};
use systole_compiler::module::{self, Module};
use systole_compiler::pipeline;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::tensor::Tensor;

/// What runs.
#[derive(Debug)]
pub(crate) enum Engine {
    Reference(Graph),
    Kernels(Module),
}

/// Whether the target can be compiled for at all, before any work is done.
pub(crate) fn check_available(target: &Target) -> Result<(), Error> {
    match &target.kind {
        Kind::Reference | Kind::Kernels => Ok(()),
        Kind::Host { .. } => Err(Error::unsupported("the host target is not in this version yet")),
        Kind::Systolic(name) => Err(Error::unsupported(format!(
            "cannot compile for {name}: the accelerator target is not in this version"
        ))
        .with_help("the targets of this version are `host`, `reference` and `kernels`")),
    }
}

/// The machine that the passes compile for.
pub(crate) fn machine(target: &Target) -> Result<Machine, Error> {
    check_available(target)?;
    Ok(Machine {
        name: "plain".to_owned(),
        near_rows: 1,
        near_bytes: 256 << 10,
        vector_elements: 4,
        contract: ContractTile { m: (6, 96), n: (16, 512), k: (1, 256) },
        map_elements: 4096,
        native: ScalarFn::CATALOG.iter().map(|(function, _)| *function).collect(),
    })
}

/// What a module becomes, as text.
pub(crate) fn listing(
    target: &Target,
    _module: &Module,
    _listing: Listing,
) -> Result<String, Error> {
    check_available(target)?;
    Err(Error::unsupported(format!("the target {target} generates no code")))
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
            Kind::Kernels | Kind::Host { .. } | Kind::Systolic(_) => {
                Ok(Engine::Kernels(lowered(graph, compiler)?))
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
        };
        results.map_err(|error| evaluation(error, options))
    }
}

fn evaluation(error: EvaluateError, options: &RunOptions) -> Error {
    match error {
        EvaluateError::Cancelled => options.over(),
        EvaluateError::Memory { needed, limit } => {
            Error::limit(format!("the run needs {needed} bytes at once; the limit is {limit}"))
        }
        EvaluateError::Unsupported(what) => Error::unsupported(what),
        EvaluateError::Input(what) => {
            Error::input(vec![systole_compiler::diagnostic::Diagnostic::error(
                systole_compiler::diagnostic::Code::Input,
                what,
            )])
        }
    }
}
