//! A parsed description as a tree of our own, in which every item knows the text that it came from.

use crate::number::Mark;
use crate::problem::{Place, Problem, Source};
use std::sync::Arc;
use toml_edit::TableLike;

/// A table: its items by name, in the order of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    pub(crate) items: Vec<(String, Item)>,
}

/// A value and all that stands beside it.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) node: Node,
    pub(crate) key: Place,
    pub(crate) place: Place,
    pub(crate) mark: Mark,
    pub(crate) sources: Vec<String>,
    pub(crate) note: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Node {
    Table(Table),
    Tables(Vec<Item>),
    List(Vec<Item>),
    Integer(i64),
    Float(f64),
    Text(String),
    Flag(bool),
    Date,
}

impl Node {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Node::Table(_) => "a table",
            Node::Tables(_) => "an array of tables",
            Node::List(_) => "a list",
            Node::Integer(_) => "an integer",
            Node::Float(_) => "a number",
            Node::Text(_) => "text",
            Node::Flag(_) => "true or false",
            Node::Date => "a date",
        }
    }

    /// The number that it is.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Node::Integer(value) => Some(*value as f64),
            Node::Float(value) => Some(*value),
            Node::Table(_)
            | Node::Tables(_)
            | Node::List(_)
            | Node::Text(_)
            | Node::Flag(_)
            | Node::Date => None,
        }
    }
}

impl Item {
    pub(crate) fn table(&self) -> Option<&Table> {
        if let Node::Table(table) = &self.node { Some(table) } else { None }
    }

    /// What a table of an array is known by: the text of its key `name`.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.table()?.get("name")?.node {
            Node::Text(name) => Some(name),
            Node::Table(_)
            | Node::Tables(_)
            | Node::List(_)
            | Node::Integer(_)
            | Node::Float(_)
            | Node::Flag(_)
            | Node::Date => None,
        }
    }
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Item> {
        self.items.iter().find(|(name, _)| name == key).map(|(_, item)| item)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Item> {
        self.items.iter_mut().find(|(name, _)| name == key).map(|(_, item)| item)
    }

    /// Takes over what `other` says; where both say something, `other` is right.
    pub(crate) fn merge(&mut self, other: Table) {
        for (key, item) in other.items {
            match self.get_mut(&key) {
                Some(mine) => mine.merge(item),
                None => self.items.push((key, item)),
            }
        }
    }
}

impl Item {
    fn merge(&mut self, other: Item) {
        match (&mut self.node, other.node) {
            (Node::Table(mine), Node::Table(table)) => mine.merge(table),
            (Node::Tables(mine), Node::Tables(tables))
                if mine.iter().chain(&tables).all(|item| item.name().is_some()) =>
            {
                for item in tables {
                    let same = mine.iter_mut().find(|own| own.name() == item.name());
                    match same {
                        Some(own) => own.merge(item),
                        None => mine.push(item),
                    }
                }
            }
            (mine, node) => {
                *mine = node;
                self.key = other.key;
                self.place = other.place;
                self.mark = other.mark;
                self.sources = other.sources;
                self.note = other.note;
            }
        }
    }
}

/// Reads what the TOML parser found. The parser's own limit on nesting bounds the recursion.
pub(crate) fn table(
    table: &dyn TableLike,
    source: &Arc<Source>,
    problems: &mut Vec<Problem>,
) -> Table {
    let mut items = Vec::new();
    for (name, found) in table.iter() {
        let span = table.get_key_value(name).and_then(|(key, _)| key.span());
        let key = Place::new(source, span.or(found.span()));
        let place = Place::new(source, found.span().or(Some(key.span())));
        if let Some(item) = item(found, key, place, source, problems) {
            items.push((name.to_owned(), item));
        }
    }
    Table { items }
}

/// A value that `--set` gives.
pub(crate) fn value(value: &toml_edit::Value, source: &Arc<Source>, at: Place) -> Option<Item> {
    item(&toml_edit::Item::Value(value.clone()), at.clone(), at, source, &mut Vec::new())
}

