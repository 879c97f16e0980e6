//! Programs that several ranks run together: a mesh divides the model, every rank has its parts of inputs and weights,
//! and results are put together again. Ranks are threads here, on the host or each with a modeled core; results are the
//! same on every run.

mod cores;

use crate::accelerator::Accelerator;
use crate::compiler::SharedObserver;
use crate::engine::{self, Engine, Setting};
use crate::error::{Error, ErrorKind, listed};
use crate::fabric::{Communication, Fabric};
use crate::options::RunOptions;
use crate::report::CompileTimes;
use crate::target::Kind;
use crate::timeline::Timeline;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;
use systole_compiler::diagnostic::Code;
use systole_compiler::graph::{Function, Graph, ValueId};
use systole_compiler::mesh::{Mesh, Sharding};
use systole_compiler::module::{Lifetime, Module};
use systole_compiler::op::{Constant, Op};
use systole_compiler::pass::{Changed, Declined};
use systole_compiler::passes::shard::{self, BytesSent, Cost, Divided};
use systole_compiler::pipeline::{self, Level};
use systole_compiler::ranks;
use systole_compiler::rewrite::{Rewrite, rewrite};
use systole_compiler::tensor::Tensor;
use systole_compiler::verify;

/// What the ranks run.
#[derive(Debug)]
pub(crate) struct Ranks {
    divided: Divided,
    made: Made,
    fabric: Option<Fabric>,
    communications: Vec<Communication>,
}

/// Code for ranks.
#[derive(Debug)]
enum Made {
    /// For each its own, with its parts of the weights.
    Engines(Vec<Engine>),
    /// For modeled cores, one of each program; weights come when it runs.
    Cores { bases: Vec<Accelerator>, weights: Vec<(String, Tensor)>, last: Mutex<Option<Timeline>> },
}

/// Whether a graph is compiled for ranks: where it or the compiler names a mesh.
pub(crate) fn are_wanted(graph: &Graph, setting: Setting<'_>) -> bool {
    graph.mesh.is_some() || setting.compiler.mesh.is_some()
}

/// What is done before a program is divided: with the shardings that it has, no more than must be; else everything, so
/// that weights are seen for what they are.
const AS_WRITTEN: &[&str] = &["inline-calls", "expand"];

impl Ranks {
    pub(crate) fn new(
        mut graph: Graph,
        setting: Setting<'_>,
    ) -> Result<(Ranks, CompileTimes), Error> {
        let start = Instant::now();
        if graph.mesh.as_ref().is_some_and(|mesh| mesh.divided) {
            let message = "this is the program of one rank, which takes parts of inputs";
            return Err(Error::unsupported(message)
                .with_help("run the program that it was made from, the one with `mesh`"));
        }
        set_mesh(&mut graph, setting.compiler.mesh.as_ref())?;
        for (name, text) in &setting.compiler.shardings {
            annotate(&mut graph, name, text)?;
        }
        verify::graph(&graph)?;
        let machine = engine::machine(&setting.compiler.target)?;
        let said = graph.functions.values().any(|function| !function.shardings.is_empty());
        let passes = if said { AS_WRITTEN } else { pipeline::NO_FUSION };
        let graph = pipeline::optimize(graph, &machine, passes, &mut pipeline::Silent)?;
        let mut graph = graph.expect("a silent observer stops nothing");
        shard::annotate(&mut graph);
        let weights = shard::lift_constants(&mut graph);
        let ranks = graph.mesh.as_ref().map_or(1, Mesh::ranks);
        let system = setting.compiler.system.as_deref();
        let fabric = match (&setting.compiler.target.kind, system) {
            (Kind::Systolic(systolic), system) => {
                Some(Fabric::of_cores(system, &systolic.machine.name, ranks)?)
            }
            (Kind::Host { .. } | Kind::Reference | Kind::Kernels, Some(name)) => {
                Some(Fabric::named(name, ranks)?)
            }
            (Kind::Host { .. } | Kind::Reference | Kind::Kernels, None) => None,
        };
        let cost: &dyn Cost = match &fabric {
            Some(fabric) => fabric,
            None => &BytesSent,
        };
        let divided = shard::divide(&graph, cost)?;
        let communications =
            fabric.as_ref().map_or(Vec::new(), |fabric| fabric.communications(&divided));
        drop(graph);
        let graphs: Vec<&Graph> = divided.programs.iter().map(|program| &program.graph).collect();
        ranks::check(&graphs, &divided.program_of)?;
        tell(&divided, setting)?;
        let (made, mut times) = match &setting.compiler.target.kind {
            Kind::Systolic(systolic) => cores::cores(&divided, weights, systolic, setting)?,
            Kind::Host { .. } | Kind::Reference | Kind::Kernels => {
                let (engines, times) = engines(&divided, &weights, setting)?;
                (Made::Engines(engines), times)
            }
        };
        times.passes = start.elapsed().saturating_sub(times.code + times.packing);
        Ok((Ranks { divided, made, fabric, communications }, times))
    }

