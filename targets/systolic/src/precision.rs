//! Narrowing, as the caller asked for it and not otherwise: operands of products alone, or every f32 tensor. Sums stay
//! f32, and elementwise work is computed in f32 and rounded where it is stored.

use crate::lower::{Precision, convert_kernel};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use systole_compiler::expr::{Expr, ExprNode, Scalar};
use systole_compiler::kernel::{Kernel, Stmt, TileId, TileOp};
use systole_compiler::module::{Buffer, BufferId, KernelId, Lifetime, Module, Step};
use systole_compiler::types::DType;

/// Narrows a module; says what was narrowed, one line each.
pub(crate) fn narrow(module: &mut Module, precision: Precision) -> Vec<String> {
    let mut casts = Vec::new();
    match precision {
        Precision::Exact => {}
        Precision::Products(dtype) => {
            for (_, kernel) in module.kernels.iter_mut() {
                factors(kernel, dtype, &mut casts);
            }
        }
        Precision::All(dtype) => {
            let kept = module.buffers.iter().any(|(_, buffer)| {
                buffer.lifetime == Lifetime::State && buffer.ty.dtype == DType::F32
            });
            if !kept {
                tensors(module, dtype, &mut casts);
            }
            for (_, kernel) in module.kernels.iter_mut() {
                factors(kernel, dtype, &mut casts);
            }
        }
    }
    casts
}

/// Makes every f32 tensor one of `dtype`.
fn tensors(module: &mut Module, dtype: DType, casts: &mut Vec<String>) {
    let ids: Vec<BufferId> = module.buffers.iter().map(|(id, _)| id).collect();
    let mut renamed: BTreeMap<BufferId, BufferId> = BTreeMap::new();
    let mut first_steps = Vec::new();
    let mut kernels: BTreeMap<Vec<usize>, [Option<KernelId>; 2]> = BTreeMap::new();
    let mut kernel_for = |module: &mut Module, from: DType, shape: &[usize]| {
        let slot = &mut kernels.entry(shape.to_vec()).or_default()[usize::from(from == DType::F32)];
        *slot.get_or_insert_with(|| {
            let to = if from == DType::F32 { dtype } else { DType::F32 };
            module.kernels.push(convert_kernel(shape, from, to))
        })
    };
    // What fills tensors at load goes on in f32, since its results are narrowed afterwards; a run has copies of its own.
    let mut at_load = BTreeSet::new();
    each_call(&mut module.load_steps, &mut |kernel| at_load.extend([*kernel]));
    let mut steps = std::mem::take(&mut module.steps);
    let mut copies = BTreeMap::new();
    each_call(&mut steps, &mut |kernel| {
        if at_load.contains(kernel) {
            let made = || module.kernels.push(module.kernels[*kernel].clone());
            *kernel = *copies.entry(*kernel).or_insert_with(made);
        }
    });
    module.steps = steps;
    let count = module.kernels.len();
    for &id in &ids {
        let buffer = module.buffers[id].clone();
        if buffer.ty.dtype != DType::F32 {
            continue;
        }
        if let Some(source) = buffer.alias {
            let source = renamed.get(&source).copied().unwrap_or(source);
            let mut narrow = Buffer { alias: Some(source), ..buffer };
            narrow.ty.dtype = dtype;
            if module.buffers[source].ty.dtype == dtype
                && renamed.values().any(|&new| new == source)
            {
                let new = module.buffers.push(narrow);
                renamed.insert(id, new);
            } else {
                module.buffers[id] = narrow;
            }
            continue;
        }
        let held = match &buffer.lifetime {
            Lifetime::Temporary => {
                module.buffers[id].ty.dtype = dtype;
                casts.push(format!("%{}: f32 to {dtype}", buffer.name));
                continue;
            }
            Lifetime::Input => false,
            Lifetime::Constant(_) | Lifetime::Parameter(_) | Lifetime::Loaded => true,
            Lifetime::State => continue,
        };
        casts.push(format!("%{}: f32 to {dtype}", buffer.name));
        let lifetime = if held { Lifetime::Loaded } else { Lifetime::Temporary };
        let name = format!("{}.{dtype}", buffer.name);
        let mut narrow = Buffer { name, lifetime, offset: None, ..buffer };
        narrow.ty.dtype = dtype;
        let shape = narrow.ty.shape.to_vec();
        let new = module.buffers.push(narrow);
        renamed.insert(id, new);
        let kernel = kernel_for(module, DType::F32, &shape);
        let step = Step::Kernel {
            kernel,
            operands: vec![id, new],
            scalars: Vec::new(),
            origins: Vec::new(),
        };
        if held { module.load_steps.push(step) } else { first_steps.push(step) }
    }
    let mut steps = std::mem::take(&mut module.steps);
    rename(&mut steps, &renamed);
    steps.splice(0..0, first_steps);
    for index in 0..module.outputs.len() {
        let id = module.outputs[index].1;
        let id = renamed.get(&id).copied().unwrap_or(id);
        if module.buffers[id].ty.dtype != dtype || renamed.contains_key(&module.outputs[index].1) {
            let root = module.memory(module.outputs[index].1);
            let given = !matches!(module.buffers[root].lifetime, Lifetime::Temporary);
            if given || module.buffers[id].ty.dtype != dtype {
                continue;
            }
        }
        let narrow = module.buffers[id].clone();
        let name = format!("{}.f32", narrow.name);
        let mut wide =
            Buffer { name, lifetime: Lifetime::Temporary, alias: None, offset: None, ..narrow };
        wide.ty.dtype = DType::F32;
        let shape = wide.ty.shape.to_vec();
        let new = module.buffers.push(wide);
        module.outputs[index].1 = new;
        let kernel = kernel_for(module, dtype, &shape);
        let origins = Vec::new();
        steps.push(Step::Kernel { kernel, operands: vec![id, new], scalars: Vec::new(), origins });
    }
    module.steps = steps;
    let ids: Vec<_> = module.kernels.iter().map(|(id, _)| id).take(count).collect();
    for id in ids.into_iter().filter(|id| !at_load.contains(id)) {
        operands(&mut module.kernels[id], dtype);
    }
}

