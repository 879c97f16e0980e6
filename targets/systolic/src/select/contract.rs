//! Products on the systolic array. The summed axes lie on partitions of both factors; one factor is stationary and gives
//! the rows of the result, the other moves.

use super::map::copy_piece;
use super::place::{Domain, Piece, Place, Rows, allocate, count};
use super::tree::Builder;
use crate::isa::{Op, Pace};
use crate::limits::PARTITIONS;
use crate::program::Engine;
use smallvec::SmallVec;
use systole_compiler::kernel::Axis;
use systole_compiler::types::DType;

/// Parts of the result that are summed at once.
const GROUP: usize = 4;

/// What a product is about.
#[derive(Clone, Debug)]
pub(crate) struct Product {
    /// Summed axes on partitions.
    pub(crate) inner: Rows,
    /// Summed axes that are taken one position after another.
    pub(crate) taps: Rows,
    /// Axes of the stationary factor: the rows of the result.
    pub(crate) rows: Rows,
    /// Axes of the moving factor.
    pub(crate) columns: Rows,
    /// Axes of both.
    pub(crate) batch: Rows,
}

/// A part of a result in PSUM: which part, and where.
pub(crate) type Part = (Piece, Place);

/// What takes parts out of PSUM.
pub(crate) type Evict<'e> = dyn FnMut(&mut Builder<'_>, &[Part]) -> Result<(), String> + 'e;

/// Every position of some axes, the last fastest.
pub(crate) fn positions(axes: &[(Axis, usize)]) -> Vec<Vec<(Axis, usize)>> {
    let mut all = vec![Vec::new()];
    for &(axis, extent) in axes {
        let longer = |known: &Vec<(Axis, usize)>| {
            let known = known.clone();
            (0..extent).map(move |index| {
                let mut known = known.clone();
                known.push((axis, index));
                known
            })
        };
        all = all.iter().flat_map(longer).collect();
    }
    all
}

pub(crate) fn offset(place: &Place, at: &[(Axis, usize)]) -> i64 {
    at.iter().map(|&(axis, index)| place.stride(axis) * index as i64).sum()
}

/// A run of flattened positions along axes: where it starts, and the strides and sizes that walk over it.
type Run = (i64, SmallVec<[(i32, u32); 4]>);

/// The run of `size` positions from `first` on.
fn run(place: &Place, axes: &[(Axis, usize)], first: usize, size: usize) -> Result<Run, String> {
    let inner = count(axes.get(1..).unwrap_or(&[]));
    let mut walk: Vec<(i64, usize)> = Vec::new();
    let start = match axes {
        [] => 0,
        [(axis, _), rest @ ..] => {
            if !first.is_multiple_of(inner) || !size.is_multiple_of(inner) {
                if rest.len() == 1 && first / inner == (first + size - 1) / inner {
                    let row = place.stride(*axis) * (first / inner) as i64;
                    let (start, dims) = run(place, rest, first % inner, size)?;
                    return Ok((row + start, dims));
                }
                return Err("rows of several axes end inside one".to_owned());
            }
            walk.push((place.stride(*axis), size / inner));
            walk.extend(rest.iter().map(|&(axis, extent)| (place.stride(axis), extent)));
            place.stride(*axis) * (first / inner) as i64
        }
    };
    Ok((start, merge(&walk)?))
}

fn merge(walk: &[(i64, usize)]) -> Result<SmallVec<[(i32, u32); 4]>, String> {
    let mut merged: Vec<(i64, usize)> = Vec::new();
    for &(stride, size) in walk.iter().filter(|step| step.1 != 1) {
        match merged.last_mut() {
            Some(outer) if outer.0 == stride * size as i64 => *outer = (stride, outer.1 * size),
            Some(_) | None => merged.push((stride, size)),
        }
    }
    if merged.is_empty() {
        merged.push((1, 1));
    }
    if merged.len() > 4 {
        return Err("an operand has more than four dimensions".to_owned());
    }
    Ok(merged.into_iter().map(|(stride, size)| (stride as i32, size as u32)).collect())
}

/// Blocks of the moving axes: for each axis a range, at most what one product takes together.
fn blocks(columns: &[(Axis, usize)], limit: usize) -> Vec<Vec<(usize, usize)>> {
    let mut inner = 1;
    let mut cut = columns.len();
    while cut > 0 && inner * columns[cut - 1].1 <= limit {
        cut -= 1;
        inner *= columns[cut].1;
    }
    let tail: Vec<(usize, usize)> = columns[cut..].iter().map(|&(_, extent)| (0, extent)).collect();
    if cut == 0 {
        return vec![tail];
    }
    let extent = columns[cut - 1].1;
    let most = (limit / inner).max(1);
    let number = extent.div_ceil(most);
    let size = extent.div_ceil(number);
    let mut found = Vec::new();
    for outer in positions(&columns[..cut - 1]) {
        let mut first = 0;
        while first < extent {
            let mut ranges: Vec<(usize, usize)> =
                outer.iter().map(|&(_, index)| (index, 1)).collect();
            ranges.push((first, size.min(extent - first)));
            ranges.extend(&tail);
            found.push(ranges);
            first += size;
        }
    }
    found
}

