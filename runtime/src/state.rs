//! What a model keeps from run to run, such as a key-value cache.

use crate::error::{Error, ErrorKind, listed};
use crate::signature::Signature;
use systole_compiler::diagnostic::Code;
use systole_compiler::tensor::Tensor;

/// The values of the inputs that are paired with outputs. A run takes them from here and leaves the outputs here.
/// Clones are independent.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub(crate) entries: Vec<(String, Tensor)>,
}

impl State {
    /// All zeros, where every size is known.
    pub(crate) fn zeros(signature: &Signature) -> Result<State, Error> {
        let mut entries = Vec::new();
        for &(input, _) in &signature.state {
            let port = &signature.inputs[input];
            let fits = port.ty().filter(|ty| ty.checked_count().is_some());
            let ty = fits.ok_or_else(|| {
                let message = format!("the type of the state {port} is not known yet");
                Error::new(ErrorKind::Input, Code::UnboundDimension, message)
                    .with_help("bind its sizes when compiling")
            })?;
            entries.push((port.name.clone(), Tensor::zeros(ty)));
        }
        Ok(State { entries })
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Result<&Tensor, Error> {
        let found = self.entries.iter().find(|(known, _)| known == name);
        found.map(|(_, tensor)| tensor).ok_or_else(|| self.unknown(name))
    }

    /// Puts a value there; its type is checked by the next run.
    pub fn set(&mut self, name: &str, value: Tensor) -> Result<(), Error> {
        match self.entries.iter_mut().find(|(known, _)| known == name) {
            Some((_, tensor)) => {
                *tensor = value;
                Ok(())
            }
            None => Err(self.unknown(name)),
        }
    }

    /// Names and values in the signature's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    fn unknown(&self, name: &str) -> Error {
        let names = listed(self.entries.iter().map(|(name, _)| name.as_str()));
        let message = format!("there is no state `{name}`");
        Error::new(ErrorKind::Input, Code::UnknownName, message).with_help(if names.is_empty() {
            "the model keeps none".to_owned()
        } else {
            format!("there is {names}")
        })
    }
}
