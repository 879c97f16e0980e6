//! What can be seen from the steps alone: tensors exist, are written before they are read, and calls fit their kernels.

use super::{Kind, Limits, Problem};
use crate::program::{Program, Step, Value};

struct Look<'a> {
    program: &'a Program,
    limits: &'a Limits,
    problems: &'a mut Vec<Problem>,
    written: Vec<bool>,
}

/// Checks the steps of loading and of a run.
pub(super) fn check(program: &Program, limits: &Limits, problems: &mut Vec<Problem>) {
    let written = vec![false; program.tensors.len()];
    let mut look = Look { program, limits, problems, written };
    for (at, tensor) in program.tensors.iter().enumerate() {
        if tensor.alias.is_some_and(|alias| alias as usize >= program.tensors.len()) {
            look.say(format!("tensor %{} lies in one that does not exist", tensor.name));
        }
        // The runtime writes constants that no load step makes.
        look.written[at] = tensor.constant;
    }
    for &input in &program.inputs {
        look.write(input);
    }
    look.steps(&program.load);
    look.steps(&program.steps);
    for (name, output) in &program.outputs {
        look.read(*output, &format!("result %{name}"));
    }
}

impl Look<'_> {
    fn say(&mut self, message: String) {
        if self.problems.len() >= super::TOLD {
            return;
        }
        self.problems.push(Problem {
            kernel: String::new(),
            kind: Kind::Declaration,
            instruction: None,
            operand: "",
            other: None,
            message,
        });
    }

    /// The tensor whose memory it is.
    fn root(&self, tensor: u32) -> usize {
        let mut at = tensor as usize;
        for _ in 0..self.program.tensors.len() {
            match self.program.tensors.get(at).and_then(|tensor| tensor.alias) {
                Some(alias) => at = alias as usize,
                None => break,
            }
        }
        at
    }

    fn write(&mut self, tensor: u32) {
        let root = self.root(tensor);
        for at in [tensor as usize, root] {
            if let Some(written) = self.written.get_mut(at) {
                *written = true;
            }
        }
    }

    fn read(&mut self, tensor: u32, who: &str) {
        let Some(found) = self.program.tensors.get(tensor as usize) else {
            let count = self.program.tensors.len();
            return self.say(format!("{who} names tensor {tensor}; there are {count}"));
        };
        let root = self.root(tensor);
        let written =
            self.written[tensor as usize] || self.written.get(root).copied().unwrap_or(false);
        if !written {
            let name = &found.name;
            self.say(format!("{who} reads tensor %{name}, which nothing has written"));
        }
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Call { kernel, operands, scalars, sbuf_base, psum_base, .. } => {
                    let base = (*sbuf_base, *psum_base);
                    self.call(*kernel, operands, scalars, base);
                }
                Step::If { condition, then, otherwise } => {
                    self.read(*condition, "a condition");
                    let before = self.written.clone();
                    self.steps(then);
                    let after = std::mem::replace(&mut self.written, before);
                    self.steps(otherwise);
                    for (own, other) in self.written.iter_mut().zip(after) {
                        *own &= other;
                    }
                }
                Step::While { before, condition, body } => {
                    self.steps(before);
                    self.read(*condition, "a condition");
                    let kept = self.written.clone();
                    self.steps(body);
                    self.written = kept;
                }
                Step::For { count, counter, body } => {
                    self.write(*counter);
                    let kept = self.written.clone();
                    self.steps(body);
                    if *count == 0 {
                        self.written = kept;
                    }
                }
            }
        }
    }

    fn call(&mut self, kernel: u32, operands: &[u32], scalars: &[Value], base: (u32, u8)) {
        let program = self.program;
        let Some(kernel) = program.kernels.get(kernel as usize) else {
            return self
                .say(format!("a call of kernel {kernel}; there are {}", program.kernels.len()));
        };
        let name = &kernel.name;
        if operands.len() != kernel.operands.len() {
            let (given, wanted) = (operands.len(), kernel.operands.len());
            return self
                .say(format!("a call of @{name} gives {given} operands; it takes {wanted}"));
        }
        let wanted = kernel.vars.iter().filter(|var| var.range.is_some()).count();
        if scalars.len() != wanted {
            let given = scalars.len();
            self.say(format!("a call of @{name} gives {given} scalars; it takes {wanted}"));
        }
        for scalar in scalars {
            if let Value::Tensor(tensor) = scalar {
                self.read(*tensor, &format!("a call of @{name}"));
            }
        }
        for (&tensor, operand) in operands.iter().zip(&kernel.operands) {
            if operand.reads {
                self.read(tensor, &format!("a call of @{name}"));
            }
            let Some(found) = program.tensors.get(tensor as usize) else {
                if !operand.reads {
                    let count = program.tensors.len();
                    self.say(format!("a call of @{name} names tensor {tensor}; there are {count}"));
                }
                continue;
            };
            if found.elements < operand.elements || found.dtype.bytes() != operand.dtype.bytes() {
                self.say(format!(
                    "a call of @{name} gives %{} with {} elements of {} for %{}, which has {} of {}",
                    found.name, found.elements, found.dtype, operand.name, operand.elements, operand.dtype
                ));
            }
        }
        for (&tensor, operand) in operands.iter().zip(&kernel.operands) {
            if operand.writes {
                self.write(tensor);
            }
        }
        let (sbuf, banks) = base;
        if u64::from(sbuf) + u64::from(kernel.sbuf_bytes) > u64::from(self.limits.sbuf_bytes) {
            let limit = self.limits.sbuf_bytes;
            let bytes = kernel.sbuf_bytes;
            self.say(format!(
                "a call of @{name} takes {bytes} bytes of SBUF from {sbuf}; there are {limit}"
            ));
        }
        if u32::from(banks) + u32::from(kernel.psum_banks) > u32::from(self.limits.banks) {
            let (count, limit) = (kernel.psum_banks, self.limits.banks);
            self.say(format!(
                "a call of @{name} takes {count} PSUM banks from {banks}; there are {limit}"
            ));
        }
    }
}
