//! Recurrent layers: LSTM, GRU and RNN as loops over time. What does not depend on the step before, the product of the
//! input with its weights, is computed for all steps at once.

use super::context::{Converted, ImportError, NodeContext, invalid, unsupported};
use super::table::{Row, row};
use crate::graph::{Builder, ValueId};
use crate::op::{self, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("LSTM", 1, |c| recurrent(c, Cell::Lstm)),
    row("GRU", 1, |c| recurrent(c, Cell::Gru)),
    row("RNN", 1, |c| recurrent(c, Cell::Rnn)),
];

type Value = Result<ValueId, ImportError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    Lstm,
    Gru,
    Rnn,
}

impl Cell {
    fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Rnn => 1,
        }
    }

    fn activations(self) -> &'static [&'static str] {
        match self {
            Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
            Cell::Gru => &["Sigmoid", "Tanh"],
            Cell::Rnn => &["Tanh"],
        }
    }
}

/// An activation with its parameters.
#[derive(Clone, Debug)]
struct Activation {
    name: String,
    alpha: f64,
    beta: f64,
}

/// One direction of a layer: sizes, weights without their first dimension, and settings.
struct Layer {
    cell: Cell,
    steps: usize,
    batch: usize,
    hidden: usize,
    /// Weights of the hidden state, `[gates·hidden, hidden]`.
    recurrence: ValueId,
    /// The bias of the hidden state's product, `[gates·hidden]`, where it cannot be added to the input's.
    recurrence_bias: Option<ValueId>,
    peepholes: Option<[ValueId; 3]>,
    activations: Vec<Activation>,
    clip: f64,
    coupled: bool,
    reset_after: bool,
    lengths: Option<ValueId>,
    dtype: DType,
}

fn recurrent(context: &mut NodeContext<'_, '_, '_>, cell: Cell) -> Converted {
    let batch_first = context.int("layout", 0) != 0;
    let mut x = context.input(0)?;
    if context.rank(x) != 3 {
        return invalid(format!("the input has rank {}, not 3", context.rank(x)));
    }
    if batch_first {
        x = context.transpose(x, &[1, 0, 2])?;
    }
    let shape = context.shape(x);
    let (steps, batch) = (shape[0], shape[1]);
    let (weights, recurrences) = (context.input(1)?, context.input(2)?);
    let r_shape = context.shape(recurrences);
    let w_shape = context.shape(weights);
    let direction = context.string("direction", "forward");
    let directions = if direction == "bidirectional" { 2 } else { 1 };
    let gates = cell.gates();
    let fits = r_shape.len() == 3
        && r_shape[0] == directions
        && r_shape[1] == gates * r_shape[2]
        && w_shape.as_slice() == [directions, r_shape[1], shape[2]];
    if !fits {
        return invalid(format!(
            "weights of shapes {w_shape:?} and {r_shape:?} for {directions} directions"
        ));
    }
    let hidden = r_shape[2];
    let dtype = context.dtype(x);
    let lengths = match context.optional_constant(4) {
        Ok(Some(lengths)) if lengths.to_i64().iter().all(|&length| length >= steps as i64) => None,
        Ok(None) => None,
        Ok(Some(_)) | Err(_) => context.optional(4)?,
    };
    let mut initial = Vec::new();
    for index in [5, 6] {
        let given = if index == 5 || cell == Cell::Lstm { context.optional(index)? } else { None };
        initial.push(match given {
            Some(value) if batch_first => Some(context.transpose(value, &[1, 0, 2])?),
            other => other,
        });
    }
    let peepholes = if cell == Cell::Lstm { context.optional(7)? } else { None };
    let bias = context.optional(3)?;
    let (mut outputs, mut last_hidden, mut last_cell) = (Vec::new(), Vec::new(), Vec::new());
    for way in 0..directions {
        let pick = |context: &mut NodeContext<'_, '_, '_>, value: ValueId| -> Value {
            let part = context.slice_axis(value, 0, way, way + 1, 1)?;
            let shape = context.shape(part)[1..].to_vec();
            context.reshape(part, &shape)
        };
        let (w, recurrence) = (pick(context, weights)?, pick(context, recurrences)?);
        let peepholes = match peepholes {
            None => None,
            Some(value) => {
                let all = pick(context, value)?;
                let mut part = |index: usize| {
                    context.slice_axis(all, 0, index * hidden, (index + 1) * hidden, 1)
                };
                Some([part(0)?, part(1)?, part(2)?])
            }
        };
        // [steps, batch, gates·hidden]
        let mut inputs = context.contract(x, w, &[], &[(2, 1)], dtype)?;
        let reset_after = context.int("linear_before_reset", 0) != 0;
        let mut recurrence_bias = None;
        if let Some(bias) = bias {
            let both = pick(context, bias)?;
            let input_bias = context.slice_axis(both, 0, 0, gates * hidden, 1)?;
            let own = context.slice_axis(both, 0, gates * hidden, 2 * gates * hidden, 1)?;
            inputs = context.map(ScalarFn::Add, &[inputs, input_bias])?;
            if cell == Cell::Gru && reset_after {
                recurrence_bias = Some(own);
            } else {
                inputs = context.map(ScalarFn::Add, &[inputs, own])?;
            }
        }
        let mut start = |value: Option<ValueId>| -> Value {
            match value {
                Some(value) => {
                    let part = pick(context, value)?;
                    if context.shape(part).as_slice() != [batch, hidden] {
                        return invalid("the initial state does not have one row a batch entry");
                    }
                    Ok(part)
                }
                None => {
                    let zeros = Values::F64(vec![0.0; batch * hidden]);
                    Ok(context.known(Tensor::from_values(dtype, &[batch, hidden], &zeros)))
                }
            }
        };
        let (hidden_start, cell_start) = (start(initial[0])?, start(initial[1])?);
        let layer = Layer {
            cell,
            steps,
            batch,
            hidden,
            recurrence,
            recurrence_bias,
            peepholes,
            activations: activations(context, cell, way)?,
            clip: f64::from(context.float("clip", 0.0)),
            coupled: context.int("input_forget", 0) != 0,
            reset_after,
            lengths,
            dtype,
        };
        let reverse = direction == "reverse" || way == 1;
        let [y, h, c] = run(context.builder, &layer, inputs, hidden_start, cell_start, reverse)?;
        outputs.push(context.unsqueeze(y, &[1])?);
        last_hidden.push(context.unsqueeze(h, &[0])?);
        last_cell.push(context.unsqueeze(c, &[0])?);
    }
    let mut results = vec![
        context.concat(&outputs, 1)?,
        context.concat(&last_hidden, 0)?,
        context.concat(&last_cell, 0)?,
    ];
    if batch_first {
        results[0] = context.transpose(results[0], &[2, 0, 1, 3])?;
        results[1] = context.transpose(results[1], &[1, 0, 2])?;
        results[2] = context.transpose(results[2], &[1, 0, 2])?;
    }
    results.truncate(if cell == Cell::Lstm { 3 } else { 2 });
    Ok(results)
}