/// How many parts a product's result has.
pub(crate) fn part_count(product: &Product, limit: usize) -> usize {
    count(&product.batch)
        * count(&product.rows).div_ceil(PARTITIONS)
        * blocks(&product.columns, limit).len()
}

fn pace(a: DType, b: DType) -> Result<Pace, String> {
    let narrow = |dtype| matches!(dtype, DType::BF16 | DType::F16 | DType::F8E4M3 | DType::F8E5M2);
    match (a, b) {
        (DType::F32, DType::F32) => Ok(Pace::Four),
        (a, b) if narrow(a) && narrow(b) => Ok(Pace::Single),
        (a, b) => Err(format!("a product of {a} and {b}")),
    }
}

/// Emits the product; the parts of its result over the domain lie in PSUM, unless `evict` took them
/// out because their banks are wanted again, which the second result says.
pub(crate) fn contract(
    builder: &mut Builder<'_>,
    product: &Product,
    stationary: &Place,
    moving: &Place,
    domain: &Domain,
    evict: &mut Evict<'_>,
) -> Result<(Vec<Part>, bool), String> {
    let pace = pace(stationary.dtype, moving.dtype)?;
    let limit = builder.limits.product_columns;
    let columns = blocks(&product.columns, limit);
    let rows = count(&product.rows);
    let sums = count(&product.inner).div_ceil(PARTITIONS);
    let taps = positions(&product.taps);
    let number = part_count(product, limit);
    let free = builder.limits.psum_banks - builder.banks_used;
    let pool = number.min(usize::from(free)).min(2 * GROUP);
    if pool == 0 {
        return Err("no bank of PSUM is free".to_owned());
    }
    let pool = if pool < number && pool > GROUP { GROUP * (pool / GROUP) } else { pool };
    let turns = if pool * 2 <= usize::from(free) && pool == number { 2 } else { 1 };
    let banks: Vec<usize> = (0..pool).map(|_| builder.bank(turns)).collect::<Result<_, _>>()?;
    let mut wanted = Vec::new();
    for batch in positions(&product.batch) {
        for chunk in 0..rows.div_ceil(PARTITIONS) {
            for block in &columns {
                wanted.push((batch.clone(), chunk, block.clone()));
            }
        }
    }
    let mut done: Vec<Part> = Vec::new();
    let group = GROUP.min(pool);
    for (round, group) in wanted.chunks(group).enumerate() {
        let mut parts: Vec<Part> = Vec::new();
        for (index, (batch, chunk, block)) in group.iter().enumerate() {
            let bank = banks[(round * GROUP.min(pool) + index) % pool];
            let mut place = Place {
                buffer: bank,
                dtype: DType::F32,
                rows: product.rows.clone(),
                chunk: 0,
                axes: SmallVec::new(),
                origin: 0,
            };
            let mut stride = 1;
            for (&(axis, _), &(first, size)) in product.columns.iter().zip(block).rev() {
                place.axes.push((axis, stride));
                place.origin -= first as i64 * stride;
                stride *= size as i64;
            }
            let range = |axis: Axis| {
                let column = product.columns.iter().position(|&(other, _)| other == axis);
                let in_batch = batch.iter().find(|(other, _)| *other == axis);
                match (column, in_batch) {
                    (Some(column), _) => block[column],
                    (None, Some(&(_, index))) => (index, 1),
                    (None, None) => (0, 1),
                }
            };
            let partitions = (rows - chunk * PARTITIONS).min(PARTITIONS);
            let ranges = domain.free.iter().map(|&(axis, _)| range(axis)).collect();
            parts.push((Piece { chunks: (*chunk, 1), partitions, ranges }, place));
        }
        for sum in 0..sums {
            let depth = (count(&product.inner) - sum * PARTITIONS).min(PARTITIONS);
            for (tap, at) in taps.iter().enumerate() {
                for ((batch, chunk, block), (piece, place)) in group.iter().zip(&parts) {
                    let (first, walk) =
                        run(stationary, &product.rows, chunk * PARTITIONS, piece.partitions)?;
                    let element = stationary.origin
                        + sum as i64 * stationary.chunk
                        + first
                        + offset(stationary, at)
                        + offset(stationary, batch);
                    let bytes = element * stationary.dtype.bytes() as i64;
                    let left = builder.access(
                        stationary.buffer,
                        stationary.dtype,
                        bytes,
                        (0, depth as u16),
                        walk,
                    );
                    let walk: Vec<(i64, usize)> = product
                        .columns
                        .iter()
                        .zip(block)
                        .map(|(&(axis, _), range)| (moving.stride(axis), range.1))
                        .collect();
                    let start: i64 = product
                        .columns
                        .iter()
                        .zip(block)
                        .map(|(&(axis, _), range)| moving.stride(axis) * range.0 as i64)
                        .sum();
                    let element = moving.origin
                        + sum as i64 * moving.chunk
                        + start
                        + offset(moving, at)
                        + offset(moving, batch);
                    let bytes = element * moving.dtype.bytes() as i64;
                    let rows = (0, depth as u16);
                    let right =
                        builder.access(moving.buffer, moving.dtype, bytes, rows, merge(&walk)?);
                    let size: usize = block.iter().map(|range| range.1).product();
                    let dims = SmallVec::from_slice(&[(1, size as u32)]);
                    let rows = (0, piece.partitions as u16);
                    let out = builder.access(place.buffer, DType::F32, 0, rows, dims);
                    let op = Op::Matmul {
                        stationary: left.access.clone(),
                        moving: right.access.clone(),
                        out: out.access.clone(),
                        accumulate: sum + tap > 0,
                        pace,
                        scales: None,
                    };
                    builder.emit(Engine::Tensor, op, &[&left, &right], &[&out]);
                }
            }
        }
        if pool < number {
            evict(builder, &parts)?;
        }
        done.extend(parts);
    }
    Ok((done, pool < number))
}

