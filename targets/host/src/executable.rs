//! A compiled module: its code, its constants in memory, and its steps with every buffer resolved.

use crate::function;
use crate::jit::{self, Code, Listing};
use crate::machine;
use crate::memory::Block;
use crate::micro::{ContractPlan, Cpu};
use crate::plan::{self, Flat, Plan};
use crate::pool::{Pool, Team, Threads};
use crate::run::{self, Given, RunOptions};
use crate::workspace::{Taken, Workspace};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use systole_compiler::kernel::{Kernel, Role};
use systole_compiler::module::{BufferId, KernelId, Layout, Lifetime, Module, ScalarSource, Step};
use systole_compiler::op::Op;
use systole_compiler::tensor::Tensor;
use systole_compiler::types::TensorType;

/// How a module is compiled.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// The instruction set by name (`sse`, `neon`, `avx2`, `avx512`); the best of this machine where there is none.
    pub cpu: Option<String>,
    /// The values of the parameters that the module has by name.
    pub parameters: BTreeMap<String, Tensor>,
    /// The pool that code is generated on; the threads below where there is none.
    pub pool: Option<&'a dyn Pool>,
    /// How many threads generate code; as many as the machine has where this is not said.
    pub compile_threads: Option<usize>,
    /// The threads that compiling and runs use where they are given no pool. Executables may share them.
    pub threads: Threads,
    /// Asked between kernels and steps; compiling ends where it says yes.
    pub cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("cpu", &self.cpu)
            .field("compile_threads", &self.compile_threads)
            .finish_non_exhaustive()
    }
}

/// How long the parts of compiling a module took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompileTimes {
    /// Making machine code.
    pub code: Duration,
    /// Placing constants and running the load steps, which pack weights.
    pub packing: Duration,
}

/// Why a module could not be compiled or run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// This target cannot.
    #[error("the host cannot: {0}")]
    Unsupported(String),
    /// An input or a parameter is missing or of another type.
    #[error("{0}")]
    Input(String),
    /// There is not enough memory.
    #[error("no memory for {0} bytes")]
    Memory(usize),
    /// The caller cancelled.
    #[error("cancelled")]
    Cancelled,
    /// The deadline passed.
    #[error("the deadline passed")]
    Deadline,
    /// A collective has no value: ranks do not agree, another one failed, or there is only one.
    #[error("{0}")]
    Ranks(String),
}

/// Where a buffer's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The caller's tensor.
    Input(usize),
    /// A copy of the caller's tensor, because a step writes to it.
    InputCopy(usize),
    /// Memory that lives as long as the executable.
    Constant(usize),
    /// A part of the run's arena.
    Arena(usize),
    /// Memory of its own, which becomes a result.
    Output(usize),
}

/// A kernel's call.
#[derive(Debug)]
pub(crate) struct Call {
    /// Which function.
    pub(crate) unit: usize,
    /// The buffer of each operand.
    pub(crate) operands: Vec<usize>,
    /// The bytes of all operands.
    pub(crate) bytes: usize,
    /// Where each scalar comes from, and its range.
    pub(crate) scalars: Vec<(Scalar, i64, i64)>,
}

/// Where a scalar comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar {
    /// A number.
    Constant(i64),
    /// The element of a buffer.
    Buffer(usize),
}

/// A step with its buffers resolved.
#[derive(Debug)]
pub(crate) enum Action {
    /// A kernel.
    Call(Call),
    /// Elements move between layouts.
    Copy { from: usize, to: usize },
    /// An exchange with other ranks.
    Collective { op: Box<Op>, operands: Vec<usize>, result: usize },
    /// One of two lists.
    If { condition: usize, then: Vec<Action>, otherwise: Vec<Action> },
    /// A loop with a condition.
    While { before: Vec<Action>, condition: usize, body: Vec<Action> },
    /// A counted loop.
    For { count: usize, counter: usize, body: Vec<Action> },
}

/// A distinct kernel with the layouts of its operands.
pub(crate) struct Unit {
    kernel: KernelId,
    layouts: Vec<Layout>,
    /// The flattened range.
    pub(crate) range: Vec<Flat>,
    /// The scalar variables that the range's ends may use, in order.
    pub(crate) scalars: Vec<systole_compiler::kernel::VarId>,
    /// The products' plans.
    pub(crate) products: Vec<ContractPlan>,
}

