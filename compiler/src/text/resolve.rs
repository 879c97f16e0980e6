//! Turns names into ids, attributes into ops, and checks written types against inferred ones. It goes on after every
//! problem and reports them all; a value whose definition is wrong is known by name, and its uses are not reported.

use crate::diagnostic::{Code, Diagnostic, Diagnostics, Span};
use crate::graph::{self, Function, Graph, Node, Origins, ValueId};
use crate::mesh::{self, Mesh, Sharding};
use crate::op::{self, AttrReader, AttrValue, Op};
use crate::scalar::ScalarFn;
use crate::text::ast::{self, Statement};
use crate::text::lexer::Name;
use crate::text::literal;
use crate::types::{DType, Shape, TensorType};
use indexmap::{IndexMap, IndexSet};
use smallvec::SmallVec;

/// The most dimensions of a type.
const MAX_RANK: usize = 32;

/// How many unknown names get a suggestion; each is compared with every known name.
const MAX_SUGGESTIONS: usize = 20;

/// The graph of parsed functions. `syntax_errors` says whether parts of the text are missing from them.
pub(super) fn graph(
    items: &[ast::Item<'_>],
    syntax_errors: bool,
    diagnostics: &mut Diagnostics,
) -> Graph {
    let mesh = mesh(items, diagnostics);
    let functions: Vec<&ast::Function<'_>> = items
        .iter()
        .filter_map(|item| match item {
            ast::Item::Function(function) => Some(function),
            ast::Item::Mesh { .. } => None,
        })
        .collect();
    let mut signatures: IndexMap<&str, (Span, Option<Vec<TensorType>>)> = IndexMap::new();
    let mut quiet = Diagnostics::default();
    for &function in &functions {
        let types = |items: &ast::At<Vec<ast::ResultItem<'_>>>| {
            items
                .item
                .iter()
                .map(|item| tensor_type(&item.ty, &mut quiet))
                .collect::<Option<Vec<_>>>()
        };
        let types = function.results.as_ref().and_then(types);
        let name = &function.name;
        if let Some((earlier, _)) = signatures.get(&*name.item) {
            let message = format!("function @{} is defined twice", name.item);
            let diagnostic = Diagnostic::error(Code::DuplicateName, message).at(name.span);
            diagnostics.push(diagnostic.with_related(*earlier, "first defined here"));
        } else {
            signatures.insert(&name.item, (name.span, types));
        }
    }
    let mut graph = Graph::default();
    let mut splat_budget = literal::SPLAT_BYTES;
    let mut suggestions = MAX_SUGGESTIONS;
    for function in functions {
        let mut resolver = Resolver {
            signatures: &signatures,
            mesh: mesh.as_ref(),
            function: Function::default(),
            origins: &mut graph.origins,
            names: IndexMap::new(),
            syntax_errors,
            splat_budget: &mut splat_budget,
            suggestions: &mut suggestions,
            diagnostics,
        };
        resolver.function(function);
        let resolved = resolver.function;
        graph.functions.entry(function.name.item.to_string()).or_insert(resolved);
    }
    graph.mesh = mesh;
    graph
}

