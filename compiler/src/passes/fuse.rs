//! Groups nodes that become one kernel: elementwise chains, producers into reductions, reductions with what follows on
//! the same rows (softmax, norms), epilogues into products, convolutions, windows and gathers.
//!
//! Nodes that cost nothing (views, iota, scalar constants) are copied into every group that reads them. A group is
//! tried on `lower` before it is made, so that every fusion node can be lowered; what cannot stays apart.
//!
//! Attention is found first (`attention.rs`), as it is more than one product: its groups stay as they are.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

mod attention;

use crate::graph::{Block, Function, Graph, Node, NodeId, Origins, ValueId};
use crate::lower::lower_group;
use crate::op::{Fusion, Kind, Op};
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, join_origins, rewrite};
use crate::scalar::ScalarFn;
use crate::types::{DType, Shape};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
pub const PASS: Pass<Graph> =
    Pass { name: "fuse", summary: "Groups nodes that become one kernel, as fusion nodes.", run };

const MOST_NODES: usize = 48;

fn run(
    graph: &mut Graph,
    context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(super::each_function(graph, |function| {
        let mut function = function.clone();
        let body = std::mem::take(&mut function.body);
        function.body = fuse_block(&mut function, body, context);
        // Copying leaves the replaced nodes behind.
        Some(rewrite(&function, &mut |_, _, _| Ok(Rewrite::Keep)).expect("copying infers nothing"))
    }))
}

/// What a cluster may take in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Only elementwise nodes.
    Elementwise,
    /// Reductions, and elementwise nodes over their rows or results.
    Reduction,
    /// One product, window or gather, and elementwise nodes over its result.
    Anchor,
    /// Nothing joins it.
    Alone,
}

#[derive(Clone, Debug)]
struct Cluster {
    members: Vec<NodeId>,
    class: Class,
    /// The shape that reductions read.
    rows: Option<Shape>,
    /// The shape of the last member's result.
    shape: Shape,
    /// What it was merged into.
    merged: bool,
}

struct Fuser<'a> {
    function: &'a Function,
    position: BTreeMap<NodeId, usize>,
    producer: BTreeMap<ValueId, NodeId>,
    clusters: Vec<Cluster>,
    cluster_of: BTreeMap<NodeId, usize>,
    /// The nodes that read each value, free ones apart.
    readers: BTreeMap<ValueId, Vec<NodeId>>,
    results: BTreeSet<ValueId>,
}

fn fuse_block(function: &mut Function, mut block: Block, context: &Context<'_>) -> Block {
    for &id in &block.nodes {
        if matches!(function.nodes[id].op, Op::Fusion(_)) {
            continue;
        }
        let inner = std::mem::take(&mut function.nodes[id].blocks);
        let inner = inner.into_iter().map(|block| fuse_block(function, block, context)).collect();
        function.nodes[id].blocks = inner;
    }
    let attentions = attention::find(function, &block, context);
    let groups = find_groups(function, &block, &attentions, context);
    let mut emitter = Emitter::new(function, &block);
    emitter.emit(&groups, context);
    let emitted = emitter.emitted;
    block.nodes = order(function, emitted);
    block
}

/// Whether a node costs nothing where it is read.
fn is_free(node: &Node) -> bool {
    match &node.op {
        Op::Constant(constant) => constant.value.count() == 1,
        Op::Iota(_)
        | Op::Reshape(_)
        | Op::Transpose(_)
        | Op::Broadcast(_)
        | Op::Slice(_)
        | Op::Reverse(_) => true,
        _ => false,
    }
}

fn class_of(node: &Node) -> Class {
    match node.op.kind() {
        Kind::Map => Class::Elementwise,
        Kind::Reduce => match node.op {
            Op::Reduce(_) => Class::Reduction,
            _ => Class::Anchor,
        },
        Kind::Contract => Class::Anchor,
        Kind::Index if matches!(node.op, Op::Gather(_) | Op::DynamicSlice(_)) => Class::Anchor,
        Kind::Source
        | Kind::View
        | Kind::Index
        | Kind::Order
        | Kind::Control
        | Kind::Collective
        | Kind::Composite => Class::Alone,
    }
}

