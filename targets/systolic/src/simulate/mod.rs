//! The event-driven simulator: values and time of a program.
//!
//! One event loop serves all modes: it decides which engine starts its next instruction when. With values, each instruction
//! works on bytes in the order of the starts; without, nothing but times is kept, and steady loops are skipped exactly.
//! The same program, machine and inputs give the same report, bit for bit.

mod clock;
mod code;
pub mod cost;
mod engine;
mod feed;
mod functions;
mod memory;
mod product;
mod report;
mod skip;
mod throttle;
mod transfer;
mod values;

pub use clock::Clock;
pub use report::{
    CallReport, CallTime, DmaReport, EngineReport, Lane, OpReport, Report, TraceEvent, engine_name,
};

use crate::machine::Machine;
use crate::program::{Exchange, Program};
use engine::{Data, Simulation};
use feed::Feeder;
use memory::Memory;
use std::collections::BTreeMap;
use systole_compiler::ranks::{self, Alone, Exchange as _, Parts};
use systole_compiler::tensor::Tensor;
use thiserror::Error;
use values::Machinery;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Values alone.
    Values,
    /// Time alone: inputs are not needed, but where a scalar or a branch depends on data, it must be given.
    Time,
    /// Both.
    Both,
}

/// What carries exchanges to other ranks. It is asked for one after the other, in the order of the program.
pub trait Exchanger {
    /// What comes of an exchange for which this rank is ready at that time; it may wait for others. Without values,
    /// nothing is given.
    fn exchange(
        &self,
        exchange: &Exchange,
        given: Option<Tensor>,
        ready_us: f64,
    ) -> Result<Exchanged, String>;
}

/// What comes of an exchange.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchanged {
    /// What this rank gets; nothing without values.
    pub value: Option<Tensor>,
    /// When everybody who takes part is ready.
    pub start_us: f64,
    /// When this rank has what it gets, and its operand may change.
    pub end_us: f64,
}

/// An exchange of the only rank there is.
fn alone(exchange: &Exchange, given: Option<Tensor>, ready_us: f64) -> Result<Exchanged, String> {
    let several = match ranks::parts(&exchange.op) {
        Parts::Groups(groups) => groups.iter().any(|group| group.len() > 1),
        Parts::Pairs(pairs) => pairs.iter().any(|pair| pair[0] != pair[1]),
    };
    if several {
        return Err(format!("{} over several ranks, but there is only one", exchange.op.name()));
    }
    let value = match (given, &exchange.operand) {
        (Some(given), _) => Some(Alone.exchange(&exchange.op, &given)?),
        (None, None) => Some(Tensor::scalar(Alone.rank() as i64)),
        (None, Some(_)) => None,
    };
    Ok(Exchanged { value, start_us: ready_us, end_us: ready_us })
}

/// How it is simulated.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// The way to other ranks, where there are any.
    pub exchanger: Option<&'a dyn Exchanger>,
    /// Whether steady loops are skipped (without values; the result is the same).
    pub skip: bool,
    /// Whether events are recorded, which turns skipping off.
    pub trace: bool,
    /// For time without values: numbers of tensors by name. For the condition of a `while`, how often its body runs.
    pub scalars: &'a BTreeMap<String, i64>,
    /// How many cores of the chip are busy, all alike: those of a stack share its bandwidth.
    pub busy_cores: u64,
    /// Asked now and then; the simulation ends soon after it says yes.
    pub cancelled: Option<&'a dyn Fn() -> bool>,
    /// No more instructions than this are carried out one by one.
    pub max_instructions: u64,
    /// No more bytes than this are kept for values.
    pub max_bytes: u64,
}

static NOTHING: BTreeMap<String, i64> = BTreeMap::new();

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            exchanger: None,
            skip: true,
            trace: false,
            scalars: &NOTHING,
            busy_cores: 1,
            cancelled: None,
            max_instructions: 20_000_000_000,
            max_bytes: 1 << 40,
        }
    }
}

impl std::fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Options {
            exchanger: _,
            skip,
            trace,
            scalars,
            busy_cores,
            cancelled: _,
            max_instructions,
            max_bytes,
        } = self;
        f.debug_struct("Options")
            .field("skip", skip)
            .field("trace", trace)
            .field("scalars", scalars)
            .field("busy_cores", busy_cores)
            .field("max_instructions", max_instructions)
            .field("max_bytes", max_bytes)
            .finish_non_exhaustive()
    }
}

