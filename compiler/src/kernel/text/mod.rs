//! Kernels and schedules from text. The printers are beside the types: what they write, this reads back as it was.

mod ast;
mod expr;
mod module;
mod resolve;
mod schedule;
mod tile;

use super::{Kernel, Schedule};
use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::module::Module;
use crate::text::lexer::{self, Token};
use lalrpop_util::{ErrorRecovery, ParseError};

#[allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    unused_imports,
    unreachable_pub,
    missing_debug_implementations,
    reason = "generated code"
)]
mod grammar {
    lalrpop_util::lalrpop_mod!(parser, "/kernel/text/grammar.rs");
    pub(super) use parser::{KernelsParser, ModuleParser, ScheduleParser};
}

/// The most syntax errors that are worth reading: after the first few, a parser that resumed guesses.
const MAX_REPORTED: usize = 20;

/// The kernel that a text describes, or everything that is wrong with the text. The kernel is not verified yet.
pub fn parse(source: &str) -> Result<Kernel, Diagnostics> {
    let mut kernels = parse_all(source)?;
    match (kernels.pop(), kernels.is_empty()) {
        (Some(kernel), true) => Ok(kernel),
        (Some(_), false) => Err(syntax("the text has more than one kernel").into()),
        (None, _) => {
            let diagnostic = syntax("the text has no kernel");
            Err(diagnostic.with_help("a kernel starts with `kernel @name(...)`").into())
        }
    }
}

/// The kernels of a text, in order.
pub fn parse_all(source: &str) -> Result<Vec<Kernel>, Diagnostics> {
    let (tokens, mut diagnostics) = lexer::tokens(source);
    let names = resolve::names(&tokens);
    let parser = grammar::KernelsParser::new();
    let kernels = parsed(source, tokens, &mut diagnostics, |recovered, tokens| {
        parser.parse(recovered, tokens)
    });
    let kernels: Vec<Kernel> = kernels
        .unwrap_or_default()
        .iter()
        .map(|kernel| resolve::kernel(kernel, &names, &mut diagnostics))
        .collect();
    diagnostics.0.sort_by_key(|diagnostic| diagnostic.span);
    diagnostics.into_result(kernels)
}

/// The module that a text describes, or everything that is wrong with the text. The module is not verified yet.
pub(crate) fn parse_module(source: &str) -> Result<Module, Diagnostics> {
    let (tokens, mut diagnostics) = lexer::tokens(source);
    let names = resolve::names(&tokens);
    let parser = grammar::ModuleParser::new();
    let module = parsed(source, tokens, &mut diagnostics, |recovered, tokens| {
        parser.parse(recovered, tokens)
    });
    let module = module.map(|module| module::module(&module, &names, &mut diagnostics));
    diagnostics.0.sort_by_key(|diagnostic| diagnostic.span);
    diagnostics.into_result(module.unwrap_or_default())
}

/// The schedule that a text describes, or everything that is wrong with it.
pub fn parse_schedule(source: &str) -> Result<Schedule, Diagnostics> {
    let (tokens, mut diagnostics) = lexer::tokens(source);
    let parser = grammar::ScheduleParser::new();
    let clauses = parsed(source, tokens, &mut diagnostics, |recovered, tokens| {
        parser.parse(recovered, tokens)
    });
    let schedule = schedule::schedule(&clauses.unwrap_or_default(), &mut diagnostics);
    diagnostics.into_result(schedule)
}

fn syntax(message: &str) -> Diagnostic {
    Diagnostic::error(Code::Syntax, message)
}

type Located<'a> = (usize, Token<'a>, usize);
type Recovered<'a> = ErrorRecovery<usize, Token<'a>, &'static str>;
type Failure<'a> = ParseError<usize, Token<'a>, &'static str>;

/// What a parser makes of the tokens; its errors become diagnostics.
fn parsed<'a, T>(
    source: &str,
    tokens: Vec<lexer::Spanned<'a>>,
    diagnostics: &mut Diagnostics,
    parse: impl FnOnce(&mut Vec<Recovered<'a>>, Vec<Located<'a>>) -> Result<T, Failure<'a>>,
) -> Option<T> {
    let tokens = tokens.into_iter().map(|(span, token)| (span.start, token, span.end)).collect();
    let mut recovered = Vec::new();
    let result = parse(&mut recovered, tokens);
    let mut failures: Vec<Failure<'a>> = recovered.into_iter().map(|found| found.error).collect();
    let result = result.map_err(|error| failures.push(error)).ok();
    for failure in failures.into_iter().take(MAX_REPORTED) {
        diagnostics.push(syntax_error(failure, source.len()));
    }
    result
}

fn syntax_error(error: Failure<'_>, end: usize) -> Diagnostic {
    let (span, found, expected) = match error {
        ParseError::UnrecognizedToken { token: (start, token, end), expected } => {
            (Span { start, end }, shown(&token), expected)
        }
        ParseError::ExtraToken { token: (start, token, end) } => {
            (Span { start, end }, shown(&token), Vec::new())
        }
        ParseError::UnrecognizedEof { expected, .. } => {
            (Span { start: end, end }, "the end of the text".to_owned(), expected)
        }
        ParseError::InvalidToken { location } => {
            (Span { start: location, end: location }, "no token".to_owned(), Vec::new())
        }
        ParseError::User { error } => (Span { start: end, end }, error.to_owned(), Vec::new()),
    };
    // Where many things could stand, a list of them helps nobody.
    let message = match expected.as_slice() {
        [one] => format!("expected {}, found {found}", shown_terminal(one)),
        [most @ .., last] if most.len() < 5 => {
            let most: Vec<String> = most.iter().map(|name| shown_terminal(name)).collect();
            format!("expected {} or {}, found {found}", most.join(", "), shown_terminal(last))
        }
        _ => format!("unexpected {found}"),
    };
    Diagnostic::error(Code::Syntax, message).at(span)
}

fn shown(token: &Token<'_>) -> String {
    let text: String = token.to_string().chars().take(40).collect();
    format!("`{text}`")
}

/// A terminal's name in the grammar, as a reader knows it.
fn shown_terminal(name: &str) -> String {
    let name = name.trim_matches('"');
    match name {
        "a text" | "a word" | "an integer" | "a float" | "%name" | "@name" => name.to_owned(),
        name => format!("`{name}`"),
    }
}

#[cfg(test)]
mod tests;
