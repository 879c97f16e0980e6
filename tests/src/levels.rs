//! A program of any level behind one face: parse, verify, print, signature.

use crate::case::Level;
use systole_compiler::arena::Id;
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::graph::Graph;
use systole_compiler::kernel::{Kernel, Operand, Role, VarKind};
use systole_compiler::module::Module;
use systole_compiler::types::TensorType;

/// A program of some level.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// Tensors.
    Graph(Graph),
    /// Loops and tiles.
    Kernel(Kernel),
    /// Steps over buffers.
    Module(Module),
}

/// What goes in and comes out, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signature {
    /// Parameters.
    pub inputs: Vec<(String, TensorType)>,
    /// Scalar parameters of a kernel, with their ranges.
    pub scalars: Vec<(String, i64, i64)>,
    /// Results.
    pub outputs: Vec<(String, TensorType)>,
}

impl Program {
    /// The program in a text of that level.
    pub fn parse(level: Level, source: &str) -> Result<Program, Diagnostics> {
        match level {
            Level::Graph => systole_compiler::text::parse_graph(source).map(Program::Graph),
            Level::Kernel => systole_compiler::kernel::parse(source).map(Program::Kernel),
            Level::Module => systole_compiler::module::parse(source).map(Program::Module),
        }
    }

    /// Every broken rule.
    pub fn verify(&self) -> Result<(), Diagnostics> {
        match self {
            Program::Graph(graph) => systole_compiler::verify::graph(graph),
            Program::Kernel(kernel) => systole_compiler::kernel::verify(kernel),
            Program::Module(module) => systole_compiler::module::verify(module),
        }
    }

    /// The canonical text, big constants elided.
    pub fn print(&self) -> String {
        match self {
            Program::Graph(graph) => graph.to_string(),
            Program::Kernel(kernel) => kernel.to_string(),
            Program::Module(module) => module.to_string(),
        }
    }

    /// The text that parses back to the same.
    pub fn print_full(&self) -> String {
        match self {
            Program::Graph(graph) => systole_compiler::text::print_full(graph),
            Program::Kernel(kernel) => kernel.to_string(),
            Program::Module(module) => systole_compiler::module::print_full(module),
        }
    }

    /// The level.
    pub fn level(&self) -> Level {
        match self {
            Program::Graph(_) => Level::Graph,
            Program::Kernel(_) => Level::Kernel,
            Program::Module(_) => Level::Module,
        }
    }

    /// Names and types of what goes in and comes out. An operand that a kernel updates is both.
    pub fn signature(&self) -> Signature {
        match self {
            Program::Graph(graph) => graph_signature(graph),
            Program::Kernel(kernel) => kernel_signature(kernel),
            Program::Module(module) => module_signature(module),
        }
    }
}

fn graph_signature(graph: &Graph) -> Signature {
    let function = graph.entry();
    let inputs = function.body.params.iter().enumerate().map(|(position, &value)| {
        let value = &function.values[value];
        (value.name.clone().unwrap_or_else(|| position.to_string()), value.ty.clone())
    });
    let outputs = function
        .result_names
        .iter()
        .zip(&function.body.results)
        .map(|(name, &value)| (name.clone(), function.ty(value).clone()));
    Signature { inputs: inputs.collect(), scalars: Vec::new(), outputs: outputs.collect() }
}

fn kernel_signature(kernel: &Kernel) -> Signature {
    let of = |ids: Vec<Id<Operand>>| {
        ids.into_iter()
            .map(|id| (kernel.operands[id].name.clone(), kernel.operands[id].ty()))
            .collect()
    };
    let scalars = kernel.vars.iter().filter_map(|(_, var)| match var.kind {
        VarKind::Scalar(low, high) => Some((var.name.clone(), low, high)),
        VarKind::Loop => None,
    });
    Signature {
        inputs: of(kernel.operands_that(Role::reads)),
        scalars: scalars.collect(),
        outputs: of(kernel.operands_that(Role::writes)),
    }
}

fn module_signature(module: &Module) -> Signature {
    let inputs = module.inputs.iter().map(|&buffer| {
        let buffer = &module.buffers[buffer];
        (buffer.name.clone(), buffer.ty.clone())
    });
    let outputs = module
        .outputs
        .iter()
        .map(|(name, buffer)| (name.clone(), module.buffers[*buffer].ty.clone()));
    Signature { inputs: inputs.collect(), scalars: Vec::new(), outputs: outputs.collect() }
}
