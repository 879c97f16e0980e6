//! Operators of domain com.microsoft that optimizers put in the place of standard ones.

use super::context::{Converted, NodeContext, invalid, unsupported, widen};
use super::table::{Row, row};
use crate::op;
use crate::scalar::ScalarFn;
use crate::types::DType;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("SkipLayerNormalization", 1, |c| skip_norm(c, Norm::Layer)),
    row("SkipSimplifiedLayerNormalization", 1, |c| skip_norm(c, Norm::Rms)),
    row("SimplifiedLayerNormalization", 1, simplified_norm),
    row("MatMulNBits", 1, matmul_n_bits),
];

/// Optimizers leave this one in the standard domain, too.
pub(super) const STANDARD: &[Row] = &[row("SimplifiedLayerNormalization", 1, simplified_norm)];

/// What is taken off before the division.
#[derive(Clone, Copy)]
enum Norm {
    /// The mean.
    Layer,
    /// Nothing.
    Rms,
}

fn skip_norm(context: &mut NodeContext<'_, '_, '_>, norm: Norm) -> Converted {
    if context.has_output(1) || context.has_output(2) {
        return unsupported("mean and deviation as outputs");
    }
    let (x, skip) = (context.input(0)?, context.input(1)?);
    let scale = context.input(2)?;
    let mut sum = context.map(ScalarFn::Add, &[x, skip])?;
    let (beta, bias) = match norm {
        Norm::Layer => (context.optional(3)?, context.optional(4)?),
        Norm::Rms => (None, context.optional(3)?),
    };
    if let Some(bias) = bias {
        sum = context.map(ScalarFn::Add, &[sum, bias])?;
    }
    let Some(axis) = context.rank(sum).checked_sub(1) else { return invalid("a scalar") };
    let epsilon = f64::from(context.float("epsilon", 1e-12));
    let mut operands = vec![sum, scale];
    operands.extend(beta);
    let result = match norm {
        Norm::Layer => context.builder.add(op::LayerNorm { axis, epsilon }, &operands)?,
        Norm::Rms => context.builder.add(op::RmsNorm { axis, epsilon }, &operands)?,
    };
    Ok(vec![result, result, result, sum])
}

fn simplified_norm(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    if context.has_output(1) {
        return unsupported("the deviation as an output");
    }
    let (x, scale) = (context.input(0)?, context.input(1)?);
    let axis = context.axis(context.int("axis", -1), context.rank(x))?;
    let epsilon = f64::from(context.float("epsilon", 1e-5));
    Ok(vec![context.builder.add(op::RmsNorm { axis, epsilon }, &[x, scale])?])
}

/// A product with a weight of 4 or 8 bits in blocks along its inner dimension, each with a scale and a zero.
fn matmul_n_bits(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let size = |context: &NodeContext<'_, '_, '_>, name: &str| {
        usize::try_from(context.int(name, 0)).unwrap_or(0)
    };
    let (inner, columns) = (size(context, "K"), size(context, "N"));
    let (bits, block) = (context.int("bits", 4), size(context, "block_size"));
    if context.has_input(4) {
        return unsupported("groups in another order (g_idx)");
    }
    if !matches!(bits, 4 | 8) || block == 0 || block % 2 != 0 || inner == 0 || columns == 0 {
        return unsupported(format!("{bits} bits in blocks of {block}"));
    }
    let (x, packed) = (context.input(0)?, context.input(1)?);
    let wide = widen(context.dtype(x));
    let blocks = inner.div_ceil(block);
    let codes = unpacked(context, packed, bits, columns * blocks, block)?;
    let scales = context.input(2)?;
    let scales = context.convert(scales, wide)?;
    let scales = context.reshape(scales, &[columns * blocks, 1])?;
    let codes = context.convert(codes, wide)?;
    let centred = match context.optional(3)? {
        Some(zeros) => {
            let zeros = match (context.dtype(zeros), bits) {
                // The zeros of a column are packed as its elements are, and end at a whole byte.
                (DType::U8, 4) => {
                    let bytes = blocks.div_ceil(2);
                    let zeros = unpacked(context, zeros, bits, columns, 2 * bytes)?;
                    context.slice_axis(zeros, 1, 0, blocks, 1)?
                }
                (_, _) => zeros,
            };
            let zeros = context.reshape(zeros, &[columns * blocks, 1])?;
            let zeros = context.convert(zeros, wide)?;
            context.map(ScalarFn::Sub, &[codes, zeros])?
        }
        None => {
            let middle = if bits == 4 { 8.0 } else { 128.0 };
            context.map_scalar(ScalarFn::Sub, codes, middle)?
        }
    };
    let weight = context.map(ScalarFn::Mul, &[centred, scales])?;
    let weight = context.reshape(weight, &[columns, blocks * block])?;
    let weight = context.slice_axis(weight, 1, 0, inner, 1)?;
    let dtype = context.dtype(x);
    let last = context.rank(x).saturating_sub(1);
    let x = context.convert(x, wide)?;
    let mut product = context.contract(x, weight, &[], &[(last, 1)], wide)?;
    if let Some(bias) = context.optional(5)? {
        let bias = context.convert(bias, wide)?;
        product = context.map(ScalarFn::Add, &[product, bias])?;
    }
    Ok(vec![context.convert(product, dtype)?])
}

/// `rows` of `width` codes, of which two may share a byte, the first in its lower half.
fn unpacked(
    context: &mut NodeContext<'_, '_, '_>,
    packed: crate::graph::ValueId,
    bits: i64,
    rows: usize,
    width: usize,
) -> Result<crate::graph::ValueId, super::context::ImportError> {
    if bits == 8 {
        return context.reshape(packed, &[rows, width]);
    }
    let packed = context.reshape(packed, &[rows, width / 2, 1])?;
    let low = context.map_scalar(ScalarFn::And, packed, 15.0)?;
    let high = context.map_scalar(ScalarFn::Shr, packed, 4.0)?;
    let pairs = context.concat(&[low, high], 2)?;
    context.reshape(pairs, &[rows, width])
}
