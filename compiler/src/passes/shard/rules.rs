//! Which dimensions of a node's operands and results go together. A factor is an extent that several dimensions share:
//! where it is cut into parts, each rank computes its part from parts of the operands alone. A factor that is summed
//! leaves partial results. Dimensions without a factor must be whole on every rank.

use crate::graph::{Block, Function, Node, ValueId};
use crate::kernel::Combine;
use crate::op::{Kind, Op};
use crate::scalar::ScalarFn;

/// An extent that dimensions share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Factor {
    /// Its size: parts divide it.
    pub(super) size: usize,
    /// How partial results join, where it is not in the result.
    pub(super) summed: Option<Combine>,
}

/// The factor of each dimension of one value.
pub(super) type Dims = Vec<Option<usize>>;

/// The factors of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rule {
    /// All of them.
    pub(super) factors: Vec<Factor>,
    /// For each operand.
    pub(super) operands: Vec<Dims>,
    /// For each result.
    pub(super) results: Vec<Dims>,
    /// Whether the operation on partial results, joined in that way, gives partial results; `Any` for all ways.
    pub(super) passes: Passes,
}

/// Which partial operands become partial results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Passes {
    /// None.
    #[default]
    Never,
    /// All operands partial sums.
    Sums,
    /// All operands partial, in any one way.
    Any,
}

impl Rule {
    fn factor(&mut self, size: usize) -> Option<usize> {
        self.factors.push(Factor { size, summed: None });
        Some(self.factors.len() - 1)
    }

    fn summed(&mut self, size: usize, combine: Combine) -> Option<usize> {
        self.factors.push(Factor { size, summed: Some(combine) });
        Some(self.factors.len() - 1)
    }

    /// A factor for each dimension where `whole` does not say otherwise.
    fn free(&mut self, shape: &[usize], whole: impl Fn(usize) -> bool) -> Dims {
        let dims = shape.iter().enumerate();
        dims.map(|(dim, &size)| if whole(dim) { None } else { self.factor(size) }).collect()
    }
}

