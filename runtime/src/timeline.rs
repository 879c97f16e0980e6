//! One timeline of a program that ranks run together: what each rank computes when, what they exchange when, and what the
//! time of the whole is made of. Ranks of one program are alike, and one of them stands for all.

use crate::carrier::Carried;
use crate::profile::Profile;
use std::collections::BTreeMap;

/// The time of one run on ranks.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Timeline {
    /// What ranks compute on.
    pub target: String,
    /// What carries their exchanges.
    pub system: String,
    /// The mesh, as `dp=2,tp=4`.
    pub mesh: String,
    /// How many ranks there are.
    pub ranks: usize,
    /// From the call to the last completion.
    pub time_us: f64,
    /// Each program that ranks run, with those that run it.
    pub programs: Vec<RankTimeline>,
    /// What the time is made of: along the chain of calls and exchanges that each waited for the one before. The parts add
    /// up to the time.
    pub path: Vec<PathPart>,
    /// How long the simulation took.
    pub simulate_ms: f64,
}

/// What the ranks of one program do.
#[derive(Clone, Debug, PartialEq)]
pub struct RankTimeline {
    /// Who they are.
    pub ranks: Vec<usize>,
    /// From the call to their own last completion.
    pub time_us: f64,
    /// How long exchanges are under way.
    pub exchange_us: f64,
    /// Of that, how long nothing is computed.
    pub exposed_us: f64,
    /// Calls of kernels and exchanges, in the order of the program.
    pub spans: Vec<Span>,
    /// The time of the core; `None` for roofline devices.
    pub profile: Option<Profile>,
}

/// A call or an exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The kernel's name, or the exchange's.
    pub name: String,
    /// The source nodes.
    pub origins: Vec<String>,
    /// When it began.
    pub start_us: f64,
    /// When it was complete.
    pub end_us: f64,
    /// What it was busy with: an engine, `dma`, `latency`, `compute`, `memory`, or the kind of the exchange.
    pub cause: &'static str,
    /// The spans of the same program that it waited for.
    pub needs: Vec<usize>,
    /// Where it is an exchange.
    pub exchange: Option<ExchangeSpan>,
}

/// What is exchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeSpan {
    /// When this rank was ready; others may come later.
    pub ready_us: f64,
    /// Bytes that the rank gives.
    pub bytes: usize,
    /// Who takes part.
    pub group: Vec<usize>,
    /// How.
    pub algorithm: String,
}

/// A part of the time.
#[derive(Clone, Debug, PartialEq)]
pub struct PathPart {
    /// What it goes to, as [`Span::cause`]; `start` before anything begins.
    pub cause: String,
    /// Whether it is an exchange.
    pub exchange: bool,
    /// How much of the time.
    pub time_us: f64,
}

impl Span {
    /// A span of an exchange.
    pub(crate) fn of_exchange(carried: &Carried, origins: Vec<String>, needs: Vec<usize>) -> Span {
        Span {
            name: carried.kind.to_owned(),
            origins,
            start_us: carried.start_us,
            end_us: carried.end_us,
            cause: carried.kind,
            needs,
            exchange: Some(ExchangeSpan {
                ready_us: carried.ready_us,
                bytes: carried.operand.bytes(),
                group: carried.group.clone(),
                algorithm: carried.algorithm.clone(),
            }),
        }
    }
}

impl RankTimeline {
    pub(crate) fn new(ranks: Vec<usize>, spans: Vec<Span>, profile: Option<Profile>) -> Self {
        let time_us = spans.iter().map(|span| span.end_us).fold(0.0, f64::max);
        let time_us = profile.as_ref().map_or(time_us, |profile| profile.time_us);
        let (exchanges, calls): (Vec<&Span>, Vec<&Span>) =
            spans.iter().partition(|span| span.exchange.is_some());
        let exchange_us =
            exchanges.iter().map(|span| span.end_us - span.start_us).fold(0.0, |a, b| a + b);
        let computing = union(&calls);
        let exposed_us = exchanges
            .iter()
            .map(|span| -> f64 {
                let hidden: f64 = computing
                    .iter()
                    .map(|&(start, end)| (end.min(span.end_us) - start.max(span.start_us)).max(0.0))
                    .sum();
                span.end_us - span.start_us - hidden
            })
            .fold(0.0, |a, b| a + b);
        RankTimeline { ranks, time_us, exchange_us, exposed_us, spans, profile }
    }
}

