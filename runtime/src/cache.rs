//! The code that a program has for the types it was run with: a few entries, the least recently used goes first.

use crate::engine::Engine;
use crate::error::Error;
use crate::signature::Port;
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::TensorType;

/// What code depends on: every input's type, and the values that decided shapes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) types: Vec<TensorType>,
    pub(crate) values: Vec<(usize, Tensor)>,
}

impl Key {
    /// The names of the inputs whose values are part of the key.
    pub(crate) fn names(&self, ports: &[Port]) -> BTreeSet<String> {
        self.values.iter().map(|(index, _)| ports[*index].name.clone()).collect()
    }
}

/// Code for one key.
#[derive(Debug)]
pub(crate) struct Specialized {
    pub(crate) engine: Engine,
    /// The positions of the inputs that the code takes; the others were constants when it was made.
    pub(crate) takes: Vec<usize>,
    /// The names of those others.
    pub(crate) constants: BTreeSet<String>,
}

/// What the cache answers.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) code: Result<Arc<Specialized>, Error>,
    /// Whether this very call made it.
    pub(crate) here: bool,
}

type Slot = Arc<OnceLock<Result<Arc<Specialized>, Error>>>;

/// The cache. Two threads that ask for the same key compile it once; other keys are not held up.
#[derive(Debug)]
pub(crate) struct Cache {
    capacity: usize,
    slots: Mutex<VecDeque<(Key, Slot)>>,
}

impl Cache {
    pub(crate) fn new(capacity: usize) -> Cache {
        Cache { capacity, slots: Mutex::default() }
    }

    /// The code for that key, made where it is not there. Errors are not kept: they may come from a limit.
    pub(crate) fn get(&self, key: &Key, make: impl FnOnce() -> Result<Specialized, Error>) -> Made {
        let slot = self.slot(key);
        let mut here = false;
        let code = slot.get_or_init(|| {
            here = true;
            make().map(Arc::new)
        });
        if code.is_err() {
            self.lock().retain(|(_, other)| !Arc::ptr_eq(other, &slot));
        }
        Made { code: code.clone(), here }
    }

    /// Puts code there that was made for another key and fits this one.
    pub(crate) fn insert(&self, key: Key, code: Arc<Specialized>) {
        let slot = Arc::new(OnceLock::from(Ok(code)));
        let mut slots = self.lock();
        slots.retain(|(known, _)| *known != key);
        slots.push_front((key, slot));
        slots.truncate(self.capacity);
    }

    /// Forgets the code for that key.
    pub(crate) fn remove(&self, key: &Key) {
        self.lock().retain(|(known, _)| known != key);
    }

    /// The code that was used last.
    pub(crate) fn latest(&self) -> Option<Arc<Specialized>> {
        self.lock().iter().find_map(|(_, slot)| slot.get()?.as_ref().ok().cloned())
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn slot(&self, key: &Key) -> Slot {
        let mut slots = self.lock();
        let found = slots.iter().position(|(known, _)| known == key);
        let entry = found.and_then(|index| slots.remove(index));
        let (key, slot) = entry.unwrap_or_else(|| (key.clone(), Slot::default()));
        slots.push_front((key, Arc::clone(&slot)));
        slots.truncate(self.capacity);
        slot
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Key, Slot)>> {
        // Nothing that can panic runs under the lock, and a list of entries is right in any state.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
