//! Time of small programs: closed forms to the unit, steady loops with and without skipping, published figures.

mod common;

use common::{at, linked, machine, matmul, plain, program, repeat, rows, semaphores};
use systole_compiler::kernel::Combine;
use systole_compiler::types::DType;
use systole_systolic::isa::{Op, Pace};
use systole_systolic::machine::Machine;
use systole_systolic::program::*;
use systole_systolic::simulate::{Mode, Options, Report, run};

fn timed(program: &Program, machine: &Machine, skip: bool) -> Report {
    let options = Options { skip, ..Options::default() };
    run(program, machine, Mode::Time, &[], options).unwrap_or_else(|error| panic!("{error}"))
}

/// A machine without start-up and throttle, for closed forms.
fn bare(name: &str) -> Machine {
    let mut machine = machine(name);
    machine.start_us = 0.0;
    machine.throttle.start_rate = 1.0;
    machine
}

#[test]
fn back_to_back_products_take_their_width_each_and_one_latency() {
    let one = |dtype, pace, count| {
        let body = vec![Item::Instruction(plain(matmul(128, 128, 512, dtype, pace)))];
        program(vec![(Engine::Tensor, vec![repeat(0, count, body)])], 1, vec![])
    };
    let machine = bare("trn2");
    let cycle = 10; // of 24000 units to the microsecond
    for count in [1, 2, 100, 2048] {
        let report = timed(&one(DType::BF16, Pace::Single, count), &machine, true);
        let cycles = 128 / 4 + 512 * count as u64 + 432;
        assert_eq!(report.time_ticks, cycle * cycles, "{count} products of bf16");
        let report = timed(&one(DType::F32, Pace::Four, count), &machine, true);
        let cycles = 128 / 4 + 4 * 512 * count as u64 + 432;
        assert_eq!(report.time_ticks, cycle * cycles, "{count} products of f32");
    }
}

#[test]
fn one_transfer_takes_its_latencies_and_its_rows() {
    let machine = bare("trn2");
    let load = program(
        vec![(Engine::Sync, vec![linked(rows(DType::F32, 128, 1024, 0, true), &[], &[])])],
        0,
        vec![],
    );
    let report = timed(&load, &machine, true);
    // 8 rows of 4096 bytes on each of 16 engines, each row with a descriptor.
    let rows_ns = 8.0 * (4096.0 / 23.6 + 7.0);
    assert_eq!(report.time_ticks, ((1300.0 + rows_ns) * 24.0f64).round() as u64);
    assert_eq!(report.hbm_read_bytes, 128 * 4096);
    assert_eq!(report.dma.rows, 128);
}

#[test]
fn one_reduction_takes_its_elements_overhead_and_latency() {
    let machine = bare("trn2");
    let reduce = Op::Reduce {
        combine: Combine::Sum,
        input: at(Space::Sbuf, DType::F32, 128, 0, 1000),
        dims: 1,
        out: at(Space::Sbuf, DType::F32, 128, 8192, 1),
    };
    let items = vec![Item::Instruction(plain(reduce))];
    let report = timed(&program(vec![(Engine::Vector, items)], 0, vec![]), &machine, true);
    assert_eq!(report.time_ticks, 25 * (1000 + 120 + 100));
}

#[test]
fn the_array_starts_slowly_after_idling() {
    let machine = machine("trn2");
    let body = vec![Item::Instruction(plain(matmul(128, 128, 512, DType::BF16, Pace::Single)))];
    let many = program(vec![(Engine::Tensor, vec![repeat(0, 2048, body)])], 1, vec![]);
    let report = timed(&many, &machine, true);
    // Published: 445 µs, against 436.9 at full rate.
    assert!((436.9..445.0 * 1.02).contains(&report.time_us), "{} µs", report.time_us);
}

/// A chain from loads through products to stores, with rotating buffers and nested loops.
fn pipeline(outer: i64, inner: i64) -> Program {
    let copy = Op::Copy {
        input: at(Space::Psum, DType::F32, 128, 0, 512),
        out: at(Space::Sbuf, DType::F32, 128, 32768, 512),
    };
    let sync = vec![repeat(
        0,
        outer,
        vec![repeat(
            1,
            inner,
            vec![
                linked(rows(DType::F32, 128, 128, 0, true), &[0], &[1]),
                linked(rows(DType::F32, 128, 512, 0, true), &[0], &[1]),
            ],
        )],
    )];
    let tensor = vec![repeat(
        0,
        outer,
        vec![
            linked(Op::Nop, &[2], &[]),
            repeat(
                1,
                inner,
                vec![linked(matmul(128, 128, 512, DType::F32, Pace::Four), &[1, 1], &[0, 0])],
            ),
            linked(Op::Nop, &[], &[3]),
        ],
    )];
    let vector = vec![repeat(0, outer, vec![linked(copy, &[3, 5], &[2, 4])])];
    let scalar =
        vec![repeat(0, outer, vec![linked(rows(DType::F32, 128, 512, 1, false), &[4], &[5])])];
    program(
        vec![
            (Engine::Sync, sync),
            (Engine::Tensor, tensor),
            (Engine::Vector, vector),
            (Engine::Scalar, scalar),
        ],
        2,
        semaphores(&[8, 0, 2, 0, 0, 2]),
    )
}

