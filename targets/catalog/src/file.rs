//! A description file: parsed, completed by what it inherits, changed by what the caller sets.

use crate::number::{Mark, Number};
use crate::problem::{Place, Problem, Problems, Source};
use crate::reader::{Reader, nearest};
use crate::tree::{self, Item, Node, Table};
use std::collections::BTreeMap;
use std::sync::Arc;
use toml_edit::Document;

/// No description is longer than this.
const MAX_BYTES: usize = 1 << 20;
/// Nothing inherits through more files than this.
const MAX_ANCESTORS: usize = 8;

/// A parsed description, not yet read.
#[derive(Clone, Debug)]
pub struct File {
    pub(crate) name: String,
    pub(crate) root: Table,
    pub(crate) whole: Place,
    sources: BTreeMap<String, String>,
}

impl File {
    /// Parses a description that inherits from none.
    pub fn parse(text: &str, name: &str) -> Result<File, Problems> {
        File::parse_with(text, name, &|_| None)
    }

    /// Parses a description; `find` gives the text of the file that `inherit = "…"` names.
    pub fn parse_with(
        text: &str,
        name: &str,
        find: &dyn Fn(&str) -> Option<String>,
    ) -> Result<File, Problems> {
        let mut problems = Vec::new();
        let mut texts = vec![parse_one(text, name, &mut problems)?];
        while let Some(item) = texts.last().and_then(|(table, _)| table.get("inherit")) {
            let place = Some(item.place.clone());
            let Node::Text(parent) = &item.node else {
                let message = format!("`inherit` must be a name, not {}", item.node.kind());
                return Err(Problems::one(message, place));
            };
            if texts.len() > MAX_ANCESTORS {
                let message = format!("it inherits through more than {MAX_ANCESTORS} files");
                return Err(Problems::one(message, place));
            }
            let Some(text) = find(parent) else {
                return Err(Problems::one(format!("there is no `{parent}` to inherit"), place));
            };
            let parent = parent.clone();
            texts.push(parse_one(&text, &parent, &mut problems)?);
        }
        let whole = texts[0].1.clone();
        let mut root = Table::default();
        for (mut table, _) in texts.into_iter().rev() {
            table.items.retain(|(key, _)| key != "inherit");
            root.merge(table);
        }
        let mut file = File { name: name.to_owned(), root, whole, sources: BTreeMap::new() };
        file.take_sources(&mut problems);
        if problems.is_empty() { Ok(file) } else { Err(Problems(problems)) }
    }

    /// The name that it was parsed under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces one value: `tier.rack.link_gbs=80`. The tables of an array go by their `name`, or by number from 0. The last
    /// names of a path are enough where no other path ends so. Whether the key means anything is the reader's to say.
    pub fn set(&mut self, assignment: &str) -> Result<(), Problems> {
        let source = Arc::new(Source { name: "--set".to_owned(), text: assignment.to_owned() });
        let whole = Place::new(&source, Some(0..assignment.len()));
        let Some((path, text)) = assignment.split_once('=') else {
            let message = format!("`{assignment}` is not KEY=VALUE, such as hbm_gbs=4000");
            return Err(Problems::one(message, Some(whole)));
        };
        let path = path.trim();
        let at = Place::new(&source, Some(path.len() + 1..assignment.len()));
        let text = text.trim();
        let value = match text.parse::<toml_edit::Value>() {
            Ok(value) => value,
            Err(_) if !text.is_empty() && text.chars().all(is_plain) => {
                toml_edit::Value::from(text)
            }
            Err(_) => {
                return Err(Problems::one(format!("`{text}` is not a TOML value"), Some(at)));
            }
        };
        let Some(mut item) = tree::value(&value, &source, at) else {
            return Err(Problems::one(format!("`{text}` is not a TOML value"), Some(whole)));
        };
        item.key = Place::new(&source, Some(0..path.len()));
        let full = self.resolve(path, &whole)?;
        let (parents, last) = full.split_at(full.len() - 1);
        let missing =
            || Problems::one(format!("there is no table for `{path}`"), Some(whole.clone()));
        let table = descend(&mut self.root, parents).ok_or_else(missing)?;
        match table.get_mut(&last[0]) {
            Some(old) if matches!(old.node, Node::Table(_) | Node::Tables(_)) => {
                let message = format!("`{path}` is {}, not a value", old.node.kind());
                return Err(Problems::one(message, Some(whole)));
            }
            Some(old) => *old = item,
            None => table.items.push((last[0].clone(), item)),
        }
        Ok(())
    }

