//! What instructions do to data. Engines convert operands to f32, compute, and convert the result.

use super::SimulateError;
use super::code::{KernelCode, Timed};
use super::engine::{Call, Data};
use super::functions::{alu, combine, function};
use super::memory::{self, Memory};
use super::product::product;
use crate::isa::{Alu, Op, Pace};
use crate::program::{Access, Engine, Index, Operand1, Program, Space, Term};
use systole_compiler::expr::{Expr, ExprNode};
use systole_compiler::kernel::Combine;
use systole_compiler::narrow;
use systole_compiler::tensor::{Tensor, Values};
use systole_compiler::types::{DType, TensorType};

/// Memory, and the program that works on it.
#[derive(Debug)]
pub(super) struct Machinery<'p> {
    pub(super) program: &'p Program,
    pub(super) memory: Memory,
    bank_bytes: u64,
    packed: (Vec<f32>, Vec<f32>),
}

/// An operand with its place in memory.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) access: &'a Access,
    /// The first byte of each partition's row, for each partition.
    first: usize,
    row: usize,
    /// Bytes that the first element lies behind the row's start.
    offset: usize,
}

/// One instruction in its surroundings.
pub(super) struct Step<'a> {
    pub(super) call: &'a Call,
    pub(super) code: &'a KernelCode<'a>,
    pub(super) timed: &'a Timed<'a>,
    pub(super) value: &'a dyn Fn(Term) -> i64,
}

impl Step<'_> {
    /// What the instruction is called in messages.
    pub(super) fn name(&self) -> String {
        let source = self.code.kernel.sources.get(self.timed.source);
        let mnemonic = self.timed.instruction.op.mnemonic();
        source.map_or_else(|| mnemonic.to_owned(), |source| format!("{mnemonic} ({source})"))
    }

    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> SimulateError {
        SimulateError::Program(format!(
            "{} in kernel @{}: {what}",
            self.name(),
            self.code.kernel.name
        ))
    }
}

impl Data for Machinery<'_> {
    fn execute(
        &mut self,
        timed: &Timed<'_>,
        _engine: Engine,
        call: &Call,
        kernel: &KernelCode<'_>,
        value: &dyn Fn(Term) -> i64,
    ) -> Result<(), SimulateError> {
        self.instruction(&Step { call, code: kernel, timed, value })
    }

    fn scalar(&self, tensor: u32) -> Option<i64> {
        let info = self.program.tensors.get(tensor as usize)?;
        let block = self.memory.tensor(tensor)?;
        let bytes = block.bytes.get(..info.dtype.bytes())?;
        narrow::decode(info.dtype, bytes).into_i64().first().copied()
    }

    fn set_counter(&mut self, tensor: u32, value: i64) {
        let dtype = self.program.tensors[tensor as usize].dtype;
        let bytes = narrow::encode(dtype, &Values::Int(vec![value]));
        if let Some(block) = self.memory.tensor_mut(tensor)
            && block.bytes.len() >= bytes.len()
        {
            block.bytes[..bytes.len()].copy_from_slice(&bytes);
            block.mark(0, bytes.len());
        }
    }

    fn given(&self, call: &Call, kernel: &KernelCode<'_>) -> Result<Option<Tensor>, SimulateError> {
        let ty = kernel.kernel.exchange.as_ref().and_then(|exchange| exchange.operand.clone());
        let (Some(ty), Some(&tensor)) = (ty, call.operands.first()) else { return Ok(None) };
        let unwritten =
            self.memory.tensor(tensor).and_then(|block| block.first_poison(0, ty.bytes()));
        if let Some(byte) = unwritten {
            return Err(SimulateError::Uninitialized {
                instruction: "exchange".to_owned(),
                kernel: kernel.kernel.name.clone(),
                operand: 0,
                partition: 0,
                byte: byte as u64,
            });
        }
        let flat = self.memory.read(self.program, tensor);
        let bytes = flat.bytes().slice(..ty.bytes().min(flat.bytes().len()));
        Ok(Tensor::new(ty, bytes))
    }

    fn take(
        &mut self,
        call: &Call,
        kernel: &KernelCode<'_>,
        value: &Tensor,
    ) -> Result<(), SimulateError> {
        let Some(&tensor) = call.operands.last() else { return Ok(()) };
        let Some(block) = self.memory.tensor_mut(tensor) else { return Ok(()) };
        let bytes = value.bytes();
        if bytes.len() > block.bytes.len() {
            let name = &kernel.kernel.name;
            return Err(SimulateError::Program(format!(
                "@{name} gives more than its result holds"
            )));
        }
        block.bytes[..bytes.len()].copy_from_slice(bytes);
        block.mark(0, bytes.len());
        Ok(())
    }
}

