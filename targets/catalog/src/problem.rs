//! What is wrong with a description: message, place, excerpt; all of it at once.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// More problems than this are counted, not shown.
const MAX_SHOWN: usize = 30;

/// A stretch of one of the texts that a description was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) source: Arc<Source>,
    pub(crate) span: Range<usize>,
}

/// A text with its name: a file, or what stood after `--set`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Place {
    pub(crate) fn new(source: &Arc<Source>, span: Option<Range<usize>>) -> Place {
        let end = source.text.len();
        let span = span.unwrap_or(0..0);
        let inside =
            |at: usize| (0..=at.min(end)).rev().find(|&at| source.text.is_char_boundary(at));
        let start = inside(span.start).unwrap_or(0);
        let stop = inside(span.end).unwrap_or(start).max(start);
        Place { source: Arc::clone(source), span: start..stop }
    }

    /// The name of the file, or `--set`.
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The bytes of the text that it is.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Line and column, counted from one; columns are characters.
    pub fn line_column(&self) -> (usize, usize) {
        let before = &self.source.text[..self.span.start];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        (line, column)
    }
}

impl fmt::Display for Place {
    /// `file:line:column`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        write!(f, "{}:{line}:{column}", self.file())
    }
}

/// One thing that is wrong with a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong: lower case, with the value and its limit.
    pub message: String,
    /// What could be done about it.
    pub help: Option<String>,
    /// Where it stands.
    pub place: Option<Place>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let title = Level::ERROR.primary_title(self.message.as_str());
        let mut group = annotate_snippets::Group::with_title(title);
        if let Some(place) = &self.place {
            let snippet = Snippet::source(place.source.text.as_str())
                .path(place.file())
                .annotation(AnnotationKind::Primary.span(place.span.clone()));
            group = group.element(snippet);
        }
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        f.write_str(&Renderer::plain().render(&[group]))
    }
}

/// Everything that is wrong with a description, in the order of the text; never empty. Displays with excerpts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(crate) fn one(message: impl Into<String>, place: Option<Place>) -> Problems {
        Problems(vec![Problem { message: message.into(), help: None, place }])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}
