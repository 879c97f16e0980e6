//! Products: each operand's worth is a product of the result's worth and the other operand.

use super::Worth;
use super::values::zeros;
use crate::graph::{Builder, ValueId};
use crate::op::{Contract, Convolve, Pad, Reshape, Reverse, Slice, Transpose, TypeError};
use crate::types::TensorType;

pub(super) fn contract(
    builder: &mut Builder<'_>,
    op: &Contract,
    x: &[ValueId],
    g: ValueId,
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let (a_dims, b_dims) = op.dims();
    let free = |builder: &Builder<'_>, value: ValueId, dims: &[usize]| -> Vec<usize> {
        (0..builder.ty(value).rank()).filter(|dim| !dims.contains(dim)).collect()
    };
    let (a_free, b_free) = (free(builder, x[0], &a_dims), free(builder, x[1], &b_dims));
    let batch = op.batch.len();
    let a = Side { value: x[0], dims: &a_dims, free: &a_free, at: batch };
    let b = Side { value: x[1], dims: &b_dims, free: &b_free, at: batch + a_free.len() };
    for (own, other) in [(&a, &b), (&b, &a)] {
        if worth.wants(own.value) {
            let part = contracted(builder, op, g, own, other)?;
            worth.add(builder, own.value, part)?;
        }
    }
    Ok(())
}

/// One operand of a product: its paired dimensions, its free ones, and where those lie in the result.
struct Side<'a> {
    value: ValueId,
    dims: &'a [usize],
    free: &'a [usize],
    at: usize,
}

/// The worth of `own`: the result's worth times `other`, over what only `other` has.
fn contracted(
    builder: &mut Builder<'_>,
    op: &Contract,
    g: ValueId,
    own: &Side<'_>,
    other: &Side<'_>,
) -> Result<ValueId, TypeError> {
    let batch = op.batch.len();
    let dtype = builder.ty(own.value).dtype;
    let product = Contract {
        batch: (0..batch).map(|pair| vec![pair, other.dims[pair]]).collect(),
        over: other.free.iter().enumerate().map(|(i, &dim)| vec![other.at + i, dim]).collect(),
        accumulate: op.accumulate,
        dtype,
    };
    let product = builder.add(product, &[g, other.value])?;
    // It has the batch, what only `own` has, and the summed dimensions in the other's order.
    let mut summed: Vec<usize> = (batch..other.dims.len()).collect();
    summed.sort_by_key(|&pair| other.dims[pair]);
    let order: Vec<usize> = (0..batch)
        .map(|pair| own.dims[pair])
        .chain(own.free.iter().copied())
        .chain(summed.iter().map(|&pair| own.dims[pair]))
        .collect();
    let mut perm = vec![0; order.len()];
    order.iter().enumerate().for_each(|(from, &to)| perm[to] = from);
    builder.add(Transpose { perm }, &[product])
}

pub(super) fn convolve(
    builder: &mut Builder<'_>,
    op: &Convolve,
    x: &[ValueId],
    g: ValueId,
    worth: &mut Worth,
) -> Result<(), TypeError> {
    for (position, &value) in x.iter().enumerate() {
        if !worth.wants(value) {
            continue;
        }
        let ty = builder.ty(value).clone();
        let part = if builder.ty(g).count() == 0 || ty.count() == 0 {
            zeros(builder, &ty)?
        } else if position == 0 {
            image(builder, op, &ty, x[1], g)?
        } else {
            kernel(builder, op, x[0], &ty, g)?
        };
        worth.add(builder, value, part)?;
    }
    Ok(())
}

/// The worth of the image: the result's worth, spread by the strides, convolved with the kernel turned round.
fn image(
    builder: &mut Builder<'_>,
    op: &Convolve,
    ty: &TensorType,
    w: ValueId,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    let shape = builder.shape(w).to_vec();
    let (outputs, channels, window) = (shape[0], shape[1], &shape[2..]);
    let groups = op.groups;
    let mut parted = vec![groups, outputs / groups, channels];
    parted.extend(window);
    let turned = builder.add(Reshape { shape: parted.clone() }, &[w])?;
    let mut perm: Vec<usize> = (0..parted.len()).collect();
    perm.swap(1, 2);
    let turned = builder.add(Transpose { perm }, &[turned])?;
    let mut joined = vec![groups * channels, outputs / groups];
    joined.extend(window);
    let turned = builder.add(Reshape { shape: joined }, &[turned])?;
    let turned = builder.add(Reverse { axes: (2..shape.len()).collect() }, &[turned])?;
    let windows = Windows {
        sizes: &ty.shape[2..],
        window,
        strides: &op.strides,
        dilations: &op.dilations,
        low: &op.low,
    };
    let Spread { value, low, high } = windows.spread(builder, g, 2)?;
    let back = Convolve {
        strides: vec![1; window.len()],
        dilations: op.dilations.clone(),
        low,
        high,
        groups,
        accumulate: op.accumulate,
        dtype: ty.dtype,
    };
    builder.add(back, &[value, turned])
}

