//! What instructions cost: how long an engine is held, and when the result can be used.
//!
//! The intervals are the vendor's published formulas, in cycles of the engine with `n` elements in each partition; overheads
//! and latencies are the machine's. What has no published formula says so.

use crate::isa::{Alu, Function, Op, Pace};
use crate::machine::Machine;
use crate::program::{Access, Dma, Engine, Side, Space};
use systole_compiler::expr::ExprNode;
use systole_compiler::kernel::Combine;
use systole_compiler::types::DType;

/// The cost of an instruction, in cycles of its engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How long its data keep the engine busy.
    pub interval: u64,
    /// How much longer the engine is held.
    pub overhead: u64,
    /// From then on until the result can be used.
    pub latency: u64,
    /// How long the stationary operand of a product takes to load; hidden behind the product before.
    pub load: u64,
    /// Of a product: the share of the array's work in the interval that is done, in thousandths.
    pub used: u16,
}

/// The cost of a compute instruction on an engine. A transfer costs its sequencer the trigger alone; see [`transfer`].
pub fn cost(op: &Op, engine: Engine, machine: &Machine) -> Cost {
    let interval = interval(op, engine, machine);
    if matches!(op, Op::Nop) {
        return Cost::default();
    }
    if matches!(op, Op::Dma(_)) {
        return Cost { overhead: machine.sync.trigger_cycles, ..Cost::default() };
    }
    let slow = accesses(op).iter().any(|access| is_slow(access, machine));
    let interval = if slow { interval * machine.ports.stride_slowdown } else { interval };
    let (overhead, latency) = match engine {
        Engine::Tensor => (0, machine.array.latency_cycles),
        Engine::Vector => (machine.vector.overhead_cycles, machine.vector.latency_cycles),
        Engine::Scalar => (machine.scalar.overhead_cycles, machine.scalar.latency_cycles),
        Engine::GpSimd => (machine.gpsimd.overhead_cycles, machine.gpsimd.latency_cycles),
        Engine::Sync => (0, 0),
    };
    let columns = if let Op::Matmul { stationary, pace, .. } = op {
        stationary.free() / pace.rows()
    } else if let Op::Transpose { input, .. } = op {
        input.free()
    } else {
        0
    };
    let load = columns.div_ceil(machine.array.load_columns_per_cycle);
    Cost { interval, overhead, latency, load, used: used(op, interval, machine) }
}

/// The published use of the array: (rows / 128) · (columns / 128) · (moving / the interval of one pass).
fn used(op: &Op, interval: u64, machine: &Machine) -> u16 {
    let (rows, columns, moving) = if let Op::Matmul { stationary, moving, pace, .. } = op {
        let passes = if *pace == Pace::Four { machine.array.f32_pass_count } else { 1 };
        let columns = stationary.free() / pace.rows();
        (u64::from(stationary.partitions), columns, moving.free() / pace.rows() * passes)
    } else if let Op::Transpose { input, .. } = op {
        (u64::from(input.partitions), input.free(), u64::from(input.partitions))
    } else {
        return 0;
    };
    let cells = machine.array.row_count * machine.array.column_count;
    let whole = cells.saturating_mul(interval).max(1);
    let done = rows.saturating_mul(columns).saturating_mul(moving).saturating_mul(1000);
    u16::try_from((done / whole).min(1000)).unwrap_or(1000)
}

