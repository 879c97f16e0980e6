//! Values of small programs: products, poison, edges, and the same values with and without time.

mod common;

use common::{at, linked, machine, plain, program, semaphores};
use smallvec::smallvec;
use systole_compiler::kernel::Combine;
use systole_compiler::tensor::Tensor;
use systole_compiler::types::DType;
use systole_systolic::isa::{Alu, Function, Op, Pace};
use systole_systolic::program::*;
use systole_systolic::simulate::{Mode, Options, SimulateError, run};

/// A copy between a far matrix and SBUF, one row in each partition.
fn rows(operand: u16, columns: u32, partitions: u32, byte: i64, load: bool) -> Op {
    let far = Side::Far {
        operand,
        offset: Index::constant(0),
        strides: smallvec![i64::from(columns), 1],
        bounds: smallvec![],
    };
    let near = Side::Near {
        space: Space::Sbuf,
        partition: Index::constant(0),
        offset: Index::constant(byte),
        steps: smallvec![(1, 0), (0, 1)],
    };
    let (from, to) = if load { (far, near) } else { (near, far) };
    Op::Dma(Box::new(Dma {
        dtype: DType::F32,
        sizes: smallvec![partitions, columns],
        from,
        to,
        combine: None,
        indirect: None,
        transpose: false,
    }))
}

/// A program on matrices of f32 with the given numbers of elements; the last is the result.
fn on(sizes: &[u64], streams: Vec<(Engine, Vec<Item>)>, tokens: usize) -> Program {
    let mut program = program(streams, 0, semaphores(&vec![0; tokens]));
    let tensor = |(at, &elements): (usize, &u64)| Tensor0 { at, elements }.into();
    program.tensors = sizes.iter().enumerate().map(tensor).collect();
    let kernel = &mut program.kernels[0];
    let last = sizes.len() - 1;
    kernel.operands = program
        .tensors
        .iter()
        .enumerate()
        .map(|(at, tensor)| Operand {
            name: tensor.name.clone(),
            dtype: DType::F32,
            elements: tensor.elements,
            reads: at < last,
            writes: at == last,
        })
        .collect();
    program.steps = vec![Step::Call {
        kernel: 0,
        operands: (0..sizes.len() as u32).collect(),
        scalars: vec![],
        sbuf_base: 0,
        psum_base: 0,
        origins: vec![],
    }];
    program.inputs = (0..last as u32).collect();
    program.outputs = vec![("y".to_owned(), last as u32)];
    program
}

struct Tensor0 {
    at: usize,
    elements: u64,
}

impl From<Tensor0> for systole_systolic::program::Tensor {
    fn from(Tensor0 { at, elements }: Tensor0) -> Self {
        let name = format!("t{at}");
        Self { name, dtype: DType::F32, elements, alias: None, constant: false }
    }
}

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + seed * 11) % 64) as f32 / 16.0 - 2.0).collect()
}

fn result(program: &Program, inputs: &[Tensor], mode: Mode) -> Vec<f32> {
    let report = run(program, &machine("trn2"), mode, inputs, Options::default())
        .unwrap_or_else(|error| panic!("{error}"));
    report.outputs[0].as_slice::<f32>().expect("f32").to_vec()
}

fn gelu_of_product(k: usize, s: usize, m: usize, pace: Pace) -> Program {
    let (dtype, near) = (DType::F32, Space::Sbuf);
    let left = at(near, dtype, k as u16, 0, s as u32);
    let right = at(near, dtype, k as u16, 1024, m as u32);
    let sum = at(Space::Psum, dtype, s as u16, 0, m as u32);
    let out = at(near, dtype, s as u16, 8192, m as u32);
    let matmul = Op::Matmul {
        stationary: left,
        moving: right,
        out: sum.clone(),
        accumulate: false,
        pace,
        scales: None,
    };
    let activation = Op::Activation {
        function: Function::Gelu,
        input: sum,
        scale: Operand1::Immediate(0.5),
        bias: Operand1::Immediate(1.0),
        out,
        reduce: None,
    };
    let load = |operand, columns: usize, byte| {
        linked(rows(operand, columns as u32, k as u32, byte, true), &[], &[0])
    };
    on(
        &[(k * s) as u64, (k * m) as u64, (s * m) as u64],
        vec![
            (Engine::Sync, vec![load(0, s, 0), load(1, m, 1024)]),
            (Engine::Tensor, vec![linked(matmul, &[0, 0], &[1])]),
            (
                Engine::Scalar,
                vec![
                    linked(activation, &[1], &[2]),
                    linked(rows(2, m as u32, s as u32, 8192, false), &[2], &[]),
                ],
            ),
        ],
        3,
    )
}

