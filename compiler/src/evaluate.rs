//! The reference: what a graph means, node by node.

use crate::graph::Function;
use crate::tensor::Tensor;

/// The results of a function of verified nodes on operands of its parameters' types.
pub fn function(function: &Function, operands: &[Tensor]) -> Vec<Tensor> {
    let mut values: Vec<Option<Tensor>> = vec![None; function.values.len()];
    for (&param, operand) in function.body.params.iter().zip(operands) {
        values[param.index()] = Some(operand.clone());
    }
    for &node in &function.body.nodes {
        let node = &function.nodes[node];
        let operands: Vec<Tensor> = node
            .operands
            .iter()
            .map(|value| values[value.index()].clone().expect("defined before use"))
            .collect();
        for (&result, value) in node.results.iter().zip(node.op.evaluate(&operands)) {
            values[result.index()] = Some(value);
        }
    }
    function
        .body
        .results
        .iter()
        .map(|value| values[value.index()].clone().expect("defined before use"))
        .collect()
}
