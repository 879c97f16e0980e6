//! What the tiler and the passes know of a target: limits, preferences and costs, as data. No target is named here.

use crate::scalar::ScalarFn;
use crate::types::DType;

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
    /// The tile of attention; without one, attention stays apart as two products and a softmax.
    pub attention: Option<AttentionTile>,
    /// Elements of an elementwise tile that is worth a loop iteration.
    pub map_elements: usize,
    /// The same where rows are reduced: a tile is gone over several times, and should stay close.
    pub reduce_elements: usize,
    /// The scalar functions that the target has; the others are expanded.
    pub native: Vec<ScalarFn>,
    /// Whether the target's back end tiles, places and packs by itself: the shared passes then leave kernels whole.
    pub schedules: bool,
    /// Narrow types that a product reads its constant right factor in, widening it as it is used: such a weight stays
    /// narrow in memory.
    pub widens: Vec<DType>,
    /// Elements along the summed extent that lie together in packed bytes, where products of bytes are summed in i32 by
    /// instructions of the machine; 0 where they are not.
    pub bytes_together: usize,
    /// What large constant factors of products are rounded to, where the caller asked for it.
    pub weights: Option<DType>,
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

/// The tile of attention that suits a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionTile {
    /// The most queries of a tile.
    pub queries: usize,
    /// Keys of a block, where there is more than one.
    pub keys: usize,
    /// The most scores of a tile that takes all keys at once.
    pub most_scores: usize,
}

impl Machine {
    /// Whether the target takes a product of these tiles through packed panels: the driver packs constants for it then.
    pub fn packs(
        &self,
        kernel: &crate::kernel::Kernel,
        a: crate::kernel::TileId,
        b: crate::kernel::TileId,
        over: &[crate::kernel::Axis],
    ) -> bool {
        if self.schedules {
            return false;
        }
        let (a, b) = (&kernel.tiles[a], &kernel.tiles[b]);
        if a.dtype != DType::F32 || b.dtype != DType::F32 {
            return false;
        }
        let extent = |axes: &mut dyn Iterator<Item = usize>| axes.product::<usize>();
        let k = extent(
            &mut a.dims.iter().filter(|(axis, _)| over.contains(axis)).map(|&(_, size)| size),
        );
        let only = |tile: &crate::kernel::Tile, other: &crate::kernel::Tile| {
            let own = tile
                .dims
                .iter()
                .filter(|(axis, _)| !over.contains(axis) && other.extent(*axis).is_none());
            extent(&mut own.map(|&(_, size)| size))
        };
        let (m, n) = (only(a, b), only(b, a));
        k >= 4 && n >= 8 && m * n * k >= 1 << 12
    }
}
