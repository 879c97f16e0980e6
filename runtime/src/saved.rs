//! Compiled programs as files: what the passes made, with every weight, so that loading one skips import and passes.
//!
//! A file is `SYSTOLE` and a zero, the version (u32) and a checksum (CRC-32) of all that follows: the lengths of the next
//! two parts (u64 each), a header in JSON, the module as text, and the tensors, each at a multiple of 64 bytes so that
//! they can be used where they are mapped. All numbers are little-endian. Nothing in a file is trusted: lengths are
//! checked against the file's, the module is parsed and verified, types are compared.

use crate::data;
use crate::error::{Error, ErrorKind};
use crate::signature::{Port, Signature};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use systole_compiler::diagnostic::{Code, Diagnostics};
use systole_compiler::module::{self, Lifetime, Module};
use systole_compiler::tensor::Tensor;
use systole_compiler::types::{DType, TensorType};

/// What every file starts with.
pub(crate) const MAGIC: &[u8; 8] = b"SYSTOLE\0";
const VERSION: u32 = 1;
/// Magic, version, checksum and the two lengths.
const PREFIX_BYTES: usize = 32;
/// The checksum is of everything from here.
const CHECKED_FROM: usize = 16;
const ALIGNMENT: usize = 64;

/// A program that was saved, read from its file: [`crate::Compiler::load`] makes it run. Clones share it.
#[derive(Clone, Debug)]
pub struct SavedProgram {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    producer: String,
    cpu: Option<String>,
    content: Content,
}

/// What is saved.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) module: Module,
    /// Every type is known.
    pub(crate) signature: Signature,
    /// The inputs that the module was made for, with their values; it does not take them.
    pub(crate) values: BTreeMap<String, Tensor>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    producer: String,
    cpu: Option<String>,
    inputs: Vec<Typed>,
    outputs: Vec<Typed>,
    state: Vec<(usize, usize)>,
    /// The inputs whose values were known; they are the first tensors.
    values: Vec<String>,
    /// The types of the tensors that follow the text.
    tensors: Vec<Shaped>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    name: String,
    #[serde(flatten)]
    ty: Shaped,
}

#[derive(Debug, Serialize, Deserialize)]
struct Shaped {
    dtype: String,
    shape: Vec<usize>,
}

impl Shaped {
    fn of(ty: &TensorType) -> Shaped {
        Shaped { dtype: ty.dtype.name().to_owned(), shape: ty.shape.to_vec() }
    }

    fn ty(&self) -> Result<TensorType, Error> {
        let dtype = DType::from_name(&self.dtype)
            .ok_or_else(|| malformed(format!("there is no element type `{}`", self.dtype)))?;
        let ty = TensorType::new(dtype, &self.shape);
        match ty.checked_count() {
            Some(_) => Ok(ty),
            None => Err(malformed(format!("the type {ty} is larger than any memory"))),
        }
    }
}

fn malformed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Program, Code::Malformed, message)
}

/// Writes a program under a temporary name and renames it, so that the file appears whole or not at all.
pub(crate) fn write(path: &Path, content: Content, cpu: Option<&str>) -> Result<(), Error> {
    let Content { mut module, signature, values } = content;
    let mut tensors: Vec<Tensor> = values.values().cloned().collect();
    for (_, buffer) in module.buffers.iter_mut() {
        if let Lifetime::Parameter(name) = &buffer.lifetime {
            return Err(Error::unsupported(format!("the weight `{name}` has no values to save")));
        }
        if let Lifetime::Constant(value) = &buffer.lifetime {
            tensors.push(value.clone());
            buffer.lifetime = Lifetime::Parameter((tensors.len() - 1).to_string());
        }
    }
    let text = module::print_full(&module);
    let typed = |ports: &[Port]| -> Vec<Typed> {
        let typed = |port: &Port| {
            let ty = port.ty().expect("every type of a lowered program is known");
            Typed { name: port.name.clone(), ty: Shaped::of(&ty) }
        };
        ports.iter().map(typed).collect()
    };
    let header = Header {
        producer: concat!("systole ", env!("CARGO_PKG_VERSION")).to_owned(),
        cpu: cpu.map(str::to_owned),
        inputs: typed(&signature.inputs),
        outputs: typed(&signature.outputs),
        state: signature.state.clone(),
        values: values.keys().cloned().collect(),
        tensors: tensors.iter().map(|tensor| Shaped::of(tensor.ty())).collect(),
    };
    let header = serde_json::to_vec(&header)
        .map_err(|error| Error::file(format!("cannot write {}: {error}", path.display())))?;
    let mut start = Vec::new();
    start.extend_from_slice(&(header.len() as u64).to_le_bytes());
    start.extend_from_slice(&(text.len() as u64).to_le_bytes());
    start.extend_from_slice(&header);
    start.extend_from_slice(text.as_bytes());
    let mut end = CHECKED_FROM + start.len();
    let mut parts: Vec<(usize, &[u8])> = Vec::new();
    for tensor in &tensors {
        let padding = end.next_multiple_of(ALIGNMENT) - end;
        parts.push((padding, tensor.bytes()));
        end += padding + tensor.bytes().len();
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&start);
    for (padding, bytes) in &parts {
        checksum.update(&[0; ALIGNMENT][..*padding]);
        checksum.update(bytes);
    }
    let checksum = checksum.finalize();
    data::replace_with(path, |file| {
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&checksum.to_le_bytes())?;
        file.write_all(&start)?;
        for (padding, bytes) in &parts {
            file.write_all(&[0; ALIGNMENT][..*padding])?;
            file.write_all(bytes)?;
        }
        file.sync_all().or_else(|error| {
            // Pipes and devices cannot be synchronized, and need not.
            if error.kind() == std::io::ErrorKind::InvalidInput { Ok(()) } else { Err(error) }
        })
    })
}

