//! The event loop: engines start instructions in order, whichever can start first; everything else follows from that.
//!
//! Starts never go back in time: what an instruction makes possible starts no earlier than it does itself. So a token that is
//! there when an instruction starts is the earliest that it can get, and times before "now" are all alike.

use super::clock::{Clock, Ticks};
use super::code::{self, Fixed, KernelCode, Kind, Moved, PSUM_PORT, SBUF_PORT, Timed, Word};
use super::feed::{Feed, Feeder};
use super::report::{Counter, Counters, Event, Lane};
use super::skip::Watch;
use super::throttle::Throttle;
use super::{Options, SimulateError};
use crate::isa::Op;
use crate::machine::Machine;
use crate::program::{Engine, Index, Program, Semaphore, Term, Test};
use smallvec::SmallVec;
use std::collections::VecDeque;
use systole_compiler::tensor::Tensor as Value;

/// What carries out instructions on data.
pub(super) trait Data {
    /// Does what an instruction says.
    fn execute(
        &mut self,
        timed: &Timed<'_>,
        engine: Engine,
        call: &Call,
        kernel: &KernelCode<'_>,
        value: &dyn Fn(Term) -> i64,
    ) -> Result<(), SimulateError>;
    /// The only element of a tensor, where it is known.
    fn scalar(&self, tensor: u32) -> Option<i64>;
    /// Writes the number of an iteration.
    fn set_counter(&mut self, tensor: u32, value: i64);
    /// What a call gives to an exchange.
    fn given(&self, call: &Call, kernel: &KernelCode<'_>) -> Result<Option<Value>, SimulateError>;
    /// What a call gets from an exchange.
    fn take(
        &mut self,
        call: &Call,
        kernel: &KernelCode<'_>,
        value: &Value,
    ) -> Result<(), SimulateError>;
}

/// A kernel that has been called.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) kernel: usize,
    pub(super) operands: Vec<u32>,
    pub(super) scalars: SmallVec<[i64; 2]>,
    pub(super) sbuf: (u32, u32),
    pub(super) psum: (u8, u8),
    pub(super) step: usize,
    /// Tokens of each semaphore, with the times from which they can be taken.
    pub(super) tokens: Vec<VecDeque<Ticks>>,
    /// Earlier calls that must be complete before this one starts, because it uses their on-chip memory.
    pub(super) space: SmallVec<[usize; 2]>,
    /// For each operand, earlier calls that must be complete before it is touched.
    pub(super) data: Vec<SmallVec<[usize; 2]>>,
    /// Streams that are not at their end.
    pub(super) open: u8,
    /// Transfers whose data do not move yet.
    pub(super) pending: u32,
    pub(super) first: Option<Ticks>,
    pub(super) latest: Ticks,
    pub(super) completed: Option<Ticks>,
    /// No instruction starts earlier.
    pub(super) floor: Ticks,
    /// Of an exchange, when this rank was ready for it.
    pub(super) began: Ticks,
}

/// A loop that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Active {
    pub(super) index: u32,
    pub(super) iteration: u64,
    pub(super) trips: u64,
}

/// One engine.
#[derive(Debug, Default)]
pub(super) struct Runner {
    pub(super) call: usize,
    pub(super) entered: bool,
    pub(super) pc: u32,
    pub(super) loops: SmallVec<[Active; 8]>,
    pub(super) values: Vec<i64>,
    pub(super) iterations: Vec<u64>,
    pub(super) free: Ticks,
    pub(super) began: Ticks,
    pub(super) complete: Ticks,
    pub(super) next: Next,
}

/// What an engine does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Next {
    /// It must look for its next instruction.
    #[default]
    Unknown,
    /// It knows the instruction, but not when it can start.
    Found(u32),
    /// It can start an instruction at a time.
    Ready(u32, Ticks),
    /// It waits for another engine with an instruction.
    Blocked(u32),
    /// There is no call for it yet.
    Idle,
}

/// A transfer between its trigger and its first data.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) data: Ticks,
    pub(super) call: usize,
    pub(super) engine: usize,
    pub(super) timed: u32,
    queue: u8,
    moved: Moved,
}

