//! A graph made ready to run on a target.

use crate::compiler::Compiler;
use crate::error::Error;
use crate::options::RunOptions;
use crate::target::{Kind, Listing, Target};
use systole_compiler::evaluate::{self, Budget, EvaluateError};
use systole_compiler::graph::Graph;
use systole_compiler::machine::Machine;
use systole_compiler::module::Module;
use systole_compiler::tensor::Tensor;

/// What runs.
#[derive(Debug)]
pub(crate) enum Engine {
    Reference(Graph),
}

/// Whether the target can be compiled for at all, before any work is done.
pub(crate) fn check_available(target: &Target) -> Result<(), Error> {
    match &target.kind {
        Kind::Reference => Ok(()),
        Kind::Host { .. } | Kind::Kernels => Err(Error::unsupported("not yet")),
        Kind::Systolic(name) => Err(Error::unsupported(format!(
            "cannot compile for {name}: the accelerator target is not in this version"
        ))
        .with_help("the targets of this version are `host`, `reference` and `kernels`")),
    }
}

/// The machine that the passes compile for.
pub(crate) fn machine(_target: &Target) -> Result<Machine, Error> {
    Err(Error::unsupported("not yet"))
}

/// What a module becomes, as text.
pub(crate) fn listing(
    _target: &Target,
    _module: &Module,
    _listing: Listing,
) -> Result<String, Error> {
    Err(Error::unsupported("not yet"))
}

impl Engine {
    /// Compiles a graph.
    pub(crate) fn new(graph: Graph, compiler: &Compiler) -> Result<Engine, Error> {
        match &compiler.target.kind {
            Kind::Reference => Ok(Engine::Reference(graph)),
            Kind::Host { .. } | Kind::Kernels | Kind::Systolic(_) => {
                Err(Error::unsupported("not yet"))
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
        match self {
            Engine::Reference(graph) => {
                evaluate::graph(graph, inputs, &budget).map_err(|error| evaluation(error, options))
            }
        }
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
