//! Shows diagnostics beside the lines of source that they are about.

use crate::diagnostic::{Diagnostic, Diagnostics, Severity, Span};
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// How many diagnostics are shown; the others are counted.
const MAX_SHOWN: usize = 50;

/// Related places at most that many lines apart are shown in one piece.
const MAX_LINES: usize = 12;

/// How much of a line is shown on each side of a place, in bytes.
const MAX_LINE_BYTES: usize = 400;

/// Whether escape codes colour the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// They do.
    Always,
    /// Plain ASCII, whatever the source holds.
    Never,
}

/// The report of all problems, as plain text. `source` is the text that spans refer to.
pub fn render(diagnostics: &Diagnostics, file_name: &str, source: Option<&str>) -> String {
    render_with(diagnostics, file_name, source, Color::Never)
}

/// The report of all problems.
pub fn render_with(
    diagnostics: &Diagnostics,
    file_name: &str,
    source: Option<&str>,
    color: Color,
) -> String {
    let renderer = match color {
        Color::Always => Renderer::styled(),
        Color::Never => Renderer::plain(),
    }
    .decor_style(DecorStyle::Ascii)
    .term_width(140);
    let lines = source.map(Lines::new);
    let mut report = String::new();
    for diagnostic in diagnostics.0.iter().take(MAX_SHOWN) {
        report.push_str(&renderer.render(&[group(diagnostic, file_name, lines.as_ref())]));
        report.push_str("\n\n");
    }
    if diagnostics.0.len() > MAX_SHOWN {
        report.push_str(&format!("... and {} more\n", diagnostics.0.len() - MAX_SHOWN));
    }
    report.truncate(report.trim_end().len());
    if !report.is_empty() {
        report.push('\n');
    }
    report
}

fn group<'a>(
    diagnostic: &'a Diagnostic,
    file_name: &'a str,
    lines: Option<&Lines<'a>>,
) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group =
        Group::with_title(level.primary_title(&diagnostic.message).id(diagnostic.code.name()));
    let mut places: Vec<(Span, Option<&str>)> = Vec::new();
    places.extend(diagnostic.span.map(|span| (span, None)));
    places.extend(diagnostic.related.iter().map(|(span, message)| (*span, Some(message.as_str()))));
    match lines {
        Some(lines) => {
            for pieces in lines.pieces(&places) {
                group = group.element(lines.snippet(file_name, &pieces));
            }
        }
        None => {
            for (span, message) in &places {
                let message = message.unwrap_or("here");
                group = group.element(
                    Level::NOTE.message(format!("{message}: byte {} of {file_name}", span.start)),
                );
            }
        }
    }
    if let Some(node) = &diagnostic.node {
        group = group.element(Level::NOTE.message(format!("at node {node}")));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help));
    }
    group
}

/// A source with the places where its lines start.
struct Lines<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

/// A place with what it has to do with the problem; without words it is the problem's own.
type Place<'a> = (Span, Option<&'a str>);

impl<'a> Lines<'a> {
    fn new(source: &'a str) -> Lines<'a> {
        let ends = source
            .bytes()
            .enumerate()
            .filter(|(_, byte)| *byte == b'\n')
            .map(|(index, _)| index + 1);
        Lines { source, starts: std::iter::once(0).chain(ends).collect() }
    }

    /// The number of the line that holds a byte, from zero.
    fn line(&self, byte: usize) -> usize {
        self.starts.partition_point(|&start| start <= byte) - 1
    }

    /// Places in groups that lie close together, the problem's own first.
    fn pieces<'b>(&self, places: &[Place<'b>]) -> Vec<Vec<Place<'b>>> {
        let mut pieces: Vec<Vec<Place<'b>>> = Vec::new();
        for &place in places {
            let line = self.line(place.0.start);
            let near = pieces.iter_mut().find(|piece| {
                piece.iter().all(|(other, _)| self.line(other.start).abs_diff(line) <= MAX_LINES)
            });
            match near {
                Some(piece) => piece.push(place),
                None => pieces.push(vec![place]),
            }
        }
        pieces
    }

    fn snippet(
        &self,
        file_name: &'a str,
        places: &[Place<'a>],
    ) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
        let first = places.iter().map(|(span, _)| self.line(span.start)).min().unwrap_or(0);
        let last = places.iter().map(|(span, _)| self.line(span.start)).max().unwrap_or(0);
        let start = self.starts[first].min(self.source.len());
        let end = self.starts.get(last + 1).map_or(self.source.len(), |&next| next - 1);
        // A line may be a megabyte of digits; only what surrounds the places is shown.
        let low = places
            .iter()
            .map(|(span, _)| span.start)
            .min()
            .unwrap_or(0)
            .saturating_sub(MAX_LINE_BYTES);
        let high = places
            .iter()
            .map(|(span, _)| span.start)
            .max()
            .unwrap_or(0)
            .saturating_add(MAX_LINE_BYTES);
        let start =
            self.source.floor_char_boundary(if last == first { start.max(low) } else { start });
        let end = self
            .source
            .floor_char_boundary(if last == first { end.min(high) } else { end })
            .max(start);
        let text = &self.source[start..end];
        let snippet = Snippet::source(text).line_start(first + 1).path(file_name);
        places.iter().fold(snippet, |snippet, &(span, message)| {
            let from = text.floor_char_boundary(span.start.clamp(start, end) - start);
            let to = text.ceil_char_boundary(span.end.clamp(start, end) - start).max(from);
            let kind =
                if message.is_none() { AnnotationKind::Primary } else { AnnotationKind::Context };
            let annotation = kind.span(from..to);
            snippet.annotation(match message {
                Some(message) => annotation.label(message),
                None => annotation,
            })
        })
    }
}
