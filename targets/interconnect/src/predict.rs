//! Predictions: every algorithm that a system's library has, under every protocol, over every way to split a group into tiers;
//! the fastest is taken.

use crate::algorithms::{self, ALGORITHMS, Algorithm, HIERARCHICAL, Task};
use crate::cost::{Cost, Load, cost};
use crate::element::Element;
use crate::error::CollectiveError;
use crate::flow::{self, Job};
use crate::group::Group;
use crate::kind::Kind;
use crate::lane::{self, Lane, Lanes};
use crate::system::{Protocol, System};

/// What a question about a collective may fix.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The element type.
    pub element: Element,
    /// The algorithm; the one predicted fastest where absent or `auto`.
    pub algorithm: Option<String>,
    /// The protocol; the one predicted fastest where absent.
    pub protocol: Option<String>,
    /// In how many chunks, instead of the protocol's own number.
    pub chunks: Option<u32>,
}

impl Default for Options {
    fn default() -> Options {
        Options { element: Element::bf16(), algorithm: None, protocol: None, chunks: None }
    }
}

/// How long a collective takes, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// How long it takes.
    pub time_us: f64,
    /// The algorithm; of a hierarchical one, those of its phases.
    pub algorithm: String,
    /// The protocol; of a hierarchical one, those of its phases.
    pub protocol: String,
    /// Dependent steps.
    pub steps: u64,
    /// What most of the time goes to.
    pub bottleneck: String,
    /// What it is made of.
    pub cost: Cost,
    /// The least that the links allow, whatever the algorithm.
    pub link_bound_us: f64,
    /// Bytes that a rank sends over each tier of the system, innermost first.
    pub tier_bytes: Vec<f64>,
    /// The collective, its bytes and ranks.
    pub kind: Kind,
    /// The whole buffer.
    pub bytes: u64,
    /// How many ranks.
    pub ranks: usize,
}

impl Prediction {
    /// Bytes over time.
    pub fn algbw_gbs(&self) -> f64 {
        self.bytes as f64 / (self.time_us * 1e3)
    }

    /// What a port carries, as benchmarks report it.
    pub fn busbw_gbs(&self) -> f64 {
        self.algbw_gbs() * self.kind.bus_factor(self.ranks)
    }
}

/// Who says how long links are busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evaluator {
    /// A formula.
    Closed,
    /// The simulation of every transfer.
    Flow,
}

/// No buffer is larger.
pub(crate) const MAX_BYTES: u64 = 1 << 60;

/// Predicts a collective by the closed form. Groups of the same form, as a mesh has them side by side, are taken to work all at
/// once.
pub fn collective_time(
    system: &System,
    kind: Kind,
    group: &Group,
    bytes: u64,
    options: &Options,
) -> Result<Prediction, CollectiveError> {
    predict(system, kind, group, bytes, options, Evaluator::Closed)
}

pub(crate) fn predict(
    system: &System,
    kind: Kind,
    group: &Group,
    bytes: u64,
    options: &Options,
    evaluator: Evaluator,
) -> Result<Prediction, CollectiveError> {
    let lanes = lane::lanes(system, group)?;
    check(bytes, options)?;
    let question = Question { system, kind, bytes, options, lanes: &lanes, group, evaluator };
    let best = question.best()?;
    Ok(question.prediction(best))
}

/// The transfers of a collective that goes over its group in one piece, and what it takes besides them.
pub(crate) fn job(
    system: &System,
    kind: Kind,
    group: &Group,
    bytes: u64,
    options: &Options,
) -> Result<(Job, f64), CollectiveError> {
    let lanes = lane::lanes(system, group)?;
    check(bytes, options)?;
    let evaluator = Evaluator::Closed;
    let question = Question { system, kind, bytes, options, lanes: &lanes, group, evaluator };
    let name = options.algorithm.as_deref().filter(|name| *name != "auto");
    let answer = match name {
        Some(name) => question.flat(question.named(name)?)?,
        None => question.fastest(kind, bytes as f64, &lanes.lanes, lanes.ranks)?,
    };
    let algorithm = question.named(&answer.algorithm)?;
    let protocols =
        question.protocols(lanes.lanes.last().ok_or(CollectiveError::TooFewRanks(1))?)?;
    let protocol = protocols
        .iter()
        .find(|protocol| protocol.name == answer.protocol)
        .ok_or(CollectiveError::TooFewRanks(1))?;
    let lanes = &lanes.lanes;
    let job = question.transfers(algorithm, kind, bytes as f64, lanes, group.ranks(), protocol)?;
    let Cost { launch_us, local_us, fill_us, .. } = answer.cost;
    Ok((job, launch_us + local_us + fill_us))
}

