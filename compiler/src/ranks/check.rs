//! Whether ranks will meet, before anything runs: all ranks of a group issue the same collectives in the same order, and
//! every message has a receiver that waits for it.
//!
//! What ranks issue is read off their programs in order, a loop twice, a branch with both sides; that is exact where
//! all ranks of a group go the same way. So a collective in a branch or loop that depends on a value is allowed only
//! where the value is the same on all ranks of its groups. Which values may differ along which axes of the mesh follows
//! from the shardings of parameters, from `rank`, and from what collectives join.
#![expect(
    clippy::needless_range_loop,
    clippy::wildcard_enum_match_arm,
    reason = "each match names the few ops that are special here"
)]

use super::{Parts, agreement, parts};
use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::graph::{Block, Function, Graph, Node, NodeId, ValueId};
use crate::mesh::Mesh;
use crate::op::{Kind, Op};
use crate::tensor::shape_text;
use indexmap::IndexMap;
use std::collections::{BTreeMap, VecDeque};

/// A collective that a program issues.
#[derive(Clone, Debug)]
struct Issued {
    op: Op,
    agreement: String,
    span: Option<Span>,
}

/// The most collectives of one program that are followed.
const MOST_ISSUED: usize = 1 << 16;

/// Checks the programs of ranks; `program_of` gives the program of each. Every place where they would not meet is
/// reported, the first where they would wait in vain.
pub fn check(programs: &[&Graph], program_of: &[usize]) -> Result<(), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let mut issued = Vec::new();
    for graph in programs {
        let mut reader = Reader::new(graph, program_of.len());
        reader.spread();
        let function = graph.entry();
        reader.block(&function.body, &[], &mut diagnostics);
        issued.push(reader.issued);
    }
    if !diagnostics.has_errors() {
        meet(&issued, program_of, &mut diagnostics);
    }
    diagnostics.into_result(())
}

/// Reads off what a program issues.
struct Reader<'a> {
    graph: &'a Graph,
    function: &'a Function,
    /// One pseudo axis of all ranks where the program has no mesh.
    mesh: Mesh,
    /// For each value and axis, whether ranks that differ along it may have different values.
    varies: Vec<Vec<bool>>,
    definitions: IndexMap<ValueId, NodeId>,
    issued: Vec<Issued>,
}

