//! Finds attention: a product of scores, a softmax of them, and a product of its weights with values, of which nothing
//! between is read elsewhere. It becomes one group, that lowers to one kernel, which `tile` makes a loop over blocks of keys.

use super::{Emitter, PASS, Views, is_free};
use crate::graph::{Block, Function, Node, NodeId, ValueId};
use crate::kernel::Combine;
use crate::kernel::tiling::attention;
use crate::lower::lower_group;
use crate::op::Op;
use crate::pass::Context;
use crate::scalar::ScalarFn;
use std::collections::{BTreeMap, BTreeSet};

/// The most nodes that scores may take from their product to the softmax, masks included.
const MOST_NODES: usize = 64;

/// The members of each attention of a block, in the block's order.
pub(super) fn find(
    function: &mut Function,
    block: &Block,
    context: &Context<'_>,
) -> Vec<Vec<NodeId>> {
    if context.machine.attention.is_none() {
        return Vec::new();
    }
    let graph = View::new(function, block);
    let mut found: Vec<(NodeId, Result<Vec<NodeId>, String>)> = Vec::new();
    for &id in &block.nodes {
        let node = &function.nodes[id];
        if !matches!(node.op, Op::Contract(_)) {
            continue;
        }
        if let Some(softmax) = node.operands.iter().find_map(|&weights| graph.softmax(weights)) {
            found.push((id, graph.members(id, &softmax)));
        }
    }
    let mut groups = Vec::new();
    for (id, members) in found {
        let lowered = members.and_then(|members| {
            try_to_lower(function, block, &members)?;
            Ok(members)
        });
        match lowered {
            Ok(members) => groups.push(members),
            Err(why) => {
                let result = function.nodes[id].results[0];
                let name = function.values[result].name.clone();
                let place = format!(
                    "attention in contract %{}",
                    name.unwrap_or_else(|| result.index().to_string())
                );
                context.decline(PASS.name, place, why);
            }
        }
    }
    groups
}

/// Why the members are not lowered to a kernel that is attention.
fn try_to_lower(function: &mut Function, block: &Block, members: &[NodeId]) -> Result<(), String> {
    let mut emitter = Emitter::new(function, block);
    let (fusion, reason) = emitter.build(members, Views::Positions);
    if let Some(reason) = reason {
        return Err(reason);
    }
    let node = &function.nodes[fusion];
    let lowered = lower_group(function, &node.blocks[0], "attention")?;
    attention::find(&lowered.kernel).map(|_| ())
}

/// The nodes of a softmax, and the value that it is of.
struct Softmax {
    nodes: Vec<NodeId>,
    scores: ValueId,
}

/// A block, with who makes and reads its values.
struct View<'f> {
    function: &'f Function,
    producer: BTreeMap<ValueId, NodeId>,
    readers: BTreeMap<ValueId, BTreeSet<NodeId>>,
    results: BTreeSet<ValueId>,
    position: BTreeMap<NodeId, usize>,
}

impl<'f> View<'f> {
    fn new(function: &'f Function, block: &Block) -> View<'f> {
        let mut view = View {
            function,
            producer: BTreeMap::new(),
            readers: BTreeMap::new(),
            results: block.results.iter().copied().collect(),
            position: BTreeMap::new(),
        };
        for (position, &id) in block.nodes.iter().enumerate() {
            let node = &function.nodes[id];
            view.position.insert(id, position);
            view.producer.extend(node.results.iter().map(|&result| (result, id)));
            let captured = node.blocks.iter().flat_map(|inner| function.captures(inner));
            for value in node.operands.iter().copied().chain(captured) {
                view.readers.entry(value).or_default().insert(id);
            }
        }
        view
    }

    fn node(&self, id: NodeId) -> &'f Node {
        &self.function.nodes[id]
    }

    /// The node that computes a value, seen through views; the conversions on the way join `nodes`.
    fn maker(&self, value: ValueId, nodes: &mut Vec<NodeId>) -> Option<NodeId> {
        let mut id = *self.producer.get(&value)?;
        loop {
            let node = self.node(id);
            let converts = matches!(node.op, Op::Convert(_));
            if !converts && !is_free(node) {
                return Some(id);
            }
            if converts {
                nodes.push(id);
            }
            id = *self.producer.get(node.operands.first()?)?;
        }
    }

