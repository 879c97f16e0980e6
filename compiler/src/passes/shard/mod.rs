//! Divides a program among the ranks of its mesh: shardings spread from where the program says them, every node works on
//! parts, and exchanges stand where the parts that are there are not those that are needed.
//!
//! All ranks run one program, but where values are on stages of a pipeline: stages differ, and each rank holds the
//! weights of its own alone, so each stage has a program, and values go from one to the next as messages. A node is on
//! the stage that the program says for its result, else on the last of its operands' stages.

mod annotate;
mod divide;
mod propagate;
mod reshard;
mod rules;

pub use annotate::{annotate, lift_constants};
pub use propagate::Conflict;
pub use reshard::{BytesSent, Cost, Exchanged};

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::graph::{Block, Function, Graph, ValueId};
use crate::mesh::{Mesh, Sharding};
use crate::op::{Kind, Op};
use crate::pass::{Changed, Context, Pass};
use crate::tensor::Tensor;
use divide::Divider;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
pub const PASS: Pass<Graph> = Pass {
    name: "shard",
    summary: "Makes a program with shardings that of one rank of its mesh, with collectives.",
    run,
};

fn run(graph: &mut Graph, context: &Context<'_>) -> Result<Changed, Diagnostics> {
    if graph.mesh.as_ref().is_none_or(|mesh| mesh.divided) {
        return Ok(Changed::No);
    }
    let mut divided = divide(graph, &BytesSent)?;
    for warning in &divided.warnings {
        context.decline(
            PASS.name,
            warning.node.clone().unwrap_or_default(),
            warning.message.clone(),
        );
    }
    if divided.programs.len() > 1 {
        let message = format!(
            "the program has {} stages, and each becomes a program of its own",
            divided.programs.len()
        );
        return Err(Diagnostic::error(Code::Unsupported, message).into());
    }
    *graph = divided.programs.swap_remove(0).graph;
    Ok(Changed::Yes)
}

/// The programs that the ranks of a mesh run.
#[derive(Clone, Debug)]
pub struct Divided {
    /// The ranks.
    pub mesh: Mesh,
    /// One, or one for each stage.
    pub programs: Vec<Program>,
    /// The program of each rank.
    pub program_of: Vec<usize>,
    /// What did not go together.
    pub warnings: Vec<Diagnostic>,
}

/// The program of some ranks. The shardings of its parameters and results say which parts of the whole they are.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub graph: Graph,
    /// For each parameter, which one of the whole program it is a part of.
    pub inputs: Vec<usize>,
    /// For each result.
    pub outputs: Vec<usize>,
}

impl Divided {
    /// The ranks that all run that program of one of them; `None` where it is none.
    pub fn of_rank(graph: &Graph) -> Option<Divided> {
        let mesh = graph.mesh.clone().filter(|mesh| mesh.divided)?;
        let body = &graph.entry().body;
        let program = Program {
            graph: graph.clone(),
            inputs: (0..body.params.len()).collect(),
            outputs: (0..body.results.len()).collect(),
        };
        let program_of = vec![0; mesh.ranks()];
        Some(Divided { mesh, programs: vec![program], program_of, warnings: Vec::new() })
    }

    /// A rank's parts of the whole program's inputs.
    pub fn inputs(&self, rank: usize, whole: &[Tensor]) -> Vec<Tensor> {
        let program = &self.programs[self.program_of[rank]];
        let function = program.graph.entry();
        let part = |(&position, param): (&usize, &ValueId)| match function.shardings.get(param) {
            Some(sharding) => sharding.cut(&whole[position], &self.mesh, rank),
            None => whole[position].clone(),
        };
        program.inputs.iter().zip(&function.body.params).map(part).collect()
    }

