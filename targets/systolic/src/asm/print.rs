//! Writes programs.

use super::exchange;
use super::field::{Field, write_list, write_operation};
use super::lexer::{is_plain, quote};
use crate::isa::Op;
use crate::program::{
    Dma, Index, Instruction, Item, Kernel, Program, Semaphore, Side, Step, Test, Value, Var,
};
use crate::simulate::engine_name;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

const TAKES_ALL: &str = "strings take all";

/// How what has a number is written: by its name where no other has the same.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) tensors: Vec<String>,
    pub(super) kernels: Vec<String>,
    operands: Vec<String>,
    vars: Vec<String>,
    semaphores: Vec<String>,
}

impl Names {
    pub(super) fn var(&self, var: Var) -> String {
        known(&self.vars, usize::from(var.0), '%')
    }

    fn semaphore(&self, semaphore: Semaphore) -> String {
        known(&self.semaphores, usize::from(semaphore.0), '$')
    }

    fn operand(&self, operand: u16) -> String {
        known(&self.operands, usize::from(operand), '%')
    }

    fn tensor(&self, tensor: u32) -> String {
        known(&self.tensors, tensor as usize, '%')
    }
}

fn known(names: &[String], at: usize, sign: char) -> String {
    names.get(at).cloned().unwrap_or_else(|| format!("{sign}#{at}"))
}

/// A name with its sign, quoted where it must be.
fn name(sign: char, name: &str) -> String {
    if !name.is_empty() && name.bytes().all(is_plain) {
        format!("{sign}{name}")
    } else {
        format!("{sign}{}", quote(name))
    }
}

/// References to things with these names.
fn references<'a>(sign: char, names: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for own in names.clone() {
        *counts.entry(own).or_default() += 1;
    }
    names
        .enumerate()
        .map(|(at, own)| if counts[own] == 1 { name(sign, own) } else { format!("{sign}#{at}") })
        .collect()
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self))
    }
}

/// The text of a program.
pub fn print(program: &Program) -> String {
    let mut out = String::new();
    let mut names = Names {
        tensors: references('%', program.tensors.iter().map(|tensor| tensor.name.as_str())),
        kernels: references('@', program.kernels.iter().map(|kernel| kernel.name.as_str())),
        ..Names::default()
    };
    writeln!(out, "program {} for {}", quote(&program.name), quote(&program.machine))
        .expect(TAKES_ALL);
    for tensor in &program.tensors {
        write!(out, "tensor {}: {} {}", name('%', &tensor.name), tensor.dtype, tensor.elements)
            .expect(TAKES_ALL);
        if let Some(alias) = tensor.alias {
            write!(out, " alias {}", names.tensor(alias)).expect(TAKES_ALL);
        }
        out.push_str(if tensor.constant { " constant\n" } else { "\n" });
    }
    for &input in &program.inputs {
        writeln!(out, "input {}", names.tensor(input)).expect(TAKES_ALL);
    }
    for (own, tensor) in &program.outputs {
        writeln!(out, "output {} = {}", quote(own), names.tensor(*tensor)).expect(TAKES_ALL);
    }
    for own in &program.kernels {
        kernel(own, &mut names, &mut out);
    }
    for (word, list) in [("load", &program.load), ("run", &program.steps)] {
        if !list.is_empty() {
            writeln!(out, "{word} {{").expect(TAKES_ALL);
            steps(list, &names, 1, &mut out);
            out.push_str("}\n");
        }
    }
    out
}