/// The rule of a node without blocks.
pub(super) fn rule(function: &Function, node: &Node) -> Rule {
    let shape = |value: ValueId| function.ty(value).shape.to_vec();
    let operands: Vec<Vec<usize>> = node.operands.iter().map(|&value| shape(value)).collect();
    let results: Vec<Vec<usize>> = node.results.iter().map(|&value| shape(value)).collect();
    let mut rule = Rule::default();
    match &node.op {
        Op::Map(_) | Op::Convert(_) => {
            let dims = rule.free(&results[0], |_| false);
            rule.operands = vec![dims.clone(); operands.len()];
            rule.results = vec![dims];
            if let Op::Map(op) = &node.op
                && matches!(op.function, ScalarFn::Add | ScalarFn::Sub | ScalarFn::Neg)
            {
                rule.passes = Passes::Sums;
            }
        }
        Op::Constant(_) | Op::Parameter(_) | Op::Iota(_) | Op::Random(_) => {
            let dims = rule.free(&results[0], |_| false);
            rule.results = vec![dims];
        }
        Op::Reduce(op) => {
            let dtype = function.ty(node.operands[0]).dtype;
            let joins = op.combine.function().result(&[dtype, dtype]).is_ok();
            let (mut from, mut to) = (Dims::new(), Dims::new());
            for (dim, &size) in operands[0].iter().enumerate() {
                if op.axes.contains(&dim) {
                    from.push(if joins { rule.summed(size, op.combine) } else { None });
                } else {
                    let factor = rule.factor(size);
                    from.push(factor);
                    to.push(factor);
                }
            }
            (rule.operands, rule.results) = (vec![from], vec![to]);
        }
        Op::Scan(op) => same(&mut rule, &operands[0], 1, &[op.axis]),
        Op::Reverse(op) => {
            same(&mut rule, &operands[0], 1, &op.axes);
            rule.passes = Passes::Any;
        }
        Op::Sort(op) => same(&mut rule, &operands[0], 2, &[op.axis]),
        Op::TopK(op) => same(&mut rule, &operands[0], 2, &[op.axis]),
        Op::ArgReduce(op) => {
            let from = rule.free(&operands[0], |dim| dim == op.axis);
            let mut to = from.clone();
            to.remove(op.axis);
            (rule.operands, rule.results) = (vec![from], vec![to]);
        }
        Op::Contract(op) => {
            let mut a = vec![None; operands[0].len()];
            let mut b = vec![None; operands[1].len()];
            let mut to = Dims::new();
            for pair in &op.batch {
                let factor = rule.factor(operands[0][pair[0]]);
                (a[pair[0]], b[pair[1]]) = (factor, factor);
                to.push(factor);
            }
            for pair in &op.over {
                let factor = rule.summed(operands[0][pair[0]], Combine::Sum);
                (a[pair[0]], b[pair[1]]) = (factor, factor);
            }
            for (dims, shape) in [(&mut a, &operands[0]), (&mut b, &operands[1])] {
                for (dim, entry) in dims.iter_mut().enumerate().filter(|(_, entry)| entry.is_none())
                {
                    *entry = rule.factor(shape[dim]);
                    to.push(*entry);
                }
            }
            (rule.operands, rule.results) = (vec![a, b], vec![to]);
        }
        Op::Convolve(op) => {
            let mut x = vec![None; operands[0].len()];
            let mut w = vec![None; operands[1].len()];
            let mut to = vec![None; results[0].len()];
            let batch = rule.factor(operands[0][0]);
            (x[0], to[0]) = (batch, batch);
            if op.groups == 1 {
                let channels = rule.summed(operands[0][1], Combine::Sum);
                (x[1], w[1]) = (channels, channels);
                let outputs = rule.factor(operands[1][0]);
                (w[0], to[1]) = (outputs, outputs);
            }
            (rule.operands, rule.results) = (vec![x, w], vec![to]);
        }
        Op::WindowReduce(op) => {
            let whole = |dim: usize| {
                [op.window[dim], op.strides[dim]] != [1, 1] || op.low[dim] + op.high[dim] > 0
            };
            let dims = rule.free(&operands[0], whole);
            (rule.operands, rule.results) = (vec![dims.clone()], vec![dims]);
        }
        Op::Reshape(_) => {
            let (from, to) = reshaped(&mut rule, &operands[0], &results[0]);
            (rule.operands, rule.results) = (vec![from], vec![to]);
            rule.passes = Passes::Any;
        }
        Op::Transpose(op) => {
            let from = rule.free(&operands[0], |_| false);
            rule.results = vec![op.perm.iter().map(|&dim| from[dim]).collect()];
            rule.operands = vec![from];
            rule.passes = Passes::Any;
        }
        Op::Broadcast(op) => {
            let to = rule.free(&results[0], |_| false);
            let of = |(dim, &to_dim): (usize, &usize)| {
                let same = operands[0][dim] == results[0][to_dim];
                if same { to[to_dim] } else { None }
            };
            rule.operands = vec![op.dims.iter().enumerate().map(of).collect()];
            rule.results = vec![to];
            rule.passes = Passes::Any;
        }
        Op::Slice(op) => {
            let cut = |dim: usize| {
                [op.start[dim], op.limit[dim], op.stride[dim]] != [0, operands[0][dim], 1]
            };
            let dims = rule.free(&operands[0], cut);
            (rule.operands, rule.results) = (vec![dims.clone()], vec![dims]);
            rule.passes = Passes::Any;
        }
        Op::Pad(op) => {
            let padded = |dim: usize| op.low[dim] + op.high[dim] + op.interior[dim] > 0;
            let dims = rule.free(&operands[0], padded);
            (rule.operands, rule.results) = (vec![dims.clone(), Dims::new()], vec![dims]);
        }
        Op::Concat(op) => {
            let dims = rule.free(&results[0], |dim| dim == op.axis);
            rule.operands = vec![dims.clone(); operands.len()];
            rule.results = vec![dims];
            rule.passes = Passes::Any;
        }
        Op::Gather(op) => {
            let from = rule.free(&operands[0], |dim| dim == op.axis);
            let indices = rule.free(&operands[1], |_| false);
            rule.results = vec![spliced(&from, &indices, op.axis)];
            rule.operands = vec![from, indices];
        }
        Op::Scatter(op) => {
            let from = rule.free(&operands[0], |dim| dim == op.axis);
            let indices = vec![None; operands[1].len()];
            let updates = spliced(&from, &indices, op.axis);
            rule.results = vec![from.clone()];
            rule.operands = vec![from, indices, updates];
        }
        Op::DynamicSlice(op) => {
            let dims = rule.free(&operands[0], |dim| op.sizes[dim] != operands[0][dim]);
            rule.operands = vec![dims.clone()];
            rule.operands.resize(operands.len(), Dims::new());
            rule.results = vec![dims];
        }
        Op::DynamicUpdate(_) => {
            let dims = rule.free(&operands[0], |dim| operands[1][dim] != operands[0][dim]);
            rule.operands = vec![dims.clone(), dims.clone()];
            rule.operands.resize(operands.len(), Dims::new());
            rule.results = vec![dims];
        }
        Op::If(_)
        | Op::While(_)
        | Op::For(_)
        | Op::Call(_)
        | Op::Fusion(_)
        | Op::AllReduce(_)
        | Op::AllGather(_)
        | Op::ReduceScatter(_)
        | Op::AllToAll(_)
        | Op::Permute(_)
        | Op::Rank(_)
        | Op::Softmax(_)
        | Op::LogSoftmax(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::Gelu(_)
        | Op::Silu(_)
        | Op::Attention(_) => {
            rule.operands = operands.iter().map(|shape| vec![None; shape.len()]).collect();
            rule.results = results.iter().map(|shape| vec![None; shape.len()]).collect();
        }
        #[allow(
            unreachable_patterns,
            clippy::allow_attributes,
            reason = "operations to come are whole"
        )]
        _ => {
            rule.operands = operands.iter().map(|shape| vec![None; shape.len()]).collect();
            rule.results = results.iter().map(|shape| vec![None; shape.len()]).collect();
        }
    }
    rule
}

