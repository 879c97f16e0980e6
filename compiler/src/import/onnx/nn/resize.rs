//! Resize and Upsample. Every mode is a weighted sum of a few taps along one axis after another, with positions and
//! weights that are known when sizes are.

use super::Value;
use crate::graph::ValueId;
use crate::import::onnx::context::{Converted, ImportError, NodeContext, invalid};
use crate::import::onnx::table::{Row, row};
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};

pub(in crate::import::onnx) const ROWS: &[Row] =
    &[row("Upsample", 7, upsample), row("Resize", 10, resize)];

/// How positions of the result and the operand correspond.
struct Mapping {
    transform: String,
    nearest: String,
    mode: String,
    cubic: f64,
    exclude_outside: bool,
    antialias: bool,
    extrapolation: f64,
}

/// One axis that changes.
struct Axis {
    axis: usize,
    from: usize,
    to: usize,
    scale: f64,
    region: (f64, f64),
}

fn upsample(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let scales = match context.floats("scales") {
        Some(scales) => scales.into_iter().map(f64::from).collect(),
        None => context.constant(1)?.values().to_f64(),
    };
    let mode = context.string("mode", "nearest");
    let mapping = Mapping {
        transform: "asymmetric".to_owned(),
        nearest: "floor".to_owned(),
        mode: if mode == "bilinear" { "linear".to_owned() } else { mode },
        cubic: -0.75,
        exclude_outside: false,
        antialias: false,
        extrapolation: 0.0,
    };
    let shape = context.shape(x);
    if scales.len() != shape.len() {
        return invalid(format!("{} scales for rank {}", scales.len(), shape.len()));
    }
    let axes = scaled_axes(&shape, &(0..shape.len()).collect::<Vec<_>>(), &scales, &[])?;
    apply(context, x, &mapping, &axes).map(|y| vec![y])
}

fn resize(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    let newer = context.opset >= 11;
    let mapping = Mapping {
        transform: context.string(
            "coordinate_transformation_mode",
            if newer { "half_pixel" } else { "asymmetric" },
        ),
        nearest: context.string("nearest_mode", if newer { "round_prefer_floor" } else { "floor" }),
        mode: context.string("mode", "nearest"),
        cubic: f64::from(context.float("cubic_coeff_a", -0.75)),
        exclude_outside: context.int("exclude_outside", 0) != 0,
        antialias: context.int("antialias", 0) != 0,
        extrapolation: f64::from(context.float("extrapolation_value", 0.0)),
    };
    let axes: Vec<usize> = match context.ints("axes") {
        None => (0..shape.len()).collect(),
        Some(axes) => {
            axes.iter().map(|&axis| context.axis(axis, shape.len())).collect::<Result<_, _>>()?
        }
    };
    let (roi, scales, sizes) = if newer {
        let list = |index: usize| -> Result<Vec<f64>, ImportError> {
            Ok(context
                .optional_constant(index)?
                .map(|tensor| tensor.values().to_f64())
                .unwrap_or_default())
        };
        let roi = if mapping.transform == "tf_crop_and_resize" { list(1)? } else { Vec::new() };
        (roi, list(2)?, list(3)?)
    } else {
        (Vec::new(), context.constant(1)?.values().to_f64(), Vec::new())
    };
    let changed = if !sizes.is_empty() {
        if sizes.len() != axes.len() {
            return invalid(format!("{} sizes for {} axes", sizes.len(), axes.len()));
        }
        let policy = context.string("keep_aspect_ratio_policy", "stretch");
        sized_axes(&shape, &axes, &sizes, &roi, &policy)?
    } else if scales.len() == axes.len() {
        scaled_axes(&shape, &axes, &scales, &roi)?
    } else {
        return invalid(format!("{} scales for {} axes", scales.len(), axes.len()));
    };
    apply(context, x, &mapping, &changed).map(|y| vec![y])
}

const MOST: f64 = 4_294_967_296.0;

fn region(roi: &[f64], index: usize, count: usize) -> (f64, f64) {
    match (roi.get(index), roi.get(index + count)) {
        (Some(&start), Some(&end)) => (start, end),
        (_, _) => (0.0, 1.0),
    }
}

fn scaled_axes(
    shape: &[usize],
    axes: &[usize],
    scales: &[f64],
    roi: &[f64],
) -> Result<Vec<Axis>, ImportError> {
    let mut changed = Vec::new();
    for (index, (&axis, &scale)) in axes.iter().zip(scales).enumerate() {
        let region = region(roi, index, axes.len());
        let from = shape[axis];
        let to = libm::floor(from as f64 * (region.1 - region.0) * scale + 1e-9);
        if !(scale > 0.0 && to < MOST) {
            return invalid(format!("the scale {scale} of axis {axis}"));
        }
        changed.push(Axis { axis, from, to: to.max(0.0) as usize, scale, region });
    }
    Ok(changed)
}

