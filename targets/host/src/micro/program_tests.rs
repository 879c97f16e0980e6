//! Programs against plain loops in f64, with every instruction set of this machine that has wide vectors.

use super::Cpu;
use super::program::{
    ADDRESS_BYTES, End, Join, One, Program, SCRATCH_BYTES, Source, Step, Target, Two, run,
};
use super::tests::{Random, cpus};

/// Runs a program on slices, of which the first is the target.
fn execute(program: &Program, target: &mut [f32], sources: &[&[f32]]) {
    let mut accesses = vec![target.as_mut_ptr()];
    accesses.extend(sources.iter().map(|source| source.as_ptr().cast_mut()));
    let mut scratch = vec![f32::NAN; (SCRATCH_BYTES + ADDRESS_BYTES) / 4];
    // SAFETY: the accesses' rows lie inside the slices, and scratch is as large as it must be.
    unsafe { run(program, accesses.as_ptr(), scratch.as_mut_ptr()) };
}

fn wide_cpus() -> impl Iterator<Item = Cpu> {
    cpus().into_iter().filter(|cpu| matches!(cpu, Cpu::Avx2 | Cpu::Avx512))
}

const LENGTHS: [usize; 9] = [1, 3, 15, 16, 17, 511, 512, 513, 1100];

#[test]
fn a_chain_over_rows_is_what_its_functions_give() {
    let mut random = Random(7);
    for cpu in wide_cpus() {
        for columns in LENGTHS {
            let rows = 3;
            let x: Vec<f32> = (0..rows * columns).map(|_| random.value() * 4.0).collect();
            let bias: Vec<f32> = (0..columns).map(|_| random.value()).collect();
            let scale: Vec<f32> = (0..rows).map(|_| random.value() + 2.5).collect();
            // gelu(x + bias) / scale, where rows share a bias and elements of a row a scale.
            let (a, b) = (Target::Register(0), Target::Register(1));
            let (ra, rb) = (Source::Register(0), Source::Register(1));
            let program = Program {
                rows,
                columns,
                row_strides: vec![columns as isize * 4, columns as isize * 4, 0, 4],
                row_steps: Vec::new(),
                steps: vec![
                    Step::Two(Two::Add, Source::Memory(1), Source::Memory(2), a),
                    Step::Two(Two::Mul, ra, Source::Constant(0.5), b),
                    Step::Two(Two::Mul, ra, Source::Constant(std::f32::consts::FRAC_1_SQRT_2), a),
                    Step::One(One::Erf, ra, a),
                    Step::Two(Two::Add, Source::Constant(1.0), ra, a),
                    Step::Two(Two::Mul, ra, rb, a),
                    Step::Two(Two::Div, ra, Source::Row(3), Target::Memory),
                ],
                end: End::Store,
                cpu,
            };
            let mut target = vec![f32::NAN; rows * columns];
            execute(&program, &mut target, &[&x, &bias, &scale]);
            for (index, found) in target.iter().enumerate() {
                let (row, column) = (index / columns, index % columns);
                let y = f64::from(x[index] + bias[column]);
                let gelu = 0.5 * y * (1.0 + libm::erf(y / std::f64::consts::SQRT_2));
                let exact = gelu / f64::from(scale[row]);
                let error = (f64::from(*found) - exact).abs();
                assert!(error < 1e-6 * y.abs().max(1.0), "{cpu:?} {columns}: {found} {exact}");
            }
        }
    }
}

