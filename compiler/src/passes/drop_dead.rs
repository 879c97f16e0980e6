//! Removes nodes whose results nobody uses. Only messages to other ranks have effects, so all other such nodes go.

use crate::graph::{Block, Function, Graph, Node, NodeId};
use crate::op::Op;
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};

/// See the module.
pub const PASS: Pass<Graph> =
    Pass { name: "drop-dead", summary: "Removes nodes whose results are not used.", run };

fn run(
    graph: &mut Graph,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(super::each_function(graph, |function| {
        let mut live = vec![false; function.values.len()];
        mark_block(function, &function.body, &mut live);
        let mut trimmed = function.clone();
        let removed = trim_block(function, &mut trimmed, Place::Body, &live);
        // Rebuilding leaves the dead nodes and values behind, so that numbers stay small and prints quiet.
        removed.then(|| {
            rewrite(&trimmed, &mut |_, _, _| Ok(Rewrite::Keep)).expect("copying infers nothing")
        })
    }))
}

#[derive(Clone, Copy)]
enum Place {
    Body,
    Inner(NodeId, usize),
}

/// Marks what the block's results need, from the last node to the first.
fn mark_block(function: &Function, block: &Block, live: &mut [bool]) {
    block.results.iter().for_each(|value| live[value.index()] = true);
    for &id in block.nodes.iter().rev() {
        let node = &function.nodes[id];
        if sends(function, node) {
            node.results.iter().for_each(|value| live[value.index()] = true);
        }
        if node.results.iter().any(|result| live[result.index()]) {
            node.operands.iter().for_each(|value| live[value.index()] = true);
            node.blocks.iter().for_each(|inner| mark_block(function, inner, live));
        }
    }
}

/// Whether another rank, perhaps with another program, may wait for what the node does.
fn sends(function: &Function, node: &Node) -> bool {
    let inner = node.blocks.iter().flat_map(|block| &block.nodes);
    matches!(node.op, Op::Permute(_))
        || inner.into_iter().any(|&id| sends(function, &function.nodes[id]))
}

fn trim_block(old: &Function, new: &mut Function, place: Place, live: &[bool]) -> bool {
    let block = match place {
        Place::Body => &old.body,
        Place::Inner(node, index) => &old.nodes[node].blocks[index],
    };
    let is_live = |&id: &NodeId| old.nodes[id].results.iter().any(|result| live[result.index()]);
    let kept: Vec<NodeId> = block.nodes.iter().copied().filter(is_live).collect();
    let mut removed = kept.len() < block.nodes.len();
    for &id in &kept {
        for index in 0..old.nodes[id].blocks.len() {
            removed |= trim_block(old, new, Place::Inner(id, index), live);
        }
    }
    match place {
        Place::Body => new.body.nodes = kept,
        Place::Inner(node, index) => new.nodes[node].blocks[index].nodes = kept,
    }
    removed
}