/// Shows every call of a kernel, those in branches and loops too.
fn each_call(steps: &mut [Step], see: &mut dyn FnMut(&mut KernelId)) {
    for step in steps {
        match step {
            Step::Kernel { kernel, .. } => see(kernel),
            Step::If { then, otherwise, .. } => {
                each_call(then, see);
                each_call(otherwise, see);
            }
            Step::While { before, body, .. } => {
                each_call(before, see);
                each_call(body, see);
            }
            Step::For { body, .. } => each_call(body, see),
            Step::Copy { .. } | Step::Collective { .. } => {}
        }
    }
}

fn rename(steps: &mut [Step], renamed: &BTreeMap<BufferId, BufferId>) {
    let new = |id: &mut BufferId| {
        if let Some(&other) = renamed.get(id) {
            *id = other;
        }
    };
    for step in steps {
        match step {
            Step::Kernel { operands, .. } => operands.iter_mut().for_each(new),
            Step::Collective { operands, result, .. } => {
                operands.iter_mut().for_each(new);
                new(result);
            }
            Step::Copy { from, to } => {
                new(from);
                new(to);
            }
            Step::If { then, otherwise, .. } => {
                rename(then, renamed);
                rename(otherwise, renamed);
            }
            Step::While { before, body, .. } => {
                rename(before, renamed);
                rename(body, renamed);
            }
            Step::For { body, .. } => rename(body, renamed),
        }
    }
}

/// Makes every f32 operand of a kernel one of `dtype`: loads widen, stores round.
fn operands(kernel: &mut Kernel, dtype: DType) {
    let ids: Vec<_> = kernel.operands.iter().map(|(id, _)| id).collect();
    let wide: Vec<bool> = ids.iter().map(|&id| kernel.operands[id].dtype == DType::F32).collect();
    for &id in &ids {
        if wide[id.index()] {
            kernel.operands[id].dtype = dtype;
        }
    }
    let body = std::mem::take(&mut kernel.body);
    kernel.body = operands_in(kernel, body, &wide, dtype);
}

