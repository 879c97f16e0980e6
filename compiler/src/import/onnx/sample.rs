//! Sampling of images at positions that a grid gives, and random numbers.

use super::context::{Converted, ImportError, NodeContext, invalid, unsupported};
use super::table::{Row, row};
use crate::graph::ValueId;
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType, strides};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("GridSample", 1, grid_sample),
    row("AffineGrid", 1, affine_grid),
    row("RandomUniform", 1, |c| random(c, Spread::Uniform)),
    row("RandomUniformLike", 1, |c| random(c, Spread::Uniform)),
    row("RandomNormal", 1, |c| random(c, Spread::Normal)),
    row("RandomNormalLike", 1, |c| random(c, Spread::Normal)),
    row("Bernoulli", 1, bernoulli),
];

type Context<'a, 'f, 'm> = NodeContext<'a, 'f, 'm>;
type Value = Result<ValueId, ImportError>;

/// What lies outside the image.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Outside {
    Zeros,
    Border,
    Reflection,
}

/// How a value between pixels is made.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Between {
    Nearest,
    Linear,
    Cubic,
}

/// One dimension of an image.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) size: usize,
    /// The coordinates of its ends.
    pub(super) ends: [f64; 2],
    pub(super) outside: Outside,
}

/// A pixel along one dimension: its position, whether it is in the image, and its weight.
pub(super) struct Tap {
    position: ValueId,
    inside: Option<ValueId>,
    weight: Option<ValueId>,
}

fn grid_sample(context: &mut Context<'_, '_, '_>) -> Converted {
    let (x, grid) = (context.input(0)?, context.input(1)?);
    let (shape, points) = (context.shape(x), context.shape(grid));
    let dims = shape.len().saturating_sub(2);
    if !(1..=3).contains(&dims)
        || points.len() != shape.len()
        || points[dims + 1] != dims
        || points[0] != shape[0]
    {
        return invalid(
            "an image of 1 to 3 dimensions and a grid of as many coordinates are wanted",
        );
    }
    if shape[2..].contains(&0) {
        return invalid("an image without pixels");
    }
    let between = match context.string("mode", "linear").as_str() {
        "nearest" => Between::Nearest,
        "linear" | "bilinear" => Between::Linear,
        "cubic" | "bicubic" => Between::Cubic,
        other => return unsupported(format!("mode {other:?}")),
    };
    let outside = match context.string("padding_mode", "zeros").as_str() {
        "border" => Outside::Border,
        "reflection" => Outside::Reflection,
        _ => Outside::Zeros,
    };
    let corners = context.int("align_corners", 0) != 0;
    let dtype = context.dtype(x);
    let wide = super::context::widen(dtype);
    let grid = context.convert(grid, DType::F32)?;
    let mut taps = Vec::new();
    for dim in 0..dims {
        let size = shape[2 + dim];
        let ends = if corners { [0.0, size as f64 - 1.0] } else { [-0.5, size as f64 - 0.5] };
        // The last coordinate is that of the innermost dimension.
        let part = context.slice_axis(grid, dims + 1, dims - 1 - dim, dims - dim, 1)?;
        let part = context.reshape(part, &points[..dims + 1])?;
        let raised = context.map_scalar(ScalarFn::Add, part, 1.0)?;
        let (factor, shift) =
            if corners { ((size as f64 - 1.0) / 2.0, 0.0) } else { (size as f64 / 2.0, -0.5) };
        let place = context.map_scalar(ScalarFn::Mul, raised, factor)?;
        let place = context.map_scalar(ScalarFn::Add, place, shift)?;
        let axis = Axis { size, ends, outside };
        taps.push(axis_taps(context, place, axis, between)?);
    }
    // Pixels of all images in one dimension, channels behind.
    let mut perm: Vec<usize> = (0..shape.len()).filter(|&dim| dim != 1).collect();
    perm.push(1);
    let flat = context.transpose(x, &perm)?;
    let pixels: usize = shape[2..].iter().product();
    let flat = context.reshape(flat, &[shape[0] * pixels, shape[1]])?;
    let flat = context.convert(flat, wide)?;
    let places = points[..dims + 1].to_vec();
    let image = context.iota(DType::I64, &places, 0)?;
    let first = context.map_scalar(ScalarFn::Mul, image, pixels as f64)?;
    let steps = strides(&shape[2..]);
    let mut sum: Option<ValueId> = None;
    for value in weighted_pixels(context, flat, first, &taps, &steps)? {
        sum = joined(context, ScalarFn::Add, sum, Some(value))?;
    }
    let Some(sum) = sum else { return invalid("no pixels") };
    let mut perm = vec![0, dims + 1];
    perm.extend(1..=dims);
    let result = context.transpose(sum, &perm)?;
    Ok(vec![context.convert(result, dtype)?])
}

