//! Recognises attention in a kernel without loops.

use super::super::{Cut, can_cut, is_parallel, summed};
use super::causal::{self, Causal};
use crate::expr::{Expr, ExprId, ExprNode};
use crate::kernel::{Axis, Combine, Kernel, Stmt, TileId, TileOp};
use crate::scalar::ScalarFn;
use crate::types::DType;
use std::collections::{BTreeMap, BTreeSet};

/// What is what in a kernel that is attention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attention {
    /// The axis along which the keys lie.
    pub keys: Axis,
    /// The axes along which keys or values differ as well as queries, with their extents.
    pub batch: Vec<(Axis, usize)>,
    /// The axes along which queries alone differ.
    pub queries: Vec<(Axis, usize)>,
    /// Whether positions hide keys.
    pub(super) causal: Option<Causal>,
    /// A score for every query and key.
    pub(super) scores: TileId,
    /// The largest score of every query.
    pub(super) top: TileId,
    /// e to the scores less the largest.
    pub(super) powers: TileId,
    /// The sums of the powers.
    pub(super) sum: TileId,
    /// The quotients of the two.
    pub(super) weights: TileId,
    /// What the weights are multiplied with.
    pub(super) values: TileId,
    /// The product.
    pub(super) result: TileId,
}

/// The definition of every tile, and how often it is read.
struct Definitions<'k> {
    kernel: &'k Kernel,
    ops: BTreeMap<TileId, &'k TileOp>,
    reads: BTreeMap<TileId, usize>,
}

/// What is what, or why the kernel is not attention.
pub fn find(kernel: &Kernel) -> Result<Attention, String> {
    let mut found = Definitions { kernel, ops: BTreeMap::new(), reads: BTreeMap::new() };
    for stmt in &kernel.body {
        match stmt {
            Stmt::Define { results, op } => {
                for &result in results {
                    found.ops.insert(result, op);
                }
            }
            Stmt::Store { .. } => {}
            Stmt::Scatter { .. } | Stmt::For(_) => {
                return Err("it scatters, or has loops already".to_owned());
            }
        }
        stmt.visit_reads(&mut |tile| *found.reads.entry(tile).or_default() += 1);
    }
    let mut why = "no product reads the weights of a softmax".to_owned();
    for (&result, op) in &found.ops {
        let TileOp::Contract { init, a, b, over, accumulate: DType::F32 } = op else { continue };
        let [keys] = over[..] else { continue };
        if !found.is_zero(*init) {
            continue;
        }
        for (weights, values) in [(*a, *b), (*b, *a)] {
            match found.roles(keys, weights, values, result) {
                None => {}
                Some(Ok(attention)) => return Ok(attention),
                Some(Err(reason)) => why = reason,
            }
        }
    }
    Err(why)
}