/// What a buffer is, when it is run.
#[derive(Debug)]
pub(crate) struct Place {
    /// Its type.
    pub(crate) ty: TensorType,
    /// Its layout.
    pub(crate) layout: Layout,
    /// Its memory.
    pub(crate) spot: Spot,
    /// Whether the elements lie as they do in a tensor.
    row_major: bool,
}

/// A compiled module. It runs from many threads at once.
pub struct Executable {
    /// No other executable of this process has it.
    pub(crate) id: u64,
    module: Arc<Module>,
    cpu: Cpu,
    pub(crate) code: Code,
    pub(crate) units: Vec<Unit>,
    pub(crate) places: Vec<Place>,
    pub(crate) constants: Vec<Bytes>,
    pub(crate) steps: Vec<Action>,
    pub(crate) arena_bytes: usize,
    pub(crate) scratch_bytes: usize,
    /// The bytes of each result that has memory of its own.
    pub(crate) output_bytes: Vec<usize>,
    pub(crate) threads: Threads,
    times: CompileTimes,
    spare: Mutex<Vec<Workspace>>,
}

impl std::fmt::Debug for Executable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executable")
            .field("module", &self.module.name)
            .field("kernels", &self.units.len())
            .field("arena_bytes", &self.arena_bytes)
            .field("scratch_bytes", &self.scratch_bytes)
            .finish_non_exhaustive()
    }
}

/// Compiles a verified module for this machine, and runs its load steps.
pub fn compile(module: &Module, options: &Options<'_>) -> Result<Executable, HostError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let start = Instant::now();
    let cpu = machine::cpu(options.cpu.as_deref()).map_err(HostError::Unsupported)?;
    let isa = machine::isa(std::env::consts::ARCH, cpu, false).map_err(HostError::Unsupported)?;
    let mut units = Units { module, list: Vec::new() };
    let load_steps = units.resolve(&module.load_steps);
    let steps = units.resolve(&module.steps);
    let mut list = units.list;
    let fma = machine::has_fma(cpu);
    let make = |index: usize, number: u32| {
        let unit: &Unit = &list[index];
        let plan = unit.plan(module, Some(cpu));
        let needs = Needs {
            range: plan.range.clone(),
            products: plan.products.clone(),
            scratch_bytes: plan.scratch_bytes,
        };
        let kernel = &module.kernels[unit.kernel];
        (function::build(kernel, plan, isa.as_ref(), fma, number), needs)
    };
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.compile_threads.unwrap_or_else(all).min(run::MOST_COMPILE_THREADS);
    let team: Arc<Team>;
    let pool: &dyn Pool = match options.pool {
        Some(pool) => pool,
        None => {
            team = options.threads.at_least(threads);
            &*team
        }
    };
    let (code, needs) = jit::compile(&isa, list.len(), &make, pool, threads, options.cancelled)?;
    let mut scratch_bytes = 0;
    for (unit, needs) in list.iter_mut().zip(needs) {
        scratch_bytes = scratch_bytes.max(needs.scratch_bytes);
        unit.range = needs.range;
        unit.products = needs.products;
    }
    let code_time = start.elapsed();
    let mut layout = MemoryLayout::new(module, options)?;
    layout.place_all()?;
    let mut executable = Executable {
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        module: Arc::new(Module { buffers: Default::default(), ..without_values(module) }),
        cpu,
        code,
        units: list,
        places: layout.places,
        constants: layout.constants,
        steps,
        arena_bytes: layout.arena_bytes,
        scratch_bytes,
        output_bytes: layout.output_bytes,
        threads: options.threads.clone(),
        times: CompileTimes::default(),
        spare: Mutex::new(Vec::new()),
    };
    let run_options = RunOptions {
        threads,
        pool: Some(pool),
        cancelled: options.cancelled,
        ..RunOptions::default()
    };
    run::load(&mut executable, &load_steps, &run_options)?;
    executable.times = CompileTimes { code: code_time, packing: start.elapsed() - code_time };
    Ok(executable)
}

/// What a run must know of a kernel's plan.
struct Needs {
    range: Vec<Flat>,
    products: Vec<ContractPlan>,
    scratch_bytes: usize,
}

/// The module without the values of its constants, for listings.
fn without_values(module: &Module) -> Module {
    Module {
        name: module.name.clone(),
        kernels: module.kernels.clone(),
        outputs: module.outputs.clone(),
        inputs: module.inputs.clone(),
        ..Module::default()
    }
}

