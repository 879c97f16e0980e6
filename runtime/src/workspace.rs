//! Memory that one run uses after another, so that those after the first allocate nothing.

use crate::cache::Specialized;
use crate::engine::Memory;
use crate::error::{Error, ErrorKind, listed};
use crate::inputs::Inputs;
use crate::program::Program;
use crate::signature::{Port, Signature};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;
use systole_compiler::diagnostic::Code;
use systole_compiler::tensor::{Element, Tensor};
use systole_compiler::types::TensorType;

/// What [`Program::run_in`] runs in: temporaries, scratch and results. A run on the host with the same program, types
/// of inputs and number of threads as the run before allocates nothing; other runs make anew what they need.
#[derive(Debug, Default)]
pub struct Workspace {
    made: Option<Made>,
    /// For each input of the signature, its place among the inputs that are given.
    order: Vec<usize>,
}

/// What the memory was made for.
#[derive(Debug)]
struct Made {
    program: Program,
    code: Arc<Specialized>,
    types: Vec<TensorType>,
    /// The inputs that the code was made for, with their values.
    values: Vec<(usize, Tensor)>,
    memory: Memory,
}

impl Workspace {
    /// One without memory yet; the first run gives it some.
    pub fn new() -> Workspace {
        Workspace::default()
    }

    /// Whether code and memory are there for these inputs, and finds each of them.
    pub(crate) fn fits(&mut self, program: &Program, inputs: &Inputs) -> bool {
        let Some(made) = &self.made else { return false };
        made.program.is(program)
            && find(&mut self.order, program.signature(), inputs)
            && made.types.iter().zip(&self.order).all(|(ty, &at)| ty == inputs.at(at).ty())
            && made.values.iter().all(|(port, value)| value == inputs.at(self.order[*port]))
    }

    /// Makes memory for inputs that have been checked: `tensors` in the signature's order.
    pub(crate) fn make(
        &mut self,
        program: &Program,
        code: Arc<Specialized>,
        inputs: &Inputs,
        tensors: &[Tensor],
    ) -> Result<(), Error> {
        self.made = None;
        let ports = &program.signature().inputs;
        let decides = |&port: &usize| code.constants.contains(&ports[port].name);
        let values = (0..ports.len()).filter(decides).map(|port| (port, tensors[port].clone()));
        let made = Made {
            program: program.clone(),
            types: tensors.iter().map(|tensor| tensor.ty().clone()).collect(),
            values: values.collect(),
            memory: code.engine.memory()?,
            code,
        };
        find(&mut self.order, program.signature(), inputs);
        self.made = Some(made);
        Ok(())
    }

    /// Runs on inputs that it fits. Where that fails there are no results.
    pub(crate) fn run(
        &mut self,
        run: impl FnOnce(&Specialized, &mut Memory, &[usize]) -> Result<(), Error>,
    ) -> Result<BorrowedOutputs<'_>, Error> {
        let made = self.made.as_mut().expect("it fits the inputs, so it was made");
        run(&made.code, &mut made.memory, &self.order)?;
        Ok(BorrowedOutputs { made })
    }
}

/// Finds each input of the signature among those given: true where each is there once and there are no others.
fn find(order: &mut Vec<usize>, signature: &Signature, inputs: &Inputs) -> bool {
    let ports = &signature.inputs;
    if inputs.len() != ports.len() {
        return false;
    }
    // Mostly they come in the order in which they came before.
    let is_at = |port: &Port, at: usize| inputs.name(at) == port.name;
    if order.len() == ports.len() && ports.iter().zip(&*order).all(|(port, &at)| is_at(port, at)) {
        return true;
    }
    order.clear();
    for port in ports {
        let Some(at) = (0..inputs.len()).find(|&at| is_at(port, at)) else { return false };
        order.push(at);
    }
    true
}

/// The named results of a run, in the order of the signature, where they lie in a workspace.
#[derive(Clone, Copy, Debug)]
pub struct BorrowedOutputs<'w> {
    made: &'w Made,
}

/// One output where it lies in a workspace.
#[derive(Clone, Copy, Debug)]
pub struct BorrowedOutput<'w> {
    name: &'w str,
    ty: &'w TensorType,
    bytes: &'w [u8],
}

impl<'w> BorrowedOutputs<'w> {
    /// The output of that name.
    pub fn get(&self, name: &str) -> Result<BorrowedOutput<'w>, Error> {
        let found = self.ports().iter().position(|port| port.name == name);
        found.map(|index| self.at(index)).ok_or_else(|| {
            let names = listed(self.ports().iter().map(|port| port.name.as_str()));
            let message = format!("there is no output `{name}`");
            Error::new(ErrorKind::Input, Code::UnknownName, message)
                .with_help(format!("the outputs are {names}"))
        })
    }

    /// Every output, in order.
    pub fn iter(&self) -> impl Iterator<Item = BorrowedOutput<'w>> {
        (0..self.ports().len()).map(|index| self.at(index))
    }

    fn ports(&self) -> &'w [Port] {
        &self.made.program.signature().outputs
    }

    fn at(&self, index: usize) -> BorrowedOutput<'w> {
        let (ty, bytes) = self.made.code.engine.result(&self.made.memory, index);
        BorrowedOutput { name: &self.ports()[index].name, ty, bytes }
    }
}

impl<'w> BorrowedOutput<'w> {
    /// Its name.
    pub fn name(self) -> &'w str {
        self.name
    }

    /// Its type.
    pub fn ty(self) -> &'w TensorType {
        self.ty
    }

    /// Its shape.
    pub fn shape(self) -> &'w [usize] {
        &self.ty.shape
    }

    /// The elements as they lie: row-major, little-endian.
    pub fn bytes(self) -> &'w [u8] {
        self.bytes
    }

    /// The elements, where `T` is their type: borrowed where they are aligned, as those of the host are.
    pub fn as_slice<T: Element>(self) -> Result<Cow<'w, [T]>, Error> {
        if T::DTYPE != self.ty.dtype {
            let (name, has, asked) = (self.name, self.ty.dtype, T::DTYPE);
            let message = format!("output `{name}` has elements of {has}, not {asked}");
            return Err(Error::new(ErrorKind::Input, Code::Input, message));
        }
        Ok(match bytemuck::try_cast_slice(self.bytes) {
            Ok(elements) => Cow::Borrowed(elements),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(self.bytes)),
        })
    }

    /// A copy that outlives the workspace.
    pub fn to_tensor(self) -> Tensor {
        let bytes = Bytes::copy_from_slice(self.bytes);
        Tensor::new(self.ty.clone(), bytes).expect("as many bytes as the type has")
    }
}
