//! A module compiled for a modeled accelerator core, its runs and its times.

use crate::error::{Error, ErrorKind};
use crate::limits::Limits;
use crate::options::RunOptions;
use crate::profile::{self, Profile};
use crate::target::{Mode, Systolic};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use systole_compiler::diagnostic::{Code, Diagnostic, Diagnostics};
use systole_compiler::module::{Lifetime, Module};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::TensorType;
use systole_systolic::lower::{self, CompileError};
use systole_systolic::program::Program;
use systole_systolic::simulate::{Exchanger, Report};
use systole_systolic::{asm, check, limits, simulate};

/// Code for a modeled core.
#[derive(Debug)]
pub(crate) struct Accelerator {
    pub(crate) systolic: Arc<Systolic>,
    /// Its inputs are the module's, then its constants.
    pub(crate) program: Arc<Program>,
    pub(crate) bound: Option<profile::Bound>,
    pub(crate) casts: Vec<String>,
    pub(crate) fallbacks: Vec<(String, String)>,
    constants: Vec<Constant>,
    results: Vec<TensorType>,
    last: Mutex<Option<Profile>>,
}

/// What is given at load.
#[derive(Clone, Debug)]
struct Constant {
    /// Of a weight that was not there when the program was made.
    name: Option<String>,
    value: Option<Tensor>,
}

/// What a run on modeled cores has to do with other ranks.
pub(crate) struct Others<'a> {
    pub(crate) exchanger: &'a dyn Exchanger,
    /// How many cores of the chip are busy.
    pub(crate) busy_cores: usize,
}

impl Accelerator {
    /// Compiles a verified module. In debug builds the program is checked independently.
    pub(crate) fn new(module: &Module, systolic: &Arc<Systolic>) -> Result<Accelerator, Error> {
        Accelerator::compile(module, systolic, false)
    }

    /// Compiles kernels with the tiles that somebody wrote: they fit or they do not.
    pub(crate) fn as_written(
        module: &Module,
        systolic: &Arc<Systolic>,
    ) -> Result<Accelerator, Error> {
        Accelerator::compile(module, systolic, true)
    }

    fn compile(
        module: &Module,
        systolic: &Arc<Systolic>,
        as_written: bool,
    ) -> Result<Accelerator, Error> {
        let limits = limits::Limits::of(&systolic.machine);
        let options = lower::Options {
            precision: systolic.precision.casts(),
            fallback_only: systolic.fallback_only,
            as_written,
        };
        let compiled = lower::compile(module, &limits, &options).map_err(refused)?;
        let lower::Compiled { program, module, constants, casts, fallbacks } = compiled;
        if cfg!(debug_assertions) {
            check_program(&program, systolic)?;
        }
        // Weights without data have a time, but no values.
        let constant = |&id| match &module.buffers[id].lifetime {
            Lifetime::Constant(value) => Constant { name: None, value: Some(value.clone()) },
            Lifetime::Parameter(name) => Constant { name: Some(name.clone()), value: None },
            Lifetime::Input | Lifetime::Loaded | Lifetime::State | Lifetime::Temporary => {
                Constant { name: None, value: None }
            }
        };
        let constants = constants.iter().map(constant).collect();
        let results =
            module.outputs.iter().map(|(_, buffer)| module.buffers[*buffer].ty.clone()).collect();
        Ok(Accelerator {
            bound: Some(profile::bound(&module, &systolic.machine)),
            systolic: Arc::clone(systolic),
            program: Arc::new(program),
            casts,
            fallbacks,
            constants,
            results,
            last: Mutex::default(),
        })
    }

    /// A program as it is written, whose schedule nothing changes.
    pub(crate) fn of_program(program: Program, systolic: &Arc<Systolic>) -> Accelerator {
        Accelerator {
            systolic: Arc::clone(systolic),
            program: Arc::new(program),
            bound: None,
            casts: Vec::new(),
            fallbacks: Vec::new(),
            constants: Vec::new(),
            results: Vec::new(),
            last: Mutex::default(),
        }
    }