/// The mesh of a text, where it has one.
fn mesh(items: &[ast::Item<'_>], diagnostics: &mut Diagnostics) -> Option<Mesh> {
    let mut found: Option<(Mesh, Span)> = None;
    for item in items {
        let ast::Item::Mesh { divided, name, axes } = item else { continue };
        if let Some((_, earlier)) = &found {
            let diagnostic = Diagnostic::error(Code::DuplicateName, "a program has one mesh");
            diagnostics
                .push(diagnostic.at(name.span).with_related(*earlier, "the first is defined here"));
            continue;
        }
        let mut mesh = Mesh { name: name.item.to_string(), axes: Vec::new(), divided: *divided };
        for (axis, size) in axes {
            match usize::try_from(*size) {
                Ok(size) => mesh.axes.push((axis.item.to_owned(), size)),
                Err(_) => {
                    let message = format!("axis {} is larger than any mesh", axis.item);
                    diagnostics.push(Diagnostic::error(Code::TooLarge, message).at(axis.span));
                }
            }
        }
        if let Err(why) = mesh.check() {
            diagnostics.push(Diagnostic::error(Code::OpType, why).at(name.span));
            mesh.axes.clear();
        }
        found = Some((mesh, name.span));
    }
    found.map(|(mesh, _)| mesh)
}

/// What a name stands for. The value is missing where its definition is wrong.
#[derive(Clone, Copy)]
struct Known {
    value: Option<ValueId>,
    place: Span,
}

struct Resolver<'a, 'ast> {
    signatures: &'a IndexMap<&'ast str, (Span, Option<Vec<TensorType>>)>,
    mesh: Option<&'a Mesh>,
    function: Function,
    origins: &'a mut IndexSet<String>,
    /// The names in scope; those of an inner block are taken out at its end.
    names: IndexMap<&'ast str, Known>,
    syntax_errors: bool,
    splat_budget: &'a mut usize,
    suggestions: &'a mut usize,
    diagnostics: &'a mut Diagnostics,
}

impl<'ast> Resolver<'_, 'ast> {
    fn error(&mut self, code: Code, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        self.diagnostics.push(Diagnostic::error(code, message).at(span));
        self.diagnostics.0.last_mut().expect("one was pushed")
    }

    fn function(&mut self, function: &'ast ast::Function<'ast>) {
        let (body, ends) = self.block(&function.block, true);
        self.function.body = body;
        let returned = ends.unwrap_or_default();
        let value_name = |value: Option<&ast::Name<'_>>| {
            value.map_or(String::new(), |name| name.item.to_string())
        };
        let Some(results) = &function.results else {
            self.function.result_names =
                returned.iter().map(|name| value_name(Some(name))).collect();
            return;
        };
        if let Some(end) = ends_place(&function.block)
            && returned.len() != results.item.len()
        {
            let message =
                format!("{} values are returned, not {}", returned.len(), results.item.len());
            self.error(Code::OpType, end, message)
                .related
                .push((results.span, "the results are these".into()));
        }
        for (position, item) in results.item.iter().enumerate() {
            let name = match &item.name {
                Some(name) => name.item.to_string(),
                None => value_name(returned.get(position).copied()),
            };
            self.function.result_names.push(name);
            let ty = self.tensor_type(&item.ty);
            if let (Some(returned), Some(ty)) = (returned.get(position), ty)
                && let Some(value) = self.names.get(&*returned.item).and_then(|known| known.value)
                && *self.function.ty(value) != ty
            {
                let message = format!(
                    "%{} is {}, and the result is {ty}",
                    returned.item,
                    self.function.ty(value)
                );
                let diagnostic = self.error(Code::OpType, returned.span, message);
                diagnostic.related.push((item.ty.span, "the result's type".into()));
            }
            if let (Some(sharding), Some(returned)) = (&item.sharding, returned.get(position)) {
                let value = self.names.get(&*returned.item).and_then(|known| known.value);
                self.shard(value, sharding);
            }
            if let Some(state) = &item.state {
                let param =
                    function.block.params.iter().position(|param| param.name.item == state.item);
                match param {
                    Some(param) => self.function.state.push((param, position)),
                    None => {
                        let message = format!("no parameter is called %{}", state.item);
                        self.error(Code::UnknownName, state.span, message);
                    }
                }
            }
        }
    }

    /// Resolves a block, and says which values end it, where it ends.
    fn block(
        &mut self,
        block: &'ast ast::Block<'ast>,
        is_function: bool,
    ) -> (graph::Block, Option<Vec<&'ast ast::Name<'ast>>>) {
        let mut resolved = graph::Block::default();
        let scope = self.names.len();
        for param in &block.params {
            let ty = match &param.ty {
                Some(ty) => self.tensor_type(ty),
                None => {
                    let message = format!("the type of parameter %{} is missing", param.name.item);
                    self.error(Code::Syntax, param.name.span, message);
                    None
                }
            };
            let value = ty.map(|ty| self.function.value(ty, Some(&param.name.item)));
            self.define(&param.name, value);
            if let Some(sharding) = &param.sharding {
                self.shard(value, sharding);
            }
            resolved.params.extend(value);
        }
        let mut ends: Option<(Span, Vec<&ast::Name<'_>>)> = None;
        for (position, statement) in block.statements.iter().enumerate() {
            match statement {
                Statement::Define(define) => {
                    if let Some((end, _)) = ends {
                        let diagnostic = self.error(
                            Code::Syntax,
                            define.span,
                            "this stands behind the block's end",
                        );
                        diagnostic.related.push((end, "the block ends here".into()));
                    }
                    // Where the grammar stopped in the middle of a statement, what it lacks is not reported again.
                    let whole = block.statements.get(position + 1) != Some(&Statement::Error);
                    resolved.nodes.extend(self.define_node(define, whole));
                }
                Statement::End { is_return, word, values } => {
                    if let Some((end, _)) = &ends {
                        let end = *end;
                        let diagnostic = self.error(Code::Syntax, *word, "the block ends twice");
                        diagnostic.related.push((end, "the first end".into()));
                        continue;
                    }
                    if *is_return != is_function {
                        let message = if is_function {
                            "a function ends with `return`, not `yield`"
                        } else {
                            "a block of an op ends with `yield`, not `return`"
                        };
                        self.error(Code::Syntax, *word, message);
                    }
                    resolved.results = values.iter().filter_map(|name| self.value(name)).collect();
                    ends = Some((*word, values.iter().collect()));
                }
                Statement::Error => {}
            }
        }
        if ends.is_none() && !block.statements.contains(&Statement::Error) {
            let message = if is_function {
                "the function has no `return`"
            } else {
                "the block has no `yield`"
            };
            self.error(Code::Syntax, block.close, message);
        }
        if !is_function {
            self.names.truncate(scope);
        }
        (resolved, ends.map(|(_, values)| values))
    }

    fn define(&mut self, name: &'ast ast::Name<'ast>, value: Option<ValueId>) {
        let known = Known { value, place: name.span };
        if let Some(earlier) = self.names.get(&*name.item).map(|earlier| earlier.place) {
            let message = format!("%{} is defined twice", name.item);
            let diagnostic = self.error(Code::DuplicateName, name.span, message);
            diagnostic.related.push((earlier, "first defined here".into()));
            return;
        }
        self.names.insert(&name.item, known);
    }

    /// Notes how a value is divided.
    fn shard(&mut self, value: Option<ValueId>, written: &ast::Sharding<'_>) {
        let Some(mesh) = self.mesh else {
            let diagnostic =
                self.error(Code::UnknownName, written.span, "there is no mesh to divide this by");
            diagnostic.help =
                Some("a text names its mesh first: `mesh @m [dp = 2, tp = 4]`".into());
            return;
        };
        let own = |words: &[&str]| -> Vec<String> {
            words.iter().filter(|word| **word != "_").map(|word| (*word).to_owned()).collect()
        };
        let items: Vec<mesh::Item> = written
            .item
            .iter()
            .map(|item| match item {
                ast::Shard::Axes(words) => mesh::Item::Axes(own(words)),
                ast::Shard::Partial(word, words) => {
                    mesh::Item::Partial((*word).to_owned(), own(words))
                }
                ast::Shard::Stage(word, at) => mesh::Item::Stage(
                    (*word).to_owned(),
                    usize::try_from(*at).unwrap_or(usize::MAX),
                ),
            })
            .collect();
        let sharding = Sharding::from_items(&items, mesh);
        let Some(value) = value else { return };
        let checked =
            sharding.and_then(|found| found.check(self.function.ty(value), mesh).map(|()| found));
        match checked {
            Err(why) => {
                self.error(Code::OpType, written.span, why);
            }
            Ok(sharding) => {
                let earlier = self.function.shardings.insert(value, sharding.clone());
                if let Some(earlier) = earlier.filter(|earlier| *earlier != sharding) {
                    let message = format!("the value is also written as {}", earlier.text(mesh));
                    self.error(Code::OpType, written.span, message);
                }
            }
        }
    }

    /// The value of a name, reported where there is none. `None` too where its definition is wrong.
    fn value(&mut self, name: &ast::Name<'_>) -> Option<ValueId> {
        if let Some(known) = self.names.get(&*name.item) {
            return known.value;
        }
        // What defines it may be in the part that is not in the grammar.
        if self.syntax_errors {
            return None;
        }
        let nearest = if *self.suggestions > 0 {
            *self.suggestions -= 1;
            nearest(&name.item, self.names.keys().copied())
        } else {
            None
        };
        let help = nearest.map(|name| format!("there is %{}", Name(name)));
        let diagnostic = self.error(
            Code::UnknownName,
            name.span,
            format!("nothing defines %{} here", name.item),
        );
        diagnostic.help = help;
        None
    }

    fn define_node(
        &mut self,
        define: &'ast ast::Define<'ast>,
        whole: bool,
    ) -> Option<graph::NodeId> {
        let operands: Vec<Option<ValueId>> =
            define.operands.iter().map(|name| self.value(name)).collect();
        let blocks: Vec<graph::Block> =
            define.blocks.iter().map(|block| self.block(block, false).0).collect();
        let written: Vec<Option<TensorType>> = define
            .results
            .iter()
            .map(|result| result.ty.as_ref().and_then(|ty| self.tensor_type(ty)))
            .collect();
        let errors_before = self.diagnostics.0.len();
        let op = self.op(define, &written, whole);
        let types = op.as_ref().and_then(|op| {
            let operands: Option<Vec<ValueId>> = operands.iter().copied().collect();
            let blocks_are_whole = blocks.iter().zip(&define.blocks).all(|(block, text)| {
                block.params.len() == text.params.len()
                    && ends_count(text) == Some(block.results.len())
            });
            match graph::infer(&self.function, op, &operands?, &blocks) {
                Ok(types) => Some(types),
                Err(_) if !blocks_are_whole || !whole => None,
                Err(error) => {
                    let op = define.op.item;
                    let names_itself = error.message.starts_with(op);
                    let message = if names_itself {
                        error.message
                    } else {
                        format!("{op}: {}", error.message)
                    };
                    let place = Span { start: define.op.span.start, end: define.span.end };
                    self.error(Code::OpType, place, message);
                    None
                }
            }
        });
        if let Some(types) = &types {
            self.compare_types(define, &written, types);
        }
        let known = |position: usize| match &types {
            Some(types) => types.get(position).cloned(),
            None => written[position].clone(),
        };
        let results: Vec<Option<ValueId>> = define
            .results
            .iter()
            .enumerate()
            .map(|(position, result)| {
                let ty = known(position)?;
                Some(self.function.value(ty, Some(&result.name.item)))
            })
            .collect();
        for (result, &value) in define.results.iter().zip(&results) {
            self.define(&result.name, value);
            if let Some(sharding) = &result.sharding {
                self.shard(value, sharding);
            }
        }
        if self.diagnostics.0.len() > errors_before || types.is_none() {
            return None;
        }
        let mut origins: Origins = define
            .origins
            .iter()
            .map(|name| self.origins.insert_full(name.item.to_string()).0)
            .filter_map(|index| u32::try_from(index).ok())
            .collect();
        origins.sort_unstable();
        origins.dedup();
        let node = Node {
            op: op?,
            operands: operands.into_iter().collect::<Option<_>>()?,
            results: results.into_iter().collect::<Option<SmallVec<_>>>()?,
            blocks,
            origins,
            span: Some(define.span),
        };
        Some(self.function.nodes.push(node))
    }

    fn compare_types(
        &mut self,
        define: &ast::Define<'_>,
        written: &[Option<TensorType>],
        types: &[TensorType],
    ) {
        if types.len() != define.results.len() {
            let message = format!(
                "the number of results of {} is {}, and {} are named",
                define.op.item,
                types.len(),
                define.results.len()
            );
            self.error(Code::OpType, define.op.span, message);
            return;
        }
        for ((result, written), ty) in define.results.iter().zip(written).zip(types) {
            if let (Some(written), Some(place)) = (written, &result.ty)
                && written != ty
            {
                let message = format!("%{} is {ty}, and {written} is written", result.name.item);
                let diagnostic = self.error(Code::OpType, place.span, message);
                diagnostic.related.push((define.op.span, format!("{} gives {ty}", define.op.item)));
            }
        }
    }

    fn op(
        &mut self,
        define: &ast::Define<'_>,
        written: &[Option<TensorType>],
        whole: bool,
    ) -> Option<Op> {
        let name = define.op.item;
        if ScalarFn::from_name(name).is_none()
            && !op::CATALOG.iter().any(|row| row.0 == name && name != "map")
        {
            let names = op::CATALOG.iter().map(|row| row.0).filter(|&name| name != "map");
            let functions = ScalarFn::CATALOG.iter().map(|(function, _)| function.name());
            let help = match nearest(name, names.chain(functions)) {
                Some(nearest) => format!("there is {nearest}; `systole list ops` shows them all"),
                None => "`systole list ops` shows them all".to_owned(),
            };
            let diagnostic = self.error(
                Code::UnknownOp,
                define.op.span,
                format!("there is no operation {name}"),
            );
            diagnostic.help = Some(help);
            return None;
        }
        let mut result_types: Vec<TensorType> = written.iter().flatten().cloned().collect();
        let all_written = result_types.len() == define.results.len();
        if !all_written {
            result_types.clear();
        }
        let attributes = self.attributes(define, &result_types)?;
        if !whole && define.attributes.is_empty() {
            return None;
        }
        if name == "call" && !all_written {
            result_types = self.call_types(&attributes);
        }
        let mut reader = AttrReader::new(&attributes, define.op.span);
        reader.result_types = result_types;
        let op = Op::read(name, &mut reader);
        let problems = reader.finish();
        let untyped = define.results.iter().find(|result| result.ty.is_none());
        if op.is_none() && problems.0.is_empty() {
            match untyped {
                Some(result) => self.needs_type(define, &result.name.item),
                None if all_written => {
                    let message = format!("{name} does not take these attributes and types");
                    self.error(Code::Attribute, define.op.span, message);
                }
                None => {}
            }
        }
        let wrong = problems.has_errors();
        self.diagnostics.0.extend(problems.0);
        op.filter(|_| !wrong)
    }

    fn needs_type(&mut self, define: &ast::Define<'_>, result: &str) {
        let op = define.op.item;
        let help = format!("write it behind the name: `%{}: f32[2, 3] = {op}`", Name(result));
        self.error(Code::OpType, define.op.span, format!("{op} needs its type")).help = Some(help);
    }

    /// The result types of the function that a call names.
    fn call_types(&self, attributes: &[op::Attribute]) -> Vec<TensorType> {
        let name = attributes
            .iter()
            .find(|attribute| attribute.key == "function")
            .map(|attribute| &attribute.value);
        let (Some(AttrValue::Word(name)) | Some(AttrValue::Text(name))) = name else {
            return Vec::new();
        };
        self.signatures.get(name.as_str()).and_then(|(_, types)| types.clone()).unwrap_or_default()
    }

    /// The attributes, unless the value of one cannot be read.
    fn attributes(
        &mut self,
        define: &ast::Define<'_>,
        result_types: &[TensorType],
    ) -> Option<Vec<op::Attribute>> {
        let mut seen: IndexMap<&str, Span> = IndexMap::new();
        let mut attributes = Some(Vec::new());
        for attribute in &define.attributes {
            let key = &attribute.key;
            if let Some(&earlier) = seen.get(key.item) {
                let message = format!("attribute {} is given twice", key.item);
                let diagnostic = self.error(Code::Attribute, key.span, message);
                diagnostic.related.push((earlier, "first given here".into()));
                continue;
            }
            seen.insert(key.item, key.span);
            // Only a constant's value is a tensor, which needs its type to be read.
            let value = if define.op.item == "constant" && key.item == "value" {
                match (result_types.first(), define.results.first()) {
                    (Some(ty), _) => {
                        let read = literal::read(&attribute.value, ty, self.splat_budget);
                        read.map(AttrValue::Tensor)
                    }
                    (None, Some(result)) => {
                        if result.ty.is_none() {
                            self.needs_type(define, &result.name.item);
                        }
                        return None;
                    }
                    (None, None) => return None,
                }
            } else {
                self.attribute_value(&attribute.value)
            };
            match (value, &mut attributes) {
                (Ok(value), Some(attributes)) => {
                    let key = key.item.to_owned();
                    attributes.push(op::Attribute { key, value, span: attribute.span });
                }
                (Ok(_), None) => {}
                (Err(diagnostic), _) => {
                    self.diagnostics.push(diagnostic.at(attribute.span));
                    attributes = None;
                }
            }
        }
        attributes
    }

    fn attribute_value(&mut self, value: &ast::Value<'_>) -> Result<AttrValue, Diagnostic> {
        let wrong = |message: String| Err(Diagnostic::error(Code::Attribute, message));
        Ok(match value {
            ast::Value::Word("true") => AttrValue::Bool(true),
            ast::Value::Word("false") => AttrValue::Bool(false),
            ast::Value::Int(value) => match i64::try_from(*value) {
                Ok(value) => AttrValue::Int(value),
                Err(_) => return wrong(format!("the integer {value} has more than 64 bits")),
            },
            ast::Value::Text(text) => AttrValue::Text(text.to_string()),
            ast::Value::List(items) => AttrValue::List(
                items.iter().map(|item| self.attribute_value(item)).collect::<Result<_, _>>()?,
            ),
            ast::Value::Type(ty) => match self.tensor_type(ty) {
                Some(ty) => AttrValue::Type(ty),
                None => return wrong("this type is not valid".to_owned()),
            },
            ast::Value::Float(_) | ast::Value::Word(_) | ast::Value::Call(..) => {
                match (literal::number(value), value) {
                    (Some(number), _) => AttrValue::Float(number),
                    (None, ast::Value::Word(word)) => AttrValue::Word((*word).to_owned()),
                    (None, _) => return wrong("this is not the value of an attribute".to_owned()),
                }
            }
        })
    }

    fn tensor_type(&mut self, ty: &ast::Type<'_>) -> Option<TensorType> {
        tensor_type(ty, self.diagnostics)
    }
}