/// A sequencer runs ahead of its issue queue by so many transfers.
const QUEUE_DEPTH: u64 = 64;

/// Everything that the time of later instructions depends on.
#[derive(Debug)]
pub(super) struct Simulation<'p> {
    pub(super) program: &'p Program,
    pub(super) machine: &'p Machine,
    pub(super) clock: Clock,
    pub(super) code: &'p [KernelCode<'p>],
    pub(super) calls: Vec<Call>,
    pub(super) engines: [Runner; 5],
    pub(super) queues: Vec<Ticks>,
    pub(super) dma: Vec<Ticks>,
    /// In the order of their data.
    pub(super) pending: VecDeque<Pending>,
    pub(super) hbm: Ticks,
    /// The ports, each with the engine that used it last.
    pub(super) sbuf_port: (Ticks, usize),
    pub(super) psum_port: (Ticks, usize),
    pub(super) throttle: Throttle,
    pub(super) functions: Option<u8>,
    pub(super) now: Ticks,
    pub(super) finish: Ticks,
    pub(super) counters: Counters,
    pub(super) events: Vec<Event>,
    pub(super) watch: Watch,
    /// Calls before this one are all complete.
    pub(super) oldest: usize,
    /// Exchanges that have not begun, in order.
    waiting: VecDeque<usize>,
    /// When the exchanges so far are complete: one begins after the other.
    pub(super) exchanged: Ticks,
    timing: Timing,
    options: &'p Options<'p>,
    executed: u64,
}

/// Constants of the machine in units of time.
#[derive(Debug)]
pub(super) struct Timing {
    wake: Ticks,
    trigger: Ticks,
    arrive: Ticks,
    issue: Ticks,
    software: Ticks,
    table: Ticks,
    pub(super) longest_load: Ticks,
}

