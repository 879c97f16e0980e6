//! Products that sum a few positions of each row alone, as a depthwise convolution does: the axes that both factors have lie
//! on partitions, and VectorE adds one summed position after another, with one factor as a number for each row.

use super::map::charge;
use super::place::{Domain, Piece, Place, accesses, pieces, split};
use super::tiling;
use super::tree::{Builder, Ref};
use crate::isa::{Alu, Op};
use crate::program::{Engine, Operand1};
use smallvec::SmallVec;
use systole_compiler::kernel::{Axis, Kernel, TileId};

/// The most summed positions: each is an instruction.
const MOST_SUMMED: usize = 128;

/// The most elements of each partition that one instruction takes.
const LONGEST: usize = 8192;

/// The axes that a product can have on partitions so that each row sums for itself, where that suits it: those that both
/// factors have, where one of the factors has no others but the summed ones.
pub(crate) fn rows(
    kernel: &Kernel,
    product: &(TileId, TileId, TileId, Vec<Axis>),
) -> Option<Vec<Axis>> {
    let [left, right, batch] = tiling::sides(kernel, product);
    let (_, a, b, over) = product;
    let extent = |axis: Axis| {
        let tiles = &kernel.tiles;
        tiles[*a].extent(axis).or_else(|| tiles[*b].extent(axis)).unwrap_or(1)
    };
    let summed: usize = over.iter().map(|&axis| extent(axis)).product();
    let one_sided = left.is_empty() != right.is_empty();
    let suits = one_sided && !batch.is_empty() && !over.is_empty() && summed <= MOST_SUMMED;
    suits.then(|| batch.iter().map(|&(axis, _)| axis).collect())
}

/// Sums into `out`, from what `start` holds or from nothing. `taps` are the summed axes.
pub(crate) fn contract(
    builder: &mut Builder<'_>,
    domain: &Domain,
    taps: &[(Axis, usize)],
    (a, b): (&Place, &Place),
    start: Option<&Place>,
    out: &Place,
) -> Result<(), String> {
    let is_number = |place: &Place| domain.free.iter().all(|&(axis, _)| place.stride(axis) == 0);
    let (tensor, number) = match (is_number(b), is_number(a)) {
        (true, _) => (a, b),
        (false, true) => (b, a),
        (false, false) => return Err("neither factor is a number for each row".to_owned()),
    };
    if [tensor, number].iter().any(|place| place.rows != domain.rows) {
        return Err("a factor has other rows".to_owned());
    }
    let rows_only = Domain { rows: domain.rows.clone(), free: SmallVec::new() };
    for piece in pieces(domain) {
        for chunk in piece.chunks.0..piece.chunks.0 + piece.chunks.1 {
            let part = Piece { chunks: (chunk, 1), ..piece.clone() };
            for part in split(&part, domain, &[tensor, start.unwrap_or(out), out], LONGEST) {
                let row = Piece { ranges: SmallVec::new(), ..part.clone() };
                let mut from = start;
                for at in super::contract::positions(taps) {
                    let moved = |place: &Place| Place {
                        origin: place.origin + super::contract::offset(place, &at),
                        ..place.clone()
                    };
                    let (tensor, number) = (moved(tensor), moved(number));
                    let number = accesses(builder, &row, &rows_only, &[&number]).swap_remove(0);
                    let sum = from.unwrap_or(out);
                    let found = accesses(builder, &part, domain, &[&tensor, sum, out]);
                    let first = (Alu::Multiply, Operand1::Partition(number.access.clone()), false);
                    let input = found[0].access.clone();
                    let result = found[2].access.clone();
                    let elements = result.free() as f64;
                    let op = match from {
                        None => Op::TensorScalar {
                            input,
                            first,
                            second: None,
                            out: result,
                            reduce: None,
                        },
                        Some(_) => Op::ScalarTensorTensor {
                            a: input,
                            first,
                            second: Alu::Add,
                            b: found[1].access.clone(),
                            out: result,
                        },
                    };
                    let mut reads: Vec<&Ref> = vec![&found[0], &number];
                    if from.is_some() {
                        reads.push(&found[1]);
                    }
                    charge(
                        builder,
                        Engine::Vector,
                        elements * if from.is_some() { 2.0 } else { 1.0 },
                    );
                    builder.emit(Engine::Vector, op, &reads, &[&found[2]]);
                    from = Some(out);
                }
            }
        }
    }
    Ok(())
}
