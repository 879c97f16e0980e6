//! `systole check`: coverage by operator, and whether the target takes the whole.

use super::args::CheckArgs;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::session::{self, Loaded};
use super::show;
use serde_json::json;
use std::fmt::Write;
use systole::{Error, Port, SavedProgram, Target};

pub(super) fn check(context: &Context, args: &CheckArgs) -> Result<(), Failure> {
    let target = session::target(&args.model.target, args.model.cpu.as_deref(), None)?;
    let model = match session::load_any(context, &args.model.model)? {
        Loaded::Model(model) => model,
        Loaded::Program(saved) => return check_saved(context, args, &target, &saved),
    };
    let operators = model.contents().operators;
    let total: usize = operators.iter().map(|op| op.count).sum();
    let covered: usize = operators.iter().filter(|op| op.known).map(|op| op.count).sum();
    context.enter("compile");
    let compiler = session::compiler(context, &args.model, &target);
    let compiled = compiler.compile(&model);
    let verdict = match &compiled {
        Ok(program) => {
            let open: Vec<&Port> =
                program.signature().inputs.iter().filter(|port| port.ty().is_none()).collect();
            if program.cached() > 0 { Verdict::Compiles } else { Verdict::open(&open) }
        }
        Err(error) => Verdict::Refused(error.clone()),
    };
    // What no operator table shows is an error all the same.
    let failure = match verdict {
        Verdict::Refused(ref error) => Some(Failure::Library(error.clone())),
        Verdict::Compiles | Verdict::Open(_) if covered < total => Some(Failure::Unsupported),
        Verdict::Compiles | Verdict::Open(_) => None,
    };
    let text = if context.json {
        let rows: Vec<_> = operators
            .iter()
            .map(|op| json!({"op": op.name, "count": op.count, "covered": op.known}))
            .collect();
        let object = json!({
            "schema": 1,
            "model": model.name(),
            "target": target.name(),
            "nodes": total,
            "covered": covered,
            "operators": rows,
            "compiles": match verdict { Verdict::Compiles => Some(true), Verdict::Refused(_) => Some(false), Verdict::Open(_) => None },
        });
        format!("{object}\n")
    } else {
        let rows: Vec<Vec<String>> = operators
            .iter()
            .map(|op| {
                vec![
                    op.count.to_string(),
                    op.name.clone(),
                    if op.known { "" } else { "not supported" }.to_owned(),
                ]
            })
            .collect();
        let mut text = show::table(&rows);
        let share = if total == 0 { 100.0 } else { 100.0 * covered as f64 / total as f64 };
        let _ = writeln!(text, "{covered} of {total} nodes are covered ({share:.1} %)");
        let _ = writeln!(text, "{}: {}", target.name(), verdict.text());
        text
    };
    console::print(&text)?;
    failure.map_or(Ok(()), Err)
}

/// A saved program has no operators any more; what remains to be seen is whether this machine takes it.
fn check_saved(
    context: &Context,
    args: &CheckArgs,
    target: &Target,
    saved: &SavedProgram,
) -> Result<(), Failure> {
    context.enter("compile");
    session::compiler(context, &args.model, target).load(saved)?;
    let text = if context.json {
        let object = json!({
            "schema": 1,
            "model": saved.name(),
            "target": target.name(),
            "kernels": saved.kernels(),
            "compiles": true,
        });
        format!("{object}\n")
    } else {
        let kernels = saved.kernels();
        format!("a saved program of {kernels} kernels\n{}: all of it compiles\n", target.name())
    };
    console::print(&text)
}

enum Verdict {
    Compiles,
    /// Sizes or values are not known yet.
    Open(String),
    Refused(Error),
}

impl Verdict {
    fn open(ports: &[&Port]) -> Verdict {
        Verdict::Open(match ports {
            [] => {
                "values of inputs decide shapes, so only a run can tell whether all of it compiles"
                    .to_owned()
            }
            ports => {
                let ports: Vec<String> = ports.iter().map(|port| port.to_string()).collect();
                format!(
                    "bind the sizes of {} with --dim to see whether all of it compiles",
                    ports.join(", ")
                )
            }
        })
    }

    fn text(&self) -> String {
        match self {
            Verdict::Compiles => "all of it compiles".to_owned(),
            Verdict::Open(what) => what.clone(),
            Verdict::Refused(_) => "it does not compile".to_owned(),
        }
    }
}
