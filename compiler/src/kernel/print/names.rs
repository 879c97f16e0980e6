//! The names that a kernel's values are printed with, and the order in which its axes and variables appear.

use super::super::{Affine, Axis, Dims, Kernel, Stmt, Term, TileId, TileOp, VarId};
use crate::expr::ExprNode;
use crate::text::lexer::Quoted;
use std::collections::BTreeSet;

/// Unique names. A name is free again behind the loop that defined it.
#[derive(Debug, Default)]
pub(in super::super) struct Names {
    operands: Vec<String>,
    vars: Vec<String>,
    tiles: Vec<String>,
    axes: Vec<String>,
    /// The position of each axis in the order of appearance, then of each variable.
    axis_ranks: Vec<usize>,
    var_ranks: Vec<usize>,
    axes_seen: usize,
    vars_seen: usize,
}

impl Names {
    pub(in super::super) fn of(kernel: &Kernel) -> Names {
        let mut names = Names {
            axes: axis_names(kernel),
            axis_ranks: vec![usize::MAX; kernel.axes.len()],
            var_ranks: vec![usize::MAX; kernel.vars.len()],
            vars: vec![String::new(); kernel.vars.len()],
            tiles: vec![String::new(); kernel.tiles.len()],
            ..Names::default()
        };
        let mut scope = BTreeSet::new();
        for (_, operand) in kernel.operands.iter() {
            names.operands.push(claim(&mut scope, &operand.name));
            names.see_dims(&operand.dims);
        }
        for (id, _, _) in kernel.scalars() {
            names.name_var(kernel, id, &mut scope);
        }
        names.body(kernel, &kernel.body, &mut scope);
        names
    }

    /// The name of an operand, by position, as it stands behind `%`.
    pub(in super::super) fn operand(&self, index: usize) -> String {
        shown(self.operands.get(index))
    }

    pub(in super::super) fn var(&self, var: VarId) -> String {
        shown(self.vars.get(var.index()))
    }

    pub(in super::super) fn tile(&self, tile: TileId) -> String {
        shown(self.tiles.get(tile.index()))
    }

    pub(in super::super) fn axis(&self, axis: Axis) -> String {
        self.axes.get(axis.0 as usize).cloned().unwrap_or_else(|| "?".to_owned())
    }

    /// Where a term stands in printed sums: axes first, each kind in order of appearance.
    pub(in super::super) fn rank(&self, term: Term) -> (usize, usize) {
        let last = Some(&usize::MAX);
        match term {
            Term::Axis(axis) => (0, *self.axis_ranks.get(axis.0 as usize).or(last).unwrap_or(&0)),
            Term::Var(var) => (1, *self.var_ranks.get(var.index()).or(last).unwrap_or(&0)),
        }
    }

    fn name_var(&mut self, kernel: &Kernel, var: VarId, scope: &mut BTreeSet<String>) {
        let Some(found) = kernel.vars.get(var) else { return };
        // In a map, `%0` is its operand.
        let numeric = found.name.bytes().all(|byte| byte.is_ascii_digit());
        let wanted = if numeric { format!("v{}", found.name) } else { found.name.clone() };
        self.vars[var.index()] = claim(scope, &wanted);
        if self.var_ranks[var.index()] == usize::MAX {
            self.var_ranks[var.index()] = self.vars_seen;
            self.vars_seen += 1;
        }
    }

    fn name_tile(&mut self, kernel: &Kernel, tile: TileId, scope: &mut BTreeSet<String>) {
        let Some(found) = kernel.tiles.get(tile) else { return };
        self.tiles[tile.index()] = claim(scope, &found.name);
        self.see_dims(&found.dims);
    }

    fn see_dims(&mut self, dims: &Dims) {
        dims.iter().for_each(|&(axis, _)| self.see_axis(axis));
    }

    fn see_axis(&mut self, axis: Axis) {
        if let Some(rank) = self.axis_ranks.get_mut(axis.0 as usize)
            && *rank == usize::MAX
        {
            *rank = self.axes_seen;
            self.axes_seen += 1;
        }
    }

    fn see_affine(&mut self, affine: &Affine) {
        for &(term, _) in affine.terms() {
            if let Term::Axis(axis) = term {
                self.see_axis(axis);
            }
        }
    }

    fn body(&mut self, kernel: &Kernel, body: &[Stmt], scope: &mut BTreeSet<String>) {
        for stmt in body {
            match stmt {
                Stmt::Define { results, op } => {
                    results.iter().for_each(|&tile| self.name_tile(kernel, tile, scope));
                    self.see_op(op);
                }
                Stmt::Store { at, .. } | Stmt::Scatter { at, .. } => {
                    at.iter().for_each(|at| self.see_affine(at));
                }
                Stmt::For(looped) => {
                    // Results are written before the loop, but only visible behind it.
                    for tile in looped.results.iter().filter_map(|&tile| kernel.tiles.get(tile)) {
                        self.see_dims(&tile.dims);
                    }
                    let mut inner = scope.clone();
                    self.name_var(kernel, looped.var, &mut inner);
                    for &(inside, _) in &looped.carried {
                        self.name_tile(kernel, inside, &mut inner);
                    }
                    self.body(kernel, &looped.body, &mut inner);
                    looped.results.iter().for_each(|&tile| self.name_tile(kernel, tile, scope));
                }
            }
        }
    }

    fn see_op(&mut self, op: &TileOp) {
        match op {
            TileOp::Load { at, .. } | TileOp::Gather { at, .. } | TileOp::View { at, .. } => {
                at.iter().for_each(|at| self.see_affine(at));
            }
            TileOp::Map { expr, .. } => {
                for (node, _) in &expr.nodes {
                    if let ExprNode::Index(axis) = node {
                        self.see_axis(*axis);
                    }
                }
            }
            TileOp::Contract { over, .. } | TileOp::Reduce { over, .. } => {
                over.iter().for_each(|&axis| self.see_axis(axis));
            }
            TileOp::ArgReduce { over, .. }
            | TileOp::Scan { over, .. }
            | TileOp::Sort { over, .. } => self.see_axis(*over),
            TileOp::Fill { .. } | TileOp::Rearrange { .. } => {}
        }
    }
}

fn shown(name: Option<&String>) -> String {
    match name {
        Some(name) if !name.is_empty() => crate::text::lexer::Name(name).to_string(),
        Some(_) | None => "?".to_owned(),
    }
}

/// The name, or one like it that is not taken, and takes it.
fn claim(scope: &mut BTreeSet<String>, wanted: &str) -> String {
    let wanted = if wanted.is_empty() { "t" } else { wanted };
    let mut name = wanted.to_owned();
    let mut number = 1;
    while !scope.insert(name.clone()) {
        number += 1;
        name = format!("{wanted}_{number}");
    }
    name
}

/// The axes as they are written: a word as it is, anything else in quotes.
fn axis_names(kernel: &Kernel) -> Vec<String> {
    let mut taken = BTreeSet::new();
    kernel
        .axes
        .iter()
        .map(|name| {
            let name = claim(&mut taken, name);
            if is_word(&name) { name } else { Quoted(&name).to_string() }
        })
        .collect()
}

fn is_word(name: &str) -> bool {
    let starts = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
