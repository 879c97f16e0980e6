//! Loop nests: what one pass over memory computes, before code is chosen for it. A nest is a set of loops, a graph of
//! scalar nodes over the loops' positions, and a sink that says where the values go. Positions are [`Affine`]: the term
//! `Axis(k)` is the position of loop `k` of the nest, the term `Var` a variable of the kernel around it.

use smallvec::SmallVec;
use systole_compiler::expr::Scalar;
use systole_compiler::kernel::{Affine, Axis, Combine, Term};
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::DType;

/// The position of a node in its nest.
pub(crate) type NodeId = usize;

/// The first of a nest's accesses is its sink's; a load node has its own.
#[derive(Clone, Debug)]
pub(crate) struct Nest {
    /// The extent of each loop. Loops may run in any order that the sink allows.
    pub(crate) extents: Vec<usize>,
    /// The values, each with its type; a node uses only earlier ones.
    pub(crate) nodes: Vec<(Node, DType)>,
    /// Where the values go.
    pub(crate) sink: Sink,
    /// Where the sink writes.
    pub(crate) to: Access,
}

/// One scalar value for each position of the loops.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    /// The same everywhere.
    Constant(Scalar),
    /// An integer that is affine in positions and variables.
    Index(Affine),
    /// An element of memory.
    Load(Access),
    /// A function of earlier nodes.
    Call(ScalarFn, SmallVec<[NodeId; 3]>),
    /// An earlier node in another type.
    Convert(NodeId),
}

/// What is done with the values.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    /// Each is written.
    Store {
        /// The value.
        root: NodeId,
    },
    /// They are combined over some loops, and the results written.
    Reduce {
        /// How they join.
        combine: Combine,
        /// What is combined, in the accumulation type; for `product`, the left factor.
        element: NodeId,
        /// The right factor, where products are summed.
        factor: Option<NodeId>,
        /// What the result starts from, in the accumulation type; the identity where there is none.
        init: Option<NodeId>,
        /// The element that changes nothing, in the accumulation type: that of what is combined, which may be narrower.
        identity: Scalar,
        /// The type of partial results.
        accumulate: DType,
        /// Which loops vanish.
        over: Vec<usize>,
    },
    /// The position of the extreme value along a loop is written.
    ArgReduce {
        /// Whether the largest is wanted.
        largest: bool,
        /// The value.
        element: NodeId,
        /// The loop that vanishes.
        over: usize,
        /// Whether the last of equal values is taken.
        last: bool,
    },
    /// Each value is combined with those before it along a loop.
    Scan {
        /// How they join.
        combine: Combine,
        /// The value, in the accumulation type.
        element: NodeId,
        /// The loop along which.
        over: usize,
        /// Whether a value is left out of its own result.
        exclusive: bool,
        /// Whether the scan runs from the end.
        reverse: bool,
        /// What it starts from: the identity of the elements' type, in the accumulation type.
        identity: Scalar,
        /// The type of partial results.
        accumulate: DType,
    },
    /// Each value is joined with what is at its place, in row-major order of the loops.
    Scatter {
        /// The value.
        root: NodeId,
        /// How; `None` overwrites.
        combine: Option<Combine>,
    },
}

/// Where memory starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// An operand of the kernel.
    Operand(usize),
    /// An offset in the scratch buffer, in bytes.
    Scratch(usize),
}

/// An element of memory for each position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Access {
    /// Where memory starts.
    pub(crate) base: Base,
    /// The type in memory.
    pub(crate) dtype: DType,
    /// The offset in bytes that is plainly affine.
    pub(crate) offset: Affine,
    /// Dimensions that need more than that; they add to the offset.
    pub(crate) dims: Vec<AccessDim>,
    /// What is read where a [`Guard::Pad`] fails.
    pub(crate) pad: Option<Scalar>,
}

/// A dimension with a guard, an index or a split layout.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AccessDim {
    /// The affine part of the position.
    pub(crate) position: Affine,
    /// An integer node that is added to it.
    pub(crate) index: Option<NodeId>,
    /// The size of the dimension.
    pub(crate) extent: usize,
    /// What happens outside.
    pub(crate) guard: Guard,
    /// How the position becomes an offset.
    pub(crate) digits: SmallVec<[Digit; 1]>,
}

