//! The catalogue of graph operations. Each op is defined once, in its own file; one row here gives its enum variant,
//! name, dispatch and documentation.

mod attributes;
mod formula;
pub(crate) mod movement;
pub(crate) mod order;
mod product;
mod rules;
mod sample;

pub use attributes::{AttrReader, AttrValue, AttrWriter, Attribute};
pub use gelu::Approximation;

use crate::graph::{Builder, Function, ValueId};
use crate::tensor::Tensor;
use crate::types::TensorType;
use arbitrary::Unstructured;
use std::fmt;

#[cfg(test)]
mod tests;

/// What family an op is of. Passes match on this, never on the op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A constant, parameter or iota: no operands.
    Source,
    /// One scalar function or conversion for each element.
    Map,
    /// The same elements at other positions: an affine view of the operand.
    View,
    /// Elements joined along dimensions.
    Reduce,
    /// A general product, or a convolution.
    Contract,
    /// Elements chosen by values: gather, scatter, dynamic slices.
    Index,
    /// Sorting, scanning, and what else runs along a dimension.
    Order,
    /// If, while, for, call, fusion: ops with blocks or functions.
    Control,
    /// Exchange between ranks.
    Collective,
    /// A formula over other ops, which `expand` replaces.
    Composite,
}

/// Why an op does not take these operands: a message without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeError {
    /// Lower case, no full stop, the value and its limit.
    pub message: String,
}

impl TypeError {
    /// An error with that message.
    pub fn new(message: impl Into<String>) -> TypeError {
        TypeError { message: message.into() }
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TypeError {}

/// What an op's type rule may look at.
#[derive(Debug)]
pub struct InferContext<'a> {
    /// The operands' types.
    pub operands: &'a [&'a TensorType],
    /// The types of the op's blocks.
    pub blocks: Vec<BlockType>,
}

/// The types of a block's parameters and results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockType {
    /// Of the parameters.
    pub params: Vec<TensorType>,
    /// Of the results.
    pub results: Vec<TensorType>,
}

impl<'a> InferContext<'a> {
    /// The operands, where there are exactly `N`.
    pub fn operands<const N: usize>(&self) -> Result<[&'a TensorType; N], TypeError> {
        self.operands
            .try_into()
            .map_err(|_| TypeError::new(format!("takes {N} operands, not {}", self.operands.len())))
    }
}

/// What an op says about itself; printer, parser, verifier, evaluator, docs and fuzzer derive from it.
pub trait OpDef: Sized + Clone + fmt::Debug + PartialEq {
    /// Its family.
    const KIND: Kind;
    /// Reads the attributes; the reader collects what is wrong with them.
    fn read(attributes: &mut AttrReader<'_>) -> Option<Self>;
    /// Writes the attributes, in canonical order, defaults left out.
    fn write(&self, attributes: &mut AttrWriter);
    /// The types of the results.
    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError>;
    /// The values of the results. Parameters, control ops, collectives and composites are evaluated by
    /// [`crate::evaluate`], which never calls this for them.
    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor>;
    /// An instance with the types of operands it takes, small enough to evaluate.
    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)>;
    /// A cheaper form of the same meaning, where these operand types allow one: see `simplify`.
    fn simplify(&self, _operands: &[&TensorType]) -> Option<Simpler> {
        None
    }
    /// Builds the formula of a composite; `None` for primitives.
    fn expand(
        &self,
        _builder: &mut Builder<'_>,
        _operands: &[ValueId],
    ) -> Option<Result<Vec<ValueId>, TypeError>> {
        None
    }
}

/// What an op may be replaced by.
#[derive(Clone, Debug, PartialEq)]
pub enum Simpler {
    /// Its operand of that position.
    Operand(usize),
    /// Another op on the same operands.
    Op(Box<Op>),
}

/// An op that is a formula over other ops; type rule and value follow from it.
pub trait Composite: Sized + Clone + fmt::Debug + PartialEq {
    /// Reads the attributes.
    fn read(attributes: &mut AttrReader<'_>) -> Option<Self>;
    /// Writes the attributes.
    fn write(&self, attributes: &mut AttrWriter);
    /// Builds the formula.
    fn expand(
        &self,
        builder: &mut Builder<'_>,
        operands: &[ValueId],
    ) -> Result<Vec<ValueId>, TypeError>;
    /// An instance with the types of operands it takes.
    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)>;
}

