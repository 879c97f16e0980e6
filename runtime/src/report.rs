//! What compiling took, and what memory a program needs.

use std::time::Duration;

/// How long the parts of compiling took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileTimes {
    /// From the source to a graph with every size bound.
    pub import: Duration,
    /// The passes of every level, lowering included.
    pub passes: Duration,
    /// Machine code.
    pub code: Duration,
    /// Weights into the order in which the code reads them.
    pub packing: Duration,
}

impl CompileTimes {
    /// All parts together.
    pub fn total(&self) -> Duration {
        self.import + self.passes + self.code + self.packing
    }

    pub(crate) fn plus(self, other: CompileTimes) -> CompileTimes {
        CompileTimes {
            import: self.import + other.import,
            passes: self.passes + other.passes,
            code: self.code + other.code,
            packing: self.packing + other.packing,
        }
    }
}

/// The memory that a program needs on the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    /// What temporaries share.
    pub arena_bytes: usize,
    /// The most bytes of temporaries that are live at once: no arena is smaller.
    pub arena_lower_bound_bytes: usize,
    /// Scratch of each thread.
    pub scratch_bytes: usize,
    /// Results.
    pub result_bytes: usize,
    /// Constants, packed ones included; those that are not packed are shared with the model's file.
    pub constant_bytes: usize,
    /// How many distinct kernels there is code for.
    pub kernels: usize,
}