/// The worth of the kernel: the image convolved with the result's worth, batch and channels exchanged.
fn kernel(
    builder: &mut Builder<'_>,
    op: &Convolve,
    x: ValueId,
    ty: &TensorType,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    let shape = builder.shape(x).to_vec();
    let (batch, groups, channels) = (shape[0], op.groups, ty.shape[1]);
    let mut parted = vec![batch, groups, channels];
    parted.extend(&shape[2..]);
    let image = builder.add(Reshape { shape: parted.clone() }, &[x])?;
    let mut perm: Vec<usize> = (0..parted.len()).collect();
    (perm[0], perm[1], perm[2]) = (2, 1, 0);
    let image = builder.add(Transpose { perm }, &[image])?;
    let mut joined = vec![channels, groups * batch];
    joined.extend(&shape[2..]);
    let image = builder.add(Reshape { shape: joined }, &[image])?;
    let mut perm: Vec<usize> = (0..shape.len()).collect();
    perm.swap(0, 1);
    let worth = builder.add(Transpose { perm: perm.clone() }, &[g])?;
    let back = Convolve {
        strides: op.dilations.clone(),
        dilations: op.strides.clone(),
        low: op.low.clone(),
        high: op.high.clone(),
        groups,
        accumulate: op.accumulate,
        dtype: ty.dtype,
    };
    let product = builder.add(back, &[image, worth])?;
    // Where strides leave a rest of the image, there are positions beyond the kernel's.
    let mut limit = vec![channels, ty.shape[0]];
    limit.extend(&ty.shape[2..]);
    let rank = limit.len();
    let product =
        builder.add(Slice { start: vec![0; rank], limit, stride: vec![1; rank] }, &[product])?;
    builder.add(Transpose { perm }, &[product])
}

/// Windows over the last dimensions of a tensor.
pub(super) struct Windows<'a> {
    pub(super) sizes: &'a [usize],
    pub(super) window: &'a [usize],
    pub(super) strides: &'a [usize],
    pub(super) dilations: &'a [usize],
    pub(super) low: &'a [usize],
}

/// A worth at the places of the windows it is of, and what windows that run back over it want around it.
pub(super) struct Spread {
    pub(super) value: ValueId,
    pub(super) low: Vec<usize>,
    pub(super) high: Vec<usize>,
}

impl Windows<'_> {
    /// Spreads the worth of windows, whose own dimensions begin at `first`.
    pub(super) fn spread(
        &self,
        builder: &mut Builder<'_>,
        g: ValueId,
        first: usize,
    ) -> Result<Spread, TypeError> {
        let ty = builder.ty(g).clone();
        let rank = ty.rank();
        let mut interior = vec![0; rank];
        self.strides
            .iter()
            .enumerate()
            .for_each(|(dim, stride)| interior[first + dim] = stride - 1);
        let zero = zeros(builder, &TensorType::new(ty.dtype, &[]))?;
        let pad = Pad { low: vec![0; rank], high: vec![0; rank], interior };
        let mut value = builder.add(pad, &[g, zero])?;
        let shape = builder.shape(value).to_vec();
        let (mut start, mut limit) = (vec![0; rank], shape.clone());
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for dim in 0..self.sizes.len() {
            let reach = (self.dilations[dim] * (self.window[dim] - 1)) as isize;
            let size = shape[first + dim] as isize;
            let before = reach - self.low[dim] as isize;
            let after = self.sizes[dim] as isize + self.low[dim] as isize - size;
            // What is less than nothing is cut off; what is more than there is, is taken from the other side.
            let cut_before = (-before).max(0);
            let cut_after = (-after).max(0);
            let rest_before = (cut_before - size).max(0);
            let rest_after = (cut_after - size).max(0);
            start[first + dim] = cut_before.min(size) as usize;
            limit[first + dim] = (size - cut_after.min(size)) as usize;
            limit[first + dim] = limit[first + dim].max(start[first + dim]);
            low.push((before.max(0) - rest_after) as usize);
            high.push((after.max(0) - rest_before) as usize);
        }
        if limit != shape || start.iter().any(|&start| start > 0) {
            value = builder.add(Slice { start, limit, stride: vec![1; rank] }, &[value])?;
        }
        Ok(Spread { value, low, high })
    }
}