impl<T: Composite> OpDef for T {
    const KIND: Kind = Kind::Composite;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        Composite::read(attributes)
    }

    fn write(&self, attributes: &mut AttrWriter) {
        Composite::write(self, attributes);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let mut function = Function::default();
        let params: Vec<ValueId> =
            context.operands.iter().map(|&ty| function.value(ty.clone(), None)).collect();
        let results = Composite::expand(self, &mut Builder::new(&mut function), &params)?;
        Ok(results.iter().map(|&value| function.ty(value).clone()).collect())
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs a composite's formula")
    }

    fn expand(
        &self,
        builder: &mut Builder<'_>,
        operands: &[ValueId],
    ) -> Option<Result<Vec<ValueId>, TypeError>> {
        Some(Composite::expand(self, builder, operands))
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Composite::sample(u)
    }
}

macro_rules! ops {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal in $module:ident,)*) => {
        $(mod $module;)*
        $(pub use $module::$name;)*

        /// Any operation.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op { $($(#[doc = $doc])+ $name($name),)* }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Op {
                Op::$name(op)
            }
        })*

        /// Makes a random instance of one op, with the types of operands it takes.
        pub type Sampler = fn(&mut Unstructured<'_>) -> arbitrary::Result<(Op, Vec<TensorType>)>;

        /// One row for each op: name, family, documentation, sampler.
        pub const CATALOG: &[(&str, Kind, &str, Sampler)] = &[$((
            $text,
            <$name as OpDef>::KIND,
            concat!($($doc, "\n"),+),
            |u| <$name as OpDef>::sample(u).map(|(op, types)| (Op::$name(op), types)),
        ),)*];

        impl Op {
            /// How the op is written.
            pub fn name(&self) -> &'static str {
                if let Op::Map(map) = self {
                    return map.function.name();
                }
                match self { $(Op::$name(_) => $text,)* }
            }

            /// Its family.
            pub fn kind(&self) -> Kind {
                match self { $(Op::$name(_) => <$name as OpDef>::KIND,)* }
            }

            /// The op of that name with those attributes. `None` with an empty diagnosis where no op has the name.
            pub fn read(name: &str, attributes: &mut AttrReader<'_>) -> Option<Op> {
                if let Some(function) = crate::scalar::ScalarFn::from_name(name) {
                    return Some(Op::Map(Map { function }));
                }
                match name {
                    $($text => OpDef::read(attributes).map(Op::$name),)*
                    _ => None,
                }
            }

            /// Writes the attributes.
            pub fn write(&self, attributes: &mut AttrWriter) {
                match self { $(Op::$name(op) => OpDef::write(op, attributes),)* }
            }

            /// The types of the results.
            pub fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
                if self.kind() != Kind::Control {
                    context.blocks::<0>()?;
                }
                match self { $(Op::$name(op) => OpDef::infer(op, context),)* }
            }

            /// The values of the results of an op without blocks.
            pub fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
                match self { $(Op::$name(op) => OpDef::evaluate(op, operands),)* }
            }

            /// Builds the formula of a composite; `None` for primitives.
            pub fn expand(
                &self,
                builder: &mut Builder<'_>,
                operands: &[ValueId],
            ) -> Option<Result<Vec<ValueId>, TypeError>> {
                match self { $(Op::$name(op) => OpDef::expand(op, builder, operands),)* }
            }

            /// A cheaper form of the same meaning.
            pub fn simplify(&self, operands: &[&TensorType]) -> Option<Simpler> {
                match self { $(Op::$name(op) => OpDef::simplify(op, operands),)* }
            }
        }
    };
}

