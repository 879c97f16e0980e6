//! The instructions: what each engine can do, on which operands, at what cost.
//!
//! Compute instructions read operands converted to f32, compute in f32, and convert the result to the type of `out`; the
//! exceptions say so. The size of an instruction is that of its output: the input has as many elements in each partition,
//! in the same order, though its dimensions may differ.

mod check;
mod structure;
mod table;

pub use check::{check, check_program};
pub use structure::check_structure;
pub use table::{Row, TABLE, page};

use crate::program::{Access, Dma, Immediate, Operand1};
use smallvec::SmallVec;
use systole_compiler::expr::Expr;
use systole_compiler::kernel::{Combine, Kernel as TileKernel};

/// How the systolic array multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pace {
    /// bf16, f16 or f8 operands, one pass.
    Single,
    /// f32 operands, four passes.
    Four,
    /// f8 operands, two rows of the array in one (twice the summed extent): both operands have an outermost free
    /// dimension of 2, which is summed too.
    DoubleRow,
    /// Block-scaled operands: four f8 or f4 elements a row. Both operands have an outermost free dimension of 4, which is
    /// summed too; a scale serves 8 partitions × 4.
    Block,
}

impl Pace {
    /// Elements that one row of the array takes: the size of the operands' outermost free dimension, which is summed.
    pub fn rows(self) -> u64 {
        match self {
            Pace::Single | Pace::Four => 1,
            Pace::DoubleRow => 2,
            Pace::Block => 4,
        }
    }
}

/// An elementwise function of VectorE and GpSimdE with two operands. Comparisons give 1.0 or 0.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Alu {
    Add,
    Subtract,
    Multiply,
    Divide,
    Max,
    Min,
    Power,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
    Xor,
    AbsMax,
    Bypass,
}

/// A function of ScalarE, from its tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say what they are")]
pub enum Function {
    Copy,
    Exp,
    Log,
    Sqrt,
    Rsqrt,
    Reciprocal,
    Square,
    Abs,
    Sign,
    Relu,
    Sigmoid,
    Tanh,
    Erf,
    Gelu,
    GeluTanh,
    Silu,
    Softplus,
    Sin,
    Cos,
    Arctan,
}