fn kernel(kernel: &Kernel, names: &mut Names, out: &mut String) {
    names.operands = references('%', kernel.operands.iter().map(|operand| operand.name.as_str()));
    names.vars = references('%', kernel.vars.iter().map(|var| var.name.as_str()));
    names.semaphores = references('$', kernel.semaphores.iter().map(|own| own.name.as_str()));
    write!(out, "kernel {}(", name('@', &kernel.name)).expect(TAKES_ALL);
    for (at, operand) in kernel.operands.iter().enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        let role = match (operand.reads, operand.writes) {
            (true, true) => "updates",
            (true, false) => "reads",
            (false, true) => "writes",
            (false, false) => "ignores",
        };
        let own = name('%', &operand.name);
        write!(out, "{comma}{role} {own}: {} {}", operand.dtype, operand.elements)
            .expect(TAKES_ALL);
    }
    writeln!(out, ") sbuf {} psum {} {{", kernel.sbuf_bytes, kernel.psum_banks).expect(TAKES_ALL);
    for var in &kernel.vars {
        write!(out, "  var {}", name('%', &var.name)).expect(TAKES_ALL);
        if let Some((low, high)) = var.range {
            write!(out, " from {low} to {high}").expect(TAKES_ALL);
        }
        out.push('\n');
    }
    for semaphore in &kernel.semaphores {
        writeln!(out, "  semaphore {} = {}", name('$', &semaphore.name), semaphore.initial)
            .expect(TAKES_ALL);
    }
    for source in &kernel.sources {
        writeln!(out, "  source {}", quote(source)).expect(TAKES_ALL);
    }
    for origin in &kernel.origins {
        writeln!(out, "  origin {}", quote(origin)).expect(TAKES_ALL);
    }
    if let Some(exchange) = &kernel.exchange {
        writeln!(out, "  {}", exchange::text(exchange)).expect(TAKES_ALL);
    }
    for (&engine, list) in &kernel.streams {
        writeln!(out, "  stream {} {{", engine_name(engine)).expect(TAKES_ALL);
        items(list, names, 2, out);
        out.push_str("  }\n");
    }
    out.push_str("}\n");
}

fn items(list: &[Item], names: &Names, depth: usize, out: &mut String) {
    for item in list {
        out.push_str(&"  ".repeat(depth));
        match item {
            Item::Instruction(own) => instruction(own, names, out),
            Item::Loop { var, start, end, step, body } => {
                write!(out, "loop {} from ", names.var(*var)).expect(TAKES_ALL);
                start.write(out, names);
                out.push_str(" to ");
                end.write(out, names);
                writeln!(out, " step {step} {{").expect(TAKES_ALL);
                items(body, names, depth + 1, out);
                out.push_str(&"  ".repeat(depth));
                out.push_str("}\n");
            }
        }
    }
}

fn instruction(instruction: &Instruction, names: &Names, out: &mut String) {
    out.push_str(instruction.op.mnemonic());
    if let Op::Dma(own) = &instruction.op {
        dma(own, names, out);
    }
    write_operation(&instruction.op, out, names);
    if let Some((index, test)) = &instruction.when {
        let test = match test {
            Test::Zero => "zero",
            Test::NonZero => "nonzero",
            Test::Negative => "negative",
            Test::NonNegative => "nonnegative",
        };
        write!(out, " when {test} ").expect(TAKES_ALL);
        index.write(out, names);
    }
    let semaphores = |list: &[Semaphore], out: &mut String| {
        write_list(list, out, |own, out| out.push_str(&names.semaphore(*own)));
    };
    if !instruction.waits.is_empty() {
        out.push_str(" wait ");
        semaphores(&instruction.waits, out);
    }
    if !instruction.calls.is_empty() {
        out.push_str(" calls ");
        write_list(&instruction.calls, out, |own, out| out.push_str(&names.operand(*own)));
    }
    if instruction.after {
        out.push_str(" after");
    }
    if !instruction.signals.is_empty() {
        out.push_str(" signal ");
        semaphores(&instruction.signals, out);
    }
    if instruction.source != 0 {
        write!(out, " source {}", instruction.source).expect(TAKES_ALL);
    }
    out.push('\n');
}

