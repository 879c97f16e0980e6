//! Kernels, modules and programs that somebody wrote, to be timed on a modeled accelerator as they are.

use crate::accelerator::{self, Accelerator};
use crate::error::{Error, ErrorKind};
use crate::levels::first_word;
use crate::limits::Limits;
use crate::options::RunOptions;
use crate::profile::Profile;
use crate::target::{Kind, Target};
use std::collections::BTreeMap;
use systole_compiler::diagnostic::Code;
use systole_compiler::kernel;
use systole_compiler::module::{self, Module};
use systole_systolic::asm;
use systole_systolic::program::Program;

/// A schedule in text, compiled for a modeled accelerator without a change.
#[derive(Debug)]
pub struct Written {
    code: Accelerator,
}

impl Written {
    /// A program in assembly text: see [`Written::from_program`].
    pub fn from_assembly(text: &str, target: &Target) -> Result<Written, Error> {
        Written::from_program(asm::parse(text)?, target)
    }

    /// A program. It is checked against the machine's rules before it is taken.
    pub fn from_program(program: Program, target: &Target) -> Result<Written, Error> {
        let systolic = systolic(target)?;
        accelerator::judge(&program, systolic)?;
        Ok(Written { code: Accelerator::of_program(program, systolic) })
    }

    /// A kernel or a module in text. The loops and places of a kernel stay as they are; scalar parameters have their
    /// greatest values.
    pub fn from_text(text: &str, target: &Target) -> Result<Written, Error> {
        let systolic = systolic(target)?;
        let module = match first_word(text) {
            Some("kernel") => {
                let kernel = kernel::parse(text)?;
                kernel::verify(&kernel)?;
                let greatest: Vec<i64> =
                    kernel.scalars().into_iter().map(|(_, _, high)| high).collect();
                Module::of_kernel(&kernel, &greatest)
            }
            _ => module::parse(text)?,
        };
        module::verify(&module)?;
        Ok(Written { code: Accelerator::as_written(&module, systolic)? })
    }

    /// The time of a run. `scalars` are the numbers of tensors that decide it, by name.
    pub fn profile(
        &self,
        scalars: &BTreeMap<String, i64>,
        trace: bool,
        options: &RunOptions,
    ) -> Result<Profile, Error> {
        self.code.profile(scalars, trace, &Limits::of(options))
    }

    /// The assembly text.
    pub fn listing(&self) -> String {
        self.code.listing()
    }
}

fn systolic(target: &Target) -> Result<&std::sync::Arc<crate::target::Systolic>, Error> {
    match &target.kind {
        Kind::Systolic(systolic) => Ok(systolic),
        Kind::Host { .. } | Kind::Reference | Kind::Kernels => {
            let message = format!("the target {target} has no modeled time");
            Err(Error::new(ErrorKind::Input, Code::Input, message)
                .with_help("use --target trn1, trn2, trn3, trn4 or a description file"))
        }
    }
}