/// What stands at each combination of one tap for each dimension, with its weight: rows of `flat` from `first` on.
pub(super) fn weighted_pixels(
    context: &mut Context<'_, '_, '_>,
    flat: ValueId,
    first: ValueId,
    taps: &[Vec<Tap>],
    steps: &[usize],
) -> Result<Vec<ValueId>, ImportError> {
    let (dtype, rank) = (context.dtype(flat), context.rank(first));
    let count: usize = taps.iter().map(Vec::len).product();
    let mut values = Vec::new();
    for mut combination in 0..count {
        let (mut index, mut inside, mut weight) = (first, None, None);
        for (dim, taps) in taps.iter().enumerate() {
            let tap = &taps[combination % taps.len()];
            combination /= taps.len();
            let offset = context.map_scalar(ScalarFn::Mul, tap.position, steps[dim] as f64)?;
            index = context.builder.map(ScalarFn::Add, &[index, offset])?;
            inside = joined(context, ScalarFn::And, inside, tap.inside)?;
            weight = joined(context, ScalarFn::Mul, weight, tap.weight)?;
        }
        let mut value = context.gather(flat, index, 0)?;
        if let Some(inside) = inside {
            let column = context.unsqueeze(inside, &[rank])?;
            let zero = context.scalar_like(value, 0.0)?;
            value = context.map(ScalarFn::Select, &[column, value, zero])?;
        }
        if let Some(weight) = weight {
            let column = context.unsqueeze(weight, &[rank])?;
            let column = context.convert(column, dtype)?;
            value = context.map(ScalarFn::Mul, &[value, column])?;
        }
        values.push(value);
    }
    Ok(values)
}

pub(super) fn joined(
    context: &mut Context<'_, '_, '_>,
    function: ScalarFn,
    a: Option<ValueId>,
    b: Option<ValueId>,
) -> Result<Option<ValueId>, ImportError> {
    match (a, b) {
        (Some(a), Some(b)) => Ok(Some(context.builder.map(function, &[a, b])?)),
        (a, None) => Ok(a),
        (None, b) => Ok(b),
    }
}

/// A coordinate thrown back at the ends until it is between them.
fn reflected(context: &mut Context<'_, '_, '_>, place: ValueId, [low, high]: [f64; 2]) -> Value {
    let range = high - low;
    if range <= 0.0 {
        return context.scalar_like(place, low);
    }
    let distance = context.map_scalar(ScalarFn::Sub, place, low)?;
    let distance = context.builder.map(ScalarFn::Abs, &[distance])?;
    let folded = context.map_scalar(ScalarFn::Rem, distance, 2.0 * range)?;
    let whole = context.scalar_like(folded, 2.0 * range)?;
    let back = context.builder.map(ScalarFn::Sub, &[whole, folded])?;
    let nearer = context.builder.map(ScalarFn::Min, &[folded, back])?;
    context.map_scalar(ScalarFn::Add, nearer, low)
}