/// The published interval of an instruction on an engine.
fn interval(op: &Op, engine: Engine, machine: &Machine) -> u64 {
    let vector = &machine.vector;
    let least = match engine {
        Engine::Tensor | Engine::Sync => 0,
        Engine::Vector => vector.min_interval_cycles,
        Engine::Scalar => machine.scalar.min_interval_cycles,
        Engine::GpSimd => machine.gpsimd.min_interval_cycles,
    };
    let start = machine.gpsimd.start_cycles;
    let read = match engine {
        Engine::Scalar => machine.scalar.reduce_read_cycles,
        Engine::Tensor | Engine::Vector | Engine::GpSimd | Engine::Sync => {
            vector.reduce_read_cycles
        }
    };
    match op {
        Op::Matmul { stationary, moving, pace, .. } => {
            let once = (stationary.free() / pace.rows())
                .min(machine.array.min_stationary_cycles)
                .max(moving.free() / pace.rows());
            match pace {
                Pace::Single | Pace::DoubleRow => once,
                Pace::Four => once * machine.array.f32_pass_count,
                Pace::Block if moving.dtype == DType::F4E2M1 => {
                    (once as f64 * machine.array.f4_pass_count).ceil() as u64
                }
                Pace::Block => once,
            }
        }
        Op::Transpose { input, .. } => {
            u64::from(input.partitions).max(input.free().min(machine.array.min_stationary_cycles))
        }
        Op::Activation { out, reduce, .. } => {
            least.max(out.free()) + if reduce.is_some() { read } else { 0 }
        }
        Op::Copy { input, out } => copies(&[input, out], engine, machine).max(least),
        Op::TensorScalar { input, out, reduce, .. } => {
            copies(&[input, out], engine, machine).max(least)
                + if reduce.is_some() { read } else { 0 }
        }
        Op::Memset { out, value } => {
            let halved = value.bits == 0 && is_16(out.dtype);
            least.max(if halved { out.free().div_ceil(2) } else { out.free() })
        }
        Op::TensorTensor { alu, a, b, out } => {
            let simple = matches!(alu, Alu::Add | Alu::Subtract | Alu::Multiply);
            let fast = simple && [a, b, out].into_iter().all(|x| is_16(x.dtype) && is_dense(x));
            let near = a.space == Space::Sbuf && b.space == Space::Sbuf;
            let n = out.free();
            least.max(match (near, a.space == b.space) {
                (true, _) if fast && out.space == Space::Sbuf => {
                    (2 * n).div_ceil(vector.pair_speedup)
                }
                (_, true) => 2 * n,
                (_, false) => n,
            })
        }
        Op::ScalarTensorTensor { a, first, second, b, out } => {
            let n = out.free();
            let fast = first.0 == Alu::Subtract
                && *second == Alu::Multiply
                && n.is_multiple_of(2)
                && [a, b, out].into_iter().all(|x| x.dtype == DType::BF16);
            least.max(if fast { n } else { 2 * n })
        }
        Op::Select { predicate, on_true, on_false, out } => {
            let all = [predicate, on_true, on_false, out];
            let near = all.iter().all(|access| access.space == Space::Sbuf);
            least.max(if near { 2 * out.free() } else { out.free() })
        }
        Op::Reduce { combine, input, out, .. } => {
            let both = input.dtype == DType::BF16 && out.dtype == DType::BF16;
            let fast = both && matches!(combine, Combine::Sum | Combine::Max | Combine::Min);
            least.max(if fast { input.free().div_ceil(2) } else { input.free() })
        }
        Op::Scan { out, .. } | Op::TensorTensorScan { out, .. } => least.max(2 * out.free()),
        Op::Reciprocal { out, .. } => least.max(8 * out.free()),
        Op::Exponential { out, .. } => {
            least.max(out.free().div_ceil(vector.exponential_elements_per_cycle))
        }
        Op::QuantizeMx { input, .. } => {
            least.max(input.free().div_ceil(vector.quantize_elements_per_cycle))
        }
        Op::BnAggregate { input, .. } => least.max((13 * input.free()).div_ceil(3)),
        Op::BnStats { input, .. }
        | Op::Max8 { input, .. }
        | Op::FindIndex8 { input, .. }
        | Op::MatchReplace8 { input, .. }
        | Op::TransposeBlocks { input, .. }
        | Op::Shuffle { input, .. } => least.max(input.free()),
        Op::Iota { out, .. } | Op::AffineSelect { out, .. } => start + out.free(),
        // The published formula with one element an index: ((28 + 4) / 4) indices a cycle, fewer of wide elements.
        Op::Gather { index, out, .. } => {
            start + index.free() * (out.dtype.bytes() as u64).div_ceil(4) / 8
        }
        // No formula is published for these four.
        Op::PartitionReduce { input, .. } => start + 8 * input.free(),
        Op::PartitionBroadcast { out, .. } => start + 2 * out.free(),
        Op::Custom { expr, out, .. } => {
            let wide = expr.nodes.iter().any(|(_, dtype)| dtype.bits() == 64);
            let calls = expr
                .nodes
                .iter()
                .filter(|(node, _)| matches!(node, ExprNode::Call(..) | ExprNode::Convert(_)));
            let operations = calls.count().max(1) as u64;
            let turns = u64::from(out.partitions).div_ceil(machine.gpsimd.code_lanes.max(1)).max(1);
            let each = operations * machine.gpsimd.code_cycles * if wide { 2 } else { 1 };
            start + out.free() * turns * each
        }
        Op::Fallback { kernel } => {
            let lanes = machine.gpsimd.code_lanes.max(1);
            start + operations(kernel).div_ceil(lanes) * machine.gpsimd.code_cycles
        }
        Op::Dma(_) | Op::Nop => 0,
    }
}

