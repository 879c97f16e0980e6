//! The bounds that `wide` states, over samples of all f32 and with every instruction set of this machine.

use super::Cpu;
use super::tests::{Random, cpus};
use super::wide::{Wide, function, layer_norm_function};

/// Floats of every exponent and sign, with the numbers that functions are asked about.
fn samples(step: usize) -> Vec<f32> {
    let special = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.625,
        88.72,
        88.73,
        89.0,
        -87.33,
        -103.9,
        -104.1,
        3.9,
        4.0,
        4.1,
        9.1,
        f32::MAX,
        f32::MIN,
        f32::MIN_POSITIVE,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        f32::from_bits(1),
    ];
    let all = (0..=u32::MAX).step_by(step).map(f32::from_bits);
    // Most of all floats are far from one; these are near.
    let near = (0..400_000).map(|i| (i as f32 - 200_000.0) / 2000.0);
    special.into_iter().chain(all).chain(near).collect()
}

/// The distance of a result from the exact value, in units in the last place of f32.
fn distance(found: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if found.is_nan() || exact.is_nan() {
        return if found.is_nan() && exact.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if nearest.is_infinite() || found.is_infinite() {
        return if found == nearest { 0.0 } else { f64::INFINITY };
    }
    let exponent = i32::try_from(nearest.abs().to_bits() >> 23).expect("eight bits").max(1) - 150;
    (f64::from(found) - exact).abs() / 2f64.powi(exponent)
}

fn run(cpu: Cpu, wide: Wide, source: &[f32]) -> Vec<f32> {
    let mut target = vec![0.0; source.len()];
    // SAFETY: the instruction set is this machine's, and both slices have as many elements.
    unsafe { function(cpu, wide)(target.as_mut_ptr(), source.as_ptr(), source.len()) };
    target
}

fn check(wide: Wide, bound: f64, exact: fn(f64) -> f64) {
    let source = samples(4111);
    for cpu in cpus() {
        let target = run(cpu, wide, &source);
        for (x, found) in source.iter().zip(&target) {
            let value = exact(f64::from(*x));
            let error = distance(*found, value);
            let vanishes =
                wide == Wide::Sigmoid && *found == 0.0 && value < f64::from(f32::MIN_POSITIVE);
            assert!(
                error <= bound || vanishes,
                "{cpu:?} {wide:?}({x:e}) is {found:e}, not {value:e}: {error} units"
            );
        }
    }
}

#[test]
fn exp_is_within_its_bound() {
    check(Wide::Exp, 2.0, libm::exp);
}

#[test]
fn tanh_is_within_its_bound() {
    check(Wide::Tanh, 4.0, libm::tanh);
}

#[test]
fn erf_is_within_its_bound() {
    check(Wide::Erf, 4.0, libm::erf);
}

#[test]
fn sigmoid_is_within_its_bound() {
    check(Wide::Sigmoid, 4.0, |x| 1.0 / (1.0 + libm::exp(-x)));
}

#[test]
fn gelu_is_within_its_bound() {
    let exact = |wide: Wide, x: f64| match wide {
        Wide::GeluTanh => {
            0.5 * x
                * (1.0
                    + libm::tanh((2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)))
        }
        Wide::Silu => x / (1.0 + libm::exp(-x)),
        Wide::Gelu | Wide::Exp | Wide::Tanh | Wide::Erf | Wide::Sigmoid | Wide::Softmax => {
            0.5 * x * (1.0 + libm::erf(x / core::f64::consts::SQRT_2))
        }
    };
    let source: Vec<f32> = samples(4111).into_iter().filter(|x| x.abs() < 80.0).collect();
    for cpu in cpus() {
        for wide in [Wide::Gelu, Wide::GeluTanh, Wide::Silu] {
            for (x, found) in source.iter().zip(run(cpu, wide, &source)) {
                let value = exact(wide, f64::from(*x));
                let error = (f64::from(found) - value).abs();
                let bound = 4e-7 * f64::from(x.abs().max(1.0));
                assert!(error <= bound, "{cpu:?} {wide:?}({x:e}) is {found:e}, not {value:e}");
            }
        }
    }
}

#[test]
fn an_element_has_one_result_wherever_it_lies() {
    let source: Vec<f32> = samples(400_009).into_iter().filter(|x| !x.is_nan()).collect();
    for cpu in cpus() {
        for wide in [
            Wide::Exp,
            Wide::Tanh,
            Wide::Erf,
            Wide::Sigmoid,
            Wide::Gelu,
            Wide::GeluTanh,
            Wide::Silu,
        ] {
            let together = run(cpu, wide, &source);
            for (x, expected) in source.iter().zip(together).take(3000) {
                let alone = run(cpu, wide, &[*x])[0];
                assert_eq!(alone.to_bits(), expected.to_bits(), "{cpu:?} {wide:?}({x:e})");
            }
        }
    }
}

#[test]
fn rows_are_normalised() {
    let mut random = Random(7);
    for cpu in cpus() {
        for count in (1..70).chain([768, 1000]) {
            let source: Vec<f32> = (0..count).map(|_| 20.0 * random.value()).collect();
            let target = run(cpu, Wide::Softmax, &source);
            let top = source.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let powers: Vec<f64> =
                source.iter().map(|x| libm::exp(f64::from(*x) - f64::from(top))).collect();
            let sum: f64 = powers.iter().sum();
            for (found, power) in target.iter().zip(&powers) {
                assert!(
                    (f64::from(*found) - power / sum).abs() <= 1e-6 / sum,
                    "{cpu:?} softmax of {count}"
                );
            }
            let scale: Vec<f32> = (0..count).map(|_| random.value()).collect();
            let shift: Vec<f32> = (0..count).map(|_| random.value()).collect();
            let mean: f64 = source.iter().map(|x| f64::from(*x)).sum::<f64>() / count as f64;
            let variance: f64 =
                source.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count as f64;
            let mut normal = source.clone();
            // SAFETY: every row has `count` elements; target and source are the same run.
            unsafe {
                let row = normal.as_mut_ptr();
                layer_norm_function(cpu)(row, row, count, scale.as_ptr(), shift.as_ptr(), 1e-5);
            }
            for i in 0..count {
                let value =
                    (f64::from(source[i]) - mean) / (variance + 1e-5).sqrt() * f64::from(scale[i]);
                let value = value + f64::from(shift[i]);
                assert!(
                    (f64::from(normal[i]) - value).abs() <= 1e-4,
                    "{cpu:?} layer norm of {count} at {i}"
                );
            }
        }
        for bad in [vec![1.0, f32::NAN, 2.0], vec![f32::NEG_INFINITY; 5]] {
            assert!(
                run(cpu, Wide::Softmax, &bad).iter().all(|x| x.is_nan()),
                "{cpu:?} softmax of {bad:?}"
            );
        }
    }
}
