//! Variables of a kernel as registers of the sequencers.

use crate::program::{self, Index, Var};
use systole_compiler::kernel::{Affine, Kernel, Term, VarId};

/// Registers and ranges of a kernel's variables.
#[derive(Debug)]
pub(crate) struct Vars {
    found: Vec<(Option<Var>, (i64, i64))>,
}

impl Vars {
    /// The scalar parameters come first, in order.
    pub(crate) fn of(kernel: &Kernel) -> Vars {
        let mut found = vec![(None, (0, 0)); kernel.vars.len()];
        for (position, (var, low, high)) in kernel.scalars().into_iter().enumerate() {
            let register = Var(u16::try_from(position).unwrap_or(u16::MAX));
            found[var.index()] = (Some(register), (low, high));
        }
        Vars { found }
    }

    pub(crate) fn set(&mut self, var: VarId, register: Var, range: (i64, i64)) {
        self.found[var.index()] = (Some(register), range);
    }

    pub(crate) fn range(&self, var: VarId) -> (i64, i64) {
        self.found[var.index()].1
    }

    pub(crate) fn register(&self, var: VarId) -> Option<Var> {
        self.found[var.index()].0
    }

    /// The part of an expression that does not vary with axes.
    pub(crate) fn index(&self, at: &Affine) -> Index {
        let mut index = Index::constant(at.constant);
        for &(term, coefficient) in at.terms() {
            if let Term::Var(var) = term
                && let Some(register) = self.found[var.index()].0
            {
                let one = Index {
                    constant: 0,
                    terms: smallvec::smallvec![(program::Term::Var(register), 1)],
                };
                index = index.plus(&one, coefficient);
            }
        }
        index
    }

    /// The least and greatest value of an expression of variables.
    pub(crate) fn range_of(&self, at: &Affine) -> (i64, i64) {
        at.range(|term| match term {
            Term::Var(var) => self.range(var),
            Term::Axis(_) => (0, 0),
        })
    }
}
