//! The torus: one axis after another, both ways round each; as many copies of that as there are axes, each beginning with
//! another one, so that all links work.

use super::{Algorithm, Round, Strand, Task, Transfer};
use crate::cost::Load;
use crate::kind::Kind;
use crate::lane::{Lane, Span};
use crate::system::TierKind;

pub(super) const ALGORITHM: Algorithm = Algorithm {
    name: "torus",
    summary: "Rings along every axis at once, both ways, each axis carrying its part of the data.",
    load,
    strands,
};

fn applies<'a>(task: &Task<'a>) -> Result<&'a Lane<'a>, &'static str> {
    let lane = task.lane()?;
    if lane.tier.kind != TierKind::Torus {
        return Err("it needs a torus");
    }
    if lane.spans.iter().any(|span| !span.both_ways) {
        return Err("links go one way only");
    }
    match task.kind {
        Kind::AllReduce | Kind::AllGather | Kind::ReduceScatter => Ok(lane),
        Kind::AllToAll | Kind::Broadcast | Kind::Permute | Kind::PointToPoint => {
            Err("it reduces and gathers")
        }
    }
}

/// The gathers of one copy, in order: which span, and what each member has before it.
fn gathers(lane: &Lane<'_>, copy: usize, bytes: f64) -> Vec<(usize, f64)> {
    let axes = lane.spans.len();
    let mut part = bytes / lane.count() as f64;
    (0..axes)
        .map(|phase| {
            let at = (copy + phase) % axes;
            let before = part;
            part *= lane.spans[at].count as f64;
            (at, before)
        })
        .collect()
}

/// Steps of a gather along one axis, and the bytes that a link carries in all of them.
fn axis(span: &Span, part: f64) -> (usize, f64) {
    if span.ring && span.count > 2 {
        (span.count / 2, part * (span.count - 1) as f64 / 2.0)
    } else {
        (span.count - 1, part * (span.count - 1) as f64)
    }
}

/// The part of the data that each copy gets, so that all end together.
fn shares(lane: &Lane<'_>) -> Vec<f64> {
    let time = |copy| -> f64 {
        let gathers = gathers(lane, copy, 1.0);
        gathers.iter().map(|&(at, part)| axis(&lane.spans[at], part).1 / lane.spans[at].gbs).sum()
    };
    let speeds: Vec<f64> = (0..lane.spans.len()).map(|copy| 1.0 / time(copy)).collect();
    let all: f64 = speeds.iter().sum();
    speeds.into_iter().map(|speed| speed / all).collect()
}

fn load(task: &Task<'_>) -> Result<Load, &'static str> {
    let lane = applies(task)?;
    let mut load = Load::steps(lane, 0, 0.0);
    let mut busy = vec![0.0f64; lane.spans.len()];
    for (copy, share) in shares(lane).into_iter().enumerate() {
        let (mut steps, mut crossing_us, mut line_us) = (0, 0.0, 0.0);
        for (at, part) in gathers(lane, copy, share * task.bytes) {
            let span = &lane.spans[at];
            let (more, bytes) = axis(span, part);
            steps += more as u64;
            let hops = (more * span.stride) as f64;
            crossing_us += hops * lane.tier.hop_us * lane.tier.crossings;
            line_us += bytes / (span.gbs * 1e3);
            busy[at] += bytes / (span.gbs * 1e3);
            load.wire_bytes += part * (span.count - 1) as f64;
        }
        load.steps = load.steps.max(steps);
        load.crossing_us = load.crossing_us.max(crossing_us);
        load.line_us = load.line_us.max(line_us);
    }
    // Where axes differ, the slower one may have more to carry than any copy has alone.
    load.line_us = busy.into_iter().fold(load.line_us, f64::max);
    load.peers = lane.spans.iter().map(|span| if span.count > 2 { 2 } else { 1 }).sum();
    if task.kind == Kind::AllReduce {
        load.steps *= 2;
        load.crossing_us *= 2.0;
        load.line_us *= 2.0;
        load.wire_bytes *= 2.0;
    }
    Ok(load.locally(task.kind, task.bytes, task.ranks))
}

fn strands(task: &Task<'_>) -> Result<Vec<Strand>, &'static str> {
    let lane = applies(task)?;
    let copies = shares(lane).into_iter().enumerate().map(|(copy, share)| {
        let gathers = gathers(lane, copy, share * task.bytes);
        let out = gathers.iter().flat_map(|&(at, part)| line(lane, at, part));
        let mut out: Vec<Round> = out.collect();
        let back = out.iter().rev().map(|round| Round { adds: true, ..round.clone() });
        let back: Vec<Round> = back.collect();
        let rounds = match task.kind {
            Kind::ReduceScatter => back,
            Kind::AllReduce => {
                let mut rounds = back;
                rounds.append(&mut out);
                rounds
            }
            Kind::AllGather
            | Kind::AllToAll
            | Kind::Broadcast
            | Kind::Permute
            | Kind::PointToPoint => out,
        };
        Strand { rounds }
    });
    Ok(copies.collect())
}

/// The rounds of a gather along one axis, on all lines of the group at once.
fn line(lane: &Lane<'_>, at: usize, part: f64) -> Vec<Round> {
    let span = &lane.spans[at];
    let stride: usize = lane.spans[..at].iter().map(|span| span.count).product();
    let k = span.count;
    let move_by = |forth: bool, bytes: f64| -> Vec<Transfer> {
        let one = |from: usize| {
            let place = from / stride % k;
            let to = match (forth, span.ring) {
                (true, true) => (place + 1) % k,
                (false, true) => (place + k - 1) % k,
                (true, false) => (place + 1 < k).then_some(place + 1)?,
                (false, false) => place.checked_sub(1)?,
            };
            let to = from - place * stride + to * stride;
            Some(Transfer { from: from as u32, to: to as u32, bytes })
        };
        (0..lane.count()).filter_map(one).collect()
    };
    let round = |repeat: usize, ways: &[bool], bytes: f64| Round {
        repeat: repeat as u32,
        transfers: ways.iter().flat_map(|&forth| move_by(forth, bytes)).collect(),
        adds: false,
    };
    if k == 2 {
        // Both ways round are the same link.
        let one = |from: usize| {
            let place = from / stride % 2;
            let to = from - place * stride + (1 - place) * stride;
            Transfer { from: from as u32, to: to as u32, bytes: part }
        };
        let transfers = (0..lane.count()).map(one).collect();
        return vec![Round { repeat: 1, transfers, adds: false }];
    }
    if !span.ring {
        return vec![round(k - 1, &[true, false], part)];
    }
    // Whole parts both ways; where one is left, half of it each way.
    let mut rounds = vec![round((k - 1) / 2, &[true, false], part)];
    if k.is_multiple_of(2) {
        rounds.push(round(1, &[true, false], part / 2.0));
    }
    rounds
}