/// Elementwise operations of a whole kernel, roughly: the positions of every tile that a statement defines, with those
/// that it reads, times the iterations around it.
fn operations(kernel: &systole_compiler::kernel::Kernel) -> u64 {
    use systole_compiler::kernel::{Stmt, TileOp};
    fn walk(kernel: &systole_compiler::kernel::Kernel, body: &[Stmt], times: u64, total: &mut u64) {
        let size = |tile: &systole_compiler::kernel::TileId| {
            kernel.tiles[*tile].dims.iter().fold(1u64, |all, &(_, n)| all.saturating_mul(n as u64))
        };
        for stmt in body {
            let positions = match stmt {
                Stmt::Define { results, op } => {
                    let results: u64 = results.iter().map(size).max().unwrap_or(1);
                    if let TileOp::Contract { a, b, over, .. } = op {
                        let a_dims = kernel.tiles[*a].dims.iter();
                        let b_dims = kernel.tiles[*b].dims.iter();
                        let mut seen: Vec<_> = Vec::new();
                        let mut summed = 1u64;
                        for &(axis, n) in a_dims.chain(b_dims) {
                            if over.contains(&axis) && !seen.contains(&axis) {
                                seen.push(axis);
                                summed = summed.saturating_mul(n as u64);
                            }
                        }
                        results.saturating_mul(summed)
                    } else if let TileOp::Map { expr, .. } = op {
                        results.saturating_mul(expr.nodes.len() as u64)
                    } else if let TileOp::Reduce { tile, .. } = op {
                        size(tile)
                    } else {
                        results
                    }
                }
                Stmt::Store { tile, .. } | Stmt::Scatter { tile, .. } => size(tile),
                Stmt::For(inner) => {
                    let range = inner.end.constant.saturating_sub(inner.start.constant);
                    let step = (inner.step as i64).max(1);
                    let trips = u64::try_from(range.max(step) / step).unwrap_or(1);
                    walk(kernel, &inner.body, times.saturating_mul(trips), total);
                    0
                }
            };
            *total = total.saturating_add(positions.saturating_mul(times));
        }
    }
    let mut total = 0;
    walk(kernel, &kernel.body, 1, &mut total);
    total
}

