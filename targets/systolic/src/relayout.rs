//! Lays out weights for the array, once, at load: what lies in one partition is contiguous in HBM, summed axes outside.

use crate::lower::constants;
use crate::select::factor_order;
use smallvec::SmallVec;
use std::collections::BTreeMap;
use systole_compiler::kernel::{Affine, Dims, Kernel, Operand, OperandId, Role, Stmt, TileOp};
use systole_compiler::module::{Buffer, BufferId, KernelId, Layout, Lifetime, Module, Step};

/// Changes constant factors of products and the kernels that read them.
pub(crate) fn lay_out(module: &mut Module) {
    let constant = constants(module);
    let mut orders: BTreeMap<KernelId, Vec<(OperandId, Vec<usize>)>> = BTreeMap::new();
    for (id, kernel) in module.kernels.iter() {
        let found: Vec<(OperandId, Vec<usize>)> = factor_order(kernel)
            .into_iter()
            .filter(|(operand, order)| constant[&id][operand.index()] && !order.iter().is_sorted())
            .collect();
        if !found.is_empty() {
            orders.insert(id, found);
        }
    }
    let mut made: BTreeMap<(BufferId, Vec<usize>), BufferId> = BTreeMap::new();
    let mut steps = std::mem::take(&mut module.steps);
    change(&mut steps, &mut |kernel, operands| {
        for (operand, order) in orders.get(&kernel).into_iter().flatten() {
            let from = operands[operand.index()];
            let key = (from, order.clone());
            let to = match made.get(&key) {
                Some(&known) => known,
                None => {
                    let to = transposed(module, from, order);
                    made.insert(key, to);
                    to
                }
            };
            operands[operand.index()] = to;
        }
    });
    module.steps = steps;
    for (id, found) in orders {
        for (operand, order) in found {
            reorder(&mut module.kernels[id], operand, &order);
        }
    }
}

fn change(steps: &mut [Step], visit: &mut dyn FnMut(KernelId, &mut Vec<BufferId>)) {
    for step in steps {
        match step {
            Step::Kernel { kernel, operands, .. } => visit(*kernel, operands),
            Step::Copy { .. } | Step::Collective { .. } => {}
            Step::If { then, otherwise, .. } => {
                change(then, visit);
                change(otherwise, visit);
            }
            Step::While { before, body, .. } => {
                change(before, visit);
                change(body, visit);
            }
            Step::For { body, .. } => change(body, visit),
        }
    }
}

/// A constant with its dimensions in another order, made at load.
fn transposed(module: &mut Module, from: BufferId, order: &[usize]) -> BufferId {
    let source = module.buffers[from].clone();
    let mut ty = source.ty.clone();
    ty.shape = order.iter().map(|&dim| source.ty.shape[dim]).collect();
    let mut kernel = Kernel { name: format!("lay_out_{}", from.index()), ..Kernel::default() };
    let dims: Dims = (source.ty.shape.iter().enumerate())
        .map(|(index, &size)| (kernel.axis(&format!("d{index}")), size))
        .collect();
    let moved: Dims = order.iter().map(|&dim| dims[dim]).collect();
    let dtype = source.ty.dtype;
    let operand = |name: &str, role, dims: &Dims| Operand {
        name: name.to_owned(),
        role,
        dtype,
        dims: dims.clone(),
    };
    let x = kernel.operands.push(operand("x", Role::Input, &dims));
    let y = kernel.operands.push(operand("y", Role::Output, &moved));
    let tile = kernel.tile("t", dtype, &moved);
    let at =
        |dims: &Dims| -> Vec<Affine> { dims.iter().map(|&(axis, _)| Affine::axis(axis)).collect() };
    kernel.body.push(Stmt::Define {
        results: SmallVec::from_slice(&[tile]),
        op: TileOp::Load { operand: x, at: at(&dims), pad: None },
    });
    kernel.body.push(Stmt::Store { operand: y, at: at(&moved), tile });
    let kernel = module.kernels.push(kernel);
    let to = module.buffers.push(Buffer {
        name: format!("{}.laid{}", source.name, module.buffers.len()),
        layout: Layout::row_major(&ty.shape),
        ty,
        lifetime: Lifetime::Loaded,
        alias: None,
        offset: None,
        ..source
    });
    module.load_steps.push(Step::Kernel {
        kernel,
        operands: vec![from, to],
        scalars: Vec::new(),
        origins: Vec::new(),
    });
    to
}

/// Lets a kernel read an operand whose dimensions are in another order.
fn reorder(kernel: &mut Kernel, operand: OperandId, order: &[usize]) {
    let dims = kernel.operands[operand].dims.clone();
    kernel.operands[operand].dims = order.iter().map(|&dim| dims[dim]).collect();
    reorder_in(&mut kernel.body, operand, order);
}

fn reorder_in(body: &mut [Stmt], operand: OperandId, order: &[usize]) {
    for stmt in body {
        match stmt {
            Stmt::Define { op: TileOp::Load { operand: own, at, .. }, .. }
            | Stmt::Define { op: TileOp::Gather { operand: own, at, .. }, .. }
                if *own == operand =>
            {
                *at = order.iter().map(|&dim| at[dim].clone()).collect();
            }
            Stmt::For(inner) => reorder_in(&mut inner.body, operand, order),
            Stmt::Define { .. } | Stmt::Store { .. } | Stmt::Scatter { .. } => {}
        }
    }
}
