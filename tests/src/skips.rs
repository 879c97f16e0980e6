//! What is known not to work: rows of engine, case and reason in `skips.txt`. A row whose case passes is an error.

use std::fs;
use std::path::Path;

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The engine, by name.
    pub engine: String,
    /// The case, or the start of the names of several with `*` at the end.
    pub case: String,
    /// Why.
    pub reason: String,
}

impl Skip {
    /// Whether the row is about that case on that engine.
    pub fn covers(&self, engine: &str, case: &str) -> bool {
        let case_fits = match self.case.strip_suffix('*') {
            Some(start) => case.starts_with(start),
            None => case == self.case,
        };
        self.engine == engine && case_fits
    }
}

/// The rows of a file: engine, case and reason, spaces between; `#` starts a comment.
pub fn read(path: &Path) -> Result<Vec<Skip>, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut rows = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut words = line.splitn(3, char::is_whitespace);
        let (engine, case, reason) = (words.next(), words.next(), words.next());
        let (Some(engine), Some(case), Some(reason)) = (engine, case, reason) else {
            return Err(format!(
                "{}:{}: a row is engine, case and reason",
                path.display(),
                number + 1
            ));
        };
        rows.push(Skip {
            engine: engine.to_owned(),
            case: case.to_owned(),
            reason: reason.trim().to_owned(),
        });
    }
    Ok(rows)
}