impl Definitions<'_> {
    /// Nothing where the weights are none of a softmax over the keys; else what is what, or why that does not serve.
    fn roles(
        &self,
        keys: Axis,
        weights: TileId,
        values: TileId,
        result: TileId,
    ) -> Option<Result<Attention, String>> {
        let (powers, sum) = self.binary(weights, ScalarFn::Div)?;
        let TileOp::Reduce { combine: Combine::Sum, init: None, tile, over, accumulate } =
            self.ops.get(&sum)?
        else {
            return None;
        };
        if *tile != powers || over[..] != [keys] || *accumulate != DType::F32 {
            return None;
        }
        let (scores, top) = self.power(powers)?;
        let TileOp::Reduce { combine: Combine::Max, init: None, tile, over, .. } =
            self.ops.get(&top)?
        else {
            return None;
        };
        if *tile != scores || over[..] != [keys] {
            return None;
        }
        let attention = Attention {
            keys,
            batch: Vec::new(),
            queries: Vec::new(),
            causal: None,
            scores,
            top,
            powers,
            sum,
            weights,
            values,
            result,
        };
        Some(self.with_axes(attention))
    }

    fn with_axes(&self, mut attention: Attention) -> Result<Attention, String> {
        let kernel = self.kernel;
        let Attention { keys, scores, top, powers, sum, weights, values, result, .. } = attention;
        let reads = |tile: TileId| self.reads.get(&tile).copied().unwrap_or(0);
        let wanted = [(scores, 2), (top, 1), (powers, 2), (sum, 1), (weights, 1)];
        if let Some(&(tile, count)) = wanted.iter().find(|&&(tile, count)| reads(tile) != count) {
            let (name, reads) = (&kernel.tiles[tile].name, reads(tile));
            return Err(format!("%{name} is read {reads} times in the kernel, not {count}"));
        }
        if [scores, top, powers, sum].iter().any(|&tile| kernel.tiles[tile].dtype != DType::F32) {
            return Err("the softmax is not computed in f32".to_owned());
        }
        let made = self.slice(scores);
        let mut product = None;
        for tile in &made {
            let op = self.ops[tile];
            if summed(op).contains(&keys) {
                return Err("scores sum over the keys".to_owned());
            }
            if let TileOp::Contract { a, b, .. } = op
                && product.replace((*a, *b)).is_some()
            {
                return Err("two products make the scores".to_owned());
            }
        }
        let Some((a, b)) = product else { return Err("no product makes the scores".to_owned()) };
        let has = |tile: TileId, axis: Axis| kernel.tiles[tile].extent(axis).is_some();
        let key_side = match (has(a, keys), has(b, keys)) {
            (true, false) => a,
            (false, true) => b,
            (true, true) | (false, false) => {
                return Err("keys do not lie on one side of the scores' product".to_owned());
            }
        };
        let near = self.slice(values);
        let mut inside: BTreeSet<TileId> = made.union(&near).copied().collect();
        inside.extend([top, powers, sum, weights]);
        if kernel.tiles.iter().any(|(tile, declared)| {
            declared.extent(keys).is_some()
                && self.ops.contains_key(&tile)
                && !inside.contains(&tile)
        }) {
            return Err("something else lies along the keys".to_owned());
        }
        let extent = kernel.tiles[scores].extent(keys).ok_or("scores do not lie along the keys")?;
        can_cut(kernel, Cut { axis: keys, size: extent, extent })?;
        for &(axis, extent) in &kernel.tiles[result].dims {
            if !has(weights, axis) || !is_parallel(kernel, axis) {
                continue;
            }
            let shared = has(key_side, axis) || has(values, axis);
            let axes = if shared { &mut attention.batch } else { &mut attention.queries };
            axes.push((axis, extent));
        }
        if let TileOp::Map { expr, .. } = self.ops[&scores] {
            attention.causal = causal::find(expr, keys);
        }
        Ok(attention)
    }

    /// The tiles that computing one takes, itself included.
    fn slice(&self, tile: TileId) -> BTreeSet<TileId> {
        let mut found = BTreeSet::new();
        let mut pending = vec![tile];
        while let Some(tile) = pending.pop() {
            if found.insert(tile) {
                pending.extend(self.ops[&tile].reads());
            }
        }
        found
    }

    fn is_zero(&self, tile: TileId) -> bool {
        matches!(self.ops.get(&tile), Some(TileOp::Fill { value }) if value.to_f64() == 0.0)
    }

    /// The operands of a map that is that function of two tiles, in another type perhaps.
    fn binary(&self, tile: TileId, function: ScalarFn) -> Option<(TileId, TileId)> {
        let TileOp::Map { operands, expr } = self.ops.get(&tile)? else { return None };
        let (x, y) = pair(expr, through_converts(expr, expr.root), function)?;
        Some((operands[x], operands[y]))
    }

    /// `x` and `y` where the tile is `exp(x - y)`.
    fn power(&self, tile: TileId) -> Option<(TileId, TileId)> {
        let TileOp::Map { operands, expr } = self.ops.get(&tile)? else { return None };
        let (ExprNode::Call(ScalarFn::Exp, inner), _) = &expr.nodes[expr.root] else {
            return None;
        };
        let (x, y) = pair(expr, inner[0], ScalarFn::Sub)?;
        Some((operands[x], operands[y]))
    }
}

fn through_converts(expr: &Expr, mut node: ExprId) -> ExprId {
    while let (ExprNode::Convert(inner), _) = &expr.nodes[node] {
        node = *inner;
    }
    node
}

/// The positions of the operands that a function of two takes.
fn pair(expr: &Expr, node: ExprId, function: ScalarFn) -> Option<(usize, usize)> {
    let (ExprNode::Call(found, inner), _) = &expr.nodes[node] else { return None };
    let [x, y] = inner[..] else { return None };
    match (&expr.nodes[x].0, &expr.nodes[y].0) {
        (ExprNode::Operand(x), ExprNode::Operand(y)) if *found == function => Some((*x, *y)),
        _ => None,
    }
}
