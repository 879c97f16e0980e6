//! Programs by hand: right ones pass, and each fault that is put into them is found.

use super::{Kind, Limits, Problem, check};
use crate::isa::{Alu, Function, Op, Pace};
use crate::program::{
    Access, Bound, Dma, Engine, Index, Instruction, Item, Kernel, Operand, Operand1, Program,
    Semaphore, SemaphoreInfo, Side, Space, Step, Tensor, Term, Var, VarInfo,
};
use smallvec::smallvec;
use systole_compiler::kernel::Combine;
use systole_compiler::types::DType;

const LIMITS: Limits = Limits {
    generation: 3,
    partitions: 128,
    sbuf_bytes: 212_984,
    bank_bytes: 2048,
    banks: 8,
    stationary: 128,
    moving: 512,
};

fn index(constant: i64, terms: &[(Term, i64)]) -> Index {
    Index { constant, terms: terms.iter().copied().collect() }
}

fn sbuf(partitions: u16, offset: Index, size: u32) -> Access {
    Access {
        space: Space::Sbuf,
        dtype: DType::F32,
        partition: Index::constant(0),
        partitions,
        offset,
        dims: smallvec![(1, size)],
    }
}

fn psum(partitions: u16, offset: Index, size: u32) -> Access {
    Access { space: Space::Psum, ..sbuf(partitions, offset, size) }
}

fn instruction(op: Op, waits: &[u16], signals: &[u16]) -> Item {
    Item::Instruction(Instruction {
        op,
        when: None,
        waits: waits.iter().map(|&at| Semaphore(at)).collect(),
        calls: smallvec![],
        after: false,
        signals: signals.iter().map(|&at| Semaphore(at)).collect(),
        source: 0,
    })
}

fn with_calls(item: Item, operands: &[u16]) -> Item {
    let Item::Instruction(mut instruction) = item else { panic!("an instruction") };
    instruction.calls = operands.iter().copied().collect();
    Item::Instruction(instruction)
}

fn after(item: Item) -> Item {
    let Item::Instruction(mut instruction) = item else { panic!("an instruction") };
    instruction.after = true;
    Item::Instruction(instruction)
}

fn repeat(var: u16, count: i64, body: Vec<Item>) -> Item {
    let (start, end) = (Index::constant(0), Index::constant(count));
    Item::Loop { var: Var(var), start, end, step: 1, body }
}

/// `rows × columns` of f32 from a row-major tensor to SBUF, one row a partition.
fn load(operand: u16, from: Index, rows: u32, columns: u32, to: Index) -> Op {
    Op::Dma(Box::new(Dma {
        dtype: DType::F32,
        sizes: smallvec![rows, columns],
        from: Side::Far {
            operand,
            offset: from,
            strides: smallvec![i64::from(columns), 1],
            bounds: smallvec![],
        },
        to: Side::Near {
            space: Space::Sbuf,
            partition: Index::constant(0),
            offset: to,
            steps: smallvec![(1, 0), (0, 1)],
        },
        combine: None,
        indirect: None,
        transpose: false,
    }))
}

fn store(operand: u16, to: Index, rows: u32, columns: u32, from: Index) -> Op {
    let Op::Dma(mut dma) = load(operand, to, rows, columns, from) else { panic!("a copy") };
    std::mem::swap(&mut dma.from, &mut dma.to);
    Op::Dma(dma)
}

fn copy(input: Access, out: Access) -> Op {
    Op::Copy { input, out }
}

fn operand(name: &str, elements: u64, reads: bool, writes: bool) -> Operand {
    Operand { name: name.into(), dtype: DType::F32, elements, reads, writes }
}

fn semaphores(initial: &[u16]) -> Vec<SemaphoreInfo> {
    let named = |(at, &initial): (usize, &u16)| SemaphoreInfo { name: format!("s{at}"), initial };
    initial.iter().enumerate().map(named).collect()
}

fn var(name: &str) -> VarInfo {
    VarInfo { name: name.into(), range: None }
}

