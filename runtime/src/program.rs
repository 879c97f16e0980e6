//! A compiled model. Runs take `&self`, from any number of threads.

use crate::cache::{Cache, Key, Made, Specialized};
use crate::compiler::Compiler;
use crate::engine::Engine;
use crate::error::{Error, listed};
use crate::inputs::{self, Inputs};
use crate::levels::Known;
use crate::model::Model;
use crate::options::RunOptions;
use crate::outputs::Outputs;
use crate::signature::{Dim, Port, Signature};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use systole_compiler::diagnostic::{Code, Diagnostic};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::TensorType;

/// A compiled model: `Clone`, `Send`, `Sync` and `'static`; clones share everything. Sizes that were not bound when it
/// was compiled are bound by the inputs of a run, and the code for them is kept.
#[derive(Clone, Debug)]
pub struct Program {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    compiler: Compiler,
    model: Model,
    signature: Signature,
    cache: Cache,
    /// The inputs whose values turned out to decide shapes.
    wanted: Mutex<BTreeSet<String>>,
}

impl Program {
    pub(crate) fn new(compiler: Compiler, model: &Model) -> Result<Program, Error> {
        let mut signature = model.signature().bound(&|symbol| compiler.dims.get(symbol).copied());
        for port in &mut signature.inputs {
            bind_unnamed(port, &compiler.dims);
        }
        for (input, output) in &compiler.state {
            signature.state.push(paired(&signature, input, output)?);
        }
        let shared = Shared {
            cache: Cache::new(compiler.cache_entries),
            compiler,
            model: model.clone(),
            signature,
            wanted: Mutex::default(),
        };
        let program = Program { shared: Arc::new(shared) };
        program.compile_what_is_known()?;
        Ok(program)
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
        let code = self.code(&tensors, &sizes)?;
        let taken: Vec<Tensor> = code.takes.iter().map(|&index| tensors[index].clone()).collect();
        let options = RunOptions {
            threads: options.threads.or(self.shared.compiler.threads),
            ..options.clone()
        };
        if options.is_over() {
            return Err(options.over());
        }
        let results = code.engine.run(&taken, &options)?;
        let names = self.signature().outputs.iter().map(|port| port.name.clone());
        Ok(Outputs::new(names.zip(results).collect()))
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
        self.code(&tensors, &sizes).map(|_| ())
    }

    /// For how many sets of input types there is code.
    pub fn cached(&self) -> usize {
        self.shared.cache.len()
    }

    /// Where every type is known and no value is needed, code can be made before any run.
    fn compile_what_is_known(&self) -> Result<(), Error> {
        let types: Option<Vec<TensorType>> = self.signature().inputs.iter().map(Port::ty).collect();
        let Some(types) = types else { return Ok(()) };
        let key = Key { types, values: Vec::new() };
        let mut wanted = BTreeSet::new();
        let known = self.known(&key.types, &BTreeMap::new(), BTreeMap::new());
        let made = self.shared.cache.get(&key, || self.specialize(&known, &mut wanted));
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
    ) -> Result<Arc<Specialized>, Error> {
        let ports = &self.signature().inputs;
        loop {
            let mut wanted = self.wanted().clone();
            let key = self.key(tensors, &wanted);
            let found = self.shared.cache.get(&key, || {
                let values =
                    ports.iter().map(|port| port.name.clone()).zip(tensors.iter().cloned());
                let known = self.known(&key.types, sizes, values.collect());
                self.specialize(&known, &mut wanted)
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
    ) -> Result<Specialized, Error> {
        let model = &self.shared.model;
        let in_model = |error| model.blame(error);
        let mut bound = model.source().bind(known, wanted).map_err(in_model)?;
        let ports = &self.signature().inputs;
        let is_taken = |index: &usize| !bound.constants.contains(&ports[*index].name);
        let takes: Vec<usize> = (0..ports.len()).filter(is_taken).collect();
        bound.graph.entry_mut().state = self.state_of(&takes);
        let engine = Engine::new(bound.graph, &self.shared.compiler).map_err(in_model)?;
        Ok(Specialized { engine, takes, constants: bound.constants })
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
