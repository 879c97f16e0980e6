//! Copies between HBM and on-chip tiles.

use super::place::{Domain, Place, Rows, count};
use super::tree::Builder;
use super::vars::Vars;
use crate::limits::PARTITIONS;
use crate::program::{Bound, Dma, Engine, Index, Side, Space};
use smallvec::SmallVec;
use systole_compiler::kernel::{Affine, Axis, Operand, Term};
use systole_compiler::types::strides;

/// A box of rows that one copy can walk over.
struct RowBox {
    /// Where each row axis starts.
    start: Vec<(Axis, i64)>,
    /// Axis, positions a step, steps, partitions a step, sets of 128 rows a step.
    dims: Vec<(Axis, i64, usize, i64, i64)>,
    partition: usize,
    chunk: usize,
}

/// Bytes of a copy that is worth its start: longer ones are cut where a set of rows ends, so that work can begin early.
const TRANSFER: u64 = 256 << 10;

impl RowBox {
    /// The box in parts of at most so many sets of rows.
    fn cut(self, most: usize) -> Vec<RowBox> {
        let Some(&(axis, step, sets, 0, 1)) = self.dims.first() else { return vec![self] };
        let mut parts = Vec::new();
        let mut first = 0;
        while first < sets {
            let size = most.min(sets - first);
            let mut start = self.start.clone();
            for (other, value) in &mut start {
                if *other == axis {
                    *value += first as i64 * step;
                }
            }
            let mut dims = self.dims.clone();
            dims[0].2 = size;
            let chunk = self.chunk + first;
            parts.push(RowBox { start, dims, partition: self.partition, chunk });
            first += size;
        }
        parts
    }
}

/// A dimension of a copy: its size, elements of the tensor a step, partitions and elements on the chip a step, and how
/// far it moves along the tensor's dimensions.
type Move = (u32, i64, (i64, i64), Vec<(usize, i64)>);

/// The rows of a group in boxes: none of them leaves a set of 128 rows but by whole sets.
fn row_boxes(rows: &[(Axis, usize)]) -> Vec<RowBox> {
    let mut found = Vec::new();
    match *rows {
        [] => found.push(RowBox { start: Vec::new(), dims: Vec::new(), partition: 0, chunk: 0 }),
        [(axis, extent), ref inner @ ..] if PARTITIONS.is_multiple_of(count(inner)) => {
            let step = PARTITIONS / count(inner);
            let (full, rest) = (extent / step, extent % step);
            let mut part = |start: usize, size: usize, chunks: usize| {
                let mut dims = Vec::new();
                if chunks > 1 {
                    dims.push((axis, step as i64, chunks, 0, 1));
                }
                dims.push((axis, 1, size, count(inner) as i64, 0));
                for (index, &(axis, extent)) in inner.iter().enumerate() {
                    dims.push((axis, 1, extent, count(&inner[index + 1..]) as i64, 0));
                }
                let start_row = start * count(inner);
                let all =
                    rows.iter().map(|&(row, _)| (row, if row == axis { start as i64 } else { 0 }));
                found.push(RowBox {
                    start: all.collect(),
                    dims,
                    partition: start_row % PARTITIONS,
                    chunk: start_row / PARTITIONS,
                });
            };
            if full > 0 {
                part(0, step, full);
            }
            if rest > 0 {
                part(full * step, rest, 1);
            }
        }
        _ => runs(rows, 0, &mut Vec::new(), &mut found),
    }
    found
}

/// Rows in runs along the innermost axis, cut where a set of 128 ends.
fn runs(
    rows: &[(Axis, usize)],
    first: usize,
    start: &mut Vec<(Axis, i64)>,
    found: &mut Vec<RowBox>,
) {
    let [(axis, extent), inner @ ..] = rows else { return };
    if first % PARTITIONS + count(rows) <= PARTITIONS {
        let mut all = start.clone();
        all.extend(rows.iter().map(|&(axis, _)| (axis, 0)));
        let dims = rows.iter().enumerate();
        let dims = dims
            .map(|(index, &(axis, extent))| (axis, 1, extent, count(&rows[index + 1..]) as i64, 0));
        found.push(RowBox {
            start: all,
            dims: dims.collect(),
            partition: first % PARTITIONS,
            chunk: first / PARTITIONS,
        });
        return;
    }
    if !inner.is_empty() {
        for index in 0..*extent {
            start.push((*axis, index as i64));
            runs(inner, first + index * count(inner), start, found);
            start.pop();
        }
        return;
    }
    let mut done = 0;
    while done < *extent {
        let row = first + done;
        let size = (PARTITIONS - row % PARTITIONS).min(extent - done);
        let mut all = start.clone();
        all.push((*axis, done as i64));
        found.push(RowBox {
            start: all,
            dims: vec![(*axis, 1, size, 1, 0)],
            partition: row % PARTITIONS,
            chunk: row / PARTITIONS,
        });
        done += size;
    }
}

