//! Carries a kernel's streams out in one legal order, and asks of every access whether any other legal order would differ.

use super::footprint::{self, Region, Regions};
use super::operands::{self, Use};
use super::order::{ENGINES, Instance, Knowledge, Token};
use super::shadow::{Pieces, Shadow};
use super::stream::{self, Cursor, Sampling, Values};
use super::{Kind, Limits, Place, Problem, Report};
use crate::isa::Op;
use crate::program::{Engine, Instruction, Kernel, Side, Space};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

/// Kernels of more executed instructions than this are sampled.
const FOLLOWED: u64 = 60_000;
/// Where a sample shows something, kernels of up to so many are followed whole.
const WHOLE: u64 = 3_000_000;
/// Samples of more than this are not followed at all.
const SAMPLED: u64 = 600_000;
/// Tensors in HBM of more pieces than this are followed without their contents.
const CELLS: i64 = 1 << 24;

const ORDER: [Engine; ENGINES] =
    [Engine::Tensor, Engine::Vector, Engine::Scalar, Engine::GpSimd, Engine::Sync];

/// The values of scalar parameters that a kernel is followed with: all least, and all greatest.
pub(super) fn scalar_choices(kernel: &Kernel) -> Vec<Vec<(usize, i64)>> {
    let ranges: Vec<(usize, (i64, i64))> = kernel
        .vars
        .iter()
        .enumerate()
        .filter_map(|(at, var)| var.range.map(|range| (at, range)))
        .collect();
    let low: Vec<_> = ranges.iter().map(|&(at, (low, _))| (at, low)).collect();
    let high: Vec<_> = ranges.iter().map(|&(at, (_, high))| (at, high)).collect();
    if low == high { vec![low] } else { vec![low, high] }
}

/// Follows one kernel.
pub(super) fn check(
    kernel: &Kernel,
    limits: &Limits,
    scalars: &[(usize, i64)],
    problems: &mut Vec<Problem>,
) -> Report {
    let values = Values::new(kernel.vars.len(), scalars);
    let length = |sampling| -> u64 {
        let mut values = values.clone();
        let lengths = kernel.streams.values();
        lengths
            .map(|items| stream::length(items, &mut values, sampling, WHOLE))
            .fold(0, u64::saturating_add)
    };
    let whole = length(Sampling::All);
    if whole <= FOLLOWED {
        return follow(kernel, limits, &values, Sampling::All, problems);
    }
    let skipped = Report { instructions: 0, sampled: 1 };
    let Some(turns) = stream::common_turns(kernel) else { return skipped };
    let sampling = Sampling::Turns(turns);
    if length(sampling) > SAMPLED {
        return skipped;
    }
    let mut found = Vec::new();
    let report = follow(kernel, limits, &values, sampling, &mut found);
    if found.is_empty() {
        return report;
    }
    // A sample has fewer iterations than tokens count on, where those are for a whole loop: only the whole decides.
    if whole <= WHOLE {
        return follow(kernel, limits, &values, Sampling::All, problems);
    }
    if kernel.semaphores.iter().all(|info| u64::from(info.initial) <= turns) {
        problems.append(&mut found);
    }
    report
}

fn follow(
    kernel: &Kernel,
    limits: &Limits,
    values: &Values,
    sampling: Sampling,
    problems: &mut Vec<Problem>,
) -> Report {
    let numbers: Vec<BTreeMap<usize, usize>> = ORDER
        .iter()
        .map(|engine| {
            kernel.streams.get(engine).map(|items| stream::number(items)).unwrap_or_default()
        })
        .collect();
    let cursors: Vec<Cursor<'_>> = ORDER
        .iter()
        .zip(&numbers)
        .map(|(engine, numbers)| {
            let items = kernel.streams.get(engine).map(Vec::as_slice).unwrap_or_default();
            Cursor::new(items, numbers, values.clone(), sampling)
        })
        .collect();
    let mut run = Run::new(kernel, limits, cursors, sampling != Sampling::All, problems);
    if run.survey() {
        run.follow();
        run.close();
    }
    Report {
        instructions: run.instances.len() as u64,
        sampled: usize::from(sampling != Sampling::All),
    }
}

