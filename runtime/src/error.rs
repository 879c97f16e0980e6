//! What can go wrong, as one opaque type. Every error holds at least one diagnostic, so that it always has a code.

use std::fmt;
use std::sync::Arc;
use systole_compiler::diagnostic::{Code, Diagnostic, Diagnostics, Severity, Span};

/// What sort of trouble it is: whose turn it is to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The model or the program text is wrong.
    Program,
    /// The caller asked for something that does not go together: names, types, shapes, options.
    Input,
    /// A file cannot be read or written.
    File,
    /// The model is right, but this version or target cannot do it.
    Unsupported,
    /// The model does not fit the target's memory.
    DoesNotFit,
    /// A time or memory limit was reached, or the run was cancelled.
    Limit,
}

/// An error of the library. Cheap to clone; `Send`, `Sync` and `'static`.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

struct Inner {
    kind: ErrorKind,
    diagnostics: Diagnostics,
    file_name: Option<String>,
    source: Option<Arc<str>>,
}

impl Error {
    /// An error of one problem.
    pub fn new(kind: ErrorKind, code: Code, message: impl Into<String>) -> Error {
        Error::of(kind, Diagnostic::error(code, message).into())
    }

    /// The same error, with what can be done about its first problem.
    pub fn with_help(self, help: impl Into<String>) -> Error {
        let mut diagnostics = self.inner.diagnostics.clone();
        if let Some(first) = diagnostics.0.first_mut() {
            first.help = Some(help.into());
        }
        Error::built(self.inner.kind, diagnostics, self.inner.file_name.clone(), self.source_text())
    }

    pub(crate) fn of(kind: ErrorKind, diagnostics: Diagnostics) -> Error {
        Error::built(kind, diagnostics, None, None)
    }

    pub(crate) fn input(problems: Vec<Diagnostic>) -> Error {
        Error::of(ErrorKind::Input, Diagnostics(problems))
    }

    pub(crate) fn file(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::File, Code::File, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Unsupported, Code::Unsupported, message)
    }

    pub(crate) fn limit(message: impl Into<String>) -> Error {
        Error::new(ErrorKind::Limit, Code::Limit, message)
    }

    /// The same error about something in a file, with its text where spans refer to one.
    pub fn in_file(self, name: &str, source: Option<Arc<str>>) -> Error {
        Error::built(self.inner.kind, self.inner.diagnostics.clone(), Some(name.to_owned()), source)
    }

    fn built(
        kind: ErrorKind,
        diagnostics: Diagnostics,
        file_name: Option<String>,
        source: Option<Arc<str>>,
    ) -> Error {
        Error { inner: Arc::new(Inner { kind, diagnostics, file_name, source }) }
    }

    /// What sort of trouble it is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The code of the first problem.
    pub fn code(&self) -> Code {
        self.first().map_or(Code::Malformed, |diagnostic| diagnostic.code)
    }

    /// The node of the source model that the first problem is about.
    pub fn node(&self) -> Option<&str> {
        self.first()?.node.as_deref()
    }

    /// The place in the source text that the first problem is about.
    pub fn span(&self) -> Option<Span> {
        self.first()?.span
    }

    /// Every problem.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.inner.diagnostics.0
    }

    /// The file that the problems are in, where they are in one.
    pub fn file_name(&self) -> Option<&str> {
        self.inner.file_name.as_deref()
    }

    /// The text that spans refer to, where the model came as text.
    pub fn source_text(&self) -> Option<Arc<str>> {
        self.inner.source.clone()
    }

    fn first(&self) -> Option<&Diagnostic> {
        let is_error = |diagnostic: &&Diagnostic| diagnostic.severity == Severity::Error;
        let all = &self.inner.diagnostics.0;
        all.iter().find(is_error).or_else(|| all.first())
    }
}

/// The kind that a set of diagnostics has together: a limit ends everything; a wrong program is wrong whatever else the
/// target cannot do; only then do the target's own limits count.
fn kind_of(diagnostics: &Diagnostics) -> ErrorKind {
    const BY_WEIGHT: [ErrorKind; 6] = [
        ErrorKind::Limit,
        ErrorKind::File,
        ErrorKind::Program,
        ErrorKind::Input,
        ErrorKind::Unsupported,
        ErrorKind::DoesNotFit,
    ];
    let errors = || diagnostics.0.iter().filter(|one| one.severity == Severity::Error);
    let has = |kind: &ErrorKind| errors().any(|diagnostic| kind_of_code(diagnostic.code) == *kind);
    BY_WEIGHT.into_iter().find(has).unwrap_or(ErrorKind::Program)
}

fn kind_of_code(code: Code) -> ErrorKind {
    match code {
        Code::Syntax
        | Code::UnknownName
        | Code::DuplicateName
        | Code::UnknownOp
        | Code::Attribute
        | Code::OpType
        | Code::Verify
        | Code::Malformed
        | Code::MissingData => ErrorKind::Program,
        Code::UnboundDimension | Code::Input => ErrorKind::Input,
        Code::Unsupported => ErrorKind::Unsupported,
        Code::TooLarge => ErrorKind::DoesNotFit,
        Code::Limit => ErrorKind::Limit,
        Code::File => ErrorKind::File,
    }
}

impl From<Diagnostics> for Error {
    fn from(diagnostics: Diagnostics) -> Error {
        Error::of(kind_of(&diagnostics), diagnostics)
    }
}

impl From<Diagnostic> for Error {
    fn from(diagnostic: Diagnostic) -> Error {
        Diagnostics::from(diagnostic).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = self.file_name() {
            write!(f, "{name}: ")?;
        }
        self.inner.diagnostics.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind())
    }
}

impl std::error::Error for Error {}

/// At most a few of many, for messages: `` `a`, `b`, `c` and 4 more ``.
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 8;
    let names: Vec<&str> = names.into_iter().collect();
    let mut text =
        names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
