//! One step: every rank sends its whole vector to every other, and each adds all. For the smallest of vectors.

use super::{Algorithm, Round, Strand, Task, direct, shift};
use crate::cost::Load;
use crate::kind::Kind;

pub(super) const ALGORITHM: Algorithm = Algorithm {
    name: "one-step",
    summary: "Everyone sends all to everyone: one step and as many times the bytes as there are ranks.",
    load,
    strands,
};

fn applies(task: &Task<'_>) -> Result<(), &'static str> {
    if task.kind == Kind::AllReduce { Ok(()) } else { Err("it reduces to all") }
}

fn load(task: &Task<'_>) -> Result<Load, &'static str> {
    applies(task)?;
    let ranks = task.ranks as f64;
    // An exchange in which every part is the whole vector.
    let exchange = Task { kind: Kind::AllToAll, bytes: task.bytes * ranks, ..*task };
    let load = (direct::ALGORITHM.load)(&exchange)?;
    Ok(Load { reduced_bytes: task.bytes * (ranks - 1.0), copied_bytes: task.bytes, ..load })
}

fn strands(task: &Task<'_>) -> Result<Vec<Strand>, &'static str> {
    applies(task)?;
    let transfers = (1..task.ranks).flat_map(|by| shift(task.ranks, by, task.bytes)).collect();
    Ok(vec![Strand { rounds: vec![Round { repeat: 1, transfers, adds: true }] }])
}