/// Copies and operations with scalars, which have faster modes.
fn copies(accesses: &[&Access], engine: Engine, machine: &Machine) -> u64 {
    let n = accesses.iter().map(|access| access.free()).max().unwrap_or(0);
    let narrow = accesses.iter().all(|access| is_fast(access.dtype, machine));
    let near = accesses.iter().all(|access| access.space == Space::Sbuf);
    let speedup = match engine {
        Engine::Vector if narrow && near && accesses.iter().all(|access| is_dense(access)) => {
            machine.vector.copy_speedup
        }
        Engine::Vector if narrow => machine.vector.copy_partial_speedup,
        Engine::Scalar if narrow => machine.scalar.copy_speedup,
        Engine::Tensor | Engine::Vector | Engine::Scalar | Engine::GpSimd | Engine::Sync => 1,
    };
    n.div_ceil(speedup)
}

/// Whether the faster modes of copies take the type: f8 too from the fourth generation on.
fn is_fast(dtype: DType, machine: &Machine) -> bool {
    is_16(dtype) || (machine.generation >= 4 && matches!(dtype, DType::F8E4M3 | DType::F8E5M2))
}

fn is_16(dtype: DType) -> bool {
    matches!(dtype, DType::BF16 | DType::F16)
}

/// Whether the innermost elements are neighbours.
fn is_dense(access: &Access) -> bool {
    access.dims.iter().rev().find(|&&(_, size)| size > 1).is_none_or(|&(stride, _)| stride == 1)
}

fn is_slow(access: &Access, machine: &Machine) -> bool {
    let limit = machine.ports.stride_bytes;
    if limit == 0 {
        return false;
    }
    let stride = access.dims.iter().rev().find(|&&(_, size)| size > 1).map_or(1, |dim| dim.0);
    u64::from(stride.unsigned_abs()) * access.dtype.bytes() as u64 >= limit
}

/// Which set of functions ScalarE must have loaded; `None` for those in every set.
pub fn function_set(function: Function) -> Option<u8> {
    match function {
        Function::Copy | Function::Square | Function::Abs | Function::Sign | Function::Relu => None,
        Function::Exp => Some(0),
        Function::Log | Function::Softplus => Some(1),
        Function::Sqrt | Function::Rsqrt | Function::Reciprocal => Some(2),
        Function::Sigmoid | Function::Tanh | Function::Silu => Some(3),
        Function::Erf | Function::Gelu | Function::GeluTanh => Some(4),
        Function::Sin | Function::Cos | Function::Arctan => Some(5),
    }
}

/// The on-chip operands of a compute instruction.
pub fn accesses(op: &Op) -> Vec<&Access> {
    let mut all = reads(op);
    all.extend(writes(op));
    all
}

/// What a compute instruction reads on chip.
pub fn reads(op: &Op) -> Vec<&Access> {
    use crate::program::Operand1;
    fn scalar<'a>(operand: &'a Operand1, all: &mut Vec<&'a Access>) {
        match operand {
            Operand1::Immediate(_) => {}
            Operand1::Partition(access) => all.push(access),
        }
    }
    let mut all = Vec::new();
    match op {
        Op::Matmul { stationary, moving, out, accumulate, scales, .. } => {
            all.extend([stationary, moving]);
            if let Some(scales) = scales {
                all.extend([&scales.0, &scales.1]);
            }
            if *accumulate {
                all.push(out);
            }
        }
        Op::Activation { input, scale, bias, .. } => {
            all.push(input);
            scalar(scale, &mut all);
            scalar(bias, &mut all);
        }
        Op::Transpose { input, .. }
        | Op::Copy { input, .. }
        | Op::Reduce { input, .. }
        | Op::Reciprocal { input, .. }
        | Op::BnStats { input, .. }
        | Op::BnAggregate { input, .. }
        | Op::Max8 { input, .. }
        | Op::TransposeBlocks { input, .. }
        | Op::Shuffle { input, .. }
        | Op::QuantizeMx { input, .. }
        | Op::AffineSelect { input, .. }
        | Op::PartitionReduce { input, .. }
        | Op::PartitionBroadcast { input, .. } => all.push(input),
        Op::TensorTensor { a, b, .. } => all.extend([a, b]),
        Op::TensorScalar { input, first, second, .. } => {
            all.push(input);
            scalar(&first.1, &mut all);
            if let Some(second) = second {
                scalar(&second.1, &mut all);
            }
        }
        Op::ScalarTensorTensor { a, first, b, .. } => {
            all.extend([a, b]);
            scalar(&first.1, &mut all);
        }
        Op::Select { predicate, on_true, on_false, .. } => {
            all.extend([predicate, on_true, on_false])
        }
        Op::Scan { input, initial, .. } => {
            all.push(input);
            scalar(initial, &mut all);
        }
        Op::TensorTensorScan { a, b, initial, .. } => {
            all.extend([a, b]);
            scalar(initial, &mut all);
        }
        Op::Exponential { input, bias, .. } => {
            all.push(input);
            scalar(bias, &mut all);
        }
        Op::FindIndex8 { input, values, .. } | Op::MatchReplace8 { input, values, .. } => {
            all.extend([input, values]);
        }
        Op::Gather { input, index, .. } => all.extend([input, index]),
        Op::Custom { inputs, .. } => all.extend(inputs),
        Op::Dma(dma) => all.extend(dma.indirect.iter().map(|indirect| &indirect.rows)),
        Op::Memset { .. } | Op::Iota { .. } | Op::Fallback { .. } | Op::Nop => {}
    }
    all
}

