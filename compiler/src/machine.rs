//! What the tiler and the passes know of a target: limits, preferences and costs, as data. No target is named here.

use crate::scalar::ScalarFn;

/// A target as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// What it is called in messages.
    pub name: String,
    /// Rows of near memory: partitions of a systolic machine, 1 where memory is linear.
    pub near_rows: usize,
    /// Bytes of near memory that one kernel's tiles may take together.
    pub near_bytes: usize,
    /// Elements of f32 that one vector instruction handles.
    pub vector_elements: usize,
    /// Preferred multiples of tiles of a contraction.
    pub contract: ContractTile,
    /// Elements of an elementwise tile that is worth a loop iteration.
    pub map_elements: usize,
    /// The scalar functions that the target has; the others are expanded.
    pub native: Vec<ScalarFn>,
}

/// The tile of a contraction that suits a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContractTile {
    /// Rows of the result: a multiple of the first, at most the second.
    pub m: (usize, usize),
    /// Columns of the result.
    pub n: (usize, usize),
    /// The summed extent.
    pub k: (usize, usize),
}