impl Executable {
    /// The code of every kernel as text, in the order in which they are first called.
    pub fn listing(&self, listing: Listing) -> String {
        let isa = machine::isa(std::env::consts::ARCH, self.cpu, false)
            .expect("the instruction set served when the module was compiled");
        let mut text = String::new();
        for (index, unit) in self.units.iter().enumerate() {
            let kernel = &self.module.kernels[unit.kernel];
            let number = jit::first_number() + u32::try_from(index).expect("there are few kernels");
            let plan = unit.plan(&self.module, Some(self.cpu));
            let function =
                function::build(kernel, plan, isa.as_ref(), machine::has_fma(self.cpu), number);
            let code = jit::print(isa.as_ref(), function, listing)
                .expect("what was compiled once compiles again");
            text.push_str(&format!("; @{}\n{code}\n", kernel.name));
        }
        text
    }

    /// The name of each distinct kernel, in the order in which they are first called.
    pub(crate) fn kernel_names(&self) -> Vec<String> {
        self.units.iter().map(|unit| self.module.kernels[unit.kernel].name.clone()).collect()
    }

    /// The bytes that a run needs for temporaries, besides scratch and results.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// The bytes of scratch that each thread of a run needs.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    /// The bytes of results that have memory of their own.
    pub fn result_bytes(&self) -> usize {
        self.output_bytes.iter().fold(0, |sum, &bytes| sum.saturating_add(bytes))
    }

    /// The bytes of constants, packed ones included. They may be shared with the model, or with a file.
    pub fn constant_bytes(&self) -> usize {
        self.constants.iter().map(Bytes::len).sum()
    }

    /// How many distinct kernels there are; equal ones were compiled once.
    pub fn kernel_count(&self) -> usize {
        self.units.len()
    }

    /// How long compiling it took.
    pub fn compile_times(&self) -> CompileTimes {
        self.times
    }

    /// How many results there are.
    pub fn output_count(&self) -> usize {
        self.module.outputs.len()
    }

    pub(crate) fn input_count(&self) -> usize {
        self.module.inputs.len()
    }

    /// Where a result is, by its position.
    pub(crate) fn output(&self, index: usize) -> &Place {
        let (_, buffer) = &self.module.outputs[index];
        &self.places[buffer.index()]
    }

    /// Workspaces of runs that ended.
    pub(crate) fn spare_workspaces(&self) -> MutexGuard<'_, Vec<Workspace>> {
        // A list of workspaces is right in any state.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Whether the elements lie as they do in a tensor.
    pub(crate) fn is_row_major(&self) -> bool {
        self.row_major
    }
}

impl Unit {
    /// How many multiplications the products of one position do.
    pub(crate) fn multiplications(&self) -> usize {
        self.products.iter().fold(0, |sum, plan| sum.saturating_add(plan.multiplications()))
    }

    /// Whether a product in it is faster with the help of other threads.
    pub(crate) fn is_worth_sharing(&self) -> bool {
        self.products.iter().any(ContractPlan::is_worth_sharing)
    }

    fn plan(&self, module: &Module, cpu: Option<Cpu>) -> Plan {
        plan::plan(&module.kernels[self.kernel], &self.layouts, cpu)
    }
}

/// The distinct kernels of a module, as they are found.
struct Units<'m> {
    module: &'m Module,
    list: Vec<Unit>,
}

