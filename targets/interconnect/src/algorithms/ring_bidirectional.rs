//! Two rings, one each way, each with half the data: for links that work both ways at once.

use super::{Algorithm, Round, Strand, Task, Transfer, ring};
use crate::cost::Load;
use crate::kind::Kind;
use crate::system::TierKind;

pub(super) const ALGORITHM: Algorithm = Algorithm {
    name: "ring-bidirectional",
    summary: "Two rings, one each way, each with half the data.",
    load,
    strands,
};

fn applies(task: &Task<'_>) -> Result<(), &'static str> {
    let lane = task.lane()?;
    if lane.tier.kind != TierKind::Torus {
        return Err("a port into a switch gains nothing from a second ring");
    }
    if lane.spans.iter().any(|span| !span.both_ways) {
        return Err("links go one way only");
    }
    if task.ranks < 3 {
        return Err("two ranks have one link between them");
    }
    // The way back from the end of an open line would use the links of the other ring.
    if !closes(task) {
        return Err("the axes do not close to a ring");
    }
    match task.kind {
        Kind::AllReduce | Kind::AllGather | Kind::ReduceScatter => Ok(()),
        Kind::AllToAll | Kind::Broadcast | Kind::Permute | Kind::PointToPoint => {
            Err("it reduces and gathers")
        }
    }
}

/// Whether the last place of the ring's order is a neighbour of the first.
fn closes(task: &Task<'_>) -> bool {
    let [lane] = task.lanes else { return false };
    match lane.spans.as_slice() {
        [] => false,
        [span] => span.ring,
        [inner @ .., last] => last.ring && (last.count.is_multiple_of(2) || inner.is_empty()),
    }
}

fn load(task: &Task<'_>) -> Result<Load, &'static str> {
    applies(task)?;
    let lane = task.lane()?;
    let half = if task.kind == Kind::AllReduce { 2 } else { 1 };
    let part = task.bytes / task.ranks as f64;
    let load = Load::steps(lane, half * (task.ranks as u64 - 1), part / 2.0);
    let load = Load { peers: 2, wire_bytes: 2.0 * load.wire_bytes, ..load };
    Ok(load.locally(task.kind, task.bytes, task.ranks))
}

fn strands(task: &Task<'_>) -> Result<Vec<Strand>, &'static str> {
    applies(task)?;
    let half = Task { bytes: task.bytes / 2.0, ..*task };
    let forth = (ring::ALGORITHM.strands)(&half)?;
    let turned =
        |transfer: &Transfer| Transfer { from: transfer.to, to: transfer.from, ..*transfer };
    let back = forth.iter().map(|strand| Strand {
        rounds: strand
            .rounds
            .iter()
            .map(|round| Round {
                transfers: round.transfers.iter().map(turned).collect(),
                ..round.clone()
            })
            .collect(),
    });
    let back: Vec<Strand> = back.collect();
    Ok(forth.into_iter().chain(back).collect())
}
