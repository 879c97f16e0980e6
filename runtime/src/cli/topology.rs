//! `systole profile` of a SCALE-Sim topology: the cycles of each layer on a classic array.

use super::args::ProfileArgs;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::show;
use serde_json::json;
use std::fmt::Write;
use std::time::Instant;
use systole::{Code, Error, ErrorKind, data};
use systole_systolic::array::{ARRAYS, ClassicArray, LayerReport, read_topology};

pub(super) fn profile(context: &Context, args: &ProfileArgs) -> Result<(), Failure> {
    let array = array(args)?;
    context.enter("load");
    let text = data::read_text(&args.model)?;
    let start = Instant::now();
    let file = args.model.display().to_string();
    let layers = read_topology(&text).map_err(|problems| {
        let error = Error::new(ErrorKind::Program, Code::Malformed, problems.join("\n"));
        Failure::Library(error.in_file(&file, None))
    })?;
    let reports: Vec<LayerReport> = layers.iter().map(|layer| array.report(layer)).collect();
    let cycles = reports.iter().fold(0_u64, |sum, layer| sum.saturating_add(layer.cycles));
    let simulate_ms = start.elapsed().as_secs_f64() * 1e3;
    let us = |cycles: u64| cycles as f64 / (array.clock_ghz * 1e3);
    if context.json {
        let ops: Vec<_> = reports
            .iter()
            .map(|report| {
                json!({
                    "name": report.layer.name, "origins": [report.layer.name],
                    "cycles": report.cycles, "time_us": us(report.cycles),
                    "utilization": report.utilization, "bound_by": "compute", "engine": "array",
                })
            })
            .collect();
        let object = json!({
            "schema": 1, "target": array.name, "cycles": cycles, "time_us": us(cycles),
            "bound_by": "compute", "ops": ops, "simulate_ms": simulate_ms,
        });
        return console::print(&format!("{object}\n"));
    }
    let head = ["layer", "M", "N", "K", "cycles", "utilization"].map(str::to_owned).to_vec();
    let rows = reports.iter().map(|report| {
        let layer = &report.layer;
        let mut row = vec![layer.name.clone()];
        row.extend([layer.m, layer.n, layer.k, report.cycles].map(|number| number.to_string()));
        row.push(format!("{:.1} %", 100.0 * report.utilization));
        row
    });
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let mut text = show::table(&rows);
    let (name, count) = (&array.name, reports.len());
    let _ = writeln!(
        text,
        "{name}: {cycles} cycles for {count} layers, {:.2} us; computed in {simulate_ms:.2} ms",
        us(cycles)
    );
    console::print(&text)
}

/// The array that the arguments name: one by itself where they name none.
fn array(args: &ProfileArgs) -> Result<ClassicArray, Failure> {
    let name = args.target.as_deref().unwrap_or("array-128x128");
    let preset = ARRAYS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
    let text = match preset {
        Some(text) => text.to_owned(),
        None if name.ends_with(".toml") => data::read_text(std::path::Path::new(name))?,
        None => {
            let known: Vec<&str> = ARRAYS.iter().map(|(known, _)| *known).collect();
            return Err(Failure::usage_with_help(
                format!("a topology is not timed on {name}"),
                format!("use --target {} or a description file", known.join(", ")),
            ));
        }
    };
    let settings: Vec<&str> = args.modeled.settings.iter().map(String::as_str).collect();
    ClassicArray::with_settings(&text, name, &settings).map_err(|problems| {
        let message = problems.to_string().trim_end().to_owned();
        Failure::Library(Error::new(ErrorKind::Input, Code::Input, message))
    })
}
