//! Direct: every rank sends to every other at once, in one step (two where it reduces first and gathers then).

use super::{Algorithm, Round, Strand, Task, Transfer, shift};
use crate::cost::Load;
use crate::kind::Kind;
use crate::lane::{Lane, Span};
use crate::system::TierKind;

pub(super) const ALGORITHM: Algorithm = Algorithm {
    name: "direct",
    summary: "Everyone sends to everyone at once: one step, or two to reduce and gather.",
    load,
    strands,
};

fn load(task: &Task<'_>) -> Result<Load, &'static str> {
    let Some(outer) = task.lanes.last() else { return Err("there is no group") };
    let ranks = task.ranks as f64;
    let mut load = Load::steps(outer, 1, 0.0);
    load.crossing_us = task.lanes.iter().map(Lane::farthest_us).fold(0.0, f64::max);
    match task.kind {
        Kind::Broadcast => {
            let one = |lane: &Lane<'_>| root_us(lane, task.bytes);
            load.line_us = task.lanes.iter().map(one).fold(0.0, f64::max);
            load.wire_bytes = task.bytes * (ranks - 1.0);
            load.peers = task.ranks as u64 - 1;
            load.direct = true;
        }
        Kind::Permute => {
            let one = |lane: &Lane<'_>| next(lane, task.bytes).1;
            load.line_us = task.lanes.iter().map(one).fold(0.0, f64::max);
            load.crossing_us = task.lanes.iter().map(|lane| next(lane, 1.0).0).fold(0.0, f64::max);
            load.wire_bytes = task.bytes;
        }
        Kind::PointToPoint => {
            // The first to the last, along one axis after another.
            let gbs = task.lanes.iter().flat_map(|lane| &lane.spans).map(|span| span.gbs);
            load.line_us = task.bytes / (gbs.fold(f64::INFINITY, f64::min) * 1e3);
            load.crossing_us = task.lanes.iter().map(last_us).sum();
            load.wire_bytes = task.bytes;
        }
        Kind::AllReduce | Kind::AllGather | Kind::ReduceScatter | Kind::AllToAll => {
            // What leaves for members of a tier: as much as there are ranks behind them.
            let mut below = 1.0;
            for lane in task.lanes {
                let reach = (below * lane.count() as f64).min(ranks);
                load.line_us = load.line_us.max(exchange_us(lane, task.bytes * reach / ranks));
                below = reach;
            }
            load.wire_bytes = task.bytes * (ranks - 1.0) / ranks;
            load.peers = task.ranks as u64 - 1;
            load.direct = true;
            if task.kind == Kind::AllReduce {
                load.steps = 2;
                load.crossing_us *= 2.0;
                load.line_us *= 2.0;
                load.wire_bytes *= 2.0;
            }
        }
    }
    Ok(load.locally(task.kind, task.bytes, task.ranks))
}

/// Crossings from the first member of a lane to its last.
fn last_us(lane: &Lane<'_>) -> f64 {
    let torus = lane.tier.kind == TierKind::Torus;
    let hops = |span: &Span| match (torus, span.ring && span.both_ways) {
        (false, _) => 1,
        (true, true) => span.stride,
        (true, false) => (span.count - 1) * span.stride,
    };
    let hops: usize = lane.spans.iter().map(hops).sum();
    lane.tier.hop_us * lane.tier.crossings * hops as f64
}

/// Crossings and link time of everyone sending to the next: along the first axis, and for the last of it further on the next.
fn next(lane: &Lane<'_>, bytes: f64) -> (f64, f64) {
    if lane.tier.kind != TierKind::Torus {
        return (lane.tier.hop_us * lane.tier.crossings, bytes / (lane.spans[0].gbs * 1e3));
    }
    let hops: usize = lane
        .spans
        .iter()
        .map(|span| if span.ring { span.stride } else { (span.count - 1) * span.stride })
        .sum();
    let slowest = lane.spans.iter().map(|span| span.gbs).fold(f64::INFINITY, f64::min);
    (lane.tier.hop_us * lane.tier.crossings * hops as f64, bytes / (slowest * 1e3))
}

/// The busiest link where one member sends the whole to all others, each its own copy.
fn root_us(lane: &Lane<'_>, bytes: f64) -> f64 {
    let others = (lane.count() - 1) as f64;
    match lane.tier.kind {
        TierKind::Switch => bytes * others / (lane.spans[0].gbs * 1e3),
        TierKind::Mesh => bytes / (lane.spans[0].gbs * 1e3),
        // Dimension by dimension: what is not on the root's own line leaves over the first axis.
        TierKind::Torus => lane
            .spans
            .iter()
            .map(|span| {
                let rest = lane.count() / span.count;
                let side =
                    if span.ring && span.both_ways { span.count / 2 } else { span.count - 1 };
                bytes * (side * rest) as f64 / (span.gbs * 1e3)
            })
            .fold(0.0, f64::max),
    }
}

/// The busiest link where each of `bytes` leaves for any member with the same probability.
fn exchange_us(lane: &Lane<'_>, bytes: f64) -> f64 {
    let axis = |span: &Span| {
        let k = span.count as f64;
        let share = match lane.tier.kind {
            TierKind::Switch => (k - 1.0) / k,
            TierKind::Mesh => 1.0 / k,
            TierKind::Torus => match (span.ring, span.both_ways) {
                (true, true) if span.count == 2 => 0.5,
                // The mean distance, over two links a member.
                (true, true) if span.count.is_multiple_of(2) => k / 8.0,
                (true, true) => (k - 1.0 / k) / 8.0,
                (true, false) => (k - 1.0) / 2.0,
                // All from one half to the other, over one link.
                (false, _) => (span.count / 2 * span.count.div_ceil(2)) as f64 / k,
            },
        };
        bytes * share / (span.gbs * 1e3)
    };
    lane.spans.iter().map(axis).fold(0.0, f64::max)
}

fn strands(task: &Task<'_>) -> Result<Vec<Strand>, &'static str> {
    let ranks = task.ranks;
    let part = task.bytes / ranks as f64;
    let all = |bytes: f64| -> Vec<Transfer> {
        (1..ranks).flat_map(|by| shift(ranks, by, bytes)).collect()
    };
    let round = |transfers, adds| Round { repeat: 1, transfers, adds };
    let rounds = match task.kind {
        Kind::AllToAll | Kind::AllGather => vec![round(all(part), false)],
        Kind::ReduceScatter => vec![round(all(part), true)],
        Kind::AllReduce => vec![round(all(part), true), round(all(part), false)],
        Kind::Broadcast => {
            let one = |to: usize| Transfer { from: 0, to: to as u32, bytes: task.bytes };
            vec![round((1..ranks).map(one).collect(), false)]
        }
        Kind::Permute => vec![round(shift(ranks, 1, task.bytes), false)],
        Kind::PointToPoint => {
            let one = Transfer { from: 0, to: ranks as u32 - 1, bytes: task.bytes };
            vec![round(vec![one], false)]
        }
    };
    Ok(vec![Strand { rounds }])
}
