//! `systole collective`: how long a collective takes on a system, by which algorithm, and why; and how far that is from what was
//! measured.

use super::args::{CollectiveArgs, FabricArgs};
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::show;
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::time::Instant;
use systole::{Code, Error, ErrorKind};
use systole_interconnect::measured;
use systole_interconnect::{
    CollectiveError, Element, Group, Kind, Options, PRESETS, Prediction, System, collective_time,
    flow,
};

pub(super) fn collective(context: &Context, args: &CollectiveArgs) -> Result<(), Failure> {
    let system = system(&args.fabric)?;
    if let Some(path) = &args.measured {
        return compare(context, &system, path);
    }
    let name = args.kind.as_deref().unwrap_or_default();
    let kind = Kind::named(name).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        Failure::usage_with_help(
            format!("there is no collective `{name}`"),
            format!("they are {}", known.join(", ")),
        )
    })?;
    let element = Element::named(&args.dtype).ok_or_else(|| {
        let known: Vec<&str> = Element::ALL.iter().map(|element| element.name).collect();
        Failure::usage_with_help(
            format!("there is no element type `{}` for collectives", args.dtype),
            format!("they are {}", known.join(", ")),
        )
    })?;
    let bytes = args.bytes.ok_or_else(|| Failure::usage("--bytes is missing"))?;
    let width = u64::from(element.bits / 8).max(1);
    if !(bytes as u64).is_multiple_of(width) {
        return Err(Failure::usage(format!("{bytes} bytes are no whole number of {}", args.dtype)));
    }
    let ranks = args.ranks.unwrap_or(system.chips());
    if ranks > system.chips() {
        let (chips, most, name) = (system.chips(), system.most(), &system.name);
        let message = format!("{ranks} ranks are more than the {chips} chips of `{name}`");
        return Err(if most > 1 {
            let count = ranks.div_ceil(chips).min(most);
            let help = format!("--system '{name}*{count}' joins {count} of them by their network");
            Failure::usage_with_help(message, help)
        } else {
            Failure::usage(message)
        });
    }
    let options = Options {
        element,
        algorithm: args.algorithm.clone(),
        protocol: args.protocol.clone(),
        chunks: args.chunks,
    };
    let group = Group::first(ranks);
    let predict = if args.simulate { flow::simulate } else { collective_time };
    let start = Instant::now();
    let told = predict(&system, kind, &group, bytes as u64, &options).map_err(refused)?;
    let took = args.simulate.then(|| start.elapsed().as_secs_f64() * 1e3);
    let mut text = if context.json { object(&told, &system, took) } else { table(&told, &system) };
    if let Some(took) = took.filter(|_| !context.json) {
        let _ = writeln!(text, "\nsimulated in {took:.2} ms");
    }
    console::print(&text)
}

/// The system that the command line names, or describes in a file.
pub(super) fn system(args: &FabricArgs) -> Result<System, Failure> {
    let name = &args.system;
    let found = if name.ends_with(".toml") {
        let text = std::fs::read_to_string(name)
            .map_err(|error| Failure::usage(format!("cannot read `{name}`: {error}")))?;
        Some(System::parse(&text, name, &args.set))
    } else {
        System::named(name, &args.set)
    };
    match found {
        Some(Ok(system)) => Ok(system),
        Some(Err(problems)) => {
            Err(Failure::usage(format!("`{name}` is not described well\n{problems}")))
        }
        None => {
            let near = near(name);
            let help = if near.is_empty() {
                "`systole list systems` shows those that there are".to_owned()
            } else {
                format!("near names are {}; `systole list systems` shows all", near.join(", "))
            };
            Err(Failure::usage_with_help(format!("there is no system `{name}`"), help))
        }
    }
}

/// The presets with names like this one, the nearest first.
fn near(name: &str) -> Vec<&'static str> {
    let name = name.split('*').next().unwrap_or(name).to_lowercase();
    let mut near: Vec<(usize, &'static str)> = PRESETS
        .iter()
        .map(|preset| (distance(&name, preset.name), preset.name))
        .filter(|(distance, preset)| {
            *distance <= name.len().max(preset.len()) / 2 || preset.contains(name.as_str())
        })
        .collect();
    near.sort_unstable();
    near.into_iter().map(|(_, name)| name).take(4).collect()
}

