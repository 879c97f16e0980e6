//! Computes equal things once: nodes with equal ops on equal operands in one block become one node. Large constants
//! are equal only where they share their bytes, so that no weight is ever compared.

use crate::graph::{Graph, Node, ValueId};
use crate::op::Op;
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// See the module.
pub const PASS: Pass<Graph> = Pass {
    name: "merge-duplicates",
    summary: "Makes nodes that compute the same value one node.",
    run,
};

/// A node that is there: its op and results.
type Made = (Op, Vec<ValueId>);

const COMPARED_BYTES: usize = 1 << 12;

fn run(
    graph: &mut Graph,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(super::each_function(graph, |function| {
        let merged = RefCell::new(false);
        // Nodes of inner blocks are not merged: what they compute must not run where the block does not.
        let outer: Vec<&Node> = function.body.nodes.iter().map(|&id| &function.nodes[id]).collect();
        let is_outer = |node: &Node| outer.iter().any(|other| std::ptr::eq(*other, node));
        let mut position = 0;
        let mut seen: BTreeMap<(&str, Vec<ValueId>), Vec<Made>> = BTreeMap::new();
        let result = rewrite(function, &mut |builder, node, operands| {
            // Outer nodes come in order, so one comparison tells whether this is the next of them.
            let next_outer = outer.get(position).is_some_and(|next| std::ptr::eq(*next, node));
            debug_assert!(next_outer || !is_outer(node));
            if !next_outer {
                return Ok(Rewrite::Keep);
            }
            position += 1;
            // Another rank counts the messages that it gets.
            if !node.blocks.is_empty() || matches!(node.op, Op::Permute(_)) {
                return Ok(Rewrite::Keep);
            }
            let key = (node.op.name(), operands.to_vec());
            let same = seen.entry(key).or_default();
            if let Some((_, values)) = same.iter().find(|(op, _)| equal(op, &node.op)) {
                *merged.borrow_mut() = true;
                return Ok(Rewrite::Replace(values.clone().into()));
            }
            let values = builder.add_many(node.op.clone(), operands, Vec::new())?;
            same.push((node.op.clone(), values.to_vec()));
            Ok(Rewrite::Replace(values))
        });
        let result = result.expect("equal ops have equal types");
        merged.into_inner().then_some(result)
    }))
}

fn equal(a: &Op, b: &Op) -> bool {
    if let (Op::Constant(a), Op::Constant(b)) = (a, b) {
        let (x, y) = (a.value.bytes(), b.value.bytes());
        let shared = x.as_ptr() == y.as_ptr() && x.len() == y.len();
        return a.value.ty() == b.value.ty() && (shared || (x.len() <= COMPARED_BYTES && x == y));
    }
    a == b
}
