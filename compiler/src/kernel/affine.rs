//! Affine expressions over axes, loop variables and ranged scalars: `2*h + r + %i - 1`. Terms are sorted and no
//! coefficient is zero, so equal expressions are equal values.

use super::{Axis, VarId};
use smallvec::SmallVec;

/// What an affine expression varies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Term {
    /// The position along an axis of the tile.
    Axis(Axis),
    /// A loop variable or ranged scalar parameter.
    Var(VarId),
}

/// A sum of terms with integer coefficients, and a constant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Affine {
    terms: SmallVec<[(Term, i64); 2]>,
    /// What is added to the terms.
    pub constant: i64,
}

impl Affine {
    /// A constant.
    pub fn constant(constant: i64) -> Affine {
        Affine { terms: SmallVec::new(), constant }
    }

    /// One term alone.
    pub fn term(term: Term) -> Affine {
        Affine { terms: SmallVec::from_slice(&[(term, 1)]), constant: 0 }
    }

    /// The position along an axis.
    pub fn axis(axis: Axis) -> Affine {
        Affine::term(Term::Axis(axis))
    }

    /// A variable.
    pub fn var(var: VarId) -> Affine {
        Affine::term(Term::Var(var))
    }

    /// The terms with their coefficients, sorted, none zero.
    pub fn terms(&self) -> &[(Term, i64)] {
        &self.terms
    }

    /// The coefficient of a term; zero where it does not occur.
    pub fn coefficient(&self, term: Term) -> i64 {
        self.terms
            .iter()
            .find(|(other, _)| *other == term)
            .map_or(0, |&(_, coefficient)| coefficient)
    }

    /// The sum with `coefficient` times another expression.
    #[must_use]
    pub fn plus(&self, other: &Affine, coefficient: i64) -> Affine {
        let mut sum = self.clone();
        sum.constant = sum.constant.wrapping_add(other.constant.wrapping_mul(coefficient));
        for &(term, factor) in &other.terms {
            let added = factor.wrapping_mul(coefficient);
            match sum.terms.binary_search_by_key(&term, |&(term, _)| term) {
                Ok(found) => sum.terms[found].1 = sum.terms[found].1.wrapping_add(added),
                Err(place) => sum.terms.insert(place, (term, added)),
            }
        }
        sum.terms.retain(|(_, coefficient)| *coefficient != 0);
        sum
    }

    /// The product with a number.
    #[must_use]
    pub fn times(&self, factor: i64) -> Affine {
        Affine::default().plus(self, factor)
    }

    /// The expression with a term replaced by another expression.
    #[must_use]
    pub fn substitute(&self, term: Term, replacement: &Affine) -> Affine {
        let coefficient = self.coefficient(term);
        if coefficient == 0 {
            return self.clone();
        }
        let mut rest = self.clone();
        rest.terms.retain(|(other, _)| *other != term);
        rest.plus(replacement, coefficient)
    }

    /// The value where each term has the value given.
    pub fn evaluate(&self, value: impl Fn(Term) -> i64) -> i64 {
        self.terms.iter().map(|&(term, coefficient)| coefficient * value(term)).sum::<i64>()
            + self.constant
    }

    /// The smallest and largest value where each term lies in the (inclusive) range given; saturates.
    pub fn range(&self, range: impl Fn(Term) -> (i64, i64)) -> (i64, i64) {
        let (mut low, mut high) = (self.constant, self.constant);
        for &(term, coefficient) in &self.terms {
            let (first, last) = range(term);
            let ends = (first.saturating_mul(coefficient), last.saturating_mul(coefficient));
            low = low.saturating_add(ends.0.min(ends.1));
            high = high.saturating_add(ends.0.max(ends.1));
        }
        (low, high)
    }
}
