//! What transfers do to data: elements go one to one, with what is poison among them; those outside the bounds stay away.

use super::SimulateError;
use super::values::{Machinery, Step};
use crate::program::{Bound, Dma, Side, Space};
use smallvec::SmallVec;
use systole_compiler::kernel::Combine;
use systole_compiler::narrow;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::{Class, DType};

/// One side of a transfer, resolved: bytes from one position to the next.
struct Resolved {
    memory: Which,
    start: i64,
    strides: SmallVec<[i64; 4]>,
    /// For the bounds: where the tile starts, what each dimension adds, the extent.
    bounds: Vec<(i64, SmallVec<[i64; 4]>, i64)>,
    /// Bytes that the memory has.
    size: i64,
}

#[derive(Clone, Copy)]
enum Which {
    Far(u32),
    Near(Space),
}

impl Machinery<'_> {
    pub(super) fn transfer(&mut self, step: &Step<'_>, dma: &Dma) -> Result<(), SimulateError> {
        let dims = dma.sizes.len();
        let count = dma.sizes.iter().fold(1u64, |all, &n| all.saturating_mul(u64::from(n)));
        if count == 0 {
            return Ok(());
        }
        let from = self.resolve(step, dma, &dma.from)?;
        let to = self.resolve(step, dma, &dma.to)?;
        let rows = match &dma.indirect {
            None => None,
            Some(indirect) => {
                let mut rows = Vec::new();
                for partition in 0..indirect.rows.partitions {
                    let bytes = self.read_raw(step, &indirect.rows, 0, partition)?;
                    rows.extend(narrow::decode(indirect.rows.dtype, &bytes).into_i64());
                }
                if dims == 0 || rows.len() < dma.sizes[0] as usize {
                    return Err(step.wrong(format!(
                        "there are {} row numbers for {} rows",
                        rows.len(),
                        dma.sizes.first().copied().unwrap_or(1)
                    )));
                }
                Some((
                    rows,
                    indirect.stride.saturating_mul(dma.dtype.bytes() as i64),
                    indirect.extent,
                ))
            }
        };
        let inner = dma.sizes.last().copied().unwrap_or(1);
        let outer = count / u64::from(inner);
        let mut positions: SmallVec<[u32; 4]> = SmallVec::from_elem(0, dims);
        for _ in 0..outer {
            let mut starts = [from.start, to.start];
            let mut skipped = false;
            for (side, start) in [&from, &to].into_iter().zip(&mut starts) {
                for (dim, &position) in positions.iter().enumerate() {
                    let far = matches!(side.memory, Which::Far(_));
                    match &rows {
                        Some((rows, stride, extent)) if dim == 0 && far => {
                            let row = rows[position as usize];
                            skipped |= row < 0 || row >= *extent;
                            *start += row.saturating_mul(*stride);
                        }
                        _ => *start += side.strides[dim] * i64::from(position),
                    }
                }
            }
            if !skipped {
                let (mut first, mut end) = (0i64, i64::from(inner));
                for (at, factors, extent) in from.bounds.iter().chain(&to.bounds) {
                    let parts = positions.iter().zip(factors).map(|(&p, &f)| i64::from(p) * f);
                    let at = at + parts.sum::<i64>();
                    let factor = factors.last().copied().unwrap_or(0);
                    let (low, high) = inside(at, factor, *extent, i64::from(inner));
                    first = first.max(low);
                    end = end.min(high);
                }
                if first < end {
                    self.run(step, dma, (&from, &to), starts, first, end)?;
                }
            }
            for dim in (0..dims.saturating_sub(1)).rev() {
                positions[dim] += 1;
                if positions[dim] < dma.sizes[dim] {
                    break;
                }
                positions[dim] = 0;
            }
        }
        Ok(())
    }

    /// Moves the elements `first..end` along the innermost dimension.
    fn run(
        &mut self,
        step: &Step<'_>,
        dma: &Dma,
        (from, to): (&Resolved, &Resolved),
        starts: [i64; 2],
        first: i64,
        end: i64,
    ) -> Result<(), SimulateError> {
        let size = dma.dtype.bytes() as i64;
        let stride = |side: &Resolved| side.strides.last().copied().unwrap_or(size);
        let count = (end - first) as usize;
        for (side, start) in [(from, starts[0]), (to, starts[1])] {
            let ends = [start + first * stride(side), start + (end - 1) * stride(side)];
            let (low, high) = (ends[0].min(ends[1]), ends[0].max(ends[1]) + size);
            if low < 0 || high > side.size {
                return Err(step.wrong(format!(
                    "bytes {low} to {high} are not all inside the {} bytes of {}",
                    side.size,
                    match side.memory {
                        Which::Far(tensor) => {
                            format!("tensor %{}", self.program.tensors[tensor as usize].name)
                        }
                        Which::Near(_) => "the on-chip memory".to_owned(),
                    }
                )));
            }
        }
        let source = (starts[0] + first * stride(from)) as usize;
        let target = (starts[1] + first * stride(to)) as usize;
        let (by, onto) = (stride(from) as isize, stride(to) as isize);
        let bytes = size as usize;
        let Some(block) = self.block(from.memory) else {
            return Err(step.wrong("there is no such tensor"));
        };
        let mut data = Vec::with_capacity(count * bytes);
        let mut poison: Vec<usize> = Vec::new();
        if by == size as isize {
            data.extend_from_slice(&block.bytes[source..source + count * bytes]);
            if block.first_poison(source, count * bytes).is_some() {
                let poisoned =
                    |at: &usize| block.first_poison(source + at * bytes, bytes).is_some();
                poison.extend((0..count).filter(poisoned));
            }
        } else {
            for at in 0..count {
                let place = source.wrapping_add_signed(by * at as isize);
                data.extend_from_slice(&block.bytes[place..place + bytes]);
                if block.written.is_some() && block.first_poison(place, bytes).is_some() {
                    poison.push(at);
                }
            }
        }
        let Some(block) = self.block_mut(to.memory) else {
            return Err(step.wrong("there is no such tensor"));
        };
        if let Some(how) = dma.combine {
            let mut before = Vec::with_capacity(count * bytes);
            for at in 0..count {
                let place = target.wrapping_add_signed(onto * at as isize);
                before.extend_from_slice(&block.bytes[place..place + bytes]);
                if block.first_poison(place, bytes).is_some() {
                    poison.push(at);
                }
            }
            data = combined(how, dma.dtype, &before, &data);
        }
        if onto == size as isize {
            block.bytes[target..target + count * bytes].copy_from_slice(&data);
            block.mark(target, count * bytes);
        } else {
            for (at, element) in data.chunks_exact(bytes).enumerate() {
                let place = target.wrapping_add_signed(onto * at as isize);
                block.bytes[place..place + bytes].copy_from_slice(element);
                block.mark(place, bytes);
            }
        }
        for at in poison {
            block.spoil(target.wrapping_add_signed(onto * at as isize), bytes);
        }
        Ok(())
    }

    fn block(&self, which: Which) -> Option<&super::memory::Block> {
        match which {
            Which::Far(tensor) => self.memory.tensor(tensor),
            Which::Near(space) => Some(self.memory.near(space).0),
        }
    }

    fn block_mut(&mut self, which: Which) -> Option<&mut super::memory::Block> {
        match which {
            Which::Far(tensor) => self.memory.tensor_mut(tensor),
            Which::Near(space) => Some(self.memory.near_mut(space).0),
        }
    }

    fn resolve(&self, step: &Step<'_>, dma: &Dma, side: &Side) -> Result<Resolved, SimulateError> {
        let bytes = dma.dtype.bytes() as i64;
        match side {
            Side::Far { operand, offset, strides, bounds } => {
                let tensor = step.call.operands.get(usize::from(*operand)).copied();
                let tensor = tensor.ok_or_else(|| step.wrong(format!("no operand {operand}")))?;
                let resolve = |bound: &Bound| {
                    let mut factors: SmallVec<[i64; 4]> = SmallVec::from_elem(0, dma.sizes.len());
                    for &(dim, factor) in &bound.dims {
                        if let Some(own) = factors.get_mut(usize::from(dim)) {
                            *own += factor;
                        }
                    }
                    (bound.at.evaluate(step.value), factors, bound.extent)
                };
                let size = self.memory.tensor(tensor).map_or(0, |block| block.bytes.len());
                Ok(Resolved {
                    memory: Which::Far(tensor),
                    start: offset.evaluate(step.value).saturating_mul(bytes),
                    strides: padded(
                        strides.iter().map(|s| s.saturating_mul(bytes)),
                        dma.sizes.len(),
                    ),
                    bounds: bounds.iter().map(resolve).collect(),
                    size: size as i64,
                })
            }
            Side::Near { space, partition, offset, steps } => {
                let (block, row) = self.memory.near(*space);
                let row = row as i64;
                let base = match space {
                    Space::Sbuf => i64::from(step.call.sbuf.0),
                    Space::Psum => i64::from(step.call.psum.0) * self.bank_bytes() as i64,
                };
                let partition = partition.evaluate(step.value);
                let offset = offset.evaluate(step.value).saturating_add(base);
                let (mut rows, mut low, mut high) = ((0i64, 0i64), 0i64, 0i64);
                for (&(by, step), &n) in steps.iter().zip(&dma.sizes) {
                    let far = i64::from(n.saturating_sub(1));
                    rows.0 += (i64::from(by) * far).min(0);
                    rows.1 += (i64::from(by) * far).max(0);
                    low += (i64::from(step) * far).min(0);
                    high += (i64::from(step) * far).max(0);
                }
                let (least, most) = (partition + rows.0, partition + rows.1);
                if least < 0 || most >= self.memory.partitions as i64 {
                    return Err(step.wrong(format!(
                        "partitions {least} to {most} are not all of the {}",
                        self.memory.partitions
                    )));
                }
                let (first, last) = (offset + low * bytes, offset + (high + 1) * bytes);
                if first < 0 || last > row {
                    return Err(step.wrong(format!(
                        "bytes {first} to {last} are not all inside a partition of {row} bytes"
                    )));
                }
                let steps =
                    steps.iter().map(|&(by, step)| i64::from(by) * row + i64::from(step) * bytes);
                Ok(Resolved {
                    memory: Which::Near(*space),
                    start: partition * row + offset,
                    strides: padded(steps, dma.sizes.len()),
                    bounds: Vec::new(),
                    size: block.bytes.len() as i64,
                })
            }
        }
    }
}

