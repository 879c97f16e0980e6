//! What a target compiles: ordered steps over typed buffers. Kernels say what is computed, a module says on what memory.
//!
//! Invariants, which its verifier checks: every step's arguments fit the kernel's operands; a temporary is written
//! before it is read; buffers that share memory in the plan are never live at once, aliases apart.

mod evaluate;
mod layout;
mod of_kernel;
mod print;
mod verify;

pub use evaluate::{evaluate, evaluate_as};
pub use layout::{Layout, Piece};
pub use print::print_full;
pub use verify::verify;

use crate::arena::{Arena, Id};
use crate::kernel::{Kernel, Place};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// A buffer, by id.
pub type BufferId = Id<Buffer>;
/// A kernel, by id.
pub type KernelId = Id<Kernel>;

/// A whole program over buffers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Module {
    /// The name, without `@`.
    pub name: String,
    /// Every buffer.
    pub buffers: Arena<Buffer>,
    /// Every kernel; equal kernels are one.
    pub kernels: Arena<Kernel>,
    /// The buffers of the parameters, in order.
    pub inputs: Vec<BufferId>,
    /// The names and buffers of the results, in order. Two results may be one buffer, and a result may be an input
    /// or a constant.
    pub outputs: Vec<(String, BufferId)>,
    /// State: the input that holds it before and the output that holds it after, by position.
    pub state: Vec<(usize, usize)>,
    /// Steps that compute constants from constants, once, when the program is loaded.
    pub load_steps: Vec<Step>,
    /// What a run does.
    pub steps: Vec<Step>,
    /// The bytes of the arena that the temporaries share, once planned.
    pub arena_bytes: usize,
}

/// A piece of memory with a logical type.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffer {
    /// The name, without `%`.
    pub name: String,
    /// What it holds.
    pub ty: TensorType,
    /// How the elements lie in memory.
    pub layout: Layout,
    /// Where it lies.
    pub place: Place,
    /// How long it lives.
    pub lifetime: Lifetime,
    /// The buffer whose memory this is, seen with another type or layout (a reshape).
    pub alias: Option<BufferId>,
    /// The offset in the arena in bytes, once planned.
    pub offset: Option<usize>,
}

/// How long a buffer lives.
#[derive(Clone, Debug, PartialEq)]
pub enum Lifetime {
    /// Given by the caller.
    Input,
    /// Known at compile time.
    Constant(Tensor),
    /// A weight that is bound by name when the program is loaded.
    Parameter(String),
    /// Computed once when the program is loaded.
    Loaded,
    /// Kept from run to run.
    State,
    /// Lives within a run.
    Temporary,
}

/// One thing that is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Runs a kernel.
    Kernel {
        /// Which.
        kernel: KernelId,
        /// A buffer for each operand, in the order of the kernel's operands.
        operands: Vec<BufferId>,
        /// A value for each scalar parameter, in the order of the kernel's variables.
        scalars: Vec<ScalarSource>,
        /// The source nodes that this call came from, sorted; equal kernels are shared, their calls are not.
        origins: Vec<String>,
    },
    /// Copies a buffer's elements to one of the same type.
    Copy {
        /// Where they are.
        from: BufferId,
        /// Where they go.
        to: BufferId,
    },
    /// Exchanges with other ranks, or asks which rank this is: an op of kind `Collective`.
    Collective {
        /// What is exchanged, and among whom.
        op: Op,
        /// What is given: nothing or one buffer.
        operands: Vec<BufferId>,
        /// Where the result goes.
        result: BufferId,
        /// The source nodes that it came from, sorted.
        origins: Vec<String>,
    },
    /// One of two lists of steps, by a bool buffer.
    If {
        /// The condition.
        condition: BufferId,
        /// Where it is true.
        then: Vec<Step>,
        /// Where it is not.
        otherwise: Vec<Step>,
    },
    /// Repeats: does `before`, and while the condition is then true, `body`.
    While {
        /// Computes the condition.
        before: Vec<Step>,
        /// The condition.
        condition: BufferId,
        /// What is repeated.
        body: Vec<Step>,
    },
    /// Repeats a fixed number of times.
    For {
        /// How often.
        count: usize,
        /// An i64 buffer that holds the iteration number.
        counter: BufferId,
        /// What is repeated.
        body: Vec<Step>,
    },
}

/// Where a scalar parameter's value comes from. It is clamped into the parameter's range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScalarSource {
    /// A number.
    Constant(i64),
    /// The only element of an integer buffer.
    Buffer(BufferId),
}

impl Module {
    /// The buffer whose memory this one's is: itself, where it aliases none.
    pub fn memory(&self, mut buffer: BufferId) -> BufferId {
        while let Some(other) = self.buffers[buffer].alias {
            buffer = other;
        }
        buffer
    }
}

impl Buffer {
    /// The bytes of memory that it takes, padding included; of a buffer that was checked.
    pub fn bytes(&self) -> usize {
        self.layout.elements() * self.ty.dtype.bytes()
    }
}

impl crate::pass::Ir for Module {
    const LEVEL: &'static str = "module";

    fn verify(&self) -> Result<(), crate::diagnostic::Diagnostics> {
        verify(self)
    }
}

/// The module that a text describes, or everything that is wrong with the text. The module is not verified yet.
pub fn parse(source: &str) -> Result<Module, crate::diagnostic::Diagnostics> {
    crate::kernel::parse_module(source)
}
