//! Rebuilding a function node by node: what most graph passes are. Names and origins are kept, dead nodes are not.

use crate::graph::{Block, Builder, Function, Node, Origins, ValueId};
use crate::op::TypeError;
use smallvec::SmallVec;

/// What becomes of a node.
#[derive(Debug)]
pub enum Rewrite {
    /// It is copied.
    Keep,
    /// Its results become these values, which the builder knows.
    Replace(SmallVec<[ValueId; 1]>),
}

/// Decides about one node: it gets the node of the old function and its operands in the new one.
pub type Visitor<'v> =
    &'v mut dyn FnMut(&mut Builder<'_>, &Node, &[ValueId]) -> Result<Rewrite, TypeError>;

/// A copy of the function in which `visitor` has replaced nodes. Blocks are visited before the node that holds them is
/// copied; the visitor is asked about that node too, and where it replaces it, its blocks vanish with it.
pub fn rewrite(function: &Function, visitor: Visitor<'_>) -> Result<Function, TypeError> {
    let mut result = Function {
        result_names: function.result_names.clone(),
        state: function.state.clone(),
        ..Function::default()
    };
    let mut map: Vec<Option<ValueId>> = vec![None; function.values.len()];
    result.body = rewrite_block(function, &function.body, &mut result, &mut map, visitor)?;
    for (value, sharding) in &function.shardings {
        // What is no longer there needs none, and a value of another type has its own.
        if let Some(new) = map[value.index()]
            && result.ty(new) == function.ty(*value)
        {
            result.shardings.entry(new).or_insert_with(|| sharding.clone());
        }
    }
    Ok(result)
}

fn rewrite_block(
    old: &Function,
    block: &Block,
    new: &mut Function,
    map: &mut Vec<Option<ValueId>>,
    visitor: Visitor<'_>,
) -> Result<Block, TypeError> {
    let mut params = Vec::with_capacity(block.params.len());
    for &param in &block.params {
        let value = &old.values[param];
        let copy = new.value(value.ty.clone(), value.name.as_deref());
        map[param.index()] = Some(copy);
        params.push(copy);
    }
    let mut nodes = Vec::with_capacity(block.nodes.len());
    for &id in &block.nodes {
        let node = &old.nodes[id];
        let operands: Vec<ValueId> =
            node.operands.iter().map(|&value| mapped(map, value)).collect();
        let mut builder = Builder {
            function: new,
            nodes: Vec::new(),
            origins: node.origins.clone(),
            span: node.span,
        };
        match visitor(&mut builder, node, &operands)? {
            Rewrite::Replace(values) => {
                nodes.append(&mut builder.nodes);
                for (&result, &value) in node.results.iter().zip(&values) {
                    map[result.index()] = Some(value);
                    keep_name(old, result, new, value);
                }
            }
            Rewrite::Keep => {
                nodes.append(&mut builder.nodes);
                let blocks = node
                    .blocks
                    .iter()
                    .map(|inner| rewrite_block(old, inner, new, map, visitor))
                    .collect::<Result<Vec<Block>, TypeError>>()?;
                nodes.push(copy_node(old, node, operands, blocks, new, map));
            }
        }
    }
    let results = block.results.iter().map(|&value| mapped(map, value)).collect();
    Ok(Block { params, nodes, results })
}

fn copy_node(
    old: &Function,
    node: &Node,
    operands: Vec<ValueId>,
    blocks: Vec<Block>,
    new: &mut Function,
    map: &mut [Option<ValueId>],
) -> crate::graph::NodeId {
    let mut results = SmallVec::new();
    for &result in &node.results {
        let value = &old.values[result];
        let copy = new.value(value.ty.clone(), value.name.as_deref());
        map[result.index()] = Some(copy);
        results.push(copy);
    }
    new.nodes.push(Node {
        op: node.op.clone(),
        operands,
        results,
        blocks,
        origins: node.origins.clone(),
        span: node.span,
    })
}

fn mapped(map: &[Option<ValueId>], value: ValueId) -> ValueId {
    map[value.index()].expect("a verified function defines values before their uses")
}

/// Gives a value the name of the one it replaces, where it has none of its own.
fn keep_name(old: &Function, from: ValueId, new: &mut Function, to: ValueId) {
    if new.values[to].name.is_none() {
        new.values[to].name = old.values[from].name.clone();
    }
}

/// The union of two sets of origins.
pub fn join_origins(a: &Origins, b: &Origins) -> Origins {
    let mut union: Vec<u32> = a.iter().chain(b).copied().collect();
    union.sort_unstable();
    union.dedup();
    Origins::from_vec(union)
}