pub(crate) fn check(bytes: u64, options: &Options) -> Result<(), CollectiveError> {
    if !(1..=MAX_BYTES).contains(&bytes) {
        return Err(CollectiveError::BadBytes(bytes));
    }
    match options.chunks {
        Some(chunks) if !(1..=65_536).contains(&chunks) => Err(CollectiveError::BadChunks(chunks)),
        Some(_) | None => Ok(()),
    }
}

/// The least time that the links allow, whatever the algorithm: of the chips behind a member of each tier, what must leave them
/// over all that they can send.
pub fn link_bound_us(
    system: &System,
    kind: Kind,
    group: &Group,
    bytes: u64,
) -> Result<f64, CollectiveError> {
    let lanes = lane::lanes(system, group)?;
    Ok(bound_us(kind, bytes as f64, &lanes))
}

fn bound_us(kind: Kind, bytes: f64, lanes: &Lanes<'_>) -> f64 {
    let ranks = lanes.ranks as f64;
    let mut below = 1.0;
    let mut bound: f64 = 0.0;
    for (at, lane) in lanes.lanes.iter().enumerate() {
        // All that leaves the chips behind one member of this tier crosses this tier or one further out.
        let outer = &lanes.lanes[at..];
        let rate = below * outer.iter().map(Lane::injection_gbs).sum::<f64>() * 1e3;
        let rest = (ranks - below) / ranks;
        let must = match kind {
            Kind::AllReduce if outer.iter().any(|lane| lane.tier.in_switch.is_some()) => bytes,
            Kind::AllReduce => 2.0 * rest * bytes,
            Kind::AllGather | Kind::ReduceScatter => rest * bytes,
            Kind::AllToAll => bytes * below * rest,
            // One rank's vector, if only from the last member to the next.
            Kind::Broadcast | Kind::Permute | Kind::PointToPoint => bytes,
        };
        bound = bound.max(must / rate);
        below *= lane.count() as f64;
        // Of a group that is no sub-mesh, members may have any number of ranks behind them.
        if !lanes.regular || below >= ranks {
            break;
        }
    }
    bound
}

struct Question<'q> {
    system: &'q System,
    kind: Kind,
    bytes: u64,
    options: &'q Options,
    lanes: &'q Lanes<'q>,
    group: &'q Group,
    evaluator: Evaluator,
}

/// One way to do it.
struct Answer {
    algorithm: String,
    protocol: String,
    steps: u64,
    cost: Cost,
    tier_bytes: Vec<(usize, f64)>,
    slowest: String,
}

impl Answer {
    fn total_us(&self) -> f64 {
        self.cost.total_us()
    }
}

