//! What ends a compilation or a run early.

use crate::error::Error;
use crate::options::{Cancel, RunOptions};
use std::time::Instant;

/// When work ends although it is not done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) cancel: Option<Cancel>,
    pub(crate) deadline: Option<Instant>,
}

impl Limits {
    pub(crate) fn of(options: &RunOptions) -> Limits {
        Limits { cancel: options.cancel.clone(), deadline: options.deadline }
    }

    /// Whether the work should end now.
    pub(crate) fn is_over(&self) -> bool {
        self.is_cancelled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Why it ended; `what` is a run or a compilation.
    pub(crate) fn over(&self, what: &str) -> Error {
        if self.is_cancelled() {
            Error::limit(format!("the {what} was cancelled"))
        } else {
            Error::limit(format!("the deadline of the {what} passed"))
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(Cancel::is_cancelled)
    }
}
