//! `systole compile`: a program to be run later, or the text of any level.

use super::args::{CompileArgs, Emit};
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::look::{self, Look};
use super::session::{self, Wanted};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use systole::{Code, Error, ErrorKind, Inputs, Listing, Model, Target, data};
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::module::Module;
use systole_compiler::pipeline::{self, Level};

pub(super) fn compile(context: &Context, args: &CompileArgs) -> Result<(), Failure> {
    let threads = args.threads.threads;
    let target = session::target(
        &args.model.target,
        args.model.cpu.as_deref(),
        threads,
        &args.model.modeled,
    )?;
    if target == Target::reference() {
        return Err(Failure::usage_with_help(
            "the target reference compiles nothing",
            "use --target host or kernels; `systole opt MODEL` prints the graph as it came",
        ));
    }
    let machine = target.machine()?;
    let model = session::load(context, &args.model.model)?;
    let inputs = session::inputs(context, model.signature(), &args.inputs, Wanted::Any)?;
    let dims: BTreeMap<String, usize> = args.model.dims.iter().cloned().collect();
    if let (None, None, Some(path)) = (args.emit, &args.stop_after, &args.output) {
        return save(context, args, &target, &model, &inputs, path);
    }
    context.enter("bind");
    let graph = model.graph(&dims, &inputs)?;
    context.enter("compile");
    let mut look = Look::new(context, &args.look, args.stop_after.as_deref())?;
    let in_model = |problems: Diagnostics| Failure::from(model.blame(Error::from(problems)));
    let text = match args.emit {
        Some(Emit::Graph) => pipeline::optimize(graph, &machine, pipeline::DEFAULT, &mut look)
            .map_err(in_model)?
            .map(|graph| look::level_text(Level::Graph(&graph))),
        emit => {
            let module = pipeline::compile(graph, &machine, pipeline::DEFAULT, &mut look)
                .map_err(in_model)?;
            let emit = emit.unwrap_or(Emit::Module);
            module.map(|module| module_text(&module, emit, &target)).transpose()?
        }
    };
    if look.is_over() {
        let message = "the compilation was ended";
        return Err(Error::new(ErrorKind::Limit, Code::Limit, message).into());
    }
    let text = look.stopped.or(text).unwrap_or_default();
    deliver(context, &text, args.output.as_deref())
}

/// Saves a program, which the verbs that run models take.
fn save(
    context: &Context,
    args: &CompileArgs,
    target: &Target,
    model: &Model,
    inputs: &Inputs,
    path: &Path,
) -> Result<(), Failure> {
    context.enter("compile");
    let mut compiler = session::compiler(context, &args.model, target);
    if let Some(threads) = args.threads.threads {
        compiler = compiler.threads(usize::from(threads));
    }
    if Look::is_asked(&args.look) || context.talk.verbose {
        compiler = compiler.observe(Arc::new(Mutex::new(Look::new(context, &args.look, None)?)));
    }
    compiler.save(model, inputs, path)?;
    if context.json {
        let bytes = std::fs::metadata(path).map(|metadata| metadata.len()).ok();
        let object = json!({"schema": 1, "file": path.display().to_string(), "bytes": bytes});
        return console::print(&format!("{object}\n"));
    }
    Ok(())
}

fn module_text(module: &Module, emit: Emit, target: &Target) -> Result<String, Failure> {
    let listing = match emit {
        Emit::Graph | Emit::Module => return Ok(look::level_text(Level::Module(module))),
        Emit::Kernels => {
            let kernels: Vec<String> =
                module.kernels.iter().map(|(_, kernel)| kernel.to_string()).collect();
            return Ok(kernels.join("\n"));
        }
        Emit::Asm => Listing::Asm,
        Emit::Clif => Listing::Clif,
    };
    Ok(target.listing(module, listing)?)
}

/// Prints the text, or writes it where it is to go.
pub(super) fn deliver(context: &Context, text: &str, output: Option<&Path>) -> Result<(), Failure> {
    let text = format!("{}\n", text.trim_end_matches('\n'));
    match output {
        None if context.json => {
            console::print(&format!("{}\n", json!({"schema": 1, "text": text})))
        }
        None => console::print(&text),
        Some(path) => Ok(data::write_text(path, &text)?),
    }
}
