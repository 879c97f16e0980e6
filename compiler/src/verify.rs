//! What holds in every graph between passes. A graph that verifies evaluates, prints and lowers without a panic.
//!
//! 1. A graph has a function, and every id in a function is of that function.
//! 2. A value is defined once: as one parameter of one block, or as one result of one node; a node is in one block.
//! 3. Operands and the results of blocks are defined before, in the same block or one around it.
//! 4. Every type is one that memory could hold.
//! 5. The results of a node have the types that its op infers.
//! 6. Blocks nest at most 64 deep.
//! 7. A function has a name for each result; the entry's inputs have names; no two inputs and no two results share one.
//! 8. A state pairs an input with a result of the same type, and nothing is in two states.
//! 9. A call names a function of the graph, whose parameters and results have the types of the call's.
//! 10. Functions do not call themselves, nor each other in a circle.
//! 11. The block of a fusion uses nothing but its parameters.
//! 12. Origins are in the graph's table.
//! 13. A mesh has axes of at least one rank with names of their own, and not more ranks than can be counted.
//! 14. A sharding is of a value of a program with a mesh, has an entry for each dimension and uses an axis once; sizes
//!     divide evenly; partial results can be joined.
//! 15. A program that is yet to be divided has no collectives; those of a rank's program name ranks of its mesh.

use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::graph::{self, Block, Function, Graph, Node, NodeId, ValueId};
use crate::op::{Call, Kind, Op};
use crate::pass::Ir;
use crate::ranks::{self, Parts};
use crate::types::TensorType;
use std::collections::{BTreeMap, BTreeSet};

/// How deep blocks may nest.
pub const MAX_BLOCK_DEPTH: usize = 64;

impl Ir for Graph {
    const LEVEL: &'static str = "graph";

    fn verify(&self) -> Result<(), Diagnostics> {
        graph(self)
    }
}

/// Every violation of the rules.
pub fn graph(graph: &Graph) -> Result<(), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    if graph.functions.is_empty() {
        diagnostics.push(violation(1, "the graph has no function", None));
    }
    let mut calls: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    if let Some(Err(why)) = graph.mesh.as_ref().map(crate::mesh::Mesh::check) {
        diagnostics.push(violation(13, &why, None));
        return diagnostics.into_result(());
    }
    for (position, (name, function)) in graph.functions.iter().enumerate() {
        let mut verifier = Verifier {
            graph,
            function,
            states: vec![State::Unknown; function.values.len()],
            listed: vec![false; function.nodes.len()],
            calls: BTreeSet::new(),
            found: Diagnostics::default(),
        };
        verifier.function(position == 0);
        calls.insert(name, verifier.calls);
        for mut diagnostic in verifier.found.0 {
            if graph.functions.len() > 1 {
                diagnostic.message.push_str(&format!(" (in @{name})"));
            }
            diagnostics.push(diagnostic);
        }
    }
    for name in circles(calls) {
        diagnostics.push(violation(
            10,
            &format!("@{name} calls itself, perhaps by way of others"),
            None,
        ));
    }
    diagnostics.into_result(())
}

/// Whether a value can be used.
#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Nothing has defined it.
    Unknown,
    /// It is defined here or in a block around.
    Visible,
    /// The block that defined it has ended.
    Gone,
}

struct Verifier<'a> {
    graph: &'a Graph,
    function: &'a Function,
    states: Vec<State>,
    listed: Vec<bool>,
    calls: BTreeSet<&'a str>,
    found: Diagnostics,
}

impl<'a> Verifier<'a> {
    fn function(&mut self, is_entry: bool) {
        let function = self.function;
        for (id, value) in function.values.iter() {
            if value.ty.checked_count().is_none() {
                let message =
                    format!("{} of type {} is larger than any memory", self.name(id), value.ty);
                self.report(4, &message, None);
            }
        }
        if self.found.has_errors() {
            return;
        }
        self.block(&function.body, 0, None);
        self.names(is_entry);
        self.state_pairs();
        self.shardings();
    }

    fn block(&mut self, block: &'a Block, depth: usize, span: Option<Span>) {
        if depth > MAX_BLOCK_DEPTH {
            return self.report(6, &format!("blocks nest more than {MAX_BLOCK_DEPTH} deep"), span);
        }
        let mut own = Vec::new();
        for &param in &block.params {
            self.define(param, &mut own, span);
        }
        for &id in &block.nodes {
            self.node(id, depth, &mut own);
        }
        for &result in &block.results {
            self.use_value(result, "a block's result", span);
        }
        for value in own {
            self.states[value.index()] = State::Gone;
        }
    }

