//! Models come in: bytes in some format become a graph. A source keeps its symbolic sizes until they are bound.

pub mod llm;
pub mod onnx;

use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use std::collections::BTreeMap;
use std::fmt;

/// What a model takes and gives, before its sizes are bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    /// What must be given at each run.
    pub inputs: Vec<Port>,
    /// What a run gives.
    pub outputs: Vec<Port>,
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, where the model says it and it is one of ours.
    pub dtype: Option<DType>,
    /// Its dimensions, where the model says how many there are.
    pub dims: Option<Vec<Dim>>,
}

/// The size of one dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Fixed(usize),
    /// A name, which means one size wherever it stands.
    Symbol(String),
    /// Not said. It is bound as `INPUT.AXIS`, or by the input's type.
    Unknown,
}

/// What is known about a model's inputs when a graph is made of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bindings {
    /// Sizes of named dimensions, and of unnamed ones as `INPUT.AXIS`.
    pub dims: BTreeMap<String, usize>,
    /// Types of inputs; their sizes bind the symbols in the model's own types.
    pub inputs: BTreeMap<String, TensorType>,
    /// Values of inputs, which become constants of the graph and stop being parameters.
    pub constants: BTreeMap<String, Tensor>,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = self.dtype.map_or("?", DType::name);
        write!(f, "{}: {dtype}", self.name)?;
        match &self.dims {
            None => f.write_str("[…]"),
            Some(dims) => {
                let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
                write!(f, "[{}]", dims.join(", "))
            }
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(size) => size.fmt(f),
            Dim::Symbol(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}
