//! Reads the fields of a JSON object by key and collects what is wrong with them.

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use serde_json::{Map, Value};

/// The fields of an object.
pub(super) struct Fields<'a> {
    object: &'a Map<String, Value>,
    prefix: &'static str,
    pub(super) problems: Diagnostics,
}

impl<'a> Fields<'a> {
    pub(super) fn new(object: &'a Map<String, Value>) -> Fields<'a> {
        Fields::within(object, "")
    }

    /// The fields of an inner object, which messages name with a prefix.
    pub(super) fn within(object: &'a Map<String, Value>, prefix: &'static str) -> Fields<'a> {
        Fields { object, prefix, problems: Diagnostics::default() }
    }

    pub(super) fn wrong(&mut self, message: impl Into<String>) {
        self.problems.push(Diagnostic::error(Code::Malformed, message));
    }

    pub(super) fn unsupported(&mut self, message: impl Into<String>) {
        self.problems.push(Diagnostic::error(Code::Unsupported, message));
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn has_entries(&self, key: &str) -> bool {
        self.get(key).and_then(Value::as_array).is_some_and(|entries| !entries.is_empty())
    }

    fn missing(&mut self, key: &str) {
        let prefix = self.prefix;
        self.wrong(format!("{prefix}{key} is missing"));
    }

    fn is_not(&mut self, key: &str, value: &Value, what: &str) {
        let prefix = self.prefix;
        let mut text = value.to_string();
        if text.len() > 40 {
            let end = (0..=40).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            text.truncate(end);
            text.push('…');
        }
        self.wrong(format!("{prefix}{key} is {text}, not {what}"));
    }

    /// A size from 1 to `most`.
    pub(super) fn size(&mut self, key: &str, most: usize) -> Option<usize> {
        if !self.has(key) {
            self.missing(key);
        }
        self.optional_size(key, most)
    }

    pub(super) fn optional_size(&mut self, key: &str, most: usize) -> Option<usize> {
        let value = self.get(key)?;
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        match size.filter(|size| (1..=most).contains(size)) {
            Some(size) => Some(size),
            None => {
                self.is_not(key, value, &format!("a whole number from 1 to {most}"));
                None
            }
        }
    }

    /// A number of things, perhaps none.
    pub(super) fn optional_count(&mut self, key: &str) -> Option<usize> {
        let value = self.get(key)?;
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        if count.is_none() {
            self.is_not(key, value, "a whole number");
        }
        count
    }

    /// A positive number.
    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        if !self.has(key) {
            self.missing(key);
        }
        self.optional_number(key)
    }

    pub(super) fn optional_number(&mut self, key: &str) -> Option<f64> {
        let value = self.get(key)?;
        match value.as_f64().filter(|number| number.is_finite() && *number > 0.0) {
            Some(number) => Some(number),
            None => {
                self.is_not(key, value, "a positive number");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str) -> bool {
        self.flag_or(key, false)
    }

    pub(super) fn flag_or(&mut self, key: &str, default: bool) -> bool {
        let Some(value) = self.get(key) else { return default };
        value.as_bool().unwrap_or_else(|| {
            self.is_not(key, value, "true or false");
            default
        })
    }

    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        if value.as_str().is_none() {
            self.is_not(key, value, "a text");
        }
        value.as_str().map(str::to_owned)
    }

    /// The first of a list of texts.
    pub(super) fn first_text(&mut self, key: &str) -> Option<String> {
        self.optional_texts(key)?.into_iter().next()
    }

    pub(super) fn optional_texts(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let texts = value.as_array().and_then(|entries| {
            entries.iter().map(|entry| entry.as_str().map(str::to_owned)).collect()
        });
        if texts.is_none() {
            self.is_not(key, value, "a list of texts");
        }
        texts
    }

    pub(super) fn optional_object(&mut self, key: &str) -> Option<&'a Map<String, Value>> {
        let value = self.get(key)?;
        if value.as_object().is_none() {
            self.is_not(key, value, "an object");
        }
        value.as_object()
    }

    /// Reports a text that is none of those.
    pub(super) fn one_of(&mut self, key: &str, known: &[&str]) {
        if let Some(text) = self.optional_text(key)
            && !known.contains(&text.as_str())
        {
            let (prefix, known) = (self.prefix, known.join(" or "));
            self.unsupported(format!("{prefix}{key} is `{text}`, but only {known} is supported"));
        }
    }
}