impl Units<'_> {
    fn resolve(&mut self, steps: &[Step]) -> Vec<Action> {
        steps.iter().map(|step| self.resolve_one(step)).collect()
    }

    fn resolve_one(&mut self, step: &Step) -> Action {
        match step {
            Step::Kernel { kernel, operands, scalars, .. } => {
                Action::Call(self.call(*kernel, operands, scalars))
            }
            Step::Copy { from, to } => Action::Copy { from: from.index(), to: to.index() },
            Step::Collective { op, operands, result, .. } => Action::Collective {
                op: Box::new(op.clone()),
                operands: operands.iter().map(|operand| operand.index()).collect(),
                result: result.index(),
            },
            Step::If { condition, then, otherwise } => Action::If {
                condition: condition.index(),
                then: self.resolve(then),
                otherwise: self.resolve(otherwise),
            },
            Step::While { before, condition, body } => Action::While {
                before: self.resolve(before),
                condition: condition.index(),
                body: self.resolve(body),
            },
            Step::For { count, counter, body } => {
                Action::For { count: *count, counter: counter.index(), body: self.resolve(body) }
            }
        }
    }

    fn call(&mut self, kernel: KernelId, operands: &[BufferId], scalars: &[ScalarSource]) -> Call {
        let layouts: Vec<Layout> =
            operands.iter().map(|&buffer| self.module.buffers[buffer].layout.clone()).collect();
        let declared = &self.module.kernels[kernel];
        let found = self.list.iter().position(|unit| {
            unit.layouts == layouts && same_code(&self.module.kernels[unit.kernel], declared)
        });
        let ranges = declared.scalars();
        let unit = found.unwrap_or_else(|| {
            self.list.push(Unit {
                kernel,
                layouts,
                range: Vec::new(),
                scalars: ranges.iter().map(|&(var, _, _)| var).collect(),
                products: Vec::new(),
            });
            self.list.len() - 1
        });
        let scalars = scalars
            .iter()
            .zip(&ranges)
            .map(|(source, &(_, low, high))| {
                let source = match source {
                    ScalarSource::Constant(value) => Scalar::Constant(*value),
                    ScalarSource::Buffer(buffer) => Scalar::Buffer(buffer.index()),
                };
                (source, low, high)
            })
            .collect();
        let bytes = operands.iter().map(|&buffer| {
            let buffer = &self.module.buffers[buffer];
            buffer.layout.checked_bytes(&buffer.ty).unwrap_or(usize::MAX)
        });
        Call {
            unit,
            operands: operands.iter().map(|buffer| buffer.index()).collect(),
            bytes: bytes.fold(0, usize::saturating_add),
            scalars,
        }
    }
}

/// Whether two kernels are the same but for where they come from.
fn same_code(x: &Kernel, y: &Kernel) -> bool {
    x.body == y.body
        && x.operands == y.operands
        && x.tiles == y.tiles
        && x.vars == y.vars
        && x.axes == y.axes
}

/// Gives every buffer its memory.
struct MemoryLayout<'m> {
    module: &'m Module,
    options: &'m Options<'m>,
    written: BTreeSet<BufferId>,
    places: Vec<Place>,
    constants: Vec<Bytes>,
    arena_bytes: usize,
    output_bytes: Vec<usize>,
}

impl<'m> MemoryLayout<'m> {
    fn new(module: &'m Module, options: &'m Options<'m>) -> Result<Self, HostError> {
        let mut written = BTreeSet::new();
        find_written(module, &module.steps, &mut written);
        Ok(MemoryLayout {
            module,
            options,
            written,
            places: Vec::new(),
            constants: Vec::new(),
            arena_bytes: module.arena_bytes,
            output_bytes: Vec::new(),
        })
    }

    fn place_all(&mut self) -> Result<(), HostError> {
        let mut roots: BTreeMap<BufferId, Spot> = BTreeMap::new();
        for (index, &buffer) in self.module.inputs.iter().enumerate() {
            let root = self.module.memory(buffer);
            let declared = &self.module.buffers[buffer];
            let plain = declared.layout.is_row_major(&declared.ty.shape);
            let spot = if self.written.contains(&root) || !plain {
                Spot::InputCopy(index)
            } else {
                Spot::Input(index)
            };
            roots.insert(root, spot);
        }
        for (_, buffer) in &self.module.outputs {
            let root = self.module.memory(*buffer);
            let temporary =
                matches!(self.module.buffers[root].lifetime, Lifetime::Temporary | Lifetime::State);
            if temporary && !roots.contains_key(&root) {
                roots.insert(root, Spot::Output(self.output_bytes.len()));
                self.output_bytes.push(self.bytes(root)?);
            }
        }
        for (id, buffer) in self.module.buffers.iter() {
            let root = self.module.memory(id);
            let spot = match roots.get(&root) {
                Some(&spot) => spot,
                None => {
                    let spot = self.place(root)?;
                    roots.insert(root, spot);
                    spot
                }
            };
            self.places.push(Place {
                ty: buffer.ty.clone(),
                layout: buffer.layout.clone(),
                spot,
                row_major: buffer.layout.is_row_major(&buffer.ty.shape),
            });
        }
        Ok(())
    }

    fn bytes(&self, buffer: BufferId) -> Result<usize, HostError> {
        let buffer = &self.module.buffers[buffer];
        buffer.layout.checked_bytes(&buffer.ty).ok_or_else(|| {
            HostError::Unsupported(format!("buffer {} is larger than any memory", buffer.name))
        })
    }

