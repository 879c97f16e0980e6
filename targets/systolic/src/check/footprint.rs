//! Which bytes an instruction touches, as boxes: some partitions times runs of bytes at strides.

use super::stream::{Values, gcd};
use crate::program::{Access, Bound, Dma, Side};
use smallvec::SmallVec;

/// Partitions `first..end`, and in each the runs of `run` bytes from `start`, repeated along `dims`. A tensor in HBM has
/// one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) first: i64,
    pub(super) end: i64,
    pub(super) start: i64,
    pub(super) run: i64,
    /// Bytes from one repetition to the next, and how many there are; sizes are at least 2.
    pub(super) dims: SmallVec<[(i64, i64); 4]>,
}

pub(super) type Regions = SmallVec<[Region; 1]>;

impl Region {
    fn new(partitions: (i64, i64), start: i64, element: i64, dims: &[(i64, i64)]) -> Region {
        let mut kept: SmallVec<[(i64, i64); 4]> =
            dims.iter().copied().filter(|&(_, size)| size > 1).collect();
        let mut run = element;
        while let Some(&(stride, size)) = kept.last()
            && stride == run
        {
            run = run.saturating_mul(size);
            kept.pop();
        }
        Region { first: partitions.0, end: partitions.1, start, run, dims: kept }
    }

    /// The least byte, and one past the greatest.
    pub(super) fn hull(&self) -> (i64, i64) {
        let (mut low, mut high) = (self.start, self.start.saturating_add(self.run));
        for &(stride, size) in &self.dims {
            let reach = stride.saturating_mul(size - 1);
            if reach < 0 {
                low = low.saturating_add(reach);
            } else {
                high = high.saturating_add(reach);
            }
        }
        (low, high)
    }

    /// A number of bytes that divides every start and length in it.
    pub(super) fn granule(&self, with: u64) -> u64 {
        let mut common = gcd(with, self.start.unsigned_abs());
        common = gcd(common, self.run.unsigned_abs());
        self.dims.iter().fold(common, |common, &(stride, _)| gcd(common, stride.unsigned_abs()))
    }

    /// Calls with the start of every run.
    pub(super) fn each_run(&self, visit: &mut impl FnMut(i64)) {
        fn walk(dims: &[(i64, i64)], start: i64, visit: &mut impl FnMut(i64)) {
            match dims {
                [] => visit(start),
                [(stride, size), rest @ ..] => {
                    for position in 0..*size {
                        walk(rest, start + stride * position, visit);
                    }
                }
            }
        }
        walk(&self.dims, self.start, visit);
    }

    /// Whether it covers the other's hull in both directions.
    pub(super) fn spans(&self, other: &Region) -> bool {
        let (low, high) = self.hull();
        let (other_low, other_high) = other.hull();
        self.first <= other.first && other.end <= self.end && low <= other_low && other_high <= high
    }
}

/// What a compute instruction's operand touches.
pub(super) fn of_access(access: &Access, values: &Values) -> Regions {
    let element = access.dtype.bytes() as i64;
    let first = values.of(&access.partition);
    let mut dims: SmallVec<[(i64, i64); 4]> = SmallVec::new();
    for &(stride, size) in &access.dims {
        if size == 0 {
            return Regions::new();
        }
        if stride != 0 {
            dims.push((i64::from(stride) * element, i64::from(size)));
        }
    }
    let end = first + i64::from(access.partitions);
    let region = Region::new((first, end), values.of(&access.offset), element, &dims);
    if end > first { SmallVec::from_elem(region, 1) } else { Regions::new() }
}

/// What a DMA's two sides touch: from, to. Positions outside the bounds of either side are left out of both.
pub(super) fn of_dma(dma: &Dma, values: &Values) -> (Regions, Regions) {
    let mut sides = (Regions::new(), Regions::new());
    let bounds: SmallVec<[(i64, &Bound); 2]> = [&dma.from, &dma.to]
        .into_iter()
        .filter_map(|side| match side {
            Side::Far { bounds, .. } => Some(bounds),
            Side::Near { .. } => None,
        })
        .flatten()
        .map(|bound| (values.of(&bound.at), bound))
        .collect();
    let box_of: SmallVec<[(i64, i64); 4]> =
        dma.sizes.iter().map(|&size| (0, i64::from(size))).collect();
    clip(dma, values, &bounds, box_of, &mut sides);
    sides
}