struct Run<'a> {
    kernel: &'a Kernel,
    limits: &'a Limits,
    cursors: Vec<Cursor<'a>>,
    pending: Vec<Option<(&'a Instruction, usize)>>,
    known: Vec<Knowledge>,
    sequences: [u32; ENGINES],
    instances: Vec<Instance>,
    /// The instructions of each stream, by number.
    instructions: Vec<Vec<&'a Instruction>>,
    sbuf: Shadow,
    psum: Shadow,
    far: Vec<Option<Shadow>>,
    tokens: Vec<VecDeque<Token>>,
    sent: Vec<u32>,
    sender: Vec<Option<usize>>,
    receiver: Vec<Option<usize>>,
    is_sample: bool,
    told: BTreeSet<(Kind, usize, usize, &'static str, usize, usize)>,
    problems: &'a mut Vec<Problem>,
}

/// Where a region lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Memory {
    Sbuf,
    Psum,
    Far(u16),
}

/// One access of an executed instruction.
struct Touch {
    memory: Memory,
    regions: Regions,
    how: Use,
    name: &'static str,
    width: u8,
}

impl<'a> Run<'a> {
    fn new(
        kernel: &'a Kernel,
        limits: &'a Limits,
        cursors: Vec<Cursor<'a>>,
        is_sample: bool,
        problems: &'a mut Vec<Problem>,
    ) -> Run<'a> {
        let (semaphores, operands) = (kernel.semaphores.len(), kernel.operands.len());
        let instructions = ORDER
            .iter()
            .map(|engine| {
                let mut found = Vec::new();
                if let Some(items) = kernel.streams.get(engine) {
                    stream::visit(items, &mut |instruction| found.push(instruction));
                }
                found
            })
            .collect();
        let initial = |info: &crate::program::SemaphoreInfo| {
            std::iter::repeat_n(None, usize::from(info.initial)).collect()
        };
        Run {
            kernel,
            limits,
            cursors,
            pending: vec![None; ENGINES],
            known: vec![Knowledge::nothing(semaphores, operands); ENGINES],
            sequences: [0; ENGINES],
            instances: Vec::new(),
            instructions,
            sbuf: Pieces::default().shadow(),
            psum: Pieces::default().shadow(),
            far: Vec::new(),
            tokens: kernel.semaphores.iter().map(initial).collect(),
            sent: vec![0; semaphores],
            sender: vec![None; semaphores],
            receiver: vec![None; semaphores],
            is_sample,
            told: BTreeSet::new(),
            problems,
        }
    }

    /// Looks at every region before anything is followed: positions are inside their memories, and the shadows learn
    /// which pieces to keep. Whether all is inside.
    fn survey(&mut self) -> bool {
        let before = self.problems.len();
        let (mut sbuf, mut psum) = (Pieces::default(), Pieces::default());
        let mut far = vec![Pieces::default(); self.kernel.operands.len()];
        for engine in 0..ENGINES {
            let start = self.cursors[engine].clone();
            while let Some((instruction, number)) = self.cursors[engine].next() {
                for touch in touches(instruction, &self.cursors[engine].values, self.kernel) {
                    for region in &touch.regions {
                        if !self.is_inside(engine, number, &instruction.op, &touch, region) {
                            continue;
                        }
                        match touch.memory {
                            Memory::Sbuf => sbuf.see(region),
                            Memory::Psum => psum.see(region),
                            Memory::Far(operand) => far[usize::from(operand)].see(region),
                        }
                    }
                }
            }
            self.cursors[engine] = start;
        }
        if self.problems.len() > before {
            return false;
        }
        self.sbuf = sbuf.shadow();
        self.psum = psum.shadow();
        self.far = far
            .iter()
            .zip(&self.kernel.operands)
            .map(|(pieces, operand)| {
                (operand.writes && pieces.cells() <= CELLS).then(|| pieces.shadow())
            })
            .collect();
        true
    }

    fn is_inside(
        &mut self,
        engine: usize,
        number: usize,
        op: &Op,
        touch: &Touch,
        region: &Region,
    ) -> bool {
        let (low, high) = region.hull();
        let bank = i64::from(self.limits.bank_bytes);
        let (bytes, what) = match touch.memory {
            Memory::Sbuf => (i64::from(self.kernel.sbuf_bytes), "the kernel's SBUF".to_owned()),
            Memory::Psum => {
                (i64::from(self.kernel.psum_banks) * bank, "the kernel's PSUM".to_owned())
            }
            Memory::Far(operand) => {
                let operand = &self.kernel.operands[usize::from(operand)];
                let elements = i64::try_from(operand.elements).unwrap_or(i64::MAX);
                (
                    elements.saturating_mul(operand.dtype.bytes() as i64),
                    format!("%{}", operand.name),
                )
            }
        };
        let mut message = None;
        if low < 0 || high > bytes {
            message = Some(format!("bytes {low}..{high} of {what}, which has {bytes}"));
        }
        let rows = match touch.memory {
            Memory::Far(_) => 1,
            Memory::Sbuf | Memory::Psum => i64::from(self.limits.partitions),
        };
        if region.first < 0 || region.end > rows {
            message =
                Some(format!("partitions {}..{}; there are {rows}", region.first, region.end));
        }
        let is_tensor = matches!(op, Op::Matmul { .. } | Op::Transpose { .. });
        if touch.memory == Memory::Psum
            && is_tensor
            && self.limits.generation < 4
            && low.div_euclid(bank) != (high - 1).div_euclid(bank)
        {
            message =
                Some(format!("bytes {low}..{high} cross from one PSUM bank of {bank} to the next"));
        }
        if !matches!(op, Op::Dma(_)) && !matches!(touch.memory, Memory::Far(_)) {
            let count = region.end - region.first;
            let multiple = match count {
                0..=32 => 32,
                33..=64 => 64,
                _ => 128,
            };
            if region.first.rem_euclid(multiple) != 0 {
                let first = region.first;
                message = Some(format!(
                    "{count} partitions from {first}; they start at multiples of {multiple}"
                ));
            }
        }
        let Some(message) = message else { return true };
        self.tell(Kind::Limit, (engine, number), touch.name, None, message);
        false
    }

    /// Carries out what can be carried out, engine by engine, until nothing moves.
    fn follow(&mut self) {
        loop {
            let mut moved = false;
            for engine in 0..ENGINES {
                while self.problems.len() < super::TOLD {
                    if self.pending[engine].is_none() {
                        self.pending[engine] = self.cursors[engine].next();
                    }
                    let Some((instruction, number)) = self.pending[engine] else { break };
                    if self.missing(instruction).is_some() {
                        break;
                    }
                    self.execute(engine, instruction, number);
                    self.pending[engine] = None;
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// The first semaphore that has too few tokens for an instruction.
    fn missing(&self, instruction: &Instruction) -> Option<u16> {
        let wanted =
            |semaphore: u16| instruction.waits.iter().filter(|other| other.0 == semaphore).count();
        let short =
            |semaphore: &u16| self.tokens[usize::from(*semaphore)].len() < wanted(*semaphore);
        instruction.waits.iter().map(|semaphore| semaphore.0).find(short)
    }

    fn execute(&mut self, engine: usize, instruction: &'a Instruction, number: usize) {
        let semaphores = self.kernel.semaphores.len();
        for semaphore in &instruction.waits {
            let at = usize::from(semaphore.0);
            self.one_engine(engine, number, at, true);
            if let Some(Some(token)) = self.tokens[at].pop_front() {
                self.known[engine].join(&token);
            }
        }
        for &operand in &instruction.calls {
            self.known[engine].learn_call(semaphores, operand);
        }
        let sequence = self.sequences[engine];
        self.sequences[engine] += 1;
        if instruction.after {
            self.known[engine].learn_compute(engine, sequence);
        }
        let id = self.instances.len() as u32;
        let is_dma = matches!(instruction.op, Op::Dma(_));
        self.instances.push(Instance {
            engine: engine as u8,
            sequence,
            number: number as u32,
            is_dma,
            signals: SmallVec::new(),
            was_read: false,
            lost_by: None,
            torn_by: None,
        });
        for touch in touches(instruction, &self.cursors[engine].values, self.kernel) {
            self.touch(engine, number, id, &touch, instruction);
        }
        for semaphore in &instruction.signals {
            let at = usize::from(semaphore.0);
            self.one_engine(engine, number, at, false);
            self.sent[at] += 1;
            let count = self.sent[at];
            self.instances[id as usize].signals.push((semaphore.0, count));
        }
        if instruction.signals.is_empty() {
            return;
        }
        let mut knowledge = self.known[engine].clone();
        if !is_dma && instruction.op != Op::Nop {
            knowledge.learn_compute(engine, sequence + 1);
        }
        for &(semaphore, count) in &self.instances[id as usize].signals {
            knowledge.learn_tokens(semaphore, count);
        }
        let knowledge = Rc::new(knowledge);
        for semaphore in &instruction.signals {
            self.tokens[usize::from(semaphore.0)].push_back(Some(Rc::clone(&knowledge)));
        }
    }

    /// Tokens have an order only where one engine sends them and one takes them.
    fn one_engine(&mut self, engine: usize, number: usize, semaphore: usize, takes: bool) {
        let table = if takes { &mut self.receiver } else { &mut self.sender };
        match table[semaphore] {
            None => table[semaphore] = Some(engine),
            Some(other) if other != engine => {
                let name = &self.kernel.semaphores[semaphore].name;
                let does = if takes { "takes tokens of" } else { "signals" };
                let other = super::engine_name(ORDER[other]);
                let message =
                    format!("it {does} ${name}, and so does {other}: their order is open");
                self.tell(Kind::Semaphore, (engine, number), "", None, message);
            }
            Some(_) => {}
        }
    }

    fn touch(
        &mut self,
        engine: usize,
        number: usize,
        id: u32,
        touch: &Touch,
        instruction: &Instruction,
    ) {
        if let Memory::Far(operand) = touch.memory
            && !self.known[engine].knows_call(self.kernel.semaphores.len(), operand)
        {
            let name = &self.kernel.operands[usize::from(operand)].name;
            let message = format!("it reaches %{name} before anything has waited for its call");
            self.tell(Kind::Race, (engine, number), touch.name, None, message);
        }
        let Some(mut shadow) = self.take(touch.memory) else { return };
        shadow.tidy();
        for region in &touch.regions {
            let states = shadow.states_in(region);
            for &state in &states {
                let state = shadow.state(state).clone();
                let who = (engine, number, id);
                if touch.how != Use::Write {
                    self.see_read(who, touch, &state, instruction);
                }
                if touch.how != Use::Read {
                    self.see_write(who, touch, &state, region);
                }
            }
            match touch.how {
                Use::Read => {
                    let (known, instances) = (&self.known[engine], &self.instances);
                    let me = &instances[id as usize];
                    shadow.read(region, &states, id, &|other| {
                        let other = &instances[other as usize];
                        !known.knows(other) && !in_order(other, me)
                    });
                }
                Use::Write | Use::Accumulate => {
                    let twice = shadow.write(region, id, touch.width);
                    if twice {
                        let message = "it writes one place twice".to_owned();
                        self.tell(Kind::Element, (engine, number), touch.name, None, message);
                    }
                }
            }
        }
        self.give_back(touch.memory, shadow);
    }

    fn take(&mut self, memory: Memory) -> Option<Shadow> {
        let nothing = || Pieces::default().shadow();
        match memory {
            Memory::Sbuf => Some(std::mem::replace(&mut self.sbuf, nothing())),
            Memory::Psum => Some(std::mem::replace(&mut self.psum, nothing())),
            Memory::Far(operand) => self.far[usize::from(operand)].take(),
        }
    }

    fn give_back(&mut self, memory: Memory, shadow: Shadow) {
        match memory {
            Memory::Sbuf => self.sbuf = shadow,
            Memory::Psum => self.psum = shadow,
            Memory::Far(operand) => self.far[usize::from(operand)] = Some(shadow),
        }
    }

    fn see_read(
        &mut self,
        (engine, number, id): (usize, usize, u32),
        touch: &Touch,
        state: &super::shadow::State,
        instruction: &Instruction,
    ) {
        let place = (engine, number);
        let Some(writer) = state.writer else {
            let declared = match touch.memory {
                Memory::Sbuf | Memory::Psum => false,
                Memory::Far(operand) => self.kernel.operands[usize::from(operand)].reads,
            };
            if !declared && !self.is_sample {
                let message = match touch.memory {
                    Memory::Sbuf => "it reads SBUF that nothing has written".to_owned(),
                    Memory::Psum => "it reads PSUM that nothing has written".to_owned(),
                    Memory::Far(operand) => {
                        let name = &self.kernel.operands[usize::from(operand)].name;
                        format!("it reads %{name} where nothing has written it")
                    }
                };
                self.tell(Kind::Uninitialized, place, touch.name, None, message);
            }
            return;
        };
        if writer == id {
            return;
        }
        let (writer_engine, writer_number, torn_by, lands) = {
            let (me, writer) = (&self.instances[id as usize], &self.instances[writer as usize]);
            let sums = touch.how == Use::Accumulate && in_order(writer, me);
            let lands = sums || self.known[engine].knows(writer);
            (usize::from(writer.engine), writer.number as usize, writer.torn_by, lands)
        };
        self.instances[writer as usize].was_read = true;
        let other = Some((writer_engine, writer_number));
        if !lands {
            let message = if writer_engine == engine {
                "it reads what an earlier instruction of its engine writes, without waiting for it"
            } else {
                "it reads what another engine writes, without waiting for it"
            };
            self.tell(Kind::Race, place, touch.name, other, message.to_owned());
        }
        if state.width != 0 && touch.width != 0 && state.width != touch.width {
            let (read, written) = (touch.width, state.width);
            let message = format!("it reads elements of {read} bytes where {written} were written");
            self.tell(Kind::Element, place, touch.name, other, message);
        }
        if touch.how == Use::Accumulate && self.limits.generation < 4 {
            let op = &self.instructions[writer_engine][writer_number].op;
            if !matches!(op, Op::Matmul { .. }) {
                let message = "it adds to what is no sum of TensorE".to_owned();
                self.tell(Kind::Limit, place, touch.name, other, message);
            }
        }
        if let Some(by) = torn_by
            && !self.is_sample
            && by != id
        {
            let by = &self.instances[by as usize];
            let other = Some((usize::from(by.engine), by.number as usize));
            let message = "it reads a value that another one has partly overwritten".to_owned();
            self.tell(Kind::Overlap, place, touch.name, other, message);
        }
        // An instruction that only moves tokens reads nothing, so there is nothing more to see.
        debug_assert!(instruction.op != Op::Nop);
    }

    fn see_write(
        &mut self,
        (engine, number, id): (usize, usize, u32),
        touch: &Touch,
        state: &super::shadow::State,
        region: &Region,
    ) {
        let place = (engine, number);
        for (&before, is_reader) in state
            .writer
            .iter()
            .map(|writer| (writer, false))
            .chain(state.readers.iter().map(|reader| (reader, true)))
        {
            if before == id {
                if !is_reader {
                    let message = "it writes one place twice".to_owned();
                    self.tell(Kind::Element, place, touch.name, None, message);
                }
                continue;
            }
            let (me, other) = (&self.instances[id as usize], &self.instances[before as usize]);
            if in_order(other, me) || self.known[engine].knows(other) {
                continue;
            }
            let other = Some((usize::from(other.engine), other.number as usize));
            let message = if is_reader {
                "it overwrites what the other may still be reading"
            } else {
                "it overwrites what the other may still be writing"
            };
            self.tell(Kind::Race, place, touch.name, other, message.to_owned());
        }
        let Some(writer) = state.writer.filter(|&writer| writer != id) else { return };
        let writer = &mut self.instances[writer as usize];
        if !writer.was_read && writer.lost_by.is_none() && touch.how == Use::Write {
            writer.lost_by = Some(id);
        }
        if let Some(extent) = &state.extent
            && !matches!(touch.memory, Memory::Far(_))
            && !extent.spans(region)
            && !region.spans(extent)
            && writer.torn_by.is_none()
        {
            writer.torn_by = Some(id);
        }
    }

    /// What must hold at the end.
    fn close(&mut self) {
        if self.problems.len() >= super::TOLD {
            return;
        }
        let waiting: Vec<(usize, &Instruction, usize)> = (0..ENGINES)
            .filter_map(|engine| {
                self.pending[engine].map(|(instruction, number)| (engine, instruction, number))
            })
            .collect();
        if let Some(&(engine, _, number)) = waiting.first() {
            let stuck: Vec<String> = waiting
                .iter()
                .map(|&(engine, instruction, number)| {
                    let semaphore = self.missing(instruction).unwrap_or_default();
                    let name = &self.kernel.semaphores[usize::from(semaphore)].name;
                    format!("{} #{number} for ${name}", super::engine_name(ORDER[engine]))
                })
                .collect();
            let message = format!("engines wait for ever: {}", stuck.join(", "));
            self.tell(Kind::Deadlock, (engine, number), "", None, message);
            return;
        }
        for (at, info) in self.kernel.semaphores.iter().enumerate() {
            let (left, initial) = (self.tokens[at].len(), usize::from(info.initial));
            if left != initial {
                self.problems.push(Problem {
                    kernel: self.kernel.name.clone(),
                    kind: Kind::Semaphore,
                    instruction: None,
                    operand: "",
                    other: None,
                    message: format!(
                        "${} ends with {left} tokens; it began with {initial}",
                        info.name
                    ),
                });
            }
        }
        if self.is_sample {
            return;
        }
        for at in 0..self.instances.len() {
            let instance = &self.instances[at];
            let Some(by) = instance.lost_by.filter(|_| !instance.was_read) else { continue };
            let place = (usize::from(instance.engine), instance.number as usize);
            if operands::may_be_lost(&self.instructions[place.0][place.1].op) {
                continue;
            }
            let by = &self.instances[by as usize];
            // A tensor may be copied and then updated in part, by statements of their own.
            let updated = matches!(&self.instructions[place.0][place.1].op,
                crate::isa::Op::Dma(dma) if matches!(dma.to, crate::program::Side::Far { .. }));
            // What a loop carries may have no reader after its last iteration, before the loop starts anew.
            let by_place = (usize::from(by.engine), by.number as usize);
            let by_op = &self.instructions[by_place.0][by_place.1].op;
            if updated && by_place != place || matches!(by_op, crate::isa::Op::Memset { .. }) {
                continue;
            }
            let other = Some((usize::from(by.engine), by.number as usize));
            let message = "what it writes is overwritten before anything reads it".to_owned();
            self.tell(Kind::Lost, place, "", other, message);
        }
    }

    fn tell(
        &mut self,
        kind: Kind,
        (engine, number): (usize, usize),
        operand: &'static str,
        other: Option<(usize, usize)>,
        message: String,
    ) {
        let (other_engine, other_number) = other.unwrap_or((usize::MAX, usize::MAX));
        let key = (kind, engine, number, operand, other_engine, other_number);
        if self.problems.len() >= super::TOLD || !self.told.insert(key) {
            return;
        }
        let cursor = &self.cursors[engine];
        // A problem found at the end is not about one execution.
        let at = match kind {
            Kind::Lost => Vec::new(),
            Kind::Limit
            | Kind::Uninitialized
            | Kind::Race
            | Kind::Overlap
            | Kind::Element
            | Kind::Deadlock
            | Kind::Semaphore
            | Kind::Declaration => cursor
                .around()
                .map(|var| {
                    let name = self.kernel.vars.get(usize::from(var.0));
                    (name.map(|info| info.name.clone()).unwrap_or_default(), cursor.values.get(var))
                })
                .collect(),
        };
        self.problems.push(Problem {
            kernel: self.kernel.name.clone(),
            kind,
            instruction: Some(self.place(engine, number, at)),
            operand,
            other: other.map(|(engine, number)| self.place(engine, number, Vec::new())),
            message,
        });
    }

    fn place(&self, engine: usize, number: usize, at: Vec<(String, i64)>) -> Place {
        let instruction = self.instructions[engine][number];
        let source = self.kernel.sources.get(usize::from(instruction.source));
        Place {
            engine: ORDER[engine],
            index: number,
            mnemonic: operands::mnemonic(&instruction.op),
            source: source.cloned().unwrap_or_default(),
            at,
        }
    }
}

/// Whether the later of two executions reads and writes after the earlier one by itself: compute of one engine.
fn in_order(earlier: &Instance, later: &Instance) -> bool {
    earlier.engine == later.engine && !earlier.is_dma && !later.is_dma
}

/// Everything that an execution touches, reads first.
fn touches(instruction: &Instruction, values: &Values, kernel: &Kernel) -> Vec<Touch> {
    let mut found: Vec<Touch> = operands::of(&instruction.op)
        .into_iter()
        .map(|operand| {
            let memory = match operand.access.space {
                Space::Sbuf => Memory::Sbuf,
                Space::Psum => Memory::Psum,
            };
            // A fill may be read as any type.
            let is_fill = matches!(instruction.op, Op::Memset { .. });
            let width = if is_fill { 0 } else { operand.access.dtype.bytes() as u8 };
            let regions = footprint::of_access(operand.access, values);
            Touch { memory, regions, how: operand.how, name: operand.name, width }
        })
        .collect();
    if let Op::Dma(dma) = &instruction.op {
        let (from, to) = footprint::of_dma(dma, values);
        let width = dma.dtype.bytes() as u8;
        let memory = |side: &Side| match side {
            Side::Far { operand, .. } => Memory::Far(*operand),
            Side::Near { space: Space::Sbuf, .. } => Memory::Sbuf,
            Side::Near { space: Space::Psum, .. } => Memory::Psum,
        };
        let to_memory = memory(&dma.to);
        found.push(Touch {
            memory: memory(&dma.from),
            regions: from,
            how: Use::Read,
            name: "from",
            width,
        });
        if dma.combine.is_some() {
            found.push(Touch {
                memory: to_memory,
                regions: to.clone(),
                how: Use::Read,
                name: "to",
                width,
            });
        }
        found.push(Touch { memory: to_memory, regions: to, how: Use::Write, name: "to", width });
    }
    if let Op::Fallback { .. } = instruction.op {
        for how in [Use::Read, Use::Write] {
            for (at, operand) in kernel.operands.iter().enumerate() {
                let does = if how == Use::Read { operand.reads } else { operand.writes };
                let bytes = i64::try_from(operand.elements)
                    .unwrap_or(i64::MAX)
                    .saturating_mul(operand.dtype.bytes() as i64);
                if does && bytes > 0 {
                    let region =
                        Region { first: 0, end: 1, start: 0, run: bytes, dims: SmallVec::new() };
                    let regions = SmallVec::from_elem(region, 1);
                    let memory = Memory::Far(at as u16);
                    found.push(Touch { memory, regions, how, name: "operand", width: 0 });
                }
            }
        }
    }
    found
}