/// How many letters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, letter) in a.chars().take(200).enumerate() {
        let mut corner = row[0];
        row[0] = at + 1;
        for (place, other) in b.iter().enumerate() {
            let changed = corner + usize::from(letter != *other);
            corner = row[place + 1];
            row[place + 1] = changed.min(row[place] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

fn refused(error: CollectiveError) -> Failure {
    match error {
        CollectiveError::DoesNotApply { .. } | CollectiveError::TooLarge { .. } => {
            Error::new(ErrorKind::Unsupported, Code::Unsupported, error.to_string()).into()
        }
        CollectiveError::TooManyRanks { .. }
        | CollectiveError::BadChip { .. }
        | CollectiveError::TooFewRanks(_)
        | CollectiveError::BadBytes(_)
        | CollectiveError::BadChunks(_)
        | CollectiveError::UnknownAlgorithm { .. }
        | CollectiveError::UnknownProtocol { .. } => Failure::usage(error.to_string()),
    }
}

fn object(told: &Prediction, system: &System, simulate_ms: Option<f64>) -> String {
    let cost = &told.cost;
    let mut object = json!({
        "schema": 1,
        "time_us": told.time_us,
        "algorithm": told.algorithm,
        "busbw_gbs": told.busbw_gbs(),
        "algbw_gbs": told.algbw_gbs(),
        "steps": told.steps,
        "bottleneck": told.bottleneck,
        "collective": told.kind.name(),
        "system": system.name,
        "ranks": told.ranks,
        "bytes": told.bytes,
        "protocol": told.protocol,
        "link_bound_us": told.link_bound_us,
        "parts": {
            "launch_us": cost.launch_us,
            "latency_us": cost.latency_us,
            "links_us": cost.links_us,
            "local_us": cost.local_us,
            "fill_us": cost.fill_us,
        },
    });
    if let Some(took) = simulate_ms {
        object["simulate_ms"] = json!(took);
    }
    format!("{object}\n")
}

fn table(told: &Prediction, system: &System) -> String {
    let cost = &told.cost;
    let head = format!(
        "{} of {} bytes over {} of the {} chips of {}",
        told.kind.name(),
        told.bytes,
        told.ranks,
        system.chips(),
        system.name
    );
    let row = |name: &str, text: String| vec![name.to_owned(), text];
    let time = |us: f64| format!("{us:.2} us");
    let rows = [
        row("time", time(told.time_us)),
        row("algorithm", told.algorithm.clone()),
        row("protocol", told.protocol.clone()),
        row("bus bandwidth", format!("{:.2} GB/s", told.busbw_gbs())),
        row("bytes over time", format!("{:.2} GB/s", told.algbw_gbs())),
        row("steps", told.steps.to_string()),
        row("bottleneck", told.bottleneck.clone()),
        row("launch", time(cost.launch_us)),
        row("latency", time(cost.latency_us)),
        row("links", time(cost.links_us)),
        row("inside chips", time(cost.local_us)),
        row("filling pipelines", time(cost.fill_us)),
        row("least the links allow", time(told.link_bound_us)),
    ];
    format!("{head}\n\n{}", show::table(&rows))
}

/// Predicts each row of a file of measurements.
fn compare(context: &Context, system: &System, path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read `{shown}`: {error}")))?;
    let rows = measured::parse(&text)
        .map_err(|wrong| Failure::usage(format!("`{shown}` holds no measurements: {wrong}")))?;
    let mut lines = vec![
        ["collective", "dtype", "ranks", "bytes", "measured us", "predicted us", "error", "by"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let mut objects = Vec::new();
    for row in &rows {
        let told = measured::predicted(system, row).map_err(refused)?;
        let error = measured::error(row, &told);
        let by = format!("{}, {}", told.algorithm, told.protocol);
        objects.push(json!({
            "collective": row.kind.name(), "dtype": row.element.name, "ranks": row.ranks, "bytes": row.bytes,
            "measured_us": row.latency_us, "predicted_us": told.time_us, "error": error,
            "outlier": row.outlier, "algorithm": told.algorithm, "protocol": told.protocol,
        }));
        lines.push(vec![
            row.kind.name().to_owned(),
            row.element.name.to_owned(),
            row.ranks.to_string(),
            row.bytes.to_string(),
            format!("{:.2}", row.latency_us),
            format!("{:.2}", told.time_us),
            format!("{:+.1} %", error * 100.0),
            if row.outlier { format!("{by} (outlier, not counted)") } else { by },
        ]);
    }
    let mean = measured::mean_absolute_error(system, &rows).map_err(refused)?;
    let Some(mean) = mean else {
        return Err(Failure::usage(format!("`{shown}` holds no measurements")));
    };
    if context.json {
        let object = json!({
            "schema": 1, "system": system.name, "mean_absolute_error": mean, "rows": objects,
        });
        return console::print(&format!("{object}\n"));
    }
    let mut text = show::table(&lines);
    let _ = writeln!(text, "\nmean absolute error {:.2} %", mean * 100.0);
    console::print(&text)
}