/// One operation with its operands.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// TensorE. `out[s, m] += Σ_k stationary[k, s] · moving[k, m]` in f32; `k` lies on partitions of both inputs, `s` on
    /// partitions of the output.
    Matmul {
        /// SBUF, at most 128 × 128.
        stationary: Access,
        /// SBUF, at most 128 × 512.
        moving: Access,
        /// PSUM.
        out: Access,
        /// Adds to what is there; otherwise overwrites.
        accumulate: bool,
        /// The arithmetic.
        pace: Pace,
        /// For [`Pace::Block`]: the e8m0 scales of stationary and moving as u8, one for each 8 partitions × 4 elements
        /// along `k`: an eighth of the partitions, a quarter of the free elements.
        scales: Option<Box<(Access, Access)>>,
    },
    /// TensorE. `out[f, p] = input[p, f]`, by a product with the identity; exact.
    Transpose {
        /// SBUF.
        input: Access,
        /// PSUM.
        out: Access,
    },
    /// ScalarE. `out = function(input · scale + bias)`, and optionally the sum (or maximum …) of the results along the
    /// free dimensions.
    Activation {
        /// The function.
        function: Function,
        /// What it is applied to.
        input: Access,
        /// Multiplied first.
        scale: Operand1,
        /// Added then.
        bias: Operand1,
        /// The result.
        out: Access,
        /// One element a partition, combined with every result; what was there is overwritten.
        reduce: Option<(Combine, Access)>,
    },
    /// VectorE, ScalarE or GpSimdE. `out = input`, converted.
    Copy {
        /// Read.
        input: Access,
        /// Written.
        out: Access,
    },
    /// VectorE or GpSimdE. `out = value`, exactly.
    Memset {
        /// Written.
        out: Access,
        /// The value, of the type of `out`.
        value: Immediate,
    },
    /// VectorE or GpSimdE. `out = a ∘ b`.
    TensorTensor {
        /// The function.
        alu: Alu,
        /// Left.
        a: Access,
        /// Right.
        b: Access,
        /// The result.
        out: Access,
    },
    /// VectorE, ScalarE (gen 4) or GpSimdE. `out = (input ∘ first) ∘ second`; a reversed function takes the scalar left.
    TensorScalar {
        /// Read.
        input: Access,
        /// The first function, its scalar, and whether it is reversed.
        first: (Alu, Operand1, bool),
        /// The second.
        second: Option<(Alu, Operand1, bool)>,
        /// The result.
        out: Access,
        /// One element a partition, combined with every result; what was there is overwritten.
        reduce: Option<(Combine, Access)>,
    },
    /// VectorE. `out = (a ∘ scalar) ∘ b`.
    ScalarTensorTensor {
        /// Left.
        a: Access,
        /// The first function, its scalar, and whether it is reversed.
        first: (Alu, Operand1, bool),
        /// The second function.
        second: Alu,
        /// Right.
        b: Access,
        /// The result.
        out: Access,
    },
    /// VectorE. `out = predicate ≠ 0 ? on_true : on_false`.
    Select {
        /// The test, any type.
        predicate: Access,
        /// Where it is not zero.
        on_true: Access,
        /// Where it is.
        on_false: Access,
        /// The result.
        out: Access,
    },
    /// VectorE. Combines the last `dims` free dimensions of the input.
    Reduce {
        /// How.
        combine: Combine,
        /// Read.
        input: Access,
        /// How many of its innermost dimensions vanish.
        dims: u8,
        /// The result: one element for each position of the others.
        out: Access,
    },
    /// VectorE. Each element combined with all before it along the free dimensions; starts from `initial`.
    Scan {
        /// How.
        combine: Combine,
        /// Read.
        input: Access,
        /// What it starts from.
        initial: Operand1,
        /// The result.
        out: Access,
    },
    /// VectorE. `out[i] = second(first(a[i], out[i - 1]), b[i])` along the free dimensions, in f32; `out[-1]` is `initial`.
    /// With multiplication and addition it is a linear recurrence.
    TensorTensorScan {
        /// Joins the element of `a` and the result before.
        first: Alu,
        /// Joins that and the element of `b`.
        second: Alu,
        /// Left.
        a: Access,
        /// Right.
        b: Access,
        /// What it starts from.
        initial: Operand1,
        /// The result.
        out: Access,
    },
    /// VectorE. `out = 1 / input`.
    Reciprocal {
        /// Read.
        input: Access,
        /// The result.
        out: Access,
    },
    /// VectorE, gen 4. `out = exp(input - bias)`.
    Exponential {
        /// Read.
        input: Access,
        /// Subtracted first.
        bias: Operand1,
        /// The result.
        out: Access,
    },
    /// VectorE. Count, mean and variance · count of even and odd elements: six numbers a partition.
    BnStats {
        /// Read: at most 512 elements a partition.
        input: Access,
        /// Six f32.
        out: Access,
    },
    /// VectorE. Mean and variance from several results of [`Op::BnStats`].
    BnAggregate {
        /// Multiples of six f32.
        input: Access,
        /// Two f32.
        out: Access,
    },
    /// VectorE. The eight largest elements of each partition, largest first.
    Max8 {
        /// Read: 8 to 16384 elements.
        input: Access,
        /// Eight elements.
        out: Access,
    },
    /// VectorE. Where each of eight values first occurs in each partition.
    FindIndex8 {
        /// Searched.
        input: Access,
        /// Eight values.
        values: Access,
        /// Eight u32.
        out: Access,
    },
    /// VectorE. Replaces the first occurrence of each of eight values.
    MatchReplace8 {
        /// Read.
        input: Access,
        /// Eight values.
        values: Access,
        /// Written instead.
        value: f32,
        /// The result.
        out: Access,
    },
    /// VectorE. Transposes blocks of 32 × 32.
    TransposeBlocks {
        /// Read.
        input: Access,
        /// The result.
        out: Access,
    },
    /// VectorE. Within each group of 32 partitions, partition `p` takes the data of partition `mask[p]`.
    Shuffle {
        /// Read.
        input: Access,
        /// Where each partition's data comes from, for each of 32.
        mask: Box<[u8; 32]>,
        /// The result.
        out: Access,
    },
    /// VectorE, gen 4. Quantizes groups of 32 to f8 with a common power-of-two scale.
    QuantizeMx {
        /// bf16 or f16.
        input: Access,
        /// f8.
        out: Access,
        /// e8m0 scales.
        scales: Access,
    },
    /// GpSimdE. `out = base + partition · channel + Σ position · step`, exact in i32.
    Iota {
        /// Added everywhere.
        base: crate::program::Index,
        /// For each partition.
        channel: i64,
        /// For each free dimension of `out`.
        steps: SmallVec<[i64; 4]>,
        /// The result.
        out: Access,
    },
    /// GpSimdE. `out = base + partition · channel + Σ position · step ≥ 0 ? input : fill`.
    AffineSelect {
        /// Kept.
        input: Access,
        /// Added everywhere.
        base: crate::program::Index,
        /// For each partition.
        channel: i64,
        /// For each free dimension of `out`.
        steps: SmallVec<[i64; 4]>,
        /// Written elsewhere.
        fill: f32,
        /// The result.
        out: Access,
    },
    /// GpSimdE. Within each partition, `out[i] = input[index[i]]`, clamped.
    Gather {
        /// Read.
        input: Access,
        /// i32 positions.
        index: Access,
        /// The result.
        out: Access,
    },
    /// GpSimdE. Combines all partitions into one.
    PartitionReduce {
        /// How.
        combine: Combine,
        /// Read.
        input: Access,
        /// One partition.
        out: Access,
    },
    /// GpSimdE. Every partition takes the data of one.
    PartitionBroadcast {
        /// One partition.
        input: Access,
        /// The result.
        out: Access,
    },
    /// GpSimdE. Exact code: an expression for each element, in the meaning of the scalar table (integers and wide types
    /// included). Its cost is inferred from the operations in it.
    Custom {
        /// What is computed. It reads operands and constants alone.
        expr: Box<Expr>,
        /// Its operands.
        inputs: Vec<Access>,
        /// The result.
        out: Access,
    },
    /// GpSimdE. Exact code for a whole kernel on tensors in HBM: what no engine has instructions for. Its cost is
    /// inferred from the operations in it.
    Fallback {
        /// What is computed, on the call's operands and scalars.
        kernel: Box<TileKernel>,
    },
    /// Any sequencer. Starts a copy; the instruction is complete when all its data has arrived.
    Dma(Box<Dma>),
    /// Any sequencer. Nothing: waits and signals alone.
    Nop,
}
