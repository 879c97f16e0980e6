//! Polynomial functions keep their bounds over all of f32, and give the same in vectors and alone.

#[expect(dead_code, reason = "other test programs use the rest")]
mod common;

use systole_compiler::tensor::Tensor;
use systole_compiler::{pipeline, text};
use systole_host::{Options, RunOptions};

/// Numbers of every sign and size: each 2^12-th bit pattern or so, and the edges.
fn samples() -> Vec<f32> {
    let mut samples: Vec<f32> = (0..=u32::MAX).step_by(8191).map(f32::from_bits).collect();
    samples.extend((-2000..2000).map(|step| step as f32 / 20.0));
    samples.extend((-2000..2000).map(|step| step as f32 / 1000.0));
    samples.extend([
        0.0,
        -0.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        1e-45,
        -1e-45,
        f32::MAX,
        f32::MIN,
    ]);
    samples
}

/// The distance in units in the last place of what is expected.
fn units(expected: f32, found: f32) -> f64 {
    if expected == found || (expected.is_nan() && found.is_nan()) {
        return 0.0;
    }
    if !expected.is_finite() || !found.is_finite() {
        return f64::INFINITY;
    }
    let exponent = expected.abs().max(f32::MIN_POSITIVE).log2().floor() as i32;
    (f64::from(expected) - f64::from(found)).abs() / f64::powi(2.0, exponent - 23)
}

fn evaluate(name: &str, inputs: &[f32], cpu: &str) -> Vec<f32> {
    let count = inputs.len();
    let source =
        format!("func @main(%x: f32[{count}]) -> (y: f32[{count}]) {{ %y = {name} %x return %y }}");
    let graph = text::parse_graph(&source).expect("the source is right");
    let module = common::module(&graph, pipeline::DEFAULT, true, Some(cpu));
    let options = Options { cpu: Some(cpu.to_owned()), ..Options::default() };
    let executable = systole_host::compile(&module, &options).expect("it compiles");
    let input = Tensor::from_slice(&[count], inputs);
    let results = executable.run(&[input], &RunOptions::default()).expect("it runs");
    results[0].as_slice::<f32>().expect("it is f32").to_vec()
}

fn check(name: &str, reference: fn(f64) -> f64, bound: f64) {
    let inputs = samples();
    let cpus: Vec<&str> = ["sse", "neon", "avx2", "avx512"]
        .into_iter()
        .filter(|cpu| systole_host::machine(Some(cpu)).is_ok())
        .collect();
    for cpu in cpus {
        let found = evaluate(name, &inputs, cpu);
        let mut worst = (0.0, 0.0);
        for (&x, &y) in inputs.iter().zip(&found) {
            let error = units(reference(f64::from(x)) as f32, y);
            if error > worst.0 {
                worst = (error, x);
            }
        }
        assert!(worst.0 <= bound, "{name} on {cpu}: {} units at {:e}", worst.0, worst.1);
        // Three elements have no vector; they give the same bits.
        for three in inputs.chunks(3).step_by(5000) {
            let alone = evaluate(name, three, cpu);
            let start = inputs
                .iter()
                .position(|x| x.to_bits() == three[0].to_bits())
                .expect("it is one of them");
            for (x, y) in alone.iter().zip(&found[start..]) {
                assert_eq!(x.to_bits(), y.to_bits(), "{name} on {cpu} of {three:?}");
            }
        }
    }
}

#[test]
fn exp_is_within_two_units() {
    check("exp", libm::exp, 2.0);
}

#[test]
fn log_is_within_two_units() {
    check("log", libm::log, 2.0);
}

#[test]
fn tanh_is_within_four_units() {
    check("tanh", libm::tanh, 4.0);
}

#[test]
fn erf_is_within_four_units() {
    check("erf", libm::erf, 4.0);
}

#[test]
fn sigmoid_is_within_four_units() {
    // The table's own formula in f32: where e^−x overflows, the result is zero.
    check("sigmoid", |x| f64::from(1.0 / (1.0 + libm::expf(-x as f32))), 4.0);
}
