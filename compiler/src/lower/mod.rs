//! From the graph to a module of kernels without loops: every fusion node, and every node that stands alone, becomes one
//! kernel; reshapes become aliases; control ops become steps.

mod group;
mod operation;
mod reshape;

pub use group::{Lowered, lower_group};

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::graph::{Block, Function, Graph, Node, ValueId};
use crate::kernel::{Kernel, Place};
use crate::machine::Machine;
use crate::module::{Buffer, BufferId, KernelId, Layout, Lifetime, Module, ScalarSource, Step};
use crate::op::{Kind, Op};
use crate::types::{DType, TensorType};
use std::collections::BTreeMap;

/// The module of a verified graph without composites and calls. What no kernel can express is reported, all of it.
pub fn lower(graph: &Graph, _machine: &Machine) -> Result<Module, Diagnostics> {
    let (name, function) = graph.functions.first().expect("a graph has an entry function");
    let mut lowering = Lowering {
        graph,
        function,
        module: Module { name: name.clone(), state: function.state.clone(), ..Module::default() },
        buffers: BTreeMap::new(),
        kernels: BTreeMap::new(),
        diagnostics: Diagnostics::default(),
    };
    for &param in &function.body.params {
        let buffer = lowering.buffer(param, Lifetime::Input);
        lowering.module.inputs.push(buffer);
    }
    let steps = lowering.block(&function.body);
    lowering.module.steps = steps;
    if lowering.diagnostics.has_errors() {
        return Err(lowering.diagnostics);
    }
    for (name, value) in function.result_names.iter().zip(&function.body.results) {
        let buffer = lowering.buffers[value];
        lowering.module.outputs.push((name.clone(), buffer));
    }
    Ok(lowering.module)
}

struct Lowering<'a> {
    graph: &'a Graph,
    function: &'a Function,
    module: Module,
    buffers: BTreeMap<ValueId, BufferId>,
    /// Kernels by a text that equal ones share.
    kernels: BTreeMap<String, KernelId>,
    diagnostics: Diagnostics,
}

