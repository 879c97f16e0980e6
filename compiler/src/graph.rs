//! The tensor IR: functions of SSA nodes over static tensor types, with value semantics.
//!
//! Invariants, which [`crate::verify`] checks: a node's operands are defined before it, in its block or one around it;
//! result types are the ones its op infers; blocks of control ops have the parameters and results that the op wants.
//! A value's uses may capture values of surrounding blocks of the same function.

use crate::arena::{Arena, Id};
use crate::diagnostic::Span;
use crate::mesh::{Mesh, Sharding};
use crate::op::{InferContext, Op, TypeError};
use crate::tensor::Tensor;
use crate::types::TensorType;
use indexmap::{IndexMap, IndexSet};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A value, by id.
pub type ValueId = Id<Value>;
/// A node, by id.
pub type NodeId = Id<Node>;

/// A program over tensors: functions, of which the first is the entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// By name, the entry first. Calls name another function of the same graph.
    pub functions: IndexMap<String, Function>,
    /// The names that origins refer to: source nodes of an imported model.
    pub origins: IndexSet<String>,
    /// The ranks that it is to be divided among, or of one of which it is the program.
    pub mesh: Option<Mesh>,
}

/// The source nodes that an op came from: sorted indices into [`Graph::origins`].
pub type Origins = SmallVec<[u32; 2]>;

/// A function.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// Every value, of all blocks.
    pub values: Arena<Value>,
    /// Every node, of all blocks. A node that no block lists is dead.
    pub nodes: Arena<Node>,
    /// Parameters, nodes and results.
    pub body: Block,
    /// The names of the results.
    pub result_names: Vec<String>,
    /// State: the parameter that holds it before and the result that holds it after, by position.
    pub state: Vec<(usize, usize)>,
    /// How values are divided among ranks, where that is said.
    pub shardings: BTreeMap<ValueId, Sharding>,
}

/// A sequence of nodes with parameters and results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// The values that come from outside at each entry.
    pub params: Vec<ValueId>,
    /// The nodes in order of execution.
    pub nodes: Vec<NodeId>,
    /// The values given back.
    pub results: Vec<ValueId>,
}

/// An SSA value.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Its type.
    pub ty: TensorType,
    /// The name the user gave it, without `%`.
    pub name: Option<String>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// What it reads.
    pub operands: Vec<ValueId>,
    /// What it defines.
    pub results: SmallVec<[ValueId; 1]>,
    /// The blocks of a control op or fusion.
    pub blocks: Vec<Block>,
    /// Where it came from.
    pub origins: Origins,
    /// Its place in the source text.
    pub span: Option<Span>,
}

impl Graph {
    /// A graph with one empty function.
    pub fn new(name: &str) -> Graph {
        let mut graph = Graph::default();
        graph.functions.insert(name.to_owned(), Function::default());
        graph
    }

    /// The function that is run.
    pub fn entry(&self) -> &Function {
        self.functions.first().expect("a graph has an entry function").1
    }

    /// The function that is run, to be changed.
    pub fn entry_mut(&mut self) -> &mut Function {
        self.functions.first_mut().expect("a graph has an entry function").1
    }
}

impl Function {
    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &TensorType {
        &self.values[value].ty
    }

    /// Adds a value that nothing defines yet.
    pub fn value(&mut self, ty: TensorType, name: Option<&str>) -> ValueId {
        self.values.push(Value { ty, name: name.map(str::to_owned) })
    }

    /// Adds a parameter to the function.
    pub fn parameter(&mut self, ty: TensorType, name: &str) -> ValueId {
        let value = self.value(ty, Some(name));
        self.body.params.push(value);
        value
    }

    /// Says how a value is divided.
    pub fn shard(&mut self, value: ValueId, sharding: Sharding) {
        self.shardings.insert(value, sharding);
    }

    /// Adds a result.
    pub fn result(&mut self, value: ValueId, name: &str) {
        self.body.results.push(value);
        self.result_names.push(name.to_owned());
    }

    /// The node that defines each value, where one does.
    pub fn definitions(&self) -> IndexMap<ValueId, NodeId> {
        let mut found = IndexMap::new();
        self.visit(&self.body, &mut |node| {
            for &result in &self.nodes[node].results {
                found.insert(result, node);
            }
        });
        found
    }

    /// How often each value is used, by nodes of any block and as a result of any block.
    pub fn use_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.values.len()];
        let mut count_block =
            |block: &Block| block.results.iter().for_each(|value| counts[value.index()] += 1);
        count_block(&self.body);
        self.visit(&self.body, &mut |node| {
            self.nodes[node].blocks.iter().for_each(&mut count_block)
        });
        self.visit(&self.body, &mut |node| {
            self.nodes[node].operands.iter().for_each(|value| counts[value.index()] += 1);
        });
        counts
    }

    /// Calls `visitor` for every live node, outer nodes before those of their blocks.
    pub fn visit(&self, block: &Block, visitor: &mut dyn FnMut(NodeId)) {
        for &node in &block.nodes {
            visitor(node);
            for inner in &self.nodes[node].blocks {
                self.visit(inner, visitor);
            }
        }
    }

    /// Values of surrounding blocks that a block uses, in order of first use.
    pub fn captures(&self, block: &Block) -> Vec<ValueId> {
        let mut inside: IndexSet<ValueId> = block.params.iter().copied().collect();
        let mut captured = IndexSet::new();
        self.collect_captures(block, &mut inside, &mut captured);
        captured.into_iter().collect()
    }

    fn collect_captures(
        &self,
        block: &Block,
        inside: &mut IndexSet<ValueId>,
        captured: &mut IndexSet<ValueId>,
    ) {
        inside.extend(block.params.iter().copied());
        for &node in &block.nodes {
            let node = &self.nodes[node];
            captured.extend(node.operands.iter().filter(|value| !inside.contains(*value)));
            for inner in &node.blocks {
                self.collect_captures(inner, inside, captured);
            }
            inside.extend(node.results.iter().copied());
        }
        captured.extend(block.results.iter().filter(|value| !inside.contains(*value)));
    }
}