fn operands_in(kernel: &mut Kernel, body: Vec<Stmt>, wide: &[bool], dtype: DType) -> Vec<Stmt> {
    let mut found = Vec::with_capacity(body.len());
    for stmt in body {
        match stmt {
            Stmt::Define { results, op: TileOp::Load { operand, at, pad } }
                if wide[operand.index()] =>
            {
                let narrow = copy_tile(kernel, results[0], dtype);
                let pad = pad.map(|pad| Scalar::new(dtype, pad.to_f64()));
                let op = TileOp::Load { operand, at, pad };
                found.push(define(narrow, op));
                found.push(define(results[0], convert(narrow, dtype, DType::F32)));
            }
            Stmt::Define { results, op: TileOp::Gather { operand, at, index } }
                if wide[operand.index()] =>
            {
                let narrow = copy_tile(kernel, results[0], dtype);
                found.push(define(narrow, TileOp::Gather { operand, at, index }));
                found.push(define(results[0], convert(narrow, dtype, DType::F32)));
            }
            Stmt::Store { operand, at, tile } if wide[operand.index()] => {
                let narrow = copy_tile(kernel, tile, dtype);
                found.push(define(narrow, convert(tile, DType::F32, dtype)));
                found.push(Stmt::Store { operand, at, tile: narrow });
            }
            Stmt::Scatter { operand, at, index, tile, combine } if wide[operand.index()] => {
                let narrow = copy_tile(kernel, tile, dtype);
                found.push(define(narrow, convert(tile, DType::F32, dtype)));
                found.push(Stmt::Scatter { operand, at, index, tile: narrow, combine });
            }
            Stmt::For(mut inner) => {
                inner.body = operands_in(kernel, std::mem::take(&mut inner.body), wide, dtype);
                found.push(Stmt::For(inner));
            }
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => found.push(stmt),
        }
    }
    found
}

fn copy_tile(kernel: &mut Kernel, tile: TileId, dtype: DType) -> TileId {
    let mut copy = kernel.tiles[tile].clone();
    copy.name = format!("{}n", copy.name);
    copy.dtype = dtype;
    kernel.tiles.push(copy)
}

fn define(tile: TileId, op: TileOp) -> Stmt {
    Stmt::Define { results: SmallVec::from_slice(&[tile]), op }
}

fn convert(tile: TileId, from: DType, to: DType) -> TileOp {
    let mut expr = Expr::new();
    let operand = expr.operand(0, from);
    expr.convert(operand, to);
    TileOp::Map { operands: vec![tile], expr }
}

/// Narrows the f32 factors of a kernel's products.
fn factors(kernel: &mut Kernel, dtype: DType, casts: &mut Vec<String>) {
    let mut narrowed: BTreeMap<TileId, TileId> = BTreeMap::new();
    let mut sources: BTreeMap<TileId, TileId> = BTreeMap::new();
    let body = std::mem::take(&mut kernel.body);
    let body = factors_in(kernel, body, dtype, &mut sources, &mut narrowed, casts);
    kernel.body = fold_rounding(kernel, body);
}

