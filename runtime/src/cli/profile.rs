//! `systole profile`: where the time goes on a modeled accelerator.

use super::args::ProfileArgs;
use super::config;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::session::{self, Wanted};
use super::show;
use super::timeline;
use super::topology;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use systole::{Compiler, Profile, Program, Target, Written, data, first_word, plan};

pub(super) fn profile(context: &Context, args: &ProfileArgs) -> Result<(), Failure> {
    if args.model.extension().is_some_and(|extension| extension == "csv") {
        return topology::profile(context, args);
    }
    let name = target_name(args)?;
    if name == ROOFLINE {
        return timeline::profile(context, args, roofline(args)?);
    }
    let target = session::target(&name, None, None, &args.modeled)?;
    if !target.is_modeled() {
        return Err(Failure::usage_with_help(
            format!("the target {target} has no modeled time"),
            "use --target trn1, trn2, trn3, trn4 or a description file; `systole bench` measures others",
        ));
    }
    if args.mesh.is_some() {
        return timeline::profile(context, args, target);
    }
    let trace = args.trace.is_some();
    let scalars: BTreeMap<String, i64> = args.scalars.iter().cloned().collect();
    let name = args.model.display().to_string();
    let found = match written(context, args, &target)? {
        Some(written) => {
            context.enter("simulate");
            written.profile(&scalars, trace, &context.run_options())?
        }
        None => of_model(context, args, target, &scalars)?,
    };
    if let Some(path) = &args.trace {
        data::write_text(path, &trace_text(&found))?;
    }
    if let Some(path) = &args.report {
        data::write_text(path, &page(&name, &found))?;
    }
    for cast in &found.casts {
        context.note(cast);
    }
    if found.announced && context.json {
        context.note(&format!("{}: {ANNOUNCED}", found.target));
    }
    console::print(&if context.json { format!("{}\n", object(&found)) } else { table(&found) })
}

/// The chips of a system, by their peaks.
const ROOFLINE: &str = "roofline";

/// What it is timed on: as asked, else the core that the system's chips have.
fn target_name(args: &ProfileArgs) -> Result<String, Failure> {
    match (&args.target, &args.system) {
        (Some(target), _) => Ok(target.clone()),
        (None, None) => Ok("trn2".to_owned()),
        (None, Some(name)) => {
            let system = plan::load(name, &[]).map_err(Failure::usage)?;
            let machine = system.device.machine.map(|(machine, _)| machine);
            Ok(machine.unwrap_or_else(|| ROOFLINE.to_owned()))
        }
    }
}

/// What programs are compiled for that are timed by peaks: no code is made.
fn roofline(args: &ProfileArgs) -> Result<Target, Failure> {
    if args.system.is_none() {
        return Err(Failure::usage_with_help(
            "a roofline is that of a system's chips",
            "name one with --system, and a mesh with --mesh",
        ));
    }
    let flags = [
        ("--set", !args.modeled.settings.is_empty()),
        ("--precision", args.modeled.precision.is_some()),
    ];
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Failure::usage(format!("{flag} has no effect on a roofline"))),
        None => Ok(Target::kernels()),
    }
}

/// The kernel, module or program that the file holds, where it is not a model.
fn written(
    context: &Context,
    args: &ProfileArgs,
    target: &Target,
) -> Result<Option<Written>, Failure> {
    let extension = args.model.extension().and_then(|extension| extension.to_str());
    if !matches!(extension, Some("tir" | "asm")) {
        return Ok(None);
    }
    context.enter("load");
    let text = data::read_text(&args.model)?;
    let is_graph =
        extension == Some("tir") && !matches!(first_word(&text), Some("kernel" | "module"));
    if is_graph {
        return Ok(None);
    }
    context.enter("compile");
    let written = match extension {
        Some("asm") => Written::from_assembly(&text, target),
        _ => Written::from_text(&text, target),
    };
    let file = args.model.display().to_string();
    Ok(Some(written.map_err(|error| error.in_file(&file, Some(text.into())))?))
}

