//! Flow simulation: every transfer of every round moves over its route; links are shared fairly among what crosses them at a
//! time; the next event is a transfer that ends or a message that arrives.
//!
//! What happens inside chips (launch, copies, additions, filling of pipelines) does not depend on links, and is that of the
//! closed form. Rounds that repeat are simulated until the state of all ranks repeats; then the rest of them is skipped, which
//! is exact, because what follows depends on nothing else. Of a hierarchical collective, each tier is simulated for one of the
//! groups that work side by side: they cross different links, and do the same.

use crate::algorithms::Strand;
use crate::error::CollectiveError;
use crate::fair::{Room, Share};
use crate::group::Group;
use crate::kind::Kind;
use crate::predict::{self, Evaluator, Options, Prediction};
use crate::route::{Links, Route};
use crate::system::{ChunkOrder, System};
use std::collections::{BTreeMap, VecDeque};

/// One of several collectives that run at once.
#[derive(Clone, Debug)]
pub struct Run {
    /// The collective.
    pub kind: Kind,
    /// Its chips.
    pub group: Group,
    /// The whole buffer.
    pub bytes: u64,
    /// What is fixed.
    pub options: Options,
}

/// The transfers of one collective, ready to be simulated.
#[derive(Debug)]
pub(crate) struct Job {
    /// The chip of each place.
    pub(crate) chips: Vec<u32>,
    /// Who sends what.
    pub(crate) strands: Vec<Strand>,
    /// The tier whose switch turns messages round.
    pub(crate) tier: usize,
    /// Part of the line rate that is payload.
    pub(crate) efficiency: f64,
    /// What one flow moves at most, in bytes a microsecond.
    pub(crate) most: f64,
    /// What a step takes besides crossings, ends included.
    pub(crate) step_us: f64,
    /// What it takes before the first step.
    pub(crate) before_us: f64,
    /// In how many chunks all of it goes.
    pub(crate) chunks: u32,
    /// Whether they overlap.
    pub(crate) order: ChunkOrder,
}

/// No simulation looks at more flows and links than this.
const MAX_WORK: u64 = 2_000_000_000;
/// No simulation holds more transfers at once than this.
const MAX_TRANSFERS: u64 = 4_000_000;

/// Simulates one collective: the algorithm and protocol that are asked for, or those that the closed form finds fastest.
pub fn simulate(
    system: &System,
    kind: Kind,
    group: &Group,
    bytes: u64,
    options: &Options,
) -> Result<Prediction, CollectiveError> {
    predict::predict(system, kind, group, bytes, options, Evaluator::Flow)
}

/// Simulates several collectives that begin at once and share links; how long each takes. Each goes over its group in one
/// piece: none is hierarchical.
pub fn simulate_together(system: &System, runs: &[Run]) -> Result<Vec<f64>, CollectiveError> {
    let mut jobs = Vec::new();
    let mut beside = Vec::new();
    for run in runs {
        let (job, beside_us) = predict::job(system, run.kind, &run.group, run.bytes, &run.options)?;
        jobs.push(job);
        beside.push(beside_us);
    }
    let times = times_us(system, &jobs)?;
    Ok(times.into_iter().zip(beside).map(|(time, beside)| time + beside).collect())
}

/// How long each of several jobs takes on the links, if all begin at once.
pub(crate) fn times_us(system: &System, jobs: &[Job]) -> Result<Vec<f64>, CollectiveError> {
    let links = Links::new(system);
    let plans = jobs.iter().map(|job| Plan::new(job, &links)).collect::<Result<Vec<Plan>, _>>()?;
    // Chunks that follow one another, with nothing beside them, all take the same.
    if let ([job], [plan]) = (jobs, plans.as_slice())
        && job.order == ChunkOrder::Sequential
    {
        let mut once = Simulation::new(&links, std::slice::from_ref(plan));
        once.run()?;
        let one_us = once.ends[0] + job.before_us;
        return Ok(vec![f64::from(job.chunks) * one_us]);
    }
    let mut simulation = Simulation::new(&links, &plans);
    simulation.run()?;
    Ok(simulation.ends.iter().zip(jobs).map(|(end, job)| end + job.before_us).collect())
}