    /// The part of a weight that a rank has; nothing where its program has none of that name.
    pub fn weight(&self, rank: usize, name: &str, whole: &Tensor) -> Option<Tensor> {
        let function = self.programs[self.program_of[rank]].graph.entry();
        let mut found = None;
        function.visit(&function.body, &mut |id| {
            let node = &function.nodes[id];
            if matches!(&node.op, Op::Parameter(op) if op.name == name) {
                found = node.results.first().copied();
            }
        });
        let found = found?;
        Some(match function.shardings.get(&found) {
            Some(sharding) => sharding.cut(whole, &self.mesh, rank),
            None => whole.clone(),
        })
    }

    /// The whole program's results, from those of all ranks.
    pub fn outputs(&self, results: &[Vec<Tensor>]) -> Vec<Tensor> {
        let count = self.programs.iter().map(|program| program.outputs.len()).sum();
        let mut whole: Vec<Option<Tensor>> = vec![None; count];
        for (number, program) in self.programs.iter().enumerate() {
            let function = program.graph.entry();
            for (place, (&position, value)) in
                program.outputs.iter().zip(&function.body.results).enumerate()
            {
                let ranks = (0..results.len()).filter(|&rank| self.program_of[rank] == number);
                let parts: Vec<(usize, Tensor)> =
                    ranks.map(|rank| (rank, results[rank][place].clone())).collect();
                let otherwise = Sharding::whole(function.ty(*value).rank());
                let sharding = function.shardings.get(value).unwrap_or(&otherwise);
                whole[position] = sharding.join(&parts, &self.mesh);
            }
        }
        whole.into_iter().map(|value| value.expect("each result is that of one program")).collect()
    }
}

/// The programs of the ranks of a verified graph with a mesh, without composites and calls.
pub fn divide(graph: &Graph, cost: &dyn Cost) -> Result<Divided, Diagnostics> {
    let Some(mesh) = graph.mesh.clone() else {
        return Err(Diagnostic::error(Code::Unsupported, "the program has no mesh").into());
    };
    let function = graph.entry();
    let stages = Stages::of(function, &mesh)?;
    let plan = propagate::propagate(function, &mesh);
    let warnings =
        plan.conflicts.iter().map(|conflict| warning(function, &mesh, conflict)).collect();
    let mut dividers: Vec<Divider<'_>> = match &stages.axis {
        None => vec![Divider::new(function, &mesh, &plan, cost, None)],
        Some(axis) => (0..mesh.size(*axis))
            .map(|at| Divider::new(function, &mesh, &plan, cost, Some((*axis, at))))
            .collect(),
    };
    build(function, &mesh, &stages, &mut dividers).map_err(|(why, span)| {
        let mut diagnostic =
            Diagnostic::error(Code::Unsupported, format!("cannot be divided: {why}"));
        diagnostic.span = span;
        diagnostic
    })?;
    let mut programs = Vec::new();
    let divided_mesh = Mesh { divided: true, ..mesh.clone() };
    for (stage, divider) in dividers.into_iter().enumerate() {
        let inputs: Vec<usize> = stages.inputs(stage);
        let outputs: Vec<usize> = stages.outputs(stage);
        let place = |list: &[usize], whole: usize| list.iter().position(|&other| other == whole);
        let state = function
            .state
            .iter()
            .filter_map(|&(input, output)| Some((place(&inputs, input)?, place(&outputs, output)?)))
            .collect();
        let body = divider.finish(&outputs, state).map_err(|why| {
            Diagnostic::error(Code::Unsupported, format!("cannot be divided: {why}"))
        })?;
        let mut divided = Graph {
            origins: graph.origins.clone(),
            mesh: Some(divided_mesh.clone()),
            ..Graph::default()
        };
        let name = graph.functions.keys().next().cloned().unwrap_or_default();
        divided.functions.insert(name, body);
        programs.push(Program { graph: divided, inputs, outputs });
    }
    let program_of = (0..mesh.ranks())
        .map(|rank| stages.axis.map_or(0, |axis| mesh.coordinate(rank, axis)))
        .collect();
    Ok(Divided { mesh: divided_mesh, programs, program_of, warnings })
}

