//! Gather and scatter: positions that values give.

use super::super::{Affine, Combine, Dims, Operand, TileId};
use super::Context;
use super::source::{Source, Walk};
use crate::evaluate::EvaluateError;
use crate::scalar::Arithmetic;
use crate::tensor::Values;
use smallvec::SmallVec;
use std::ops::Range;

/// Positions that are worked on at once.
const CHUNK: usize = 2048;

/// Where elements lie in an operand: an affine part for each dimension, and for some an index tile.
pub(super) struct Positions<'a> {
    sizes: SmallVec<[i64; 6]>,
    affine: Vec<Walk>,
    index: Vec<Option<(&'a Source, Walk)>>,
}

impl<'a> Positions<'a> {
    pub(super) fn new(
        context: &Context<'_>,
        operand: &Operand,
        at: &[Affine],
        index: &[(usize, TileId)],
        dims: &Dims,
        tile: impl Fn(TileId) -> &'a Source,
    ) -> Positions<'a> {
        let extents: SmallVec<[usize; 6]> = dims.iter().map(|&(_, extent)| extent).collect();
        let affine = at.iter().map(|at| {
            let (base, steps) = context.steps(at, dims);
            Walk::new(extents.clone(), base, steps, SmallVec::new())
        });
        let index = (0..at.len()).map(|dim| {
            let &(_, id) = index.iter().find(|&&(other, _)| other == dim)?;
            let source = tile(id);
            Some((source, source.walk(dims)))
        });
        Positions {
            sizes: operand.dims.iter().map(|&(_, size)| size as i64).collect(),
            affine: affine.collect(),
            index: index.collect(),
        }
    }

    /// For each element of a range, the place in the row-major operand: clamped into it, or nothing outside.
    fn places(&self, range: Range<usize>, clamp: bool) -> Vec<Option<usize>> {
        let mut places = vec![Some(0); range.len()];
        for (dim, &size) in self.sizes.iter().enumerate() {
            let mut positions = self.affine[dim].offsets(range.clone());
            if let Some((source, walk)) = &self.index[dim] {
                let index = clamped_to_i64(source.gather(walk, range.clone()));
                positions.iter_mut().zip(index).for_each(|(position, index)| {
                    *position = position.saturating_add(index);
                });
            }
            for (place, position) in places.iter_mut().zip(positions) {
                let position = if clamp { position.clamp(0, (size - 1).max(0)) } else { position };
                let inside = (0..size).contains(&position);
                *place =
                    place.filter(|_| inside).map(|place| place * size as usize + position as usize);
            }
        }
        places
    }
}

fn clamped_to_i64(values: Values) -> Vec<i64> {
    match values {
        Values::Uint(values) => {
            values.into_iter().map(|value| i64::try_from(value).unwrap_or(i64::MAX)).collect()
        }
        Values::Bool(_) | Values::Int(_) | Values::F32(_) | Values::F64(_) => values.into_i64(),
    }
}

/// The operand's elements at clamped positions; `count` of them.
pub(super) fn gather(
    context: &Context<'_>,
    elements: &Values,
    positions: &Positions<'_>,
    count: usize,
) -> Result<Values, EvaluateError> {
    fn pick<T: Copy + Default>(
        context: &Context<'_>,
        elements: &[T],
        positions: &Positions<'_>,
        count: usize,
    ) -> Result<Vec<T>, EvaluateError> {
        let mut picked = Vec::with_capacity(count);
        for start in (0..count).step_by(CHUNK) {
            context.check_cancelled()?;
            let places = positions.places(start..count.min(start + CHUNK), true);
            // An operand without elements has nothing to clamp to.
            picked.extend(places.iter().map(|place| place.map_or(T::default(), |at| elements[at])));
        }
        Ok(picked)
    }
    Ok(match elements {
        Values::Bool(elements) => Values::Bool(pick(context, elements, positions, count)?),
        Values::Int(elements) => Values::Int(pick(context, elements, positions, count)?),
        Values::Uint(elements) => Values::Uint(pick(context, elements, positions, count)?),
        Values::F32(elements) => Values::F32(pick(context, elements, positions, count)?),
        Values::F64(elements) => Values::F64(pick(context, elements, positions, count)?),
    })
}

/// Writes or combines values at their positions, one after another; those outside are ignored.
pub(super) fn scatter(
    context: &Context<'_>,
    target: &mut Values,
    operand: &Operand,
    positions: &Positions<'_>,
    values: &Values,
    combine: Option<Combine>,
) -> Result<(), EvaluateError> {
    for start in (0..values.len()).step_by(CHUNK) {
        context.check_cancelled()?;
        let range = start..values.len().min(start + CHUNK);
        let places = positions.places(range.clone(), false);
        macro_rules! each {
            ($($class:ident => $rust:ty),*) => {
                match (&mut *target, values) {
                    $((Values::$class(target), Values::$class(values)) => {
                        let pair = combine.map(|combine| {
                            <$rust>::pair(combine.function()).expect("a verified scatter's type has the function")
                        });
                        for (place, &value) in places.iter().zip(&values[range]) {
                            let Some(place) = *place else { continue };
                            target[place] = match pair {
                                None => value,
                                Some(pair) => {
                                    let joined = Values::$class(vec![pair(target[place], value)]);
                                    match joined.rounded(operand.dtype) {
                                        Values::$class(joined) => joined[0],
                                        other => unreachable!("rounding keeps the arithmetic, not {other:?}"),
                                    }
                                }
                            };
                        }
                    })*
                    (target, _) => unreachable!("a scattered tile has the operand's type, not that of {target:?}"),
                }
            };
        }
        each!(Bool => bool, Int => i64, Uint => u64, F32 => f32, F64 => f64);
    }
    Ok(())
}