    fn node(&mut self, id: NodeId, depth: usize, own: &mut Vec<ValueId>) {
        let Some(node) = self.function.nodes.get(id) else {
            return self.report(1, &format!("node {id:?} is not of this function"), None);
        };
        if std::mem::replace(&mut self.listed[id.index()], true) {
            return self.report(2, &format!("node {id:?} is listed twice"), node.span);
        }
        let before = self.found.0.len();
        for &operand in &node.operands {
            self.use_value(operand, node.op.name(), node.span);
        }
        for block in &node.blocks {
            self.block(block, depth + 1, node.span);
        }
        for &result in &node.results {
            self.define(result, own, node.span);
        }
        if node.origins.iter().any(|&origin| origin as usize >= self.graph.origins.len()) {
            self.report(12, "an origin is not in the graph's table", node.span);
        }
        // Types are compared only where all of the node's values exist.
        if self.found.0.len() == before {
            self.types(node);
        }
    }

    fn types(&mut self, node: &'a Node) {
        let results: Vec<TensorType> = self.types_of(&node.results);
        match graph::infer(self.function, &node.op, &node.operands, &node.blocks) {
            Err(error) => self.report(5, &format!("{}: {error}", node.op.name()), node.span),
            Ok(types) if types != results => {
                let message = format!(
                    "{} gives ({}), not ({})",
                    node.op.name(),
                    list(&types),
                    list(&results)
                );
                self.report(5, &message, node.span);
            }
            Ok(_) => {}
        }
        if let Op::Call(call) = &node.op {
            self.call(call, node);
        }
        if matches!(node.op, Op::Fusion(_)) {
            let mut captures = node.blocks.iter().flat_map(|block| self.function.captures(block));
            if let Some(value) = captures.next() {
                let message = format!("the fusion's block uses {} of outside", self.name(value));
                self.report(11, &message, node.span);
            }
        }
    }

    fn call(&mut self, call: &'a Call, node: &Node) {
        let Some(callee) = self.graph.functions.get(&call.function) else {
            let message = format!("there is no function @{}", call.function);
            return self.report(9, &message, node.span);
        };
        self.calls.insert(&call.function);
        let ids = callee.body.params.iter().chain(&callee.body.results);
        if ids.clone().any(|&value| callee.values.get(value).is_none()) {
            return;
        }
        let types = |values: &[ValueId]| -> Vec<TensorType> {
            values.iter().map(|&value| callee.ty(value).clone()).collect()
        };
        let operands = self.types_of(&node.operands);
        for (what, found, wanted) in [
            ("takes", operands, types(&callee.body.params)),
            ("gives", call.results.clone(), types(&callee.body.results)),
        ] {
            if found != wanted {
                let (wanted, found) = (list(&wanted), list(&found));
                let message = format!("@{} {what} ({wanted}), not ({found})", call.function);
                self.report(9, &message, node.span);
            }
        }
    }

    fn names(&mut self, is_entry: bool) {
        let function = self.function;
        let (names, results) = (&function.result_names, &function.body.results);
        if names.len() != results.len() {
            let message = format!("{} results have {} names", results.len(), names.len());
            self.report(7, &message, None);
        }
        let mut inputs = BTreeSet::new();
        for &param in &function.body.params {
            match function.values.get(param).and_then(|value| value.name.as_deref()) {
                Some(name) if !inputs.insert(name) => {
                    self.report(7, &format!("two inputs are called {name}"), None);
                }
                None if is_entry => self.report(7, "an input has no name", None),
                Some(_) | None => {}
            }
        }
        let mut outputs = BTreeSet::new();
        for name in names {
            if !outputs.insert(name) {
                self.report(7, &format!("two results are called {name}"), None);
            }
        }
    }

