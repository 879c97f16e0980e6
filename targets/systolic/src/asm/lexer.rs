//! The tokens of assembly text.

use systole_compiler::diagnostic::Span;

/// One token with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Span,
    /// Whether it is the first of its line.
    pub(super) leads: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// `%name`, `$name`, `@name`, or with a quoted name: the sign and the name.
    Name(char, String),
    /// `%#3`, `$#3`, `@#3`: by position.
    Position(char, u32),
    /// `"text"`
    Text(String),
    /// `tensor-tensor`, `f32`
    Word(String),
    /// `42`, `-1`, `1.5`, `1e-3`: as it is written.
    Number(String),
    /// One of `( ) [ ] { } , : = + * .` and `..`.
    Sign(&'static str),
    /// Anything else.
    Wrong(String),
    /// The end.
    End,
}

const SIGNS: &[&str] = &["..", "(", ")", "[", "]", "{", "}", ",", ":", "=", "+", "*"];

/// Splits a text into tokens; the last is [`TokenKind::End`]. Comments run from `//` to the end of their line.
pub(super) fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let (mut at, mut leads) = (0, true);
    while at < source.len() {
        let rest = &source[at..];
        let Some(first) = rest.chars().next() else { break };
        if first.is_whitespace() {
            leads |= first == '\n';
            at += first.len_utf8();
            continue;
        }
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
            continue;
        }
        let (kind, length) = token(rest, first);
        tokens.push(Token { kind, span: Span { start: at, end: at + length }, leads });
        leads = false;
        at += length;
    }
    let end = source.len();
    tokens.push(Token { kind: TokenKind::End, span: Span { start: end, end }, leads: true });
    tokens
}

fn token(rest: &str, first: char) -> (TokenKind, usize) {
    match first {
        '%' | '$' | '@' => {
            let behind = &rest[1..];
            if let Some(digits) = behind.strip_prefix('#') {
                let length = digits.bytes().take_while(u8::is_ascii_digit).count();
                if let Ok(position) = digits[..length].parse() {
                    return (TokenKind::Position(first, position), 2 + length);
                }
            }
            if behind.starts_with('"')
                && let Some((text, length)) = quoted(behind)
            {
                return (TokenKind::Name(first, text), 1 + length);
            }
            let length = behind.bytes().take_while(|byte| is_plain(*byte)).count();
            if length == 0 {
                return (TokenKind::Wrong(first.to_string()), 1);
            }
            (TokenKind::Name(first, behind[..length].to_owned()), 1 + length)
        }
        '"' => match quoted(rest) {
            Some((text, length)) => (TokenKind::Text(text), length),
            None => (TokenKind::Wrong("\"".to_owned()), 1),
        },
        '-' | '0'..='9' => {
            let bytes = rest.as_bytes();
            let mut end = 1;
            while end < bytes.len() {
                let exponent =
                    matches!(bytes[end - 1], b'e' | b'E') && matches!(bytes[end], b'-' | b'+');
                let fraction =
                    bytes[end] == b'.' && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
                if !(bytes[end].is_ascii_alphanumeric() || exponent || fraction) {
                    break;
                }
                end += 1;
            }
            (TokenKind::Number(rest[..end].to_owned()), end)
        }
        letter if letter.is_ascii_alphabetic() => {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let length = rest.bytes().take_while(plain).count();
            (TokenKind::Word(rest[..length].to_owned()), length)
        }
        other => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => (TokenKind::Sign(sign), sign.len()),
            None => (TokenKind::Wrong(other.to_string()), other.len_utf8()),
        },
    }
}

/// Whether a byte may stand in a name without quotes.
pub(super) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

/// A quoted text, decoded, and how many bytes it takes.
fn quoted(rest: &str) -> Option<(String, usize)> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, at + 1)),
            '\\' => match chars.next()?.1 {
                'n' => text.push('\n'),
                'r' => text.push('\r'),
                't' => text.push('\t'),
                other => text.push(other),
            },
            other => text.push(other),
        }
    }
    None
}

/// A text in quotes.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '"' | '\\' => out.extend(['\\', c]),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
