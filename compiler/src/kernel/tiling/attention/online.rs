//! Makes attention a loop over blocks of keys.

use super::super::{Cut, can_cut, loop_over, split, substitute};
use super::Attention;
use crate::expr::{Expr, ExprNode, Scalar};
use crate::kernel::{
    Affine, Axis, Kernel, Loop, LoopKind, Stmt, Term, TileId, TileOp, VarId, verify,
};
use crate::scalar::ScalarFn;
use crate::types::DType;
use std::collections::BTreeSet;

/// The kernel with loops over tiles of the axes in `parallel`, and inside a loop over blocks of keys, where there is more
/// than one.
pub fn apply(
    kernel: &Kernel,
    attention: &Attention,
    parallel: &[(Axis, usize)],
    key_block: usize,
) -> Result<Kernel, String> {
    let mut tiled = kernel.clone();
    let extent = |kernel: &Kernel, axis| super::super::extent(kernel, axis).unwrap_or(1);
    let mut around = Vec::new();
    for &(axis, size) in parallel {
        let cut = Cut { axis, size, extent: extent(kernel, axis) };
        if size < cut.extent {
            can_cut(kernel, cut)?;
            around.push((cut, substitute::whole(&mut tiled, cut)));
        }
    }
    let keys =
        Cut { axis: attention.keys, size: key_block, extent: extent(kernel, attention.keys) };
    if key_block < keys.extent {
        can_cut(kernel, keys)?;
        let var = substitute::whole(&mut tiled, keys);
        let end = last_key(attention, keys, &around);
        in_blocks(&mut tiled, attention, keys, (var, end));
    } else {
        divide_last(&mut tiled, attention);
    }
    let single: Vec<Axis> =
        around.iter().filter(|(cut, _)| cut.size == 1).map(|(cut, _)| cut.axis).collect();
    drop_axes(&mut tiled, &single);
    for (cut, var) in around.into_iter().rev() {
        let body = std::mem::take(&mut tiled.body);
        tiled.body = vec![loop_over(cut, var, body, LoopKind::Parallel, 1)];
    }
    verify(&tiled).map_err(|found| {
        let what = found.0.first().map(|first| first.message.clone()).unwrap_or_default();
        format!("the loops do not keep what @{} means: {what}", kernel.name)
    })?;
    Ok(tiled)
}

/// One block covers all keys: what was divided before the product is divided behind it, where there is less of it.
fn divide_last(kernel: &mut Kernel, attention: &Attention) {
    let Attention { powers, weights, result, .. } = *attention;
    let converted = kernel.tiles[weights].dtype != DType::F32;
    for stmt in std::mem::take(&mut kernel.body) {
        match stmt {
            Stmt::Define { results, .. } if results[..] == [weights] => {
                if converted {
                    let op = convert(powers, kernel.tiles[weights].dtype);
                    kernel.body.push(Stmt::Define { results, op });
                }
            }
            Stmt::Define { results, mut op } if results[..] == [result] => {
                if let TileOp::Contract { a, b, .. } = &mut op
                    && !converted
                {
                    let read = if *a == weights { a } else { b };
                    *read = powers;
                }
                kernel.body.push(Stmt::Define { results, op });
            }
            stmt @ (Stmt::Define { .. }
            | Stmt::Store { .. }
            | Stmt::Scatter { .. }
            | Stmt::For(_)) => {
                kernel.body.push(stmt);
            }
        }
    }
    let after = kernel.body.iter().position(|stmt| stmt.results() == [result]);
    let after = after.expect("the product is there") + 1;
    let rest = kernel.body.split_off(after);
    divide(kernel, attention, rest);
}

