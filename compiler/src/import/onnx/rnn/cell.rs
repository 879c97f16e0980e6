//! One step of each kind of cell: what the hidden state becomes.

use super::{Activation, Layer};
use crate::graph::{Builder, ValueId};
use crate::op::{self, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::TensorType;

/// The product of the hidden state with rows of the recurrence weights.
pub(super) fn recur(
    builder: &mut Builder<'_>,
    layer: &Layer,
    hidden: ValueId,
    weights: ValueId,
) -> Result<ValueId, TypeError> {
    let op = op::Contract {
        batch: Vec::new(),
        over: vec![vec![1, 1]],
        accumulate: layer.dtype.accumulator(),
        dtype: layer.dtype,
    };
    builder.add(op, &[hidden, weights])
}

pub(super) fn number(
    builder: &mut Builder<'_>,
    like: ValueId,
    number: f64,
) -> Result<ValueId, TypeError> {
    let TensorType { dtype, shape } = builder.ty(like).clone();
    let scalar = builder.constant(Tensor::from_values(dtype, &[], &Values::F64(vec![number])));
    builder.add(op::Broadcast { shape: shape.to_vec(), dims: Vec::new() }, &[scalar])
}

/// Columns of gate `gate` of a value `[batch, gates·hidden]`.
fn gate(
    builder: &mut Builder<'_>,
    layer: &Layer,
    value: ValueId,
    gate: usize,
) -> Result<ValueId, TypeError> {
    let op = op::Slice {
        start: vec![0, gate * layer.hidden],
        limit: vec![layer.batch, (gate + 1) * layer.hidden],
        stride: vec![1, 1],
    };
    builder.add(op, &[value])
}

pub(super) fn activate(
    builder: &mut Builder<'_>,
    layer: &Layer,
    which: usize,
    x: ValueId,
) -> Result<ValueId, TypeError> {
    let mut x = x;
    if layer.clip > 0.0 {
        let (low, high) = (number(builder, x, -layer.clip)?, number(builder, x, layer.clip)?);
        x = builder.map(ScalarFn::Max, &[x, low])?;
        x = builder.map(ScalarFn::Min, &[x, high])?;
    }
    let Activation { name, alpha, beta } = &layer.activations[which];
    let zero = number(builder, x, 0.0)?;
    let one = number(builder, x, 1.0)?;
    let (alpha, beta) = (number(builder, x, *alpha)?, number(builder, x, *beta)?);
    match name.as_str() {
        "Sigmoid" => builder.map(ScalarFn::Sigmoid, &[x]),
        "Tanh" => builder.map(ScalarFn::Tanh, &[x]),
        "Relu" => builder.map(ScalarFn::Max, &[x, zero]),
        "Affine" => {
            let part = builder.map(ScalarFn::Mul, &[alpha, x])?;
            builder.map(ScalarFn::Add, &[part, beta])
        }
        "ScaledTanh" => {
            let inner = builder.map(ScalarFn::Mul, &[beta, x])?;
            let inner = builder.map(ScalarFn::Tanh, &[inner])?;
            builder.map(ScalarFn::Mul, &[alpha, inner])
        }
        "HardSigmoid" => {
            let part = builder.map(ScalarFn::Mul, &[alpha, x])?;
            let part = builder.map(ScalarFn::Add, &[part, beta])?;
            let part = builder.map(ScalarFn::Max, &[part, zero])?;
            builder.map(ScalarFn::Min, &[part, one])
        }
        "LeakyRelu" => {
            let positive = builder.map(ScalarFn::Ge, &[x, zero])?;
            let part = builder.map(ScalarFn::Mul, &[alpha, x])?;
            builder.map(ScalarFn::Select, &[positive, x, part])
        }
        "ThresholdedRelu" => {
            let above = builder.map(ScalarFn::Gt, &[x, alpha])?;
            builder.map(ScalarFn::Select, &[above, x, zero])
        }
        "Elu" => {
            let positive = builder.map(ScalarFn::Ge, &[x, zero])?;
            let part = builder.map(ScalarFn::Expm1, &[x])?;
            let part = builder.map(ScalarFn::Mul, &[alpha, part])?;
            builder.map(ScalarFn::Select, &[positive, x, part])
        }
        "Softsign" => {
            let magnitude = builder.map(ScalarFn::Abs, &[x])?;
            let divisor = builder.map(ScalarFn::Add, &[one, magnitude])?;
            builder.map(ScalarFn::Div, &[x, divisor])
        }
        _ => {
            // Softplus, the last that `activations` lets through: max(x, 0) + log1p(exp(−|x|)).
            let magnitude = builder.map(ScalarFn::Abs, &[x])?;
            let minus = builder.map(ScalarFn::Neg, &[magnitude])?;
            let power = builder.map(ScalarFn::Exp, &[minus])?;
            let log = builder.map(ScalarFn::Log1p, &[power])?;
            let positive = builder.map(ScalarFn::Max, &[x, zero])?;
            builder.map(ScalarFn::Add, &[positive, log])
        }
    }
}

/// Gates in the order of ONNX: input, output, forget, cell.
pub(super) fn lstm(
    builder: &mut Builder<'_>,
    layer: &Layer,
    x: ValueId,
    hidden: ValueId,
    cell: ValueId,
) -> Result<(ValueId, ValueId), TypeError> {
    let own = recur(builder, layer, hidden, layer.recurrence)?;
    let sum = builder.map(ScalarFn::Add, &[x, own])?;
    let peep = |builder: &mut Builder<'_>, sum: ValueId, which: usize, state: ValueId| match layer
        .peepholes
    {
        None => Ok(sum),
        Some(peepholes) => {
            let shape = vec![layer.batch, layer.hidden];
            let weight =
                builder.add(op::Broadcast { shape, dims: vec![1] }, &[peepholes[which]])?;
            let part = builder.map(ScalarFn::Mul, &[weight, state])?;
            builder.map(ScalarFn::Add, &[sum, part])
        }
    };
    let i = gate(builder, layer, sum, 0)?;
    let i = peep(builder, i, 0, cell)?;
    let i = activate(builder, layer, 0, i)?;
    let f = if layer.coupled {
        let one = number(builder, i, 1.0)?;
        builder.map(ScalarFn::Sub, &[one, i])?
    } else {
        let f = gate(builder, layer, sum, 2)?;
        let f = peep(builder, f, 2, cell)?;
        activate(builder, layer, 0, f)?
    };
    let g = gate(builder, layer, sum, 3)?;
    let g = activate(builder, layer, 1, g)?;
    let kept = builder.map(ScalarFn::Mul, &[f, cell])?;
    let new = builder.map(ScalarFn::Mul, &[i, g])?;
    let cell = builder.map(ScalarFn::Add, &[kept, new])?;
    let o = gate(builder, layer, sum, 1)?;
    let o = peep(builder, o, 1, cell)?;
    let o = activate(builder, layer, 0, o)?;
    let shown = activate(builder, layer, 2, cell)?;
    Ok((builder.map(ScalarFn::Mul, &[o, shown])?, cell))
}

/// Gates in the order of ONNX: update, reset, hidden.
pub(super) fn gru(
    builder: &mut Builder<'_>,
    layer: &Layer,
    x: ValueId,
    hidden: ValueId,
) -> Result<ValueId, TypeError> {
    let rows = |builder: &mut Builder<'_>, value: ValueId, first: usize, last: usize| {
        let rank = builder.ty(value).rank();
        let (mut start, mut limit) = (vec![0; rank], builder.shape(value).to_vec());
        (start[0], limit[0]) = (first * layer.hidden, last * layer.hidden);
        builder.add(op::Slice { start, limit, stride: vec![1; rank] }, &[value])
    };
    let spread = |builder: &mut Builder<'_>, bias: ValueId, first: usize, last: usize| {
        let part = rows(builder, bias, first, last)?;
        let shape = vec![layer.batch, (last - first) * layer.hidden];
        builder.add(op::Broadcast { shape, dims: vec![1] }, &[part])
    };
    let mut own = recur(builder, layer, hidden, layer.recurrence)?;
    if let Some(bias) = layer.recurrence_bias {
        let bias = spread(builder, bias, 0, 2)?;
        own = builder.map(ScalarFn::Add, &[own, bias])?;
    }
    let mut gates = Vec::new();
    for which in 0..2 {
        let (a, b) = (gate(builder, layer, x, which)?, gate(builder, layer, own, which)?);
        let sum = builder.map(ScalarFn::Add, &[a, b])?;
        gates.push(activate(builder, layer, 0, sum)?);
    }
    let (update, reset) = (gates[0], gates[1]);
    let weights = layer.new_recurrence;
    let past = if layer.reset_after {
        let mut product = recur(builder, layer, hidden, weights)?;
        if let Some(bias) = layer.recurrence_bias {
            let bias = spread(builder, bias, 2, 3)?;
            product = builder.map(ScalarFn::Add, &[product, bias])?;
        }
        builder.map(ScalarFn::Mul, &[reset, product])?
    } else {
        let shown = builder.map(ScalarFn::Mul, &[reset, hidden])?;
        recur(builder, layer, shown, weights)?
    };
    let input = gate(builder, layer, x, 2)?;
    let sum = builder.map(ScalarFn::Add, &[input, past])?;
    let new = activate(builder, layer, 1, sum)?;
    let one = number(builder, update, 1.0)?;
    let rest = builder.map(ScalarFn::Sub, &[one, update])?;
    let new = builder.map(ScalarFn::Mul, &[rest, new])?;
    let kept = builder.map(ScalarFn::Mul, &[update, hidden])?;
    builder.map(ScalarFn::Add, &[new, kept])
}