/// A dimension of a block in on-chip memory: positions along one dimension of the operand.
struct BlockDim {
    dim: usize,
    /// Positions of the operand from one to the next.
    step: i64,
    size: usize,
    /// Where it starts.
    first: i64,
    /// How far each axis of the tile moves along it.
    uses: Vec<(Axis, i64)>,
}

/// A tensor in HBM, as a copy addresses it.
pub(crate) struct Far<'a> {
    pub(crate) index: u16,
    pub(crate) operand: &'a Operand,
    pub(crate) at: &'a [Affine],
    /// The buffer that stands for it, where its accesses have an order.
    pub(crate) ordered: Option<usize>,
}

impl Far<'_> {
    pub(crate) fn strides(&self) -> Vec<i64> {
        let shape: Vec<usize> = self.operand.dims.iter().map(|&(_, size)| size).collect();
        strides(&shape).iter().map(|&stride| stride as i64).collect()
    }

    /// Elements from one position to the next along an axis.
    pub(crate) fn stride(&self, axis: Axis) -> i64 {
        let terms = self.at.iter().zip(self.strides());
        terms.map(|(at, stride)| at.coefficient(Term::Axis(axis)) * stride).sum()
    }
}

/// How a tile of an operand is kept as a block: what part of the operand, in which order.
fn block(far: &Far<'_>, dims: &[(Axis, usize)], rows: &[(Axis, usize)]) -> Vec<BlockDim> {
    let on_rows = |axis: Axis| rows.iter().any(|&(row, _)| row == axis);
    let mut found = Vec::new();
    let last = far.at.len().saturating_sub(1);
    for (dim, at) in far.at.iter().enumerate() {
        let free = at.terms().iter().filter_map(|&(term, coefficient)| match term {
            Term::Axis(axis) if !on_rows(axis) => Some((axis, coefficient)),
            Term::Axis(_) | Term::Var(_) => None,
        });
        let free: Vec<(Axis, i64)> = free.collect();
        let extent = |axis: Axis| {
            dims.iter().find(|(other, _)| *other == axis).map_or(1, |&(_, extent)| extent)
        };
        let alone = |axis: Axis| {
            far.at.iter().filter(|at| at.coefficient(Term::Axis(axis)) != 0).count() == 1
        };
        match free[..] {
            [] => {}
            [(axis, step)] if alone(axis) && (dim < last || step == 1) => {
                found.push(BlockDim {
                    dim,
                    step,
                    size: extent(axis),
                    first: 0,
                    uses: vec![(axis, 1)],
                });
            }
            _ => {
                let (mut low, mut high) = (0, 0);
                for &(axis, step) in &free {
                    let reach = step * (extent(axis) as i64 - 1);
                    low += reach.min(0);
                    high += reach.max(0);
                }
                found.push(BlockDim {
                    dim,
                    step: 1,
                    size: usize::try_from(high - low + 1).expect("a range is not empty"),
                    first: low,
                    uses: free.clone(),
                });
            }
        }
    }
    found
}

/// Whether every position of a tile of an operand lies inside it.
fn inside(far: &Far<'_>, dims: &[(Axis, usize)], vars: &Vars) -> Vec<bool> {
    let extents = far.operand.dims.iter();
    let inside = far.at.iter().zip(extents).map(|(at, &(_, size))| {
        let (low, high) = at.range(|term| match term {
            Term::Axis(axis) => {
                let found = dims.iter().find(|(other, _)| *other == axis);
                (0, found.map_or(0, |&(_, extent)| extent as i64 - 1))
            }
            Term::Var(var) => vars.range(var),
        });
        low >= 0 && high < size as i64
    });
    inside.collect()
}

