//! Prints graphs. The form is canonical: names are kept, values without one get numbers in order, every type is
//! written, attributes stand in the order in which their op writes them. Dead values and nodes are not printed.

use crate::diagnostic::Span;
use crate::graph::{Block, Function, Graph, Node, ValueId};
use crate::op::{AttrValue, AttrWriter, Op};
use crate::text::lexer::{self, Float, Name, Quoted, Token};
use crate::text::literal::{self, Data};
use indexmap::{IndexMap, IndexSet};
use std::fmt::{self, Write};

/// The graph with all data and origins; it parses back as the [`same`] graph.
pub fn print_full(graph: &Graph) -> String {
    let mut text = String::new();
    write_graph(&mut text, graph, Style { data: Data::Full, origins: true })
        .expect("a string takes any text");
    text
}

/// The graph with origins, as it is read beside the model that it came from; large constants are elided.
pub fn print_with_origins(graph: &Graph) -> String {
    let mut text = String::new();
    write_graph(&mut text, graph, Style { data: Data::Elided, origins: true })
        .expect("a string takes any text");
    text
}

/// Large constants are elided and origins left out.
impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_graph(f, self, Style { data: Data::Elided, origins: false })
    }
}

#[derive(Clone, Copy)]
struct Style {
    data: Data,
    origins: bool,
}

fn write_graph(out: &mut impl Write, graph: &Graph, style: Style) -> fmt::Result {
    if let Some(mesh) = &graph.mesh {
        writeln!(out, "{mesh}\n")?;
    }
    for (index, (name, function)) in graph.functions.iter().enumerate() {
        if index > 0 {
            out.write_char('\n')?;
        }
        let names = value_names(function);
        Printer { out, graph, function, names: &names, style }.function(name)?;
    }
    Ok(())
}

/// The name under which each live value is printed: its own where no visible value has it already, else the name with
/// a number; a number alone where it has none. Numbers do not clash with any given name of the function.
pub fn value_names(function: &Function) -> Vec<String> {
    let given = function.values.iter().filter_map(|(_, value)| value.name.as_deref()).collect();
    let mut naming = Naming {
        function,
        given,
        visible: IndexSet::new(),
        next_number: 0,
        next_suffix: IndexMap::new(),
        names: vec![String::new(); function.values.len()],
    };
    naming.block(&function.body);
    naming.names
}

struct Naming<'a> {
    function: &'a Function,
    given: IndexSet<&'a str>,
    /// Names in scope; those of an inner block are taken out at its end.
    visible: IndexSet<String>,
    next_number: usize,
    next_suffix: IndexMap<&'a str, usize>,
    names: Vec<String>,
}

impl<'a> Naming<'a> {
    fn block(&mut self, block: &'a Block) {
        block.params.iter().for_each(|&param| self.value(param));
        for &node in &block.nodes {
            let node = &self.function.nodes[node];
            for inner in &node.blocks {
                let scope = self.visible.len();
                self.block(inner);
                self.visible.truncate(scope);
            }
            node.results.iter().for_each(|&result| self.value(result));
        }
    }

    fn value(&mut self, value: ValueId) {
        let name = match self.function.values[value].name.as_deref() {
            None => loop {
                let number = self.next_number.to_string();
                self.next_number += 1;
                if !self.given.contains(number.as_str()) {
                    break number;
                }
            },
            Some(name) if !self.visible.contains(name) => name.to_owned(),
            Some(name) => {
                let suffix = self.next_suffix.entry(name).or_insert(1);
                loop {
                    let candidate = format!("{name}.{suffix}");
                    *suffix += 1;
                    if !self.given.contains(candidate.as_str()) {
                        break candidate;
                    }
                }
            }
        };
        self.visible.insert(name.clone());
        self.names[value.index()] = name;
    }
}

struct Printer<'a, W> {
    out: &'a mut W,
    graph: &'a Graph,
    function: &'a Function,
    names: &'a [String],
    style: Style,
}