    /// A reader of the whole file.
    pub fn read(&self) -> Reader<'_> {
        Reader::new(self)
    }

    /// Every number, in the order of the file, with its mark and sources.
    pub fn numbers(&self) -> Vec<Number> {
        let mut numbers = Vec::new();
        visit(&self.root, &mut Vec::new(), &mut |path, item| {
            let values = match &item.node {
                Node::List(elements) => {
                    elements.iter().map(|element| element.node.number()).collect()
                }
                node @ (Node::Integer(_) | Node::Float(_)) => node.number().map(|n| vec![n]),
                Node::Table(_) | Node::Tables(_) | Node::Text(_) | Node::Flag(_) | Node::Date => {
                    None
                }
            };
            let Some(values) = values.filter(|values: &Vec<f64>| !values.is_empty()) else {
                return;
            };
            numbers.push(Number {
                path: path.join("."),
                values,
                mark: item.mark,
                sources: item.sources.clone(),
                note: item.note.clone(),
                place: item.place.clone(),
            });
        });
        numbers
    }

    /// The paths of numbers that are bare: neither documented nor marked otherwise. A preset has none.
    pub fn unmarked(&self) -> Vec<String> {
        let bare = |number: &Number| number.mark == Mark::Given;
        self.numbers().into_iter().filter(bare).map(|number| number.path).collect()
    }

    /// The addresses of the sources, by their names.
    pub fn sources(&self) -> &BTreeMap<String, String> {
        &self.sources
    }

    fn take_sources(&mut self, problems: &mut Vec<Problem>) {
        if let Some(item) = self.root.get("sources").cloned() {
            self.root.items.retain(|(key, _)| key != "sources");
            let wrong = |item: &Item, what: &str| Problem {
                message: format!("{what}, not {}", item.node.kind()),
                help: None,
                place: Some(item.place.clone()),
            };
            if let Node::Table(table) = item.node {
                for (key, item) in table.items {
                    if let Node::Text(address) = item.node {
                        self.sources.insert(key, address);
                    } else {
                        problems.push(wrong(&item, "a source is an address"));
                    }
                }
            } else {
                problems.push(wrong(&item, "`sources` is a table of addresses"));
            }
        }
        let sources = &self.sources;
        visit(&self.root, &mut Vec::new(), &mut |_, item| {
            for name in item.sources.iter().filter(|name| !sources.contains_key(*name)) {
                let known = sources.keys().map(String::as_str);
                problems.push(Problem {
                    message: format!("`sources` does not list `{name}`"),
                    help: nearest(name, known).map(|near| format!("there is `{near}`")),
                    place: Some(item.key.clone()),
                });
            }
        });
    }

    /// The full path that a possibly shortened one means.
    fn resolve(&self, path: &str, whole: &Place) -> Result<Vec<String>, Problems> {
        let parts: Vec<String> = path.split('.').map(|part| part.trim().to_owned()).collect();
        if parts.iter().any(String::is_empty) {
            let message = format!("`{path}` is not a path of keys, such as tier.rack.link_gbs");
            return Err(Problems::one(message, Some(whole.clone())));
        }
        let mut root = self.root.clone();
        let (parents, last) = parts.split_at(parts.len() - 1);
        if descend(&mut root, parents).is_some_and(|table| table.get(&last[0]).is_some()) {
            return Ok(parts);
        }
        let mut found: Vec<Vec<String>> = Vec::new();
        visit(&self.root, &mut Vec::new(), &mut |full, _| {
            if full.ends_with(&parts) {
                found.push(full.to_vec());
            }
        });
        match found.len() {
            1 => Ok(found.swap_remove(0)),
            // A key that the file does not state; the reader knows whether there is such a one.
            0 if descend(&mut root, parents).is_some() => Ok(parts),
            0 => {
                let mut paths = Vec::new();
                visit(&self.root, &mut Vec::new(), &mut |full, _| paths.push(full.join(".")));
                let help = nearest(path, paths.iter().map(String::as_str))
                    .map(|near| format!("there is `{near}`"));
                let message = format!("`{}` has no key `{path}`", self.name);
                Err(Problems(vec![Problem { message, help, place: Some(whole.clone()) }]))
            }
            _ => {
                let all: Vec<String> =
                    found.iter().take(8).map(|full| format!("`{}`", full.join("."))).collect();
                let message = format!("`{path}` could be {}", all.join(" or "));
                Err(Problems::one(message, Some(whole.clone())))
            }
        }
    }
}

fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ' | '/')
}

fn parse_one(
    text: &str,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Result<(Table, Place), Problems> {
    if text.len() > MAX_BYTES {
        let message =
            format!("`{name}` has {} bytes; a description has at most {MAX_BYTES}", text.len());
        return Err(Problems::one(message, None));
    }
    let source = Arc::new(Source { name: name.to_owned(), text: text.to_owned() });
    let document = Document::parse(text).map_err(|error| {
        let message = error.message().trim().replace('\n', "; ");
        Problems::one(message, Some(Place::new(&source, error.span())))
    })?;
    Ok((tree::table(document.as_table(), &source, problems), Place::new(&source, None)))
}

fn descend<'t>(table: &'t mut Table, path: &[String]) -> Option<&'t mut Table> {
    let Some((key, rest)) = path.split_first() else { return Some(table) };
    match &mut table.get_mut(key)?.node {
        Node::Table(inner) => descend(inner, rest),
        Node::Tables(tables) => {
            let (which, rest) = rest.split_first()?;
            let at = tables
                .iter()
                .position(|item| item.name() == Some(which))
                .or_else(|| which.parse().ok())?;
            let inner = if let Node::Table(inner) = &mut tables.get_mut(at)?.node {
                inner
            } else {
                return None;
            };
            descend(inner, rest)
        }
        Node::List(_)
        | Node::Integer(_)
        | Node::Float(_)
        | Node::Text(_)
        | Node::Flag(_)
        | Node::Date => None,
    }
}

/// Calls `see` with every value (no tables) and its path.
fn visit<'t>(table: &'t Table, path: &mut Vec<String>, see: &mut dyn FnMut(&[String], &'t Item)) {
    for (key, item) in &table.items {
        path.push(key.clone());
        match &item.node {
            Node::Table(inner) => visit(inner, path, see),
            Node::Tables(tables) => {
                for (at, item) in tables.iter().enumerate() {
                    path.push(item.name().map_or_else(|| at.to_string(), str::to_owned));
                    if let Some(inner) = item.table() {
                        visit(inner, path, see);
                    }
                    path.pop();
                }
            }
            Node::List(_)
            | Node::Integer(_)
            | Node::Float(_)
            | Node::Text(_)
            | Node::Flag(_)
            | Node::Date => see(path, item),
        }
        path.pop();
    }
}