fn dma(dma: &Dma, names: &Names, out: &mut String) {
    write!(out, " {} ", dma.dtype).expect(TAKES_ALL);
    dma.sizes.write(out, names);
    out.push_str(" from ");
    side(&dma.from, names, out);
    out.push_str(" to ");
    side(&dma.to, names, out);
    if let Some(combine) = &dma.combine {
        out.push_str(" combine ");
        combine.write(out, names);
    }
    if let Some(indirect) = &dma.indirect {
        out.push_str(" rows ");
        indirect.rows.write(out, names);
        write!(out, " stride {} extent {}", indirect.stride, indirect.extent).expect(TAKES_ALL);
    }
    if dma.transpose {
        out.push_str(" transposed");
    }
}

fn side(side: &Side, names: &Names, out: &mut String) {
    match side {
        Side::Far { operand, offset, strides, bounds } => {
            write!(out, "far({}, ", names.operand(*operand)).expect(TAKES_ALL);
            offset.write(out, names);
            out.push_str(", ");
            strides.write(out, names);
            for bound in bounds {
                out.push_str(", inside(");
                bound.at.write(out, names);
                out.push_str(", ");
                bound.dims.write(out, names);
                write!(out, ", {})", bound.extent).expect(TAKES_ALL);
            }
        }
        Side::Near { space, partition, offset, steps } => {
            out.push_str("near(");
            space.write(out, names);
            for index in [partition, offset] as [&Index; 2] {
                out.push_str(", ");
                index.write(out, names);
            }
            out.push_str(", ");
            steps.write(out, names);
        }
    }
    out.push(')');
}

fn steps(list: &[Step], names: &Names, depth: usize, out: &mut String) {
    let indent = "  ".repeat(depth);
    for step in list {
        out.push_str(&indent);
        match step {
            Step::Call { kernel, operands, scalars, sbuf_base, psum_base, origins } => {
                write!(out, "call {}(", known(&names.kernels, *kernel as usize, '@'))
                    .expect(TAKES_ALL);
                let operands: Vec<String> =
                    operands.iter().map(|&tensor| names.tensor(tensor)).collect();
                write!(out, "{})", operands.join(", ")).expect(TAKES_ALL);
                if !scalars.is_empty() {
                    out.push_str(" with ");
                    write_list(scalars, out, |scalar, out| match scalar {
                        Value::Constant(value) => write!(out, "{value}").expect(TAKES_ALL),
                        Value::Tensor(tensor) => out.push_str(&names.tensor(*tensor)),
                    });
                }
                if *sbuf_base != 0 {
                    write!(out, " sbuf {sbuf_base}").expect(TAKES_ALL);
                }
                if *psum_base != 0 {
                    write!(out, " psum {psum_base}").expect(TAKES_ALL);
                }
                if !origins.is_empty() {
                    out.push_str(" from ");
                    write_list(origins, out, |origin, out| out.push_str(&quote(origin)));
                }
                out.push('\n');
            }
            Step::If { condition, then, otherwise } => {
                writeln!(out, "if {} {{", names.tensor(*condition)).expect(TAKES_ALL);
                steps(then, names, depth + 1, out);
                writeln!(out, "{indent}}} else {{").expect(TAKES_ALL);
                steps(otherwise, names, depth + 1, out);
                writeln!(out, "{indent}}}").expect(TAKES_ALL);
            }
            Step::While { before, condition, body } => {
                out.push_str("while {\n");
                steps(before, names, depth + 1, out);
                writeln!(out, "{indent}}} test {} {{", names.tensor(*condition)).expect(TAKES_ALL);
                steps(body, names, depth + 1, out);
                writeln!(out, "{indent}}}").expect(TAKES_ALL);
            }
            Step::For { count, counter, body } => {
                writeln!(out, "for {count} count {} {{", names.tensor(*counter)).expect(TAKES_ALL);
                steps(body, names, depth + 1, out);
                writeln!(out, "{indent}}}").expect(TAKES_ALL);
            }
        }
    }
}
