//! Where tiles lie on the chip, and how instructions walk over them.

use super::tree::{Builder, Ref};
use smallvec::SmallVec;
use systole_compiler::kernel::{Affine, Axis, Dims, Term};
use systole_compiler::types::DType;

use crate::limits::PARTITIONS;

/// Axes that lie on partitions together, the outermost first: positions beyond 128 follow along the free dimensions.
pub(crate) type Rows = SmallVec<[(Axis, usize); 2]>;

/// How many rows a group has.
pub(crate) fn count(rows: &[(Axis, usize)]) -> usize {
    rows.iter().map(|&(_, extent)| extent).product()
}

/// A tile in on-chip memory. The element of row `r` at free positions `p` lies in partition `r % 128`, at
/// `origin + r / 128 · chunk + Σ stride · p`.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) buffer: usize,
    pub(crate) dtype: DType,
    /// Empty where every partition holds the same.
    pub(crate) rows: Rows,
    /// Elements from one set of 128 rows to the next.
    pub(crate) chunk: i64,
    /// Elements from one position to the next along each axis that is free.
    pub(crate) axes: SmallVec<[(Axis, i64); 4]>,
    pub(crate) origin: i64,
}

impl Place {
    /// Elements from one set of rows to the next: none where every partition holds the same.
    pub(crate) fn set(&self) -> i64 {
        if self.rows.is_empty() { 0 } else { self.chunk }
    }

    pub(crate) fn stride(&self, axis: Axis) -> i64 {
        self.axes.iter().find(|(other, _)| *other == axis).map_or(0, |&(_, stride)| stride)
    }
}

/// The positions that an operation walks over: rows, then free axes from the outermost in.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) rows: Rows,
    pub(crate) free: Dims,
}

impl Domain {
    /// The positions of a tile whose rows are those.
    pub(crate) fn of(dims: &[(Axis, usize)], rows: &[(Axis, usize)]) -> Domain {
        let on_rows = |axis: &Axis| rows.iter().any(|(row, _)| row == axis);
        Domain {
            rows: Rows::from_slice(rows),
            free: dims.iter().copied().filter(|(axis, _)| !on_rows(axis)).collect(),
        }
    }

    pub(crate) fn free_count(&self) -> usize {
        self.free.iter().map(|&(_, extent)| extent).product()
    }

    pub(crate) fn chunks(&self) -> usize {
        count(&self.rows).div_ceil(PARTITIONS)
    }
}

/// A part of a domain that instructions cover alike: some sets of rows, and a range of each free axis.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The first set of 128 rows, and how many.
    pub(crate) chunks: (usize, usize),
    /// Rows of each set.
    pub(crate) partitions: usize,
    /// For each free axis of the domain, the first position and how many.
    pub(crate) ranges: SmallVec<[(usize, usize); 4]>,
}

/// The pieces of a whole domain: full sets of rows, then the last one where it is not full.
pub(crate) fn pieces(domain: &Domain) -> Vec<Piece> {
    let rows = count(&domain.rows);
    let ranges: SmallVec<[(usize, usize); 4]> =
        domain.free.iter().map(|&(_, extent)| (0, extent)).collect();
    if domain.rows.is_empty() {
        return vec![Piece { chunks: (0, 1), partitions: PARTITIONS, ranges }];
    }
    let (full, rest) = (rows / PARTITIONS, rows % PARTITIONS);
    let mut found = Vec::new();
    if full > 0 {
        found.push(Piece { chunks: (0, full), partitions: PARTITIONS, ranges: ranges.clone() });
    }
    if rest > 0 {
        found.push(Piece { chunks: (full, 1), partitions: rest, ranges });
    }
    found
}

/// The piece cut so that each part has at most `most` elements in each partition and no place needs more than four
/// dimensions.
pub(crate) fn split(piece: &Piece, domain: &Domain, places: &[&Place], most: usize) -> Vec<Piece> {
    let mut waiting = vec![piece.clone()];
    let mut done = Vec::new();
    while let Some(piece) = waiting.pop() {
        let free: usize =
            piece.ranges.iter().map(|range| range.1).product::<usize>() * piece.chunks.1;
        let deep = dims(&piece, domain, places).first().is_some_and(|dims| dims.len() > 4);
        if free <= most && !deep {
            done.push(piece);
            continue;
        }
        let mut parts = halves(&piece);
        parts.reverse();
        waiting.extend(parts);
    }
    done
}

/// The piece in parts along its outermost dimension that is longer than one; the innermost is cut in multiples of 32.
fn halves(piece: &Piece) -> Vec<Piece> {
    if piece.chunks.1 > 1 {
        return (0..piece.chunks.1)
            .map(|index| Piece { chunks: (piece.chunks.0 + index, 1), ..piece.clone() })
            .collect();
    }
    let Some(place) = piece.ranges.iter().position(|range| range.1 > 1) else {
        return vec![piece.clone()];
    };
    let (first, extent) = piece.ranges[place];
    let half = match extent.div_ceil(2) {
        small if small < 64 => small,
        large => large.div_ceil(32) * 32,
    };
    let cut = |range| {
        let mut part = piece.clone();
        part.ranges[place] = range;
        part
    };
    vec![cut((first, half)), cut((first + half, extent - half))]
}

