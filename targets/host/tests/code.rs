//! What is generated: listings and object files are the same every time, runs the same on any number of threads, and
//! they stop when they are told to.

#[expect(dead_code, reason = "other test programs use the rest")]
mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use systole_compiler::graph::Graph;
use systole_compiler::{pipeline, text};
use systole_host::{HostError, Listing, Options, RunOptions};

fn graph() -> Graph {
    text::parse_graph(
        "func @main(%x: f32[200, 96], %w: f32[96, 64]) -> (y: f32[200, 64], s: f32[200]) {
          %a = contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
          %b = tanh %a
          %y = softmax %b {axis = 1}
          %s: f32[200] = reduce %b {combine = sum, axes = [1], accumulate = f32}
          return %y, %s }",
    )
    .expect("the source is right")
}

#[test]
fn listings_are_the_same_every_time() {
    let module = common::module(&graph(), pipeline::DEFAULT, true, None);
    for listing in [Listing::Clif, Listing::Asm] {
        let texts: Vec<String> = (0..2)
            .map(|_| {
                systole_host::compile(&module, &Options::default())
                    .expect("it compiles")
                    .listing(listing)
            })
            .collect();
        assert_eq!(texts[0], texts[1]);
        assert_eq!(texts[0].matches("; @").count(), module.kernels.len());
    }
}

#[test]
fn objects_are_of_the_wanted_machine() {
    let module = common::module(&graph(), pipeline::DEFAULT, false, None);
    for (architecture, machine) in [("x86_64", 62), ("aarch64", 183)] {
        let object = systole_host::object(&module, architecture).expect("it compiles");
        assert_eq!(&object[..4], b"\x7fELF");
        assert_eq!(u16::from_le_bytes([object[18], object[19]]), machine);
        assert_eq!(object, systole_host::object(&module, architecture).expect("it compiles"));
    }
    assert!(systole_host::object(&module, "vax").is_err());
}

#[test]
fn threads_do_not_change_a_bit() {
    let graph = graph();
    let module = common::module(&graph, pipeline::DEFAULT, true, None);
    let executable = systole_host::compile(&module, &Options::default()).expect("it compiles");
    let inputs: Vec<_> = graph
        .entry()
        .body
        .params
        .iter()
        .map(|&param| common::random(graph.entry().ty(param), 7))
        .collect();
    let alone = executable.run(&inputs, &RunOptions::default()).expect("it runs");
    for threads in [2, 3, 5] {
        let options = RunOptions { threads, ..RunOptions::default() };
        assert_eq!(executable.run(&inputs, &options).expect("it runs"), alone);
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(executable.run(&inputs, &RunOptions::default()).expect("it runs"), alone)
            });
        }
    });
}

#[test]
fn runs_stop_when_told_to() {
    let graph = text::parse_graph(
        "func @main(%x: f32[8]) -> (y: f32[8]) {
          %y = for %x {count = 1000000000} do (%n: i64[], %v: f32[8]) { %w = exp %v yield %w }
          return %y }",
    )
    .expect("the source is right");
    let module = common::module(&graph, pipeline::DEFAULT, true, None);
    let executable = systole_host::compile(&module, &Options::default()).expect("it compiles");
    let inputs = [common::random(graph.entry().ty(graph.entry().body.params[0]), 1)];
    let asked = AtomicUsize::new(0);
    let cancelled = || asked.fetch_add(1, Ordering::Relaxed) > 1000;
    let options = RunOptions { cancelled: Some(&cancelled), ..RunOptions::default() };
    assert_eq!(executable.run(&inputs, &options), Err(HostError::Cancelled));
    let options = RunOptions { deadline: Some(Instant::now()), ..RunOptions::default() };
    assert_eq!(executable.run(&inputs, &options), Err(HostError::Deadline));
    let wrong = [common::random(
        &systole_compiler::types::TensorType::new(systole_compiler::types::DType::F32, &[9]),
        1,
    )];
    assert!(matches!(executable.run(&wrong, &RunOptions::default()), Err(HostError::Input(_))));
}
