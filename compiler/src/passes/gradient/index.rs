//! Elements that are chosen or replaced at positions: what was read is given back where it was read.

use super::Worth;
use super::values::{converted, filled, kept, repeated, zeros};
use crate::graph::{Builder, ValueId};
use crate::kernel::Combine;
use crate::op::{DynamicSlice, DynamicUpdate, Gather, Iota, Scatter, TypeError};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};

pub(super) fn gather(
    builder: &mut Builder<'_>,
    axis: usize,
    x: ValueId,
    indices: ValueId,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    let ty = builder.ty(x).clone();
    let zero = zeros(builder, &ty)?;
    if ty.shape[axis] == 0 {
        return Ok(zero);
    }
    let indices = clamped(builder, indices, ty.shape[axis] - 1)?;
    builder.add(Scatter { axis, combine: Some(Combine::Sum) }, &[zero, indices, g])
}

/// Indices as `i64`, the nearest from 0 to `last`.
fn clamped(builder: &mut Builder<'_>, indices: ValueId, last: usize) -> Result<ValueId, TypeError> {
    let mut indices = indices;
    if builder.ty(indices).dtype == DType::U64 {
        let ty = builder.ty(indices).clone();
        let most = filled(builder, &ty, last as f64)?;
        indices = builder.map(ScalarFn::Min, &[indices, most])?;
    }
    let indices = converted(builder, indices, DType::I64)?;
    let ty = builder.ty(indices).clone();
    let (least, most) = (zeros(builder, &ty)?, filled(builder, &ty, last as f64)?);
    let indices = builder.map(ScalarFn::Max, &[indices, least])?;
    builder.map(ScalarFn::Min, &[indices, most])
}

pub(super) fn scatter(
    builder: &mut Builder<'_>,
    op: &Scatter,
    x: &[ValueId],
    y: ValueId,
    g: ValueId,
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let [operand, indices, updates] = [x[0], x[1], x[2]];
    let axis = op.axis;
    let (ty, update) = (builder.ty(operand).clone(), builder.ty(updates).clone());
    let size = ty.shape[axis];
    if size == 0 || update.count() == 0 {
        worth.add(builder, operand, g)?;
        let zero = zeros(builder, &update)?;
        return worth.add(builder, updates, zero);
    }
    let wide = converted(builder, indices, DType::I64)?;
    let of = builder.ty(wide).clone();
    let (least, end) = (zeros(builder, &of)?, filled(builder, &of, size as f64)?);
    let above = builder.map(ScalarFn::Ge, &[wide, least])?;
    let below = builder.map(ScalarFn::Lt, &[wide, end])?;
    let inside = builder.map(ScalarFn::And, &[above, below])?;
    let dims: Vec<usize> = (axis..axis + of.rank()).collect();
    let of_updates =
        |builder: &mut Builder<'_>, mask: ValueId| repeated(builder, mask, &update.shape, &dims);
    let read =
        |builder: &mut Builder<'_>, from: ValueId| builder.add(Gather { axis }, &[from, wide]);
    match op.combine {
        None => {
            // Of several updates of one place the last stays: each place says whose it is.
            let ids = Iota { ty: TensorType::new(DType::I64, &[of.count()]), axis: 0 };
            let ids = builder.add(ids, &[])?;
            let ids = super::values::reshaped(builder, ids, &of.shape)?;
            let nobody = filled(builder, &TensorType::new(DType::I64, &[size]), -1.0)?;
            let owners = builder.add(Scatter { axis: 0, combine: None }, &[nobody, wide, ids])?;
            let owner = builder.add(Gather { axis: 0 }, &[owners, wide])?;
            let stays = builder.map(ScalarFn::Eq, &[owner, ids])?;
            let stays = builder.map(ScalarFn::And, &[stays, inside])?;
            if worth.wants(operand) {
                let zero = zeros(builder, &update)?;
                let part = builder.add(op.clone(), &[g, indices, zero])?;
                worth.add(builder, operand, part)?;
            }
            let (stays, part) = (of_updates(builder, stays)?, read(builder, g)?);
            let part = kept(builder, stays, part)?;
            worth.add(builder, updates, part)
        }
        Some(Combine::Sum) => {
            worth.add(builder, operand, g)?;
            let (inside, part) = (of_updates(builder, inside)?, read(builder, g)?);
            let part = kept(builder, inside, part)?;
            worth.add(builder, updates, part)
        }
        Some(Combine::Min | Combine::Max) => {
            let won = builder.map(ScalarFn::Eq, &[operand, y])?;
            let result = read(builder, y)?;
            let scored = builder.map(ScalarFn::Eq, &[updates, result])?;
            let inside = of_updates(builder, inside)?;
            let scored = builder.map(ScalarFn::And, &[scored, inside])?;
            let count = converted(builder, won, ty.dtype)?;
            let points = converted(builder, scored, ty.dtype)?;
            let sum = Scatter { axis, combine: Some(Combine::Sum) };
            let count = builder.add(sum, &[count, indices, points])?;
            let each = builder.map(ScalarFn::Div, &[g, count])?;
            let part = kept(builder, won, each)?;
            worth.add(builder, operand, part)?;
            let part = read(builder, each)?;
            let part = kept(builder, scored, part)?;
            worth.add(builder, updates, part)
        }
        // An update of zero would want the product of all others of its place; its worth is not a number here.
        Some(Combine::Product) => {
            let one = filled(builder, &ty, 1.0)?;
            let others = builder.add(op.clone(), &[one, indices, updates])?;
            let part = builder.map(ScalarFn::Mul, &[g, others])?;
            worth.add(builder, operand, part)?;
            let part = builder.map(ScalarFn::Mul, &[g, y])?;
            let part = read(builder, part)?;
            let part = builder.map(ScalarFn::Div, &[part, updates])?;
            let inside = of_updates(builder, inside)?;
            let part = kept(builder, inside, part)?;
            worth.add(builder, updates, part)
        }
        Some(Combine::And | Combine::Or) => {
            Err(TypeError::new("bits that are joined have no derivative"))
        }
    }
}

/// The operands after the first `skipped`: a start for each dimension.
fn starts(x: &[ValueId], skipped: usize) -> &[ValueId] {
    &x[skipped..]
}

pub(super) fn dynamic_slice(
    builder: &mut Builder<'_>,
    x: &[ValueId],
    g: ValueId,
) -> Result<ValueId, TypeError> {
    let ty = builder.ty(x[0]).clone();
    let zero = zeros(builder, &ty)?;
    builder.add(DynamicUpdate {}, &[&[zero, g], starts(x, 1)].concat())
}

pub(super) fn dynamic_update(
    builder: &mut Builder<'_>,
    x: &[ValueId],
    g: ValueId,
    worth: &mut Worth,
) -> Result<(), TypeError> {
    let update = builder.ty(x[1]).clone();
    if worth.wants(x[0]) {
        let zero = zeros(builder, &update)?;
        let part = builder.add(DynamicUpdate {}, &[&[g, zero], starts(x, 2)].concat())?;
        worth.add(builder, x[0], part)?;
    }
    if worth.wants(x[1]) {
        let slice = DynamicSlice { sizes: update.shape.to_vec() };
        let part = builder.add(slice, &[&[g], starts(x, 2)].concat())?;
        worth.add(builder, x[1], part)?;
    }
    Ok(())
}
