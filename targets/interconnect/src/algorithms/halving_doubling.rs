//! Recursive halving and doubling: exchanges with partners twice as far each time. Few steps, no byte too many; on a torus the
//! far exchanges share links.

use super::{Algorithm, Round, Strand, Task, Transfer};
use crate::cost::Load;
use crate::kind::Kind;
use crate::lane::{Lane, Span};
use crate::system::TierKind;

pub(super) const ALGORITHM: Algorithm = Algorithm {
    name: "halving-doubling",
    summary: "Exchanges with partners twice as far each time; for a power of two of ranks.",
    load,
    strands,
};

/// One exchange: how far apart partners are in places of the group, on which span, how far on it, and how much each sends.
struct Exchange<'a> {
    far: usize,
    span: &'a Span,
    along: usize,
    bytes: f64,
}

fn exchanges<'a>(task: &Task<'a>) -> Result<(&'a Lane<'a>, Vec<Exchange<'a>>), &'static str> {
    let lane = task.lane()?;
    if lane.spans.iter().any(|span| !span.count.is_power_of_two()) {
        return Err("it needs a power of two of ranks on every axis");
    }
    if lane.spans.iter().any(|span| !span.both_ways) {
        return Err("links go one way only");
    }
    let mut exchanges = Vec::new();
    let mut stride = 1;
    // The nearest partners exchange the most.
    let mut bytes = task.bytes / 2.0;
    for span in &lane.spans {
        let mut along = 1;
        while along < span.count {
            let whole = matches!(task.kind, Kind::AllToAll);
            let sent = if whole { task.bytes / 2.0 } else { bytes };
            exchanges.push(Exchange { far: stride * along, span, along, bytes: sent });
            along *= 2;
            bytes /= 2.0;
        }
        stride *= span.count;
    }
    match task.kind {
        Kind::ReduceScatter | Kind::AllToAll => {}
        Kind::AllGather => exchanges.reverse(),
        // A vector is scattered as partial sums are, from the one rank that has it, and gathered.
        Kind::AllReduce | Kind::Broadcast => {
            let back: Vec<Exchange<'a>> =
                exchanges.iter().rev().map(|one| Exchange { ..*one }).collect();
            exchanges.extend(back);
        }
        Kind::Permute | Kind::PointToPoint => {
            return Err("it reduces, gathers, exchanges and broadcasts");
        }
    }
    Ok((lane, exchanges))
}

/// How many messages cross the busiest link where all partners that far apart exchange.
fn sharing(lane: &Lane<'_>, span: &Span, along: usize) -> f64 {
    if lane.tier.kind != TierKind::Torus {
        return 1.0;
    }
    // Partners half a ring apart reach one another both ways, and use both.
    if span.ring && 2 * along == span.count && along > 1 {
        along as f64 / 2.0
    } else {
        along as f64
    }
}

fn load(task: &Task<'_>) -> Result<Load, &'static str> {
    let (lane, exchanges) = exchanges(task)?;
    let mut load = Load::steps(lane, 0, 0.0);
    let torus = lane.tier.kind == TierKind::Torus;
    for Exchange { span, along, bytes, .. } in &exchanges {
        load.steps += 1;
        let hops = if torus { (along * span.stride) as f64 } else { 1.0 };
        load.crossing_us += lane.tier.hop_us * lane.tier.crossings * hops;
        load.line_us += bytes * sharing(lane, span, *along) / (span.gbs * 1e3);
        load.wire_bytes += bytes;
    }
    Ok(load.locally(task.kind, task.bytes, task.ranks))
}

fn strands(task: &Task<'_>) -> Result<Vec<Strand>, &'static str> {
    let (_, exchanges) = exchanges(task)?;
    let adding = match task.kind {
        Kind::AllReduce => exchanges.len() / 2,
        Kind::ReduceScatter => exchanges.len(),
        Kind::AllGather | Kind::AllToAll | Kind::Broadcast | Kind::Permute | Kind::PointToPoint => {
            0
        }
    };
    // Who has a part of the vector that is scattered.
    let mut holders = vec![0u32];
    let rounds = exchanges.iter().enumerate().map(|(at, exchange)| {
        let partner = |from: u32| from ^ exchange.far as u32;
        let one = |from: u32| Transfer { from, to: partner(from), bytes: exchange.bytes };
        let transfers: Vec<Transfer> = if task.kind == Kind::Broadcast && 2 * at < exchanges.len() {
            let transfers: Vec<Transfer> = holders.iter().map(|&from| one(from)).collect();
            holders.extend(transfers.iter().map(|transfer| transfer.to));
            transfers
        } else {
            (0..task.ranks as u32).map(one).collect()
        };
        Round { repeat: 1, transfers, adds: at < adding }
    });
    Ok(vec![Strand { rounds: rounds.collect() }])
}
