//! Tensors in text. Four forms, each read against a type that is written beside it:
//!
//! - `[[1.0, 2.0], [3.0, 4.0]]`, or a number alone for a tensor without dimensions;
//! - `splat(0.0)`: the same everywhere;
//! - `hex("0000803f")`: the bytes as they lie in memory, for large tensors and for elements that no number stands for;
//! - `elided("9c3e…")`: only the hash of the content. It is printed where a reader has no use for the data, and
//!   reading it is an error.

use crate::diagnostic::{Code, Diagnostic};
use crate::narrow;
use crate::tensor::{Tensor, Values, shape_text};
use crate::text::ast::Value;
use crate::text::lexer::Float;
use crate::types::{Class, DType, TensorType};
use bytes::Bytes;
use std::fmt::{self, Write};

/// Up to that many elements are always written one by one.
const MAX_SHOWN: usize = 16;

/// Up to that many are where nothing is elided; above, hexadecimal digits are shorter.
const MAX_LISTED: usize = 256;

/// How many bytes all splats of a text may take. Other forms take no more than their text.
pub(crate) const SPLAT_BYTES: usize = 1 << 30;

/// Whether large tensors are written in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// They are.
    Full,
    /// They are written as a hash.
    Elided,
}

/// Writes a tensor.
pub(crate) fn write(out: &mut impl Write, tensor: &Tensor, data: Data) -> fmt::Result {
    let count = tensor.count();
    let listed = if data == Data::Full { MAX_LISTED } else { MAX_SHOWN };
    if count > MAX_SHOWN {
        let element = tensor.dtype().bytes();
        let (first, rest) = tensor.bytes().split_at(element);
        if rest.chunks_exact(element).all(|other| other == first)
            && let Some(text) = element_text(tensor.dtype(), first)
        {
            return write!(out, "splat({text})");
        }
    }
    if (1..=listed).contains(&count) {
        let element = tensor.dtype().bytes();
        let texts: Option<Vec<String>> = tensor
            .bytes()
            .chunks_exact(element)
            .map(|bytes| element_text(tensor.dtype(), bytes))
            .collect();
        if let Some(texts) = texts {
            return write_nested(out, tensor.shape(), &mut texts.iter());
        }
    }
    if data == Data::Full || count <= MAX_SHOWN {
        out.write_str("hex(\"")?;
        for byte in tensor.bytes() {
            for digit in [byte >> 4, byte & 15] {
                out.write_char(
                    char::from_digit(u32::from(digit), 16).expect("a digit is below 16"),
                )?;
            }
        }
        return out.write_str("\")");
    }
    write!(out, "elided(\"{:016x}\")", content_hash(tensor))
}

fn write_nested<'a>(
    out: &mut impl Write,
    shape: &[usize],
    texts: &mut impl Iterator<Item = &'a String>,
) -> fmt::Result {
    let Some((&size, inner)) = shape.split_first() else {
        return out.write_str(texts.next().expect("as many texts as elements"));
    };
    out.write_char('[')?;
    for index in 0..size {
        if index > 0 {
            out.write_str(", ")?;
        }
        write_nested(out, inner, texts)?;
    }
    out.write_char(']')
}

/// A number or word that reads back as the same bytes, where there is one.
fn element_text(dtype: DType, bytes: &[u8]) -> Option<String> {
    let values = narrow::decode(dtype, bytes);
    let text = match &values {
        Values::Bool(values) => values[0].to_string(),
        Values::Int(values) => values[0].to_string(),
        Values::Uint(values) => values[0].to_string(),
        Values::F64(values) => Float(values[0]).to_string(),
        Values::F32(values) => {
            let value = values[0];
            let short = if value.is_finite() {
                format!("{value:?}")
            } else {
                Float(f64::from(value)).to_string()
            };
            // Reading goes through f64, which in rare cases rounds the shortest f32 digits to a neighbour.
            let read = short.parse::<f64>().map(|read| read as f32);
            if read == Ok(value) || !value.is_finite() {
                short
            } else {
                Float(f64::from(value)).to_string()
            }
        }
    };
    // Not every pattern of bits is a number's: NaN has payloads, and bool and 4-bit types have spare bits.
    let wide = |value: f64| Values::F64(vec![if value.is_nan() { f64::NAN } else { value }]);
    let read = match values {
        Values::F32(values) => wide(f64::from(values[0])),
        Values::F64(values) => wide(values[0]),
        values @ (Values::Bool(_) | Values::Int(_) | Values::Uint(_)) => values,
    };
    (narrow::encode(dtype, &read) == bytes).then_some(text)
}

/// A hash of type and bytes that is the same on every machine: FNV-1a over words of eight bytes.
pub fn content_hash(tensor: &Tensor) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |word: u64| hash = (hash ^ word).wrapping_mul(PRIME).rotate_left(23);
    tensor.ty().to_string().bytes().for_each(|byte| add(u64::from(byte)));
    let mut chunks = tensor.bytes().chunks_exact(8);
    for chunk in &mut chunks {
        add(u64::from_le_bytes(chunk.try_into().expect("chunks are exact")));
    }
    chunks.remainder().iter().for_each(|&byte| add(u64::from(byte)));
    // The last rotation leaves high bits unmixed; one round more spreads them.
    hash ^= hash >> 29;
    hash.wrapping_mul(PRIME)
}