fn find_groups(
    function: &Function,
    block: &Block,
    attentions: &[Vec<NodeId>],
    context: &Context<'_>,
) -> Vec<Vec<NodeId>> {
    let mut fuser = Fuser {
        function,
        position: block.nodes.iter().enumerate().map(|(position, &id)| (id, position)).collect(),
        producer: BTreeMap::new(),
        clusters: Vec::new(),
        cluster_of: BTreeMap::new(),
        readers: BTreeMap::new(),
        results: block.results.iter().copied().collect(),
    };
    for &id in block.nodes.iter().filter(|&&id| !is_free(&function.nodes[id])) {
        let node = &function.nodes[id];
        let captured: Vec<ValueId> =
            node.blocks.iter().flat_map(|inner| function.captures(inner)).collect();
        for &value in node.operands.iter().chain(&captured) {
            fuser.readers.entry(value).or_default().push(id);
        }
    }
    for members in attentions {
        let last = members.last().expect("attention has members");
        fuser.cluster_of.extend(members.iter().map(|&id| (id, fuser.clusters.len())));
        fuser.clusters.push(Cluster {
            members: members.clone(),
            class: Class::Alone,
            rows: None,
            shape: function.ty(function.nodes[*last].results[0]).shape.clone(),
            merged: false,
        });
    }
    for &id in &block.nodes {
        let node = &function.nodes[id];
        fuser.producer.extend(node.results.iter().map(|&result| (result, id)));
        if is_free(node) || !node.blocks.is_empty() || fuser.cluster_of.contains_key(&id) {
            continue;
        }
        let shape = function.ty(node.results[0]).shape.clone();
        let rows =
            matches!(node.op, Op::Reduce(_)).then(|| function.ty(node.operands[0]).shape.clone());
        fuser.clusters.push(Cluster {
            members: vec![id],
            class: class_of(node),
            rows,
            shape,
            merged: false,
        });
        fuser.cluster_of.insert(id, fuser.clusters.len() - 1);
        fuser.grow(id, context);
    }
    fuser
        .clusters
        .into_iter()
        .filter(|cluster| !cluster.merged)
        .map(|cluster| cluster.members)
        .collect()
}