/// What a compute instruction writes on chip.
pub fn writes(op: &Op) -> Vec<&Access> {
    match op {
        Op::Activation { out, reduce, .. } | Op::TensorScalar { out, reduce, .. } => {
            std::iter::once(out).chain(reduce.iter().map(|(_, access)| access)).collect()
        }
        Op::QuantizeMx { out, scales, .. } => vec![out, scales],
        Op::Matmul { out, .. }
        | Op::Transpose { out, .. }
        | Op::Copy { out, .. }
        | Op::Memset { out, .. }
        | Op::TensorTensor { out, .. }
        | Op::ScalarTensorTensor { out, .. }
        | Op::Select { out, .. }
        | Op::Reduce { out, .. }
        | Op::Scan { out, .. }
        | Op::TensorTensorScan { out, .. }
        | Op::Reciprocal { out, .. }
        | Op::Exponential { out, .. }
        | Op::BnStats { out, .. }
        | Op::BnAggregate { out, .. }
        | Op::Max8 { out, .. }
        | Op::FindIndex8 { out, .. }
        | Op::MatchReplace8 { out, .. }
        | Op::TransposeBlocks { out, .. }
        | Op::Shuffle { out, .. }
        | Op::Iota { out, .. }
        | Op::AffineSelect { out, .. }
        | Op::Gather { out, .. }
        | Op::PartitionReduce { out, .. }
        | Op::PartitionBroadcast { out, .. }
        | Op::Custom { out, .. } => vec![out],
        Op::Fallback { .. } | Op::Dma(_) | Op::Nop => Vec::new(),
    }
}

/// What a transfer moves, and how long that holds the DMA engines.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transfer {
    /// Bytes moved.
    pub bytes: u64,
    /// Bytes read from HBM.
    pub hbm_read: u64,
    /// Bytes written to HBM.
    pub hbm_written: u64,
    /// Contiguous rows.
    pub rows: u64,
    /// The first and the last partition that is touched; both ends in HBM touch none.
    pub partitions: Option<(u32, u32)>,
    /// How long the busiest engine is held, in ns.
    pub busy_ns: f64,
}