impl SavedProgram {
    /// Whether a file starts as saved programs do. A file that cannot be read does not.
    pub fn is_one(path: impl AsRef<Path>) -> bool {
        let mut start = [0; MAGIC.len()];
        std::fs::File::open(path)
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start))
            .is_ok_and(|()| start == *MAGIC)
    }

    /// Reads a file, which is mapped, so that weights that are used as they lie are never copied.
    pub fn from_path(path: impl AsRef<Path>) -> Result<SavedProgram, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = crate::mapping::map(path)?;
        SavedProgram::read(&name, &bytes).map_err(|error| error.in_file(&name, None))
    }

    /// The path it came from.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The program that saved it.
    pub fn producer(&self) -> &str {
        &self.inner.producer
    }

    /// The instruction set that it was compiled for; `None` where it is for no machine.
    pub fn cpu(&self) -> Option<&str> {
        self.inner.cpu.as_deref()
    }

    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.inner.content.signature
    }

    /// How many kernels it has.
    pub fn kernels(&self) -> usize {
        self.inner.content.module.kernels.len()
    }

    /// How many tensors come with it, and their bytes.
    pub fn weights(&self) -> (usize, usize) {
        let buffers = self.inner.content.module.buffers.iter();
        let bytes = buffers.filter_map(|(_, buffer)| match &buffer.lifetime {
            Lifetime::Constant(value) => Some(value.bytes().len()),
            Lifetime::Input
            | Lifetime::Parameter(_)
            | Lifetime::Loaded
            | Lifetime::State
            | Lifetime::Temporary => None,
        });
        bytes.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes))
    }

    pub(crate) fn content(&self) -> &Content {
        &self.inner.content
    }

    fn read(name: &str, file: &Bytes) -> Result<SavedProgram, Error> {
        if !file.starts_with(MAGIC) {
            return Err(malformed("this is not a saved program")
                .with_help("`systole compile MODEL -o FILE` and `Program::save` make them"));
        }
        let cut = || malformed(format!("the file is cut off: it has {} bytes", file.len()));
        if file.len() < PREFIX_BYTES {
            return Err(cut());
        }
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| file[at + byte]));
        let (version, checksum) = (word(8), word(12));
        if version != VERSION {
            return Err(malformed(format!(
                "the file has version {version}; this program reads version {VERSION}"
            ))
            .with_help("compile the model again"));
        }
        let mut rest = file.slice(PREFIX_BYTES..);
        let mut part = |at: usize| {
            let length = u64::from(word(at)) | u64::from(word(at + 4)) << 32;
            let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
            length.map(|length| rest.split_to(length)).ok_or_else(cut)
        };
        let (header, text) = (part(16)?, part(24)?);
        let found = crc32fast::hash(&file[CHECKED_FROM..]);
        if found != checksum {
            return Err(malformed(format!(
                "the file is damaged or cut off: its checksum is {found:08x}, not {checksum:08x}"
            )));
        }
        let header: Header = serde_json::from_slice(&header)
            .map_err(|error| malformed(format!("the header cannot be read: {error}")))?;
        let text = std::str::from_utf8(&text)
            .map_err(|error| malformed(format!("the module is no text: {error}")))?;
        let tensors = tensors(file, file.len() - rest.len(), &header.tensors)?;
        let content = content(&header, text, &tensors)?;
        let inner =
            Inner { name: name.to_owned(), producer: header.producer, cpu: header.cpu, content };
        Ok(SavedProgram { inner: Arc::new(inner) })
    }
}

