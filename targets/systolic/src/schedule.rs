//! Splits a tree of instructions into one stream for each engine and derives the semaphores that keep the meaning of the
//! tree: every access sees what it would see if instructions ran one after another.
//!
//! A dependence within an iteration is a semaphore of its own, unless one that is there implies it. A dependence on an
//! earlier iteration is a semaphore that starts with as many tokens as iterations lie between: the turns of the buffer.
//! Compute engines complete their instructions in order; copies complete in any order, so each has its own semaphore.

use crate::isa::Op;
use crate::program::{Engine, Instruction, Item, Semaphore, SemaphoreInfo};
use crate::select::tree::{self, Buffer, Loop, Node, Touch};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};

/// Streams and their semaphores.
pub(crate) type Scheduled = (BTreeMap<Engine, Vec<Item>>, Vec<SemaphoreInfo>);

/// A loop, the engines of a dependence in it, and the copy that it comes from, if it is one.
type Streams = (usize, usize, Engine, Option<usize>);

const ENGINES: [Engine; 5] =
    [Engine::Tensor, Engine::Vector, Engine::Scalar, Engine::GpSimd, Engine::Sync];

/// An instruction with the bodies around it: for each, its number and the position in it.
struct Flat<'a> {
    instruction: &'a tree::Instruction,
    path: SmallVec<[(usize, usize); 4]>,
    copies: bool,
}

/// What is known to be complete when an instruction starts.
#[derive(Clone, Default)]
struct Known {
    /// For each engine, all its compute instructions before this number.
    engines: [usize; 5],
    /// Copies, by number.
    copies: Vec<u64>,
}

impl Known {
    fn join(&mut self, other: &Known) {
        for (own, other) in self.engines.iter_mut().zip(other.engines) {
            *own = (*own).max(other);
        }
        if self.copies.len() < other.copies.len() {
            self.copies.resize(other.copies.len(), 0);
        }
        for (own, other) in self.copies.iter_mut().zip(&other.copies) {
            *own |= other;
        }
    }

    fn completes(&mut self, index: usize, flat: &Flat<'_>) {
        if !flat.copies {
            let own = &mut self.engines[flat.instruction.engine as usize];
            *own = (*own).max(index + 1);
            return;
        }
        if self.copies.len() <= index / 64 {
            self.copies.resize(index / 64 + 1, 0);
        }
        self.copies[index / 64] |= 1 << (index % 64);
    }