/// A job with its routes.
struct Plan {
    ranks: usize,
    /// One for each strand and, where chunks overlap, chunk.
    strands: Vec<PlannedStrand>,
    rounds: Vec<Vec<PlannedRound>>,
    most: f64,
    /// Whether a rank sends one message of a strand at a time, chunk after chunk.
    one_at_a_time: bool,
}

struct PlannedStrand {
    /// Which rounds.
    rounds: usize,
}

struct PlannedRound {
    repeat: u32,
    /// By sender: the messages from `first[rank]` to `first[rank + 1]`.
    first: Vec<u32>,
    messages: Vec<Message>,
    /// How many messages each rank receives.
    received: Vec<u32>,
}

struct Message {
    to: u32,
    /// Bytes on the line, framing included.
    bytes: f64,
    links: Vec<usize>,
    latency_us: f64,
}

impl Plan {
    fn new(job: &Job, links: &Links<'_>) -> Result<Plan, CollectiveError> {
        let ranks = job.chips.len();
        let count: u64 = job
            .strands
            .iter()
            .flat_map(|strand| &strand.rounds)
            .map(|round| round.transfers.len() as u64)
            .sum();
        if count > MAX_TRANSFERS {
            return Err(CollectiveError::TooLarge { transfers: count, limit: MAX_TRANSFERS });
        }
        // Chunks one after another each have their part of every message too.
        let parts = f64::from(job.chunks);
        let rounds: Vec<Vec<PlannedRound>> = job
            .strands
            .iter()
            .map(|strand| {
                strand.rounds.iter().map(|round| planned(job, links, round, parts)).collect()
            })
            .collect();
        let overlap = job.order == ChunkOrder::Pipelined && job.chunks > 1;
        let copies = if overlap { job.chunks } else { 1 };
        let strands = (0..copies)
            .flat_map(|_| (0..rounds.len()).map(|rounds| PlannedStrand { rounds }))
            .collect();
        Ok(Plan { ranks, strands, rounds, most: job.most, one_at_a_time: overlap })
    }
}

fn planned(
    job: &Job,
    links: &Links<'_>,
    round: &crate::algorithms::Round,
    parts: f64,
) -> PlannedRound {
    let ranks = job.chips.len();
    let mut sorted = round.transfers.clone();
    sorted.sort_by_key(|transfer| transfer.from);
    let mut first = vec![0u32; ranks + 1];
    let mut received = vec![0u32; ranks];
    let mut messages = Vec::with_capacity(sorted.len());
    for transfer in sorted {
        let (from, to) = (transfer.from as usize, transfer.to as usize);
        let Route { links, crossing_us } = if from == to {
            links.turn(job.chips[from] as usize, job.tier)
        } else {
            links.route(job.chips[from] as usize, job.chips[to] as usize)
        };
        first[from + 1] += 1;
        received[to] += 1;
        messages.push(Message {
            to: transfer.to,
            bytes: transfer.bytes / (parts * job.efficiency),
            links,
            latency_us: job.step_us + crossing_us,
        });
    }
    for rank in 0..ranks {
        first[rank + 1] += first[rank];
    }
    PlannedRound { repeat: round.repeat, first, messages, received }
}

/// Where one rank is in one strand.
#[derive(Clone, Debug, Default)]
struct Actor {
    round: usize,
    /// How often the round has been done.
    done: u32,
    /// Rounds done, repeats counted.
    total: u32,
    /// Messages of the round that have not left.
    unsent: u32,
    /// Messages that have come, for this round and those after.
    arrived: VecDeque<u32>,
    finished: bool,
}

