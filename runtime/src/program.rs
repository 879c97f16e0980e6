//! A compiled model. Runs take `&self`, from any number of threads.

use crate::cache::{Cache, Key, Made, Specialized};
use crate::compiler::Compiler;
use crate::engine::{self, Engine, Setting};
use crate::error::{Error, ErrorKind, listed};
use crate::fabric::Communication;
use crate::inputs::{self, Inputs};
use crate::levels::Known;
use crate::limits::Limits;
use crate::model::Model;
use crate::options::RunOptions;
use crate::outputs::Outputs;
use crate::profile::Profile;
use crate::report::{CompileTimes, MemoryPlan};
use crate::saved::{self, Content, SavedProgram};
use crate::signature::{Dim, Port, Signature};
use crate::state::State;
use crate::timeline::Timeline;
use crate::workspace::{BorrowedOutputs, Workspace};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use systole_compiler::diagnostic::{Code, Diagnostic};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::TensorType;
use systole_host::Threads;

/// A compiled model: `Clone`, `Send`, `Sync` and `'static`; clones share everything. Sizes that were not bound when it
/// was compiled are bound by the inputs of a run, and the code for them is kept.
#[derive(Clone, Debug)]
pub struct Program {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    compiler: Compiler,
    source: ProgramSource,
    signature: Signature,
    cache: Cache,
    /// The inputs whose values turned out to decide shapes.
    wanted: Mutex<BTreeSet<String>>,
    /// For code and runs that are given no pool.
    threads: Threads,
    times: Mutex<CompileTimes>,
}

/// What code is made of.
#[derive(Debug)]
enum ProgramSource {
    Model(Model),
    Saved(SavedProgram),
}

impl Program {
    pub(crate) fn new(compiler: Compiler, model: &Model) -> Result<Program, Error> {
        let program = Program::open(compiler, model)?;
        program.compile_what_is_known()?;
        Ok(program)
    }

    /// A program without any code yet.
    pub(crate) fn open(compiler: Compiler, model: &Model) -> Result<Program, Error> {
        let mut signature = model.signature().bound(&|symbol| compiler.dims.get(symbol).copied());
        for port in &mut signature.inputs {
            bind_unnamed(port, &compiler.dims);
        }
        for (input, output) in &compiler.state {
            signature.state.push(paired(&signature, input, output)?);
        }
        let source = ProgramSource::Model(model.clone());
        Ok(Program::made(compiler, source, signature, BTreeSet::new()))
    }

    /// The program of a file, for a compiler whose target fits it.
    pub(crate) fn of_saved(compiler: Compiler, saved: &SavedProgram) -> Result<Program, Error> {
        let wanted = saved.content().values.keys().cloned().collect();
        let signature = saved.signature().clone();
        let source = ProgramSource::Saved(saved.clone());
        let program = Program::made(compiler, source, signature, wanted);
        program.compile_what_is_known()?;
        Ok(program)
    }

    fn made(
        compiler: Compiler,
        source: ProgramSource,
        signature: Signature,
        wanted: BTreeSet<String>,
    ) -> Program {
        let shared = Shared {
            cache: Cache::new(compiler.cache_entries),
            compiler,
            source,
            signature,
            wanted: Mutex::new(wanted),
            threads: Threads::default(),
            times: Mutex::default(),
        };
        Program { shared: Arc::new(shared) }
    }

    /// Loads a program that was saved, for the host, and makes its code: see [`Compiler::load`].
    pub fn load(path: impl AsRef<Path>) -> Result<Program, Error> {
        Compiler::new().load(&SavedProgram::from_path(path)?)
    }