/// The program of a model, with code for what is known of its inputs.
pub(super) fn compiled(
    context: &Context,
    args: &ProfileArgs,
    target: Target,
) -> Result<Program, Failure> {
    context.enter("load");
    let (model, dims) = match config::is_config(&args.model) {
        true => (config::model(&args.model, &args.dims)?, &[][..]),
        false => (session::load(context, &args.model)?, args.dims.as_slice()),
    };
    context.enter("compile");
    let mut compiler = Compiler::new().target(target).cancel(context.cancel());
    if let Some(deadline) = context.deadline() {
        compiler = compiler.deadline(deadline);
    }
    if let Some(mesh) = &args.mesh {
        compiler = compiler.mesh(mesh.clone());
    }
    if let Some(system) = &args.system {
        compiler = compiler.system(system);
    }
    for (name, sharding) in &args.shardings {
        compiler = compiler.shard(name, sharding);
    }
    let compiler = dims.iter().fold(compiler, |compiler, (name, size)| compiler.bind(name, *size));
    let program = compiler.compile(&model)?;
    if program.cached() == 0 {
        let inputs = session::inputs(context, program.signature(), &args.inputs, Wanted::All)?;
        context.enter("compile for these inputs");
        program.prepare(&inputs)?;
    }
    Ok(program)
}

fn of_model(
    context: &Context,
    args: &ProfileArgs,
    target: Target,
    scalars: &BTreeMap<String, i64>,
) -> Result<Profile, Failure> {
    let program = compiled(context, args, target)?;
    context.enter("simulate");
    Ok(program.profile(scalars, args.trace.is_some(), &context.run_options())?)
}

/// Numbers with as many digits as mean something.
pub(super) fn rounded(value: f64) -> Value {
    let digits = 10f64.powi(6);
    json!((value * digits).round() / digits)
}

fn object(profile: &Profile) -> Value {
    let engines: serde_json::Map<String, Value> = profile
        .engines
        .iter()
        .map(|engine| {
            let row = json!({
                "active_us": rounded(engine.active_us), "instructions": engine.instructions,
            });
            (engine.name.to_owned(), row)
        })
        .collect();
    let ops: Vec<Value> = profile
        .ops
        .iter()
        .map(|op| {
            json!({
                "name": op.name, "origins": op.origins, "time_us": rounded(op.time_us),
                "bound_by": op.bound_by, "engine": op.engine,
            })
        })
        .collect();
    json!({
        "schema": 1,
        "target": profile.target,
        "time_us": rounded(profile.time_us),
        "bound_us": profile.bound_us.map(rounded),
        "bound_by": profile.bound_by,
        "flops": profile.flops,
        "hbm_bytes": profile.hbm_bytes,
        "mfu": rounded(profile.mfu),
        "mbu": rounded(profile.mbu),
        "engines": engines,
        "ops": ops,
        "sbuf_peak_bytes": profile.sbuf_peak_bytes,
        "psum_peak_bytes": profile.psum_peak_bytes,
        "instructions": profile.instructions,
        "simulate_ms": profile.simulate_ms,
        "energy_j": profile.energy_j,
    })
}

pub(super) fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 { format!("{:.1} %", 100.0 * part / whole) } else { "-".to_owned() }
}