fn activations(
    context: &NodeContext<'_, '_, '_>,
    cell: Cell,
    way: usize,
) -> Result<Vec<Activation>, ImportError> {
    let defaults = cell.activations();
    let names = context.strings("activations").filter(|names| !names.is_empty());
    let names = names
        .unwrap_or_else(|| defaults.iter().chain(defaults).map(|&name| name.to_owned()).collect());
    let (alphas, betas) = (context.floats("activation_alpha"), context.floats("activation_beta"));
    let mut found = Vec::new();
    // Parameters are listed for the activations that take them, in order.
    let (mut alpha_at, mut beta_at) = (0, 0);
    for (position, name) in names.iter().enumerate() {
        let (alpha, beta) = match name.as_str() {
            "LeakyRelu" => (Some(0.01), None),
            "ThresholdedRelu" => (Some(1.0), None),
            "ScaledTanh" => (Some(1.0), Some(1.0)),
            "HardSigmoid" => (Some(0.2), Some(0.5)),
            "Elu" => (Some(1.0), None),
            "Affine" => (Some(1.0), Some(0.0)),
            "Relu" | "Tanh" | "Sigmoid" | "Softsign" | "Softplus" => (None, None),
            other => return unsupported(format!("activation {other}")),
        };
        let next = |list: &Option<Vec<f32>>, at: &mut usize, default: Option<f64>| match default {
            None => 0.0,
            Some(default) => {
                let given = list.as_ref().and_then(|list| list.get(*at)).copied();
                *at += 1;
                given.map_or(default, f64::from)
            }
        };
        let alpha = next(&alphas, &mut alpha_at, alpha);
        let beta = next(&betas, &mut beta_at, beta);
        let count = defaults.len();
        if (way * count..(way + 1) * count).contains(&position) {
            found.push(Activation { name: name.clone(), alpha, beta });
        }
    }
    if found.len() != defaults.len() {
        return invalid(format!("{} activations for one direction", found.len()));
    }
    Ok(found)
}

