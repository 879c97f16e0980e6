//! Makes a fusion node of a `for` whose body one kernel can hold: the loop runs inside the kernel, with its state in near
//! memory and its weights read before it. The others stay steps between kernels.

use crate::graph::{Block, Function, Graph, Node, NodeId, ValueId};
use crate::kernel::{Kernel, Stmt, TileOp};
use crate::lower::lower_group;
use crate::op::{Fusion, Op};
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// See the module.
pub const PASS: Pass<Graph> = Pass {
    name: "fuse-loops",
    summary: "Makes fusion nodes of loops whose body one kernel can hold.",
    run,
};

/// A longer body gains little from being one kernel.
const MOST_NODES: usize = 256;

fn run(
    graph: &mut Graph,
    context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(super::each_function(graph, |function| {
        let mut fused = function.clone();
        let mut body = std::mem::take(&mut fused.body);
        let changed = fuse_block(&mut fused, &mut body, &BTreeMap::new(), context);
        fused.body = body;
        // Copying leaves the replaced nodes behind.
        changed.then(|| {
            rewrite(&fused, &mut |_, _, _| Ok(Rewrite::Keep)).expect("copying infers nothing")
        })
    }))
}

/// Replaces loops of a block and of those in it; says whether there was one. `around` knows what makes the values outside.
fn fuse_block(
    function: &mut Function,
    block: &mut Block,
    around: &BTreeMap<ValueId, NodeId>,
    context: &Context<'_>,
) -> bool {
    let mut producers = around.clone();
    let mut changed = false;
    let mut nodes = Vec::with_capacity(block.nodes.len());
    for &id in &block.nodes {
        let op = function.nodes[id].op.clone();
        if !matches!(op, Op::Fusion(_)) {
            let mut blocks = std::mem::take(&mut function.nodes[id].blocks);
            for inner in &mut blocks {
                changed |= fuse_block(function, inner, &producers, context);
            }
            function.nodes[id].blocks = blocks;
        }
        if matches!(op, Op::For(_)) {
            match fuse(function, id, &producers, context) {
                Ok(fused) => {
                    nodes.extend(fused.constants);
                    nodes.push(fused.fusion);
                    changed = true;
                }
                Err(reason) => {
                    context.decline(PASS.name, "for", reason);
                    nodes.push(id);
                }
            }
        } else {
            nodes.push(id);
        }
        producers.extend(function.nodes[id].results.iter().map(|&result| (result, id)));
    }
    block.nodes = nodes;
    changed
}

/// What takes a loop's place.
struct Fused {
    /// Constants of the body, which the kernel reads like any other operand.
    constants: Vec<NodeId>,
    fusion: NodeId,
}

/// A fusion node for a loop, or why it cannot be.
fn fuse(
    function: &mut Function,
    id: NodeId,
    producers: &BTreeMap<ValueId, NodeId>,
    context: &Context<'_>,
) -> Result<Fused, String> {
    let node = function.nodes[id].clone();
    let body = &node.blocks[0];
    if body.nodes.iter().any(|&id| !function.nodes[id].blocks.is_empty()) {
        return Err("a block of its own is inside".to_owned());
    }
    if body.nodes.len() > MOST_NODES {
        return Err("the body is too long".to_owned());
    }
    let mut copier = Copier {
        function,
        producers,
        map: BTreeMap::new(),
        outside: Vec::new(),
        params: Vec::new(),
        nodes: Vec::new(),
    };
    let operands = node.operands.iter().map(|&value| copier.parameter(value)).collect();
    let constants: Vec<NodeId> =
        body.nodes.iter().copied().filter(|&id| is_tensor(&copier.function.nodes[id])).collect();
    let body = copier.body(body);
    let Copier { outside, params, .. } = copier;
    let results: SmallVec<[ValueId; 1]> = node
        .results
        .iter()
        .map(|&result| function.value(function.ty(result).clone(), None))
        .collect();
    let inner = Node { operands, results: results.clone(), blocks: vec![body], ..node.clone() };
    let block =
        Block { params, nodes: vec![function.nodes.push(inner)], results: results.to_vec() };
    let lowered = lower_group(function, &block, "trial")?;
    if near_bytes(&lowered.kernel) > context.machine.near_bytes {
        return Err("what an iteration computes does not fit near memory".to_owned());
    }
    let fusion = Node { op: Op::Fusion(Fusion {}), operands: outside, blocks: vec![block], ..node };
    Ok(Fused { constants, fusion: function.nodes.push(fusion) })
}