/// The pixels around a coordinate along one dimension.
pub(super) fn axis_taps(
    context: &mut Context<'_, '_, '_>,
    place: ValueId,
    axis: Axis,
    between: Between,
) -> Result<Vec<Tap>, ImportError> {
    let mut place = place;
    if between == Between::Nearest {
        place = context.builder.map(ScalarFn::Round, &[place])?;
    }
    let changed = match axis.outside {
        Outside::Zeros => None,
        Outside::Border => {
            let low = context.map_scalar(ScalarFn::Max, place, 0.0)?;
            Some(context.map_scalar(ScalarFn::Min, low, axis.size as f64 - 1.0)?)
        }
        Outside::Reflection => Some(reflected(context, place, axis.ends)?),
    };
    if let Some(changed) = changed {
        let low = context.map_scalar(ScalarFn::Lt, place, axis.ends[0])?;
        let high = context.map_scalar(ScalarFn::Gt, place, axis.ends[1])?;
        let out = context.builder.map(ScalarFn::Or, &[low, high])?;
        place = context.builder.map(ScalarFn::Select, &[out, changed, place])?;
    }
    if between == Between::Nearest {
        return Ok(vec![tap(context, place, None, axis)?]);
    }
    let base = context.builder.map(ScalarFn::Floor, &[place])?;
    let fraction = context.builder.map(ScalarFn::Sub, &[place, base])?;
    let mut taps = Vec::new();
    let offsets = if between == Between::Linear { 0..=1 } else { -1..=2 };
    for offset in offsets {
        let position = context.map_scalar(ScalarFn::Add, base, f64::from(offset))?;
        // The distance of the pixel from the coordinate.
        let distance = context.map_scalar(ScalarFn::Sub, fraction, f64::from(offset))?;
        let distance = context.builder.map(ScalarFn::Abs, &[distance])?;
        let weight = match (between, offset) {
            (Between::Linear | Between::Nearest, _) => polynomial(context, distance, &[-1.0, 1.0])?,
            (Between::Cubic, 0 | 1) => polynomial(context, distance, &[1.25, -2.25, 0.0, 1.0])?,
            (Between::Cubic, _) => polynomial(context, distance, &[-0.75, 3.75, -6.0, 3.0])?,
        };
        taps.push(tap(context, position, Some(weight), axis)?);
    }
    Ok(taps)
}

/// Coefficients from the highest power down.
fn polynomial(context: &mut Context<'_, '_, '_>, x: ValueId, coefficients: &[f64]) -> Value {
    let mut sum = context.scalar_like(x, coefficients[0])?;
    for &coefficient in &coefficients[1..] {
        let product = context.builder.map(ScalarFn::Mul, &[sum, x])?;
        sum = context.map_scalar(ScalarFn::Add, product, coefficient)?;
    }
    Ok(sum)
}

/// The pixel at a whole coordinate, which may be outside.
fn tap(
    context: &mut Context<'_, '_, '_>,
    position: ValueId,
    weight: Option<ValueId>,
    axis: Axis,
) -> Result<Tap, ImportError> {
    let last = axis.size as f64 - 1.0;
    let inside = match axis.outside {
        Outside::Zeros => {
            let low = context.map_scalar(ScalarFn::Ge, position, 0.0)?;
            let high = context.map_scalar(ScalarFn::Le, position, last)?;
            Some(context.builder.map(ScalarFn::And, &[low, high])?)
        }
        Outside::Border | Outside::Reflection => None,
    };
    let position = match axis.outside {
        Outside::Reflection => {
            let back = reflected(context, position, axis.ends)?;
            context.builder.map(ScalarFn::Trunc, &[back])?
        }
        Outside::Zeros | Outside::Border => position,
    };
    let position = context.map_scalar(ScalarFn::Max, position, 0.0)?;
    let position = context.map_scalar(ScalarFn::Min, position, last)?;
    Ok(Tap { position: context.convert(position, DType::I64)?, inside, weight })
}

