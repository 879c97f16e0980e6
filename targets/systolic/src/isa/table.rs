//! The table of instructions: mnemonic, engines, limits, cost and meaning of each, once.

use super::Op;
use crate::program::Engine;
use std::fmt::Write as _;

/// What there is to know of an instruction.
#[derive(Debug)]
pub struct Row {
    /// How it is written.
    pub mnemonic: &'static str,
    /// The engines that have it, each from a generation on.
    pub engines: &'static [(Engine, u8)],
    /// What its operands must be, beside the limits of all accesses.
    pub limits: &'static str,
    /// How long it holds its engine, in cycles; `n` is the number of elements in each partition.
    pub cost: &'static str,
    /// What it does.
    pub doc: &'static str,
}

macro_rules! instructions {
    ($($variant:ident = $mnemonic:literal on [$($engine:ident $generation:literal),*] limits $limits:literal cost $cost:literal
        $doc:literal)*) => {
        /// Every instruction.
        pub const TABLE: &[Row] = &[$(Row {
            mnemonic: $mnemonic,
            engines: &[$((Engine::$engine, $generation)),*],
            limits: $limits,
            cost: $cost,
            doc: $doc,
        }),*];

        impl Op {
            /// How the operation is written.
            pub fn mnemonic(&self) -> &'static str {
                match self { $(Op::$variant { .. } => $mnemonic,)* }
            }
        }
    };
}

instructions! {
    Matmul = "matmul" on [Tensor 2]
        limits "inputs in SBUF of at most 128 × 128 and 128 × 512 (gen 4: 128 × 4096), result in PSUM within a bank (gen 4: within PSUM); `double-row` from gen 3, `block` from gen 4"
        cost "max(min(64, s), m) × passes; loading the stationary operand (s / 4) is hidden behind the product before"
        "`out[s, m] (+)= Σ_k stationary[k, s] · moving[k, m]`, summed in f32"
    Transpose = "transpose" on [Tensor 2]
        limits "input in SBUF of at most 128 × 128, result in PSUM"
        cost "max(p, min(64, f))"
        "`out[f, p] = input[p, f]`, exactly"
    Activation = "activation" on [Scalar 2]
        limits "as many elements in as out"
        cost "max(64, n), with a reduction + 64; another set of functions is loaded first"
        "`out = function(input · scale + bias)`, and optionally a reduction of each partition's results"
    Copy = "copy" on [Vector 2, Scalar 2, GpSimd 2]
        limits "as many elements in as out"
        cost "max(64, n / speed of the mode)"
        "`out = input`, converted"
    Memset = "memset" on [Vector 2, GpSimd 2]
        limits ""
        cost "max(64, n), half of it for zeros of 16 bits"
        "`out = value`"
    TensorTensor = "tensor-tensor" on [Vector 2, GpSimd 2]
        limits "as many elements in both inputs as out"
        cost "max(64, n) with one input in PSUM, or all 16-bit, dense and in SBUF with add, subtract, multiply; else max(64, 2 n)"
        "`out = a ∘ b`"
    TensorScalar = "tensor-scalar" on [Vector 2, GpSimd 2, Scalar 4]
        limits "as many elements in as out"
        cost "max(64, n / speed of the mode), with a reduction + 64"
        "`out = (input ∘ scalar) ∘ scalar`, and optionally a reduction of each partition's results"
    ScalarTensorTensor = "scalar-tensor-tensor" on [Vector 2]
        limits "as many elements in both inputs as out"
        cost "max(64, 2 n); n for subtract and multiply of bf16 with even n"
        "`out = (a ∘ scalar) ∘ b`"
    Select = "select" on [Vector 2]
        limits "as many elements in all inputs as out"
        cost "max(64, 2 n) all in SBUF, else max(64, n)"
        "`out = predicate ≠ 0 ? on-true : on-false`"
    Reduce = "reduce" on [Vector 2]
        limits "the output has the input's elements without its innermost dimensions"
        cost "max(64, n of the input), half of it for sums and extrema of bf16"
        "combines the innermost dimensions of each partition"
    Scan = "scan" on [Vector 2]
        limits "as many elements in as out"
        cost "max(64, 2 n)"
        "each element combined with all before it"
    TensorTensorScan = "tensor-tensor-scan" on [Vector 2]
        limits "as many elements in both inputs as out"
        cost "max(64, 2 n)"
        "a recurrence along each partition: `out[i] = (a[i] ∘ out[i - 1]) ∘ b[i]`"
    Reciprocal = "reciprocal" on [Vector 2]
        limits "as many elements in as out"
        cost "max(64, 8 n)"
        "`out = 1 / input`"
    Exponential = "exponential" on [Vector 4]
        limits "as many elements in as out"
        cost "max(64, n / 4)"
        "`out = exp(input - bias)`"
    BnStats = "bn-stats" on [Vector 2]
        limits "at most 512 elements in, 6 out"
        cost "max(64, n)"
        "count, mean and variance · count of even and of odd elements"
    BnAggregate = "bn-aggregate" on [Vector 2]
        limits "multiples of 6 elements in, 2 out"
        cost "max(64, 13 n / 3)"
        "mean and variance of what several statistics tell of"
    Max8 = "max8" on [Vector 2]
        limits "8 to 16384 elements in, 8 out"
        cost "max(64, n)"
        "the eight largest elements, largest first"
    FindIndex8 = "find-index8" on [Vector 2]
        limits "8 to 16384 elements in, 8 values, 8 out"
        cost "max(64, n)"
        "where each of eight values first occurs"
    MatchReplace8 = "match-replace8" on [Vector 2]
        limits "8 to 16384 elements in, 8 values, as many elements out"
        cost "max(64, n)"
        "replaces the first occurrence of each of eight values"
    TransposeBlocks = "transpose-blocks" on [Vector 2]
        limits ""
        cost "max(64, n)"
        "transposes blocks of 32 × 32"
    Shuffle = "shuffle" on [Vector 2]
        limits "sources within 32"
        cost "max(64, n)"
        "within each 32 partitions, partition p takes the data of partition mask[p]"
    QuantizeMx = "quantize-mx" on [Vector 4]
        limits "input of 16 bits, partitions a multiple of 8, elements of 4"
        cost "max(64, n / 4)"
        "groups of 32 in f8 with a common power-of-two scale"
    Iota = "iota" on [GpSimd 2]
        limits ""
        cost "150 + n"
        "`out = base + partition · channel + Σ position · step`"
    AffineSelect = "affine-select" on [GpSimd 2]
        limits "as many elements in as out"
        cost "150 + n"
        "`out = base + partition · channel + Σ position · step ≥ 0 ? input : fill`"
    Gather = "gather" on [GpSimd 2]
        limits "as many positions as elements out"
        cost "150 + n / 8"
        "`out[i] = input[index[i]]` in each partition"
    PartitionReduce = "partition-reduce" on [GpSimd 2]
        limits "one partition out"
        cost "150 + 8 n (inferred)"
        "combines all partitions into one"
    PartitionBroadcast = "partition-broadcast" on [GpSimd 2]
        limits "one partition in"
        cost "150 + 2 n (inferred)"
        "every partition takes the data of one"
    Custom = "custom" on [GpSimd 2]
        limits "as many elements in all inputs as out"
        cost "150 + 4 n for each operation, twice that for 64 bits (inferred)"
        "an exact expression for each element"
    Fallback = "fallback" on [GpSimd 2]
        limits ""
        cost "150 + 4 cycles for each operation on 128 elements (inferred)"
        "a whole kernel on tensors in HBM, exactly"
    Dma = "dma" on [Tensor 2, Vector 2, Scalar 2, GpSimd 2, Sync 2]
        limits "64-bit types included; transposes of 2-byte types from gen 3"
        cost "the sequencer's trigger; the copy itself takes issue, latency and its rows on the DMA engines"
        "starts a copy"
    Nop = "nop" on [Tensor 2, Vector 2, Scalar 2, GpSimd 2, Sync 2]
        limits ""
        cost "0"
        "nothing: waits and signals alone"
}

