//! What a core runs: one in-order instruction stream for each engine, ordered against the others by semaphores alone.
//!
//! A [`Program`] mirrors the module it came from: tensors in HBM, kernels, and the steps that call them. A [`Kernel`] is
//! compiled once and called with different tensors. Loops stay loops: a stream is a tree of loops over instructions whose
//! addresses are affine in the loop variables.
//!
//! Semaphores are counters. An instruction waits until each of its semaphores holds at least one token and takes it; when
//! it is complete it adds one token to each of those it signals. A dependence between two engines is one semaphore, whose
//! signals and waits stand in loops of equal trip counts; a loop-carried dependence at distance `d` is one that starts
//! with `d` tokens (a buffer with `d` turns starts with `d` free ones). Within an engine, instructions start in order, and
//! one that needs the result of an earlier one on the same engine says so with `after`.

use smallvec::SmallVec;
use std::collections::BTreeMap;
use systole_compiler::expr::Scalar;
use systole_compiler::kernel::Combine;
use systole_compiler::types::{DType, TensorType};

use crate::isa::Op;

/// A unit with an instruction stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Engine {
    /// The systolic array.
    Tensor,
    /// Elementwise, reductions and scans, all partitions at once.
    Vector,
    /// Functions of one operand with scale and bias.
    Scalar,
    /// General processors.
    GpSimd,
    /// Only a sequencer: control and DMA triggers.
    Sync,
}

/// On-chip memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// The state buffer.
    Sbuf,
    /// Where the systolic array accumulates.
    Psum,
}

/// A register of the sequencers that holds a loop variable or a scalar parameter: an index into [`Kernel::vars`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Var(pub u16);

/// A semaphore: an index into [`Kernel::semaphores`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Semaphore(pub u16);

/// What an index varies with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Term {
    /// The value of a variable.
    Var(Var),
    /// The number of the iteration of the loop with that variable, modulo the number of turns of a rotating buffer.
    Turn(Var, u8),
}

/// A number that a sequencer computes: a constant plus terms with coefficients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Index {
    /// What is added to the terms.
    pub constant: i64,
    /// The terms, sorted, each with a coefficient that is not zero.
    pub terms: SmallVec<[(Term, i64); 2]>,
}

/// An operand of a compute instruction: partitions × a pattern of at most four free dimensions.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Which memory.
    pub space: Space,
    /// The element type.
    pub dtype: DType,
    /// The first partition.
    pub partition: Index,
    /// How many partitions.
    pub partitions: u16,
    /// The first byte within each partition.
    pub offset: Index,
    /// The free dimensions, outermost first: stride in elements and size. Stride 0 repeats.
    pub dims: SmallVec<[(i32, u32); 4]>,
}

/// One side of a DMA. Its strides belong to the sizes of the transfer, one each.
#[derive(Clone, Debug, PartialEq)]
pub enum Side {
    /// A tensor in HBM.
    Far {
        /// Which of the kernel's operands.
        operand: u16,
        /// The first element.
        offset: Index,
        /// Elements from one position to the next.
        strides: SmallVec<[i64; 4]>,
        /// Positions that fail one of these are left out of the transfer.
        bounds: SmallVec<[Bound; 1]>,
    },
    /// On-chip memory.
    Near {
        /// Which.
        space: Space,
        /// The first partition.
        partition: Index,
        /// The first byte within a partition.
        offset: Index,
        /// Partitions and elements from one position to the next.
        steps: SmallVec<[(i32, i32); 4]>,
    },
}

/// A transferred position is inside where `0 ≤ at + Σ coefficient · position < extent`: how descriptors are cut at the
/// edges of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// Where the tile starts along the tensor's dimension.
    pub at: Index,
    /// Dimensions of the transfer, with coefficients.
    pub dims: SmallVec<[(u8, i64); 2]>,
    /// The size of the tensor's dimension.
    pub extent: i64,
}