fn affine_grid(context: &mut Context<'_, '_, '_>) -> Converted {
    let theta = context.input(0)?;
    let sizes: Vec<usize> = context
        .constant_ints(1)?
        .iter()
        .skip(2)
        .map(|&size| usize::try_from(size).unwrap_or(0))
        .collect();
    let (dims, shape) = (sizes.len(), context.shape(theta));
    if shape.len() != 3 || shape[1] != dims || shape[2] != dims + 1 {
        return invalid(format!("transforms of {dims} dimensions are wanted"));
    }
    let pixels = TensorType::new(DType::F64, &sizes).checked_count();
    let Some(pixels) = pixels.filter(|&pixels| (1..=1 << 22).contains(&pixels)) else {
        return unsupported("a grid of that size");
    };
    let corners = context.int("align_corners", 0) != 0;
    let steps = strides(&sizes);
    let mut base = Vec::with_capacity(pixels * (dims + 1));
    for pixel in 0..pixels {
        // The first coordinate is that of the innermost dimension.
        for dim in (0..dims).rev() {
            let (position, size) = ((pixel / steps[dim] % sizes[dim]) as f64, sizes[dim] as f64);
            base.push(if corners {
                -1.0 + 2.0 * position / (size - 1.0).max(1.0)
            } else {
                -1.0 + (2.0 * position + 1.0) / size
            });
        }
        base.push(1.0);
    }
    let dtype = context.dtype(theta);
    let base = Tensor::from_values(dtype, &[pixels, dims + 1], &Values::F64(base));
    let base = context.known(base);
    let grid = context.contract(theta, base, &[], &[(2, 1)], dtype)?;
    let grid = context.transpose(grid, &[0, 2, 1])?;
    let mut result = vec![shape[0]];
    result.extend(&sizes);
    result.push(dims);
    Ok(vec![context.reshape(grid, &result)?])
}

/// How random numbers are spread.
#[derive(Clone, Copy)]
enum Spread {
    Uniform,
    Normal,
}

/// Random numbers of that type: the node's own seed, or its place in the model.
fn random_of(context: &mut Context<'_, '_, '_>, ty: TensorType, spread: Spread) -> Value {
    let seed = match context.attribute("seed") {
        Some(seed) => i64::from(seed.f.to_bits()),
        None => context.importer.place(),
    };
    let normal = matches!(spread, Spread::Normal);
    Ok(context.builder.add(op::Random { ty, seed, normal }, &[])?)
}

fn random(context: &mut Context<'_, '_, '_>, spread: Spread) -> Converted {
    let (shape, own) = match context.ints("shape") {
        Some(shape) => {
            let sizes = shape.iter().map(|&size| usize::try_from(size));
            match sizes.collect::<Result<Vec<_>, _>>() {
                Ok(shape) => (shape, DType::F32),
                Err(_) => return invalid("a negative size"),
            }
        }
        None => {
            let like = context.input(0)?;
            (context.shape(like).to_vec(), context.dtype(like))
        }
    };
    let dtype = context.dtype_attribute("dtype")?.unwrap_or(own);
    if !dtype.is_float() {
        return invalid(format!("random numbers are of a float type, not {dtype}"));
    }
    let x = random_of(context, TensorType::new(dtype, &shape), spread)?;
    let (factor, shift) = match spread {
        Spread::Uniform => {
            let (low, high) = (context.float("low", 0.0), context.float("high", 1.0));
            (f64::from(high - low), f64::from(low))
        }
        Spread::Normal => {
            (f64::from(context.float("scale", 1.0)), f64::from(context.float("mean", 0.0)))
        }
    };
    let x = if factor == 1.0 { x } else { context.map_scalar(ScalarFn::Mul, x, factor)? };
    Ok(vec![if shift == 0.0 { x } else { context.map_scalar(ScalarFn::Add, x, shift)? }])
}

fn bernoulli(context: &mut Context<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let ty = context.ty(x);
    let dtype = context.dtype_attribute("dtype")?.unwrap_or(ty.dtype);
    let drawn = random_of(context, ty, Spread::Uniform)?;
    let hit = context.builder.map(ScalarFn::Lt, &[drawn, x])?;
    Ok(vec![context.convert(hit, dtype)?])
}
