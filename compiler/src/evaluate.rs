//! The reference: what a graph means, node by node.
//!
//! Values are dropped after their last use, and what is live is counted against the budget before anything is
//! allocated. Collectives mean what they mean for a single rank, or join the ranks of an exchange.

mod blocks;
mod lifetimes;

use crate::graph::{Function, Graph};
use crate::ranks::{Alone, Exchange};
use crate::tensor::Tensor;
use std::fmt;

/// What an evaluation may take.
pub struct Budget<'a> {
    /// Asked at every node and every iteration; the evaluation ends soon after it says yes.
    pub cancelled: &'a dyn Fn() -> bool,
    /// How many bytes of values may be live at once, beside the inputs and the program's own constants.
    pub bytes: usize,
}

/// Why there are no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvaluateError {
    /// The budget's `cancelled` said so.
    Cancelled,
    /// More bytes would be live at once than the budget allows.
    Memory {
        /// How many.
        needed: usize,
        /// How many the budget allows.
        limit: usize,
    },
    /// The evaluator has no meaning for something, as for a function that is not there.
    Unsupported(String),
    /// The inputs, or the weights, are not what the program takes.
    Input(String),
    /// A collective has no value: ranks do not agree, another one failed, or there is only one.
    Ranks(String),
}

impl Budget<'_> {
    /// No limit, and never cancelled.
    pub const UNLIMITED: Budget<'static> = Budget { cancelled: &|| false, bytes: usize::MAX };
}

impl fmt::Debug for Budget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl fmt::Display for EvaluateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EvaluateError::Cancelled => f.write_str("the run was cancelled"),
            EvaluateError::Memory { needed, limit } => {
                write!(f, "{needed} bytes are needed at once, but the limit is {limit}")
            }
            EvaluateError::Unsupported(what)
            | EvaluateError::Input(what)
            | EvaluateError::Ranks(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for EvaluateError {}

/// The results of the entry function of a verified graph.
pub fn graph(
    graph: &Graph,
    inputs: &[Tensor],
    budget: &Budget<'_>,
) -> Result<Vec<Tensor>, EvaluateError> {
    graph_as(graph, inputs, budget, &Alone)
}

/// The results of the entry function of a verified graph on one rank of an exchange.
pub fn graph_as(
    graph: &Graph,
    inputs: &[Tensor],
    budget: &Budget<'_>,
    exchange: &dyn Exchange,
) -> Result<Vec<Tensor>, EvaluateError> {
    let entry = graph.entry();
    check_inputs(entry, inputs)?;
    blocks::Evaluator::new(Some(graph), budget, exchange).function(entry, inputs.to_vec())
}

/// The results of a verified function that calls no other.
pub fn function(
    function: &Function,
    inputs: &[Tensor],
    budget: &Budget<'_>,
) -> Result<Vec<Tensor>, EvaluateError> {
    check_inputs(function, inputs)?;
    blocks::Evaluator::new(None, budget, &Alone).function(function, inputs.to_vec())
}

fn check_inputs(function: &Function, inputs: &[Tensor]) -> Result<(), EvaluateError> {
    let params = &function.body.params;
    if params.len() != inputs.len() {
        let (wanted, found) = (params.len(), inputs.len());
        return Err(EvaluateError::Input(format!("{wanted} inputs are needed, not {found}")));
    }
    for (&param, input) in params.iter().zip(inputs) {
        let value = &function.values[param];
        if value.ty != *input.ty() {
            let name = value.name.as_deref().unwrap_or("?");
            return Err(EvaluateError::Input(format!(
                "input {name} is {}, not {}",
                value.ty,
                input.ty()
            )));
        }
    }
    Ok(())
}
