//! Whether an instruction is within the limits of its engine and of the machine's generation.

use super::{Op, Pace};
use crate::machine::Machine;
use crate::program::{Access, Engine, Index, Instruction, Item, Program, Space};
use crate::simulate::cost;
use systole_compiler::types::DType;

/// Everything in a program that the machine cannot run; `Ok` where there is nothing.
pub fn check_program(program: &Program, machine: &Machine) -> Result<(), Vec<String>> {
    super::check_structure(program, machine)?;
    let mut problems = Vec::new();
    for kernel in &program.kernels {
        for (&engine, items) in &kernel.streams {
            visit(items, &mut |instruction| {
                if problems.len() < 100 {
                    let found = check(instruction, engine, machine);
                    let place = |what| format!("@{} on {engine:?}: {what}", kernel.name);
                    problems.extend(found.into_iter().map(place));
                }
            });
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn visit(items: &[Item], each: &mut impl FnMut(&Instruction)) {
    for item in items {
        match item {
            Item::Instruction(instruction) => each(instruction),
            Item::Loop { body, .. } => visit(body, each),
        }
    }
}

/// What breaks the limits of an instruction on an engine; nothing where it is fine.
pub fn check(instruction: &Instruction, engine: Engine, machine: &Machine) -> Vec<String> {
    let op = &instruction.op;
    let row = op.row();
    let mut problems = Vec::new();
    let mut wrong = |what: String| problems.push(format!("{}: {what}", row.mnemonic));
    match row.engines.iter().find(|(own, _)| *own == engine) {
        None => wrong(format!("{engine:?}E does not have it")),
        Some((_, generation)) if machine.generation < *generation => {
            wrong(format!("{engine:?}E has it from generation {generation} on"));
        }
        Some(_) => {}
    }
    let exact = matches!(op, Op::Custom { .. } | Op::Copy { .. } | Op::Memset { .. });
    for access in cost::accesses(op) {
        for problem in check_access(access, engine, machine, exact) {
            wrong(problem);
        }
    }
    for problem in shapes(op, machine) {
        wrong(problem);
    }
    problems
}

fn check_access(access: &Access, engine: Engine, machine: &Machine, exact: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let rows = u64::from(access.partitions);
    let unit = match rows {
        0..=32 => 32,
        33..=64 => 64,
        _ => 128,
    };
    let Index { constant, terms } = &access.partition;
    if constant % unit != 0 || terms.iter().any(|(_, factor)| factor % unit != 0) {
        problems
            .push(format!("{rows} partitions begin at a multiple of {unit}, not at {constant}"));
    }
    if access.dims.len() > 4 {
        problems.push(format!("{} free dimensions, but at most 4", access.dims.len()));
    }
    for &(stride, size) in &access.dims {
        if size > 65535 || i16::try_from(stride).is_err() {
            problems.push(format!(
                "a dimension of {size} in steps of {stride} needs more than 16 bits"
            ));
        }
    }
    let (most, bytes, what) = match access.space {
        Space::Sbuf => (65536, machine.sbuf.usable_bytes, "SBUF"),
        Space::Psum => (4096, machine.psum_bytes(), "PSUM"),
    };
    if access.free() > most {
        problems.push(format!(
            "{} elements in each partition of {what}, but at most {most}",
            access.free()
        ));
    }
    let far = access.dims.iter().fold(0i64, |sum, &(stride, size)| {
        sum.saturating_add(i64::from(stride).max(0) * i64::from(size.saturating_sub(1)))
    });
    let end = access.offset.constant.saturating_add((far + 1) * access.dtype.bytes() as i64);
    if access.offset.terms.is_empty() && end > i64::try_from(bytes).unwrap_or(i64::MAX) {
        problems.push(format!("byte {end} of a partition of {bytes} bytes of {what}"));
    }
    if access.space == Space::Psum && engine == Engine::GpSimd {
        problems.push("GpSimdE does not reach PSUM".to_owned());
    }
    if access.dtype.bits() == 64 && !exact {
        problems.push(format!("{} does not fit f32 arithmetic", access.dtype));
    }
    problems
}

/// Shapes and places of operands.
fn shapes(op: &Op, machine: &Machine) -> Vec<String> {
    let mut problems = Vec::new();
    let mut need = |holds: bool, what: &str| {
        if !holds {
            problems.push(what.to_owned());
        }
    };
    let same = |a: &Access, b: &Access| a.free() == b.free() && a.partitions == b.partitions;
    match op {
        Op::Matmul { stationary, moving, out, pace, .. } => {
            let rows = pace.rows();
            let (s, m) = (stationary.free() / rows, moving.free() / rows);
            let near = stationary.space == Space::Sbuf && moving.space == Space::Sbuf;
            need(near && out.space == Space::Psum, "inputs lie in SBUF, the result in PSUM");
            need(
                u64::from(stationary.partitions) <= machine.array.row_count,
                "more rows than the array has",
            );
            need(s <= machine.array.column_count, "more columns than the array has");
            need(m <= machine.array.moving_elements_max, "the moving operand is too wide");
            need(u64::from(out.partitions) == s && out.free() == m, "the result has another shape");
            let available = match pace {
                Pace::Single | Pace::Four => true,
                Pace::DoubleRow => machine.array.double_row_count >= 2,
                Pace::Block => machine.array.block_row_count >= 4,
            };
            need(available, "this machine does not multiply so");
            let narrow =
                [stationary, moving].iter().all(|x| x.dtype.bits() <= 16 && x.dtype.is_float());
            need(narrow || *pace == Pace::Four, "operands wider than 16 bits take four passes");
            let bytes = m * out.dtype.bytes() as u64;
            let bank = machine.psum.bank_bytes as i64;
            let inside = out.offset.constant.rem_euclid(bank) + bytes as i64 <= bank;
            let dense = out.offset.terms.iter().all(|(_, factor)| factor % bank == 0);
            let wide = machine.array.moving_elements_max > 512;
            need(wide || !dense || inside, "the result crosses a bank of PSUM");
        }
        Op::Transpose { input, out } => {
            need(input.space == Space::Sbuf && out.space == Space::Psum, "from SBUF to PSUM");
            need(input.free() <= machine.array.column_count, "more columns than the array has");
            let turned = out.free() == u64::from(input.partitions)
                && u64::from(out.partitions) == input.free();
            need(turned, "the result has another shape");
        }
        Op::Activation { input, out, .. }
        | Op::Copy { input, out }
        | Op::TensorScalar { input, out, .. }
        | Op::Scan { input, out, .. }
        | Op::Reciprocal { input, out }
        | Op::Exponential { input, out, .. }
        | Op::AffineSelect { input, out, .. }
        | Op::MatchReplace8 { input, out, .. } => {
            need(same(input, out), "input and result differ in size");
        }
        Op::TensorTensor { a, b, out, .. }
        | Op::ScalarTensorTensor { a, b, out, .. }
        | Op::TensorTensorScan { a, b, out, .. } => {
            need(same(a, out) && same(b, out), "inputs and result differ in size");
        }
        Op::Select { predicate, on_true, on_false, out } => {
            let all = [predicate, on_true, on_false];
            need(all.into_iter().all(|x| same(x, out)), "inputs and result differ in size");
        }
        Op::Custom { inputs, out, .. } => {
            need(inputs.iter().all(|x| same(x, out)), "inputs and result differ in size");
        }
        Op::Reduce { input, dims, out, .. } => {
            let inner = input.dims.iter().rev().take(usize::from(*dims));
            let inner: u64 = inner.map(|&(_, size)| u64::from(size)).product();
            need(out.free() * inner.max(1) == input.free(), "the result has another size");
        }
        Op::BnStats { input, out } => {
            need(input.free() <= 512 && out.free() == 6, "at most 512 elements in and 6 out");
        }
        Op::BnAggregate { input, out } => {
            need(input.free().is_multiple_of(6) && out.free() == 2, "multiples of 6 in and 2 out");
        }
        Op::Max8 { input, out } | Op::FindIndex8 { input, out, .. } => {
            need((8..=16384).contains(&input.free()), "8 to 16384 elements in");
            need(out.free() == 8, "8 elements out");
        }
        Op::Shuffle { mask, input, .. } => {
            let rows = u8::try_from(input.partitions.min(32)).unwrap_or(32);
            need(
                mask.iter().take(usize::from(rows)).all(|&from| from < rows),
                "a source outside its 32",
            );
        }
        Op::QuantizeMx { input, .. } => {
            need(matches!(input.dtype, DType::BF16 | DType::F16), "the input has 16 bits");
            let groups = input.free().is_multiple_of(4) && input.partitions.is_multiple_of(8);
            need(groups, "groups of 8 partitions × 4 elements");
        }
        Op::Gather { index, out, .. } => need(same(index, out), "as many positions as results"),
        Op::PartitionReduce { input, out, .. } => {
            need(out.partitions == 1 && out.free() == input.free(), "one partition out");
        }
        Op::PartitionBroadcast { input, out } => {
            need(input.partitions == 1 && out.free() == input.free(), "one partition in");
        }
        Op::Memset { .. }
        | Op::TransposeBlocks { .. }
        | Op::Iota { .. }
        | Op::Fallback { .. }
        | Op::Dma(_)
        | Op::Nop => {}
    }
    problems
}
