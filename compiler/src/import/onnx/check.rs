//! What can be wrong with a file before any operator is looked at: versions, names, cycles, and tensors that do not
//! have the data that their shapes need.

use super::order;
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use super::tensors::{self, External, TensorError};
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use bytes::Bytes;
use std::collections::BTreeSet;

/// The newest version of the standard operator set that the tables know.
const NEWEST_OPSET: i64 = 28;
/// The newest version of the file format.
const NEWEST_FORMAT: i64 = 14;
/// The most problems of one file that are worth a line each.
const MAX_PROBLEMS: usize = 50;

/// Reads every file that tensors of the model refer to, once.
pub(crate) fn external(
    model: &ModelProto,
    read: &dyn Fn(&str) -> Result<Bytes, String>,
) -> External {
    let mut files = External::new();
    for_each_tensor(model, &mut |tensor| {
        if let Some(location) = tensors::location(tensor)
            && !files.contains_key(location)
        {
            let outside = location.starts_with(['/', '\\'])
                || location.contains(':')
                || location.split(['/', '\\']).any(|part| part == "..");
            let file = match outside {
                true => Err("the path leaves the model's folder".to_owned()),
                false => read(location),
            };
            files.insert(location.to_owned(), file);
        }
    });
    files
}

/// Everything wrong with the model.
pub(crate) fn model(model: &ModelProto, external: &External) -> Diagnostics {
    let mut checker = Checker { diagnostics: Diagnostics::default(), scopes: Vec::new() };
    checker.versions(model);
    for_each_tensor(model, &mut |tensor| {
        if let Err(error) = checked(tensor, external) {
            let (code, message) = match error {
                TensorError::Malformed(message) => (Code::Malformed, message),
                TensorError::Missing(message) => (Code::MissingData, message),
                // An element type that is not ours only matters where the tensor is used.
                TensorError::Unsupported(_) => return,
            };
            let name = if tensor.name.is_empty() { "without a name" } else { &tensor.name };
            checker.report(code, format!("tensor {name}: {message}"));
        }
    });
    match &model.graph {
        None => checker.report(Code::Malformed, "the model has no graph".to_owned()),
        Some(graph) => checker.graph(graph, &[]),
    }
    for function in &model.functions {
        let names: BTreeSet<&str> = function.input.iter().map(String::as_str).collect();
        let outer = std::mem::take(&mut checker.scopes);
        checker.scopes.push(names);
        checker.nodes(&function.node);
        for output in &function.output {
            checker.defined(output, &function.name);
        }
        checker.scopes = outer;
    }
    let mut diagnostics = checker.diagnostics;
    if diagnostics.0.len() > MAX_PROBLEMS {
        let more = diagnostics.0.len() - MAX_PROBLEMS;
        diagnostics.0.truncate(MAX_PROBLEMS);
        diagnostics.push(Diagnostic::error(Code::Malformed, format!("{more} more problems")));
    }
    diagnostics
}

/// Checks a tensor without copying more than a typed field that is already in memory.
fn checked(tensor: &TensorProto, external: &External) -> Result<(), TensorError> {
    tensors::tensor(tensor, external).map(drop)
}

fn for_each_tensor(model: &ModelProto, visit: &mut dyn FnMut(&TensorProto)) {
    if let Some(graph) = &model.graph {
        tensors_of_graph(graph, visit);
    }
    for function in &model.functions {
        function.node.iter().for_each(|node| tensors_of_node(node, visit));
    }
}

fn tensors_of_graph(graph: &GraphProto, visit: &mut dyn FnMut(&TensorProto)) {
    graph.initializer.iter().for_each(&mut *visit);
    for sparse in &graph.sparse_initializer {
        sparse.values.iter().chain(&sparse.indices).for_each(&mut *visit);
    }
    graph.node.iter().for_each(|node| tensors_of_node(node, visit));
}

fn tensors_of_node(node: &NodeProto, visit: &mut dyn FnMut(&TensorProto)) {
    for attribute in &node.attribute {
        attribute.t.iter().for_each(&mut *visit);
        graphs(attribute).for_each(|graph| tensors_of_graph(graph, visit));
    }
}

fn graphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.iter().chain(&attribute.graphs)
}

struct Checker<'m> {
    diagnostics: Diagnostics,
    scopes: Vec<BTreeSet<&'m str>>,
}

impl<'m> Checker<'m> {
    fn report(&mut self, code: Code, message: String) {
        self.diagnostics.push(Diagnostic::error(code, message));
    }

    fn versions(&mut self, model: &ModelProto) {
        let format = model.ir_version;
        if format < 1 {
            self.report(Code::Malformed, format!("format version {format}; the first is 1"));
        } else if format > NEWEST_FORMAT {
            let message = format!("format version {format} is newer than {NEWEST_FORMAT}");
            self.report(Code::Unsupported, message);
        }
        if format >= 3 && model.opset_import.is_empty() {
            let message = "the model imports no operator set".to_owned();
            self.report(Code::Malformed, message);
        }
        for import in &model.opset_import {
            let version = import.version;
            if super::convert::normal_domain(&import.domain).is_empty() && version > NEWEST_OPSET {
                let message =
                    format!("operator set version {version} is newer than {NEWEST_OPSET}");
                self.report(Code::Unsupported, message);
            }
        }
    }

    fn graph(&mut self, graph: &'m GraphProto, _captured: &[&'m str]) {
        let mut names: BTreeSet<&'m str> = BTreeSet::new();
        for input in &graph.input {
            if !names.insert(&input.name) {
                self.report(Code::DuplicateName, format!("two inputs are called {}", input.name));
            }
        }
        let mut weights: BTreeSet<&'m str> = BTreeSet::new();
        let sparse = graph.sparse_initializer.iter().filter_map(|sparse| sparse.values.as_ref());
        for tensor in graph.initializer.iter().chain(sparse) {
            if !weights.insert(&tensor.name) {
                let message = format!("two initializers are called {}", tensor.name);
                self.report(Code::DuplicateName, message);
            }
        }
        names.extend(weights);
        self.scopes.push(names);
        self.nodes(&graph.node);
        for output in &graph.output {
            self.defined(&output.name, "the graph's outputs");
        }
        self.scopes.pop();
    }

    fn nodes(&mut self, nodes: &'m [NodeProto]) {
        for node in nodes {
            for output in node.output.iter().filter(|name| !name.is_empty()) {
                let scope = self.scopes.last_mut().expect("a scope was pushed");
                if !scope.insert(output) {
                    let message = format!("{output} is defined twice");
                    self.diagnostics.push(
                        Diagnostic::error(Code::DuplicateName, message).on_node(node_name(node)),
                    );
                }
            }
        }
        if let Some(node) = order::cycle(nodes) {
            let message = "the node depends on its own output".to_owned();
            self.diagnostics
                .push(Diagnostic::error(Code::Malformed, message).on_node(node_name(node)));
        }
        for node in nodes {
            for input in node.input.iter().filter(|name| !name.is_empty()) {
                self.defined(input, node_name(node));
            }
            for attribute in &node.attribute {
                for graph in graphs(attribute) {
                    self.graph(graph, &[]);
                }
            }
        }
    }

    fn defined(&mut self, name: &str, place: &str) {
        if !self.scopes.iter().any(|scope| scope.contains(name)) {
            let message = format!("nothing defines {name}");
            self.diagnostics.push(Diagnostic::error(Code::UnknownName, message).on_node(place));
        }
    }
}

fn node_name(node: &NodeProto) -> &str {
    if node.name.is_empty() { &node.op_type } else { &node.name }
}
