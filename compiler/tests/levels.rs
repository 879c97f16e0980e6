//! Every level of a compiled graph keeps its rules, prints text that parses back to itself, and has the graph's values.

use arbitrary::Unstructured;
use std::fs;
use std::path::{Path, PathBuf};
use systole_compiler::diagnostic::{Code, Diagnostics};
use systole_compiler::evaluate::{self, Budget};
use systole_compiler::generate::{self, Options};
use systole_compiler::graph::Graph;
use systole_compiler::kernel;
use systole_compiler::machine::{ContractTile, Machine};
use systole_compiler::module::{self, Module};
use systole_compiler::op::{Kind, Op};
use systole_compiler::pass::{Changed, Declined};
use systole_compiler::pipeline::{self, Go, Level, Observer};
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::text;
use systole_compiler::types::{Class, TensorType};

/// Small tiles, so that small graphs have loops.
fn machine() -> Machine {
    Machine {
        name: "small".to_owned(),
        near_rows: 1,
        near_bytes: 1 << 12,
        vector_elements: 4,
        contract: ContractTile { m: (4, 8), n: (8, 16), k: (1, 16) },
        // Attention adds up in another order; `attention.rs` has it, with tiles of every size.
        attention: None,
        map_elements: 16,
        reduce_elements: 16,
        schedules: false,
        widens: Vec::new(),
        bytes_together: 0,
        weights: None,
        native: Vec::new(),
    }
}

/// Checks each level as it comes.
struct Checker<'a> {
    inputs: &'a [Tensor],
    wanted: &'a [Tensor],
    failures: Vec<String>,
}

impl Observer for Checker<'_> {
    fn before(&mut self, _level: &'static str, _pass: &'static str) -> Go {
        Go::Run
    }

    fn after(
        &mut self,
        pass: &'static str,
        changed: Changed,
        level: Level<'_>,
        _declined: &[Declined],
    ) -> Result<(), Diagnostics> {
        match level {
            Level::Kernels(module) | Level::Module(module) if changed == Changed::Yes => {
                if let Err(failure) = check(module, self.inputs, self.wanted) {
                    self.failures.push(format!("after {pass}: {failure}"));
                }
            }
            Level::Graph(_) | Level::Kernels(_) | Level::Module(_) => {}
        }
        Ok(())
    }
}

fn check(module: &Module, inputs: &[Tensor], wanted: &[Tensor]) -> Result<(), String> {
    for (_, kernel) in module.kernels.iter() {
        kernel::verify(kernel).map_err(|found| format!("{found}\n{kernel}"))?;
        let text = kernel.to_string();
        let again = kernel::parse(&text).map_err(|found| rendered(&found, &text))?;
        if again.to_string() != text {
            return Err(format!("printed again it differs:\n{text}\n{again}"));
        }
    }
    module::verify(module).map_err(|found| format!("{found}\n{module}"))?;
    let text = module::print_full(module);
    let again = module::parse(&text).map_err(|found| rendered(&found, &text))?;
    let twice = module::print_full(&again);
    if twice != text {
        return Err(format!("printed again it differs:\n{text}\n{twice}"));
    }
    for module in [module, &again] {
        let found = module::evaluate(module, inputs, &Budget::UNLIMITED)
            .map_err(|error| format!("{error}\n{module}"))?;
        for (found, wanted) in found.iter().zip(wanted) {
            if !close(found, wanted) {
                let (found, wanted) = (found.values().to_f64(), wanted.values().to_f64());
                return Err(format!("{found:?} is not {wanted:?}\n{module}"));
            }
        }
    }
    Ok(())
}

fn rendered(found: &Diagnostics, source: &str) -> String {
    text::render(found, "printed.tir", Some(source))
}

