//! Looks for random graphs on which engines do not agree: `random [SECONDS [NODES [DEPTH [ENGINE]]]]`. Prints the
//! shortest graph of each kind of failure.
#![expect(clippy::print_stdout, reason = "a command prints what it found")]

use arbitrary::Unstructured;
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use systole_tests::engine::Engine;
use systole_tests::levels::Program;
use systole_tests::{random, suite};

/// What a check may take.
const LIMIT: Duration = Duration::from_secs(5);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: usize| {
        arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seconds, nodes, depth) = (number(0, 10), number(1, 3), number(2, 0));
    let engines: Vec<Engine> = match arguments.get(3) {
        Some(name) => Engine::ALL.into_iter().filter(|engine| engine.name() == name).collect(),
        None => Engine::ALL.into_iter().skip(1).collect(),
    };
    suite::silence_panics();
    let end = Instant::now() + Duration::from_secs(seconds as u64);
    let mut shortest: BTreeMap<String, (usize, String)> = BTreeMap::new();
    let mut graphs = 0;
    while Instant::now() < end {
        graphs += 1;
        let bytes = noise(graphs, 4096);
        let Ok(graph) = random::graph(&mut Unstructured::new(&bytes), nodes, depth) else {
            continue;
        };
        if let Err(problem) = check_within(&graph, &engines) {
            let entry = shortest.entry(kind(&problem)).or_insert((0, problem.clone()));
            entry.0 += 1;
            if problem.len() < entry.1.len() {
                entry.1 = problem;
            }
        }
    }
    for (count, problem) in shortest.values() {
        println!("---- {count} times\n{problem}");
    }
    println!("{graphs} graphs, {} kinds of failure", shortest.len());
}

/// A check that does not end keeps its thread, which the process's end stops.
fn check_within(graph: &Program, engines: &[Engine]) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    let (owned, engines) = (graph.clone(), engines.to_vec());
    std::thread::spawn(move || sender.send(random::check(&owned, &engines)));
    let outcome = receiver.recv_timeout(LIMIT);
    outcome.unwrap_or_else(|_| Err(format!("no end within {LIMIT:?}\n{}", graph.print_full())))
}

/// The start of the first line, numbers left out.
fn kind(problem: &str) -> String {
    let line = problem.lines().next().unwrap_or("");
    line.chars().filter(|sign| !sign.is_ascii_digit()).take(60).collect()
}

/// Bytes that depend on the seed alone.
fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}
