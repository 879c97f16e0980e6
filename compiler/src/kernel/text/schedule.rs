//! Schedules from text and back: `tile m=2048 k=1024; order m k; pipeline k 2; hoist %w to m`.

use super::super::Schedule;
use super::ast::{Clause, Name};
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::text::lexer;
use std::fmt;

/// The schedule of parsed clauses.
pub(super) fn schedule(clauses: &[Clause<'_>], diagnostics: &mut Diagnostics) -> Schedule {
    let mut schedule = Schedule::default();
    let text = |name: &Name<'_>| name.item.as_ref().to_owned();
    let mut sized = |name: &Name<'_>, size: i128| match usize::try_from(size) {
        Ok(size) if size > 0 && size <= 1 << 40 => Some((text(name), size)),
        Ok(_) | Err(_) => {
            let message = format!("{size} is not in 1 to 2^40");
            diagnostics.push(Diagnostic::error(Code::Attribute, message).at(name.span));
            None
        }
    };
    for clause in clauses {
        match clause {
            Clause::Tile(tiles) => {
                let tiles = tiles.iter().filter_map(|(axis, size)| sized(axis, *size));
                schedule.tiles.extend(tiles);
            }
            Clause::Pipeline(depths) => {
                let depths = depths.iter().filter_map(|(axis, depth)| sized(axis, *depth));
                schedule.pipeline.extend(depths);
            }
            Clause::Order(axes) => schedule.order.extend(axes.iter().map(text)),
            Clause::Parallel(axes) => schedule.parallel.extend(axes.iter().map(text)),
            Clause::Hoist(tile, axis) => {
                let axis = axis.as_ref().map(text).unwrap_or_default();
                schedule.hoist.push((tile.as_ref().to_owned(), axis));
            }
        }
    }
    schedule
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut clauses = Vec::new();
        let mut clause = |word: &str, items: Vec<String>| {
            if !items.is_empty() {
                clauses.push(format!("{word} {}", items.join(" ")));
            }
        };
        let axis = |name: &String| axis_text(name);
        let tiles = self.tiles.iter().map(|(name, size)| format!("{}={size}", axis(name)));
        clause("tile", tiles.collect());
        clause("order", self.order.iter().map(axis).collect());
        clause("parallel", self.parallel.iter().map(axis).collect());
        let depths = self.pipeline.iter().map(|(name, depth)| format!("{} {depth}", axis(name)));
        clause("pipeline", depths.collect());
        for (tile, name) in &self.hoist {
            let to = if name.is_empty() { String::new() } else { format!(" to {}", axis(name)) };
            clause("hoist", vec![format!("%{}{to}", lexer::Name(tile))]);
        }
        f.write_str(&clauses.join("; "))
    }
}

fn axis_text(name: &str) -> String {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let is_word = starts && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // A clause ends where the next one's word could stand.
    let is_clause = matches!(name, "tile" | "order" | "parallel" | "pipeline" | "hoist" | "to");
    if is_word && !is_clause { name.to_owned() } else { lexer::Quoted(name).to_string() }
}
