//! What a model takes and gives, by name.

use std::fmt;
use systole_compiler::types::{DType, TensorType};

/// The inputs and outputs of a model, in its order. Prints as `(x: f32[batch, 784]) -> (y: f32[batch, 10])`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// Inputs that hold what an output left there in the run before, by position of input and output.
    pub state: Vec<(usize, usize)>,
}

/// One input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Its element type, where the model says it.
    pub dtype: Option<DType>,
    /// Its dimensions, where the model says them.
    pub dims: Option<Vec<Dim>>,
}

/// The size of one dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Known.
    Fixed(usize),
    /// Bound by [`crate::Compiler::bind`] or by the inputs of a run; equal symbols are equal sizes.
    Symbol(String),
    /// Not said.
    Unknown,
}

impl Port {
    /// The port of exactly that type.
    pub fn fixed(name: &str, ty: &TensorType) -> Port {
        let dims = ty.shape.iter().map(|&size| Dim::Fixed(size)).collect();
        Port { name: name.to_owned(), dtype: Some(ty.dtype), dims: Some(dims) }
    }

    /// The type, where everything about it is known.
    pub fn ty(&self) -> Option<TensorType> {
        let mut shape = Vec::new();
        for dim in self.dims.as_ref()? {
            match dim {
                Dim::Fixed(size) => shape.push(*size),
                Dim::Symbol(_) | Dim::Unknown => return None,
            }
        }
        Some(TensorType::new(self.dtype?, &shape))
    }

    /// How the type is written: `f32[batch, 784]`, with `?` for what is not known.
    pub fn type_text(&self) -> String {
        let dtype = self.dtype.map_or("?", DType::name);
        match &self.dims {
            Some(dims) => {
                let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
                format!("{dtype}[{}]", dims.join(", "))
            }
            None => format!("{dtype}[..]"),
        }
    }
}

impl Signature {
    /// The symbols of the inputs, each once, in order.
    pub fn symbols(&self) -> Vec<&str> {
        let mut symbols = Vec::new();
        for dim in self.inputs.iter().flat_map(|port| port.dims.iter().flatten()) {
            if let Dim::Symbol(name) = dim
                && !symbols.contains(&name.as_str())
            {
                symbols.push(name.as_str());
            }
        }
        symbols
    }

    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<&Port> {
        self.inputs.iter().find(|port| port.name == name)
    }

    /// The same with symbols replaced where `size_of` knows them.
    pub(crate) fn bound(&self, size_of: &dyn Fn(&str) -> Option<usize>) -> Signature {
        let bind = |port: &Port| {
            let mut port = port.clone();
            for dim in port.dims.iter_mut().flatten() {
                if let Dim::Symbol(name) = dim
                    && let Some(size) = size_of(name)
                {
                    *dim = Dim::Fixed(size);
                }
            }
            port
        };
        Signature {
            inputs: self.inputs.iter().map(bind).collect(),
            outputs: self.outputs.iter().map(bind).collect(),
            state: self.state.clone(),
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

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.type_text())
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list =
            |ports: &[Port]| ports.iter().map(Port::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "({}) -> ({})", list(&self.inputs), list(&self.outputs))
    }
}
