//! Sequences and optionals. Their structure is known before the run, so they are lists here and vanish.

use super::context::{ImportError, Items, NodeContext, invalid, unsupported};
use super::convert::Item;
use super::table::{Row, items};
use crate::tensor::{Tensor, Values};
use crate::types::DType;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[
    items("SequenceConstruct", 1, construct),
    items("SequenceEmpty", 1, |_| Ok(vec![Item::Sequence(Vec::new())])),
    items("SequenceInsert", 1, insert),
    items("SequenceErase", 1, erase),
    items("SequenceAt", 1, at),
    items("SequenceLength", 1, length),
    items("SequenceMap", 1, map),
    items("ConcatFromSequence", 1, concat),
    items("SplitToSequence", 1, split),
    items("Optional", 1, optional),
    items("OptionalHasElement", 1, has_element),
    items("OptionalGetElement", 1, get_element),
];

type Context<'a, 'f, 'm> = NodeContext<'a, 'f, 'm>;

fn sequence(context: &Context<'_, '_, '_>, index: usize) -> Result<Vec<Item>, ImportError> {
    match context.inputs.get(index).and_then(Option::as_ref) {
        Some(Item::Sequence(list)) => Ok(list.clone()),
        Some(Item::Unusable(what)) => unsupported(what.clone()),
        Some(
            Item::Value(_) | Item::Known { .. } | Item::Foreign(..) | Item::Nothing | Item::Failed,
        )
        | None => invalid(format!("input {index} is not a sequence")),
    }
}

/// A position among `count`, from an input that may be left out.
fn position(
    context: &Context<'_, '_, '_>,
    index: usize,
    count: usize,
    default: usize,
) -> Result<usize, ImportError> {
    match context.optional_constant(index)? {
        None => Ok(default),
        Some(tensor) => {
            let position = tensor.to_i64().first().copied().unwrap_or(0);
            context.axis(position, count)
        }
    }
}

fn construct(context: &mut Context<'_, '_, '_>) -> Items {
    Ok(vec![Item::Sequence(context.inputs.iter().flatten().cloned().collect())])
}

fn insert(context: &mut Context<'_, '_, '_>) -> Items {
    let mut list = sequence(context, 0)?;
    let Some(item) = context.inputs.get(1).cloned().flatten() else {
        return invalid("input 1 is missing");
    };
    let position = match context.optional_constant(2)? {
        None => list.len(),
        Some(tensor) => {
            let position = tensor.to_i64().first().copied().unwrap_or(0);
            let rank = list.len() + usize::from(position >= 0);
            context.axis(position, rank)?
        }
    };
    list.insert(position, item);
    Ok(vec![Item::Sequence(list)])
}

fn erase(context: &mut Context<'_, '_, '_>) -> Items {
    let mut list = sequence(context, 0)?;
    if list.is_empty() {
        return invalid("the sequence is empty");
    }
    let position = position(context, 1, list.len(), list.len() - 1)?;
    list.remove(position);
    Ok(vec![Item::Sequence(list)])
}

fn at(context: &mut Context<'_, '_, '_>) -> Items {
    let list = sequence(context, 0)?;
    let position = position(context, 1, list.len(), 0)?;
    match list.get(position) {
        Some(item) => Ok(vec![item.clone()]),
        None => invalid("the sequence is empty"),
    }
}

fn length(context: &mut Context<'_, '_, '_>) -> Items {
    let count = sequence(context, 0)?.len() as i64;
    Ok(vec![Item::known(Tensor::scalar(count))])
}

fn map(context: &mut Context<'_, '_, '_>) -> Items {
    let body = context.graph("body")?;
    let count = sequence(context, 0)?.len();
    let mut results: Vec<Vec<Item>> = vec![Vec::new(); body.output.len()];
    for position in 0..count {
        let mut inputs = Vec::new();
        for item in context.inputs.iter().flatten() {
            inputs.push(match item {
                Item::Sequence(list) => match list.get(position) {
                    Some(item) => item.clone(),
                    None => return invalid("the sequences differ in length"),
                },
                Item::Value(_)
                | Item::Known { .. }
                | Item::Foreign(..)
                | Item::Nothing
                | Item::Unusable(_)
                | Item::Failed => item.clone(),
            });
        }
        let outputs = context.subgraph(&body, inputs)?;
        results.iter_mut().zip(outputs).for_each(|(list, item)| list.push(item));
    }
    Ok(results.into_iter().map(Item::Sequence).collect())
}

fn concat(context: &mut Context<'_, '_, '_>) -> Items {
    let list = sequence(context, 0)?;
    let stack = context.int("new_axis", 0) != 0;
    let mut values = Vec::new();
    for item in &list {
        values.push(context.value(item)?);
    }
    let Some(&first) = values.first() else { return invalid("the sequence is empty") };
    let axis = context.axis(context.int("axis", 0), context.rank(first) + usize::from(stack))?;
    if stack {
        for value in &mut values {
            *value = context.unsqueeze(*value, &[axis])?;
        }
    }
    Ok(vec![Item::Value(context.concat(&values, axis)?)])
}

fn split(context: &mut Context<'_, '_, '_>) -> Items {
    let x = context.input(0)?;
    let axis = context.axis(context.int("axis", 0), context.rank(x))?;
    let size = context.shape(x)[axis];
    let given = context.optional_constant(1)?;
    let squeeze = given.is_none() && context.int("keepdims", 1) == 0;
    let parts: Vec<usize> = match given {
        None if size > 1 << 16 => return unsupported(format!("{size} parts")),
        None => vec![1; size],
        Some(tensor) if tensor.shape().is_empty() => {
            let part = usize::try_from(tensor.to_i64()[0]).unwrap_or(0);
            if part == 0 || size / part > 1 << 16 {
                return invalid("parts of 0 elements");
            }
            (0..size.div_ceil(part)).map(|index| part.min(size - index * part)).collect()
        }
        Some(tensor) => tensor
            .to_i64()
            .iter()
            .map(|&part| usize::try_from(part).unwrap_or(usize::MAX))
            .collect(),
    };
    if parts.iter().try_fold(0usize, |sum, &part| sum.checked_add(part)) != Some(size) {
        return invalid(format!("the parts do not sum to {size}"));
    }
    let mut list = Vec::new();
    let mut start = 0;
    for part in parts {
        let mut value = context.slice_axis(x, axis, start, start + part, 1)?;
        if squeeze {
            let mut shape = context.shape(value).to_vec();
            shape.remove(axis);
            value = context.reshape(value, &shape)?;
        }
        list.push(Item::Value(value));
        start += part;
    }
    Ok(vec![Item::Sequence(list)])
}

fn optional(context: &mut Context<'_, '_, '_>) -> Items {
    Ok(vec![context.inputs.first().cloned().flatten().unwrap_or(Item::Nothing)])
}

fn has_element(context: &mut Context<'_, '_, '_>) -> Items {
    let there = match context.inputs.first().cloned().flatten() {
        None | Some(Item::Nothing) => false,
        Some(Item::Unusable(what)) => return unsupported(what),
        Some(
            Item::Value(_)
            | Item::Known { .. }
            | Item::Foreign(..)
            | Item::Sequence(_)
            | Item::Failed,
        ) => true,
    };
    Ok(vec![Item::known(Tensor::from_values(DType::Bool, &[], &Values::Bool(vec![there])))])
}

fn get_element(context: &mut Context<'_, '_, '_>) -> Items {
    match context.inputs.first().cloned().flatten() {
        None | Some(Item::Nothing) => invalid("the optional has no value"),
        Some(item) => Ok(vec![item]),
    }
}