impl Fuser<'_> {
    /// The cluster that computes a value, seen through free nodes; and whether only views that keep the number of
    /// elements lie between.
    fn source(&self, value: ValueId) -> Option<(usize, bool)> {
        let (mut value, mut whole) = (value, true);
        loop {
            let id = *self.producer.get(&value)?;
            if let Some(&cluster) = self.cluster_of.get(&id) {
                return Some((cluster, whole));
            }
            let node = &self.function.nodes[id];
            if !is_free(node) || node.operands.is_empty() {
                return None;
            }
            whole &= matches!(node.op, Op::Reshape(_) | Op::Transpose(_) | Op::Reverse(_));
            value = node.operands[0];
        }
    }

    /// Lets the newest node's cluster take in those that compute its operands.
    fn grow(&mut self, id: NodeId, context: &Context<'_>) {
        let node = &self.function.nodes[id];
        let name = node.op.name();
        let mut sources: Vec<(usize, bool, usize)> = node
            .operands
            .iter()
            .enumerate()
            .filter_map(|(position, &value)| {
                self.source(value).map(|(cluster, whole)| (cluster, whole, position))
            })
            .collect();
        // Anchors and reductions first: there is room for one of them, and for any number of elementwise chains.
        sources.sort_by_key(|&(cluster, _, position)| {
            (self.clusters[cluster].class == Class::Elementwise, position)
        });
        for (cluster, whole, position) in sources {
            let own = self.cluster_of[&id];
            let from = self.cluster_of[&self.clusters[cluster].members[0]];
            if from == own {
                continue;
            }
            match self.may_join(from, own, id, position, whole, context) {
                Ok(()) => self.merge(from, own),
                Err(reason) => {
                    let producer =
                        *self.clusters[from].members.last().expect("a cluster has members");
                    let place = format!("{} into {name}", self.function.nodes[producer].op.name());
                    context.decline(PASS.name, place, reason);
                }
            }
        }
    }

    fn may_join(
        &self,
        from: usize,
        own: usize,
        id: NodeId,
        position: usize,
        whole: bool,
        context: &Context<'_>,
    ) -> Result<(), &'static str> {
        let (a, b) = (&self.clusters[from], &self.clusters[own]);
        let node = &self.function.nodes[id];
        if a.members.len() + b.members.len() > MOST_NODES {
            return Err("the group would be too long");
        }
        let operand_shape = &self.function.ty(node.operands[position]).shape;
        match (a.class, class_of(node)) {
            (Class::Alone, _) => return Err("the producer stays alone"),
            (Class::Elementwise, Class::Elementwise) => {}
            (Class::Elementwise, Class::Reduction) => {
                if b.class == Class::Anchor {
                    return Err("one anchor a group");
                }
            }
            (Class::Elementwise, Class::Anchor) => {
                let positions = matches!(node.op, Op::Gather(_)) && position == 1;
                let is_right = matches!(node.op, Op::Contract(_)) && position == 1;
                let widened = is_right && self.only_use(a, id) && self.is_widening(a, context);
                if !positions && !widened {
                    return Err("products, windows and gathers read memory");
                }
            }
            (Class::Elementwise, Class::Alone) => {
                if !matches!(node.op, Op::Concat(_)) || !self.only_use(a, id) {
                    return Err("the consumer stays alone");
                }
            }
            (Class::Reduction, Class::Elementwise) => {
                if b.class == Class::Anchor {
                    return Err("one anchor a group");
                }
                let epilogue =
                    whole && a.shape.iter().product::<usize>() == b.shape.iter().product::<usize>();
                let row = a.rows.as_ref().is_some_and(|rows| *rows == b.shape);
                if !epilogue && !row {
                    return Err("the consumer has other rows");
                }
                if row && b.class == Class::Reduction && b.rows != a.rows {
                    return Err("the reductions read other rows");
                }
                if row && !self.row_fits(a, context) {
                    return Err("a row does not fit near memory");
                }
            }
            (Class::Reduction, Class::Reduction) => {
                if a.rows.as_ref() != Some(operand_shape) || !self.row_fits(a, context) {
                    return Err("the reductions read other rows");
                }
            }
            (Class::Anchor, Class::Elementwise) => {
                if b.class != Class::Elementwise {
                    return Err("one anchor a group");
                }
                if !whole || a.shape.iter().product::<usize>() != b.shape.iter().product::<usize>()
                {
                    return Err("the result is repeated or cut");
                }
                if !self.only_use(a, id) && a.shape != b.shape {
                    return Err("not a single use");
                }
            }
            (Class::Reduction, Class::Anchor | Class::Alone) | (Class::Anchor, _) => {
                return Err("products, windows and gathers read memory");
            }
        }
        match self.makes_cycle(from, own) {
            true => Err("another node lies between"),
            false => Ok(()),
        }
    }

    /// Whether a cluster only widens a constant of a type that the machine's products read, and scales it at most.
    fn is_widening(&self, cluster: &Cluster, context: &Context<'_>) -> bool {
        let is_constant = |mut value: ValueId| {
            while let Some(&id) = self.producer.get(&value) {
                let node = &self.function.nodes[id];
                match node.op {
                    Op::Constant(_) | Op::Parameter(_) => return true,
                    _ if is_free(node) && !node.operands.is_empty() => value = node.operands[0],
                    _ => return false,
                }
            }
            false
        };
        let (mut narrow, mut scaled) = (0, 0);
        for &id in &cluster.members {
            let node = &self.function.nodes[id];
            let ty = self.function.ty(node.results[0]);
            match &node.op {
                Op::Convert(_) if ty.dtype == DType::F32 => {
                    let from = self.function.ty(node.operands[0]).dtype;
                    narrow += usize::from(
                        context.machine.widens.contains(&from) && is_constant(node.operands[0]),
                    );
                }
                Op::Map(map) if map.function == ScalarFn::Mul => scaled += 1,
                _ => return false,
            }
            let inside = |value: &ValueId| {
                self.producer.get(value).is_some_and(|made| cluster.members.contains(made))
            };
            if !node.operands.iter().all(|value| inside(value) || is_constant(*value)) {
                return false;
            }
        }
        narrow == 1 && scaled + 1 == cluster.members.len() && scaled <= 1
    }

    /// Whether the summed part of a row, for all the tiles that a group keeps of it, fits near memory.
    fn row_fits(&self, cluster: &Cluster, context: &Context<'_>) -> bool {
        let Some(rows) = &cluster.rows else { return true };
        let kept: usize = cluster.shape.iter().product::<usize>().max(1);
        let row = rows.iter().product::<usize>() / kept.min(rows.iter().product::<usize>()).max(1);
        row * 4 * 4 <= context.machine.near_bytes
    }

    /// Whether nothing but that node, free nodes apart, reads what a cluster computes.
    fn only_use(&self, cluster: &Cluster, consumer: NodeId) -> bool {
        let inside = |id: &NodeId| *id == consumer || cluster.members.contains(id);
        cluster.members.iter().flat_map(|&id| &self.function.nodes[id].results).all(|result| {
            let readers = self.readers.get(result);
            !self.results.contains(result)
                && readers.is_none_or(|readers| readers.iter().all(inside))
        })
    }

    fn merge(&mut self, from: usize, into: usize) {
        let taken = self.clusters[from].clone();
        self.clusters[from].merged = true;
        let cluster = &mut self.clusters[into];
        cluster.members.extend(taken.members);
        cluster.members.sort_by_key(|id| self.position[id]);
        cluster.rows = cluster.rows.take().or(taken.rows);
        cluster.class = match (taken.class, cluster.class) {
            (Class::Alone, _) | (_, Class::Alone) => Class::Alone,
            (Class::Anchor, _) | (_, Class::Anchor) => Class::Anchor,
            (Class::Reduction, _) | (_, Class::Reduction) => Class::Reduction,
            (Class::Elementwise, Class::Elementwise) => Class::Elementwise,
        };
        for &id in &self.clusters[into].members {
            self.cluster_of.insert(id, into);
        }
    }

    /// Whether a value of `from` reaches `own` through a cluster that is neither.
    fn makes_cycle(&self, from: usize, own: usize) -> bool {
        let first =
            self.clusters[from].members.iter().map(|id| self.position[id]).min().unwrap_or(0);
        let mut pending: Vec<NodeId> =
            self.outside_producers(&self.clusters[own].members, &[from, own]);
        let mut seen: BTreeSet<NodeId> = pending.iter().copied().collect();
        while let Some(id) = pending.pop() {
            if self.cluster_of.get(&id) == Some(&from) {
                return true;
            }
            let members = match self.cluster_of.get(&id) {
                Some(&cluster) => self.clusters[cluster].members.clone(),
                None => vec![id],
            };
            if members.iter().all(|id| self.position[id] < first) {
                continue;
            }
            for next in self.outside_producers(&members, &[]) {
                if seen.insert(next) {
                    pending.push(next);
                }
            }
        }
        false
    }

    /// The node that computes a value, seen through free nodes.
    fn maker(&self, value: ValueId) -> Option<NodeId> {
        let mut id = *self.producer.get(&value)?;
        while is_free(&self.function.nodes[id]) {
            let operand = self.function.nodes[id].operands.first()?;
            id = *self.producer.get(operand)?;
        }
        Some(id)
    }

    /// The nodes outside `members` whose values these read, those of the clusters in `skip` left out. A node with
    /// blocks reads what its blocks capture.
    fn outside_producers(&self, members: &[NodeId], skip: &[usize]) -> Vec<NodeId> {
        let mut found = Vec::new();
        for &id in members {
            let node = &self.function.nodes[id];
            let captured = node.blocks.iter().flat_map(|block| self.function.captures(block));
            for value in node.operands.iter().copied().chain(captured) {
                let Some(producer) = self.maker(value) else { continue };
                let cluster = self.cluster_of.get(&producer);
                if !members.contains(&producer)
                    && !cluster.is_some_and(|cluster| skip.contains(cluster))
                {
                    found.push(producer);
                }
            }
        }
        found
    }
}

