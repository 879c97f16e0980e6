//! Attention and what belongs to it. Every step rounds to the operands' type, as the specification has it; the common
//! case in f32 is the graph's own attention.

use super::context::{Converted, ImportError, NodeContext, broadcast_shape, invalid};
use super::table::{Row, row};
use crate::graph::{Block, ValueId};
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("Attention", 1, attention),
    row("RotaryEmbedding", 1, rotary_embedding),
    row("LinearAttention", 1, linear_attention),
    row("CausalConvWithState", 1, causal_convolution),
    row("SwiGLU", 1, swiglu),
];

type Context<'a, 'f, 'm> = NodeContext<'a, 'f, 'm>;
type Value = Result<ValueId, ImportError>;

/// `[batch, sequence, heads * size]` as `[batch, heads, sequence, size]`.
fn split_heads(context: &mut Context<'_, '_, '_>, x: ValueId, heads: i64) -> Value {
    let shape = context.shape(x);
    let heads = usize::try_from(heads).unwrap_or(0);
    if shape.len() != 3 || heads == 0 || !shape[2].is_multiple_of(heads) {
        return invalid(format!("{heads} heads do not divide the last of 3 dimensions"));
    }
    let x = context.reshape(x, &[shape[0], shape[1], heads, shape[2] / heads])?;
    context.transpose(x, &[0, 2, 1, 3])
}

/// The reverse of [`split_heads`].
fn join_heads(context: &mut Context<'_, '_, '_>, x: ValueId) -> Value {
    let x = context.transpose(x, &[0, 2, 1, 3])?;
    let shape = context.shape(x);
    context.reshape(x, &[shape[0], shape[1], shape[2] * shape[3]])
}

/// Every head of dimension 1 that many times, one copy after another.
fn repeat_heads(context: &mut Context<'_, '_, '_>, x: ValueId, times: usize) -> Value {
    if times == 1 {
        return Ok(x);
    }
    let shape = context.shape(x);
    let mut wide = shape.to_vec();
    wide.insert(2, times);
    let dims = (0..wide.len()).filter(|&dim| dim != 2).collect();
    let x = context.builder.add(op::Broadcast { shape: wide, dims }, &[x])?;
    let mut result = shape.to_vec();
    result[1] *= times;
    context.reshape(x, &result)
}

/// 0 where `seen`, else −∞.
fn bias_of(context: &mut Context<'_, '_, '_>, seen: ValueId, dtype: DType) -> Value {
    let shape = context.shape(seen);
    let zero = context.scalar(dtype, 0.0);
    let zero = context.broadcast_to(zero, &shape)?;
    let hidden = context.scalar(dtype, f64::NEG_INFINITY);
    let hidden = context.broadcast_to(hidden, &shape)?;
    Ok(context.builder.map(ScalarFn::Select, &[seen, zero, hidden])?)
}

