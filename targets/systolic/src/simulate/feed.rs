//! Turns the steps of a program into a sequence of calls, decision by decision.

use super::SimulateError;
use super::engine::{Call, Data, Simulation};
use crate::program::{Program, Step, Value};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};

/// What comes next.
pub(super) enum Feed {
    /// A call.
    Call(Box<Call>),
    /// Nothing before all earlier calls are complete.
    Wait,
    /// Nothing more.
    End,
}

/// A list of steps that is under way.
#[derive(Clone, Copy, Debug)]
struct Frame<'p> {
    steps: &'p [Step],
    position: usize,
    after: After<'p>,
}

/// What happens at the end of a list.
#[derive(Clone, Copy, Debug)]
enum After<'p> {
    Leave,
    Again {
        counter: u32,
        iteration: u64,
        count: u64,
    },
    /// The condition of a `while` is looked at.
    Test {
        condition: u32,
        before: &'p [Step],
        body: &'p [Step],
        trips: u64,
    },
    /// What comes before the condition runs again.
    Before {
        condition: u32,
        before: &'p [Step],
        body: &'p [Step],
        trips: u64,
    },
}

/// A program that decides more often than this does not end.
const MAX_DECISIONS: u64 = 1 << 28;
/// A program that makes more calls than this is too long.
const MAX_CALLS: usize = 1 << 22;

/// Walks the steps of a program.
#[derive(Debug)]
pub(super) struct Feeder<'p> {
    program: &'p Program,
    frames: Vec<Frame<'p>>,
    /// The numbers of tensors that are known without data.
    pub(super) known: BTreeMap<u32, i64>,
    given: &'p BTreeMap<String, i64>,
    roots: Vec<u32>,
    /// For each tensor's memory: calls since it was last written by one that all later ones wait for.
    writers: BTreeMap<u32, Vec<usize>>,
    readers: BTreeMap<u32, Vec<usize>>,
    numbers: BTreeMap<*const Step, usize>,
    decisions: u64,
    /// The calls of the program, in the order in which they were first made.
    pub(super) steps: Vec<&'p Step>,
}