    fn has(&self, index: usize, flat: &Flat<'_>) -> bool {
        if !flat.copies {
            return self.engines[flat.instruction.engine as usize] > index;
        }
        self.copies.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

#[derive(Default)]
struct Marks {
    waits: SmallVec<[Semaphore; 2]>,
    signals: SmallVec<[Semaphore; 2]>,
    after: bool,
}

/// What stands before or after an item of a body in one engine's stream.
#[derive(Default)]
struct Around {
    /// Waits before it.
    before: Vec<Semaphore>,
    /// Waits for copies that an earlier loop starts, one for each of its iterations: by the instruction's number.
    gather: Vec<(usize, Semaphore)>,
    /// Signals after it.
    signals: Vec<Semaphore>,
}

struct Scheduler<'a> {
    flats: Vec<Flat<'a>>,
    loops: Vec<Option<&'a Loop>>,
    marks: Vec<Marks>,
    around: BTreeMap<(Engine, usize, usize), Around>,
    semaphores: Vec<SemaphoreInfo>,
    /// A loop's trips decide a number of tokens, and are not known.
    failed: bool,
}

/// How often a loop runs, where that is a number.
fn trips(looped: &Loop) -> Option<i64> {
    let constant = looped.start.terms.is_empty() && looped.end.terms.is_empty();
    let span = looped.end.constant - looped.start.constant;
    constant.then(|| (span + looped.step - 1).div_euclid(looped.step).max(0))
}

/// The streams of a tree.
pub(crate) fn schedule(nodes: &[Node], buffers: &[Buffer]) -> Result<Scheduled, String> {
    let mut scheduler = Scheduler {
        flats: Vec::new(),
        loops: vec![None],
        marks: Vec::new(),
        around: BTreeMap::new(),
        semaphores: Vec::new(),
        failed: false,
    };
    scheduler.flatten(nodes, 0, &mut SmallVec::new());
    scheduler.marks.resize_with(scheduler.flats.len(), Marks::default);
    scheduler.forward(buffers);
    scheduler.carried(buffers);
    if scheduler.semaphores.len() > usize::from(u16::MAX) {
        return Err(format!("it takes {} semaphores", scheduler.semaphores.len()));
    }
    if scheduler.failed {
        return Err("a loop that starts copies has no fixed number of trips".to_owned());
    }
    let mut streams = BTreeMap::new();
    for engine in ENGINES {
        let (mut index, mut body) = (0, 0);
        let items = scheduler.stream(nodes, engine, 0, &mut body, &mut index);
        if !items.is_empty() {
            streams.insert(engine, items);
        }
    }
    Ok((streams, scheduler.semaphores))
}

fn overlap(a: &Touch, b: &Touch) -> bool {
    (a.writes || b.writes)
        && a.low < b.high
        && b.low < a.high
        && a.first < b.last
        && b.first < a.last
}

fn covers(a: &Touch, b: &Touch) -> bool {
    a.low <= b.low && a.high >= b.high && a.first <= b.first && a.last >= b.last
}

impl<'a> Scheduler<'a> {
    fn flatten(
        &mut self,
        nodes: &'a [Node],
        body: usize,
        path: &mut SmallVec<[(usize, usize); 4]>,
    ) {
        for (position, node) in nodes.iter().enumerate() {
            path.push((body, position));
            match node {
                Node::Instruction(instruction) => self.flats.push(Flat {
                    instruction,
                    path: path.clone(),
                    copies: matches!(instruction.op, Op::Dma(_)),
                }),
                Node::Loop(looped) => {
                    self.loops.push(Some(looped));
                    let inner = self.loops.len() - 1;
                    self.flatten(&looped.body, inner, path);
                }
            }
            path.pop();
        }
    }

    /// How many bodies two instructions share.
    fn common(&self, a: usize, b: usize) -> usize {
        let pairs = self.flats[a].path.iter().zip(&self.flats[b].path);
        pairs.take_while(|(a, b)| a.0 == b.0).count()
    }

    /// Dependences within an iteration.
    fn forward(&mut self, buffers: &[Buffer]) {
        let mut records: Vec<Vec<(usize, Touch)>> = vec![Vec::new(); buffers.len()];
        let mut known: Vec<Known> = vec![Known::default(); self.flats.len()];
        // What each engine knows in each body around the place that is looked at.
        let mut streams: [Vec<(usize, Known)>; 5] = Default::default();
        for to in 0..self.flats.len() {
            let path: SmallVec<[usize; 4]> =
                self.flats[to].path.iter().map(|step| step.0).collect();
            let engine = self.flats[to].instruction.engine as usize;
            let stack = &mut streams[engine];
            let shared =
                stack.iter().zip(&path).take_while(|((body, _), own)| body == *own).count();
            stack.truncate(shared);
            while stack.len() < path.len() {
                let inherited = stack.last().map(|(_, known)| known.clone()).unwrap_or_default();
                stack.push((path[stack.len()], inherited));
            }
            let mut here = stack.last().map(|(_, known)| known.clone()).unwrap_or_default();
            let mut sources: BTreeMap<usize, bool> = BTreeMap::new();
            let touches = self.flats[to].instruction.touches.clone();
            for touch in &touches {
                for (from, earlier) in &records[touch.buffer] {
                    if *from != to && overlap(earlier, touch) {
                        let value = earlier.writes && !touch.writes;
                        *sources.entry(*from).or_default() |= value;
                    }
                }
            }
            for (&from, &value) in sources.iter().rev() {
                let (source, target) = (&self.flats[from], &self.flats[to]);
                let same = source.instruction.engine == target.instruction.engine;
                if same && !source.copies {
                    // A copy starts at once, so it waits for all that it overwrites or reads; compute engines keep
                    // their order, and only values take time.
                    if (value || target.copies) && engine != Engine::Tensor as usize {
                        self.marks[to].after = true;
                    }
                    continue;
                }
                if here.has(from, source) {
                    continue;
                }
                let level = self.common(from, to) - 1;
                self.connect(from, to, level, 0);
                let (before, source) = (known[from].clone(), &self.flats[from]);
                here.join(&before);
                here.completes(from, source);
            }
            for touch in &touches {
                let list = &mut records[touch.buffer];
                if touch.writes {
                    list.retain(|(from, earlier)| {
                        *from == to
                            || !covers(touch, earlier)
                            || self.common(*from, to) < path.len()
                    });
                }
                list.push((to, *touch));
            }
            let stack = &mut streams[engine];
            if let Some((_, last)) = stack.last_mut() {
                *last = here.clone();
            }
            known[to] = here;
        }
    }

