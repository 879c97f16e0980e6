//! Moves what depends on constants alone to the program's loading: a weight that is scaled or converted is so once, and
//! may then be packed like any other.

use crate::module::{BufferId, Lifetime, Module, ScalarSource, Step};
use crate::pass::{Changed, Context, Pass};
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
pub const PASS: Pass<Module> = Pass {
    name: "load-once",
    summary: "Moves steps that depend on constants alone to the loading of the program.",
    run,
};

fn run(
    module: &mut Module,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    let mut writers: BTreeMap<BufferId, usize> = BTreeMap::new();
    count_writers(module, &module.steps, &mut writers);
    let mut loaded: BTreeSet<BufferId> = BTreeSet::new();
    let (mut early, mut late) = (Vec::new(), Vec::new());
    for step in std::mem::take(&mut module.steps) {
        match written(module, &step, &writers, &loaded) {
            Some(buffers) => {
                loaded.extend(buffers);
                early.push(step);
            }
            None => late.push(step),
        }
    }
    module.steps = late;
    if early.is_empty() {
        return Ok(Changed::No);
    }
    module.load_steps.extend(early);
    let members: Vec<BufferId> =
        module.buffers.ids().filter(|&buffer| loaded.contains(&module.memory(buffer))).collect();
    for buffer in members {
        module.buffers[buffer].lifetime = Lifetime::Loaded;
    }
    Ok(Changed::Yes)
}

/// The memory that a step writes, where it may run when the program is loaded: it reads constants only, and nothing else
/// writes there.
fn written(
    module: &Module,
    step: &Step,
    writers: &BTreeMap<BufferId, usize>,
    loaded: &BTreeSet<BufferId>,
) -> Option<Vec<BufferId>> {
    let Step::Kernel { kernel, operands, scalars, .. } = step else { return None };
    let is_constant = |buffer: BufferId| {
        let memory = module.memory(buffer);
        loaded.contains(&memory)
            || matches!(
                module.buffers[memory].lifetime,
                Lifetime::Constant(_) | Lifetime::Parameter(_) | Lifetime::Loaded
            )
    };
    let constant_scalars = scalars.iter().all(|scalar| match scalar {
        ScalarSource::Constant(_) => true,
        ScalarSource::Buffer(buffer) => is_constant(*buffer),
    });
    if !constant_scalars {
        return None;
    }
    let mut results = Vec::new();
    for ((_, operand), &buffer) in module.kernels[*kernel].operands.iter().zip(operands) {
        let memory = module.memory(buffer);
        let reads = operand.role.reads();
        if reads && (operand.role.writes() || !is_constant(buffer)) {
            return None;
        }
        if operand.role.writes() {
            let alone = writers.get(&memory) == Some(&1);
            let temporary = matches!(module.buffers[memory].lifetime, Lifetime::Temporary);
            if !alone || !temporary {
                return None;
            }
            results.push(memory);
        }
    }
    Some(results)
}

/// How many steps write each memory.
fn count_writers(module: &Module, steps: &[Step], writers: &mut BTreeMap<BufferId, usize>) {
    for step in steps {
        let mut count = |buffer: BufferId| *writers.entry(module.memory(buffer)).or_default() += 1;
        match step {
            Step::Kernel { kernel, operands, .. } => {
                for ((_, operand), &buffer) in module.kernels[*kernel].operands.iter().zip(operands)
                {
                    if operand.role.writes() {
                        count(buffer);
                    }
                }
            }
            Step::Copy { to, .. } => count(*to),
            Step::Collective { result, .. } => count(*result),
            Step::If { then, otherwise, .. } => {
                count_writers(module, then, writers);
                count_writers(module, otherwise, writers);
            }
            Step::While { before, body, .. } => {
                count_writers(module, before, writers);
                count_writers(module, body, writers);
            }
            Step::For { counter, body, .. } => {
                count(*counter);
                count_writers(module, body, writers);
            }
        }
    }
}
