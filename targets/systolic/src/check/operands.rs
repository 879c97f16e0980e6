//! What each instruction reads and writes, by name: the checker's own reading of the instruction set.

use crate::isa::Op;
use crate::program::{Access, Engine, Operand1};

/// What an instruction does with an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Reads it.
    Read,
    /// Overwrites it.
    Write,
    /// Adds to what the same engine has summed there.
    Accumulate,
}

/// One operand of a compute instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperandUse<'a> {
    pub(super) name: &'static str,
    pub(super) access: &'a Access,
    pub(super) how: Use,
}

/// The operands of a compute instruction in on-chip memory, reads first. Those of a DMA are sides, not accesses, but
/// for the row numbers of an indirect one.
pub(super) fn of(op: &Op) -> Vec<OperandUse<'_>> {
    let mut found = Vec::new();
    let mut add = |name, access, how| found.push(OperandUse { name, access, how });
    match op {
        Op::Matmul { stationary, moving, out, accumulate, scales, .. } => {
            add("stationary", stationary, Use::Read);
            add("moving", moving, Use::Read);
            if let Some(scales) = scales {
                add("stationary scales", &scales.0, Use::Read);
                add("moving scales", &scales.1, Use::Read);
            }
            add("out", out, if *accumulate { Use::Accumulate } else { Use::Write });
        }
        Op::Activation { input, scale, bias, out, reduce, .. } => {
            add("input", input, Use::Read);
            for (name, operand) in [("scale", scale), ("bias", bias)] {
                if let Operand1::Partition(access) = operand {
                    add(name, access, Use::Read);
                }
            }
            add("out", out, Use::Write);
            if let Some((_, reduced)) = reduce {
                add("reduce", reduced, Use::Write);
            }
        }
        Op::Transpose { input, out }
        | Op::Copy { input, out }
        | Op::Reciprocal { input, out }
        | Op::BnStats { input, out }
        | Op::BnAggregate { input, out }
        | Op::Max8 { input, out }
        | Op::TransposeBlocks { input, out }
        | Op::Shuffle { input, out, .. }
        | Op::AffineSelect { input, out, .. }
        | Op::PartitionReduce { input, out, .. }
        | Op::PartitionBroadcast { input, out }
        | Op::Reduce { input, out, .. } => {
            add("input", input, Use::Read);
            add("out", out, Use::Write);
        }
        Op::Memset { out, .. } | Op::Iota { out, .. } => add("out", out, Use::Write),
        Op::TensorTensor { a, b, out, .. } => {
            add("a", a, Use::Read);
            add("b", b, Use::Read);
            add("out", out, Use::Write);
        }
        Op::TensorScalar { input, first, second, out, reduce } => {
            add("input", input, Use::Read);
            if let Operand1::Partition(access) = &first.1 {
                add("first", access, Use::Read);
            }
            if let Some((_, Operand1::Partition(access), _)) = second {
                add("second", access, Use::Read);
            }
            add("out", out, Use::Write);
            if let Some((_, reduced)) = reduce {
                add("reduce", reduced, Use::Write);
            }
        }
        Op::ScalarTensorTensor { a, first, b, out, .. } => {
            add("a", a, Use::Read);
            if let Operand1::Partition(access) = &first.1 {
                add("first", access, Use::Read);
            }
            add("b", b, Use::Read);
            add("out", out, Use::Write);
        }
        Op::Select { predicate, on_true, on_false, out } => {
            add("predicate", predicate, Use::Read);
            add("on_true", on_true, Use::Read);
            add("on_false", on_false, Use::Read);
            add("out", out, Use::Write);
        }
        Op::TensorTensorScan { a, b, initial, out, .. } => {
            add("a", a, Use::Read);
            add("b", b, Use::Read);
            if let Operand1::Partition(access) = initial {
                add("initial", access, Use::Read);
            }
            add("out", out, Use::Write);
        }
        Op::Scan { input, initial, out, .. } | Op::Exponential { input, bias: initial, out } => {
            add("input", input, Use::Read);
            if let Operand1::Partition(access) = initial {
                add("initial", access, Use::Read);
            }
            add("out", out, Use::Write);
        }
        Op::FindIndex8 { input, values, out } | Op::MatchReplace8 { input, values, out, .. } => {
            add("input", input, Use::Read);
            add("values", values, Use::Read);
            add("out", out, Use::Write);
        }
        Op::QuantizeMx { input, out, scales } => {
            add("input", input, Use::Read);
            add("out", out, Use::Write);
            add("scales", scales, Use::Write);
        }
        Op::Gather { input, index, out } => {
            add("input", input, Use::Read);
            add("index", index, Use::Read);
            add("out", out, Use::Write);
        }
        Op::Custom { inputs, out, .. } => {
            for input in inputs {
                add("input", input, Use::Read);
            }
            add("out", out, Use::Write);
        }
        Op::Dma(dma) => {
            if let Some(indirect) = &dma.indirect {
                add("rows", &indirect.rows, Use::Read);
            }
        }
        Op::Fallback { .. } | Op::Nop => {}
    }
    found
}

