//! Recurrent layers: LSTM, GRU and RNN as loops over time. What does not depend on the step before, the product of the
//! input with its weights, is computed for all steps at once.

mod cell;

use super::context::{Converted, ImportError, NodeContext, invalid, unsupported};
use super::table::{Row, row};
use crate::graph::{Builder, ValueId};
use crate::op::{self, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType};
use cell::{activate, gru, lstm, number, recur};

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
    /// Weights of the hidden state, `[gates·hidden, hidden]`; of a GRU those of the update and reset gates.
    recurrence: ValueId,
    /// A GRU's weights of the hidden state for what is new, `[hidden, hidden]`; of the others the same as above.
    new_recurrence: ValueId,
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
        let (recurrence, new_recurrence) = if cell == Cell::Gru {
            let gates = context.slice_axis(recurrence, 0, 0, 2 * hidden, 1)?;
            (gates, context.slice_axis(recurrence, 0, 2 * hidden, 3 * hidden, 1)?)
        } else {
            (recurrence, recurrence)
        };
        let layer = Layer {
            cell,
            steps,
            batch,
            hidden,
            recurrence,
            new_recurrence,
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
