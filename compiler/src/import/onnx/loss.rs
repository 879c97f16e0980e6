//! Losses, and steps of optimizers.

use super::context::{Converted, ImportError, NodeContext, invalid};
use super::table::{Row, row};
use crate::graph::ValueId;
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::types::DType;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("NegativeLogLikelihoodLoss", 1, negative_log_likelihood),
    row("SoftmaxCrossEntropyLoss", 1, softmax_cross_entropy),
];

/// The operators of domain ai.onnx.preview.training of this file.
pub(super) const TRAINING: &[Row] =
    &[row("Adam", 1, adam), row("Adagrad", 1, adagrad), row("Momentum", 1, momentum)];

type Context<'a, 'f, 'm> = NodeContext<'a, 'f, 'm>;
type Value = Result<ValueId, ImportError>;

fn negative_log_likelihood(context: &mut Context<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    Ok(vec![loss(context, x)?])
}

fn softmax_cross_entropy(context: &mut Context<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    if context.rank(x) < 2 {
        return invalid("scores have a dimension of classes");
    }
    let log = context.builder.add(op::LogSoftmax { axis: 1 }, &[x])?;
    Ok(vec![loss(context, log)?, log])
}

/// What `x` says against the targets of input 1, weighted by input 2.
fn loss(context: &mut Context<'_, '_, '_>, x: ValueId) -> Value {
    let target = context.input(1)?;
    let shape = context.shape(x);
    let mut wanted = shape.to_vec();
    if shape.len() < 2 || context.rank(target) + 1 != shape.len() || shape[1] == 0 {
        return invalid("targets lack the dimension of classes alone");
    }
    wanted.remove(1);
    let target = context.convert(target, DType::I64)?;
    let column = context.unsqueeze(target, &[1])?;
    let picked = super::index::gather_elements_at(context, x, column, 1)?;
    let picked = context.reshape(picked, &wanted)?;
    let mut loss = context.builder.map(ScalarFn::Neg, &[picked])?;
    let mut weights = match context.optional(2)? {
        Some(weight) => {
            // Targets to ignore may be outside; indices are clamped, and their weights do not count.
            Some(context.gather(weight, target, 0)?)
        }
        None => None,
    };
    if let Some(ignored) = context.attribute("ignore_index").map(|attribute| attribute.i) {
        let ignored = context.map_scalar(ScalarFn::Eq, target, ignored as f64)?;
        let zero = context.scalar_like(loss, 0.0)?;
        loss = context.builder.map(ScalarFn::Select, &[ignored, zero, loss])?;
        let weight = match weights {
            Some(weight) => weight,
            None => context.scalar_like(loss, 1.0)?,
        };
        weights = Some(context.builder.map(ScalarFn::Select, &[ignored, zero, weight])?);
    }
    if let Some(weights) = weights {
        loss = context.builder.map(ScalarFn::Mul, &[loss, weights])?;
    }
    let axes: Vec<usize> = (0..wanted.len()).collect();
    match (context.string("reduction", "mean").as_str(), weights) {
        ("none", _) => Ok(loss),
        ("sum", _) => context.reduce(Combine::Sum, loss, &axes),
        (_, Some(weights)) => {
            let sum = context.reduce(Combine::Sum, loss, &axes)?;
            let weight = context.reduce(Combine::Sum, weights, &axes)?;
            Ok(context.builder.map(ScalarFn::Div, &[sum, weight])?)
        }
        (_, None) => {
            let mean = context.mean_keep(loss, &axes)?;
            context.reshape(mean, &[])
        }
    }
}

/// Inputs R, T, then groups of one tensor for each optimized one.
fn optimized(
    context: &mut Context<'_, '_, '_>,
    kinds: usize,
) -> Result<(ValueId, ValueId, Vec<Vec<ValueId>>), ImportError> {
    let inputs = context.all_inputs()?;
    let [rate, step, ref rest @ ..] = *inputs else { return invalid("rate and step are missing") };
    if rest.is_empty() || rest.len() % kinds != 0 {
        return invalid(format!("{} tensors in {kinds} groups", rest.len()));
    }
    let count = rest.len() / kinds;
    let tensors =
        (0..count).map(|index| (0..kinds).map(|kind| rest[kind * count + index]).collect());
    Ok((rate, step, tensors.collect()))
}

/// The outputs in groups again.
fn grouped(results: &[Vec<ValueId>]) -> Vec<ValueId> {
    let kinds = results.first().map_or(0, Vec::len);
    (0..kinds).flat_map(|kind| results.iter().map(move |result| result[kind])).collect()
}

/// `gradient` + `norm_coefficient` · `x`.
fn regularized(context: &mut Context<'_, '_, '_>, x: ValueId, gradient: ValueId) -> Value {
    let norm = f64::from(context.float("norm_coefficient", 0.0));
    let decay = context.map_scalar(ScalarFn::Mul, x, norm)?;
    Ok(context.builder.map(ScalarFn::Add, &[decay, gradient])?)
}

