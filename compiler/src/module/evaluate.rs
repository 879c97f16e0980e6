//! What a module means, step by step. Every buffer is memory: kernels see tensors, which are read and written through
//! the buffers' layouts, and temporaries that were planned lie in one arena, so that a wrong plan gives wrong values.

use super::{Buffer, BufferId, Lifetime, Module, ScalarSource, Step};
use crate::evaluate::{Budget, EvaluateError};
use crate::kernel::{self, Kernel, Role};
use crate::ranks::{self, Alone, Exchange};
use crate::tensor::Tensor;
use bytes::Bytes;
use std::ops::Range;

/// The results of a verified module on inputs of its parameters' types, in order. Weights must be bound: a module with a
/// `parameter` buffer has no value.
pub fn evaluate(
    module: &Module,
    inputs: &[Tensor],
    budget: &Budget<'_>,
) -> Result<Vec<Tensor>, EvaluateError> {
    evaluate_as(module, inputs, budget, &Alone)
}

/// The same on one rank of an exchange.
pub fn evaluate_as(
    module: &Module,
    inputs: &[Tensor],
    budget: &Budget<'_>,
    exchange: &dyn Exchange,
) -> Result<Vec<Tensor>, EvaluateError> {
    check_inputs(module, inputs)?;
    let needed = memory_bytes(module);
    if needed > budget.bytes {
        return Err(EvaluateError::Memory { needed, limit: budget.bytes });
    }
    let budget = Budget { cancelled: budget.cancelled, bytes: budget.bytes - needed };
    let mut machine = Memory {
        module,
        budget: &budget,
        exchange,
        arena: vec![0; module.arena_bytes],
        owned: vec![None; module.buffers.len()],
        whole: vec![None; module.buffers.len()],
    };
    for (id, buffer) in module.buffers.iter() {
        match &buffer.lifetime {
            Lifetime::Constant(value) => machine.write(id, value),
            Lifetime::Parameter(name) => {
                return Err(EvaluateError::Input(format!("parameter {name} has no value")));
            }
            Lifetime::Input | Lifetime::Loaded | Lifetime::State | Lifetime::Temporary => {}
        }
    }
    machine.run(&module.load_steps)?;
    for (&buffer, input) in module.inputs.iter().zip(inputs) {
        machine.write(buffer, input);
    }
    machine.run(&module.steps)?;
    Ok(module.outputs.iter().map(|&(_, buffer)| machine.read(buffer)).collect())
}

fn check_inputs(module: &Module, inputs: &[Tensor]) -> Result<(), EvaluateError> {
    let (wanted, found) = (module.inputs.len(), inputs.len());
    if wanted != found {
        return Err(EvaluateError::Input(format!("{wanted} inputs are needed, not {found}")));
    }
    for (&buffer, input) in module.inputs.iter().zip(inputs) {
        let Buffer { name, ty, .. } = &module.buffers[buffer];
        if ty != input.ty() {
            return Err(EvaluateError::Input(format!("input {name} is {ty}, not {}", input.ty())));
        }
    }
    Ok(())
}

/// The bytes that the buffers take, beside inputs and constants.
fn memory_bytes(module: &Module) -> usize {
    let own = |(id, buffer): (BufferId, &Buffer)| match &buffer.lifetime {
        Lifetime::Input | Lifetime::Constant(_) | Lifetime::Parameter(_) => 0,
        Lifetime::Loaded | Lifetime::State | Lifetime::Temporary => {
            let root = module.memory(id) == id && buffer.offset.is_none();
            if root { buffer.bytes() } else { 0 }
        }
    };
    module.buffers.iter().map(own).fold(module.arena_bytes, usize::saturating_add)
}

/// The memory of a running module.
struct Memory<'a> {
    module: &'a Module,
    budget: &'a Budget<'a>,
    exchange: &'a dyn Exchange,
    arena: Vec<u8>,
    /// For each buffer that is not in the arena and aliases none, its bytes once written.
    owned: Vec<Option<Bytes>>,
    /// For buffers that never change, the tensor, once read.
    whole: Vec<Option<Tensor>>,
}