#[test]
fn a_recurrence_takes_each_result_into_the_next() {
    let columns = 12;
    let (a, b) = (numbers(4 * columns, 1), numbers(4 * columns, 2));
    let access = |byte| at(Space::Sbuf, DType::F32, 4, byte, columns as u32);
    let scan = Op::TensorTensorScan {
        first: Alu::Multiply,
        second: Alu::Add,
        a: access(0),
        b: access(64),
        initial: Operand1::Immediate(0.5),
        out: access(128),
    };
    let load = |operand, byte| linked(rows(operand, columns as u32, 4, byte, true), &[], &[0]);
    let program = on(
        &[4 * columns as u64; 3],
        vec![
            (Engine::Sync, vec![load(0, 0), load(1, 64)]),
            (Engine::Vector, vec![linked(scan, &[0, 0], &[1])]),
            (Engine::Scalar, vec![linked(rows(2, columns as u32, 4, 128, false), &[1], &[])]),
        ],
        2,
    );
    let mut expected = Vec::new();
    for row in 0..4 {
        let mut state = 0.5;
        for i in row * columns..(row + 1) * columns {
            state = a[i] * state + b[i];
            expected.push(state);
        }
    }
    let inputs = [Tensor::from_slice(&[4 * columns], &a), Tensor::from_slice(&[4 * columns], &b)];
    assert_eq!(result(&program, &inputs, Mode::Both), expected);
}

#[test]
fn a_product_and_its_activation_are_what_they_say() {
    for (k, s, m) in [(128, 128, 512), (3, 5, 7), (64, 32, 100)] {
        let program = gelu_of_product(k, s, m, Pace::Four);
        let (a, b) = (numbers(k * s, 1), numbers(k * m, 2));
        let inputs = [Tensor::from_slice(&[k * s], &a), Tensor::from_slice(&[k * m], &b)];
        let found = result(&program, &inputs, Mode::Values);
        assert_eq!(found, result(&program, &inputs, Mode::Both));
        for row in 0..s {
            for column in 0..m {
                let terms = (0..k).map(|k| a[k * s + row] * b[k * m + column]);
                let x = terms.sum::<f32>() * 0.5 + 1.0;
                let wanted = 0.5 * x * (1.0 + libm::erff(x / 2f32.sqrt()));
                let value = found[row * m + column];
                assert!((value - wanted).abs() <= 1e-4 * (1.0 + wanted.abs()), "{value} {wanted}");
            }
        }
    }
}

#[test]
fn time_does_not_depend_on_values() {
    let program = gelu_of_product(128, 128, 512, Pace::Four);
    let inputs = [
        Tensor::from_slice(&[128 * 128], &numbers(128 * 128, 1)),
        Tensor::from_slice(&[128 * 512], &numbers(128 * 512, 2)),
    ];
    let machine = machine("trn2");
    let time = |mode, inputs: &[Tensor]| {
        let report = run(&program, &machine, mode, inputs, Options::default());
        report.unwrap_or_else(|error| panic!("{error}")).time_ticks
    };
    assert_eq!(time(Mode::Both, &inputs), time(Mode::Time, &[]));
}

#[test]
fn reading_what_nothing_has_written_names_operand_and_partition() {
    let mut short = gelu_of_product(16, 8, 8, Pace::Four);
    // The second load fills one partition fewer than the product reads.
    if let Some(Item::Instruction(instruction)) =
        short.kernels[0].streams.get_mut(&Engine::Sync).and_then(|items| items.get_mut(1))
        && let Op::Dma(dma) = &mut instruction.op
    {
        dma.sizes[0] = 15;
    }
    let inputs = [
        Tensor::from_slice(&[128], &numbers(128, 1)),
        Tensor::from_slice(&[128], &numbers(128, 2)),
    ];
    let error = run(&short, &machine("trn2"), Mode::Values, &inputs, Options::default());
    assert_eq!(
        error.expect_err("poison"),
        SimulateError::Uninitialized {
            instruction: "matmul (all)".to_owned(),
            kernel: "k".to_owned(),
            operand: 1,
            partition: 15,
            byte: 1024,
        }
    );
}

