//! The compiler, read top to bottom: graph passes, lowering, kernel passes, module passes.

use crate::diagnostic::Diagnostics;
use crate::graph::Graph;
use crate::machine::Machine;
use crate::module::Module;
use crate::pass::{Changed, Context, Declined, Pass};
use crate::passes;
use std::cell::RefCell;

/// What the driver says before each pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// It runs.
    Run,
    /// It is left out (bisecting).
    Skip,
    /// Compilation ends here.
    Stop,
}

/// What there is after a pass.
#[derive(Clone, Copy, Debug)]
pub enum Level<'a> {
    /// Before lowering.
    Graph(&'a Graph),
    /// After lowering: kernels, and the steps that call them.
    Kernels(&'a Module),
    /// After the kernels are scheduled.
    Module(&'a Module),
}

impl Level<'_> {
    /// What the command line calls it.
    pub fn name(self) -> &'static str {
        match self {
            Level::Graph(_) => "graph",
            Level::Kernels(_) => "kernels",
            Level::Module(_) => "module",
        }
    }
}

/// What a driver sees of a compilation: it prints, times, bisects and stops. The compiler itself does none of that.
pub trait Observer {
    /// Asked before each pass or stage. Levels are `graph`, `kernels` and `module`.
    fn before(&mut self, level: &'static str, pass: &'static str) -> Go;
    /// Told after each. An error ends the compilation.
    fn after(
        &mut self,
        pass: &'static str,
        changed: Changed,
        level: Level<'_>,
        declined: &[Declined],
    ) -> Result<(), Diagnostics>;
}

/// An observer that lets everything run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn before(&mut self, _level: &'static str, _pass: &'static str) -> Go {
        Go::Run
    }

    fn after(
        &mut self,
        _pass: &'static str,
        _changed: Changed,
        _level: Level<'_>,
        _declined: &[Declined],
    ) -> Result<(), Diagnostics> {
        Ok(())
    }
}

/// The passes before lowering, in order. `simplify` and `fold-constants` run again after `expand`, which makes work
/// for both; `fuse` comes last because it hides nodes in blocks.
pub const DEFAULT: &[&str] = &[
    "inline-calls",
    "simplify",
    "expand",
    "simplify",
    "gather-first",
    "narrow-weights",
    "fold-constants",
    "merge-duplicates",
    "simplify",
    "drop-dead",
    "fuse",
];

/// The same without fusion: one kernel a node.
pub const NO_FUSION: &[&str] = &[
    "inline-calls",
    "simplify",
    "expand",
    "simplify",
    "gather-first",
    "narrow-weights",
    "fold-constants",
    "merge-duplicates",
    "drop-dead",
];

/// Only what lowering needs.
pub const NONE: &[&str] = &["inline-calls", "expand"];

/// The module of a verified graph; `None` where the observer stopped.
pub fn compile(
    graph: Graph,
    machine: &Machine,
    pipeline: &[&str],
    observer: &mut dyn Observer,
) -> Result<Option<Module>, Diagnostics> {
    let Some(graph) = optimize(graph, machine, pipeline, observer)? else { return Ok(None) };
    if observer.before("kernels", "lower") == Go::Stop {
        return Ok(None);
    }
    let mut module = crate::lower::lower(&graph, machine)?;
    drop(graph);
    observer.after("lower", Changed::Yes, Level::Kernels(&module), &[])?;
    for pass in passes::KERNEL_PASSES {
        if !run_on_kernels(&mut module, pass, machine, observer)? {
            return Ok(None);
        }
    }
    for pass in passes::MODULE_PASSES {
        let run = |module: &mut Module, context: &Context<'_>| (pass.run)(module, context);
        if !run_one(&mut module, |module| Level::Module(module), pass.name, machine, observer, run)?
        {
            return Ok(None);
        }
    }
    Ok(Some(module))
}

/// The graph after the passes of that pipeline; `None` where the observer stopped.
pub fn optimize(
    mut graph: Graph,
    machine: &Machine,
    pipeline: &[&str],
    observer: &mut dyn Observer,
) -> Result<Option<Graph>, Diagnostics> {
    for name in pipeline {
        let pass = passes::GRAPH_PASSES
            .iter()
            .find(|pass| pass.name == *name)
            .expect("pipelines name passes");
        let run = |graph: &mut Graph, context: &Context<'_>| (pass.run)(graph, context);
        if !run_one(&mut graph, |graph| Level::Graph(graph), pass.name, machine, observer, run)? {
            return Ok(None);
        }
    }
    Ok(Some(graph))
}

fn run_on_kernels(
    module: &mut Module,
    pass: &Pass<crate::kernel::Kernel>,
    machine: &Machine,
    observer: &mut dyn Observer,
) -> Result<bool, Diagnostics> {
    let run = |module: &mut Module, context: &Context<'_>| {
        let mut changed = Changed::No;
        for (_, kernel) in module.kernels.iter_mut() {
            if (pass.run)(kernel, context)? == Changed::Yes {
                changed = Changed::Yes;
            }
        }
        Ok(changed)
    };
    run_one(module, |module| Level::Kernels(module), pass.name, machine, observer, run)
}

fn run_one<I>(
    ir: &mut I,
    level: fn(&I) -> Level<'_>,
    pass: &'static str,
    machine: &Machine,
    observer: &mut dyn Observer,
    run: impl FnOnce(&mut I, &Context<'_>) -> Result<Changed, Diagnostics>,
) -> Result<bool, Diagnostics> {
    match observer.before(level(ir).name(), pass) {
        Go::Stop => return Ok(false),
        Go::Skip => return Ok(true),
        Go::Run => {}
    }
    let context = Context { machine, options: Vec::new(), declined: RefCell::default() };
    let changed = run(ir, &context)?;
    observer.after(pass, changed, level(ir), &context.declined.into_inner())?;
    Ok(true)
}
