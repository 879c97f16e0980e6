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
    ///
    /// ```text
    /// func @main(%x: f32[2]) { %y = add %x %x return %y }
    /// ```
    ///
    /// Operands are separated by commas. The message says what was found and what could stand there instead. Reading goes
    /// on at the next statement, so several of these may be reported at once; begin with the first.
    Syntax = "syntax",
    /// A name is used that nothing defines there.
    ///
    /// ```text
    /// func @main(%x: f32[2]) { %y = exp %z return %y }
    /// ```
    ///
    /// A value is defined before its uses, in the same block or one around it; what an inner block defines ends with the
    /// block. Look for a misspelling, or for a definition further down.
    UnknownName = "unknown-name",
    /// A name is defined twice where both would be visible.
    ///
    /// ```text
    /// func @main(%x: f32[2]) { %x = exp %x return %x }
    /// ```
    ///
    /// Every value has its own name, and every function. Two blocks beside each other may use the same names.
    DuplicateName = "duplicate-name",
    /// There is no operation, pass, function or element type of that name.
    ///
    /// ```text
    /// func @main(%x: f32[2]) { %y = expp %x return %y }
    /// ```
    ///
    /// `systole list ops` and `systole list passes` show what there is. Elementwise functions are operations too.
    UnknownOp = "unknown-op",
    /// An attribute is missing, unknown, given twice, or of the wrong type.
    ///
    /// ```text
    /// func @main(%x: f32[2]) { %y = reduce %x {combine = sum, axis = 0, accumulate = f32} return %y }
    /// ```
    ///
    /// `reduce` wants `axes = [0]`. The page of the operation in `docs/ops.md` lists its attributes.
    Attribute = "attribute",
    /// The operands' types do not fit the operation, or a written type is not the inferred one.
    ///
    /// ```text
    /// func @main(%x: f32[2], %w: f32[3]) { %y = add %x, %w return %y }
    /// ```
    ///
    /// Nothing is broadcast or converted by itself: write `broadcast` or `convert`. A written result type is only a check
    /// and can be left out, but for `constant`, `parameter`, `iota` and `random`, which take their type from it.
    OpType = "op-type",
    /// A rule of the level's verifier does not hold; the message starts with the rule's number.
    ///
    /// The program can be read, but means nothing: a function calls itself, say, or two results have one name. In a file
    /// of yours, mend what the message names. After a pass it is a mistake of ours: please report it with the file that
    /// the message names.
    Verify = "verify",
    /// The file is not what it claims to be: truncated, malformed, or of an unknown version.
    ///
    /// For example an ONNX file whose download broke off, or a Git LFS pointer in its place. Compare its size and checksum
    /// with the source's, and fetch it again.
    Malformed = "malformed",
    /// The model refers to data that is missing or has the wrong size.
    ///
    /// ```text
    /// func @main() { %w: f32[2, 3] = constant {value = elided("00f1e2d3c4b5a697")} return %w }
    /// ```
    ///
    /// An ONNX file may keep its weights in files beside it, which must be in the same folder. A printed graph has lost its
    /// large constants unless it was printed in full.
    MissingData = "missing-data",
    /// A symbolic size is not bound, or bound to two different values.
    ///
    /// A model with an input of shape `[batch, 3, 224, 224]` is compiled for one batch: say `--dim batch=8` at the shell,
    /// or `bind("batch", 8)` in Rust, or give inputs of that shape.
    UnboundDimension = "unbound-dimension",
    /// The model uses an operation, type or feature that this version cannot import or compile for the target.
    ///
    /// `systole check MODEL` counts them all, grouped by operation. The message says what could be done; often another
    /// target takes it, or the model can be exported with an older operator set.
    Unsupported = "unsupported",
    /// A tensor or a program would take more memory than there is, or than a limit allows.
    ///
    /// ```text
    /// func @main() { %z: f32[1000000, 1000000] = constant {value = splat(0.0)} return %z }
    /// ```
    ///
    /// Sizes are checked before anything is allocated. Bind smaller sizes, make the tensor a parameter, or raise
    /// `--mem-limit`.
    TooLarge = "too-large",
    /// An input is missing, unknown, or of the wrong type or shape.
    ///
    /// Inputs are given by name: `--input x=@x.npy`, or `inputs! { "x" => x }`. The message names the input with the type
    /// that the program wants; `systole inspect MODEL` prints all of them.
    Input = "input",
    /// A time or memory limit was reached, or the run was cancelled.
    ///
    /// Raise `--time-limit` or `--mem-limit`, or make the input smaller.
    Limit = "limit",
    /// A file cannot be read, mapped or written, or is not of the format that its use needs.
    ///
    /// The message names the file and what the system said. Check the path, the permissions, and that the name ends as its
    /// format wants: `.npy`, `.npz`, `.pb`, `.onnx`, `.tir`, `.toml`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_of_the_catalogue_show_their_code() {
        let mut examples = 0;
        for (code, name, text) in Code::CATALOG {
            assert!(text.len() > 100, "{name} is not explained");
            let Some((_, behind)) = text.split_once("```text\n") else { continue };
            let (example, _) = behind.split_once("```").expect("the example ends");
            let problems = crate::text::parse_graph(example).expect_err("an example of a mistake");
            assert_eq!(problems.0[0].code, *code, "{example}: {problems}");
            examples += 1;
        }
        assert_eq!(examples, 8);
    }
}