fn sized_axes(
    shape: &[usize],
    axes: &[usize],
    sizes: &[f64],
    roi: &[f64],
    policy: &str,
) -> Result<Vec<Axis>, ImportError> {
    let ratios: Vec<f64> =
        axes.iter().zip(sizes).map(|(&axis, &size)| size / shape[axis] as f64).collect();
    let common = match policy {
        "stretch" => None,
        "not_larger" => Some(ratios.iter().copied().fold(f64::INFINITY, f64::min)),
        "not_smaller" => Some(ratios.iter().copied().fold(0.0, f64::max)),
        other => return invalid(format!("keep_aspect_ratio_policy {other} is not known")),
    };
    let mut changed = Vec::new();
    for (index, (&axis, &size)) in axes.iter().zip(sizes).enumerate() {
        let from = shape[axis];
        let (scale, to) = match common {
            None => (ratios[index], size),
            Some(scale) => (scale, libm::floor(scale * from as f64 + 0.5)),
        };
        if !(1.0..MOST).contains(&to) {
            return invalid(format!("the size {to} of axis {axis}"));
        }
        let region = region(roi, index, axes.len());
        changed.push(Axis { axis, from, to: to as usize, scale, region });
    }
    Ok(changed)
}

fn apply(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    mapping: &Mapping,
    axes: &[Axis],
) -> Value {
    let dtype = context.dtype(x);
    let moves_only = mapping.mode == "nearest" && mapping.transform != "tf_crop_and_resize";
    let mut y = if moves_only {
        x
    } else {
        context.convert(x, crate::import::onnx::context::widen_any(dtype))?
    };
    for axis in axes {
        let same =
            axis.from == axis.to && axis.region == (0.0, 1.0) && (axis.scale - 1.0).abs() < 1e-12;
        if same {
            continue;
        }
        if axis.from == 0 {
            return invalid("an empty axis is resized");
        }
        y = resize_axis(context, y, mapping, axis)?;
    }
    if moves_only {
        return Ok(y);
    }
    if dtype.is_integer() {
        y = context.builder.map(ScalarFn::Round, &[y])?;
    }
    context.convert(y, dtype)
}

/// The positions that one element of the result reads, with their weights; and whether it lies outside.
type Taps = (Vec<(i64, f64)>, bool);

fn resize_axis(
    context: &mut NodeContext<'_, '_, '_>,
    x: ValueId,
    mapping: &Mapping,
    axis: &Axis,
) -> Value {
    let taps: Vec<Taps> =
        (0..axis.to).map(|position| taps(mapping, axis, position)).collect::<Result<_, _>>()?;
    let most = taps.iter().map(|(taps, _)| taps.len()).max().unwrap_or(0);
    let clamp = |at: i64| at.clamp(0, axis.from as i64 - 1);
    let rank = context.rank(x);
    let dtype = context.dtype(x);
    let vector = |context: &mut NodeContext<'_, '_, '_>, values: Vec<f64>| -> Value {
        let mut shape = vec![1; rank];
        shape[axis.axis] = axis.to;
        Ok(context.known(Tensor::from_values(dtype, &shape, &Values::F64(values))))
    };
    let outside =
        mapping.transform == "tf_crop_and_resize" && taps.iter().any(|(_, outside)| *outside);
    let mut sum: Option<ValueId> = None;
    for tap in 0..most {
        let positions: Vec<i64> = taps
            .iter()
            .map(|(taps, _)| clamp(taps.get(tap).or(taps.last()).map_or(0, |tap| tap.0)))
            .collect();
        let weights: Vec<f64> =
            taps.iter().map(|(taps, _)| taps.get(tap).map_or(0.0, |tap| tap.1)).collect();
        let positions = context.known_ints(&positions);
        let mut part = context.gather(x, positions, axis.axis)?;
        if weights.iter().any(|&weight| weight != 1.0) {
            let weights = vector(context, weights)?;
            part = context.map(ScalarFn::Mul, &[part, weights])?;
        }
        sum = Some(match sum {
            None => part,
            Some(sum) => context.map(ScalarFn::Add, &[sum, part])?,
        });
    }
    let mut result = match sum {
        Some(sum) => sum,
        None => {
            let mut shape = context.shape(x).to_vec();
            shape[axis.axis] = 0;
            context.slice_axis(x, axis.axis, 0, 0, 1)?
        }
    };
    if outside {
        let mut shape = vec![1; rank];
        shape[axis.axis] = axis.to;
        let flags = Values::Bool(taps.iter().map(|(_, outside)| *outside).collect());
        let flags = context.known(Tensor::from_values(crate::types::DType::Bool, &shape, &flags));
        let fill = context.scalar(dtype, mapping.extrapolation);
        result = context.map(ScalarFn::Select, &[flags, fill, result])?;
    }
    Ok(result)
}