fn adagrad(context: &mut Context<'_, '_, '_>) -> Converted {
    let (rate, step, tensors) = optimized(context, 3)?;
    let decay = f64::from(context.float("decay_factor", 0.0));
    let epsilon = f64::from(context.float("epsilon", 0.0));
    let rate = {
        let step = context.convert(step, context.dtype(rate))?;
        let factor = context.map_scalar(ScalarFn::Mul, step, decay)?;
        let factor = context.map_scalar(ScalarFn::Add, factor, 1.0)?;
        context.map(ScalarFn::Div, &[rate, factor])?
    };
    let mut results = Vec::new();
    for tensor in tensors {
        let (x, gradient, squares) = (tensor[0], tensor[1], tensor[2]);
        let gradient = regularized(context, x, gradient)?;
        let square = context.builder.map(ScalarFn::Mul, &[gradient, gradient])?;
        let squares = context.builder.map(ScalarFn::Add, &[squares, square])?;
        let root = context.builder.map(ScalarFn::Sqrt, &[squares])?;
        let root = context.map_scalar(ScalarFn::Add, root, epsilon)?;
        let change = context.map(ScalarFn::Mul, &[rate, gradient])?;
        let change = context.builder.map(ScalarFn::Div, &[change, root])?;
        results.push(vec![context.builder.map(ScalarFn::Sub, &[x, change])?, squares]);
    }
    Ok(grouped(&results))
}

fn momentum(context: &mut Context<'_, '_, '_>) -> Converted {
    let (rate, step, tensors) = optimized(context, 3)?;
    let alpha = f64::from(context.float("alpha", 0.0));
    let beta = f64::from(context.float("beta", 0.0));
    let nesterov = context.string("mode", "standard") == "nesterov";
    // The first step takes the gradient whole.
    let first = context.map_scalar(ScalarFn::Eq, step, 0.0)?;
    let mut results = Vec::new();
    for tensor in tensors {
        let (x, gradient, moment) = (tensor[0], tensor[1], tensor[2]);
        let gradient = regularized(context, x, gradient)?;
        let whole = context.scalar_like(gradient, 1.0)?;
        let part = context.scalar_like(gradient, beta)?;
        let part = context.map(ScalarFn::Select, &[first, whole, part])?;
        let kept = context.map_scalar(ScalarFn::Mul, moment, alpha)?;
        let added = context.builder.map(ScalarFn::Mul, &[part, gradient])?;
        let moment = context.builder.map(ScalarFn::Add, &[kept, added])?;
        let direction = if nesterov {
            let ahead = context.map_scalar(ScalarFn::Mul, moment, alpha)?;
            context.builder.map(ScalarFn::Add, &[gradient, ahead])?
        } else {
            moment
        };
        let change = context.map(ScalarFn::Mul, &[rate, direction])?;
        results.push(vec![context.builder.map(ScalarFn::Sub, &[x, change])?, moment]);
    }
    Ok(grouped(&results))
}

fn adam(context: &mut Context<'_, '_, '_>) -> Converted {
    let (rate, step, tensors) = optimized(context, 4)?;
    let number = |context: &Context<'_, '_, '_>, name: &str, default: f32| {
        f64::from(context.float(name, default))
    };
    let (alpha, beta) = (number(context, "alpha", 0.9), number(context, "beta", 0.999));
    let epsilon = number(context, "epsilon", 0.0);
    let post = number(context, "norm_coefficient_post", 0.0);
    // From the second step on, the rate makes up for averages that started at zero.
    let rate = {
        let dtype = context.dtype(rate);
        let count = context.convert(step, dtype)?;
        let left = |context: &mut Context<'_, '_, '_>, base: f64| -> Value {
            let base = context.scalar_like(count, base)?;
            let power = context.builder.map(ScalarFn::Pow, &[base, count])?;
            let one = context.scalar_like(count, 1.0)?;
            Ok(context.builder.map(ScalarFn::Sub, &[one, power])?)
        };
        let (below, above) = (left(context, alpha)?, left(context, beta)?);
        let root = context.builder.map(ScalarFn::Sqrt, &[above])?;
        let factor = context.builder.map(ScalarFn::Div, &[root, below])?;
        let corrected = context.map(ScalarFn::Mul, &[rate, factor])?;
        let later = context.map_scalar(ScalarFn::Gt, step, 0.0)?;
        context.map(ScalarFn::Select, &[later, corrected, rate])?
    };
    let mut results = Vec::new();
    for tensor in tensors {
        let (x, gradient, average, squares) = (tensor[0], tensor[1], tensor[2], tensor[3]);
        let gradient = regularized(context, x, gradient)?;
        let blend =
            |context: &mut Context<'_, '_, '_>, old: ValueId, new: ValueId, keep: f64| -> Value {
                let old = context.map_scalar(ScalarFn::Mul, old, keep)?;
                let new = context.map_scalar(ScalarFn::Mul, new, 1.0 - keep)?;
                Ok(context.builder.map(ScalarFn::Add, &[old, new])?)
            };
        let average = blend(context, average, gradient, alpha)?;
        let square = context.builder.map(ScalarFn::Mul, &[gradient, gradient])?;
        let squares = blend(context, squares, square, beta)?;
        let root = context.builder.map(ScalarFn::Sqrt, &[squares])?;
        let root = context.map_scalar(ScalarFn::Add, root, epsilon)?;
        let change = context.map(ScalarFn::Mul, &[rate, average])?;
        let change = context.builder.map(ScalarFn::Div, &[change, root])?;
        let x = context.builder.map(ScalarFn::Sub, &[x, change])?;
        let x = context.map_scalar(ScalarFn::Mul, x, 1.0 - post)?;
        results.push(vec![x, average, squares]);
    }
    Ok(grouped(&results))
}
