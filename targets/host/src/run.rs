//! Runs an executable: addresses of buffers, calls of generated code, copies and control flow.
#![expect(unsafe_code, reason = "generated code works on raw addresses")]
//!
//! Why calls are safe: the module was verified, so that kernels stay inside their operands; every operand's address is of
//! memory with at least its buffer's bytes, which lives until the run ends; memory that a step writes belongs to this run
//! alone; iterations of the flattened range write to disjoint places; each thread has scratch of its own.

use crate::executable::{
    self, Action, Call, Executable, HostError, Place, Scalar, Unit, check_inputs,
};
use crate::jit::Entry;
use crate::pool::{self, MOST_THREADS, Pool};
use crate::workspace::Workspace;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use systole_compiler::kernel::{Affine, Term};
use systole_compiler::ranks::{self, Alone, Exchange};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::DType;

/// How a module is run.
#[derive(Clone, Copy)]
pub struct RunOptions<'a> {
    /// How many threads share the work; one means that none but the caller's is used.
    pub threads: usize,
    /// Whose threads they are; the executable's own where there is no other pool.
    pub pool: Option<&'a dyn Pool>,
    /// Asked between steps and parts of steps; the run ends where it says yes.
    pub cancelled: Option<&'a (dyn Fn() -> bool + Sync)>,
    /// When the run ends at the latest.
    pub deadline: Option<Instant>,
    /// The rank that runs, where there are several.
    pub exchange: Option<&'a dyn Exchange>,
}

impl Default for RunOptions<'_> {
    fn default() -> Self {
        RunOptions { threads: 1, pool: None, cancelled: None, deadline: None, exchange: None }
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

/// The inputs of a run by position.
pub type Given<'i> = &'i dyn Fn(usize) -> &'i Tensor;

/// One call, as every thread sees it.
struct Job {
    entry: Entry,
    table: *const *mut u8,
    scalars: *const i64,
    total: i64,
    chunk: i64,
    chunks: usize,
}

// SAFETY: the addresses are of this run's memory, which outlives the job, and threads only read the tables.
unsafe impl Sync for Job {}

/// A run.
struct Run<'r> {
    executable: &'r Executable,
    options: &'r RunOptions<'r>,
    threads: usize,
    pool: Option<&'r dyn Pool>,
    workspace: &'r mut Workspace,
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

    /// Runs in a workspace of this executable, which then holds the results: see [`Workspace::result`]. A run with as
    /// many threads as the one before allocates nothing.
    pub fn run_in(
        &self,
        workspace: &mut Workspace,
        inputs: Given<'_>,
        options: &RunOptions<'_>,
    ) -> Result<(), HostError> {
        self.run_steps(workspace, inputs, options, None)?;
        workspace.read_results(self, inputs)
    }

    fn run_timed(
        &self,
        inputs: &[Tensor],
        options: &RunOptions<'_>,
        times: Option<&RefCell<Vec<(usize, Duration)>>>,
    ) -> Result<Vec<Tensor>, HostError> {
        check_inputs(self, inputs)?;
        let mut workspace = match self.spare_workspaces().pop() {
            Some(workspace) => workspace,
            None => self.workspace()?,
        };
        let result = self
            .run_steps(&mut workspace, &|index| &inputs[index], options, times)
            .map(|()| executable::results(self, inputs, workspace.take_results()));
        let mut spare = self.spare_workspaces();
        if spare.len() < MOST_SPARE {
            spare.push(workspace);
        }
        result
    }

    fn run_steps(
        &self,
        workspace: &mut Workspace,
        inputs: Given<'_>,
        options: &RunOptions<'_>,
        times: Option<&RefCell<Vec<(usize, Duration)>>>,
    ) -> Result<(), HostError> {
        let threads = options.threads.clamp(1, MOST_THREADS);
        executable::check_types(self, inputs)?;
        workspace.prepare(self, threads, inputs)?;
        self.execute(&self.steps, workspace, threads, options, times)
    }

    fn execute(
        &self,
        steps: &[Action],
        workspace: &mut Workspace,
        threads: usize,
        options: &RunOptions<'_>,
        times: Option<&RefCell<Vec<(usize, Duration)>>>,
    ) -> Result<(), HostError> {
        let team;
        let pool: Option<&dyn Pool> = match options.pool {
            _ if threads == 1 => None,
            Some(pool) => Some(pool),
            None => {
                team = self.threads.at_least(threads);
                Some(&*team)
            }
        };
        Run { executable: self, options, threads, pool, workspace, times }.steps(steps)
    }
}

