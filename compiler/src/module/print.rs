//! Modules as text, canonical: buffers, kernels, the steps of loading, the steps of a run. Nothing here assumes that the
//! module was verified.

use super::{Buffer, BufferId, Layout, Lifetime, Module, ScalarSource, Step};
use crate::kernel::Place;
use crate::text::lexer::{Name, Quoted};
use crate::text::{Data, literal};
use std::collections::BTreeSet;
use std::fmt::{self, Write};

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printer::of(self, Data::Elided).module(f)
    }
}

/// The text that parses back to the same: constants of any size are written in full.
pub fn print_full(module: &Module) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = Printer::of(module, Data::Full).module(&mut text);
    text
}

/// A module with unique names.
pub(super) struct Printer<'a> {
    module: &'a Module,
    data: Data,
    buffers: Vec<String>,
    kernels: Vec<String>,
}

impl<'a> Printer<'a> {
    pub(super) fn of(module: &'a Module, data: Data) -> Printer<'a> {
        let unique = |names: Vec<&String>, otherwise: &str| {
            let mut taken = BTreeSet::new();
            let mut claim = |wanted: &str| {
                let mut name = wanted.to_owned();
                let mut number = 1;
                while !taken.insert(name.clone()) {
                    number += 1;
                    name = format!("{wanted}_{number}");
                }
                name
            };
            names
                .into_iter()
                .map(|name| claim(if name.is_empty() { otherwise } else { name }))
                .collect()
        };
        let buffers = module.buffers.iter().map(|(_, buffer)| &buffer.name).collect();
        let kernels = module.kernels.iter().map(|(_, kernel)| &kernel.name).collect();
        Printer { module, data, buffers: unique(buffers, "b"), kernels: unique(kernels, "k") }
    }

    /// `%name`
    pub(super) fn buffer(&self, buffer: BufferId) -> String {
        match self.buffers.get(buffer.index()) {
            Some(name) => format!("%{}", Name(name)),
            None => "%?".to_owned(),
        }
    }

    fn list(&self, buffers: &[BufferId]) -> String {
        let names: Vec<String> = buffers.iter().map(|&buffer| self.buffer(buffer)).collect();
        names.join(", ")
    }

    fn module(&self, f: &mut impl Write) -> fmt::Result {
        let module = self.module;
        write!(f, "module @{}({}) -> (", Name(&module.name), self.list(&module.inputs))?;
        for (position, (name, buffer)) in module.outputs.iter().enumerate() {
            let comma = if position > 0 { ", " } else { "" };
            write!(f, "{comma}{}: {}", Quoted(name), self.buffer(*buffer))?;
            for &(input, _) in module.state.iter().filter(|&&(_, output)| output == position) {
                let input = module.inputs.get(input).map_or("%?".to_owned(), |&id| self.buffer(id));
                write!(f, " state {input}")?;
            }
        }
        f.write_str(")")?;
        if module.arena_bytes > 0 {
            write!(f, " arena {}", module.arena_bytes)?;
        }
        f.write_str(" {\n")?;
        for (id, buffer) in module.buffers.iter() {
            write!(f, "  {}: {}", self.buffer(id), buffer_type(buffer))?;
            self.lifetime(f, buffer)?;
            f.write_str("\n")?;
        }
        for ((_, kernel), name) in module.kernels.iter().zip(&self.kernels) {
            let kernel = crate::kernel::Kernel { name: name.clone(), ..kernel.clone() };
            f.write_str("\n")?;
            for line in kernel.to_string().lines() {
                writeln!(f, "  {line}")?;
            }
        }
        for (word, steps) in [("load", &module.load_steps), ("run", &module.steps)] {
            if !steps.is_empty() {
                write!(f, "\n  {word} {{\n")?;
                self.steps(f, steps, 2)?;
                f.write_str("  }\n")?;
            }
        }
        f.write_str("}\n")
    }

    fn lifetime(&self, f: &mut impl Write, buffer: &Buffer) -> fmt::Result {
        match &buffer.lifetime {
            Lifetime::Input => f.write_str(" input")?,
            Lifetime::Constant(value) => {
                f.write_str(" constant ")?;
                literal::write(f, value, self.data)?;
            }
            Lifetime::Parameter(name) => write!(f, " parameter {}", Quoted(name))?,
            Lifetime::Loaded => f.write_str(" loaded")?,
            Lifetime::State => f.write_str(" state")?,
            Lifetime::Temporary => f.write_str(" temporary")?,
        }
        if let Some(alias) = buffer.alias {
            write!(f, " alias {}", self.buffer(alias))?;
        }
        match buffer.offset {
            Some(offset) => write!(f, " at {offset}"),
            None => Ok(()),
        }
    }

    fn steps(&self, f: &mut impl Write, steps: &[Step], depth: usize) -> fmt::Result {
        let width = 2 * depth;
        for step in steps {
            write!(f, "{:width$}", "")?;
            self.head(f, step)?;
            match step {
                Step::Kernel { .. } | Step::Copy { .. } | Step::Collective { .. } => {}
                Step::If { then, otherwise, .. } => {
                    f.write_str(" {\n")?;
                    self.steps(f, then, depth + 1)?;
                    if !otherwise.is_empty() {
                        writeln!(f, "{:width$}}} else {{", "")?;
                        self.steps(f, otherwise, depth + 1)?;
                    }
                    write!(f, "{:width$}}}", "")?;
                }
                Step::While { before, body, .. } => {
                    f.write_str(" {\n")?;
                    self.steps(f, before, depth + 1)?;
                    writeln!(f, "{:width$}}} do {{", "")?;
                    self.steps(f, body, depth + 1)?;
                    write!(f, "{:width$}}}", "")?;
                }
                Step::For { body, .. } => {
                    f.write_str(" {\n")?;
                    self.steps(f, body, depth + 1)?;
                    write!(f, "{:width$}}}", "")?;
                }
            }
            f.write_str("\n")?;
        }
        Ok(())
    }

    /// A step, of those with blocks what stands before them.
    pub(super) fn head(&self, f: &mut impl Write, step: &Step) -> fmt::Result {
        match step {
            Step::Kernel { kernel, operands, scalars, origins } => {
                let name = self.kernels.get(kernel.index()).map_or("?", String::as_str);
                write!(f, "call @{}({}", Name(name), self.list(operands))?;
                for (position, scalar) in scalars.iter().enumerate() {
                    f.write_str(if position == 0 { "; " } else { ", " })?;
                    match scalar {
                        ScalarSource::Constant(value) => write!(f, "{value}")?,
                        ScalarSource::Buffer(buffer) => f.write_str(&self.buffer(*buffer))?,
                    }
                }
                f.write_str(")")?;
                origins_text(f, origins)
            }
            Step::Copy { from, to } => {
                write!(f, "copy {} to {}", self.buffer(*from), self.buffer(*to))
            }
            Step::Collective { op, operands, result, origins } => {
                write!(f, "exchange {} {}", op.name(), self.list(operands))?;
                let space = if operands.is_empty() { "" } else { " " };
                write!(f, "{space}to {}", self.buffer(*result))?;
                crate::text::write_attributes(f, op)?;
                origins_text(f, origins)
            }
            Step::If { condition, .. } => write!(f, "if {}", self.buffer(*condition)),
            Step::While { condition, .. } => write!(f, "while {}", self.buffer(*condition)),
            Step::For { count, counter, .. } => {
                write!(f, "for {} in 0..{count}", self.buffer(*counter))
            }
        }
    }
}

fn origins_text(f: &mut impl Write, origins: &[String]) -> fmt::Result {
    for (position, origin) in origins.iter().enumerate() {
        let before = if position == 0 { " from " } else { ", " };
        write!(f, "{before}{}", Quoted(origin))?;
    }
    Ok(())
}

/// `near f32[64, 32] layout [1/16, 0, 1%16]`
fn buffer_type(buffer: &Buffer) -> String {
    let place = match buffer.place {
        Place::Far => "",
        Place::Near => "near ",
    };
    let layout = if buffer.layout.is_row_major(&buffer.ty.shape) {
        String::new()
    } else {
        format!(" layout [{}]", layout_text(&buffer.layout, &buffer.ty.shape))
    };
    format!("{place}{}{layout}", buffer.ty)
}

/// The pieces: `1/16` is dimension 1 without the digits of 16 values below, `1%16` its lowest digit of 16 values.
fn layout_text(layout: &Layout, shape: &[usize]) -> String {
    let pieces = layout.pieces.iter().enumerate().map(|(place, piece)| {
        let below = layout.pieces[place + 1..].iter().filter(|other| other.dim == piece.dim);
        let below = below.fold(1usize, |product, other| product.saturating_mul(other.size));
        let is_first = layout.pieces[..place].iter().all(|other| other.dim != piece.dim);
        let size = shape.get(piece.dim).copied().unwrap_or(0);
        let mut text = piece.dim.to_string();
        if below > 1 {
            text += &format!("/{below}");
        }
        // The first digit takes what the others leave, unless there is padding of its own.
        if !is_first || piece.size != size.div_ceil(below.max(1)) {
            text += &format!("%{}", piece.size);
        }
        text
    });
    pieces.collect::<Vec<String>>().join(", ")
}
