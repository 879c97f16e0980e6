//! A step of training: the loss, its derivative by every weight, and the optimizer. Weights and the optimizer's values
//! are state.

use super::values::{converted, filled};
use super::{Worth, blocks, rule};
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::graph::{Builder, Function, Graph, NodeId, ValueId};
use crate::op::TypeError;
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};

/// How weights follow their gradients. Updates are computed in f32 (f64 for weights of f64) and rounded once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Optimizer {
    /// `w − rate · g`.
    Sgd {
        /// The rate.
        rate: f64,
    },
    /// Adam with decay of weights apart from the gradient. The state `step` counts the steps that were done.
    AdamW {
        /// The rate.
        rate: f64,
        /// How much of the mean of gradients stays.
        beta1: f64,
        /// How much of the mean of their squares stays.
        beta2: f64,
        /// What is added to the root of the latter.
        epsilon: f64,
        /// What part of a weight, times the rate, is taken off in each step.
        decay: f64,
    },
}

/// What a step of training is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// How weights follow their gradients.
    pub optimizer: Optimizer,
    /// Whether each layer (nodes beside each other whose origins begin with the same `layers.N.`) is computed anew on the
    /// way back, so that nothing but its input has to be kept.
    pub recompute: bool,
}

/// The graph with a result `grad.NAME` for every floating-point parameter. The first result is what is differentiated: a
/// floating-point scalar.
pub fn differentiate(graph: &Graph) -> Result<Graph, Diagnostics> {
    extended(graph, |builder, params, loss| {
        let gradients = backward(builder, params, loss, &[])?;
        for (&param, gradient) in params.iter().zip(gradients) {
            let name = name(builder.function, param);
            builder.function.result(gradient, &format!("grad.{name}"));
        }
        Ok(())
    })
}

/// A step of training of a graph whose first result is the loss and whose floating-point parameters are the weights. Each
/// weight `W` is paired as state with a result `W.next`, and so are `W.mean` and `W.square` of AdamW.
pub fn training_step(graph: &Graph, training: &Training) -> Result<Graph, Diagnostics> {
    let layers = if training.recompute { layers(graph) } else { Vec::new() };
    extended(graph, |builder, params, loss| {
        let gradients = backward(builder, params, loss, &layers)?;
        let step = match training.optimizer {
            Optimizer::Sgd { .. } => None,
            Optimizer::AdamW { .. } => {
                let ty = TensorType::new(DType::F32, &[]);
                let step = builder.function.parameter(ty.clone(), "step");
                let one = filled(builder, &ty, 1.0)?;
                let next = builder.map(ScalarFn::Add, &[step, one])?;
                paired(builder, step, next);
                Some(next)
            }
        };
        for (&param, gradient) in params.iter().zip(gradients) {
            update(builder, &training.optimizer, param, gradient, step)?;
        }
        Ok(())
    })
}

/// A copy of the graph whose entry `extend` has added to; it gets the floating-point parameters and the first result.
fn extended(
    graph: &Graph,
    extend: impl FnOnce(&mut Builder<'_>, &[ValueId], ValueId) -> Result<(), TypeError>,
) -> Result<Graph, Diagnostics> {
    let mut graph = graph.clone();
    let function = graph.entry_mut();
    let failed = |message: String| Diagnostics::from(Diagnostic::error(Code::OpType, message));
    let loss = function.body.results.first().copied();
    let loss =
        loss.filter(|&loss| function.ty(loss).rank() == 0 && function.ty(loss).dtype.is_float());
    let Some(loss) = loss else {
        return Err(failed(
            "the first result is not a floating-point scalar to differentiate".to_owned(),
        ));
    };
    let params: Vec<ValueId> = function.body.params.clone();
    let weights: Vec<ValueId> =
        params.into_iter().filter(|&param| function.ty(param).dtype.is_float()).collect();
    let nodes = std::mem::take(&mut function.body.nodes);
    let mut builder = Builder::new(function);
    builder.nodes = nodes;
    extend(&mut builder, &weights, loss).map_err(|error| failed(error.message))?;
    let nodes = std::mem::take(&mut builder.nodes);
    function.body.nodes = nodes;
    Ok(graph)
}

/// The gradient of the loss by each of `wanted`; zeros where it does not depend on it.
fn backward(
    builder: &mut Builder<'_>,
    wanted: &[ValueId],
    loss: ValueId,
    layers: &[usize],
) -> Result<Vec<ValueId>, TypeError> {
    let nodes = builder.nodes.clone();
    let ty = builder.ty(loss).clone();
    let mut worth = Worth::new(builder, &nodes, wanted);
    let seed = filled(builder, &ty, 1.0)?;
    worth.add(builder, loss, seed)?;
    for group in grouped(&nodes, layers).into_iter().rev() {
        if group.len() > 1 {
            blocks::segment(builder, group, &mut worth)?;
            continue;
        }
        let node = builder.function.nodes[group[0]].clone();
        let results: Vec<Option<ValueId>> =
            node.results.iter().map(|result| worth.found.get(result).copied()).collect();
        if results.iter().any(Option::is_some) && worth.reaches(builder, &node) {
            rule::node(builder, &node, &results, &mut worth)?;
        }
    }
    let mut gradients = Vec::new();
    for value in wanted {
        let ty = builder.ty(*value).clone();
        gradients.push(match worth.found.get(value) {
            Some(&gradient) => gradient,
            None => filled(builder, &ty, 0.0)?,
        });
    }
    Ok(gradients)
}

/// For each node of the entry the number of its layer, counted from 1, or 0.
fn layers(graph: &Graph) -> Vec<usize> {
    let function = graph.entry();
    let layer = |id: &NodeId| {
        let origins = &function.nodes[*id].origins;
        let name = origins.first().and_then(|&origin| graph.origins.get_index(origin as usize))?;
        let (number, _) = name.strip_prefix("layers.")?.split_once('.')?;
        number.parse::<usize>().ok()?.checked_add(1)
    };
    function.body.nodes.iter().map(|id| layer(id).unwrap_or(0)).collect()
}

/// Neighbours of one layer together, all others by themselves.
fn grouped<'n>(nodes: &'n [NodeId], layers: &[usize]) -> Vec<&'n [NodeId]> {
    let mut groups = Vec::new();
    let mut begin = 0;
    while begin < nodes.len() {
        let layer = layers.get(begin).copied().unwrap_or(0);
        let mut end = begin + 1;
        while layer > 0 && layers.get(end) == Some(&layer) {
            end += 1;
        }
        groups.push(&nodes[begin..end]);
        begin = end;
    }
    groups
}

