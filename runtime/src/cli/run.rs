//! `systole run`.

use super::args::{OutputArgs, RunArgs};
use super::compare::{self, Comparison};
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::session::{self, Session, Wanted};
use super::show;
use super::timeline;
use serde_json::json;
use std::fmt::Write;
use std::time::Instant;
use systole::{Outputs, data};

pub(super) fn run(context: &Context, args: &RunArgs) -> Result<(), Failure> {
    let mut session =
        session::open(context, &args.model, args.threads.threads, Some(&args.look), args.mode)?;
    let inputs = session::inputs(context, session.program.signature(), &args.inputs, Wanted::All)?;
    session.prepare(context, &inputs)?;
    context.enter("run");
    let start = Instant::now();
    let outputs = session.program.run_with(&context.run_options(), inputs)?;
    let run_ms = session::milliseconds(start);
    let comparison = keep(context, &args.outputs, &outputs)?;
    let text = if context.json {
        json_text(&session, &outputs, run_ms, comparison.as_ref())
    } else {
        readable(&session, &outputs, run_ms, comparison.as_ref())
    };
    console::print(&text)?;
    judge(comparison.as_ref())
}

/// Saves the outputs and compares them, as the arguments say.
pub(super) fn keep(
    context: &Context,
    args: &OutputArgs,
    outputs: &Outputs,
) -> Result<Option<Comparison>, Failure> {
    if let Some(path) = &args.outputs {
        context.enter("write outputs");
        let entries: Vec<_> =
            outputs.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
        data::write(path, &entries)?;
    }
    let Some(path) = &args.expect else { return Ok(None) };
    context.enter("compare");
    compare::with_bundle(outputs, path, args.tol).map(Some)
}

/// A comparison that failed ends with its own exit code.
pub(super) fn judge(comparison: Option<&Comparison>) -> Result<(), Failure> {
    match comparison {
        Some(comparison) if !comparison.ok => Err(Failure::Different),
        Some(_) | None => Ok(()),
    }
}

/// The time of the last run, where it was on modeled cores.
fn time_us(session: &Session) -> Option<f64> {
    let one = session.program.last_profile().map(|profile| profile.time_us);
    one.or_else(|| session.program.last_timeline().map(|timeline| timeline.time_us))
}

fn json_text(
    session: &Session,
    outputs: &Outputs,
    run_ms: f64,
    comparison: Option<&Comparison>,
) -> String {
    let outputs: Vec<_> = outputs
        .iter()
        .map(|(name, tensor)| json!({"name": name, "dtype": tensor.dtype().name(), "shape": tensor.shape()}))
        .collect();
    let mut object = json!({
        "schema": 1,
        "model": session.name,
        "target": session.target.name(),
        "outputs": outputs,
        "compile_ms": session.compile_ms,
        "run_ms": run_ms,
        "time_us": time_us(session),
        "compare": comparison.map(Comparison::json),
    });
    if let Some(timeline) = session.program.last_timeline() {
        object["timeline"] = timeline::object(&timeline);
    }
    // Only a program that is divided among ranks has exchanges.
    let exchanges = session.program.communications();
    if !exchanges.is_empty() {
        let rows = exchanges.iter().map(|one| {
            json!({
                "kind": one.kind, "ranks": one.ranks, "bytes": one.operand.bytes(),
                "time_us": one.time_us, "algorithm": one.algorithm,
            })
        });
        object["communication"] = rows.collect();
    }
    format!("{object}\n")
}

fn readable(
    session: &Session,
    outputs: &Outputs,
    run_ms: f64,
    comparison: Option<&Comparison>,
) -> String {
    let mut text = String::new();
    for (name, tensor) in outputs.iter() {
        let _ = writeln!(text, "{}", show::tensor_line(name, tensor));
    }
    for line in comparison.iter().flat_map(|comparison| &comparison.lines) {
        let _ = writeln!(text, "compare {line}");
    }
    let (load_ms, compile_ms) = (session.load_ms, session.compile_ms);
    let target = session.target.name();
    for one in session.program.communications() {
        let (kind, operand, ranks) = (one.kind, &one.operand, one.ranks);
        let time = match (one.time_us, &one.algorithm) {
            (Some(time_us), Some(algorithm)) => format!("{time_us:.2} us by {algorithm}"),
            (_, _) => "not possible on this system".to_owned(),
        };
        let _ = writeln!(text, "exchange {kind} of {operand} among {ranks} ranks: {time}");
    }
    if let Some(profile) = session.program.last_profile() {
        let _ = writeln!(text, "{target}: {:.2} us on the modeled core", profile.time_us);
    }
    if let Some(timeline) = session.program.last_timeline() {
        let (time_us, ranks, system) = (timeline.time_us, timeline.ranks, &timeline.system);
        let _ = writeln!(text, "{target}: {time_us:.2} us on {ranks} modeled cores of {system}");
    }
    let _ = writeln!(
        text,
        "{target}: loaded in {load_ms:.1} ms, compiled in {compile_ms:.1} ms, ran in {run_ms:.3} ms"
    );
    text
}
