//! From a kernel to instructions on the engines. A kernel without loops is tiled here, for several choices of what lies
//! on partitions; the first choice that engines can carry out is taken.

mod contract;
mod map;
mod place;
mod plan;
mod reduce;
mod statements;
mod tiling;
mod transfer;
pub(crate) mod tree;
mod vars;

use crate::limits::Limits;
use crate::program;
use std::collections::BTreeMap;
use systole_compiler::kernel::Kernel;

/// The most instructions of a kernel's text.
const LONGEST: usize = 20_000;

/// The kernel on the engines, or why it cannot be there. `constants` says which operands hold weights in every call.
pub(crate) fn select(
    kernel: &Kernel,
    limits: &Limits,
    constants: &[bool],
) -> Result<program::Kernel, String> {
    let kernel = tiling::fold_views(kernel);
    let mut why = "no axis can lie on partitions".to_owned();
    for choice in tiling::choices(&kernel) {
        for level in 0..tiling::LEVELS {
            let tiled = match tiling::tile(&kernel, &choice, level, limits) {
                Ok(Some(tiled)) => tiled,
                Ok(None) => continue,
                Err(reason) => {
                    why = reason;
                    break;
                }
            };
            match one(&tiled, limits, constants, &choice) {
                Ok(compiled) => return Ok(compiled),
                Err(reason) => {
                    let smaller = reason.starts_with(tree::TOO_LARGE);
                    why = reason;
                    if !smaller {
                        break;
                    }
                }
            }
        }
    }
    Err(why)
}

fn one(
    kernel: &Kernel,
    limits: &Limits,
    constants: &[bool],
    choice: &tiling::Choice,
) -> Result<program::Kernel, String> {
    let (nodes, buffers, vars, sources, sbuf_bytes, psum_banks) =
        statements::emit(kernel, limits, constants, choice)?;
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
