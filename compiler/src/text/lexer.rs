//! The tokens that all levels share. Words may hold dashes between a letter or digit and a letter (`arg-reduce`), so a
//! difference of two words needs spaces (`h - r`). A minus sign is always a token of its own: grammars join it to the
//! number behind it.

use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use logos::{Lexer, Logos};
use std::borrow::Cow;
use std::fmt;

/// How deeply brackets may nest. It bounds the recursion of everything that walks what was parsed.
pub const MAX_DEPTH: usize = 100;

/// The largest text that is read, in bytes. Large tensors belong into files beside it.
pub const MAX_SOURCE_BYTES: usize = 1 << 30;

/// One token.
#[derive(Logos, Clone, Debug, PartialEq)]
#[logos(error = LexError)]
#[logos(skip r"[ \t\r\n\u{feff}]+")]
#[logos(skip(r"//[^\n]*", allow_greedy = true))]
pub enum Token<'a> {
    /// `%name` or `%"any name"`, without the sign and quotes, escapes decoded.
    #[regex(r"%[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", |lexer| Cow::Borrowed(&lexer.slice()[1..]))]
    #[regex(r#"%"([^"\\\n]|\\[^\n])*""#, |lexer| unquote(&lexer.slice()[1..]))]
    Value(Cow<'a, str>),
    /// `@name` or `@"any name"`, without the sign and quotes, escapes decoded.
    #[regex(r"@[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", |lexer| Cow::Borrowed(&lexer.slice()[1..]))]
    #[regex(r#"@"([^"\\\n]|\\[^\n])*""#, |lexer| unquote(&lexer.slice()[1..]))]
    Symbol(Cow<'a, str>),
    /// `"a text"`, without the quotes, escapes decoded.
    #[regex(r#""([^"\\\n]|\\[^\n])*""#, |lexer| unquote(lexer.slice()))]
    Text(Cow<'a, str>),
    /// `arg-reduce`, `f32`, `for`, `inf`.
    #[regex(r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z_][A-Za-z0-9_]*)*")]
    Word(&'a str),
    /// `42`
    #[regex(r"[0-9]+", integer)]
    Int(i128),
    /// `4.0`, `1e-3`
    #[regex(r"[0-9]+(\.[0-9]+([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)", float)]
    Float(f64),
    /// `(`
    #[token("(")]
    LeftParen,
    /// `)`
    #[token(")")]
    RightParen,
    /// `{`
    #[token("{")]
    LeftBrace,
    /// `}`
    #[token("}")]
    RightBrace,
    /// `[`
    #[token("[")]
    LeftBracket,
    /// `]`
    #[token("]")]
    RightBracket,
    /// `,`
    #[token(",")]
    Comma,
    /// `:`
    #[token(":")]
    Colon,
    /// `;`
    #[token(";")]
    Semicolon,
    /// `=`
    #[token("=")]
    Equals,
    /// `->`
    #[token("->")]
    Arrow,
    /// `..`
    #[token("..")]
    Dots,
    /// `+`
    #[token("+")]
    Plus,
    /// `-`
    #[token("-")]
    Minus,
    /// `*`
    #[token("*")]
    Star,
    /// `/`
    #[token("/")]
    Slash,
    /// `<`
    #[token("<")]
    Less,
    /// `<=`
    #[token("<=")]
    LessEqual,
    /// `>`
    #[token(">")]
    Greater,
    /// `>=`
    #[token(">=")]
    GreaterEqual,
    /// `==`
    #[token("==")]
    EqualEqual,
    /// `!=`
    #[token("!=")]
    NotEqual,
}

/// Why a piece of text is no token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LexError {
    /// No token starts so.
    #[default]
    Unexpected,
    /// An escape other than `\n`, `\t`, `\r`, `\0`, `\\`, `\"`, `\u{…}`.
    Escape,
    /// An integer beyond 128 bits.
    Integer,
}

/// A token with its place.
pub type Spanned<'a> = (Span, Token<'a>);

/// All tokens of a text, and what is no token, which is left out. Where brackets nest deeper than [`MAX_DEPTH`] the
/// tokens end.
pub fn tokens(source: &str) -> (Vec<Spanned<'_>>, Diagnostics) {
    let mut found = Vec::new();
    let mut diagnostics = Diagnostics::default();
    if source.len() > MAX_SOURCE_BYTES {
        let message =
            format!("the text has {} bytes, at most {MAX_SOURCE_BYTES} are read", source.len());
        diagnostics.push(Diagnostic::error(Code::TooLarge, message));
        return (found, diagnostics);
    }
    let mut depth: usize = 0;
    let mut failure: Option<(LexError, Span)> = None;
    for (token, range) in Token::lexer(source).spanned() {
        let span = Span { start: range.start, end: range.end };
        let token = match token {
            Ok(token) => token,
            Err(error) => {
                failure = match failure {
                    Some((earlier, place)) if earlier == error && place.end == span.start => {
                        Some((error, Span { start: place.start, end: span.end }))
                    }
                    earlier => {
                        report(source, earlier, &mut diagnostics);
                        Some((error, span))
                    }
                };
                continue;
            }
        };
        match token {
            Token::LeftParen | Token::LeftBrace | Token::LeftBracket => depth += 1,
            Token::RightParen | Token::RightBrace | Token::RightBracket => {
                depth = depth.saturating_sub(1)
            }
            Token::Value(_)
            | Token::Symbol(_)
            | Token::Text(_)
            | Token::Word(_)
            | Token::Int(_)
            | Token::Float(_)
            | Token::Comma
            | Token::Colon
            | Token::Semicolon
            | Token::Equals
            | Token::Arrow
            | Token::Dots
            | Token::Plus
            | Token::Minus
            | Token::Star
            | Token::Slash
            | Token::Less
            | Token::LessEqual
            | Token::Greater
            | Token::GreaterEqual
            | Token::EqualEqual
            | Token::NotEqual => {}
        }
        if depth > MAX_DEPTH {
            let message = format!("brackets nest deeper than {MAX_DEPTH}");
            diagnostics.push(Diagnostic::error(Code::Syntax, message).at(span));
            break;
        }
        found.push((span, token));
    }
    report(source, failure, &mut diagnostics);
    diagnostics.0.sort_by_key(|diagnostic| diagnostic.span);
    (found, diagnostics)
}

/// The most errors of this kind that are worth reading.
const MAX_REPORTED: usize = 50;

fn report(source: &str, failure: Option<(LexError, Span)>, diagnostics: &mut Diagnostics) {
    let Some((error, span)) = failure else { return };
    if diagnostics.0.len() >= MAX_REPORTED {
        return;
    }
    let text = source.get(span.start..span.end).unwrap_or_default();
    let shown: String = text.chars().take(20).collect();
    let diagnostic = match error {
        LexError::Unexpected if text.contains('"') => {
            Diagnostic::error(Code::Syntax, "this string does not end on its line")
        }
        LexError::Unexpected => {
            Diagnostic::error(Code::Syntax, format!("no token starts with {shown:?}"))
        }
        LexError::Escape => Diagnostic::error(Code::Syntax, "unknown escape in a string")
            .with_help(r#"the escapes are \n \t \r \0 \\ \" and \u{1F600}"#),
        LexError::Integer => {
            Diagnostic::error(Code::Syntax, format!("the integer {shown} has more than 128 bits"))
        }
    };
    diagnostics.push(diagnostic.at(span));
}

fn integer<'a>(lexer: &mut Lexer<'a, Token<'a>>) -> Result<i128, LexError> {
    lexer.slice().parse().map_err(|_| LexError::Integer)
}

fn float<'a>(lexer: &mut Lexer<'a, Token<'a>>) -> Result<f64, LexError> {
    lexer.slice().parse().map_err(|_| LexError::Unexpected)
}