impl Memory<'_> {
    fn range(&self, root: BufferId) -> Option<Range<usize>> {
        let buffer = &self.module.buffers[root];
        buffer.offset.map(|offset| offset..offset + buffer.bytes())
    }

    fn write(&mut self, buffer: BufferId, tensor: &Tensor) {
        let root = self.module.memory(buffer);
        let packed = self.module.buffers[buffer].layout.pack(tensor);
        match self.range(root) {
            Some(range) => self.arena[range.start..][..packed.len()].copy_from_slice(&packed),
            None => self.owned[root.index()] = Some(packed),
        }
    }

    fn read(&mut self, buffer: BufferId) -> Tensor {
        if let Some(tensor) = &self.whole[buffer.index()] {
            return tensor.clone();
        }
        let data = &self.module.buffers[buffer];
        let root = self.module.memory(buffer);
        let tensor = match (self.range(root), &self.owned[root.index()]) {
            (Some(range), _) => data.layout.unpack(&data.ty, &self.arena[range]),
            // Row-major bytes are shared, not copied.
            (None, Some(bytes)) if data.layout.is_row_major(&data.ty.shape) => {
                let bytes = bytes.slice(..data.ty.bytes());
                Tensor::new(data.ty.clone(), bytes).expect("a buffer holds its type's bytes")
            }
            (None, Some(bytes)) => data.layout.unpack(&data.ty, bytes),
            // Nothing was written; of an update, what was there does not matter yet.
            (None, None) => Tensor::zeros(data.ty.clone()),
        };
        match self.module.buffers[root].lifetime {
            Lifetime::Constant(_) => self.whole[buffer.index()] = Some(tensor.clone()),
            Lifetime::Input
            | Lifetime::Parameter(_)
            | Lifetime::Loaded
            | Lifetime::State
            | Lifetime::Temporary => {}
        }
        tensor
    }

    fn run(&mut self, steps: &[Step]) -> Result<(), EvaluateError> {
        for step in steps {
            self.check_cancelled()?;
            match step {
                Step::Kernel { kernel, operands, scalars, .. } => {
                    self.call(&self.module.kernels[*kernel], operands, scalars)?;
                }
                Step::Copy { from, to } => {
                    let tensor = self.read(*from);
                    self.write(*to, &tensor);
                }
                Step::Collective { op, operands, result, .. } => {
                    let operands: Vec<Tensor> =
                        operands.iter().map(|&operand| self.read(operand)).collect();
                    let value = ranks::value(op, &operands, self.exchange)?;
                    self.write(*result, &value);
                }
                Step::If { condition, then, otherwise } => {
                    let branch = if self.is_true(*condition) { then } else { otherwise };
                    self.run(branch)?;
                }
                Step::While { before, condition, body } => loop {
                    self.check_cancelled()?;
                    self.run(before)?;
                    if !self.is_true(*condition) {
                        break;
                    }
                    self.run(body)?;
                },
                Step::For { count, counter, body } => {
                    for iteration in 0..*count {
                        self.check_cancelled()?;
                        let shape = self.module.buffers[*counter].ty.shape.clone();
                        self.write(*counter, &Tensor::from_slice(&shape, &[iteration as i64]));
                        self.run(body)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_cancelled(&self) -> Result<(), EvaluateError> {
        if (self.budget.cancelled)() { Err(EvaluateError::Cancelled) } else { Ok(()) }
    }

    fn is_true(&mut self, condition: BufferId) -> bool {
        self.read(condition).to_i64().first().is_some_and(|&value| value != 0)
    }

    fn call(
        &mut self,
        kernel: &Kernel,
        buffers: &[BufferId],
        scalars: &[ScalarSource],
    ) -> Result<(), EvaluateError> {
        let scalars: Vec<i64> = scalars
            .iter()
            .zip(kernel.scalars())
            .map(|(source, (_, low, high))| {
                let value = match source {
                    ScalarSource::Constant(value) => *value,
                    ScalarSource::Buffer(buffer) => {
                        self.read(*buffer).to_i64().first().copied().unwrap_or(0)
                    }
                };
                value.clamp(low, high)
            })
            .collect();
        let roles: Vec<Role> = kernel.operands.iter().map(|(_, operand)| operand.role).collect();
        let mut tensors: Vec<Tensor> = buffers
            .iter()
            .zip(&roles)
            .map(|(&buffer, role)| match role {
                Role::Input | Role::Update => self.read(buffer),
                Role::Output => Tensor::zeros(self.module.buffers[buffer].ty.clone()),
            })
            .collect();
        kernel::evaluate(kernel, &mut tensors, &scalars, self.budget)?;
        for ((&buffer, role), tensor) in buffers.iter().zip(&roles).zip(&tensors) {
            if role.writes() {
                self.write(buffer, tensor);
            }
        }
        Ok(())
    }
}