#[test]
fn skipping_steady_loops_changes_nothing() {
    for name in ["trn1", "trn2", "trn3"] {
        for (outer, inner) in [(1, 1), (1, 200), (7, 3), (300, 2), (33, 64), (100, 7)] {
            let program = pipeline(outer, inner);
            let machine = machine(name);
            let (fast, slow) = (timed(&program, &machine, true), timed(&program, &machine, false));
            assert_eq!(fast, slow, "{name} {outer} × {inner}");
            assert_eq!(slow.instructions, (outer * (inner * 3 + 4)) as u64);
        }
    }
}

#[test]
fn a_long_steady_loop_takes_no_time_to_simulate() {
    let report = timed(&pipeline(1_000_000, 1000), &machine("trn2"), true);
    assert_eq!(report.instructions, 1_000_000 * 3004);
}

#[test]
fn a_missing_token_is_a_deadlock_that_names_the_semaphore() {
    let stuck =
        program(vec![(Engine::Tensor, vec![linked(Op::Nop, &[0], &[])])], 0, semaphores(&[0]));
    let error = run(&stuck, &machine("trn2"), Mode::Time, &[], Options::default());
    assert!(error.expect_err("stuck").to_string().contains("$s0"));
}

fn check(what: &str, predicted: f64, published: f64, percent: f64) {
    let error = (predicted / published - 1.0) * 100.0;
    assert!(error.abs() <= percent, "{what}: {predicted} against {published}, {error:+.1} %");
}

/// Copies of a tensor through SBUF in tiles: loads on one queue, stores on the other.
fn copies(count: i64, free: u32) -> Program {
    let loads =
        vec![repeat(0, count, vec![linked(rows(DType::BF16, 128, free, 0, true), &[], &[0])])];
    let stores =
        vec![repeat(0, count, vec![linked(rows(DType::BF16, 128, free, 1, false), &[0], &[])])];
    program(vec![(Engine::Sync, loads), (Engine::Scalar, stores)], 1, semaphores(&[0]))
}

#[test]
fn small_and_large_copies_take_what_was_published() {
    let trn2 = machine("trn2");
    check("128 × 8192 in tiles of 512", timed(&copies(16, 512), &trn2, true).time_us, 16.0, 10.0);
    check("in tiles of 2048", timed(&copies(16, 2048), &trn2, true).time_us, 47.0, 10.0);
}

/// A product in which each instruction waits for its two operands, as the tutorials write it first.
fn naive(dtype: DType, pace: Pace, outer: i64, inner: i64, hoisted: bool) -> Program {
    let hoisted_loads = if hoisted {
        vec![repeat(1, inner, vec![linked(rows(dtype, 128, 128, 0, true), &[6], &[7])])]
    } else {
        vec![]
    };
    let mut each = vec![linked(rows(dtype, 128, 512, 0, true), &[0], &[1])];
    if !hoisted {
        each.insert(0, linked(rows(dtype, 128, 128, 0, true), &[6], &[7]));
    }
    let groups = 16;
    let copy = Op::Copy {
        input: at(Space::Psum, DType::F32, 128, 0, 512),
        out: at(Space::Sbuf, dtype, 128, 32768, 512),
    };
    let mut sync = hoisted_loads;
    sync.push(repeat(2, groups, vec![repeat(1, inner, each)]));
    let product =
        |waits: &[u16], signals: &[u16]| linked(matmul(128, 128, 512, dtype, pace), waits, signals);
    let inside = if hoisted {
        vec![
            repeat(1, inner, vec![linked(Op::Nop, &[7], &[])]),
            repeat(
                2,
                groups,
                vec![
                    linked(Op::Nop, &[2], &[]),
                    repeat(1, inner, vec![product(&[1], &[0])]),
                    linked(Op::Nop, &[], &[3]),
                ],
            ),
            repeat(1, inner, vec![linked(Op::Nop, &[], &[6])]),
        ]
    } else {
        vec![repeat(
            2,
            groups,
            vec![
                linked(Op::Nop, &[2], &[]),
                repeat(1, inner, vec![product(&[1, 7], &[0, 6])]),
                linked(Op::Nop, &[], &[3]),
            ],
        )]
    };
    let vector =
        vec![repeat(0, outer, vec![repeat(2, groups, vec![linked(copy, &[3, 5], &[2, 4])])])];
    let scalar = vec![repeat(
        0,
        outer,
        vec![repeat(2, groups, vec![linked(rows(dtype, 128, 512, 1, false), &[4], &[5])])],
    )];
    let first = if hoisted { 2 * inner as u16 } else { 4 };
    program(
        vec![
            (Engine::Sync, vec![repeat(0, outer, sync)]),
            (Engine::Tensor, vec![repeat(0, outer, inside)]),
            (Engine::Vector, vector),
            (Engine::Scalar, scalar),
        ],
        3,
        semaphores(&[4, 0, 4, 0, 0, 2, first, 0]),
    )
}

#[test]
fn published_matrix_products_take_what_was_published() {
    let (trn1, trn2) = (machine("trn1"), machine("trn2"));
    let ms = |program: &Program, machine: &Machine| timed(program, machine, true).time_us / 1000.0;
    check("5.1 tiled", ms(&naive(DType::BF16, Pace::Single, 32, 64, false), &trn1), 51.80, 10.0);
    check("5.1 hoisted", ms(&naive(DType::BF16, Pace::Single, 32, 64, true), &trn1), 42.96, 10.0);
    check("5.2 tiled", ms(&naive(DType::F32, Pace::Four, 32, 64, false), &trn2), 39.89, 10.0);
    check("5.2 hoisted", ms(&naive(DType::F32, Pace::Four, 32, 64, true), &trn2), 28.20, 10.0);
}