/// A program that calls one kernel once.
fn program(kernel: Kernel) -> Program {
    let tensor = |operand: &Operand| Tensor {
        name: operand.name.clone(),
        dtype: operand.dtype,
        elements: operand.elements,
        alias: None,
        constant: false,
    };
    let count = kernel.operands.len() as u32;
    let numbers = 0..count;
    let inputs = numbers.clone().filter(|&at| kernel.operands[at as usize].reads).collect();
    let outputs = numbers.clone().filter(|&at| kernel.operands[at as usize].writes);
    Program {
        name: "test".into(),
        machine: "test".into(),
        tensors: kernel.operands.iter().map(tensor).collect(),
        inputs,
        outputs: outputs.map(|at| (format!("y{at}"), at)).collect(),
        steps: vec![Step::Call {
            kernel: 0,
            operands: numbers.collect(),
            scalars: Vec::new(),
            sbuf_base: 0,
            psum_base: 0,
            origins: Vec::new(),
        }],
        kernels: vec![kernel],
        load: Vec::new(),
    }
}

fn problems(kernel: Kernel) -> Vec<Problem> {
    check(&program(kernel), &LIMITS).err().unwrap_or_default()
}

#[track_caller]
fn passes(kernel: Kernel) {
    let found = problems(kernel);
    let text: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(found.is_empty(), "{}", text.join("\n"));
}

#[track_caller]
fn fails(kernel: Kernel, kind: Kind, words: &str) {
    let found = problems(kernel);
    let fits = |problem: &Problem| problem.kind == kind && problem.to_string().contains(words);
    let text: Vec<String> = found.iter().map(|p| format!("{:?}: {p}", p.kind)).collect();
    assert!(found.iter().any(fits), "no {kind:?} with {words:?} in:\n{}", text.join("\n"));
}

/// Rows pass through two rotating buffers each way: load on SyncE, double on VectorE, store on ScalarE. Semaphores: 0 the
/// load is complete, 1 its buffer is free, 2 the result is complete, 3 its buffer is free.
fn streaming(trips: i64) -> Kernel {
    let columns = 256;
    let bytes = i64::from(columns) * 4;
    let elements = 128 * i64::from(columns);
    let x = index(0, &[(Term::Turn(Var(0), 2), bytes)]);
    let y = index(2 * bytes, &[(Term::Turn(Var(0), 2), bytes)]);
    let far = index(0, &[(Term::Var(Var(0)), elements)]);
    let add = Op::TensorTensor {
        alu: Alu::Add,
        a: sbuf(128, x.clone(), columns),
        b: sbuf(128, x.clone(), columns),
        out: sbuf(128, y.clone(), columns),
    };
    let loads = with_calls(instruction(load(0, far.clone(), 128, columns, x), &[1], &[0]), &[0]);
    let stores = with_calls(instruction(store(1, far, 128, columns, y), &[2], &[3]), &[1]);
    let compute = instruction(add, &[0, 3], &[1, 2]);
    Kernel {
        exchange: None,
        name: "double".into(),
        operands: vec![
            operand("x", (trips * elements) as u64, true, false),
            operand("y", (trips * elements) as u64, false, true),
        ],
        vars: vec![var("r")],
        semaphores: semaphores(&[0, 2, 0, 2]),
        streams: [
            (Engine::Sync, vec![repeat(0, trips, vec![loads])]),
            (Engine::Vector, vec![repeat(0, trips, vec![compute])]),
            (Engine::Scalar, vec![repeat(0, trips, vec![stores])]),
        ]
        .into(),
        sbuf_bytes: 4 * bytes as u32,
        psum_banks: 0,
        sources: vec!["doubled".into()],
        origins: Vec::new(),
    }
}

fn body(kernel: &mut Kernel, engine: Engine) -> &mut Vec<Item> {
    let items = kernel.streams.get_mut(&engine).expect("the stream is there");
    match &mut items[0] {
        Item::Loop { body, .. } => body,
        Item::Instruction(_) => panic!("a loop"),
    }
}

fn edit(kernel: &mut Kernel, engine: Engine, change: impl FnOnce(&mut Instruction)) {
    match &mut body(kernel, engine)[0] {
        Item::Instruction(instruction) => change(instruction),
        Item::Loop { .. } => panic!("an instruction"),
    }
}

#[test]
fn rotating_buffers_pass() {
    passes(streaming(1));
    passes(streaming(2));
    passes(streaming(7));
}