    fn shardings(&mut self) {
        let (graph, function) = (self.graph, self.function);
        for (&value, sharding) in &function.shardings {
            let Some(found) = function.values.get(value) else {
                self.report(1, &format!("value {value:?} is not of this function"), None);
                continue;
            };
            let wrong = match &graph.mesh {
                None => Err("there is no mesh to divide it by".to_owned()),
                Some(mesh) => sharding.check(&found.ty, mesh),
            };
            if let Err(why) = wrong {
                self.report(14, &format!("{}: {why}", self.name(value)), None);
            }
        }
        let Some(mesh) = &graph.mesh else { return };
        let ranks = mesh.ranks();
        function.visit(&function.body, &mut |id| {
            let node = &function.nodes[id];
            if node.op.kind() != Kind::Collective {
                return;
            }
            let (Parts::Groups(lists) | Parts::Pairs(lists)) = ranks::parts(&node.op);
            let outside = lists.iter().flatten().find(|&&rank| rank >= ranks);
            let why = match outside {
                _ if !mesh.divided => {
                    "a program that is yet to be divided has no collectives".to_owned()
                }
                Some(rank) => format!("there is no rank {rank} among {ranks}"),
                None => return,
            };
            self.found.push(violation(15, &format!("{}: {why}", node.op.name()), node.span));
        });
    }

    fn state_pairs(&mut self) {
        let body = &self.function.body;
        let (mut inputs, mut outputs) = (BTreeSet::new(), BTreeSet::new());
        for &(input, output) in &self.function.state {
            let (Some(&before), Some(&after)) = (body.params.get(input), body.results.get(output))
            else {
                self.report(8, &format!("there is no input {input} or no result {output}"), None);
                continue;
            };
            if !inputs.insert(input) || !outputs.insert(output) {
                self.report(8, &format!("{} is in two states", self.name(before)), None);
            }
            let ty = |value| self.function.values.get(value).map(|value| &value.ty);
            if let (Some(left), Some(right)) = (ty(before), ty(after))
                && left != right
            {
                let message =
                    format!("the state {} is {left} before and {right} after", self.name(before));
                self.report(8, &message, None);
            }
        }
    }

    fn define(&mut self, value: ValueId, own: &mut Vec<ValueId>, span: Option<Span>) {
        match self.states.get(value.index()) {
            None => self.report(1, &format!("value {value:?} is not of this function"), span),
            Some(State::Unknown) => {
                self.states[value.index()] = State::Visible;
                own.push(value);
            }
            Some(State::Visible | State::Gone) => {
                self.report(2, &format!("{} is defined twice", self.name(value)), span);
            }
        }
    }

    fn use_value(&mut self, value: ValueId, user: &str, span: Option<Span>) {
        let problem = match self.states.get(value.index()) {
            Some(State::Visible) => return,
            None => {
                return self.report(1, &format!("value {value:?} is not of this function"), span);
            }
            Some(State::Unknown) => "before it is defined",
            Some(State::Gone) => "outside the block that defines it",
        };
        self.report(3, &format!("{user} uses {} {problem}", self.name(value)), span);
    }

    fn types_of(&self, values: &[ValueId]) -> Vec<TensorType> {
        values.iter().map(|&value| self.function.ty(value).clone()).collect()
    }

    fn name(&self, value: ValueId) -> String {
        match self.function.values.get(value).and_then(|value| value.name.as_ref()) {
            Some(name) => format!("%{name}"),
            None => format!("value {value:?}"),
        }
    }

    fn report(&mut self, rule: usize, message: &str, span: Option<Span>) {
        self.found.push(violation(rule, message, span));
    }
}

fn violation(rule: usize, message: &str, span: Option<Span>) -> Diagnostic {
    let diagnostic = Diagnostic::error(Code::Verify, format!("rule {rule}: {message}"));
    match span {
        Some(span) => diagnostic.at(span),
        None => diagnostic,
    }
}

fn list(types: &[TensorType]) -> String {
    types.iter().map(TensorType::to_string).collect::<Vec<_>>().join(", ")
}

/// The functions that are in a circle of calls, or call one that is.
fn circles<'a>(calls: BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<&'a str> {
    let mut callers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
    for (&caller, callees) in &calls {
        waiting.insert(caller, callees.len());
        for callee in callees {
            callers.entry(callee).or_default().push(caller);
        }
    }
    let mut leaves: Vec<&str> = Vec::new();
    leaves.extend(waiting.iter().filter(|(_, count)| **count == 0).map(|(&name, _)| name));
    while let Some(leaf) = leaves.pop() {
        waiting.remove(leaf);
        for &caller in callers.get(leaf).into_iter().flatten() {
            let count = waiting.get_mut(caller).expect("a caller waits for each callee");
            *count -= 1;
            if *count == 0 {
                leaves.push(caller);
            }
        }
    }
    waiting.into_keys().collect()
}

#[cfg(test)]
mod tests;
