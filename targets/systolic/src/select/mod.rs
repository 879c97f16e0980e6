//! From a kernel to instructions on the engines. A kernel without loops is tiled here, for several choices of what lies
//! on partitions; the first choice that engines can carry out is taken.

mod contract;
mod gather;
mod map;
mod masks;
mod place;
mod plan;
mod reduce;
mod rowwise;
mod search;
mod statements;
mod tiling;
mod transfer;
pub(crate) mod tree;
mod vars;

use crate::limits::Limits;
use crate::program;
use std::collections::BTreeMap;
use systole_compiler::kernel::{Axis, Kernel, OperandId, Stmt, Term, TileOp};

/// The most instructions of a kernel's text.
const LONGEST: usize = 20_000;

/// The kernel on the engines, or why it cannot be there. `constants` says which operands hold weights in every call.
pub(crate) fn select(
    kernel: &Kernel,
    limits: &Limits,
    constants: &[bool],
) -> Result<program::Kernel, String> {
    let kernel = tiling::fold_views(kernel);
    let written = kernel.body.iter().any(|stmt| matches!(stmt, Stmt::For(_)));
    // The best choice's last reason is told.
    let mut first = None;
    for choice in tiling::choices(&kernel) {
        let mut why = None;
        for level in 0..tiling::LEVELS {
            let tiled = match tiling::tile(&kernel, &choice, level, limits) {
                Ok(Some(tiled)) => tiled,
                Ok(None) => continue,
                Err(reason) => {
                    why = Some(reason);
                    break;
                }
            };
            let mut made = one(&tiled, limits, constants, &choice, false);
            // Tiles that somebody wrote get no smaller, but each may be kept once.
            let too_large = |why: &String| why.starts_with(tree::TOO_LARGE);
            if written && made.as_ref().is_err_and(too_large) {
                made = one(&tiled, limits, constants, &choice, true);
            }
            match made {
                Ok(compiled) => return Ok(compiled),
                Err(reason) => {
                    let smaller = reason.starts_with(tree::TOO_LARGE);
                    why = Some(reason);
                    if !smaller {
                        break;
                    }
                }
            }
        }
        first = first.or(why);
    }
    Err(first.unwrap_or_else(|| "no axis can lie on partitions".to_owned()))
}

fn one(
    kernel: &Kernel,
    limits: &Limits,
    constants: &[bool],
    choice: &tiling::Choice,
    single: bool,
) -> Result<program::Kernel, String> {
    let (nodes, buffers, vars, sources, sbuf_bytes, psum_banks) =
        statements::emit(kernel, limits, constants, choice, single)?;
    if length(&nodes) > LONGEST {
        return Err(format!("{}{} instructions", tree::TOO_LARGE, length(&nodes)));
    }
    let (streams, semaphores): (BTreeMap<_, _>, _) = crate::schedule::schedule(&nodes, &buffers)?;
    Ok(program::Kernel {
        name: kernel.name.clone(),
        operands: crate::lower::operands(kernel),
        vars,
        semaphores,
        streams,
        exchange: None,
        sbuf_bytes,
        psum_banks,
        sources,
        origins: kernel.origins.clone(),
    })
}

fn length(nodes: &[tree::Node]) -> usize {
    nodes
        .iter()
        .map(|node| match node {
            tree::Node::Instruction(_) => 1,
            tree::Node::Loop(looped) => length(&looped.body),
        })
        .sum()
}

/// For operands that are factors of products, the order of their dimensions that suits the array.
pub(crate) fn factor_order(kernel: &Kernel) -> Vec<(OperandId, Vec<usize>)> {
    let mut loads: BTreeMap<OperandId, usize> = BTreeMap::new();
    tiling::each(&kernel.body, &mut |stmt| match stmt {
        Stmt::Define {
            op: TileOp::Load { operand, .. } | TileOp::Gather { operand, .. }, ..
        }
        | Stmt::Store { operand, .. }
        | Stmt::Scatter { operand, .. } => *loads.entry(*operand).or_default() += 1,
        Stmt::Define { .. } | Stmt::For(_) => {}
    });
    let mut found: Vec<(OperandId, Vec<usize>)> = Vec::new();
    for product in tiling::products(kernel) {
        let (_, a, b, over) = &product;
        let tiles = &kernel.tiles;
        let extent =
            |axis: Axis| tiles[*a].extent(axis).or_else(|| tiles[*b].extent(axis)).unwrap_or(1);
        let (inner, taps) = statements::summed(kernel, over, *a, *b, &extent);
        let [_, _, batch] = tiling::sides(kernel, &product);
        for tile in [*a, *b] {
            let Some((operand, at)) = statements::load_of(kernel, tile) else { continue };
            if loads.get(&operand) != Some(&1) {
                continue;
            }
            let class = |at: &systole_compiler::kernel::Affine| -> Option<(usize, usize)> {
                let mut class = None;
                for &(term, _) in at.terms() {
                    let Term::Axis(axis) = term else { return None };
                    let place =
                        |axes: &place::Rows| axes.iter().position(|&(other, _)| other == axis);
                    let own = match (place(&batch), place(&inner), place(&taps)) {
                        (Some(place), _, _) => (1, place),
                        (_, Some(place), _) => (2, place),
                        (_, _, Some(place)) => (3, place),
                        (None, None, None) => (4, 0),
                    };
                    match class {
                        Some((other, _)) if other != own.0 => return None,
                        Some(_) => {}
                        None => class = Some(own),
                    }
                }
                Some(class.unwrap_or((0, 0)))
            };
            let classes: Option<Vec<(usize, usize)>> = at.iter().map(class).collect();
            let Some(classes) = classes else { continue };
            let mut order: Vec<usize> = (0..at.len()).collect();
            order.sort_by_key(|&dim| classes[dim]);
            if found.iter().all(|(other, _)| *other != operand) {
                found.push((operand, order));
            }
        }
    }
    found
}