    /// Dependences on earlier iterations.
    fn carried(&mut self, buffers: &[Buffer]) {
        let mut touches: Vec<Vec<(usize, Touch)>> = vec![Vec::new(); buffers.len()];
        for (index, flat) in self.flats.iter().enumerate() {
            if flat.path.len() > 1 {
                for touch in &flat.instruction.touches {
                    touches[touch.buffer].push((index, *touch));
                }
            }
        }
        let mut edges: BTreeSet<(usize, usize, usize, u8)> = BTreeSet::new();
        for (buffer, list) in buffers.iter().zip(&touches) {
            // For each loop and pair of streams: the last of one, the first of the other.
            let mut ends: BTreeMap<Streams, (usize, usize)> = BTreeMap::new();
            for (later, (from, a)) in list.iter().enumerate() {
                for (to, b) in &list[..=later] {
                    if !overlap(a, b) {
                        continue;
                    }
                    let level = self.common(*from, *to) - 1;
                    if level == 0 {
                        continue;
                    }
                    let body = self.flats[*to].path[level].0;
                    let (source, target) = (&self.flats[*from], &self.flats[*to]);
                    let same = source.instruction.engine == target.instruction.engine;
                    if same && !source.copies {
                        let value = a.writes && !b.writes;
                        if (value || target.copies) && source.instruction.engine != Engine::Tensor {
                            self.marks[*to].after = true;
                        }
                        continue;
                    }
                    // What a later access of the same iteration waits for is complete with that.
                    let implied = list[later + 1..].iter().any(|(between, c)| {
                        *between != *from
                            && overlap(a, c)
                            && overlap(c, b)
                            && covers(c, a)
                            && self.common(*between, *to) - 1 == level
                            && self.common(*between, *from) > level
                    });
                    if implied {
                        continue;
                    }
                    let copy = source.copies.then_some(*from);
                    let key =
                        (body, source.instruction.engine as usize, target.instruction.engine, copy);
                    let end = ends.entry(key).or_insert((*from, *to));
                    end.0 = end.0.max(*from);
                    end.1 = end.1.min(*to);
                }
            }
            for ((body, ..), (from, to)) in ends {
                let var = self.loops[body].map(|looped| looped.var);
                let turns =
                    if buffer.turn.is_some() && buffer.turn == var { buffer.turns } else { 1 };
                edges.insert((body, from, to, turns));
            }
        }
        for (body, from, to, turns) in edges {
            let level = self.flats[from].path.iter().position(|step| step.0 == body);
            self.connect(from, to, level.expect("both are in the loop"), u16::from(turns));
        }
    }

