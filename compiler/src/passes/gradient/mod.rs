//! The backward pass: from results and what a change of each is worth to what a change of each operand is worth.
//!
//! Nodes are gone through in reverse, and each gives its operands their part by the derivative of its operation. What has
//! no derivative (integers, comparisons, positions) gets none; a `while` loop that values flow through is refused, for
//! nothing says how often it ran. Composites are differentiated through their formulas, blocks of `if` and `for` by blocks
//! of the same kind. Where several operands are equally the least or largest, they share.

mod blocks;
mod index;
mod joins;
mod order;
mod products;
mod rule;
mod step;
mod values;

pub use step::{Optimizer, Training, differentiate, training_step};

use crate::diagnostic::Diagnostics;
use crate::graph::{Builder, Graph, Node, NodeId, ValueId};
use crate::op::TypeError;
use crate::pass::{Changed, Context, Pass};
use crate::scalar::ScalarFn;
use std::collections::{BTreeMap, BTreeSet};

/// The pass of [`differentiate`]. It is not among [`crate::passes::GRAPH_PASSES`], for it changes what a graph gives.
pub const PASS: Pass<Graph> = Pass {
    name: "gradient",
    summary: "Adds the derivative of the first result by every floating-point parameter.",
    run,
};

fn run(graph: &mut Graph, _context: &Context<'_>) -> Result<Changed, Diagnostics> {
    *graph = differentiate(graph)?;
    Ok(Changed::Yes)
}

/// Adds nodes behind `nodes` that compute what a change of each of `wanted` is worth, where `seeds` say it of results;
/// nothing for those that no seed depends on.
pub fn pull_back(
    builder: &mut Builder<'_>,
    nodes: &[NodeId],
    seeds: &[(ValueId, ValueId)],
    wanted: &[ValueId],
) -> Result<Vec<Option<ValueId>>, TypeError> {
    let mut worth = Worth::new(builder, nodes, wanted);
    for &(value, seed) in seeds {
        worth.add(builder, value, seed)?;
    }
    for &id in nodes.iter().rev() {
        let node = builder.function.nodes[id].clone();
        let results: Vec<Option<ValueId>> =
            node.results.iter().map(|result| worth.found.get(result).copied()).collect();
        if results.iter().any(Option::is_some) && worth.reaches(builder, &node) {
            rule::node(builder, &node, &results, &mut worth)?;
        }
    }
    Ok(wanted.iter().map(|value| worth.found.get(value).copied()).collect())
}

/// What changes of values are worth, as far as it is known.
#[derive(Debug)]
struct Worth {
    /// Values that depend on what is wanted.
    active: BTreeSet<ValueId>,
    found: BTreeMap<ValueId, ValueId>,
}

impl Worth {
    fn new(builder: &Builder<'_>, nodes: &[NodeId], wanted: &[ValueId]) -> Worth {
        let is_float = |value: &ValueId| builder.ty(*value).dtype.is_float();
        let mut active: BTreeSet<ValueId> = wanted.iter().copied().filter(is_float).collect();
        for &id in nodes {
            let node = &builder.function.nodes[id];
            if reads(builder, node).iter().any(|value| active.contains(value)) {
                active.extend(node.results.iter().copied().filter(is_float));
            }
        }
        Worth { active, found: BTreeMap::new() }
    }

    /// Whether anybody wants to know of this value.
    fn wants(&self, value: ValueId) -> bool {
        self.active.contains(&value)
    }

    fn reaches(&self, builder: &Builder<'_>, node: &Node) -> bool {
        reads(builder, node).iter().any(|value| self.wants(*value))
    }

    /// Adds to what a change of the value is worth.
    fn add(
        &mut self,
        builder: &mut Builder<'_>,
        value: ValueId,
        part: ValueId,
    ) -> Result<(), TypeError> {
        if !self.wants(value) {
            return Ok(());
        }
        debug_assert_eq!(builder.ty(value), builder.ty(part), "a worth has its value's type");
        let sum = match self.found.get(&value) {
            Some(&known) => builder.map(ScalarFn::Add, &[known, part])?,
            None => part,
        };
        self.found.insert(value, sum);
        Ok(())
    }
}

/// What a node reads: its operands, and what its blocks capture.
fn reads(builder: &Builder<'_>, node: &Node) -> Vec<ValueId> {
    let mut values = node.operands.clone();
    for block in &node.blocks {
        values.extend(builder.function.captures(block));
    }
    values
}
