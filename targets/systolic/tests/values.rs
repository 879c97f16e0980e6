//! What the simulated machine computes is what kernels and modules mean, and every program passes the checker.

use std::path::{Path, PathBuf};
use systole_compiler::evaluate::{Budget, EvaluateError};
use systole_compiler::kernel::{self, Kernel};
use systole_compiler::module::{self, Lifetime, Module};
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::{Class, DType, TensorType};
use systole_compiler::{pipeline, text};
use systole_systolic::check;
use systole_systolic::limits::Limits;
use systole_systolic::lower::{self, Compiled, Options, Precision};
use systole_systolic::machine::Machine;
use systole_systolic::simulate;

fn random(ty: &TensorType, seed: &mut u64) -> Tensor {
    let mut next = || {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as i64
    };
    let count = ty.count();
    let values = match ty.dtype.class() {
        Class::Bool => Values::Bool((0..count).map(|_| next() % 2 == 1).collect()),
        Class::Signed => Values::Int((0..count).map(|_| next() % 4).collect()),
        Class::Unsigned => Values::Uint((0..count).map(|_| (next() % 4) as u64).collect()),
        Class::Float if ty.dtype == DType::F64 => Values::F64(vec![0.5; count]),
        Class::Float => {
            Values::F32((0..count).map(|_| (next() % 2000) as f32 / 1000.0 - 1.0).collect())
        }
    };
    Tensor::from_values(ty.dtype, &ty.shape, &values)
}

fn core() -> Machine {
    Machine::preset("trn2").expect("it is a preset")
}

fn checked(compiled: &Compiled, what: &str) {
    let limits = check::Limits::of(&core());
    if let Err(problems) = check::check(&compiled.program, &limits) {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        panic!("{what}: {}", lines.join("\n"));
    }
}

/// Runs a module on the machine and by its meaning; the largest difference, against the size of the values.
fn compare(module: &Module, options: &Options, tolerance: f64, what: &str) {
    let compiled = lower::compile(module, &Limits::of(&core()), options)
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    module::verify(&compiled.module).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    checked(&compiled, what);
    let mut seed = 7;
    let inputs: Vec<Tensor> =
        module.inputs.iter().map(|&id| random(&module.buffers[id].ty, &mut seed)).collect();
    let asked = std::cell::Cell::new(0);
    let cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 20_000
    };
    let budget = Budget { cancelled: &cancelled, bytes: 1 << 32 };
    let wanted = match module::evaluate(module, &inputs, &budget) {
        Ok(wanted) => wanted,
        // Random inputs let some loops run for ever.
        Err(EvaluateError::Cancelled) => return,
        Err(error) => panic!("{what}: {error:?}"),
    };
    let mut given = inputs;
    for &id in &compiled.constants {
        let Lifetime::Constant(value) = &compiled.module.buffers[id].lifetime else {
            panic!("{what}: a weight has no value");
        };
        given.push(value.clone());
    }
    let machine = Machine::preset("trn2").expect("it is a preset");
    let report = simulate::run(
        &compiled.program,
        &machine,
        simulate::Mode::Values,
        &given,
        simulate::Options::default(),
    )
    .unwrap_or_else(|error| panic!("{what}: {error}"));
    for ((name, id), (wanted, found)) in
        module.outputs.iter().zip(wanted.iter().zip(&report.outputs))
    {
        let shape = &module.buffers[*id].ty.shape;
        assert_eq!(found.count(), shape.iter().product::<usize>(), "{what}: {name}");
        let (wanted, found) = (wanted.values().to_f64(), found.values().to_f64());
        let size = wanted
            .iter()
            .filter(|value| value.is_finite())
            .fold(1.0, |most: f64, value| most.max(value.abs()));
        for (index, (wanted, found)) in wanted.iter().zip(&found).enumerate() {
            let same = wanted == found || (wanted.is_nan() && found.is_nan());
            assert!(
                same || (wanted - found).abs() <= tolerance * size,
                "{what}: {name}[{index}] is {found}, not {wanted}; fallbacks {:?}",
                compiled.fallbacks
            );
        }
    }
}

fn kernels_of(source: &str) -> Vec<Kernel> {
    let mut text = String::new();
    let mut inside = false;
    for line in source.lines() {
        inside |= line.starts_with("kernel @");
        if inside {
            text.push_str(line);
            text.push('\n');
        }
        inside &= line != "}";
    }
    kernel::parse_all(&text).unwrap_or_else(|error| panic!("{error:?}"))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(folder);
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .expect("the folder is part of the repository")
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tir"))
        .collect();
    found.sort();
    found
}

fn module_from(source: &str, what: &str) -> Module {
    let graph = text::parse_graph(source).unwrap_or_else(|error| panic!("{what}: {error:?}"));
    let machine = Limits::of(&core()).tiled();
    pipeline::compile(graph, &machine, pipeline::DEFAULT, &mut pipeline::Silent)
        .unwrap_or_else(|error| panic!("{what}: {error:?}"))
        .expect("nobody stops it")
}

#[test]
fn kernels_as_written_mean_the_same() {
    for path in files("tests/kernels") {
        let source = std::fs::read_to_string(&path).expect("the file can be read");
        for kernel in kernels_of(&source) {
            let what = format!("{} @{}", path.display(), kernel.name);
            let middle = kernel.scalars().into_iter().map(|(_, low, high)| (low + high) / 2);
            let module = Module::of_kernel(&kernel, &middle.collect::<Vec<i64>>());
            for fallback_only in [true, false] {
                let options = Options { fallback_only, ..Options::default() };
                compare(&module, &options, 1e-3, &what);
            }
        }
    }
}

#[test]
fn example_graphs_mean_the_same() {
    for path in files("examples/graphs") {
        let source = std::fs::read_to_string(&path).expect("the file can be read");
        let what = path.display().to_string();
        let module = module_from(&source, &what);
        compare(&module, &Options::default(), 1e-3, &what);
        let narrow = Options { precision: Precision::All(DType::BF16), ..Options::default() };
        compare(&module, &narrow, 5e-2, &what);
        let narrow = Options { precision: Precision::Products(DType::BF16), ..Options::default() };
        compare(&module, &narrow, 5e-2, &what);
    }
}

#[test]
fn every_operation_means_the_same() {
    for folder in ["tests/ops", "tests/regressions"] {
        for path in files(folder) {
            let source = std::fs::read_to_string(&path).expect("the file can be read");
            let what = path.display().to_string();
            let Ok(graph) = text::parse_graph(&source) else { continue };
            let machine = Limits::of(&core()).tiled();
            if source.contains("= parameter") {
                continue;
            }
            let compiled =
                pipeline::compile(graph, &machine, pipeline::DEFAULT, &mut pipeline::Silent);
            let Ok(Some(module)) = compiled else { continue };
            let options = Options::default();
            if lower::compile(&module, &Limits::of(&core()), &options).is_err() {
                continue;
            }
            compare(&module, &options, 1e-3, &what);
        }
    }
}