/// Writes groups into the function as fusion nodes.
struct Emitter<'a> {
    function: &'a mut Function,
    producer: BTreeMap<ValueId, NodeId>,
    readers: BTreeMap<ValueId, BTreeSet<NodeId>>,
    results: BTreeSet<ValueId>,
    emitted: Vec<NodeId>,
    nodes: Vec<NodeId>,
    position: BTreeMap<NodeId, usize>,
}

/// Which free producers a group copies.
#[derive(Clone, Copy, PartialEq)]
enum Views {
    /// All, and what is computed from positions and constants of one number alone.
    Positions,
    All,
    NoReshape,
    OnlyScalars,
}

impl<'a> Emitter<'a> {
    fn new(function: &'a mut Function, block: &Block) -> Emitter<'a> {
        let mut producer = BTreeMap::new();
        let mut readers: BTreeMap<ValueId, BTreeSet<NodeId>> = BTreeMap::new();
        for &id in &block.nodes {
            let node = &function.nodes[id];
            producer.extend(node.results.iter().map(|&result| (result, id)));
            let captured: Vec<ValueId> =
                node.blocks.iter().flat_map(|inner| function.captures(inner)).collect();
            for &value in node.operands.iter().chain(&captured) {
                readers.entry(value).or_default().insert(id);
            }
        }
        let results = block.results.iter().copied().collect();
        let nodes = block.nodes.clone();
        let position = nodes.iter().enumerate().map(|(position, &id)| (id, position)).collect();
        Emitter { function, producer, readers, results, emitted: Vec::new(), nodes, position }
    }

    fn emit(&mut self, groups: &[Vec<NodeId>], context: &Context<'_>) {
        let grouped: BTreeSet<NodeId> = groups.iter().flatten().copied().collect();
        for group in groups {
            self.emit_group(group, context);
        }
        // Control nodes stay as they are; free nodes stay where something still reads them.
        let nodes = self.nodes.clone();
        for &id in &nodes {
            if !grouped.contains(&id) && !is_free(&self.function.nodes[id]) {
                self.emitted.push(id);
            }
        }
        let mut needed: Vec<ValueId> = self.results.iter().copied().collect();
        for &id in &self.emitted {
            let node = &self.function.nodes[id];
            needed.extend(&node.operands);
            if !matches!(node.op, Op::Fusion(_)) {
                needed.extend(node.blocks.iter().flat_map(|block| self.function.captures(block)));
            }
        }
        let mut seen = BTreeSet::new();
        while let Some(value) = needed.pop() {
            let Some(&id) = self.producer.get(&value) else { continue };
            if !is_free(&self.function.nodes[id]) || !seen.insert(id) {
                continue;
            }
            let alias = matches!(self.function.nodes[id].op, Op::Reshape(_) | Op::Constant(_));
            let before = self.emitted.len();
            if alias {
                self.emitted.push(id);
            } else {
                self.emit_group(&[id], context);
            }
            for position in before..self.emitted.len() {
                needed.extend(&self.function.nodes[self.emitted[position]].operands);
            }
        }
        self.drop_unread();
    }

    /// Takes from groups the results that only nodes read which the group has copies of.
    fn drop_unread(&mut self) {
        let mut read = self.results.clone();
        for &id in &self.emitted {
            let node = &self.function.nodes[id];
            read.extend(&node.operands);
            read.extend(node.blocks.iter().flat_map(|block| self.function.captures(block)));
        }
        for &id in &self.emitted {
            let node = &mut self.function.nodes[id];
            let is_read: Vec<bool> =
                node.results.iter().map(|result| read.contains(result)).collect();
            if !matches!(node.op, Op::Fusion(_)) || !is_read.contains(&true) {
                continue;
            }
            let mut kept = is_read.iter();
            node.results.retain(|_| kept.next() == Some(&true));
            let mut kept = is_read.iter();
            node.blocks[0].results.retain(|_| kept.next() == Some(&true));
        }
    }

    fn emit_group(&mut self, members: &[NodeId], context: &Context<'_>) {
        if let [only] = members {
            let node = &self.function.nodes[*only];
            if matches!(
                node.op.kind(),
                Kind::Source | Kind::Collective | Kind::Composite | Kind::Control
            ) {
                self.emitted.push(*only);
                return;
            }
        }
        let products =
            members.iter().filter(|&&id| matches!(self.function.nodes[id].op, Op::Contract(_)));
        // Masks of attention are made anew for each score: whole, they would be as large as all scores.
        let first = if products.count() > 1 { Views::Positions } else { Views::All };
        for views in [first, Views::NoReshape, Views::OnlyScalars] {
            let (node, reason) = self.build(members, views);
            match reason {
                None => {
                    self.emitted.push(node);
                    return;
                }
                Some(reason) => context.decline(PASS.name, self.describe(members), reason),
            }
        }
        match members {
            [only] => self.emitted.push(*only),
            _ => members.iter().for_each(|&id| self.emit_group(&[id], context)),
        }
    }

    fn describe(&self, members: &[NodeId]) -> String {
        let names: Vec<&str> =
            members.iter().map(|&id| self.function.nodes[id].op.name()).collect();
        names.join("+")
    }

    /// A fusion node of those members and the free nodes they read, or the reason why it cannot be lowered.
    fn build(&mut self, members: &[NodeId], views: Views) -> (NodeId, Option<String>) {
        let inside = self.with_free(members, views);
        let mut map: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut block = Block::default();
        let mut operands = Vec::new();
        let mut origins = Origins::new();
        for &id in &inside {
            let node = self.function.nodes[id].clone();
            let mut mapped = Vec::with_capacity(node.operands.len());
            for &value in &node.operands {
                let found = *map.entry(value).or_insert_with(|| {
                    let param = self.function.value(self.function.ty(value).clone(), None);
                    block.params.push(param);
                    operands.push(value);
                    param
                });
                mapped.push(found);
            }
            let mut results = SmallVec::new();
            for &result in &node.results {
                let copy = self.function.value(self.function.ty(result).clone(), None);
                map.insert(result, copy);
                results.push(copy);
            }
            if members.contains(&id) {
                origins = join_origins(&origins, &node.origins);
            }
            let copy = Node { operands: mapped, results, ..node };
            block.nodes.push(self.function.nodes.push(copy));
        }
        let mut results = SmallVec::new();
        for &id in members {
            for result in self.function.nodes[id].results.clone() {
                if self.escapes(result, members, &inside) {
                    block.results.push(map[&result]);
                    results.push(result);
                }
            }
        }
        let span = self.function.nodes[members[0]].span;
        let reason = if operands.iter().any(|&value| self.shows_member(value, members)) {
            Some("a view of its own result stays outside".to_owned())
        } else {
            lower_group(self.function, &block, "trial").err()
        };
        let node = Node {
            op: Op::Fusion(Fusion {}),
            operands,
            results,
            blocks: vec![block],
            origins,
            span,
        };
        (self.function.nodes.push(node), reason)
    }

    /// Whether anything but members, or what they read through the views in `inside`, reads a value.
    fn escapes(&self, value: ValueId, members: &[NodeId], inside: &[NodeId]) -> bool {
        let leaves = |id: &NodeId| {
            let results = &self.function.nodes[*id].results;
            !members.contains(id)
                && (!inside.contains(id)
                    || results.iter().any(|&result| self.escapes(result, members, inside)))
        };
        self.results.contains(&value)
            || self.readers.get(&value).is_some_and(|readers| readers.iter().any(leaves))
    }

    /// Whether a value is a view, by nodes outside the group, of what a member computes.
    fn shows_member(&self, value: ValueId, members: &[NodeId]) -> bool {
        let mut value = value;
        while let Some(id) = self.producer.get(&value) {
            if members.contains(id) {
                return true;
            }
            let node = &self.function.nodes[*id];
            match node.operands.first() {
                Some(&operand) if is_free(node) => value = operand,
                _ => return false,
            }
        }
        false
    }

    /// Whether a node computes elements from their positions and constants of one number, in few steps.
    fn is_of_positions(&self, id: NodeId, steps: usize) -> bool {
        let node = &self.function.nodes[id];
        let elementwise = matches!(node.op, Op::Map(_) | Op::Convert(_)) || is_free(node);
        elementwise
            && steps > 0
            && node.operands.iter().all(|value| {
                self.producer.get(value).is_some_and(|&id| self.is_of_positions(id, steps - 1))
            })
    }

    /// The members and the free nodes before them, in an order in which values are made before they are read.
    fn with_free(&self, members: &[NodeId], views: Views) -> Vec<NodeId> {
        let mut inside: BTreeSet<usize> = BTreeSet::new();
        let mut pending: Vec<NodeId> = members.to_vec();
        while let Some(id) = pending.pop() {
            if !inside.insert(self.position[&id]) {
                continue;
            }
            let node = &self.function.nodes[id];
            for (slot, value) in node.operands.iter().enumerate() {
                let Some(&producer) = self.producer.get(value) else { continue };
                let made = &self.function.nodes[producer];
                let scalar = matches!(made.op, Op::Constant(_) | Op::Iota(_));
                let taken = match views {
                    Views::Positions | Views::All => true,
                    Views::NoReshape => !matches!(made.op, Op::Reshape(_)),
                    Views::OnlyScalars => scalar,
                };
                let free =
                    is_free(made) || views == Views::Positions && self.is_of_positions(producer, 8);
                if free && taken && !reads_memory(node, slot) {
                    pending.push(producer);
                }
            }
        }
        inside.into_iter().map(|position| self.nodes[position]).collect()
    }
}

/// Whether an op takes its operand of that position from memory, and not through a view.
fn reads_memory(node: &Node, slot: usize) -> bool {
    match node.op {
        Op::Gather(_) | Op::Pad(_) => slot == 0,
        Op::DynamicSlice(_) => slot >= 1,
        Op::DynamicUpdate(_) => slot >= 2,
        _ => false,
    }
}

/// The nodes in an order in which every value is made before it is read, as close to the given one as that allows.
fn order(function: &Function, nodes: Vec<NodeId>) -> Vec<NodeId> {
    let mut maker: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (position, &id) in nodes.iter().enumerate() {
        maker.extend(function.nodes[id].results.iter().map(|&result| (result, position)));
    }
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut waits = vec![0; nodes.len()];
    for (position, &id) in nodes.iter().enumerate() {
        let node = &function.nodes[id];
        let mut reads: BTreeSet<usize> =
            node.operands.iter().filter_map(|value| maker.get(value).copied()).collect();
        for block in &node.blocks {
            reads.extend(
                function.captures(block).iter().filter_map(|value| maker.get(value).copied()),
            );
        }
        for made in reads {
            readers[made].push(position);
            waits[position] += 1;
        }
    }
    let last = |position: usize| -> usize {
        let results = &function.nodes[nodes[position]].results;
        results.iter().map(|result| result.index()).max().unwrap_or(0)
    };
    let mut ready: BTreeSet<(usize, usize)> = (0..nodes.len())
        .filter(|&position| waits[position] == 0)
        .map(|position| (last(position), position))
        .collect();
    let mut ordered = Vec::with_capacity(nodes.len());
    while let Some((_, position)) = ready.pop_first() {
        ordered.push(nodes[position]);
        for &reader in &readers[position] {
            waits[reader] -= 1;
            if waits[reader] == 0 {
                ready.insert((last(reader), reader));
            }
        }
    }
    assert_eq!(ordered.len(), nodes.len(), "groups do not wait for each other in a circle");
    ordered
}
