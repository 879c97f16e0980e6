//! Gives every temporary buffer a place in one arena, so that a run allocates nothing. Buffers that are never needed at
//! once share memory: the largest is placed first, each at the lowest offset where it meets no other.

use crate::module::{BufferId, Lifetime, Module, ScalarSource, Step};
use crate::pass::{Changed, Context, Pass};
use std::collections::BTreeMap;

/// See the module.
pub const PASS: Pass<Module> = Pass {
    name: "plan-buffers",
    summary: "Gives temporaries their places in one arena, by liveness.",
    run,
};

/// Every buffer starts at a multiple of this, a cache line.
const ALIGNMENT: usize = 64;

fn run(
    module: &mut Module,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    let lives = lives(module);
    let mut order: Vec<(BufferId, Life)> = lives
        .into_iter()
        .filter(|(buffer, _)| matches!(module.buffers[*buffer].lifetime, Lifetime::Temporary))
        .collect();
    let bytes = |module: &Module, buffer: BufferId| {
        let buffer = &module.buffers[buffer];
        (buffer.layout.elements() * buffer.ty.dtype.bytes()).next_multiple_of(ALIGNMENT)
    };
    order.sort_by_key(|&(buffer, life)| {
        (std::cmp::Reverse(bytes(module, buffer)), life.first, buffer)
    });
    let mut placed: Vec<(usize, usize, Life)> = Vec::new();
    let mut arena_bytes = 0;
    for (buffer, life) in order {
        let size = bytes(module, buffer);
        let mut offset = 0;
        // Those in the way, by offset: the first gap between them that is wide enough.
        for &(start, end, other) in &placed {
            if other.first > life.last || other.last < life.first {
                continue;
            }
            if start >= offset + size {
                break;
            }
            offset = offset.max(end);
        }
        let position = placed.partition_point(|&(start, _, _)| start < offset);
        placed.insert(position, (offset, offset + size, life));
        arena_bytes = arena_bytes.max(offset + size);
        module.buffers[buffer].offset = Some(offset);
    }
    let aliases: Vec<BufferId> = module
        .buffers
        .iter()
        .filter(|(_, buffer)| buffer.alias.is_some())
        .map(|(id, _)| id)
        .collect();
    for buffer in aliases {
        module.buffers[buffer].offset = module.buffers[memory(module, buffer)].offset;
    }
    module.arena_bytes = arena_bytes;
    Ok(Changed::Yes)
}

/// The first and the last step at which a buffer's memory is needed.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: usize,
    last: usize,
}

/// The most bytes that are needed at any one step: no plan is smaller.
pub fn lower_bound(module: &Module) -> usize {
    let mut changes: BTreeMap<usize, i64> = BTreeMap::new();
    for (buffer, life) in lives(module) {
        let buffer = &module.buffers[buffer];
        if matches!(buffer.lifetime, Lifetime::Temporary) {
            let bytes = (buffer.layout.elements() * buffer.ty.dtype.bytes()) as i64;
            *changes.entry(life.first).or_default() += bytes;
            *changes.entry(life.last + 1).or_default() -= bytes;
        }
    }
    let (mut now, mut most) = (0, 0);
    for change in changes.values() {
        now += change;
        most = most.max(now);
    }
    most as usize
}

fn memory(module: &Module, mut buffer: BufferId) -> BufferId {
    while let Some(source) = module.buffers[buffer].alias {
        buffer = source;
    }
    buffer
}

fn lives(module: &Module) -> BTreeMap<BufferId, Life> {
    let mut walk = Walk { module, position: 0, lives: BTreeMap::new() };
    walk.steps(&module.steps);
    let end = walk.position + 1;
    for (_, buffer) in &module.outputs {
        walk.touch_at(*buffer, end);
    }
    walk.lives
}

struct Walk<'a> {
    module: &'a Module,
    position: usize,
    lives: BTreeMap<BufferId, Life>,
}

impl Walk<'_> {
    fn touch(&mut self, buffer: BufferId) {
        self.touch_at(buffer, self.position);
    }

    fn touch_at(&mut self, buffer: BufferId, position: usize) {
        let memory = memory(self.module, buffer);
        let life = self.lives.entry(memory).or_insert(Life { first: position, last: position });
        life.last = life.last.max(position);
    }

    fn steps(&mut self, steps: &[Step]) {
        for step in steps {
            self.position += 1;
            match step {
                Step::Kernel { operands, scalars, .. } => {
                    operands.iter().for_each(|&buffer| self.touch(buffer));
                    for scalar in scalars {
                        if let ScalarSource::Buffer(buffer) = scalar {
                            self.touch(*buffer);
                        }
                    }
                }
                Step::Copy { from, to } => {
                    self.touch(*from);
                    self.touch(*to);
                }
                Step::Collective { operands, result, .. } => {
                    operands.iter().for_each(|&buffer| self.touch(buffer));
                    self.touch(*result);
                }
                Step::If { condition, then, otherwise } => {
                    self.touch(*condition);
                    self.steps(then);
                    self.steps(otherwise);
                }
                Step::While { before, condition, body } => {
                    let start = self.position;
                    self.steps(before);
                    self.touch(*condition);
                    self.steps(body);
                    self.keep_through(start);
                }
                Step::For { counter, body, .. } => {
                    let start = self.position;
                    self.touch(*counter);
                    self.steps(body);
                    // The number is counted up before every iteration, read or not.
                    self.position += 1;
                    self.touch(*counter);
                    self.keep_through(start);
                }
            }
        }
    }

    /// What was there before a loop and is used in it is needed until the loop's end.
    fn keep_through(&mut self, start: usize) {
        self.position += 1;
        let end = self.position;
        for life in self.lives.values_mut() {
            if life.first <= start && life.last > start {
                life.last = end;
            }
        }
    }
}
