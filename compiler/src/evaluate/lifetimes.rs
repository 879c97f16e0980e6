//! When each value is used for the last time.

use crate::arena::Id;
use crate::graph::{Block, Function, ValueId};

/// For each node, the values of its own block that nothing reads after it.
pub(super) fn last_uses(function: &Function) -> Vec<Vec<ValueId>> {
    let mut dying = vec![Vec::new(); function.nodes.len()];
    let mut state = State { seen: vec![false; function.values.len()], dying: &mut dying };
    visit(function, &function.body, &mut state);
    dying
}

struct State<'a> {
    /// The values that something after the current node reads, or that a surrounding block owns.
    seen: Vec<bool>,
    dying: &'a mut Vec<Vec<ValueId>>,
}

/// Walks a block from its end. What it captures from surrounding blocks is given back.
fn visit(function: &Function, block: &Block, state: &mut State<'_>) -> Vec<ValueId> {
    let mut own = vec![];
    own.extend(block.params.iter().copied());
    for &node in &block.nodes {
        own.extend(function.nodes[node].results.iter().copied());
    }
    own.sort_unstable();
    let is_own = |value: &ValueId| own.binary_search(value).is_ok();
    let mut captured: Vec<ValueId> = Vec::new();
    for &value in &block.results {
        state.seen[value.index()] = true;
        if !is_own(&value) {
            captured.push(value);
        }
    }
    for &id in block.nodes.iter().rev() {
        let node = &function.nodes[id];
        let mut uses: Vec<ValueId> = node.operands.clone();
        for inner in &node.blocks {
            uses.extend(visit(function, inner, state));
        }
        // A result that nothing reads dies where it is born.
        uses.extend(node.results.iter().copied());
        for value in uses {
            if !is_own(&value) {
                captured.push(value);
            } else if !std::mem::replace(&mut state.seen[value.index()], true) {
                state.dying[Id::index(id)].push(value);
            }
        }
    }
    captured.sort_unstable();
    captured.dedup();
    captured
}
