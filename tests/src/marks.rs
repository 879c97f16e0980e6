//! Errors marked in place: `//   ^^^^ error[code]: message` under the token. Every error has a mark, every mark its error.

use std::fmt::Write as _;
use systole_compiler::diagnostic::{Diagnostics, Severity};

/// A problem at a place of the text without its marks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    /// The line, from 0, of the text without marks.
    line: usize,
    /// First and last column, where carets say them.
    columns: Option<(usize, usize)>,
    /// `error[code]: message`.
    text: String,
}

/// The text without its marks. Marks are whole lines, so that taking them out moves no token along its line.
pub fn strip(source: &str) -> String {
    let mut plain = String::with_capacity(source.len());
    for line in source.split_inclusive('\n').filter(|line| read(line).is_none()) {
        plain.push_str(line);
    }
    plain
}

/// Whether a case marks anything.
pub fn any(source: &str) -> bool {
    source.lines().any(|line| read(line).is_some())
}

/// `Err` where the problems found in the stripped text are not those marked in `source`.
pub fn check(source: &str, found: &Diagnostics) -> Result<(), String> {
    let mut wanted = marks(source);
    let mut report = String::new();
    let plain = strip(source);
    for mark in of(&plain, found) {
        match wanted.iter().position(|wanted| meets(&mark, wanted)) {
            Some(at) => drop(wanted.remove(at)),
            None => writeln!(report, "not marked: {}", place(&mark)).expect("strings take all"),
        }
    }
    for mark in wanted {
        writeln!(report, "marked but not found: {}", place(&mark)).expect("strings take all");
    }
    if report.is_empty() { Ok(()) } else { Err(report) }
}

/// The text with marks for those problems instead of the ones it has.
pub fn rewrite(source: &str, found: &Diagnostics) -> String {
    let plain = strip(source);
    let marks = of(&plain, found);
    let mut text = String::new();
    for (number, line) in plain.lines().enumerate() {
        text.push_str(line);
        text.push('\n');
        for mark in marks.iter().filter(|mark| mark.line == number) {
            match mark.columns.filter(|(first, _)| *first >= 2) {
                Some((first, last)) => {
                    let (gap, carets) = (" ".repeat(first - 2), "^".repeat(last - first + 1));
                    writeln!(text, "//{gap}{carets} {}", mark.text).expect("strings take all");
                }
                None => writeln!(text, "// {}", mark.text).expect("strings take all"),
            }
        }
    }
    text
}

fn meets(found: &Mark, wanted: &Mark) -> bool {
    let place = match wanted.columns {
        Some(columns) => found.line == wanted.line && found.columns == Some(columns),
        None => found.line == wanted.line || found.columns.is_none(),
    };
    place && found.text.starts_with(&wanted.text)
}

fn place(mark: &Mark) -> String {
    let column = mark.columns.map_or(String::new(), |(first, _)| format!(":{}", first + 1));
    format!("line {}{column} (marks not counted): {}", mark.line + 1, mark.text)
}

fn read(line: &str) -> Option<(Option<(usize, usize)>, String)> {
    let comment = line.strip_prefix("//")?;
    let text = comment.trim_start().trim_start_matches('^').trim();
    if !text.starts_with("error[") && !text.starts_with("warning[") {
        return None;
    }
    let carets = comment.chars().take_while(|sign| *sign == ' ').count() + 2;
    let count = line.chars().skip(carets).take_while(|sign| *sign == '^').count();
    Some(((count > 0).then(|| (carets, carets + count - 1)), text.to_owned()))
}

fn marks(source: &str) -> Vec<Mark> {
    let mut line = 0usize;
    let mut marks = Vec::new();
    for text in source.lines() {
        match read(text) {
            Some((columns, text)) => {
                marks.push(Mark { line: line.saturating_sub(1), columns, text });
            }
            None => line += 1,
        }
    }
    marks
}

fn of(plain: &str, found: &Diagnostics) -> Vec<Mark> {
    let last = plain.lines().count().saturating_sub(1);
    found
        .0
        .iter()
        .map(|diagnostic| {
            let severity = match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let message = diagnostic.message.lines().next().unwrap_or("");
            let text = format!("{severity}[{}]: {message}", diagnostic.code);
            let Some(span) = diagnostic.span else {
                return Mark { line: last, columns: None, text };
            };
            let before = &plain[..plain.floor_char_boundary(span.start)];
            let line = before.matches('\n').count().min(last);
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let first = before[start..].chars().count();
            let inside =
                &plain[before.len()..plain.floor_char_boundary(span.end).max(before.len())];
            let width = inside.lines().next().map_or(0, |line| line.chars().count()).max(1);
            Mark { line, columns: Some((first, first + width - 1)), text }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use systole_compiler::diagnostic::{Code, Diagnostic, Span};

    fn check_at(source: &str, start: usize, end: usize) -> Result<(), String> {
        let found = Diagnostic::error(Code::OpType, "axis 1 appears twice").at(Span { start, end });
        check(source, &found.into())
    }

    #[test]
    fn carets_stand_under_the_token() {
        let source = "abc\n  token x\n//^^^^^ error[op-type]: axis 1\nrest\n";
        assert_eq!(check_at(source, 6, 11), Ok(()));
        assert!(check_at(source, 12, 13).is_err());
        assert!(check("a\n", &Diagnostic::error(Code::Verify, "x").into()).is_err());
        assert!(check(source, &Diagnostics::default()).is_err());
    }

    #[test]
    fn marks_are_rewritten() {
        let found = Diagnostic::error(Code::OpType, "axis 1").at(Span { start: 6, end: 11 });
        let marked = rewrite("abc\n  token x\n", &found.clone().into());
        assert_eq!(marked, "abc\n  token x\n//^^^^^ error[op-type]: axis 1\n");
        assert_eq!(rewrite(&marked, &found.into()), marked);
    }
}