/// Whether a node is a constant that a kernel must read from memory.
fn is_tensor(node: &Node) -> bool {
    matches!(&node.op, Op::Constant(constant) if constant.value.count() != 1)
}

/// The bytes of all that the loop computes and carries.
fn near_bytes(kernel: &Kernel) -> usize {
    fn sum(kernel: &Kernel, body: &[Stmt]) -> usize {
        let bytes = |tile| kernel.tiles[tile].ty().bytes();
        let of = |stmt: &Stmt| match stmt {
            Stmt::Define {
                op: TileOp::Load { .. } | TileOp::View { .. } | TileOp::Fill { .. },
                ..
            } => 0,
            Stmt::Define { results, .. } => results.iter().map(|&tile| bytes(tile)).sum(),
            Stmt::For(inner) => {
                inner.carried.iter().map(|&(tile, _)| bytes(tile)).sum::<usize>()
                    + sum(kernel, &inner.body)
            }
            Stmt::Store { .. } | Stmt::Scatter { .. } => 0,
        };
        body.iter().map(of).fold(0, usize::saturating_add)
    }
    sum(kernel, &kernel.body)
}

/// Copies a loop's body into a block that uses nothing of outside but its parameters.
struct Copier<'a> {
    function: &'a mut Function,
    producers: &'a BTreeMap<ValueId, NodeId>,
    map: BTreeMap<ValueId, ValueId>,
    /// What the fusion node reads, and the parameters that stand for it.
    outside: Vec<ValueId>,
    params: Vec<ValueId>,
    nodes: Vec<NodeId>,
}

impl Copier<'_> {
    /// The parameter of the fusion that stands for a value of outside.
    fn parameter(&mut self, value: ValueId) -> ValueId {
        if let Some(position) = self.outside.iter().position(|&other| other == value) {
            return self.params[position];
        }
        let param = self.function.value(self.function.ty(value).clone(), None);
        self.outside.push(value);
        self.params.push(param);
        param
    }

    fn body(&mut self, body: &Block) -> Block {
        let params = body.params.iter().map(|&param| self.fresh(param)).collect();
        for &id in &body.nodes {
            if !is_tensor(&self.function.nodes[id]) {
                self.node(id);
            }
        }
        let results = body.results.iter().map(|&result| self.value(result)).collect();
        Block { params, nodes: std::mem::take(&mut self.nodes), results }
    }

    fn fresh(&mut self, value: ValueId) -> ValueId {
        let copy = self.function.value(self.function.ty(value).clone(), None);
        self.map.insert(value, copy);
        copy
    }

    fn node(&mut self, id: NodeId) {
        let node = self.function.nodes[id].clone();
        let operands = node.operands.iter().map(|&value| self.value(value)).collect();
        let results = node.results.iter().map(|&result| self.fresh(result)).collect();
        let copy = self.function.nodes.push(Node { operands, results, ..node });
        self.nodes.push(copy);
    }

    /// The copy of a value, or what stands for it. Scalars and what repeats them come along, as they cost nothing inside.
    fn value(&mut self, value: ValueId) -> ValueId {
        if let Some(&copy) = self.map.get(&value) {
            return copy;
        }
        if let Some(&id) = self.producers.get(&value)
            && self.is_free(id)
        {
            self.node(id);
            return self.map[&value];
        }
        self.parameter(value)
    }

    fn is_free(&self, id: NodeId) -> bool {
        let node = &self.function.nodes[id];
        let of_free = || {
            node.operands
                .iter()
                .all(|value| self.producers.get(value).is_some_and(|&id| self.is_free(id)))
        };
        let is_scalar = matches!(&node.op, Op::Constant(constant) if constant.value.count() == 1);
        is_scalar
            || matches!(node.op, Op::Iota(_))
            || matches!(node.op, Op::Broadcast(_) | Op::Reshape(_)) && of_free()
    }
}
