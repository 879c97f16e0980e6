//! What the graph's grammar gives: names not looked up, attributes not read, every part with its place.

use crate::diagnostic::Span;
use std::borrow::Cow;

/// Something with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    /// Where it stands.
    pub(super) span: Span,
    /// What stands there.
    pub(super) item: T,
}

/// A name without its sign and quotes.
pub(super) type Name<'a> = At<Cow<'a, str>>;

/// What stands outside of everything.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item<'a> {
    /// A function.
    Function(Function<'a>),
    /// `mesh @m [dp = 2, tp = 4]`, or `ranks`.
    Mesh {
        /// Whether it is `ranks`.
        divided: bool,
        /// The name.
        name: Name<'a>,
        /// The axes.
        axes: Vec<(At<&'a str>, i128)>,
    },
}

/// A part of a sharding, `{dp, (pp, tp), sum(ep), pp = 1}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shard<'a> {
    /// `dp`, `_` or `(dp, tp)`
    Axes(Vec<&'a str>),
    /// `sum(tp)`
    Partial(&'a str, Vec<&'a str>),
    /// `pp = 1`
    Stage(&'a str, i128),
}

/// The parts of a sharding.
pub(super) type Sharding<'a> = At<Vec<Shard<'a>>>;

/// `func @name(%x: f32[4]) -> (y: f32[4] state %x) { … }`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Function<'a> {
    /// The name.
    pub(super) name: Name<'a>,
    /// The results of the signature, where it has them.
    pub(super) results: Option<At<Vec<ResultItem<'a>>>>,
    /// Parameters and statements.
    pub(super) block: Block<'a>,
}

/// `y: f32[4] state %x`, or the type alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ResultItem<'a> {
    /// The name, where it has one.
    pub(super) name: Option<Name<'a>>,
    /// The type.
    pub(super) ty: Type<'a>,
    /// How it is divided, where that is written.
    pub(super) sharding: Option<Sharding<'a>>,
    /// The parameter that holds the state before.
    pub(super) state: Option<Name<'a>>,
}

/// `(%x: f32[4]) { … }`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block<'a> {
    /// The parameters.
    pub(super) params: Vec<Binding<'a>>,
    /// What stands between the braces.
    pub(super) statements: Vec<Statement<'a>>,
    /// The closing brace.
    pub(super) close: Span,
}

/// `%x: f32[4]` or `%x`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Binding<'a> {
    /// The name.
    pub(super) name: Name<'a>,
    /// The type, where it is written.
    pub(super) ty: Option<Type<'a>>,
    /// How it is divided, where that is written.
    pub(super) sharding: Option<Sharding<'a>>,
}

/// `f32[4, 8]`
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Type<'a> {
    /// The place of the whole.
    pub(super) span: Span,
    /// The element type's name.
    pub(super) dtype: &'a str,
    /// The sizes.
    pub(super) shape: Vec<i128>,
}

/// A line of a block.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement<'a> {
    /// `%y = exp %x`
    Define(Box<Define<'a>>),
    /// `return %y` or `yield %y`
    End {
        /// Whether it is `return`.
        is_return: bool,
        /// The place of the word.
        word: Span,
        /// The values.
        values: Vec<Name<'a>>,
    },
    /// What the grammar does not know; it has been reported.
    Error,
}

/// `%y: f32[4] = name %x {key = value} from ["node"] do (…) { … }`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Define<'a> {
    /// The place of the whole, without its blocks.
    pub(super) span: Span,
    /// What it defines.
    pub(super) results: Vec<Binding<'a>>,
    /// The op's name.
    pub(super) op: At<&'a str>,
    /// What it reads.
    pub(super) operands: Vec<Name<'a>>,
    /// Its attributes.
    pub(super) attributes: Vec<Attribute<'a>>,
    /// The source nodes it came from.
    pub(super) origins: Vec<Name<'a>>,
    /// Its blocks.
    pub(super) blocks: Vec<Block<'a>>,
}

/// `key = value`
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attribute<'a> {
    /// The place of the whole.
    pub(super) span: Span,
    /// The key.
    pub(super) key: At<&'a str>,
    /// The value.
    pub(super) value: Value<'a>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    /// `-3`
    Int(i128),
    /// `0.5`
    Float(f64),
    /// `sum`, `true`, `inf`
    Word(&'a str),
    /// `"a b"`
    Text(Cow<'a, str>),
    /// `[1, 2]`
    List(Vec<Value<'a>>),
    /// `f32[2, 3]`
    Type(Type<'a>),
    /// `splat(0.0)`
    Call(&'a str, Box<Value<'a>>),
}
