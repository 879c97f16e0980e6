//! Whether a program holds together: everything that it names exists, and no number is so large that it could not be meant.
//! A program that passes cannot make the simulator panic.

use super::Op;
use crate::machine::Machine;
use crate::program::{
    Access, Dma, Exchange, Index, Instruction, Item, Kernel, Program, Side, Step, Term, Value,
};
use crate::simulate::cost;
use std::collections::BTreeSet;
use systole_compiler::expr::{Expr, ExprNode};
use systole_compiler::op::{InferContext, Kind as GraphKind};
use systole_compiler::types::{DType, MAX_TENSOR_BYTES, TensorType};

/// Loops and branches are nested no deeper.
pub(crate) const MAX_DEPTH: usize = 32;
const MAX_PROBLEMS: usize = 100;
const MAX_FREE: u64 = 1 << 20;

/// Everything in a program that does not hold together; `Ok` where there is nothing.
pub fn check_structure(program: &Program, machine: &Machine) -> Result<(), Vec<String>> {
    let mut checker = Checker { program, machine, problems: Vec::new(), place: String::new() };
    checker.program();
    if checker.problems.is_empty() { Ok(()) } else { Err(checker.problems) }
}

struct Checker<'p> {
    program: &'p Program,
    machine: &'p Machine,
    problems: Vec<String>,
    place: String,
}

