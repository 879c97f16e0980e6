//! `systole opt`: passes over a program in text form.

use super::args::OptArgs;
use super::compile;
use super::failure::Failure;
use super::guard::Context;
use super::look::{self, Look};
use super::session;
use std::cell::RefCell;
use std::collections::BTreeMap;
use systole::{Error, Inputs, Target};
use systole_compiler::diagnostic::Diagnostics;
use systole_compiler::machine::Machine;
use systole_compiler::pass::{Changed, Context as PassContext, Pass};
use systole_compiler::passes::GRAPH_PASSES;
use systole_compiler::pipeline::{Go, Level, Observer};

pub(super) fn opt(context: &Context, args: &OptArgs) -> Result<(), Failure> {
    let wishes = parse_passes(&args.passes)?;
    let machine = args.cpu.clone().map_or(Target::host(), Target::host_with_cpu).machine()?;
    let mut look = Look::new(context, &args.look, args.stop_after.as_deref())?;
    let model = session::load(context, &args.file)?;
    let dims: BTreeMap<String, usize> = args.dims.iter().cloned().collect();
    let mut graph = model.graph(&dims, &Inputs::new())?;
    context.enter("passes");
    for wish in &wishes {
        let pass = found(GRAPH_PASSES, wish)?;
        let goes_on =
            run_pass(pass, &mut graph, &machine, wish, &mut look, |graph| Level::Graph(graph))
                .map_err(|problems| Failure::from(Error::from(problems)))?;
        if !goes_on {
            break;
        }
    }
    let text = look::level_text(Level::Graph(&graph));
    compile::deliver(context, &text, args.output.as_deref())
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