fn same(rule: &mut Rule, shape: &[usize], results: usize, whole: &[usize]) {
    let dims = rule.free(shape, |dim| whole.contains(&dim));
    rule.operands = vec![dims.clone()];
    rule.results = vec![dims; results];
}

fn spliced(from: &[Option<usize>], indices: &[Option<usize>], axis: usize) -> Dims {
    let mut dims = from.to_vec();
    dims.splice(axis..=axis, indices.iter().copied());
    dims
}

/// A reshape keeps runs of dimensions with equal products together; a part of the first dimension of such a run is a
/// part of the run, on both sides.
fn reshaped(rule: &mut Rule, from: &[usize], to: &[usize]) -> (Dims, Dims) {
    let (mut left, mut right) = (vec![None; from.len()], vec![None; to.len()]);
    if from.contains(&0) || to.contains(&0) {
        return (left, right);
    }
    let large = |shape: &[usize]| -> Vec<usize> {
        (0..shape.len()).filter(|&dim| shape[dim] > 1).collect()
    };
    let (a, b) = (large(from), large(to));
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (first, second) = (a[i], b[j]);
        let (mut x, mut y) = (from[first], to[second]);
        (i, j) = (i + 1, j + 1);
        while x != y {
            // Both products end at the same count, so the smaller one has a next dimension.
            let (side, at, shape, product) =
                if x < y { (&a, &mut i, from, &mut x) } else { (&b, &mut j, to, &mut y) };
            let Some(&dim) = side.get(*at) else { return (left, right) };
            *product *= shape[dim];
            *at += 1;
        }
        let factor = rule.factor(gcd(from[first], to[second]));
        (left[first], right[second]) = (factor, factor);
    }
    (left, right)
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Values of which some dimensions go together.
#[derive(Clone, Debug)]
pub(super) struct Tie {
    /// The extents.
    pub(super) factors: Vec<Factor>,
    /// The values, each with the factors of its dimensions.
    pub(super) values: Vec<(ValueId, Dims)>,
}

/// All ties of a function, in the order of its nodes. What a loop or branch hands on keeps its sharding.
pub(super) fn ties(function: &Function) -> Vec<Tie> {
    let mut found = Vec::new();
    for &(input, output) in &function.state {
        found.push(equal(function, [function.body.params[input], function.body.results[output]]));
    }
    block_ties(function, &function.body, &mut found);
    found
}

fn equal(function: &Function, values: impl IntoIterator<Item = ValueId>) -> Tie {
    let mut rule = Rule::default();
    let mut dims = None;
    let values = values
        .into_iter()
        .map(|value| {
            let dims = dims.get_or_insert_with(|| rule.free(&function.ty(value).shape, |_| false));
            (value, dims.clone())
        })
        .collect();
    Tie { factors: rule.factors, values }
}

fn block_ties(function: &Function, block: &Block, found: &mut Vec<Tie>) {
    for &id in &block.nodes {
        let node = &function.nodes[id];
        for inner in &node.blocks {
            block_ties(function, inner, found);
        }
        if node.op.kind() != Kind::Control {
            let rule = rule(function, node);
            let operands = node.operands.iter().copied().zip(rule.operands);
            let results = node.results.iter().copied().zip(rule.results);
            found.push(Tie { factors: rule.factors, values: operands.chain(results).collect() });
            continue;
        }
        // Calls and fusions are refused when their turn comes.
        if !matches!(node.op, Op::If(_) | Op::For(_) | Op::While(_)) {
            continue;
        }
        let is_for = matches!(node.op, Op::For(_));
        let is_if = matches!(node.op, Op::If(_));
        for (position, &result) in node.results.iter().enumerate() {
            let mut values = vec![result];
            if !is_if {
                values.push(node.operands[position]);
            }
            for (index, inner) in node.blocks.iter().enumerate() {
                let skipped = usize::from(is_for);
                if !is_if {
                    values.push(inner.params[position + skipped]);
                }
                let is_test = !is_for && !is_if && index == 0;
                if !is_test {
                    values.push(inner.results[position]);
                }
            }
            found.push(equal(function, values));
        }
    }
}