    /// The same code with weights that were not there when it was made.
    pub(crate) fn with_weights(
        &self,
        weight: &dyn Fn(&str) -> Option<Tensor>,
    ) -> Result<Accelerator, Error> {
        let bound = |constant: &Constant| match (&constant.value, &constant.name) {
            (None, Some(name)) => Constant { value: weight(name), ..constant.clone() },
            (Some(_), _) | (None, None) => constant.clone(),
        };
        Ok(Accelerator {
            systolic: Arc::clone(&self.systolic),
            program: Arc::clone(&self.program),
            bound: self.bound,
            casts: self.casts.clone(),
            fallbacks: self.fallbacks.clone(),
            constants: self.constants.iter().map(bound).collect(),
            results: self.results.clone(),
            last: Mutex::default(),
        })
    }

    /// The assembly text.
    pub(crate) fn listing(&self) -> String {
        asm::print(&self.program)
    }

    /// The results on inputs that have been checked, and the time they take, which [`Accelerator::last`] gives.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        options: &RunOptions,
    ) -> Result<Vec<Tensor>, Error> {
        let (outputs, report, simulate_ms) = self.run_with(inputs, options, None)?;
        if self.systolic.mode != Mode::Values {
            let made = profile::of_report(self, &report, simulate_ms);
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        }
        Ok(outputs)
    }

    /// The results, what the simulator tells, and how long it took.
    pub(crate) fn run_with(
        &self,
        inputs: &[Tensor],
        options: &RunOptions,
        others: Option<&Others<'_>>,
    ) -> Result<(Vec<Tensor>, Report, f64), Error> {
        let mode = match self.systolic.mode {
            Mode::Both => simulate::Mode::Both,
            Mode::Values => simulate::Mode::Values,
            Mode::Time => simulate::Mode::Time,
        };
        let constants = self.constants.iter().map(|constant| constant.value.as_ref());
        let constants: Option<Vec<&Tensor>> = constants.collect();
        let constants = constants.ok_or_else(|| {
            Error::unsupported("the model's weights have no data, so it has a time but no values")
                .with_help("use `systole profile`")
        })?;
        let all: Vec<Tensor> = inputs.iter().chain(constants).cloned().collect();
        let cancelled = || options.is_over();
        let most = options.memory_limit.map_or(1 << 40, |limit| limit as u64);
        let simulation = simulate::Options {
            cancelled: Some(&cancelled),
            max_bytes: most,
            exchanger: others.map(|others| others.exchanger),
            busy_cores: others.map_or(1, |others| others.busy_cores as u64),
            ..simulate::Options::default()
        };
        let start = Instant::now();
        let report = simulate::run(&self.program, &self.systolic.machine, mode, &all, simulation)
            .map_err(|error| failed(error, &Limits::of(options)))?;
        let simulate_ms = start.elapsed().as_secs_f64() * 1e3;
        let shape = |(flat, ty): (&Tensor, &TensorType)| {
            Tensor::new(ty.clone(), flat.bytes().clone())
                .ok_or_else(|| Error::limit("the simulator gave a result of another size"))
        };
        let outputs = match mode {
            simulate::Mode::Time => {
                self.results.iter().map(|ty| Tensor::zeros(ty.clone())).collect()
            }
            simulate::Mode::Values | simulate::Mode::Both => {
                report.outputs.iter().zip(&self.results).map(shape).collect::<Result<_, _>>()?
            }
        };
        Ok((outputs, report, simulate_ms))
    }

    /// The times of the last run that had any.
    pub(crate) fn last(&self) -> Option<Profile> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The time of a run, without values. `scalars` are the numbers of tensors that decide it, by name.
    pub(crate) fn profile(
        &self,
        scalars: &BTreeMap<String, i64>,
        trace: bool,
        limits: &Limits,
    ) -> Result<Profile, Error> {
        let (report, simulate_ms) = self.time(scalars, trace, limits, None)?;
        Ok(profile::of_report(self, &report, simulate_ms))
    }

    /// What the simulator tells of a run without values, and how long it took.
    pub(crate) fn time(
        &self,
        scalars: &BTreeMap<String, i64>,
        trace: bool,
        limits: &Limits,
        others: Option<&Others<'_>>,
    ) -> Result<(Report, f64), Error> {
        let cancelled = || limits.is_over();
        let options = simulate::Options {
            trace,
            scalars,
            cancelled: Some(&cancelled),
            exchanger: others.map(|others| others.exchanger),
            busy_cores: others.map_or(1, |others| others.busy_cores as u64),
            ..simulate::Options::default()
        };
        let start = Instant::now();
        let machine = &self.systolic.machine;
        let report = simulate::run(&self.program, machine, simulate::Mode::Time, &[], options)
            .map_err(|error| failed(error, limits))?;
        Ok((report, start.elapsed().as_secs_f64() * 1e3))
    }
}

