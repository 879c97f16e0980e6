//! How an input is written on the command line.

use super::failure::Failure;
use std::path::{Path, PathBuf};
use systole::{DType, Dim, Port, Tensor, TensorType, data};
use systole_compiler::tensor::Values;
use systole_compiler::types::Class;

pub(super) const FORMS: &str = "an input is written as @x.npy, @b.npz:x, @x.pb, zeros, random:SEED, random:SEED:LO..HI, \
    or its elements as in '2x2xf32=1 2 3 4' or 'f32=0.5'";

/// An input before its type is known.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Spec {
    File { path: PathBuf, entry: Option<String> },
    Fill(Fill),
    Typed { ty: TensorType, fill: Fill },
}

/// What the elements are.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fill {
    Zeros,
    Random { seed: u64, range: Option<(f64, f64)> },
    Numbers(String),
}

impl Spec {
    /// Reads `@file`, `zeros`, `random:SEED`, `2x2xf32=…`, a list of numbers, or a path.
    pub(super) fn parse(text: &str) -> Result<Spec, Failure> {
        if let Some(path) = text.strip_prefix('@') {
            return Ok(file(path));
        }
        if let Some((shape, elements)) = text.split_once('=')
            && let Some(ty) = parse_type(shape)
        {
            if ty.checked_count().is_none() {
                return Err(Failure::usage(format!("{ty} is larger than any memory")));
            }
            let fill = match parse_fill(elements)? {
                Some(fill) => fill,
                None => Fill::Numbers(elements.to_owned()),
            };
            return Ok(Spec::Typed { ty, fill });
        }
        if let Some(fill) = parse_fill(text)? {
            return Ok(Spec::Fill(fill));
        }
        let is_file =
            [".npy", ".npz", ".pb"].iter().any(|end| text.ends_with(end)) || text.contains(".npz:");
        if is_file || Path::new(text).is_file() {
            return Ok(file(text));
        }
        if numbers(text).next().is_some_and(|first| first.parse::<f64>().is_ok()) {
            return Ok(Spec::Fill(Fill::Numbers(text.to_owned())));
        }
        Err(Failure::usage_with_help(format!("cannot read the input `{text}`"), FORMS))
    }

    /// Whether the tensor is known without the model's help, so that its sizes can bind those of other inputs.
    pub(super) fn is_sized(&self) -> bool {
        match self {
            Spec::File { .. } | Spec::Typed { .. } => true,
            Spec::Fill(_) => false,
        }
    }

    /// The tensor for that input. `size_of` knows the sizes of symbols.
    pub(super) fn tensor(
        &self,
        port: &Port,
        size_of: &dyn Fn(&str) -> Option<usize>,
    ) -> Result<Tensor, Failure> {
        match self {
            Spec::File { path, entry } => {
                Ok(data::read(path, entry.as_deref())?.into_tensor(port.dtype)?)
            }
            Spec::Typed { ty, fill } => filled(&port.name, ty, fill),
            Spec::Fill(fill) => filled(&port.name, &resolved(port, size_of)?, fill),
        }
    }
}

/// A path, with the entry of a bundle after a colon.
fn file(text: &str) -> Spec {
    match text.find(".npz:") {
        Some(at) => {
            let (path, entry) = (&text[..at + 4], &text[at + 5..]);
            Spec::File { path: path.into(), entry: Some(entry.to_owned()) }
        }
        None => Spec::File { path: text.into(), entry: None },
    }
}

/// `2x2xf32`, or `f32` for a scalar.
fn parse_type(text: &str) -> Option<TensorType> {
    let mut parts: Vec<&str> = text.split('x').collect();
    let dtype = DType::from_name(parts.pop()?)?;
    let shape: Option<Vec<usize>> = parts.into_iter().map(|size| size.parse().ok()).collect();
    Some(TensorType::new(dtype, &shape?))
}

fn parse_fill(text: &str) -> Result<Option<Fill>, Failure> {
    if text == "zeros" {
        return Ok(Some(Fill::Zeros));
    }
    let Some(rest) = text.strip_prefix("random") else { return Ok(None) };
    if rest.is_empty() {
        return Ok(Some(Fill::Random { seed: 0, range: None }));
    }
    let Some(rest) = rest.strip_prefix(':') else { return Ok(None) };
    let problem = || {
        let message = format!("`{text}` is not random:SEED or random:SEED:LO..HI");
        Failure::usage(message)
    };
    let (seed, range) = match rest.split_once(':') {
        Some((seed, range)) => (seed, Some(parse_range(range).ok_or_else(problem)?)),
        None => (rest, None),
    };
    Ok(Some(Fill::Random { seed: seed.parse().map_err(|_| problem())?, range }))
}

fn parse_range(text: &str) -> Option<(f64, f64)> {
    let (low, high) = text.split_once("..")?;
    let (low, high): (f64, f64) = (low.parse().ok()?, high.parse().ok()?);
    (low.is_finite() && high.is_finite() && low <= high).then_some((low, high))
}