impl<'p> Machinery<'p> {
    pub(super) fn new(program: &'p Program, memory: Memory, bank_bytes: u64) -> Machinery<'p> {
        Machinery { program, memory, bank_bytes, packed: Default::default() }
    }

    pub(super) fn bank_bytes(&self) -> u64 {
        self.bank_bytes
    }

    fn instruction(&mut self, step: &Step<'_>) -> Result<(), SimulateError> {
        let op = &step.timed.instruction.op;
        match op {
            Op::Nop => Ok(()),
            Op::Dma(dma) => self.transfer(step, dma),
            Op::Matmul { stationary, moving, out, accumulate, pace, scales } => {
                let shape = (stationary, moving, out);
                self.matmul(step, shape, *accumulate, *pace, scales.as_deref())
            }
            Op::Transpose { input, out } => {
                let (rows, width) = (usize::from(input.partitions), input.free() as usize);
                let x = self.read(step, input, 0)?;
                let mut y = vec![0.0; x.len()];
                for row in 0..rows {
                    for column in 0..width {
                        y[column * rows + row] = x[row * width + column];
                    }
                }
                if usize::from(out.partitions) != width || out.free() as usize != rows {
                    return Err(step.wrong("the result of a transpose has another shape"));
                }
                self.write(step, out, &y)
            }
            Op::Activation { function: which, input, scale, bias, out, reduce } => {
                let mut x = self.read(step, input, 0)?;
                let n = input.free() as usize;
                let scale = self.operand(step, scale, 1, input.partitions)?;
                let bias = self.operand(step, bias, 2, input.partitions)?;
                let apply = function(*which);
                for (partition, row) in x.chunks_exact_mut(n.max(1)).enumerate() {
                    let (scale, bias) = (scale[partition], bias[partition]);
                    for value in row {
                        *value = apply(*value * scale + bias);
                    }
                }
                self.write(step, out, &x)?;
                self.write_reduced(step, reduce.as_ref(), &x, n)
            }
            Op::Copy { input, out } => self.copy(step, input, out),
            Op::Memset { out, value } => {
                let bytes = narrow::encode(out.dtype, &value.values(1));
                let row = bytes.repeat(out.free() as usize);
                for partition in 0..out.partitions {
                    self.write_raw(step, out, partition, &row)?;
                }
                Ok(())
            }
            Op::TensorTensor { alu: which, a, b, out } => {
                let mut x = self.read(step, a, 0)?;
                let y = self.read(step, b, 1)?;
                pairs(*which, &mut x, &y);
                self.write(step, out, &x)
            }
            Op::TensorScalar { input, first, second, out, reduce } => {
                let mut x = self.read(step, input, 0)?;
                let n = input.free() as usize;
                self.with_scalar(step, first, 1, input.partitions, n, &mut x)?;
                if let Some(second) = second {
                    self.with_scalar(step, second, 2, input.partitions, n, &mut x)?;
                }
                self.write(step, out, &x)?;
                self.write_reduced(step, reduce.as_ref(), &x, n)
            }
            Op::ScalarTensorTensor { a, first, second, b, out } => {
                let mut x = self.read(step, a, 0)?;
                self.with_scalar(step, first, 1, a.partitions, a.free() as usize, &mut x)?;
                let y = self.read(step, b, 2)?;
                pairs(*second, &mut x, &y);
                self.write(step, out, &x)
            }
            Op::Select { predicate, on_true, on_false, out } => {
                let test = self.read(step, predicate, 0)?;
                let mut x = self.read(step, on_true, 1)?;
                let y = self.read(step, on_false, 2)?;
                for ((x, &y), &test) in x.iter_mut().zip(&y).zip(&test) {
                    *x = if test != 0.0 { *x } else { y };
                }
                self.write(step, out, &x)
            }
            Op::Reduce { combine: how, input, dims, out } => {
                let x = self.read(step, input, 0)?;
                let inner = input.dims.iter().rev().take(usize::from(*dims));
                let n: usize = inner.map(|&(_, size)| size as usize).product();
                let join = combine(*how);
                let y: Vec<f32> = x
                    .chunks_exact(n.max(1))
                    .map(|row| row[1..].iter().fold(row[0], |all, &value| join(all, value)))
                    .collect();
                self.write(step, out, &y)
            }
            Op::Scan { combine: how, input, initial, out } => {
                let mut x = self.read(step, input, 0)?;
                let initial = self.operand(step, initial, 1, input.partitions)?;
                let join = combine(*how);
                let n = (input.free() as usize).max(1);
                for (row, &initial) in x.chunks_exact_mut(n).zip(&initial) {
                    let mut all = initial;
                    for value in row {
                        all = join(all, *value);
                        *value = all;
                    }
                }
                self.write(step, out, &x)
            }
            Op::TensorTensorScan { first, second, a, b, initial, out } => {
                let mut x = self.read(step, a, 0)?;
                let y = self.read(step, b, 1)?;
                let initial = self.operand(step, initial, 2, a.partitions)?;
                let n = (a.free() as usize).max(1);
                let (first, second) = (alu(*first), alu(*second));
                let rows = x.chunks_exact_mut(n).zip(y.chunks_exact(n)).zip(&initial);
                for ((row, others), &initial) in rows {
                    let mut all = initial;
                    for (value, &other) in row.iter_mut().zip(others) {
                        all = second(first(*value, all), other);
                        *value = all;
                    }
                }
                self.write(step, out, &x)
            }
            Op::Reciprocal { input, out } => {
                let mut x = self.read(step, input, 0)?;
                x.iter_mut().for_each(|value| *value = 1.0 / *value);
                self.write(step, out, &x)
            }
            Op::Exponential { input, bias, out } => {
                let mut x = self.read(step, input, 0)?;
                let bias = self.operand(step, bias, 1, input.partitions)?;
                for (row, bias) in x.chunks_exact_mut((input.free() as usize).max(1)).zip(bias) {
                    row.iter_mut().for_each(|value| *value = libm::expf(*value - bias));
                }
                self.write(step, out, &x)
            }
            Op::BnStats { input, out } => {
                let x = self.read(step, input, 0)?;
                let rows = x.chunks_exact((input.free() as usize).max(1));
                let y: Vec<f32> = rows.flat_map(bn_stats).collect();
                self.write(step, out, &y)
            }
            Op::BnAggregate { input, out } => {
                let x = self.read(step, input, 0)?;
                let rows = x.chunks_exact((input.free() as usize).max(1));
                let y: Vec<f32> = rows.flat_map(bn_aggregate).collect();
                self.write(step, out, &y)
            }
            Op::Max8 { input, out } => {
                let x = self.read(step, input, 0)?;
                let mut y = Vec::new();
                for row in x.chunks_exact((input.free() as usize).max(1)) {
                    let mut sorted = row.to_vec();
                    sorted.sort_by(|a, b| b.total_cmp(a));
                    sorted.resize(8, f32::NEG_INFINITY);
                    y.extend_from_slice(&sorted);
                }
                self.write(step, out, &y)
            }
            Op::FindIndex8 { input, values, out } => {
                let x = self.read(step, input, 0)?;
                let wanted = self.read(step, values, 1)?;
                let rows = x.chunks_exact((input.free() as usize).max(1));
                for (partition, (row, wanted)) in rows.zip(wanted.chunks_exact(8)).enumerate() {
                    let find = |value: &f32| row.iter().position(|other| other == value);
                    let places = wanted.iter().map(|value| find(value).map_or(-1, |at| at as i64));
                    let places = Values::Int(places.collect());
                    let bytes = narrow::encode(out.dtype, &places);
                    self.write_raw(step, out, partition as u16, &bytes)?;
                }
                Ok(())
            }
            Op::MatchReplace8 { input, values, value, out } => {
                let mut x = self.read(step, input, 0)?;
                let wanted = self.read(step, values, 1)?;
                let rows = x.chunks_exact_mut((input.free() as usize).max(1));
                for (row, wanted) in rows.zip(wanted.chunks_exact(8)) {
                    for wanted in wanted {
                        if let Some(found) = row.iter_mut().find(|other| *other == wanted) {
                            *found = *value;
                        }
                    }
                }
                self.write(step, out, &x)
            }
            Op::TransposeBlocks { input, out } => {
                let x = self.read(step, input, 0)?;
                let (width, wide) = (input.free() as usize, out.free() as usize);
                let mut y = vec![0.0; usize::from(out.partitions) * wide];
                for row in 0..usize::from(input.partitions) {
                    for column in 0..width {
                        let to_row = row / 32 * 32 + column % 32;
                        let to_column = column / 32 * 32 + row % 32;
                        if to_column < wide && to_row < usize::from(out.partitions) {
                            y[to_row * wide + to_column] = x[row * width + column];
                        }
                    }
                }
                self.write(step, out, &y)
            }
            Op::Shuffle { input, mask, out } => {
                let x = self.read(step, input, 0)?;
                let n = input.free() as usize;
                let mut y = Vec::with_capacity(x.len());
                for partition in 0..usize::from(out.partitions) {
                    let from = partition / 32 * 32 + usize::from(mask[partition % 32]);
                    let row = x.get(from * n..(from + 1) * n);
                    y.extend_from_slice(row.ok_or_else(|| {
                        step.wrong(format!("partition {from} is not in the input"))
                    })?);
                }
                self.write(step, out, &y)
            }
            Op::QuantizeMx { input, out, scales } => self.quantize(step, input, out, scales),
            Op::Iota { base, channel, steps, out } => {
                for partition in 0..out.partitions {
                    let numbers = self.affine(step, base, *channel, steps, out, partition);
                    let bytes = narrow::encode(out.dtype, &Values::Int(numbers));
                    self.write_raw(step, out, partition, &bytes)?;
                }
                Ok(())
            }
            Op::AffineSelect { input, base, channel, steps, fill, out } => {
                let mut x = self.read(step, input, 0)?;
                let n = (input.free() as usize).max(1);
                for (partition, row) in x.chunks_exact_mut(n).enumerate() {
                    let numbers = self.affine(step, base, *channel, steps, out, partition as u16);
                    for (value, number) in row.iter_mut().zip(numbers) {
                        *value = if number >= 0 { *value } else { *fill };
                    }
                }
                self.write(step, out, &x)
            }
            Op::Gather { input, index, out } => {
                let x = self.read(step, input, 0)?;
                let n = input.free() as usize;
                let mut y = Vec::new();
                for (partition, row) in x.chunks_exact(n.max(1)).enumerate() {
                    let at = self.integers(step, index, 1, partition as u16)?;
                    y.extend(at.iter().map(|&at| row[at.clamp(0, n as i64 - 1) as usize]));
                }
                self.write(step, out, &y)
            }
            Op::PartitionReduce { combine: how, input, out } => {
                let x = self.read(step, input, 0)?;
                let join = combine(*how);
                let mut rows = x.chunks_exact((input.free() as usize).max(1));
                let mut y = rows.next().map(<[f32]>::to_vec).unwrap_or_default();
                for row in rows {
                    y.iter_mut().zip(row).for_each(|(y, &x)| *y = join(*y, x));
                }
                self.write(step, out, &y)
            }
            Op::PartitionBroadcast { input, out } => {
                let x = self.read(step, input, 0)?;
                self.write(step, out, &x.repeat(usize::from(out.partitions)))
            }
            Op::Custom { expr, inputs, out } => self.custom(step, expr, inputs, out),
            Op::Fallback { kernel } => self.fallback(step, kernel),
        }
    }

    fn matmul(
        &mut self,
        step: &Step<'_>,
        (stationary, moving, out): (&Access, &Access, &Access),
        accumulate: bool,
        pace: Pace,
        scales: Option<&(Access, Access)>,
    ) -> Result<(), SimulateError> {
        let mut a = self.read(step, stationary, 0)?;
        let mut b = self.read(step, moving, 1)?;
        if let Some((left, right)) = scales {
            let (rows, columns) = (pace.rows() as usize, usize::from(stationary.partitions));
            for (values, access, at) in [(&mut a, left, 3), (&mut b, right, 4)] {
                let width = values.len() / columns.max(1) / rows.max(1);
                let exponents = self.read(step, access, at)?;
                for (position, value) in values.iter_mut().enumerate() {
                    let (partition, free) = (position / (width * rows), position % width);
                    let exponent = exponents.get(partition / 8 * width + free);
                    let exponent = exponent.copied().unwrap_or(127.0) as i32 - 127;
                    *value *= libm::ldexpf(1.0, exponent);
                }
            }
        }
        // Further rows of a partition are further terms of the sum: [k][r][s] is a matrix of k · r rows.
        let rows = pace.rows() as usize;
        let k = usize::from(stationary.partitions) * rows;
        let (s, m) = (a.len() / k.max(1), b.len() / k.max(1));
        if k == 0
            || s * k != a.len()
            || m * k != b.len()
            || stationary.partitions != moving.partitions
        {
            return Err(step.wrong("the operands of a product do not fit each other"));
        }
        if usize::from(out.partitions) != s || out.free() as usize != m {
            return Err(step.wrong(format!(
                "the result of a product is {s} × {m}, but the operand is {} × {}",
                out.partitions,
                out.free()
            )));
        }
        let mut sums = Vec::new();
        let mut packed = std::mem::take(&mut self.packed);
        product((k, s, m), &a, &b, &mut packed, &mut sums);
        self.packed = packed;
        if accumulate {
            let before = self.read(step, out, 2)?;
            sums.iter_mut().zip(&before).for_each(|(sum, &before)| *sum += before);
        }
        self.write(step, out, &sums)
    }

    fn copy(&mut self, step: &Step<'_>, input: &Access, out: &Access) -> Result<(), SimulateError> {
        if input.dtype.is_float() && out.dtype.is_float() && input.dtype != out.dtype {
            let x = self.read(step, input, 0)?;
            return self.write(step, out, &x);
        }
        // The same type, or integers: exact.
        for partition in 0..input.partitions {
            let mut bytes = self.read_raw(step, input, 0, partition)?;
            if input.dtype != out.dtype {
                let values = narrow::decode(input.dtype, &bytes);
                bytes = narrow::encode(out.dtype, &values);
            }
            self.write_raw(step, out, partition, &bytes)?;
        }
        Ok(())
    }

    fn quantize(
        &mut self,
        step: &Step<'_>,
        input: &Access,
        out: &Access,
        scales: &Access,
    ) -> Result<(), SimulateError> {
        let mut x = self.read(step, input, 0)?;
        let n = input.free() as usize;
        let (width, groups) = (n / 4, usize::from(input.partitions) / 8);
        // The exponent of the largest number of the narrow type, and that number.
        let (top, largest) = if out.dtype == DType::F8E5M2 {
            (15, 57344.0)
        } else if out.dtype == DType::F4E2M1 {
            (2, 6.0)
        } else {
            (8, 448.0)
        };
        let mut exponents = vec![0.0f32; groups * width];
        for group in 0..groups {
            for column in 0..width {
                let cells = || {
                    (0..8).flat_map(move |p| {
                        (0..4).map(move |r| (group * 8 + p) * n + r * width + column)
                    })
                };
                let most = cells().map(|at| x[at].abs()).fold(0.0f32, f32::max);
                let exponent = if most > 0.0 { libm::ilogbf(most) - top } else { -127 };
                let exponent = exponent.clamp(-127, 127);
                exponents[group * width + column] = (exponent + 127) as f32;
                let scale = libm::ldexpf(1.0, -exponent);
                for at in cells() {
                    x[at] = (x[at] * scale).clamp(-largest, largest);
                }
            }
        }
        self.write(step, out, &x)?;
        self.write(step, scales, &exponents)
    }

    fn custom(
        &mut self,
        step: &Step<'_>,
        expr: &Expr,
        inputs: &[Access],
        out: &Access,
    ) -> Result<(), SimulateError> {
        let count = out.free() as usize;
        for partition in 0..out.partitions {
            let mut operands = Vec::new();
            for (at, input) in inputs.iter().enumerate() {
                let bytes = self.read_raw(step, input, at, partition)?;
                operands.push(narrow::decode(input.dtype, &bytes));
            }
            let mut nodes: Vec<Values> = Vec::with_capacity(expr.nodes.len());
            for (node, dtype) in &expr.nodes {
                let values = match node {
                    ExprNode::Operand(at) => operands
                        .get(*at)
                        .cloned()
                        .ok_or_else(|| step.wrong(format!("there is no operand {at}")))?,
                    ExprNode::Constant(value) => value.values(count),
                    ExprNode::Index(_) | ExprNode::Var(_) => {
                        return Err(step.wrong("exact code reads operands and constants alone"));
                    }
                    ExprNode::Call(function, operands) => {
                        let operands: Vec<&Values> =
                            operands.iter().map(|&at| &nodes[at]).collect();
                        function.evaluate(&operands).rounded(*dtype)
                    }
                    ExprNode::Convert(from) => {
                        nodes[*from].clone().convert(expr.nodes[*from].1, *dtype)
                    }
                };
                if values.len() != count {
                    return Err(step.wrong("an operand has another size than the result"));
                }
                nodes.push(values);
            }
            let result = nodes.swap_remove(expr.root).convert(expr.dtype(), out.dtype);
            self.write_raw(step, out, partition, &narrow::encode(out.dtype, &result))?;
        }
        Ok(())
    }

    fn fallback(
        &mut self,
        step: &Step<'_>,
        kernel: &systole_compiler::kernel::Kernel,
    ) -> Result<(), SimulateError> {
        use systole_compiler::evaluate::Budget;
        let mut tensors = Vec::new();
        for ((_, operand), &tensor) in kernel.operands.iter().zip(&step.call.operands) {
            let shape: Vec<usize> = operand.dims.iter().map(|&(_, size)| size).collect();
            let ty = TensorType::new(operand.dtype, &shape);
            let flat = self.memory.read(self.program, tensor);
            let bytes = flat.bytes().slice(..ty.bytes().min(flat.bytes().len()));
            let value = Tensor::new(ty, bytes);
            tensors.push(value.ok_or_else(|| {
                step.wrong(format!("operand %{} has another size in memory", operand.name))
            })?);
        }
        let budget = Budget { cancelled: &|| false, bytes: usize::MAX };
        systole_compiler::kernel::evaluate(kernel, &mut tensors, &step.call.scalars, &budget)
            .map_err(|error| step.wrong(format!("{error:?}")))?;
        let operands = kernel.operands.iter().zip(&step.call.operands).zip(&tensors);
        for (((_, operand), &tensor), value) in operands {
            if operand.role == systole_compiler::kernel::Role::Input {
                continue;
            }
            let Some(block) = self.memory.tensor_mut(tensor) else { continue };
            let bytes = value.bytes();
            block.bytes[..bytes.len()].copy_from_slice(bytes);
            block.mark(0, bytes.len());
        }
        Ok(())
    }

    /// `base + partition · channel + Σ position · step` for each element of a partition.
    fn affine(
        &self,
        step: &Step<'_>,
        base: &Index,
        channel: i64,
        steps: &[i64],
        out: &Access,
        partition: u16,
    ) -> Vec<i64> {
        let first = base.evaluate(step.value);
        let first = first.wrapping_add(channel.wrapping_mul(i64::from(partition)));
        let mut numbers = vec![first];
        for (dim, &(_, size)) in out.dims.iter().enumerate() {
            let by = steps.get(dim).copied().unwrap_or(0);
            let grown = numbers.iter().flat_map(|&number| {
                (0..i64::from(size)).map(move |at| number.wrapping_add(by.wrapping_mul(at)))
            });
            numbers = grown.collect();
        }
        numbers
    }

    fn operand(
        &self,
        step: &Step<'_>,
        operand: &Operand1,
        at: usize,
        partitions: u16,
    ) -> Result<Vec<f32>, SimulateError> {
        match operand {
            Operand1::Immediate(value) => Ok(vec![*value; usize::from(partitions)]),
            Operand1::Partition(access) => {
                let values = self.read(step, access, at)?;
                if values.len() < usize::from(partitions) {
                    return Err(step.wrong("an operand has fewer partitions than the input"));
                }
                Ok(values)
            }
        }
    }

    fn with_scalar(
        &self,
        step: &Step<'_>,
        (which, scalar, reversed): &(Alu, Operand1, bool),
        at: usize,
        partitions: u16,
        n: usize,
        x: &mut [f32],
    ) -> Result<(), SimulateError> {
        let scalars = self.operand(step, scalar, at, partitions)?;
        let apply = alu(*which);
        for (row, &scalar) in x.chunks_exact_mut(n.max(1)).zip(&scalars) {
            for value in row {
                *value = if *reversed { apply(scalar, *value) } else { apply(*value, scalar) };
            }
        }
        Ok(())
    }

    fn write_reduced(
        &mut self,
        step: &Step<'_>,
        reduce: Option<&(Combine, Access)>,
        x: &[f32],
        n: usize,
    ) -> Result<(), SimulateError> {
        let Some((how, access)) = reduce else { return Ok(()) };
        let join = combine(*how);
        let y: Vec<f32> = x
            .chunks_exact(n.max(1))
            .map(|row| row[1..].iter().fold(row[0], |all, &value| join(all, value)))
            .collect();
        self.write(step, access, &y)
    }

    /// Finds an operand in memory and checks that it lies inside.
    pub(super) fn place<'a>(
        &self,
        step: &Step<'_>,
        access: &'a Access,
    ) -> Result<Place<'a>, SimulateError> {
        let (block, row) = self.memory.near(access.space);
        let base = match access.space {
            Space::Sbuf => i64::from(step.call.sbuf.0),
            Space::Psum => i64::from(step.call.psum.0) * self.bank_bytes as i64,
        };
        let partition = access.partition.evaluate(step.value);
        let offset = access.offset.evaluate(step.value).saturating_add(base);
        let size = access.dtype.bytes() as i64;
        let (mut low, mut high) = (0i64, 0i64);
        for &(stride, n) in &access.dims {
            let far = i64::from(stride) * i64::from(n.saturating_sub(1));
            low += far.min(0);
            high += far.max(0);
        }
        let last = partition.saturating_add(i64::from(access.partitions));
        if partition < 0 || last > self.memory.partitions as i64 {
            return Err(step.wrong(format!(
                "partitions {partition} to {last} are not all of the {}",
                self.memory.partitions
            )));
        }
        let (first_byte, end) = (offset + low * size, offset + (high + 1) * size);
        if access.free() > 0 && (first_byte < 0 || end > row as i64) {
            return Err(step.wrong(format!(
                "bytes {first_byte} to {end} are not all inside a partition of {row} bytes"
            )));
        }
        debug_assert!(block.bytes.len() >= self.memory.partitions * row);
        Ok(Place { access, first: partition as usize, row, offset: offset as usize })
    }

    /// The elements of an operand as f32, partition after partition.
    fn read(
        &self,
        step: &Step<'_>,
        access: &Access,
        operand: usize,
    ) -> Result<Vec<f32>, SimulateError> {
        let place = self.place(step, access)?;
        let (block, _) = self.memory.near(access.space);
        let free = access.free() as usize;
        let mut out = vec![0.0f32; usize::from(access.partitions) * free];
        if free == 0 {
            return Ok(out);
        }
        let size = access.dtype.bytes();
        for (partition, row) in out.chunks_exact_mut(free).enumerate() {
            let mut done = 0;
            let mut poison = None;
            place.runs(partition, |start, stride, count| {
                let values = &mut row[done..done + count];
                done += count;
                if poison.is_none() {
                    poison = first_poison(block, start, stride, count, size);
                }
                match usize::try_from(stride) {
                    Ok(0) => {
                        memory::decode(
                            access.dtype,
                            &block.bytes[start..start + size],
                            1,
                            &mut values[..1],
                        );
                        let value = values[0];
                        values.fill(value);
                    }
                    Ok(stride) => {
                        memory::decode(access.dtype, &block.bytes[start..], stride, values);
                    }
                    Err(_) => {
                        for (position, value) in values.iter_mut().enumerate() {
                            let at = start - position * stride.unsigned_abs() * size;
                            let one = std::slice::from_mut(value);
                            memory::decode(access.dtype, &block.bytes[at..at + size], 1, one);
                        }
                    }
                }
            });
            if let Some(byte) = poison {
                return Err(uninitialized(step, operand, byte, place.row));
            }
        }
        Ok(out)
    }

    /// The elements of one partition of an operand as they are.
    pub(super) fn read_raw(
        &self,
        step: &Step<'_>,
        access: &Access,
        operand: usize,
        partition: u16,
    ) -> Result<Vec<u8>, SimulateError> {
        let place = self.place(step, access)?;
        let (block, _) = self.memory.near(access.space);
        let size = access.dtype.bytes();
        let mut out = Vec::with_capacity(access.free() as usize * size);
        let mut poison = None;
        if access.free() > 0 {
            place.runs(usize::from(partition), |start, stride, count| {
                if poison.is_none() {
                    poison = first_poison(block, start, stride, count, size);
                }
                for position in 0..count {
                    let at = start.wrapping_add_signed(stride * (position * size) as isize);
                    out.extend_from_slice(&block.bytes[at..at + size]);
                }
            });
        }
        match poison {
            Some(byte) => Err(uninitialized(step, operand, byte, place.row)),
            None => Ok(out),
        }
    }

    /// Integers of one partition, exactly.
    fn integers(
        &self,
        step: &Step<'_>,
        access: &Access,
        operand: usize,
        partition: u16,
    ) -> Result<Vec<i64>, SimulateError> {
        let bytes = self.read_raw(step, access, operand, partition)?;
        Ok(narrow::decode(access.dtype, &bytes).into_i64())
    }

    fn write(&mut self, step: &Step<'_>, access: &Access, x: &[f32]) -> Result<(), SimulateError> {
        let place = self.place(step, access)?;
        let (block, _) = self.memory.near_mut(access.space);
        let free = access.free() as usize;
        if x.len() != usize::from(access.partitions) * free {
            return Err(step.wrong(format!(
                "the result has {} elements, but the operand has {}",
                x.len(),
                usize::from(access.partitions) * free
            )));
        }
        let size = access.dtype.bytes();
        for (partition, row) in x.chunks_exact(free.max(1)).enumerate() {
            let mut done = 0;
            place.runs(partition, |start, stride, count| {
                let values = &row[done..done + count];
                done += count;
                match usize::try_from(stride) {
                    Ok(stride) if stride > 0 => {
                        memory::encode(access.dtype, values, stride, &mut block.bytes[start..]);
                    }
                    Ok(_) | Err(_) => {
                        for (position, value) in values.iter().enumerate() {
                            let at = start.wrapping_add_signed(stride * (position * size) as isize);
                            let one = std::slice::from_ref(value);
                            memory::encode(access.dtype, one, 1, &mut block.bytes[at..at + size]);
                        }
                    }
                }
                mark(block, start, stride, count, size);
            });
        }
        Ok(())
    }

    fn write_raw(
        &mut self,
        step: &Step<'_>,
        access: &Access,
        partition: u16,
        bytes: &[u8],
    ) -> Result<(), SimulateError> {
        let place = self.place(step, access)?;
        let (block, _) = self.memory.near_mut(access.space);
        let size = access.dtype.bytes();
        if bytes.len() != access.free() as usize * size || partition >= access.partitions {
            return Err(step.wrong("the result has another size than the operand"));
        }
        let mut done = 0;
        place.runs(usize::from(partition), |start, stride, count| {
            for position in 0..count {
                let at = start.wrapping_add_signed(stride * (position * size) as isize);
                block.bytes[at..at + size].copy_from_slice(&bytes[done..done + size]);
                done += size;
            }
            mark(block, start, stride, count, size);
        });
        Ok(())
    }
}

