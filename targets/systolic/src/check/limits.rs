//! What the machine's instructions take, and the checks that need no order: rule 1.

use super::operands::{self, OperandUse, Use};
use super::{Kind, Place, Problem};
use crate::isa::{Op, Pace};
use crate::program::{Access, Dma, Engine, Item, Kernel, Operand1, Side, Space};
use systole_compiler::types::DType;

/// The limits of one core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Which generation of cores: 2 is the first that is modeled.
    pub generation: u8,
    /// Partitions of SBUF and PSUM.
    pub partitions: u16,
    /// Bytes of an SBUF partition that programs may use.
    pub sbuf_bytes: u32,
    /// Bytes of one PSUM bank in one partition.
    pub bank_bytes: u32,
    /// PSUM banks.
    pub banks: u8,
    /// Columns of the stationary operand.
    pub stationary: u32,
    /// Columns of the moving operand.
    pub moving: u32,
}

impl Limits {
    /// The limits of a described core.
    pub fn of(machine: &crate::machine::Machine) -> Limits {
        let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Limits {
            generation: machine.generation,
            partitions: u16::try_from(machine.sbuf.partition_count).unwrap_or(u16::MAX),
            sbuf_bytes: word(machine.sbuf.usable_bytes),
            bank_bytes: word(machine.psum.bank_bytes),
            banks: u8::try_from(machine.psum.bank_count).unwrap_or(u8::MAX),
            stationary: word(machine.array.column_count),
            moving: word(machine.array.moving_elements_max),
        }
    }
}

/// What most elements along one operand's free dimensions may be.
const SBUF_FREE: u64 = 64 << 10;

/// What is known of one instruction.
struct Look<'a> {
    kernel: &'a Kernel,
    limits: &'a Limits,
    engine: Engine,
    number: usize,
    op: &'a Op,
    source: u16,
}

/// Checks what each instruction of a kernel asks for.
pub(super) fn check(kernel: &Kernel, limits: &Limits, problems: &mut Vec<Problem>) {
    let mut whole = |message: String| {
        problems.push(Problem {
            kernel: kernel.name.clone(),
            kind: Kind::Limit,
            instruction: None,
            operand: "",
            other: None,
            message,
        });
    };
    if kernel.sbuf_bytes > limits.sbuf_bytes {
        let (bytes, limit) = (kernel.sbuf_bytes, limits.sbuf_bytes);
        whole(format!("it uses {bytes} bytes of each SBUF partition; there are {limit}"));
    }
    if kernel.psum_banks > limits.banks {
        let (banks, limit) = (kernel.psum_banks, limits.banks);
        whole(format!("it uses {banks} PSUM banks; there are {limit}"));
    }
    for (&engine, items) in &kernel.streams {
        loops(kernel, items, &mut whole_of(kernel, problems));
        let mut number = 0;
        super::stream::visit(items, &mut |instruction| {
            let look = Look {
                kernel,
                limits,
                engine,
                number,
                op: &instruction.op,
                source: instruction.source,
            };
            number += 1;
            look.check(instruction, problems);
        });
    }
}

fn whole_of<'a>(kernel: &'a Kernel, problems: &'a mut Vec<Problem>) -> impl FnMut(String) + 'a {
    |message| {
        problems.push(Problem {
            kernel: kernel.name.clone(),
            kind: Kind::Declaration,
            instruction: None,
            operand: "",
            other: None,
            message,
        });
    }
}

/// Loops have variables that exist and steps that move on.
fn loops(kernel: &Kernel, items: &[Item], wrong: &mut impl FnMut(String)) {
    for item in items {
        let Item::Loop { var, step, body, .. } = item else { continue };
        let name = kernel.vars.get(usize::from(var.0));
        match name {
            None => {
                wrong(format!("a loop has variable {}; there are {}", var.0, kernel.vars.len()))
            }
            Some(info) if info.range.is_some() => {
                wrong(format!("a loop counts in %{}, which is a scalar parameter", info.name));
            }
            Some(_) => {}
        }
        if *step <= 0 {
            wrong(format!("a loop has step {step}; the least is 1"));
        }
        loops(kernel, body, wrong);
    }
}

