//! The rules of the Kernel IR. A kernel that was verified never makes the evaluator, a pass or a target panic.
//!
//! 1. Every operand, variable, axis and tile that a statement names is one of the kernel; a statement has as many
//!    results, positions and yields as its operation wants.
//! 2. A tile is defined once, before it is read, in the same body or one around it; a variable belongs to one loop and
//!    is used inside it.
//! 3. Sizes and numbers are bounded: the axes of a tile differ, tiles and operands are no larger than any memory,
//!    coefficients and positions fit 40 bits, loops nest no deeper than 32, steps and pipeline depths are positive.
//! 4. Tiles of one statement have one extent along an axis that they share.
//! 5. The result has every axis of what is read, but those that are summed, which are an operand's and vanish; what it
//!    has beside these broadcasts. What a reduction starts from has no other axes than the result.
//! 6. Element types fit: what `contract` and `reduce` start from has the accumulation type, to which operands convert and
//!    from which the result does; loads, stores, views and fills do not convert; positions are integers; the
//!    combination is one of the type.
//! 7. An expression's nodes use earlier nodes of the types that the function takes, operands with their tile's type, and
//!    axes of the result; positions and variables are i64.
//! 8. A position uses axes of the tile and variables that are in scope; a loop's ends use variables alone.
//! 9. A load without `pad` and a view stay inside for every value in range.
//! 10. Inputs and updates are read, outputs and updates are written; a scatter combines with what an update held or what
//!     was stored before.
//! 11. Two elements of a stored tile have different positions.
//! 12. A carried tile has the type of what it starts from, of what is yielded for it, and of its result; a parallel loop
//!     carries none; a `reduce parallel` loop only combines into them.
//! 13. Iterations of a `parallel` or `reduce parallel` loop store to disjoint regions and do not read what another
//!     writes: along some dimension, all of one iteration's positions lie closer than two iterations' are apart.
//! 14. A scalar parameter's first value is not above its last.
//! 15. After `place` ([`verify_placed`]): the rows of a tile are axes of it, and only near tiles have any.
//! 16. After `place`: the near tiles that live at once fit the machine's near memory, rows rounded up.

mod op;
mod parallel;
mod placed;
mod position;
mod structure;

pub use placed::{near_bytes, verify_placed};

use super::print::{Names, Printer};
use super::{Dims, Kernel, Loop, LoopKind, OperandId, Stmt, Term, TileId};
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use std::collections::BTreeSet;

/// The largest magnitude of coefficients, positions and scalar parameters.
const MAX_NUMBER: i64 = 1 << 40;

/// How deeply loops may nest.
const MAX_DEPTH: usize = 32;

/// The most diagnostics that are worth reading.
const MAX_REPORTED: usize = 100;

/// Every violation of the rules, each with the statement that it is about.
pub fn verify(kernel: &Kernel) -> Result<(), Diagnostics> {
    let names = Names::of(kernel);
    let printer = Printer { kernel, names: &names };
    let mut verifier = Verifier {
        kernel,
        printer,
        diagnostics: Diagnostics::default(),
        ranges: vec![None; kernel.vars.len()],
        in_scope: vec![false; kernel.tiles.len()],
        defined: vec![false; kernel.tiles.len()],
        stored: BTreeSet::new(),
    };
    verifier.structure();
    // The other rules look into what is named.
    if !verifier.diagnostics.has_errors() {
        for (id, low, high) in kernel.scalars() {
            verifier.ranges[id.index()] = Some((low, high));
        }
        verifier.body(&kernel.body);
    }
    verifier.diagnostics.into_result(())
}

/// A kernel and what was found so far.
struct Verifier<'a> {
    kernel: &'a Kernel,
    printer: Printer<'a>,
    diagnostics: Diagnostics,
    /// The first and last value of every variable in scope.
    ranges: Vec<Option<(i64, i64)>>,
    in_scope: Vec<bool>,
    defined: Vec<bool>,
    /// What was stored to so far.
    stored: BTreeSet<OperandId>,
}