/// A message on its way.
struct Flow {
    job: usize,
    strand: usize,
    from: usize,
    to: usize,
    /// The round of the sender, repeats counted.
    total: u32,
    message: (usize, usize, usize),
    /// What was left when the rate last changed, and when that was.
    left: f64,
    since: f64,
    rate: f64,
    /// When it ends at this rate.
    end: f64,
    fresh: bool,
}

struct Arrival {
    job: usize,
    strand: usize,
    to: usize,
    total: u32,
}

struct Simulation<'p> {
    links: &'p Links<'p>,
    jobs: &'p [Plan],
    now: f64,
    actors: Vec<Vec<Vec<Actor>>>,
    flows: Vec<Flow>,
    /// By time, as bits: times are not negative, so their bits are in their order.
    arrivals: BTreeMap<u64, Vec<Arrival>>,
    /// Messages that wait for the sender's port, by job, original strand and rank.
    queues: BTreeMap<(usize, usize, usize), VecDeque<Flow>>,
    busy: BTreeMap<(usize, usize, usize), bool>,
    ends: Vec<f64>,
    room: Room,
    /// How many flows cross each link.
    crossed: Vec<u32>,
    /// Whether a flow ended that shared a link.
    contended: bool,
    work: u64,
    /// When all ranks last began a round together, and how many rounds of each strand were done.
    together: Option<(f64, Vec<u32>)>,
}

/// What a flow carries.
fn message<'p>(jobs: &'p [Plan], flow: &Flow) -> &'p Message {
    let (rounds, round, at) = flow.message;
    &jobs[flow.job].rounds[rounds][round].messages[at]
}

/// Events this near to one another are at the same time.
const SAME_TIME: f64 = 1e-12;

impl<'p> Simulation<'p> {
    fn new(links: &'p Links<'p>, jobs: &'p [Plan]) -> Simulation<'p> {
        let actors = jobs
            .iter()
            .map(|plan| vec![vec![Actor::default(); plan.ranks]; plan.strands.len()])
            .collect();
        Simulation {
            links,
            jobs,
            now: 0.0,
            actors,
            flows: Vec::new(),
            arrivals: BTreeMap::new(),
            queues: BTreeMap::new(),
            busy: BTreeMap::new(),
            ends: vec![0.0; jobs.len()],
            room: Room::new(links.count()),
            crossed: vec![0; links.count()],
            contended: false,
            work: 0,
            together: None,
        }
    }

    fn run(&mut self) -> Result<(), CollectiveError> {
        for job in 0..self.jobs.len() {
            for strand in 0..self.jobs[job].strands.len() {
                for rank in 0..self.jobs[job].ranks {
                    self.begin(job, strand, rank);
                }
            }
        }
        loop {
            self.skip();
            if self.flows.is_empty() && self.arrivals.is_empty() {
                return Ok(());
            }
            self.share();
            if self.work > MAX_WORK {
                let transfers = self.work;
                return Err(CollectiveError::TooLarge { transfers, limit: MAX_WORK });
            }
            self.step();
        }
    }

    fn round(&self, job: usize, strand: usize, round: usize) -> Option<&'p PlannedRound> {
        let plan = &self.jobs[job];
        plan.rounds[plan.strands[strand].rounds].get(round)
    }

    /// Lets a rank send what its round has to send; rounds in which it has no part are over at once.
    fn begin(&mut self, job: usize, strand: usize, rank: usize) {
        loop {
            let actor = &self.actors[job][strand][rank];
            let index = actor.round;
            let total = actor.total;
            let Some(round) = self.round(job, strand, index) else {
                self.actors[job][strand][rank].finished = true;
                self.ends[job] = self.ends[job].max(self.now);
                return;
            };
            let (first, last) = (round.first[rank] as usize, round.first[rank + 1] as usize);
            for at in first..last {
                let message = &round.messages[at];
                let rounds = self.jobs[job].strands[strand].rounds;
                let flow = Flow {
                    job,
                    strand,
                    from: rank,
                    to: message.to as usize,
                    total,
                    message: (rounds, index, at),
                    left: message.bytes,
                    since: 0.0,
                    rate: 0.0,
                    end: 0.0,
                    fresh: true,
                };
                self.send(flow);
            }
            self.actors[job][strand][rank].unsent = (last - first) as u32;
            if !self.over(job, strand, rank) {
                return;
            }
            self.advance(job, strand, rank, 1);
        }
    }

