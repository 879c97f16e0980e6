//! Tiles as the evaluator holds them: elements in a block of memory, seen through a base and a step for each axis. A
//! load or a view moves nothing; whoever reads a tile gathers the range it works on.

use super::super::{Axis, Dims};
use crate::expr::Scalar;
use crate::tensor::Values;
use smallvec::SmallVec;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// How many bytes of blocks are alive.
#[derive(Debug, Default)]
pub(super) struct Meter {
    live_bytes: Cell<usize>,
}

/// Elements that count as live memory until they are dropped.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) values: Values,
    bytes: usize,
    meter: Rc<Meter>,
}

impl Meter {
    pub(super) fn live_bytes(&self) -> usize {
        self.live_bytes.get()
    }
}

impl Block {
    pub(super) fn new(values: Values, meter: &Rc<Meter>) -> Block {
        let bytes = values.len() * element_bytes(&values);
        meter.live_bytes.set(meter.live_bytes.get() + bytes);
        Block { values, bytes, meter: Rc::clone(meter) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.meter.live_bytes.set(self.meter.live_bytes.get() - self.bytes);
    }
}

fn element_bytes(values: &Values) -> usize {
    match values {
        Values::Bool(_) => 1,
        Values::F32(_) => 4,
        Values::Int(_) | Values::Uint(_) | Values::F64(_) => 8,
    }
}

/// A tile's elements.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) block: Rc<Block>,
    /// The tile's axes with their extents.
    pub(super) dims: Dims,
    pub(super) base: i64,
    /// For each axis, the distance in the block between neighbours.
    pub(super) steps: SmallVec<[i64; 6]>,
    /// Positions that may lie outside of what the block holds.
    pub(super) checks: SmallVec<[Check; 2]>,
    /// What is read there.
    pub(super) pad: Option<Scalar>,
}

/// A position along one dimension: it lies outside where it is not in `0..size`.
#[derive(Clone, Debug)]
pub(super) struct Check {
    pub(super) size: i64,
    pub(super) base: i64,
    pub(super) steps: SmallVec<[i64; 6]>,
}

/// A way through a block: loops with extents and steps, the outermost first.
#[derive(Debug)]
pub(super) struct Walk {
    extents: SmallVec<[usize; 6]>,
    base: i64,
    steps: SmallVec<[i64; 6]>,
    checks: SmallVec<[Check; 2]>,
}

/// Neighbours in the innermost loop of a [`Walk`].
#[derive(Clone, Debug)]
pub(super) struct Run {
    offset: i64,
    step: i64,
    count: usize,
    /// Those of them that lie inside.
    inside: Range<usize>,
}

impl Source {
    /// A tile whose elements lie row-major in a block of its own.
    pub(super) fn dense(dims: &Dims, values: Values, meter: &Rc<Meter>) -> Source {
        let extents: SmallVec<[usize; 6]> = dims.iter().map(|&(_, extent)| extent).collect();
        Source {
            block: Rc::new(Block::new(values, meter)),
            dims: dims.clone(),
            base: 0,
            steps: crate::types::strides(&extents).iter().map(|&stride| stride as i64).collect(),
            checks: SmallVec::new(),
            pad: None,
        }
    }

    /// A tile with one value everywhere.
    pub(super) fn constant(dims: &Dims, value: Scalar, meter: &Rc<Meter>) -> Source {
        Source {
            block: Rc::new(Block::new(value.values(1), meter)),
            dims: dims.clone(),
            base: 0,
            steps: SmallVec::from_elem(0, dims.len()),
            checks: SmallVec::new(),
            pad: None,
        }
    }

    /// Moves the tile along one dimension: by `base` and, for each axis, `steps` times the dimension's stride.
    pub(super) fn add(&mut self, base: i64, steps: &[i64], stride: i64) {
        self.base = self.base.wrapping_add(base.wrapping_mul(stride));
        for (sum, step) in self.steps.iter_mut().zip(steps) {
            *sum = sum.wrapping_add(step.wrapping_mul(stride));
        }
    }

    /// The step along an axis; zero where the tile does not have it.
    fn step(&self, axis: Axis) -> i64 {
        self.dims.iter().position(|&(other, _)| other == axis).map_or(0, |index| self.steps[index])
    }

