//! How a single run is done.

use crate::error::Error;
use crate::limits::Limits;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use systole_host::Pool;

/// Options of one run. The default has no limits and takes the threads that the program was compiled with.
#[derive(Clone, Default)]
pub struct RunOptions {
    /// How many threads compute; 1 means that only the caller's does.
    pub threads: Option<usize>,
    /// Whose threads they are; the program's own where there is no other pool.
    pub pool: Option<Arc<dyn Pool>>,
    /// Ends the run early when it is cancelled.
    pub cancel: Option<Cancel>,
    /// Ends the run at that time.
    pub deadline: Option<Instant>,
    /// How many bytes of values may be live at once, beside inputs and weights.
    pub memory_limit: Option<usize>,
}

/// A flag that ends runs and compilations. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    flag: Arc<AtomicBool>,
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Cancel {
        Cancel::default()
    }

    /// Sets it, for good.
    pub fn cancel(&self) {
        self.flag.store(true, Ordering::Relaxed);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

impl RunOptions {
    /// Whether the run should end now.
    pub(crate) fn is_over(&self) -> bool {
        self.cancel.as_ref().is_some_and(Cancel::is_cancelled)
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Why the run ended.
    pub(crate) fn over(&self) -> Error {
        Limits::of(self).over("run")
    }
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOptions")
            .field("threads", &self.threads)
            .field("pool", &self.pool.as_ref().map(|pool| pool.threads()))
            .field("cancel", &self.cancel)
            .field("deadline", &self.deadline)
            .field("memory_limit", &self.memory_limit)
            .finish()
    }
}
