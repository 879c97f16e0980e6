//! Chooses how a nest runs: the order of its loops, which become one, and which is vectorised.

use crate::nest::{Access, Guard, Nest, Node, Sink, loop_term};
use std::cmp::Reverse;
use systole_compiler::kernel::Affine;

/// A nest with its loops in the order in which they run.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// The nest, simplified: no loop has one iteration.
    pub(crate) nest: Nest,
    /// The loops, outermost first.
    pub(crate) order: Vec<usize>,
    /// The loop whose neighbours are computed together.
    pub(crate) vector: Option<usize>,
    /// How many vectors are computed together: a power of two.
    pub(crate) copies: usize,
    /// Positions that what is written must keep within an extent; loops are cut to do so.
    pub(crate) clips: Vec<(Affine, usize)>,
}

/// The bytes between neighbours along a loop, where the dimensions are plain.
pub(crate) fn stride(access: &Access, index: usize) -> i64 {
    let term = loop_term(index);
    let dims: i64 = access
        .dims
        .iter()
        .filter_map(|dim| match dim.digits.as_slice() {
            [digit] if digit.divisor == 1 && digit.modulus.is_none() => {
                Some(dim.position.coefficient(term) * digit.stride)
            }
            _ => None,
        })
        .sum();
    access.offset.coefficient(term) + dims
}

/// Schedules a nest.
pub(crate) fn schedule(mut nest: Nest) -> Schedule {
    drop_single(&mut nest);
    let mut kept: Vec<usize> = (0..nest.extents.len()).collect();
    let mut reduced: Vec<usize> = Vec::new();
    match &nest.sink {
        Sink::Store { .. } => {
            kept.sort_by_key(|&index| Reverse(stride(&nest.to, index).unsigned_abs()));
            kept = collapse(&mut nest, kept);
        }
        Sink::Reduce { over, .. } => {
            reduced.clone_from(over);
            kept.retain(|index| !reduced.contains(index));
            kept.sort_by_key(|&index| Reverse(stride(&nest.to, index).unsigned_abs()));
            kept = collapse(&mut nest, kept);
            reduced = collapse(&mut nest, reduced);
            if let Sink::Reduce { over, .. } = &mut nest.sink {
                over.clone_from(&reduced);
            }
        }
        Sink::ArgReduce { over, .. } | Sink::Scan { over, .. } => {
            kept.retain(|index| index != over);
            reduced.push(*over);
        }
        Sink::Scatter { .. } => {}
    }
    let mut clips = Vec::new();
    for dim in nest.to.dims.iter_mut().filter(|dim| dim.index.is_none()) {
        if std::mem::replace(&mut dim.guard, Guard::None) == Guard::Pad {
            clips.push((dim.position.clone(), dim.extent));
        }
    }
    let mut schedule = choose(nest, kept, reduced);
    schedule.copies = 1 << schedule.copies.max(1).ilog2();
    schedule.clips = clips;
    schedule
}

/// Loops of one iteration go.
fn drop_single(nest: &mut Nest) {
    // The loop of a scan or search stays, so that its sink can name it.
    let named = match nest.sink {
        Sink::ArgReduce { over, .. } | Sink::Scan { over, .. } => Some(over),
        Sink::Store { .. } | Sink::Reduce { .. } | Sink::Scatter { .. } => None,
    };
    let mut number = vec![None; nest.extents.len()];
    let mut extents = Vec::new();
    for (index, &extent) in nest.extents.iter().enumerate() {
        if extent != 1 || named == Some(index) {
            number[index] = Some(extents.len());
            extents.push(extent);
        }
    }
    for affine in nest.affines_mut() {
        *affine = renumber(affine, &number);
    }
    match &mut nest.sink {
        Sink::Reduce { over, .. } => {
            *over = over.iter().filter_map(|&index| number[index]).collect()
        }
        Sink::ArgReduce { over, .. } | Sink::Scan { over, .. } => {
            *over = number[*over].expect("a named loop stays");
        }
        Sink::Store { .. } | Sink::Scatter { .. } => {}
    }
    nest.extents = extents;
}

