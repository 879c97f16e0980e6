//! The ring: each rank passes parts on to the next. It moves no byte too many, and takes a step for every rank.

use super::{Algorithm, Round, Strand, Task, Transfer};
use crate::cost::Load;
use crate::kind::Kind;
use crate::lane::Span;
use crate::system::TierKind;

pub(super) const ALGORITHM: Algorithm = Algorithm {
    name: "ring",
    summary: "Parts go round, one step for each rank; no byte is moved twice over a link.",
    load,
    strands,
};

/// Steps, and bytes in each.
fn steps(task: &Task<'_>) -> Result<(u64, f64), &'static str> {
    let ranks = task.ranks as u64;
    let part = task.bytes / task.ranks as f64;
    match task.kind {
        Kind::AllReduce => Ok((2 * (ranks - 1), part)),
        Kind::AllGather | Kind::ReduceScatter => Ok((ranks - 1, part)),
        Kind::Broadcast => Ok((ranks - 1, task.bytes)),
        Kind::AllToAll | Kind::Permute | Kind::PointToPoint => {
            Err("parts that go to different ranks are sent directly")
        }
    }
}

fn load(task: &Task<'_>) -> Result<Load, &'static str> {
    let (steps, bytes) = steps(task)?;
    // Of a group that is no sub-mesh, and of one over several tiers, the slowest part is what all wait for.
    let loads = task.lanes.iter().map(|lane| {
        let load = Load::steps(lane, steps, bytes);
        // The way back from the last to the first may be longer than the others; each part takes it at most so often.
        let times = steps.div_ceil(task.ranks as u64) as f64;
        let longer = closing_hops(&lane.spans).saturating_sub(farthest_stride(&lane.spans)) as f64;
        let more_us = if lane.tier.kind == TierKind::Torus && task.kind != Kind::Broadcast {
            times * longer * lane.tier.hop_us * lane.tier.crossings
        } else {
            0.0
        };
        Load { crossing_us: load.crossing_us + more_us, ..load }
    });
    let slowest = loads.reduce(|a, b| Load {
        crossing_us: a.crossing_us.max(b.crossing_us),
        line_us: a.line_us.max(b.line_us),
        ..b
    });
    let mut load = slowest.ok_or("there is no group")?;
    if task.kind == Kind::Broadcast {
        // The vector goes through in as many parts as there are steps, so that all links work at once: it takes twice the time
        // of one link.
        let parts = (steps as f64).max(1.0);
        load.line_us *= (2.0 * parts - 1.0) / (parts * parts);
        load.wire_bytes = task.bytes * (2.0 * parts - 1.0) / parts;
    }
    Ok(load.locally(task.kind, task.bytes, task.ranks))
}

fn strands(task: &Task<'_>) -> Result<Vec<Strand>, &'static str> {
    let (steps, bytes) = steps(task)?;
    let order = order(task);
    let next = |at: usize, bytes: f64| Transfer {
        from: order[at % order.len()],
        to: order[(at + 1) % order.len()],
        bytes,
    };
    if task.kind == Kind::Broadcast {
        let parts = steps as usize;
        let rounds = (0..2 * parts - 1).map(|round| {
            // In round r, place p passes part r - p on.
            let active = (0..parts).filter(|place| *place <= round && round - place < parts);
            let transfers = active.map(|place| next(place, bytes / parts as f64)).collect();
            Round { repeat: 1, transfers, adds: false }
        });
        return Ok(vec![Strand { rounds: rounds.collect() }]);
    }
    let transfers: Vec<Transfer> = (0..order.len()).map(|at| next(at, bytes)).collect();
    let half = (order.len() - 1) as u32;
    let round = |adds| Round { repeat: half, transfers: transfers.clone(), adds };
    let rounds = match task.kind {
        Kind::AllReduce => vec![round(true), round(false)],
        Kind::ReduceScatter => vec![round(true)],
        Kind::AllGather | Kind::AllToAll | Kind::Broadcast | Kind::Permute | Kind::PointToPoint => {
            vec![round(false)]
        }
    };
    Ok(vec![Strand { rounds }])
}

/// The places in an order in which, on a torus, each is the neighbour of the one before: forth along the first axis, back
/// along it one further on the next.
pub(super) fn order(task: &Task<'_>) -> Vec<u32> {
    let [lane] = task.lanes else { return (0..task.ranks as u32).collect() };
    if lane.tier.kind != TierKind::Torus || lane.count() != task.ranks {
        return (0..task.ranks as u32).collect();
    }
    let counts: Vec<usize> = lane.spans.iter().map(|span| span.count).collect();
    let mut order = vec![0u32];
    let mut stride = 1;
    for count in counts {
        let line = order.clone();
        for at in 1..count {
            let far = (at * stride) as u32;
            if at % 2 == 0 {
                order.extend(line.iter().map(|place| place + far));
            } else {
                order.extend(line.iter().rev().map(|place| place + far));
            }
        }
        stride *= count;
    }
    order
}

fn farthest_stride(spans: &[Span]) -> usize {
    spans.iter().map(|span| span.stride).max().unwrap_or(1)
}

/// How many links lie between the last place of [`order`] and the first.
fn closing_hops(spans: &[Span]) -> usize {
    let Some((last, inner)) = spans.split_last() else { return 0 };
    let own = if last.ring { last.stride } else { (last.count - 1) * last.stride };
    // An odd number of lines ends at the far end of the last one.
    if last.count.is_multiple_of(2) { own } else { own + closing_hops(inner) }
}