#[test]
fn a_long_loop_is_sampled() {
    let report = check(&program(streaming(100_000)), &LIMITS).expect("it is right");
    assert_eq!(report.sampled, 1);
    assert!(report.instructions < 60, "{report:?}");
    let mut kernel = streaming(100_000);
    edit(&mut kernel, Engine::Scalar, |store| store.waits.clear());
    kernel.semaphores[2].initial = 0;
    edit(&mut kernel, Engine::Vector, |add| add.signals.retain(|semaphore| semaphore.0 != 2));
    fails(kernel, Kind::Race, "may still be reading");
}

#[test]
fn a_dropped_wait_is_found() {
    let mut kernel = streaming(5);
    edit(&mut kernel, Engine::Vector, |add| add.waits.retain(|semaphore| semaphore.0 != 0));
    fails(
        kernel,
        Kind::Race,
        "vector #0 tensor_tensor (doubled) at %r = 2: a: it reads what another engine writes",
    );
    let mut kernel = streaming(5);
    edit(&mut kernel, Engine::Sync, |load| load.waits.clear());
    fails(kernel, Kind::Race, "it overwrites what the other may still be writing");
    // The tokens that nobody takes are told as well.
    let mut kernel = streaming(5);
    edit(&mut kernel, Engine::Sync, |load| load.waits.clear());
    fails(kernel, Kind::Semaphore, "$s1 ends with 7 tokens; it began with 2");
}

#[test]
fn a_dropped_signal_is_found() {
    for (engine, words) in [
        (Engine::Sync, "vector #0 for $s0"),
        (Engine::Vector, "wait for ever"),
        (Engine::Scalar, "vector #0 for $s3"),
    ] {
        let mut kernel = streaming(5);
        edit(&mut kernel, engine, |instruction| instruction.signals.clear());
        fails(kernel, Kind::Deadlock, words);
    }
}

#[test]
fn too_early_reuse_is_found() {
    // Two buffers, but three are taken for free.
    let mut kernel = streaming(6);
    kernel.semaphores[1].initial = 3;
    fails(kernel, Kind::Race, "may still be");
}

#[test]
fn overlapping_buffers_are_found() {
    let mut kernel = streaming(6);
    let half = index(3 * 512, &[(Term::Turn(Var(0), 2), 1024)]);
    edit(&mut kernel, Engine::Scalar, |instruction| {
        let Op::Dma(dma) = &mut instruction.op else { panic!("a store") };
        let Side::Near { offset, .. } = &mut dma.from else { panic!("from SBUF") };
        *offset = half.clone();
    });
    edit(&mut kernel, Engine::Vector, |instruction| {
        let Op::TensorTensor { out, .. } = &mut instruction.op else { panic!("an addition") };
        out.offset = half;
    });
    let found = problems(kernel);
    assert!(!found.is_empty(), "the overlap was not found");
}

/// One engine, so that nothing is unordered: only what lies where is wrong.
#[test]
fn an_overlap_in_order_is_found() {
    let kernel = |second: i64| Kernel {
        name: "overlap".into(),
        operands: vec![operand("y", 128 * 64, false, true)],
        semaphores: semaphores(&[0]),
        streams: [
            (
                Engine::Vector,
                vec![
                    instruction(
                        Op::Memset { out: sbuf(128, index(0, &[]), 64), value: one() },
                        &[],
                        &[],
                    ),
                    instruction(
                        Op::Memset { out: sbuf(128, index(second, &[]), 64), value: one() },
                        &[],
                        &[],
                    ),
                    after(instruction(
                        Op::TensorTensor {
                            alu: Alu::Add,
                            a: sbuf(128, index(0, &[]), 64),
                            b: sbuf(128, index(second, &[]), 64),
                            out: sbuf(128, index(1024, &[]), 64),
                        },
                        &[],
                        &[0],
                    )),
                ],
            ),
            (
                Engine::Sync,
                vec![with_calls(
                    instruction(store(0, index(0, &[]), 128, 64, index(1024, &[])), &[0], &[]),
                    &[0],
                )],
            ),
        ]
        .into(),
        sbuf_bytes: 2048,
        ..Kernel::default()
    };
    passes(kernel(256));
    fails(kernel(128), Kind::Overlap, "partly overwritten");
}

fn one() -> systole_compiler::expr::Scalar {
    systole_compiler::expr::Scalar::new(DType::F32, 1.0)
}

