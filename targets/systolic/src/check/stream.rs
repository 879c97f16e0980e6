//! Streams, unrolled one instruction at a time.

use crate::program::{Index, Instruction, Item, Kernel, Term, Test, Var};
use std::collections::BTreeMap;

/// Numbers stay below this in size, so that sums of a few cannot overflow.
const HUGE: i128 = 1 << 56;

/// The values of a kernel's variables in one sequencer.
#[derive(Clone, Debug)]
pub(super) struct Values {
    value: Vec<i64>,
    iteration: Vec<i64>,
}

impl Values {
    /// Scalar parameters have the values given; loop variables have none yet.
    pub(super) fn new(count: usize, scalars: &[(usize, i64)]) -> Values {
        let mut values = Values { value: vec![0; count], iteration: vec![0; count] };
        for &(at, scalar) in scalars {
            values.value[at] = scalar;
        }
        values
    }

    /// The value of an index, at most ±2⁵⁶.
    pub(super) fn of(&self, index: &Index) -> i64 {
        let term = |term: Term| match term {
            Term::Var(Var(var)) => self.value.get(usize::from(var)).copied().unwrap_or(0),
            Term::Turn(Var(var), turns) => {
                let iteration = self.iteration.get(usize::from(var)).copied().unwrap_or(0);
                iteration.rem_euclid(i64::from(turns.max(1)))
            }
        };
        let mut sum = i128::from(index.constant);
        for &(at, coefficient) in &index.terms {
            sum += i128::from(term(at)) * i128::from(coefficient);
        }
        sum.clamp(-HUGE, HUGE) as i64
    }

    /// Whether an instruction is carried out.
    pub(super) fn holds(&self, when: &Option<(Index, Test)>) -> bool {
        let Some((index, test)) = when else { return true };
        let value = self.of(index);
        match test {
            Test::Zero => value == 0,
            Test::NonZero => value != 0,
            Test::Negative => value < 0,
            Test::NonNegative => value >= 0,
        }
    }

    pub(super) fn get(&self, var: Var) -> i64 {
        self.value.get(usize::from(var.0)).copied().unwrap_or(0)
    }
}

/// Which iterations of a loop are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sampling {
    /// All.
    All,
    /// Of a long loop, the first and the last ones; what is left out is a multiple of this, so that rotating buffers
    /// keep their turns.
    Turns(u64),
}

impl Sampling {
    /// How many iterations at the start are followed, and how many are then left out.
    fn split(self, trips: u64) -> (u64, u64) {
        match self {
            Sampling::All => (trips, 0),
            Sampling::Turns(turns) => {
                let (first, last) = (turns + 2, turns + 1);
                let left_out = trips.saturating_sub(first + last) / turns * turns;
                (trips - left_out - last.min(trips - left_out), left_out)
            }
        }
    }
}

/// The least common multiple of all turns of a kernel; `None` where it is too large to sample by.
pub(super) fn common_turns(kernel: &Kernel) -> Option<u64> {
    let mut turns = 1_u64;
    let mut see = |index: &Index| {
        for (term, _) in &index.terms {
            if let Term::Turn(_, count) = term {
                let count = u64::from((*count).max(1));
                turns = (turns / gcd(turns, count)).saturating_mul(count).min(1 << 20);
            }
        }
    };
    for items in kernel.streams.values() {
        visit(items, &mut |instruction| indices(instruction, &mut see));
    }
    (turns <= 64).then_some(turns)
}

pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Every instruction of a stream, in order.
pub(super) fn visit<'a>(items: &'a [Item], see: &mut impl FnMut(&'a Instruction)) {
    for item in items {
        match item {
            Item::Instruction(instruction) => see(instruction),
            Item::Loop { body, .. } => visit(body, see),
        }
    }
}

/// Every index of an instruction.
fn indices(instruction: &Instruction, see: &mut impl FnMut(&Index)) {
    use crate::program::Side;
    if let Some((index, _)) = &instruction.when {
        see(index);
    }
    for operand in super::operands::of(&instruction.op) {
        see(&operand.access.partition);
        see(&operand.access.offset);
    }
    if let crate::isa::Op::Dma(dma) = &instruction.op {
        for side in [&dma.from, &dma.to] {
            match side {
                Side::Far { offset, bounds, .. } => {
                    see(offset);
                    bounds.iter().for_each(|bound| see(&bound.at));
                }
                Side::Near { partition, offset, .. } => {
                    see(partition);
                    see(offset);
                }
            }
        }
    }
}

/// Walks through a stream.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    stack: Vec<Frame<'a>>,
    pub(super) values: Values,
    sampling: Sampling,
    numbers: &'a BTreeMap<usize, usize>,
}

