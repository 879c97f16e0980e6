//! `systole opt`: passes over a program in text form.

use super::args::OptArgs;
use super::compile;
use super::failure::Failure;
use super::guard::Context;
use super::look::{self, Look};
use super::session;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use systole::{Error, Inputs, Target};
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::graph::Graph;
use systole_compiler::kernel::{self, Kernel};
use systole_compiler::machine::Machine;
use systole_compiler::module::{self, Module};
use systole_compiler::pass::{Changed, Context as PassContext, Pass};
use systole_compiler::passes::{GRAPH_PASSES, KERNEL_PASSES, MODULE_PASSES};
use systole_compiler::pipeline::{Go, Level, Observer};

pub(super) fn opt(context: &Context, args: &OptArgs) -> Result<(), Failure> {
    let wishes = parse_passes(&args.passes)?;
    let machine = args.cpu.clone().map_or(Target::host(), Target::host_with_cpu).machine()?;
    let mut look = Look::new(context, &args.look, args.stop_after.as_deref())?;
    let mut program = load(context, args)?;
    context.enter("passes");
    for wish in &wishes {
        let goes_on = match &mut program {
            Program::Graph(graph) => {
                let pass = found(GRAPH_PASSES, wish)?;
                run_pass(pass, graph, &machine, wish, &mut look, |graph| Level::Graph(graph))
            }
            Program::Module(module) if KERNEL_PASSES.iter().any(|pass| pass.name == wish.name) => {
                run_on_kernels(found(KERNEL_PASSES, wish)?, module, &machine, wish, &mut look)
            }
            Program::Module(module) => {
                let pass = found(MODULE_PASSES, wish)?;
                run_pass(pass, module, &machine, wish, &mut look, |module| Level::Module(module))
            }
            Program::Kernels(kernels) => {
                let pass = found(KERNEL_PASSES, wish)?;
                run_on_kernels(pass, kernels, &machine, wish, &mut look)
            }
        };
        if !goes_on.map_err(|problems| Failure::from(Error::from(problems)))? {
            break;
        }
    }
    let text = match &program {
        Program::Graph(graph) => look::level_text(Level::Graph(graph)),
        Program::Module(module) => look::level_text(Level::Module(module)),
        Program::Kernels(module) => {
            let kernels: Vec<String> =
                module.kernels.iter().map(|(_, kernel)| kernel.to_string()).collect();
            kernels.join("\n")
        }
    };
    compile::deliver(context, &text, args.output.as_deref())
}

/// A program of any level.
enum Program {
    Graph(Graph),
    Module(Module),
    /// Kernels without anything around them.
    Kernels(Module),
}

fn load(context: &Context, args: &OptArgs) -> Result<Program, Failure> {
    let dims: BTreeMap<String, usize> = args.dims.iter().cloned().collect();
    let is_text = args.file.extension().is_some_and(|extension| extension == "tir");
    let text = if is_text { std::fs::read_to_string(&args.file).ok() } else { None };
    let level = text.as_deref().and_then(systole::first_word);
    let (Some(text), Some("kernel" | "module")) = (&text, level) else {
        let model = session::load(context, &args.file)?;
        return Ok(Program::Graph(model.graph(&dims, &Inputs::new())?));
    };
    if !dims.is_empty() {
        return Err(Failure::usage("--dim has no effect here: every size of this text is fixed"));
    }
    let name = args.file.display().to_string();
    let in_file = |problems: Diagnostics| {
        Failure::from(Error::from(problems).in_file(&name, Some(Arc::from(text.as_str()))))
    };
    context.enter("load");
    if level == Some("module") {
        let module = module::parse(text).map_err(in_file)?;
        module::verify(&module).map_err(in_file)?;
        return Ok(Program::Module(module));
    }
    let mut around = Module::default();
    for kernel in kernel::parse_all(text).map_err(in_file)? {
        kernel::verify(&kernel).map_err(in_file)?;
        around.kernels.push(kernel);
    }
    Ok(Program::Kernels(around))
}

/// Runs a pass over each kernel, under one name.
fn run_on_kernels(
    pass: &Pass<Kernel>,
    module: &mut Module,
    machine: &Machine,
    wish: &Wish,
    look: &mut Look,
) -> Result<bool, Diagnostics> {
    match look.before("kernels", pass.name) {
        Go::Stop => return Ok(false),
        Go::Skip => return Ok(true),
        Go::Run => {}
    }
    let context =
        PassContext { machine, options: wish.options.clone(), declined: RefCell::default() };
    let mut changed = Changed::No;
    for (_, kernel) in module.kernels.iter_mut() {
        if (pass.run)(kernel, &context)? == Changed::Yes {
            changed = Changed::Yes;
        }
    }
    look.after(pass.name, changed, Level::Kernels(module), &context.declined.into_inner())?;
    Ok(true)
}

/// A pass that is asked for, with its options.
struct Wish {
    name: String,
    options: Vec<(String, String)>,
}

/// Reads `a,b{k=v, l=w},c`.
fn parse_passes(text: &str) -> Result<Vec<Wish>, Failure> {
    let mut wishes = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find([',', '{']).unwrap_or(rest.len());
        let name = rest[..end].trim().to_owned();
        rest = &rest[end..];
        let mut options = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            let close = inside
                .find('}')
                .ok_or_else(|| Failure::usage(format!("`{{` is not closed in --passes {text}")))?;
            for option in inside[..close].split(',').filter(|option| !option.trim().is_empty()) {
                let (key, value) = option.split_once('=').ok_or_else(|| {
                    Failure::usage(format!(
                        "`{}` is not KEY=VALUE in --passes {text}",
                        option.trim()
                    ))
                })?;
                options.push((key.trim().to_owned(), value.trim().to_owned()));
            }
            rest = inside[close + 1..].trim_start();
        }
        if name.is_empty() {
            return Err(Failure::usage(format!("a pass has no name in --passes {text}")));
        }
        wishes.push(Wish { name, options });
        match rest.strip_prefix(',') {
            Some(more) => rest = more.trim_start(),
            None if rest.is_empty() => {}
            None => {
                return Err(Failure::usage(format!(
                    "`,` is missing before `{rest}` in --passes {text}"
                )));
            }
        }
    }
    Ok(wishes)
}

fn found<'a, I>(passes: &'a [Pass<I>], wish: &Wish) -> Result<&'a Pass<I>, Failure> {
    passes.iter().find(|pass| pass.name == wish.name).ok_or_else(|| {
        let known: Vec<&str> = passes.iter().map(|pass| pass.name).collect();
        Failure::usage_with_help(
            format!("no pass over this level is called `{}`", wish.name),
            format!("the passes are {}", known.join(", ")),
        )
    })
}

/// Runs one pass under the observer; whether the next may follow.
fn run_pass<I>(
    pass: &Pass<I>,
    ir: &mut I,
    machine: &Machine,
    wish: &Wish,
    look: &mut Look,
    level: fn(&I) -> Level<'_>,
) -> Result<bool, Diagnostics> {
    match look.before(level(ir).name(), pass.name) {
        Go::Stop => return Ok(false),
        Go::Skip => return Ok(true),
        Go::Run => {}
    }
    let context =
        PassContext { machine, options: wish.options.clone(), declined: RefCell::default() };
    let changed: Changed = (pass.run)(ir, &context)?;
    look.after(pass.name, changed, level(ir), &context.declined.into_inner())?;
    Ok(true)
}