#[test]
fn a_wrong_stride_is_found() {
    // The rows arrive in every second place: the place between is read and was never written.
    let mut kernel = streaming(4);
    edit(&mut kernel, Engine::Sync, |instruction| {
        let Op::Dma(dma) = &mut instruction.op else { panic!("a load") };
        dma.sizes[1] = 128;
        let Side::Near { steps, .. } = &mut dma.to else { panic!("to SBUF") };
        steps[1] = (0, 2);
    });
    fails(kernel, Kind::Uninitialized, "nothing has written");
    // Rows of the tensor that are too far apart leave it.
    let mut kernel = streaming(4);
    edit(&mut kernel, Engine::Sync, |instruction| {
        let Op::Dma(dma) = &mut instruction.op else { panic!("a load") };
        let Side::Far { strides, .. } = &mut dma.from else { panic!("from HBM") };
        strides[0] = 512;
    });
    fails(kernel, Kind::Limit, "of %x");
    // Rows of the result that are too close overwrite each other.
    let mut kernel = streaming(4);
    edit(&mut kernel, Engine::Scalar, |instruction| {
        let Op::Dma(dma) = &mut instruction.op else { panic!("a store") };
        let Side::Far { strides, .. } = &mut dma.to else { panic!("to HBM") };
        strides[0] = 128;
    });
    fails(kernel, Kind::Element, "writes one place twice");
}

#[test]
fn partitions_beyond_the_last_are_found() {
    let mut kernel = streaming(2);
    edit(&mut kernel, Engine::Sync, |instruction| {
        let Op::Dma(dma) = &mut instruction.op else { panic!("a load") };
        let Side::Near { partition, .. } = &mut dma.to else { panic!("to SBUF") };
        *partition = Index::constant(1);
    });
    fails(kernel, Kind::Limit, "partitions 1..129; there are 128");
    let mut kernel = streaming(2);
    edit(&mut kernel, Engine::Vector, |instruction| {
        let Op::TensorTensor { a, b, out, .. } = &mut instruction.op else { panic!("an addition") };
        for access in [a, b, out] {
            access.partitions = 32;
            access.partition = Index::constant(16);
        }
    });
    fails(kernel, Kind::Limit, "32 partitions from 16; they start at multiples of 32");
}

#[test]
fn tensors_wait_for_their_calls() {
    let mut kernel = streaming(2);
    edit(&mut kernel, Engine::Scalar, |store| store.calls.clear());
    fails(kernel, Kind::Race, "it reaches %y before anything has waited for its call");
}

/// A product of 256 × 128 by 256 × 512 in two steps, summed in PSUM. Semaphores: 0 the operands are there, 1 the sum is
/// complete, 2 the copy is.
fn product() -> Kernel {
    let k = |stride: i64| index(0, &[(Term::Var(Var(0)), stride)]);
    let (w, x) = (k(512), k(2048).plus(&Index::constant(4096), 1));
    let matmul = |accumulate, k: i64| Op::Matmul {
        stationary: sbuf(128, Index::constant(512 * k), 128),
        moving: sbuf(128, Index::constant(4096 + 2048 * k), 512),
        out: psum(128, Index::constant(0), 512),
        accumulate,
        pace: Pace::Four,
        scales: None,
    };
    let rectify = Op::Activation {
        function: Function::Relu,
        input: psum(128, Index::constant(0), 512),
        scale: Operand1::Immediate(1.0),
        bias: Operand1::Immediate(0.0),
        out: sbuf(128, Index::constant(8192), 512),
        reduce: Some((Combine::Sum, sbuf(128, Index::constant(10240), 1))),
    };
    let loads = vec![
        with_calls(instruction(load(0, k(128 * 128), 128, 128, w), &[], &[0]), &[0]),
        with_calls(instruction(load(1, k(128 * 512), 128, 512, x), &[], &[0]), &[1]),
    ];
    Kernel {
        exchange: None,
        name: "product".into(),
        operands: vec![
            operand("w", 256 * 128, true, false),
            operand("x", 256 * 512, true, false),
            operand("y", 128 * 512, false, true),
            operand("sum", 128, false, true),
        ],
        vars: vec![var("k")],
        semaphores: semaphores(&[0, 0, 0, 0]),
        streams: [
            (Engine::Sync, vec![repeat(0, 2, loads)]),
            (
                Engine::Tensor,
                vec![
                    instruction(matmul(false, 0), &[0, 0], &[]),
                    instruction(matmul(true, 1), &[0, 0], &[1]),
                ],
            ),
            (Engine::Scalar, vec![instruction(rectify, &[1], &[2, 3])]),
            (
                Engine::GpSimd,
                vec![
                    with_calls(
                        instruction(
                            store(2, Index::constant(0), 128, 512, Index::constant(8192)),
                            &[2],
                            &[],
                        ),
                        &[2],
                    ),
                    with_calls(
                        instruction(
                            store(3, Index::constant(0), 128, 1, Index::constant(10240)),
                            &[3],
                            &[],
                        ),
                        &[3],
                    ),
                ],
            ),
        ]
        .into(),
        sbuf_bytes: 10244,
        psum_banks: 1,
        sources: vec!["y".into()],
        origins: Vec::new(),
    }
}

