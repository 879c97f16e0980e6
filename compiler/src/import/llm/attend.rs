//! Who sees whom: masks of causal and sliding windows, and attention with learned sinks.

use super::model::{everywhere, reshaped};
use crate::graph::{Builder, ValueId};
use crate::kernel::Combine;
use crate::op::{Attention, Broadcast, Contract, Convert, Iota, Reduce, TypeError};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};
use std::collections::BTreeMap;

/// The masks of a model: one for each size of window, made when first asked for.
#[derive(Debug)]
pub(super) struct Masks {
    positions: ValueId,
    keys: usize,
    made: BTreeMap<Option<usize>, ValueId>,
}

impl Masks {
    /// Masks of queries at those positions (`i64[tokens]`) over that many keys.
    pub(super) fn new(positions: ValueId, keys: usize) -> Masks {
        Masks { positions, keys, made: BTreeMap::new() }
    }

    /// The window, where it hides anything.
    fn effective(&self, window: Option<usize>) -> Option<usize> {
        window.filter(|&window| window < self.keys)
    }

    /// `bool[1, 1, tokens, keys]`: whether a query sees a key.
    fn get(
        &mut self,
        builder: &mut Builder<'_>,
        window: Option<usize>,
    ) -> Result<ValueId, TypeError> {
        if let Some(&mask) = self.made.get(&window) {
            return Ok(mask);
        }
        let tokens = builder.ty(self.positions).shape[0];
        let shape = vec![1, 1, tokens, self.keys];
        let query = Broadcast { shape: shape.clone(), dims: vec![2] };
        let query = builder.add(query, &[self.positions])?;
        let key = Iota { ty: TensorType::new(DType::I64, &shape), axis: 3 };
        let key = builder.add(key, &[])?;
        let mut seen = builder.map(ScalarFn::Le, &[key, query])?;
        if let Some(window) = window {
            let window = everywhere(builder, key, window as f64)?;
            let end = builder.map(ScalarFn::Add, &[key, window])?;
            let near = builder.map(ScalarFn::Gt, &[end, query])?;
            seen = builder.map(ScalarFn::And, &[seen, near])?;
        }
        self.made.insert(window, seen);
        Ok(seen)
    }
}

/// Attention of queries `[batch, heads, tokens, size]` to keys and values `[batch, groups, keys, size]`. `whole` says
/// that the keys are those of the queries themselves.
pub(super) fn attend(
    builder: &mut Builder<'_>,
    [q, k, v]: [ValueId; 3],
    sinks: Option<ValueId>,
    masks: &mut Masks,
    window: Option<usize>,
    whole: bool,
) -> Result<ValueId, TypeError> {
    let size = builder.ty(q).shape[3];
    let scale = 1.0 / libm::sqrt(size as f64);
    let window = masks.effective(window);
    if let Some(sinks) = sinks {
        let mask = masks.get(builder, window)?;
        return with_sinks(builder, [q, k, v], sinks, mask, scale);
    }
    if whole && window.is_none() {
        return builder.add(Attention { scale, causal: true }, &[q, k, v]);
    }
    let mask = masks.get(builder, window)?;
    builder.add(Attention { scale, causal: false }, &[q, k, v, mask])
}

/// Softmax over the scores and one more for each head, whose value is zero.
fn with_sinks(
    builder: &mut Builder<'_>,
    [q, k, v]: [ValueId; 3],
    sinks: ValueId,
    mask: ValueId,
    scale: f64,
) -> Result<ValueId, TypeError> {
    let shape = builder.shape(q).to_vec();
    let (dtype, accumulate) = (builder.ty(q).dtype, builder.ty(q).dtype.accumulator());
    let [batch, heads, tokens, size] = [shape[0], shape[1], shape[2], shape[3]];
    let (groups, keys) = (builder.ty(k).shape[1], builder.ty(k).shape[2]);
    let grouped = reshaped(builder, q, &[batch, groups, heads / groups, tokens, size])?;
    let pairs = vec![vec![0, 0], vec![1, 1]];
    let over = vec![vec![4, 3]];
    let score = Contract { batch: pairs.clone(), over, accumulate, dtype: accumulate };
    let score = builder.add(score, &[grouped, k])?;
    let all = [batch, heads, tokens, keys];
    let score = reshaped(builder, score, &all)?;
    let factor = everywhere(builder, score, scale)?;
    let score = builder.map(ScalarFn::Mul, &[score, factor])?;
    let mask = builder.add(Broadcast { shape: all.to_vec(), dims: vec![0, 1, 2, 3] }, &[mask])?;
    let lowest = everywhere(builder, score, f64::from(f32::MIN))?;
    let score = builder.map(ScalarFn::Select, &[mask, score, lowest])?;
    let top = Reduce { combine: Combine::Max, axes: vec![3], accumulate };
    let top = builder.add(top, &[score])?;
    let sinks = builder.add(Convert { dtype: accumulate }, &[sinks])?;
    let rows = vec![batch, heads, tokens];
    let sinks = builder.add(Broadcast { shape: rows, dims: vec![1] }, &[sinks])?;
    let top = builder.map(ScalarFn::Max, &[top, sinks])?;
    let spread = Broadcast { shape: all.to_vec(), dims: vec![0, 1, 2] };
    let above = builder.add(spread.clone(), &[top])?;
    let score = builder.map(ScalarFn::Sub, &[score, above])?;
    let power = builder.map(ScalarFn::Exp, &[score])?;
    let sum = Reduce { combine: Combine::Sum, axes: vec![3], accumulate };
    let sum = builder.add(sum, &[power])?;
    let sinks = builder.map(ScalarFn::Sub, &[sinks, top])?;
    let sinks = builder.map(ScalarFn::Exp, &[sinks])?;
    let sum = builder.map(ScalarFn::Add, &[sum, sinks])?;
    let sum = builder.add(spread, &[sum])?;
    let weight = builder.map(ScalarFn::Div, &[power, sum])?;
    let weight = builder.add(Convert { dtype }, &[weight])?;
    let weight = reshaped(builder, weight, &[batch, groups, heads / groups, tokens, keys])?;
    let sum = Contract { batch: pairs, over: vec![vec![4, 2]], accumulate, dtype };
    let sum = builder.add(sum, &[weight, v])?;
    reshaped(builder, sum, &[batch, heads, tokens, size])
}
