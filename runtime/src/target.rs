//! What a model is compiled for.

use crate::engine;
use crate::error::{Error, ErrorKind, listed};
use std::fmt;
use systole_compiler::diagnostic::Code;
use systole_compiler::machine::Machine;
use systole_compiler::module::Module;

/// A machine, or a level of the compiler that can be evaluated in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Host { cpu: Option<String> },
    Reference,
    Kernels,
    Systolic(&'static str),
}

/// The texts of generated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// The machine's assembly text.
    Asm,
    /// Cranelift's IR.
    Clif,
}

/// A row of [`Target::CATALOG`].
#[derive(Clone, Copy, Debug)]
pub struct TargetRow {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// Whether this version can compile for it.
    pub available: bool,
}

impl Target {
    /// Every target that has a name.
    pub const CATALOG: &[TargetRow] = &[
        row("host", "the CPU at hand: machine code through Cranelift", true),
        row(
            "reference",
            "the graph as it was imported, node by node: slow, and the meaning of the rest",
            true,
        ),
        row(
            "kernels",
            "the compiled kernels, interpreted: what the passes made, without machine code",
            true,
        ),
        row("trn1", "a modeled accelerator core of the first generation", false),
        row("trn2", "a modeled accelerator core of the second generation", false),
        row("trn3", "a modeled accelerator core of the third generation", false),
        row("trn4", "a modeled accelerator core of the announced fourth generation", false),
    ];

    /// The CPU at hand.
    pub fn host() -> Target {
        Target { kind: Kind::Host { cpu: None } }
    }

    /// The CPU at hand, using no more than the named features: see `systole list targets`.
    pub fn host_with_cpu(cpu: impl Into<String>) -> Target {
        Target { kind: Kind::Host { cpu: Some(cpu.into()) } }
    }

    /// The reference evaluator.
    pub fn reference() -> Target {
        Target { kind: Kind::Reference }
    }

    /// The interpreter of compiled kernels.
    pub fn kernels() -> Target {
        Target { kind: Kind::Kernels }
    }

    /// The target of that name, available or not: compiling for one that is not gives the reason.
    pub fn from_name(name: &str) -> Result<Target, Error> {
        let kind = match name {
            "host" => Kind::Host { cpu: None },
            "reference" => Kind::Reference,
            "kernels" => Kind::Kernels,
            "trn1" => Kind::Systolic("trn1"),
            "trn2" => Kind::Systolic("trn2"),
            "trn3" => Kind::Systolic("trn3"),
            "trn4" => Kind::Systolic("trn4"),
            _ if name.ends_with(".toml") => {
                return Err(Error::unsupported(format!(
                    "machine files such as `{name}` are not in this version"
                )));
            }
            _ => {
                let known = listed(Target::CATALOG.iter().map(|row| row.name));
                let message = format!("there is no target `{name}`");
                return Err(Error::new(ErrorKind::Input, Code::UnknownName, message)
                    .with_help(format!("the targets are {known}")));
            }
        };
        Ok(Target { kind })
    }

    /// What the passes know of it. The evaluators of levels take the host's.
    pub fn machine(&self) -> Result<Machine, Error> {
        engine::machine(self)
    }

    /// What a module becomes on this target, as text.
    pub fn listing(&self, module: &Module, listing: Listing) -> Result<String, Error> {
        engine::listing(self, module, listing)
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Host { .. } => "host",
            Kind::Reference => "reference",
            Kind::Kernels => "kernels",
            Kind::Systolic(name) => name,
        }
    }
}

const fn row(name: &'static str, summary: &'static str, available: bool) -> TargetRow {
    TargetRow { name, summary, available }
}

impl Default for Target {
    fn default() -> Target {
        Target::host()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