/// What happens outside of a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// It cannot be left.
    None,
    /// A load gives its pad, a store does nothing.
    Pad,
    /// The position moves to the nearest inside.
    Clamp,
}

/// A part of an offset: `position / divisor % modulus * stride`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digit {
    /// What the position is divided by.
    pub(crate) divisor: usize,
    /// What the quotient is reduced by, where it is.
    pub(crate) modulus: Option<usize>,
    /// The bytes of a step.
    pub(crate) stride: i64,
}

impl Nest {
    /// Adds a node, or finds the equal one that is there.
    pub(crate) fn push(&mut self, node: Node, dtype: DType) -> NodeId {
        let entry = (node, dtype);
        if let Some(found) = self.nodes.iter().position(|other| *other == entry) {
            return found;
        }
        self.nodes.push(entry);
        self.nodes.len() - 1
    }

    /// A node in another type; the node itself where that is its type.
    pub(crate) fn convert(&mut self, node: NodeId, dtype: DType) -> NodeId {
        if self.nodes[node].1 == dtype {
            return node;
        }
        self.push(Node::Convert(node), dtype)
    }

    /// Every access: the sink's first, then those of the loads.
    pub(crate) fn accesses(&self) -> impl Iterator<Item = &Access> {
        std::iter::once(&self.to).chain(self.nodes.iter().filter_map(|(node, _)| match node {
            Node::Load(access) => Some(access),
            Node::Constant(_) | Node::Index(_) | Node::Call(..) | Node::Convert(_) => None,
        }))
    }

    /// Every affine expression in the nest, to be changed.
    pub(crate) fn affines_mut(&mut self) -> impl Iterator<Item = &mut Affine> {
        fn of(access: &mut Access) -> impl Iterator<Item = &mut Affine> {
            std::iter::once(&mut access.offset)
                .chain(access.dims.iter_mut().map(|dim| &mut dim.position))
        }
        of(&mut self.to).chain(self.nodes.iter_mut().flat_map(|(node, _)| {
            let affines: Vec<&mut Affine> = match node {
                Node::Load(access) => of(access).collect(),
                Node::Index(affine) => vec![affine],
                Node::Constant(_) | Node::Call(..) | Node::Convert(_) => Vec::new(),
            };
            affines
        }))
    }

    /// The nodes that a node uses.
    pub(crate) fn uses(&self, node: NodeId) -> SmallVec<[NodeId; 3]> {
        match &self.nodes[node].0 {
            Node::Constant(_) | Node::Index(_) => SmallVec::new(),
            Node::Load(access) => access.dims.iter().filter_map(|dim| dim.index).collect(),
            Node::Call(_, operands) => operands.clone(),
            Node::Convert(operand) => SmallVec::from_slice(&[*operand]),
        }
    }

    /// The nodes that the sink uses.
    pub(crate) fn roots(&self) -> SmallVec<[NodeId; 4]> {
        let mut roots: SmallVec<[NodeId; 4]> =
            self.to.dims.iter().filter_map(|dim| dim.index).collect();
        match &self.sink {
            Sink::Store { root } | Sink::Scatter { root, .. } => roots.push(*root),
            Sink::Reduce { element, factor, init, .. } => {
                roots.push(*element);
                roots.extend(*factor);
                roots.extend(*init);
            }
            Sink::ArgReduce { element, .. } | Sink::Scan { element, .. } => roots.push(*element),
        }
        roots
    }
}

/// The position of a loop as a term.
pub(crate) fn loop_term(index: usize) -> Term {
    Term::Axis(Axis(u32::try_from(index).expect("a nest has few loops")))
}

/// The loop that a term is the position of.
pub(crate) fn term_loop(term: Term) -> Option<usize> {
    match term {
        Term::Axis(axis) => Some(axis.0 as usize),
        Term::Var(_) => None,
    }
}

impl Access {
    /// Whether a loop's position matters.
    pub(crate) fn uses_loop(&self, index: usize) -> bool {
        self.offset.coefficient(loop_term(index)) != 0 || self.dims_use_loop(index)
    }

    /// Whether a loop's position matters for a dimension that is not plainly affine.
    pub(crate) fn dims_use_loop(&self, index: usize) -> bool {
        self.dims.iter().any(|dim| dim.position.coefficient(loop_term(index)) != 0)
    }
}
