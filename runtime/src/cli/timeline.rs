//! `systole profile` of a model on the ranks of a mesh: one timeline of computation and exchanges.

use super::args::ProfileArgs;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::profile::{compiled, op_rows, origins, percent, rounded};
use super::show;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use systole::{RankTimeline, Target, Timeline, TimelineSpan, data};

pub(super) fn profile(
    context: &Context,
    args: &ProfileArgs,
    target: Target,
) -> Result<(), Failure> {
    if args.report.is_some() {
        return Err(Failure::usage("there is no page of a timeline yet: use --trace"));
    }
    let scalars: BTreeMap<String, i64> = args.scalars.iter().cloned().collect();
    let program = compiled(context, args, target)?;
    context.enter("simulate");
    let found = program.timeline(&scalars, args.trace.is_some(), &context.run_options())?;
    if let Some(path) = &args.trace {
        data::write_text(path, &trace_text(&found))?;
    }
    console::print(&if context.json { format!("{}\n", object(&found)) } else { table(&found) })
}

/// The timeline as JSON, without its spans: those are in the trace.
pub(super) fn object(timeline: &Timeline) -> Value {
    let programs: Vec<Value> = timeline.programs.iter().map(program_object).collect();
    let path: Vec<Value> = timeline
        .path
        .iter()
        .map(|part| {
            json!({
                "cause": part.cause, "exchange": part.exchange,
                "time_us": rounded(part.time_us), "share": rounded(part.time_us / timeline.time_us),
            })
        })
        .collect();
    json!({
        "schema": 1,
        "target": timeline.target,
        "system": timeline.system,
        "mesh": timeline.mesh,
        "ranks": timeline.ranks,
        "time_us": rounded(timeline.time_us),
        "programs": programs,
        "critical_path": path,
        "simulate_ms": timeline.simulate_ms,
    })
}

fn program_object(program: &RankTimeline) -> Value {
    let exchanges: Vec<Value> = exchanges(program)
        .into_iter()
        .map(|row| {
            json!({
                "kind": row.span.name, "ranks": row.group, "bytes": row.bytes,
                "algorithm": row.algorithm, "count": row.count,
                "time_us": rounded(row.time_us), "wait_us": rounded(row.wait_us),
                "origins": row.span.origins,
            })
        })
        .collect();
    let profile = program.profile.as_ref();
    json!({
        "ranks": program.ranks,
        "time_us": rounded(program.time_us),
        "exchange_us": rounded(program.exchange_us),
        "exposed_us": rounded(program.exposed_us),
        "exchanges": exchanges,
        "mfu": profile.map(|profile| rounded(profile.mfu)),
        "mbu": profile.map(|profile| rounded(profile.mbu)),
        "energy_j": profile.map(|profile| profile.energy_j),
    })
}

/// Exchanges that are alike.
struct Row<'t> {
    span: &'t TimelineSpan,
    group: usize,
    bytes: usize,
    algorithm: &'t str,
    count: usize,
    time_us: f64,
    wait_us: f64,
}

fn exchanges(program: &RankTimeline) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for span in &program.spans {
        let Some(exchange) = &span.exchange else { continue };
        let (time_us, wait_us) = (span.end_us - span.start_us, span.start_us - exchange.ready_us);
        let alike = rows.iter_mut().find(|row| {
            row.span.name == span.name
                && row.span.origins == span.origins
                && row.bytes == exchange.bytes
                && row.group == exchange.group.len()
        });
        match alike {
            Some(row) => {
                row.count += 1;
                row.time_us += time_us;
                row.wait_us += wait_us;
            }
            None => rows.push(Row {
                span,
                group: exchange.group.len(),
                bytes: exchange.bytes,
                algorithm: &exchange.algorithm,
                count: 1,
                time_us,
                wait_us,
            }),
        }
    }
    // A rank that asks for its number exchanges nothing.
    rows.retain(|row| row.group > 1);
    rows
}

/// How many kernels of each program the table shows.
const SHOWN: usize = 12;

fn table(timeline: &Timeline) -> String {
    let Timeline { target, system, mesh, ranks, time_us, .. } = timeline;
    let mut text = format!("{ranks} ranks ({mesh}) of {target} on {system}: {time_us:.2} us\n");
    for program in &timeline.programs {
        let _ = writeln!(
            text,
            "\nranks {}: {:.2} us, exchanges {:.2} us, of which {:.2} us hide behind computation",
            numbers(&program.ranks),
            program.time_us,
            program.exchange_us,
            program.exchange_us - program.exposed_us,
        );
        text.push_str(&show::table(&exchange_rows(program)));
        if let Some(profile) = &program.profile {
            text.push('\n');
            text.push_str(&show::table(&op_rows(profile, SHOWN)));
        }
    }
    text.push_str("\nwhat the time is made of, along what each waits for\n");
    text.push_str(&show::table(&path_rows(timeline)));
    let _ = writeln!(text, "simulated in {:.1} ms", timeline.simulate_ms);
    text
}

