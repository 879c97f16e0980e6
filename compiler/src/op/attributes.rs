//! Attributes: generic in text, typed fields in Rust. The reader collects every missing, unknown and ill-typed key.

use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::kernel::Combine;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// A value in `{key = value}`.
#[derive(Clone, Debug, PartialEq)]
pub enum AttrValue {
    /// `-3`
    Int(i64),
    /// `0.5`, `inf`, `nan`
    Float(f64),
    /// `true`
    Bool(bool),
    /// `sum`
    Word(String),
    /// `"a b"`
    Text(String),
    /// `[1, 2]`
    List(Vec<AttrValue>),
    /// `f32[2, 3]`
    Type(TensorType),
    /// A tensor's value.
    Tensor(Tensor),
}

/// A key with its value and place.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// The key.
    pub key: String,
    /// The value.
    pub value: AttrValue,
    /// Where both stand.
    pub span: Span,
}

/// Reads attributes by key and collects what is wrong.
#[derive(Debug)]
pub struct AttrReader<'a> {
    attributes: &'a [Attribute],
    used: Vec<bool>,
    place: Span,
    /// What was wrong so far.
    pub diagnostics: Diagnostics,
    /// The types that the text gives for the results, where it does (constants and parameters need them).
    pub result_types: Vec<TensorType>,
}

impl<'a> AttrReader<'a> {
    /// A reader of those attributes of the op at `place`.
    pub fn new(attributes: &'a [Attribute], place: Span) -> AttrReader<'a> {
        let used = vec![false; attributes.len()];
        AttrReader {
            attributes,
            used,
            place,
            diagnostics: Diagnostics::default(),
            result_types: Vec::new(),
        }
    }

    /// Reports the keys that nobody asked for.
    pub fn finish(mut self) -> Diagnostics {
        for (attribute, used) in self.attributes.iter().zip(&self.used) {
            if !used {
                let message = format!("unknown attribute {}", attribute.key);
                self.diagnostics
                    .push(Diagnostic::error(Code::Attribute, message).at(attribute.span));
            }
        }
        self.diagnostics
    }

    /// The value of a key that may be left out.
    pub fn optional<T: FromAttr>(&mut self, key: &str) -> Option<T> {
        let index = self.attributes.iter().position(|attribute| attribute.key == key)?;
        self.used[index] = true;
        let attribute = &self.attributes[index];
        let value = T::from_attr(&attribute.value);
        if value.is_none() {
            let message = format!("attribute {key} is not {}", T::WHAT);
            self.diagnostics.push(Diagnostic::error(Code::Attribute, message).at(attribute.span));
        }
        value
    }

    /// The value of a key that must be there.
    pub fn required<T: FromAttr>(&mut self, key: &str) -> Option<T> {
        if !self.attributes.iter().any(|attribute| attribute.key == key) {
            let message = format!("attribute {key} ({}) is missing", T::WHAT);
            self.diagnostics.push(Diagnostic::error(Code::Attribute, message).at(self.place));
        }
        self.optional(key)
    }
}

/// A Rust type that an attribute can hold.
pub trait FromAttr: Sized {
    /// What it is called in messages: "an integer".
    const WHAT: &'static str;
    /// Reads it.
    fn from_attr(value: &AttrValue) -> Option<Self>;
}

macro_rules! from_attr {
    ($($rust:ty, $what:literal: $pattern:pat => $value:expr;)*) => {
        $(impl FromAttr for $rust {
            const WHAT: &'static str = $what;
            fn from_attr(value: &AttrValue) -> Option<Self> {
                match value { $pattern => $value, _ => None }
            }
        })*
    };
}

from_attr! {
    i64, "an integer": AttrValue::Int(value) => Some(*value);
    usize, "a non-negative integer": AttrValue::Int(value) => usize::try_from(*value).ok();
    bool, "true or false": AttrValue::Bool(value) => Some(*value);
    String, "a name": AttrValue::Word(value) | AttrValue::Text(value) => Some(value.clone());
    DType, "an element type": AttrValue::Word(value) => DType::from_name(value);
    Combine, "one of sum, product, min, max, and, or": AttrValue::Word(value) => Combine::from_name(value);
    TensorType, "a tensor type": AttrValue::Type(value) => Some(value.clone());
    Tensor, "a tensor": AttrValue::Tensor(value) => Some(value.clone());
}

impl FromAttr for f64 {
    const WHAT: &'static str = "a number";
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::Float(value) => Some(*value),
            AttrValue::Int(value) => Some(*value as f64),
            AttrValue::Bool(_)
            | AttrValue::Word(_)
            | AttrValue::Text(_)
            | AttrValue::List(_)
            | AttrValue::Type(_)
            | AttrValue::Tensor(_) => None,
        }
    }
}

impl<T: FromAttr> FromAttr for Vec<T> {
    const WHAT: &'static str = "a list";
    fn from_attr(value: &AttrValue) -> Option<Self> {
        match value {
            AttrValue::List(items) => items.iter().map(T::from_attr).collect(),
            AttrValue::Int(_)
            | AttrValue::Float(_)
            | AttrValue::Bool(_)
            | AttrValue::Word(_)
            | AttrValue::Text(_)
            | AttrValue::Type(_)
            | AttrValue::Tensor(_) => None,
        }
    }
}

/// Writes attributes in the order in which an op gives them.
#[derive(Debug, Default)]
pub struct AttrWriter {
    /// What was written.
    pub attributes: Vec<(&'static str, AttrValue)>,
}

impl AttrWriter {
    /// Writes a key.
    pub fn put(&mut self, key: &'static str, value: impl Into<AttrValue>) {
        self.attributes.push((key, value.into()));
    }

    /// Writes a key unless its value is the default.
    pub fn put_unless<T: Into<AttrValue> + PartialEq>(
        &mut self,
        key: &'static str,
        value: T,
        default: &T,
    ) {
        if value != *default {
            self.put(key, value);
        }
    }
}

macro_rules! into_attr {
    ($($rust:ty: |$value:ident| $attr:expr;)*) => {
        $(impl From<$rust> for AttrValue { fn from($value: $rust) -> AttrValue { $attr } })*
    };
}

into_attr! {
    i64: |value| AttrValue::Int(value);
    usize: |value| AttrValue::Int(value as i64);
    f64: |value| AttrValue::Float(value);
    bool: |value| AttrValue::Bool(value);
    &str: |value| AttrValue::Word(value.to_owned());
    String: |value| AttrValue::Text(value);
    DType: |value| AttrValue::Word(value.name().to_owned());
    Combine: |value| AttrValue::Word(value.name().to_owned());
    TensorType: |value| AttrValue::Type(value);
    Tensor: |value| AttrValue::Tensor(value);
}

impl<T: Into<AttrValue>> From<Vec<T>> for AttrValue {
    fn from(values: Vec<T>) -> AttrValue {
        AttrValue::List(values.into_iter().map(Into::into).collect())
    }
}