/// When anything is computed, in order and without overlap.
fn union(calls: &[&Span]) -> Vec<(f64, f64)> {
    let mut all: Vec<(f64, f64)> = calls.iter().map(|span| (span.start_us, span.end_us)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut joined: Vec<(f64, f64)> = Vec::new();
    for (start, end) in all {
        match joined.last_mut().filter(|last| start <= last.1) {
            Some(last) => last.1 = last.1.max(end),
            None => joined.push((start, end)),
        }
    }
    joined
}

/// Times that are closer than this are one.
const SAME_US: f64 = 1e-4;

/// What the time is made of: from the last completion back, each time to what was waited for.
pub(crate) fn path(programs: &[RankTimeline]) -> Vec<PathPart> {
    let mut parts: BTreeMap<(bool, String), f64> = BTreeMap::new();
    let last = (0..programs.len())
        .max_by(|&a, &b| programs[a].time_us.total_cmp(&programs[b].time_us))
        .filter(|&program| !programs[program].spans.is_empty());
    let Some(mut program) = last else { return Vec::new() };
    let mut now = programs[program].time_us;
    let mut at = latest(&programs[program].spans, programs[program].spans.len(), now);
    let count: usize = programs.iter().map(|program| program.spans.len()).sum();
    // Each step goes back in the program or to another one that was earlier; more steps than spans cannot be.
    for _ in 0..=2 * count {
        let Some(place) = at else { break };
        let span = &programs[program].spans[place];
        let before = latest_of(&programs[program].spans, place, now);
        let mut since = match before {
            Some(before) => programs[program].spans[before].end_us.min(now),
            None => span.start_us.min(now),
        };
        let mut next = (program, before);
        if let Some(exchange) = &span.exchange {
            // Where others came later, it was they that were waited for.
            if span.start_us > exchange.ready_us + SAME_US
                && let Some((other, their)) = last_to_come(programs, program, span)
            {
                since = span.start_us.min(now);
                next = (other, latest_of(&programs[other].spans, their, since));
            } else {
                since = since.max(exchange.ready_us.min(now));
            }
        }
        *parts.entry((span.exchange.is_some(), span.cause.to_owned())).or_default() += now - since;
        now = since;
        (program, at) = next;
    }
    if now > SAME_US {
        *parts.entry((false, "start".to_owned())).or_default() += now;
    }
    let mut parts: Vec<PathPart> = parts
        .into_iter()
        .filter(|(_, time_us)| *time_us > 0.0)
        .map(|((exchange, cause), time_us)| PathPart { cause, exchange, time_us })
        .collect();
    parts.sort_by(|a, b| b.time_us.total_cmp(&a.time_us).then_with(|| a.cause.cmp(&b.cause)));
    parts
}

/// The last of the first `count` spans to be complete, of those that are by then.
fn latest(spans: &[Span], count: usize, now: f64) -> Option<usize> {
    (0..count)
        .filter(|&at| spans[at].end_us <= now + SAME_US)
        .max_by(|&a, &b| spans[a].end_us.total_cmp(&spans[b].end_us).then(a.cmp(&b)))
}

/// What a span waited for last: what it needs, or what is before it on its engines.
fn latest_of(spans: &[Span], at: usize, now: f64) -> Option<usize> {
    /// Calls further back than this have left the engines.
    const NEAR: usize = 16;
    let span = &spans[at];
    let alike = |other: &usize| spans[*other].exchange.is_some() == span.exchange.is_some();
    let near = (at.saturating_sub(NEAR)..at).filter(alike);
    near.chain(span.needs.iter().copied().filter(|&other| other < at))
        .filter(|&other| spans[other].end_us <= now + SAME_US)
        .max_by(|&a, &b| spans[a].end_us.total_cmp(&spans[b].end_us).then(a.cmp(&b)))
}

/// Which other program was ready for an exchange just when it began.
fn last_to_come(programs: &[RankTimeline], own: usize, span: &Span) -> Option<(usize, usize)> {
    (0..programs.len()).filter(|&other| other != own).find_map(|other| {
        let theirs = &programs[other].spans;
        let found = theirs.iter().position(|their| {
            their.cause == span.cause
                && their
                    .exchange
                    .as_ref()
                    .is_some_and(|exchange| (exchange.ready_us - span.start_us).abs() <= SAME_US)
        });
        found.map(|place| (other, place))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, start_us: f64, end_us: f64, needs: &[usize]) -> Span {
        Span {
            name: name.to_owned(),
            origins: Vec::new(),
            start_us,
            end_us,
            cause: "tensor",
            needs: needs.to_vec(),
            exchange: None,
        }
    }

    fn exchange(ready_us: f64, start_us: f64, end_us: f64, needs: &[usize]) -> Span {
        let exchange =
            ExchangeSpan { ready_us, bytes: 8, group: vec![0, 1], algorithm: "ring".to_owned() };
        let span = call("permute", start_us, end_us, needs);
        Span { cause: "permute", exchange: Some(exchange), ..span }
    }

    fn shares(programs: &[RankTimeline]) -> Vec<(String, f64)> {
        path(programs).into_iter().map(|part| (part.cause, part.time_us)).collect()
    }

    #[test]
    fn what_hides_behind_computation_is_not_on_the_path() {
        let spans = vec![
            call("a", 0.0, 10.0, &[]),
            exchange(10.0, 10.0, 14.0, &[0]),
            call("b", 10.0, 20.0, &[0]),
            call("c", 20.0, 25.0, &[1, 2]),
        ];
        let one = RankTimeline::new(vec![0, 1], spans, None);
        assert_eq!((one.exchange_us, one.exposed_us), (4.0, 0.0));
        assert_eq!(shares(&[one]), [("tensor".to_owned(), 25.0)]);
    }

    #[test]
    fn what_is_waited_for_is_on_the_path() {
        let spans = vec![
            call("a", 1.0, 10.0, &[]),
            exchange(10.0, 10.0, 14.0, &[0]),
            call("b", 14.0, 20.0, &[1]),
        ];
        let one = RankTimeline::new(vec![0, 1], spans, None);
        assert_eq!(one.exposed_us, 4.0);
        let expected =
            [("tensor".to_owned(), 15.0), ("permute".to_owned(), 4.0), ("start".to_owned(), 1.0)];
        assert_eq!(shares(&[one]), expected);
    }

    #[test]
    fn the_path_leads_to_the_rank_that_came_last() {
        let first = vec![call("a", 0.0, 10.0, &[]), exchange(10.0, 10.0, 13.0, &[0])];
        let second = vec![exchange(0.0, 10.0, 13.0, &[]), call("b", 13.0, 18.0, &[0])];
        let programs =
            [RankTimeline::new(vec![0], first, None), RankTimeline::new(vec![1], second, None)];
        let expected = [("tensor".to_owned(), 15.0), ("permute".to_owned(), 3.0)];
        assert_eq!(shares(&programs), expected);
    }
}
