//! Nodes with graphs. What is decided before the run is put in place: branches are chosen, loops of changing shapes
//! are unrolled. The rest becomes `if`, `for` and `while`.

use super::context::{ImportError, Items, NodeContext, invalid, unsupported};
use super::convert::Item;
use super::proto::GraphProto;
use super::table::{Row, items};
use crate::graph::{Block, ValueId};
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[items("If", 1, branch), items("Loop", 1, repeat)];

/// The most iterations that are unrolled.
const MAX_UNROLLED: i64 = 1 << 14;

type Context<'a, 'f, 'm> = NodeContext<'a, 'f, 'm>;

impl NodeContext<'_, '_, '_> {
    /// Converts a graph of the node in the node's place.
    pub(super) fn subgraph(&mut self, graph: &GraphProto, inputs: Vec<Item>) -> Items {
        self.importer.inline_graph(self.builder, graph, inputs, self.opsets)
    }

    /// Converts a graph of the node as a block with those parameters, and gives its outputs.
    pub(super) fn block(
        &mut self,
        graph: &GraphProto,
        params: Vec<ValueId>,
        inputs: Vec<Item>,
    ) -> Result<(Block, Vec<Item>), ImportError> {
        let mut outputs = Vec::new();
        let opsets = self.opsets;
        let block = self.importer.block(self.builder, params, |importer, builder| {
            outputs = importer.inline_graph(builder, graph, inputs, opsets)?;
            outputs.iter().map(|item| importer.value(builder, item)).collect()
        })?;
        Ok((block, outputs))
    }

    /// A new value that a block gets from outside.
    pub(super) fn param(&mut self, ty: TensorType) -> ValueId {
        self.builder.function.value(ty, None)
    }

    /// Adds nodes at the end of a block.
    pub(super) fn extend<T>(
        &mut self,
        block: &mut Block,
        build: impl FnOnce(&mut Self) -> Result<T, ImportError>,
    ) -> Result<T, ImportError> {
        let outer = std::mem::replace(&mut self.builder.nodes, std::mem::take(&mut block.nodes));
        self.importer.enter_block();
        let result = build(self);
        self.importer.leave_block();
        block.nodes = std::mem::replace(&mut self.builder.nodes, outer);
        result
    }

    /// Takes back what was added since, to try another way.
    fn rewind(&mut self, start: (usize, usize, usize)) {
        self.builder.nodes.truncate(start.0);
        self.importer.rewind(start.1, start.2);
    }

    fn mark(&self) -> (usize, usize, usize) {
        let (constants, failures) = self.importer.mark();
        (self.builder.nodes.len(), constants, failures)
    }
}

fn branch(context: &mut Context<'_, '_, '_>) -> Items {
    let (yes, no) = (context.graph("then_branch")?, context.graph("else_branch")?);
    if let Ok(condition) = context.constant(0) {
        let taken = if condition.to_i64().first() == Some(&0) { &no } else { &yes };
        return context.subgraph(taken, Vec::new());
    }
    let condition = context.input(0)?;
    let condition = context.reshape(condition, &[])?;
    let blocks = context.block(&yes, Vec::new(), Vec::new()).and_then(|(yes, _)| {
        let (no, _) = context.block(&no, Vec::new(), Vec::new())?;
        Ok((yes, no))
    });
    // A branch that does not fit is often one that is never taken: the value of the condition would tell.
    let (yes, no) = match blocks {
        Ok(blocks) => blocks,
        Err(error) => {
            context.importer.want(&context.node.input[0]);
            return Err(error);
        }
    };
    for (&a, &b) in yes.results.iter().zip(&no.results) {
        let (a, b) = (context.ty(a), context.ty(b));
        if a != b {
            context.importer.want(&context.node.input[0]);
            return unsupported(format!(
                "the branches give {a} and {b}, and the condition is only known at run time"
            ));
        }
    }
    let values = context.builder.add_many(op::If {}, &[condition], vec![yes, no])?;
    Ok(values.into_iter().map(Item::Value).collect())
}

/// What a loop starts with.
struct Loop {
    body: GraphProto,
    /// The most iterations; `None` where there is no limit.
    limit: Option<Item>,
    /// Whether it starts at all; `None` for yes.
    condition: Option<Item>,
    carried: Vec<Item>,
}