/// Why a simulation did not end well.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SimulateError {
    /// The program breaks a rule of the machine.
    #[error("{0}")]
    Program(String),
    /// The inputs are not what the program takes.
    #[error("{0}")]
    Input(String),
    /// An instruction reads what nothing has written.
    #[error(
        "{instruction} in kernel @{kernel} reads memory that nothing has written: operand {operand}, partition {partition}, byte {byte}"
    )]
    Uninitialized {
        /// The instruction's source, or its mnemonic.
        instruction: String,
        /// The kernel.
        kernel: String,
        /// Which of its operands, from 0.
        operand: usize,
        /// The partition.
        partition: u32,
        /// The byte within the partition.
        byte: u64,
    },
    /// Engines wait for each other.
    #[error("the program is stuck: {}", waiting.join("; "))]
    Deadlock {
        /// Who waits for what.
        waiting: Vec<String>,
    },
    /// Time alone cannot tell what data decide.
    #[error("the time depends on the value of %{tensor}: give it, or simulate values too")]
    Unknown {
        /// The tensor's name.
        tensor: String,
    },
    /// Too many instructions.
    #[error("more than {instructions} instructions")]
    Limit {
        /// The limit.
        instructions: u64,
    },
    /// The values would take too much memory.
    #[error("the values take {needed} bytes, more than {limit}")]
    Memory {
        /// How many bytes are needed.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// Ranks that do not come to an exchange, or none to exchange with.
    #[error("{0}")]
    Ranks(String),
    /// The caller said so.
    #[error("cancelled")]
    Cancelled,
}

/// Simulates a program on a machine. `inputs` are the program's, in order, each with as many elements as its tensor has in
/// memory; for time alone they may be missing.
pub fn run(
    program: &Program,
    machine: &Machine,
    mode: Mode,
    inputs: &[Tensor],
    options: Options<'_>,
) -> Result<Report, SimulateError> {
    crate::isa::check_structure(program, machine).map_err(|problems| {
        SimulateError::Program(problems.into_iter().next().unwrap_or_default())
    })?;
    let options = Options { skip: options.skip && !options.trace && mode == Mode::Time, ..options };
    let mut shared = machine.clone();
    shared.hbm.stack_gbs = machine.hbm_gbs(options.busy_cores);
    let machine = &shared;
    let code = code::compile(program, machine, &Clock::of(machine));
    let known = known_inputs(program, inputs);
    let timed = mode != Mode::Values;
    let mut machinery = match mode {
        Mode::Time => None,
        Mode::Values | Mode::Both => {
            let memory = Memory::new(program, machine, inputs, options.max_bytes)?;
            Some(Machinery::new(program, memory, machine.psum.bank_bytes))
        }
    };
    let mut load_us = 0.0;
    if !program.load.is_empty() {
        let mut feeder = Feeder::new(program, &program.load, options.scalars);
        feeder.known.clone_from(&known);
        let mut simulation = Simulation::new(program, machine, &code, &options);
        simulation.run(&mut feeder, machinery.as_mut().map(|data| data as &mut dyn Data))?;
        load_us = report::report(&simulation, &feeder, timed).time_us;
    }
    let mut feeder = Feeder::new(program, &program.steps, options.scalars);
    feeder.known = known;
    let mut simulation = Simulation::new(program, machine, &code, &options);
    simulation.run(&mut feeder, machinery.as_mut().map(|data| data as &mut dyn Data))?;
    let mut report = report::report(&simulation, &feeder, timed);
    report.load_us = load_us;
    if let Some(machinery) = &machinery {
        let outputs = program.outputs.iter();
        report.outputs =
            outputs.map(|&(_, tensor)| machinery.memory.read(program, tensor)).collect();
    }
    Ok(report)
}

/// The numbers of inputs with one integer, for time without values.
fn known_inputs(program: &Program, inputs: &[Tensor]) -> BTreeMap<u32, i64> {
    let pairs = program.inputs.iter().zip(inputs);
    let single = pairs.filter(|(_, value)| value.count() == 1 && !value.dtype().is_float());
    single
        .filter_map(|(&tensor, value)| {
            Some((feed::root(program, tensor), *value.to_i64().first()?))
        })
        .collect()
}