#[test]
fn sums_in_psum_pass() {
    passes(product());
}

#[test]
fn transfers_have_no_order_among_themselves() {
    // The last transfer's token says nothing of those before it.
    let mut kernel = product();
    let sync = kernel.streams.get_mut(&Engine::Sync).expect("it is there");
    let Item::Loop { body, .. } = &mut sync[0] else { panic!("a loop") };
    let Item::Instruction(first) = &mut body[0] else { panic!("a load") };
    first.signals.clear();
    let tensor = kernel.streams.get_mut(&Engine::Tensor).expect("it is there");
    for item in tensor {
        let Item::Instruction(product) = item else { panic!("a product") };
        product.waits.pop();
    }
    fails(kernel, Kind::Race, "stationary: it reads what another engine writes");
}

#[test]
fn a_sum_that_nothing_began_is_found() {
    let mut kernel = product();
    let tensor = kernel.streams.get_mut(&Engine::Tensor).expect("it is there");
    let Item::Instruction(first) = &mut tensor[0] else { panic!("a product") };
    let Op::Matmul { accumulate, .. } = &mut first.op else { panic!("a product") };
    *accumulate = true;
    fails(kernel, Kind::Uninitialized, "PSUM");
}

#[test]
fn a_sum_that_begins_again_is_found() {
    let mut kernel = product();
    let tensor = kernel.streams.get_mut(&Engine::Tensor).expect("it is there");
    let Item::Instruction(second) = &mut tensor[1] else { panic!("a product") };
    let Op::Matmul { accumulate, .. } = &mut second.op else { panic!("a product") };
    *accumulate = false;
    fails(kernel, Kind::Lost, "overwritten before anything reads it; the other is tensor #1");
}

#[test]
fn operands_of_products_are_limited() {
    let change = |change: &dyn Fn(&mut Access, &mut Access, &mut Access)| {
        let mut kernel = product();
        let tensor = kernel.streams.get_mut(&Engine::Tensor).expect("it is there");
        let Item::Instruction(first) = &mut tensor[0] else { panic!("a product") };
        let Op::Matmul { stationary, moving, out, .. } = &mut first.op else { panic!("a product") };
        change(stationary, moving, out);
        kernel
    };
    fails(change(&|_, _, out| out.space = Space::Sbuf), Kind::Limit, "out: it must lie in PSUM");
    fails(change(&|_, _, out| out.offset = Index::constant(4)), Kind::Limit, "PSUM");
    fails(change(&|stationary, _, _| stationary.dims[0].1 = 129), Kind::Limit, "the most are 128");
    fails(change(&|_, moving, _| moving.dims[0].1 = 513), Kind::Limit, "the most are 512");
    fails(change(&|stationary, _, _| stationary.dtype = DType::BF16), Kind::Limit, "at this pace");
    fails(change(&|_, _, out| out.dtype = DType::BF16), Kind::Limit, "sums are kept in f32");
}

#[test]
fn a_result_of_the_same_engine_wants_after() {
    let kernel = |wait: bool| {
        let fill =
            instruction(Op::Memset { out: sbuf(64, index(0, &[]), 8), value: one() }, &[], &[]);
        let mut reads =
            instruction(copy(sbuf(64, index(0, &[]), 8), sbuf(64, index(32, &[]), 8)), &[], &[0]);
        if wait {
            reads = after(reads);
        }
        let stores = instruction(store(0, index(0, &[]), 64, 8, index(32, &[])), &[0], &[]);
        Kernel {
            name: "chain".into(),
            operands: vec![operand("y", 64 * 8, false, true)],
            semaphores: semaphores(&[0]),
            streams: [
                (Engine::Vector, vec![fill, reads]),
                (Engine::Sync, vec![with_calls(stores, &[0])]),
            ]
            .into(),
            sbuf_bytes: 64,
            ..Kernel::default()
        }
    };
    passes(kernel(true));
    fails(kernel(false), Kind::Race, "an earlier instruction of its engine");
}