#[test]
fn transfers_leave_out_what_is_beyond_their_bounds() {
    // A tile of 4 × 8 at (-1, 6) of a matrix of 3 × 10, over zeros.
    let load = Dma {
        dtype: DType::F32,
        sizes: smallvec![4, 8],
        from: Side::Far {
            operand: 0,
            offset: Index::constant(-10 + 6),
            strides: smallvec![10, 1],
            bounds: smallvec![
                Bound { at: Index::constant(-1), dims: smallvec![(0, 1)], extent: 3 },
                Bound { at: Index::constant(6), dims: smallvec![(1, 1)], extent: 10 },
            ],
        },
        to: Side::Near {
            space: Space::Sbuf,
            partition: Index::constant(0),
            offset: Index::constant(0),
            steps: smallvec![(1, 0), (0, 1)],
        },
        combine: None,
        indirect: None,
        transpose: false,
    };
    let clear = Op::Memset {
        out: at(Space::Sbuf, DType::F32, 4, 0, 8),
        value: systole_compiler::expr::Scalar::new(DType::F32, 0.0),
    };
    let program = on(
        &[30, 32],
        vec![
            (Engine::Vector, vec![linked(clear, &[], &[0])]),
            (
                Engine::Sync,
                vec![
                    linked(Op::Dma(Box::new(load)), &[0], &[1]),
                    linked(rows(1, 8, 4, 0, false), &[1], &[]),
                ],
            ),
        ],
        2,
    );
    let x: Vec<f32> = (0..30).map(|i| i as f32 + 1.0).collect();
    let found = result(&program, &[Tensor::from_slice(&[30], &x)], Mode::Both);
    let wanted: Vec<f32> = (0..32)
        .map(|i| {
            let (row, column) = (i / 8, i % 8 + 6);
            if row >= 1 && column < 10 { x[(row - 1) * 10 + column] } else { 0.0 }
        })
        .collect();
    assert_eq!(found, wanted);
}

/// Runs one VectorE instruction on 16 × 32 numbers and gives its 16 × `width` results.
fn vector(op: impl Fn(Access, Access) -> Op, width: u32) -> (Vec<f32>, Vec<f32>) {
    let input = at(Space::Sbuf, DType::F32, 16, 0, 32);
    let out = at(Space::Sbuf, DType::F32, 16, 4096, width);
    let program = on(
        &[512, u64::from(16 * width)],
        vec![
            (
                Engine::Sync,
                vec![
                    linked(rows(0, 32, 16, 0, true), &[], &[0]),
                    linked(rows(1, width, 16, 4096, false), &[1], &[]),
                ],
            ),
            (Engine::Vector, vec![linked(op(input, out), &[0], &[1])]),
        ],
        2,
    );
    let x = numbers(512, 3);
    let found = result(&program, &[Tensor::from_slice(&[512], &x)], Mode::Both);
    (x, found)
}

#[test]
fn vector_instructions_are_what_they_say() {
    let (x, sums) =
        vector(|input, out| Op::Reduce { combine: Combine::Sum, input, dims: 1, out }, 1);
    let wanted: Vec<f32> = x.chunks(32).map(|row| row.iter().sum()).collect();
    assert_eq!(sums, wanted);

    let initial = || Operand1::Immediate(0.0);
    let (x, scanned) =
        vector(|input, out| Op::Scan { combine: Combine::Sum, input, initial: initial(), out }, 32);
    assert_eq!(scanned[31], x[..32].iter().sum::<f32>());

    let first = || (Alu::Subtract, Operand1::Immediate(1.0), true);
    let (x, turned) = vector(
        |input, out| Op::TensorScalar { input, first: first(), second: None, out, reduce: None },
        32,
    );
    assert!(x.iter().zip(&turned).all(|(x, y)| *y == 1.0 - x));

    let (x, top) = vector(|input, out| Op::Max8 { input, out }, 8);
    let mut row = x[..32].to_vec();
    row.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(top[..8], row[..8]);
}

#[test]
fn an_array_of_less_than_a_partition_is_an_error_not_a_panic() {
    let outside = Op::Memset {
        out: at(Space::Sbuf, DType::F32, 128, 212_980, 2),
        value: systole_compiler::expr::Scalar::new(DType::F32, 0.0),
    };
    let program = on(&[1, 1], vec![(Engine::Vector, vec![Item::Instruction(plain(outside))])], 0);
    let inputs = [Tensor::from_slice(&[1], &[0.0f32])];
    let error = run(&program, &machine("trn2"), Mode::Values, &inputs, Options::default());
    assert!(error.expect_err("outside").to_string().contains("212988"));
}
