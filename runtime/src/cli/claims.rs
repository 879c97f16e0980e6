//! `systole claims`: every figure of the announcements, recomputed from the descriptions of systems.

use super::args::ClaimsArgs;
use super::console;
use super::failure::Failure;
use serde_json::{Value, json};
use std::fmt::Write;

pub(super) fn claims(args: &ClaimsArgs) -> Result<(), Failure> {
    let claims = systole::plan::claims().map_err(Failure::usage)?;
    if args.json {
        let rows: Vec<Value> = claims
            .iter()
            .map(|claim| {
                json!({
                    "claim": claim.claim, "source": claim.source, "stated": claim.stated,
                    "figure": claim.figure, "unit": claim.unit, "verdict": claim.verdict.name(), "why": claim.why,
                })
            })
            .collect();
        return console::print(&format!("{}\n", json!({"schema": 1, "claims": rows})));
    }
    let mut text = String::new();
    for claim in &claims {
        let figure = match claim.figure {
            Some(figure) => format!("{} {}", short(figure), claim.unit),
            None => "no figure".to_owned(),
        };
        let _ = writeln!(
            text,
            "{}: {}\n  stated by {}; here {}\n  {}\n",
            claim.verdict.name(),
            claim.claim,
            claim.source,
            figure.trim_end(),
            claim.why
        );
    }
    console::print(&text)
}

fn short(figure: f64) -> String {
    if figure >= 1000.0 { format!("{figure:.0}") } else { format!("{figure:.3}") }
}