fn close(found: &Tensor, wanted: &Tensor) -> bool {
    let tolerance = match wanted.dtype().class() {
        Class::Float if wanted.dtype().bits() >= 32 => 1e-5,
        Class::Float => 2e-2,
        Class::Bool | Class::Signed | Class::Unsigned => 0.0,
    };
    found.ty() == wanted.ty()
        && found.values().to_f64().iter().zip(wanted.values().to_f64()).all(|(&found, wanted)| {
            found == wanted
                || (found.is_nan() && wanted.is_nan())
                || (found - wanted).abs() <= tolerance * (1.0 + wanted.abs())
        })
}

/// Small numbers, none of them repeating soon.
fn input(ty: &TensorType, seed: usize) -> Tensor {
    let number = |index: usize| ((index * 37 + seed * 11) % 29) as i64 - 14;
    let values = match ty.dtype.class() {
        Class::Float => {
            Values::F64((0..ty.count()).map(|index| number(index) as f64 / 8.0).collect())
        }
        Class::Bool => Values::Bool((0..ty.count()).map(|index| number(index) > 0).collect()),
        Class::Signed => Values::Int((0..ty.count()).map(|index| number(index) % 8).collect()),
        Class::Unsigned => {
            Values::Uint((0..ty.count()).map(|index| number(index).unsigned_abs() % 8).collect())
        }
    };
    Tensor::from_values(ty.dtype, &ty.shape, &values)
}

fn check_graph(graph: Graph) -> Result<(), String> {
    let function = graph.entry();
    let params = function.body.params.iter().enumerate();
    let inputs: Vec<Tensor> =
        params.map(|(seed, &param)| input(&function.values[param].ty, seed)).collect();
    let Ok(wanted) = evaluate::graph(&graph, &inputs, &Budget::UNLIMITED) else { return Ok(()) };
    for passes in [pipeline::DEFAULT, pipeline::NONE] {
        let mut checker = Checker { inputs: &inputs, wanted: &wanted, failures: Vec::new() };
        let compiled = pipeline::compile(graph.clone(), &machine(), passes, &mut checker);
        match compiled {
            Ok(_) => {}
            Err(found) if found.0.iter().all(|found| found.code == Code::Unsupported) => {}
            Err(found) => return Err(format!("{found}")),
        }
        if let Some(failure) = checker.failures.first() {
            return Err(failure.clone());
        }
    }
    Ok(())
}

/// Bytes that look random, the same ones for a seed.
fn bytes(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..4096).map(|_| next()).collect()
}

fn check_random(options: &Options<'_>, seeds: std::ops::Range<u64>) {
    let mut failures = Vec::new();
    for seed in seeds {
        let bytes = bytes(seed);
        let Ok(graph) = generate::graph(&mut Unstructured::new(&bytes), options) else { continue };
        if let Err(failure) = check_graph(graph.clone()) {
            failures.push(format!("seed {seed}: {failure}\n{graph}"));
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n\n"));
}

/// Graphs of what becomes kernels.
const COMPILED: Options<'static> = Options {
    accept: &|op, _| op.kind() != Kind::Collective && !matches!(op, Op::Random(_)),
    ..Options::ALL
};

#[test]
fn random_single_ops_keep_rules_text_and_values() {
    check_random(&Options { nodes: 1, depth: 0, ..COMPILED }, 0..200);
}

#[test]
fn random_graphs_keep_rules_text_and_values() {
    check_random(&Options { nodes: 4, ..COMPILED }, 1000..1060);
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "tir") {
            found.push(entry);
        }
    }
}

#[test]
fn every_level_keeps_rules_text_and_values() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    for folder in ["tests/ops", "tests/programs", "tests/regressions", "examples/graphs"] {
        files(&root.join(folder), &mut found);
    }
    let mut failures = Vec::new();
    let mut checked = 0;
    for file in found {
        let source = fs::read_to_string(&file).expect("the file was listed");
        let Ok(graph) = text::parse_graph(&source) else { continue };
        if systole_compiler::verify::graph(&graph).is_err() {
            continue;
        }
        checked += 1;
        if let Err(failure) = check_graph(graph) {
            failures.push(format!("{}: {failure}", file.display()));
        }
    }
    assert!(checked >= 4, "only {checked} graphs were found");
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n\n"));
}
