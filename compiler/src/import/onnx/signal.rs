//! Fourier transforms as products with constant matrices, and the windows and filters that go with them.

use super::context::{Converted, ImportError, NodeContext, invalid, unsupported};
use super::elementwise::cast_to;
use super::table::{Row, row};
use crate::graph::ValueId;
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::DType;
use std::f64::consts::PI;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("DFT", 1, dft),
    row("STFT", 1, stft),
    row("HannWindow", 1, |c| window(c, [0.5, 0.5, 0.0])),
    row("HammingWindow", 1, |c| window(c, [25.0 / 46.0, 21.0 / 46.0, 0.0])),
    row("BlackmanWindow", 1, |c| window(c, [0.42, 0.5, 0.08])),
    row("MelWeightMatrix", 1, mel_weight_matrix),
];

/// The longest transform: its matrix has the square of that many elements.
const MAX_LENGTH: usize = 1 << 13;

type Context<'a, 'f, 'm> = NodeContext<'a, 'f, 'm>;

/// What a transform does.
#[derive(Clone, Copy)]
struct Transform {
    axis: usize,
    /// The number of samples in time.
    length: usize,
    inverse: bool,
    /// Whether only the frequencies of real signals are given, or taken.
    onesided: bool,
}

fn dft(context: &mut Context<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let rank = context.rank(x);
    let axis = match context.optional_constant(2)? {
        Some(axis) if context.opset >= 20 => axis.to_i64().first().copied().unwrap_or(-2),
        Some(_) | None if context.opset >= 20 => -2,
        Some(_) | None => context.int("axis", 1),
    };
    let axis = context.axis(axis, rank)?;
    let (inverse, onesided) = (context.int("inverse", 0) != 0, context.int("onesided", 0) != 0);
    let size = context.shape(x)[axis];
    let length = match context.optional_constant(1)? {
        Some(length) => usize::try_from(length.to_i64().first().copied().unwrap_or(0)).unwrap_or(0),
        None if inverse && onesided => 2 * size.saturating_sub(1),
        None => size,
    };
    Ok(vec![transformed(context, x, Transform { axis, length, inverse, onesided })?])
}

/// The transform of `x`, whose last dimension holds real and perhaps imaginary parts.
fn transformed(
    context: &mut Context<'_, '_, '_>,
    x: ValueId,
    transform: Transform,
) -> Result<ValueId, ImportError> {
    let Transform { axis, length, inverse, onesided } = transform;
    let shape = context.shape(x);
    let last = shape.len() - 1;
    if axis == last || !matches!(shape[last], 1 | 2) {
        return invalid("the last dimension holds real and imaginary parts");
    }
    if length == 0 || length > MAX_LENGTH {
        return unsupported(format!(
            "a transform of {length} samples; the longest is {MAX_LENGTH}"
        ));
    }
    let half = length / 2 + 1;
    let (wanted, results) = match (inverse, onesided) {
        (false, false) | (true, false) => (length, length),
        (false, true) => (length, half),
        (true, true) => (half, length),
    };
    // Samples beyond the end are zero, and add nothing.
    let taken = wanted.min(shape[axis]);
    let x = context.slice_axis(x, axis, 0, taken, 1)?;
    let (mut cosines, mut sines) = (Vec::new(), Vec::new());
    for sample in 0..taken {
        // Frequencies of real signals that are not there twice stand for their mirror images, too.
        let twice = inverse && onesided && sample != 0 && 2 * sample != length;
        let factor =
            if inverse { 1.0 / length as f64 } else { 1.0 } * if twice { 2.0 } else { 1.0 };
        for result in 0..results {
            let angle = 2.0 * PI * ((sample * result) % length) as f64 / length as f64;
            cosines.push(factor * libm::cos(angle));
            sines.push(factor * if inverse { -libm::sin(angle) } else { libm::sin(angle) });
        }
    }
    let dtype = context.dtype(x);
    let matrix = |context: &mut Context<'_, '_, '_>, values: Vec<f64>| {
        context.known(Tensor::from_values(dtype, &[taken, results], &Values::F64(values)))
    };
    let (cosines, sines) = (matrix(context, cosines), matrix(context, sines));
    let part = |context: &mut Context<'_, '_, '_>, index: usize| {
        let mut flat = context.shape(x).to_vec();
        flat.pop();
        let part = context.slice_axis(x, last, index, index + 1, 1)?;
        context.reshape(part, &flat)
    };
    let over = [(axis, 0)];
    let real = part(context, 0)?;
    let (mut low, mut high) = (
        context.contract(real, cosines, &[], &over, dtype)?,
        context.contract(real, sines, &[], &over, dtype)?,
    );
    high = context.builder.map(ScalarFn::Neg, &[high])?;
    if shape[last] == 2 {
        let imaginary = part(context, 1)?;
        let with_sines = context.contract(imaginary, sines, &[], &over, dtype)?;
        let with_cosines = context.contract(imaginary, cosines, &[], &over, dtype)?;
        low = context.builder.map(ScalarFn::Add, &[low, with_sines])?;
        high = context.builder.map(ScalarFn::Add, &[high, with_cosines])?;
    }
    // The product puts the new dimension last.
    let mut perm: Vec<usize> = (0..last - 1).collect();
    perm.insert(axis, last - 1);
    let low = context.transpose(low, &perm)?;
    let low = context.unsqueeze(low, &[last])?;
    if inverse && onesided {
        return Ok(low);
    }
    let high = context.transpose(high, &perm)?;
    let high = context.unsqueeze(high, &[last])?;
    context.concat(&[low, high], last)
}

