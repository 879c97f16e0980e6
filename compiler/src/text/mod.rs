//! The text form of programs: lexer, grammar, names to ids, printing, and the rendering of diagnostics.

pub mod lexer;

pub(crate) mod ast;
pub(crate) mod literal;
mod print;
mod render;
mod resolve;
mod structure;

pub use literal::{Data, content_hash};
pub(crate) use print::write_attributes;
pub use print::{print_full, print_with_origins, same, value_names};
pub use render::{Color, render, render_with};

use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::graph::Graph;
use lalrpop_util::{ErrorRecovery, ParseError};
use structure::Terminal;

#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    missing_debug_implementations,
    unreachable_pub,
    unused_imports,
    reason = "generated code"
)]
mod grammar {
    lalrpop_util::lalrpop_mod!(parser, "/text/grammar.rs");
    pub(super) use parser::FileParser;
}

/// The graph that a text describes, or everything that is wrong with the text.
pub fn parse_graph(source: &str) -> Result<Graph, Diagnostics> {
    let (tokens, mut diagnostics) = lexer::tokens(source);
    if diagnostics.0.iter().any(|diagnostic| diagnostic.code == Code::TooLarge) {
        return Err(diagnostics);
    }
    let mut recovered = Vec::new();
    let items = grammar::FileParser::new().parse(&mut recovered, structure::terminals(tokens));
    let items = items.unwrap_or_else(|error| {
        recovered.push(ErrorRecovery { error, dropped_tokens: Vec::new() });
        Vec::new()
    });
    // What is no token has been reported, and the grammar's complaint about its absence stands on the same line.
    let lines: Vec<Span> =
        diagnostics.0.iter().filter_map(|found| line_of(source, found.span?)).collect();
    for recovery in recovered {
        let diagnostic = syntax_error(recovery.error, source.len());
        let start = diagnostic.span.map_or(0, |span| span.start);
        if !lines.iter().any(|line| (line.start..=line.end).contains(&start)) {
            diagnostics.push(diagnostic);
        }
    }
    let syntax_errors = diagnostics.has_errors();
    let graph = resolve::graph(&items, syntax_errors, &mut diagnostics);
    let has_function = items.iter().any(|item| matches!(item, ast::Item::Function(_)));
    if !has_function && !syntax_errors {
        let diagnostic = Diagnostic::error(Code::Syntax, "the text has no function");
        diagnostics.push(diagnostic.with_help("a graph starts with `func @main(...)`"));
    }
    diagnostics.0.sort_by_key(|diagnostic| diagnostic.span);
    diagnostics.into_result(graph)
}

fn line_of(source: &str, span: Span) -> Option<Span> {
    let start = source.get(..span.start)?.rfind('\n').map_or(0, |end| end + 1);
    let end =
        source.get(span.start..)?.find('\n').map_or(source.len(), |length| span.start + length);
    Some(Span { start, end })
}

fn syntax_error(error: ParseError<usize, Terminal<'_>, &'static str>, end: usize) -> Diagnostic {
    let (span, found, expected) = match error {
        ParseError::UnrecognizedToken { token: (start, terminal, end), expected } => {
            (Span { start, end }, terminal_text(&terminal), expected)
        }
        ParseError::ExtraToken { token: (start, terminal, end) } => {
            (Span { start, end }, terminal_text(&terminal), Vec::new())
        }
        ParseError::UnrecognizedEof { expected, .. } => {
            (Span { start: end, end }, "the end of the text".to_owned(), expected)
        }
        ParseError::InvalidToken { location } => {
            (Span { start: location, end: location }, String::new(), Vec::new())
        }
        ParseError::User { error } => (Span { start: end, end }, error.to_owned(), Vec::new()),
    };
    let expected: Vec<String> = expected.iter().map(|name| expected_text(name)).collect();
    let message = match expected.as_slice() {
        [] => format!("unexpected {found}"),
        [one] => format!("expected {one}, found {found}"),
        [most @ .., last] => format!("expected {} or {last}, found {found}", most.join(", ")),
    };
    Diagnostic::error(Code::Syntax, message).at(span)
}

fn terminal_text(terminal: &Terminal<'_>) -> String {
    match terminal {
        Terminal::Start => "the start of another statement".to_owned(),
        Terminal::BlockOpen => "`{`".to_owned(),
        Terminal::BlockClose => "`}`".to_owned(),
        Terminal::Func => "`func`".to_owned(),
        Terminal::Mesh => "`mesh`".to_owned(),
        Terminal::Ranks => "`ranks`".to_owned(),
        Terminal::Return => "`return`".to_owned(),
        Terminal::Yield => "`yield`".to_owned(),
        Terminal::Do => "`do`".to_owned(),
        Terminal::From => "`from`".to_owned(),
        Terminal::State => "`state`".to_owned(),
        Terminal::Other(token) => {
            let text: String = token.to_string().chars().take(40).collect();
            format!("`{text}`")
        }
    }
}

/// A terminal's name in the grammar, as a reader knows it.
fn expected_text(name: &str) -> String {
    let name = name.trim_matches('"');
    match name {
        "a statement" | "a text" | "a word" | "an integer" | "a float" | "%name" | "@name" => {
            name.to_owned()
        }
        "block {" => "`{`".to_owned(),
        "block }" => "`}`".to_owned(),
        name => format!("`{name}`"),
    }
}

#[cfg(test)]
mod tests;
