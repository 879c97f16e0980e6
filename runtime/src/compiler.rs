//! Options of compilation.

use crate::engine;
use crate::error::{Error, ErrorKind};
use crate::inputs::Inputs;
use crate::limits::Limits;
use crate::model::Model;
use crate::options::Cancel;
use crate::program::Program;
use crate::saved::SavedProgram;
use crate::target::{Kind, Target};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use systole_compiler::diagnostic::Code;
use systole_compiler::mesh::Mesh;
use systole_compiler::pipeline::Observer;
use systole_host::Pool;

/// Compiles models. Plain data: make one, set what differs from the defaults, and compile as many models as you like.
#[derive(Clone)]
pub struct Compiler {
    pub(crate) target: Target,
    pub(crate) dims: BTreeMap<String, usize>,
    pub(crate) state: Vec<(String, String)>,
    pub(crate) threads: Option<usize>,
    pub(crate) cache_entries: usize,
    pub(crate) observer: Option<SharedObserver>,
    pub(crate) pool: Option<Arc<dyn Pool>>,
    pub(crate) limits: Limits,
    pub(crate) mesh: Option<Mesh>,
    pub(crate) shardings: Vec<(String, String)>,
    pub(crate) system: Option<String>,
}

/// An observer that several compilations may tell.
#[derive(Clone)]
pub(crate) struct SharedObserver(pub(crate) Arc<Mutex<dyn Observer + Send>>);

impl fmt::Debug for SharedObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedObserver")
    }
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler")
            .field("target", &self.target)
            .field("dims", &self.dims)
            .field("state", &self.state)
            .field("threads", &self.threads)
            .field("cache_entries", &self.cache_entries)
            .field("limits", &self.limits)
            .field("mesh", &self.mesh)
            .field("shardings", &self.shardings)
            .finish_non_exhaustive()
    }
}

impl Default for Compiler {
    fn default() -> Compiler {
        Compiler {
            target: Target::host(),
            dims: BTreeMap::new(),
            state: Vec::new(),
            threads: None,
            cache_entries: 8,
            observer: None,
            pool: None,
            limits: Limits::default(),
            mesh: None,
            shardings: Vec::new(),
            system: None,
        }
    }
}

impl Compiler {
    /// For the host, with nothing bound.
    pub fn new() -> Compiler {
        Compiler::default()
    }

    /// Compiles for that target.
    pub fn target(mut self, target: Target) -> Compiler {
        self.target = target;
        self
    }

    /// Gives a symbolic size its number, or an unnamed one as `INPUT.AXIS`. What is not bound here is bound by the
    /// inputs of each run.
    pub fn bind(mut self, name: impl Into<String>, size: usize) -> Compiler {
        self.dims.insert(name.into(), size);
        self
    }

    /// Pairs an input with the output that is its value in the next run: see [`Program::run_stateful`].
    pub fn state(mut self, input: impl Into<String>, output: impl Into<String>) -> Compiler {
        self.state.push((input.into(), output.into()));
        self
    }

    /// Divides the model among the ranks of a mesh, which run on threads of this machine, or each on a modeled core: inputs
    /// are split and outputs put together again. Without [`Compiler::shard`], and without shardings in the model, axis `dp` divides the batch and
    /// axis `tp` the weights of products.
    pub fn mesh(mut self, mesh: Mesh) -> Compiler {
        self.mesh = Some(mesh);
        self
    }

    /// The system that the ranks stand for, by name or description file: exchanges are chosen by their predicted time on it,
    /// which [`Program::communications`] tells. Ranks are its chips, or, on a modeled accelerator, the cores of its chips.
    /// Without one, exchanges are chosen by the bytes that they send, and modeled cores are those of a system of their kind.
    pub fn system(mut self, name: impl Into<String>) -> Compiler {
        self.system = Some(name.into());
        self
    }

    /// Says how the input, output or value of that name is divided among the axes of the mesh: `{dp, _}` cuts its first
    /// dimension, `{_, (dp, tp)}` the second one by two axes, `{_, _, sum(tp)}` leaves partial sums, `{_, _, pp = 1}` puts
    /// it on a stage.
    pub fn shard(mut self, name: impl Into<String>, sharding: impl Into<String>) -> Compiler {
        self.shardings.push((name.into(), sharding.into()));
        self
    }

    /// How many threads code is generated on, and how many a run takes where its options do not say. The default is all
    /// that the machine has; 1 starts none.
    pub fn threads(mut self, count: usize) -> Compiler {
        self.threads = Some(count);
        self
    }