fn stft(context: &mut Context<'_, '_, '_>) -> Converted {
    let mut x = context.input(0)?;
    let scalar =
        |context: &Context<'_, '_, '_>, index: usize| -> Result<Option<usize>, ImportError> {
            let tensor = context.optional_constant(index)?;
            Ok(tensor.map(|tensor| {
                usize::try_from(tensor.to_i64().first().copied().unwrap_or(0)).unwrap_or(0)
            }))
        };
    let step = scalar(context, 1)?.unwrap_or(0);
    let window = context.optional(2)?;
    if context.rank(x) == 2 {
        x = context.unsqueeze(x, &[2])?;
    }
    let shape = context.shape(x);
    let length = match (scalar(context, 3)?, window) {
        (Some(length), _) => length,
        (None, Some(window)) => context.ty(window).count(),
        (None, None) => shape[1],
    };
    if shape.len() != 3 || step == 0 || length == 0 || length > shape[1] {
        return invalid(format!("frames of {length} samples, {step} apart"));
    }
    let frames = 1 + (shape[1] - length) / step;
    if frames.checked_mul(length).is_none_or(|count| count > 1 << 24) {
        return unsupported(format!("{frames} frames of {length} samples"));
    }
    let places: Vec<i64> = (0..frames)
        .flat_map(|frame| (0..length).map(move |sample| (frame * step + sample) as i64))
        .collect();
    let places = context.known(Tensor::from_slice(&[frames, length], &places));
    let mut framed = context.gather(x, places, 1)?;
    if let Some(window) = window {
        let window = context.reshape(window, &[length, 1])?;
        framed = context.map(ScalarFn::Mul, &[framed, window])?;
    }
    let onesided = context.int("onesided", 1) != 0;
    let transform = Transform { axis: 2, length, inverse: false, onesided };
    Ok(vec![transformed(context, framed, transform)?])
}

/// The type that an attribute names, f32 where there is none.
fn output_type(context: &Context<'_, '_, '_>) -> Result<DType, ImportError> {
    Ok(context.dtype_attribute("output_datatype")?.unwrap_or(DType::F32))
}

/// a₀ − a₁ cos(2πn/N) + a₂ cos(4πn/N).
fn window(context: &mut Context<'_, '_, '_>, [a0, a1, a2]: [f64; 3]) -> Converted {
    let size =
        usize::try_from(context.constant_ints(0)?.first().copied().unwrap_or(0)).unwrap_or(0);
    if size > 1 << 24 {
        return unsupported(format!("a window of {size} samples"));
    }
    let period = if context.int("periodic", 1) != 0 { size } else { size.saturating_sub(1) };
    let values = (0..size).map(|sample| {
        let angle = 2.0 * PI * sample as f64 / period.max(1) as f64;
        a0 - a1 * libm::cos(angle) + a2 * libm::cos(2.0 * angle)
    });
    let window = Tensor::from_values(DType::F64, &[size], &Values::F64(values.collect()));
    let window = context.known(window);
    let dtype = output_type(context)?;
    Ok(vec![cast_to(context, window, dtype, true)?])
}

fn mel_weight_matrix(context: &mut Context<'_, '_, '_>) -> Converted {
    let number = |context: &Context<'_, '_, '_>, index: usize| -> Result<f64, ImportError> {
        Ok(context.constant(index)?.values().to_f64().first().copied().unwrap_or(0.0))
    };
    let (bins, length, rate) = (number(context, 0)?, number(context, 1)?, number(context, 2)?);
    let (low, high) = (number(context, 3)?, number(context, 4)?);
    let (filters, rows) = (bins.max(0.0) as usize, (length.max(0.0) as usize) / 2 + 1);
    if filters.checked_mul(rows).is_none_or(|count| count > 1 << 24) {
        return unsupported(format!("a matrix of {rows} times {filters}"));
    }
    let mel = |hertz: f64| 2595.0 * libm::log1p(hertz / 700.0) / std::f64::consts::LN_10;
    let step = (mel(high) - mel(low)) / (bins + 2.0);
    let edges: Vec<usize> = (0..filters + 2)
        .map(|edge| {
            let mel = edge as f64 * step + mel(low);
            let hertz = 700.0 * libm::expm1(mel / 2595.0 * std::f64::consts::LN_10);
            (libm::floor((length + 1.0) * hertz / rate).max(0.0) as usize).min(rows - 1)
        })
        .collect();
    let mut weights = vec![0.0; rows * filters];
    for filter in 0..filters {
        let (left, centre, right) = (edges[filter], edges[filter + 1], edges[filter + 2]);
        if left == centre {
            weights[centre * filters + filter] = 1.0;
        }
        for row in left..=centre {
            if centre > left {
                weights[row * filters + filter] = (row - left) as f64 / (centre - left) as f64;
            }
        }
        for row in centre..right {
            weights[row * filters + filter] = (right - row) as f64 / (right - centre) as f64;
        }
    }
    let matrix = Tensor::from_values(DType::F64, &[rows, filters], &Values::F64(weights));
    let matrix = context.known(matrix);
    let dtype = output_type(context)?;
    Ok(vec![cast_to(context, matrix, dtype, true)?])
}
