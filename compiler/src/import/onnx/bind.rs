//! A graph of a model whose sizes are given.

use super::Source;
use super::convert::{Importer, Item};
use super::proto::GraphProto;
use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::graph::{Block, Builder, Function, Graph};
use crate::import::{Bindings, Dim, Port};
use crate::op::Kind;
use crate::tensor::shape_text;
use crate::types::{DType, TensorType};
use std::collections::{BTreeMap, BTreeSet};

/// Why there is no graph.
#[derive(Debug)]
pub(crate) struct BindFailure {
    pub(crate) diagnostics: Diagnostics,
    pub(crate) wanted: BTreeSet<String>,
}

impl From<Diagnostics> for BindFailure {
    fn from(diagnostics: Diagnostics) -> BindFailure {
        BindFailure { diagnostics, wanted: BTreeSet::new() }
    }
}

pub(crate) fn bind(source: &Source, bindings: &Bindings) -> Result<Graph, BindFailure> {
    let empty = GraphProto::default();
    let graph_proto = source.model.graph.as_ref().unwrap_or(&empty);
    let types = input_types(source, bindings)?;
    let opsets = super::opsets(&source.model.opset_import);
    let mut importer = Importer::new(&source.model.functions, &source.external);
    let mut function = Function::default();

    for proto in &graph_proto.initializer {
        let item = importer.initializer(proto);
        importer.bind(&proto.name, item);
    }
    for sparse in &graph_proto.sparse_initializer {
        if let Some(values) = &sparse.values {
            let item = match super::tensors::dense(sparse, &source.external) {
                Ok(tensor) => Item::known(tensor),
                Err(error) => Item::Unusable(super::context::ImportError::from(error).to_string()),
            };
            importer.bind(&values.name, item);
        }
    }
    let numbers: BTreeMap<&str, i32> = graph_proto
        .input
        .iter()
        .filter_map(|input| {
            let tensor = input.r#type.as_ref()?.tensor_type.as_ref()?;
            Some((input.name.as_str(), tensor.elem_type))
        })
        .collect();
    for (port, ty) in &types {
        match ty {
            Input::Parameter(ty) => {
                let value = function.parameter(ty.clone(), &port.name);
                importer.bind_input(&port.name, value, numbers.get(port.name.as_str()).copied());
            }
            Input::Constant(item) => {
                let number = numbers.get(port.name.as_str()).copied().unwrap_or(0);
                importer.bind(&port.name, item.clone().carrying(number));
            }
        }
    }

    let mut builder = Builder::new(&mut function);
    let done = importer.nodes(&mut builder, &graph_proto.node, &opsets);
    let wanted = importer.wanted(builder.function);
    let mut diagnostics = importer.diagnostics(graph_proto, &opsets, &wanted);
    if let Err(error) = done {
        diagnostics.push(Diagnostic::error(Code::TooLarge, error.to_string()));
    }
    let mut results = Vec::new();
    for output in &graph_proto.output {
        let Some(item) = importer.lookup(&output.name).cloned() else {
            let message = format!("nothing defines the output {}", output.name);
            diagnostics.push(Diagnostic::error(Code::UnknownName, message));
            continue;
        };
        if matches!(item, Item::Failed) {
            continue;
        }
        // A type that the graph has not is given as its codes.
        let item = match item {
            Item::Foreign(carrier, foreign) if foreign.bits() == 8 => *carrier,
            Item::Value(_)
            | Item::Known { .. }
            | Item::Sequence(_)
            | Item::Nothing
            | Item::Foreign(..)
            | Item::Unusable(_)
            | Item::Failed => item,
        };
        match importer.value(&mut builder, &item) {
            Ok(value) => results.push((value, output.name.as_str())),
            Err(error) => {
                let message = format!("output {}: {error}", output.name);
                diagnostics.push(Diagnostic::error(Code::Unsupported, message));
            }
        }
    }
    if diagnostics.has_errors() {
        return Err(BindFailure { diagnostics, wanted });
    }
    function.body.nodes = builder.nodes;
    for (value, name) in results {
        function.result(value, name);
    }
    remove_unused(&mut function);
    let mut graph = Graph::new("main");
    graph.origins = std::mem::take(&mut importer.origins);
    *graph.entry_mut() = function;
    Ok(graph)
}

/// Takes nodes without effect out of every block: most are constants that only shapes needed.
fn remove_unused(function: &mut Function) {
    let mut used = vec![false; function.values.len()];
    let mut body = std::mem::take(&mut function.body);
    sweep(function, &mut body, &mut used);
    function.body = body;
}

fn sweep(function: &mut Function, block: &mut Block, used: &mut [bool]) {
    block.results.iter().for_each(|value| used[value.index()] = true);
    let mut kept = Vec::with_capacity(block.nodes.len());
    for &node in block.nodes.iter().rev() {
        let found = &function.nodes[node];
        let live = found.results.iter().any(|value| used[value.index()])
            || found.op.kind() == Kind::Collective;
        if !live {
            continue;
        }
        found.operands.iter().for_each(|value| used[value.index()] = true);
        let mut blocks = std::mem::take(&mut function.nodes[node].blocks);
        blocks.iter_mut().for_each(|inner| sweep(function, inner, used));
        function.nodes[node].blocks = blocks;
        kept.push(node);
    }
    kept.reverse();
    block.nodes = kept;
}