/// A copy between memories that DMA engines carry out while the engine that triggered it goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Dma {
    /// The element type on both sides.
    pub dtype: DType,
    /// The sizes of the dimensions, outermost first.
    pub sizes: SmallVec<[u32; 4]>,
    /// Where elements come from.
    pub from: Side,
    /// Where they go.
    pub to: Side,
    /// How an element joins what is there; `None` overwrites.
    pub combine: Option<Combine>,
    /// Positions along one dimension of the far side are read from SBUF instead of counted (gather and scatter).
    pub indirect: Option<Indirect>,
    /// Whether the engines transpose on the way. Strides and steps say where elements go, as always; this says that they go
    /// there through the transposing engine, not one by one.
    pub transpose: bool,
}

/// Row numbers of an indirect DMA, one for each partition.
#[derive(Clone, Debug, PartialEq)]
pub struct Indirect {
    /// i32 numbers, one for each position of the transfer's first dimension.
    pub rows: Access,
    /// Elements of the far tensor from one row to the next.
    pub stride: i64,
    /// Rows that the tensor has; others are left out.
    pub extent: i64,
}

/// A test on an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Test {
    /// It is zero.
    Zero,
    /// It is not.
    NonZero,
    /// It is less than zero.
    Negative,
    /// It is not.
    NonNegative,
}

/// One instruction in a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// What is done.
    pub op: Op,
    /// It is skipped, tokens and all, where this fails.
    pub when: Option<(Index, Test)>,
    /// Semaphores from which a token is taken before it starts.
    pub waits: SmallVec<[Semaphore; 2]>,
    /// It waits until the call that wrote (or last read, for what it writes) this operand has completed.
    pub calls: SmallVec<[u16; 1]>,
    /// It needs results of earlier instructions of its own engine: it starts when those are complete. Transfers that the
    /// engine started are not among them: their data are awaited through semaphores alone.
    pub after: bool,
    /// Semaphores that get a token when it is complete.
    pub signals: SmallVec<[Semaphore; 2]>,
    /// Which tile operation of the kernel it came from: an index into [`Kernel::sources`].
    pub source: u16,
}

/// A piece of a stream.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "streams are instructions above all: a box for each costs more"
)]
pub enum Item {
    /// One instruction.
    Instruction(Instruction),
    /// A loop of the sequencer.
    Loop {
        /// Its variable.
        var: Var,
        /// The first value.
        start: Index,
        /// The first value that it does not take.
        end: Index,
        /// What is added each time; positive.
        step: i64,
        /// What is repeated.
        body: Vec<Item>,
    },
}

/// What a variable is.
#[derive(Clone, Debug, PartialEq)]
pub struct VarInfo {
    /// The name, without `%`.
    pub name: String,
    /// For a scalar parameter, its least and greatest value.
    pub range: Option<(i64, i64)>,
}

/// A semaphore of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct SemaphoreInfo {
    /// The name, without `$`.
    pub name: String,
    /// Tokens at the start; as many are there at the end.
    pub initial: u16,
}

/// A tensor in HBM that a kernel uses.
#[derive(Clone, Debug, PartialEq)]
pub struct Operand {
    /// The name, without `%`.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// The number of elements, padding included.
    pub elements: u64,
    /// Whether the kernel reads it.
    pub reads: bool,
    /// Whether the kernel writes it.
    pub writes: bool,
}

/// What the collective engines of a chip do with other ranks while the streams go on: an operation of kind `Collective`. It
/// begins when its operand is written and the exchange before it is complete; what uses its result waits for it as for a
/// kernel. Where it has no operand it asks for the number of the rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Exchange {
    /// What is exchanged, and among whom.
    pub op: systole_compiler::op::Op,
    /// The tensor that is given: the kernel's first operand.
    pub operand: Option<TensorType>,
    /// The tensor that comes out: the kernel's last operand.
    pub result: TensorType,
}

/// A kernel for one core: streams, or an exchange.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kernel {
    /// The name, without `@`.
    pub name: String,
    /// Tensors, in the order of the kernel's operands in the module.
    pub operands: Vec<Operand>,
    /// Loop variables and scalar parameters (these in the order of the kernel's in the module).
    pub vars: Vec<VarInfo>,
    /// Semaphores.
    pub semaphores: Vec<SemaphoreInfo>,
    /// One stream for each engine that has work.
    pub streams: BTreeMap<Engine, Vec<Item>>,
    /// What it does instead, where it has no streams.
    pub exchange: Option<Exchange>,
    /// Bytes of each SBUF partition that it uses, from 0.
    pub sbuf_bytes: u32,
    /// PSUM banks that it uses, from 0.
    pub psum_banks: u8,
    /// Names of tile operations, for profiles.
    pub sources: Vec<String>,
    /// Source nodes that the kernel came from, sorted.
    pub origins: Vec<String>,
}

