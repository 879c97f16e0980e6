//! Replaces calls by the body of the function they name, so that later passes see one function.

use crate::graph::{Block, Builder, Function, Graph, ValueId};
use crate::op::Op;
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};

/// See the module.
pub const PASS: Pass<Graph> =
    Pass { name: "inline-calls", summary: "Replaces calls by the called function's body.", run };

fn run(
    graph: &mut Graph,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    let mut changed = Changed::No;
    // A verified graph has no recursion, so each round removes one level of calls.
    while has_call(graph.entry()) {
        let entry = rewrite(graph.entry(), &mut |builder, node, operands| {
            let Op::Call(call) = &node.op else { return Ok(Rewrite::Keep) };
            let callee = &graph.functions[&call.function];
            Ok(Rewrite::Replace(inline(builder, callee, &callee.body, operands).into()))
        });
        *graph.entry_mut() = entry.expect("a verified call fits its function");
        changed = Changed::Yes;
    }
    if graph.functions.len() > 1 {
        graph.functions.truncate(1);
        changed = Changed::Yes;
    }
    Ok(changed)
}

fn has_call(function: &Function) -> bool {
    let mut found = false;
    function
        .visit(&function.body, &mut |node| found |= matches!(function.nodes[node].op, Op::Call(_)));
    found
}

/// Adds copies of another function's nodes, and gives its results.
pub fn inline(
    builder: &mut Builder<'_>,
    from: &Function,
    block: &Block,
    operands: &[ValueId],
) -> Vec<ValueId> {
    let mut map: Vec<Option<ValueId>> = vec![None; from.values.len()];
    copy_block(builder, from, block, operands, &mut map)
}

fn copy_block(
    builder: &mut Builder<'_>,
    from: &Function,
    block: &Block,
    params: &[ValueId],
    map: &mut Vec<Option<ValueId>>,
) -> Vec<ValueId> {
    let find =
        |map: &[Option<ValueId>], value: ValueId| map[value.index()].expect("defined before use");
    for (&param, &value) in block.params.iter().zip(params) {
        map[param.index()] = Some(value);
    }
    for &id in &block.nodes {
        let node = &from.nodes[id];
        let operands: Vec<ValueId> = node.operands.iter().map(|&value| find(map, value)).collect();
        let mut blocks = Vec::new();
        for inner in &node.blocks {
            let types: Vec<_> = inner.params.iter().map(|&param| from.ty(param).clone()).collect();
            let built = builder
                .block(&types, |builder, params| Ok(copy_block(builder, from, inner, params, map)))
                .expect("copying infers nothing new");
            blocks.push(built);
        }
        let results = builder
            .add_many(node.op.clone(), &operands, blocks)
            .expect("a copy has the same types");
        for (&old, &new) in node.results.iter().zip(&results) {
            map[old.index()] = Some(new);
        }
    }
    block.results.iter().map(|&value| find(map, value)).collect()
}
