//! Finds, in a token stream, where statements start and which braces belong to blocks. The grammar then needs no
//! separators and no reserved words, and after an error it resumes at the next statement.

use crate::diagnostic::Span;
use crate::text::lexer::{Spanned, Token};

/// A token in its role.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Terminal<'a> {
    /// A statement starts here; it has no text of its own.
    Start,
    /// The brace that opens a block.
    BlockOpen,
    /// The brace that closes a block.
    BlockClose,
    /// `func` before a name.
    Func,
    /// `mesh` before a name.
    Mesh,
    /// `ranks` before a name.
    Ranks,
    /// `return` where a statement starts.
    Return,
    /// `yield` where a statement starts.
    Yield,
    /// `do` before a block's parameters.
    Do,
    /// `from` before a list of origins.
    From,
    /// `state` before a parameter's name.
    State,
    /// Any other token.
    Other(Token<'a>),
}

/// What is open around a token.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    Block,
    Attributes,
    Paren,
    Bracket,
}

/// What the token before was, as far as it matters.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Value,
    Do,
    Word,
    Equals,
    Bracket,
    Other,
}

/// The tokens in their roles. A statement or function that starts inside brackets of the one before closes them.
pub(super) fn terminals(tokens: Vec<Spanned<'_>>) -> Vec<(usize, Terminal<'_>, usize)> {
    let mut found = Vec::with_capacity(tokens.len() + tokens.len() / 4);
    let mut open: Vec<Open> = Vec::new();
    let mut before = Before::Other;
    let mut tokens = tokens.into_iter().peekable();
    while let Some((span, token)) = tokens.next() {
        let next = tokens.peek().map(|(_, token)| token);
        let role = role(&token, before, next, &mut open);
        if role.starts_statement {
            found.push((span.start, Terminal::Start, span.start));
        }
        before = if matches!(token, Token::Value(_)) {
            Before::Value
        } else if token == Token::Word("do") {
            Before::Do
        } else if matches!(token, Token::Word(_)) {
            Before::Word
        } else if token == Token::Equals {
            Before::Equals
        } else if token == Token::RightBracket {
            Before::Bracket
        } else {
            Before::Other
        };
        found.push((span.start, role.terminal.unwrap_or(Terminal::Other(token)), span.end));
    }
    found
}

struct Role {
    starts_statement: bool,
    /// `None` where the token stays what it is.
    terminal: Option<Terminal<'static>>,
}

fn role(token: &Token<'_>, before: Before, next: Option<&Token<'_>>, open: &mut Vec<Open>) -> Role {
    let plain = Role { starts_statement: false, terminal: None };
    let is = |terminal| Role { starts_statement: false, terminal: Some(terminal) };
    let start = |terminal| Role { starts_statement: true, terminal };
    let in_block = open.last() == Some(&Open::Block);
    match token {
        Token::LeftParen => {
            open.push(Open::Paren);
            let names_results = in_block && !matches!(before, Before::Do | Before::Equals);
            if names_results { start(None) } else { plain }
        }
        Token::LeftBracket => {
            open.push(Open::Bracket);
            plain
        }
        Token::LeftBrace => {
            // Behind a type, which only a function's block may follow, stands how its value is divided.
            let after_type = before == Before::Bracket && !open.is_empty();
            let after_op =
                after_type || matches!(before, Before::Value | Before::Do | Before::Word);
            open.push(if after_op { Open::Attributes } else { Open::Block });
            if after_op { plain } else { is(Terminal::BlockOpen) }
        }
        Token::RightParen | Token::RightBracket => {
            let wanted = if *token == Token::RightParen { Open::Paren } else { Open::Bracket };
            if open.last() == Some(&wanted) {
                open.pop();
            }
            plain
        }
        Token::RightBrace => {
            while matches!(open.last(), Some(Open::Paren | Open::Bracket)) {
                open.pop();
            }
            match open.pop() {
                Some(Open::Attributes) => plain,
                Some(Open::Block | Open::Paren | Open::Bracket) | None => is(Terminal::BlockClose),
            }
        }
        Token::Value(_) => {
            let defines = matches!(next, Some(Token::Equals | Token::Colon));
            let in_list = matches!(open.last(), Some(Open::Paren) | None);
            if !defines || in_list {
                return plain;
            }
            close_to_block(open);
            start(None)
        }
        Token::Word("func") if open.is_empty() || matches!(next, Some(Token::Symbol(_))) => {
            open.clear();
            is(Terminal::Func)
        }
        Token::Word(word @ ("mesh" | "ranks"))
            if open.is_empty() && matches!(next, Some(Token::Symbol(_))) =>
        {
            is(if *word == "mesh" { Terminal::Mesh } else { Terminal::Ranks })
        }
        Token::Word(word @ ("return" | "yield"))
            if matches!(next, Some(Token::Value(_) | Token::RightBrace) | None) =>
        {
            if open.is_empty() || before == Before::Equals && in_block {
                return plain;
            }
            close_to_block(open);
            start(Some(if *word == "return" { Terminal::Return } else { Terminal::Yield }))
        }
        Token::Word("do") if in_block && next == Some(&Token::LeftParen) => is(Terminal::Do),
        Token::Word("from") if in_block && next == Some(&Token::LeftBracket) => is(Terminal::From),
        Token::Word("state") if matches!(next, Some(Token::Value(_))) && !in_block => {
            is(Terminal::State)
        }
        Token::Symbol(_)
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
        | Token::NotEqual => plain,
    }
}

/// Forgets brackets that a statement left open.
fn close_to_block(open: &mut Vec<Open>) {
    while open.len() > 1 && open.last() != Some(&Open::Block) {
        open.pop();
    }
}

/// The place between two positions.
pub(super) fn span(start: usize, end: usize) -> Span {
    Span { start, end }
}
