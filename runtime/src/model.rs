//! Models as they come: an ONNX file, or a graph or module in our own text. Loading checks everything that does not
//! depend on sizes; sizes are bound when a model is compiled.

use crate::error::{Error, ErrorKind};
use crate::inputs::Inputs;
use crate::levels::{self, Contents, Known, Source};
use crate::saved::MAGIC;
use crate::signature::Signature;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};
use std::sync::Arc;
use systole_compiler::diagnostic::Code;
use systole_compiler::graph::Graph;
use systole_compiler::tensor::Tensor;

/// A loaded model. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Model {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    source: Source,
    signature: Signature,
    text: Option<Arc<str>>,
}

/// What a file seems to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Onnx,
    Text,
}

impl Model {
    /// Loads a model from a file, which is mapped, so that weights are never copied. External data of ONNX models is
    /// looked for beside the model, and never outside of its folder.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let bytes = crate::mapping::map(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Model::load(&name, bytes, &|relative| external_data(folder, relative))
    }

    /// Loads a model from memory. There is no folder, so ONNX models with external data are refused.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Model, Error> {
        let none = |path: &str| Err(format!("the model has no folder in which `{path}` could be"));
        Model::load("model", Bytes::from(bytes.into()), &none)
    }

    /// Loads a model from our own text.
    pub fn from_text(text: &str) -> Result<Model, Error> {
        Model::from_text_named("model.tir", text)
    }

    /// A model of a graph that was built or rewritten in Rust. The graph must be a verified one.
    pub fn from_graph(name: &str, graph: Graph) -> Model {
        Model::new(name, Source::Graph(graph), None)
    }

    /// The graph that compilation starts from. Sizes come from `dims` and from those inputs that are given; values of
    /// inputs that decide shapes become constants of the graph, which then has no parameter for them.
    pub fn graph(&self, dims: &BTreeMap<String, usize>, inputs: &Inputs) -> Result<Graph, Error> {
        self.source().check_dims(dims)?;
        let named = |(name, tensor): (&str, &Tensor)| (name.to_owned(), tensor.clone());
        let values: BTreeMap<String, Tensor> = inputs.iter().map(named).collect();
        let types = values.iter().map(|(name, tensor)| (name.clone(), tensor.ty().clone()));
        let known = Known { dims: dims.clone(), types: types.collect(), values };
        let bound = self.source().bind(&known, &mut BTreeSet::new());
        bound.map(|bound| bound.graph).map_err(|error| self.blame(error))
    }

    fn from_text_named(name: &str, text: &str) -> Result<Model, Error> {
        let text: Arc<str> = Arc::from(text);
        let in_file = |error: Error| error.in_file(name, Some(Arc::clone(&text)));
        let source = levels::parse_text(&text).map_err(in_file)?;
        Ok(Model::new(name, source, Some(Arc::clone(&text))))
    }

    fn load(
        name: &str,
        bytes: Bytes,
        external: &dyn Fn(&str) -> Result<Bytes, String>,
    ) -> Result<Model, Error> {
        let in_file = |error: Error| error.in_file(name, None);
        match format_of(name, &bytes).map_err(in_file)? {
            Format::Onnx => {
                let source = levels::parse_onnx(bytes, external).map_err(in_file)?;
                Ok(Model::new(name, source, None))
            }
            Format::Text => {
                let text = std::str::from_utf8(&bytes).map_err(|error| {
                    let at = error.valid_up_to();
                    let message = format!("byte {at} is not UTF-8, so this is not a text");
                    in_file(Error::new(ErrorKind::Program, Code::Malformed, message))
                })?;
                Model::from_text_named(name, text)
            }
        }
    }

    fn new(name: &str, source: Source, text: Option<Arc<str>>) -> Model {
        let signature = source.signature();
        Model { inner: Arc::new(Inner { name: name.to_owned(), source, signature, text }) }
    }

    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.inner.signature
    }

    /// The path it came from, or a word in its place.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// What it is made of.
    pub fn contents(&self) -> Contents {
        self.inner.source.contents()
    }

    pub(crate) fn source(&self) -> &Source {
        &self.inner.source
    }

    /// The error, with the model's name and text for messages.
    pub fn blame(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Program | ErrorKind::Unsupported | ErrorKind::DoesNotFit => {
                error.in_file(&self.inner.name, self.inner.text.clone())
            }
            ErrorKind::Input | ErrorKind::File | ErrorKind::Limit => error,
        }
    }
}

fn format_of(name: &str, bytes: &[u8]) -> Result<Format, Error> {
    if bytes.starts_with(MAGIC) {
        let message = "this is a saved program, not a model";
        return Err(Error::new(ErrorKind::Program, Code::Malformed, message)
            .with_help("`systole run` takes it, and `Program::load`"));
    }
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
    match extension {
        Some("onnx") => return Ok(Format::Onnx),
        Some("tir") => return Ok(Format::Text),
        _ => {}
    }
    if bytes.starts_with(b"PK\x03\x04") {
        let message = "this is a zip archive, not a model; bundles of tensors go to --inputs";
        return Err(Error::new(ErrorKind::Program, Code::Malformed, message));
    }
    // A protobuf message has control characters among its first bytes; a text has none but white space.
    const LOOKED_AT: usize = 256;
    let start = &bytes[..bytes.len().min(LOOKED_AT)];
    let is_text = start.iter().all(|&byte| byte >= b' ' || matches!(byte, b'\t' | b'\n' | b'\r'));
    Ok(if is_text && !bytes.is_empty() { Format::Text } else { Format::Onnx })
}

/// The contents of a file that a model refers to. Only plain paths below the model's folder are followed, and links
/// that lead out of it are not.
fn external_data(folder: &Path, relative: &str) -> Result<Bytes, String> {
    let path = Path::new(relative);
    let plain =
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !plain || relative.is_empty() {
        return Err(format!("the path `{relative}` leaves the model's folder"));
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let problem =
        |error: std::io::Error| format!("cannot read {}: {error}", folder.join(path).display());
    let real_folder = folder.canonicalize().map_err(problem)?;
    let real = folder.join(path).canonicalize().map_err(problem)?;
    if !real.starts_with(&real_folder) {
        return Err(format!("the path `{relative}` leads out of the model's folder"));
    }
    crate::mapping::map(&real).map_err(|error| error.to_string())
}
