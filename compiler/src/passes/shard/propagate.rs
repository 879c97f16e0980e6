//! Spreads shardings over a function, through every operation and in both directions, until nothing changes. What the
//! program says stays as it is; what two places want of one value in different ways is kept as the first of them wanted
//! it, and reported with both.

use super::rules::{Tie, ties};
use crate::graph::{Function, ValueId};
use crate::mesh::{Mesh, Sharding};
use crate::types::TensorType;

/// Two wishes for one value that do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The value.
    pub value: ValueId,
    /// The dimension.
    pub dim: usize,
    /// How the dimension is cut, and the value whose sharding says so.
    pub kept: (Vec<usize>, ValueId),
    /// How else it was to be cut, and the value whose sharding says so.
    pub declined: (Vec<usize>, ValueId),
}

/// The shardings that a function's values shall have.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// For each value.
    pub(super) shardings: Vec<Sharding>,
    /// For each value, whether the program says so itself.
    pub(super) fixed: Vec<bool>,
    /// What did not go together.
    pub(super) conflicts: Vec<Conflict>,
}

struct Spread<'a> {
    function: &'a Function,
    mesh: &'a Mesh,
    plan: Plan,
    /// For each dimension of each value, where its sharding comes from.
    from: Vec<Vec<ValueId>>,
}

pub(super) fn propagate(function: &Function, mesh: &Mesh) -> Plan {
    let whole = |(_, value): (ValueId, &crate::graph::Value)| Sharding::whole(value.ty.rank());
    let mut spread = Spread {
        function,
        mesh,
        plan: Plan {
            shardings: function.values.iter().map(whole).collect(),
            fixed: vec![false; function.values.len()],
            conflicts: Vec::new(),
        },
        from: function.values.iter().map(|(id, value)| vec![id; value.ty.rank()]).collect(),
    };
    for (&value, sharding) in &function.shardings {
        // Where only the stage is said, the rest is open.
        if sharding.stage.is_none() || !sharding.is_whole() {
            let sharding = Sharding { stage: None, ..sharding.clone() };
            spread.plan.shardings[value.index()] = sharding;
            spread.plan.fixed[value.index()] = true;
        }
    }
    let ties = ties(function);
    loop {
        let mut changed = false;
        for tie in ties.iter().chain(ties.iter().rev()) {
            changed |= spread.tie(tie);
        }
        // Each round cuts a dimension further, and dimensions are only cut so often.
        if !changed {
            return spread.plan;
        }
    }
}

impl Spread<'_> {
    fn tie(&mut self, tie: &Tie) -> bool {
        let mut changed = false;
        for (number, factor) in tie.factors.iter().enumerate() {
            let places: Vec<(ValueId, usize)> = tie
                .values
                .iter()
                .flat_map(|(value, dims)| {
                    let here = dims.iter().enumerate().filter(|(_, of)| **of == Some(number));
                    here.map(|(dim, _)| (*value, dim))
                })
                .collect();
            // The longest wish that the others are a start of; the first where they differ.
            let mut best: Option<(Vec<usize>, ValueId)> = None;
            for &(value, dim) in &places {
                let axes = &self.plan.shardings[value.index()].dims[dim];
                if axes.is_empty() || !factor.size.is_multiple_of(self.mesh.sizes(axes)) {
                    continue;
                }
                let origin = self.from[value.index()][dim];
                match &best {
                    None => best = Some((axes.clone(), origin)),
                    Some((known, _)) if axes.starts_with(known) => {
                        if axes.len() > known.len() {
                            best = Some((axes.clone(), origin));
                        }
                    }
                    Some((known, known_origin)) if !known.starts_with(axes) => {
                        let kept = (axes.clone(), origin);
                        let declined = (known.clone(), *known_origin);
                        self.conflict(Conflict { value, dim, kept, declined });
                    }
                    Some(_) => {}
                }
            }
            let Some((axes, origin)) = best else { continue };
            for (value, dim) in places {
                changed |= self.extend(value, dim, &axes, origin);
            }
        }
        changed
    }

    /// Cuts a dimension as far as `axes` say, where nothing speaks against it.
    fn extend(&mut self, value: ValueId, dim: usize, axes: &[usize], origin: ValueId) -> bool {
        let sharding = &self.plan.shardings[value.index()];
        if self.plan.fixed[value.index()]
            || !axes.starts_with(&sharding.dims[dim])
            || axes.len() == sharding.dims[dim].len()
        {
            return false;
        }
        let ty: &TensorType = self.function.ty(value);
        let elsewhere = |axis: &usize| {
            (0..sharding.dims.len())
                .find(|&other| other != dim && sharding.dims[other].contains(axis))
        };
        if let Some(other) = axes.iter().find_map(elsewhere) {
            let kept = (sharding.dims[other].clone(), self.from[value.index()][other]);
            let declined = (axes.to_vec(), origin);
            self.conflict(Conflict { value, dim, kept, declined });
            return false;
        }
        if !ty.shape[dim].is_multiple_of(self.mesh.sizes(axes)) {
            return false;
        }
        self.plan.shardings[value.index()].dims[dim] = axes.to_vec();
        self.from[value.index()][dim] = origin;
        true
    }

    fn conflict(&mut self, conflict: Conflict) {
        const MOST: usize = 100;
        let known = |other: &Conflict| (other.value, other.dim) == (conflict.value, conflict.dim);
        if self.plan.conflicts.len() < MOST && !self.plan.conflicts.iter().any(known) {
            self.plan.conflicts.push(conflict);
        }
    }
}
