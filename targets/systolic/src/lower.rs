//! From a module to a program. Tensors, kernels and steps keep their places; each kernel becomes instruction streams, on
//! the engines where selection knows how, as exact code on the general processors where it does not.

use crate::isa::Op;
use crate::limits::{Limits, PARTITIONS};
use crate::program::{self, Engine, Exchange, Instruction, Item, Program, Value, VarInfo};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use systole_compiler::expr::Expr;
use systole_compiler::kernel::{Affine, Dims, Kernel, Role, Stmt, TileOp};
use systole_compiler::module::{self, BufferId, Lifetime, Module, ScalarSource};
use systole_compiler::op::Op as GraphOp;
use systole_compiler::types::{DType, TensorType};

/// How a module is compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Which values are narrowed.
    pub precision: Precision,
    /// Leaves every kernel to the general processors.
    pub fallback_only: bool,
    /// Kernels have the tiles that somebody wrote: where those do not fit, nothing else is made of them.
    pub as_written: bool,
}

/// Which values are narrowed. Nothing else ever is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// None.
    #[default]
    Exact,
    /// Operands of products.
    Products(DType),
    /// Every f32 tensor and every operand of a product.
    All(DType),
}

/// What compiling gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Compiled {
    /// The program. Its tensors are the module's buffers, in order.
    pub program: Program,
    /// The module that it computes, after changes of precision and layout: it holds the constants.
    pub module: Module,
    /// The buffers of the module whose contents are given at load: the program's inputs behind the module's own.
    pub constants: Vec<BufferId>,
    /// What was narrowed, one line each.
    pub casts: Vec<String>,
    /// For each kernel, why it runs on the general processors, where it does.
    pub fallbacks: Vec<(String, String)>,
}

