//! Measured collectives: reads them, predicts each, and says by how much the prediction is off.

use crate::element::Element;
use crate::error::CollectiveError;
use crate::group::Group;
use crate::kind::Kind;
use crate::predict::{Options, Prediction, collective_time};
use crate::system::System;
use std::collections::BTreeMap;

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The collective.
    pub kind: Kind,
    /// The element type.
    pub element: Element,
    /// How many ranks.
    pub ranks: usize,
    /// The whole buffer.
    pub bytes: u64,
    /// What was measured.
    pub latency_us: f64,
    /// Whether it is more than [`OUTLIER`] times off the sizes next to it, on the same side of both.
    pub outlier: bool,
}

/// A point this many times off both its neighbours is no measurement of the fabric.
pub const OUTLIER: f64 = 1.6;
/// No file has more rows.
const MAX_ROWS: usize = 100_000;

/// Reads rows of `collective,dtype,ranks,bytes,latency_us`, with or without that line at the head; lines that begin with `#` are
/// comments.
pub fn parse(text: &str) -> Result<Vec<Measurement>, String> {
    let mut rows = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') || line.starts_with("collective,") {
            continue;
        }
        let wrong = |what: &str| format!("line {}: {what} in `{}`", at + 1, shortened(line));
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let [kind, dtype, ranks, bytes, latency] = cells.as_slice() else {
            return Err(wrong("there are not five cells"));
        };
        let latency_us: f64 = latency.parse().map_err(|_| wrong("no latency"))?;
        if !(latency_us > 0.0 && latency_us.is_finite()) {
            return Err(wrong("no latency"));
        }
        rows.push(Measurement {
            kind: Kind::named(kind).ok_or_else(|| wrong("no collective"))?,
            element: Element::named(dtype).ok_or_else(|| wrong("no element type"))?,
            ranks: ranks.parse().map_err(|_| wrong("no number of ranks"))?,
            bytes: bytes.parse().map_err(|_| wrong("no number of bytes"))?,
            latency_us,
            outlier: false,
        });
        if rows.len() > MAX_ROWS {
            return Err(format!("there are more than {MAX_ROWS} rows"));
        }
    }
    mark_outliers(&mut rows);
    Ok(rows)
}

fn shortened(line: &str) -> String {
    line.chars().take(80).collect()
}

fn mark_outliers(rows: &mut [Measurement]) {
    let mut curves: BTreeMap<(Kind, &'static str, usize), Vec<usize>> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        curves.entry((row.kind, row.element.name, row.ranks)).or_default().push(at);
    }
    let mut outliers = Vec::new();
    for mut curve in curves.into_values() {
        curve.sort_by_key(|&at| rows[at].bytes);
        for three in curve.windows(3) {
            let [before, here, after] =
                [three[0], three[1], three[2]].map(|at| rows[at].latency_us);
            let above = here > OUTLIER * before && here > OUTLIER * after;
            let below = here * OUTLIER < before && here * OUTLIER < after;
            if above || below {
                outliers.push(three[1]);
            }
        }
    }
    for at in outliers {
        rows[at].outlier = true;
    }
}

/// Predicts a measurement.
pub fn predicted(system: &System, row: &Measurement) -> Result<Prediction, CollectiveError> {
    let options = Options { element: row.element, ..Options::default() };
    collective_time(system, row.kind, &Group::first(row.ranks), row.bytes, &options)
}

/// By how much a prediction is off, as a part of what was measured; more than zero where it is too slow.
pub fn error(row: &Measurement, prediction: &Prediction) -> f64 {
    prediction.time_us / row.latency_us - 1.0
}

/// The mean of the absolute errors over all rows that are no outliers; nothing where there is none.
pub fn mean_absolute_error(
    system: &System,
    rows: &[Measurement],
) -> Result<Option<f64>, CollectiveError> {
    let mut sum = 0.0;
    let mut count = 0usize;
    for row in rows.iter().filter(|row| !row.outlier) {
        sum += error(row, &predicted(system, row)?).abs();
        count += 1;
    }
    Ok((count > 0).then(|| sum / count as f64))
}
