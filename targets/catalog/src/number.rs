//! A number with where it comes from.

use crate::problem::Place;

/// How far a number can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// The maker of the thing says so, or a paper or repository that measured it.
    Documented,
    /// The press, an analyst or another third party says so.
    Press,
    /// Computed from documented or press figures.
    Computed,
    /// Nobody published it: a proposal, with its reason.
    Inferred,
    /// Given by the user: a bare value of a file of his own, or `--set`.
    Given,
}

impl Mark {
    /// Every mark that a file may write.
    pub const ALL: &'static [Mark] =
        &[Mark::Documented, Mark::Press, Mark::Computed, Mark::Inferred, Mark::Given];

    /// As files write it.
    pub fn name(self) -> &'static str {
        match self {
            Mark::Documented => "documented",
            Mark::Press => "press",
            Mark::Computed => "computed",
            Mark::Inferred => "inferred",
            Mark::Given => "given",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Mark> {
        Mark::ALL.iter().copied().find(|mark| mark.name() == name)
    }
}

/// One number of a description (or one list of them), for reports and documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// Its path, such as `tier.rack.link_gbs`.
    pub path: String,
    /// The number; for a list, its elements.
    pub values: Vec<f64>,
    /// How far it can be trusted.
    pub mark: Mark,
    /// The names of its sources, as the file's `[sources]` has them.
    pub sources: Vec<String>,
    /// The reason or the arithmetic behind it.
    pub note: Option<String>,
    /// Where it stands.
    pub place: Place,
}