impl Lowering<'_> {
    fn buffer(&mut self, value: ValueId, lifetime: Lifetime) -> BufferId {
        let name = self.function.values[value].name.clone();
        let name = name.unwrap_or_else(|| format!("v{}", value.index()));
        let buffer = self.new_buffer(&name, self.function.ty(value).clone(), lifetime);
        self.buffers.insert(value, buffer);
        buffer
    }

    fn new_buffer(&mut self, name: &str, ty: TensorType, lifetime: Lifetime) -> BufferId {
        let name = self.unique_name(name);
        let layout = Layout::row_major(&ty.shape);
        self.module.buffers.push(Buffer {
            name,
            ty,
            layout,
            place: Place::Far,
            lifetime,
            alias: None,
            offset: None,
        })
    }

    fn unique_name(&self, name: &str) -> String {
        let taken = |name: &str| self.module.buffers.iter().any(|(_, buffer)| buffer.name == name);
        if !taken(name) {
            return name.to_owned();
        }
        let number = self.module.buffers.len();
        let mut unique = format!("{name}.{number}");
        while taken(&unique) {
            unique.push('_');
        }
        unique
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other op becomes a kernel")]
    fn block(&mut self, block: &Block) -> Vec<Step> {
        let mut steps = Vec::new();
        for &id in &block.nodes {
            let node = &self.function.nodes[id];
            match &node.op {
                Op::Constant(constant) => {
                    self.buffer(node.results[0], Lifetime::Constant(constant.value.clone()));
                }
                Op::Parameter(parameter) => {
                    self.buffer(node.results[0], Lifetime::Parameter(parameter.name.clone()));
                }
                Op::Random(_) => self.random(node),
                Op::Reshape(_) => self.alias(node),
                Op::If(_) => self.if_step(node, &mut steps),
                Op::While(_) => self.while_step(node, &mut steps),
                Op::For(op) => self.for_step(node, op.count, &mut steps),
                op if op.kind() == Kind::Collective => {
                    let operands = node.operands.iter().map(|value| self.buffers[value]).collect();
                    let result = self.buffer(node.results[0], Lifetime::Temporary);
                    let origins = self.origins(node);
                    steps.push(Step::Collective { op: op.clone(), operands, result, origins });
                }
                Op::Fusion(_) => {
                    let inner = node.blocks[0].clone();
                    self.kernel(node, &inner, &mut steps);
                }
                _ => {
                    let inner = Block {
                        params: unique_values(&node.operands),
                        nodes: vec![id],
                        results: node.results.to_vec(),
                    };
                    self.kernel(node, &inner, &mut steps);
                }
            }
        }
        steps
    }

    /// Random elements depend on the seed alone, so they are a constant.
    fn random(&mut self, node: &Node) {
        const MOST_BYTES: usize = 1 << 30;
        let ty = self.function.ty(node.results[0]);
        if ty.bytes() > MOST_BYTES {
            let message = format!("{ty} random elements take more than {MOST_BYTES} bytes");
            let mut diagnostic = Diagnostic::error(Code::Unsupported, message);
            diagnostic.span = node.span;
            self.diagnostics.push(diagnostic);
        }
        let value = match ty.bytes() > MOST_BYTES {
            true => crate::tensor::Tensor::zeros(TensorType::new(ty.dtype, &[0])),
            false => node.op.evaluate(&[]).swap_remove(0),
        };
        self.buffer(node.results[0], Lifetime::Constant(value));
    }

    fn alias(&mut self, node: &Node) {
        let source = self.buffers[&node.operands[0]];
        let buffer = self.buffer(node.results[0], Lifetime::Temporary);
        self.module.buffers[buffer].alias = Some(source);
    }

    fn origins(&self, node: &Node) -> Vec<String> {
        let mut names: Vec<String> =
            node.origins.iter().map(|&index| self.graph.origins[index as usize].clone()).collect();
        names.sort();
        names
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other op stands alone")]
    fn kernel(&mut self, node: &Node, block: &Block, steps: &mut Vec<Step>) {
        for &result in &node.results {
            self.buffer(result, Lifetime::Temporary);
        }
        let origins = self.origins(node);
        let label = name_of(self.function, node, block);
        let lowered = match lower_group(self.function, block, &label) {
            Ok(lowered) => lowered,
            Err(why) => {
                let message = format!("{label} cannot become a kernel: {why}");
                let mut diagnostic = Diagnostic::error(Code::Unsupported, message);
                diagnostic.span = node.span;
                diagnostic.node = origins.first().cloned();
                self.diagnostics.push(diagnostic);
                return;
            }
        };
        // A fusion's parameters stand for its operands; a lone node's are its operands.
        let outer = |value: ValueId| match node.op {
            Op::Fusion(_) => {
                let position = block.params.iter().position(|&param| param == value);
                node.operands[position.expect("a group reads its parameters")]
            }
            _ => value,
        };
        let mut operands: Vec<BufferId> =
            lowered.inputs.iter().map(|&value| self.buffers[&outer(value)]).collect();
        operands.extend(node.results.iter().map(|result| self.buffers[result]));
        let scalars = lowered
            .scalars
            .iter()
            .map(|&value| ScalarSource::Buffer(self.buffers[&outer(value)]))
            .collect();
        let kernel = self.share(lowered.kernel, &origins);
        steps.push(Step::Kernel { kernel, operands, scalars, origins });
    }

    /// The id of the kernel, or of an equal one that is there.
    fn share(&mut self, kernel: Kernel, origins: &[String]) -> KernelId {
        let key =
            format!("{:?}{:?}{:?}{:?}", kernel.operands, kernel.vars, kernel.tiles, kernel.body);
        if let Some(&id) = self.kernels.get(&key) {
            let known = &mut self.module.kernels[id].origins;
            known.extend(origins.iter().cloned());
            known.sort();
            known.dedup();
            return id;
        }
        let name = format!("{}_{}", kernel.name, self.module.kernels.len());
        let id = self.module.kernels.push(Kernel { name, origins: origins.to_vec(), ..kernel });
        self.kernels.insert(key, id);
        id
    }

    fn if_step(&mut self, node: &Node, steps: &mut Vec<Step>) {
        let condition = self.buffers[&node.operands[0]];
        let results: Vec<BufferId> =
            node.results.iter().map(|&result| self.buffer(result, Lifetime::Temporary)).collect();
        let [then, otherwise] = [0, 1].map(|branch| {
            let block = node.blocks[branch].clone();
            let mut steps = self.block(&block);
            for (value, &to) in block.results.iter().zip(&results) {
                steps.push(Step::Copy { from: self.buffers[value], to });
            }
            steps
        });
        steps.push(Step::If { condition, then, otherwise });
    }

    /// Buffers of the carried values, which start as copies of the operands and end as the results.
    fn carry(&mut self, node: &Node, params: &[ValueId], steps: &mut Vec<Step>) -> Vec<BufferId> {
        let mut carried = Vec::new();
        for (position, &param) in params.iter().enumerate() {
            let buffer = self.buffer(param, Lifetime::Temporary);
            self.buffers.insert(node.results[position], buffer);
            steps.push(Step::Copy { from: self.buffers[&node.operands[position]], to: buffer });
            carried.push(buffer);
        }
        carried
    }

    /// Copies that make the block's results the carried values of the next iteration, all at once.
    fn hand_over(&mut self, results: &[ValueId], carried: &[BufferId], steps: &mut Vec<Step>) {
        let mut copies = Vec::new();
        for (value, &to) in results.iter().zip(carried) {
            let mut from = self.buffers[value];
            if from == to {
                continue;
            }
            // Another carried buffer would be overwritten before it is read.
            if carried.iter().any(|&other| self.memory(other) == self.memory(from)) {
                let ty = self.module.buffers[from].ty.clone();
                let copy = self.new_buffer("kept", ty, Lifetime::Temporary);
                steps.push(Step::Copy { from, to: copy });
                from = copy;
            }
            copies.push(Step::Copy { from, to });
        }
        steps.extend(copies);
    }

    fn memory(&self, mut buffer: BufferId) -> BufferId {
        while let Some(source) = self.module.buffers[buffer].alias {
            buffer = source;
        }
        buffer
    }

    fn while_step(&mut self, node: &Node, steps: &mut Vec<Step>) {
        let (test, body) = (node.blocks[0].clone(), node.blocks[1].clone());
        let carried = self.carry(node, &body.params, steps);
        for (&param, &buffer) in test.params.iter().zip(&carried) {
            self.buffers.insert(param, buffer);
        }
        let before = self.block(&test);
        let condition = self.buffers[&test.results[0]];
        let mut inner = self.block(&body);
        self.hand_over(&body.results, &carried, &mut inner);
        steps.push(Step::While { before, condition, body: inner });
    }

    fn for_step(&mut self, node: &Node, count: usize, steps: &mut Vec<Step>) {
        let body = node.blocks[0].clone();
        let counter =
            self.new_buffer("step", TensorType::new(DType::I64, &[]), Lifetime::Temporary);
        self.buffers.insert(body.params[0], counter);
        let carried = self.carry(node, &body.params[1..], steps);
        let mut inner = self.block(&body);
        self.hand_over(&body.results, &carried, &mut inner);
        steps.push(Step::For { count, counter, body: inner });
    }
}

fn unique_values(values: &[ValueId]) -> Vec<ValueId> {
    let mut unique = Vec::new();
    for &value in values {
        if !unique.contains(&value) {
            unique.push(value);
        }
    }
    unique
}

/// A short name: the op that matters most in the group.
fn name_of(function: &Function, node: &Node, block: &Block) -> String {
    if !matches!(node.op, Op::Fusion(_)) {
        return node.op.name().replace('-', "_");
    }
    let weight = |op: &Op| match op.kind() {
        Kind::Contract => 5,
        Kind::Reduce => 4,
        Kind::Index | Kind::Order => 3,
        Kind::Map => 2,
        Kind::Source | Kind::View | Kind::Control | Kind::Collective | Kind::Composite => 1,
    };
    let main =
        block.nodes.iter().map(|&id| &function.nodes[id].op).rev().max_by_key(|op| weight(op));
    main.map_or("copy", Op::name).replace('-', "_")
}
