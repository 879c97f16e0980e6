//! ONNX models. Parsing checks the whole file; binding gives sizes to its symbols and makes a graph.
//!
//! Operators of versions 7 and later of the standard set are rows of tables; functions of the model are put in the
//! place of their calls. Parts of a model that only compute shapes vanish: what is known is computed while binding.

mod attention;
mod bind;
mod blocks;
mod check;
mod context;
mod control;
mod convert;
mod elementwise;
mod features;
mod fold;
mod foreign;
mod index;
mod loss;
mod matrix;
mod microsoft;
mod nn;
mod order;
mod pad;
mod proto;
mod ranges;
mod reduce;
mod rnn;
mod sample;
mod scan;
mod sequence;
mod shape;
mod signal;
mod summary;
mod table;
mod tensors;
#[cfg(test)]
mod tests;
mod vision;

pub use summary::{Operator, Summary};

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::graph::Graph;
use crate::import::{Bindings, Dim, Port, Signature};
use bytes::Bytes;
use prost::Message;
use proto::{ModelProto, OperatorSetIdProto, ValueInfoProto};
use std::collections::BTreeSet;

/// A model as its file has it, checked.
#[derive(Clone, Debug)]
pub struct Source {
    model: ModelProto,
    external: tensors::External,
    signature: Signature,
}

impl Source {
    /// Reads a model. `external` gives the contents of a file that tensors refer to, by the path in the model, which
    /// is relative and stays below the model's folder. Weights stay slices of what is given.
    pub fn parse(
        bytes: Bytes,
        external: &dyn Fn(&str) -> Result<Bytes, String>,
    ) -> Result<Source, Diagnostics> {
        if bytes.is_empty() {
            return Err(Diagnostic::error(Code::Malformed, "the file is empty").into());
        }
        let model = ModelProto::decode(bytes).map_err(|error| {
            let message = format!("the file is not an ONNX model, or truncated: {error}");
            Diagnostics::from(Diagnostic::error(Code::Malformed, message))
        })?;
        let external = check::external(&model, external);
        let diagnostics = check::model(&model, &external);
        let signature = signature(&model);
        diagnostics.into_result(Source { model, external, signature })
    }

    /// What the model takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The graph of the model with these sizes and values. Reports every node that cannot be converted.
    pub fn bind(&self, bindings: &Bindings) -> Result<Graph, Diagnostics> {
        bind::bind(self, bindings).map_err(|failure| failure.diagnostics)
    }

    /// The inputs whose values would have to be in [`Bindings::constants`] for [`Source::bind`] to get further:
    /// shapes or structures depend on them.
    pub fn wanted_constants(&self, bindings: &Bindings) -> BTreeSet<String> {
        bind::bind(self, bindings).map_or_else(|failure| failure.wanted, |_| BTreeSet::new())
    }
}

fn signature(model: &ModelProto) -> Signature {
    let Some(graph) = &model.graph else { return Signature::default() };
    let constant: BTreeSet<&str> = graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.as_str())
        .chain(
            graph
                .sparse_initializer
                .iter()
                .filter_map(|sparse| sparse.values.as_ref().map(|values| values.name.as_str())),
        )
        .collect();
    Signature {
        inputs: graph
            .input
            .iter()
            .filter(|input| !constant.contains(input.name.as_str()))
            .map(port)
            .collect(),
        outputs: graph.output.iter().map(port).collect(),
    }
}

fn port(info: &ValueInfoProto) -> Port {
    let tensor = info.r#type.as_ref().and_then(|ty| ty.tensor_type.as_ref());
    let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| {
        shape
            .dim
            .iter()
            .map(|dim| match (dim.dim_value, &dim.dim_param) {
                (Some(size), _) if size >= 0 => {
                    usize::try_from(size).map_or(Dim::Unknown, Dim::Fixed)
                }
                (_, Some(name)) if !name.is_empty() && name != "?" => Dim::Symbol(name.clone()),
                (_, _) => Dim::Unknown,
            })
            .collect()
    });
    let dtype = tensor.and_then(|tensor| tensors::carrier_of(tensor.elem_type).ok());
    Port { name: info.name.clone(), dtype, dims }
}

/// The version of each operator set, by domain.
fn opsets(imports: &[OperatorSetIdProto]) -> convert::Opsets {
    imports
        .iter()
        .map(|import| (convert::normal_domain(&import.domain).to_owned(), import.version))
        .collect()
}
