//! What is wrong with the user's program: code, message, place, notes and help. All problems of a phase come together.

use std::fmt;

/// A half-open range of bytes in a source text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)*) => {
        /// What kind of problem a diagnostic reports.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[doc = $doc])+ $name,)* }
        impl Code {
            /// Every code with its explanation, for `explain` and the docs.
            pub const CATALOG: &[(Code, &str, &str)] =
                &[$((Code::$name, $text, concat!($($doc, "\n"),+)),)*];
            /// How the code is written.
            pub fn name(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// The text is not in the grammar: an unexpected token, or an unfinished item.
    Syntax = "syntax",
    /// A name is used that nothing defines.
    UnknownName = "unknown-name",
    /// A name is defined twice.
    DuplicateName = "duplicate-name",
    /// There is no operation, pass, function or type of that name.
    UnknownOp = "unknown-op",
    /// An attribute is missing, unknown, or of the wrong type.
    Attribute = "attribute",
    /// The operands' types do not fit the operation, or a written type is not the inferred one.
    OpType = "op-type",
    /// A rule of the level's verifier does not hold; the message starts with the rule's number.
    Verify = "verify",
    /// The file is not what it claims to be: truncated, malformed, or of an unknown version.
    Malformed = "malformed",
    /// The model refers to data that is missing or has the wrong size.
    MissingData = "missing-data",
    /// A symbolic size is not bound, or bound to two different values.
    UnboundDimension = "unbound-dimension",
    /// The model uses an operation, type or feature that this version cannot import or compile.
    Unsupported = "unsupported",
    /// A tensor or a program would take more memory than there is, or than the limit allows.
    TooLarge = "too-large",
    /// An input is missing, unknown, or of the wrong type or shape.
    Input = "input",
    /// A time or memory limit was reached, or the run was cancelled.
    Limit = "limit",
    /// A file cannot be read, mapped or written, or is not of the format that its use needs.
    File = "file",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// The program is rejected.
    Error,
    /// The program is accepted, but probably not what was meant.
    Warning,
}

/// One problem. Messages are lower case, without a full stop, and name the value and its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of problem it is.
    pub code: Code,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Where in the source text.
    pub span: Option<Span>,
    /// Which node of the source model, where there is no text.
    pub node: Option<String>,
    /// Other places that matter, each with what it has to do with it.
    pub related: Vec<(Span, String)>,
    /// What can be done.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            code,
            severity: Severity::Error,
            message: message.into(),
            span: None,
            node: None,
            related: Vec::new(),
            help: None,
        }
    }

    /// A warning without a place.
    pub fn warning(code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, message) }
    }

    /// The same, at a place in the text.
    pub fn at(mut self, span: Span) -> Diagnostic {
        self.span = Some(span);
        self
    }

    /// The same, at a node of the source model.
    pub fn on_node(mut self, node: impl Into<String>) -> Diagnostic {
        self.node = Some(node.into());
        self
    }

    /// The same, with another place that matters.
    pub fn with_related(mut self, span: Span, message: impl Into<String>) -> Diagnostic {
        self.related.push((span, message.into()));
        self
    }

    /// The same, with what can be done about it.
    pub fn with_help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, self.message)?;
        if let Some(node) = &self.node {
            write!(f, "\n  --> node {node}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// All problems that a phase found, in the order of their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
    }

    /// `Err` where any is an error, else the value.
    pub fn into_result<T>(self, value: T) -> Result<T, Diagnostics> {
        if self.has_errors() { Err(self) } else { Ok(value) }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Diagnostics(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
