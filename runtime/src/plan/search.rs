//! Every mesh of a system that a model divides into, those that fit, and the fastest of them.

use super::mesh::{Fixed, Mesh, Order, Recompute, Shard};
use super::platform::{Answers, Platform};
use super::task::{Task, Work};
use super::time::{self, Memory, Step};

/// A mesh with its step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The mesh.
    pub mesh: Mesh,
    /// The step.
    pub step: Step,
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The best candidates, the fastest first: one for each choice of `dp`, `tp`, `pp` and `ep`.
    pub best: Vec<Candidate>,
    /// How many meshes there were.
    pub candidates: usize,
    /// How many of them did not fit.
    pub too_large: usize,
    /// How many a bound ruled out before they were timed.
    pub pruned: usize,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// No mesh of those that were allowed divides the model and the chips.
    NoMesh(String),
    /// None fits: the one that comes nearest, what it needs, and what there is.
    TooLarge {
        /// The mesh.
        mesh: Mesh,
        /// What it needs.
        memory: Memory,
        /// Bytes of a chip.
        limit: f64,
    },
    /// The system cannot do it.
    Unsupported(String),
    /// Whoever watches said stop.
    Cancelled,
}

/// The most candidates that are kept to be shown.
const KEPT: usize = 16;
/// The most sequences of a microbatch that are tried.
const MOST_SEQUENCES: usize = 16;

/// Searches. `watch` is told how many of how many meshes have been looked at, and says whether to go on.
pub fn search(
    platform: &Platform,
    task: &Task,
    fixed: &Fixed,
    watch: &dyn Fn(usize, usize) -> bool,
) -> Result<Found, Trouble> {
    let mut meshes = meshes(platform.chips, task, fixed)?;
    let candidates = meshes.len();
    let nearest = meshes.iter().copied().min_by(|a, b| {
        let needs = |mesh: &Mesh| time::memory(task, mesh).total();
        needs(a).total_cmp(&needs(b))
    });
    let limit = platform.memory_bytes;
    meshes.retain(|mesh| time::memory(task, mesh).total() <= limit);
    let too_large = candidates - meshes.len();
    if let (true, Some(mesh)) = (meshes.is_empty(), nearest) {
        return Err(Trouble::TooLarge { mesh, memory: time::memory(task, &mesh), limit });
    }
    let mut bounded = meshes
        .into_iter()
        .map(|mesh| Ok((time::bound(platform, task, &mesh)?, mesh)))
        .collect::<Result<Vec<(f64, Mesh)>, String>>()
        .map_err(Trouble::Unsupported)?;
    // The most promising first, so that the bound rules out most of the rest.
    bounded.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let answers = Answers::new(platform.fabric.as_ref());
    let mut best: Vec<Candidate> = Vec::new();
    let mut pruned = 0;
    let mut unanswered = None;
    for (index, &(bound, mesh)) in bounded.iter().enumerate() {
        if index % 64 == 0 && !watch(index, bounded.len()) {
            return Err(Trouble::Cancelled);
        }
        // Neither better than the last that is shown, nor than what is known of the same division.
        let hopeless = |known: &Candidate| bound >= known.step.seconds;
        let full = best.len() == KEPT && best.last().is_some_and(hopeless);
        if full || best.iter().any(|known| same(&known.mesh, &mesh) && hopeless(known)) {
            pruned += 1;
            continue;
        }
        // A fabric may have no answer for some groups of chips, such as more than it simulates.
        match time::step(platform, &answers, task, &mesh) {
            Ok(step) => keep(&mut best, Candidate { mesh, step }),
            Err(why) => unanswered = Some(why),
        }
    }
    if let (true, Some(why)) = (best.is_empty(), unanswered) {
        return Err(Trouble::Unsupported(why));
    }
    Ok(Found { best, candidates, too_large, pruned })
}

/// Whether two meshes differ in details alone.
fn same(a: &Mesh, b: &Mesh) -> bool {
    (a.dp, a.tp, a.pp, a.ep) == (b.dp, b.tp, b.pp, b.ep)
}

/// Keeps the candidates sorted, and of those that differ in details alone the fastest.
fn keep(best: &mut Vec<Candidate>, new: Candidate) {
    if let Some(at) = best.iter().position(|known| same(&known.mesh, &new.mesh)) {
        if best[at].step.seconds <= new.step.seconds {
            return;
        }
        best.remove(at);
    }
    let at = best.partition_point(|known| known.step.seconds <= new.step.seconds);
    best.insert(at, new);
    best.truncate(KEPT);
}