impl Look<'_> {
    fn say(&self, problems: &mut Vec<Problem>, operand: &'static str, message: String) {
        self.tell(problems, Kind::Limit, operand, message);
    }

    fn tell(
        &self,
        problems: &mut Vec<Problem>,
        kind: Kind,
        operand: &'static str,
        message: String,
    ) {
        if problems.len() >= super::TOLD {
            return;
        }
        let source = self.kernel.sources.get(usize::from(self.source)).cloned();
        problems.push(Problem {
            kernel: self.kernel.name.clone(),
            kind,
            instruction: Some(Place {
                engine: self.engine,
                index: self.number,
                mnemonic: operands::mnemonic(self.op),
                source: source.unwrap_or_default(),
                at: Vec::new(),
            }),
            operand,
            other: None,
            message,
        });
    }

    fn check(&self, instruction: &crate::program::Instruction, problems: &mut Vec<Problem>) {
        let engines = operands::engines(self.op, self.limits.generation);
        if !engines.contains(&self.engine) {
            let names: Vec<_> = engines.iter().map(|&engine| super::engine_name(engine)).collect();
            let message = match names.as_slice() {
                [] => "no engine of this generation has the instruction".to_owned(),
                names => format!("the engine does not have it; {} does", names.join(", ")),
            };
            self.say(problems, "", message);
        }
        for semaphore in instruction.waits.iter().chain(&instruction.signals) {
            if usize::from(semaphore.0) >= self.kernel.semaphores.len() {
                let count = self.kernel.semaphores.len();
                let message = format!("it names semaphore {}; there are {count}", semaphore.0);
                self.tell(problems, Kind::Declaration, "", message);
            }
        }
        for &operand in &instruction.calls {
            if usize::from(operand) >= self.kernel.operands.len() {
                let count = self.kernel.operands.len();
                let message = format!("it waits for operand {operand}; there are {count}");
                self.tell(problems, Kind::Declaration, "", message);
            }
        }
        let uses = operands::of(self.op);
        for operand in &uses {
            self.access(operand, problems);
        }
        self.shapes(&uses, problems);
        if let Op::Dma(dma) = self.op {
            self.dma(dma, problems);
        }
    }

    fn access(&self, operand: &OperandUse<'_>, problems: &mut Vec<Problem>) {
        let access = operand.access;
        let (partitions, limit) = (access.partitions, self.limits.partitions);
        if partitions == 0 || partitions > limit {
            let message = format!("{partitions} partitions; 1 to {limit} are possible");
            self.say(problems, operand.name, message);
        }
        // Rows of 33 to 64 partitions start at 0 or 64, and smaller ones at multiples of 32.
        if access.partition.terms.is_empty() {
            let multiple = match partitions {
                0..=32 => 32,
                33..=64 => 64,
                _ => 128,
            };
            let start = access.partition.constant;
            if start.rem_euclid(multiple) != 0 {
                let message = format!(
                    "{partitions} partitions from {start}; they start at multiples of {multiple}"
                );
                self.say(problems, operand.name, message);
            }
        }
        if access.dims.len() > 4 {
            let message = format!("{} free dimensions; the most are 4", access.dims.len());
            self.say(problems, operand.name, message);
        }
        let limit = match access.space {
            Space::Sbuf => SBUF_FREE,
            Space::Psum => u64::from(self.limits.bank_bytes) * u64::from(self.limits.banks) / 4,
        };
        let free = access
            .dims
            .iter()
            .fold(1_u64, |product, &(_, size)| product.saturating_mul(u64::from(size)));
        if free == 0 || free > limit {
            let message = format!("{free} elements a partition; 1 to {limit} are possible");
            self.say(problems, operand.name, message);
        }
        for &(stride, size) in &access.dims {
            if i16::try_from(stride).is_err() && size > 1 {
                let message = format!("stride {stride}; strides have 16 bits");
                self.say(problems, operand.name, message);
            }
            if size > u32::from(u16::MAX) + 1 {
                let message = format!("size {size}; sizes have 16 bits");
                self.say(problems, operand.name, message);
            }
            if stride == 0 && size > 1 && operand.how != Use::Read {
                let message = format!("stride 0 of size {size} writes one place {size} times");
                self.tell(problems, Kind::Element, operand.name, message);
            }
        }
        if access.space == Space::Psum && self.engine == Engine::GpSimd {
            self.say(problems, operand.name, "GpSimdE cannot reach PSUM".to_owned());
        }
        let bytes = access.dtype.bytes() as i64;
        let offset = &access.offset;
        if offset.constant % bytes != 0 || offset.terms.iter().any(|&(_, by)| by % bytes != 0) {
            let message = format!("elements of {bytes} bytes are not at multiples of their size");
            self.say(problems, operand.name, message);
        }
        if access.dtype == DType::F64 && !matches!(self.op, Op::Custom { .. }) {
            self.say(problems, operand.name, "no engine computes in f64".to_owned());
        }
    }

    /// How the sizes of the operands belong together.
    fn shapes(&self, uses: &[OperandUse<'_>], problems: &mut Vec<Problem>) {
        let mut need = |fits: bool, operand, message: &dyn Fn() -> String| {
            if !fits {
                self.say(problems, operand, message());
            }
        };
        let one = |access: &Access| access.free() == 1;
        match self.op {
            Op::Matmul { stationary, moving, out, pace, .. } => {
                let (k, m) = (stationary.partitions, moving.partitions);
                need(k == m, "moving", &|| {
                    format!("{m} partitions; the stationary operand has {k}")
                });
                let (columns, limit) = (stationary.free(), u64::from(self.limits.stationary));
                let rows = match pace {
                    Pace::Single | Pace::Four => 1,
                    Pace::DoubleRow => 2,
                    Pace::Block => 4,
                };
                need(columns <= limit * rows, "stationary", &|| {
                    format!("{columns} columns; the most are {}", limit * rows)
                });
                need(moving.free() <= u64::from(self.limits.moving) * rows, "moving", &|| {
                    format!(
                        "{} columns; the most are {}",
                        moving.free(),
                        u64::from(self.limits.moving) * rows
                    )
                });
                if matches!(pace, Pace::Single | Pace::Four) {
                    need(u64::from(out.partitions) == columns, "out", &|| {
                        format!(
                            "{} partitions; the stationary operand has {columns} columns",
                            out.partitions
                        )
                    });
                    need(out.free() == moving.free(), "out", &|| {
                        format!(
                            "{} elements a partition; the moving operand has {}",
                            out.free(),
                            moving.free()
                        )
                    });
                }
                for (name, access) in [("stationary", stationary), ("moving", moving)] {
                    need(access.space == Space::Sbuf, name, &|| "it must lie in SBUF".to_owned());
                    let fits = match pace {
                        Pace::Four => access.dtype == DType::F32,
                        Pace::Single => {
                            matches!(access.dtype, DType::BF16 | DType::F16)
                                || access.dtype.bytes() == 1
                        }
                        Pace::DoubleRow | Pace::Block => access.dtype.bytes() == 1,
                    };
                    need(fits, name, &|| {
                        format!("{} elements do not go at this pace", access.dtype)
                    });
                }
                need(out.space == Space::Psum, "out", &|| "it must lie in PSUM".to_owned());
                let bf16 = out.dtype == DType::BF16 && self.limits.generation >= 4;
                need(out.dtype == DType::F32 || bf16, "out", &|| {
                    format!("sums are kept in f32, not in {}", out.dtype)
                });
            }
            Op::Transpose { input, out } => {
                need(input.space == Space::Sbuf, "input", &|| "it must lie in SBUF".to_owned());
                need(out.space == Space::Psum, "out", &|| "it must lie in PSUM".to_owned());
                need(input.free() <= u64::from(self.limits.partitions), "input", &|| {
                    format!("{} columns; the most are {}", input.free(), self.limits.partitions)
                });
                need(
                    u64::from(out.partitions) == input.free()
                        && out.free() == u64::from(input.partitions),
                    "out",
                    &|| {
                        format!(
                            "{} × {}, which is not {} × {} transposed",
                            out.partitions,
                            out.free(),
                            input.partitions,
                            input.free()
                        )
                    },
                );
            }
            Op::Reduce { input, dims, out, .. } => {
                let kept = input.dims.len().checked_sub(usize::from(*dims));
                let free = kept.map(|kept| {
                    input.dims[..kept].iter().map(|&(_, size)| u64::from(size)).product::<u64>()
                });
                need(free == Some(out.free()), "out", &|| {
                    format!(
                        "{} elements a partition for a reduction of {dims} dimensions",
                        out.free()
                    )
                });
                need(input.partitions == out.partitions, "out", &|| partitions(out, input));
            }
            Op::BnStats { input, out } => {
                need(input.free() <= 512, "input", &|| {
                    format!("{} elements; the most are 512", input.free())
                });
                need(out.free() == 6, "out", &|| format!("{} elements; there are 6", out.free()));
            }
            Op::BnAggregate { input, out } => {
                need(input.free() % 6 == 0, "input", &|| {
                    format!("{} elements are not a multiple of 6", input.free())
                });
                need(out.free() == 2, "out", &|| format!("{} elements; there are 2", out.free()));
            }
            Op::Max8 { input, out } => {
                need((8..=16384).contains(&input.free()), "input", &|| {
                    format!("{} elements; 8 to 16384 are possible", input.free())
                });
                need(out.free() == 8, "out", &|| format!("{} elements; there are 8", out.free()));
            }
            Op::FindIndex8 { input, values, out } => {
                need((8..=16384).contains(&input.free()), "input", &|| {
                    format!("{} elements; 8 to 16384 are possible", input.free())
                });
                need(values.free() == 8 && out.free() == 8, "out", &|| {
                    "there are 8 values".to_owned()
                });
            }
            Op::PartitionReduce { input, out, .. } => {
                need(out.partitions == 1, "out", &|| {
                    format!("{} partitions; there is 1", out.partitions)
                });
                need(out.free() == input.free(), "out", &|| elements(out, input));
            }
            Op::PartitionBroadcast { input, out } => {
                need(input.partitions == 1, "input", &|| {
                    format!("{} partitions; there is 1", input.partitions)
                });
                need(out.free() == input.free(), "out", &|| elements(out, input));
            }
            Op::Gather { index, out, .. } => {
                need(index.free() == out.free(), "index", &|| elements(index, out));
                need(index.dtype == DType::I32, "index", &|| {
                    format!("{} positions; they are i32", index.dtype)
                });
            }
            Op::Shuffle { mask, input, out } => {
                need(mask.iter().all(|&from| from < 32), "input", &|| {
                    "a mask entry is not below 32".to_owned()
                });
                need(out.free() == input.free(), "out", &|| elements(out, input));
            }
            Op::QuantizeMx { .. } | Op::TransposeBlocks { .. } => {}
            Op::Activation { out, .. }
            | Op::Copy { out, .. }
            | Op::Memset { out, .. }
            | Op::TensorTensor { out, .. }
            | Op::TensorScalar { out, .. }
            | Op::ScalarTensorTensor { out, .. }
            | Op::Select { out, .. }
            | Op::Scan { out, .. }
            | Op::TensorTensorScan { out, .. }
            | Op::Reciprocal { out, .. }
            | Op::Exponential { out, .. }
            | Op::MatchReplace8 { out, .. }
            | Op::Iota { out, .. }
            | Op::AffineSelect { out, .. }
            | Op::Custom { out, .. } => {
                for operand in uses {
                    let access = operand.access;
                    need(access.partitions == out.partitions, operand.name, &|| {
                        partitions(access, out)
                    });
                    match operand.name {
                        "scale" | "bias" | "first" | "second" | "initial" | "reduce" => {
                            need(one(access), operand.name, &|| {
                                format!("{} elements a partition; there is 1", access.free())
                            });
                        }
                        "values" => need(access.free() == 8, operand.name, &|| {
                            format!("{} elements a partition; there are 8", access.free())
                        }),
                        _ => need(access.free() == out.free(), operand.name, &|| {
                            elements(access, out)
                        }),
                    }
                }
            }
            Op::Fallback { .. } | Op::Dma(_) | Op::Nop => {}
        }
        if let Op::Activation { scale: Operand1::Immediate(scale), .. } = self.op {
            need(!scale.is_nan(), "scale", &|| "the scale is not a number".to_owned());
        }
    }

    fn dma(&self, dma: &Dma, problems: &mut Vec<Problem>) {
        if dma.sizes.is_empty() || dma.sizes.contains(&0) {
            self.say(problems, "", "a transfer of nothing".to_owned());
        }
        let sides = [("from", &dma.from), ("to", &dma.to)];
        for (name, side) in sides {
            let rank = match side {
                Side::Far { strides, .. } => strides.len(),
                Side::Near { steps, .. } => steps.len(),
            };
            if rank != dma.sizes.len() {
                let message = format!("{rank} strides for {} sizes", dma.sizes.len());
                self.say(problems, name, message);
            }
            let Side::Far { operand, .. } = side else { continue };
            let Some(declared) = self.kernel.operands.get(usize::from(*operand)) else {
                let message =
                    format!("operand {operand}; there are {}", self.kernel.operands.len());
                self.tell(problems, Kind::Declaration, name, message);
                continue;
            };
            if declared.dtype.bytes() != dma.dtype.bytes() {
                let message =
                    format!("%{} is {}, not {}", declared.name, declared.dtype, dma.dtype);
                self.tell(problems, Kind::Declaration, name, message);
            }
            let writes = name == "to";
            if writes && !declared.writes {
                let message = format!("%{} is not declared as written", declared.name);
                self.tell(problems, Kind::Declaration, name, message);
            }
            if !writes && !declared.reads && !declared.writes {
                let message = format!("%{} is not declared as read", declared.name);
                self.tell(problems, Kind::Declaration, name, message);
            }
        }
    }
}

fn partitions(access: &Access, other: &Access) -> String {
    format!("{} partitions; the other operand has {}", access.partitions, other.partitions)
}

fn elements(access: &Access, other: &Access) -> String {
    format!("{} elements a partition; the other operand has {}", access.free(), other.free())
}