impl<'p> Simulation<'p> {
    pub(super) fn new(
        program: &'p Program,
        machine: &'p Machine,
        code: &'p [KernelCode<'p>],
        options: &'p Options<'p>,
    ) -> Simulation<'p> {
        let clock = Clock::of(machine);
        let loads = code.iter().flat_map(|kernel| {
            kernel.streams.iter().flat_map(|stream| stream.timed.iter().map(|timed| timed.load))
        });
        let timing = Timing {
            wake: clock.nanoseconds(machine.sync.semaphore_ns),
            trigger: clock.nanoseconds(machine.dma.trigger_ns),
            arrive: clock.nanoseconds(machine.dma.complete_ns),
            issue: clock.nanoseconds(machine.dma.issue_ns),
            software: clock.nanoseconds(machine.dma.software_issue_ns),
            table: clock.nanoseconds(machine.scalar.table_load_ns),
            longest_load: loads.max().unwrap_or(0),
        };
        let sources =
            code.last().map_or(0, |last| last.first_source + last.kernel.sources.len() + 1);
        let start = clock.nanoseconds(machine.start_us * 1000.0);
        let mut simulation = Simulation {
            program,
            machine,
            clock,
            code,
            calls: Vec::new(),
            engines: Default::default(),
            queues: vec![0; machine.dma.issue_queue_count.max(1) as usize],
            dma: vec![0; machine.dma.engine_count.max(1) as usize],
            pending: VecDeque::new(),
            hbm: 0,
            sbuf_port: (0, 5),
            psum_port: (0, 5),
            throttle: Throttle::new(machine, &clock),
            functions: None,
            now: start,
            finish: start,
            counters: Counters::new(sources),
            events: Vec::new(),
            watch: Watch::default(),
            oldest: 0,
            waiting: VecDeque::new(),
            exchanged: 0,
            timing,
            options,
            executed: 0,
        };
        for engine in &mut simulation.engines {
            engine.free = start;
            engine.began = start;
        }
        simulation
    }

    /// Whether there is somebody to exchange with.
    pub(super) fn exchanges(&self) -> bool {
        self.options.exchanger.is_some()
    }

    pub(super) fn timing(&self) -> &Timing {
        &self.timing
    }

    /// Runs all calls that the feeder gives.
    pub(super) fn run(
        &mut self,
        feeder: &mut Feeder<'p>,
        mut data: Option<&mut dyn Data>,
    ) -> Result<(), SimulateError> {
        loop {
            if self.exchange(&mut data)? {
                continue;
            }
            let mut best: Option<(Ticks, usize)> = None;
            for engine in 0..5 {
                match self.engines[engine].next {
                    Next::Unknown => self.look(engine, feeder, &mut data)?,
                    Next::Found(timed) => {
                        self.engines[engine].next = self.candidate(engine, timed);
                    }
                    Next::Ready(..) | Next::Blocked(_) | Next::Idle => {}
                }
                if let Next::Ready(_, start) = self.engines[engine].next {
                    let start = self.after_ports(engine, start);
                    if best.is_none_or(|(time, _)| start < time) {
                        best = Some((start, engine));
                    }
                }
            }
            // Data that begin to move before any instruction starts.
            if let Some(first) = self.pending.front()
                && best.is_none_or(|(start, _)| first.data <= start)
            {
                self.move_data();
                continue;
            }
            match best {
                Some((start, engine)) => self.start(engine, start, &mut data)?,
                // Engines that looked for work may have come upon an exchange.
                None if self.exchange(&mut data)? => {}
                None => {
                    if !self.resume(feeder, &mut data)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Nothing can start: the end, a decision of the host that waited for all calls, or a deadlock.
    fn resume(
        &mut self,
        feeder: &mut Feeder<'p>,
        data: &mut Option<&mut dyn Data>,
    ) -> Result<bool, SimulateError> {
        let stuck = self.engines.iter().any(|engine| matches!(engine.next, Next::Blocked(_)));
        if stuck || !self.waiting.is_empty() {
            return Err(self.deadlock());
        }
        let before = self.calls.len();
        let more = self.fetch(feeder, data, true)?;
        if !more {
            return Ok(false);
        }
        for call in &mut self.calls[before..] {
            call.floor = self.finish.max(self.exchanged);
        }
        for engine in &mut self.engines {
            engine.next = Next::Unknown;
        }
        Ok(true)
    }

    /// Finds an engine's next instruction and when it can start.
    fn look(
        &mut self,
        engine: usize,
        feeder: &mut Feeder<'p>,
        data: &mut Option<&mut dyn Data>,
    ) -> Result<(), SimulateError> {
        loop {
            let at = self.engines[engine].call;
            if at == self.calls.len() && !self.fetch(feeder, data, false)? {
                self.engines[engine].next = Next::Idle;
                return Ok(());
            }
            if !self.engines[engine].entered {
                self.enter(engine);
            }
            match self.advance(engine) {
                Some(timed) => {
                    self.engines[engine].next = self.candidate(engine, timed);
                    return Ok(());
                }
                None => self.leave(engine),
            }
        }
    }

    fn enter(&mut self, engine: usize) {
        let call = &self.calls[self.engines[engine].call];
        let kernel = self.code[call.kernel].kernel;
        let runner = &mut self.engines[engine];
        runner.entered = true;
        runner.pc = 0;
        runner.loops.clear();
        runner.values.clear();
        runner.values.resize(kernel.vars.len(), 0);
        runner.iterations.clear();
        runner.iterations.resize(kernel.vars.len(), 0);
        let scalars = kernel.vars.iter().enumerate().filter(|(_, var)| var.range.is_some());
        for ((var, _), &value) in scalars.zip(&call.scalars) {
            runner.values[var] = value;
        }
    }

    fn leave(&mut self, engine: usize) {
        let at = self.engines[engine].call;
        let call = &mut self.calls[at];
        call.open &= !(1 << engine);
        self.engines[engine].call += 1;
        self.engines[engine].entered = false;
        self.engines[engine].next = Next::Unknown;
        self.complete_if_over(at);
    }

    fn complete_if_over(&mut self, at: usize) {
        let call = &self.calls[at];
        let exchanges = self.code[call.kernel].kernel.exchange.is_some();
        if call.open == 0 && call.pending == 0 && !exchanges {
            self.complete(at);
        }
    }

    /// Carries out the next exchange, where all that it waits for is complete.
    fn exchange(&mut self, data: &mut Option<&mut dyn Data>) -> Result<bool, SimulateError> {
        let Some(&at) = self.waiting.front() else { return Ok(false) };
        let call = &self.calls[at];
        let mut ready = call.floor.max(self.exchanged);
        for &earlier in call.data.iter().flatten() {
            match self.calls[earlier].completed {
                Some(time) => ready = ready.max(time),
                None => return Ok(false),
            }
        }
        self.waiting.pop_front();
        let code = &self.code[call.kernel];
        let Some(exchange) = &code.kernel.exchange else { return Ok(false) };
        let given = match data {
            Some(data) => data.given(call, code)?,
            None => None,
        };
        let ready_us = self.clock.microseconds(ready);
        let told = match self.options.exchanger {
            Some(exchanger) => exchanger.exchange(exchange, given, ready_us),
            None => super::alone(exchange, given, ready_us),
        };
        let told = told.map_err(SimulateError::Ranks)?;
        if let (Some(data), Some(value)) = (data, &told.value) {
            data.take(&self.calls[at], code, value)?;
        }
        let start = self.clock.nanoseconds(told.start_us * 1e3).max(ready);
        let end = self.clock.nanoseconds(told.end_us * 1e3).max(start);
        let call = &mut self.calls[at];
        call.first = Some(start);
        call.latest = end;
        call.began = ready;
        self.exchanged = end;
        if self.options.trace && end > start {
            self.event(Lane::Exchange, start, end, at, 0);
        }
        self.complete(at);
        Ok(true)
    }

    fn complete(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let end = call.latest.max(call.floor);
        call.completed = Some(end);
        call.tokens = Vec::new();
        while self.calls.get(self.oldest).is_some_and(|call| call.completed.is_some()) {
            self.oldest += 1;
        }
        for engine in &mut self.engines {
            engine.next = match engine.next {
                Next::Ready(timed, _) | Next::Blocked(timed) => Next::Found(timed),
                Next::Found(_) | Next::Unknown => engine.next,
                Next::Idle => Next::Unknown,
            };
        }
    }

    /// Moves over loop words to the next instruction that is not skipped; `None` at the end of the stream.
    fn advance(&mut self, engine: usize) -> Option<u32> {
        loop {
            let code = &self.code[self.calls[self.engines[engine].call].kernel];
            let stream = &code.streams[engine];
            let runner = &mut self.engines[engine];
            match stream.words.get(runner.pc as usize) {
                None => return None,
                Some(&Word::Run(timed)) => {
                    let Some((index, test)) = &stream.timed[timed as usize].instruction.when else {
                        return Some(timed);
                    };
                    if holds(*test, runner.value(index)) {
                        return Some(timed);
                    }
                    runner.pc += 1;
                }
                Some(&Word::Begin(at)) => {
                    let info = &stream.loops[at as usize];
                    let (start, end) = (runner.value(info.start), runner.value(info.end));
                    if end <= start {
                        runner.pc = info.exit;
                        continue;
                    }
                    let range = end.abs_diff(start);
                    let trips = range.div_ceil(info.step.unsigned_abs());
                    runner.values[info.var] = start;
                    runner.iterations[info.var] = 0;
                    runner.loops.push(Active { index: at, iteration: 0, trips });
                    runner.pc = info.body;
                }
                Some(&Word::End(at)) => {
                    let info = &stream.loops[at as usize];
                    let active = runner.loops.last_mut()?;
                    active.iteration += 1;
                    if active.iteration >= active.trips {
                        runner.loops.pop();
                        runner.pc = info.exit;
                        continue;
                    }
                    runner.values[info.var] = runner.values[info.var].saturating_add(info.step);
                    runner.iterations[info.var] = active.iteration;
                    runner.pc = info.body;
                    if self.options.skip && engine == code.primary {
                        self.look_for_steady_state(engine);
                    }
                }
            }
        }
    }

    /// When an instruction can start, ports apart.
    fn candidate(&mut self, engine: usize, timed: u32) -> Next {
        let runner = &self.engines[engine];
        let call = &self.calls[runner.call];
        let instruction = &self.code[call.kernel].streams[engine].timed[timed as usize];
        let mut ready = runner.began.max(call.floor);
        for &earlier in &call.space {
            match self.calls[earlier].completed {
                Some(time) => ready = ready.max(time),
                None => return Next::Blocked(timed),
            }
        }
        if instruction.instruction.after {
            ready = ready.max(runner.complete);
        }
        for &operand in &instruction.instruction.calls {
            for &earlier in call.data.get(usize::from(operand)).into_iter().flatten() {
                match self.calls[earlier].completed {
                    Some(time) => ready = ready.max(time),
                    None => return Next::Blocked(timed),
                }
            }
        }
        let waits = &instruction.instruction.waits;
        for (position, semaphore) in waits.iter().enumerate() {
            let earlier = waits[..position].iter().filter(|other| *other == semaphore).count();
            let tokens = call.tokens.get(usize::from(semaphore.0));
            match tokens.and_then(|tokens| tokens.get(earlier)) {
                Some(&time) => ready = ready.max(time),
                None => return Next::Blocked(timed),
            }
        }
        // The stationary operand loads while the product before it is under way.
        Next::Ready(timed, runner.free.max(ready + instruction.load))
    }

    fn after_ports(&self, engine: usize, start: Ticks) -> Ticks {
        let Next::Ready(timed, _) = self.engines[engine].next else { return start };
        let call = &self.calls[self.engines[engine].call];
        let ports = self.code[call.kernel].streams[engine].timed[timed as usize].ports;
        let mut start = start;
        if ports & SBUF_PORT != 0 && self.sbuf_port.1 != engine {
            start = start.max(self.sbuf_port.0);
        }
        if ports & PSUM_PORT != 0 && self.psum_port.1 != engine {
            start = start.max(self.psum_port.0);
        }
        start
    }

    /// Starts an engine's next instruction.
    fn start(
        &mut self,
        engine: usize,
        start: Ticks,
        data: &mut Option<&mut dyn Data>,
    ) -> Result<(), SimulateError> {
        let Next::Ready(position, _) = self.engines[engine].next else { return Ok(()) };
        self.executed += 1;
        if self.executed & 0xffff == 0 {
            self.check_limits()?;
        }
        self.now = start;
        let at = self.engines[engine].call;
        let code = &self.code[self.calls[at].kernel];
        let timed = &code.streams[engine].timed[position as usize];
        if let Some(data) = data {
            let runner = &self.engines[engine];
            let value = |term| runner.term(term);
            data.execute(timed, code::ENGINES[engine], &self.calls[at], code, &value)?;
        }
        let mut hold = timed.hold;
        let mut busy = timed.interval;
        match &timed.kind {
            Kind::Product => {
                hold = self.throttle.hold(start, hold, u64::from(timed.used));
                busy = hold;
            }
            Kind::Function(set) if self.functions != Some(*set) => {
                self.functions = Some(*set);
                hold += self.timing.table;
            }
            Kind::Compute | Kind::Function(_) | Kind::Transfer(_) | Kind::Edge | Kind::Nop => {}
        }
        let mut complete = start + hold + timed.latency;
        let mut moves = false;
        match &timed.kind {
            Kind::Transfer(moved) => {
                let moved = *moved;
                hold = self.trigger(engine, start, hold, moved, position);
                moves = true;
            }
            Kind::Edge => {
                let moved = self.edge(engine, timed);
                hold = self.trigger(engine, start, hold, moved, position);
                moves = true;
            }
            Kind::Nop => complete = start,
            Kind::Compute | Kind::Product | Kind::Function(_) => {}
        }
        let free = start + hold;
        if timed.ports & SBUF_PORT != 0 {
            self.sbuf_port = (self.sbuf_port.0.max(free), engine);
        }
        if timed.ports & PSUM_PORT != 0 {
            self.psum_port = (self.psum_port.0.max(free), engine);
        }
        let counters = &mut self.counters;
        counters.add(Counter::Instructions(engine), 1);
        counters.add(Counter::Active(engine), hold);
        counters.add(Counter::Flops, timed.flops);
        counters.add(Counter::ArrayFlops, timed.array_flops);
        counters.add(Counter::Source(code.first_source + timed.source, engine), hold);
        if matches!(timed.kind, Kind::Product) {
            counters.add(Counter::ArrayBusy, busy);
        }
        if self.options.trace && !matches!(timed.kind, Kind::Nop) && !moves {
            self.event(Lane::Engine(code::ENGINES[engine]), start, free, at, timed.source);
        }
        let runner = &mut self.engines[engine];
        runner.began = start;
        runner.free = free;
        runner.pc += 1;
        runner.next = Next::Unknown;
        // A transfer is awaited through semaphores; `after` means the engine's own results.
        if !moves {
            runner.complete = runner.complete.max(complete);
        }
        let call = &mut self.calls[at];
        call.first.get_or_insert(start);
        call.latest = call.latest.max(free);
        let instruction = timed.instruction;
        for semaphore in &instruction.waits {
            if let Some(tokens) = call.tokens.get_mut(usize::from(semaphore.0)) {
                tokens.pop_front();
            }
        }
        if !instruction.waits.is_empty() {
            self.look_again(at, &instruction.waits);
        }
        if moves {
            self.finish = self.finish.max(free);
        } else {
            self.signal(at, timed, complete);
        }
        Ok(())
    }

    /// An instruction is complete: its semaphores get their tokens.
    fn signal(&mut self, at: usize, timed: &Timed<'_>, complete: Ticks) {
        let call = &mut self.calls[at];
        call.latest = call.latest.max(complete);
        self.finish = self.finish.max(call.latest);
        let time = complete + self.timing.wake;
        for semaphore in &timed.instruction.signals {
            if let Some(tokens) = call.tokens.get_mut(usize::from(semaphore.0)) {
                let place = tokens.iter().rposition(|&other| other <= time).map_or(0, |p| p + 1);
                tokens.insert(place, time);
            }
        }
        if !timed.instruction.signals.is_empty() {
            self.look_again(at, &timed.instruction.signals);
        }
    }

    /// Engines in a call whose next instruction waits for one of these semaphores look when it can start.
    fn look_again(&mut self, call: usize, semaphores: &[Semaphore]) {
        for (engine, runner) in self.engines.iter_mut().enumerate() {
            let (Next::Ready(timed, _) | Next::Blocked(timed)) = runner.next else { continue };
            if runner.call != call {
                continue;
            }
            let stream = &self.code[self.calls[call].kernel].streams[engine];
            let waits = &stream.timed[timed as usize].instruction.waits;
            if waits.iter().any(|own| semaphores.contains(own)) {
                runner.next = Next::Found(timed);
            }
        }
    }

    fn edge(&self, engine: usize, timed: &Timed<'_>) -> Moved {
        let Op::Dma(dma) = &timed.instruction.op else { return Moved::default() };
        let runner = &self.engines[engine];
        let value = |term| runner.term(term);
        let sizes = code::inside(dma, &value);
        let mut partition = 0;
        for side in [&dma.from, &dma.to] {
            if let crate::program::Side::Near { partition: index, .. } = side {
                partition = u32::try_from(runner.value(index)).unwrap_or(0);
            }
        }
        code::moved(dma, &sizes, partition, self.machine, &self.clock)
    }

    /// Queues a transfer; how long its sequencer is held.
    fn trigger(
        &mut self,
        engine: usize,
        start: Ticks,
        hold: Ticks,
        moved: Moved,
        position: u32,
    ) -> Ticks {
        let call = self.engines[engine].call;
        let code = &self.code[self.calls[call].kernel];
        let timed = &code.streams[engine].timed[position as usize];
        // Two sequencers drive the generation of descriptors; the others share their queues.
        let lane = match code::ENGINES[engine] {
            Engine::Sync | Engine::Vector => 0,
            Engine::Scalar | Engine::Tensor => 1,
            Engine::GpSimd => 2,
        };
        let indirect = matches!(&timed.instruction.op, Op::Dma(dma) if dma.indirect.is_some());
        let queue = lane % self.queues.len();
        let mut hold = hold;
        let issued = if code::ENGINES[engine] == Engine::GpSimd {
            hold = hold.max(self.timing.software);
            start
        } else {
            let issue = if indirect { self.timing.software } else { self.timing.issue };
            let issued = start.max(self.queues[queue]);
            self.queues[queue] = issued + issue;
            let ahead = issued.saturating_sub(self.timing.issue.saturating_mul(QUEUE_DEPTH));
            hold = hold.max(ahead.saturating_sub(start));
            issued
        };
        let data = issued + self.timing.trigger;
        let place = self.pending.iter().rposition(|other| other.data <= data).map_or(0, |p| p + 1);
        let pending = Pending { data, call, engine, timed: position, queue: queue as u8, moved };
        self.pending.insert(place, pending);
        self.calls[call].pending += 1;
        hold
    }

    /// The first transfer's data move: as soon as its engines and the memory are free.
    fn move_data(&mut self) {
        let Some(Pending { data, call, engine, timed, queue, moved }) = self.pending.pop_front()
        else {
            return;
        };
        self.now = self.now.max(data);
        let mut end = data;
        let (first, last) = moved.engines;
        for free in &mut self.dma[usize::from(first)..usize::from(last)] {
            *free = data.max(*free) + moved.busy;
            end = end.max(*free);
        }
        if moved.hbm > 0 {
            self.hbm = self.hbm.max(data) + moved.hbm;
            end = end.max(self.hbm);
        }
        let code = &self.code[self.calls[call].kernel];
        let timed = &code.streams[engine].timed[timed as usize];
        let counters = &mut self.counters;
        counters.add(Counter::DmaBytes, moved.cost.bytes);
        counters.add(Counter::HbmRead, moved.cost.hbm_read);
        counters.add(Counter::HbmWritten, moved.cost.hbm_written);
        counters.add(Counter::DmaRows, moved.cost.rows);
        counters.add(Counter::DmaTransfers, 1);
        let width = u64::from(last - first);
        let share = moved.busy.saturating_mul(width) / self.dma.len() as u64;
        counters.add(Counter::DmaBusy, share.max(moved.hbm));
        counters.add(Counter::Source(code.first_source + timed.source, 5), share.max(moved.hbm));
        if self.options.trace {
            self.event(Lane::Queue(queue), data, end, call, timed.source);
        }
        self.signal(call, timed, end + self.timing.arrive);
        self.calls[call].pending -= 1;
        self.complete_if_over(call);
    }

    fn event(&mut self, lane: Lane, start: Ticks, end: Ticks, call: usize, source: usize) {
        const MOST: usize = 4_000_000;
        if self.events.len() < MOST {
            self.events.push(Event { lane, start, end, call: call as u32, source: source as u32 });
        }
    }

    fn check_limits(&self) -> Result<(), SimulateError> {
        if self.options.cancelled.is_some_and(|cancelled| cancelled()) {
            return Err(SimulateError::Cancelled);
        }
        if self.executed > self.options.max_instructions {
            return Err(SimulateError::Limit { instructions: self.options.max_instructions });
        }
        Ok(())
    }

    /// Gets the next call from the feeder; false where there is none yet, or none any more.
    fn fetch(
        &mut self,
        feeder: &mut Feeder<'p>,
        data: &mut Option<&mut dyn Data>,
        drained: bool,
    ) -> Result<bool, SimulateError> {
        match feeder.next(self, data, drained)? {
            Feed::Call(mut call) => {
                call.floor = self.floor();
                self.calls.push(*call);
                let last = self.calls.len() - 1;
                let kernel = &self.code[self.calls[last].kernel];
                let open = kernel.streams.iter().enumerate().filter(|(_, s)| !s.words.is_empty());
                self.calls[last].open = open.fold(0, |open, (engine, _)| open | 1 << engine);
                if kernel.kernel.exchange.is_some() {
                    self.waiting.push_back(last);
                } else if self.calls[last].open == 0 {
                    self.complete(last);
                }
                for engine in &mut self.engines {
                    if engine.next == Next::Idle {
                        engine.next = Next::Unknown;
                    }
                }
                Ok(true)
            }
            Feed::Wait | Feed::End => Ok(false),
        }
    }

    fn floor(&self) -> Ticks {
        self.calls.last().map_or(0, |call| call.floor)
    }

    fn deadlock(&self) -> SimulateError {
        let mut waiting = Vec::new();
        for (engine, runner) in self.engines.iter().enumerate() {
            let Some(call) = self.calls.get(runner.call) else { continue };
            let code = &self.code[call.kernel];
            if let Some(&Word::Run(timed)) = code.streams[engine].words.get(runner.pc as usize) {
                let timed = &code.streams[engine].timed[timed as usize];
                let empty = timed.instruction.waits.iter().find(|semaphore| {
                    call.tokens.get(usize::from(semaphore.0)).is_none_or(VecDeque::is_empty)
                });
                let what = match empty {
                    Some(semaphore) => {
                        let info = code.kernel.semaphores.get(usize::from(semaphore.0));
                        format!("semaphore ${}", info.map_or("?", |info| info.name.as_str()))
                    }
                    None => "another call".to_owned(),
                };
                let source = code.kernel.sources.get(timed.source).map_or("", String::as_str);
                waiting.push(format!(
                    "{:?} in @{} waits for {what} ({source})",
                    code::ENGINES[engine],
                    code.kernel.name
                ));
            }
        }
        SimulateError::Deadlock { waiting }
    }
}

impl Runner {
    /// The value of an index now.
    pub(super) fn value(&self, index: &Index) -> i64 {
        if index.terms.is_empty() {
            return index.constant;
        }
        index.terms.iter().fold(index.constant, |sum, &(term, factor)| {
            sum.saturating_add(factor.saturating_mul(self.term(term)))
        })
    }

    pub(super) fn term(&self, term: Term) -> i64 {
        match term {
            Term::Var(var) => self.values[usize::from(var.0)],
            Term::Turn(var, turns) => {
                (self.iterations[usize::from(var.0)] % u64::from(turns.max(1))) as i64
            }
        }
    }
}

/// Whether a test holds of a number.
pub(super) fn holds(test: Test, value: i64) -> bool {
    match test {
        Test::Zero => value == 0,
        Test::NonZero => value != 0,
        Test::Negative => value < 0,
        Test::NonNegative => value >= 0,
    }
}

/// The greatest iteration up to which, from `first` on, nothing of what must stay fixed changes; `value` gives the number
/// at iteration `first` and what each iteration adds.
pub(super) fn unchanged_until(
    fixed: &Fixed,
    first: u64,
    line: &dyn Fn(&Index) -> (i64, i64),
) -> u64 {
    let steps_below = |value: i64, slope: i64, limit: i64| -> u64 {
        // The number of iterations after which `value + slope · n < limit` still holds, where it holds now.
        if slope <= 0 {
            return u64::MAX;
        }
        (limit.saturating_sub(1).saturating_sub(value) / slope).max(0) as u64
    };
    let steps_from = |value: i64, slope: i64, limit: i64| -> u64 {
        // The same for `value + slope · n ≥ limit`.
        if slope >= 0 {
            return u64::MAX;
        }
        (value.saturating_sub(limit) / slope.saturating_neg().max(1)).max(0) as u64
    };
    match fixed {
        Fixed::Never => first,
        Fixed::Turns(_) => u64::MAX,
        Fixed::Test(index, test) => {
            let (value, slope) = line(index);
            let steps = match test {
                Test::Zero | Test::NonZero if slope == 0 => u64::MAX,
                Test::Zero | Test::NonZero if value == 0 => 0,
                Test::Zero | Test::NonZero => {
                    let ahead = (value < 0) == (slope > 0) && value % slope == 0;
                    if ahead { (value / slope).unsigned_abs() - 1 } else { u64::MAX }
                }
                Test::Negative | Test::NonNegative if value < 0 => steps_below(value, slope, 0),
                Test::Negative | Test::NonNegative => steps_from(value, slope, 0),
            };
            first.saturating_add(steps)
        }
        Fixed::Inside { at, least, greatest, extent } => {
            let (value, slope) = line(at);
            let (low, high) = (value.saturating_add(*least), value.saturating_add(*greatest));
            if low < 0 || high >= *extent {
                return first;
            }
            let steps = steps_from(low, slope, 0).min(steps_below(high, slope, *extent));
            first.saturating_add(steps)
        }
    }
}
