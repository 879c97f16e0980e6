//! Options of compilation.

use crate::engine;
use crate::error::{Error, ErrorKind};
use crate::model::Model;
use crate::program::Program;
use crate::target::Target;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use systole_compiler::diagnostic::Code;
use systole_compiler::pipeline::Observer;

/// Compiles models. Plain data: make one, set what differs from the defaults, and compile as many models as you like.
#[derive(Clone, Debug)]
pub struct Compiler {
    pub(crate) target: Target,
    pub(crate) dims: BTreeMap<String, usize>,
    pub(crate) state: Vec<(String, String)>,
    pub(crate) threads: Option<usize>,
    pub(crate) cache_entries: usize,
    pub(crate) observer: Option<SharedObserver>,
}

/// An observer that several compilations may tell.
#[derive(Clone)]
pub(crate) struct SharedObserver(pub(crate) Arc<Mutex<dyn Observer + Send>>);

impl fmt::Debug for SharedObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedObserver")
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

    /// How many threads a run takes where its options do not say. The default is all that the machine has.
    pub fn threads(mut self, count: usize) -> Compiler {
        self.threads = Some(count);
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
        if self.threads == Some(0) {
            let message = "0 threads cannot run anything; 1 is the least";
            return Err(Error::new(ErrorKind::Input, Code::Input, message));
        }
        model.source().check_dims(&self.dims)?;
        Program::new(self.clone(), model)
    }
}