    /// Shares work over these threads, that of runs whose options name no pool too. Without it a program has threads of
    /// its own, which are started when they are first needed and sleep between runs.
    pub fn pool(mut self, pool: Arc<dyn Pool>) -> Compiler {
        self.pool = Some(pool);
        self
    }

    /// Ends compilations, between passes and between kernels, when it is cancelled. What a run compiles for its sizes is
    /// ended by the run's own options.
    pub fn cancel(mut self, cancel: Cancel) -> Compiler {
        self.limits.cancel = Some(cancel);
        self
    }

    /// Ends compilations at that time, between passes and between kernels.
    pub fn deadline(mut self, deadline: Instant) -> Compiler {
        self.limits.deadline = Some(deadline);
        self
    }

    /// For how many different sets of input types a program keeps its code; the least recently used goes first.
    pub fn cache_entries(mut self, count: usize) -> Compiler {
        self.cache_entries = count.max(1);
        self
    }

    /// Tells an observer about every pass. Compilations of one program wait for each other then.
    pub fn observe(mut self, observer: Arc<Mutex<dyn Observer + Send>>) -> Compiler {
        self.observer = Some(SharedObserver(observer));
        self
    }

    /// The model as a program. Code is made at once where every size is known, else at the first run with those sizes.
    pub fn compile(&self, model: &Model) -> Result<Program, Error> {
        engine::check_available(&self.target)?;
        self.check_threads()?;
        model.source().check_dims(&self.dims)?;
        Program::new(self.clone(), model)
    }
    /// Compiles a model for what is known of its inputs and saves it, weights included, without making code here:
    /// [`Program::save_for`] from the start.
    pub fn save(
        &self,
        model: &Model,
        inputs: &Inputs,
        path: impl AsRef<Path>,
    ) -> Result<(), Error> {
        engine::check_available(&self.target)?;
        model.source().check_dims(&self.dims)?;
        Program::open(self.clone(), model)?.save_for(path, inputs)
    }

    /// A saved program, ready to run. On the host it gets the instruction set that it was saved for, whose machine this
    /// must be; of the other targets, `kernels` can interpret it.
    pub fn load(&self, saved: &SavedProgram) -> Result<Program, Error> {
        self.check_threads()?;
        let in_file = |error: Error| error.in_file(saved.name(), None);
        if let Some((name, _)) = self.dims.first_key_value() {
            let message =
                format!("the sizes of a saved program are fixed, so `{name}` cannot be bound");
            return Err(Error::new(ErrorKind::Input, Code::UnboundDimension, message));
        }
        if !self.state.is_empty() {
            let message = "the state of a saved program is fixed; it is said when it is compiled";
            return Err(Error::new(ErrorKind::Input, Code::Input, message));
        }
        let target = match &self.target.kind {
            Kind::Kernels => self.target.clone(),
            Kind::Reference | Kind::Systolic(_) => {
                let message = format!("a saved program cannot run on {}", self.target);
                return Err(in_file(Error::unsupported(message).with_help(
                    "it runs on `host` and `kernels`; load the model it was made from",
                )));
            }
            Kind::Host { cpu, weights } => {
                let cpu = self.saved_cpu(saved, cpu.as_deref())?;
                Target { kind: Kind::Host { cpu, weights: *weights } }
            }
        };
        Program::of_saved(Compiler { target, ..self.clone() }, saved)
    }

    /// The instruction set for a saved program, where `asked` may name the one it has.
    fn saved_cpu(
        &self,
        saved: &SavedProgram,
        asked: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let Some(cpu) = saved.cpu() else { return Ok(asked.map(str::to_owned)) };
        let problem = match asked.filter(|asked| *asked != cpu) {
            Some(asked) => Some(format!("the program was saved for {cpu}, not {asked}")),
            None => systole_host::cpu_name(Some(cpu)).err(),
        };
        match problem {
            None => Ok(Some(cpu.to_owned())),
            Some(message) => Err(Error::unsupported(message)
                .with_help("compile the model again, on this machine or with another --cpu")
                .in_file(saved.name(), None)),
        }
    }

    fn check_threads(&self) -> Result<(), Error> {
        if self.threads != Some(0) {
            return Ok(());
        }
        let message = "0 threads cannot run anything; 1 is the least";
        Err(Error::new(ErrorKind::Input, Code::Input, message))
    }
}
