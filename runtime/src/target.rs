//! What a model is compiled for.

use crate::engine;
use crate::error::{Error, ErrorKind, listed};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use systole_compiler::diagnostic::Code;
use systole_compiler::machine::Machine;
use systole_compiler::module::Module;
use systole_compiler::types::DType;
use systole_systolic::{lower, machine};

/// A machine, or a level of the compiler that can be evaluated in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Host { cpu: Option<String>, weights: Option<DType> },
    Reference,
    Kernels,
    Systolic(Arc<Systolic>),
}

/// A modeled accelerator core, and how it is compiled for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Systolic {
    pub(crate) machine: machine::Machine,
    pub(crate) precision: Precision,
    pub(crate) mode: Mode,
    pub(crate) fallback_only: bool,
}

/// To which type f32 is narrowed. Nothing else is ever narrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// To none.
    #[default]
    F32,
    /// Operands of products to bf16; on the host, their weights, with sums in f32.
    Bf16,
    /// Operands of products to f8.
    F8,
    /// All tensors to bf16.
    Bf16All,
    /// All tensors to f8.
    F8All,
}

/// What a run on a modeled accelerator computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Values, and the time that they take.
    #[default]
    Both,
    /// Values alone.
    Values,
    /// Time alone.
    Time,
}

impl Precision {
    pub(crate) fn casts(self) -> lower::Precision {
        match self {
            Precision::F32 => lower::Precision::Exact,
            Precision::Bf16 => lower::Precision::Products(DType::BF16),
            Precision::F8 => lower::Precision::Products(DType::F8E4M3),
            Precision::Bf16All => lower::Precision::All(DType::BF16),
            Precision::F8All => lower::Precision::All(DType::F8E4M3),
        }
    }
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
}

impl Target {
    /// Every target that has a name.
    pub const CATALOG: &[TargetRow] = &[
        row("host", "the CPU at hand: machine code through Cranelift"),
        row(
            "reference",
            "the graph as it was imported, node by node: slow, and the meaning of the rest",
        ),
        row(
            "kernels",
            "the compiled kernels, interpreted: what the passes made, without machine code",
        ),
        row("trn1", "a modeled accelerator core of the first generation"),
        row("trn2", "a modeled accelerator core of the second generation"),
        row("trn3", "a modeled accelerator core of the third generation"),
        row("trn4", "a modeled accelerator core of the announced fourth generation"),
    ];

    /// The CPU at hand.
    pub fn host() -> Target {
        Target { kind: Kind::Host { cpu: None, weights: None } }
    }

    /// The CPU at hand, using no more than the named features: see `systole list targets`.
    pub fn host_with_cpu(cpu: impl Into<String>) -> Target {
        Target { kind: Kind::Host { cpu: Some(cpu.into()), weights: None } }
    }

    /// The reference evaluator.
    pub fn reference() -> Target {
        Target { kind: Kind::Reference }
    }

    /// The interpreter of compiled kernels.
    pub fn kernels() -> Target {
        Target { kind: Kind::Kernels }
    }

    /// A modeled accelerator core: `trn1` to `trn4`, or a description file of one.
    pub fn systolic(name: &str) -> Result<Target, Error> {
        Target::systolic_with(name, &[])
    }

    /// The same with some values of the description replaced, each written `key=value`.
    pub fn systolic_with(name: &str, settings: &[String]) -> Result<Target, Error> {
        let text = match machine::preset_text(name) {
            Some(text) => text,
            None => crate::data::read_text(Path::new(name))?,
        };
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let machine =
            machine::Machine::with_settings(&text, name, &settings).map_err(|problems| {
                Error::new(
                    ErrorKind::Input,
                    Code::Input,
                    problems.to_string().trim_end().to_owned(),
                )
            })?;
        let systolic = Systolic {
            machine,
            precision: Precision::default(),
            mode: Mode::default(),
            fallback_only: false,
        };
        Ok(Target { kind: Kind::Systolic(Arc::new(systolic)) })
    }

    /// The same target with f32 narrowed: a modeled accelerator to any of them, the host to bf16.
    pub fn with_precision(self, precision: Precision) -> Result<Target, Error> {
        if let Kind::Host { cpu, .. } = &self.kind {
            let weights = match precision {
                Precision::F32 => None,
                Precision::Bf16 => Some(DType::BF16),
                Precision::F8 | Precision::Bf16All | Precision::F8All => {
                    let message = "the host narrows weights to bf16 alone";
                    return Err(Error::new(ErrorKind::Input, Code::Input, message)
                        .with_help("use --precision bf16, or a modeled accelerator"));
                }
            };
            return Ok(Target { kind: Kind::Host { cpu: cpu.clone(), weights } });
        }
        self.with(|systolic| systolic.precision = precision)
    }

    /// The same target for runs of that mode, which only a modeled accelerator has.
    pub fn with_mode(self, mode: Mode) -> Result<Target, Error> {
        self.with(|systolic| systolic.mode = mode)
    }

    fn with(self, change: impl FnOnce(&mut Systolic)) -> Result<Target, Error> {
        match self.kind {
            Kind::Systolic(systolic) => {
                let mut changed = Systolic::clone(&systolic);
                change(&mut changed);
                Ok(Target { kind: Kind::Systolic(Arc::new(changed)) })
            }
            Kind::Host { .. } | Kind::Reference | Kind::Kernels => {
                let message = format!("the target {self} is no modeled accelerator");
                Err(Error::new(ErrorKind::Input, Code::Input, message)
                    .with_help("use --target trn1, trn2, trn3, trn4 or a description file"))
            }
        }
    }

    /// The bytes of HBM that a modeled core may use.
    pub fn hbm_capacity_bytes(&self) -> Option<u64> {
        match &self.kind {
            Kind::Systolic(systolic) => {
                Some((systolic.machine.hbm.capacity_gib * f64::from(1 << 30)) as u64)
            }
            Kind::Host { .. } | Kind::Reference | Kind::Kernels => None,
        }
    }

    /// Whether it is a modeled accelerator, which has a time of its own.
    pub fn is_modeled(&self) -> bool {
        matches!(self.kind, Kind::Systolic(_))
    }

    /// The target of that name, or of that description file.
    pub fn from_name(name: &str) -> Result<Target, Error> {
        let kind = match name {
            "host" => Kind::Host { cpu: None, weights: None },
            "reference" => Kind::Reference,
            "kernels" => Kind::Kernels,
            "trn1" | "trn2" | "trn3" | "trn4" => return Target::systolic(name),
            _ if name.ends_with(".toml") => return Target::systolic(name),
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
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Host { .. } => "host",
            Kind::Reference => "reference",
            Kind::Kernels => "kernels",
            Kind::Systolic(systolic) => &systolic.machine.name,
        }
    }
}

const fn row(name: &'static str, summary: &'static str) -> TargetRow {
    TargetRow { name, summary }
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