/// Where an element of the result lies in the operand.
fn source(mapping: &Mapping, axis: &Axis, position: usize) -> Result<f64, ImportError> {
    let (x, from, to) = (position as f64, axis.from as f64, axis.to as f64);
    Ok(match mapping.transform.as_str() {
        "half_pixel" => (x + 0.5) / axis.scale - 0.5,
        "pytorch_half_pixel" => {
            if axis.to > 1 {
                (x + 0.5) / axis.scale - 0.5
            } else {
                0.0
            }
        }
        "half_pixel_symmetric" => {
            // The size that the scale asks for is not whole; half of what is lost is lost at each end.
            let adjustment = to / (axis.scale * from);
            let centre = from / 2.0;
            centre * (1.0 - adjustment) + (x + 0.5) / axis.scale - 0.5
        }
        "align_corners" => {
            // The size that the scale asks for need not be whole; the corners are those of that size.
            let wanted = axis.scale * from;
            if axis.to > 1 { x * (from - 1.0) / (wanted - 1.0) } else { 0.0 }
        }
        "asymmetric" => x / axis.scale,
        "tf_half_pixel_for_nn" => (x + 0.5) / axis.scale,
        "tf_crop_and_resize" => {
            let (start, end) = axis.region;
            if axis.to > 1 {
                start * (from - 1.0) + x * (end - start) * (from - 1.0) / (to - 1.0)
            } else {
                0.5 * (start + end) * (from - 1.0)
            }
        }
        other => return invalid(format!("coordinate_transformation_mode {other} is not known")),
    })
}

fn taps(mapping: &Mapping, axis: &Axis, position: usize) -> Result<Taps, ImportError> {
    let at = source(mapping, axis, position)?;
    let outside = at < 0.0 || at > axis.from as f64 - 1.0;
    let mut taps = match mapping.mode.as_str() {
        "nearest" => {
            let nearest = match mapping.nearest.as_str() {
                "round_prefer_floor" => libm::ceil(at - 0.5),
                "round_prefer_ceil" => libm::floor(at + 0.5),
                "floor" => libm::floor(at),
                "ceil" => libm::ceil(at),
                other => return invalid(format!("nearest_mode {other} is not known")),
            };
            vec![(nearest as i64, 1.0)]
        }
        "linear" => {
            weighted(at, if mapping.antialias { axis.scale.min(1.0) } else { 1.0 }, 1.0, |x| {
                (1.0 - x.abs()).max(0.0)
            })
        }
        "cubic" => {
            let a = mapping.cubic;
            weighted(at, if mapping.antialias { axis.scale.min(1.0) } else { 1.0 }, 2.0, |x| {
                let x = x.abs();
                if x <= 1.0 {
                    ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    a * (((x - 5.0) * x + 8.0) * x - 4.0)
                } else {
                    0.0
                }
            })
        }
        other => return invalid(format!("mode {other} is not known")),
    };
    if mapping.exclude_outside || (mapping.antialias && mapping.mode != "nearest") {
        if mapping.exclude_outside {
            taps.retain(|&(at, _)| (0..axis.from as i64).contains(&at));
        }
        let total: f64 = taps.iter().map(|tap| tap.1).sum();
        if total != 0.0 {
            taps.iter_mut().for_each(|tap| tap.1 /= total);
        }
    }
    Ok((taps, outside))
}

/// The whole positions within `reach` of `at`, weighted by a filter that is stretched where the image shrinks.
fn weighted(at: f64, shrink: f64, reach: f64, filter: impl Fn(f64) -> f64) -> Vec<(i64, f64)> {
    let reach = reach / shrink;
    let first = libm::floor(at - reach) as i64 + 1;
    let last = libm::ceil(at + reach) as i64 - 1;
    let mut taps: Vec<(i64, f64)> = (first..=last.max(first))
        .map(|position| (position, filter((position as f64 - at) * shrink)))
        .collect();
    taps.retain(|tap| tap.1 != 0.0);
    if taps.is_empty() {
        taps.push((libm::floor(at) as i64, 1.0));
    }
    taps
}