/// The type that is written, with sizes that may be multiplied.
pub(super) fn tensor_type(ty: &ast::Type<'_>, diagnostics: &mut Diagnostics) -> Option<TensorType> {
    let mut error = |code, message: String, help: Option<String>| {
        let mut diagnostic = Diagnostic::error(code, message).at(ty.span);
        diagnostic.help = help;
        diagnostics.push(diagnostic);
        None
    };
    let Some(dtype) = DType::from_name(ty.dtype) else {
        let names = DType::ALL.map(DType::name).join(", ");
        return error(
            Code::UnknownOp,
            format!("there is no element type {}", ty.dtype),
            Some(format!("there are {names}")),
        );
    };
    if ty.shape.len() > MAX_RANK {
        return error(
            Code::TooLarge,
            format!("a type has at most {MAX_RANK} dimensions, not {}", ty.shape.len()),
            None,
        );
    }
    let shape: Option<Shape> = ty.shape.iter().map(|&size| usize::try_from(size).ok()).collect();
    match shape.map(|shape| TensorType { dtype, shape }) {
        Some(ty) if ty.checked_count().is_some() => Some(ty),
        Some(_) | None => error(
            Code::TooLarge,
            "a tensor of this type is larger than any memory".to_owned(),
            None,
        ),
    }
}

/// Where a block ends by a word, the place of that word.
fn ends_place(block: &ast::Block<'_>) -> Option<Span> {
    block.statements.iter().find_map(|statement| match statement {
        Statement::End { word, .. } => Some(*word),
        Statement::Define(_) | Statement::Error => None,
    })
}

/// How many values a block's end lists.
fn ends_count(block: &ast::Block<'_>) -> Option<usize> {
    block.statements.iter().find_map(|statement| match statement {
        Statement::End { values, .. } => Some(values.len()),
        Statement::Define(_) | Statement::Error => None,
    })
}

/// The candidate that looks most like a name, where one does.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    candidates
        .filter(|candidate| candidate.len() <= LONGEST)
        .map(|candidate| (strsim::osa_distance(name, candidate), candidate))
        .filter(|&(distance, candidate)| {
            distance <= 1 + candidate.chars().count().min(name.chars().count()) / 4
        })
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}
