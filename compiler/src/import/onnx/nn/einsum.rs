//! Einsum: operands are joined two by two by general products; labels that nothing else needs are summed at once.

use super::Value;
use crate::graph::ValueId;
use crate::import::onnx::context::{Converted, ImportError, NodeContext, invalid};
use crate::import::onnx::table::{Row, row};
use crate::kernel::Combine;
use crate::scalar::ScalarFn;
use crate::types::DType;

pub(in crate::import::onnx) const ROWS: &[Row] = &[row("Einsum", 12, einsum)];

/// A dimension's label. Those of an ellipsis count from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label {
    Letter(char),
    Ellipsis(usize),
}

/// An operand with a label for each dimension.
struct Term {
    value: ValueId,
    labels: Vec<Label>,
}

fn einsum(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let equation: String =
        context.string("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let values = context.all_inputs()?;
    let parts: Vec<&str> = left.split(',').collect();
    if parts.len() != values.len() {
        return invalid(format!(
            "the equation {equation} has {} terms for {} inputs",
            parts.len(),
            values.len()
        ));
    }
    let mut terms = Vec::new();
    let mut widest = 0;
    for (part, &value) in parts.iter().zip(&values) {
        let labels = read_labels(part, context.rank(value))?;
        widest =
            widest.max(labels.iter().filter(|label| matches!(label, Label::Ellipsis(_))).count());
        terms.push(Term { value, labels });
    }
    let ellipsis: Vec<Label> = (0..widest).rev().map(Label::Ellipsis).collect();
    let output = match right {
        Some(right) => {
            let mut labels = Vec::new();
            for label in split_letters(right)? {
                match label {
                    Some(letter) => labels.push(Label::Letter(letter)),
                    None => labels.extend(&ellipsis),
                }
            }
            labels
        }
        None => {
            // Labels that occur once, in order of the alphabet, behind the ellipsis.
            let all: Vec<Label> =
                terms.iter().flat_map(|term| term.labels.iter().copied()).collect();
            let once = |label: &Label| all.iter().filter(|other| *other == label).count() == 1;
            let mut letters: Vec<char> = all
                .iter()
                .filter(|label| once(label))
                .filter_map(|label| match label {
                    Label::Letter(letter) => Some(*letter),
                    Label::Ellipsis(_) => None,
                })
                .collect();
            letters.sort_unstable();
            ellipsis.iter().copied().chain(letters.into_iter().map(Label::Letter)).collect()
        }
    };
    let mut rest = terms.into_iter();
    let first = rest.next().expect("an equation has a term");
    let rest: Vec<Term> = rest.collect();
    let mut joined = diagonal(context, first)?;
    for (index, term) in rest.into_iter().enumerate() {
        let term = diagonal(context, term)?;
        let later: Vec<Label> = parts[index + 2..]
            .iter()
            .zip(&values[index + 2..])
            .map(|(part, &value)| read_labels(part, context.rank(value)))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        let needed = |label: &Label| output.contains(label) || later.contains(label);
        joined = join(context, joined, term, needed)?;
    }
    let joined = sum_out(context, joined, |label| output.contains(label))?;
    let perm: Option<Vec<usize>> =
        output.iter().map(|label| joined.labels.iter().position(|other| other == label)).collect();
    let Some(perm) = perm else {
        return invalid(format!("the result of {equation} has a label that no term has"));
    };
    Ok(vec![context.transpose(joined.value, &perm)?])
}

/// The letters of a term; `None` is the ellipsis.
fn split_letters(part: &str) -> Result<Vec<Option<char>>, ImportError> {
    let mut letters = Vec::new();
    let mut rest = part;
    while let Some(letter) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            letters.push(None);
            rest = after;
        } else if letter.is_ascii_alphabetic() {
            letters.push(Some(letter));
            rest = &rest[1..];
        } else {
            return invalid(format!("{letter:?} in the term {part:?} of an equation"));
        }
    }
    Ok(letters)
}

