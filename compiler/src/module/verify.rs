//! The rules of modules. A module that was verified never makes the evaluator, a pass or a target panic.
//!
//! 1. Every buffer and kernel that is named is one of the module; state pairs an input with an output; steps nest no
//!    deeper than 32.
//! 2. Sizes are bounded; a layout covers its buffer's type; a constant has its buffer's type.
//! 3. A call gives every operand of the kernel a buffer of its type, and every scalar parameter a number or an integer
//!    buffer with one element.
//! 4. Every kernel keeps the rules of its own level.
//! 5. A copy is between buffers of one type.
//! 6. A condition is one bool; a counter is one i64.
//! 7. Inputs that hold no state, constants and parameters are not written; load steps write loaded buffers, and steps of a
//!    run do not.
//! 8. What is read was written before, on every way there; results are written in the end.
//! 9. An alias has as many bytes as the buffer whose memory it is, and its place; how long it lives is that one's matter.
//! 10. A planned buffer is a temporary inside the arena; an alias lies where its memory does.
//! 11. Planned buffers that overlap are not live at once.
//! 12. What a call writes is no other operand's memory.
//! 13. A collective takes its operand's type and gives its result's, into memory of its own.

use super::print::Printer;
use super::{BufferId, Lifetime, Module, ScalarSource, Step};
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::op::{InferContext, Kind, Op};
use crate::text::Data;
use crate::types::{DType, TensorType};
use std::collections::BTreeMap;

const MAX_DEPTH: usize = 32;

/// The most diagnostics that are worth reading.
const MAX_REPORTED: usize = 100;

/// Every violation of the rules, each with the step or buffer that it is about.
pub fn verify(module: &Module) -> Result<(), Diagnostics> {
    let mut verifier = Verifier {
        module,
        printer: Printer::of(module, Data::Elided),
        diagnostics: Diagnostics::default(),
        written: Vec::new(),
        position: 0,
        lives: BTreeMap::new(),
    };
    verifier.known();
    // The other rules look into what is named.
    if !verifier.diagnostics.has_errors() {
        verifier.buffers();
        verifier.kernels();
    }
    if !verifier.diagnostics.has_errors() {
        verifier.run();
    }
    verifier.diagnostics.into_result(())
}

struct Verifier<'a> {
    module: &'a Module,
    printer: Printer<'a>,
    diagnostics: Diagnostics,
    /// Whether each buffer's memory holds a value here.
    written: Vec<bool>,
    /// The number of the step.
    position: usize,
    /// The first and last step that touch a memory.
    lives: BTreeMap<BufferId, (usize, usize)>,
}

/// Whether steps are done at load or in a run.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Load,
    Run,
}