fn attention(context: &mut Context<'_, '_, '_>) -> Converted {
    let (mut q, mut k, mut v) = (context.input(0)?, context.input(1)?, context.input(2)?);
    let flat = context.rank(q) == 3;
    if flat {
        q = split_heads(context, q, context.int("q_num_heads", 0))?;
        k = split_heads(context, k, context.int("kv_num_heads", 0))?;
        v = split_heads(context, v, context.int("kv_num_heads", 0))?;
    }
    if [q, k, v].iter().any(|&x| context.rank(x) != 4) {
        return invalid("queries, keys and values have 3 or 4 dimensions");
    }
    let past = context.optional(4)?;
    let past_size = past.map_or(0, |past| context.shape(past).get(2).copied().unwrap_or(0));
    if let Some(past) = past {
        k = context.concat(&[past, k], 2)?;
    }
    if let Some(past) = context.optional(5)? {
        v = context.concat(&[past, v], 2)?;
    }
    let present = (k, v);
    let dtype = context.dtype(q);
    let (queries, keys) = (context.shape(q)[2], context.shape(k)[2]);
    let (heads, groups) = (context.shape(q)[1], context.shape(k)[1]);
    if groups == 0 || heads % groups != 0 || context.shape(v)[1] != groups {
        return invalid(format!("{heads} heads do not divide into {groups} groups"));
    }
    let depth = context.shape(q)[3];
    let scale = match context.attribute("scale") {
        Some(scale) => f64::from(scale.f),
        None => 1.0 / libm::sqrt(depth as f64),
    };
    let mask = Mask {
        causal: context.int("is_causal", 0) != 0,
        left: context.int("left_window_size", -1),
        right: context.int("right_window_size", -1),
        offset: past_size as i64,
        queries,
        keys,
    };
    let softcap = f64::from(context.float("softcap", 0.0));
    let precision = context.dtype_attribute("softmax_precision")?;
    let plain = !context.has_input(3) && !context.has_input(6) && mask.left < 0 && mask.right < 0;
    let square = !mask.causal || (keys >= queries && past_size == keys - queries);
    let exact = matches!(dtype, DType::F32 | DType::F64);
    if plain && square && exact && softcap == 0.0 && !context.has_output(3) && precision.is_none() {
        let op = op::Attention { scale, causal: mask.causal };
        let result = context.builder.add(op, &[q, k, v])?;
        let result = if flat { join_heads(context, result)? } else { result };
        return Ok(vec![result, present.0, present.1]);
    }
    k = repeat_heads(context, k, heads / groups)?;
    v = repeat_heads(context, v, heads / groups)?;
    let root = libm::sqrt(scale);
    let q = context.map_scalar(ScalarFn::Mul, q, root)?;
    let k = context.map_scalar(ScalarFn::Mul, k, root)?;
    let pairs = [(0, 0), (1, 1)];
    let mut score = context.contract(q, k, &pairs, &[(3, 3)], dtype)?;
    if softcap > 0.0 {
        let small = context.map_scalar(ScalarFn::Div, score, softcap)?;
        let small = context.builder.map(ScalarFn::Tanh, &[small])?;
        score = context.map_scalar(ScalarFn::Mul, small, softcap)?;
    }
    let bias = mask.bias(context, dtype)?;
    let biased = match bias {
        Some(bias) => context.map(ScalarFn::Add, &[score, bias])?,
        None => score,
    };
    let wide = context.convert(biased, precision.unwrap_or(dtype))?;
    let mut weights = softmax_steps(context, wide)?;
    if let Some(bias) = bias {
        weights = without_hidden_rows(context, weights, bias)?;
    }
    let exposed = match context.int("qk_matmul_output_mode", 0) {
        2 => biased,
        3 => context.convert(weights, dtype)?,
        _ => score,
    };
    let weights = context.convert(weights, dtype)?;
    let result = context.contract(weights, v, &pairs, &[(3, 2)], dtype)?;
    let result = if flat { join_heads(context, result)? } else { result };
    Ok(vec![result, present.0, present.1, exposed])
}

/// Softmax along the last dimension, each step rounded; a row of −∞ has no weight anywhere.
fn softmax_steps(context: &mut Context<'_, '_, '_>, x: ValueId) -> Value {
    let axis = context.rank(x) - 1;
    let top = context.reduce_keep(Combine::Max, x, &[axis])?;
    let hidden = context.map_scalar(ScalarFn::Eq, top, f64::NEG_INFINITY)?;
    let zero = context.scalar_like(top, 0.0)?;
    let top = context.builder.map(ScalarFn::Select, &[hidden, zero, top])?;
    let shifted = context.map(ScalarFn::Sub, &[x, top])?;
    let power = context.builder.map(ScalarFn::Exp, &[shifted])?;
    let sum = context.reduce_keep(Combine::Sum, power, &[axis])?;
    let empty = context.map_scalar(ScalarFn::Eq, sum, 0.0)?;
    let one = context.scalar_like(sum, 1.0)?;
    let sum = context.builder.map(ScalarFn::Select, &[empty, one, sum])?;
    context.map(ScalarFn::Div, &[power, sum])
}

/// Weights that are zero in rows whose bias hides every key.
fn without_hidden_rows(
    context: &mut Context<'_, '_, '_>,
    weights: ValueId,
    bias: ValueId,
) -> Value {
    let axis = context.rank(bias) - 1;
    let best = context.reduce_keep(Combine::Max, bias, &[axis])?;
    let hidden = context.map_scalar(ScalarFn::Eq, best, f64::NEG_INFINITY)?;
    let zero = context.scalar_like(weights, 0.0)?;
    context.map(ScalarFn::Select, &[hidden, zero, weights])
}

/// Which keys a query sees.
struct Mask {
    causal: bool,
    /// How many keys to the left; −1 for all.
    left: i64,
    /// How many keys to the right.
    right: i64,
    /// The position of the first query among the keys.
    offset: i64,
    queries: usize,
    keys: usize,
}