/// For each place, the strides and sizes that walk over a piece; the same sizes for all.
pub(crate) fn dims(
    piece: &Piece,
    domain: &Domain,
    places: &[&Place],
) -> Vec<SmallVec<[(i32, u32); 4]>> {
    // Strides of all places, by dimension.
    let mut walk: Vec<(u32, SmallVec<[i64; 4]>)> = Vec::new();
    let sizes = std::iter::once((None, piece.chunks.1)).chain(
        domain.free.iter().zip(&piece.ranges).map(|(&(axis, _), range)| (Some(axis), range.1)),
    );
    for (axis, size) in sizes {
        if size == 1 {
            continue;
        }
        let strides: SmallVec<[i64; 4]> = places
            .iter()
            .map(|place| match axis {
                None => place.set(),
                Some(axis) => place.stride(axis),
            })
            .collect();
        let size = u32::try_from(size).expect("tiles are small");
        let merges = walk.last().is_some_and(|(_, outer)| {
            outer.iter().zip(&strides).all(|(outer, inner)| *outer == inner * i64::from(size))
        });
        match walk.last_mut() {
            Some(last) if merges => {
                last.0 *= size;
                last.1 = strides;
            }
            _ => walk.push((size, strides)),
        }
    }
    (0..places.len())
        .map(|place| {
            let dims = walk.iter().map(|(size, strides)| {
                (i32::try_from(strides[place]).expect("tiles are small"), *size)
            });
            let mut dims: SmallVec<[(i32, u32); 4]> = dims.collect();
            if dims.is_empty() {
                dims.push((1, 1));
            }
            dims
        })
        .collect()
}

/// The accesses of several places to one piece, all of the same sizes.
pub(crate) fn accesses(
    builder: &Builder<'_>,
    piece: &Piece,
    domain: &Domain,
    places: &[&Place],
) -> Vec<Ref> {
    let dims = dims(piece, domain, places);
    places
        .iter()
        .zip(dims)
        .map(|(place, dims)| {
            let mut element = place.origin + place.set() * piece.chunks.0 as i64;
            for (&(axis, _), range) in domain.free.iter().zip(&piece.ranges) {
                element += place.stride(axis) * range.0 as i64;
            }
            let partitions = u16::try_from(piece.partitions).expect("at most 128");
            let byte = element * place.dtype.bytes() as i64;
            builder.access(place.buffer, place.dtype, byte, (0, partitions), dims)
        })
        .collect()
}

/// A new tile in SBUF: row-major over its free axes.
pub(crate) fn allocate(
    builder: &mut Builder<'_>,
    domain: &Domain,
    dtype: DType,
    turns: u8,
    name: &str,
) -> Result<Place, String> {
    let mut stride = 1;
    let mut axes: SmallVec<[(Axis, i64); 4]> = SmallVec::new();
    for &(axis, extent) in domain.free.iter().rev() {
        axes.push((axis, stride));
        stride *= extent as i64;
    }
    let chunks = domain.chunks().max(1) as u64;
    let bytes = chunks * stride as u64 * dtype.bytes() as u64;
    let buffer = builder.sbuf(bytes, turns, name)?;
    let rows = domain.rows.clone();
    Ok(Place { buffer, dtype, chunk: stride, rows, axes, origin: 0 })
}

/// A tile seen through a view: `dims` are the axes of the tile that is seen, `at` where each is read.
pub(crate) fn view(
    place: &Place,
    dims: &[(Axis, usize)],
    at: &[Affine],
    seen: &[(Axis, usize)],
) -> Result<Place, String> {
    let mut found = Place { axes: SmallVec::new(), rows: Rows::new(), ..place.clone() };
    let mut strides: Vec<(Axis, i64)> = Vec::new();
    let mut renamed: Vec<(Axis, Axis)> = Vec::new();
    for (&(axis, extent), at) in dims.iter().zip(at) {
        if place.rows.iter().any(|(row, _)| *row == axis) {
            let [(Term::Axis(new), 1)] = at.terms() else {
                return Err("a view moves rows".to_owned());
            };
            let same = seen.iter().any(|&(other, size)| other == *new && size == extent);
            if at.constant != 0 || !same {
                return Err("a view takes part of the rows".to_owned());
            }
            renamed.push((axis, *new));
            continue;
        }
        let stride = place.stride(axis);
        found.origin += stride * at.constant;
        for &(term, coefficient) in at.terms() {
            match term {
                Term::Axis(new) => strides.push((new, stride * coefficient)),
                Term::Var(_) => return Err("a view moves with a loop".to_owned()),
            }
        }
    }
    for &(row, extent) in &place.rows {
        match renamed.iter().find(|(old, _)| *old == row) {
            Some(&(_, new)) => found.rows.push((new, extent)),
            None => return Err("a view drops rows".to_owned()),
        }
    }
    for (axis, stride) in strides {
        if found.rows.iter().any(|(row, _)| *row == axis) {
            return Err("a view reads rows and free positions along one axis".to_owned());
        }
        match found.axes.iter_mut().find(|(other, _)| *other == axis) {
            Some(own) => own.1 += stride,
            None => found.axes.push((axis, stride)),
        }
    }
    Ok(found)
}
