//! What the tests share: graphs through the compiler, with and without tiling, on the host and on the reference.

use systole_compiler::evaluate::{self, Budget};
use systole_compiler::graph::Graph;
use systole_compiler::module::Module;
use systole_compiler::pipeline::{self, Go, Level, Observer};
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::TensorType;
use systole_compiler::{diagnostic::Diagnostics, pass::Changed, pass::Declined};
use systole_host::{Options, RunOptions};

/// Leaves out the passes that give kernels loops, so that the target meets them whole.
struct Untiled;

impl Observer for Untiled {
    fn before(&mut self, _level: &'static str, pass: &'static str) -> Go {
        if ["tile", "place", "layout"].contains(&pass) { Go::Skip } else { Go::Run }
    }

    fn after(
        &mut self,
        _pass: &'static str,
        _changed: Changed,
        _level: Level<'_>,
        _declined: &[Declined],
    ) -> Result<(), Diagnostics> {
        Ok(())
    }
}

/// Numbers between −2 and 2 (of integers, small ones), told by a seed.
pub(crate) fn random(ty: &TensorType, seed: u64) -> Tensor {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let values: Vec<f64> = (0..ty.count())
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % 2001) as f64 / 500.0 - 2.0
        })
        .collect();
    Tensor::from_values(ty.dtype, &ty.shape, &Values::F64(values))
}

/// The module of a graph.
pub(crate) fn module(graph: &Graph, passes: &[&str], tiled: bool, cpu: Option<&str>) -> Module {
    let machine = systole_host::machine(cpu).expect("this machine is known");
    let compiled = if tiled {
        pipeline::compile(graph.clone(), &machine, passes, &mut pipeline::Silent)
    } else {
        pipeline::compile(graph.clone(), &machine, passes, &mut Untiled)
    };
    compiled.unwrap_or_else(|error| panic!("{error}\n{graph}")).expect("nothing stops it")
}

/// Compares results; NaN equals NaN.
pub(crate) fn compare(expected: &[Tensor], found: &[Tensor], tolerance: f64, what: &str) {
    assert_eq!(expected.len(), found.len());
    for (result, (expected, found)) in expected.iter().zip(found).enumerate() {
        assert_eq!(expected.ty(), found.ty(), "{what}");
        let pairs = expected.values().to_f64().into_iter().zip(found.values().to_f64());
        for (index, (x, y)) in pairs.enumerate() {
            let near = x == y || (x - y).abs() <= tolerance + tolerance * x.abs();
            assert!(
                near || (x.is_nan() && y.is_nan()),
                "result {result}, element {index}: {x} is {y}\n{what}"
            );
        }
    }
}

/// How far results of a type may be from the reference.
pub(crate) fn tolerance(tensors: &[Tensor]) -> f64 {
    use systole_compiler::types::DType;
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are exact, or nearly")]
    let coarsest = |tensor: &Tensor| match tensor.dtype() {
        DType::F8E4M3 => 0.13,
        DType::F8E5M2 => 0.26,
        DType::F4E2M1 => 0.6,
        DType::BF16 => 0.02,
        DType::F16 => 2e-3,
        DType::F32 => 2e-5,
        _ => 0.0,
    };
    tensors.iter().map(coarsest).fold(0.0, f64::max)
}

/// Runs a graph on the host in several ways and compares each with the reference.
pub(crate) fn check_graph(graph: &Graph, cpus: &[Option<&str>]) {
    let function = graph.entry();
    let inputs: Vec<Tensor> = function
        .body
        .params
        .iter()
        .enumerate()
        .map(|(index, &param)| random(function.ty(param), index as u64))
        .collect();
    let expected = evaluate::graph(graph, &inputs, &Budget::UNLIMITED)
        .unwrap_or_else(|error| panic!("{error:?}\n{graph}"));
    for &cpu in cpus {
        for (passes, tiled) in
            [(pipeline::NONE, false), (pipeline::DEFAULT, false), (pipeline::DEFAULT, true)]
        {
            let module = module(graph, passes, tiled, cpu);
            let kernels: String =
                module.kernels.iter().map(|(_, kernel)| format!("{kernel}\n")).collect();
            let what = format!("cpu {cpu:?}, tiled {tiled}\n{graph}\n{kernels}");
            let options = Options { cpu: cpu.map(str::to_owned), ..Options::default() };
            let executable = systole_host::compile(&module, &options)
                .unwrap_or_else(|error| panic!("{error}\n{what}"));
            for threads in [1, 3] {
                let options = RunOptions { threads, ..RunOptions::default() };
                let found = executable
                    .run(&inputs, &options)
                    .unwrap_or_else(|error| panic!("{error}\n{what}"));
                compare(&expected, &found, tolerance(&expected).max(tolerance(&inputs)), &what);
            }
        }
    }
}