impl Verifier<'_> {
    fn report(&mut self, rule: usize, what: impl AsRef<str>) {
        if self.diagnostics.0.len() < MAX_REPORTED {
            let message = format!("rule {rule}: {}", what.as_ref());
            self.diagnostics.push(Diagnostic::error(Code::Verify, message));
        }
    }

    fn report_step(&mut self, rule: usize, step: &Step, what: impl AsRef<str>) {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = self.printer.head(&mut text, step);
        self.report(rule, format!("{}: `{text}`", what.as_ref()));
    }

    fn has(&self, buffer: BufferId) -> bool {
        self.module.buffers.get(buffer).is_some()
    }

    fn known(&mut self) {
        let module = self.module;
        let mut named: Vec<BufferId> = module.inputs.clone();
        named.extend(module.outputs.iter().map(|&(_, buffer)| buffer));
        named.extend(module.buffers.iter().filter_map(|(_, buffer)| buffer.alias));
        if !named.iter().all(|&buffer| self.has(buffer)) {
            self.report(1, "an input, result or alias names no buffer of the module");
        }
        for &(input, output) in &module.state {
            if input >= module.inputs.len() || output >= module.outputs.len() {
                self.report(1, format!("state pairs input {input} with result {output}"));
            }
        }
        self.known_steps(&module.load_steps, 0);
        self.known_steps(&module.steps, 0);
        if self.diagnostics.has_errors() {
            return;
        }
        for (id, _) in module.buffers.iter() {
            let (mut buffer, mut steps) = (id, 0);
            while let Some(other) = module.buffers[buffer].alias {
                buffer = other;
                steps += 1;
                if steps > module.buffers.len() {
                    let name = self.printer.buffer(id);
                    self.report(9, format!("{name} is an alias of itself"));
                    return;
                }
            }
        }
    }

    fn known_steps(&mut self, steps: &[Step], depth: usize) {
        for step in steps {
            let mut named = Vec::new();
            let mut inner: Vec<&[Step]> = Vec::new();
            match step {
                Step::Kernel { kernel, operands, scalars, .. } => {
                    if self.module.kernels.get(*kernel).is_none() {
                        self.report_step(1, step, "the kernel is not one of the module");
                    }
                    named.extend(operands);
                    named.extend(scalars.iter().filter_map(scalar_buffer));
                }
                Step::Copy { from, to } => named.extend([*from, *to]),
                Step::Collective { operands, result, .. } => {
                    named.extend(operands);
                    named.push(*result);
                }
                Step::If { condition, then, otherwise } => {
                    named.push(*condition);
                    inner.extend([then.as_slice(), otherwise]);
                }
                Step::While { before, condition, body } => {
                    named.push(*condition);
                    inner.extend([before.as_slice(), body]);
                }
                Step::For { counter, body, .. } => {
                    named.push(*counter);
                    inner.push(body);
                }
            }
            if !named.iter().all(|&buffer| self.has(buffer)) {
                self.report_step(1, step, "a buffer is not one of the module");
            }
            if depth >= MAX_DEPTH && !inner.is_empty() {
                self.report_step(1, step, format!("steps nest deeper than {MAX_DEPTH}"));
                continue;
            }
            inner.into_iter().for_each(|steps| self.known_steps(steps, depth + 1));
        }
    }

    fn buffers(&mut self) {
        let module = self.module;
        for (id, buffer) in module.buffers.iter() {
            let name = self.printer.buffer(id);
            if buffer.ty.checked_count().is_none()
                || buffer.layout.checked_bytes(&buffer.ty).is_none()
            {
                self.report(2, format!("{name} is larger than any memory"));
                continue;
            }
            if !buffer.layout.covers(&buffer.ty.shape) {
                self.report(2, format!("the layout of {name} does not cover {}", buffer.ty));
            }
            if let Lifetime::Constant(value) = &buffer.lifetime
                && *value.ty() != buffer.ty
            {
                self.report(2, format!("{name} is {}, but its value {}", buffer.ty, value.ty()));
            }
        }
        if self.diagnostics.has_errors() {
            return;
        }
        for (id, buffer) in module.buffers.iter() {
            let name = self.printer.buffer(id);
            if let Some(alias) = buffer.alias {
                let other = &module.buffers[alias];
                if buffer.bytes() != other.bytes() {
                    let (own, others) = (buffer.bytes(), other.bytes());
                    self.report(
                        9,
                        format!("{name} has {own} bytes, what it is an alias of {others}"),
                    );
                } else if buffer.place != other.place {
                    self.report(9, format!("{name} has not the place of its memory"));
                }
                if buffer.offset != module.buffers[module.memory(id)].offset {
                    self.report(10, format!("{name} does not lie where its memory does"));
                }
            }
            if let Some(offset) = buffer.offset {
                if !matches!(buffer.lifetime, Lifetime::Temporary) {
                    self.report(10, format!("{name} is planned, but not a temporary"));
                }
                let end = offset.checked_add(buffer.bytes());
                if end.is_none_or(|end| end > module.arena_bytes) {
                    let arena = module.arena_bytes;
                    self.report(10, format!("{name} ends beyond the arena of {arena} bytes"));
                }
            }
        }
    }

    fn kernels(&mut self) {
        for (_, kernel) in self.module.kernels.iter() {
            if let Err(found) = crate::kernel::verify(kernel) {
                for diagnostic in found.0 {
                    self.report(4, format!("@{}: {}", kernel.name, diagnostic.message));
                }
            }
        }
    }

    fn run(&mut self) {
        let module = self.module;
        self.written = vec![false; module.buffers.len()];
        for (id, buffer) in module.buffers.iter() {
            self.written[id.index()] = match &buffer.lifetime {
                Lifetime::Constant(_) | Lifetime::Parameter(_) | Lifetime::State => true,
                Lifetime::Input | Lifetime::Loaded | Lifetime::Temporary => false,
            };
        }
        self.steps(&module.load_steps, Phase::Load);
        module.inputs.iter().for_each(|&buffer| self.written[module.memory(buffer).index()] = true);
        self.position = 0;
        self.lives.clear();
        self.steps(&module.steps, Phase::Run);
        self.position += 1;
        for (name, buffer) in &module.outputs {
            let memory = module.memory(*buffer);
            self.touch(memory);
            if !self.written[memory.index()] {
                self.report(8, format!("the result {name} is never written"));
            }
        }
        self.overlaps();
    }

    fn touch(&mut self, memory: BufferId) {
        let position = self.position;
        self.lives.entry(memory).or_insert((position, position)).1 = position;
    }

    fn read(&mut self, step: &Step, buffer: BufferId) {
        let memory = self.module.memory(buffer);
        self.touch(memory);
        if !self.written[memory.index()] {
            let name = self.printer.buffer(buffer);
            self.report_step(8, step, format!("{name} is read before it is written"));
            // Once is enough.
            self.written[memory.index()] = true;
        }
    }

    fn write(&mut self, step: &Step, buffer: BufferId, phase: Phase) {
        let module = self.module;
        let memory = module.memory(buffer);
        self.touch(memory);
        self.written[memory.index()] = true;
        let holds_state =
            || module.state.iter().any(|&(input, _)| module.memory(module.inputs[input]) == memory);
        let allowed = match (&module.buffers[memory].lifetime, phase) {
            (Lifetime::Constant(_) | Lifetime::Parameter(_), _) => false,
            (Lifetime::Input, Phase::Run) => holds_state(),
            (Lifetime::Loaded, phase) => phase == Phase::Load,
            (Lifetime::Temporary, _) => true,
            (Lifetime::State, phase) => phase == Phase::Run,
            (Lifetime::Input, Phase::Load) => false,
        };
        if !allowed {
            let name = self.printer.buffer(buffer);
            self.report_step(7, step, format!("{name} is not written here"));
        }
    }

    fn steps(&mut self, steps: &[Step], phase: Phase) {
        for step in steps {
            self.position += 1;
            match step {
                Step::Kernel { kernel, operands, scalars, .. } => {
                    self.call(step, *kernel, operands, scalars, phase);
                }
                Step::Copy { from, to } => {
                    let (source, target) = (self.ty(*from), self.ty(*to));
                    if source != target {
                        self.report_step(5, step, format!("{source} is copied to {target}"));
                    }
                    self.read(step, *from);
                    self.write(step, *to, phase);
                }
                Step::Collective { op, operands, result, .. } => {
                    self.collective(step, op, operands, *result);
                    operands.iter().for_each(|&operand| self.read(step, operand));
                    self.write(step, *result, phase);
                }
                Step::If { condition, then, otherwise } => {
                    self.one(step, *condition, DType::Bool);
                    self.read(step, *condition);
                    let before = self.written.clone();
                    self.steps(then, phase);
                    let after = std::mem::replace(&mut self.written, before);
                    self.steps(otherwise, phase);
                    self.written.iter_mut().zip(after).for_each(|(both, one)| *both &= one);
                }
                Step::While { before, condition, body } => {
                    let start = self.position;
                    self.one(step, *condition, DType::Bool);
                    self.steps(before, phase);
                    self.read(step, *condition);
                    let always = self.written.clone();
                    self.steps(body, phase);
                    self.written = always;
                    self.keep_through(start);
                }
                Step::For { count, counter, body } => {
                    let start = self.position;
                    self.one(step, *counter, DType::I64);
                    let before = self.written.clone();
                    self.write(step, *counter, phase);
                    self.steps(body, phase);
                    self.keep_through(start);
                    if *count == 0 {
                        self.written = before;
                    }
                }
            }
        }
    }

    /// What a loop needs from before it lives to its end, and what it leaves from its start.
    fn keep_through(&mut self, start: usize) {
        self.position += 1;
        let end = self.position;
        for (first, last) in self.lives.values_mut() {
            if *first <= start && *last > start {
                *last = end;
            }
        }
    }

    fn ty(&self, buffer: BufferId) -> TensorType {
        self.module.buffers[buffer].ty.clone()
    }

    fn one(&mut self, step: &Step, buffer: BufferId, dtype: DType) {
        let ty = self.ty(buffer);
        if ty.dtype != dtype || ty.count() != 1 {
            self.report_step(6, step, format!("one {dtype} is wanted, not {ty}"));
        }
    }

    fn call(
        &mut self,
        step: &Step,
        kernel: super::KernelId,
        buffers: &[BufferId],
        scalars: &[ScalarSource],
        phase: Phase,
    ) {
        let module = self.module;
        let kernel = &module.kernels[kernel];
        let (wanted, found) = (kernel.operands.len(), buffers.len());
        if wanted != found {
            self.report_step(3, step, format!("{wanted} operands are wanted, not {found}"));
            return;
        }
        let (wanted, found) = (kernel.scalars().len(), scalars.len());
        if wanted != found {
            self.report_step(3, step, format!("{wanted} scalars are wanted, not {found}"));
        }
        for buffer in scalars.iter().filter_map(scalar_buffer) {
            let ty = self.ty(buffer);
            if !ty.dtype.is_integer() || ty.count() != 1 {
                self.report_step(3, step, format!("one integer is wanted, not {ty}"));
            }
            self.read(step, buffer);
        }
        let pairs: Vec<_> =
            buffers.iter().zip(kernel.operands.iter().map(|(_, operand)| operand)).collect();
        for &(&buffer, operand) in &pairs {
            let (wanted, found) = (operand.ty(), self.ty(buffer));
            if wanted != found {
                let name = &operand.name;
                self.report_step(3, step, format!("operand {name} is {wanted}, not {found}"));
            }
            if operand.role.reads() {
                self.read(step, buffer);
            }
        }
        for (place, &(&buffer, operand)) in pairs.iter().enumerate() {
            if !operand.role.writes() {
                continue;
            }
            self.write(step, buffer, phase);
            let memory = module.memory(buffer);
            let shared = pairs
                .iter()
                .enumerate()
                .any(|(other, &(&buffer, _))| other != place && module.memory(buffer) == memory);
            if shared {
                let name = self.printer.buffer(buffer);
                self.report_step(12, step, format!("{name} is also another operand"));
            }
        }
    }

    fn collective(&mut self, step: &Step, op: &Op, operands: &[BufferId], result: BufferId) {
        let wanted = self.ty(result);
        if op.kind() != Kind::Collective {
            let what = format!("{} is not a collective", op.name());
            return self.report_step(13, step, what);
        }
        let types: Vec<TensorType> = operands.iter().map(|&operand| self.ty(operand)).collect();
        let types: Vec<&TensorType> = types.iter().collect();
        match op.infer(&InferContext { operands: &types, blocks: Vec::new() }) {
            Err(error) => self.report_step(13, step, error.message),
            Ok(types) if types != [wanted.clone()] => {
                let given = types.first().map_or("nothing".to_owned(), TensorType::to_string);
                self.report_step(13, step, format!("{given} is given, not {wanted}"));
            }
            Ok(_) => {}
        }
        let memory = self.module.memory(result);
        if operands.iter().any(|&operand| self.module.memory(operand) == memory) {
            let name = self.printer.buffer(result);
            self.report_step(13, step, format!("{name} is also the operand"));
        }
    }

    fn overlaps(&mut self) {
        let module = self.module;
        let mut planned: Vec<(usize, usize, BufferId, (usize, usize))> = self
            .lives
            .iter()
            .filter_map(|(&memory, &life)| {
                let buffer = &module.buffers[memory];
                let offset = buffer.offset?;
                (buffer.bytes() > 0).then_some((offset, offset + buffer.bytes(), memory, life))
            })
            .collect();
        planned.sort_unstable();
        let mut wrong = Vec::new();
        for (place, &(_, end, first, life)) in planned.iter().enumerate() {
            let meeting = planned[place + 1..].iter().take_while(|&&(start, ..)| start < end);
            for &(_, _, second, other) in meeting {
                if life.0 <= other.1 && other.0 <= life.1 {
                    wrong.push((first, second));
                }
            }
            if wrong.len() > MAX_REPORTED {
                break;
            }
        }
        for (first, second) in wrong {
            let (first, second) = (self.printer.buffer(first), self.printer.buffer(second));
            self.report(11, format!("{first} and {second} are live at once and overlap"));
        }
    }
}

fn scalar_buffer(source: &ScalarSource) -> Option<BufferId> {
    match source {
        ScalarSource::Constant(_) => None,
        ScalarSource::Buffer(buffer) => Some(*buffer),
    }
}