impl<'p> Feeder<'p> {
    pub(super) fn new(
        program: &'p Program,
        steps: &'p [Step],
        given: &'p BTreeMap<String, i64>,
    ) -> Feeder<'p> {
        let roots = (0..program.tensors.len() as u32).map(|tensor| root(program, tensor)).collect();
        Feeder {
            program,
            frames: vec![Frame { steps, position: 0, after: After::Leave }],
            known: BTreeMap::new(),
            given,
            roots,
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            numbers: BTreeMap::new(),
            decisions: 0,
            steps: Vec::new(),
        }
    }

    /// The next call. `drained` says that all earlier calls are complete.
    pub(super) fn next(
        &mut self,
        simulation: &Simulation<'p>,
        data: &mut Option<&mut dyn Data>,
        drained: bool,
    ) -> Result<Feed, SimulateError> {
        loop {
            self.decisions += 1;
            if self.decisions > MAX_DECISIONS || simulation.calls.len() > MAX_CALLS {
                return Err(SimulateError::Limit { instructions: MAX_DECISIONS });
            }
            let Some(frame) = self.frames.last().copied() else { return Ok(Feed::End) };
            let Some(step) = frame.steps.get(frame.position) else {
                if !self.finish_list(frame, data, drained, simulation)? {
                    return Ok(Feed::Wait);
                }
                continue;
            };
            match step {
                Step::Call { .. } => {
                    let Some(call) = self.call(step, simulation, data, drained)? else {
                        return Ok(Feed::Wait);
                    };
                    self.advance();
                    return Ok(Feed::Call(Box::new(call)));
                }
                Step::If { condition, then, otherwise } => {
                    if !drained && !self.is_written(*condition, simulation) {
                        return Ok(Feed::Wait);
                    }
                    let taken = self.number(*condition, data)? != 0;
                    self.advance();
                    let steps = if taken { then } else { otherwise };
                    self.frames.push(Frame { steps, position: 0, after: After::Leave });
                }
                Step::While { before, condition, body } => {
                    self.advance();
                    let trips = self.trips(*condition);
                    let after = After::Test { condition: *condition, before, body, trips };
                    self.frames.push(Frame { steps: before, position: 0, after });
                }
                Step::For { count, counter, body } => {
                    if *count == 0 || body.is_empty() {
                        self.advance();
                        continue;
                    }
                    if !drained && self.in_use(*counter, simulation) {
                        return Ok(Feed::Wait);
                    }
                    self.advance();
                    self.count(*counter, 0, data);
                    let after = After::Again { counter: *counter, iteration: 0, count: *count };
                    self.frames.push(Frame { steps: body, position: 0, after });
                }
            }
        }
    }

    fn advance(&mut self) {
        if let Some(frame) = self.frames.last_mut() {
            frame.position += 1;
        }
    }

    /// At the end of a list of steps; false where it must wait for earlier calls.
    fn finish_list(
        &mut self,
        frame: Frame<'p>,
        data: &mut Option<&mut dyn Data>,
        drained: bool,
        simulation: &Simulation<'p>,
    ) -> Result<bool, SimulateError> {
        match frame.after {
            After::Leave => {
                self.frames.pop();
            }
            After::Again { counter, iteration, count } => {
                if iteration + 1 >= count {
                    self.frames.pop();
                    return Ok(true);
                }
                if !drained && self.in_use(counter, simulation) {
                    return Ok(false);
                }
                self.count(counter, iteration + 1, data);
                let after = After::Again { counter, iteration: iteration + 1, count };
                self.replace(Frame { steps: frame.steps, position: 0, after });
            }
            After::Test { condition, before, body, trips } => {
                if !drained && !self.is_written(condition, simulation) {
                    return Ok(false);
                }
                let goes_on = match trips {
                    u64::MAX => self.number(condition, data)? != 0,
                    left => left > 0,
                };
                if !goes_on {
                    self.frames.pop();
                    return Ok(true);
                }
                let trips = if trips == u64::MAX { trips } else { trips - 1 };
                let after = After::Before { condition, before, body, trips };
                self.replace(Frame { steps: body, position: 0, after });
            }
            After::Before { condition, before, body, trips } => {
                let after = After::Test { condition, before, body, trips };
                self.replace(Frame { steps: before, position: 0, after });
            }
        }
        Ok(true)
    }

    fn replace(&mut self, frame: Frame<'p>) {
        if let Some(last) = self.frames.last_mut() {
            *last = frame;
        }
    }

    /// How often a `while` runs, where it was given; `u64::MAX` where its condition decides.
    fn trips(&self, condition: u32) -> u64 {
        let name = &self.program.tensors[condition as usize].name;
        self.given.get(name).map_or(u64::MAX, |&trips| trips.max(0) as u64)
    }

    fn given_or_known(&self, tensor: u32) -> Option<i64> {
        let name = &self.program.tensors[tensor as usize].name;
        self.given.get(name).or_else(|| self.known.get(&self.roots[tensor as usize])).copied()
    }

    fn number(&self, tensor: u32, data: &Option<&mut dyn Data>) -> Result<i64, SimulateError> {
        if let Some(data) = data {
            return Ok(data.scalar(tensor).unwrap_or(0));
        }
        self.given_or_known(tensor).ok_or_else(|| SimulateError::Unknown {
            tensor: self.program.tensors[tensor as usize].name.clone(),
        })
    }

    fn count(&mut self, counter: u32, iteration: u64, data: &mut Option<&mut dyn Data>) {
        let value = i64::try_from(iteration).unwrap_or(i64::MAX);
        self.known.insert(self.roots[counter as usize], value);
        if let Some(data) = data {
            data.set_counter(counter, value);
        }
    }

    /// Whether a call that is not complete touches a tensor.
    fn in_use(&self, tensor: u32, simulation: &Simulation<'p>) -> bool {
        let root = self.roots[tensor as usize];
        let touches = |list: &BTreeMap<u32, Vec<usize>>| {
            let calls = list.get(&root).into_iter().flatten();
            calls.into_iter().any(|&call| simulation.calls[call].completed.is_none())
        };
        touches(&self.writers) || touches(&self.readers)
    }

    /// Whether a number is there to be read: all calls that write it are complete. Loop counters are at once. That a value
    /// was given beforehand makes nobody wait less, so that times are the same with values and without.
    fn is_written(&self, tensor: u32, simulation: &Simulation<'p>) -> bool {
        let root = self.roots[tensor as usize];
        let mut calls = self.writers.get(&root).into_iter().flatten();
        self.known.contains_key(&root)
            || calls.all(|&call| simulation.calls[call].completed.is_some())
    }

    /// The call that a step makes; `None` where a scalar is not there yet.
    fn call(
        &mut self,
        step: &'p Step,
        simulation: &Simulation<'p>,
        data: &Option<&mut dyn Data>,
        drained: bool,
    ) -> Result<Option<Call>, SimulateError> {
        let Step::Call { kernel, operands, scalars, sbuf_base, psum_base, .. } = step else {
            return Ok(None);
        };
        let code = &self.program.kernels[*kernel as usize];
        let ranges = code.vars.iter().filter_map(|var| var.range);
        let mut values: SmallVec<[i64; 2]> = SmallVec::new();
        for (scalar, (low, high)) in scalars.iter().zip(ranges) {
            let value = match scalar {
                Value::Constant(value) => *value,
                Value::Tensor(tensor) => {
                    let known = self.known.get(&self.roots[*tensor as usize]).copied();
                    match known {
                        Some(value) => value,
                        None if drained || self.is_written(*tensor, simulation) => {
                            self.number(*tensor, data)?
                        }
                        None => return Ok(None),
                    }
                }
            };
            values.push(value.clamp(low, high.max(low)));
        }
        let at = simulation.calls.len();
        let sbuf = (*sbuf_base, sbuf_base.saturating_add(code.sbuf_bytes));
        let psum = (*psum_base, psum_base.saturating_add(code.psum_banks));
        let open = simulation.calls[simulation.oldest..].iter().enumerate();
        let overlap = open.filter(|(_, other)| {
            (other.sbuf.0 < sbuf.1 && sbuf.0 < other.sbuf.1)
                || (other.psum.0 < psum.1 && psum.0 < other.psum.1)
        });
        let space = overlap.map(|(position, _)| simulation.oldest + position).collect();
        let mut needs: Vec<SmallVec<[usize; 2]>> = Vec::new();
        for (operand, tensor) in code.operands.iter().zip(operands) {
            let root = self.roots[*tensor as usize];
            let mut earlier: SmallVec<[usize; 2]> = SmallVec::new();
            earlier.extend(self.writers.get(&root).into_iter().flatten().copied());
            if operand.writes {
                earlier.extend(self.readers.get(&root).into_iter().flatten().copied());
            }
            earlier.sort_unstable();
            earlier.dedup();
            needs.push(earlier);
        }
        for (operand, tensor) in code.operands.iter().zip(operands) {
            let root = self.roots[*tensor as usize];
            if operand.writes {
                self.known.remove(&root);
                self.note(simulation, root, at, true);
            }
            if operand.reads {
                self.note(simulation, root, at, false);
            }
        }
        let next = self.steps.len();
        let number = *self.numbers.entry(std::ptr::from_ref(step)).or_insert(next);
        if number == next {
            self.steps.push(step);
        }
        let initial = code.semaphores.iter();
        Ok(Some(Call {
            kernel: *kernel as usize,
            operands: operands.clone(),
            scalars: values,
            sbuf,
            psum,
            step: number,
            tokens: initial
                .map(|info| VecDeque::from(vec![0; usize::from(info.initial)]))
                .collect(),
            space,
            data: needs,
            open: 0,
            pending: 0,
            first: None,
            latest: 0,
            completed: None,
            floor: 0,
            began: 0,
        }))
    }

    fn note(&mut self, simulation: &Simulation<'p>, root: u32, at: usize, writes: bool) {
        let list = if writes { &mut self.writers } else { &mut self.readers };
        let calls = list.entry(root).or_default();
        // Of those that are complete, the one that ended last stands for all.
        let ended = |&call: &usize| {
            simulation
                .calls
                .get(call)
                .and_then(|call: &Call| call.completed)
                .map(|time| (time, call))
        };
        let latest = calls.iter().filter_map(ended).max().map(|(_, call)| call);
        calls.retain(|call| ended(call).is_none() || Some(*call) == latest);
        calls.push(at);
    }
}

/// The tensor whose memory a tensor is.
pub(super) fn root(program: &Program, tensor: u32) -> u32 {
    let mut at = tensor;
    for _ in 0..program.tensors.len() {
        match program.tensors[at as usize].alias {
            Some(other) => at = other,
            None => break,
        }
    }
    at
}