/// `0-3, 8`
fn numbers(ranks: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &rank in ranks {
        match parts.last_mut().filter(|(_, last)| last + 1 == rank) {
            Some((_, last)) => *last = rank,
            None => parts.push((rank, rank)),
        }
    }
    let part = |(first, last): (usize, usize)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    parts.into_iter().map(part).collect::<Vec<_>>().join(", ")
}

fn exchange_rows(program: &RankTimeline) -> Vec<Vec<String>> {
    let head = ["exchange", "ranks", "bytes", "times", "us", "waits us", "algorithm", "from"]
        .map(str::to_owned)
        .to_vec();
    let rows = exchanges(program).into_iter().map(|row| {
        vec![
            row.span.name.clone(),
            row.group.to_string(),
            row.bytes.to_string(),
            row.count.to_string(),
            format!("{:.2}", row.time_us),
            format!("{:.2}", row.wait_us),
            row.algorithm.to_owned(),
            origins(&row.span.origins),
        ]
    });
    std::iter::once(head).chain(rows).collect()
}

fn path_rows(timeline: &Timeline) -> Vec<Vec<String>> {
    let head = ["cause", "us", "of the time"].map(str::to_owned).to_vec();
    let rows = timeline.path.iter().map(|part| {
        vec![
            part.cause.clone(),
            format!("{:.2}", part.time_us),
            percent(part.time_us, timeline.time_us),
        ]
    });
    std::iter::once(head).chain(rows).collect()
}

/// The events in the format that Perfetto and chrome://tracing open: for each program, a row for each engine and DMA queue, or
/// one of kernels, and one of exchanges; and a row for each group on the fabric.
fn trace_text(timeline: &Timeline) -> String {
    let mut events = Vec::new();
    let mut rows: BTreeMap<(usize, String), usize> = BTreeMap::new();
    let mut row = |process: usize, lane: &str, events: &mut Vec<Value>| -> usize {
        let next = rows.len() + 1;
        *rows.entry((process, lane.to_owned())).or_insert_with(|| {
            events.push(json!({
                "ph": "M", "pid": process, "tid": next, "name": "thread_name", "args": {"name": lane},
            }));
            next
        })
    };
    let process = |number: usize, name: String| json!({"ph": "M", "pid": number, "name": "process_name", "args": {"name": name}});
    let fabric = timeline.programs.len() + 1;
    events.push(process(fabric, timeline.system.clone()));
    for (at, program) in timeline.programs.iter().enumerate() {
        let own = at + 1;
        let ranks = numbers(&program.ranks);
        events.push(process(own, format!("{} ranks {ranks}", timeline.target)));
        for event in program.profile.iter().flat_map(|profile| &profile.events) {
            let name =
                if event.origins.is_empty() { event.name.clone() } else { origins(&event.origins) };
            let lane = row(own, &event.lane, &mut events);
            events.push(json!({
                "ph": "X", "pid": own, "tid": lane, "name": name,
                "ts": event.start_us, "dur": event.duration_us,
                "args": {"operation": event.name, "nodes": event.origins},
            }));
        }
        for span in &program.spans {
            let lane = match &span.exchange {
                Some(exchange) if exchange.group.len() < 2 => continue,
                Some(_) => row(own, "exchanges", &mut events),
                None => row(own, "kernels", &mut events),
            };
            let drawn = program.profile.is_some() && span.exchange.is_some();
            let event = |process: usize, lane: usize| {
                json!({
                    "ph": "X", "pid": process, "tid": lane, "name": span.name,
                    "ts": span.start_us, "dur": span.end_us - span.start_us,
                    "args": {
                        "nodes": span.origins, "cause": span.cause,
                        "bytes": span.exchange.as_ref().map(|exchange| exchange.bytes),
                        "algorithm": span.exchange.as_ref().map(|exchange| &exchange.algorithm),
                    },
                })
            };
            // The simulator of a core has drawn its exchanges.
            if !drawn {
                events.push(event(own, lane));
            }
            if let Some(exchange) = &span.exchange {
                let who = format!("ranks {}", numbers(&exchange.group));
                let lane = row(fabric, &who, &mut events);
                events.push(event(fabric, lane));
            }
        }
    }
    format!("{}\n", json!({"displayTimeUnit": "ns", "traceEvents": events}))
}