/// Outputs of all steps `[steps, batch, hidden]`, and the last hidden and cell state.
fn run(
    builder: &mut Builder<'_>,
    layer: &Layer,
    inputs: ValueId,
    hidden: ValueId,
    cell: ValueId,
    reverse: bool,
) -> Result<[ValueId; 3], TypeError> {
    let all = TensorType::new(layer.dtype, &[layer.steps, layer.batch, layer.hidden]);
    if layer.steps == 0 {
        let empty = builder.constant(Tensor::zeros(all));
        return Ok([empty, hidden, cell]);
    }
    let state = TensorType::new(layer.dtype, &[layer.batch, layer.hidden]);
    let zero = builder.constant(Tensor::scalar(0i64));
    if layer.steps == 1 {
        let (output, hidden, cell) = step(builder, layer, inputs, zero, hidden, cell)?;
        let shape = all.shape.to_vec();
        let output = builder.add(op::Reshape { shape }, &[output])?;
        return Ok([output, hidden, cell]);
    }
    let start = builder.constant(Tensor::zeros(all.clone()));
    let body = builder.block(
        &[TensorType::new(DType::I64, &[]), all, state.clone(), state],
        |builder, params| {
            let [count, outputs, hidden, cell] = *params else {
                return Err(TypeError::new("a loop has 4 parameters"));
            };
            let time = if reverse {
                let last = builder.constant(Tensor::scalar(layer.steps as i64 - 1));
                builder.map(ScalarFn::Sub, &[last, count])?
            } else {
                count
            };
            let zero = builder.constant(Tensor::scalar(0i64));
            let (output, hidden, cell) = step(builder, layer, inputs, time, hidden, cell)?;
            let row = builder
                .add(op::Reshape { shape: vec![1, layer.batch, layer.hidden] }, &[output])?;
            let outputs = builder.add(op::DynamicUpdate {}, &[outputs, row, time, zero, zero])?;
            Ok(vec![outputs, hidden, cell])
        },
    )?;
    let results =
        builder.add_many(op::For { count: layer.steps }, &[start, hidden, cell], vec![body])?;
    Ok([results[0], results[1], results[2]])
}

/// One step: the output at `time`, and the next hidden and cell state.
fn step(
    builder: &mut Builder<'_>,
    layer: &Layer,
    inputs: ValueId,
    time: ValueId,
    hidden: ValueId,
    cell: ValueId,
) -> Result<(ValueId, ValueId, ValueId), TypeError> {
    let width = layer.cell.gates() * layer.hidden;
    let x = if layer.steps == 1 {
        inputs
    } else {
        let zero = builder.constant(Tensor::scalar(0i64));
        builder.add(
            op::DynamicSlice { sizes: vec![1, layer.batch, width] },
            &[inputs, time, zero, zero],
        )?
    };
    let x = builder.add(op::Reshape { shape: vec![layer.batch, width] }, &[x])?;
    let (next_hidden, next_cell) = match layer.cell {
        Cell::Lstm => lstm(builder, layer, x, hidden, cell)?,
        Cell::Gru => (gru(builder, layer, x, hidden)?, cell),
        Cell::Rnn => {
            let own = recur(builder, layer, hidden, layer.recurrence)?;
            let sum = builder.map(ScalarFn::Add, &[x, own])?;
            (activate(builder, layer, 0, sum)?, cell)
        }
    };
    let Some(lengths) = layer.lengths else { return Ok((next_hidden, next_hidden, next_cell)) };
    // Past the end of its sequence a row keeps its state and gives zeros.
    let time = builder.add(op::Convert { dtype: builder.ty(lengths).dtype }, &[time])?;
    let time = builder.add(op::Broadcast { shape: vec![layer.batch], dims: vec![] }, &[time])?;
    let inside = builder.map(ScalarFn::Lt, &[time, lengths])?;
    let inside = builder
        .add(op::Broadcast { shape: vec![layer.batch, layer.hidden], dims: vec![0] }, &[inside])?;
    let zero = number(builder, next_hidden, 0.0)?;
    let output = builder.map(ScalarFn::Select, &[inside, next_hidden, zero])?;
    let hidden = builder.map(ScalarFn::Select, &[inside, next_hidden, hidden])?;
    let cell = if layer.cell == Cell::Lstm {
        builder.map(ScalarFn::Select, &[inside, next_cell, cell])?
    } else {
        cell
    };
    Ok((output, hidden, cell))
}

/// The product of the hidden state with rows of the recurrence weights.
fn recur(
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

fn number(builder: &mut Builder<'_>, like: ValueId, number: f64) -> Result<ValueId, TypeError> {
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

fn activate(
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
fn lstm(
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
fn gru(
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
    let weights = rows(builder, layer.recurrence, 0, 2)?;
    let mut own = recur(builder, layer, hidden, weights)?;
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
    let weights = rows(builder, layer.recurrence, 2, 3)?;
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
