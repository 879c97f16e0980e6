//! What a run of the ONNX tests found: counts by category and operator, and the list of those that pass.

use super::{Outcome, Verdict};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    unsupported: usize,
}

impl Counts {
    fn add(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => self.passed += 1,
            Verdict::Unsupported(_) => self.unsupported += 1,
            Verdict::Wrong(_) | Verdict::Error(_) | Verdict::Panic(_) | Verdict::TimeOut => {
                self.failed += 1;
            }
        }
    }

    fn row(&self, name: &str) -> String {
        let total = self.passed + self.failed + self.unsupported;
        let share = 100.0 * self.passed as f64 / total.max(1) as f64;
        format!(
            "  {name:32} passed {:5} of {total:5} ({share:5.1} %)   failed {:4}   unsupported {:4}\n",
            self.passed, self.failed, self.unsupported
        )
    }
}

/// The tables, as text. Operators count the tests that use no other.
pub fn tables(outcomes: &[Outcome]) -> String {
    let mut by_category: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut by_op: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut all = Counts::default();
    let mut ours = Counts::default();
    for outcome in outcomes {
        all.add(&outcome.verdict);
        by_category.entry(outcome.test.category()).or_default().add(&outcome.verdict);
        if let [op] = outcome.test.ops.as_slice() {
            by_op.entry(op).or_default().add(&outcome.verdict);
        }
        if outcome.test.others.is_empty() {
            ours.add(&outcome.verdict);
        }
    }
    let mut text = String::from("by operator (tests that use one operator alone)\n");
    by_op.iter().for_each(|(name, counts)| text.push_str(&counts.row(name)));
    text.push_str("by category\n");
    by_category.iter().for_each(|(name, counts)| text.push_str(&counts.row(name)));
    text.push_str("in all\n");
    text.push_str(&ours.row("with tensors of our types only"));
    text.push_str(&all.row("every test"));
    text
}

/// Every test that did not pass, with the reason in one line.
pub fn failures(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for outcome in outcomes {
        let (word, reason) = match &outcome.verdict {
            Verdict::Passed => continue,
            Verdict::Unsupported(reason) => ("unsupported", reason.as_str()),
            Verdict::Wrong(reason) => ("wrong", reason.as_str()),
            Verdict::Error(reason) => ("error", reason.as_str()),
            Verdict::Panic(reason) => ("panic", reason.as_str()),
            Verdict::TimeOut => ("time-out", ""),
        };
        let line: Vec<&str> = reason.lines().map(str::trim).collect();
        let line: String = line.join(" | ").chars().take(300).collect();
        writeln!(text, "{word:12} {}: {line}", outcome.test.name).expect("strings take all");
    }
    text
}

/// What has changed against the list, among the tests that ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Tests of the list that no longer pass.
    pub lost: Vec<String>,
    /// Tests that pass and are not in the list.
    pub gained: Vec<String>,
}

/// Compares with the list of the tests that should pass.
pub fn check(outcomes: &[Outcome], list: &Path) -> Result<Changes, String> {
    let text = fs::read_to_string(list).map_err(|error| format!("{}: {error}", list.display()))?;
    let listed: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let mut changes = Changes::default();
    for outcome in outcomes {
        let name = outcome.test.name.clone();
        match (listed.contains(name.as_str()), outcome.verdict == Verdict::Passed) {
            (true, false) => changes.lost.push(name),
            (false, true) => changes.gained.push(name),
            (true, true) | (false, false) => {}
        }
    }
    Ok(changes)
}

/// Writes the list of the tests that passed.
pub fn update(outcomes: &[Outcome], list: &Path) -> Result<(), String> {
    let passed = outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Passed);
    let mut names: Vec<&str> = passed.map(|outcome| outcome.test.name.as_str()).collect();
    names.sort_unstable();
    let text = names.iter().fold(String::new(), |text, name| text + name + "\n");
    fs::write(list, text).map_err(|error| format!("{}: {error}", list.display()))
}