fn padded(strides: impl Iterator<Item = i64>, dims: usize) -> SmallVec<[i64; 4]> {
    let mut strides: SmallVec<[i64; 4]> = strides.collect();
    strides.resize(dims, 0);
    strides
}

/// The positions, of `count`, with `0 ≤ at + factor · position < extent`: from the first to below the second.
fn inside(at: i64, factor: i64, extent: i64, count: i64) -> (i64, i64) {
    if factor == 0 {
        return if (0..extent).contains(&at) { (0, count) } else { (0, 0) };
    }
    let up = |value: i64, by: i64| value.div_euclid(by) + i64::from(value.rem_euclid(by) != 0);
    let (first, end) = if factor > 0 {
        (up(-at, factor), up(extent - at, factor))
    } else {
        (up(at - extent + 1, -factor), at.div_euclid(-factor) + 1)
    };
    (first.clamp(0, count), end.clamp(0, count))
}

fn combined(how: Combine, dtype: DType, before: &[u8], data: &[u8]) -> Vec<u8> {
    let function = match how {
        Combine::Sum => ScalarFn::Add,
        Combine::Product => ScalarFn::Mul,
        Combine::Min => ScalarFn::Min,
        Combine::Max => ScalarFn::Max,
        Combine::And => ScalarFn::And,
        Combine::Or => ScalarFn::Or,
    };
    // Sums of bool are "or"; logic of floats has no meaning, and the check of the program rejects it.
    let function = match (dtype.class(), function) {
        (Class::Bool, ScalarFn::Add | ScalarFn::Max) => ScalarFn::Or,
        (Class::Bool, ScalarFn::Mul | ScalarFn::Min) => ScalarFn::And,
        (Class::Float, ScalarFn::And | ScalarFn::Or) => return data.to_vec(),
        (_, function) => function,
    };
    let (x, y) = (narrow::decode(dtype, before), narrow::decode(dtype, data));
    narrow::encode(dtype, &function.evaluate(&[&x, &y]).rounded(dtype))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_inside_are_those_that_counting_finds() {
        for at in -7..8 {
            for factor in -3..4 {
                for extent in 0..6 {
                    let fits = |p: &i64| (0..extent).contains(&(at + factor * p));
                    let wanted: Vec<i64> = (0..5).filter(fits).collect();
                    let (first, end) = inside(at, factor, extent, 5);
                    let found: Vec<i64> = (first..end).collect();
                    assert_eq!(found, wanted, "{at} + {factor} p below {extent}");
                }
            }
        }
    }
}
