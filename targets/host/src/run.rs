//! Runs an executable: addresses of buffers, calls of generated code, copies and control flow.
#![expect(unsafe_code, reason = "generated code works on raw addresses")]
//!
//! Why calls are safe: the module was verified, so that kernels stay inside their operands; every operand's address is of
//! memory with at least its buffer's bytes, which lives until the run ends; memory that a step writes belongs to this run
//! alone; iterations of the flattened range write to disjoint places; each thread has scratch of its own.

use crate::executable::{
    self, Action, Call, Executable, HostError, Place, Scalar, Spot, Unit, check_inputs,
};
use crate::jit::Entry;
use crate::memory::Block;
use crate::team::{Team, with_team};
use bytes::Bytes;
use std::cell::RefCell;
use std::time::{Duration, Instant};
use systole_compiler::kernel::{Affine, Term};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::Class;

/// How a module is run.
#[derive(Clone, Copy)]
pub struct RunOptions<'a> {
    /// How many threads share the work; one means that none is started.
    pub threads: usize,
    /// Asked between steps and parts of steps; the run ends where it says yes.
    pub cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
    /// When the run ends at the latest.
    pub deadline: Option<Instant>,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        RunOptions { threads: 1, cancelled: None, deadline: None }
    }
}

impl std::fmt::Debug for RunOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunOptions")
            .field("threads", &self.threads)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Memory that one run uses and the next uses again.
pub(crate) struct Workspace {
    arena: Block,
    scratch: Vec<Block>,
}

/// One call, as every thread sees it.
#[derive(Clone)]
struct Job {
    entry: Entry,
    table: *const *mut u8,
    scalars: *const i64,
    total: i64,
    chunk: i64,
}

// SAFETY: the addresses are of this run's memory, which outlives the job, and threads only read the tables.
unsafe impl Send for Job {}

/// A run.
struct Run<'r> {
    executable: &'r Executable,
    options: &'r RunOptions<'r>,
    team: &'r Team<'r, Job>,
    /// The address of each buffer.
    addresses: Vec<*mut u8>,
    table: Vec<*mut u8>,
    scalars: Vec<i64>,
    /// For each unit, how often it was called and for how long, where that is asked for.
    times: Option<&'r RefCell<Vec<(usize, Duration)>>>,
}

/// The calls of one kernel in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelTime {
    /// The kernel's name.
    pub kernel: String,
    /// How often it was called.
    pub calls: usize,
    /// How long that took together.
    pub time: Duration,
}

impl Executable {
    /// Runs once and tells what each kernel took, in the order in which they are first called.
    pub fn profile(
        &self,
        inputs: &[Tensor],
        options: &RunOptions<'_>,
    ) -> Result<Vec<KernelTime>, HostError> {
        let times = RefCell::new(vec![(0, Duration::ZERO); self.units.len()]);
        self.run_timed(inputs, options, Some(&times))?;
        let named = times.into_inner().into_iter().zip(self.kernel_names());
        Ok(named.map(|((calls, time), kernel)| KernelTime { kernel, calls, time }).collect())
    }

    /// The results, in order, of inputs of the module's types, in order.
    pub fn run(
        &self,
        inputs: &[Tensor],
        options: &RunOptions<'_>,
    ) -> Result<Vec<Tensor>, HostError> {
        self.run_timed(inputs, options, None)
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        options: &RunOptions<'_>,
        times: Option<&RefCell<Vec<(usize, Duration)>>>,
    ) -> Result<Vec<Tensor>, HostError> {
        check_inputs(self, inputs)?;
        let threads = options.threads.clamp(1, 256);
        let mut workspace = self.workspace(threads)?;
        let mut copies: Vec<Option<Block>> = (0..inputs.len()).map(|_| None).collect();
        let mut blocks: Vec<Block> = Vec::new();
        for &bytes in &self.output_bytes {
            blocks.push(Block::new(bytes).ok_or(HostError::Memory(bytes))?);
        }
        let result =
            self.addresses(inputs, &mut copies, &blocks, &workspace).and_then(|addresses| {
                self.execute(&self.steps, addresses, &mut workspace, threads, options, times)
            });
        let mut spare = self.workspaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        spare.push(workspace);
        drop(spare);
        result?;
        let copies: Vec<Option<Bytes>> =
            copies.into_iter().map(|copy| copy.map(Block::into_bytes)).collect();
        let blocks: Vec<Bytes> = blocks.into_iter().map(Block::into_bytes).collect();
        executable::results(self, inputs, &copies, &blocks)
    }

