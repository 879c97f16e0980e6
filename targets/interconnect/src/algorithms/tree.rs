//! The double binary tree: two trees, each with half the data, in which every rank is a leaf of at least one. Few steps, full
//! rate once the pipeline is full.

use super::{Algorithm, Round, Strand, Task, Transfer};
use crate::cost::Load;
use crate::kind::Kind;
use crate::system::TierKind;

pub(super) const ALGORITHM: Algorithm = Algorithm {
    name: "double-binary-tree",
    summary: "Up and down two binary trees in chunks, each with half the data.",
    load,
    strands,
};

/// No pipeline has more chunks than this.
const MAX_CHUNKS: f64 = 128.0;

struct Trees {
    depth: usize,
    chunks: usize,
    /// The parent of each rank in each tree; the root is its own.
    parents: [Vec<usize>; 2],
    /// How far each rank is from the root of each tree.
    levels: [Vec<usize>; 2],
}

fn trees(task: &Task<'_>) -> Result<Trees, &'static str> {
    let lane = task.lane()?;
    if lane.tier.kind != TierKind::Switch {
        return Err("it needs a switch");
    }
    if task.kind != Kind::AllReduce {
        return Err("it reduces to all");
    }
    let ranks = task.ranks;
    let first = in_order(ranks);
    // The second tree is the first one mirrored, or moved by one place where the middle would meet itself.
    let second: Vec<usize> = if ranks.is_multiple_of(2) {
        (0..ranks).map(|rank| ranks - 1 - first[ranks - 1 - rank]).collect()
    } else {
        (0..ranks).map(|rank| (first[(rank + 1) % ranks] + ranks - 1) % ranks).collect()
    };
    let parents = [first, second];
    let levels = [levels(&parents[0]), levels(&parents[1])];
    let depth = levels.iter().flatten().copied().max().unwrap_or(1).max(1);
    // More chunks fill the pipeline better, and each takes a step.
    let gbs = lane.injection_gbs().min(lane.spans[0].gbs) * task.protocol.efficiency;
    let link_us = 2.0 * task.bytes / (gbs * 1e3);
    let step_us = task.protocol.step_us + lane.neighbour_us();
    let best = (link_us * depth as f64 / step_us.max(1e-9)).sqrt().floor();
    let chunks = best.clamp(depth as f64, MAX_CHUNKS) as usize;
    Ok(Trees { depth, chunks, parents, levels })
}

/// A binary tree over ranks in order: leaves and inner ranks alternate.
fn in_order(ranks: usize) -> Vec<usize> {
    let mut parents = vec![0; ranks];
    // (first, past the last, parent)
    let mut open = vec![(0, ranks, None)];
    while let Some((first, end, parent)) = open.pop() {
        if first == end {
            continue;
        }
        // The root of a run is the place with the most trailing zeros, counted from one, so that every other is a leaf.
        let size = end - first;
        let half = usize::BITS - 1 - size.leading_zeros();
        let root = first + (1usize << half) - 1;
        parents[root] = parent.unwrap_or(root);
        open.push((first, root, Some(root)));
        open.push((root + 1, end, Some(root)));
    }
    parents
}

fn levels(parents: &[usize]) -> Vec<usize> {
    let level = |rank: usize| {
        let mut at = rank;
        let mut level = 0;
        while parents[at] != at && level <= parents.len() {
            at = parents[at];
            level += 1;
        }
        level
    };
    (0..parents.len()).map(level).collect()
}

fn load(task: &Task<'_>) -> Result<Load, &'static str> {
    let trees = trees(task)?;
    let lane = task.lane()?;
    let part = task.bytes / (2.0 * trees.chunks as f64);
    let (depth, chunks) = (trees.depth as f64, trees.chunks as f64);
    // A rank that is inside one tree and a leaf of the other sends two parts up and two down in a round; while the first chunk
    // is on its way up, or the last on its way down, half of that.
    let parts = 4.0 * (chunks - 1.0 + depth);
    let steps = 2 * trees.depth + trees.chunks - 1;
    let mut load = Load::steps(lane, steps as u64, 0.0);
    load.wire_bytes = parts * part;
    load.line_us = load.wire_bytes / (lane.spans[0].gbs * 1e3);
    Ok(load.locally(task.kind, task.bytes, task.ranks))
}

fn strands(task: &Task<'_>) -> Result<Vec<Strand>, &'static str> {
    let Trees { depth, chunks, parents, levels } = trees(task)?;
    let bytes = task.bytes / (2.0 * chunks as f64);
    let rounds = (0..2 * depth + chunks - 1).map(|round| {
        let mut transfers = Vec::new();
        for (parents, levels) in parents.iter().zip(&levels) {
            for (rank, &parent) in parents.iter().enumerate().filter(|(rank, up)| rank != *up) {
                // Chunk c leaves level l upwards in round c + depth - l, and reaches level l downwards in round c + depth + l - 1.
                let up = depth - levels[rank];
                if round >= up && round - up < chunks {
                    transfers.push(Transfer { from: rank as u32, to: parent as u32, bytes });
                }
                let down = depth + levels[rank] - 1;
                if round >= down && round - down < chunks {
                    transfers.push(Transfer { from: parent as u32, to: rank as u32, bytes });
                }
            }
        }
        Round { repeat: 1, transfers, adds: round < depth }
    });
    Ok(vec![Strand { rounds: rounds.collect() }])
}
