//! How a command ends when it does not end well: exit code, and words for people and for machines.

use serde_json::{Value, json};
use std::sync::Arc;
use systole::{Diagnostic, Error, ErrorKind, Severity};

/// Exit codes, as DESIGN fixes them.
pub(super) mod exit {
    pub(crate) const OK: u8 = 0;
    pub(crate) const PROGRAM: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const UNSUPPORTED: u8 = 3;
    pub(crate) const DOES_NOT_FIT: u8 = 4;
    pub(crate) const DIFFERENT: u8 = 5;
    pub(crate) const LIMIT: u8 = 6;
    pub(crate) const BUG: u8 = 70;
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// The command line does not make sense.
    Usage { message: String, help: Option<String> },
    /// The library says no.
    Library(Error),
    /// The report has been printed, and it says what is not supported.
    Unsupported,
    /// Everything ran, but the values are not the expected ones; the report has been printed.
    Different,
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Failure {
        Failure::Usage { message: message.into(), help: None }
    }

    pub(super) fn usage_with_help(message: impl Into<String>, help: impl Into<String>) -> Failure {
        Failure::Usage { message: message.into(), help: Some(help.into()) }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage { .. } => exit::USAGE,
            Failure::Different => exit::DIFFERENT,
            Failure::Unsupported => exit::UNSUPPORTED,
            Failure::Library(error) => match error.kind() {
                ErrorKind::Program => exit::PROGRAM,
                ErrorKind::Input | ErrorKind::File => exit::USAGE,
                ErrorKind::Unsupported => exit::UNSUPPORTED,
                ErrorKind::DoesNotFit => exit::DOES_NOT_FIT,
                ErrorKind::Limit => exit::LIMIT,
                // The enum is open for kinds to come.
                _ => exit::PROGRAM,
            },
        }
    }

    /// The words for people; nothing where they have been said.
    pub(super) fn text(&self) -> String {
        match self {
            Failure::Different | Failure::Unsupported => String::new(),
            Failure::Usage { message, help } => {
                let help =
                    help.as_ref().map(|help| format!("\n  help: {help}")).unwrap_or_default();
                format!("error[usage]: {message}{help}\n")
            }
            Failure::Library(error) => library_text(error),
        }
    }

    /// The object for machines, where `--json` was given: `{"schema":1,"error":{…}}` on standard output.
    pub(super) fn json(&self) -> Option<String> {
        let exit = self.exit_code();
        let error = match self {
            Failure::Different | Failure::Unsupported => return None,
            Failure::Usage { message, help } => {
                json!({"exit": exit, "code": "usage", "message": message, "diagnostics": [{
                    "severity": "error", "code": "usage", "message": message,
                    "node": null, "span": null, "help": help,
                }]})
            }
            Failure::Library(error) => {
                let diagnostics: Vec<Value> =
                    error.diagnostics().iter().map(diagnostic_json).collect();
                let message =
                    diagnostics.first().map_or(Value::Null, |first| first["message"].clone());
                json!({
                    "exit": exit, "code": error.code().name(), "message": message,
                    "file": error.file_name(), "diagnostics": diagnostics,
                })
            }
        };
        Some(format!("{}\n", json!({"schema": 1, "error": error})))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Library(error)
    }
}

fn library_text(error: &Error) -> String {
    let source: Option<Arc<str>> = error.source_text();
    let diagnostics = systole_compiler::diagnostic::Diagnostics(error.diagnostics().to_vec());
    let rendered = match (error.file_name(), source) {
        (Some(name), Some(source)) => {
            systole_compiler::text::render(&diagnostics, name, Some(&source))
        }
        (Some(name), None) => format!("{diagnostics}\n  in {name}"),
        (None, _) => diagnostics.to_string(),
    };
    format!("{}\n", rendered.trim_end())
}

fn diagnostic_json(diagnostic: &Diagnostic) -> Value {
    json!({
        "severity": match diagnostic.severity { Severity::Error => "error", Severity::Warning => "warning" },
        "code": diagnostic.code.name(),
        "message": diagnostic.message,
        "node": diagnostic.node,
        "span": diagnostic.span.map(|span| [span.start, span.end]),
        "help": diagnostic.help,
    })
}