    fn workspace(&self, threads: usize) -> Result<Workspace, HostError> {
        let spare = self.workspaces.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop();
        let mut workspace = match spare {
            Some(workspace) => workspace,
            None => Workspace {
                arena: Block::new(self.arena_bytes).ok_or(HostError::Memory(self.arena_bytes))?,
                scratch: Vec::new(),
            },
        };
        while workspace.scratch.len() < threads {
            let block =
                Block::new(self.scratch_bytes).ok_or(HostError::Memory(self.scratch_bytes))?;
            workspace.scratch.push(block);
        }
        Ok(workspace)
    }

    fn addresses(
        &self,
        inputs: &[Tensor],
        copies: &mut [Option<Block>],
        blocks: &[Block],
        workspace: &Workspace,
    ) -> Result<Vec<*mut u8>, HostError> {
        let mut addresses = Vec::with_capacity(self.places.len());
        for place in &self.places {
            let address = match place.spot {
                Spot::Constant(index) => self.constants[index].as_ptr().cast_mut(),
                Spot::Output(index) => blocks[index].address(),
                Spot::Arena(offset) => workspace.arena.address().wrapping_add(offset),
                Spot::Input(index) => {
                    let data = inputs[index].bytes();
                    if data.as_ptr().align_offset(inputs[index].dtype().bytes()) == 0 {
                        data.as_ptr().cast_mut()
                    } else {
                        self.copied(inputs, copies, index)?
                    }
                }
                Spot::InputCopy(index) => self.copied(inputs, copies, index)?,
            };
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn copied(
        &self,
        inputs: &[Tensor],
        copies: &mut [Option<Block>],
        index: usize,
    ) -> Result<*mut u8, HostError> {
        if copies[index].is_none() {
            let data = inputs[index].bytes();
            copies[index] = Some(Block::copy_of(data).ok_or(HostError::Memory(data.len()))?);
        }
        Ok(copies[index].as_ref().expect("it was just made").address())
    }

    fn execute(
        &self,
        steps: &[Action],
        addresses: Vec<*mut u8>,
        workspace: &mut Workspace,
        threads: usize,
        options: &RunOptions<'_>,
        times: Option<&RefCell<Vec<(usize, Duration)>>>,
    ) -> Result<(), HostError> {
        // Addresses of scratch as numbers, so that threads may share the list.
        let scratch: Vec<usize> =
            workspace.scratch.iter().map(|block| block.address() as usize).collect();
        let execute = |job: &Job, chunk: usize, thread: usize| {
            if stopped(options).is_some() {
                return;
            }
            let begin = chunk as i64 * job.chunk;
            let end = (begin + job.chunk).min(job.total);
            // SAFETY: see the module.
            unsafe { (job.entry)(job.table, job.scalars, begin, end, scratch[thread] as *mut u8) };
        };
        with_team(threads, &execute, |team| {
            let (table, scalars) = (Vec::new(), Vec::new());
            Run { executable: self, options, team, addresses, table, scalars, times }.steps(steps)
        })
    }
}

/// Runs the steps that compute constants.
pub(crate) fn load(executable: &mut Executable, steps: &[Action]) -> Result<(), HostError> {
    let options = RunOptions::default();
    let mut workspace = executable.workspace(1)?;
    // Inputs and results have no memory when constants are computed; a verified module does not touch them then.
    let addresses = executable
        .places
        .iter()
        .map(|place| match place.spot {
            Spot::Constant(index) => executable.constants[index].as_ptr().cast_mut(),
            Spot::Arena(offset) => workspace.arena.address().wrapping_add(offset),
            Spot::Input(_) | Spot::InputCopy(_) | Spot::Output(_) => std::ptr::null_mut(),
        })
        .collect();
    executable.execute(steps, addresses, &mut workspace, 1, &options, None)
}

fn stopped(options: &RunOptions<'_>) -> Option<HostError> {
    if options.cancelled.is_some_and(|cancelled| cancelled()) {
        return Some(HostError::Cancelled);
    }
    if options.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        return Some(HostError::Deadline);
    }
    None
}

impl Run<'_> {
    fn steps(&mut self, steps: &[Action]) -> Result<(), HostError> {
        for step in steps {
            if let Some(error) = stopped(self.options) {
                return Err(error);
            }
            match step {
                Action::Call(call) => self.call(call)?,
                Action::Copy { from, to } => self.copy(*from, *to),
                Action::If { condition, then, otherwise } => {
                    let chosen = if self.is_true(*condition) { then } else { otherwise };
                    self.steps(chosen)?;
                }
                Action::While { before, condition, body } => loop {
                    self.steps(before)?;
                    if !self.is_true(*condition) {
                        break;
                    }
                    self.steps(body)?;
                    if let Some(error) = stopped(self.options) {
                        return Err(error);
                    }
                },
                Action::For { count, counter, body } => {
                    for iteration in 0..*count {
                        let target = self.addresses[*counter].cast::<i64>();
                        // SAFETY: a counter is an i64 buffer of this run.
                        unsafe { target.write_unaligned(iteration as i64) };
                        self.steps(body)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn is_true(&self, buffer: usize) -> bool {
        // SAFETY: a condition is a bool buffer of this run.
        unsafe { self.addresses[buffer].read() != 0 }
    }

    fn call(&mut self, call: &Call) -> Result<(), HostError> {
        let unit = &self.executable.units[call.unit];
        self.table.clear();
        self.table.extend(call.operands.iter().map(|&buffer| self.addresses[buffer]));
        let plans =
            unit.products.iter().map(|plan| std::ptr::from_ref(plan).cast_mut().cast::<u8>());
        self.table.extend(plans);
        self.scalars.clear();
        for &(source, low, high) in &call.scalars {
            let value = match source {
                Scalar::Constant(value) => value,
                Scalar::Buffer(buffer) => self.element(buffer),
            };
            self.scalars.push(value.clamp(low, high));
        }
        let total = positions(unit, &self.scalars);
        let guarded = self.options.cancelled.is_some() || self.options.deadline.is_some();
        let chunks = if self.options.threads > 1 || guarded { total.min(64) } else { 1 };
        if total == 0 {
            return Ok(());
        }
        let chunk = (total + chunks - 1) / chunks;
        let job = Job {
            entry: self.executable.code.entry(call.unit),
            table: self.table.as_ptr(),
            scalars: self.scalars.as_ptr(),
            total,
            chunk,
        };
        let started = self.times.map(|_| Instant::now());
        self.team.run(&job, ((total + chunk - 1) / chunk) as usize);
        if let (Some(times), Some(started)) = (self.times, started) {
            let (calls, time) = &mut times.borrow_mut()[call.unit];
            *calls += 1;
            *time += started.elapsed();
        }
        stopped(self.options).map_or(Ok(()), Err)
    }

    /// The only element of an integer buffer.
    fn element(&self, buffer: usize) -> i64 {
        let place = &self.executable.places[buffer];
        let tensor = self.tensor(buffer, place);
        match place.ty.dtype.class() {
            Class::Unsigned | Class::Signed | Class::Bool | Class::Float => {
                tensor.to_i64().first().copied().unwrap_or(0)
            }
        }
    }

    fn tensor(&self, buffer: usize, place: &Place) -> Tensor {
        let bytes = place.layout.elements() * place.ty.dtype.bytes();
        // SAFETY: the buffer has as many bytes, and no kernel runs now.
        let data = unsafe { std::slice::from_raw_parts(self.addresses[buffer], bytes) };
        place.layout.unpack(&place.ty, data)
    }

    fn copy(&self, from: usize, to: usize) {
        let (source, target) = (&self.executable.places[from], &self.executable.places[to]);
        if source.layout == target.layout {
            let bytes = source.layout.elements() * source.ty.dtype.bytes();
            // SAFETY: both buffers have as many bytes; they may be the same memory.
            unsafe { self.addresses[to].copy_from(self.addresses[from], bytes) };
            return;
        }
        let packed = target.layout.pack(&self.tensor(from, source));
        // SAFETY: a packed tensor has the bytes of its layout, and is memory of its own.
        unsafe { self.addresses[to].copy_from_nonoverlapping(packed.as_ptr(), packed.len()) };
    }
}

/// How many positions the flattened range of a unit has.
fn positions(unit: &Unit, scalars: &[i64]) -> i64 {
    let value = |expression: &Affine| {
        expression.evaluate(|term| match term {
            Term::Var(var) => unit
                .scalars
                .iter()
                .position(|&other| other == var)
                .map_or(0, |index| scalars[index]),
            Term::Axis(_) => 0,
        })
    };
    let mut total = 1i64;
    for flat in &unit.range {
        let span = value(&flat.end) - value(&flat.start);
        let step = (flat.step as i64).max(1);
        total = total.saturating_mul((span.max(0) + step - 1) / step);
    }
    total
}