fn read_labels(part: &str, rank: usize) -> Result<Vec<Label>, ImportError> {
    let letters = split_letters(part)?;
    let named = letters.iter().flatten().count();
    let dots = letters.len() - named;
    if dots > 1 || named > rank || (dots == 0 && named != rank) {
        return invalid(format!("the term {part:?} does not fit rank {rank}"));
    }
    let mut labels = Vec::new();
    for letter in letters {
        match letter {
            Some(letter) => labels.push(Label::Letter(letter)),
            None => labels.extend((0..rank - named).rev().map(Label::Ellipsis)),
        }
    }
    Ok(labels)
}

/// The operand with every label once: of dimensions with the same label, the diagonal is taken.
fn diagonal(context: &mut NodeContext<'_, '_, '_>, mut term: Term) -> Result<Term, ImportError> {
    loop {
        let twice = term.labels.iter().enumerate().find_map(|(first, label)| {
            let second = term.labels[first + 1..].iter().position(|other| other == label)?;
            Some((first, first + 1 + second))
        });
        let Some((first, second)) = twice else { return Ok(term) };
        let shape = context.shape(term.value).to_vec();
        if shape[first] != shape[second] {
            return invalid("dimensions with one label differ in size");
        }
        let row = context.iota(DType::I64, &shape, first)?;
        let column = context.iota(DType::I64, &shape, second)?;
        let same = context.map(ScalarFn::Eq, &[row, column])?;
        let zero = context.scalar_like(term.value, 0.0)?;
        let kept = context.map(ScalarFn::Select, &[same, term.value, zero])?;
        term.value = context.reduce(Combine::Sum, kept, &[second])?;
        term.labels.remove(second);
    }
}

/// The operand without the labels that are not kept: summed.
fn sum_out(
    context: &mut NodeContext<'_, '_, '_>,
    term: Term,
    keep: impl Fn(&Label) -> bool,
) -> Result<Term, ImportError> {
    let axes: Vec<usize> =
        (0..term.labels.len()).filter(|&axis| !keep(&term.labels[axis])).collect();
    let value = context.reduce(Combine::Sum, term.value, &axes)?;
    Ok(Term { value, labels: term.labels.into_iter().filter(|label| keep(label)).collect() })
}

fn join(
    context: &mut NodeContext<'_, '_, '_>,
    a: Term,
    b: Term,
    needed: impl Fn(&Label) -> bool,
) -> Result<Term, ImportError> {
    let (in_a, in_b) = (a.labels.clone(), b.labels.clone());
    let mut a = sum_out(context, a, |label| needed(label) || in_b.contains(label))?;
    let mut b = sum_out(context, b, |label| needed(label) || in_a.contains(label))?;
    // A shared dimension of size 1 on one side broadcasts.
    for label in in_a.iter().filter(|label| in_b.contains(label)) {
        let place = |term: &Term| term.labels.iter().position(|other| other == label);
        let (Some(i), Some(j)) = (place(&a), place(&b)) else { continue };
        let (x, y) = (context.shape(a.value)[i], context.shape(b.value)[j]);
        if x == y {
            continue;
        }
        if x != 1 && y != 1 {
            return invalid(format!("dimensions of one label have sizes {x} and {y}"));
        }
        let (term, axis) = if x == 1 { (&mut a, i) } else { (&mut b, j) };
        let mut shape = context.shape(term.value).to_vec();
        shape[axis] = x.max(y);
        term.value = context.broadcast_to(term.value, &shape)?;
    }
    let (mut batch, mut over, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (i, label) in a.labels.iter().enumerate() {
        let Some(j) = b.labels.iter().position(|other| other == label) else { continue };
        if needed(label) {
            batch.push((i, j));
            labels.push(*label);
        } else {
            over.push((i, j));
        }
    }
    labels.extend(a.labels.iter().filter(|label| !b.labels.contains(label)));
    labels.extend(b.labels.iter().filter(|label| !a.labels.contains(label)));
    let dtype = context.dtype(a.value);
    let value: Value = context.contract(a.value, b.value, &batch, &over, dtype);
    Ok(Term { value: value?, labels })
}