fn renumber(affine: &Affine, number: &[Option<usize>]) -> Affine {
    let mut result = Affine::constant(affine.constant);
    for &(term, coefficient) in affine.terms() {
        match crate::nest::term_loop(term) {
            None => result = result.plus(&Affine::term(term), coefficient),
            Some(index) => {
                if let Some(index) = number[index] {
                    result = result.plus(&Affine::term(loop_term(index)), coefficient);
                }
            }
        }
    }
    result
}

/// Joins neighbours among `order` whose positions always occur as one: an outer step is as far as all inner ones.
fn collapse(nest: &mut Nest, order: Vec<usize>) -> Vec<usize> {
    let mut result: Vec<usize> = Vec::new();
    for inner in order {
        let Some(&outer) = result.last() else {
            result.push(inner);
            continue;
        };
        let extent = nest.extents[inner] as i64;
        let (outer_term, inner_term) = (loop_term(outer), loop_term(inner));
        let joins = nest.affines_mut().all(|affine| {
            affine.coefficient(inner_term).checked_mul(extent)
                == Some(affine.coefficient(outer_term))
        });
        if !joins || extent == 0 {
            result.push(inner);
            continue;
        }
        for affine in nest.affines_mut() {
            *affine = affine.substitute(outer_term, &Affine::default());
        }
        nest.extents[inner] *= nest.extents[outer];
        nest.extents[outer] = 1;
        result.pop();
        result.push(inner);
    }
    result
}

/// How many accesses along a loop are neither neighbours nor the same element; vectors pay for each.
fn scattered(nest: &Nest, index: usize, with_sink: bool) -> usize {
    let skip = usize::from(!with_sink);
    nest.accesses()
        .skip(skip)
        .filter(|access| {
            let step = stride(access, index);
            let plain = access.dims.iter().all(|dim| dim.index.is_none());
            let bytes = access.dtype.bytes() as i64;
            !(plain && (step == 0 || step == bytes || (step == 8 && bytes == 4)))
                && (access.uses_loop(index) || !plain)
        })
        .count()
}

fn choose(nest: Nest, kept: Vec<usize>, reduced: Vec<usize>) -> Schedule {
    let nodes = nest.nodes.len();
    let plain = |order: Vec<usize>, nest: Nest| Schedule {
        nest,
        order,
        vector: None,
        copies: 1,
        clips: Vec::new(),
    };
    match &nest.sink {
        Sink::Store { .. } => {
            let vector = kept.last().copied().filter(|&index| {
                nest.extents[index] >= 4 && stride(&nest.to, index) == nest.to.dtype.bytes() as i64
            });
            let heavy = nest.nodes.iter().any(|(node, _)| match node {
                Node::Call(function, _) => crate::functions::is_heavy(*function),
                Node::Constant(_) | Node::Index(_) | Node::Load(_) | Node::Convert(_) => false,
            });
            let copies = if heavy || nodes > 24 { 2 } else { 4 };
            let copies = vector.map_or(1, |index| copies.min(nest.extents[index] / 4));
            Schedule { nest, order: kept, vector, copies, clips: Vec::new() }
        }
        Sink::Reduce { accumulate, .. } => {
            let mut order = kept.clone();
            order.extend(&reduced);
            if accumulate.bits() < 32 {
                return plain(order, nest);
            }
            let across = kept.last().copied().filter(|&index| nest.extents[index] >= 4);
            let along = reduced
                .iter()
                .copied()
                .filter(|&index| nest.extents[index] >= 8)
                .min_by_key(|&index| (scattered(&nest, index, false), Reverse(index)));
            let across_cost = across.map(|index| scattered(&nest, index, true));
            let along_cost = along.map(|index| scattered(&nest, index, false));
            let use_across = match (across_cost, along_cost) {
                (None, None) => return plain(order, nest),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(across), Some(along)) => across <= along,
            };
            if use_across {
                let copies = across.map_or(1, |index| (nest.extents[index] / 4).min(4));
                return Schedule { nest, order, vector: across, copies, clips: Vec::new() };
            }
            // The vectorised loop runs innermost.
            let along = along.expect("one of both is there");
            order.retain(|&index| index != along);
            order.push(along);
            let copies = (nest.extents[along] / 4).min(4);
            Schedule { nest, order, vector: Some(along), copies, clips: Vec::new() }
        }
        Sink::ArgReduce { .. } | Sink::Scan { .. } | Sink::Scatter { .. } => {
            let mut order = kept;
            order.extend(&reduced);
            plain(order, nest)
        }
    }
}
