//! Every pass, by level, in the order of the default pipeline.

pub mod drop_dead;
pub mod expand;
pub mod fold_constants;
pub mod fuse;
pub mod gather_first;
pub mod gradient;
pub mod inline_calls;
pub mod layout;
pub mod load_once;
pub mod merge_duplicates;
pub mod narrow_weights;
pub mod place;
pub mod plan_buffers;
pub mod shard;
pub mod simplify;
pub mod tile;

use crate::graph::{Function, Graph};
use crate::kernel::Kernel;
use crate::module::Module;
use crate::pass::{Changed, Pass};

/// Passes over graphs.
pub const GRAPH_PASSES: &[Pass<Graph>] = &[
    inline_calls::PASS,
    simplify::PASS,
    expand::PASS,
    shard::PASS,
    gather_first::PASS,
    narrow_weights::PASS,
    fold_constants::PASS,
    merge_duplicates::PASS,
    drop_dead::PASS,
    fuse::PASS,
];

/// Passes over kernels.
pub const KERNEL_PASSES: &[Pass<Kernel>] = &[tile::PASS, place::PASS];

/// Passes over modules.
pub const MODULE_PASSES: &[Pass<Module>] = &[load_once::PASS, layout::PASS, plan_buffers::PASS];

/// Rebuilds every function of a graph.
fn each_function(
    graph: &mut Graph,
    mut rebuild: impl FnMut(&Function) -> Option<Function>,
) -> Changed {
    let mut changed = Changed::No;
    for function in graph.functions.values_mut() {
        if let Some(new) = rebuild(function) {
            *function = new;
            changed = Changed::Yes;
        }
    }
    changed
}