/// A tensor in HBM.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The name.
    pub name: String,
    /// The element type.
    pub dtype: DType,
    /// Elements in memory, padding included.
    pub elements: u64,
    /// The tensor whose memory this is, if it is not its own.
    pub alias: Option<u32>,
    /// Whether it holds weights: written once, at load.
    pub constant: bool,
}

/// Where a scalar parameter comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Constant(i64),
    /// The only element of an integer tensor.
    Tensor(u32),
}

/// One thing that a program does.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Runs a kernel.
    Call {
        /// Which of [`Program::kernels`].
        kernel: u32,
        /// A tensor for each operand.
        operands: Vec<u32>,
        /// A value for each scalar parameter.
        scalars: Vec<Value>,
        /// Where this call's SBUF begins within each partition: two calls whose ranges are disjoint may overlap.
        sbuf_base: u32,
        /// The same for PSUM banks.
        psum_base: u8,
        /// Source nodes, sorted.
        origins: Vec<String>,
    },
    /// One of two lists of steps, by a bool tensor.
    If {
        /// The condition.
        condition: u32,
        /// Where it is true.
        then: Vec<Step>,
        /// Where it is not.
        otherwise: Vec<Step>,
    },
    /// Does `before`, and while the condition is then true, `body`.
    While {
        /// Computes the condition.
        before: Vec<Step>,
        /// The condition.
        condition: u32,
        /// What is repeated.
        body: Vec<Step>,
    },
    /// Repeats a fixed number of times.
    For {
        /// How often.
        count: u64,
        /// An i64 tensor that holds the iteration number.
        counter: u32,
        /// What is repeated.
        body: Vec<Step>,
    },
}

/// A whole program for one core.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// The name, without `@`.
    pub name: String,
    /// The machine it was compiled for.
    pub machine: String,
    /// Every tensor.
    pub tensors: Vec<Tensor>,
    /// Every kernel, each compiled once.
    pub kernels: Vec<Kernel>,
    /// What is done once, at load.
    pub load: Vec<Step>,
    /// What a run does.
    pub steps: Vec<Step>,
    /// Parameters, in order.
    pub inputs: Vec<u32>,
    /// Results, in order, with their names.
    pub outputs: Vec<(String, u32)>,
}

/// A scalar or a value for each partition.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand1 {
    /// The same everywhere.
    Immediate(f32),
    /// One element of each partition.
    Partition(Access),
}

impl Index {
    /// A number.
    pub fn constant(constant: i64) -> Index {
        Index { constant, terms: SmallVec::new() }
    }

    /// The value where each term has the value given. Numbers that are too large stay at the limits of i64.
    pub fn evaluate(&self, value: impl Fn(Term) -> i64) -> i64 {
        self.terms.iter().fold(self.constant, |sum, &(term, coefficient)| {
            sum.saturating_add(coefficient.saturating_mul(value(term)))
        })
    }

    /// The sum with `coefficient` times another index.
    #[must_use]
    pub fn plus(&self, other: &Index, coefficient: i64) -> Index {
        let mut sum = self.clone();
        sum.constant += other.constant * coefficient;
        for &(term, factor) in &other.terms {
            match sum.terms.binary_search_by_key(&term, |&(term, _)| term) {
                Ok(found) => sum.terms[found].1 += factor * coefficient,
                Err(place) => sum.terms.insert(place, (term, factor * coefficient)),
            }
        }
        sum.terms.retain(|(_, coefficient)| *coefficient != 0);
        sum
    }
}

impl Access {
    /// Elements in each partition.
    pub fn free(&self) -> u64 {
        self.dims.iter().fold(1, |all: u64, &(_, size)| all.saturating_mul(u64::from(size)))
    }
}

/// An immediate value that keeps its type (exact integers).
pub type Immediate = Scalar;