/// The cost of a transfer of the given sizes (those of the transfer, or what its bounds leave of them), from the given
/// first partition.
pub fn transfer(dma: &Dma, sizes: &[u32], partition: u32, machine: &Machine) -> Transfer {
    let count = sizes.iter().fold(1u64, |all, &n| all.saturating_mul(u64::from(n)));
    let element = dma.dtype.bytes() as u64;
    let far = |side: &Side| matches!(side, Side::Far { .. });
    let bytes = count.saturating_mul(element);
    let combined = if dma.combine.is_some() { bytes } else { 0 };
    let hbm_written = if far(&dma.to) { bytes } else { 0 };
    let hbm_read =
        (if far(&dma.from) { bytes } else { 0 }) + if far(&dma.to) { combined } else { 0 };
    if count == 0 {
        return Transfer::default();
    }
    // Neighbours on both sides join to rows, from the innermost dimension on.
    let mut row = 1u64;
    for dim in (0..sizes.len()).rev() {
        if sizes[dim] == 1 {
            continue;
        }
        let next = i64::try_from(row).unwrap_or(i64::MAX);
        let joins = |side: &Side| match side {
            Side::Far { strides, .. } => strides.get(dim).is_some_and(|&stride| stride == next),
            Side::Near { steps, .. } => {
                steps.get(dim).is_some_and(|&(rows, step)| rows == 0 && i64::from(step) == next)
            }
        };
        let split = dma.indirect.is_some() && dim == 0;
        if split || !(joins(&dma.from) && joins(&dma.to)) {
            break;
        }
        row *= u64::from(sizes[dim]);
    }
    // A transposing engine reads and writes whole rows of its own.
    let row = if dma.transpose { row.max(u64::from(*sizes.last().unwrap_or(&1))) } else { row };
    let rows = (count / row.max(1)).max(1);
    let near = [&dma.from, &dma.to].into_iter().filter_map(|side| match side {
        Side::Near { steps, .. } => Some(steps),
        Side::Far { .. } => None,
    });
    let touched = near
        .map(|steps| {
            let dims = steps.iter().zip(sizes);
            let last = dims.map(|(&(rows, _), &n)| {
                u64::from(rows.unsigned_abs()) * u64::from(n.saturating_sub(1))
            });
            last.sum::<u64>().min(machine.sbuf.partition_count.saturating_sub(1)) as u32
        })
        .max();
    let dma_engines = machine.dma.engine_count.max(1);
    let per_engine = machine.sbuf.partition_count.div_ceil(dma_engines).max(1) as u32;
    let partitions = touched.map(|last| (partition, partition.saturating_add(last)));
    let engines = partitions.map_or(dma_engines.min(rows), |(first, last)| {
        let engines = u64::from(last / per_engine) - u64::from(first / per_engine) + 1;
        engines.min(dma_engines)
    });
    // Where the first and last engine serve fewer partitions, the busiest still serves a full share.
    let share = match partitions {
        None => rows.div_ceil(engines),
        Some((first, last)) => {
            let width = u64::from(last - first + 1);
            let most = if engines == 1 { width } else { width.min(u64::from(per_engine)) };
            (rows * most).div_ceil(width)
        }
    };
    let row_bytes = row * element;
    // Reading waits for HBM row by row; what is written is on its way.
    let rate = if far(&dma.from) && row_bytes < machine.dma.short_row_bytes {
        machine.dma.engine_gbs.min(machine.dma.short_row_gbs)
    } else {
        machine.dma.engine_gbs
    };
    let slow_row = row_bytes as f64 / rate;
    let row_ns =
        slow_row.max(row_bytes as f64 / machine.dma.engine_gbs + machine.dma.descriptor_ns);
    let both_near = !far(&dma.from) && !far(&dma.to);
    let transposing = match (dma.transpose, both_near) {
        (false, _) => 1.0,
        (true, false) => machine.dma.transpose_efficiency,
        (true, true) => machine.dma.near_transpose_efficiency,
    };
    let combining = if dma.combine.is_some() { machine.dma.accumulate_efficiency } else { 1.0 };
    let busy_ns = share as f64 * row_ns / (transposing * combining);
    Transfer { bytes, hbm_read, hbm_written, rows, partitions, busy_ns }
}
