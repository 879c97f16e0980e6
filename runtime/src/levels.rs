//! From a source to a graph: what the formats have in common.

use crate::error::{Error, ErrorKind, listed};
use crate::signature::{Dim, Port, Signature};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use systole_compiler::diagnostic::Code;
use systole_compiler::graph::{Function, Graph};
use systole_compiler::import::{self, onnx};
use systole_compiler::tensor::Tensor;
use systole_compiler::text;
use systole_compiler::types::TensorType;
use systole_compiler::verify;

/// A model as it came.
#[derive(Debug)]
pub(crate) enum Source {
    Onnx(onnx::Source),
    Graph(Graph),
}

/// What is known of a model's inputs when it is compiled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Sizes of symbols, and of unnamed dimensions as `INPUT.AXIS`.
    pub(crate) dims: BTreeMap<String, usize>,
    /// Types of inputs.
    pub(crate) types: BTreeMap<String, TensorType>,
    /// Values of inputs.
    pub(crate) values: BTreeMap<String, Tensor>,
}

/// A graph, and the inputs whose values it was made for, which it no longer takes.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) graph: Graph,
    pub(crate) constants: BTreeSet<String>,
}

/// What a model is made of, before it is compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// `onnx` or `text`.
    pub format: &'static str,
    /// The program that wrote it, where it says so.
    pub producer: String,
    /// The versions of its operator sets, by domain.
    pub opsets: Vec<(String, i64)>,
    /// How many tensors come with it.
    pub weights: usize,
    /// Its operators, in order of their names.
    pub operators: Vec<Operator>,
}

/// An operator, and how many nodes are of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its name.
    pub name: String,
    /// How many nodes are of it.
    pub count: usize,
    /// Whether there is a meaning for it here.
    pub known: bool,
}

pub(crate) fn parse_onnx(
    bytes: Bytes,
    external: &dyn Fn(&str) -> Result<Bytes, String>,
) -> Result<Source, Error> {
    Ok(Source::Onnx(onnx::Source::parse(bytes, external)?))
}

pub(crate) fn parse_text(source: &str) -> Result<Source, Error> {
    if let Some(level @ ("kernel" | "module")) = first_word(source) {
        let message = format!("this is the text of a {level}, and only graphs can be compiled");
        return Err(Error::unsupported(message).with_help("`systole opt` reads every level"));
    }
    // What never says `func` is something else, and a list of its syntax errors would help nobody.
    if first_word(source).is_some_and(|word| word.is_empty() || !source.contains("func")) {
        let message = "this is neither an ONNX model nor a graph in Systole's text";
        let error = Error::new(ErrorKind::Program, Code::Malformed, message);
        return Err(
            error.with_help("a graph starts with `func @main(...)`; `systole explain syntax`")
        );
    }
    let graph = text::parse_graph(source)?;
    verify::graph(&graph)?;
    Ok(Source::Graph(graph))
}

/// The first word of a text, behind its comments: it tells the level.
pub fn first_word(source: &str) -> Option<&str> {
    let lines = source.lines().map(str::trim_start);
    let line = lines.into_iter().find(|line| !line.is_empty() && !line.starts_with("//"))?;
    line.split(|c: char| !c.is_ascii_alphanumeric()).next()
}

impl Source {
    pub(crate) fn signature(&self) -> Signature {
        match self {
            Source::Onnx(source) => of_import(source.signature()),
            Source::Graph(graph) => of_function(graph.entry()),
        }
    }

    pub(crate) fn contents(&self) -> Contents {
        match self {
            Source::Onnx(source) => {
                let summary = source.summary();
                let operators = summary.operators.into_iter();
                Contents {
                    format: "onnx",
                    producer: summary.producer,
                    opsets: summary.opsets,
                    weights: summary.weights,
                    operators: operators
                        .map(|onnx::Operator { name, count, known }| Operator {
                            name,
                            count,
                            known,
                        })
                        .collect(),
                }
            }
            Source::Graph(graph) => contents_of_graph(graph),
        }
    }

    /// The names that a size may be bound to.
    fn bindable(&self) -> Vec<String> {
        let signature = self.signature();
        let mut names: Vec<String> = signature.symbols().into_iter().map(str::to_owned).collect();
        for port in &signature.inputs {
            for (axis, dim) in port.dims.iter().flatten().enumerate() {
                if *dim == Dim::Unknown {
                    names.push(format!("{}.{axis}", port.name));
                }
            }
        }
        names
    }

