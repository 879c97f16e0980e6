//! What a run is given: tensors by name, checked against the signature before anything runs.

use crate::error::{Error, listed};
use crate::signature::{Dim, Port, Signature};
use std::collections::BTreeMap;
use systole_compiler::diagnostic::{Code, Diagnostic};
use systole_compiler::tensor::{Element, Tensor};

/// Named tensors. The [`inputs!`](crate::inputs) macro writes them down.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    entries: Vec<(String, Tensor)>,
}

impl Inputs {
    /// No inputs.
    pub fn new() -> Inputs {
        Inputs::default()
    }

    /// The same with one more. A name that is given twice is an error of the run.
    pub fn with(mut self, name: impl Into<String>, value: impl IntoTensor) -> Inputs {
        self.entries.push((name.into(), value.into_tensor()));
        self
    }

    /// How many were given.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn name(&self, index: usize) -> &str {
        &self.entries[index].0
    }

    pub(crate) fn at(&self, index: usize) -> &Tensor {
        &self.entries[index].1
    }

    /// The names and tensors in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.entries.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}

impl<N: Into<String>, T: IntoTensor> FromIterator<(N, T)> for Inputs {
    fn from_iter<I: IntoIterator<Item = (N, T)>>(entries: I) -> Inputs {
        entries.into_iter().fold(Inputs::new(), |inputs, (name, value)| inputs.with(name, value))
    }
}

/// What can be given as an input: tensors, borrowed tensors (their bytes are shared), and numbers.
pub trait IntoTensor {
    /// The tensor.
    fn into_tensor(self) -> Tensor;
}

impl IntoTensor for Tensor {
    fn into_tensor(self) -> Tensor {
        self
    }
}

impl IntoTensor for &Tensor {
    fn into_tensor(self) -> Tensor {
        self.clone()
    }
}

macro_rules! scalars {
    ($($number:ty)*) => {$(
        impl IntoTensor for $number {
            fn into_tensor(self) -> Tensor {
                Tensor::scalar(self)
            }
        }
    )*};
}
scalars! { i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 }

impl<T: Element, const N: usize> IntoTensor for [T; N] {
    fn into_tensor(self) -> Tensor {
        Tensor::from_slice(&[N], &self)
    }
}

/// Writes down the inputs of a run by name.
///
/// ```
/// use systole::{Tensor, inputs};
/// let x = Tensor::from_slice(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0]);
/// let inputs = inputs! { "x" => x, "scale" => 0.5f32 };
/// assert_eq!(inputs.iter().count(), 2);
/// ```
#[macro_export]
macro_rules! inputs {
    ($($name:expr => $value:expr),* $(,)?) => {
        $crate::Inputs::new()$(.with($name, $value))*
    };
}

/// The inputs in the signature's order, and the sizes that they give to its symbols; or everything that is wrong.
pub(crate) fn check(
    signature: &Signature,
    inputs: &Inputs,
) -> Result<(Vec<Tensor>, BTreeMap<String, usize>), Error> {
    let mut problems = Vec::new();
    let mut given: BTreeMap<&str, &Tensor> = BTreeMap::new();
    for (name, tensor) in inputs.iter() {
        if signature.input(name).is_none() {
            problems.push(unknown(signature, name));
        } else if given.insert(name, tensor).is_some() {
            problems.push(Diagnostic::error(Code::Input, format!("input `{name}` is given twice")));
        }
    }
    let mut sizes = Sizes::default();
    let mut ordered = Vec::new();
    for port in &signature.inputs {
        match given.get(port.name.as_str()) {
            Some(&tensor) => {
                check_port(port, tensor, &mut sizes, &mut problems);
                ordered.push(tensor.clone());
            }
            None => problems.push(Diagnostic::error(
                Code::Input,
                format!("input `{}` is missing; it is {}", port.name, port.type_text()),
            )),
        }
    }
    if problems.is_empty() { Ok((ordered, sizes.by_symbol())) } else { Err(Error::input(problems)) }
}

fn unknown(signature: &Signature, name: &str) -> Diagnostic {
    let names: Vec<&str> = signature.inputs.iter().map(|port| port.name.as_str()).collect();
    let diagnostic = Diagnostic::error(Code::Input, format!("there is no input `{name}`"));
    match nearest(name, &names) {
        Some(near) => diagnostic.with_help(format!("did you mean `{near}`?")),
        None if names.is_empty() => diagnostic.with_help("the model takes no inputs"),
        None => diagnostic.with_help(format!("the inputs are {}", listed(names))),
    }
}

/// The size of each symbol with the dimension that gave it first.
#[derive(Default)]
struct Sizes {
    found: BTreeMap<String, (usize, String)>,
}

impl Sizes {
    fn by_symbol(self) -> BTreeMap<String, usize> {
        self.found.into_iter().map(|(symbol, (size, _))| (symbol, size)).collect()
    }
}

fn check_port(port: &Port, tensor: &Tensor, sizes: &mut Sizes, problems: &mut Vec<Diagnostic>) {
    let name = &port.name;
    let mut problem = |message: String| {
        problems.push(Diagnostic::error(Code::Input, message));
    };
    if let Some(dtype) = port.dtype
        && dtype != tensor.dtype()
    {
        problem(format!("input `{name}` has elements of {}, not {dtype}", tensor.dtype()));
    }
    let Some(dims) = &port.dims else { return };
    let shape = tensor.shape();
    if dims.len() != shape.len() {
        let wanted = port.type_text();
        problem(format!("input `{name}` is {}, which is not of the form {wanted}", tensor.ty()));
        return;
    }
    for (axis, (dim, &size)) in dims.iter().zip(shape).enumerate() {
        match dim {
            Dim::Unknown => {}
            Dim::Fixed(wanted) if *wanted == size => {}
            Dim::Fixed(wanted) => {
                problem(format!("input `{name}` has size {size} at axis {axis}, not {wanted}"));
            }
            Dim::Symbol(symbol) => {
                let here = || (size, format!("axis {axis} of `{name}`"));
                let (first, place) = sizes.found.entry(symbol.clone()).or_insert_with(here);
                if *first != size {
                    problem(format!(
                        "`{symbol}` is {first} at {place}, but {size} at axis {axis} of `{name}`"
                    ));
                }
            }
        }
    }
}

/// The candidate that is spelled most like `name`, where one is close.
pub(crate) fn nearest<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    candidates
        .iter()
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (edits(name, candidate), *candidate))
        .filter(|(edits, candidate)| *edits <= 1 + candidate.len() / 4)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, removed or replaced to make one text the other; case does not count.
fn edits(a: &str, b: &str) -> usize {
    let lower = |text: &str| text.to_lowercase().chars().collect::<Vec<char>>();
    let (a, b) = (lower(a), lower(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_with_fewest_edits() {
        assert_eq!(nearest("inptu", &["output", "input"]), Some("input"));
        assert_eq!(nearest("X", &["x"]), Some("x"));
        assert_eq!(nearest("weights", &["x", "y"]), None);
    }
}