/// More threads than this do not make compiling any faster.
pub(crate) const MOST_COMPILE_THREADS: usize = 64;

/// How many workspaces an executable keeps for runs to come.
const MOST_SPARE: usize = 4;

/// What takes less is not worth waking threads for: bytes of operands, and multiplications of products.
const SMALL_BYTES: usize = 32 << 10;
const SMALL_MULTIPLICATIONS: usize = 1 << 17;

/// Runs the steps that compute constants.
pub(crate) fn load(
    executable: &mut Executable,
    steps: &[Action],
    options: &RunOptions<'_>,
) -> Result<(), HostError> {
    if steps.is_empty() {
        return Ok(());
    }
    let mut workspace = Workspace::for_load(executable, options.threads)?;
    executable.execute(steps, &mut workspace, options.threads, options, None)
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
                Action::Collective { op, operands, result } => {
                    let operands: Vec<Tensor> = operands
                        .iter()
                        .map(|&buffer| self.tensor(buffer, &self.executable.places[buffer]))
                        .collect();
                    let exchange = self.options.exchange.unwrap_or(&Alone);
                    let value = ranks::value(op, &operands, exchange)
                        .map_err(|error| HostError::Ranks(error.to_string()))?;
                    self.put(*result, &value);
                }
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
                        let target = self.workspace.addresses[*counter].cast::<i64>();
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
        unsafe { self.workspace.addresses[buffer].read() != 0 }
    }

    fn call(&mut self, call: &Call) -> Result<(), HostError> {
        let unit = &self.executable.units[call.unit];
        let Workspace { addresses, table, scalars, .. } = &mut *self.workspace;
        table.clear();
        table.extend(call.operands.iter().map(|&buffer| addresses[buffer]));
        let plans =
            unit.products.iter().map(|plan| std::ptr::from_ref(plan).cast_mut().cast::<u8>());
        table.extend(plans);
        scalars.clear();
        for &(source, low, high) in &call.scalars {
            let value = match source {
                Scalar::Constant(value) => value,
                Scalar::Buffer(buffer) => {
                    element(&self.executable.places[buffer], addresses[buffer])
                }
            };
            scalars.push(value.clamp(low, high));
        }
        let total = positions(unit, scalars);
        if total == 0 {
            return Ok(());
        }
        let guarded = self.options.cancelled.is_some() || self.options.deadline.is_some();
        let shared = self.pool.filter(|_| total > 1 && !is_small(unit, call, total));
        let chunks = if shared.is_some() || guarded { total.min(64) } else { 1 };
        let chunk = (total + chunks - 1) / chunks;
        let job = Job {
            entry: self.executable.code.entry(call.unit),
            table: table.as_ptr(),
            scalars: scalars.as_ptr(),
            total,
            chunk,
            chunks: ((total + chunk - 1) / chunk) as usize,
        };
        let started = self.times.map(|_| Instant::now());
        match self.pool.filter(|_| job.chunks == 1 && unit.is_worth_sharing()) {
            // Its products are shared instead, tile by tile.
            Some(pool) => pool::lend(pool, self.threads, || self.share(&job, None)),
            None => self.share(&job, shared),
        }
        if let (Some(times), Some(started)) = (self.times, started) {
            let (calls, time) = &mut times.borrow_mut()[call.unit];
            *calls += 1;
            *time += started.elapsed();
        }
        stopped(self.options).map_or(Ok(()), Err)
    }

    /// Does all chunks of a job. Each thread gets a slot, and with it scratch of its own, from a counter of ours, so that
    /// nothing rests on the numbers that a pool hands out.
    fn share(&self, job: &Job, pool: Option<&dyn Pool>) {
        let next = AtomicUsize::new(0);
        let take_chunks = |scratch: *mut u8| loop {
            let chunk = next.fetch_add(1, Ordering::Relaxed);
            if chunk >= job.chunks || stopped(self.options).is_some() {
                return;
            }
            let begin = chunk as i64 * job.chunk;
            let end = (begin + job.chunk).min(job.total);
            // SAFETY: see the module.
            unsafe { (job.entry)(job.table, job.scalars, begin, end, scratch) };
        };
        let scratch = &self.workspace.scratch;
        if let Some(pool) = pool {
            let slots = AtomicUsize::new(0);
            pool.run(self.threads.min(job.chunks), &|_| {
                let slot = slots.fetch_add(1, Ordering::Relaxed);
                if let Some(scratch) = scratch.get(slot) {
                    take_chunks(scratch.address());
                }
            });
        }
        // All of it, or what the pool left undone; its calls have returned.
        take_chunks(scratch[0].address());
    }

    fn tensor(&self, buffer: usize, place: &Place) -> Tensor {
        let bytes = place.layout.elements() * place.ty.dtype.bytes();
        // SAFETY: the buffer has as many bytes, and no kernel runs now.
        let data = unsafe { std::slice::from_raw_parts(self.workspace.addresses[buffer], bytes) };
        place.layout.unpack(&place.ty, data)
    }

    fn put(&self, buffer: usize, value: &Tensor) {
        let packed = self.executable.places[buffer].layout.pack(value);
        // SAFETY: a packed tensor has the bytes of its layout, and is memory of its own.
        unsafe {
            self.workspace.addresses[buffer].copy_from_nonoverlapping(packed.as_ptr(), packed.len())
        };
    }

    fn copy(&self, from: usize, to: usize) {
        let (source, target) = (&self.executable.places[from], &self.executable.places[to]);
        if source.layout == target.layout {
            let bytes = source.layout.elements() * source.ty.dtype.bytes();
            // SAFETY: both buffers have as many bytes; they may be the same memory.
            unsafe {
                self.workspace.addresses[to].copy_from(self.workspace.addresses[from], bytes)
            };
            return;
        }
        let packed = target.layout.pack(&self.tensor(from, source));
        // SAFETY: a packed tensor has the bytes of its layout, and is memory of its own.
        unsafe {
            self.workspace.addresses[to].copy_from_nonoverlapping(packed.as_ptr(), packed.len())
        };
    }
}