/// Adds nodes at the end of a block, inferring their types.
#[derive(Debug)]
pub struct Builder<'a> {
    /// The function that grows.
    pub function: &'a mut Function,
    /// The nodes of the block under construction.
    pub nodes: Vec<NodeId>,
    /// The origins that new nodes get.
    pub origins: Origins,
    /// The place in the source that new nodes get.
    pub span: Option<Span>,
}

impl<'a> Builder<'a> {
    /// A builder of a block of `function`; take [`Builder::nodes`] when done.
    pub fn new(function: &'a mut Function) -> Builder<'a> {
        Builder { function, nodes: Vec::new(), origins: Origins::new(), span: None }
    }

    /// The type of a value.
    pub fn ty(&self, value: ValueId) -> &TensorType {
        self.function.ty(value)
    }

    /// The shape of a value, copied.
    pub fn shape(&self, value: ValueId) -> crate::types::Shape {
        self.function.ty(value).shape.clone()
    }

    /// Adds a node with one result.
    pub fn add(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Result<ValueId, TypeError> {
        Ok(self.add_many(op, operands, Vec::new())?[0])
    }

    /// Adds a node with any number of results, and blocks.
    pub fn add_many(
        &mut self,
        op: impl Into<Op>,
        operands: &[ValueId],
        blocks: Vec<Block>,
    ) -> Result<SmallVec<[ValueId; 1]>, TypeError> {
        let op = op.into();
        let types = infer(self.function, &op, operands, &blocks)?;
        let results: SmallVec<[ValueId; 1]> =
            types.into_iter().map(|ty| self.function.value(ty, None)).collect();
        let node = Node {
            op,
            operands: operands.to_vec(),
            results: results.clone(),
            blocks,
            origins: self.origins.clone(),
            span: self.span,
        };
        let node = self.function.nodes.push(node);
        self.nodes.push(node);
        Ok(results)
    }

    /// Builds a block inside the one under construction: `build` gets the block's parameters and gives its results.
    pub fn block(
        &mut self,
        params: &[TensorType],
        build: impl FnOnce(&mut Builder<'_>, &[ValueId]) -> Result<Vec<ValueId>, TypeError>,
    ) -> Result<Block, TypeError> {
        let params: Vec<ValueId> =
            params.iter().map(|ty| self.function.value(ty.clone(), None)).collect();
        let mut inner = Builder {
            function: self.function,
            nodes: Vec::new(),
            origins: self.origins.clone(),
            span: self.span,
        };
        let results = build(&mut inner, &params)?;
        let nodes = inner.nodes;
        Ok(Block { params, nodes, results })
    }

    /// Adds a scalar function of values of one shape.
    pub fn map(
        &mut self,
        function: crate::scalar::ScalarFn,
        operands: &[ValueId],
    ) -> Result<ValueId, TypeError> {
        self.add(crate::op::Map { function }, operands)
    }

    /// Repeats a value that lacks dimension `axis` of `like`, so that it has its shape.
    pub fn spread(
        &mut self,
        value: ValueId,
        like: ValueId,
        axis: usize,
    ) -> Result<ValueId, TypeError> {
        let shape = self.shape(like).to_vec();
        let dims = (0..shape.len()).filter(|&dim| dim != axis).collect();
        self.add(crate::op::Broadcast { shape, dims }, &[value])
    }

    /// Adds a constant.
    pub fn constant(&mut self, value: Tensor) -> ValueId {
        self.add(crate::op::Constant { value }, &[]).expect("a tensor has a type")
    }
}

/// The result types of an op on those operands, checked for size.
pub fn infer(
    function: &Function,
    op: &Op,
    operands: &[ValueId],
    blocks: &[Block],
) -> Result<Vec<TensorType>, TypeError> {
    let operands: Vec<&TensorType> = operands.iter().map(|&value| function.ty(value)).collect();
    let types_of =
        |values: &[ValueId]| values.iter().map(|&value| function.ty(value).clone()).collect();
    let blocks = blocks
        .iter()
        .map(|block| crate::op::BlockType {
            params: types_of(&block.params),
            results: types_of(&block.results),
        })
        .collect();
    let types = op.infer(&InferContext { operands: &operands, blocks })?;
    match types.iter().find(|ty| ty.checked_count().is_none()) {
        Some(ty) => Err(TypeError::new(format!("the result {ty} is larger than any memory"))),
        None => Ok(types),
    }
}