/// Why there is no program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompileError {
    /// What the machine cannot compute: where, and why.
    Unsupported(Vec<(String, String)>),
    /// What does not fit its memory.
    DoesNotFit(String),
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompileError::Unsupported(found) => {
                for (index, (place, why)) in found.iter().enumerate() {
                    let line = if index > 0 { "\n" } else { "" };
                    write!(f, "{line}{place}: {why}")?;
                }
                Ok(())
            }
            CompileError::DoesNotFit(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CompileError {}

/// The program of a verified module.
pub fn compile(
    module: &Module,
    limits: &Limits,
    options: &Options,
) -> Result<Compiled, CompileError> {
    check(module)?;
    if limits.partitions.iter().any(|&count| count != PARTITIONS as u64) {
        let [partitions, rows, columns] = limits.partitions;
        let why = format!(
            "tensors are laid out for {PARTITIONS} partitions and an array of as many rows and columns, not for {partitions}, {rows} and {columns}"
        );
        return Err(CompileError::Unsupported(vec![(limits.name.clone(), why)]));
    }
    if (limits.psum_bank_bytes as usize) < PARTITIONS * DType::F32.bytes() {
        let why = format!(
            "a bank of PSUM holds a transposed row of {PARTITIONS} numbers; {} bytes are too few",
            limits.psum_bank_bytes
        );
        return Err(CompileError::Unsupported(vec![(limits.name.clone(), why)]));
    }
    let mut module = module.clone();
    let casts = crate::precision::narrow(&mut module, options.precision);
    if !options.fallback_only {
        crate::relayout::lay_out(&mut module);
    }
    let mut lowering = Lowering {
        module: &module,
        program: Program {
            name: module.name.clone(),
            machine: limits.name.clone(),
            ..Program::default()
        },
        copies: BTreeMap::new(),
        limits,
        options,
        fallbacks: Vec::new(),
        too_large: Vec::new(),
        next: (0, 0),
    };
    lowering.tensors();
    let weights = constants(&module);
    for (id, kernel) in module.kernels.iter() {
        let compiled = lowering.kernel(kernel, &weights[&id]);
        lowering.program.kernels.push(compiled);
    }
    if !lowering.too_large.is_empty() {
        return Err(CompileError::DoesNotFit(lowering.too_large.join("\n")));
    }
    lowering.program.load = lowering.steps(&module.load_steps);
    lowering.program.steps = lowering.steps(&module.steps);
    let index = |buffer: &BufferId| index_of(*buffer);
    let given = module.buffers.iter().filter(|(_, buffer)| {
        buffer.alias.is_none()
            && matches!(buffer.lifetime, Lifetime::Constant(_) | Lifetime::Parameter(_))
    });
    let constants: Vec<BufferId> = given.map(|(id, _)| id).collect();
    lowering.program.inputs = module.inputs.iter().chain(&constants).map(index).collect();
    lowering.program.outputs =
        module.outputs.iter().map(|(name, buffer)| (name.clone(), index(buffer))).collect();
    let (program, fallbacks) = (lowering.program, lowering.fallbacks);
    Ok(Compiled { program, module, constants, casts, fallbacks })
}

/// For each kernel, which operands are constants in every call of a run.
pub(crate) fn constants(module: &Module) -> BTreeMap<module::KernelId, Vec<bool>> {
    let mut found: BTreeMap<module::KernelId, Vec<bool>> =
        module.kernels.iter().map(|(id, kernel)| (id, vec![true; kernel.operands.len()])).collect();
    each_call(&module.steps, &mut |kernel, operands| {
        let known = found.get_mut(&kernel).expect("a step calls a kernel of the module");
        for (known, &buffer) in known.iter_mut().zip(operands) {
            let memory = module.memory(buffer);
            *known &= matches!(
                module.buffers[memory].lifetime,
                Lifetime::Constant(_) | Lifetime::Parameter(_) | Lifetime::Loaded
            );
        }
    });
    found
}

fn each_call(steps: &[module::Step], visit: &mut dyn FnMut(module::KernelId, &[BufferId])) {
    for step in steps {
        match step {
            module::Step::Kernel { kernel, operands, .. } => visit(*kernel, operands),
            module::Step::Copy { .. } | module::Step::Collective { .. } => {}
            module::Step::If { then, otherwise, .. } => {
                each_call(then, visit);
                each_call(otherwise, visit);
            }
            module::Step::While { before, body, .. } => {
                each_call(before, visit);
                each_call(body, visit);
            }
            module::Step::For { body, .. } => each_call(body, visit),
        }
    }
}

/// What no engine computes, all of it.
fn check(module: &Module) -> Result<(), CompileError> {
    let mut found: BTreeSet<(String, String)> = BTreeSet::new();
    for (_, kernel) in module.kernels.iter() {
        let wide = kernel.operands.iter().any(|(_, operand)| operand.dtype == DType::F64)
            || kernel.tiles.iter().any(|(_, tile)| tile.dtype == DType::F64)
            || accumulates_f64(&kernel.body);
        if wide {
            let place = kernel.origins.first().cloned();
            let place = place.unwrap_or_else(|| format!("@{}", kernel.name));
            found.insert((place, "no engine computes in f64".to_owned()));
        }
    }
    for (_, buffer) in module.buffers.iter() {
        if !buffer.layout.is_row_major(&buffer.ty.shape) {
            let why = "only row-major tensors are understood".to_owned();
            found.insert((format!("%{}", buffer.name), why));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(CompileError::Unsupported(found.into_iter().collect()))
}

fn accumulates_f64(body: &[Stmt]) -> bool {
    body.iter().any(|stmt| match stmt {
        Stmt::Define { op: TileOp::Contract { accumulate, .. }, .. }
        | Stmt::Define { op: TileOp::Reduce { accumulate, .. }, .. }
        | Stmt::Define { op: TileOp::Scan { accumulate, .. }, .. } => *accumulate == DType::F64,
        Stmt::Define { op: TileOp::Map { expr, .. }, .. } => {
            expr.nodes.iter().any(|&(_, dtype)| dtype == DType::F64)
        }
        Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => false,
        Stmt::For(inner) => accumulates_f64(&inner.body),
    })
}

fn index_of(buffer: BufferId) -> u32 {
    u32::try_from(buffer.index()).expect("buffers are counted by u32")
}

struct Lowering<'a> {
    module: &'a Module,
    program: Program,
    /// Kernels that copy a tensor of a type.
    copies: BTreeMap<(DType, Vec<usize>), u32>,
    limits: &'a Limits,
    options: &'a Options,
    fallbacks: Vec<(String, String)>,
    /// Tiles that were written and do not fit.
    too_large: Vec<String>,
    /// Where the next call's SBUF and PSUM begin, if they fit there.
    next: (u32, u8),
}

impl Lowering<'_> {
    /// Where a call's memory begins: behind that of the call before it, so that both may overlap, or else at the start.
    fn base(&mut self, kernel: u32) -> (u32, u8) {
        let kernel = &self.program.kernels[kernel as usize];
        let (bytes, banks) = (kernel.sbuf_bytes.div_ceil(64) * 64, kernel.psum_banks);
        let fits = self.next.0 + bytes <= self.limits.sbuf_bytes;
        let sbuf = if fits { self.next.0 } else { 0 };
        let fits = self.next.1 + banks <= self.limits.psum_banks;
        let psum = if fits { self.next.1 } else { 0 };
        self.next = (sbuf + bytes, psum + banks);
        (sbuf, psum)
    }

    fn tensors(&mut self) {
        for (_, buffer) in self.module.buffers.iter() {
            self.program.tensors.push(program::Tensor {
                name: buffer.name.clone(),
                dtype: buffer.ty.dtype,
                elements: buffer.layout.elements() as u64,
                alias: buffer.alias.map(index_of),
                constant: matches!(
                    buffer.lifetime,
                    Lifetime::Constant(_) | Lifetime::Parameter(_) | Lifetime::Loaded
                ),
            });
        }
    }

    fn kernel(&mut self, kernel: &Kernel, constants: &[bool]) -> program::Kernel {
        if self.options.fallback_only {
            return whole(kernel);
        }
        match crate::select::select(kernel, self.limits, constants) {
            Ok(compiled) => compiled,
            Err(why) => {
                if let (true, Some(what)) =
                    (self.options.as_written, why.strip_prefix(crate::select::tree::TOO_LARGE))
                {
                    let from = match kernel.origins.as_slice() {
                        [] => String::new(),
                        origins => format!(" (from {})", origins.join(", ")),
                    };
                    self.too_large.push(format!("kernel @{}{from}: {what}", kernel.name));
                }
                self.fallbacks.push((kernel.name.clone(), why));
                whole(kernel)
            }
        }
    }

    fn steps(&mut self, steps: &[module::Step]) -> Vec<program::Step> {
        steps.iter().map(|step| self.step(step)).collect()
    }

    fn step(&mut self, step: &module::Step) -> program::Step {
        match step {
            module::Step::Kernel { kernel, operands, scalars, origins } => {
                let kernel = u32::try_from(kernel.index()).expect("kernels are counted by u32");
                let (sbuf_base, psum_base) = self.base(kernel);
                program::Step::Call {
                    kernel,
                    operands: operands.iter().map(|&buffer| index_of(buffer)).collect(),
                    scalars: scalars.iter().map(value).collect(),
                    sbuf_base,
                    psum_base,
                    origins: origins.clone(),
                }
            }
            module::Step::Copy { from, to } => {
                let kernel = self.copy(&self.module.buffers[*from].ty);
                let (sbuf_base, psum_base) = self.base(kernel);
                program::Step::Call {
                    kernel,
                    operands: vec![index_of(*from), index_of(*to)],
                    scalars: Vec::new(),
                    sbuf_base,
                    psum_base,
                    origins: Vec::new(),
                }
            }
            module::Step::Collective { op, operands, result, origins } => {
                let kernel = self.exchange(op, operands.first().copied(), *result);
                program::Step::Call {
                    kernel,
                    operands: operands
                        .iter()
                        .chain([result])
                        .map(|&buffer| index_of(buffer))
                        .collect(),
                    scalars: Vec::new(),
                    sbuf_base: 0,
                    psum_base: 0,
                    origins: origins.clone(),
                }
            }
            module::Step::If { condition, then, otherwise } => program::Step::If {
                condition: index_of(*condition),
                then: self.steps(then),
                otherwise: self.steps(otherwise),
            },
            module::Step::While { before, condition, body } => program::Step::While {
                before: self.steps(before),
                condition: index_of(*condition),
                body: self.steps(body),
            },
            module::Step::For { count, counter, body } => program::Step::For {
                count: *count as u64,
                counter: index_of(*counter),
                body: self.steps(body),
            },
        }
    }

    /// The kernel that stands for an exchange.
    fn exchange(&mut self, op: &GraphOp, operand: Option<BufferId>, result: BufferId) -> u32 {
        let ty = |buffer: BufferId| self.module.buffers[buffer].ty.clone();
        let exchange = Exchange { op: op.clone(), operand: operand.map(ty), result: ty(result) };
        let kernels = &mut self.program.kernels;
        let known = kernels.iter().position(|kernel| kernel.exchange.as_ref() == Some(&exchange));
        let index = known.unwrap_or_else(|| {
            let given = exchange.operand.iter().map(|ty| ("x", ty, true));
            let operands = given.chain([("y", &exchange.result, false)]);
            let operand = |(name, ty, reads): (&str, &TensorType, bool)| program::Operand {
                name: name.to_owned(),
                dtype: ty.dtype,
                elements: ty.count() as u64,
                reads,
                writes: !reads,
            };
            kernels.push(program::Kernel {
                name: format!("{}_{}", op.name(), kernels.len()),
                operands: operands.map(operand).collect(),
                exchange: Some(exchange),
                ..program::Kernel::default()
            });
            kernels.len() - 1
        });
        u32::try_from(index).expect("kernels are counted by u32")
    }

    /// The kernel that copies tensors of that type.
    fn copy(&mut self, ty: &TensorType) -> u32 {
        let key = (ty.dtype, ty.shape.to_vec());
        if let Some(&found) = self.copies.get(&key) {
            return found;
        }
        let kernel = convert_kernel(&ty.shape, ty.dtype, ty.dtype);
        let compiled = self.kernel(&kernel, &[false, false]);
        let index = u32::try_from(self.program.kernels.len()).expect("kernels are counted by u32");
        self.program.kernels.push(compiled);
        self.copies.insert(key, index);
        index
    }
}

fn value(source: &ScalarSource) -> Value {
    match source {
        ScalarSource::Constant(number) => Value::Constant(*number),
        ScalarSource::Buffer(buffer) => Value::Tensor(index_of(*buffer)),
    }
}

/// A kernel that converts a tensor to another type, or copies it.
pub(crate) fn convert_kernel(shape: &[usize], from: DType, to: DType) -> Kernel {
    let mut kernel = Kernel { name: format!("copy_{from}_{to}"), ..Kernel::default() };
    let dims: Dims = shape
        .iter()
        .enumerate()
        .map(|(index, &size)| (kernel.axis(&format!("d{index}")), size))
        .collect();
    let operand = |name: &str, role, dtype| systole_compiler::kernel::Operand {
        name: name.to_owned(),
        role,
        dtype,
        dims: dims.clone(),
    };
    let x = kernel.operands.push(operand("x", Role::Input, from));
    let y = kernel.operands.push(operand("y", Role::Output, to));
    let mut tile = kernel.tile("t", from, &dims);
    let at: Vec<Affine> = dims.iter().map(|&(axis, _)| Affine::axis(axis)).collect();
    kernel.body.push(Stmt::Define {
        results: SmallVec::from_slice(&[tile]),
        op: TileOp::Load { operand: x, at: at.clone(), pad: None },
    });
    if from != to {
        let mut expr = Expr::new();
        let read = expr.operand(0, from);
        expr.convert(read, to);
        let converted = kernel.tile("u", to, &dims);
        kernel.body.push(Stmt::Define {
            results: SmallVec::from_slice(&[converted]),
            op: TileOp::Map { operands: vec![tile], expr },
        });
        tile = converted;
    }
    kernel.body.push(Stmt::Store { operand: y, at, tile });
    kernel
}

/// The tensors of a kernel, as the program sees them.
pub(crate) fn operands(kernel: &Kernel) -> Vec<program::Operand> {
    let tensors = kernel.operands.iter().map(|(_, operand)| program::Operand {
        name: operand.name.clone(),
        dtype: operand.dtype,
        elements: operand.ty().count() as u64,
        reads: operand.role.reads(),
        writes: operand.role.writes(),
    });
    tensors.collect()
}

/// The scalar parameters of a kernel, as variables of the program.
pub(crate) fn scalar_vars(kernel: &Kernel) -> Vec<VarInfo> {
    let ranged = kernel.scalars().into_iter();
    let info = |(var, low, high)| VarInfo {
        name: kernel.vars[var].name.clone(),
        range: Some((low, high)),
    };
    ranged.map(info).collect()
}

/// The kernel as exact code on the general processors.
fn whole(kernel: &Kernel) -> program::Kernel {
    let instruction = Instruction {
        op: Op::Fallback { kernel: Box::new(kernel.clone()) },
        when: None,
        waits: SmallVec::new(),
        calls: (0..kernel.operands.len())
            .map(|index| u16::try_from(index).expect("a kernel has few operands"))
            .collect(),
        after: false,
        signals: SmallVec::new(),
        source: 0,
    };
    program::Kernel {
        name: kernel.name.clone(),
        operands: operands(kernel),
        vars: scalar_vars(kernel),
        semaphores: Vec::new(),
        streams: BTreeMap::from([(Engine::GpSimd, vec![Item::Instruction(instruction)])]),
        exchange: None,
        sbuf_bytes: 0,
        psum_banks: 0,
        sources: vec![kernel.name.clone()],
        origins: kernel.origins.clone(),
    }
}