fn resolved(port: &Port, size_of: &dyn Fn(&str) -> Option<usize>) -> Result<TensorType, Failure> {
    let name = &port.name;
    let whole = |what: &str| {
        Failure::usage_with_help(
            format!("the {what} of input `{name}` is not known"),
            format!("write its type too, as in --input '{name}=2x3xf32=zeros'"),
        )
    };
    let dtype = port.dtype.ok_or_else(|| whole("element type"))?;
    let mut shape = Vec::new();
    for (axis, dim) in port.dims.as_ref().ok_or_else(|| whole("shape"))?.iter().enumerate() {
        let (size, key) = match dim {
            Dim::Fixed(size) => (Some(*size), String::new()),
            Dim::Symbol(symbol) => (size_of(symbol), symbol.clone()),
            Dim::Unknown => (None, format!("{name}.{axis}")),
        };
        shape.push(size.ok_or_else(|| {
            Failure::usage_with_help(
                format!("the size `{key}` of input {port} is not known"),
                format!("bind it, as in --dim {key}=1"),
            )
        })?);
    }
    let ty = TensorType::new(dtype, &shape);
    match ty.checked_count() {
        Some(_) => Ok(ty),
        None => {
            Err(Failure::usage(format!("input `{name}` would be {ty}, larger than any memory")))
        }
    }
}

fn filled(name: &str, ty: &TensorType, fill: &Fill) -> Result<Tensor, Failure> {
    match fill {
        Fill::Zeros => Ok(Tensor::zeros(ty.clone())),
        Fill::Random { seed, range } => Ok(data::random(ty, *seed, *range)),
        Fill::Numbers(text) => parse_numbers(ty, text)
            .map_err(|message| Failure::usage(format!("input `{name}`: {message}"))),
    }
}

fn numbers(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty())
}

fn parse_numbers(ty: &TensorType, text: &str) -> Result<Tensor, String> {
    let given = numbers(text).count();
    if given != ty.count() {
        return Err(format!("{ty} has {} elements, but {given} are given", ty.count()));
    }
    let dtype = ty.dtype;
    let values = match dtype.class() {
        Class::Bool => Values::Bool(collect(text, |word| match word {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })?),
        Class::Signed => {
            let limit = 1i128 << (dtype.bits() - 1);
            let fits = |number: &i128| (-limit..limit).contains(number);
            let parse = |word: &str| word.parse().ok().filter(fits).map(|number| number as i64);
            Values::Int(collect(text, parse)?)
        }
        Class::Unsigned => {
            let limit = 1i128 << dtype.bits();
            let fits = |number: &i128| (0..limit).contains(number);
            let parse = |word: &str| word.parse().ok().filter(fits).map(|number| number as u64);
            Values::Uint(collect(text, parse)?)
        }
        Class::Float => Values::F64(collect(text, |word| word.parse().ok())?),
    };
    Ok(Tensor::from_values(dtype, &ty.shape, &values))
}

fn collect<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    numbers(text)
        .map(|word| parse(word).ok_or_else(|| format!("`{word}` is not such an element")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Tensor {
        let port = Port { name: "x".to_owned(), dtype: None, dims: None };
        Spec::parse(text).expect("a spec").tensor(&port, &|_| None).expect("a tensor")
    }

    #[test]
    fn elements_are_written_after_their_type() {
        assert_eq!(typed("2x2xf32=1 2 3 4"), Tensor::from_slice(&[2, 2], &[1f32, 2.0, 3.0, 4.0]));
        assert_eq!(typed("i64=-5"), Tensor::scalar(-5i64));
        assert_eq!(typed("3xu8=1,2,255"), Tensor::from_slice(&[3], &[1u8, 2, 255]));
        assert_eq!(typed("0xf32="), Tensor::from_slice::<f32>(&[0], &[]));
        assert_eq!(typed("2xf32=zeros"), Tensor::from_slice(&[2], &[0f32, 0.0]));
    }

    #[test]
    fn files_are_named_with_and_without_the_sign() {
        let bundle = Spec::File { path: "a/b.npz".into(), entry: Some("x:0".to_owned()) };
        assert_eq!(Spec::parse("@a/b.npz:x:0").expect("a spec"), bundle);
        assert_eq!(Spec::parse("a/b.npz:x:0").expect("a spec"), bundle);
        let array = Spec::File { path: "x.npy".into(), entry: None };
        assert_eq!(Spec::parse("x.npy").expect("a spec"), array);
    }

    #[test]
    fn elements_out_of_range_are_refused() {
        for text in ["u8=256", "u8=-1", "i8=128", "bool=2", "2xf32=1", "f32=x"] {
            let port = Port { name: "x".to_owned(), dtype: None, dims: None };
            let spec = Spec::parse(text).expect("a spec");
            assert!(spec.tensor(&port, &|_| None).is_err(), "{text}");
        }
    }
}
