//! `systole diff`: every value of the graph on two targets, in the order in which it is computed.

use super::args::DiffArgs;
use super::compare;
use super::console;
use super::failure::Failure;
use super::guard::Context;
use super::session::{self, Wanted};
use serde_json::json;
use std::collections::BTreeMap;
use systole::{Compiler, Inputs, Model, Outputs, Target};
use systole_compiler::graph::{Graph, NodeId};
use systole_compiler::op::{Kind, Op};

pub(super) fn diff(context: &Context, args: &DiffArgs) -> Result<(), Failure> {
    let targets = [Target::from_name(&args.a)?, Target::from_name(&args.b)?];
    let model = session::load(context, &args.model)?;
    let bound = args
        .dims
        .iter()
        .fold(Compiler::new().target(Target::reference()), |compiler, (name, size)| {
            compiler.bind(name, *size)
        });
    let signature = bound.compile(&model)?.signature().clone();
    let inputs = session::inputs(context, &signature, &args.inputs, Wanted::All)?;
    let dims: BTreeMap<String, usize> = args.dims.iter().cloned().collect();
    let mut graph = model.graph(&dims, &inputs)?;
    let places = expose(&mut graph);
    let exposed = Model::from_graph(model.name(), graph);
    let taken: Inputs =
        inputs.iter().filter(|(name, _)| exposed.signature().input(name).is_some()).collect();
    let [a, b] = targets.map(|target| run(context, &exposed, target, &taken));
    let (a, b) = (a?, b?);
    context.enter("compare");
    let mut first = None;
    let mut different = 0;
    for (place, ((_, a), (_, b))) in places.iter().zip(a.iter().zip(b.iter())) {
        let difference = compare::tensors(b, a, args.tol);
        if !difference.is_none_too_large() {
            different += 1;
            first.get_or_insert_with(|| (place, difference.to_string()));
        }
    }
    let count = places.len();
    let text = if context.json {
        let first = first.as_ref().map(|(place, what)| {
            json!({"value": place.value, "op": place.op, "nodes": place.nodes, "difference": what})
        });
        let object = json!({
            "schema": 1, "model": model.name(), "a": args.a, "b": args.b,
            "values": count, "different": different, "first": first,
        });
        format!("{object}\n")
    } else {
        match &first {
            None => format!("{} and {} agree on all {count} values\n", args.a, args.b),
            Some((place, what)) => format!(
                "{} and {} differ on {different} of {count} values, first at %{}, the result of {}{}\n{what}\n",
                args.a,
                args.b,
                place.value,
                place.op,
                place.nodes_text(),
            ),
        }
    };
    console::print(&text)?;
    if different == 0 { Ok(()) } else { Err(Failure::Different) }
}

/// A value that is compared.
struct Place {
    value: String,
    op: &'static str,
    nodes: Vec<String>,
}

impl Place {
    fn nodes_text(&self) -> String {
        if self.nodes.is_empty() {
            String::new()
        } else {
            format!(" (node {})", self.nodes.join(", "))
        }
    }
}

/// Makes every value that the entry computes a result, in order.
fn expose(graph: &mut Graph) -> Vec<Place> {
    let origins = graph.origins.clone();
    let function = graph.entry_mut();
    let names = systole_compiler::text::value_names(function);
    let nodes: Vec<NodeId> = function.body.nodes.clone();
    let mut places = Vec::new();
    function.body.results.clear();
    function.result_names.clear();
    function.state.clear();
    for node in nodes {
        let node = function.nodes[node].clone();
        if matches!(node.op.kind(), Kind::Source) || matches!(node.op, Op::Constant(_)) {
            continue;
        }
        let from =
            node.origins.iter().filter_map(|&index| origins.get_index(index as usize).cloned());
        let from: Vec<String> = from.collect();
        for &result in &node.results {
            let value =
                names.get(result.index()).cloned().unwrap_or_else(|| result.index().to_string());
            function.result(result, &format!("{}:{value}", places.len()));
            places.push(Place { value, op: node.op.name(), nodes: from.clone() });
        }
    }
    places
}

fn run(
    context: &Context,
    model: &Model,
    target: Target,
    inputs: &Inputs,
) -> Result<Outputs, Failure> {
    context.enter(&format!("compile for {target}"));
    let program = Compiler::new().target(target.clone()).compile(model)?;
    context.enter(&format!("run on {target}"));
    Ok(program.run_with(&context.run_options(), inputs.clone())?)
}
