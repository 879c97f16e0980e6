//! Rules 15 and 16: what holds after `place`, for one machine.

use super::super::print::Names;
use super::super::{Kernel, Place, Stmt, Tile, TileId, TileOp};
use super::Printer;
use super::Verifier;
use crate::diagnostic::Diagnostics;
use crate::machine::Machine;

/// The violations of the rules about near memory, in a kernel that was verified.
pub fn verify_placed(kernel: &Kernel, machine: &Machine) -> Result<(), Diagnostics> {
    let names = Names::of(kernel);
    let mut verifier = Verifier {
        kernel,
        printer: Printer { kernel, names: &names },
        diagnostics: Diagnostics::default(),
        ranges: Vec::new(),
        in_scope: Vec::new(),
        defined: Vec::new(),
        stored: std::collections::BTreeSet::new(),
    };
    for (id, tile) in kernel.tiles.iter() {
        let name = verifier.printer.value(id);
        if tile.place == Place::Far && !tile.rows.is_empty() {
            verifier.report_at(15, format!("{name} is far, so it has no rows"));
        }
        for (place, &axis) in tile.rows.iter().enumerate() {
            if tile.extent(axis).is_none() || tile.rows[..place].contains(&axis) {
                let axis = names.axis(axis);
                verifier.report_at(15, format!("row {axis} of {name} is not one of its axes"));
            }
        }
    }
    let (bytes, at) = Usage { kernel, machine }.body(&kernel.body, &[], 0);
    if bytes > machine.near_bytes {
        let what = format!(
            "{bytes} bytes of near tiles live at once, but {} has {}",
            machine.name, machine.near_bytes
        );
        match at {
            Some(stmt) => verifier.report(16, stmt, what),
            None => verifier.report_at(16, what),
        }
    }
    verifier.diagnostics.into_result(())
}

/// The bytes of near memory that a tile takes: its rows are rounded up to full sets of the machine's rows.
pub fn near_bytes(tile: &Tile, machine: &Machine) -> usize {
    if tile.place == Place::Far {
        return 0;
    }
    let rows: usize = tile.rows.iter().filter_map(|&axis| tile.extent(axis)).product();
    let row_bytes = (tile.count() / rows.max(1)).saturating_mul(tile.dtype.bytes());
    if tile.rows.is_empty() {
        return row_bytes;
    }
    let machine_rows = machine.near_rows.max(1);
    row_bytes.saturating_mul(rows.div_ceil(machine_rows)).saturating_mul(machine_rows)
}

/// Counts near memory statement by statement.
struct Usage<'a> {
    kernel: &'a Kernel,
    machine: &'a Machine,
}

impl<'a> Usage<'a> {
    /// The most bytes that live at once in a body, and where. Tiles in `kept` live to its end.
    fn body(&self, body: &'a [Stmt], kept: &[TileId], outside: usize) -> (usize, Option<&'a Stmt>) {
        let mut last_read = vec![0; self.kernel.tiles.len()];
        for (place, stmt) in body.iter().enumerate() {
            stmt.visit_reads(&mut |tile| last_read[tile.index()] = place);
        }
        kept.iter().for_each(|tile| last_read[tile.index()] = body.len());
        let mut live: Vec<TileId> = Vec::new();
        let mut most = (outside, None);
        for (place, stmt) in body.iter().enumerate() {
            live.extend(stmt.results().iter().filter(|&&tile| !self.shares(stmt, tile)));
            let bytes: usize = outside + live.iter().map(|&tile| self.bytes(tile)).sum::<usize>();
            let found = match stmt {
                Stmt::For(looped) => {
                    // The carried tiles lie where their results do, which are live already.
                    let (inner, at) = self.body(&looped.body, &looped.yields, 0);
                    let ours: usize =
                        looped.carried.iter().map(|&(tile, _)| self.bytes(tile)).sum();
                    let loaded: usize = looped.body.iter().map(|stmt| self.loaded(stmt)).sum();
                    let ahead = loaded.saturating_mul(looped.pipelined.saturating_sub(1));
                    let yielded: usize = looped.yields.iter().map(|&tile| self.bytes(tile)).sum();
                    // A tile that is yielded replaces the carried one in place.
                    let inner = inner.saturating_sub(yielded.min(ours));
                    (bytes.saturating_add(inner).saturating_add(ahead), at.or(Some(stmt)))
                }
                Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => {
                    (bytes, Some(stmt))
                }
            };
            if found.0 > most.0 {
                most = found;
            }
            live.retain(|tile| last_read[tile.index()] > place);
        }
        most
    }

    fn bytes(&self, tile: TileId) -> usize {
        near_bytes(&self.kernel.tiles[tile], self.machine)
    }

    /// Whether a tile is another one seen differently.
    fn shares(&self, stmt: &Stmt, tile: TileId) -> bool {
        match stmt {
            Stmt::Define { op: TileOp::View { .. }, results } => results.contains(&tile),
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } | Stmt::For(_) => false,
        }
    }

    /// The bytes that a statement brings from far memory.
    fn loaded(&self, stmt: &Stmt) -> usize {
        match stmt {
            Stmt::Define { op: TileOp::Load { .. } | TileOp::Gather { .. }, results } => {
                results.iter().map(|&tile| self.bytes(tile)).sum()
            }
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } | Stmt::For(_) => 0,
        }
    }
}
