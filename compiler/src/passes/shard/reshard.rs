//! From one sharding to another by the cheapest exchanges: cuts are free, joined parts are scattered where they go, an
//! axis that moves between dimensions is exchanged all to all, and only what is left is gathered.

use crate::kernel::Combine;
use crate::mesh::{Mesh, Sharding};
use crate::types::TensorType;

/// What ranks exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Exchanged {
    AllReduce,
    AllGather,
    ReduceScatter,
    AllToAll,
    Permute,
}

/// What an exchange costs. The partitioner only compares sums of these.
pub trait Cost {
    /// The cost of an exchange among ranks that differ in `axes`, each of which gives `bytes`.
    fn cost(&self, what: Exchanged, bytes: usize, axes: &[usize], mesh: &Mesh) -> f64;
}

/// The bytes that each rank sends, by algorithms that send no more than they must.
#[derive(Clone, Copy, Debug, Default)]
pub struct BytesSent;

impl Cost for BytesSent {
    fn cost(&self, what: Exchanged, bytes: usize, axes: &[usize], mesh: &Mesh) -> f64 {
        let (bytes, ranks) = (bytes as f64, mesh.sizes(axes) as f64);
        match what {
            Exchanged::AllReduce => 2.0 * bytes * (ranks - 1.0) / ranks,
            Exchanged::ReduceScatter | Exchanged::AllToAll => bytes * (ranks - 1.0) / ranks,
            Exchanged::AllGather => bytes * (ranks - 1.0),
            Exchanged::Permute => bytes,
        }
    }
}

/// One step from a sharding to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Move {
    /// Every rank keeps its part.
    Cut { dim: usize, axis: usize },
    /// Partial results are joined on all ranks.
    AllReduce { combine: Combine, axes: Vec<usize> },
    /// Partial results are joined, each rank gets its part.
    ReduceScatter { combine: Combine, dim: usize, axis: usize },
    /// Parts become whole.
    Gather { dim: usize, axis: usize },
    /// Parts along one dimension become parts along another.
    AllToAll { from: usize, to: usize, axis: usize },
}

/// The steps; `None` where there are none, because a value that is whole cannot become partial.
pub(super) fn moves(from: &Sharding, to: &Sharding) -> Option<Vec<Move>> {
    let mut now = from.clone();
    let mut found = Vec::new();
    let stays = |axis: &usize| to.partial_axes().contains(axis);
    if let Some(wanted) = &to.partial {
        let given = from.partial.as_ref().filter(|given| given.combine == wanted.combine)?;
        if !wanted.axes.iter().all(|axis| given.axes.contains(axis)) {
            return None;
        }
    }
    loop {
        // The axis that a dimension wants next, where it has all before it.
        let next = |now: &Sharding, dim: usize| {
            let (have, want) = (&now.dims[dim], &to.dims[dim]);
            (want.len() > have.len() && want.starts_with(have)).then(|| want[have.len()])
        };
        let wants: Vec<(usize, usize)> =
            (0..now.dims.len()).filter_map(|dim| next(&now, dim).map(|axis| (dim, axis))).collect();
        if let Some(&(dim, axis)) = wants.iter().find(|(_, axis)| !now.uses(*axis)) {
            now.dims[dim].push(axis);
            found.push(Move::Cut { dim, axis });
            continue;
        }
        if let Some(partial) = &mut now.partial {
            let combine = partial.combine;
            if let Some(&(dim, axis)) = wants.iter().find(|(_, axis)| partial.axes.contains(axis)) {
                partial.axes.retain(|other| *other != axis);
                now.dims[dim].push(axis);
                found.push(Move::ReduceScatter { combine, dim, axis });
            } else {
                let axes: Vec<usize> =
                    partial.axes.iter().copied().filter(|axis| !stays(axis)).collect();
                if !axes.is_empty() {
                    partial.axes.retain(stays);
                    found.push(Move::AllReduce { combine, axes });
                } else if remove(&mut now, to, &wants, &mut found).is_none() {
                    return Some(found);
                }
            }
            if now.partial.as_ref().is_some_and(|partial| partial.axes.is_empty()) {
                now.partial = None;
            }
            continue;
        }
        if remove(&mut now, to, &wants, &mut found).is_none() {
            return Some(found);
        }
    }
}

