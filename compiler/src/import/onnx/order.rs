//! The order in which nodes are converted, and functions' attributes put in their places.

use super::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto};
use std::collections::{BTreeMap, BTreeSet};

/// Positions of nodes so that each comes after those that define what it reads; the file's order where it can be. Nodes
/// on a cycle are left out: [`cycle`] finds them.
pub(crate) fn order(nodes: &[NodeProto]) -> Vec<usize> {
    let mut producer: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for output in node.output.iter().filter(|name| !name.is_empty()) {
            producer.entry(output).or_insert(index);
        }
    }
    let mut waiting = vec![0usize; nodes.len()];
    let mut readers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        let mut reads = BTreeSet::new();
        node_reads(node, &mut reads);
        let from: BTreeSet<usize> =
            reads.iter().filter_map(|name| producer.get(name).copied()).collect();
        for source in from {
            waiting[index] += 1;
            readers[source].push(index);
        }
    }
    let mut ready: BTreeSet<usize> =
        (0..nodes.len()).filter(|&index| waiting[index] == 0).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(index) = ready.pop_first() {
        order.push(index);
        for &reader in &readers[index] {
            waiting[reader] -= 1;
            if waiting[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    order
}

/// A node on a cycle, or behind one.
pub(crate) fn cycle(nodes: &[NodeProto]) -> Option<&NodeProto> {
    let ordered: BTreeSet<usize> = order(nodes).into_iter().collect();
    (0..nodes.len()).find(|index| !ordered.contains(index)).map(|index| &nodes[index])
}

/// Every name that a node or a graph inside it reads. Names that such a graph defines itself may be among them.
fn node_reads<'a>(node: &'a NodeProto, reads: &mut BTreeSet<&'a str>) {
    reads.extend(node.input.iter().filter(|name| !name.is_empty()).map(String::as_str));
    for attribute in &node.attribute {
        for graph in attribute.g.iter().chain(&attribute.graphs) {
            graph_reads(graph, reads);
        }
    }
}

fn graph_reads<'a>(graph: &'a GraphProto, reads: &mut BTreeSet<&'a str>) {
    for node in &graph.node {
        node_reads(node, reads);
    }
    reads.extend(graph.output.iter().map(|output| output.name.as_str()));
}

/// A node of a function's body with the attributes of the node that calls it.
pub(crate) fn with_attributes(
    node: &NodeProto,
    call: &NodeProto,
    function: &FunctionProto,
) -> NodeProto {
    let mut node = node.clone();
    node.attribute = node
        .attribute
        .into_iter()
        .filter_map(|attribute| resolve(attribute, call, function))
        .collect();
    node
}

fn resolve(
    mut attribute: AttributeProto,
    call: &NodeProto,
    function: &FunctionProto,
) -> Option<AttributeProto> {
    if !attribute.ref_attr_name.is_empty() {
        let wanted = attribute.ref_attr_name.as_str();
        let found = call
            .attribute
            .iter()
            .chain(&function.attribute_proto)
            .find(|candidate| candidate.name == wanted)?;
        return Some(AttributeProto { name: attribute.name, ..found.clone() });
    }
    for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
        for inner in &mut graph.node {
            *inner = with_attributes(inner, call, function);
        }
    }
    Some(attribute)
}