impl Checker<'_> {
    fn wrong(&mut self, what: impl std::fmt::Display) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(format!("{}{what}", self.place));
        }
    }

    fn program(&mut self) {
        let program = self.program;
        for (at, tensor) in program.tensors.iter().enumerate() {
            let bytes = tensor.elements.checked_mul(tensor.dtype.bytes() as u64);
            if bytes.is_none_or(|bytes| bytes > MAX_TENSOR_BYTES as u64) {
                self.wrong(format!(
                    "tensor %{} is larger than {MAX_TENSOR_BYTES} bytes",
                    tensor.name
                ));
            }
            let mut seen = BTreeSet::new();
            let mut other = tensor.alias;
            while let Some(next) = other {
                if next as usize >= program.tensors.len()
                    || next as usize == at
                    || !seen.insert(next)
                {
                    self.wrong(format!("tensor %{} has the memory of no tensor", tensor.name));
                    break;
                }
                other = program.tensors[next as usize].alias;
            }
        }
        for &tensor in program.inputs.iter().chain(program.outputs.iter().map(|(_, tensor)| tensor))
        {
            self.tensor(tensor);
        }
        for kernel in &program.kernels {
            self.kernel(kernel);
        }
        self.place.clear();
        self.steps(&program.load, 0);
        self.steps(&program.steps, 0);
    }

    fn tensor(&mut self, tensor: u32) {
        if tensor as usize >= self.program.tensors.len() {
            self.wrong(format!("there is no tensor number {tensor}"));
        }
    }

    fn steps(&mut self, steps: &[Step], depth: usize) {
        if depth > MAX_DEPTH {
            return self.wrong(format!("steps are nested deeper than {MAX_DEPTH}"));
        }
        for step in steps {
            match step {
                Step::Call { kernel, operands, scalars, sbuf_base, psum_base, .. } => {
                    for &tensor in operands {
                        self.tensor(tensor);
                    }
                    for scalar in scalars {
                        if let Value::Tensor(tensor) = scalar {
                            self.tensor(*tensor);
                        }
                    }
                    let Some(kernel) = self.program.kernels.get(*kernel as usize) else {
                        self.wrong(format!("there is no kernel number {kernel}"));
                        continue;
                    };
                    let wanted = kernel.vars.iter().filter(|var| var.range.is_some()).count();
                    if operands.len() != kernel.operands.len() || scalars.len() != wanted {
                        self.wrong(format!(
                            "a call of @{} has {} operands and {} scalars, but it takes {} and {wanted}",
                            kernel.name, operands.len(), scalars.len(), kernel.operands.len()
                        ));
                    }
                    let end = u64::from(*sbuf_base) + u64::from(kernel.sbuf_bytes);
                    let banks = u64::from(*psum_base) + u64::from(kernel.psum_banks);
                    let (most, all) =
                        (self.machine.sbuf.usable_bytes, self.machine.psum.bank_count);
                    if end > most || banks > all {
                        self.wrong(format!(
                            "@{} does not fit: {end} of {most} bytes of SBUF, {banks} of {all} banks of PSUM",
                            kernel.name
                        ));
                    }
                    for (operand, &tensor) in kernel.operands.iter().zip(operands) {
                        let Some(tensor) = self.program.tensors.get(tensor as usize) else {
                            continue;
                        };
                        let has = tensor.elements.saturating_mul(tensor.dtype.bytes() as u64);
                        let needs = operand.elements.saturating_mul(operand.dtype.bytes() as u64);
                        if needs > has {
                            self.wrong(format!(
                                "operand %{} of @{} has {needs} bytes, but tensor %{} has {has}",
                                operand.name, kernel.name, tensor.name
                            ));
                        }
                    }
                }
                Step::If { condition, then, otherwise } => {
                    self.tensor(*condition);
                    self.steps(then, depth + 1);
                    self.steps(otherwise, depth + 1);
                }
                Step::While { before, condition, body } => {
                    self.tensor(*condition);
                    self.steps(before, depth + 1);
                    self.steps(body, depth + 1);
                }
                Step::For { counter, body, .. } => {
                    self.tensor(*counter);
                    self.steps(body, depth + 1);
                }
            }
        }
    }

    fn kernel(&mut self, kernel: &Kernel) {
        self.place = format!("@{}: ", kernel.name);
        if let Some(exchange) = &kernel.exchange {
            self.exchange(kernel, exchange);
        }
        for (engine, items) in &kernel.streams {
            self.place = format!("@{} on {engine:?}: ", kernel.name);
            self.items(kernel, items, 0);
        }
    }

    fn exchange(&mut self, kernel: &Kernel, exchange: &Exchange) {
        let Exchange { op, operand, result } = exchange;
        if op.kind() != GraphKind::Collective {
            return self.wrong(format!("{} is no exchange", op.name()));
        }
        let operands: Vec<&TensorType> = operand.iter().collect();
        let context = InferContext { operands: &operands, blocks: Vec::new() };
        match op.infer(&context) {
            Ok(types) if types.as_slice() == std::slice::from_ref(result) => {}
            Ok(types) => {
                let found: Vec<String> = types.iter().map(ToString::to_string).collect();
                self.wrong(format!("{} gives {}, not {result}", op.name(), found.join(", ")));
            }
            Err(why) => self.wrong(format!("{}: {why}", op.name())),
        }
        if !kernel.streams.is_empty() || !kernel.vars.is_empty() {
            self.wrong("an exchange has no streams and no variables");
        }
        let wanted = operand.iter().map(|ty| (ty, true)).chain([(result, false)]);
        let has = kernel.operands.iter().map(|own| (own.dtype, own.elements, own.reads));
        if !wanted.map(|(ty, reads)| (ty.dtype, ty.count() as u64, reads)).eq(has) {
            self.wrong("an exchange reads what it gives, and then writes what it gets");
        }
    }

    fn items(&mut self, kernel: &Kernel, items: &[Item], depth: usize) {
        if depth > MAX_DEPTH {
            return self.wrong(format!("loops are nested deeper than {MAX_DEPTH}"));
        }
        for item in items {
            match item {
                Item::Instruction(instruction) => self.instruction(kernel, instruction),
                Item::Loop { var, start, end, step, body } => {
                    if usize::from(var.0) >= kernel.vars.len() || *step < 1 {
                        self.wrong(format!("a loop over variable {} in steps of {step}", var.0));
                    }
                    self.index(kernel, start);
                    self.index(kernel, end);
                    self.items(kernel, body, depth + 1);
                }
            }
        }
    }

    fn index(&mut self, kernel: &Kernel, index: &Index) {
        for (term, _) in &index.terms {
            let (Term::Var(var) | Term::Turn(var, _)) = term;
            if usize::from(var.0) >= kernel.vars.len() {
                self.wrong(format!("there is no variable number {}", var.0));
            }
            if matches!(term, Term::Turn(_, 0)) {
                self.wrong("a buffer with no turns");
            }
        }
    }

    fn instruction(&mut self, kernel: &Kernel, instruction: &Instruction) {
        if let Some((index, _)) = &instruction.when {
            self.index(kernel, index);
        }
        for semaphore in instruction.waits.iter().chain(&instruction.signals) {
            if usize::from(semaphore.0) >= kernel.semaphores.len() {
                self.wrong(format!("there is no semaphore number {}", semaphore.0));
            }
        }
        for &operand in &instruction.calls {
            self.operand(kernel, operand);
        }
        let op = &instruction.op;
        for access in cost::accesses(op) {
            self.access(kernel, op, access);
        }
        match op {
            Op::Dma(dma) => self.dma(kernel, dma),
            Op::Iota { base, .. } | Op::AffineSelect { base, .. } => self.index(kernel, base),
            Op::Custom { expr, inputs, .. } => self.expression(op, expr, inputs),
            Op::Matmul { stationary, moving, pace, .. } => {
                for access in [stationary, moving] {
                    if !access.free().is_multiple_of(pace.rows()) {
                        self.wrong(format!(
                            "{}: {} elements are not a multiple of {}",
                            op.mnemonic(),
                            access.free(),
                            pace.rows()
                        ));
                    }
                }
            }
            Op::Reduce { input, dims, .. } => {
                if usize::from(*dims) > input.dims.len() {
                    self.wrong(format!("reduce: {dims} of {} dimensions", input.dims.len()));
                }
            }
            Op::Fallback { kernel } => {
                if let Err(problems) = systole_compiler::kernel::verify(kernel) {
                    self.wrong(format!("fallback: {problems:?}"));
                }
            }
            Op::Transpose { .. }
            | Op::Activation { .. }
            | Op::Copy { .. }
            | Op::Memset { .. }
            | Op::TensorTensor { .. }
            | Op::TensorScalar { .. }
            | Op::ScalarTensorTensor { .. }
            | Op::Select { .. }
            | Op::Scan { .. }
            | Op::TensorTensorScan { .. }
            | Op::Reciprocal { .. }
            | Op::Exponential { .. }
            | Op::BnStats { .. }
            | Op::BnAggregate { .. }
            | Op::Max8 { .. }
            | Op::FindIndex8 { .. }
            | Op::MatchReplace8 { .. }
            | Op::TransposeBlocks { .. }
            | Op::Shuffle { .. }
            | Op::QuantizeMx { .. }
            | Op::Gather { .. }
            | Op::PartitionReduce { .. }
            | Op::PartitionBroadcast { .. }
            | Op::Nop => {}
        }
    }

    fn operand(&mut self, kernel: &Kernel, operand: u16) {
        if usize::from(operand) >= kernel.operands.len() {
            self.wrong(format!("there is no operand number {operand}"));
        }
    }

    fn access(&mut self, kernel: &Kernel, op: &Op, access: &Access) {
        self.index(kernel, &access.partition);
        self.index(kernel, &access.offset);
        let all = self.machine.sbuf.partition_count;
        if access.partitions == 0 || u64::from(access.partitions) > all {
            self.wrong(format!("{}: {} partitions, of {all}", op.mnemonic(), access.partitions));
        }
        if access.dims.iter().any(|&(_, size)| size == 0) || access.free() > MAX_FREE {
            self.wrong(format!(
                "{}: an operand with {} elements, but there must be 1 to {MAX_FREE}",
                op.mnemonic(),
                access.free()
            ));
        }
    }

    fn dma(&mut self, kernel: &Kernel, dma: &Dma) {
        const MAX_DIMS: usize = 8;
        let dims = dma.sizes.len();
        let count = dma.sizes.iter().try_fold(1u64, |all, &n| all.checked_mul(u64::from(n)));
        if dims > MAX_DIMS || count.is_none_or(|count| count > 1 << 40) {
            self.wrong(format!("dma: sizes {:?} are too many or too large", dma.sizes));
        }
        for side in [&dma.from, &dma.to] {
            match side {
                Side::Far { operand, offset, strides, bounds } => {
                    self.operand(kernel, *operand);
                    self.index(kernel, offset);
                    if strides.len() != dims {
                        self.wrong(format!("dma: {} strides for {dims} sizes", strides.len()));
                    }
                    for bound in bounds {
                        self.index(kernel, &bound.at);
                        if bound.dims.iter().any(|&(dim, _)| usize::from(dim) >= dims) {
                            self.wrong("dma: a bound on a dimension that it does not have");
                        }
                        let large =
                            bound.dims.iter().any(|&(_, factor)| factor.unsigned_abs() > 1 << 24);
                        if large || bound.extent.unsigned_abs() > 1 << 44 {
                            self.wrong("dma: a bound with numbers that are too large");
                        }
                    }
                    if strides.iter().any(|stride| stride.unsigned_abs() > 1 << 44) {
                        self.wrong("dma: a stride that is too large");
                    }
                }
                Side::Near { partition, offset, steps, .. } => {
                    self.index(kernel, partition);
                    self.index(kernel, offset);
                    if steps.len() != dims {
                        self.wrong(format!("dma: {} steps for {dims} sizes", steps.len()));
                    }
                }
            }
        }
        if dma.indirect.is_some() && dims == 0 {
            self.wrong("dma: row numbers for no rows");
        }
        if let Some(indirect) = &dma.indirect
            && indirect.stride.unsigned_abs() > 1 << 44
        {
            self.wrong("dma: a stride that is too large");
        }
        if dma.combine.is_some_and(|how| {
            use systole_compiler::kernel::Combine;
            matches!(how, Combine::And | Combine::Or) && dma.dtype.is_float()
        }) {
            self.wrong(format!("dma: no logic on {}", dma.dtype));
        }
    }

    fn expression(&mut self, op: &Op, expr: &Expr, inputs: &[Access]) {
        if expr.root >= expr.nodes.len() {
            return self.wrong("custom: an expression without a result");
        }
        for (at, (node, dtype)) in expr.nodes.iter().enumerate() {
            let fits = match node {
                ExprNode::Operand(operand) => {
                    inputs.get(*operand).is_some_and(|access| access.dtype == *dtype)
                }
                ExprNode::Constant(value) => value.dtype == *dtype,
                ExprNode::Index(_) | ExprNode::Var(_) => false,
                ExprNode::Call(function, operands) => {
                    let types: Vec<DType> = operands
                        .iter()
                        .filter(|&&other| other < at)
                        .map(|&other| expr.nodes[other].1)
                        .collect();
                    types.len() == operands.len() && function.result(&types) == Ok(*dtype)
                }
                ExprNode::Convert(other) => *other < at,
            };
            if !fits {
                self.wrong(format!("{}: node {at} of the expression does not fit", op.mnemonic()));
            }
        }
    }
}