    /// The axis along which neighbours lie nearest in memory.
    pub(super) fn nearest(&self) -> Option<Axis> {
        let moving = self.dims.iter().zip(&self.steps);
        moving
            .filter(|((_, extent), step)| *extent > 1 && **step != 0)
            .min_by_key(|(_, step)| step.unsigned_abs())
            .map(|((axis, _), _)| *axis)
    }

    /// The way through the tile with those loops. The tile broadcasts along axes that it lacks.
    pub(super) fn walk(&self, order: &[(Axis, usize)]) -> Walk {
        let mut walk = Walk {
            extents: SmallVec::new(),
            base: self.base,
            steps: SmallVec::new(),
            checks: SmallVec::new(),
        };
        for &(axis, extent) in order {
            let step = self.step(axis);
            // A loop whose neighbours continue the one around it becomes one with it.
            if let (true, Some(outer), Some(outer_step)) =
                (self.checks.is_empty(), walk.extents.last_mut(), walk.steps.last_mut())
                && (*outer == 1 || *outer_step == step.wrapping_mul(extent as i64))
            {
                *outer *= extent;
                *outer_step = step;
                continue;
            }
            walk.extents.push(extent);
            walk.steps.push(step);
        }
        for check in &self.checks {
            let along = |axis| self.dims.iter().position(|&(other, _)| other == axis);
            let step = |&(axis, _): &(Axis, usize)| along(axis).map_or(0, |at| check.steps[at]);
            walk.checks.push(Check { steps: order.iter().map(step).collect(), ..check.clone() });
        }
        if walk.extents.is_empty() {
            walk.extents.push(1);
            walk.steps.push(0);
            walk.checks.iter_mut().for_each(|check| check.steps.push(0));
        }
        walk
    }

    /// The elements of a range of the walk.
    pub(super) fn gather(&self, walk: &Walk, range: Range<usize>) -> Values {
        macro_rules! each {
            ($($class:ident),*) => {
                match &self.block.values {
                    $(Values::$class(elements) => {
                        let pad = match self.pad.map(|pad| pad.values(1)) {
                            Some(Values::$class(pad)) => pad.first().copied(),
                            _ => None,
                        };
                        Values::$class(gather(walk, elements, pad, range))
                    })*
                }
            };
        }
        each!(Bool, Int, Uint, F32, F64)
    }

    /// Every element, in the order of those axes.
    pub(super) fn all(&self, order: &[(Axis, usize)]) -> Values {
        let count = order.iter().map(|&(_, extent)| extent).product();
        self.gather(&self.walk(order), 0..count)
    }
}

impl Walk {
    /// The way through positions `base + Σ step · index`, with those extents.
    pub(super) fn new(
        extents: SmallVec<[usize; 6]>,
        base: i64,
        steps: SmallVec<[i64; 6]>,
        checks: SmallVec<[Check; 2]>,
    ) -> Walk {
        let mut walk = Walk { extents, base, steps, checks };
        if walk.extents.is_empty() {
            walk.extents.push(1);
            walk.steps.push(0);
            walk.checks.iter_mut().for_each(|check| check.steps.push(0));
        }
        walk
    }

    /// The offsets of a range, none of them checked.
    pub(super) fn offsets(&self, range: Range<usize>) -> Vec<i64> {
        let mut offsets = Vec::with_capacity(range.len());
        self.runs(range, |run| {
            let mut offset = run.offset;
            for _ in 0..run.count {
                offsets.push(offset);
                offset = offset.wrapping_add(run.step);
            }
        });
        offsets
    }

