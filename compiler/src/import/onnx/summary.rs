//! What a model is made of, without converting anything.

use super::Source;
use super::convert::normal_domain;
use super::proto::NodeProto;
use super::table::Table;
use std::collections::BTreeMap;

/// What a file says of itself, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The versions of the operator sets, by domain; the standard's domain is `ai.onnx`.
    pub opsets: Vec<(String, i64)>,
    /// The program that wrote the file.
    pub producer: String,
    /// How many tensors come with the model.
    pub weights: usize,
    /// Operators in order of their names.
    pub operators: Vec<Operator>,
}

/// An operator of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its name; of another domain than the standard's with that before it.
    pub name: String,
    /// How many nodes are of it, in graphs inside of nodes and in functions too.
    pub count: usize,
    /// Whether there is a conversion for it, or the model defines it itself.
    pub known: bool,
}

impl Source {
    /// What the model is made of.
    pub fn summary(&self) -> Summary {
        let model = &self.model;
        let opsets = super::opsets(&model.opset_import);
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        let mut pending: Vec<&NodeProto> = Vec::new();
        pending.extend(model.graph.iter().flat_map(|graph| &graph.node));
        pending.extend(model.functions.iter().flat_map(|function| &function.node));
        while let Some(node) = pending.pop() {
            let key = (normal_domain(&node.domain).to_owned(), node.op_type.clone());
            *counts.entry(key).or_default() += 1;
            for attribute in &node.attribute {
                pending.extend(
                    attribute.g.iter().chain(&attribute.graphs).flat_map(|graph| &graph.node),
                );
            }
        }
        let table = Table::new();
        let operators = counts.into_iter().map(|((domain, op), count)| {
            let defined = model
                .functions
                .iter()
                .any(|function| normal_domain(&function.domain) == domain && function.name == op);
            let version = opsets.get(&domain).copied().unwrap_or(i64::MAX);
            let known = defined || table.find(&domain, &op, version).is_some();
            let name = if domain.is_empty() { op } else { format!("{domain}::{op}") };
            Operator { name, count, known }
        });
        let shown = |domain: &str| if domain.is_empty() { "ai.onnx" } else { domain }.to_owned();
        Summary {
            operators: operators.collect(),
            opsets: opsets.iter().map(|(domain, version)| (shown(domain), *version)).collect(),
            producer: model.producer_name.clone(),
            weights: model.graph.as_ref().map_or(0, |graph| graph.initializer.len()),
        }
    }
}