#[test]
fn rows_are_joined_from_a_start_and_nan_stays() {
    let mut random = Random(11);
    for cpu in wide_cpus() {
        for columns in LENGTHS {
            let rows = 4;
            let mut x: Vec<f32> = (0..rows * columns).map(|_| random.value()).collect();
            x[2 * columns + columns / 2] = f32::NAN;
            x[3 * columns] = f32::NEG_INFINITY;
            let start = [0.25, 1.5, 0.0, -0.5];
            for join in [Join::Sum, Join::Max, Join::Min] {
                let program = Program {
                    rows,
                    columns,
                    row_strides: vec![4, columns as isize * 4, 4],
                    row_steps: Vec::new(),
                    steps: Vec::new(),
                    end: End::Reduce(join, Source::Memory(1), Some(Source::Row(2))),
                    cpu,
                };
                let mut target = [0.0f32; 4];
                execute(&program, &mut target, &[&x, &start]);
                for row in 0..rows {
                    let elements = x[row * columns..][..columns].iter().map(|&x| f64::from(x));
                    let with_start = elements.chain([f64::from(start[row])]);
                    let found = target[row];
                    let exact = match join {
                        Join::Sum => with_start.sum::<f64>(),
                        Join::Max | Join::Min if row == 2 => f64::NAN,
                        Join::Max => with_start.fold(f64::NEG_INFINITY, f64::max),
                        Join::Min => with_start.fold(f64::INFINITY, f64::min),
                    };
                    let same = found.is_nan() && exact.is_nan() || f64::from(found) == exact;
                    let near = (f64::from(found) - exact).abs() <= 2e-7 * columns as f64;
                    assert!(same || near, "{cpu:?} {join:?} {columns}: {found}, not {exact}");
                }
            }
        }
    }
}

#[test]
fn what_a_row_shares_is_computed_once_for_it() {
    let mut random = Random(13);
    for cpu in wide_cpus() {
        let (rows, columns) = (5, 530);
        let x: Vec<f32> = (0..rows * columns).map(|_| random.value()).collect();
        let variance: Vec<f32> = (0..rows).map(|row| row as f32 + 0.25).collect();
        // x² / √(variance + 1), summed.
        let program = Program {
            rows,
            columns,
            row_strides: vec![4, columns as isize * 4, 4],
            row_steps: vec![
                Step::Two(Two::Add, Source::Row(2), Source::Constant(1.0), Target::Register(0)),
                Step::One(One::Sqrt, Source::RowRegister(0), Target::Register(1)),
            ],
            steps: vec![
                Step::Two(Two::Mul, Source::Memory(1), Source::Memory(1), Target::Register(2)),
                Step::Two(
                    Two::Div,
                    Source::Register(2),
                    Source::RowRegister(1),
                    Target::Register(2),
                ),
            ],
            end: End::Reduce(Join::Sum, Source::Register(2), None),
            cpu,
        };
        let mut target = vec![0.0f32; rows];
        execute(&program, &mut target, &[&x, &variance]);
        for row in 0..rows {
            let squares = x[row * columns..][..columns].iter().map(|&x| f64::from(x).powi(2));
            let exact = squares.sum::<f64>() / (f64::from(variance[row]) + 1.0).sqrt();
            assert!((f64::from(target[row]) - exact).abs() < 1e-5 * exact, "{cpu:?} {row}");
        }
    }
}

#[test]
fn dividing_by_what_a_row_shares_is_within_two_units_and_exact_at_the_ends() {
    for cpu in wide_cpus() {
        let divisors = [3.0f32, 1e-39, 3e38, f32::MIN_POSITIVE, 0.0, f32::INFINITY, 7.5e-20];
        let x: Vec<f32> = (0..64).map(|i| (i as f32 - 31.5) * 1.7).collect();
        for divisor in divisors {
            let program = Program {
                rows: 1,
                columns: x.len(),
                row_strides: vec![0; 3],
                row_steps: Vec::new(),
                steps: vec![Step::Two(Two::Div, Source::Memory(1), Source::Row(2), Target::Memory)],
                end: End::Store,
                cpu,
            };
            let mut target = vec![0.0f32; x.len()];
            execute(&program, &mut target, &[&x, &[divisor]]);
            for (x, found) in x.iter().zip(target) {
                let exact = x / divisor;
                let near = (found - exact).abs() <= 2.0 * f32::EPSILON * exact.abs();
                assert!(found == exact || near, "{cpu:?} {x} / {divisor}: {found}, not {exact}");
            }
        }
    }
}