/// The loop: see the module.
fn in_blocks(kernel: &mut Kernel, attention: &Attention, keys: Cut, (var, end): (VarId, Affine)) {
    let Attention { scores, top, powers, sum, weights, values, result, .. } = *attention;
    let body = std::mem::take(&mut kernel.body);
    let replaced = [top, powers, sum, weights, result];
    let mut after: BTreeSet<TileId> = BTreeSet::from([result]);
    let (mut before, mut inside, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for stmt in body {
        let defined = stmt.results().to_vec();
        if defined.iter().any(|tile| replaced.contains(tile)) {
            continue;
        }
        let mut is_after = defined.is_empty();
        stmt.visit_reads(&mut |tile| is_after |= after.contains(&tile));
        if is_after {
            after.extend(&defined);
            rest.push(stmt);
        } else if defined.iter().any(|&tile| kernel.tiles[tile].extent(keys.axis).is_some()) {
            inside.push(stmt);
        } else {
            before.push(stmt);
        }
    }
    if keys.is_ragged() {
        hide_beyond(kernel, &mut inside, scores, keys, var);
    }
    let copy = |kernel: &mut Kernel, tile: TileId, name: &str| {
        let dims = kernel.tiles[tile].dims.clone();
        kernel.tile(name, DType::F32, &dims)
    };
    let define = |body: &mut Vec<Stmt>, tile: TileId, op: TileOp| {
        body.push(Stmt::Define { results: smallvec::smallvec![tile], op });
    };
    let mut carried = Vec::new();
    for (tile, name, start) in [
        (top, "t", Scalar::new(DType::F32, f64::from(f32::MIN))),
        (sum, "s", zero()),
        (result, "a", zero()),
    ] {
        let initial = copy(kernel, tile, &format!("{name}0"));
        define(&mut before, initial, TileOp::Fill { value: start });
        carried.push((copy(kernel, tile, name), initial));
    }
    let [(old_top, _), (old_sum, _), (old_result, _)] = carried[..] else {
        unreachable!("three tiles are carried")
    };
    let new_top = copy(kernel, top, "t2");
    define(
        &mut inside,
        new_top,
        TileOp::Reduce {
            combine: crate::kernel::Combine::Max,
            init: Some(old_top),
            tile: scores,
            over: vec![keys.axis],
            accumulate: DType::F32,
        },
    );
    let narrow = kernel.tiles[weights].dtype;
    define(&mut inside, weights, power(scores, new_top, narrow));
    let fix = copy(kernel, top, "fix");
    define(&mut inside, fix, power(old_top, new_top, DType::F32));
    let scaled_sum = copy(kernel, sum, "sf");
    define(&mut inside, scaled_sum, product(old_sum, fix));
    let new_sum = copy(kernel, sum, "s2");
    define(
        &mut inside,
        new_sum,
        TileOp::Reduce {
            combine: crate::kernel::Combine::Sum,
            init: Some(scaled_sum),
            tile: weights,
            over: vec![keys.axis],
            accumulate: DType::F32,
        },
    );
    let scaled = copy(kernel, result, "af");
    define(&mut inside, scaled, product(old_result, fix));
    let new_result = copy(kernel, result, "a2");
    define(
        &mut inside,
        new_result,
        TileOp::Contract {
            init: scaled,
            a: weights,
            b: values,
            over: vec![keys.axis],
            accumulate: DType::F32,
        },
    );
    before.push(Stmt::For(Loop {
        var,
        start: Affine::constant(0),
        end,
        step: keys.size,
        kind: LoopKind::Reduce,
        pipelined: 2,
        carried,
        body: inside,
        yields: vec![new_top, new_sum, new_result],
        results: vec![top, sum, result],
    }));
    kernel.body = before;
    divide(kernel, attention, rest);
}

/// The end of the loop over keys, which may follow from the tile of queries.
fn last_key(attention: &Attention, keys: Cut, around: &[(Cut, VarId)]) -> Affine {
    let all = Affine::constant(keys.extent as i64);
    let Some(causal) = attention.causal else { return all };
    let Some((cut, var)) = around.iter().find(|(cut, _)| cut.axis == causal.queries) else {
        return all;
    };
    let last = causal.shift.saturating_add(cut.extent as i64);
    if cut.is_ragged() || last > keys.extent as i64 {
        return all;
    }
    Affine::var(*var).plus(&Affine::constant(cut.size as i64 + causal.shift), 1)
}

fn zero() -> Scalar {
    Scalar::new(DType::F32, 0.0)
}

/// Scores beyond the last key weigh nothing.
fn hide_beyond(kernel: &mut Kernel, body: &mut Vec<Stmt>, scores: TileId, keys: Cut, var: VarId) {
    let lowest = Scalar::new(DType::F32, f64::NEG_INFINITY);
    let position = body
        .iter()
        .position(|stmt| stmt.results() == [scores])
        .expect("scores are made along the keys");
    let Stmt::Define { results, op } = &mut body[position] else {
        unreachable!("scores are defined")
    };
    if let TileOp::Map { expr, .. } = op {
        let root = expr.root;
        let inside = substitute::is_within(expr, keys, var);
        let lowest = expr.constant(lowest);
        expr.call(ScalarFn::Select, &[inside, root, lowest]);
        return;
    }
    let dims = kernel.tiles[scores].dims.clone();
    let product = kernel.tile("p", DType::F32, &dims);
    results[0] = product;
    let op = substitute::within(product, DType::F32, lowest, keys, var);
    body.insert(position + 1, Stmt::Define { results: smallvec::smallvec![scores], op });
}

/// The statements behind the product, which read it divided by the sum.
fn divide(kernel: &mut Kernel, attention: &Attention, rest: Vec<Stmt>) {
    let Attention { sum, result, .. } = *attention;
    let mut quotient = None;
    for mut stmt in rest {
        let mut reads = false;
        stmt.visit_reads(&mut |tile| reads |= tile == result);
        if !reads {
            kernel.body.push(stmt);
            continue;
        }
        if let Stmt::Define { op: TileOp::Map { operands, expr }, .. } = &mut stmt {
            *expr = dividing(expr, operands, result, sum);
            kernel.body.push(stmt);
            continue;
        }
        let tile = *quotient.get_or_insert_with(|| {
            let dims = kernel.tiles[result].dims.clone();
            let tile = kernel.tile("y", DType::F32, &dims);
            let mut expr = Expr::new();
            let (x, y) = (expr.operand(0, DType::F32), expr.operand(1, DType::F32));
            expr.call(ScalarFn::Div, &[x, y]);
            let op = TileOp::Map { operands: vec![result, sum], expr };
            kernel.body.push(Stmt::Define { results: smallvec::smallvec![tile], op });
            tile
        });
        let change = |read: &mut TileId| {
            if *read == result {
                *read = tile;
            }
        };
        match &mut stmt {
            Stmt::Define { op, .. } => split::reads_mut(op).into_iter().for_each(change),
            Stmt::Store { tile, .. } => change(tile),
            Stmt::Scatter { .. } | Stmt::For(_) => {}
        }
        kernel.body.push(stmt);
    }
}

/// The expression with `result / sum` in place of `result`; `sum` joins its operands.
fn dividing(expr: &Expr, operands: &mut Vec<TileId>, result: TileId, sum: TileId) -> Expr {
    let mut divided = Expr::new();
    let mut map = Vec::with_capacity(expr.nodes.len());
    for (node, dtype) in &expr.nodes {
        map.push(match node {
            ExprNode::Operand(position) if operands[*position] == result => {
                let x = divided.operand(*position, DType::F32);
                let y = divided.operand(operands.len(), DType::F32);
                divided.call(ScalarFn::Div, &[x, y])
            }
            ExprNode::Operand(_)
            | ExprNode::Constant(_)
            | ExprNode::Index(_)
            | ExprNode::Var(_)
            | ExprNode::Call(..)
            | ExprNode::Convert(_) => divided.push(renumbered(node, &map), *dtype),
        });
    }
    divided.root = map[expr.root];
    operands.push(sum);
    divided
}

/// A node that uses others, whose numbers have changed.
fn renumbered(node: &ExprNode, map: &[usize]) -> ExprNode {
    match node {
        ExprNode::Call(function, inner) => {
            ExprNode::Call(*function, inner.iter().map(|&node| map[node]).collect())
        }
        ExprNode::Convert(inner) => ExprNode::Convert(map[*inner]),
        ExprNode::Operand(_) | ExprNode::Constant(_) | ExprNode::Index(_) | ExprNode::Var(_) => {
            node.clone()
        }
    }
}

/// `exp(x - y)` in a type.
fn power(x: TileId, y: TileId, dtype: DType) -> TileOp {
    let mut expr = Expr::new();
    let (left, right) = (expr.operand(0, DType::F32), expr.operand(1, DType::F32));
    let difference = expr.call(ScalarFn::Sub, &[left, right]);
    let power = expr.call(ScalarFn::Exp, &[difference]);
    expr.convert(power, dtype);
    TileOp::Map { operands: vec![x, y], expr }
}

fn product(x: TileId, y: TileId) -> TileOp {
    let mut expr = Expr::new();
    let (left, right) = (expr.operand(0, DType::F32), expr.operand(1, DType::F32));
    expr.call(ScalarFn::Mul, &[left, right]);
    TileOp::Map { operands: vec![x, y], expr }
}

fn convert(tile: TileId, dtype: DType) -> TileOp {
    let mut expr = Expr::new();
    let x = expr.operand(0, DType::F32);
    expr.convert(x, dtype);
    TileOp::Map { operands: vec![tile], expr }
}

/// Takes axes of one position from all tiles.
fn drop_axes(kernel: &mut Kernel, axes: &[Axis]) {
    if axes.is_empty() {
        return;
    }
    let start = |at: &mut Vec<Affine>| {
        for at in at {
            for &axis in axes {
                *at = at.substitute(Term::Axis(axis), &Affine::default());
            }
        }
    };
    let viewed: Vec<Vec<Axis>> = kernel
        .tiles
        .iter()
        .map(|(_, tile)| tile.dims.iter().map(|&(axis, _)| axis).collect())
        .collect();
    let change = |stmt: &mut Stmt| match stmt {
        Stmt::Define { op, .. } => match op {
            TileOp::Load { at, .. } | TileOp::Gather { at, .. } => start(at),
            TileOp::View { tile, at } => {
                let mut own = viewed[tile.index()].iter();
                at.retain(|_| own.next().is_none_or(|axis| !axes.contains(axis)));
                start(at);
            }
            TileOp::Map { expr, .. } => *expr = without(expr, axes),
            TileOp::Fill { .. }
            | TileOp::Contract { .. }
            | TileOp::Reduce { .. }
            | TileOp::ArgReduce { .. }
            | TileOp::Scan { .. }
            | TileOp::Sort { .. }
            | TileOp::Rearrange { .. } => {}
        },
        Stmt::Store { at, .. } | Stmt::Scatter { at, .. } => start(at),
        Stmt::For(_) => {}
    };
    for stmt in &mut kernel.body {
        change(stmt);
        if let Stmt::For(inner) = stmt {
            inner.body.iter_mut().for_each(change);
        }
    }
    for (_, tile) in kernel.tiles.iter_mut() {
        tile.dims.retain(|(axis, _)| !axes.contains(axis));
    }
}

/// The expression at the only position of those axes.
fn without(expr: &Expr, axes: &[Axis]) -> Expr {
    let mut changed = Expr::new();
    let mut map = Vec::with_capacity(expr.nodes.len());
    for (node, dtype) in &expr.nodes {
        map.push(match node {
            ExprNode::Index(axis) if axes.contains(axis) => {
                changed.constant(Scalar::from_i64(*dtype, 0))
            }
            ExprNode::Operand(_)
            | ExprNode::Constant(_)
            | ExprNode::Index(_)
            | ExprNode::Var(_)
            | ExprNode::Call(..)
            | ExprNode::Convert(_) => changed.push(renumbered(node, &map), *dtype),
        });
    }
    changed.root = map[expr.root];
    changed
}
