//! What a run gives.

use crate::error::{Error, ErrorKind, listed};
use std::borrow::Cow;
use std::ops::Deref;
use systole_compiler::diagnostic::Code;
use systole_compiler::tensor::{Element, Tensor};

/// The named results of a run, in the order of the signature.
#[derive(Clone, Debug, PartialEq)]
pub struct Outputs {
    entries: Vec<(String, Tensor)>,
}

impl Outputs {
    pub(crate) fn new(entries: Vec<(String, Tensor)>) -> Outputs {
        Outputs { entries }
    }

    /// The output of that name.
    pub fn get(&self, name: &str) -> Result<Output<'_>, Error> {
        let found = self.entries.iter().find(|(known, _)| known == name);
        let (name, tensor) = found.ok_or_else(|| {
            let names = listed(self.entries.iter().map(|(name, _)| name.as_str()));
            let message = format!("there is no output `{name}`");
            Error::new(ErrorKind::Input, Code::UnknownName, message)
                .with_help(format!("the outputs are {names}"))
        })?;
        Ok(Output { name, tensor })
    }

    /// Names and tensors in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Names and tensors in order, owned.
    pub fn into_entries(self) -> Vec<(String, Tensor)> {
        self.entries
    }
}

/// One output: a tensor that knows its name.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    name: &'a str,
    tensor: &'a Tensor,
}

impl<'a> Output<'a> {
    /// The tensor.
    pub fn tensor(self) -> &'a Tensor {
        self.tensor
    }

    /// The elements, where `T` is their type.
    pub fn as_slice<T: Element>(self) -> Result<Cow<'a, [T]>, Error> {
        self.tensor.as_slice().ok_or_else(|| {
            let (name, has, asked) = (self.name, self.tensor.dtype(), T::DTYPE);
            let message = format!("output `{name}` has elements of {has}, not {asked}");
            Error::new(ErrorKind::Input, Code::Input, message)
        })
    }
}

impl Deref for Output<'_> {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        self.tensor
    }
}