#[test]
fn elements_keep_their_width() {
    let mut kernel = streaming(2);
    edit(&mut kernel, Engine::Vector, |instruction| {
        let Op::TensorTensor { a, .. } = &mut instruction.op else { panic!("an addition") };
        a.dtype = DType::BF16;
    });
    fails(kernel, Kind::Element, "elements of 2 bytes where 4 were written");
}

#[test]
fn edges_are_cut_by_bounds() {
    // 200 rows in two tiles of 128; without bounds the second leaves the tensor.
    let kernel = |bounded: bool| {
        let mut kernel = streaming(2);
        for operand in &mut kernel.operands {
            operand.elements = 200 * 256;
        }
        let bound = Bound {
            at: index(0, &[(Term::Var(Var(0)), 128)]),
            dims: smallvec![(0, 1)],
            extent: 200,
        };
        for engine in [Engine::Sync, Engine::Scalar] {
            edit(&mut kernel, engine, |instruction| {
                let Op::Dma(dma) = &mut instruction.op else { panic!("a copy") };
                for side in [&mut dma.from, &mut dma.to] {
                    if let Side::Far { bounds, .. } = side
                        && bounded
                    {
                        bounds.push(bound.clone());
                    }
                }
            });
        }
        kernel
    };
    fails(kernel(false), Kind::Limit, "of %x");
    // The rows that no load has filled are read, though nothing of them is stored.
    fails(kernel(true), Kind::Uninitialized, "nothing has written");
    let mut filled = kernel(true);
    for turn in 0..2 {
        let fill = Op::Memset { out: sbuf(128, index(1024 * turn, &[]), 256), value: one() };
        let sync = filled.streams.entry(Engine::GpSimd).or_default();
        sync.push(instruction(fill, &[], if turn == 1 { &[4] } else { &[] }));
    }
    filled.semaphores.push(SemaphoreInfo { name: "filled".into(), initial: 0 });
    let sync = filled.streams.get_mut(&Engine::Sync).expect("it is there");
    sync.insert(0, instruction(Op::Nop, &[4], &[]));
    passes(filled);
}

#[test]
fn a_semaphore_has_one_sender() {
    let mut kernel = streaming(3);
    edit(&mut kernel, Engine::Scalar, |store| store.signals.push(Semaphore(0)));
    fails(kernel, Kind::Semaphore, "their order is open");
}

#[test]
fn engines_have_their_own_instructions() {
    let mut kernel = streaming(3);
    let stream = kernel.streams.remove(&Engine::Vector).expect("it is there");
    kernel.streams.insert(Engine::Tensor, stream);
    fails(kernel, Kind::Limit, "the engine does not have it; vector, gpsimd does");
}

#[test]
fn steps_read_what_was_written() {
    let mut program = program(streaming(2));
    program.inputs.clear();
    let found = check(&program, &LIMITS).expect_err("the input is missing");
    assert!(
        found[0].to_string().contains("reads tensor %x, which nothing has written"),
        "{}",
        found[0]
    );
}

/// Hostile numbers give an answer, not a panic.
#[test]
fn numbers_beyond_all_sense_are_refused() {
    let mut kernel = streaming(3);
    let Item::Loop { end, .. } =
        &mut kernel.streams.get_mut(&Engine::Sync).expect("it is there")[0]
    else {
        panic!("a loop")
    };
    *end = Index::constant(i64::MAX);
    assert!(!problems(kernel).is_empty());
    let mut kernel = streaming(3);
    edit(&mut kernel, Engine::Vector, |instruction| {
        let Op::TensorTensor { a, .. } = &mut instruction.op else { panic!("an addition") };
        a.offset = index(i64::MAX - 3, &[(Term::Var(Var(0)), i64::MAX - 3)]);
    });
    fails(kernel, Kind::Limit, "");
}