/// What the checker says against a program that the compiler made is a fault of ours.
fn check_program(program: &Program, systolic: &Systolic) -> Result<(), Error> {
    match check::check(program, &check::Limits::of(&systolic.machine)) {
        Ok(_) => Ok(()),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            panic!("the compiled program breaks a rule of the machine:\n{}", lines.join("\n"))
        }
    }
}

/// What the checker says against a program that somebody wrote.
pub(crate) fn judge(program: &Program, systolic: &Systolic) -> Result<(), Error> {
    let limits = check::Limits::of(&systolic.machine);
    let kernels = program.kernels.iter();
    let too_large = kernels
        .filter(|kernel| kernel.sbuf_bytes > limits.sbuf_bytes || kernel.psum_banks > limits.banks);
    let over: Vec<Diagnostic> = too_large
        .map(|kernel| {
            let message = format!(
                "kernel @{} does not fit {}: {} bytes of each SBUF partition and {} PSUM banks; there are {} and {}",
                kernel.name,
                systolic.machine.name,
                kernel.sbuf_bytes,
                kernel.psum_banks,
                limits.sbuf_bytes,
                limits.banks
            );
            Diagnostic::error(Code::TooLarge, message)
        })
        .collect();
    if !over.is_empty() {
        return Err(Diagnostics(over).into());
    }
    check::check(program, &limits).map(|_| ()).map_err(|problems| {
        let problems = problems.iter();
        let said = problems.map(|problem| Diagnostic::error(Code::Verify, problem.to_string()));
        Diagnostics(said.collect()).into()
    })
}

fn refused(error: CompileError) -> Error {
    match error {
        CompileError::Unsupported(found) => {
            let each = found.into_iter().map(|(place, why)| {
                let mut problem = Diagnostic::error(Code::Unsupported, format!("{place}: {why}"));
                problem.node = Some(place);
                problem
            });
            Diagnostics(each.collect()).into()
        }
        CompileError::DoesNotFit(what) => Error::new(ErrorKind::DoesNotFit, Code::TooLarge, what),
    }
}

fn failed(error: simulate::SimulateError, limits: &Limits) -> Error {
    use simulate::SimulateError;
    let text = error.to_string();
    match error {
        SimulateError::Cancelled => limits.over("simulation"),
        SimulateError::Limit { .. } | SimulateError::Memory { .. } => Error::limit(text),
        SimulateError::Unknown { tensor } => {
            let example = format!("--input '{tensor}=…' with --mode both");
            Error::new(ErrorKind::Input, Code::Input, text)
                .with_help(format!("give the values with `systole run` and {example}"))
        }
        SimulateError::Input(_) => Error::new(ErrorKind::Input, Code::Input, text),
        SimulateError::Ranks(_)
        | SimulateError::Program(_)
        | SimulateError::Uninitialized { .. }
        | SimulateError::Deadlock { .. } => Error::new(ErrorKind::Program, Code::Verify, text),
    }
}