    /// What they exchange.
    pub(crate) fn communications(&self) -> &[Communication] {
        &self.communications
    }

    /// The whole results on whole inputs; zeros where modeled cores are asked for their time alone.
    pub(crate) fn run(
        &self,
        inputs: &[Tensor],
        options: &RunOptions,
    ) -> Result<Vec<Tensor>, Error> {
        let count = self.divided.program_of.len();
        let all = || std::thread::available_parallelism().map_or(1, usize::from);
        // Ranks share the threads that one device would have.
        let threads = (options.threads.unwrap_or_else(all) / count).max(1);
        let options = RunOptions { threads: Some(threads), ..options.clone() };
        let no_thread = |why: String| Error::new(ErrorKind::DoesNotFit, Code::TooLarge, why);
        let results = match &self.made {
            Made::Engines(engines) => ranks::run(count, no_thread, &|rank, exchange| {
                let parts = self.divided.inputs(rank, inputs);
                engines[rank].run_as(&parts, &options, exchange)
            })?,
            Made::Cores { bases, weights, last } => {
                let start = Instant::now();
                let ran = ranks::run(count, no_thread, &|rank, exchange| {
                    self.run_core(bases, weights, (rank, exchange), inputs, &options)
                })?;
                let (results, times): (Vec<Vec<Tensor>>, Vec<cores::Time>) =
                    ran.into_iter().unzip();
                let simulate_ms = start.elapsed().as_secs_f64() * 1e3;
                let made = self.of_all(bases, times, simulate_ms);
                *last.lock().unwrap_or_else(PoisonError::into_inner) = made;
                results
            }
        };
        Ok(self.divided.outputs(&results))
    }
}

/// One engine a rank: its constants are its parts of the weights.
fn engines(
    divided: &Divided,
    weights: &[(String, Tensor)],
    setting: Setting<'_>,
) -> Result<(Vec<Engine>, CompileTimes), Error> {
    let is_reference = engine::is_reference(&setting.compiler.target);
    let mut modules = Vec::new();
    for program in divided.programs.iter().filter(|_| !is_reference) {
        modules.push(engine::lowered(program.graph.clone(), setting)?);
    }
    let mut engines = Vec::new();
    let mut times = CompileTimes::default();
    for (rank, &number) in divided.program_of.iter().enumerate() {
        let part = |name: &str| {
            let (_, whole) = weights.iter().find(|(known, _)| known == name)?;
            divided.weight(rank, name, whole)
        };
        if is_reference {
            let mut graph = divided.programs[number].graph.clone();
            bind_graph(&mut graph, &part);
            engines.push(Engine::Reference(graph));
            continue;
        }
        let mut module: Module = modules[number].clone();
        for (_, buffer) in module.buffers.iter_mut() {
            if let Lifetime::Parameter(name) = &buffer.lifetime
                && let Some(value) = part(name)
            {
                buffer.lifetime = Lifetime::Constant(value);
            }
        }
        let (engine, more) = Engine::of_module(module, setting)?;
        times.code += more.code;
        times.packing += more.packing;
        engines.push(engine);
    }
    Ok((engines, times))
}