    fn send(&mut self, flow: Flow) {
        if !self.jobs[flow.job].one_at_a_time {
            self.flows.push(flow);
            return;
        }
        let port = (flow.job, flow.message.0, flow.from);
        let busy = self.busy.entry(port).or_default();
        if *busy {
            self.queues.entry(port).or_default().push_back(flow);
        } else {
            *busy = true;
            self.flows.push(flow);
        }
    }

    /// Whether all that a rank sends and receives in its round is done.
    fn over(&self, job: usize, strand: usize, rank: usize) -> bool {
        let actor = &self.actors[job][strand][rank];
        let Some(round) = self.round(job, strand, actor.round) else { return false };
        let arrived = actor.arrived.front().copied().unwrap_or(0);
        !actor.finished && actor.unsent == 0 && arrived >= round.received[rank]
    }

    /// Takes a rank to its next round, or some repeats further.
    fn advance(&mut self, job: usize, strand: usize, rank: usize, times: u32) {
        let index = self.actors[job][strand][rank].round;
        let repeat = self.round(job, strand, index).map_or(1, |round| round.repeat);
        let actor = &mut self.actors[job][strand][rank];
        actor.done += times;
        actor.total += times;
        actor.arrived.pop_front();
        if actor.done >= repeat {
            actor.done = 0;
            actor.round += 1;
        }
    }

    /// Gives flows their rates. A flow that is alone on all its links changes nothing for others, and others nothing for it.
    fn share(&mut self) {
        let mut contended = std::mem::take(&mut self.contended);
        for flow in self.flows.iter_mut().filter(|flow| flow.fresh) {
            flow.fresh = false;
            flow.since = self.now;
            let mut rate = self.jobs[flow.job].most;
            for &link in &message(self.jobs, flow).links {
                contended |= self.crossed[link] > 0;
                self.crossed[link] += 1;
                rate = rate.min(self.links.rate(link));
            }
            flow.rate = rate;
            flow.end = self.now + flow.left / rate;
        }
        self.work += 1;
        if !contended {
            return;
        }
        let jobs = self.jobs;
        let share = |flow: &Flow| Share {
            links: message(jobs, flow).links.as_slice(),
            most: jobs[flow.job].most,
            rate: 0.0,
        };
        let mut shares: Vec<Share<'p>> = self.flows.iter().map(share).collect();
        let links = self.links;
        self.work += self.room.share(&mut shares, |link| links.rate(link));
        for (flow, share) in self.flows.iter_mut().zip(shares) {
            let rate = share.rate.max(f64::MIN_POSITIVE);
            if rate != flow.rate {
                flow.left = (flow.left - flow.rate * (self.now - flow.since)).max(0.0);
                flow.since = self.now;
                flow.rate = rate;
                flow.end = self.now + flow.left / rate;
            }
        }
    }