/// Reads a tensor of that type, whose size has been checked. `budget` is what splats may still take.
pub(crate) fn read(
    value: &Value<'_>,
    ty: &TensorType,
    budget: &mut usize,
) -> Result<Tensor, Diagnostic> {
    match value {
        Value::Call("splat", element) => {
            let bytes = ty.bytes();
            if bytes > *budget {
                let message = format!(
                    "splats of this text take more than {SPLAT_BYTES} bytes with this {ty} of {bytes}"
                );
                return Err(Diagnostic::error(Code::TooLarge, message)
                    .with_help("use a parameter, or broadcast a scalar"));
            }
            *budget -= bytes;
            let mut values = Elements::new(ty.dtype, 1);
            values.push(element)?;
            let element = narrow::encode(ty.dtype, &values.0);
            Ok(Tensor::new(ty.clone(), Bytes::from(element.repeat(ty.count())))
                .expect("count times its bytes"))
        }
        Value::Call("hex", digits) => {
            let bytes = match &**digits {
                Value::Text(digits) => hex_bytes(digits),
                Value::Int(_)
                | Value::Float(_)
                | Value::Word(_)
                | Value::List(_)
                | Value::Type(_)
                | Value::Call(..) => None,
            };
            let bytes = bytes.ok_or_else(|| {
                error("hex takes a text of pairs of hexadecimal digits".to_owned())
            })?;
            let found = bytes.len();
            Tensor::new(ty.clone(), Bytes::from(bytes))
                .ok_or_else(|| error(format!("{ty} has {} bytes, not {found}", ty.bytes())))
        }
        Value::Call("elided", _) => Err(Diagnostic::error(
            Code::MissingData,
            "the data of this constant was left out when it was printed",
        )
        .with_help("print the graph in full, or make it a parameter")),
        Value::Int(_)
        | Value::Float(_)
        | Value::Word(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Type(_)
        | Value::Call(..) => {
            // The list cannot be longer than the text that holds it; the type could be.
            let mut values = Elements::new(ty.dtype, 0);
            collect(value, &ty.shape, ty, &mut values)?;
            Ok(Tensor::from_values(ty.dtype, &ty.shape, &values.0))
        }
    }
}

fn error(message: String) -> Diagnostic {
    Diagnostic::error(Code::Attribute, message)
}

fn collect(
    value: &Value<'_>,
    shape: &[usize],
    ty: &TensorType,
    values: &mut Elements,
) -> Result<(), Diagnostic> {
    let Some((&size, inner)) = shape.split_first() else { return values.push(value) };
    let Value::List(items) = value else {
        let message = format!(
            "a value of {ty} has lists of shape {} here, not a single value",
            shape_text(shape)
        );
        return Err(error(message).with_help("`splat(0.0)` is the same value everywhere"));
    };
    if items.len() != size {
        return Err(error(format!("a value of {ty} has {size} items here, not {}", items.len())));
    }
    items.iter().try_for_each(|item| collect(item, inner, ty, values))
}

/// Elements in the widest arithmetic of their class.
struct Elements(Values, DType);

impl Elements {
    fn new(dtype: DType, capacity: usize) -> Elements {
        let values = match dtype.class() {
            Class::Bool => Values::Bool(Vec::with_capacity(capacity)),
            Class::Signed => Values::Int(Vec::with_capacity(capacity)),
            Class::Unsigned => Values::Uint(Vec::with_capacity(capacity)),
            Class::Float => Values::F64(Vec::with_capacity(capacity)),
        };
        Elements(values, dtype)
    }

    fn push(&mut self, value: &Value<'_>) -> Result<(), Diagnostic> {
        let dtype = self.1;
        let bits = dtype.bits();
        match (&mut self.0, value) {
            (Values::Bool(values), Value::Word(word @ ("true" | "false"))) => {
                values.push(*word == "true")
            }
            (Values::Int(values), Value::Int(value)) => {
                let (low, high) = (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1);
                if !(low..=high).contains(value) {
                    return Err(error(format!(
                        "{value} is not a value of {dtype} ({low} to {high})"
                    )));
                }
                values.push(*value as i64);
            }
            (Values::Uint(values), Value::Int(value)) => {
                let high = (1i128 << bits) - 1;
                if !(0..=high).contains(value) {
                    return Err(error(format!("{value} is not a value of {dtype} (0 to {high})")));
                }
                values.push(*value as u64);
            }
            (Values::F64(values), value) if let Some(number) = number(value) => values.push(number),
            (
                Values::Bool(_)
                | Values::Int(_)
                | Values::Uint(_)
                | Values::F32(_)
                | Values::F64(_),
                _,
            ) => {
                return Err(error(format!("this is not a value of {dtype}")));
            }
        }
        Ok(())
    }
}

/// The number that a value is, where it is one.
pub(super) fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Int(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        Value::Word("inf") => Some(f64::INFINITY),
        Value::Word("nan") => Some(f64::NAN),
        Value::Call("-", word) => {
            number(word).map(|number| if number.is_nan() { number } else { -number })
        }
        Value::Word(_) | Value::Text(_) | Value::List(_) | Value::Type(_) | Value::Call(..) => None,
    }
}

fn hex_bytes(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}
