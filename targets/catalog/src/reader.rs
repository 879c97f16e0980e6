//! Reads a description key by key and remembers everything that was wrong.

use crate::file::File;
use crate::problem::{Place, Problem, Problems};
use crate::tree::{Item, Node, Table};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::rc::Rc;

/// Which numbers a key takes. All are finite, and none is so large or small that arithmetic on a few of them overflows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allowed {
    /// More than zero.
    Positive,
    /// Zero or more.
    NonNegative,
    /// From zero to one.
    Fraction,
    /// More than zero, and at most one.
    Efficiency,
    /// From the first to the second.
    Between(f64, f64),
    /// Any number.
    Any,
}

const HUGE: f64 = 1e18;

impl Allowed {
    fn takes(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Allowed::Positive => (1.0 / HUGE..=HUGE).contains(&value),
                Allowed::NonNegative => (0.0..=HUGE).contains(&value),
                Allowed::Fraction => (0.0..=1.0).contains(&value),
                Allowed::Efficiency => (1.0 / HUGE..=1.0).contains(&value),
                Allowed::Between(low, high) => (low..=high).contains(&value),
                Allowed::Any => value.abs() <= HUGE,
            }
    }

    fn words(self) -> String {
        match self {
            Allowed::Positive => format!("more than 0 and at most {HUGE:e}"),
            Allowed::NonNegative => format!("from 0 to {HUGE:e}"),
            Allowed::Fraction => "from 0 to 1".to_owned(),
            Allowed::Efficiency => "more than 0 and at most 1".to_owned(),
            Allowed::Between(low, high) => format!("from {low} to {high}"),
            Allowed::Any => format!("from -{HUGE:e} to {HUGE:e}"),
        }
    }

    fn harmless(self) -> f64 {
        match self {
            Allowed::Positive | Allowed::Fraction | Allowed::Efficiency => 1.0,
            Allowed::NonNegative | Allowed::Any => 0.0,
            Allowed::Between(low, _) => low,
        }
    }
}

/// Reads one table of a description. Readers of its tables share one list of problems.
#[derive(Clone, Debug)]
pub struct Reader<'f> {
    table: &'f Table,
    path: String,
    place: Place,
    file: &'f File,
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    problems: Vec<Problem>,
    /// The keys that were asked for, by the path of their table.
    known: BTreeMap<String, BTreeSet<String>>,
}

impl<'f> Reader<'f> {
    pub(crate) fn new(file: &'f File) -> Reader<'f> {
        Reader {
            table: &file.root,
            path: String::new(),
            place: file.whole.clone(),
            file,
            state: Rc::default(),
        }
    }

    /// A number.
    pub fn number(&self, key: &str, allowed: Allowed) -> f64 {
        self.required(key, |item| self.as_number(key, item, allowed)).unwrap_or(allowed.harmless())
    }

    /// A number that may be missing.
    pub fn optional_number(&self, key: &str, allowed: Allowed) -> Option<f64> {
        self.get(key).and_then(|item| self.as_number(key, item, allowed))
    }

    /// An integer in a range.
    pub fn integer(&self, key: &str, allowed: RangeInclusive<i64>) -> i64 {
        let harmless = *allowed.start();
        self.required(key, |item| self.as_integer(key, item, &allowed)).unwrap_or(harmless)
    }

    /// An integer that may be missing.
    pub fn optional_integer(&self, key: &str, allowed: RangeInclusive<i64>) -> Option<i64> {
        self.get(key).and_then(|item| self.as_integer(key, item, &allowed))
    }

    /// A text.
    pub fn text(&self, key: &str) -> &'f str {
        self.required(key, |item| self.as_text(key, item)).unwrap_or_default()
    }