#[derive(Clone, Debug)]
struct Frame<'a> {
    items: &'a [Item],
    at: usize,
    repeat: Option<Repeat>,
}

#[derive(Clone, Debug)]
struct Repeat {
    var: Var,
    start: i64,
    step: i64,
    iteration: u64,
    first: u64,
    left_out: u64,
    trips: u64,
}

/// Numbers a stream's instructions in order, by their address in memory.
pub(super) fn number(items: &[Item]) -> BTreeMap<usize, usize> {
    let mut numbers = BTreeMap::new();
    visit(items, &mut |instruction| {
        let number = numbers.len();
        numbers.insert(std::ptr::from_ref(instruction).addr(), number);
    });
    numbers
}

impl<'a> Cursor<'a> {
    pub(super) fn new(
        items: &'a [Item],
        numbers: &'a BTreeMap<usize, usize>,
        values: Values,
        sampling: Sampling,
    ) -> Cursor<'a> {
        let stack = vec![Frame { items, at: 0, repeat: None }];
        Cursor { stack, values, sampling, numbers }
    }

    /// The variables of the loops around the current instruction, outermost first.
    pub(super) fn around(&self) -> impl Iterator<Item = Var> + '_ {
        self.stack.iter().filter_map(|frame| frame.repeat.as_ref().map(|repeat| repeat.var))
    }

    /// The next instruction that is carried out, with its number in the stream.
    pub(super) fn next(&mut self) -> Option<(&'a Instruction, usize)> {
        loop {
            let frame = self.stack.last_mut()?;
            let Some(item) = frame.items.get(frame.at) else {
                self.end_of_frame();
                continue;
            };
            frame.at += 1;
            match item {
                Item::Instruction(instruction) => {
                    if self.values.holds(&instruction.when) {
                        let number = self.numbers[&std::ptr::from_ref(instruction).addr()];
                        return Some((instruction, number));
                    }
                }
                Item::Loop { var, start, end, step, body } => {
                    let (start, end) = (self.values.of(start), self.values.of(end));
                    let step = (*step).max(1);
                    let trips = (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
                    if trips == 0 || body.is_empty() {
                        continue;
                    }
                    let (first, left_out) = self.sampling.split(trips);
                    let repeat =
                        Repeat { var: *var, start, step, iteration: 0, first, left_out, trips };
                    self.enter(&repeat);
                    self.stack.push(Frame { items: body, at: 0, repeat: Some(repeat) });
                }
            }
        }
    }

    fn enter(&mut self, repeat: &Repeat) {
        let at = usize::from(repeat.var.0);
        self.values.iteration[at] = repeat.iteration as i64;
        self.values.value[at] =
            repeat.start.saturating_add(repeat.step.saturating_mul(repeat.iteration as i64));
    }

    fn end_of_frame(&mut self) {
        let Some(mut frame) = self.stack.pop() else { return };
        let Some(repeat) = &mut frame.repeat else { return };
        repeat.iteration += 1;
        if repeat.iteration == repeat.first {
            repeat.iteration += repeat.left_out;
        }
        if repeat.iteration < repeat.trips {
            let repeat = repeat.clone();
            self.enter(&repeat);
            frame.at = 0;
            self.stack.push(frame);
        }
    }
}

/// How many instructions a stream carries out, `when` aside, up to a limit.
pub(super) fn length(items: &[Item], values: &mut Values, sampling: Sampling, limit: u64) -> u64 {
    let mut count = 0_u64;
    for item in items {
        if count > limit {
            return count;
        }
        match item {
            Item::Instruction(_) => count += 1,
            Item::Loop { var, start, end, step, body } => {
                let (start, end) = (values.of(start), values.of(end));
                let step = (*step).max(1);
                let trips = (end - start).max(0).unsigned_abs().div_ceil(step.unsigned_abs());
                let (_, left_out) = sampling.split(trips);
                let trips = trips - left_out;
                let at = usize::from(var.0);
                if !varies(body) {
                    if trips > 0 {
                        let once = length(body, values, sampling, limit).max(1);
                        count = count.saturating_add(trips.saturating_mul(once));
                    }
                    continue;
                }
                for iteration in 0..trips {
                    values.value[at] = start.saturating_add(step.saturating_mul(iteration as i64));
                    // A body of no instructions must not be walked for ever.
                    count = count
                        .saturating_add(length(body, values, sampling, limit))
                        .saturating_add(1);
                    if count > limit {
                        return count;
                    }
                }
            }
        }
    }
    count
}

/// Whether a loop inside has ends that vary.
fn varies(items: &[Item]) -> bool {
    items.iter().any(|item| match item {
        Item::Instruction(_) => false,
        Item::Loop { start, end, body, .. } => {
            !start.terms.is_empty() || !end.terms.is_empty() || varies(body)
        }
    })
}