/// A factor with its summed axes on partitions, from one that has its other axes there, by products with the identity.
pub(crate) fn transpose(
    builder: &mut Builder<'_>,
    product: &Product,
    from: &Place,
    dtype: DType,
) -> Result<Place, String> {
    let rows = count(&from.rows);
    let fixed = product.batch.iter().chain(&product.taps).copied();
    let fixed: Rows = fixed.filter(|step| !from.rows.contains(step)).collect();
    let free: SmallVec<[(Axis, usize); 6]> = fixed.iter().chain(&from.rows).copied().collect();
    let domain = Domain { rows: product.inner.clone(), free };
    let place = allocate(builder, &domain, dtype, 2, "a transposed tile")?;
    let sums = count(&product.inner).div_ceil(PARTITIONS);
    let banks = builder.scratch()?;
    let mut used = 0;
    for at in positions(&fixed) {
        for chunk in 0..rows.div_ceil(PARTITIONS) {
            let width = (rows - chunk * PARTITIONS).min(PARTITIONS);
            let mut sum = 0;
            while sum < sums {
                // Full sets of rows side by side in one bank, moved on together.
                let depth = |sum: usize| (count(&product.inner) - sum * PARTITIONS).min(PARTITIONS);
                let mut number = 1;
                while number * width + width <= builder.limits.psum_bank_bytes as usize / 4
                    && sum + number < sums
                    && depth(sum + number) == depth(sum)
                {
                    number += 1;
                }
                let bank = banks[used % 2];
                used += 1;
                for index in 0..number {
                    let first = (sum + index) * PARTITIONS;
                    let (start, walk) = run(from, &product.inner, first, depth(sum))?;
                    let element =
                        from.origin + chunk as i64 * from.chunk + start + offset(from, &at);
                    let bytes = element * from.dtype.bytes() as i64;
                    let input =
                        builder.access(from.buffer, from.dtype, bytes, (0, width as u16), walk);
                    let dims = SmallVec::from_slice(&[(1, width as u32)]);
                    let bytes = (index * width * DType::F32.bytes()) as i64;
                    let rows = (0, depth(sum) as u16);
                    let out = builder.access(bank, DType::F32, bytes, rows, dims);
                    let op = Op::Transpose { input: input.access.clone(), out: out.access.clone() };
                    builder.emit(Engine::Tensor, op, &[&input], &[&out]);
                }
                let over = Domain {
                    rows: Rows::from_slice(&[(Axis(u32::MAX), depth(sum))]),
                    free: smallvec::smallvec![
                        (Axis(u32::MAX - 1), number),
                        (Axis(u32::MAX - 2), width)
                    ],
                };
                let axes = |outer: i64| {
                    SmallVec::from_slice(&[(Axis(u32::MAX - 1), outer), (Axis(u32::MAX - 2), 1)])
                };
                let start =
                    sum as i64 * place.chunk + offset(&place, &at) + (chunk * PARTITIONS) as i64;
                let source = Place {
                    buffer: bank,
                    dtype: DType::F32,
                    rows: over.rows.clone(),
                    chunk: 0,
                    axes: axes(width as i64),
                    origin: 0,
                };
                let target = Place {
                    buffer: place.buffer,
                    dtype,
                    rows: over.rows.clone(),
                    chunk: 0,
                    axes: axes(place.chunk),
                    origin: start,
                };
                for piece in super::place::pieces(&over) {
                    copy_piece(builder, &piece, &over, &source, &target);
                }
                sum += number;
            }
        }
    }
    Ok(place)
}