/// What the instruction is called.
pub(super) fn mnemonic(op: &Op) -> &'static str {
    match op {
        Op::Matmul { .. } => "matmul",
        Op::Transpose { .. } => "transpose",
        Op::Activation { .. } => "activation",
        Op::Copy { .. } => "copy",
        Op::Memset { .. } => "memset",
        Op::TensorTensor { .. } => "tensor_tensor",
        Op::TensorScalar { .. } => "tensor_scalar",
        Op::ScalarTensorTensor { .. } => "scalar_tensor_tensor",
        Op::Select { .. } => "select",
        Op::Reduce { .. } => "reduce",
        Op::Scan { .. } => "scan",
        Op::TensorTensorScan { .. } => "tensor_tensor_scan",
        Op::Reciprocal { .. } => "reciprocal",
        Op::Exponential { .. } => "exponential",
        Op::BnStats { .. } => "bn_stats",
        Op::BnAggregate { .. } => "bn_aggregate",
        Op::Max8 { .. } => "max8",
        Op::FindIndex8 { .. } => "find_index8",
        Op::MatchReplace8 { .. } => "match_replace8",
        Op::TransposeBlocks { .. } => "transpose_blocks",
        Op::Shuffle { .. } => "shuffle",
        Op::QuantizeMx { .. } => "quantize_mx",
        Op::Iota { .. } => "iota",
        Op::AffineSelect { .. } => "affine_select",
        Op::Gather { .. } => "gather",
        Op::PartitionReduce { .. } => "partition_reduce",
        Op::PartitionBroadcast { .. } => "partition_broadcast",
        Op::Custom { .. } => "custom",
        Op::Fallback { .. } => "fallback",
        Op::Dma(_) => "dma",
        Op::Nop => "nop",
    }
}

/// The engines that can do it.
pub(super) fn engines(op: &Op, generation: u8) -> &'static [Engine] {
    const TENSOR: &[Engine] = &[Engine::Tensor];
    const VECTOR: &[Engine] = &[Engine::Vector];
    const SCALAR: &[Engine] = &[Engine::Scalar];
    const GPSIMD: &[Engine] = &[Engine::GpSimd];
    const VECTOR_GPSIMD: &[Engine] = &[Engine::Vector, Engine::GpSimd];
    const ELEMENTWISE: &[Engine] = &[Engine::Vector, Engine::Scalar, Engine::GpSimd];
    const ALL: &[Engine] =
        &[Engine::Tensor, Engine::Vector, Engine::Scalar, Engine::GpSimd, Engine::Sync];
    match op {
        Op::Matmul { .. } | Op::Transpose { .. } => TENSOR,
        Op::Activation { .. } => SCALAR,
        Op::Copy { .. } => ELEMENTWISE,
        Op::TensorScalar { .. } if generation >= 4 => ELEMENTWISE,
        Op::TensorScalar { .. } | Op::Memset { .. } | Op::TensorTensor { .. } => VECTOR_GPSIMD,
        Op::ScalarTensorTensor { .. }
        | Op::Select { .. }
        | Op::Reduce { .. }
        | Op::Scan { .. }
        | Op::TensorTensorScan { .. }
        | Op::Reciprocal { .. }
        | Op::BnStats { .. }
        | Op::BnAggregate { .. }
        | Op::Max8 { .. }
        | Op::FindIndex8 { .. }
        | Op::MatchReplace8 { .. }
        | Op::TransposeBlocks { .. }
        | Op::Shuffle { .. } => VECTOR,
        Op::Exponential { .. } | Op::QuantizeMx { .. } if generation < 4 => &[],
        Op::Exponential { .. } | Op::QuantizeMx { .. } => VECTOR,
        Op::Iota { .. }
        | Op::AffineSelect { .. }
        | Op::Gather { .. }
        | Op::PartitionReduce { .. }
        | Op::PartitionBroadcast { .. }
        | Op::Custom { .. }
        | Op::Fallback { .. } => GPSIMD,
        Op::Dma(_) | Op::Nop => ALL,
    }
}

/// Whether a result that nothing reads is no mistake: fills that a copy covers, and outputs beside the one that is wanted.
pub(super) fn may_be_lost(op: &Op) -> bool {
    match op {
        Op::Memset { .. } => true,
        Op::Activation { reduce, .. } | Op::TensorScalar { reduce, .. } => reduce.is_some(),
        Op::QuantizeMx { .. } => true,
        Op::Matmul { .. }
        | Op::Transpose { .. }
        | Op::Copy { .. }
        | Op::TensorTensor { .. }
        | Op::ScalarTensorTensor { .. }
        | Op::Select { .. }
        | Op::Reduce { .. }
        | Op::Scan { .. }
        | Op::TensorTensorScan { .. }
        | Op::Reciprocal { .. }
        | Op::Exponential { .. }
        | Op::BnStats { .. }
        | Op::BnAggregate { .. }
        | Op::Max8 { .. }
        | Op::FindIndex8 { .. }
        | Op::MatchReplace8 { .. }
        | Op::TransposeBlocks { .. }
        | Op::Shuffle { .. }
        | Op::Iota { .. }
        | Op::AffineSelect { .. }
        | Op::Gather { .. }
        | Op::PartitionReduce { .. }
        | Op::PartitionBroadcast { .. }
        | Op::Custom { .. }
        | Op::Fallback { .. }
        | Op::Dma(_)
        | Op::Nop => false,
    }
}