enum Input {
    Parameter(TensorType),
    Constant(Item),
}

fn input_types<'s>(
    source: &'s Source,
    bindings: &Bindings,
) -> Result<Vec<(&'s Port, Input)>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let signature = &source.signature;
    let mut sizes: BTreeMap<String, usize> = bindings.dims.clone();
    let known: BTreeSet<&str> = signature.inputs.iter().map(|port| port.name.as_str()).collect();
    for name in bindings.inputs.keys().chain(bindings.constants.keys()) {
        if !known.contains(name.as_str()) {
            let names: Vec<&str> = known.iter().copied().collect();
            diagnostics.push(
                Diagnostic::error(Code::Input, format!("there is no input {name}"))
                    .with_help(format!("the inputs are {}", names.join(", "))),
            );
        }
    }
    // The sizes of symbols first: one input may give what another one needs.
    for port in &signature.inputs {
        let constant = bindings.constants.get(&port.name).map(|tensor| tensor.ty());
        let Some(ty) = constant.or_else(|| bindings.inputs.get(&port.name)) else { continue };
        if let Some(wanted) = port.dtype
            && wanted != ty.dtype
        {
            let message = format!("input {} is of {wanted}, not {}", port.name, ty.dtype);
            diagnostics.push(Diagnostic::error(Code::Input, message));
        }
        let Some(dims) = &port.dims else { continue };
        if dims.len() != ty.rank() {
            let message =
                format!("input {} has {} dimensions, not {}", port.name, dims.len(), ty.rank());
            diagnostics.push(Diagnostic::error(Code::Input, message));
            continue;
        }
        for (axis, (dim, &size)) in dims.iter().zip(&ty.shape).enumerate() {
            match dim {
                Dim::Fixed(fixed) if *fixed != size => {
                    let message =
                        format!("dimension {axis} of input {} is {fixed}, not {size}", port.name);
                    diagnostics.push(Diagnostic::error(Code::Input, message));
                }
                Dim::Symbol(symbol) => {
                    let bound = *sizes.entry(symbol.clone()).or_insert(size);
                    if bound != size {
                        let message = format!(
                            "dimension {symbol} is {bound}, but {size} in input {}: {}",
                            port.name,
                            shape_text(&ty.shape)
                        );
                        diagnostics.push(Diagnostic::error(Code::UnboundDimension, message));
                    }
                }
                Dim::Fixed(_) | Dim::Unknown => {}
            }
        }
    }
    let mut unbound: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let mut types = Vec::new();
    for port in &signature.inputs {
        if let Some(tensor) = bindings.constants.get(&port.name) {
            let item =
                Item::Known { tensor: tensor.clone(), name: Some(port.name.as_str().into()) };
            types.push((port, Input::Constant(item)));
            continue;
        }
        if let Some(ty) = bindings.inputs.get(&port.name) {
            types.push((port, Input::Parameter(ty.clone())));
            continue;
        }
        let Some(dtype) = port.dtype else {
            types.push((
                port,
                Input::Constant(Item::Unusable(format!("the type of input {}", port.name))),
            ));
            continue;
        };
        if let Some(ty) = sized(port, dtype, &sizes, &mut unbound, &mut diagnostics) {
            types.push((port, Input::Parameter(ty)));
        }
    }
    for (name, inputs) in unbound {
        let inputs: Vec<&str> = inputs.into_iter().collect();
        let message = format!("dimension {name} of {} is not bound", inputs.join(", "));
        diagnostics.push(
            Diagnostic::error(Code::UnboundDimension, message)
                .with_help(format!("bind it: --dim {name}=N")),
        );
    }
    for (port, input) in &types {
        if let Input::Parameter(ty) = input
            && ty.checked_count().is_none()
        {
            let message = format!("input {} of {ty} is larger than any memory", port.name);
            diagnostics.push(Diagnostic::error(Code::TooLarge, message));
        }
    }
    diagnostics.into_result(types)
}

/// The type of an input by the sizes of its symbols.
fn sized<'s>(
    port: &'s Port,
    dtype: DType,
    sizes: &BTreeMap<String, usize>,
    unbound: &mut BTreeMap<String, BTreeSet<&'s str>>,
    diagnostics: &mut Diagnostics,
) -> Option<TensorType> {
    let Some(dims) = &port.dims else {
        let message = format!("the number of dimensions of input {} is not known", port.name);
        diagnostics.push(
            Diagnostic::error(Code::UnboundDimension, message)
                .with_help("give the input's type or value"),
        );
        return None;
    };
    let mut shape = Vec::with_capacity(dims.len());
    for (axis, dim) in dims.iter().enumerate() {
        let name = match dim {
            Dim::Fixed(size) => {
                shape.push(*size);
                continue;
            }
            Dim::Symbol(name) => name.clone(),
            Dim::Unknown => format!("{}.{axis}", port.name),
        };
        match sizes.get(&name) {
            Some(&size) => shape.push(size),
            None => {
                unbound.entry(name).or_default().insert(&port.name);
            }
        }
    }
    (shape.len() == dims.len()).then(|| TensorType::new(dtype, &shape))
}