/// The tensors that follow `end`, which must fill the file.
fn tensors(file: &Bytes, mut end: usize, types: &[Shaped]) -> Result<Vec<Tensor>, Error> {
    let mut tensors = Vec::new();
    for shaped in types {
        let ty = shaped.ty()?;
        let start = end.next_multiple_of(ALIGNMENT);
        let stop = ty
            .checked_count()
            .and_then(|count| count.checked_mul(ty.dtype.bytes()))
            .and_then(|bytes| start.checked_add(bytes))
            .filter(|stop| *stop <= file.len())
            .ok_or_else(|| malformed(format!("a tensor of type {ty} does not fit the file")))?;
        let tensor = Tensor::new(ty, file.slice(start..stop));
        tensors.push(tensor.expect("as many bytes as the type has"));
        end = stop;
    }
    if end != file.len() {
        let more = file.len() - end;
        return Err(malformed(format!("{more} bytes stand behind the last tensor")));
    }
    Ok(tensors)
}

/// The program of a header and a text, checked against each other and verified.
fn content(header: &Header, text: &str, tensors: &[Tensor]) -> Result<Content, Error> {
    let ports = |typed: &[Typed]| -> Result<Vec<Port>, Error> {
        typed.iter().map(|typed| Ok(Port::fixed(&typed.name, &typed.ty.ty()?))).collect()
    };
    let signature = Signature {
        inputs: ports(&header.inputs)?,
        outputs: ports(&header.outputs)?,
        state: header.state.clone(),
    };
    let (inputs, outputs) = (&signature.inputs, &signature.outputs);
    if signature
        .state
        .iter()
        .any(|&(input, output)| input >= inputs.len() || output >= outputs.len())
    {
        return Err(malformed("the state pairs an input and an output that are not there"));
    }
    let mut values = BTreeMap::new();
    if header.values.len() > tensors.len() {
        return Err(malformed("an input has a value that is not in the file"));
    }
    for (name, tensor) in header.values.iter().zip(tensors) {
        let fits =
            signature.input(name).is_some_and(|port| port.ty().as_ref() == Some(tensor.ty()));
        if !fits || values.insert(name.clone(), tensor.clone()).is_some() {
            return Err(malformed(format!("there is no input `{name}` for its value")));
        }
    }
    let in_module = |problems: Diagnostics| {
        let error = Error::from(problems);
        Error::of(ErrorKind::Program, Diagnostics(error.diagnostics().to_vec()))
    };
    let mut module = module::parse(text).map_err(in_module)?;
    let mut used = BTreeSet::new();
    for (_, buffer) in module.buffers.iter_mut() {
        let Lifetime::Parameter(name) = &buffer.lifetime else { continue };
        let index = name.parse().ok().filter(|index: &usize| *index >= values.len());
        let tensor = index.and_then(|index| {
            used.insert(index);
            tensors.get(index).filter(|tensor| *tensor.ty() == buffer.ty)
        });
        match tensor {
            Some(tensor) => buffer.lifetime = Lifetime::Constant(tensor.clone()),
            None => {
                let (name, ty) = (&buffer.name, &buffer.ty);
                return Err(malformed(format!("there is no {ty} for the weight `{name}`")));
            }
        }
    }
    if used.len() != tensors.len() - values.len() {
        return Err(malformed("a tensor of the file is used nowhere"));
    }
    module::verify(&module).map_err(in_module)?;
    let taken = inputs.iter().filter(|port| !values.contains_key(&port.name));
    let wanted = taken.map(Port::ty).chain(outputs.iter().map(Port::ty));
    let buffers = module.inputs.iter().chain(module.outputs.iter().map(|(_, buffer)| buffer));
    let found = buffers.map(|&buffer| Some(module.buffers[buffer].ty.clone()));
    if module.inputs.len() != inputs.len() - values.len()
        || module.outputs.len() != outputs.len()
        || !wanted.eq(found)
    {
        return Err(malformed("the module takes or gives other types than the header says"));
    }
    Ok(Content { module, signature, values })
}
