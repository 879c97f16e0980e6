//! Which tiles may be dropped after each statement.

use super::super::{Kernel, Stmt, TileId};

/// For each statement of a body, the tiles of the body that nothing reads afterwards; and the same for bodies of loops.
#[derive(Debug, Default)]
pub(super) struct Lifetimes {
    pub(super) dropped: Vec<Vec<TileId>>,
    pub(super) inner: Vec<Lifetimes>,
}

/// The lifetimes of a body whose tiles `kept` are read after it.
pub(super) fn lifetimes(
    kernel: &Kernel,
    body: &[Stmt],
    params: &[TileId],
    kept: &[TileId],
) -> Lifetimes {
    // The last statement that reads a tile of this body; none yet for a parameter that nothing reads.
    let mut last: Vec<Option<usize>> = vec![None; kernel.tiles.len()];
    let mut ours = vec![false; kernel.tiles.len()];
    params.iter().for_each(|tile| ours[tile.index()] = true);
    let mut inner = Vec::new();
    for (place, stmt) in body.iter().enumerate() {
        stmt.visit_reads(&mut |tile| last[tile.index()] = Some(place));
        for &tile in stmt.results() {
            ours[tile.index()] = true;
            last[tile.index()] = Some(place);
        }
        inner.push(match stmt {
            Stmt::For(looped) => {
                let params: Vec<TileId> = looped.carried.iter().map(|&(tile, _)| tile).collect();
                lifetimes(kernel, &looped.body, &params, &looped.yields)
            }
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => Lifetimes::default(),
        });
    }
    kept.iter().for_each(|tile| ours[tile.index()] = false);
    let mut dropped = vec![Vec::new(); body.len()];
    for tile in kernel.tiles.ids().filter(|tile| ours[tile.index()]) {
        if let Some(place) = last[tile.index()] {
            dropped[place].push(tile);
        }
    }
    Lifetimes { dropped, inner }
}