impl<'a> Reader<'a> {
    fn new(graph: &'a Graph, ranks: usize) -> Reader<'a> {
        let function = graph.entry();
        let own = graph.mesh.as_ref().filter(|mesh| mesh.ranks() == ranks);
        let mesh = own.cloned().unwrap_or_else(|| Mesh::new(&[("rank", ranks)]));
        let mut varies = vec![vec![false; mesh.axes.len()]; function.values.len()];
        for &param in &function.body.params {
            for axis in 0..mesh.axes.len() {
                let sharding = own.and_then(|_| function.shardings.get(&param));
                varies[param.index()][axis] = sharding.is_none_or(|sharding| sharding.uses(axis));
            }
        }
        let definitions = function.definitions();
        Reader { graph, function, mesh, varies, definitions, issued: Vec::new() }
    }

    /// Spreads what varies over all values, until nothing changes.
    fn spread(&mut self) {
        let function = self.function;
        loop {
            let before = self.varies.clone();
            self.spread_block(&function.body);
            if self.varies == before {
                return;
            }
        }
    }

    fn spread_block(&mut self, block: &Block) {
        let function = self.function;
        for &id in &block.nodes {
            let node = &function.nodes[id];
            self.spread_node(node);
        }
    }

    fn add(&mut self, to: ValueId, varies: &[bool]) {
        self.varies[to.index()].iter_mut().zip(varies).for_each(|(known, new)| *known |= new);
    }

    fn of(&self, values: &[ValueId]) -> Vec<bool> {
        let mut union = vec![false; self.mesh.axes.len()];
        for value in values {
            union
                .iter_mut()
                .zip(&self.varies[value.index()])
                .for_each(|(known, new)| *known |= new);
        }
        union
    }

    fn spread_node(&mut self, node: &Node) {
        let mut varies = self.of(&node.operands);
        match &node.op {
            Op::Rank(_) => varies.fill(true),
            Op::DynamicSlice(_) => {
                if let Some(exact) = self.looked_up(node) {
                    varies = exact;
                }
            }
            Op::Parameter(_) => {
                let sharding =
                    node.results.first().and_then(|value| self.function.shardings.get(value));
                for (axis, varies) in varies.iter_mut().enumerate() {
                    *varies = sharding.is_some_and(|sharding| sharding.uses(axis));
                }
            }
            op if op.kind() == Kind::Collective => self.exchanged(op, &mut varies),
            Op::If(_) | Op::While(_) | Op::For(_) => return self.spread_control(node),
            _ => {
                for block in &node.blocks {
                    let captured = self.function.captures(block);
                    let inner = self.of(&captured);
                    varies.iter_mut().zip(inner).for_each(|(known, new)| *known |= new);
                }
            }
        }
        for &result in &node.results {
            self.add(result, &varies);
        }
    }

    /// What a table gives that is looked up by the rank: it varies along an axis where its entries do.
    fn looked_up(&self, node: &Node) -> Option<Vec<bool>> {
        let [table, rank] = node.operands[..] else { return None };
        let node_of =
            |value: ValueId| self.definitions.get(&value).map(|&id| &self.function.nodes[id].op);
        let (Some(Op::Constant(table)), Some(Op::Rank(_))) = (node_of(table), node_of(rank)) else {
            return None;
        };
        let entries = table.value.to_i64();
        if entries.len() != self.mesh.ranks() {
            return None;
        }
        let differs = |axis: usize| {
            let first = |rank: usize| entries[self.mesh.moved(rank, axis, 0)];
            (0..entries.len()).any(|rank| entries[rank] != first(rank))
        };
        Some((0..self.mesh.axes.len()).map(differs).collect())
    }

    /// What a collective makes of what varies. All members of a group of `all-reduce` or `all-gather` get the same.
    /// Otherwise ranks that differ along an axis do what the others do if each group, moved along that axis, is a group
    /// again, in the same order; where it is not, nothing is known.
    fn exchanged(&self, op: &Op, varies: &mut [bool]) {
        let (Parts::Groups(groups) | Parts::Pairs(groups)) = parts(op);
        let is_same_in_group = matches!(op, Op::AllReduce(_) | Op::AllGather(_));
        for axis in 0..self.mesh.axes.len() {
            let places = || 0..self.mesh.size(axis);
            let moved = |rank: &usize, at: usize| self.mesh.moved(*rank, axis, at);
            let holds_all = |group: &Vec<usize>| {
                group.iter().all(|rank| places().all(|at| group.contains(&moved(rank, at))))
            };
            let is_mirrored = |group: &Vec<usize>| {
                places().all(|at| {
                    let other: Vec<usize> = group.iter().map(|rank| moved(rank, at)).collect();
                    groups.contains(&other)
                })
            };
            if is_same_in_group && groups.iter().all(holds_all) {
                varies[axis] = false;
            } else if !groups.iter().all(is_mirrored) {
                varies[axis] = true;
            }
        }
    }

    fn spread_control(&mut self, node: &Node) {
        for block in &node.blocks {
            self.spread_block(block);
        }
        let first = match &node.op {
            Op::If(_) => self.of(&node.operands[..1]),
            Op::While(_) => self.of(&node.blocks[0].results),
            _ => vec![false; self.mesh.axes.len()],
        };
        let skipped = usize::from(matches!(node.op, Op::For(_)));
        let is_if = matches!(node.op, Op::If(_));
        for (position, &result) in node.results.iter().enumerate() {
            let mut varies = first.clone();
            let mut join = |other: Vec<bool>| {
                varies.iter_mut().zip(other).for_each(|(known, new)| *known |= new);
            };
            if is_if {
                node.blocks
                    .iter()
                    .for_each(|block| join(self.of(&block.results[position..=position])));
            } else {
                join(self.of(&node.operands[position..=position]));
                let body = node.blocks.last().expect("a loop has a body");
                join(self.of(&body.results[position..=position]));
                for block in &node.blocks {
                    self.add(block.params[position + skipped], &varies);
                }
            }
            self.add(result, &varies);
        }
    }

    /// Notes what a block issues. `choices` are the values on which it depends that this is reached at all.
    fn block(
        &mut self,
        block: &Block,
        choices: &[(&'static str, ValueId)],
        diagnostics: &mut Diagnostics,
    ) {
        let function = self.function;
        for &id in &block.nodes {
            let node = &function.nodes[id];
            if node.op.kind() == Kind::Collective && !matches!(node.op, Op::Rank(_)) {
                self.collective(node, choices, diagnostics);
                continue;
            }
            let mut inner = choices.to_vec();
            match &node.op {
                Op::If(_) => inner.push(("if", node.operands[0])),
                Op::While(_) => inner.push(("while", node.blocks[0].results[0])),
                Op::Call(call) if has_collective(self.graph, &call.function, 0) => {
                    let message = format!("@{} issues collectives; inline it first", call.function);
                    report(diagnostics, message, node.span);
                }
                _ => {}
            }
            // Twice, so that the end of one round meets the start of the next.
            let rounds = match &node.op {
                Op::While(_) => 2,
                Op::For(op) => op.count.min(2),
                _ => 1,
            };
            for _ in 0..rounds {
                for block in &node.blocks {
                    self.block(block, &inner, diagnostics);
                }
            }
        }
    }

    fn collective(
        &mut self,
        node: &Node,
        choices: &[(&'static str, ValueId)],
        diagnostics: &mut Diagnostics,
    ) {
        let (Parts::Groups(groups) | Parts::Pairs(groups)) = parts(&node.op);
        let name = node.op.name();
        for &(what, value) in choices {
            let varies = &self.varies[value.index()];
            for group in groups {
                let differs = |axis: usize| {
                    let at = |rank: &usize| self.mesh.coordinate(*rank % self.mesh.ranks(), axis);
                    varies[axis] && group.iter().any(|rank| at(rank) != at(&group[0]))
                };
                let Some(axis) = (0..self.mesh.axes.len()).find(|&axis| differs(axis)) else {
                    continue;
                };
                let condition = match &self.function.values[value].name {
                    Some(name) => format!("%{name}"),
                    None => "its condition".to_owned(),
                };
                let message = format!(
                    "ranks {} may part at the `{what}` around this {name}: {condition} may differ along {}",
                    shape_text(group),
                    self.mesh.axes[axis].0
                );
                report(diagnostics, message, node.span);
                return;
            }
        }
        if self.issued.len() < MOST_ISSUED {
            let operand = self.function.ty(node.operands[0]);
            let agreement = agreement(&node.op, operand);
            self.issued.push(Issued { op: node.op.clone(), agreement, span: node.span });
        }
    }
}

fn has_collective(graph: &Graph, name: &str, depth: usize) -> bool {
    let Some(function) = graph.functions.get(name) else { return false };
    let mut found = false;
    function.visit(&function.body, &mut |id| {
        let op = &function.nodes[id].op;
        found |= op.kind() == Kind::Collective && !matches!(op, Op::Rank(_));
        if let Op::Call(call) = op {
            found |= depth < 64 && has_collective(graph, &call.function, depth + 1);
        }
    });
    found
}

fn report(diagnostics: &mut Diagnostics, message: String, span: Option<Span>) {
    const MOST: usize = 50;
    if diagnostics.0.len() < MOST {
        let mut diagnostic = Diagnostic::error(Code::Verify, message);
        diagnostic.span = span;
        diagnostics.push(diagnostic);
    }
}

/// Messages on their way, by sender and receiver: what the sender says of each, and where it issues it.
type Mail = BTreeMap<(usize, usize), VecDeque<(String, Option<Span>)>>;

/// Lets all ranks issue what they issue, each going on as soon as its partners have come.
fn meet(issued: &[Vec<Issued>], program_of: &[usize], diagnostics: &mut Diagnostics) {
    let ranks = program_of.len();
    let mut next = vec![0usize; ranks];
    // For each group, who has come to its present meeting, and what the first of them issued.
    let mut waiting: BTreeMap<Vec<usize>, (usize, Vec<usize>)> = BTreeMap::new();
    let mut mail: Mail = BTreeMap::new();
    let mut sent = vec![false; ranks];
    let mut ready: VecDeque<usize> = (0..ranks).collect();
    while let Some(rank) = ready.pop_front() {
        while let Some(now) = issued[program_of[rank]].get(next[rank]) {
            match parts(&now.op) {
                Parts::Groups(groups) => {
                    let Some(group) = groups.iter().find(|group| group.contains(&rank)) else {
                        let message = format!(
                            "rank {rank} issues this {}, but is in none of its groups",
                            now.op.name()
                        );
                        return report(diagnostics, message, now.span);
                    };
                    if let Some(outside) = group.iter().find(|&&other| other >= ranks) {
                        let message = format!("there is no rank {outside} among {ranks}");
                        return report(diagnostics, message, now.span);
                    }
                    let entry = waiting.entry(group.clone()).or_insert((rank, Vec::new()));
                    if entry.1.contains(&rank) {
                        break;
                    }
                    let first = &issued[program_of[entry.0]][next[entry.0]];
                    if first.agreement != now.agreement {
                        let message = format!(
                            "rank {rank} issues {} where rank {} of the group {} issues {}",
                            now.agreement,
                            entry.0,
                            shape_text(group),
                            first.agreement
                        );
                        return report(diagnostics, message, now.span);
                    }
                    entry.1.push(rank);
                    if entry.1.len() < group.len() {
                        break;
                    }
                    waiting.remove(group);
                    for &other in group {
                        next[other] += 1;
                        if other != rank {
                            ready.push_back(other);
                        }
                    }
                }
                Parts::Pairs(pairs) => {
                    if !std::mem::replace(&mut sent[rank], true) {
                        for pair in pairs.iter().filter(|pair| pair[0] == rank) {
                            let message = (now.agreement.clone(), now.span);
                            mail.entry((rank, pair[1])).or_default().push_back(message);
                            if pair[1] < ranks && pair[1] != rank {
                                ready.push_back(pair[1]);
                            }
                        }
                    }
                    if let Some(pair) = pairs.iter().find(|pair| pair[1] == rank) {
                        let Some((message, _)) =
                            mail.get_mut(&(pair[0], rank)).and_then(VecDeque::pop_front)
                        else {
                            break;
                        };
                        if message != now.agreement {
                            let message = format!(
                                "rank {rank} waits for {} of rank {}, which sends {message}",
                                now.agreement, pair[0]
                            );
                            return report(diagnostics, message, now.span);
                        }
                    }
                    sent[rank] = false;
                    next[rank] += 1;
                }
            }
        }
    }
    let stuck =
        (0..ranks).find_map(|rank| issued[program_of[rank]].get(next[rank]).map(|now| (rank, now)));
    if let Some((_, now)) = stuck {
        let places: Vec<String> = (0..ranks)
            .take(16)
            .map(|rank| match issued[program_of[rank]].get(next[rank]) {
                Some(now) => format!("rank {rank} waits in {}", now.agreement),
                None => format!("rank {rank} is done"),
            })
            .collect();
        return report(diagnostics, format!("no rank can go on: {}", places.join("; ")), now.span);
    }
    for ((from, to), messages) in &mail {
        if let Some((message, span)) = messages.front() {
            let message =
                format!("rank {from} sends {message} to rank {to}, which does not wait for it");
            report(diagnostics, message, *span);
        }
    }
}

#[cfg(test)]
mod tests;