impl Place<'_> {
    /// Calls `each` with the first byte, the stride in elements and the number of elements of every run of the innermost
    /// dimension of one partition.
    fn runs(&self, partition: usize, mut each: impl FnMut(usize, isize, usize)) {
        let size = self.access.dtype.bytes() as isize;
        let start = (self.first + partition) * self.row + self.offset;
        let Some((&(stride, count), outer)) = self.access.dims.split_last() else {
            each(start, 1, 1);
            return;
        };
        let total: usize = outer.iter().map(|&(_, n)| n as usize).product();
        for run in 0..total {
            let (mut rest, mut at) = (run, start as isize);
            for &(stride, n) in outer.iter().rev() {
                at += (rest % n as usize) as isize * stride as isize * size;
                rest /= n as usize;
            }
            each(at as usize, stride as isize, count as usize);
        }
    }
}

fn first_poison(
    block: &memory::Block,
    start: usize,
    stride: isize,
    count: usize,
    size: usize,
) -> Option<usize> {
    block.written.as_ref()?;
    match stride {
        1 => block.first_poison(start, count * size),
        0 => block.first_poison(start, size),
        _ => (0..count).find_map(|position| {
            let at = start.wrapping_add_signed(stride * (position * size) as isize);
            block.first_poison(at, size)
        }),
    }
}