impl Mask {
    /// What is added to the scores, where anything is hidden.
    fn bias(
        &self,
        context: &mut Context<'_, '_, '_>,
        dtype: DType,
    ) -> Result<Option<ValueId>, ImportError> {
        let mut biases = Vec::new();
        if let Some(mask) = context.optional(3)? {
            biases.push(self.given(context, mask, dtype)?);
        }
        let valid = match context.optional(6)? {
            Some(valid) => {
                let valid = context.convert(valid, DType::I64)?;
                let count = context.ty(valid).count();
                Some(context.reshape(valid, &[count, 1, 1, 1])?)
            }
            None => None,
        };
        let shape = [1, 1, self.queries, self.keys];
        let key = context.iota(DType::I64, &shape, 3)?;
        if self.causal || self.left >= 0 || self.right >= 0 {
            let query = context.iota(DType::I64, &shape, 2)?;
            let first = match valid {
                Some(valid) => context.map_scalar(ScalarFn::Sub, valid, self.queries as f64)?,
                None => context.known(Tensor::scalar(self.offset)),
            };
            let position = context.map(ScalarFn::Add, &[query, first])?;
            let mut seen = Vec::new();
            if self.causal {
                seen.push(context.map(ScalarFn::Le, &[key, position])?);
            }
            if self.left >= 0 {
                let first = context.map_scalar(ScalarFn::Sub, position, self.left as f64)?;
                seen.push(context.map(ScalarFn::Ge, &[key, first])?);
            }
            if self.right >= 0 {
                let last = context.map_scalar(ScalarFn::Add, position, self.right as f64)?;
                seen.push(context.map(ScalarFn::Le, &[key, last])?);
            }
            for seen in seen {
                biases.push(bias_of(context, seen, dtype)?);
            }
        }
        if let Some(valid) = valid {
            let seen = context.map(ScalarFn::Lt, &[key, valid])?;
            biases.push(bias_of(context, seen, dtype)?);
        }
        let mut sum = None;
        for bias in biases {
            sum = Some(match sum {
                Some(sum) => context.map(ScalarFn::Add, &[sum, bias])?,
                None => bias,
            });
        }
        Ok(sum)
    }

    /// The mask of the input as what is added. Keys behind its end are hidden.
    fn given(&self, context: &mut Context<'_, '_, '_>, mask: ValueId, dtype: DType) -> Value {
        let shape = context.shape(mask);
        let Some(&own) = shape.last() else { return invalid("the mask has no dimension") };
        let mut mask = mask;
        if own < self.keys && own != 1 {
            let hidden = if context.dtype(mask) == DType::Bool { 0.0 } else { f64::NEG_INFINITY };
            let fill = context.scalar(context.dtype(mask), hidden);
            let low = vec![0; shape.len()];
            let mut high = low.clone();
            high[shape.len() - 1] = self.keys - own;
            mask = context.pad(mask, fill, &low, &high)?;
        }
        let rows = [self.queries, self.keys].as_slice().into();
        let wide = broadcast_shape(&[context.shape(mask), rows])?;
        let mask = context.broadcast_to(mask, &wide)?;
        if context.dtype(mask) == DType::Bool {
            return bias_of(context, mask, dtype);
        }
        context.convert(mask, dtype)
    }
}