impl Op {
    /// The operation's row of the table.
    pub fn row(&self) -> &'static Row {
        let mnemonic = self.mnemonic();
        TABLE.iter().find(|row| row.mnemonic == mnemonic).expect("every operation has a row")
    }
}

/// The page of the instructions for `docs/`.
pub fn page() -> String {
    let mut text = String::from(
        "# Instructions of the accelerator\n\nThe table is in `targets/systolic/src/isa/table.rs`. Engines convert operands to f32, compute, \
         and convert the result. `n` is the\nnumber of elements in each partition; costs are cycles of the engine, to which each machine adds \
         its overheads and latencies.\n\nAll accesses: at most 128 partitions, beginning at 0 (more than 64 of them), a multiple of 64 (more than 32) \
         or of 32; at most\nfour free dimensions with sizes of 16 bits and strides of 16 bits; at most 65536 elements of a partition in SBUF, \
         4096 in\nPSUM. GpSimdE does not reach PSUM.\n\n| instruction | engines | what it does | limits | cycles |\n| --- | --- | --- | --- | --- |\n",
    );
    for row in TABLE {
        let engines = row.engines.iter().map(|(engine, generation)| match generation {
            2 => format!("{engine:?}E"),
            later => format!("{engine:?}E (gen {later})"),
        });
        let engines: Vec<String> = engines.collect();
        let cells = [
            format!("`{}`", row.mnemonic),
            engines.join(", "),
            row.doc.to_owned(),
            row.limits.to_owned(),
            row.cost.to_owned(),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).expect("strings take all");
    }
    text
}