impl Question<'_> {
    fn best(&self) -> Result<Answer, CollectiveError> {
        match self.options.algorithm.as_deref().filter(|name| *name != "auto") {
            Some(HIERARCHICAL) => self.hierarchical(),
            Some(name) => self.flat(self.named(name)?),
            None if self.evaluator == Evaluator::Closed => self.auto(),
            // What the closed form finds fastest is what is simulated.
            None => {
                let fastest = Question { evaluator: Evaluator::Closed, ..*self }.auto()?;
                match algorithms::named(&fastest.algorithm) {
                    Some(algorithm) => self.flat(algorithm),
                    None => self.hierarchical(),
                }
            }
        }
    }

    fn named(&self, name: &str) -> Result<&'static Algorithm, CollectiveError> {
        algorithms::named(name).ok_or_else(|| {
            let known = format!("auto, {}", algorithms::names());
            CollectiveError::UnknownAlgorithm { name: name.to_owned(), known }
        })
    }

    /// The chips of a group that lies on these tiers, in the order of places: of several side by side, the one with the least
    /// number.
    fn chips(&self, lanes: &[Lane<'_>]) -> Vec<u32> {
        let mut all = self.group.chips().to_vec();
        if lanes.len() == self.lanes.lanes.len() {
            // Places are in the order of chips where the group is a sub-mesh, and in its own order where it is not.
            if self.lanes.regular {
                all.sort_unstable();
            }
            return all;
        }
        let mut chips = vec![all.iter().copied().min().unwrap_or(0)];
        let mut stride = 1;
        for (index, tier) in self.system.tiers.iter().enumerate() {
            for (number, axis) in tier.axes.iter().enumerate() {
                let span = lanes
                    .iter()
                    .filter(|lane| lane.index == index)
                    .flat_map(|lane| &lane.spans)
                    .find(|span| span.axis == number);
                if let Some(span) = span {
                    let line = chips.clone();
                    let far = |at: usize| (at * span.stride * stride) as u32;
                    let places = (1..span.count).map(far);
                    chips.extend(places.flat_map(|far| line.iter().map(move |chip| chip + far)));
                }
                stride *= axis.size;
            }
        }
        chips
    }

    fn transfers(
        &self,
        algorithm: &'static Algorithm,
        kind: Kind,
        bytes: f64,
        lanes: &[Lane<'_>],
        ranks: usize,
        protocol: &Protocol,
    ) -> Result<Job, CollectiveError> {
        let task = Task { kind, bytes, lanes, ranks, protocol };
        let refused = |why| self.does_not_apply(algorithm.name, why);
        let load = (algorithm.load)(&task).map_err(refused)?;
        let strands = (algorithm.strands)(&task).map_err(refused)?;
        let outer = lanes.last().ok_or(CollectiveError::TooFewRanks(1))?;
        let mut efficiency =
            if load.direct { protocol.direct_efficiency } else { protocol.efficiency };
        if let Some(switch) = outer.tier.in_switch.as_ref().filter(|_| load.in_switch) {
            // Where the adders are slower than links, they are what messages go at.
            let links_us = load.line_us / switch.efficiency;
            let adders_us = load.reduced_bytes / (switch.adder_gbs * 1e3);
            efficiency = switch.efficiency * links_us / links_us.max(adders_us);
        }
        let most = protocol.flow_gbs.filter(|_| !load.in_switch);
        let peers_us = if load.direct { load.peers as f64 * protocol.peer_us } else { 0.0 };
        // Steps inside the switch count as one round.
        let rounds = if load.in_switch { load.steps as f64 } else { 1.0 };
        Ok(Job {
            chips: self.chips(lanes),
            strands,
            tier: outer.index,
            efficiency,
            most: most.map_or(f64::INFINITY, |rate| rate * 1e3 / efficiency),
            step_us: protocol.step_us * rounds + protocol.endpoint_us,
            before_us: peers_us + protocol.endpoint_us,
            chunks: protocol.chunks,
            order: protocol.order,
        })
    }

    fn does_not_apply(&self, algorithm: &'static str, why: &str) -> CollectiveError {
        CollectiveError::DoesNotApply {
            algorithm,
            kind: self.kind.name(),
            ranks: self.lanes.ranks,
            system: self.system.name.clone(),
            why: why.to_owned(),
        }
    }

    /// The protocols to try on a tier.
    fn protocols(&self, lane: &Lane<'_>) -> Result<Vec<Protocol>, CollectiveError> {
        let wanted = self.options.protocol.as_deref();
        let chunks = |protocol: &Protocol| Protocol {
            chunks: self.options.chunks.unwrap_or(protocol.chunks),
            ..protocol.clone()
        };
        let fits = |protocol: &&Protocol| wanted.is_none_or(|wanted| wanted == protocol.name);
        let all: Vec<Protocol> = lane.tier.protocols.iter().filter(fits).map(chunks).collect();
        if !all.is_empty() {
            return Ok(all);
        }
        let names: Vec<&str> =
            lane.tier.protocols.iter().map(|protocol| protocol.name.as_str()).collect();
        Err(CollectiveError::UnknownProtocol {
            name: wanted.unwrap_or_default().to_owned(),
            known: names.join(", "),
            system: self.system.name.clone(),
        })
    }

    /// An algorithm over the whole group, with the protocols of its outermost tier.
    fn flat(&self, algorithm: &'static Algorithm) -> Result<Answer, CollectiveError> {
        let Lanes { lanes, ranks, .. } = self.lanes;
        let bytes = self.bytes as f64;
        let answer = self.over(algorithm, self.kind, bytes, lanes, *ranks)?;
        self.evaluated(answer, self.kind, bytes, lanes, *ranks)
    }

    fn over(
        &self,
        algorithm: &'static Algorithm,
        kind: Kind,
        bytes: f64,
        lanes: &[Lane<'_>],
        ranks: usize,
    ) -> Result<Answer, CollectiveError> {
        let Some(outer) = lanes.last() else { return Err(CollectiveError::TooFewRanks(1)) };
        let mut best: Option<Answer> = None;
        for protocol in self.protocols(outer)? {
            let task = Task { kind, bytes, lanes, ranks, protocol: &protocol };
            let load =
                (algorithm.load)(&task).map_err(|why| self.does_not_apply(algorithm.name, why))?;
            if load.in_switch && !self.options.element.in_switch && kind.reduces() {
                let why = format!("the switch does not add {}", self.options.element.name);
                return Err(self.does_not_apply(algorithm.name, &why));
            }
            if load.direct && !protocol.direct && self.options.protocol.is_none() {
                continue;
            }
            let cost = cost(outer, &load, &protocol, self.options.element);
            let answer = Answer {
                algorithm: algorithm.name.to_owned(),
                protocol: protocol.name.clone(),
                steps: load.steps,
                tier_bytes: lanes
                    .iter()
                    .map(|lane| (lane.index, sent(&load, lane, lanes)))
                    .collect(),
                slowest: outer.tier.name.clone(),
                cost,
            };
            if best.as_ref().is_none_or(|best| answer.total_us() < best.total_us()) {
                best = Some(answer);
            }
        }
        best.ok_or_else(|| self.does_not_apply(algorithm.name, "no protocol is for it"))
    }

    /// The answer with the time on links as the evaluator has it.
    fn evaluated(
        &self,
        mut answer: Answer,
        kind: Kind,
        bytes: f64,
        lanes: &[Lane<'_>],
        ranks: usize,
    ) -> Result<Answer, CollectiveError> {
        if self.evaluator == Evaluator::Closed {
            return Ok(answer);
        }
        let outer = lanes.last().ok_or(CollectiveError::TooFewRanks(1))?;
        let protocols = self.protocols(outer)?;
        let protocol = protocols.iter().find(|protocol| protocol.name == answer.protocol);
        let protocol = protocol.ok_or(CollectiveError::TooFewRanks(1))?;
        let algorithm = self.named(&answer.algorithm)?;
        let job = self.transfers(algorithm, kind, bytes, lanes, ranks, protocol)?;
        let times = flow::times_us(self.system, std::slice::from_ref(&job))?;
        let time_us = times.into_iter().fold(0.0, f64::max);
        answer.cost.latency_us = answer.cost.latency_us.min(time_us);
        answer.cost.links_us = time_us - answer.cost.latency_us;
        Ok(answer)
    }

    /// The fastest of what the libraries of the outermost tier have.
    fn fastest(
        &self,
        kind: Kind,
        bytes: f64,
        lanes: &[Lane<'_>],
        ranks: usize,
    ) -> Result<Answer, CollectiveError> {
        let Some(outer) = lanes.last() else { return Err(CollectiveError::TooFewRanks(1)) };
        let mut best: Option<Answer> = None;
        let mut refused = None;
        for algorithm in ALGORITHMS.iter().filter(|one| lists(outer, kind, one.name)) {
            match self.over(algorithm, kind, bytes, lanes, ranks) {
                Ok(answer) => {
                    if best.as_ref().is_none_or(|best| answer.total_us() < best.total_us()) {
                        best = Some(answer);
                    }
                }
                Err(error) => refused = Some(error),
            }
        }
        best.ok_or_else(|| {
            refused.unwrap_or_else(|| self.does_not_apply("auto", "no algorithm does"))
        })
    }

    fn auto(&self) -> Result<Answer, CollectiveError> {
        let lanes = &self.lanes.lanes;
        let (bytes, ranks) = (self.bytes as f64, self.lanes.ranks);
        let flat = self.fastest(self.kind, bytes, lanes, ranks);
        if lanes.len() < 2 || !self.lanes.regular {
            return flat;
        }
        match (flat, self.hierarchical()) {
            (Ok(flat), Ok(split)) if flat.total_us() <= split.total_us() => Ok(flat),
            (Ok(_) | Err(_), Ok(split)) => Ok(split),
            (flat, Err(_)) => flat,
        }
    }

    /// Phase by phase: within the tiers below, then across, then within again.
    fn hierarchical(&self) -> Result<Answer, CollectiveError> {
        if self.lanes.lanes.len() < 2 {
            return Err(self.does_not_apply(HIERARCHICAL, "the group lies within one tier"));
        }
        if !self.lanes.regular {
            return Err(self.does_not_apply(HIERARCHICAL, "it needs a full sub-mesh"));
        }
        if self.kind == Kind::PointToPoint || self.kind == Kind::Permute {
            return Err(self.does_not_apply(HIERARCHICAL, "there is one message a rank"));
        }
        let phases = phases(self.kind, self.bytes as f64, &self.lanes.lanes);
        // Phases of one tier, in the order of tiers.
        let mut parts: Vec<Option<Answer>> = self.lanes.lanes.iter().map(|_| None).collect();
        for phase in phases {
            let lane = &self.lanes.lanes[phase.lane];
            let one = std::slice::from_ref(lane);
            let answer = self.fastest(phase.kind, phase.bytes, one, lane.count())?;
            let answer = self.evaluated(answer, phase.kind, phase.bytes, one, lane.count())?;
            parts[phase.lane] = Some(match parts[phase.lane].take() {
                Some(before) => then(before, answer),
                None => answer,
            });
        }
        // A switch that adds and copies does both parts of an all-reduce at once, and hands on the sums in between.
        if self.kind == Kind::AllReduce {
            let mut left = self.bytes as f64;
            let lanes = &self.lanes.lanes;
            for (part, lane) in parts.iter_mut().zip(lanes).take(lanes.len() - 1) {
                let one = std::slice::from_ref(lane);
                if lists(lane, Kind::AllReduce, IN_SWITCH)
                    && let Ok(answer) =
                        self.over(self.named(IN_SWITCH)?, Kind::AllReduce, left, one, lane.count())
                    && part.as_ref().is_none_or(|split| answer.total_us() < split.total_us())
                {
                    let kind = Kind::AllReduce;
                    *part = Some(self.evaluated(answer, kind, left, one, lane.count())?);
                }
                left /= lane.count() as f64;
            }
        }
        let mut whole: Option<Answer> = None;
        for (part, lane) in parts.into_iter().zip(&self.lanes.lanes) {
            let Some(part) = part else { continue };
            whole = Some(match whole {
                Some(below) => beside(below, part, lane.tier.overlap),
                None => part,
            });
        }
        let mut whole = whole.ok_or(CollectiveError::TooFewRanks(1))?;
        whole.algorithm = format!("{HIERARCHICAL}({})", whole.algorithm);
        Ok(whole)
    }

    fn prediction(&self, best: Answer) -> Prediction {
        let mut tier_bytes = vec![0.0; self.system.tiers.len()];
        for (tier, bytes) in &best.tier_bytes {
            tier_bytes[*tier] += bytes;
        }
        let link_bound_us = bound_us(self.kind, self.bytes as f64, self.lanes);
        Prediction {
            // Rounding alone could put it under the bound.
            time_us: best.total_us().max(link_bound_us),
            bottleneck: bottleneck(&best),
            algorithm: best.algorithm,
            protocol: best.protocol,
            steps: best.steps,
            cost: best.cost,
            link_bound_us,
            tier_bytes,
            kind: self.kind,
            bytes: self.bytes,
            ranks: self.lanes.ranks,
        }
    }
}

const IN_SWITCH: &str = "in-switch";

/// Whether a tier's library has an algorithm.
fn lists(lane: &Lane<'_>, kind: Kind, name: &str) -> bool {
    let listed = lane.tier.library.iter().find(|(of, _)| *of == kind);
    listed.is_none_or(|(_, names)| names.iter().any(|one| one == name))
}

/// What a rank sends over one of the tiers of a flat algorithm.
fn sent(load: &Load, lane: &Lane<'_>, lanes: &[Lane<'_>]) -> f64 {
    if lanes.len() == 1 {
        return load.wire_bytes;
    }
    // The part of the neighbours that are reached over this tier.
    let all: usize = lanes.iter().map(Lane::count).product();
    let below: usize =
        lanes.iter().take_while(|one| one.index < lane.index).map(Lane::count).product();
    let reach = below * lane.count();
    load.wire_bytes * (reach - below) as f64 / (all.max(2) - 1) as f64
}

/// One collective on one tier.
struct Phase {
    lane: usize,
    kind: Kind,
    bytes: f64,
}

/// What each tier does, in order. `bytes` of a phase count the whole buffer of the collective that it does.
fn phases(kind: Kind, bytes: f64, lanes: &[Lane<'_>]) -> Vec<Phase> {
    let last = lanes.len() - 1;
    // What is left of the buffer for each tier, once those below it have split it.
    let mut left = Vec::new();
    let mut rest = bytes;
    for lane in lanes {
        left.push(rest);
        rest /= lane.count() as f64;
    }
    let on = |lane: usize, kind: Kind| Phase { lane, kind, bytes: left[lane] };
    let mut phases = Vec::new();
    match kind {
        Kind::AllReduce => {
            phases.extend((0..last).map(|lane| on(lane, Kind::ReduceScatter)));
            phases.push(on(last, Kind::AllReduce));
            phases.extend((0..last).rev().map(|lane| on(lane, Kind::AllGather)));
        }
        Kind::ReduceScatter => phases.extend((0..=last).map(|lane| on(lane, kind))),
        Kind::AllGather => phases.extend((0..=last).rev().map(|lane| on(lane, kind))),
        // Parts for the same place on an outer tier travel together: each tier moves the whole once.
        Kind::AllToAll => {
            phases.extend((0..=last).map(|lane| Phase { lane, kind, bytes }));
        }
        Kind::Broadcast => {
            phases.extend((0..=last).rev().map(|lane| Phase { lane, kind, bytes }));
        }
        Kind::Permute | Kind::PointToPoint => {}
    }
    phases
}

/// Two phases of one tier, one after the other; the launch is paid once.
fn then(first: Answer, second: Answer) -> Answer {
    let join = |a: String, b: String| if a == b { a } else { format!("{a}, {b}") };
    let mut tier_bytes = first.tier_bytes;
    tier_bytes.extend(second.tier_bytes);
    Answer {
        algorithm: join(first.algorithm, second.algorithm),
        protocol: join(first.protocol, second.protocol),
        steps: first.steps + second.steps,
        cost: Cost {
            launch_us: first.cost.launch_us.max(second.cost.launch_us),
            latency_us: first.cost.latency_us + second.cost.latency_us,
            links_us: first.cost.links_us + second.cost.links_us,
            local_us: first.cost.local_us + second.cost.local_us,
            fill_us: first.cost.fill_us + second.cost.fill_us,
        },
        tier_bytes,
        slowest: first.slowest,
    }
}

/// Two tiers: of what moves bytes, `overlap` of the lesser hides behind the greater; latencies add up.
fn beside(below: Answer, above: Answer, overlap: f64) -> Answer {
    let moving = |cost: &Cost| cost.links_us + cost.local_us + cost.fill_us;
    let (low, high) = (moving(&below.cost), moving(&above.cost));
    let hidden = overlap * low.min(high);
    let slowest = if low > high { below.slowest } else { above.slowest };
    // What is hidden is taken off the lesser of the two, part by part.
    let kept =
        |own: f64, other: f64| if own <= other && own > 0.0 { 1.0 - hidden / own } else { 1.0 };
    let (keep_low, keep_high) =
        if low <= high { (kept(low, high), 1.0) } else { (1.0, kept(high, low)) };
    let mut tier_bytes = below.tier_bytes;
    tier_bytes.extend(above.tier_bytes);
    let add = |a: f64, b: f64| a * keep_low + b * keep_high;
    Answer {
        algorithm: format!("{} | {}", below.algorithm, above.algorithm),
        protocol: format!("{} | {}", below.protocol, above.protocol),
        steps: below.steps + above.steps,
        cost: Cost {
            launch_us: below.cost.launch_us.max(above.cost.launch_us),
            latency_us: below.cost.latency_us + above.cost.latency_us,
            links_us: add(below.cost.links_us, above.cost.links_us),
            local_us: add(below.cost.local_us, above.cost.local_us),
            fill_us: add(below.cost.fill_us, above.cost.fill_us),
        },
        tier_bytes,
        slowest,
    }
}

/// What most of the time goes to, in words.
fn bottleneck(answer: &Answer) -> String {
    let Cost { launch_us, latency_us, links_us, local_us, fill_us } = answer.cost;
    let tier = &answer.slowest;
    let parts = [
        (launch_us, "launch".to_owned()),
        (latency_us, format!("latency of {} steps", answer.steps)),
        (links_us, format!("links of tier `{tier}`")),
        (local_us, "copies and additions inside the chip".to_owned()),
        (fill_us, "filling of pipelines".to_owned()),
    ];
    let [first, rest @ ..] = parts;
    rest.into_iter().fold(first, |best, part| if part.0 > best.0 { part } else { best }).1
}