/// Takes an axis from a dimension that has too many; `None` where none has.
fn remove(
    now: &mut Sharding,
    to: &Sharding,
    wants: &[(usize, usize)],
    found: &mut Vec<Move>,
) -> Option<()> {
    let too_many =
        |dim: &usize| !to.dims[*dim].starts_with(&now.dims[*dim]) && !now.dims[*dim].is_empty();
    let candidates: Vec<usize> = (0..now.dims.len()).filter(too_many).collect();
    for &from in &candidates {
        let axis = *now.dims[from].last()?;
        if let Some(&(dim, _)) = wants.iter().find(|(_, wanted)| *wanted == axis) {
            now.dims[from].pop();
            now.dims[dim].push(axis);
            found.push(Move::AllToAll { from, to: dim, axis });
            return Some(());
        }
    }
    let &dim = candidates.first()?;
    let axis = now.dims[dim].pop()?;
    found.push(Move::Gather { dim, axis });
    Some(())
}

/// The cost of going from one sharding to another; `None` where that cannot be.
pub(super) fn price(
    from: &Sharding,
    to: &Sharding,
    whole: &TensorType,
    mesh: &Mesh,
    cost: &dyn Cost,
) -> Option<f64> {
    let mut bytes = from.part(whole, mesh).bytes();
    let mut sum = 0.0;
    for step in moves(from, to)? {
        let (what, axes, after) = match &step {
            Move::Cut { axis, .. } => {
                bytes /= mesh.size(*axis);
                continue;
            }
            Move::AllReduce { axes, .. } => (Exchanged::AllReduce, axes.clone(), bytes),
            Move::ReduceScatter { axis, .. } => {
                (Exchanged::ReduceScatter, vec![*axis], bytes / mesh.size(*axis))
            }
            Move::Gather { axis, .. } => {
                (Exchanged::AllGather, vec![*axis], bytes.saturating_mul(mesh.size(*axis)))
            }
            Move::AllToAll { axis, .. } => (Exchanged::AllToAll, vec![*axis], bytes),
        };
        sum += cost.cost(what, bytes, &axes, mesh);
        bytes = after;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(from: &str, to: &str, expected: &[Move]) {
        let mesh = Mesh::new(&[("dp", 2), ("tp", 2)]);
        let read = |text| Sharding::parse(text, &mesh).expect("it is a sharding");
        assert_eq!(moves(&read(from), &read(to)).as_deref(), Some(expected), "{from} to {to}");
    }

    #[test]
    fn the_cheapest_exchange_is_taken() {
        let sum = Combine::Sum;
        check("{dp, _}", "{dp, _}", &[]);
        check(
            "{_, _}",
            "{dp, tp}",
            &[Move::Cut { dim: 0, axis: 0 }, Move::Cut { dim: 1, axis: 1 }],
        );
        check("{_, sum(tp)}", "{_}", &[Move::AllReduce { combine: sum, axes: vec![1] }]);
        check("{_, sum(tp)}", "{tp}", &[Move::ReduceScatter { combine: sum, dim: 0, axis: 1 }]);
        check("{_, sum(dp, tp)}", "{_}", &[Move::AllReduce { combine: sum, axes: vec![0, 1] }]);
        check("{tp, _}", "{_, tp}", &[Move::AllToAll { from: 0, to: 1, axis: 1 }]);
        check(
            "{(dp, tp)}",
            "{tp}",
            &[
                Move::Gather { dim: 0, axis: 1 },
                Move::Gather { dim: 0, axis: 0 },
                Move::Cut { dim: 0, axis: 1 },
            ],
        );
        check(
            "{tp, _}",
            "{dp, _}",
            &[Move::Gather { dim: 0, axis: 1 }, Move::Cut { dim: 0, axis: 0 }],
        );
    }

    #[test]
    fn what_is_whole_does_not_become_partial() {
        let whole = Sharding::whole(1);
        let mesh = Mesh::new(&[("tp", 2)]);
        let partial = Sharding::parse("{_, sum(tp)}", &mesh).expect("it is a sharding");
        assert_eq!(moves(&whole, &partial), None);
    }
}
