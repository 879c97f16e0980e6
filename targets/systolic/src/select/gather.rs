//! Rows of a tensor at positions that values give, as an embedding reads them: a copy whose descriptors GpSimdE writes.

use super::map::{self, Held};
use super::place::{Domain, Piece, Place, accesses, allocate, pieces};
use super::transfer::Far;
use super::tree::Builder;
use super::vars::Vars;
use crate::program::{Dma, Engine, Index, Indirect, Side, Space};
use smallvec::SmallVec;
use systole_compiler::expr::{Expr, Scalar};
use systole_compiler::kernel::{Axis, Term};
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::DType;

/// Gathers a tile over `dims` along one dimension of the operand, at positions in `index`, one for each row.
#[expect(clippy::too_many_arguments, reason = "a copy has two sides, and this one an index")]
pub(crate) fn gather(
    builder: &mut Builder<'_>,
    vars: &Vars,
    far: &Far<'_>,
    dim: usize,
    (index, index_dims): (&Held, &[(Axis, usize)]),
    dims: &[(Axis, usize)],
    rows: &[(Axis, usize)],
    name: &str,
) -> Result<Place, String> {
    let domain = Domain::of(dims, rows);
    let on_rows = |axis: Axis| rows.iter().any(|&(row, _)| row == axis);
    if rows.is_empty() || index_dims.iter().any(|&(axis, size)| !on_rows(axis) && size > 1) {
        return Err("a gather whose positions do not lie on rows".to_owned());
    }
    if rows.iter().any(|&(axis, _)| !index_dims.iter().any(|&(own, _)| own == axis)) {
        return Err("a gather with rows that have no position".to_owned());
    }
    for (other, at) in far.at.iter().enumerate() {
        let axes = at.terms().iter().filter_map(|&(term, _)| match term {
            Term::Axis(axis) => Some(axis),
            Term::Var(_) => None,
        });
        if axes.clone().any(on_rows) || (other == dim && axes.count() > 0) {
            return Err("a gather along several dimensions".to_owned());
        }
    }
    if !far.at[dim].terms().is_empty() {
        return Err("a gather from a position that moves".to_owned());
    }
    let extent = far.operand.dims[dim].1 as i64;
    let numbers = positions(builder, vars, index, rows, far.at[dim].constant, extent)?;
    let place = allocate(builder, &domain, far.operand.dtype, 2, name)?;
    let strides = far.strides();
    let mut offset = Index::default();
    for (other, at) in far.at.iter().enumerate() {
        if other != dim {
            offset = offset.plus(&vars.index(at), strides[other]);
        }
    }
    let rows_only = Domain { rows: domain.rows.clone(), free: SmallVec::new() };
    let element = place.dtype.bytes() as i64;
    for piece in pieces(&rows_only) {
        for chunk in piece.chunks.0..piece.chunks.0 + piece.chunks.1 {
            let part = Piece { chunks: (chunk, 1), ..piece.clone() };
            let found = accesses(builder, &part, &rows_only, &[&numbers]).swap_remove(0);
            // Rows first, then what follows each.
            let mut walk: Vec<(u32, i64, i64)> = Vec::new();
            for &(axis, size) in &domain.free {
                let (size, stride, step) = (size as u32, far.stride(axis), place.stride(axis));
                match walk.last_mut() {
                    Some(outer)
                        if outer.1 == stride * i64::from(size)
                            && outer.2 == step * i64::from(size) =>
                    {
                        *outer = (outer.0 * size, stride, step);
                    }
                    Some(_) | None => walk.push((size, stride, step)),
                }
            }
            if walk.is_empty() {
                walk.push((1, 1, 1));
            }
            let mut sizes: SmallVec<[u32; 4]> = smallvec::smallvec![part.partitions as u32];
            let mut far_steps: SmallVec<[i64; 4]> = smallvec::smallvec![0];
            let mut near_steps: SmallVec<[(i32, i32); 4]> = smallvec::smallvec![(1, 0)];
            for &(size, stride, step) in &walk {
                sizes.push(size);
                far_steps.push(stride);
                near_steps.push((0, i32::try_from(step).map_err(|_| "a long tile".to_owned())?));
            }
            let elements: i64 =
                walk.iter().map(|&(size, _, step)| step * (i64::from(size) - 1)).sum::<i64>() + 1;
            let low = (place.origin + chunk as i64 * place.chunk) * element;
            let dims = SmallVec::from_slice(&[(1, elements as u32)]);
            let partitions = part.partitions as u16;
            let to = builder.access(place.buffer, place.dtype, low, (0, partitions), dims);
            let dma = Dma {
                dtype: place.dtype,
                sizes,
                from: Side::Far {
                    operand: far.index,
                    offset: offset.clone(),
                    strides: far_steps,
                    bounds: SmallVec::new(),
                },
                to: Side::Near {
                    space: Space::Sbuf,
                    partition: Index::constant(0),
                    offset: to.access.offset.clone(),
                    steps: near_steps,
                },
                combine: None,
                indirect: Some(Indirect {
                    rows: found.access.clone(),
                    stride: strides[dim],
                    extent,
                }),
                transpose: false,
            };
            let written = (low as u32, (low + elements * element) as u32);
            let mut touches = vec![
                builder.region(place.buffer, true, written, (0, partitions)),
                builder.touch(&found, false),
            ];
            if let Some(buffer) = far.ordered {
                touches.push(builder.region(buffer, false, (0, 1), (0, 1)));
            }
            builder.dma(Engine::GpSimd, dma, touches, &[far.index]);
        }
    }
    Ok(place)
}

/// The positions as i32 inside the tensor, one for each row: exact code.
fn positions(
    builder: &mut Builder<'_>,
    vars: &Vars,
    index: &Held,
    rows: &[(Axis, usize)],
    first: i64,
    extent: i64,
) -> Result<Place, String> {
    let dtype = match index {
        Held::Constant(value) => value.dtype,
        Held::At(place) => place.dtype,
    };
    let mut expr = Expr::new();
    let read = expr.operand(0, dtype);
    let wide = expr.convert(read, DType::I64);
    let number = |expr: &mut Expr, value: i64| expr.constant(Scalar::from_i64(DType::I64, value));
    let start = number(&mut expr, first);
    let moved = expr.call(ScalarFn::Add, &[wide, start]);
    let low = number(&mut expr, 0);
    let above = expr.call(ScalarFn::Max, &[moved, low]);
    let high = number(&mut expr, extent - 1);
    let inside = expr.call(ScalarFn::Min, &[above, high]);
    expr.convert(inside, DType::I32);
    let domain = Domain { rows: SmallVec::from_slice(rows), free: SmallVec::new() };
    let place = allocate(builder, &domain, DType::I32, 2, "positions")?;
    map::custom(builder, vars, &domain, std::slice::from_ref(index), &expr, &place)?;
    Ok(place)
}
