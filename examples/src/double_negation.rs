//! A pass written outside the compiler: the negation of a negation is what was negated first.

use std::collections::BTreeMap;
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::graph::{Graph, ValueId};
use systole_compiler::op::{Map, Op};
use systole_compiler::pass::{Changed, Context, Pass};
use systole_compiler::rewrite::{Rewrite, rewrite};
use systole_compiler::scalar::ScalarFn;

/// A pass is a value: it needs no registration to be run.
pub const PASS: Pass<Graph> = Pass {
    name: "double-negation",
    summary: "Replaces the negation of a negation by what was negated.",
    run,
};

fn run(graph: &mut Graph, _context: &Context<'_>) -> Result<Changed, Diagnostics> {
    let mut changed = Changed::No;
    for function in graph.functions.values_mut() {
        let mut negated: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut found = false;
        let rewritten = rewrite(function, &mut |builder, node, operands| {
            if node.op != Op::Map(Map { function: ScalarFn::Neg }) {
                return Ok(Rewrite::Keep);
            }
            if let Some(&original) = negated.get(&operands[0]) {
                found = true;
                return Ok(Rewrite::Replace([original].into()));
            }
            let result = builder.add(node.op.clone(), operands)?;
            negated.insert(result, operands[0]);
            Ok(Rewrite::Replace([result].into()))
        });
        if found {
            *function = rewritten.expect("the types stay");
            changed = Changed::Yes;
        }
    }
    Ok(changed)
}