fn rotary_embedding(context: &mut Context<'_, '_, '_>) -> Converted {
    let input = context.input(0)?;
    let (mut cos, mut sin) = (context.input(1)?, context.input(2)?);
    let original = context.shape(input);
    let x = match original.len() {
        3 => split_heads(context, input, context.int("num_heads", 0))?,
        4 => input,
        rank => return invalid(format!("3 or 4 dimensions are wanted, not {rank}")),
    };
    let shape = context.shape(x);
    let size = shape[3];
    let rotated = match usize::try_from(context.int("rotary_embedding_dim", 0)) {
        Ok(0) => size,
        Ok(part) if part <= size => part,
        Ok(_) | Err(_) => return invalid("more elements to turn than there are"),
    };
    if let Some(positions) = context.optional(3)? {
        cos = context.gather(cos, positions, 0)?;
        sin = context.gather(sin, positions, 0)?;
    }
    let half = rotated / 2;
    let part = context.slice_axis(x, 3, 0, rotated, 1)?;
    let rest = context.slice_axis(x, 3, rotated, size, 1)?;
    let interleaved = context.int("interleaved", 0) != 0;
    let (a, b) = if interleaved {
        (context.slice_axis(part, 3, 0, rotated, 2)?, context.slice_axis(part, 3, 1, rotated, 2)?)
    } else {
        (context.slice_axis(part, 3, 0, half, 1)?, context.slice_axis(part, 3, half, rotated, 1)?)
    };
    let angles = context.shape(cos);
    if angles.len() != 3 || angles[2] != half || context.shape(sin) != angles {
        return invalid(format!("sines and cosines of {half} elements are wanted"));
    }
    let cos = context.unsqueeze(cos, &[1])?;
    let sin = context.unsqueeze(sin, &[1])?;
    let product = |context: &mut Context<'_, '_, '_>, x: ValueId, y: ValueId| {
        context.map(ScalarFn::Mul, &[x, y])
    };
    let (ca, sb) = (product(context, cos, a)?, product(context, sin, b)?);
    let (sa, cb) = (product(context, sin, a)?, product(context, cos, b)?);
    let real = context.builder.map(ScalarFn::Sub, &[ca, sb])?;
    let imaginary = context.builder.map(ScalarFn::Add, &[sa, cb])?;
    let turned = if interleaved {
        let real = context.unsqueeze(real, &[4])?;
        let imaginary = context.unsqueeze(imaginary, &[4])?;
        let pairs = context.concat(&[real, imaginary], 4)?;
        let mut flat = shape.to_vec();
        flat[3] = rotated;
        context.reshape(pairs, &flat)?
    } else {
        context.concat(&[real, imaginary], 3)?
    };
    let result = if rotated == size { turned } else { context.concat(&[turned, rest], 3)? };
    let result = if original.len() == 3 { join_heads(context, result)? } else { result };
    Ok(vec![result])
}

/// A recurrence over the sequence: a matrix of state for each head, which decays, is written and is read.
fn linear_attention(context: &mut Context<'_, '_, '_>) -> Converted {
    let dtype = {
        let q = context.input(0)?;
        context.dtype(q)
    };
    let (q_heads, heads) = (context.int("q_num_heads", 0), context.int("kv_num_heads", 0));
    let mut wide = Vec::new();
    for (index, heads) in [(0, q_heads), (1, heads), (2, heads)] {
        let x = context.input(index)?;
        let x = split_heads(context, x, heads)?;
        wide.push(context.convert(x, DType::F32)?);
    }
    let (q, k, v) = (wide[0], wide[1], wide[2]);
    let [batch, count] = [context.shape(q)[0], context.shape(q)[2]];
    let (depth, width) = (context.shape(q)[3], context.shape(v)[3]);
    let groups = context.shape(k)[1];
    let times = context.shape(q)[1].checked_div(groups).unwrap_or(1);
    // A number for each head, or for each element of a key.
    let gate =
        |context: &mut Context<'_, '_, '_>, index: usize| -> Result<Option<ValueId>, ImportError> {
            let Some(x) = context.optional(index)? else { return Ok(None) };
            let last = context.shape(x).last().copied().unwrap_or(0);
            let parts = if last == 1 { 1 } else { heads };
            let x = split_heads(context, x, parts)?;
            Ok(Some(context.convert(x, DType::F32)?))
        };
    let (decay, beta) = (gate(context, 4)?, gate(context, 5)?);
    let state_type = TensorType::new(DType::F32, &[batch, groups, depth, width]);
    let (state, state_dtype) = match context.optional(3)? {
        Some(state) => (context.convert(state, DType::F32)?, context.dtype(state)),
        None => {
            let zero = context.scalar(DType::F32, 0.0);
            (context.broadcast_to(zero, &state_type.shape)?, dtype)
        }
    };
    let scale = match f64::from(context.float("scale", 0.0)) {
        0.0 => 1.0 / libm::sqrt(depth as f64),
        scale => scale,
    };
    let number = context.param(TensorType::new(DType::I64, &[]));
    let before = context.param(state_type);
    let mut block = Block { params: vec![number, before], ..Block::default() };
    let (after, output) = context.extend(&mut block, |context| {
        let at = |context: &mut Context<'_, '_, '_>, x: ValueId| -> Value {
            let zero = context.known(Tensor::scalar(0i64));
            let mut sizes = context.shape(x).to_vec();
            sizes[2] = 1;
            let shape = [sizes[0], sizes[1], sizes[3]];
            let part =
                context.builder.add(op::DynamicSlice { sizes }, &[x, zero, zero, number, zero])?;
            context.reshape(part, &shape)
        };
        let mut state = before;
        if let Some(decay) = decay {
            let decay = at(context, decay)?;
            let factor = context.builder.map(ScalarFn::Exp, &[decay])?;
            let factor = context.unsqueeze(factor, &[3])?;
            state = context.map(ScalarFn::Mul, &[state, factor])?;
        }
        let (key, mut value, query) = (at(context, k)?, at(context, v)?, at(context, q)?);
        if let Some(beta) = beta {
            let beta = at(context, beta)?;
            let found = context.contract(state, key, &[(0, 0), (1, 1)], &[(2, 2)], DType::F32)?;
            let missing = context.builder.map(ScalarFn::Sub, &[value, found])?;
            value = context.map(ScalarFn::Mul, &[beta, missing])?;
        }
        let key = context.unsqueeze(key, &[3])?;
        let value = context.unsqueeze(value, &[2])?;
        let change = context.map(ScalarFn::Mul, &[key, value])?;
        let state = context.builder.map(ScalarFn::Add, &[state, change])?;
        let read = repeat_heads(context, state, times)?;
        let output = context.contract(query, read, &[(0, 0), (1, 1)], &[(2, 2)], DType::F32)?;
        Ok((state, context.map_scalar(ScalarFn::Mul, output, scale)?))
    })?;
    block.results.push(after);
    let mut operands = vec![state];
    let place = super::control::Place { number, axis: 2, count };
    super::control::stack(context, &mut block, &mut operands, output, place)?;
    let results = context.builder.add_many(op::For { count }, &operands, vec![block])?;
    let output = join_heads(context, results[1])?;
    Ok(vec![context.convert(output, dtype)?, context.convert(results[0], state_dtype)?])
}

