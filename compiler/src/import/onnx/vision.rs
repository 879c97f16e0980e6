//! Operators of detectors: regions and deformed windows of images, boxes, and pools undone.

use super::context::{Converted, ImportError, NodeContext, invalid, unsupported};
use super::nn::{Window, sizes};
use super::sample::{Axis, Between, Outside, axis_taps, joined, weighted_pixels};
use super::table::{Row, row};
use crate::graph::ValueId;
use crate::kernel::Combine;
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::{DType, TensorType};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    row("RoiAlign", 10, roi_align),
    row("DeformConv", 19, deform_conv),
    row("MaxUnpool", 9, max_unpool),
    row("NonMaxSuppression", 10, non_max_suppression),
];

type Context<'a, 'f, 'm> = NodeContext<'a, 'f, 'm>;
type Value = Result<ValueId, ImportError>;

fn roi_align(context: &mut Context<'_, '_, '_>) -> Converted {
    let (x, rois, images) = (context.input(0)?, context.input(1)?, context.input(2)?);
    let (shape, regions) = (context.shape(x), context.shape(rois));
    if shape.len() != 4 || regions.len() != 2 || regions[1] != 4 {
        return invalid("images of rank 4 and regions of 4 coordinates are wanted");
    }
    if shape[2..].contains(&0) {
        return invalid("an image without pixels");
    }
    let count = regions[0];
    if context.shape(images).as_slice() != [count] {
        return invalid("each region has the number of its image");
    }
    let is_max = match context.string("mode", "avg").as_str() {
        "avg" => false,
        "max" => true,
        other => return unsupported(format!("mode {other:?}")),
    };
    let newest = if context.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let is_half = context.string("coordinate_transformation_mode", newest) == "half_pixel";
    let size = |name: &str| usize::try_from(context.int(name, 1).max(1)).unwrap_or(usize::MAX);
    let outputs = [size("output_height"), size("output_width")];
    let scale = f64::from(context.float("spatial_scale", 1.0));
    let ratio = context.int("sampling_ratio", 0);
    if !(0..=1 << 10).contains(&ratio) || outputs.iter().any(|&size| size > 1 << 12) {
        return unsupported("so many samples");
    }
    let dtype = context.dtype(x);
    let wide = super::context::widen(dtype);
    let rois = context.convert(rois, wide)?;
    let mut taps = Vec::new();
    let mut is_inside = None;
    let mut samples = [0; 2];
    for dim in 0..2 {
        let extent = shape[2 + dim];
        let edge = |context: &mut Context<'_, '_, '_>, column: usize| {
            let edge = context.slice_axis(rois, 1, column, column + 1, 1)?;
            let edge = context.reshape(edge, &[count])?;
            let edge = context.map_scalar(ScalarFn::Mul, edge, scale)?;
            if is_half { context.map_scalar(ScalarFn::Sub, edge, 0.5) } else { Ok(edge) }
        };
        // The first coordinate is that of the innermost dimension.
        let (start, end) = (edge(context, 1 - dim)?, edge(context, 3 - dim)?);
        let mut length = context.map(ScalarFn::Sub, &[end, start])?;
        if !is_half {
            length = context.map_scalar(ScalarFn::Max, length, 1.0)?;
        }
        samples[dim] = match usize::try_from(ratio) {
            Ok(ratio) if ratio > 0 => ratio,
            _ => one_ratio(context, length, outputs[dim])?,
        };
        // Samples lie evenly in each cell: fractions of the region's length.
        let steps = outputs[dim] * samples[dim];
        let fractions =
            (0..steps).map(|step| (step as f64 + 0.5) / steps as f64).collect::<Vec<f64>>();
        let fractions =
            context.known(Tensor::from_values(wide, &[1, steps], &Values::F64(fractions)));
        let (start, length) = (context.unsqueeze(start, &[1])?, context.unsqueeze(length, &[1])?);
        let offset = context.map(ScalarFn::Mul, &[length, fractions])?;
        let place = context.map(ScalarFn::Add, &[start, offset])?;
        let low = context.map_scalar(ScalarFn::Ge, place, -1.0)?;
        let high = context.map_scalar(ScalarFn::Le, place, extent as f64)?;
        let near = context.map(ScalarFn::And, &[low, high])?;
        let last = extent as f64 - 1.0;
        let place = context.map_scalar(ScalarFn::Max, place, 0.0)?;
        let place = context.map_scalar(ScalarFn::Min, place, last)?;
        let (place, near) = (grid(context, place, dim)?, grid(context, near, dim)?);
        taps.push((place, extent, last));
        is_inside = match is_inside {
            None => Some(near),
            Some(other) => Some(context.map(ScalarFn::And, &[other, near])?),
        };
    }
    let points = [count, outputs[0] * samples[0], outputs[1] * samples[1]];
    let taps = taps
        .into_iter()
        .map(|(place, size, last)| {
            let place = context.broadcast_to(place, &points)?;
            let axis = Axis { size, ends: [0.0, last], outside: Outside::Border };
            axis_taps(context, place, axis, Between::Linear)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let flat = context.transpose(x, &[0, 2, 3, 1])?;
    let flat = context.reshape(flat, &[shape[0] * shape[2] * shape[3], shape[1]])?;
    let flat = context.convert(flat, wide)?;
    let images = context.convert(images, DType::I64)?;
    let first = context.map_scalar(ScalarFn::Mul, images, (shape[2] * shape[3]) as f64)?;
    let first = context.reshape(first, &[count, 1, 1])?;
    let first = context.broadcast_to(first, &points)?;
    let join = if is_max { ScalarFn::Max } else { ScalarFn::Add };
    let mut sample = None;
    for value in weighted_pixels(context, flat, first, &taps, &[shape[3], 1])? {
        sample = joined(context, join, sample, Some(value))?;
    }
    let sample = sample.expect("two dimensions have taps");
    let inside = is_inside.expect("there are two dimensions");
    let inside = context.unsqueeze(inside, &[3])?;
    let zero = context.scalar_like(sample, 0.0)?;
    let sample = context.map(ScalarFn::Select, &[inside, sample, zero])?;
    let cells = [count, outputs[0], samples[0], outputs[1], samples[1], shape[1]];
    let sample = context.reshape(sample, &cells)?;
    let combine = if is_max { Combine::Max } else { Combine::Sum };
    let mut result = context.reduce(combine, sample, &[2, 4])?;
    if !is_max {
        result = context.map_scalar(ScalarFn::Div, result, (samples[0] * samples[1]) as f64)?;
    }
    let result = context.transpose(result, &[0, 3, 1, 2])?;
    Ok(vec![context.convert(result, dtype)?])
}

/// Places along one of two dimensions, as a part of the grid over both.
fn grid(context: &mut Context<'_, '_, '_>, places: ValueId, dim: usize) -> Value {
    context.unsqueeze(places, &[2 - dim])
}

/// How many samples a cell has where that follows from the regions' size: known regions that all want the same.
fn one_ratio(
    context: &mut Context<'_, '_, '_>,
    length: ValueId,
    outputs: usize,
) -> Result<usize, ImportError> {
    let super::convert::Item::Known { tensor, .. } = context.importer.item(length) else {
        return Err(ImportError::NeedsValue(context.node.input[1].clone()));
    };
    let ratios: Vec<f64> =
        tensor.values().to_f64().iter().map(|length| (length / outputs as f64).ceil()).collect();
    match ratios.split_first() {
        None => Ok(1),
        Some((&ratio, rest)) if rest.iter().all(|&other| other == ratio) && ratio <= 1024.0 => {
            Ok(ratio.max(1.0) as usize)
        }
        Some(_) => unsupported("sampling_ratio 0 with regions of different sizes"),
    }
}

fn deform_conv(context: &mut Context<'_, '_, '_>) -> Converted {
    let (x, w, offset) = (context.input(0)?, context.input(1)?, context.input(2)?);
    let (shape, weights, offsets) = (context.shape(x), context.shape(w), context.shape(offset));
    if [shape.len(), weights.len(), offsets.len()] != [4; 3] {
        return unsupported("deformed convolutions of other than two dimensions");
    }
    let number = |name: &str| usize::try_from(context.int(name, 1)).unwrap_or(0);
    let (groups, parts) = (number("group"), number("offset_group"));
    let taps: usize = weights[2..].iter().product();
    let fits = groups > 0
        && parts > 0
        && weights[1].checked_mul(groups) == Some(shape[1])
        && weights[0].is_multiple_of(groups)
        && shape[1].is_multiple_of(parts)
        && offsets[0] == shape[0]
        && parts.checked_mul(2 * taps) == Some(offsets[1]);
    if !fits || shape[2..].contains(&0) {
        return invalid("channels, groups and offsets do not fit each other");
    }
    let window = Window::read(context, weights[2..].to_vec(), &shape[2..])?;
    let outputs = [window.outputs(0, shape[2], false)?, window.outputs(1, shape[3], false)?];
    if offsets[2..] != outputs {
        return invalid(format!(
            "offsets for {:?} windows, of which there are {outputs:?}",
            &offsets[2..]
        ));
    }
    let dtype = context.dtype(x);
    let wide = super::context::widen(dtype);
    let points = [shape[0], parts, taps, outputs[0], outputs[1]];
    let moved = context.reshape(offset, &[shape[0], parts, taps, 2, outputs[0], outputs[1]])?;
    let moved = context.convert(moved, wide)?;
    let mut dims = Vec::new();
    for dim in 0..2 {
        let moved = context.slice_axis(moved, 3, dim, dim + 1, 1)?;
        let moved = context.reshape(moved, &points)?;
        let starts = context.known(start_places(&window, dim, wide, &outputs));
        let place = context.map(ScalarFn::Add, &[moved, starts])?;
        let axis = Axis {
            size: shape[2 + dim],
            ends: [0.0, shape[2 + dim] as f64 - 1.0],
            outside: Outside::Zeros,
        };
        dims.push(axis_taps(context, place, axis, Between::Linear)?);
    }
    let inner = shape[1] / parts;
    let pixels = shape[2] * shape[3];
    let flat = context.reshape(x, &[shape[0], parts, inner, pixels])?;
    let flat = context.transpose(flat, &[0, 1, 3, 2])?;
    let flat = context.reshape(flat, &[shape[0] * parts * pixels, inner])?;
    let flat = context.convert(flat, wide)?;
    let image = context.iota(DType::I64, &points, 0)?;
    let part = context.iota(DType::I64, &points, 1)?;
    let image = context.map_scalar(ScalarFn::Mul, image, (parts * pixels) as f64)?;
    let part = context.map_scalar(ScalarFn::Mul, part, pixels as f64)?;
    let first = context.map(ScalarFn::Add, &[image, part])?;
    let mut sum = None;
    for value in weighted_pixels(context, flat, first, &dims, &[shape[3], 1])? {
        sum = joined(context, ScalarFn::Add, sum, Some(value))?;
    }
    let mut columns = sum.expect("two dimensions have taps");
    if let Some(mask) = context.optional(4)? {
        let mask = context.reshape(mask, &points)?;
        let mask = context.convert(mask, wide)?;
        let mask = context.unsqueeze(mask, &[5])?;
        columns = context.map(ScalarFn::Mul, &[columns, mask])?;
    }
    // [image, part, tap, row, column, channel] becomes [image, group, channel, tap, row, column].
    let columns = context.transpose(columns, &[0, 1, 5, 2, 3, 4])?;
    let columns =
        context.reshape(columns, &[shape[0], groups, weights[1], taps, outputs[0], outputs[1]])?;
    let filters = context.reshape(w, &[groups, weights[0] / groups, weights[1], taps])?;
    let filters = context.convert(filters, wide)?;
    let result = context.contract(filters, columns, &[(0, 1)], &[(2, 2), (3, 3)], wide)?;
    let result = context.transpose(result, &[2, 0, 1, 3, 4])?;
    let mut result = context.reshape(result, &[shape[0], weights[0], outputs[0], outputs[1]])?;
    if let Some(bias) = context.optional(3)? {
        let bias = context.reshape(bias, &[1, weights[0], 1, 1])?;
        let bias = context.convert(bias, wide)?;
        result = context.map(ScalarFn::Add, &[result, bias])?;
    }
    Ok(vec![context.convert(result, dtype)?])
}

/// Where the taps of each window lie along a dimension before they are moved: `[1, 1, taps, rows, columns]`.
fn start_places(window: &Window, dim: usize, dtype: DType, outputs: &[usize; 2]) -> Tensor {
    let mut places = Vec::new();
    for tap in 0..window.size[0] * window.size[1] {
        let tap = [tap / window.size[1], tap % window.size[1]][dim];
        for row in 0..outputs[0] {
            for column in 0..outputs[1] {
                let start = [row, column][dim] * window.strides[dim] + tap * window.dilations[dim];
                places.push(start as f64 - window.low[dim] as f64);
            }
        }
    }
    let shape = [1, 1, window.size[0] * window.size[1], outputs[0], outputs[1]];
    Tensor::from_values(dtype, &shape, &Values::F64(places))
}

fn max_unpool(context: &mut Context<'_, '_, '_>) -> Converted {
    let (x, indices) = (context.input(0)?, context.input(1)?);
    let shape = context.shape(x);
    if shape.len() < 3 || context.shape(indices) != shape {
        return invalid("a pooled tensor and positions of the same shape are wanted");
    }
    let rank = shape.len() - 2;
    let Some(size) = sizes(context, "kernel_shape", rank)? else {
        return invalid("attribute kernel_shape is missing");
    };
    let strides = sizes(context, "strides", rank)?.unwrap_or_else(|| vec![1; rank]);
    let pads = sizes(context, "pads", 2 * rank)?.unwrap_or_else(|| vec![0; 2 * rank]);
    let mut whole = shape[..2].to_vec();
    for dim in 0..rank {
        let covered = (shape[dim + 2].max(1) - 1)
            .checked_mul(strides[dim])
            .and_then(|covered| covered.checked_add(size[dim]))
            .and_then(|covered| covered.checked_sub(pads[dim] + pads[rank + dim]));
        let Some(covered) = covered else { return invalid("the pads are larger than the result") };
        whole.push(covered);
    }
    let ty = TensorType::new(context.dtype(x), &whole);
    let Some(count) = ty.checked_count() else { return invalid("the result is too large") };
    let pooled = context.ty(x).count();
    let zero = context.scalar(ty.dtype, 0.0);
    let blank = context.broadcast_to(zero, &[count])?;
    let positions = context.reshape(indices, &[pooled])?;
    let values = context.reshape(x, &[pooled])?;
    let scatter = op::Scatter { axis: 0, combine: None };
    let result = context.builder.add(scatter, &[blank, positions, values])?;
    let result = context.reshape(result, &whole)?;
    let Some(wanted) = context.optional_constant(2)? else { return Ok(vec![result]) };
    let wanted: Vec<usize> =
        wanted.to_i64().iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
    let larger =
        wanted.len() == whole.len() && wanted.iter().zip(&whole).all(|(to, own)| to >= own);
    if !larger {
        return invalid(format!("an output of {wanted:?} is smaller than the windows' {whole:?}"));
    }
    let high: Vec<usize> = wanted.iter().zip(&whole).map(|(to, own)| to - own).collect();
    Ok(vec![context.pad(result, zero, &vec![0; whole.len()], &high)?])
}

/// How many boxes are left decides the result's shape, so boxes and scores must be known.
fn non_max_suppression(context: &mut Context<'_, '_, '_>) -> Converted {
    let (boxes, scores) = (context.constant(0)?, context.constant(1)?);
    let (&[batches, count, 4], &[other, classes, scored]) = (boxes.shape(), scores.shape()) else {
        return invalid("boxes [batch, count, 4] and scores [batch, class, count] are wanted");
    };
    if batches != other || count != scored {
        return invalid("boxes and scores differ in number");
    }
    let first = |index: usize| -> Result<Option<f64>, ImportError> {
        let tensor = context.optional_constant(index)?;
        Ok(tensor.and_then(|tensor| tensor.values().to_f64().first().copied()))
    };
    let most = first(2)?.unwrap_or(0.0).max(0.0) as usize;
    let overlap = first(3)?.unwrap_or(0.0);
    let least = first(4)?;
    let centered = context.int("center_point_box", 0) != 0;
    let (boxes, scores) = (boxes.values().to_f64(), scores.values().to_f64());
    let mut chosen: Vec<i64> = Vec::new();
    for batch in 0..batches {
        let rectangles: Vec<Rectangle> = (0..count)
            .map(|index| Rectangle::new(&boxes[(batch * count + index) * 4..][..4], centered))
            .collect();
        for class in 0..classes {
            let scores = &scores[(batch * classes + class) * count..][..count];
            let mut order: Vec<usize> = (0..count)
                .filter(|&index| least.is_none_or(|least| scores[index] > least))
                .collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut kept: Vec<usize> = Vec::new();
            for index in order {
                if kept.len() >= most {
                    break;
                }
                if kept
                    .iter()
                    .all(|&other| rectangles[index].overlap(&rectangles[other]) <= overlap)
                {
                    kept.push(index);
                    chosen.extend([batch as i64, class as i64, index as i64]);
                }
            }
        }
    }
    Ok(vec![context.known(Tensor::from_slice(&[chosen.len() / 3, 3], &chosen))])
}

/// The lower and upper ends of a box along both dimensions.
struct Rectangle([[f64; 2]; 2]);

impl Rectangle {
    fn new(numbers: &[f64], centered: bool) -> Rectangle {
        let end = |dim: usize| match centered {
            true => [numbers[dim] - numbers[2 + dim] / 2.0, numbers[dim] + numbers[2 + dim] / 2.0],
            false => {
                let (a, b) = (numbers[dim], numbers[2 + dim]);
                [a.min(b), a.max(b)]
            }
        };
        Rectangle([end(0), end(1)])
    }

    fn area(&self) -> f64 {
        self.0.iter().map(|[low, high]| high - low).product()
    }

    /// The common area as a part of the joined one; 0 where there is none.
    fn overlap(&self, other: &Rectangle) -> f64 {
        let common = |dim: usize| {
            let ([a, b], [c, d]) = (self.0[dim], other.0[dim]);
            (b.min(d) - a.max(c)).max(0.0)
        };
        let common = common(0) * common(1);
        let joined = self.area() + other.area() - common;
        let is_real = common > 0.0 && self.area() > 0.0 && other.area() > 0.0 && joined > 0.0;
        if is_real { common / joined } else { 0.0 }
    }
}