/// Loads a tile of an operand: its rows on partitions, the rest as a block of the operand.
#[expect(clippy::too_many_arguments, reason = "a copy has two sides")]
pub(crate) fn load(
    builder: &mut Builder<'_>,
    vars: &Vars,
    engine: Engine,
    far: &Far<'_>,
    dims: &[(Axis, usize)],
    rows: &[(Axis, usize)],
    pad: Option<systole_compiler::expr::Scalar>,
    name: &str,
) -> Result<Place, String> {
    let blocks = block(far, dims, rows);
    let mut near_strides = vec![0; blocks.len()];
    let mut chunk = 1i64;
    for (block, stride) in blocks.iter().zip(&mut near_strides).rev() {
        *stride = chunk;
        chunk *= block.size as i64;
    }
    let dtype = far.operand.dtype;
    let chunks = count(rows).div_ceil(PARTITIONS).max(1);
    let bytes = chunks as u64 * chunk as u64 * dtype.bytes() as u64;
    let buffer = builder.sbuf(bytes, 2, name)?;
    let mut place = Place {
        buffer,
        dtype,
        rows: Rows::from_slice(rows),
        chunk,
        axes: SmallVec::new(),
        origin: 0,
    };
    for (block, &stride) in blocks.iter().zip(&near_strides) {
        if block.step != 1 || block.uses.len() != 1 || block.first != 0 {
            place.origin -= block.first * stride;
        }
        for &(axis, step) in &block.uses {
            match place.axes.iter_mut().find(|(other, _)| *other == axis) {
                Some(own) => own.1 += stride * step,
                None => place.axes.push((axis, stride * step)),
            }
        }
    }
    let inside = inside(far, dims, vars);
    if inside.iter().any(|inside| !inside) {
        let pad = pad.ok_or("a load leaves its operand")?;
        super::map::memset(builder, buffer, dtype, rows, chunk, pad);
    }
    let far_strides = far.strides();
    let set_bytes = PARTITIONS as u64 * chunk as u64 * dtype.bytes() as u64;
    let most = usize::try_from((TRANSFER / set_bytes.max(1)).max(1)).unwrap_or(1);
    for found in row_boxes(rows).into_iter().flat_map(|found| found.cut(most)) {
        let mut walk: Vec<Move> = Vec::new();
        if rows.is_empty() {
            // Every partition holds the same.
            walk.push((PARTITIONS as u32, 0, (1, 0), Vec::new()));
        }
        for &(axis, step, size, partitions, sets) in &found.dims {
            let moves = far.at.iter().enumerate().filter_map(|(dim, at)| {
                let coefficient = at.coefficient(Term::Axis(axis));
                (coefficient != 0).then_some((dim, coefficient * step))
            });
            walk.push((
                size as u32,
                far.stride(axis) * step,
                (partitions, sets * chunk),
                moves.collect(),
            ));
        }
        for (block, &stride) in blocks.iter().zip(&near_strides) {
            let moves = vec![(block.dim, block.step)];
            walk.push((block.size as u32, far_strides[block.dim] * block.step, (0, stride), moves));
        }
        let mut starts: Vec<Index> = far.at.iter().map(|at| vars.index(at)).collect();
        for (dim, (start, at)) in starts.iter_mut().zip(far.at).enumerate() {
            for &(axis, value) in &found.start {
                start.constant += at.coefficient(Term::Axis(axis)) * value;
            }
            for block in blocks.iter().filter(|block| block.dim == dim) {
                start.constant += block.first;
            }
        }
        let near =
            Near { place: &place, partition: found.partition, element: found.chunk as i64 * chunk };
        // Elements that are neighbours in HBM go to partitions of their own: the engines transpose on the way.
        let last = walk.iter().rev().find(|step| step.0 != 1);
        let across = walk.iter().any(|step| step.0 != 1 && step.1 == 1 && step.2.0 != 0);
        let transposes = builder.limits.dma_transposes
            && dtype.bytes() == 2
            && across
            && last.is_some_and(|step| step.1 != 1 && step.2.0 == 0);
        let how = if transposes { How::Transposes } else { How::Loads };
        copy(builder, engine, far, &far_strides, &starts, &inside, walk, &near, how);
    }
    Ok(place)
}

/// Which way a copy goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Loads,
    Transposes,
    Stores,
}

struct Near<'a> {
    place: &'a Place,
    partition: usize,
    element: i64,
}