/// Every mesh over the chips that the model divides into.
fn meshes(chips: usize, task: &Task, fixed: &Fixed) -> Result<Vec<Mesh>, Trouble> {
    let config = &task.config;
    let chosen = |fixed: Option<usize>, all: Vec<usize>| match fixed {
        Some(one) => all.into_iter().filter(|&size| size == one).collect::<Vec<usize>>(),
        None => all,
    };
    let tensor =
        divisors(chips).into_iter().filter(|tp| config.heads.is_multiple_of(*tp)).collect();
    let tensor = chosen(fixed.tp, tensor);
    let mut found = Vec::new();
    for &tp in &tensor {
        let pipeline = divisors(chips / tp).into_iter().filter(|&pp| pp <= config.layers).collect();
        for pp in chosen(fixed.pp, pipeline) {
            let copies = chips / (tp * pp);
            // Serving may leave chips idle where there are more of them than sequences.
            let dp = match task.work {
                Work::Train => copies,
                Work::Prefill | Work::Decode => {
                    divisors(copies).into_iter().filter(|&dp| dp <= task.batch).max().unwrap_or(1)
                }
            };
            let dp = fixed.dp.filter(|&dp| copies.is_multiple_of(dp)).unwrap_or(dp);
            if fixed.dp.is_some_and(|wanted| wanted != dp) || dp > task.batch {
                continue;
            }
            let experts = config.experts().map_or(1, |experts| experts.count);
            let expert =
                divisors(dp).into_iter().filter(|&ep| experts.is_multiple_of(ep)).collect();
            for ep in chosen(fixed.ep, expert) {
                details(task, fixed, [dp, tp, pp, ep], &mut found);
            }
        }
    }
    if found.is_empty() {
        let (heads, layers, batch) = (config.heads, config.layers, task.batch);
        return Err(Trouble::NoMesh(format!(
            "no mesh of {chips} chips divides {heads} heads, {layers} layers and a batch of {batch} as asked"
        )));
    }
    Ok(found)
}

/// The meshes that differ in what no exchange depends on.
fn details(task: &Task, fixed: &Fixed, [dp, tp, pp, ep]: [usize; 4], found: &mut Vec<Mesh>) {
    // Where copies do not divide the batch, some get a sequence less and wait.
    let local = task.batch.div_ceil(dp);
    let train = task.work == Work::Train;
    let microbatches: Vec<usize> = match (fixed.microbatch, task.work) {
        (Some(one), _) => vec![one].into_iter().filter(|&one| one <= local).collect(),
        (None, Work::Decode) => vec![task.batch.div_ceil(dp * pp)],
        (None, Work::Train | Work::Prefill) => {
            std::iter::successors(Some(1), |size| Some(size * 2))
                .take_while(|&size| size <= MOST_SEQUENCES.min(local))
                .collect()
        }
    };
    let most = task.config.layers.div_ceil(pp);
    let interleaves: Vec<usize> = match fixed.interleave {
        Some(one) => vec![one],
        None if pp == 1 || !train => vec![1],
        None => (1..=most).filter(|v| [1, 2, 3, 4, 6, 8].contains(v) || *v == most).collect(),
    };
    let recomputes: &[Recompute] = match fixed.recompute {
        Some(Recompute::Attention) => &[Recompute::Attention],
        Some(Recompute::Layers) => &[Recompute::Layers],
        None if train => &[Recompute::Attention, Recompute::Layers],
        None => &[Recompute::Attention],
    };
    let shards: &[Shard] = match fixed.shard {
        Some(Shard::Optimizer) => &[Shard::Optimizer],
        Some(Shard::Weights) => &[Shard::Weights],
        None if train && dp > 1 => &[Shard::Optimizer, Shard::Weights],
        None => &[Shard::Optimizer],
    };
    let orders: &[Order] = if dp > 1 && pp > 1 {
        &[Order::PipelineInside, Order::DataInside]
    } else {
        &[Order::PipelineInside]
    };
    for &microbatch in &microbatches {
        for &interleave in &interleaves {
            // A pipeline with several groups a chip wants as many microbatches as stages.
            let rounds = local.div_ceil(microbatch);
            if interleave > 1 && (rounds < pp || interleave > most) {
                continue;
            }
            for &recompute in recomputes {
                for &shard in shards {
                    for &order in orders {
                        found.push(Mesh {
                            dp,
                            tp,
                            pp,
                            ep,
                            microbatch,
                            interleave,
                            recompute,
                            shard,
                            order,
                        });
                    }
                }
            }
        }
    }
}

fn divisors(number: usize) -> Vec<usize> {
    let mut small: Vec<usize> = Vec::new();
    let mut large: Vec<usize> = Vec::new();
    let mut at = 1;
    while at * at <= number {
        if number.is_multiple_of(at) {
            small.push(at);
            if at * at != number {
                large.push(number / at);
            }
        }
        at += 1;
    }
    small.extend(large.into_iter().rev());
    small
}