fn repeat(context: &mut Context<'_, '_, '_>) -> Items {
    let input =
        |context: &Context<'_, '_, '_>, index: usize| context.inputs.get(index).cloned().flatten();
    let start = Loop {
        body: context.graph("body")?,
        limit: input(context, 0),
        condition: input(context, 1),
        carried: context
            .inputs
            .iter()
            .skip(2)
            .cloned()
            .map(|item| item.unwrap_or(Item::Nothing))
            .collect(),
    };
    if start.body.output.len() < start.carried.len() + 1
        || start.body.input.len() != start.carried.len() + 2
    {
        return invalid("the body does not take and give what the loop carries");
    }
    let limit = known_integer(start.limit.as_ref());
    let starts = known_integer(start.condition.as_ref());
    let limit_known = start.limit.is_none() || limit.is_some();
    let starts_known = start.condition.is_none() || starts.is_some();
    let mark = context.mark();
    if let (Some(count), true) = (limit, start.condition.is_none() || starts == Some(1)) {
        match counted(context, &start, count) {
            Ok(items) => return Ok(items),
            Err(_) => context.rewind(mark),
        }
    }
    if limit_known && starts_known {
        match unrolled(context, &start, limit, starts) {
            Ok(items) => return Ok(items),
            Err(ImportError::NeedsValue(_)) => context.rewind(mark),
            Err(error) => return Err(error),
        }
    }
    conditional(context, &start)
}

/// The integer or bool that an item is, where it is known.
fn known_integer(item: Option<&Item>) -> Option<i64> {
    match item {
        Some(Item::Known { tensor, .. }) => tensor.to_i64().first().copied(),
        Some(
            Item::Value(_)
            | Item::Sequence(_)
            | Item::Foreign(..)
            | Item::Nothing
            | Item::Unusable(_)
            | Item::Failed,
        )
        | None => None,
    }
}

/// A loop whose number of iterations is known, and whose values keep their types.
fn counted(context: &mut Context<'_, '_, '_>, start: &Loop, count: i64) -> Items {
    let count = usize::try_from(count).unwrap_or(0);
    let mut operands =
        start.carried.iter().map(|item| context.value(item)).collect::<Result<Vec<_>, _>>()?;
    let carried = operands.len();
    let number = context.param(TensorType::new(DType::I64, &[]));
    let mut params = vec![number];
    for &operand in &operands {
        let ty = context.ty(operand);
        params.push(context.param(ty));
    }
    let mut inputs = vec![Item::Value(number), Item::known(truth(true))];
    inputs.extend(params[1..].iter().map(|&param| Item::Value(param)));
    let (mut block, outputs) = context.block(&start.body, params, inputs)?;
    if known_integer(outputs.first()) != Some(1) {
        return unsupported("the condition depends on the loop's values");
    }
    block.results.remove(0);
    let stacked = block.results.split_off(carried);
    for (&result, &param) in block.results.iter().zip(&block.params[1..]) {
        if context.ty(result) != context.ty(param) {
            return unsupported("a carried value changes its type");
        }
    }
    for value in stacked {
        stack(context, &mut block, &mut operands, value, Place { number, axis: 0, count })?;
    }
    let values = context.builder.add_many(op::For { count }, &operands, vec![block])?;
    Ok(values.into_iter().map(Item::Value).collect())
}

/// Where iterations put their results.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The position.
    pub(super) number: ValueId,
    /// The new dimension.
    pub(super) axis: usize,
    /// How many positions there are.
    pub(super) count: usize,
}

/// Adds a carried value to a loop that collects `value` of every iteration.
pub(super) fn stack(
    context: &mut Context<'_, '_, '_>,
    block: &mut Block,
    operands: &mut Vec<ValueId>,
    value: ValueId,
    place: Place,
) -> Result<(), ImportError> {
    let TensorType { dtype, mut shape } = context.ty(value);
    if place.axis > shape.len() {
        return invalid(format!(
            "axis {} is out of range for rank {}",
            place.axis,
            shape.len() + 1
        ));
    }
    shape.insert(place.axis, place.count);
    let blank = context.scalar(dtype, 0.0);
    operands.push(context.broadcast_to(blank, &shape)?);
    let buffer = context.param(TensorType { dtype, shape });
    let updated = context.extend(block, |context| {
        let part = context.unsqueeze(value, &[place.axis])?;
        let zero = context.known(Tensor::scalar(0i64));
        let mut update = vec![buffer, part];
        let rank = context.rank(buffer);
        update.extend((0..rank).map(|axis| if axis == place.axis { place.number } else { zero }));
        Ok(context.builder.add(op::DynamicUpdate {}, &update)?)
    })?;
    block.params.push(buffer);
    block.results.push(updated);
    Ok(())
}

