//! Operators that make features of what is counted or compared.

use super::context::{Converted, NodeContext, invalid, unsupported};
use super::table::{Row, row};
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::DType;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[row("TfIdfVectorizer", 9, tf_idf)];

/// Those of domain ai.onnx.ml.
pub(super) const ML: &[Row] = &[row("Binarizer", 1, binarizer)];

fn binarizer(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let threshold = f64::from(context.float("threshold", 0.0));
    let is_above = context.map_scalar(ScalarFn::Gt, x, threshold)?;
    let dtype = context.dtype(x);
    Ok(vec![context.convert(is_above, dtype)?])
}

/// How often each listed sequence of integers occurs in each row, with up to `max_skip_count` elements left out between
/// neighbours, and perhaps weighted.
fn tf_idf(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    if context.strings("pool_strings").is_some_and(|pool| !pool.is_empty()) {
        return unsupported("strings");
    }
    let x = context.input(0)?;
    let (shape, batch) = (context.shape(x).to_vec(), context.rank(x) == 2);
    let (rows, length) = match shape[..] {
        [] => (1, 1),
        [length] => (1, length),
        [rows, length] => (rows, length),
        _ => return invalid("rows of integers are wanted"),
    };
    let x = context.convert(x, DType::I64)?;
    let x = context.reshape(x, &[rows, length])?;
    let pool = context.ints("pool_int64s").unwrap_or_default();
    let starts = context.ints("ngram_counts").unwrap_or_default();
    let columns = context.ints("ngram_indexes").unwrap_or_default();
    let bound = |name: &str| usize::try_from(context.int(name, 0)).unwrap_or(usize::MAX);
    let (shortest, longest, skips) =
        (bound("min_gram_length"), bound("max_gram_length"), bound("max_skip_count"));
    let width = columns.iter().copied().max().unwrap_or(-1).saturating_add(1);
    let Some(width) = usize::try_from(width).ok().filter(|&width| width <= 1 << 24) else {
        return invalid("ngram_indexes are not positions");
    };
    if columns.iter().any(|&column| column < 0) || skips > 1 << 16 {
        return invalid("ngram_indexes are not positions, or too much is skipped");
    }
    let zero = context.scalar(DType::F32, 0.0);
    let mut counts = context.broadcast_to(zero, &[width, rows])?;
    let mut next = 0;
    for (index, &start) in starts.iter().enumerate() {
        let size = index + 1;
        let end = starts.get(index + 1).copied().unwrap_or(pool.len() as i64);
        let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
        let Some(grams) = range.and_then(|(start, end)| pool.get(start..end)) else {
            return invalid("ngram_counts leave the pool");
        };
        let grams = &grams[..grams.len() / size * size];
        let count = grams.len() / size;
        let Some(places) = columns.get(next..next + count) else {
            return invalid("ngram_indexes has too few elements");
        };
        next += count;
        if count == 0 || !(shortest..=longest).contains(&size) {
            continue;
        }
        let places = context.known_ints(places);
        // What has one element is not changed by what is left out between elements.
        let most = if size == 1 { 0 } else { skips };
        for skip in 0..=most {
            let reach = (size - 1).saturating_mul(skip + 1);
            let Some(positions) = length.checked_sub(reach).filter(|&left| left > 0) else { break };
            let mut found = None;
            for element in 0..size {
                let from = element * (skip + 1);
                let part = context.slice_axis(x, 1, from, from + positions, 1)?;
                let part = context.unsqueeze(part, &[0])?;
                let wanted: Vec<i64> = grams.iter().skip(element).step_by(size).copied().collect();
                let wanted = context.known(Tensor::from_slice(&[count, 1, 1], &wanted));
                let same = context.map(ScalarFn::Eq, &[part, wanted])?;
                found = Some(match found {
                    None => same,
                    Some(found) => context.map(ScalarFn::And, &[found, same])?,
                });
            }
            let found = found.expect("a sequence has an element");
            let found = context.convert(found, DType::F32)?;
            let found = context.reduce(Combine::Sum, found, &[2])?;
            let scatter = op::Scatter { axis: 0, combine: Some(Combine::Sum) };
            counts = context.builder.add(scatter, &[counts, places, found])?;
        }
    }
    let weights = context.floats("weights").filter(|weights| !weights.is_empty());
    let mode = context.string("mode", "");
    let factor = match weights {
        None => None,
        Some(weights) if weights.len() == columns.len() => {
            // The weight of a sequence is that of its column.
            let mut ordered = vec![0.0; width];
            columns
                .iter()
                .zip(&weights)
                .for_each(|(&column, &weight)| ordered[column as usize] = f64::from(weight));
            let ordered = Tensor::from_values(DType::F32, &[width, 1], &Values::F64(ordered));
            Some(context.known(ordered))
        }
        Some(_) => return invalid("there is a weight for each sequence"),
    };
    if mode == "IDF" {
        let none = context.scalar_like(counts, 0.0)?;
        let is_there = context.map(ScalarFn::Gt, &[counts, none])?;
        counts = context.convert(is_there, DType::F32)?;
    }
    if let Some(factor) = factor.filter(|_| mode != "TF") {
        counts = context.map(ScalarFn::Mul, &[counts, factor])?;
    }
    let result = context.transpose(counts, &[1, 0])?;
    Ok(vec![if batch { result } else { context.reshape(result, &[width])? }])
}