fn mark(block: &mut memory::Block, start: usize, stride: isize, count: usize, size: usize) {
    if stride == 1 {
        block.mark(start, count * size);
        return;
    }
    for position in 0..count {
        let at = start.wrapping_add_signed(stride * (position * size) as isize);
        block.mark(at, size);
    }
}

pub(super) fn uninitialized(
    step: &Step<'_>,
    operand: usize,
    byte: usize,
    row: usize,
) -> SimulateError {
    SimulateError::Uninitialized {
        instruction: step.name(),
        kernel: step.code.kernel.name.clone(),
        operand,
        partition: (byte / row.max(1)) as u32,
        byte: (byte % row.max(1)) as u64,
    }
}

fn pairs(which: Alu, x: &mut [f32], y: &[f32]) {
    if which == Alu::Add {
        x.iter_mut().zip(y).for_each(|(x, &y)| *x += y);
    } else if which == Alu::Multiply {
        x.iter_mut().zip(y).for_each(|(x, &y)| *x *= y);
    } else {
        let apply = alu(which);
        x.iter_mut().zip(y).for_each(|(x, &y)| *x = apply(*x, y));
    }
}

/// Count, mean and variance · count of the elements at even positions, then of those at odd ones.
fn bn_stats(row: &[f32]) -> [f32; 6] {
    let mut stats = [0.0; 6];
    for odd in 0..2 {
        let all: Vec<f32> = row.iter().copied().skip(odd).step_by(2).collect();
        let count = all.len() as f32;
        let mean = if all.is_empty() { 0.0 } else { all.iter().sum::<f32>() / count };
        let spread: f32 = all.iter().map(|x| (x - mean) * (x - mean)).sum();
        stats[odd * 3..odd * 3 + 3].copy_from_slice(&[count, mean, spread]);
    }
    stats
}

/// Mean and variance of everything that several statistics tell of.
fn bn_aggregate(row: &[f32]) -> [f32; 2] {
    let parts = || row.chunks_exact(3);
    let count: f32 = parts().map(|part| part[0]).sum();
    if count == 0.0 {
        return [0.0, 0.0];
    }
    let mean = parts().map(|part| part[0] * part[1]).sum::<f32>() / count;
    let spread: f32 = parts().map(|p| p[2] + p[0] * (p[1] - mean) * (p[1] - mean)).sum();
    [mean, spread / count]
}
