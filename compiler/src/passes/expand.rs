//! Replaces every composite by its formula, until there are none.

use crate::graph::{Builder, Function, Graph, Node, ValueId};
use crate::op::{Kind, TypeError};
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};

/// See the module.
pub const PASS: Pass<Graph> =
    Pass { name: "expand", summary: "Replaces composites by the primitives they stand for.", run };

fn run(
    graph: &mut Graph,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    let mut changed = Changed::No;
    for function in graph.functions.values_mut() {
        while has_composite(function) {
            let expanded = rewrite(function, &mut expand_node);
            *function = expanded.expect("a verified composite expands");
            changed = Changed::Yes;
        }
    }
    Ok(changed)
}

fn has_composite(function: &Function) -> bool {
    let mut found = false;
    function.visit(&function.body, &mut |node| {
        found |= function.nodes[node].op.kind() == Kind::Composite
    });
    found
}

fn expand_node(
    builder: &mut Builder<'_>,
    node: &Node,
    operands: &[ValueId],
) -> Result<Rewrite, TypeError> {
    match node.op.expand(builder, operands) {
        Some(values) => Ok(Rewrite::Replace(values?.into())),
        None => Ok(Rewrite::Keep),
    }
}