/// The text between quotes, escapes decoded.
fn unquote(quoted: &str) -> Result<Cow<'_, str>, LexError> {
    let inner = &quoted[1..quoted.len() - 1];
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match rest.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('0') => '\0',
            Some(c @ ('\\' | '"')) => c,
            Some('u') => {
                let (digits, behind) = rest
                    .as_str()
                    .strip_prefix('{')
                    .and_then(|rest| rest.split_once('}'))
                    .filter(|(digits, _)| !digits.starts_with('+'))
                    .ok_or(LexError::Escape)?;
                rest = behind.chars();
                let number = u32::from_str_radix(digits, 16).map_err(|_| LexError::Escape)?;
                char::from_u32(number).ok_or(LexError::Escape)?
            }
            _ => return Err(LexError::Escape),
        });
    }
    Ok(Cow::Owned(text))
}

/// A name as it stands behind `%` or `@`: as it is where that is a token, else in quotes.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a>(pub &'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if self.0.split('.').all(plain) { f.write_str(self.0) } else { Quoted(self.0).fmt(f) }
    }
}

/// A text in quotes, with escapes for quotes, backslashes and control characters.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\r' => f.write_str("\\r")?,
                c if c.is_control()
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}') =>
                {
                    write!(f, "\\u{{{:x}}}", u32::from(c))?;
                }
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// A float as it is written: shortest digits that give the same f64 back, always with a point, an exponent or a word.
#[derive(Clone, Copy, Debug)]
pub struct Float(pub f64);

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            f.write_str("nan")
        } else if value.is_infinite() {
            f.write_str(if value > 0.0 { "inf" } else { "-inf" })
        } else {
            write!(f, "{value:?}")
        }
    }
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self {
            Token::Value(name) => return write!(f, "%{}", Name(name)),
            Token::Symbol(name) => return write!(f, "@{}", Name(name)),
            Token::Text(text) => return Quoted(text).fmt(f),
            Token::Word(word) => word,
            Token::Int(value) => return value.fmt(f),
            Token::Float(value) => return Float(*value).fmt(f),
            Token::LeftParen => "(",
            Token::RightParen => ")",
            Token::LeftBrace => "{",
            Token::RightBrace => "}",
            Token::LeftBracket => "[",
            Token::RightBracket => "]",
            Token::Comma => ",",
            Token::Colon => ":",
            Token::Semicolon => ";",
            Token::Equals => "=",
            Token::Arrow => "->",
            Token::Dots => "..",
            Token::Plus => "+",
            Token::Minus => "-",
            Token::Star => "*",
            Token::Slash => "/",
            Token::Less => "<",
            Token::LessEqual => "<=",
            Token::Greater => ">",
            Token::GreaterEqual => ">=",
            Token::EqualEqual => "==",
            Token::NotEqual => "!=",
        };
        f.write_str(sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, expected: &str) {
        let (tokens, diagnostics) = tokens(source);
        let shown: Vec<String> = tokens.iter().map(|(_, token)| token.to_string()).collect();
        assert_eq!(shown.join(" "), expected);
        assert_eq!(diagnostics, Diagnostics::default());
    }

    fn check_error(source: &str, expected: &str) {
        let (_, diagnostics) = tokens(source);
        let shown: Vec<&str> =
            diagnostics.0.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
        assert_eq!(shown.join("; "), expected);
    }

    #[test]
    fn dashes_join_words_but_not_numbers_or_arrows() {
        check(
            "arg-reduce h*2 - 1 h-1 x->y top-k -3 h -r",
            "arg-reduce h * 2 - 1 h - 1 x -> y top-k - 3 h - r",
        );
    }

    #[test]
    fn ranges_are_not_floats() {
        check("0..4096 %i..%j 1.5e3 1e-9 2.0 4.5", "0 .. 4096 %i .. %j 1500.0 1e-9 2.0 4.5");
    }

    #[test]
    fn names_keep_any_character() {
        check(
            r#"%"a/b:0 c" %a.b.0 %"plain" @"x\"\\" %"\u{3b1}\n""#,
            r#"%"a/b:0 c" %a.b.0 %plain @"x\"\\" %"α\n""#,
        );
    }

    #[test]
    fn comments_and_marks_are_skipped() {
        check("\u{feff}a // b\n/ c//", "a / c");
    }

    #[test]
    fn what_is_no_token_is_reported_and_left_out() {
        check_error("a $$$ b ~ c", r#"no token starts with "$$$"; no token starts with "~""#);
        check_error("\"abc\nd", "this string does not end on its line");
        check_error(r#""\q""#, "unknown escape in a string");
        check_error(
            "999999999999999999999999999999999999999999",
            "the integer 99999999999999999999 has more than 128 bits",
        );
    }

    #[test]
    fn deep_nesting_ends_the_tokens() {
        let source = "(".repeat(100_000);
        let (found, diagnostics) = tokens(&source);
        assert_eq!(found.len(), MAX_DEPTH);
        assert_eq!(diagnostics.0.len(), 1);
    }

    #[test]
    fn floats_keep_their_value() {
        for value in
            [0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, f64::MAX, f64::INFINITY, f64::NEG_INFINITY]
        {
            let text = Float(value).to_string();
            let (tokens, _) = tokens(text.trim_start_matches('-'));
            let expected =
                if value.is_infinite() { Token::Word("inf") } else { Token::Float(value.abs()) };
            assert_eq!(tokens[0].1, expected);
        }
    }
}