    /// Goes to the next event and does all that happens then.
    fn step(&mut self) {
        let ends = self.flows.iter().map(|flow| flow.end).fold(f64::INFINITY, f64::min);
        let arrival = self.arrivals.keys().next();
        let arrival = arrival.map_or(f64::INFINITY, |bits| f64::from_bits(*bits));
        let next = ends.min(arrival).max(self.now);
        let late = next + next.abs() * SAME_TIME;
        self.work += self.flows.len() as u64;
        let mut touched = Vec::new();
        let ended: Vec<Flow> = self.flows.extract_if(.., |flow| flow.end <= late).collect();
        self.now = next;
        for flow in ended {
            let rounds = flow.message.0;
            let sent = message(self.jobs, &flow);
            for &link in &sent.links {
                self.crossed[link] -= 1;
                self.contended |= self.crossed[link] > 0;
            }
            let latency_us = sent.latency_us;
            let Flow { job, strand, from, to, total, .. } = flow;
            let when = (self.now + latency_us).to_bits();
            self.arrivals.entry(when).or_default().push(Arrival { job, strand, to, total });
            let actor = &mut self.actors[job][strand][from];
            if actor.total == total {
                actor.unsent -= 1;
                touched.push((job, strand, from));
            }
            if self.jobs[job].one_at_a_time {
                let port = (job, rounds, from);
                match self.queues.get_mut(&port).and_then(VecDeque::pop_front) {
                    Some(next) => self.flows.push(next),
                    None => drop(self.busy.insert(port, false)),
                }
            }
        }
        while let Some(entry) = self.arrivals.first_entry() {
            if f64::from_bits(*entry.key()) > late {
                break;
            }
            for Arrival { job, strand, to, total } in entry.remove() {
                let actor = &mut self.actors[job][strand][to];
                let ahead = (total - actor.total.min(total)) as usize;
                if actor.arrived.len() <= ahead {
                    actor.arrived.resize(ahead + 1, 0);
                }
                actor.arrived[ahead] += 1;
                touched.push((job, strand, to));
            }
        }
        touched.sort_unstable();
        touched.dedup();
        for (job, strand, rank) in touched {
            if self.over(job, strand, rank) {
                self.advance(job, strand, rank, 1);
                self.begin(job, strand, rank);
            }
        }
    }

    /// Where every rank has just begun a repeat of its round, as at the last such time, the repeats that are left take as long
    /// as the last one did.
    fn skip(&mut self) {
        let fresh = self.arrivals.is_empty()
            && !self.flows.is_empty()
            && self.queues.values().all(VecDeque::is_empty)
            && self.jobs.iter().all(|plan| !plan.one_at_a_time)
            && self.flows.iter().all(|flow| {
                flow.fresh && self.actors[flow.job][flow.strand][flow.from].total == flow.total
            });
        if !fresh {
            return;
        }
        // How many repeats every rank still has before it, and whether it has done the same round before.
        let mut left = u32::MAX;
        let mut same = true;
        for (job, plan) in self.jobs.iter().enumerate() {
            for strand in 0..plan.strands.len() {
                let mut places =
                    self.actors[job][strand].iter().map(|actor| (actor.round, actor.done));
                let Some((round, done)) = places.next() else { continue };
                if places.any(|place| place != (round, done)) {
                    return;
                }
                let clean = self.actors[job][strand]
                    .iter()
                    .all(|actor| actor.arrived.iter().all(|arrived| *arrived == 0));
                if !clean {
                    return;
                }
                let Some(planned) = self.round(job, strand, round) else { continue };
                same &= done > 0;
                left = left.min(planned.repeat - done - 1);
            }
        }
        let totals: Vec<u32> = self
            .actors
            .iter()
            .flatten()
            .map(|ranks| ranks.first().map_or(0, |a| a.total))
            .collect();
        let Some((last, before)) = self.together.replace((self.now, totals.clone())) else {
            return;
        };
        let one_more = before.iter().zip(&totals).all(|(before, now)| before + 1 == *now);
        if !(same && one_more && left > 0 && left < u32::MAX) {
            return;
        }
        self.now += f64::from(left) * (self.now - last);
        self.together = None;
        for (job, plan) in self.jobs.iter().enumerate() {
            for strand in 0..plan.strands.len() {
                if self.round(job, strand, self.actors[job][strand][0].round).is_none() {
                    continue;
                }
                for rank in 0..plan.ranks {
                    let actor = &mut self.actors[job][strand][rank];
                    actor.done += left;
                    actor.total += left;
                }
            }
        }
        for flow in &mut self.flows {
            flow.total += left;
        }
    }
}