fn name(function: &Function, value: ValueId) -> String {
    function.values[value].name.clone().unwrap_or_else(|| format!("{}", value.index()))
}

/// Makes a parameter and the value that comes after it a pair of state.
fn paired(builder: &mut Builder<'_>, param: ValueId, next: ValueId) {
    let function = &mut *builder.function;
    let position = function.body.params.iter().position(|&value| value == param);
    let position = position.expect("it is a parameter");
    let name = format!("{}.next", name(function, param));
    function.state.push((position, function.body.results.len()));
    function.result(next, &name);
}

fn update(
    builder: &mut Builder<'_>,
    optimizer: &Optimizer,
    weight: ValueId,
    gradient: ValueId,
    step: Option<ValueId>,
) -> Result<(), TypeError> {
    let dtype = builder.ty(weight).dtype;
    let wide = dtype.accumulator();
    let value = converted(builder, weight, wide)?;
    let gradient = converted(builder, gradient, wide)?;
    let ty = builder.ty(value).clone();
    let next = match *optimizer {
        Optimizer::Sgd { rate } => {
            let part = times(builder, gradient, rate)?;
            builder.map(ScalarFn::Sub, &[value, part])?
        }
        Optimizer::AdamW { rate, beta1, beta2, epsilon, decay } => {
            let step = step.expect("AdamW counts its steps");
            let square = builder.map(ScalarFn::Mul, &[gradient, gradient])?;
            let mean = moving(builder, weight, "mean", &ty, gradient, beta1)?;
            let square = moving(builder, weight, "square", &ty, square, beta2)?;
            let mean = unbiased(builder, mean, step, beta1)?;
            let square = unbiased(builder, square, step, beta2)?;
            let root = builder.map(ScalarFn::Sqrt, &[square])?;
            let epsilon = filled(builder, &ty, epsilon)?;
            let root = builder.map(ScalarFn::Add, &[root, epsilon])?;
            let part = builder.map(ScalarFn::Div, &[mean, root])?;
            let decayed = times(builder, value, decay)?;
            let part = builder.map(ScalarFn::Add, &[part, decayed])?;
            let part = times(builder, part, rate)?;
            builder.map(ScalarFn::Sub, &[value, part])?
        }
    };
    let next = converted(builder, next, dtype)?;
    paired(builder, weight, next);
    Ok(())
}

fn times(builder: &mut Builder<'_>, x: ValueId, factor: f64) -> Result<ValueId, TypeError> {
    let ty = builder.ty(x).clone();
    let factor = filled(builder, &ty, factor)?;
    builder.map(ScalarFn::Mul, &[x, factor])
}

/// A moving mean, which is state of its own.
fn moving(
    builder: &mut Builder<'_>,
    weight: ValueId,
    what: &str,
    ty: &TensorType,
    new: ValueId,
    stays: f64,
) -> Result<ValueId, TypeError> {
    let name = format!("{}.{what}", name(builder.function, weight));
    let old = builder.function.parameter(ty.clone(), &name);
    let (kept, added) = (times(builder, old, stays)?, times(builder, new, 1.0 - stays)?);
    let next = builder.map(ScalarFn::Add, &[kept, added])?;
    paired(builder, old, next);
    Ok(next)
}

/// A mean that began at zero, over what part of it is real by now.
fn unbiased(
    builder: &mut Builder<'_>,
    mean: ValueId,
    step: ValueId,
    stays: f64,
) -> Result<ValueId, TypeError> {
    let ty = builder.ty(step).clone();
    let base = filled(builder, &ty, stays)?;
    let rest = builder.map(ScalarFn::Pow, &[base, step])?;
    let one = filled(builder, &ty, 1.0)?;
    let real = builder.map(ScalarFn::Sub, &[one, rest])?;
    let like = builder.ty(mean).clone();
    let real = converted(builder, real, like.dtype)?;
    let real = super::values::repeated(builder, real, &like.shape, &[])?;
    builder.map(ScalarFn::Div, &[mean, real])
}