fn bind_graph(graph: &mut Graph, part: &dyn Fn(&str) -> Option<Tensor>) {
    for function in graph.functions.values_mut() {
        let bound = rewrite(function, &mut |builder, node, _| {
            let Op::Parameter(op) = &node.op else { return Ok(Rewrite::Keep) };
            let Some(value) = part(&op.name) else { return Ok(Rewrite::Keep) };
            let value = builder.add(Constant { value }, &[])?;
            Ok(Rewrite::Replace(std::iter::once(value).collect()))
        });
        *function = bound.expect("a weight's part has the parameter's type");
    }
}

/// Tells the observer, as a pass does.
fn tell(divided: &Divided, setting: Setting<'_>) -> Result<(), Error> {
    let Some(SharedObserver(observer)) = &setting.compiler.observer else { return Ok(()) };
    let declined: Vec<Declined> = divided
        .warnings
        .iter()
        .map(|warning| Declined {
            pass: shard::PASS.name,
            place: warning.node.clone().unwrap_or_default(),
            reason: warning.message.clone(),
        })
        .collect();
    let mut observer = observer.lock().unwrap_or_else(PoisonError::into_inner);
    for program in &divided.programs {
        // What it answers counts for passes that can be left out, and this cannot.
        let _ = observer.before("graph", shard::PASS.name);
        let level = Level::Graph(&program.graph);
        observer.after(shard::PASS.name, Changed::Yes, level, &declined)?;
    }
    Ok(())
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Input, Code::Input, message)
}

/// Gives the graph the compiler's mesh. Where it has one of its own, the axes are the same, and the sizes change.
fn set_mesh(graph: &mut Graph, wanted: Option<&Mesh>) -> Result<(), Error> {
    let Some(wanted) = wanted else { return Ok(()) };
    wanted.check().map_err(wrong)?;
    let Some(own) = &mut graph.mesh else {
        graph.mesh = Some(wanted.clone());
        return Ok(());
    };
    let same = own.axes.len() == wanted.axes.len()
        && wanted.axes.iter().all(|(name, _)| own.axis(name).is_some());
    if !same {
        let axes = listed(own.axes.iter().map(|(name, _)| name.as_str()));
        return Err(wrong(format!("the model's own mesh has the axes {axes}, and no others")));
    }
    for (name, size) in &wanted.axes {
        if let Some(axis) = own.axis(name) {
            own.axes[axis].1 = *size;
        }
    }
    Ok(())
}

/// Says how the value of that name is divided.
fn annotate(graph: &mut Graph, name: &str, text: &str) -> Result<(), Error> {
    let Some(mesh) = graph.mesh.clone() else {
        return Err(wrong(format!("there is no mesh to divide `{name}` by")));
    };
    let function = graph.entry_mut();
    let Some(value) = named(function, name) else {
        let inputs =
            function.body.params.iter().filter_map(|&id| function.values[id].name.as_deref());
        let help = format!("the inputs are {}", listed(inputs));
        return Err(wrong(format!("there is no value `{name}` to divide")).with_help(help));
    };
    let sharding = Sharding::parse(text, &mesh)
        .and_then(|found| found.check(function.ty(value), &mesh).map(|()| found))
        .map_err(|why| wrong(format!("`{name}` cannot be {text}: {why}")))?;
    function.shard(value, sharding);
    Ok(())
}

fn named(function: &Function, name: &str) -> Option<ValueId> {
    let is_it = |id: &ValueId| function.values[*id].name.as_deref() == Some(name);
    let result = || {
        let position = function.result_names.iter().position(|known| known == name)?;
        function.body.results.get(position).copied()
    };
    let params = function.body.params.iter().copied();
    params.into_iter().find(is_it).or_else(result).or_else(|| function.values.ids().find(is_it))
}
