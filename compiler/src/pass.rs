//! Passes, which keep the type of the IR, and the runner, which verifies after each.

use crate::diagnostic::Diagnostics;
use crate::machine::Machine;
use std::cell::RefCell;
use std::fmt;

/// Whether a pass did anything.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It did.
    Yes,
    /// It left everything as it was.
    No,
}

/// A named step from an IR to itself.
pub struct Pass<I> {
    /// What the command line and test headers call it, in kebab-case.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Does it.
    pub run: fn(&mut I, &Context<'_>) -> Result<Changed, Diagnostics>,
}

impl<I> fmt::Debug for Pass<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a pass may look at.
#[derive(Debug)]
pub struct Context<'a> {
    /// The machine that is compiled for.
    pub machine: &'a Machine,
    /// The pass's options from `--passes name{key=value}`.
    pub options: Vec<(String, String)>,
    /// Rewrites that were considered and not done, for `--explain`.
    pub declined: RefCell<Vec<Declined>>,
}

/// A rewrite that was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declined {
    /// The pass.
    pub pass: &'static str,
    /// The value or node it is about.
    pub place: String,
    /// Why not.
    pub reason: String,
}

impl Context<'_> {
    /// Notes that a rewrite was not done.
    pub fn decline(&self, pass: &'static str, place: impl Into<String>, reason: impl Into<String>) {
        self.declined.borrow_mut().push(Declined {
            pass,
            place: place.into(),
            reason: reason.into(),
        });
    }
}

/// A level of the compiler: what the runner and the test engines need of it.
pub trait Ir: Clone + fmt::Display {
    /// What the level is called: `graph`, `kernels`, `module`.
    const LEVEL: &'static str;
    /// Every violation of the level's rules.
    fn verify(&self) -> Result<(), Diagnostics>;
}