fn item(
    found: &toml_edit::Item,
    key: Place,
    place: Place,
    source: &Arc<Source>,
    problems: &mut Vec<Problem>,
) -> Option<Item> {
    let plain = |node| Item {
        node,
        key: key.clone(),
        place: place.clone(),
        mark: Mark::Given,
        sources: Vec::new(),
        note: None,
    };
    if let Some(like) = found.as_table_like() {
        let inner = table(like, source, problems);
        if like.contains_key("value") {
            return Some(annotated(inner, plain(Node::Date), problems));
        }
        return Some(plain(Node::Table(inner)));
    }
    if let Some(array) = found.as_array_of_tables() {
        let tables = array.iter().map(|inner| {
            let place = Place::new(source, inner.span());
            Item {
                node: Node::Table(table(inner, source, problems)),
                key: place.clone(),
                place,
                mark: Mark::Given,
                sources: Vec::new(),
                note: None,
            }
        });
        return Some(plain(Node::Tables(tables.collect())));
    }
    let value = found.as_value()?;
    let node = if let Some(value) = value.as_integer() {
        Node::Integer(value)
    } else if let Some(value) = value.as_float() {
        Node::Float(value)
    } else if let Some(value) = value.as_str() {
        Node::Text(value.to_owned())
    } else if let Some(value) = value.as_bool() {
        Node::Flag(value)
    } else if let Some(array) = value.as_array() {
        let elements: Vec<Item> = array
            .iter()
            .filter_map(|element| {
                let place = Place::new(source, element.span().or(Some(place.span())));
                let element = toml_edit::Item::Value(element.clone());
                item(&element, place.clone(), place, source, problems)
            })
            .collect();
        let tables = !elements.is_empty() && elements.iter().all(|item| item.table().is_some());
        if tables { Node::Tables(elements) } else { Node::List(elements) }
    } else {
        Node::Date
    };
    Some(plain(node))
}

/// `{ value = …, mark = …, source = …, note = … }`: the value with the rest beside it.
fn annotated(table: Table, mut item: Item, problems: &mut Vec<Problem>) -> Item {
    let mut marked = false;
    for (key, part) in table.items {
        let place = Some(part.place.clone());
        let mut wrong = |message: String| {
            problems.push(Problem { message, help: None, place: place.clone() });
        };
        match (key.as_str(), part.node) {
            ("value", node) => {
                if matches!(node, Node::Table(_) | Node::Tables(_)) {
                    wrong(format!("`value` must be a number, text or a list, not {}", node.kind()));
                }
                item.node = node;
                item.place = part.place;
            }
            ("mark", Node::Text(name)) => match Mark::named(&name) {
                Some(mark) => {
                    marked = true;
                    item.mark = mark;
                }
                None => {
                    let known: Vec<&str> = Mark::ALL.iter().map(|mark| mark.name()).collect();
                    wrong(format!("there is no mark `{name}`; it is one of {}", known.join(", ")));
                }
            },
            ("source", Node::Text(names)) => {
                item.sources = names.split(',').map(|name| name.trim().to_owned()).collect();
            }
            ("note", Node::Text(note)) => item.note = Some(note),
            ("mark" | "source" | "note", node) => {
                wrong(format!("`{key}` must be text, not {}", node.kind()));
            }
            (_, _) => wrong(format!(
                "unknown key `{key}` beside a value; the keys are value, mark, source, note"
            )),
        }
    }
    let sourced = match item.mark {
        Mark::Documented | Mark::Press => !item.sources.is_empty(),
        Mark::Computed => !item.sources.is_empty() || item.note.is_some(),
        Mark::Inferred | Mark::Given => true,
    };
    if marked && !sourced {
        let message = format!("a value marked {} needs its `source`", item.mark.name());
        problems.push(Problem { message, help: None, place: Some(item.key.clone()) });
    }
    item
}
