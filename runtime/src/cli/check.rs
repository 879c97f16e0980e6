//! `systole check`: coverage by operator, and whether the target takes the whole.

use super::args::CheckArgs;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::profile::ANNOUNCED;
use super::session::{self, Loaded};
use super::show;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use systole::{Code, Error, ErrorKind, Model, Port, Profile, SavedProgram, Target};

pub(super) fn check(context: &Context, args: &CheckArgs) -> Result<(), Failure> {
    let target =
        session::target(&args.model.target, args.model.cpu.as_deref(), None, &args.model.modeled)?;
    let model = match session::load_any(context, &args.model.model)? {
        Loaded::Model(model) => model,
        Loaded::Program(saved) => return check_saved(context, args, &target, &saved),
    };
    if target.is_modeled() {
        return check_modeled(context, args, &target, &model);
    }
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

/// A modeled accelerator also tells whether the model fits its memory, how long it would take and what bounds it.
fn check_modeled(
    context: &Context,
    args: &CheckArgs,
    target: &Target,
    model: &Model,
) -> Result<(), Failure> {
    let operators = model.contents().operators;
    context.enter("compile");
    let compiled = session::compiler(context, &args.model, target).compile(model);
    context.enter("simulate");
    let found = compiled.and_then(|program| {
        if program.cached() == 0 {
            return Ok(None);
        }
        program.profile(&BTreeMap::new(), false, &context.run_options()).map(Some)
    });
    let (profile, error) = match found {
        Ok(profile) => (profile, None),
        Err(error) => (None, Some(error)),
    };
    let does_not_fit = |error: &Error| error.kind() == ErrorKind::DoesNotFit;
    let hbm_bytes = profile.as_ref().map(|profile| profile.resident_bytes);
    let capacity = target.hbm_capacity_bytes();
    let fits = match (&error, hbm_bytes, capacity) {
        (Some(error), _, _) if does_not_fit(error) => Some(false),
        (_, Some(bytes), Some(capacity)) => Some(bytes <= capacity),
        (_, _, _) => None,
    };
    let refusals: Vec<String> =
        error.iter().flat_map(Error::diagnostics).map(|problem| problem.message.clone()).collect();
    let supported = error.is_none() && operators.iter().all(|op| op.known);
    let why = |known: bool| (!known).then_some("there is no meaning for it here");
    let text = if context.json {
        let rows: Vec<_> = operators
            .iter()
            .map(|op| json!({"op": op.name, "count": op.count, "supported": op.known, "why": why(op.known)}))
            .collect();
        let object = json!({
            "schema": 1,
            "supported": supported,
            "ops": rows,
            "fits": fits,
            "hbm_bytes": hbm_bytes,
            "predicted_us": profile.as_ref().map(|profile| profile.time_us),
            "bound_by": profile.as_ref().map(|profile| profile.bound_by.clone()),
        });
        format!("{object}\n")
    } else {
        let rows: Vec<Vec<String>> = operators
            .iter()
            .map(|op| {
                let why = why(op.known).unwrap_or_default();
                vec![op.count.to_string(), op.name.clone(), why.to_owned()]
            })
            .collect();
        let mut text = show::table(&rows);
        for refusal in &refusals {
            let _ = writeln!(text, "{refusal}");
        }
        let name = target.name();
        match (&profile, fits) {
            (Some(profile), fits) => {
                let fits = if fits == Some(false) { "does not fit" } else { "fits" };
                let mb = profile.resident_bytes as f64 / 1e6;
                let (time, by) = (profile.time_us, &profile.bound_by);
                let announced =
                    if profile.announced { format!(" ({ANNOUNCED})") } else { String::new() };
                let _ = writeln!(
                    text,
                    "{name}{announced}: {fits} with {mb:.1} MB in HBM; {time:.1} us, bound by {by}"
                );
                if !profile.fallbacks.is_empty() {
                    let count = profile.fallbacks.len();
                    let _ =
                        writeln!(text, "{count} kernels run as exact code on general processors");
                }
            }
            (None, _) if error.is_some() => {
                let _ = writeln!(text, "{name}: it does not compile");
            }
            (None, _) => {
                let _ = writeln!(
                    text,
                    "{name}: bind the sizes of the inputs with --dim to see the time"
                );
            }
        }
        text
    };
    console::print(&text)?;
    if context.json && profile.as_ref().is_some_and(|profile| profile.announced) {
        context.note(&format!("{}: {ANNOUNCED}", target.name()));
    }
    match (error, fits) {
        (Some(error), _) => Err(Failure::Library(error)),
        (None, Some(false)) => {
            let message = too_large(target, profile.as_ref());
            Err(Failure::Library(Error::new(ErrorKind::DoesNotFit, Code::TooLarge, message)))
        }
        (None, Some(true) | None) if !supported => Err(Failure::Unsupported),
        (None, Some(true) | None) => Ok(()),
    }
}

/// What the memory holds, where that is more than there is.
fn too_large(target: &Target, profile: Option<&Profile>) -> String {
    let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    let mut text = format!("the model does not fit the memory of {}", target.name());
    let Some(profile) = profile else { return text };
    let capacity = target.hbm_capacity_bytes().unwrap_or(0);
    let needed = profile.resident_bytes;
    let _ = write!(text, ": it takes {} of {}", mb(needed), mb(capacity));
    for (at, (name, bytes)) in profile.largest_tensors.iter().enumerate() {
        let word = if at == 0 { "; the largest tensors are" } else { "," };
        let _ = write!(text, "{word} %{name} ({})", mb(*bytes));
    }
    text
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