    /// Refuses sizes of symbols that the model does not have.
    pub(crate) fn check_dims(&self, dims: &BTreeMap<String, usize>) -> Result<(), Error> {
        let known = self.bindable();
        let Some(name) = dims.keys().find(|name| !known.contains(name)) else { return Ok(()) };
        let message = format!("the model has no symbolic size `{name}`");
        let error = Error::new(ErrorKind::Input, Code::UnboundDimension, message);
        Err(match known.as_slice() {
            [] => error.with_help("all sizes of its inputs are fixed"),
            names => {
                error.with_help(format!("it has {}", listed(names.iter().map(String::as_str))))
            }
        })
    }

    /// The graph for what is known. `wanted` names the inputs whose values were needed before and grows by those that
    /// are needed now; where such a value is not known, the importer's own message says so.
    pub(crate) fn bind(
        &self,
        known: &Known,
        wanted: &mut BTreeSet<String>,
    ) -> Result<Bound, Error> {
        let source = match self {
            Source::Graph(graph) => {
                return Ok(Bound { graph: graph.clone(), constants: BTreeSet::new() });
            }
            Source::Onnx(source) => source,
        };
        loop {
            let constants: BTreeMap<String, Tensor> = known
                .values
                .iter()
                .filter(|(name, _)| wanted.contains(*name))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            let names: BTreeSet<String> = constants.keys().cloned().collect();
            let bindings = import::Bindings {
                dims: known.dims.clone(),
                inputs: known.types.clone(),
                constants,
            };
            let problems = match source.bind(&bindings) {
                Ok(graph) => {
                    verify::graph(&graph)?;
                    return Ok(Bound { graph, constants: names });
                }
                Err(problems) => problems,
            };
            let before = wanted.len();
            wanted.extend(source.wanted_constants(&bindings));
            let has_more =
                wanted.iter().any(|name| !names.contains(name) && known.values.contains_key(name));
            if wanted.len() == before || !has_more {
                return Err(problems.into());
            }
        }
    }
}

fn contents_of_graph(graph: &Graph) -> Contents {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for function in graph.functions.values() {
        function.visit(&function.body, &mut |node| {
            *counts.entry(function.nodes[node].op.name()).or_default() += 1;
        });
    }
    let operators = counts
        .into_iter()
        .map(|(name, count)| Operator { name: name.to_owned(), count, known: true })
        .collect::<Vec<_>>();
    let weights = operators.iter().find(|op| op.name == "constant").map_or(0, |op| op.count);
    Contents { format: "text", producer: String::new(), opsets: Vec::new(), weights, operators }
}

fn of_import(signature: &import::Signature) -> Signature {
    let port = |port: &import::Port| Port {
        name: port.name.clone(),
        dtype: port.dtype,
        dims: port.dims.as_ref().map(|dims| dims.iter().map(dim).collect()),
    };
    Signature {
        inputs: signature.inputs.iter().map(port).collect(),
        outputs: signature.outputs.iter().map(port).collect(),
        state: Vec::new(),
    }
}

fn dim(dim: &import::Dim) -> Dim {
    match dim {
        import::Dim::Fixed(size) => Dim::Fixed(*size),
        import::Dim::Symbol(name) => Dim::Symbol(name.clone()),
        import::Dim::Unknown => Dim::Unknown,
    }
}

/// The signature of a graph's entry. Parameters without a name are called by their position.
pub(crate) fn of_function(function: &Function) -> Signature {
    let named =
        |index: usize, name: &Option<String>| name.clone().unwrap_or_else(|| index.to_string());
    let inputs = function.body.params.iter().enumerate().map(|(index, &value)| {
        let value = &function.values[value];
        Port::fixed(&named(index, &value.name), &value.ty)
    });
    let outputs = function
        .body
        .results
        .iter()
        .zip(&function.result_names)
        .map(|(&value, name)| Port::fixed(name, function.ty(value)));
    Signature {
        inputs: inputs.collect(),
        outputs: outputs.collect(),
        state: function.state.clone(),
    }
}