    /// Saves it, weights included, under a temporary name that is then renamed. Every size must have been bound.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.save_for(path, &Inputs::new())
    }

    /// Saves it for the types of these inputs, and for the values of those that decide shapes: a run of the saved program
    /// takes only these values for them.
    pub fn save_for(&self, path: impl AsRef<Path>, inputs: &Inputs) -> Result<(), Error> {
        let model = match &self.shared.source {
            ProgramSource::Model(model) => model,
            ProgramSource::Saved(saved) => {
                let message = format!("{} is saved already", saved.name());
                return Err(Error::unsupported(message).with_help("copy the file"));
            }
        };
        self.module_for(model, inputs)
            .and_then(|content| saved::write(path.as_ref(), content, self.cpu()?.as_deref()))
            .map_err(|error| model.blame(error))
    }

    /// The instruction set that code is made for.
    fn cpu(&self) -> Result<Option<String>, Error> {
        engine::cpu(&self.shared.compiler.target)
    }

    /// What is saved: the module for what is known of the inputs, and their types.
    fn module_for(&self, model: &Model, inputs: &Inputs) -> Result<Content, Error> {
        let compiler = &self.shared.compiler;
        let ports = &self.signature().inputs;
        let given: BTreeMap<String, Tensor> =
            inputs.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
        let mut types: BTreeMap<String, TensorType> = BTreeMap::new();
        for port in ports {
            let ty = given.get(&port.name).map(|value| value.ty().clone()).or_else(|| port.ty());
            types.extend(ty.map(|ty| (port.name.clone(), ty)));
        }
        let known = Known { dims: compiler.dims.clone(), types, values: given.clone() };
        let mut bound = model.source().bind(&known, &mut BTreeSet::new())?;
        let takes: Vec<usize> =
            (0..ports.len()).filter(|&port| !bound.constants.contains(&ports[port].name)).collect();
        bound.graph.entry_mut().state = self.state_of(&takes);
        let entry = bound.graph.entry();
        let mut taken = entry.body.params.iter().map(|&value| entry.ty(value).clone());
        let mut inputs = Vec::new();
        let mut values = BTreeMap::new();
        for port in ports {
            let value = given.get(&port.name).filter(|_| bound.constants.contains(&port.name));
            let ty = match value {
                Some(value) => {
                    values.insert(port.name.clone(), value.clone());
                    value.ty().clone()
                }
                None => taken.next().expect("the graph takes what is no constant"),
            };
            inputs.push(Port::fixed(&port.name, &ty));
        }
        let results = entry.body.results.iter().map(|&value| entry.ty(value));
        let outputs = self.signature().outputs.iter().zip(results);
        let outputs = outputs.map(|(port, ty)| Port::fixed(&port.name, ty)).collect();
        let signature = Signature { inputs, outputs, state: self.signature().state.clone() };
        let setting = self.setting(&compiler.limits);
        if crate::ranks::are_wanted(&bound.graph, setting) {
            return Err(Error::unsupported(
                "a program for the ranks of a mesh cannot be saved yet",
            ));
        }
        let module = engine::lowered(bound.graph, setting)?;
        Ok(Content { module, signature, values })
    }

    fn setting<'a>(&'a self, limits: &'a Limits) -> Setting<'a> {
        Setting { compiler: &self.shared.compiler, limits, threads: &self.shared.threads }
    }

    /// What it takes and gives, with the sizes that were bound.
    pub fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    /// Runs it.
    pub fn run(&self, inputs: Inputs) -> Result<Outputs, Error> {
        self.run_with(&RunOptions::default(), inputs)
    }

    /// Runs it with options.
    pub fn run_with(&self, options: &RunOptions, inputs: Inputs) -> Result<Outputs, Error> {
        let (tensors, sizes) = inputs::check(self.signature(), &inputs)?;
        let options = self.completed(options);
        let code = self.code(&tensors, &sizes, &Limits::of(&options))?;
        let taken: Vec<Tensor> = code.takes.iter().map(|&index| tensors[index].clone()).collect();
        if options.is_over() {
            return Err(options.over());
        }
        let results = code.engine.run(&taken, &options)?;
        let names = self.signature().outputs.iter().map(|port| port.name.clone());
        Ok(Outputs::new(names.zip(results).collect()))
    }

    /// Memory for [`Program::run_in`], without any yet: [`Workspace::new`].
    pub fn workspace(&self) -> Workspace {
        Workspace::new()
    }

    /// Runs it in a workspace, from which the outputs are borrowed until its next run. On the host, a run with types of
    /// inputs and a number of threads as in the run before allocates nothing.
    pub fn run_in<'w>(
        &self,
        workspace: &'w mut Workspace,
        options: &RunOptions,
        inputs: &Inputs,
    ) -> Result<BorrowedOutputs<'w>, Error> {
        let options = self.completed(options);
        if !workspace.fits(self, inputs) {
            let (tensors, sizes) = inputs::check(self.signature(), inputs)?;
            let code = self.code(&tensors, &sizes, &Limits::of(&options))?;
            workspace.make(self, code, inputs, &tensors)?;
        }
        if options.is_over() {
            return Err(options.over());
        }
        workspace.run(|code, memory, order| {
            let input = |index: usize| inputs.at(order[code.takes[index]]);
            code.engine.run_in(memory, &input, code.takes.len(), &options)
        })
    }

    /// The options with what the compiler says where they say nothing.
    fn completed(&self, options: &RunOptions) -> RunOptions {
        let compiler = &self.shared.compiler;
        RunOptions {
            threads: options.threads.or(compiler.threads),
            pool: options.pool.clone().or_else(|| compiler.pool.clone()),
            ..options.clone()
        }
    }

    /// Whether the other is a clone of this.
    pub(crate) fn is(&self, other: &Program) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Runs it, taking the paired inputs from the state and leaving their outputs there. They are outputs too.
    pub fn run_stateful(
        &self,
        options: &RunOptions,
        inputs: Inputs,
        state: &mut State,
    ) -> Result<Outputs, Error> {
        let signature = self.signature();
        let with_state =
            state.iter().fold(inputs, |inputs, (name, value)| inputs.with(name, value));
        let outputs = self.run_with(options, with_state)?;
        for (&(_, output), (_, value)) in signature.state.iter().zip(&mut state.entries) {
            *value = outputs.get(&signature.outputs[output].name)?.tensor().clone();
        }
        Ok(outputs)
    }

    /// A state of zeros for [`Program::run_stateful`]. The sizes of the paired inputs must be bound.
    pub fn state(&self) -> Result<State, Error> {
        State::zeros(self.signature())
    }

    /// Makes the code for inputs of these types ahead of their run.
    pub fn prepare(&self, inputs: &Inputs) -> Result<(), Error> {
        let (tensors, sizes) = inputs::check(self.signature(), inputs)?;
        self.code(&tensors, &sizes, &self.shared.compiler.limits).map(|_| ())
    }

    /// How long all compiling for this program took so far.
    pub fn compile_times(&self) -> CompileTimes {
        // A sum of times is right in any state.
        *self.shared.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What memory a run needs, for the types of inputs that were used last; `None` where there is no plan of it, as on
    /// targets that evaluate.
    pub fn memory_plan(&self) -> Option<MemoryPlan> {
        self.shared.cache.latest()?.engine.memory_plan()
    }

    /// The time of a run on a modeled accelerator, without values, for the types of inputs that were used last. `scalars`
    /// are the numbers of tensors that decide it, by name; `trace` keeps every event. Of a program for ranks, it is that of
    /// the rank that is done last: see [`Program::timeline`].
    pub fn profile(
        &self,
        scalars: &BTreeMap<String, i64>,
        trace: bool,
        options: &RunOptions,
    ) -> Result<Profile, Error> {
        let code = self.shared.cache.latest().ok_or_else(|| {
            let message = "there is no code yet: the sizes of some inputs are not known";
            Error::new(ErrorKind::Input, Code::UnboundDimension, message)
                .with_help("bind them when compiling, or prepare the program for some inputs")
        })?;
        if code.engine.ranks().is_some() && self.shared.compiler.target.is_modeled() {
            let timeline = self.timeline(scalars, trace, options)?;
            let last = timeline.programs.into_iter().max_by(|a, b| a.time_us.total_cmp(&b.time_us));
            if let Some(profile) = last.and_then(|program| program.profile) {
                return Ok(profile);
            }
        }
        let accelerator = code.engine.accelerator().ok_or_else(|| {
            let message = format!("the target {} has no modeled time", self.shared.compiler.target);
            Error::new(ErrorKind::Input, Code::Input, message)
                .with_help("use --target trn1, trn2, trn3, trn4 or a description file")
        })?;
        accelerator.profile(scalars, trace, &Limits::of(options))
    }

    /// The time of a run on the ranks of a mesh, without values, for the types of inputs that were used last: of modeled cores
    /// over the compiler's system, or, for other targets, of the chips of that system as rooflines. Ranks that run the same
    /// program are timed once. `scalars` and `trace` are as for [`Program::profile`].
    pub fn timeline(
        &self,
        scalars: &BTreeMap<String, i64>,
        trace: bool,
        options: &RunOptions,
    ) -> Result<Timeline, Error> {
        let code = self.shared.cache.latest().ok_or_else(|| {
            let message = "there is no code yet: the sizes of some inputs are not known";
            Error::new(ErrorKind::Input, Code::UnboundDimension, message)
                .with_help("bind them when compiling, or prepare the program for some inputs")
        })?;
        let ranks = code.engine.ranks().ok_or_else(|| {
            let message = "the program is not divided among ranks";
            Error::new(ErrorKind::Input, Code::Input, message).with_help("give it a mesh")
        })?;
        ranks.timeline(self.setting(&Limits::of(options)), scalars, trace)
    }

    /// The timeline of the last run on the modeled cores of a mesh.
    pub fn last_timeline(&self) -> Option<Timeline> {
        self.shared.cache.latest()?.engine.ranks()?.last()
    }

    /// The time of the last run on a modeled accelerator.
    pub fn last_profile(&self) -> Option<Profile> {
        self.shared.cache.latest()?.engine.accelerator()?.last()
    }

    /// What the ranks of a mesh exchange, in order, with times on the compiler's system; for the types of inputs that were
    /// used last. Empty where there is no mesh or no system.
    pub fn communications(&self) -> Vec<Communication> {
        let latest = self.shared.cache.latest();
        latest.map_or(Vec::new(), |code| code.engine.communications().to_vec())
    }

    /// For how many sets of input types there is code.
    pub fn cached(&self) -> usize {
        self.shared.cache.len()
    }

    /// Where every type is known and no value is needed, code can be made before any run.
    fn compile_what_is_known(&self) -> Result<(), Error> {
        let types: Option<Vec<TensorType>> = self.signature().inputs.iter().map(Port::ty).collect();
        let Some(types) = types else { return Ok(()) };
        let key = match &self.shared.source {
            ProgramSource::Model(_) => Key { types, values: Vec::new() },
            ProgramSource::Saved(saved) => {
                let value = |(index, port): (usize, &Port)| {
                    Some((index, saved.content().values.get(&port.name)?.clone()))
                };
                let ports = self.signature().inputs.iter().enumerate();
                Key { types, values: ports.filter_map(value).collect() }
            }
        };
        let mut wanted = BTreeSet::new();
        let known = self.known(&key.types, &BTreeMap::new(), BTreeMap::new());
        let limits = &self.shared.compiler.limits;
        let made = self.shared.cache.get(&key, || self.specialize(&known, &mut wanted, limits));
        // Where values decide shapes, the first run will tell.
        if !wanted.is_empty() {
            self.wanted().extend(wanted);
            return Ok(());
        }
        made.code.map(|_| ())
    }

    /// The code for these inputs. It may depend on values of some of them, which shows only when it is made; then it is
    /// kept under those values.
    fn code(
        &self,
        tensors: &[Tensor],
        sizes: &BTreeMap<String, usize>,
        limits: &Limits,
    ) -> Result<Arc<Specialized>, Error> {
        let ports = &self.signature().inputs;
        loop {
            let mut wanted = self.wanted().clone();
            let key = self.key(tensors, &wanted);
            let found = self.shared.cache.get(&key, || {
                let values =
                    ports.iter().map(|port| port.name.clone()).zip(tensors.iter().cloned());
                let known = self.known(&key.types, sizes, values.collect());
                self.specialize(&known, &mut wanted, limits)
            });
            let Made { code, here } = found;
            let depends_on_key = code.as_ref().is_ok_and(|code| code.constants == key.names(ports));
            if depends_on_key || (here && code.is_err()) {
                return code;
            }
            // Made by another thread, with its values or its luck: then this one makes its own.
            let Ok(code) = code else { continue };
            self.wanted().extend(code.constants.iter().cloned());
            self.shared.cache.remove(&key);
            if here {
                let key = self.key(tensors, &code.constants);
                self.shared.cache.insert(key, Arc::clone(&code));
                return Ok(code);
            }
        }
    }

    fn key(&self, tensors: &[Tensor], wanted: &BTreeSet<String>) -> Key {
        let ports = &self.signature().inputs;
        let decides = |index: &usize| wanted.contains(&ports[*index].name);
        let indices = (0..ports.len()).filter(decides);
        Key {
            types: tensors.iter().map(|tensor| tensor.ty().clone()).collect(),
            values: indices.map(|index| (index, tensors[index].clone())).collect(),
        }
    }

    fn known(
        &self,
        types: &[TensorType],
        sizes: &BTreeMap<String, usize>,
        values: BTreeMap<String, Tensor>,
    ) -> Known {
        let mut dims = self.shared.compiler.dims.clone();
        dims.extend(sizes.iter().map(|(symbol, size)| (symbol.clone(), *size)));
        let names = self.signature().inputs.iter().map(|port| port.name.clone());
        Known { dims, types: names.zip(types.iter().cloned()).collect(), values }
    }

    fn specialize(
        &self,
        known: &Known,
        wanted: &mut BTreeSet<String>,
        limits: &Limits,
    ) -> Result<Specialized, Error> {
        let start = Instant::now();
        let model = match &self.shared.source {
            ProgramSource::Model(model) => model,
            ProgramSource::Saved(saved) => return self.specialize_saved(saved, known, limits),
        };
        let in_model = |error| model.blame(error);
        let mut bound = model.source().bind(known, wanted).map_err(in_model)?;
        let ports = &self.signature().inputs;
        let is_taken = |index: &usize| !bound.constants.contains(&ports[*index].name);
        let takes: Vec<usize> = (0..ports.len()).filter(is_taken).collect();
        bound.graph.entry_mut().state = self.state_of(&takes);
        let import = start.elapsed();
        let (engine, times) = Engine::new(bound.graph, self.setting(limits)).map_err(in_model)?;
        self.add(CompileTimes { import, ..times });
        Ok(Specialized { engine, takes, constants: bound.constants })
    }

    fn specialize_saved(
        &self,
        saved: &SavedProgram,
        known: &Known,
        limits: &Limits,
    ) -> Result<Specialized, Error> {
        let Content { module, values, .. } = saved.content();
        for (name, value) in values {
            if known.values.get(name).is_some_and(|given| given != value) {
                let message = format!(
                    "the program was saved for one value of the input `{name}`, and this is another"
                );
                let problem = Diagnostic::error(Code::Input, message);
                return Err(Error::input(vec![problem.with_help("compile the model again")]));
            }
        }
        let (engine, times) = Engine::of_module(module.clone(), self.setting(limits))
            .map_err(|error| error.in_file(saved.name(), None))?;
        self.add(times);
        let ports = &self.signature().inputs;
        let takes = (0..ports.len()).filter(|&port| !values.contains_key(&ports[port].name));
        let (takes, constants) = (takes.collect(), values.keys().cloned().collect());
        Ok(Specialized { engine, takes, constants })
    }

    fn add(&self, times: CompileTimes) {
        let mut sum = self.shared.times.lock().unwrap_or_else(PoisonError::into_inner);
        *sum = sum.plus(times);
    }

    /// The pairs of state, by position among the inputs that the code takes.
    fn state_of(&self, takes: &[usize]) -> Vec<(usize, usize)> {
        let position = |input| takes.iter().position(|&taken| taken == input);
        let pairs = self.signature().state.iter();
        pairs.filter_map(|&(input, output)| Some((position(input)?, output))).collect()
    }

    fn wanted(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A set of names is right in any state.
        self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bind_unnamed(port: &mut Port, dims: &BTreeMap<String, usize>) {
    for (axis, dim) in port.dims.iter_mut().flatten().enumerate() {
        if *dim == Dim::Unknown
            && let Some(&size) = dims.get(&format!("{}.{axis}", port.name))
        {
            *dim = Dim::Fixed(size);
        }
    }
}

/// The positions of an input and an output by name.
fn paired(signature: &Signature, input: &str, output: &str) -> Result<(usize, usize), Error> {
    let find = |ports: &[Port], what: &str, name: &str| {
        ports.iter().position(|port| port.name == name).ok_or_else(|| {
            let names = listed(ports.iter().map(|port| port.name.as_str()));
            let message = format!("there is no {what} `{name}` to keep as state");
            let problem = Diagnostic::error(Code::UnknownName, message);
            Error::input(vec![problem.with_help(format!("the {what}s are {names}"))])
        })
    };
    Ok((find(&signature.inputs, "input", input)?, find(&signature.outputs, "output", output)?))
}
