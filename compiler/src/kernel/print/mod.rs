//! Kernels as text: one canonical form, which parses back. Names are the kernel's own, made unique where two that are
//! visible at once are the same. Nothing here assumes that the kernel was verified.

mod access;
mod expr;
mod names;

use super::{Kernel, Loop, LoopKind, Operand, Place, Role, Stmt, Tile, TileId, TileOp};
use crate::text::lexer::{Name, Quoted};
use crate::types::DType;
use access::Index;
pub(super) use expr::{in_print_order, lowest, scalar_text};
pub(super) use names::Names;
use std::fmt::{self, Write};

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Names::of(self);
        Printer { kernel: self, names: &names }.kernel(f)
    }
}

/// A kernel with the names it is printed with.
#[derive(Clone, Copy)]
pub(super) struct Printer<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) names: &'a Names,
}

impl Printer<'_> {
    fn kernel(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operands: Vec<&Operand> =
            self.kernel.operands.iter().map(|(_, operand)| operand).collect();
        let is_result = |operand: &&Operand| operand.role == Role::Output;
        let results = operands.iter().rev().take_while(|operand| is_result(operand)).count();
        write!(f, "kernel @{}(", Name(&self.kernel.name))?;
        let first_result = operands.len() - results;
        for (index, operand) in operands.iter().enumerate() {
            if index == first_result {
                self.scalars(f, index > 0)?;
                f.write_str(") -> (")?;
            } else if index > 0 {
                f.write_str(", ")?;
            }
            let role = match operand.role {
                Role::Update => "update ",
                Role::Output if index < first_result => "output ",
                Role::Input | Role::Output => "",
            };
            write!(f, "%{}: {role}{}[", self.names.operand(index), operand.dtype)?;
            for (dim, (axis, size)) in operand.dims.iter().enumerate() {
                let comma = if dim > 0 { ", " } else { "" };
                write!(f, "{comma}{}: {size}", self.names.axis(*axis))?;
            }
            f.write_str("]")?;
        }
        if results == 0 {
            self.scalars(f, !operands.is_empty())?;
        }
        f.write_str(")")?;
        for (index, origin) in self.kernel.origins.iter().enumerate() {
            let before = if index == 0 { " from " } else { ", " };
            write!(f, "{before}{}", Quoted(origin))?;
        }
        f.write_str(" {\n")?;
        self.body(f, &self.kernel.body, 1)?;
        f.write_str("}\n")
    }

    fn scalars(self, f: &mut impl Write, mut comma: bool) -> fmt::Result {
        for (id, low, high) in self.kernel.scalars() {
            let before = if comma { ", " } else { "" };
            write!(f, "{before}%{}: index[{low}, {high}]", self.names.var(id))?;
            comma = true;
        }
        Ok(())
    }

    fn body(self, f: &mut impl Write, body: &[Stmt], depth: usize) -> fmt::Result {
        for stmt in body {
            write!(f, "{:width$}", "", width = 2 * depth)?;
            self.head(f, stmt)?;
            f.write_str("\n")?;
            let Stmt::For(looped) = stmt else { continue };
            self.body(f, &looped.body, depth + 1)?;
            if !looped.yields.is_empty() {
                let yields: Vec<String> =
                    looped.yields.iter().map(|&tile| self.value(tile)).collect();
                writeln!(f, "{:width$}yield {}", "", yields.join(", "), width = 2 * depth + 2)?;
            }
            writeln!(f, "{:width$}}}", "", width = 2 * depth)?;
        }
        Ok(())
    }

    /// A statement; of a loop what stands before its body.
    pub(super) fn head(self, f: &mut impl Write, stmt: &Stmt) -> fmt::Result {
        match stmt {
            Stmt::Define { results, op } => {
                self.results(f, results)?;
                self.op(f, op, results.first().copied())
            }
            Stmt::Store { operand, at, tile } => {
                let access = self.access(*operand, at, &[], Some(*tile));
                write!(f, "store {access} = {}", self.value(*tile))
            }
            Stmt::Scatter { operand, at, index, tile, combine } => {
                let access = self.access(*operand, at, index, Some(*tile));
                let combine =
                    combine.map_or(String::new(), |combine| format!("{} ", combine.name()));
                write!(f, "scatter {combine}{access} = {}", self.value(*tile))
            }
            Stmt::For(looped) => self.loop_head(f, looped),
        }
    }

    fn loop_head(self, f: &mut impl Write, looped: &Loop) -> fmt::Result {
        self.results(f, &looped.results)?;
        let (start, end) = (self.affine(&looped.start), self.affine(&looped.end));
        write!(f, "for %{} in {start}..{end}", self.names.var(looped.var))?;
        if looped.step != 1 {
            write!(f, " step {}", looped.step)?;
        }
        f.write_str(match looped.kind {
            LoopKind::Parallel => " parallel",
            LoopKind::Sequential => "",
            LoopKind::Reduce => " reduce",
            LoopKind::ReduceParallel => " reduce parallel",
        })?;
        if looped.pipelined != 1 {
            write!(f, " pipelined({})", looped.pipelined)?;
        }
        for (index, &(inside, initial)) in looped.carried.iter().enumerate() {
            let before = if index == 0 { " carry " } else { ", " };
            write!(f, "{before}{}", self.value(inside))?;
            let same = match (self.kernel.tiles.get(inside), self.kernel.tiles.get(initial)) {
                (Some(inside), Some(initial)) => inside.same_type(initial),
                (_, _) => true,
            };
            if !same {
                write!(f, ": {}", self.tile_type(inside))?;
            }
            write!(f, " = {}", self.value(initial))?;
        }
        f.write_str(" {")
    }

    fn results(self, f: &mut impl Write, results: &[TileId]) -> fmt::Result {
        let typed: Vec<String> = results
            .iter()
            .map(|&tile| format!("{}: {}", self.value(tile), self.tile_type(tile)))
            .collect();
        match typed.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "{one} = "),
            several => write!(f, "({}) = ", several.join(", ")),
        }
    }

    /// `near f32[m: 64, n: 32] rows [m]`
    pub(super) fn tile_type(self, tile: TileId) -> String {
        let Some(tile) = self.kernel.tiles.get(tile) else { return "?".to_owned() };
        let dims: Vec<String> = tile
            .dims
            .iter()
            .map(|&(axis, extent)| format!("{}: {extent}", self.names.axis(axis)))
            .collect();
        let place = match tile.place {
            Place::Far => "",
            Place::Near => "near ",
        };
        let mut text = format!("{place}{}[{}]", tile.dtype, dims.join(", "));
        if !tile.rows.is_empty() {
            text += &format!(" rows [{}]", self.axes(&tile.rows));
        }
        text
    }

    fn axes(self, axes: &[super::Axis]) -> String {
        let axes: Vec<String> = axes.iter().map(|&axis| self.names.axis(axis)).collect();
        axes.join(", ")
    }

    /// `%name`
    pub(super) fn value(self, tile: TileId) -> String {
        format!("%{}", self.names.tile(tile))
    }

    fn op(self, f: &mut impl Write, op: &TileOp, result: Option<TileId>) -> fmt::Result {
        match op {
            TileOp::Load { operand, at, pad } => {
                write!(f, "load {}", self.access(*operand, at, &[], result))?;
                match pad {
                    Some(pad) => write!(f, " pad {}", scalar_text(*pad)),
                    None => Ok(()),
                }
            }
            TileOp::Gather { operand, at, index } => {
                write!(f, "gather {}", self.access(*operand, at, index, result))
            }
            TileOp::Fill { value } => write!(f, "fill {}", scalar_text(*value)),
            TileOp::View { tile, at } => {
                write!(f, "view {} at [{}]", self.value(*tile), self.view_access(*tile, at, result))
            }
            TileOp::Contract { init, a, b, over, accumulate } => {
                let (init, a, b) = (self.value(*init), self.value(*a), self.value(*b));
                write!(f, "contract {init}, {a}, {b}{}", self.over(over))?;
                self.accumulate(f, *accumulate, result)
            }
            TileOp::Map { operands, expr } => {
                let operands: Vec<String> =
                    operands.iter().map(|&operand| self.value(operand)).collect();
                let space = if operands.is_empty() { "" } else { " " };
                write!(f, "map{space}{} {{ {} }}", operands.join(", "), self.expr(expr))
            }
            TileOp::Reduce { combine, init, tile, over, accumulate } => {
                let init = init.map_or(String::new(), |init| format!("{}, ", self.value(init)));
                let (combine, tile) = (combine.name(), self.value(*tile));
                write!(f, "reduce {combine} {init}{tile}{}", self.over(over))?;
                self.accumulate(f, *accumulate, result)
            }
            TileOp::ArgReduce { combine, tile, over, last } => {
                let (combine, tile) = (combine.name(), self.value(*tile));
                let last = if *last { " last" } else { "" };
                write!(f, "arg-reduce {combine} {tile} over {}{last}", self.names.axis(*over))
            }
            TileOp::Scan { combine, tile, over, exclusive, reverse, accumulate } => {
                let (combine, tile) = (combine.name(), self.value(*tile));
                write!(f, "scan {combine} {tile} over {}", self.names.axis(*over))?;
                f.write_str(if *exclusive { " exclusive" } else { "" })?;
                f.write_str(if *reverse { " reverse" } else { "" })?;
                self.accumulate(f, *accumulate, result)
            }
            TileOp::Sort { tile, over, descending } => {
                let descending = if *descending { " descending" } else { "" };
                write!(f, "sort {} over {}{descending}", self.value(*tile), self.names.axis(*over))
            }
            TileOp::Rearrange { tile } => write!(f, "rearrange {}", self.value(*tile)),
        }
    }

    /// The accumulation type, where it is not the result's.
    fn accumulate(
        self,
        f: &mut impl Write,
        accumulate: DType,
        result: Option<TileId>,
    ) -> fmt::Result {
        match result.and_then(|tile| self.kernel.tiles.get(tile)) {
            Some(tile) if tile.dtype == accumulate => Ok(()),
            Some(_) | None => write!(f, " accumulate {accumulate}"),
        }
    }

    fn over(self, over: &[super::Axis]) -> String {
        if over.is_empty() { String::new() } else { format!(" over {}", self.axes(over)) }
    }

    fn access(
        self,
        operand: super::OperandId,
        at: &[super::Affine],
        index: Index<'_>,
        tile: Option<TileId>,
    ) -> String {
        let name = self.names.operand(operand.index());
        format!("%{name}[{}]", self.operand_access(operand, at, index, tile))
    }
}

impl Tile {
    /// Whether both have the same element type, shape, place and rows.
    pub fn same_type(&self, other: &Tile) -> bool {
        self.dtype == other.dtype
            && self.dims == other.dims
            && self.place == other.place
            && self.rows == other.rows
    }
}
