//! The independent checker: from the final program alone, every read sees the intended write.
//!
//! It shares no code with what makes programs and with what runs them. Each kernel's streams are unrolled and carried out
//! in one legal order; a vector clock says for each instruction which others are certainly complete when it starts, and a
//! shadow of SBUF, PSUM and the written tensors says for every piece of memory who wrote it last and who has read it since.
//!
//! The rules:
//!
//! 1. Operands are within the machine's limits: engines, memories, partitions, extents, banks, types (`limits.rs`).
//! 2. A read of SBUF or PSUM sees memory that was written, by an instruction that is certainly complete.
//! 3. A write waits for the write before it and for all reads of what it overwrites.
//! 4. What is written is not lost: it is not overwritten before anything has read any of it.
//! 5. A value is read whole: nothing that lies across its edge has overwritten a part of it.
//! 6. A write reaches each place once; a read has elements as wide as those that were written.
//! 7. Streams end: no engine waits for ever, and every semaphore ends with the tokens that it began with.
//! 8. A semaphore is signaled by one engine and waited for by one, so that its tokens have an order.
//! 9. Tensors are reached inside their bounds, only after `calls` has been waited for, and only as declared.
//!
//! What the order is built on: instructions of one engine start in order, and its compute instructions read, write and
//! complete in order, but a result can be read by the next instruction only behind `after` (sums in PSUM excepted).
//! DMAs complete in any order, and `after` does not wait for them: only semaphores do. Tokens of one semaphore arrive in
//! the order in which they were sent.
//!
//! A kernel with very many instructions is sampled: of a long loop, the first iterations, two steady ones and the last,
//! so that every rotating buffer has its turn. Rules 4 and 5, and reads of memory that only left-out iterations write,
//! are not decided then. Where a sample shows a problem, the whole kernel is followed if it is not too long.

mod footprint;
mod limits;
mod operands;
mod order;
mod run;
mod shadow;
mod steps;
mod stream;
#[cfg(test)]
mod tests;

pub use limits::Limits;

use crate::program::{Engine, Program};
use std::fmt;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// An operand that the machine cannot take.
    Limit,
    /// A read of memory that nothing has written.
    Uninitialized,
    /// Two instructions that touch the same memory, without an order.
    Race,
    /// A value that is overwritten before anything reads it.
    Lost,
    /// A value that is partly overwritten by another one.
    Overlap,
    /// Elements that are read with another width than they were written with, or written twice by one instruction.
    Element,
    /// Engines that wait for each other.
    Deadlock,
    /// A semaphore whose tokens have no order, or do not add up.
    Semaphore,
    /// An operand, a step or a tensor that does not fit its declaration.
    Declaration,
}

/// An instruction in a kernel's stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose stream.
    pub engine: Engine,
    /// The position among the stream's instructions, from 0.
    pub index: usize,
    /// What it does, as the assembly says it.
    pub mnemonic: &'static str,
    /// The tile operation it came from, where that is known.
    pub source: String,
    /// The values of the loop variables, where one execution is meant.
    pub at: Vec<(String, i64)>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The kernel, without `@`; empty where the program's steps are wrong.
    pub kernel: String,
    /// What kind of problem it is.
    pub kind: Kind,
    /// The instruction, where one is to blame.
    pub instruction: Option<Place>,
    /// Which of its operands.
    pub operand: &'static str,
    /// The other instruction, of a race, an overlap or a loss.
    pub other: Option<Place>,
    /// What is wrong, with value and limit.
    pub message: String,
}

/// What has been checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Executed instructions that were followed.
    pub instructions: u64,
    /// Kernels of which only a sample of iterations was followed.
    pub sampled: usize,
}

/// How many problems are told at most.
const TOLD: usize = 32;

/// Checks a program for a machine of these limits.
pub fn check(program: &Program, limits: &Limits) -> Result<Report, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut report = Report::default();
    steps::check(program, limits, &mut problems);
    for kernel in &program.kernels {
        let before = problems.len();
        limits::check(kernel, limits, &mut problems);
        // What is beyond the limits has no footprint that could be followed.
        if problems.len() > before {
            continue;
        }
        for scalars in run::scalar_choices(kernel) {
            let followed = run::check(kernel, limits, &scalars, &mut problems);
            report.instructions += followed.instructions;
            report.sampled += followed.sampled;
            if problems.len() > before {
                break;
            }
        }
    }
    problems.truncate(TOLD);
    if problems.is_empty() { Ok(report) } else { Err(problems) }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{} {}", engine_name(self.engine), self.index, self.mnemonic)?;
        if !self.source.is_empty() {
            write!(f, " ({})", self.source)?;
        }
        if !self.at.is_empty() {
            let values: Vec<String> =
                self.at.iter().map(|(name, value)| format!("%{name} = {value}")).collect();
            write!(f, " at {}", values.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.kernel.is_empty() {
            write!(f, "kernel @{}: ", self.kernel)?;
        }
        if let Some(place) = &self.instruction {
            write!(f, "{place}: ")?;
        }
        if !self.operand.is_empty() {
            write!(f, "{}: ", self.operand)?;
        }
        f.write_str(&self.message)?;
        if let Some(other) = &self.other {
            write!(f, "; the other is {other}")?;
        }
        Ok(())
    }
}

fn engine_name(engine: Engine) -> &'static str {
    match engine {
        Engine::Tensor => "tensor",
        Engine::Vector => "vector",
        Engine::Scalar => "scalar",
        Engine::GpSimd => "gpsimd",
        Engine::Sync => "sync",
    }
}