/// The source nodes in few words.
pub(super) fn origins(origins: &[String]) -> String {
    match origins {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// What every report says of a machine of which no more is known.
pub(super) const ANNOUNCED: &str = "from announced ratios alone";

/// How many kernels the table shows: those that take longest.
const SHOWN: usize = 24;

fn table(profile: &Profile) -> String {
    let mut text = String::new();
    let time = profile.time_us;
    let announced = if profile.announced { format!(" ({ANNOUNCED})") } else { String::new() };
    let bound = match profile.bound_us {
        Some(bound) if bound > 0.0 => {
            format!(
                "; at least {bound:.2} us by {}, so {:.2} times that",
                profile.bound_by,
                time / bound
            )
        }
        Some(_) | None => String::new(),
    };
    let _ = writeln!(text, "{}{announced}: {time:.2} us{bound}", profile.target);
    let _ = writeln!(
        text,
        "MFU {:.1} %, HFU {:.1} %, MBU {:.1} %; {:.3} GFLOP, {:.3} MB of HBM traffic, {:.3} mJ",
        100.0 * profile.mfu,
        100.0 * profile.hfu,
        100.0 * profile.mbu,
        profile.flops as f64 / 1e9,
        profile.hbm_bytes as f64 / 1e6,
        profile.energy_j * 1e3,
    );
    let _ = writeln!(
        text,
        "at most {} bytes of each SBUF partition and {} of PSUM; {} instructions, simulated in {:.1} ms\n",
        profile.sbuf_peak_bytes, profile.psum_peak_bytes, profile.instructions, profile.simulate_ms,
    );
    text.push_str(&show::table(&engine_rows(profile)));
    text.push('\n');
    text.push_str(&show::table(&op_rows(profile, SHOWN)));
    if profile.ops.len() > SHOWN {
        let _ = writeln!(text, "and {} more", profile.ops.len() - SHOWN);
    }
    text
}

pub(super) fn engine_rows(profile: &Profile) -> Vec<Vec<String>> {
    let head = ["engine", "active us", "of the time", "instructions"].map(str::to_owned).to_vec();
    let rows = profile.engines.iter().map(|engine| {
        vec![
            engine.name.to_owned(),
            format!("{:.2}", engine.active_us),
            percent(engine.active_us, profile.time_us),
            engine.instructions.to_string(),
        ]
    });
    std::iter::once(head).chain(rows).collect()
}

pub(super) fn op_rows(profile: &Profile, shown: usize) -> Vec<Vec<String>> {
    let head = ["kernel", "us", "of the time", "calls", "bound by", "engine", "from"]
        .map(str::to_owned)
        .to_vec();
    let mut ops: Vec<_> = profile.ops.iter().collect();
    ops.sort_by(|a, b| b.time_us.total_cmp(&a.time_us));
    let fallback = |name: &str| profile.fallbacks.iter().any(|(kernel, _)| kernel == name);
    let rows = ops.into_iter().take(shown).map(|op| {
        let code = if fallback(&op.name) { " (exact code)" } else { "" };
        vec![
            format!("{}{code}", op.name),
            format!("{:.2}", op.time_us),
            percent(op.time_us, profile.time_us),
            op.count.to_string(),
            op.bound_by.to_owned(),
            op.engine.to_owned(),
            origins(&op.origins),
        ]
    });
    std::iter::once(head).chain(rows).collect()
}

/// The events in the format that Perfetto and chrome://tracing open: one row for each engine and DMA queue.
fn trace_text(profile: &Profile) -> String {
    let mut lanes: Vec<&str> = profile.events.iter().map(|event| event.lane.as_str()).collect();
    lanes.sort_unstable();
    lanes.dedup();
    let row = |lane: &str| lanes.iter().position(|known| *known == lane).unwrap_or(0) + 1;
    let mut events = vec![json!({
        "ph": "M", "pid": 1, "name": "process_name", "args": {"name": profile.target},
    })];
    for lane in &lanes {
        events.push(json!({
            "ph": "M", "pid": 1, "tid": row(lane), "name": "thread_name", "args": {"name": lane},
        }));
    }
    for event in &profile.events {
        let name =
            if event.origins.is_empty() { event.name.clone() } else { origins(&event.origins) };
        events.push(json!({
            "ph": "X", "pid": 1, "tid": row(&event.lane), "name": name,
            "ts": event.start_us, "dur": event.duration_us,
            "args": {"operation": event.name, "nodes": event.origins},
        }));
    }
    format!("{}\n", json!({"displayTimeUnit": "ns", "traceEvents": events}))
}

/// The tables as a page that needs nothing else.
fn page(name: &str, profile: &Profile) -> String {
    let escape = |text: &str| {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let html = |rows: Vec<Vec<String>>| {
        let mut text = String::from("<table>\n");
        for (at, row) in rows.iter().enumerate() {
            let cell = if at == 0 { "th" } else { "td" };
            let cells: Vec<String> =
                row.iter().map(|value| format!("<{cell}>{}</{cell}>", escape(value))).collect();
            let _ = writeln!(text, "<tr>{}</tr>", cells.concat());
        }
        text + "</table>\n"
    };
    let bound = profile.bound_us.map_or(String::new(), |bound| {
        format!("; at least {bound:.2} us by {}", escape(&profile.bound_by))
    });
    let announced = if profile.announced { format!(" ({ANNOUNCED})") } else { String::new() };
    let mut text = format!(
        "<!doctype html>\n<meta charset=\"utf-8\">\n<title>{name}</title>\n\
         <style>body{{font:15px sans-serif;margin:2em}}table{{border-collapse:collapse;margin:1em 0}}\
         th,td{{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}}</style>\n\
         <h1>{name} on {target}{announced}</h1>\n<p>{time:.2} us{bound}. MFU {mfu:.1} %, HFU {hfu:.1} %, MBU {mbu:.1} %, {energy:.3} mJ.</p>\n",
        name = escape(name),
        target = escape(&profile.target),
        time = profile.time_us,
        mfu = 100.0 * profile.mfu,
        hfu = 100.0 * profile.hfu,
        mbu = 100.0 * profile.mbu,
        energy = profile.energy_j * 1e3,
    );
    text.push_str(&html(engine_rows(profile)));
    text.push_str(&html(op_rows(profile, usize::MAX)));
    for (kernel, why) in &profile.fallbacks {
        let _ = writeln!(text, "<p>@{} runs as exact code: {}</p>", escape(kernel), escape(why));
    }
    text
}
