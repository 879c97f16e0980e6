//! Nodes of the file become nodes of a graph, one after another. Values known before the run are carried as tensors
//! and only become constants of the graph where a node needs them as values.

use super::context::{ImportError, Items, NodeContext, invalid, unsupported};
use super::fold;
use super::foreign::Foreign;
use super::proto::{FunctionProto, GraphProto, NodeProto, SparseTensorProto, TensorProto};
use super::table::{Convert, Table};
use super::tensors::{External, TensorError};
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::graph::{Block, Builder, Function, NodeId, Origins, ValueId};
use crate::tensor::Tensor;
use crate::types::TensorType;
use indexmap::{IndexMap, IndexSet};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The most nodes that inlining functions and unrolling loops may make.
const MAX_NODES: usize = 1 << 18;
/// How many elements folding may compute in all.
const FOLD_BUDGET: usize = 1 << 28;
/// The deepest nesting of functions and graphs in nodes.
const MAX_DEPTH: usize = 64;

/// What a name of the file stands for.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A value of the graph.
    Value(ValueId),
    /// A tensor known before the run, and the name it had.
    Known {
        /// Its value.
        tensor: Tensor,
        /// Its name in the file.
        name: Option<Rc<str>>,
    },
    /// A list whose length is known before the run.
    Sequence(Vec<Item>),
    /// An optional without a value.
    Nothing,
    /// Elements of a type that the graph has not, by what carries them.
    Foreign(Box<Item>, Foreign),
    /// Something whose type is not one of ours.
    Unusable(String),
    /// The result of a node whose failure was reported.
    Failed,
}

impl Item {
    /// A tensor known before the run.
    pub(crate) fn known(tensor: Tensor) -> Item {
        Item::Known { tensor, name: None }
    }

    /// The same as elements of the type of that ONNX number, where the graph has not that type.
    pub(crate) fn carrying(self, number: i32) -> Item {
        match Foreign::of(number) {
            Some(foreign) => Item::Foreign(Box::new(self), foreign),
            None => self,
        }
    }
}

impl From<TensorError> for ImportError {
    fn from(error: TensorError) -> ImportError {
        match error {
            TensorError::Unsupported(what) => ImportError::Unsupported(what),
            TensorError::Malformed(what) | TensorError::Missing(what) => ImportError::Invalid(what),
        }
    }
}

/// The version of each operator set that nodes are of.
pub(crate) type Opsets = BTreeMap<String, i64>;

/// The names of one graph or function body.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    names: BTreeMap<String, Item>,
    /// Whether names of the scopes around are hidden: a function's body sees none of its caller's.
    closed: bool,
}

/// Constants of one block, by place of their bytes and by type.
type Constants = IndexMap<(usize, TensorType), ValueId>;

/// A node that was not converted.
#[derive(Debug)]
struct Failure {
    op: String,
    node: String,
    error: ImportError,
}

/// The state of one import.
#[derive(Debug)]
pub(crate) struct Importer<'m> {
    functions: &'m [FunctionProto],
    /// Functions by domain, name and overload.
    function_index: BTreeMap<(&'m str, &'m str, &'m str), usize>,
    external: &'m External,
    table: Table,
    scopes: Vec<Scope>,
    blocks: Vec<Constants>,
    known: IndexMap<ValueId, Tensor>,
    value_names: BTreeSet<String>,
    failures: Vec<Failure>,
    /// The names of the nodes around, innermost last, that origins start with.
    path: Vec<String>,
    converted: usize,
    /// Names of source nodes.
    pub(crate) origins: IndexSet<String>,
    /// Values that would have to be known.
    wanted: Vec<ValueId>,
    /// Elements that folding may still compute.
    fold_budget: usize,
}