/// A convolution of every channel with its own taps, over the past and the input.
fn causal_convolution(context: &mut Context<'_, '_, '_>) -> Converted {
    let (x, weight) = (context.input(0)?, context.input(1)?);
    let (shape, taps) = (context.shape(x), context.shape(weight));
    if shape.len() != 3 || taps.len() != 3 || taps[0] != shape[1] || taps[2] == 0 {
        return invalid("3 dimensions, and taps for every channel, are wanted");
    }
    let dtype = context.dtype(x);
    let (length, count) = (shape[2], taps[2]);
    let padded = match context.optional(3)? {
        Some(past) => context.concat(&[past, x], 2)?,
        None => {
            let zero = context.scalar(dtype, 0.0);
            context.pad(x, zero, &[0, 0, count - 1], &[0, 0, 0])?
        }
    };
    let wide = context.convert(padded, super::context::widen(dtype))?;
    let weight = context.convert(weight, super::context::widen(dtype))?;
    let weight = context.reshape(weight, &[1, taps[0], count])?;
    let mut sum: Option<ValueId> = None;
    for tap in 0..count {
        let part = context.slice_axis(wide, 2, tap, tap + length, 1)?;
        let factor = context.slice_axis(weight, 2, tap, tap + 1, 1)?;
        let product = context.map(ScalarFn::Mul, &[part, factor])?;
        sum = Some(match sum {
            Some(sum) => context.builder.map(ScalarFn::Add, &[sum, product])?,
            None => product,
        });
    }
    let Some(mut result) = sum else { return invalid("no taps") };
    if let Some(bias) = context.optional(2)? {
        let bias = context.convert(bias, super::context::widen(dtype))?;
        let bias = context.reshape(bias, &[1, taps[0], 1])?;
        result = context.map(ScalarFn::Add, &[result, bias])?;
    }
    result = context.convert(result, dtype)?;
    if matches!(context.string("activation", "none").as_str(), "silu" | "swish") {
        result = context.builder.add(op::Silu {}, &[result])?;
    }
    let total = context.shape(padded)[2];
    let state = context.slice_axis(padded, 2, total - (count - 1), total, 1)?;
    Ok(vec![result, state])
}

fn swiglu(context: &mut Context<'_, '_, '_>) -> Converted {
    let (a, b) = (context.input(0)?, context.input(1)?);
    let alpha = f64::from(context.float("alpha", 1.0));
    let scaled = context.map_scalar(ScalarFn::Mul, a, alpha)?;
    let gate = context.builder.map(ScalarFn::Sigmoid, &[scaled])?;
    let gated = context.builder.map(ScalarFn::Mul, &[a, gate])?;
    Ok(vec![context.builder.map(ScalarFn::Mul, &[gated, b])?])
}
