//! Random graphs from the samplers of the ops: they verify, print and parse back, and all engines agree on their values.

use crate::engine::Engine;
use crate::levels::Program;
use crate::suite::panic_text;
use crate::{execute, tolerance, values};
use arbitrary::Unstructured;
use std::panic::{AssertUnwindSafe, catch_unwind};
use systole_compiler::generate::{self, Options};
use systole_compiler::op::{Kind, Op};
use systole_compiler::text;
use systole_compiler::types::TensorType;

/// Collectives are for ranks, and weights without data have no values.
fn accept(op: &Op, _types: &[TensorType]) -> bool {
    op.kind() != Kind::Collective && !matches!(op, Op::Parameter(_))
}

/// A random graph of at most `nodes` ops a block, with blocks `depth` deep.
pub fn graph(u: &mut Unstructured<'_>, nodes: usize, depth: usize) -> arbitrary::Result<Program> {
    generate::graph(u, &Options { nodes, depth, accept: &accept }).map(Program::Graph)
}

/// Everything that must hold of a graph. `Err` says what does not, and then has the text; panics are caught for that.
pub fn check(program: &Program, engines: &[Engine]) -> Result<(), String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| agree(program, engines)));
    let outcome =
        outcome.unwrap_or_else(|payload| Err(format!("panic: {}", panic_text(&*payload))));
    outcome.map_err(|error| format!("{error}\n{}", program.print_full()))
}

fn agree(program: &Program, engines: &[Engine]) -> Result<(), String> {
    let source = program.print_full();
    if let Program::Graph(graph) = program {
        let again = text::parse_graph(&source).map_err(|error| error.to_string())?;
        if !text::same(graph, &again) {
            return Err("parsed, it is another graph".into());
        }
    }
    program.verify().map_err(|error| error.to_string())?;
    let signature = program.signature();
    let inputs: Vec<_> = signature
        .inputs
        .iter()
        .enumerate()
        .map(|(seed, (_, ty))| values::read(&format!("random:{seed}"), ty))
        .collect::<Result<_, _>>()?;
    let expected = execute::run(Engine::Reference, program, &inputs, &[])?;
    for &engine in engines {
        let wrong = |error: String| format!("{}: {error}", engine.name());
        let actual =
            execute::run(engine, program, &inputs, &[]).map_err(|error| wrong(error.into()))?;
        for ((name, ty), (actual, expected)) in
            signature.outputs.iter().zip(actual.iter().zip(&expected))
        {
            tolerance::compare(actual, expected, tolerance::of(engine, ty.dtype))
                .map_err(|error| wrong(format!("{name}: {error}")))?;
        }
    }
    Ok(())
}
