//! Runs the nodes of functions and blocks.

use super::lifetimes::last_uses;
use super::{Budget, EvaluateError};
use crate::graph::{Block, Builder, Function, Graph, Node, NodeId, ValueId};
use crate::op::{Kind, Op};
use crate::ranks::{self, Exchange};
use crate::tensor::Tensor;
use crate::types::{Class, DType, TensorType};

/// How deep blocks and calls may nest together, so that no program can exhaust the stack.
const MAX_DEPTH: usize = 200;

pub(super) struct Evaluator<'a> {
    graph: Option<&'a Graph>,
    budget: &'a Budget<'a>,
    exchange: &'a dyn Exchange,
    live_bytes: usize,
    depth: usize,
}

/// The values of one call of a function.
struct Frame<'a> {
    function: &'a Function,
    dying: Vec<Vec<ValueId>>,
    values: Vec<Option<Tensor>>,
    /// What each value added to the live bytes.
    counted: Vec<usize>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(
        graph: Option<&'a Graph>,
        budget: &'a Budget<'a>,
        exchange: &'a dyn Exchange,
    ) -> Evaluator<'a> {
        Evaluator { graph, budget, exchange, live_bytes: 0, depth: 0 }
    }

    pub(super) fn function(
        &mut self,
        function: &Function,
        inputs: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, EvaluateError> {
        let count = function.values.len();
        let mut frame = Frame {
            function,
            dying: last_uses(function),
            values: vec![None; count],
            counted: vec![0; count],
        };
        self.block(&mut frame, &function.body, inputs)
    }

    /// Runs a block on values of its parameters. The parameters and the results are the caller's to count.
    fn block(
        &mut self,
        frame: &mut Frame<'_>,
        block: &Block,
        params: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, EvaluateError> {
        if self.depth == MAX_DEPTH {
            let message = format!("blocks and calls nest more than {MAX_DEPTH} deep");
            return Err(EvaluateError::Unsupported(message));
        }
        self.depth += 1;
        let before = self.live_bytes;
        for (&param, value) in block.params.iter().zip(params) {
            frame.values[param.index()] = Some(value);
        }
        for &id in &block.nodes {
            self.step(frame, id)?;
        }
        let results = block.results.iter().map(|&value| frame.value(value)).collect();
        frame.leave(block);
        self.live_bytes = before;
        self.depth -= 1;
        Ok(results)
    }

    fn step(&mut self, frame: &mut Frame<'_>, id: NodeId) -> Result<(), EvaluateError> {
        self.poll()?;
        let function = frame.function;
        let node = &function.nodes[id];
        let types = || node.results.iter().map(|&value| function.ty(value));
        let operands: Vec<Tensor> = node.operands.iter().map(|&value| frame.value(value)).collect();
        let result_bytes: Vec<usize> = types().map(|ty| new_bytes(node, ty)).collect();
        let wide_bytes = match node.op.kind() {
            Kind::Source | Kind::View | Kind::Control | Kind::Composite => 0,
            Kind::Map | Kind::Reduce | Kind::Contract | Kind::Index | Kind::Order => {
                let read = node.operands.iter().map(|&value| function.ty(value));
                read.chain(types()).map(wide_bytes).sum::<usize>()
            }
            Kind::Collective => 0,
        };
        let result_sum: usize = result_bytes.iter().sum();
        self.reserve(result_sum + wide_bytes)?;
        let results = self.node(frame, node, operands)?;
        debug_assert!(types().eq(results.iter().map(Tensor::ty)), "{} infers", node.op.name());
        for ((&result, value), bytes) in node.results.iter().zip(results).zip(result_bytes) {
            frame.values[result.index()] = Some(value);
            frame.counted[result.index()] = bytes;
        }
        self.live_bytes += result_sum;
        for position in 0..frame.dying[id.index()].len() {
            let value = frame.dying[id.index()][position];
            frame.values[value.index()] = None;
            self.live_bytes -= std::mem::take(&mut frame.counted[value.index()]);
        }
        Ok(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every op that needs no more than its operands has its value in its own file"
    )]
    fn node(
        &mut self,
        frame: &mut Frame<'_>,
        node: &Node,
        operands: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, EvaluateError> {
        match &node.op {
            Op::Parameter(parameter) => {
                let message = format!("weight {} has no data", parameter.name);
                Err(EvaluateError::Input(message))
            }
            Op::If(_) => {
                let chosen = if is_true(&operands[0]) { 0 } else { 1 };
                self.block(frame, &node.blocks[chosen], Vec::new())
            }
            Op::While(_) => self.repeat_while(frame, node, operands),
            Op::For(repeat) => self.repeat(frame, node, repeat.count, operands),
            Op::Fusion(_) => self.block(frame, &node.blocks[0], operands),
            Op::Call(call) => {
                let found = self.graph.and_then(|graph| graph.functions.get(&call.function));
                let Some(function) = found else {
                    let message = format!("there is no function @{}", call.function);
                    return Err(EvaluateError::Unsupported(message));
                };
                self.function(function, operands)
            }
            Op::Contract(op) => {
                op.evaluate_within(&operands, self.budget.cancelled).ok_or(EvaluateError::Cancelled)
            }
            Op::Convolve(op) => {
                op.evaluate_within(&operands, self.budget.cancelled).ok_or(EvaluateError::Cancelled)
            }
            op if op.kind() == Kind::Collective => {
                ranks::value(op, &operands, self.exchange).map(|value| vec![value])
            }
            op => match formula(op, &operands) {
                Some(function) => self.function(&function, operands),
                None => Ok(op.evaluate(&operands)),
            },
        }
    }

    fn repeat(
        &mut self,
        frame: &mut Frame<'_>,
        node: &Node,
        count: usize,
        mut carried: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, EvaluateError> {
        let before = self.live_bytes;
        for iteration in 0..count {
            self.poll()?;
            let mut params = vec![Tensor::scalar(iteration as i64)];
            params.append(&mut carried);
            carried = self.block(frame, &node.blocks[0], params)?;
            self.live_bytes = before;
            self.reserve_carried(&carried)?;
        }
        self.live_bytes = before;
        Ok(carried)
    }

    fn repeat_while(
        &mut self,
        frame: &mut Frame<'_>,
        node: &Node,
        mut carried: Vec<Tensor>,
    ) -> Result<Vec<Tensor>, EvaluateError> {
        let before = self.live_bytes;
        loop {
            self.poll()?;
            let verdict = self.block(frame, &node.blocks[0], carried.clone())?;
            if !is_true(&verdict[0]) {
                self.live_bytes = before;
                return Ok(carried);
            }
            carried = self.block(frame, &node.blocks[1], carried)?;
            self.live_bytes = before;
            self.reserve_carried(&carried)?;
        }
    }

    fn reserve_carried(&mut self, carried: &[Tensor]) -> Result<(), EvaluateError> {
        let bytes = carried.iter().map(|value| value.ty().bytes()).sum();
        self.reserve(bytes)?;
        self.live_bytes += bytes;
        Ok(())
    }

    fn reserve(&self, bytes: usize) -> Result<(), EvaluateError> {
        let needed = self.live_bytes.saturating_add(bytes);
        let limit = self.budget.bytes;
        if needed > limit { Err(EvaluateError::Memory { needed, limit }) } else { Ok(()) }
    }

    fn poll(&self) -> Result<(), EvaluateError> {
        if (self.budget.cancelled)() { Err(EvaluateError::Cancelled) } else { Ok(()) }
    }
}

impl Frame<'_> {
    fn value(&self, value: ValueId) -> Tensor {
        self.values[value.index()].clone().expect("a verified value is defined before its use")
    }

    /// Forgets what a block defined.
    fn leave(&mut self, block: &Block) {
        let results = block.nodes.iter().flat_map(|&node| &self.function.nodes[node].results);
        for &value in block.params.iter().chain(results) {
            self.values[value.index()] = None;
            self.counted[value.index()] = 0;
        }
    }
}

fn is_true(condition: &Tensor) -> bool {
    condition.bytes().first().is_some_and(|&byte| byte != 0)
}

/// The formula of a composite as a function of those operands.
fn formula(op: &Op, operands: &[Tensor]) -> Option<Function> {
    if op.kind() != Kind::Composite {
        return None;
    }
    let mut function = Function::default();
    let params: Vec<ValueId> =
        operands.iter().map(|operand| function.parameter(operand.ty().clone(), "x")).collect();
    let mut builder = Builder::new(&mut function);
    let results = op.expand(&mut builder, &params)?.expect("a verified composite expands");
    function.body.nodes = builder.nodes;
    function.body.results = results;
    Some(function)
}

/// The bytes that a result of the node adds to what is live: a constant's are the program's own.
fn new_bytes(node: &Node, ty: &TensorType) -> usize {
    if matches!(node.op, Op::Constant(_)) { 0 } else { ty.bytes() }
}

/// The bytes that the elements take when they are decoded.
fn wide_bytes(ty: &TensorType) -> usize {
    let element = match ty.dtype.class() {
        Class::Bool => 1,
        Class::Float if ty.dtype != DType::F64 => 4,
        Class::Signed | Class::Unsigned | Class::Float => 8,
    };
    ty.count().saturating_mul(element)
}