    /// A text that may be missing.
    pub fn optional_text(&self, key: &str) -> Option<&'f str> {
        self.get(key).and_then(|item| self.as_text(key, item))
    }

    /// One of several names; its place among them.
    pub fn choice(&self, key: &str, names: &[&str]) -> usize {
        self.required(key, |item| self.as_choice(key, item, names)).unwrap_or(0)
    }

    /// One of several names, or none; its place among them.
    pub fn optional_choice(&self, key: &str, names: &[&str]) -> Option<usize> {
        self.get(key).and_then(|item| self.as_choice(key, item, names))
    }

    /// True or false.
    pub fn flag(&self, key: &str) -> bool {
        self.required(key, |item| self.as_flag(key, item)).unwrap_or(false)
    }

    /// True, false or missing.
    pub fn optional_flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(|item| self.as_flag(key, item))
    }

    /// A list of numbers; one number is a list of one.
    pub fn numbers(&self, key: &str, allowed: Allowed) -> Vec<f64> {
        self.required(key, |item| {
            self.as_list(key, item, |element| self.as_number(key, element, allowed))
        })
        .unwrap_or_default()
    }

    /// A list of numbers that may be missing.
    pub fn optional_numbers(&self, key: &str, allowed: Allowed) -> Option<Vec<f64>> {
        self.get(key).and_then(|item| {
            self.as_list(key, item, |element| self.as_number(key, element, allowed))
        })
    }

    /// A list of integers; one integer is a list of one.
    pub fn integers(&self, key: &str, allowed: RangeInclusive<i64>) -> Vec<i64> {
        self.required(key, |item| {
            self.as_list(key, item, |element| self.as_integer(key, element, &allowed))
        })
        .unwrap_or_default()
    }

    /// A list of texts; one text is a list of one.
    pub fn texts(&self, key: &str) -> Vec<&'f str> {
        self.required(key, |item| self.as_list(key, item, |element| self.as_text(key, element)))
            .unwrap_or_default()
    }

    /// A list of texts that may be missing.
    pub fn optional_texts(&self, key: &str) -> Option<Vec<&'f str>> {
        self.get(key).and_then(|item| self.as_list(key, item, |element| self.as_text(key, element)))
    }

    /// A table. Where there is none, that is a problem, and the reader given instead reports nothing more.
    pub fn table(&self, key: &str) -> Reader<'f> {
        self.required(key, |item| self.as_table(key, item)).unwrap_or_else(|| self.nowhere(key))
    }

    /// A table that may be missing.
    pub fn optional_table(&self, key: &str) -> Option<Reader<'f>> {
        self.get(key).and_then(|item| self.as_table(key, item))
    }

    /// The tables of an array; empty where there is none.
    pub fn tables(&self, key: &str) -> Vec<Reader<'f>> {
        let Some(item) = self.get(key) else { return Vec::new() };
        let Node::Tables(tables) = &item.node else {
            self.ill_typed(key, item, "an array of tables");
            return Vec::new();
        };
        let mut names = BTreeSet::new();
        let readers = tables.iter().enumerate().filter_map(|(at, inner)| {
            if let Some(name) = inner.name()
                && !names.insert(name)
            {
                self.note(
                    format!("two tables of `{key}` have the name `{name}`"),
                    None,
                    &inner.key,
                );
            }
            let name = inner.name().map_or_else(|| at.to_string(), str::to_owned);
            Some(self.inner(&format!("{key}.{name}"), inner.table()?, &inner.key))
        });
        readers.collect()
    }

    /// The tables inside this one whose names are the file's own choice, in the order of the file.
    pub fn entries(&self) -> Vec<(&'f str, Reader<'f>)> {
        let mut entries = Vec::new();
        for (key, item) in &self.table.items {
            self.know(key);
            if let Some(reader) = self.as_table(key, item) {
                entries.push((key.as_str(), reader));
            }
        }
        entries
    }

    /// The keys of this table, in the order of the file.
    pub fn keys(&self) -> Vec<&'f str> {
        self.table.items.iter().map(|(key, _)| key.as_str()).collect()
    }

    /// Whether the file states the key.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The path of this table; empty for the whole file.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reports something that only the caller can know to be wrong with `key`.
    pub fn problem(&self, key: &str, message: impl Into<String>) {
        let place = self.table.get(key).map_or(&self.place, |item| &item.place);
        self.note(message.into(), None, place);
    }

    /// Whether anything was wrong so far, in any table of the file.
    pub fn failed(&self) -> bool {
        !self.state.borrow().problems.is_empty()
    }

    /// Ends the reading of the whole file: all that was wrong, and every key that nobody asked for. What the readers gave is
    /// good only if this gives `Ok`.
    pub fn finish(&self) -> Result<(), Problems> {
        let mut state = self.state.borrow_mut();
        let State { problems, known } = &mut *state;
        let mut all = std::mem::take(problems);
        unknown(&self.file.root, "", known, &mut all);
        if all.is_empty() {
            return Ok(());
        }
        let file = |problem: &Problem| {
            let place = problem.place.as_ref();
            place.map(|place| (place.file() != self.file.name, place.span().start))
        };
        all.sort_by_key(file);
        Err(Problems(all))
    }

    fn get(&self, key: &str) -> Option<&'f Item> {
        self.know(key);
        self.table.get(key)
    }

    fn know(&self, key: &str) {
        let mut state = self.state.borrow_mut();
        state.known.entry(self.path.clone()).or_default().insert(key.to_owned());
    }

    fn required<T>(&self, key: &str, read: impl FnOnce(&'f Item) -> Option<T>) -> Option<T> {
        match self.get(key) {
            Some(item) => read(item),
            None => {
                let message = match self.path.as_str() {
                    "" => format!("`{}` does not state `{key}`", self.file.name),
                    path => format!("`{path}` does not state `{key}`"),
                };
                self.note(message, None, &self.place);
                None
            }
        }
    }

    fn as_number(&self, key: &str, item: &Item, allowed: Allowed) -> Option<f64> {
        let Some(value) = item.node.number() else {
            self.ill_typed(key, item, "a number");
            return None;
        };
        if !allowed.takes(value) {
            let message = format!("`{key}` is {value}, but must be {}", allowed.words());
            self.note(message, None, &item.place);
            return None;
        }
        Some(value)
    }

    fn as_integer(&self, key: &str, item: &Item, allowed: &RangeInclusive<i64>) -> Option<i64> {
        let Node::Integer(value) = &item.node else {
            self.ill_typed(key, item, "an integer");
            return None;
        };
        if !allowed.contains(value) {
            let (low, high) = (allowed.start(), allowed.end());
            let message = format!("`{key}` is {value}, but must be from {low} to {high}");
            self.note(message, None, &item.place);
            return None;
        }
        Some(*value)
    }

    fn as_text(&self, key: &str, item: &'f Item) -> Option<&'f str> {
        let Node::Text(text) = &item.node else {
            self.ill_typed(key, item, "text");
            return None;
        };
        Some(text)
    }

    fn as_choice(&self, key: &str, item: &'f Item, names: &[&str]) -> Option<usize> {
        let text = self.as_text(key, item)?;
        let found = names.iter().position(|name| *name == text);
        if found.is_none() {
            let message = format!("`{key}` is `{text}`, but must be one of {}", names.join(", "));
            self.note(message, None, &item.place);
        }
        found
    }

    fn as_flag(&self, key: &str, item: &Item) -> Option<bool> {
        let Node::Flag(flag) = &item.node else {
            self.ill_typed(key, item, "true or false");
            return None;
        };
        Some(*flag)
    }

    fn as_list<T>(
        &self,
        key: &str,
        item: &'f Item,
        read: impl Fn(&'f Item) -> Option<T>,
    ) -> Option<Vec<T>> {
        match &item.node {
            Node::List(elements) => elements.iter().map(read).collect(),
            Node::Integer(_) | Node::Float(_) | Node::Text(_) => Some(vec![read(item)?]),
            Node::Table(_) | Node::Tables(_) | Node::Flag(_) | Node::Date => {
                self.ill_typed(key, item, "a list");
                None
            }
        }
    }

    fn as_table(&self, key: &str, item: &'f Item) -> Option<Reader<'f>> {
        let Some(table) = item.table() else {
            self.ill_typed(key, item, "a table");
            return None;
        };
        Some(self.inner(key, table, &item.key))
    }

    fn inner(&self, key: &str, table: &'f Table, place: &Place) -> Reader<'f> {
        Reader {
            table,
            path: joined(&self.path, key),
            place: place.clone(),
            file: self.file,
            state: Rc::clone(&self.state),
        }
    }

    /// A reader whose problems nobody hears of, because the table's absence has been reported.
    fn nowhere(&self, key: &str) -> Reader<'f> {
        static EMPTY: Table = Table { items: Vec::new() };
        Reader {
            table: &EMPTY,
            path: joined(&self.path, key),
            place: self.place.clone(),
            file: self.file,
            state: Rc::default(),
        }
    }

    fn ill_typed(&self, key: &str, item: &Item, wanted: &str) {
        let message = format!("`{key}` must be {wanted}, not {}", item.node.kind());
        self.note(message, None, &item.place);
    }

    fn note(&self, message: String, help: Option<String>, place: &Place) {
        let place = Some(place.clone());
        self.state.borrow_mut().problems.push(Problem { message, help, place });
    }
}

/// Reports every key that no reader asked for.
fn unknown(
    table: &Table,
    path: &str,
    known: &BTreeMap<String, BTreeSet<String>>,
    problems: &mut Vec<Problem>,
) {
    let none = BTreeSet::new();
    let asked = known.get(path).unwrap_or(&none);
    for (key, item) in &table.items {
        let full = joined(path, key);
        if !asked.contains(key) {
            let message = match path {
                "" => format!("unknown key `{key}`"),
                path => format!("unknown key `{key}` in `{path}`"),
            };
            let near = nearest(key, asked.iter().map(String::as_str));
            let elsewhere = || {
                known
                    .iter()
                    .filter(|(_, keys)| keys.contains(key))
                    .map(|(path, _)| joined(path, key))
                    .next()
            };
            let help = near.map(str::to_owned).or_else(elsewhere);
            let help = help.map(|near| format!("there is `{near}`"));
            problems.push(Problem { message, help, place: Some(item.key.clone()) });
            continue;
        }
        match &item.node {
            Node::Table(inner) => unknown(inner, &full, known, problems),
            Node::Tables(tables) => {
                for (at, item) in tables.iter().enumerate() {
                    let name = item.name().map_or_else(|| at.to_string(), str::to_owned);
                    if let Some(inner) = item.table() {
                        unknown(inner, &joined(&full, &name), known, problems);
                    }
                }
            }
            Node::List(_)
            | Node::Integer(_)
            | Node::Float(_)
            | Node::Text(_)
            | Node::Flag(_)
            | Node::Date => {}
        }
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The name that a mistyped one was probably meant to be.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 200 {
        return None;
    }
    known
        .map(|near| (strsim::damerau_levenshtein(name, near), near))
        .filter(|(distance, near)| *distance <= 1 + name.len().max(near.len()) / 3)
        .min()
        .map(|(_, near)| near)
}
