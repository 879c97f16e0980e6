//! A schedule: how a kernel without loops is tiled. It is data and text of its own, so that it can be printed, read
//! back, replayed and searched. Axes and tiles are named, so one schedule fits every kernel that has the names.

/// How a kernel is tiled: `tile m=2048 n=1024 k=1024; order n m k; parallel n m; pipeline k 2; hoist %w to n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// The extent of a tile along an axis; an axis that is not named is not tiled.
    pub tiles: Vec<(String, usize)>,
    /// The loops from the outermost in, by axis. Tiled axes that are not named come after these, as `tiles` has them.
    pub order: Vec<String>,
    /// The axes whose loops are parallel. A loop over a summed axis is `reduce`, and with `parallel` both.
    pub parallel: Vec<String>,
    /// How many iterations of an axis's loop may be in flight.
    pub pipeline: Vec<(String, usize)>,
    /// Operands or tiles, without `%`, whose load stands just inside the loop over the axis; an empty axis is outside
    /// all loops.
    pub hoist: Vec<(String, String)>,
}

impl Schedule {
    /// The extent of a tile along an axis, where the axis is tiled.
    pub fn tile(&self, axis: &str) -> Option<usize> {
        self.tiles.iter().find(|(name, _)| name == axis).map(|&(_, size)| size)
    }

    /// How many iterations of an axis's loop may be in flight; 1 where nothing is said.
    pub fn pipelined(&self, axis: &str) -> usize {
        self.pipeline.iter().find(|(name, _)| name == axis).map_or(1, |&(_, count)| count)
    }

    /// The tiled axes in the order of their loops, the outermost first.
    pub fn loops(&self) -> Vec<&str> {
        let mut loops: Vec<&str> = Vec::new();
        let ordered = self.order.iter().filter(|axis| self.tile(axis).is_some());
        for axis in ordered.chain(self.tiles.iter().map(|(axis, _)| axis)) {
            if !loops.contains(&axis.as_str()) {
                loops.push(axis);
            }
        }
        loops
    }
}