/// One copy of the body for each iteration, where the condition is known at each.
fn unrolled(
    context: &mut Context<'_, '_, '_>,
    start: &Loop,
    limit: Option<i64>,
    starts: Option<i64>,
) -> Items {
    let mut carried = start.carried.clone();
    let count = carried.len();
    let mut stacked: Vec<Vec<Item>> = vec![Vec::new(); start.body.output.len() - 1 - count];
    let mut going = starts != Some(0);
    let mut number = 0;
    while going && limit.is_none_or(|limit| number < limit) {
        if number >= MAX_UNROLLED {
            return unsupported(format!("more than {MAX_UNROLLED} iterations that change shapes"));
        }
        let mut inputs = vec![Item::known(Tensor::scalar(number)), Item::known(truth(true))];
        inputs.extend(carried);
        let mut outputs = context.subgraph(&start.body, inputs)?;
        going = match known_integer(outputs.first()) {
            Some(verdict) => verdict != 0,
            None => return Err(ImportError::NeedsValue(start.body.output[0].name.clone())),
        };
        let more = outputs.split_off(1 + count);
        for (list, item) in stacked.iter_mut().zip(more) {
            list.push(item);
        }
        carried = outputs.split_off(1);
        number += 1;
    }
    for list in stacked {
        let mut values = Vec::new();
        for item in &list {
            let value = context.value(item)?;
            values.push(context.unsqueeze(value, &[0])?);
        }
        if values.is_empty() {
            return unsupported("a loop without iterations, whose outputs have no shape");
        }
        carried.push(Item::Value(context.concat(&values, 0)?));
    }
    Ok(carried)
}

/// A loop that ends at run time.
fn conditional(context: &mut Context<'_, '_, '_>, start: &Loop) -> Items {
    if start.body.output.len() > 1 + start.carried.len() {
        // What is collected has as many parts as there are iterations.
        for (index, item) in [&start.limit, &start.condition].into_iter().enumerate() {
            if item.is_some() && known_integer(item.as_ref()).is_none() {
                return Err(ImportError::NeedsValue(context.node.input[index].clone()));
            }
        }
        return unsupported("a loop that ends at run time and collects what its iterations give");
    }
    let scalar = |context: &mut Context<'_, '_, '_>, item: &Item| {
        let value = context.value(item)?;
        context.reshape(value, &[])
    };
    let first = context.known(Tensor::scalar(0i64));
    let condition = match &start.condition {
        Some(item) => scalar(context, item)?,
        None => context.known(truth(true)),
    };
    let limit = match &start.limit {
        Some(item) => scalar(context, item)?,
        None => context.known(Tensor::scalar(i64::MAX)),
    };
    let mut operands = vec![first, condition];
    for item in &start.carried {
        operands.push(context.value(item)?);
    }
    let types: Vec<TensorType> = operands.iter().map(|&operand| context.ty(operand)).collect();
    let params = |context: &mut Context<'_, '_, '_>| -> Vec<ValueId> {
        types.iter().map(|ty| context.param(ty.clone())).collect()
    };
    let asked = params(context);
    let mut test = Block { params: asked.clone(), ..Block::default() };
    let verdict = context.extend(&mut test, |context| {
        let below = context.builder.map(ScalarFn::Lt, &[asked[0], limit])?;
        Ok(context.builder.map(ScalarFn::And, &[below, asked[1]])?)
    })?;
    test.results.push(verdict);
    let taken = params(context);
    let inputs = taken.iter().map(|&param| Item::Value(param)).collect();
    let number = taken[0];
    let (mut body, _) = context.block(&start.body, taken, inputs)?;
    let verdict = body.results.remove(0);
    let (next, verdict) = context.extend(&mut body, |context| {
        let next = context.map_scalar(ScalarFn::Add, number, 1.0)?;
        Ok((next, context.reshape(verdict, &[])?))
    })?;
    body.results.splice(0..0, [next, verdict]);
    for (&result, ty) in body.results.iter().zip(&types) {
        if context.ty(result) != *ty {
            return unsupported(format!(
                "a loop that ends at run time and changes {ty} to {}",
                context.ty(result)
            ));
        }
    }
    let values = context.builder.add_many(op::While {}, &operands, vec![test, body])?;
    Ok(values.into_iter().skip(2).map(Item::Value).collect())
}

fn truth(value: bool) -> Tensor {
    Tensor::from_values(DType::Bool, &[], &crate::tensor::Values::Bool(vec![value]))
}