    /// A semaphore from one instruction to another, in the body that is `level` deep.
    fn connect(&mut self, from: usize, to: usize, level: usize, initial: u16) {
        let index = self.semaphores.len();
        let semaphore = Semaphore(u16::try_from(index).unwrap_or(u16::MAX));
        self.semaphores.push(SemaphoreInfo { name: format!("s{index}"), initial });
        let (source, target) = (&self.flats[from], &self.flats[to]);
        let (body, after) = source.path[level];
        let (_, before) = target.path[level];
        let (from_engine, to_engine) = (source.instruction.engine, target.instruction.engine);
        let deep_from = source.path.len() > level + 1;
        let deep_to = target.path.len() > level + 1;
        if !deep_from {
            self.marks[from].signals.push(semaphore);
        } else if source.copies {
            self.marks[from].signals.push(semaphore);
            let trips = source.path[level + 1..].iter().try_fold(1, |product: u16, step| {
                let trips = self.loops[step.0].and_then(trips)?;
                product.checked_mul(u16::try_from(trips).ok()?)
            });
            match trips.and_then(|trips| trips.checked_mul(initial)) {
                Some(tokens) => self.semaphores[index].initial = tokens,
                None if initial == 0 => {}
                None => self.failed = true,
            }
            let around = self.around.entry((to_engine, body, before)).or_default();
            around.gather.push((from, semaphore));
            return;
        } else {
            let around = self.around.entry((from_engine, body, after)).or_default();
            around.signals.push(semaphore);
        }
        if deep_to {
            self.around.entry((to_engine, body, before)).or_default().before.push(semaphore);
        } else {
            self.marks[to].waits.push(semaphore);
        }
    }

    fn stream(
        &self,
        nodes: &[Node],
        engine: Engine,
        body: usize,
        bodies: &mut usize,
        index: &mut usize,
    ) -> Vec<Item> {
        let mut items = Vec::new();
        for (position, node) in nodes.iter().enumerate() {
            let around = self.around.get(&(engine, body, position));
            if let Some(around) = around {
                for &(from, semaphore) in &around.gather {
                    items.push(self.gather(from, body, semaphore));
                }
                if !around.before.is_empty() {
                    items.push(nop(&around.before, &[], false));
                }
            }
            match node {
                Node::Instruction(instruction) => {
                    let marks = &self.marks[*index];
                    *index += 1;
                    if instruction.engine == engine {
                        items.push(Item::Instruction(Instruction {
                            op: instruction.op.clone(),
                            when: None,
                            waits: marks.waits.clone(),
                            calls: instruction.calls.clone(),
                            after: marks.after,
                            signals: marks.signals.clone(),
                            source: instruction.source,
                        }));
                    }
                }
                Node::Loop(looped) => {
                    *bodies += 1;
                    let inner = *bodies;
                    let body = self.stream(&looped.body, engine, inner, bodies, index);
                    if !body.is_empty() {
                        items.push(Item::Loop {
                            var: looped.var,
                            start: looped.start.clone(),
                            end: looped.end.clone(),
                            step: looped.step,
                            body,
                        });
                    }
                }
            }
            if let Some(around) = around
                && !around.signals.is_empty()
            {
                items.push(nop(&[], &around.signals, true));
            }
        }
        items
    }

    /// Takes the token of a copy in an inner loop for each of its iterations.
    fn gather(&self, from: usize, body: usize, semaphore: Semaphore) -> Item {
        let inner = self.flats[from].path.iter().skip_while(|step| step.0 != body).skip(1);
        let loops: Vec<&Loop> = inner.filter_map(|step| self.loops[step.0]).collect();
        loops.iter().rev().fold(nop(&[semaphore], &[], false), |item, looped| Item::Loop {
            var: looped.var,
            start: looped.start.clone(),
            end: looped.end.clone(),
            step: looped.step,
            body: vec![item],
        })
    }
}

fn nop(waits: &[Semaphore], signals: &[Semaphore], after: bool) -> Item {
    Item::Instruction(Instruction {
        op: Op::Nop,
        when: None,
        waits: waits.iter().copied().collect(),
        calls: SmallVec::new(),
        after,
        signals: signals.iter().copied().collect(),
        source: 0,
    })
}