type Stop = (crate::op::TypeError, Option<crate::diagnostic::Span>);

/// Divides the nodes, in order, each for its stage; what another stage needs of a value is sent at once.
fn build(
    function: &Function,
    mesh: &Mesh,
    stages: &Stages,
    dividers: &mut [Divider<'_>],
) -> Result<(), Stop> {
    for (stage, divider) in dividers.iter_mut().enumerate() {
        for position in stages.inputs(stage) {
            divider.parameter(function.body.params[position]);
        }
    }
    let hand_on = |dividers: &mut [Divider<'_>], value: ValueId| -> Result<(), Stop> {
        let Some(axis) = stages.axis else { return Ok(()) };
        let Some(Some(from)) = stages.of_value.get(&value) else { return Ok(()) };
        for &to in stages.users.get(&value).into_iter().flatten().filter(|to| *to != from) {
            let pairs: Vec<Vec<usize>> = (0..mesh.ranks())
                .filter(|&rank| mesh.coordinate(rank, axis) == *from)
                .map(|rank| vec![rank, mesh.moved(rank, axis, to)])
                .collect();
            let sharding = dividers[*from].held(value).sharding;
            dividers[*from].send(value, &pairs).map_err(|why| (why, None))?;
            dividers[to].receive(value, sharding, &pairs).map_err(|why| (why, None))?;
        }
        Ok(())
    };
    for &param in &function.body.params {
        hand_on(dividers, param)?;
    }
    for &id in &function.body.nodes {
        let node = &function.nodes[id];
        let at =
            node.results.first().and_then(|value| stages.of_value.get(value).copied().flatten());
        for (stage, divider) in dividers.iter_mut().enumerate() {
            // Constants are wherever they are used.
            let here = stages.axis.is_none() || at.is_none_or(|at| at == stage);
            let needed = at.is_some()
                || stages.axis.is_none()
                || node.results.iter().any(|value| {
                    stages.users.get(value).is_some_and(|users| users.contains(&stage))
                });
            if here && needed {
                divider.node(node).map_err(|why| (why, node.span))?;
            }
        }
        for &value in &node.results {
            hand_on(dividers, value)?;
        }
    }
    Ok(())
}

/// Where values are computed, where a program has stages.
#[derive(Debug, Default)]
struct Stages {
    axis: Option<usize>,
    /// The stage of each value of the outer block; none where it is on every one that uses it.
    of_value: BTreeMap<ValueId, Option<usize>>,
    /// The stages that use a value.
    users: BTreeMap<ValueId, BTreeSet<usize>>,
    params: Vec<ValueId>,
    results: Vec<ValueId>,
}

impl Stages {
    fn of(function: &Function, mesh: &Mesh) -> Result<Stages, Diagnostics> {
        let body = &function.body;
        let mut stages = Stages {
            params: body.params.clone(),
            results: body.results.clone(),
            ..Stages::default()
        };
        let said = |value: &ValueId| function.shardings.get(value).and_then(|found| found.stage);
        let wrong = |message: String| Err(Diagnostic::error(Code::OpType, message).into());
        for (value, sharding) in &function.shardings {
            let Some((axis, _)) = sharding.stage else { continue };
            if *stages.axis.get_or_insert(axis) != axis {
                return wrong("stages are along one axis of the mesh".to_owned());
            }
            let outer = body.params.contains(value)
                || body.nodes.iter().any(|&id| function.nodes[id].results.contains(value));
            if !outer {
                return wrong(
                    "a value inside of a loop or branch is on no stage of its own".to_owned(),
                );
            }
        }
        let Some(axis) = stages.axis else { return Ok(stages) };
        let cuts = |sharding: &Sharding| Sharding { stage: None, ..sharding.clone() }.uses(axis);
        if function.shardings.values().any(cuts) {
            let name = &mesh.axes[axis].0;
            return wrong(format!("axis {name} holds stages, and cannot divide a value too"));
        }
        for &param in &body.params {
            stages.of_value.insert(param, said(&param).map(|(_, at)| at));
        }
        for &id in &body.nodes {
            let node = &function.nodes[id];
            let reads = reads(function, id);
            let operands = reads.iter().filter_map(|value| *stages.of_value.get(value)?).max();
            let stage = node.results.iter().find_map(said).map(|(_, at)| at);
            let is_source = node.op.kind() == Kind::Source || matches!(node.op, Op::Random(_));
            let stage = match (stage, operands) {
                (Some(stage), _) | (None, Some(stage)) => Some(stage),
                (None, None) if is_source => None,
                (None, None) => Some(0),
            };
            for &result in &node.results {
                stages.of_value.insert(result, stage);
            }
        }
        // From the last node, so that constants know who uses what they are used for.
        for &value in &body.results {
            let at = stages.of_value.get(&value).copied().flatten().unwrap_or(0);
            stages.users.entry(value).or_default().insert(at);
        }
        for &id in body.nodes.iter().rev() {
            let node = &function.nodes[id];
            let result = node.results.first();
            let at = result.and_then(|value| stages.of_value.get(value).copied().flatten());
            for value in reads(function, id) {
                stages.users.entry(value).or_default().extend(at);
            }
        }
        Ok(stages)
    }

    fn inputs(&self, stage: usize) -> Vec<usize> {
        let takes = |position: &usize| {
            let param = self.params[*position];
            let users = self.users.get(&param);
            let used = users.is_some_and(|users| users.contains(&stage));
            match self.of_value.get(&param).copied().flatten() {
                Some(at) => at == stage,
                // What nobody uses is the first stage's.
                None => used || stage == 0 && users.is_none_or(BTreeSet::is_empty),
            }
        };
        let all = 0..self.params.len();
        if self.axis.is_none() { all.collect() } else { all.filter(takes).collect() }
    }

    fn outputs(&self, stage: usize) -> Vec<usize> {
        let gives = |position: &usize| {
            let value = self.results[*position];
            self.of_value.get(&value).copied().flatten().unwrap_or(0) == stage
        };
        let all = 0..self.results.len();
        if self.axis.is_none() { all.collect() } else { all.filter(gives).collect() }
    }
}

/// The values of the outer block that a node reads, its blocks included.
fn reads(function: &Function, id: crate::graph::NodeId) -> Vec<ValueId> {
    let node = &function.nodes[id];
    let inner = node.blocks.iter().flat_map(|block: &Block| function.captures(block));
    node.operands.iter().copied().chain(inner).collect()
}

fn warning(function: &Function, mesh: &Mesh, conflict: &Conflict) -> Diagnostic {
    let name = |value: ValueId| match &function.values[value].name {
        Some(name) => format!("%{name}"),
        None => format!("value {}", value.index()),
    };
    let axes = |axes: &[usize]| {
        let names: Vec<&str> = axes.iter().map(|&axis| mesh.axes[axis].0.as_str()).collect();
        names.join(", ")
    };
    let (kept, declined) = (&conflict.kept, &conflict.declined);
    let message = format!(
        "dimension {} of {} is wanted on {} because of {}, but {} is on it because of {}, and stays",
        conflict.dim,
        name(conflict.value),
        axes(&declined.0),
        name(declined.1),
        axes(&kept.0),
        name(kept.1),
    );
    let mut diagnostic = Diagnostic::warning(Code::OpType, message);
    diagnostic.node = Some(name(conflict.value));
    let definitions = function.definitions();
    let span = |value: ValueId| definitions.get(&value).and_then(|&id| function.nodes[id].span);
    diagnostic.span = span(conflict.value);
    for (what, (_, origin)) in [("this is kept", kept), ("this is declined", declined)] {
        if let Some(span) = span(*origin) {
            diagnostic.related.push((span, what.to_owned()));
        }
    }
    diagnostic
}
