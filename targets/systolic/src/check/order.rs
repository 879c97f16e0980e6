//! Who is certainly complete when an instruction starts: a vector clock over engines, semaphores and calls.

use smallvec::SmallVec;
use std::rc::Rc;

/// How many engines have streams.
pub(super) const ENGINES: usize = 5;

/// One execution of an instruction.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) engine: u8,
    /// The position among all executions of its engine.
    pub(super) sequence: u32,
    /// The position of the instruction in its stream.
    pub(super) number: u32,
    pub(super) is_dma: bool,
    /// Semaphores with the number of tokens that each has had with this one's.
    pub(super) signals: SmallVec<[(u16, u32); 2]>,
    pub(super) was_read: bool,
    pub(super) lost_by: Option<u32>,
    pub(super) torn_by: Option<u32>,
}

/// What is known to be complete. Entries: for each engine, how many of its instructions (from the first, transfers
/// aside); for each semaphore, how many tokens have been sent; for each operand, whether its call has been waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Knowledge(Vec<u32>);

impl Knowledge {
    pub(super) fn nothing(semaphores: usize, operands: usize) -> Knowledge {
        Knowledge(vec![0; ENGINES + semaphores + operands])
    }

    pub(super) fn join(&mut self, other: &Knowledge) {
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own = (*own).max(*other);
        }
    }

    /// All compute instructions of an engine before `sequence` are complete.
    pub(super) fn learn_compute(&mut self, engine: usize, sequence: u32) {
        self.0[engine] = self.0[engine].max(sequence);
    }

    /// So many tokens of a semaphore have been sent.
    pub(super) fn learn_tokens(&mut self, semaphore: u16, tokens: u32) {
        let entry = &mut self.0[ENGINES + usize::from(semaphore)];
        *entry = (*entry).max(tokens);
    }

    pub(super) fn learn_call(&mut self, semaphores: usize, operand: u16) {
        if let Some(entry) = self.0.get_mut(ENGINES + semaphores + usize::from(operand)) {
            *entry = 1;
        }
    }

    pub(super) fn knows_call(&self, semaphores: usize, operand: u16) -> bool {
        self.0.get(ENGINES + semaphores + usize::from(operand)).is_some_and(|&entry| entry == 1)
    }

    /// Whether the execution is certainly complete.
    pub(super) fn knows(&self, instance: &Instance) -> bool {
        let engine = usize::from(instance.engine);
        if !instance.is_dma {
            return self.0[engine] > instance.sequence;
        }
        instance
            .signals
            .iter()
            .any(|&(semaphore, tokens)| self.0[ENGINES + usize::from(semaphore)] >= tokens)
    }
}

/// A token, with what its sender knew.
pub(super) type Token = Option<Rc<Knowledge>>;