    fn place(&mut self, root: BufferId) -> Result<Spot, HostError> {
        let buffer = &self.module.buffers[root];
        let bytes = self.bytes(root)?;
        let value = match &buffer.lifetime {
            Lifetime::Constant(value) => value,
            Lifetime::Parameter(name) => match self.options.parameters.get(name) {
                Some(value) if *value.ty() == buffer.ty => value,
                Some(value) => {
                    let found = value.ty();
                    return Err(HostError::Input(format!(
                        "parameter {name} is {}, not {found}",
                        buffer.ty
                    )));
                }
                None => return Err(HostError::Input(format!("parameter {name} has no value"))),
            },
            Lifetime::Loaded => {
                let block = Block::new(bytes).ok_or(HostError::Memory(bytes))?;
                self.constants.push(block.into_bytes());
                return Ok(Spot::Constant(self.constants.len() - 1));
            }
            Lifetime::Input | Lifetime::State | Lifetime::Temporary => {
                if let Some(offset) = buffer.offset {
                    return Ok(Spot::Arena(offset));
                }
                let offset = self.arena_bytes.next_multiple_of(64);
                self.arena_bytes =
                    offset.checked_add(bytes).ok_or(HostError::Memory(usize::MAX))?;
                return Ok(Spot::Arena(offset));
            }
        };
        let mut data = buffer.layout.pack(value);
        if data.as_ptr().align_offset(value.dtype().bytes()) != 0 {
            data = Block::copy_of(&data).ok_or(HostError::Memory(data.len()))?.into_bytes();
        }
        self.constants.push(data);
        Ok(Spot::Constant(self.constants.len() - 1))
    }
}

/// Every memory that a step writes.
fn find_written(module: &Module, steps: &[Step], written: &mut BTreeSet<BufferId>) {
    for step in steps {
        match step {
            Step::Kernel { kernel, operands, .. } => {
                for ((_, operand), &buffer) in module.kernels[*kernel].operands.iter().zip(operands)
                {
                    if Role::writes(operand.role) {
                        written.insert(module.memory(buffer));
                    }
                }
            }
            Step::Copy { to, .. } => {
                written.insert(module.memory(*to));
            }
            Step::Collective { result, .. } => {
                written.insert(module.memory(*result));
            }
            Step::If { then, otherwise, .. } => {
                find_written(module, then, written);
                find_written(module, otherwise, written);
            }
            Step::While { before, body, .. } => {
                find_written(module, before, written);
                find_written(module, body, written);
            }
            Step::For { counter, body, .. } => {
                written.insert(module.memory(*counter));
                find_written(module, body, written);
            }
        }
    }
}

/// The results of a run, read through their layouts.
pub(crate) fn results(executable: &Executable, inputs: &[Tensor], taken: Taken) -> Vec<Tensor> {
    let read = |buffer: &BufferId| {
        let place = &executable.places[buffer.index()];
        let bytes = match place.spot {
            Spot::Input(index) => inputs[index].bytes().clone(),
            Spot::InputCopy(index) => {
                taken.copies[index].clone().expect("written inputs were copied")
            }
            Spot::Constant(index) => executable.constants[index].clone(),
            Spot::Output(index) => taken.blocks[index].clone(),
            Spot::Arena(_) => unreachable!("results have memory of their own"),
        };
        if place.is_row_major() {
            let data = bytes.slice(..place.ty.bytes());
            return Tensor::new(place.ty.clone(), data).expect("as many bytes as the type has");
        }
        place.layout.unpack(&place.ty, &bytes)
    };
    executable.module.outputs.iter().map(|(_, buffer)| read(buffer)).collect()
}

/// Fails where there are fewer or more inputs than are needed.
pub(crate) fn check_inputs(executable: &Executable, inputs: &[Tensor]) -> Result<(), HostError> {
    let (wanted, given) = (executable.input_count(), inputs.len());
    if wanted == given {
        return Ok(());
    }
    Err(HostError::Input(format!("{wanted} inputs are needed, not {given}")))
}

/// Fails where an input is of another type.
pub(crate) fn check_types(executable: &Executable, inputs: Given<'_>) -> Result<(), HostError> {
    for (index, buffer) in executable.module.inputs.iter().enumerate() {
        let (ty, found) = (&executable.places[buffer.index()].ty, inputs(index).ty());
        if ty != found {
            return Err(HostError::Input(format!("input {index} is {found}, not {ty}")));
        }
    }
    Ok(())
}