impl<W: Write> Printer<'_, W> {
    fn function(&mut self, name: &str) -> fmt::Result {
        let function = self.function;
        write!(self.out, "func @{}", Name(name))?;
        self.bindings(&function.body.params)?;
        self.out.write_str(" -> (")?;
        for (position, &value) in function.body.results.iter().enumerate() {
            if position > 0 {
                self.out.write_str(", ")?;
            }
            let name = function.result_names.get(position).map_or("", String::as_str);
            if is_word(name) {
                self.out.write_str(name)?
            } else {
                write!(self.out, "{}", Quoted(name))?
            }
            write!(self.out, ": {}", function.ty(value))?;
            self.sharding(value)?;
            for &(param, result) in &function.state {
                if result == position
                    && let Some(&param) = function.body.params.get(param)
                {
                    self.out.write_str(" state ")?;
                    self.name(param)?;
                }
            }
        }
        self.out.write_str(") {\n")?;
        self.block(&function.body, "return", 1)?;
        self.out.write_str("}\n")
    }

    fn name(&mut self, value: ValueId) -> fmt::Result {
        write!(self.out, "%{}", Name(&self.names[value.index()]))
    }

    fn binding(&mut self, value: ValueId) -> fmt::Result {
        self.name(value)?;
        write!(self.out, ": {}", self.function.ty(value))?;
        self.sharding(value)
    }

    fn sharding(&mut self, value: ValueId) -> fmt::Result {
        match (self.function.shardings.get(&value), &self.graph.mesh) {
            (Some(sharding), Some(mesh)) => write!(self.out, " {}", sharding.text(mesh)),
            (Some(_), None) | (None, _) => Ok(()),
        }
    }

    fn bindings(&mut self, values: &[ValueId]) -> fmt::Result {
        self.out.write_char('(')?;
        for (position, &value) in values.iter().enumerate() {
            if position > 0 {
                self.out.write_str(", ")?;
            }
            self.binding(value)?;
        }
        self.out.write_char(')')
    }

    fn values(&mut self, values: &[ValueId]) -> fmt::Result {
        for (position, &value) in values.iter().enumerate() {
            self.out.write_str(if position > 0 { ", " } else { " " })?;
            self.name(value)?;
        }
        Ok(())
    }

    fn block(&mut self, block: &Block, end: &str, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        let function = self.function;
        for &node in &block.nodes {
            self.out.write_str(&indent)?;
            self.node(&function.nodes[node], depth)?;
            self.out.write_char('\n')?;
        }
        write!(self.out, "{indent}{end}")?;
        self.values(&block.results)?;
        self.out.write_char('\n')
    }

    fn node(&mut self, node: &Node, depth: usize) -> fmt::Result {
        match node.results.as_slice() {
            [only] => self.binding(*only)?,
            many => self.bindings(many)?,
        }
        write!(self.out, " = {}", node.op.name())?;
        self.values(&node.operands)?;
        write_op_attributes(self.out, &node.op, self.style.data)?;
        if self.style.origins && !node.origins.is_empty() {
            for (position, &origin) in node.origins.iter().enumerate() {
                let name = self.graph.origins.get_index(origin as usize).map_or("", String::as_str);
                write!(
                    self.out,
                    "{}{}",
                    if position > 0 { ", " } else { " from [" },
                    Quoted(name)
                )?;
            }
            self.out.write_char(']')?;
        }
        for block in &node.blocks {
            self.out.write_str(" do ")?;
            self.bindings(&block.params)?;
            self.out.write_str(" {\n")?;
            self.block(block, "yield", depth + 1)?;
            write!(self.out, "{}}}", "  ".repeat(depth))?;
        }
        Ok(())
    }
}

/// The attributes of an op, ` {key = value}`, where it has any. Large tensors are elided.
pub(crate) fn write_attributes(out: &mut impl Write, op: &Op) -> fmt::Result {
    write_op_attributes(out, op, Data::Elided)
}

fn write_op_attributes(out: &mut impl Write, op: &Op, data: Data) -> fmt::Result {
    let mut attributes = AttrWriter::default();
    op.write(&mut attributes);
    for (position, (key, value)) in attributes.attributes.iter().enumerate() {
        write!(out, "{}{key} = ", if position > 0 { ", " } else { " {" })?;
        write_attribute(out, value, data)?;
    }
    if attributes.attributes.is_empty() { Ok(()) } else { out.write_char('}') }
}

