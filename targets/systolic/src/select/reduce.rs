//! Reductions along free dimensions, on VectorE.

use super::map::{charge, memset};
use super::place::{Domain, Place, Rows, accesses, allocate, pieces};
use super::tree::Builder;
use crate::isa::Op;
use crate::program::Engine;
use smallvec::SmallVec;
use systole_compiler::kernel::{Axis, Combine, Dims};
use systole_compiler::types::DType;

/// Combines a tile over some of its free axes; the result has the others.
pub(crate) fn reduce(
    builder: &mut Builder<'_>,
    combine: Combine,
    from: &Place,
    dims: &[(Axis, usize)],
    rows: &Rows,
    over: &[Axis],
    name: &str,
) -> Result<Place, String> {
    match combine {
        Combine::Sum | Combine::Max | Combine::Min | Combine::Product => {}
        Combine::And | Combine::Or => return Err("bits are combined exactly".to_owned()),
    }
    let is_over = |axis: Axis| over.contains(&axis);
    if rows.iter().any(|&(axis, _)| is_over(axis)) {
        return Err("rows are reduced".to_owned());
    }
    let whole = Domain::of(dims, rows);
    let kept: Dims = whole.free.iter().copied().filter(|&(axis, _)| !is_over(axis)).collect();
    let gone: Dims = whole.free.iter().copied().filter(|&(axis, _)| is_over(axis)).collect();
    let out_domain = Domain { rows: rows.clone(), free: kept };
    let out = allocate(builder, &out_domain, DType::F32, 2, name)?;
    if gone.iter().any(|&(_, extent)| extent == 0) {
        let identity = combine.identity(DType::F32);
        memset(builder, out.buffer, DType::F32, rows, out.chunk, identity);
        return Ok(out);
    }
    let gone_domain = Domain { rows: rows.clone(), free: gone };
    for piece in pieces(&out_domain) {
        // What is reduced, seen from the first position of what is kept.
        let mut inner = pieces(&gone_domain).swap_remove(0);
        inner.chunks = (0, 1);
        inner.partitions = piece.partitions;
        let walk = accesses(builder, &inner, &gone_domain, &[from]).swap_remove(0);
        let mut waiting = vec![piece];
        while let Some(part) = waiting.pop() {
            let found = accesses(builder, &part, &out_domain, &[from, &out]);
            if found[0].access.dims.len() + walk.access.dims.len() > 4 {
                waiting.extend(thinner(&part));
                continue;
            }
            let single =
                part.chunks.1 * part.ranges.iter().map(|range| range.1).product::<usize>() == 1;
            let mut input = found[0].clone();
            if single {
                input.access.dims = SmallVec::new();
            }
            input.access.dims.extend(walk.access.dims.iter().copied());
            let op = Op::Reduce {
                combine,
                input: input.access.clone(),
                dims: u8::try_from(walk.access.dims.len()).expect("at most four"),
                out: found[1].access.clone(),
            };
            charge(builder, Engine::Vector, input.access.free() as f64);
            builder.emit(Engine::Vector, op, &[&input], &[&found[1]]);
        }
    }
    Ok(out)
}

/// The piece in parts along its outermost dimension.
fn thinner(piece: &super::place::Piece) -> Vec<super::place::Piece> {
    if piece.chunks.1 > 1 {
        return (0..piece.chunks.1)
            .map(|index| super::place::Piece {
                chunks: (piece.chunks.0 + index, 1),
                ..piece.clone()
            })
            .collect();
    }
    let Some(place) = piece.ranges.iter().position(|range| range.1 > 1) else {
        return vec![piece.clone()];
    };
    let (first, extent) = piece.ranges[place];
    (0..extent)
        .map(|index| {
            let mut part = piece.clone();
            part.ranges[place] = (first + index, 1);
            part
        })
        .collect()
}