    /// The operands of a node that is that function, and the node.
    fn map(
        &self,
        value: ValueId,
        function: ScalarFn,
        nodes: &mut Vec<NodeId>,
    ) -> Option<(NodeId, &'f [ValueId])> {
        let id = self.maker(value, nodes)?;
        let node = self.node(id);
        let Op::Map(map) = &node.op else { return None };
        nodes.push(id);
        (map.function == function).then_some((id, node.operands.as_slice()))
    }

    /// What is reduced, where the value is that over one dimension.
    fn reduced(
        &self,
        value: ValueId,
        combine: Combine,
        nodes: &mut Vec<NodeId>,
    ) -> Option<ValueId> {
        let id = self.maker(value, nodes)?;
        let node = self.node(id);
        let Op::Reduce(reduce) = &node.op else { return None };
        nodes.push(id);
        (reduce.combine == combine && reduce.axes.len() == 1).then(|| node.operands[0])
    }

    /// The softmax that a value is.
    fn softmax(&self, weights: ValueId) -> Option<Softmax> {
        let mut nodes = Vec::new();
        let (_, quotient) = self.map(weights, ScalarFn::Div, &mut nodes)?;
        let (power, exponent) = self.map(quotient[0], ScalarFn::Exp, &mut nodes)?;
        let summed = self.reduced(quotient[1], Combine::Sum, &mut nodes)?;
        let (same, _) = self.map(summed, ScalarFn::Exp, &mut nodes)?;
        let (_, difference) = self.map(exponent[0], ScalarFn::Sub, &mut nodes)?;
        self.reduced(difference[1], Combine::Max, &mut nodes)?;
        (same == power).then(|| Softmax { nodes, scores: difference[0] })
    }

    /// The members of the group of a product of weights, or why there is none.
    fn members(&self, product: NodeId, softmax: &Softmax) -> Result<Vec<NodeId>, String> {
        let mut members: BTreeSet<NodeId> = softmax.nodes.iter().copied().collect();
        members.insert(product);
        let mut path = Path { view: self, known: BTreeMap::new(), products: 0 };
        if !path.leads_to_product(softmax.scores)? {
            return Err("no product makes the scores".to_owned());
        }
        if path.products > 1 {
            return Err("two products make the scores".to_owned());
        }
        members.extend(path.known.iter().filter(|&(_, &leads)| leads).map(|(&id, _)| id));
        members.retain(|&id| !is_free(self.node(id)));
        for &id in members.iter().filter(|&&id| id != product) {
            let node = self.node(id);
            if node.results.iter().any(|&result| self.escapes(result, &members)) {
                return Err(format!("what {} gives between is read elsewhere too", node.op.name()));
            }
        }
        let mut members: Vec<NodeId> = members.into_iter().collect();
        members.sort_by_key(|id| self.position[id]);
        Ok(members)
    }

    /// Whether anything but members reads a value, or a view of it.
    fn escapes(&self, value: ValueId, members: &BTreeSet<NodeId>) -> bool {
        self.results.contains(&value)
            || self.readers.get(&value).is_some_and(|readers| {
                readers.iter().any(|&id| {
                    let node = self.node(id);
                    !members.contains(&id)
                        && (!is_free(node)
                            || node.results.iter().any(|&result| self.escapes(result, members)))
                })
            })
    }
}

/// The way back from scores to their product.
struct Path<'v, 'f> {
    view: &'v View<'f>,
    /// For each node seen, whether a product leads to it.
    known: BTreeMap<NodeId, bool>,
    products: usize,
}

impl Path<'_, '_> {
    fn leads_to_product(&mut self, value: ValueId) -> Result<bool, &'static str> {
        let Some(&id) = self.view.producer.get(&value) else { return Ok(false) };
        if let Some(&leads) = self.known.get(&id) {
            return Ok(leads);
        }
        if self.known.len() >= MOST_NODES {
            return Err("the scores take too many nodes");
        }
        self.known.insert(id, false);
        let node = self.view.node(id);
        let mut leads = false;
        match &node.op {
            Op::Contract(_) => {
                self.products += 1;
                leads = true;
            }
            Op::Map(_) | Op::Convert(_) => {
                for &operand in &node.operands {
                    leads |= self.leads_to_product(operand)?;
                }
            }
            _ if is_free(node) => {
                for &operand in &node.operands {
                    leads |= self.leads_to_product(operand)?;
                }
            }
            _ => {}
        }
        self.known.insert(id, leads);
        Ok(leads)
    }
}