/// Cuts the box of positions by the bounds; where a bound takes several dimensions, the first of them is counted out.
fn clip(
    dma: &Dma,
    values: &Values,
    bounds: &[(i64, &Bound)],
    mut positions: SmallVec<[(i64, i64); 4]>,
    sides: &mut (Regions, Regions),
) {
    for &(at, bound) in bounds {
        let mut base = at;
        let mut free: SmallVec<[(usize, i64); 2]> = SmallVec::new();
        for &(dim, coefficient) in &bound.dims {
            let Some(&(low, high)) = positions.get(usize::from(dim)) else { continue };
            if high - low == 1 {
                base += coefficient * low;
            } else if coefficient != 0 {
                free.push((usize::from(dim), coefficient));
            }
        }
        match free.as_slice() {
            [] if (0..bound.extent).contains(&base) => {}
            [] => return,
            &[(dim, coefficient)] => {
                let (low, high) = positions[dim];
                // 0 <= base + coefficient * position < extent
                let last = bound.extent - 1;
                let (least, most) = if coefficient > 0 {
                    (div_ceil(-base, coefficient), (last - base).div_euclid(coefficient))
                } else {
                    (div_ceil(base - last, -coefficient), base.div_euclid(-coefficient))
                };
                positions[dim] = (low.max(least), high.min(most + 1));
                if positions[dim].0 >= positions[dim].1 {
                    return;
                }
            }
            &[(dim, _), ..] => {
                let (low, high) = positions[dim];
                for position in low..high {
                    let mut one = positions.clone();
                    one[dim] = (position, position + 1);
                    clip(dma, values, bounds, one, sides);
                }
                return;
            }
        }
    }
    if positions.iter().any(|&(low, high)| low >= high) {
        return;
    }
    let indirect = dma.indirect.as_ref().map(|indirect| (indirect.stride, indirect.extent));
    push_side(&dma.from, dma, values, &positions, indirect, &mut sides.0);
    push_side(&dma.to, dma, values, &positions, indirect, &mut sides.1);
}

fn div_ceil(a: i64, b: i64) -> i64 {
    -((-a).div_euclid(b))
}

fn push_side(
    side: &Side,
    dma: &Dma,
    values: &Values,
    positions: &[(i64, i64)],
    indirect: Option<(i64, i64)>,
    into: &mut Regions,
) {
    let element = dma.dtype.bytes() as i64;
    match side {
        Side::Far { offset, strides, .. } => {
            let mut start = values.of(offset);
            let mut dims: SmallVec<[(i64, i64); 4]> = SmallVec::new();
            for (dim, (&(low, high), &stride)) in positions.iter().zip(strides).enumerate() {
                match indirect {
                    // Any row may be meant.
                    Some((rows, extent)) if dim == 0 => {
                        if extent <= 0 {
                            return;
                        }
                        dims.push((rows.saturating_mul(element), extent));
                    }
                    Some(_) | None => {
                        start = start.saturating_add(stride.saturating_mul(low));
                        if stride != 0 {
                            dims.push((stride.saturating_mul(element), high - low));
                        }
                    }
                }
            }
            dims.sort_by_key(|&(stride, _)| std::cmp::Reverse(stride.unsigned_abs()));
            into.push(Region::new((0, 1), start.saturating_mul(element), element, &dims));
        }
        Side::Near { partition, offset, steps, .. } => {
            let at = (values.of(partition), values.of(offset));
            near(positions, steps, element, at, &mut SmallVec::new(), into);
        }
    }
}

/// Dimensions that move through partitions are counted out, but one that moves by single partitions.
fn near(
    positions: &[(i64, i64)],
    steps: &[(i32, i32)],
    element: i64,
    (partition, offset): (i64, i64),
    dims: &mut SmallVec<[(i64, i64); 4]>,
    into: &mut Regions,
) {
    let mut range = (partition, partition + 1);
    let mut offset = offset;
    let before = dims.len();
    for (at, (&(low, high), &(down, along))) in positions.iter().zip(steps).enumerate() {
        let (down, along) = (i64::from(down), i64::from(along) * element);
        if down == 0 {
            offset += along * low;
            if along != 0 {
                dims.push((along, high - low));
            }
        } else if along == 0 && down == 1 && range.1 - range.0 == 1 {
            range = (range.0 + low, range.0 + high);
        } else {
            for position in low..high {
                let to = (range.0 + down * position, offset + along * position);
                let mut inner: SmallVec<[(i64, i64); 4]> = dims.clone();
                if range.1 - range.0 > 1 {
                    for row in 0..range.1 - range.0 {
                        let to = (to.0 + row, to.1);
                        near(
                            &positions[at + 1..],
                            &steps[at + 1..],
                            element,
                            to,
                            &mut inner.clone(),
                            into,
                        );
                    }
                } else {
                    near(&positions[at + 1..], &steps[at + 1..], element, to, &mut inner, into);
                }
            }
            dims.truncate(before);
            return;
        }
    }
    let mut sorted = dims.clone();
    sorted.sort_by_key(|&(stride, _)| std::cmp::Reverse(stride.unsigned_abs()));
    into.push(Region::new(range, offset, element, &sorted));
    dims.truncate(before);
}
