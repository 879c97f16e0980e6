//! The text form of programs: lexer, grammar, names to ids, printing, and the rendering of diagnostics.

pub mod lexer;