impl Verifier<'_> {
    /// Reports a violation in a statement.
    fn report(&mut self, rule: usize, stmt: &Stmt, what: impl AsRef<str>) {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.printer.head(&mut text, stmt);
        let text = text.trim_end_matches(" {");
        self.report_at(rule, format!("{}: `{text}`", what.as_ref()));
    }

    /// Reports a violation of the kernel as a whole.
    fn report_at(&mut self, rule: usize, what: impl AsRef<str>) {
        if self.diagnostics.0.len() < MAX_REPORTED {
            let message = format!("rule {rule}: {}", what.as_ref());
            let node = format!("@{}", self.kernel.name);
            self.diagnostics.push(Diagnostic::error(Code::Verify, message).on_node(node));
        }
    }

    fn body(&mut self, body: &[Stmt]) {
        let mut ours = Vec::new();
        for stmt in body {
            self.reads(stmt);
            match stmt {
                Stmt::Define { results, op } => self.op(stmt, op, results),
                Stmt::Store { operand, at, tile } => self.store(stmt, *operand, at, *tile),
                Stmt::Scatter { operand, at, index, tile, combine } => {
                    self.scatter(stmt, *operand, at, index, *tile, *combine);
                }
                Stmt::For(looped) => self.repeat(stmt, looped),
            }
            for &tile in stmt.results() {
                self.define(stmt, tile);
                ours.push(tile);
            }
        }
        ours.into_iter().for_each(|tile| self.in_scope[tile.index()] = false);
    }

    fn define(&mut self, stmt: &Stmt, tile: TileId) {
        if std::mem::replace(&mut self.defined[tile.index()], true) {
            self.report(2, stmt, format!("{} is defined twice", self.printer.value(tile)));
        }
        self.in_scope[tile.index()] = true;
    }

    fn reads(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::For(looped) => {
                looped.carried.iter().for_each(|&(_, start)| self.read(stmt, start));
            }
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => {
                let mut reads = Vec::new();
                stmt.visit_reads(&mut |tile| reads.push(tile));
                reads.into_iter().for_each(|tile| self.read(stmt, tile));
            }
        }
    }

    fn read(&mut self, stmt: &Stmt, tile: TileId) {
        if !self.in_scope[tile.index()] {
            let name = self.printer.value(tile);
            self.report(2, stmt, format!("{name} is read where it is not defined"));
        }
    }

    fn repeat(&mut self, stmt: &Stmt, looped: &Loop) {
        if self.ranges[looped.var.index()].is_some() {
            self.report(2, stmt, "the variable belongs to another loop or is a parameter");
            return;
        }
        let no_axes = Dims::new();
        self.position(stmt, &looped.start, &no_axes);
        self.position(stmt, &looped.end, &no_axes);
        let range = self.loop_range(looped);
        self.ranges[looped.var.index()] = Some(range);
        for &(inside, _) in &looped.carried {
            self.define(stmt, inside);
        }
        self.body_of_loop(stmt, looped);
        self.carried_types(stmt, looped);
        match looped.kind {
            LoopKind::Sequential | LoopKind::Reduce => {}
            LoopKind::Parallel if !looped.carried.is_empty() => {
                self.report(12, stmt, "a parallel loop carries no tiles");
            }
            LoopKind::Parallel => self.disjoint(stmt, looped),
            LoopKind::ReduceParallel => {
                if looped.partial_combines().is_none() {
                    let what = "a parallel reduction combines into each carried tile and does \
                                nothing else with it";
                    self.report(12, stmt, what);
                }
                self.disjoint(stmt, looped);
            }
        }
        self.ranges[looped.var.index()] = None;
        looped.carried.iter().for_each(|&(tile, _)| self.in_scope[tile.index()] = false);
    }

    /// The body with its yields, which are read where the body ends.
    fn body_of_loop(&mut self, stmt: &Stmt, looped: &Loop) {
        let outer = self.in_scope.clone();
        let mut visible = outer.clone();
        self.body(&looped.body);
        for inner in &looped.body {
            inner.results().iter().for_each(|tile| visible[tile.index()] = true);
        }
        self.in_scope = visible;
        looped.yields.iter().for_each(|&tile| self.read(stmt, tile));
        self.in_scope = outer;
    }

    fn carried_types(&mut self, stmt: &Stmt, looped: &Loop) {
        let kernel = self.kernel;
        for (index, &(inside, initial)) in looped.carried.iter().enumerate() {
            let others = [initial, looped.yields[index], looped.results[index]];
            let wanted = &kernel.tiles[inside];
            if let Some(&other) =
                others.iter().find(|&&other| !kernel.tiles[other].same_type(wanted))
            {
                let (inside_type, other_type) =
                    (self.printer.tile_type(inside), self.printer.tile_type(other));
                let (inside, other) = (self.printer.value(inside), self.printer.value(other));
                let what = format!("{inside} is {inside_type}, but {other} is {other_type}");
                self.report(12, stmt, what);
            }
        }
    }

    /// The first and last value of a loop's variable; where it takes none, its start twice.
    fn loop_range(&self, looped: &Loop) -> (i64, i64) {
        let (low, start_high) = self.range(&looped.start, &Dims::new());
        let (_, end_high) = self.range(&looped.end, &Dims::new());
        let last = end_high.saturating_sub(1).max(low);
        // Steps count from the start: where that is one number, so is the last value below the end.
        let step = looped.step as i64;
        if low == start_high { (low, low + (last - low) / step * step) } else { (low, last) }
    }

    /// The smallest and largest value of an expression over axes and variables in scope.
    fn range(&self, affine: &super::Affine, dims: &Dims) -> (i64, i64) {
        affine.range(|term| match term {
            Term::Axis(axis) => {
                let extent = dims.iter().find(|(other, _)| *other == axis).map_or(1, |dim| dim.1);
                (0, extent.saturating_sub(1) as i64)
            }
            Term::Var(var) => self.ranges[var.index()].unwrap_or((0, 0)),
        })
    }
}