ops! {
    /// A tensor known at compile time. Large ones are printed as shape and content hash.
    Constant = "constant" in constant,
    /// A weight without data: it has a name and a type, and is bound when the program is loaded.
    Parameter = "parameter" in parameter,
    /// Positions along a dimension: element `[.., i, ..]` is `i`.
    Iota = "iota" in iota,
    /// One scalar function of each element; operands have one shape. Written by the function's own name.
    Map = "map" in map,
    /// Each element in another type: floats round to nearest even, float to integer truncates.
    Convert = "convert" in convert,
    /// Joins elements over `axes`; each of these dimensions vanishes.
    Reduce = "reduce" in reduce,
    /// Each element joined with all before it along `axis`.
    Scan = "scan" in scan,
    /// The position of the extreme element along `axis`, which vanishes.
    ArgReduce = "arg-reduce" in arg_reduce,
    /// The general product: sums over pairs of dimensions, keeps batch dimensions of both.
    Contract = "contract" in contract,
    /// Sliding products of a kernel over the spatial dimensions, with groups.
    Convolve = "convolve" in convolve,
    /// Joins elements of sliding windows.
    WindowReduce = "window-reduce" in window_reduce,
    /// The same elements in row-major order with another shape.
    Reshape = "reshape" in reshape,
    /// Reorders dimensions: result dimension `i` is operand dimension `perm[i]`.
    Transpose = "transpose" in transpose,
    /// Repeats elements: operand dimension `i` becomes result dimension `dims[i]`, others are new.
    Broadcast = "broadcast" in broadcast,
    /// Elements from `start` to `limit` (exclusive) by `stride`, in each dimension.
    Slice = "slice" in slice,
    /// Adds elements with the value of the second operand before, after and between those of the first.
    Pad = "pad" in pad,
    /// Operands one after another along `axis`.
    Concat = "concat" in concat,
    /// Elements in opposite order along `axes`.
    Reverse = "reverse" in reverse,
    /// Slices of the operand along `axis`, chosen by integer indices, which are clamped into it.
    Gather = "gather" in gather,
    /// The operand with slices along `axis` replaced by or combined with updates, one index after another; indices
    /// outside are ignored.
    Scatter = "scatter" in scatter,
    /// Sorts along `axis`, stably: the sorted elements, and the position each came from.
    Sort = "sort" in sort,
    /// The `k` first elements of the sorted operand along `axis`, and the position each came from.
    TopK = "top-k" in top_k,
    /// A part of the operand of static size, at a start that scalar operands give, clamped so that it fits.
    DynamicSlice = "dynamic-slice" in dynamic_slice,
    /// The operand with a part replaced, at a start that scalar operands give, clamped so that it fits.
    DynamicUpdate = "dynamic-update" in dynamic_update,
    /// Pseudo-random elements that depend on seed and position alone.
    Random = "random" in random,
    /// One of two blocks, by a scalar bool.
    If = "if" in if_,
    /// Repeats the second block while the first gives true, carrying values.
    While = "while" in while_,
    /// Repeats a block a fixed number of times; its first parameter is the i64 iteration number, the others are carried.
    For = "for" in for_,
    /// Another function of the graph.
    Call = "call" in call,
    /// Nodes that become one kernel. The block's parameters are the operands.
    Fusion = "fusion" in fusion,
    /// Joins the operand of all ranks of a group; every rank gets the result.
    AllReduce = "all-reduce" in all_reduce,
    /// Operands of all ranks of a group, one after another along `axis`.
    AllGather = "all-gather" in all_gather,
    /// Joins the operand of all ranks of a group; every rank gets its part along `axis`.
    ReduceScatter = "reduce-scatter" in reduce_scatter,
    /// Every rank sends one part along `split` to each other, and joins what it gets along `concat`.
    AllToAll = "all-to-all" in all_to_all,
    /// Ranks send their operand to another, as `pairs` of sender and receiver say; a rank to which nobody sends gets zeros.
    Permute = "permute" in permute,
    /// The number of the rank that runs the program: 0 where there is only one.
    Rank = "rank" in rank,
    /// exp(x − max) / Σ exp(x − max) along `axis`.
    Softmax = "softmax" in softmax,
    /// The logarithm of `softmax`: x − max − log Σ exp(x − max) along `axis`.
    LogSoftmax = "log-softmax" in log_softmax,
    /// (x − mean) / √(variance + epsilon) · scale + bias, over the dimensions from `axis` on.
    LayerNorm = "layer-norm" in layer_norm,
    /// x / √(mean of squares + epsilon) · scale, over the dimensions from `axis` on.
    RmsNorm = "rms-norm" in rms_norm,
    /// x · Φ(x), where Φ is the normal distribution function.
    Gelu = "gelu" in gelu,
    /// x · sigmoid(x).
    Silu = "silu" in silu,
    /// softmax(q · kᵀ · scale + mask) · v for each head; keys and values may serve several heads.
    Attention = "attention" in attention,
}