fn factors_in(
    kernel: &mut Kernel,
    body: Vec<Stmt>,
    dtype: DType,
    sources: &mut BTreeMap<TileId, TileId>,
    narrowed: &mut BTreeMap<TileId, TileId>,
    casts: &mut Vec<String>,
) -> Vec<Stmt> {
    let mut found = Vec::with_capacity(body.len());
    for stmt in body {
        match stmt {
            Stmt::Define { results, op: TileOp::Map { operands, expr } } => {
                // A tile that was widened from the narrow type is known in that type.
                let widened = matches!(expr.nodes[expr.root].0, ExprNode::Convert(0))
                    && expr.nodes[0] == (ExprNode::Operand(0), dtype)
                    && expr.dtype() == DType::F32
                    && kernel.tiles[results[0]].dims == kernel.tiles[operands[0]].dims;
                if widened {
                    sources.insert(results[0], operands[0]);
                }
                found.push(Stmt::Define { results, op: TileOp::Map { operands, expr } });
            }
            Stmt::Define { results, op: TileOp::Contract { init, a, b, over, accumulate } } => {
                let mut pair = [a, b];
                if accumulate == DType::F32 {
                    for factor in &mut pair {
                        if kernel.tiles[*factor].dtype != DType::F32 {
                            continue;
                        }
                        if let Some(&source) = sources.get(factor) {
                            *factor = source;
                            continue;
                        }
                        let narrow = match narrowed.get(factor) {
                            Some(&known) => known,
                            None => {
                                let narrow = copy_tile(kernel, *factor, dtype);
                                found.push(define(narrow, convert(*factor, DType::F32, dtype)));
                                let tile = &kernel.tiles[*factor].name;
                                casts.push(format!("@{} %{tile}: f32 to {dtype}", kernel.name));
                                narrow
                            }
                        };
                        *factor = narrow;
                    }
                }
                let [a, b] = pair;
                let op = TileOp::Contract { init, a, b, over, accumulate };
                found.push(Stmt::Define { results, op });
            }
            Stmt::For(mut inner) => {
                let body = std::mem::take(&mut inner.body);
                inner.body = factors_in(kernel, body, dtype, sources, &mut narrowed.clone(), casts);
                found.push(Stmt::For(inner));
            }
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => found.push(stmt),
        }
    }
    found
}

/// Lets a tile that is only rounded be made in the narrow type.
fn fold_rounding(kernel: &mut Kernel, body: Vec<Stmt>) -> Vec<Stmt> {
    let mut reads = vec![0usize; kernel.tiles.len()];
    count_reads(&body, &mut reads);
    fold_body(kernel, body, &reads)
}

fn count_reads(body: &[Stmt], reads: &mut [usize]) {
    for stmt in body {
        stmt.visit_reads(&mut |tile| reads[tile.index()] += 1);
    }
}

fn fold_body(kernel: &mut Kernel, body: Vec<Stmt>, reads: &[usize]) -> Vec<Stmt> {
    let mut found: Vec<Stmt> = Vec::with_capacity(body.len());
    for stmt in body {
        match stmt {
            Stmt::Define { results, op: TileOp::Map { operands, expr } }
                if operands.first().is_some_and(|tile| reads[tile.index()] == 1)
                    && expr.nodes.len() == 2
                    && matches!(expr.nodes[expr.root].0, ExprNode::Convert(0))
                    && expr.nodes[0].1 == DType::F32
                    && kernel.tiles[results[0]].dims == kernel.tiles[operands[0]].dims =>
            {
                let to = expr.dtype();
                let made = found.iter().rposition(|stmt| stmt.results() == [operands[0]]);
                let folds = match made.map(|index| &mut found[index]) {
                    Some(Stmt::Define { results: own, op: TileOp::Map { expr, .. } }) => {
                        let root = expr.root;
                        expr.root = expr.convert(root, to);
                        *own = results.clone();
                        true
                    }
                    Some(Stmt::Define { results: own, op: TileOp::Contract { .. } }) => {
                        *own = results.clone();
                        true
                    }
                    Some(Stmt::Define { .. } | Stmt::For(_))
                    | Some(Stmt::Store { .. } | Stmt::Scatter { .. })
                    | None => false,
                };
                if !folds {
                    found.push(Stmt::Define { results, op: TileOp::Map { operands, expr } });
                }
            }
            Stmt::For(mut inner) => {
                let body = std::mem::take(&mut inner.body);
                inner.body = fold_body(kernel, body, reads);
                found.push(Stmt::For(inner));
            }
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => found.push(stmt),
        }
    }
    found
}