/// Whether a call is done sooner than other threads would come to help.
fn is_small(unit: &Unit, call: &Call, positions: i64) -> bool {
    let positions = usize::try_from(positions).unwrap_or(usize::MAX);
    call.bytes < SMALL_BYTES
        && unit.multiplications().saturating_mul(positions) < SMALL_MULTIPLICATIONS
}

/// The only element of an integer buffer; other elements count as zero.
fn element(place: &Place, address: *const u8) -> i64 {
    macro_rules! read {
        ($ty:ty) => {
            // SAFETY: the buffer holds an element of this type, and no kernel runs now.
            unsafe { address.cast::<$ty>().read_unaligned() as i64 }
        };
    }
    match place.ty.dtype {
        _ if place.ty.shape.contains(&0) => 0,
        DType::Bool => i64::from(read!(u8) != 0),
        DType::I4 => read!(i8) << 60 >> 60,
        DType::U4 => read!(u8) & 15,
        DType::I8 => read!(i8),
        DType::U8 => read!(u8),
        DType::I16 => read!(i16),
        DType::U16 => read!(u16),
        DType::I32 => read!(i32),
        DType::U32 => read!(u32),
        DType::I64 => read!(i64),
        DType::U64 => read!(u64),
        DType::F64
        | DType::F32
        | DType::F16
        | DType::BF16
        | DType::F8E4M3
        | DType::F8E5M2
        | DType::F4E2M1 => 0,
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