impl<'m> Importer<'m> {
    pub(crate) fn new(functions: &'m [FunctionProto], external: &'m External) -> Importer<'m> {
        Importer {
            functions,
            function_index: functions
                .iter()
                .enumerate()
                .map(|(index, function)| (function_key(function), index))
                .collect(),
            external,
            table: Table::new(),
            scopes: vec![Scope::default()],
            blocks: vec![Constants::default()],
            known: IndexMap::new(),
            value_names: BTreeSet::new(),
            failures: Vec::new(),
            path: Vec::new(),
            converted: 0,
            origins: IndexSet::new(),
            wanted: Vec::new(),
            fold_budget: FOLD_BUDGET,
        }
    }

    /// Gives a name to an item in the innermost scope.
    pub(crate) fn bind(&mut self, name: &str, item: Item) {
        let scope = self.scopes.last_mut().expect("there is a scope around");
        scope.names.insert(name.to_owned(), item);
    }

    /// Makes a value of the graph one of the model's inputs.
    pub(crate) fn bind_input(&mut self, name: &str, value: ValueId, number: Option<i32>) {
        self.value_names.insert(name.to_owned());
        self.bind(name, Item::Value(value).carrying(number.unwrap_or(0)));
    }

    /// What a name stands for.
    pub(crate) fn lookup(&self, name: &str) -> Option<&Item> {
        for scope in self.scopes.iter().rev() {
            if let Some(item) = scope.names.get(name) {
                return Some(item);
            }
            if scope.closed {
                return None;
            }
        }
        None
    }

    /// The value of a tensor of the file.
    pub(crate) fn tensor(&self, proto: &TensorProto) -> Result<Tensor, ImportError> {
        Ok(super::tensors::tensor(proto, self.external)?)
    }

    /// The item for an initializer.
    pub(crate) fn initializer(&self, proto: &TensorProto) -> Item {
        match super::tensors::tensor(proto, self.external) {
            Ok(tensor) => {
                let item = Item::Known { tensor, name: Some(proto.name.as_str().into()) };
                item.carrying(proto.data_type)
            }
            Err(TensorError::Unsupported(what)) => Item::Unusable(what),
            Err(TensorError::Malformed(_) | TensorError::Missing(_)) => Item::Failed,
        }
    }

    /// A constant of the graph, made once in each block.
    pub(crate) fn constant(
        &mut self,
        builder: &mut Builder<'_>,
        tensor: Tensor,
        name: Option<&str>,
    ) -> ValueId {
        let key = (tensor.bytes().as_ptr() as usize, tensor.ty().clone());
        if let Some(&value) = self.blocks.iter().find_map(|constants| constants.get(&key)) {
            return value;
        }
        let value = builder.constant(tensor.clone());
        self.known.insert(value, tensor);
        self.blocks.last_mut().expect("there is a block around").insert(key, value);
        if let Some(name) = name {
            self.name_value(builder, value, name);
        }
        value
    }

    /// The graph's value for an item, which must be a tensor.
    pub(crate) fn value(
        &mut self,
        builder: &mut Builder<'_>,
        item: &Item,
    ) -> Result<ValueId, ImportError> {
        match item {
            Item::Value(value) => Ok(*value),
            Item::Known { tensor, name } => {
                Ok(self.constant(builder, tensor.clone(), name.as_deref()))
            }
            Item::Sequence(_) => unsupported("a sequence as a value at run time"),
            Item::Nothing => unsupported("an optional without a value at run time"),
            Item::Foreign(_, foreign) => {
                unsupported(format!("element type {} but in casts", foreign.name()))
            }
            Item::Unusable(what) => unsupported(what.clone()),
            Item::Failed => Err(ImportError::Reported),
        }
    }

    /// The item for a value of the graph: its tensor where it is a constant.
    pub(crate) fn item(&self, value: ValueId) -> Item {
        match self.known.get(&value) {
            Some(tensor) => Item::known(tensor.clone()),
            None => Item::Value(value),
        }
    }

    fn name_value(&mut self, builder: &mut Builder<'_>, value: ValueId, name: &str) {
        let slot = &mut builder.function.values[value].name;
        if slot.is_none() && self.value_names.insert(name.to_owned()) {
            *slot = Some(name.to_owned());
        }
    }

    /// Converts nodes, in an order in which every value is defined before it is used.
    pub(crate) fn nodes(
        &mut self,
        builder: &mut Builder<'_>,
        nodes: &[NodeProto],
        opsets: &Opsets,
    ) -> Result<(), ImportError> {
        if self.path.len() > MAX_DEPTH {
            return unsupported(format!("graphs nested deeper than {MAX_DEPTH}"));
        }
        for index in super::order::order(nodes) {
            self.node(builder, &nodes[index], index, opsets);
            if self.converted > MAX_NODES {
                return unsupported(format!("more than {MAX_NODES} nodes"));
            }
        }
        Ok(())
    }

    fn node(&mut self, builder: &mut Builder<'_>, node: &NodeProto, index: usize, opsets: &Opsets) {
        self.converted += 1;
        let own = match node.name.as_str() {
            "" => format!("{}_{index}", node.op_type),
            name => name.to_owned(),
        };
        self.path.push(own);
        let name = self.path.join("/");
        let (origin, _) = self.origins.insert_full(name.clone());
        let outer = std::mem::replace(
            &mut builder.origins,
            Origins::from_elem(u32::try_from(origin).unwrap_or(u32::MAX), 1),
        );
        let (start, first_constant) = (builder.nodes.len(), self.innermost().len());
        let items = self.convert(builder, node, opsets);
        let items = match items {
            Ok(items) => items,
            Err(error) => {
                builder.nodes.truncate(start);
                self.innermost().truncate(first_constant);
                self.fail(node, name, error);
                vec![Item::Failed; node.output.len()]
            }
        };
        builder.origins = outer;
        self.path.pop();
        let padding = std::iter::repeat(Item::Unusable(format!(
            "an output of {} that is not computed",
            node.op_type
        )));
        for (output, item) in node.output.iter().zip(items.into_iter().chain(padding)) {
            if output.is_empty() {
                continue;
            }
            let item = match item {
                Item::Value(value) => {
                    self.name_value(builder, value, output);
                    Item::Value(value)
                }
                Item::Known { tensor, .. } => {
                    Item::Known { tensor, name: Some(output.as_str().into()) }
                }
                Item::Foreign(..)
                | Item::Sequence(_)
                | Item::Nothing
                | Item::Unusable(_)
                | Item::Failed => item,
            };
            self.bind(output, item);
        }
    }

    fn innermost(&mut self) -> &mut Constants {
        self.blocks.last_mut().expect("there is a block around")
    }

    fn convert(&mut self, builder: &mut Builder<'_>, node: &NodeProto, opsets: &Opsets) -> Items {
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            let item = match name.as_str() {
                "" => None,
                name => match self.lookup(name) {
                    Some(Item::Failed) => return Err(ImportError::Reported),
                    Some(item) => Some(item.clone()),
                    None => return invalid(format!("nothing defines {name}")),
                },
            };
            inputs.push(item);
        }
        if let Some(function) = self.function(node) {
            return self.inline(builder, node, function, inputs);
        }
        let domain = normal_domain(&node.domain);
        // Files of the first format, and many with other domains' nodes, do not say a version.
        let opset = opsets.get(domain).copied().unwrap_or(1);
        let Some(row) = self.table.find(domain, &node.op_type, opset) else {
            return Err(ImportError::NoOperator);
        };
        let start = builder.nodes.len();
        let first_constant = self.innermost().len();
        let foldable = inputs.iter().all(|item| matches!(item, None | Some(Item::Known { .. })));
        let mut context = NodeContext {
            node,
            opset,
            opsets,
            builder: &mut *builder,
            importer: &mut *self,
            inputs,
        };
        let items = match row {
            Convert::Values(convert) => convert(&mut context)
                .map(|values| values.into_iter().map(Item::Value).collect::<Vec<Item>>()),
            Convert::Items(convert) => convert(&mut context),
        };
        let mut items = match items {
            Ok(items) => items,
            Err(error) => {
                if let ImportError::NeedsValue(name) = &error {
                    self.want(name);
                }
                return Err(error);
            }
        };
        if foldable
            && let Some(tensors) =
                fold::fold(builder, start, &items, &self.known, &mut self.fold_budget)
        {
            builder.nodes.truncate(start);
            self.innermost().truncate(first_constant);
            return Ok(tensors.into_iter().map(Item::known).collect());
        }
        for item in &mut items {
            if let Item::Value(value) = *item {
                *item = self.item(value);
            }
        }
        Ok(items)
    }

    /// Notes that the value of a name would have to be known.
    pub(crate) fn want(&mut self, name: &str) {
        if let Some(Item::Value(value)) = self.lookup(name) {
            self.wanted.push(*value);
        }
    }

    /// The inputs of the model whose values would have to be known to get further.
    pub(crate) fn wanted(&self, function: &Function) -> BTreeSet<String> {
        let mut definitions: BTreeMap<ValueId, NodeId> = BTreeMap::new();
        for (id, node) in function.nodes.iter() {
            definitions.extend(node.results.iter().map(|&result| (result, id)));
        }
        let mut seen: BTreeSet<ValueId> = self.wanted.iter().copied().collect();
        let mut open = self.wanted.clone();
        let mut inputs = BTreeSet::new();
        while let Some(value) = open.pop() {
            match definitions.get(&value) {
                Some(&node) => {
                    let operands = &function.nodes[node].operands;
                    open.extend(operands.iter().copied().filter(|&operand| seen.insert(operand)));
                }
                None if function.body.params.contains(&value) => {
                    inputs.extend(function.values[value].name.clone());
                }
                None => {}
            }
        }
        inputs
    }

    fn function(&self, node: &NodeProto) -> Option<&'m FunctionProto> {
        let functions: &'m [FunctionProto] = self.functions;
        let key = (normal_domain(&node.domain), node.op_type.as_str(), node.overload.as_str());
        let index = self.function_index.get(&key as &(&str, &str, &str))?;
        functions.get(*index)
    }

    /// Puts a function's body in the place of a node that calls it.
    fn inline(
        &mut self,
        builder: &mut Builder<'_>,
        node: &NodeProto,
        function: &FunctionProto,
        inputs: Vec<Option<Item>>,
    ) -> Items {
        // The body is copied with the call's attributes, which takes time even where nothing comes of it.
        self.converted = self.converted.saturating_add(function.node.len());
        if self.converted > MAX_NODES {
            return unsupported(format!("more than {MAX_NODES} nodes"));
        }
        let mut scope = Scope { names: BTreeMap::new(), closed: true };
        for (name, item) in
            function.input.iter().zip(inputs.into_iter().chain(std::iter::repeat(None)))
        {
            if let Some(item) = item {
                scope.names.insert(name.clone(), item);
            }
        }
        let nodes: Vec<NodeProto> = function
            .node
            .iter()
            .map(|inner| super::order::with_attributes(inner, node, function))
            .collect();
        // An input that is left out is left out of the nodes that take it, too.
        let absent: BTreeSet<&str> = function
            .input
            .iter()
            .filter(|name| !scope.names.contains_key(*name))
            .map(String::as_str)
            .collect();
        let nodes: Vec<NodeProto> = nodes
            .into_iter()
            .map(|mut inner| {
                for input in &mut inner.input {
                    if absent.contains(input.as_str()) {
                        input.clear();
                    }
                }
                inner
            })
            .collect();
        let opsets = super::opsets(&function.opset_import);
        self.scopes.push(scope);
        let done = self.nodes(builder, &nodes, &opsets);
        let items = function
            .output
            .iter()
            .map(|name| match self.lookup(name) {
                Some(item) => Ok(item.clone()),
                None => invalid(format!("nothing in function {} defines {name}", function.name)),
            })
            .collect();
        self.scopes.pop();
        done?;
        items
    }

    /// Converts a graph of a node in the place of the node.
    pub(crate) fn inline_graph(
        &mut self,
        builder: &mut Builder<'_>,
        graph: &GraphProto,
        inputs: Vec<Item>,
        opsets: &Opsets,
    ) -> Items {
        if inputs.len() < graph.input.len() {
            return invalid(format!(
                "the graph takes {} inputs, not {}",
                graph.input.len(),
                inputs.len()
            ));
        }
        self.scopes.push(Scope::default());
        for proto in &graph.initializer {
            let item = self.initializer(proto);
            self.bind(&proto.name, item);
        }
        for (input, item) in graph.input.iter().zip(inputs) {
            self.bind(&input.name, item);
        }
        let done = self.nodes(builder, &graph.node, opsets);
        let items = graph
            .output
            .iter()
            .map(|output| match self.lookup(&output.name) {
                Some(Item::Failed) => Err(ImportError::Reported),
                Some(item) => Ok(item.clone()),
                None => invalid(format!("nothing defines {}", output.name)),
            })
            .collect();
        self.scopes.pop();
        done?;
        items
    }

    /// Builds a block with those parameters: `build` adds its nodes and gives its results.
    pub(crate) fn block(
        &mut self,
        builder: &mut Builder<'_>,
        params: Vec<ValueId>,
        build: impl FnOnce(&mut Self, &mut Builder<'_>) -> Result<Vec<ValueId>, ImportError>,
    ) -> Result<Block, ImportError> {
        let outer = std::mem::take(&mut builder.nodes);
        self.enter_block();
        let results = build(self, builder);
        self.leave_block();
        let nodes = std::mem::replace(&mut builder.nodes, outer);
        Ok(Block { params, nodes, results: results? })
    }

    /// Starts a block: constants made from here on are of the block.
    pub(crate) fn enter_block(&mut self) {
        self.blocks.push(Constants::default());
    }

    /// Ends a block.
    pub(crate) fn leave_block(&mut self) {
        self.blocks.pop();
    }

    /// How many constants of the block and failures there are, for [`Importer::rewind`].
    pub(crate) fn mark(&self) -> (usize, usize) {
        (self.blocks.last().map_or(0, IndexMap::len), self.failures.len())
    }

    /// Forgets what came after a mark.
    pub(crate) fn rewind(&mut self, constants: usize, failures: usize) {
        self.innermost().truncate(constants);
        self.failures.truncate(failures);
    }

    /// A number for the node under conversion, that no other node has.
    pub(crate) fn place(&self) -> i64 {
        self.converted as i64
    }

    /// The value of a sparse tensor of the file.
    pub(crate) fn sparse(&self, proto: &SparseTensorProto) -> Result<Tensor, ImportError> {
        Ok(super::tensors::dense(proto, self.external)?)
    }

    fn fail(&mut self, node: &NodeProto, name: String, error: ImportError) {
        if error != ImportError::Reported {
            let op = operator(node);
            self.failures.push(Failure { op, node: name, error });
        }
    }

    /// Nodes without a row, in these and in their graphs, by operator.
    fn missing<'n>(
        &self,
        nodes: &'n [NodeProto],
        opsets: &Opsets,
        missing: &mut BTreeMap<String, Vec<&'n str>>,
    ) {
        for node in nodes {
            let domain = normal_domain(&node.domain);
            let opset = opsets.get(domain).copied().unwrap_or(1);
            let known = self.function(node).is_some()
                || self.table.find(domain, &node.op_type, opset).is_some();
            if !known {
                let name = if node.name.is_empty() { &node.op_type } else { &node.name };
                missing.entry(operator(node)).or_default().push(name);
            }
            for attribute in &node.attribute {
                for graph in attribute.g.iter().chain(&attribute.graphs) {
                    self.missing(&graph.node, opsets, missing);
                }
            }
        }
    }

    /// What went wrong: what is not supported is grouped by operator and reason.
    pub(crate) fn diagnostics(
        &self,
        graph: &GraphProto,
        opsets: &Opsets,
        wanted: &BTreeSet<String>,
    ) -> Diagnostics {
        let mut diagnostics = Diagnostics::default();
        // A node behind one that failed was not looked at: its operator may be missing, too.
        if self.failures.iter().any(|failure| failure.error == ImportError::NoOperator) {
            let mut missing = BTreeMap::new();
            self.missing(&graph.node, opsets, &mut missing);
            for function in self.functions {
                self.missing(&function.node, &super::opsets(&function.opset_import), &mut missing);
            }
            for (op, nodes) in missing {
                let message = match nodes.len() {
                    1 => format!("there is no operator {op}"),
                    count => format!("there is no operator {op}, which {count} nodes are of"),
                };
                diagnostics
                    .push(Diagnostic::error(Code::Unsupported, message).on_node(first_of(&nodes)));
            }
        }
        let mut groups: IndexMap<(String, String, Code), Vec<&str>> = IndexMap::new();
        for failure in &self.failures {
            let (reason, code) = match &failure.error {
                ImportError::Unsupported(reason) => (reason.clone(), Code::Unsupported),
                ImportError::Invalid(reason) => (reason.clone(), Code::OpType),
                ImportError::NeedsValue(_) => (failure.error.to_string(), Code::Unsupported),
                ImportError::NoOperator | ImportError::Reported => continue,
            };
            groups.entry((failure.op.clone(), reason, code)).or_default().push(&failure.node);
        }
        for ((op, reason, code), nodes) in groups {
            let message = match (code, nodes.len()) {
                (Code::Unsupported, 1) => format!("{op} is not supported: {reason}"),
                (Code::Unsupported, count) => {
                    format!("{op} is not supported in {count} nodes: {reason}")
                }
                (_, _) => format!("{op}: {reason}"),
            };
            let mut diagnostic = Diagnostic::error(code, message).on_node(first_of(&nodes));
            if reason.ends_with("only known at run time") && !wanted.is_empty() {
                let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
                diagnostic = diagnostic.with_help(format!(
                    "give the value of {} when the model is compiled",
                    wanted.join(", ")
                ));
            }
            diagnostics.push(diagnostic);
        }
        diagnostics
    }
}

fn function_key(function: &FunctionProto) -> (&str, &str, &str) {
    (normal_domain(&function.domain), &function.name, &function.overload)
}

/// The first names of a list.
fn first_of(nodes: &[&str]) -> String {
    let mut first: Vec<&str> = nodes.iter().take(3).copied().collect();
    if nodes.len() > 3 {
        first.push("…");
    }
    first.join(", ")
}

/// The name of an operator with its domain, where that is not the standard one.
fn operator(node: &NodeProto) -> String {
    match normal_domain(&node.domain) {
        "" => node.op_type.clone(),
        domain => format!("{domain}.{}", node.op_type),
    }
}

/// The standard domain has two names.
pub(crate) fn normal_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}
