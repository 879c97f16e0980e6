//! Rotary positions: frequencies by the configuration's scaling, and the rotation of heads.

use super::config::{Rope, Scaling};
use super::model::everywhere;
use crate::graph::{Builder, ValueId};
use crate::op::{Broadcast, Concat, Convert, Slice, TypeError};
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::DType;

/// Cosines and sines, `[tokens, head_size / 2]`, in f32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotations {
    cosines: ValueId,
    sines: ValueId,
}

/// The rotations at those positions (`i64[tokens]`).
pub(super) fn tables(
    builder: &mut Builder<'_>,
    rope: &Rope,
    head_size: usize,
    positions: ValueId,
) -> Result<Rotations, TypeError> {
    let (frequencies, factor) = frequencies(rope, head_size);
    let frequencies: Vec<f32> = frequencies.iter().map(|&frequency| frequency as f32).collect();
    let tokens = builder.ty(positions).shape[0];
    let shape = vec![tokens, frequencies.len()];
    let frequencies = builder.constant(Tensor::from_slice(&[frequencies.len()], &frequencies));
    let frequencies =
        builder.add(Broadcast { shape: shape.clone(), dims: vec![1] }, &[frequencies])?;
    let positions = builder.add(Convert { dtype: DType::F32 }, &[positions])?;
    let positions = builder.add(Broadcast { shape, dims: vec![0] }, &[positions])?;
    let angle = builder.map(ScalarFn::Mul, &[positions, frequencies])?;
    let mut scaled = |function: ScalarFn| {
        let value = builder.map(function, &[angle])?;
        if factor == 1.0 {
            return Ok(value);
        }
        let factor = everywhere(builder, value, factor)?;
        builder.map(ScalarFn::Mul, &[value, factor])
    };
    Ok(Rotations { cosines: scaled(ScalarFn::Cos)?, sines: scaled(ScalarFn::Sin)? })
}

/// Heads `[batch, heads, tokens, head_size]` rotated: the first half of a head with the second.
pub(super) fn rotate(
    builder: &mut Builder<'_>,
    x: ValueId,
    rotations: Rotations,
) -> Result<ValueId, TypeError> {
    let ty = builder.ty(x).clone();
    let wide = builder.add(Convert { dtype: DType::F32 }, &[x])?;
    let shape = ty.shape.to_vec();
    let half = shape[3] / 2;
    let part = |builder: &mut Builder<'_>, from: usize| {
        let (mut start, mut limit) = (vec![0; 4], shape.clone());
        start[3] = from;
        limit[3] = from + half;
        builder.add(Slice { start, limit, stride: vec![1; 4] }, &[wide])
    };
    let (first, second) = (part(builder, 0)?, part(builder, half)?);
    let spread = vec![shape[0], shape[1], shape[2], half];
    let table = |builder: &mut Builder<'_>, x: ValueId| {
        builder.add(Broadcast { shape: spread.clone(), dims: vec![2, 3] }, &[x])
    };
    let (cosines, sines) = (table(builder, rotations.cosines)?, table(builder, rotations.sines)?);
    let a = builder.map(ScalarFn::Mul, &[first, cosines])?;
    let b = builder.map(ScalarFn::Mul, &[second, sines])?;
    let low = builder.map(ScalarFn::Sub, &[a, b])?;
    let a = builder.map(ScalarFn::Mul, &[second, cosines])?;
    let b = builder.map(ScalarFn::Mul, &[first, sines])?;
    let high = builder.map(ScalarFn::Add, &[a, b])?;
    let rotated = builder.add(Concat { axis: 3 }, &[low, high])?;
    builder.add(Convert { dtype: ty.dtype }, &[rotated])
}

/// The angle per position of each pair of elements, and what cosines and sines are multiplied with.
pub(super) fn frequencies(rope: &Rope, head_size: usize) -> (Vec<f64>, f64) {
    let half = head_size / 2;
    let size = head_size as f64;
    let plain: Vec<f64> =
        (0..half).map(|i| libm::pow(rope.theta, -(2.0 * i as f64) / size)).collect();
    let turn = 2.0 * std::f64::consts::PI;
    match rope.scaling {
        Scaling::Absent => (plain, 1.0),
        Scaling::Linear { factor } => (plain.iter().map(|f| f / factor).collect(), 1.0),
        Scaling::Llama3 { factor, low, high, original } => {
            let scaled = plain.iter().map(|&f| {
                let wavelength = turn / f;
                let share = ((original / wavelength - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - share) * f / factor + share * f
            });
            (scaled.collect(), 1.0)
        }
        Scaling::Yarn { factor, fast, slow, original, truncate } => {
            // The pair that rotates so many times within the original length.
            let pair = |rotations: f64| {
                size * libm::log(original / (rotations * turn)) / (2.0 * libm::log(rope.theta))
            };
            let (mut low, mut high) = (pair(fast), pair(slow));
            if truncate {
                (low, high) = (libm::floor(low), libm::ceil(high));
            }
            let (low, mut high) = (low.max(0.0), high.min(size - 1.0));
            if low == high {
                high += 0.001;
            }
            let scaled = plain.iter().enumerate().map(|(i, &f)| {
                let ramp = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                f / factor * ramp + f * (1.0 - ramp)
            });
            let attention = if factor > 1.0 { 0.1 * libm::log(factor) + 1.0 } else { 1.0 };
            (scaled.collect(), attention)
        }
    }
}