/// Stores a tile.
pub(crate) fn store(
    builder: &mut Builder<'_>,
    vars: &Vars,
    engine: Engine,
    far: &Far<'_>,
    domain: &Domain,
    place: &Place,
) -> Result<(), String> {
    // Rows along which every partition holds the same are walked like free axes, from any one partition.
    let shared = domain.rows.iter().filter(|row| !place.rows.contains(row));
    let mut order: Vec<(Axis, usize)> = domain.free.iter().chain(shared).copied().collect();
    let dims: Vec<(Axis, usize)> = order.iter().chain(&place.rows).copied().collect();
    let inside = inside(far, &dims, vars);
    let far_strides = far.strides();
    order.sort_by_key(|&(axis, _)| std::cmp::Reverse(far.stride(axis)));
    for found in row_boxes(&place.rows) {
        let mut walk: Vec<Move> = Vec::new();
        let moves = |axis: Axis, step: i64| -> Vec<(usize, i64)> {
            let terms = far.at.iter().enumerate();
            terms
                .filter_map(|(dim, at)| {
                    let coefficient = at.coefficient(Term::Axis(axis));
                    (coefficient != 0).then_some((dim, coefficient * step))
                })
                .collect()
        };
        for &(axis, step, size, partitions, sets) in &found.dims {
            let near = (partitions, sets * place.chunk);
            walk.push((size as u32, far.stride(axis) * step, near, moves(axis, step)));
        }
        for &(axis, size) in &order {
            walk.push((size as u32, far.stride(axis), (0, place.stride(axis)), moves(axis, 1)));
        }
        let mut starts: Vec<Index> = far.at.iter().map(|at| vars.index(at)).collect();
        for (start, at) in starts.iter_mut().zip(far.at) {
            for &(axis, value) in &found.start {
                start.constant += at.coefficient(Term::Axis(axis)) * value;
            }
        }
        let element = place.origin + found.chunk as i64 * place.chunk;
        let near = Near { place, partition: found.partition, element };
        copy(builder, engine, far, &far_strides, &starts, &inside, walk, &near, How::Stores);
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "a copy has two sides")]
fn copy(
    builder: &mut Builder<'_>,
    engine: Engine,
    far: &Far<'_>,
    far_strides: &[i64],
    starts: &[Index],
    inside: &[bool],
    mut walk: Vec<Move>,
    near: &Near<'_>,
    how: How,
) {
    let stores = how == How::Stores;
    walk.retain(|step| step.0 != 1);
    let bounded = inside.iter().any(|inside| !inside);
    if !bounded {
        let mut merged: Vec<Move> = Vec::new();
        for step in walk {
            let size = i64::from(step.0);
            match merged.last_mut() {
                Some(outer)
                    if outer.1 == step.1 * size
                        && outer.2.0 == step.2.0 * size
                        && outer.2.1 == step.2.1 * size =>
                {
                    *outer = (outer.0 * step.0, step.1, step.2, step.3);
                }
                Some(_) | None => merged.push(step),
            }
        }
        walk = merged;
    }
    if walk.is_empty() {
        walk.push((1, 1, (0, 1), Vec::new()));
    }
    let mut offset = Index::default();
    for (start, stride) in starts.iter().zip(far_strides) {
        offset = offset.plus(start, *stride);
    }
    let bounds = inside.iter().enumerate().filter(|(_, inside)| !**inside).map(|(dim, _)| {
        let steps = walk.iter().enumerate().filter_map(|(index, step)| {
            let moved: i64 =
                step.3.iter().filter(|(other, _)| *other == dim).map(|&(_, step)| step).sum();
            (moved != 0).then_some((index as u8, moved))
        });
        Bound {
            at: starts[dim].clone(),
            dims: steps.collect(),
            extent: far.operand.dims[dim].1 as i64,
        }
    });
    let far_side = Side::Far {
        operand: far.index,
        offset,
        strides: walk.iter().map(|step| step.1).collect(),
        bounds: bounds.collect(),
    };
    let reach = |pick: fn(&(i64, i64)) -> i64| -> i64 {
        walk.iter().map(|step| pick(&step.2) * i64::from(step.0 - 1)).sum()
    };
    let (partitions, elements) = (reach(|near| near.0) + 1, reach(|near| near.1) + 1);
    let bytes = near.place.dtype.bytes() as i64;
    let buffer = near.place.buffer;
    let dims = SmallVec::from_slice(&[(1, elements as u32)]);
    let rows = (near.partition as u16, partitions as u16);
    let found = builder.access(buffer, near.place.dtype, near.element * bytes, rows, dims);
    let low = near.element * bytes;
    let touch = builder.region(
        buffer,
        !stores,
        (low as u32, (low + elements * bytes) as u32),
        (rows.0, rows.0 + rows.1),
    );
    let near_side = Side::Near {
        space: Space::Sbuf,
        partition: Index::constant(near.partition as i64),
        offset: found.access.offset,
        steps: walk.iter().map(|step| (step.2.0 as i32, step.2.1 as i32)).collect(),
    };
    let (from, to) = if stores { (near_side, far_side) } else { (far_side, near_side) };
    let dma = Dma {
        dtype: near.place.dtype,
        sizes: walk.iter().map(|step| step.0).collect(),
        from,
        to,
        combine: None,
        indirect: None,
        transpose: how == How::Transposes,
    };
    let mut touches = vec![touch];
    if let Some(buffer) = far.ordered {
        touches.push(builder.region(buffer, stores, (0, 1), (0, 1)));
    }
    builder.dma(engine, dma, touches, &[far.index]);
}
