//! What must hold for any input at all. `fuzz/` runs these functions without end, `cargo test` for about a second each.

use crate::engine::Engine;
use crate::execute::{self, Failure};
use crate::levels::Program;
use crate::{tolerance, values};
use arbitrary::Unstructured;
use std::collections::BTreeMap;
use systole_compiler::generate::{self, Options};
use systole_compiler::import::{Bindings, Dim, onnx};
use systole_compiler::op::Kind;
use systole_compiler::tensor::Tensor;
use systole_compiler::text;
use systole_compiler::types::TensorType;
use systole_compiler::verify;

/// Any text is a program or has mistakes that can be shown.
pub fn any_text(data: &[u8]) {
    let source = String::from_utf8_lossy(data);
    match text::parse_graph(&source) {
        Err(problems) => {
            assert!(problems.has_errors());
            text::render(&problems, "fuzz.tir", Some(&source));
        }
        Ok(graph) => {
            let printed = text::print_full(&graph);
            let read = text::parse_graph(&printed)
                .unwrap_or_else(|problems| panic!("{problems}\n{printed}"));
            assert!(text::same(&graph, &read), "{printed}");
            if let Err(problems) = verify::graph(&graph) {
                text::render(&problems, "fuzz.tir", Some(&source));
            }
        }
    }
}

/// Any bytes are an ONNX model or not; a model whose sizes are all 1 gives a graph that verifies, or says why not.
pub fn any_onnx(data: &[u8]) {
    let no_files = |name: &str| Err(format!("no file {name}"));
    let Ok(source) = onnx::Source::parse(data.to_vec().into(), &no_files) else { return };
    let mut bindings = Bindings::default();
    for port in &source.signature().inputs {
        for (axis, dim) in port.dims.iter().flatten().enumerate() {
            let name = match dim {
                Dim::Fixed(_) => continue,
                Dim::Symbol(name) => name.clone(),
                Dim::Unknown => format!("{}.{axis}", port.name),
            };
            bindings.dims.insert(name, 1);
        }
    }
    if let Ok(graph) = source.bind(&bindings) {
        verify::graph(&graph).unwrap_or_else(|problems| panic!("{problems}\n{graph}"));
    }
}

/// A random graph verifies, prints and parses, and gives the same values on every engine, where the target can compute it.
pub fn random_graph(data: &[u8]) {
    agreement(data).unwrap_or_else(|message| panic!("{message}"));
}

/// `Err` with what is wrong and the graph, where engines differ, fail or panic on the random graph that `data` makes.
pub fn agreement(data: &[u8]) -> Result<(), String> {
    let wanted = Options {
        nodes: 6,
        depth: 1,
        // Several ranks need a runtime; the other engines have one. A norm of equal elements divides rounding errors by
        // each other, so that no tolerance fits.
        accept: &|op, _| op.kind() != Kind::Collective && op.name() != "layer-norm",
    };
    let Ok(graph) = generate::graph(&mut Unstructured::new(data), &wanted) else { return Ok(()) };
    let program = Program::Graph(graph);
    let text = program.print_full();
    program.verify().map_err(|problems| format!("{problems}\n{text}"))?;
    let inputs: Vec<Tensor> = (1..).zip(&program.signature().inputs).map(input).collect();
    let run = |engine| {
        let run = || execute::run(engine, &program, &inputs, &[]);
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(Ok(values)) => Ok(Some(values)),
            Ok(Err(Failure::Unsupported(_))) => Ok(None),
            Ok(Err(error)) => Err(format!("{}: {error}\n{text}", engine.name())),
            Err(_) => Err(format!("{} panics\n{text}", engine.name())),
        }
    };
    let Some(expected) = run(Engine::Reference)? else { return Ok(()) };
    for engine in Engine::ALL {
        let Some(actual) = run(engine)? else { continue };
        for ((actual, expected), (name, _)) in
            actual.iter().zip(&expected).zip(&program.signature().outputs)
        {
            let tolerance = tolerance::of(engine, expected.dtype());
            tolerance::compare(actual, expected, tolerance)
                .map_err(|difference| format!("{}: {name}: {difference}\n{text}", engine.name()))?;
        }
    }
    Ok(())
}

fn input((seed, (_, ty)): (u64, &(String, TensorType))) -> Tensor {
    values::random(ty, seed, if ty.dtype.is_float() { (-2.0, 2.0) } else { (0.0, 8.0) })
}

/// Bytes that look random, the same at every run.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// A function that takes any bytes, and panics only where something is wrong with us.
pub type Target = fn(&[u8]);

/// Every function with its name, as `fuzz/` has them.
pub const TARGETS: &[(&str, Target)] =
    &[("any_text", any_text), ("any_onnx", any_onnx), ("random_graph", random_graph)];

/// Inputs to start from, by target: texts and models of this repository.
pub fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let root = crate::workspace();
    let (folder, extension) = match target {
        "any_text" => (root.join("examples/graphs"), "tir"),
        "any_onnx" => (root.join("examples/digits"), "onnx"),
        _ => return BTreeMap::new(),
    };
    let Ok(files) = std::fs::read_dir(folder) else { return BTreeMap::new() };
    files
        .flatten()
        .filter(|file| file.path().extension().is_some_and(|found| found == extension))
        .filter_map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            std::fs::read(file.path()).ok().map(|data| (name, data))
        })
        .collect()
}