fn write_attribute(out: &mut impl Write, value: &AttrValue, data: Data) -> fmt::Result {
    match value {
        AttrValue::Int(value) => write!(out, "{value}"),
        AttrValue::Float(value) => write!(out, "{}", Float(*value)),
        AttrValue::Bool(value) => write!(out, "{value}"),
        AttrValue::Word(word)
            if is_word(word) && !["true", "false", "inf", "nan"].contains(&word.as_str()) =>
        {
            out.write_str(word)
        }
        AttrValue::Word(text) | AttrValue::Text(text) => write!(out, "{}", Quoted(text)),
        AttrValue::Type(ty) => write!(out, "{ty}"),
        AttrValue::Tensor(tensor) => literal::write(out, tensor, data),
        AttrValue::List(items) => {
            out.write_char('[')?;
            for (position, item) in items.iter().enumerate() {
                if position > 0 {
                    out.write_str(", ")?;
                }
                write_attribute(out, item, data)?;
            }
            out.write_char(']')
        }
    }
}

/// Whether a text is one word for the lexer.
fn is_word(text: &str) -> bool {
    let whole = Span { start: 0, end: text.len() };
    matches!(lexer::tokens(text).0.as_slice(), [(span, Token::Word(_))] if *span == whole)
}

/// Whether two graphs print alike in full: the same live nodes in the same order with the same ops, types, printed
/// names and origins. Ids, spans, dead nodes and values, and the numbers of origins may differ.
pub fn same(a: &Graph, b: &Graph) -> bool {
    a.functions.len() == b.functions.len()
        && a.mesh == b.mesh
        && a.functions.iter().zip(&b.functions).all(
            |((a_name, a_function), (b_name, b_function))| {
                let sorted = |state: &[(usize, usize)]| {
                    let mut sorted = state.to_vec();
                    sorted.sort_unstable();
                    sorted
                };
                let same = Same {
                    graphs: (a, b),
                    functions: (a_function, b_function),
                    names: (value_names(a_function), value_names(b_function)),
                };
                a_name == b_name
                    && a_function.result_names == b_function.result_names
                    && sorted(&a_function.state) == sorted(&b_function.state)
                    && same.blocks(&a_function.body, &b_function.body)
            },
        )
}

struct Same<'a> {
    graphs: (&'a Graph, &'a Graph),
    functions: (&'a Function, &'a Function),
    names: (Vec<String>, Vec<String>),
}

impl Same<'_> {
    /// Values are compared by name and type: a printed name stands for one visible value.
    fn values(&self, a: &[ValueId], b: &[ValueId]) -> bool {
        a.len() == b.len()
            && a.iter().zip(b).all(|(&a, &b)| {
                self.names.0[a.index()] == self.names.1[b.index()]
                    && self.functions.0.ty(a) == self.functions.1.ty(b)
                    && self.functions.0.shardings.get(&a) == self.functions.1.shardings.get(&b)
            })
    }

    fn blocks(&self, a: &Block, b: &Block) -> bool {
        self.values(&a.params, &b.params)
            && a.nodes.len() == b.nodes.len()
            && a.nodes
                .iter()
                .zip(&b.nodes)
                .all(|(&a, &b)| self.nodes(&self.functions.0.nodes[a], &self.functions.1.nodes[b]))
            && self.values(&a.results, &b.results)
    }

    fn nodes(&self, a: &Node, b: &Node) -> bool {
        let origins = |graph: &Graph, node: &Node| {
            let names = node
                .origins
                .iter()
                .filter_map(|&origin| graph.origins.get_index(origin as usize).cloned());
            names.collect::<std::collections::BTreeSet<String>>()
        };
        self.values(&a.operands, &b.operands)
            && self.values(&a.results, &b.results)
            && (a.op == b.op || attributes_text(a) == attributes_text(b))
            && origins(self.graphs.0, a) == origins(self.graphs.1, b)
            && a.blocks.len() == b.blocks.len()
            && a.blocks.iter().zip(&b.blocks).all(|(a, b)| self.blocks(a, b))
    }
}

/// What is compared where ops differ: NaN attributes are alike, though they are not equal.
fn attributes_text(node: &Node) -> String {
    let mut attributes = AttrWriter::default();
    node.op.write(&mut attributes);
    let mut text = node.op.name().to_owned();
    for (key, value) in &attributes.attributes {
        text.push_str(key);
        write_attribute(&mut text, value, Data::Full).expect("a string takes any text");
        text.push(' ');
    }
    text
}