    /// Visits a range of positions, counted row-major, in runs along the innermost loop.
    fn runs(&self, range: Range<usize>, mut visit: impl FnMut(Run)) {
        if range.is_empty() {
            return;
        }
        let last = self.extents.len() - 1;
        let mut index: SmallVec<[usize; 6]> = SmallVec::from_elem(0, self.extents.len());
        let mut rest = range.start;
        for axis in (0..=last).rev() {
            index[axis] = rest % self.extents[axis];
            rest /= self.extents[axis];
        }
        let position = |base: i64, steps: &[i64], index: &[usize]| {
            steps.iter().zip(index).fold(base, |position, (&step, &index)| {
                position.wrapping_add(step.wrapping_mul(index as i64))
            })
        };
        let mut left = range.len();
        loop {
            let count = left.min(self.extents[last] - index[last]);
            let mut inside = 0..count;
            for check in &self.checks {
                let first = position(check.base, &check.steps, &index);
                inside = intersect(inside, inside_of(first, check.steps[last], check.size, count));
            }
            let offset = position(self.base, &self.steps, &index);
            visit(Run { offset, step: self.steps[last], count, inside });
            left -= count;
            if left == 0 {
                return;
            }
            index[last] = 0;
            for axis in (0..last).rev() {
                index[axis] += 1;
                if index[axis] < self.extents[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
    }
}

/// The indices below `count` for which `first + step · index` lies in `0..size`.
fn inside_of(first: i64, step: i64, size: i64, count: usize) -> Range<usize> {
    let count = count as i64;
    let (low, high) = match step {
        0 if (0..size).contains(&first) => (0, count),
        0 => (0, 0),
        // The first index whose position is at least 0, and the first whose position is at least `size`.
        1.. => (ceil_div(-first, step), ceil_div(size - first, step)),
        // The first index whose position is below `size`, and the first whose position is below 0.
        _ => (ceil_div(first - size + 1, -step), ceil_div(first + 1, -step)),
    };
    let low = low.clamp(0, count);
    low as usize..high.clamp(low, count) as usize
}

fn ceil_div(dividend: i64, divisor: i64) -> i64 {
    dividend.div_euclid(divisor) + i64::from(dividend.rem_euclid(divisor) != 0)
}

fn intersect(a: Range<usize>, b: Range<usize>) -> Range<usize> {
    let start = a.start.max(b.start);
    start..a.end.min(b.end).max(start)
}

fn gather<T: Copy>(walk: &Walk, elements: &[T], pad: Option<T>, range: Range<usize>) -> Vec<T> {
    let mut gathered = Vec::with_capacity(range.len());
    walk.runs(range, |run| {
        let pad = |count: usize, gathered: &mut Vec<T>| {
            if count > 0 {
                let pad = pad.expect("a verified load without pad stays inside");
                gathered.resize(gathered.len() + count, pad);
            }
        };
        pad(run.inside.start, &mut gathered);
        let count = run.inside.len();
        if count > 0 {
            let offset = run.offset.wrapping_add(run.step.wrapping_mul(run.inside.start as i64));
            match run.step {
                1 => {
                    let start = offset as usize;
                    gathered.extend_from_slice(&elements[start..start + count]);
                }
                0 => gathered.resize(gathered.len() + count, elements[offset as usize]),
                step => {
                    let mut offset = offset;
                    gathered.extend((0..count).map(|_| {
                        let element = elements[offset as usize];
                        offset = offset.wrapping_add(step);
                        element
                    }));
                }
            }
        }
        pad(run.count - run.inside.end, &mut gathered);
    });
    gathered
}

/// Writes values at the positions of the whole walk that lie inside.
pub(super) fn put(walk: &Walk, target: &mut Values, values: &Values) {
    macro_rules! each {
        ($($class:ident),*) => {
            match (target, values) {
                $((Values::$class(target), Values::$class(values)) => put_all(walk, target, values),)*
                (target, _) => unreachable!("a stored tile has the operand's type, not that of {target:?}"),
            }
        };
    }
    each!(Bool, Int, Uint, F32, F64);
}

fn put_all<T: Copy>(walk: &Walk, target: &mut [T], values: &[T]) {
    let mut taken = 0;
    walk.runs(0..values.len(), |run| {
        let values = &values[taken..taken + run.count][run.inside.clone()];
        taken += run.count;
        if values.is_empty() {
            return;
        }
        let mut offset = run.offset.wrapping_add(run.step.wrapping_mul(run.inside.start as i64));
        if run.step == 1 {
            let start = offset as usize;
            target[start..start + values.len()].copy_from_slice(values);
            return;
        }
        for &value in values {
            target[offset as usize] = value;
            offset = offset.wrapping_add(run.step);
        }
    });
}
