//! Scans and searches along a free axis, on VectorE: one instruction, or a few, for each row of it.

use super::map::{self, charge};
use super::place::{Domain, Piece, Place, accesses, allocate, pieces};
use super::tree::Builder;
use crate::isa::{Alu, Op};
use crate::program::{Engine, Operand1};
use smallvec::SmallVec;
use systole_compiler::expr::{Expr, Scalar};
use systole_compiler::kernel::{Axis, Combine};
use systole_compiler::types::DType;

/// What the search for the eight largest takes.
const SEARCHED: std::ops::RangeInclusive<usize> = 8..=16384;

/// Every piece of a domain with one position along each free axis but `over`, of which it has `range`.
fn lines(domain: &Domain, over: Axis, range: (usize, usize)) -> Vec<Piece> {
    let mut found = Vec::new();
    for piece in pieces(domain) {
        for chunk in piece.chunks.0..piece.chunks.0 + piece.chunks.1 {
            let mut all = vec![Piece { chunks: (chunk, 1), ..piece.clone() }];
            for (at, &(axis, extent)) in domain.free.iter().enumerate() {
                let ranges: Vec<(usize, usize)> = match axis == over {
                    true => vec![range],
                    false => (0..extent).map(|index| (index, 1)).collect(),
                };
                let cut = |piece: &Piece| -> Vec<Piece> {
                    let part = |&range| {
                        let mut part = piece.clone();
                        part.ranges[at] = range;
                        part
                    };
                    ranges.iter().map(part).collect()
                };
                all = all.iter().flat_map(cut).collect();
            }
            found.extend(all);
        }
    }
    found
}

/// Each element combined with all before it along a free axis.
pub(crate) fn scan(
    builder: &mut Builder<'_>,
    combine: Combine,
    (from, to): (&Place, &Place),
    domain: &Domain,
    over: Axis,
    exclusive: bool,
) -> Result<(), String> {
    let Some(&(_, extent)) = domain.free.iter().find(|(axis, _)| *axis == over) else {
        return Err("rows are scanned".to_owned());
    };
    match combine {
        Combine::Sum | Combine::Max | Combine::Min | Combine::Product => {}
        Combine::And | Combine::Or => return Err("bits are combined exactly".to_owned()),
    }
    let identity = combine.identity(DType::F32);
    let mut to = to.clone();
    let mut length = extent;
    if exclusive {
        for piece in lines(domain, over, (0, 1)) {
            let out = accesses(builder, &piece, domain, &[&to]).swap_remove(0);
            let value = Scalar::new(to.dtype, identity.to_f64());
            let op = Op::Memset { out: out.access.clone(), value };
            charge(builder, Engine::Vector, 1.0);
            builder.emit(Engine::Vector, op, &[], &[&out]);
        }
        to.origin += to.stride(over);
        length -= 1;
    }
    if length == 0 {
        return Ok(());
    }
    for piece in lines(domain, over, (0, length)) {
        let found = accesses(builder, &piece, domain, &[from, &to]);
        let op = Op::Scan {
            combine,
            input: found[0].access.clone(),
            initial: Operand1::Immediate(identity.to_f64() as f32),
            out: found[1].access.clone(),
        };
        charge(builder, Engine::Vector, 2.0 * length as f64);
        builder.emit(Engine::Vector, op, &[&found[0]], &[&found[1]]);
    }
    Ok(())
}

/// Where the first extreme element is along a free axis, into `to`, which has the other axes.
pub(crate) fn arg_reduce(
    builder: &mut Builder<'_>,
    vars: &super::vars::Vars,
    combine: Combine,
    (from, to): (&Place, &Place),
    domain: &Domain,
    over: Axis,
) -> Result<(), String> {
    let Some(&(_, extent)) = domain.free.iter().find(|(axis, _)| *axis == over) else {
        return Err("rows are searched".to_owned());
    };
    if !SEARCHED.contains(&extent) {
        return Err(format!("a search among {extent} elements"));
    }
    let mut from = from.clone();
    if combine == Combine::Min {
        // The least is the largest of the negated.
        let negated = allocate(builder, domain, from.dtype, 1, "a negated tile")?;
        for piece in pieces(domain) {
            for part in super::place::split(&piece, domain, &[&from, &negated], 8192) {
                let found = accesses(builder, &part, domain, &[&from, &negated]);
                let (input, out) = (found[0].access.clone(), found[1].access.clone());
                let first = (Alu::Multiply, Operand1::Immediate(-1.0), false);
                charge(builder, Engine::Vector, out.free() as f64);
                let op = Op::TensorScalar { input, first, second: None, out, reduce: None };
                builder.emit(Engine::Vector, op, &[&found[0]], &[&found[1]]);
            }
        }
        from = negated;
    }
    // Eight values and eight places for each search, of which the first are wanted.
    let eight = |domain: &Domain| Domain {
        rows: domain.rows.clone(),
        free: domain
            .free
            .iter()
            .map(|&(axis, size)| if axis == over { (axis, 8) } else { (axis, size) })
            .collect(),
    };
    let results = eight(domain);
    let values = allocate(builder, &results, DType::F32, 1, "the eight largest")?;
    let places = allocate(builder, &results, DType::I32, 1, "where they are")?;
    let searched = lines(domain, over, (0, extent)).into_iter();
    for (line, found) in searched.zip(lines(&results, over, (0, 8))) {
        let input = accesses(builder, &line, domain, &[&from]).swap_remove(0);
        let out = accesses(builder, &found, &results, &[&values, &places]);
        charge(builder, Engine::Vector, 2.0 * extent as f64);
        let op = Op::Max8 { input: input.access.clone(), out: out[0].access.clone() };
        builder.emit(Engine::Vector, op, &[&input], &[&out[0]]);
        let op = Op::FindIndex8 {
            input: input.access.clone(),
            values: out[0].access.clone(),
            out: out[1].access.clone(),
        };
        builder.emit(Engine::Vector, op, &[&input, &out[0]], &[&out[1]]);
    }
    let kept = Domain {
        rows: domain.rows.clone(),
        free: domain
            .free
            .iter()
            .copied()
            .filter(|&(axis, _)| axis != over)
            .collect::<SmallVec<_>>(),
    };
    let mut expr = Expr::new();
    let place = expr.operand(0, DType::I32);
    expr.convert(place, to.dtype);
    map::custom(builder, vars, &kept, &[map::Held::At(places)], &expr, to)
}
