//! What the grammar gives: names not looked up, types not inferred, every part with its place.

use crate::diagnostic::Span;
use crate::text::ast::Value;
use std::borrow::Cow;

/// Something with its place.
#[derive(Clone, Debug)]
pub(crate) struct At<T> {
    pub(crate) span: Span,
    pub(crate) item: T,
}

/// A name without its sign and quotes.
pub(crate) type Name<'a> = At<Cow<'a, str>>;

/// `kernel @name(%x: f32[i: 4]) -> (%y: f32[i]) { … }`
#[derive(Clone, Debug)]
pub(crate) struct Kernel<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) params: Vec<Param<'a>>,
    pub(crate) results: Vec<Param<'a>>,
    pub(crate) origins: Vec<Cow<'a, str>>,
    pub(crate) body: Vec<Stmt<'a>>,
}

/// `%x: update f32[i: 4]` or `%n: index[0, 7]`
#[derive(Clone, Debug)]
pub(crate) enum Param<'a> {
    Operand { name: Name<'a>, role: Option<&'a str>, dtype: At<&'a str>, dims: Vec<Dim<'a>> },
    Scalar { name: Name<'a>, range: At<(i128, i128)> },
}

/// `i: 4` or `i`
#[derive(Clone, Debug)]
pub(crate) struct Dim<'a> {
    pub(crate) axis: Name<'a>,
    pub(crate) extent: Option<i128>,
}

/// `near f32[i: 4] rows [i]`
#[derive(Clone, Debug)]
pub(crate) struct Type<'a> {
    pub(crate) is_near: bool,
    pub(crate) dtype: At<&'a str>,
    pub(crate) dims: Vec<Dim<'a>>,
    pub(crate) rows: Vec<Name<'a>>,
}

/// `%x: type` or `%x`
#[derive(Clone, Debug)]
pub(crate) struct Binding<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) ty: Option<Type<'a>>,
}

/// A line of a body.
#[derive(Clone, Debug)]
pub(crate) enum Stmt<'a> {
    Define {
        results: Vec<Binding<'a>>,
        op: At<Op<'a>>,
    },
    Store {
        place: Span,
        access: Access<'a>,
        tile: Operand<'a>,
    },
    Scatter {
        place: Span,
        combine: Option<At<&'a str>>,
        access: Access<'a>,
        tile: Operand<'a>,
    },
    For(Box<For<'a>>),
    Yield {
        place: Span,
        tiles: Vec<Operand<'a>>,
    },
    /// What the grammar does not know; it has been reported.
    Error,
}

/// A loop.
#[derive(Clone, Debug)]
pub(crate) struct For<'a> {
    pub(crate) place: Span,
    pub(crate) results: Vec<Binding<'a>>,
    pub(crate) var: Name<'a>,
    pub(crate) start: At<Affine<'a>>,
    pub(crate) end: At<Affine<'a>>,
    pub(crate) step: Option<At<i128>>,
    pub(crate) attributes: Vec<At<LoopAttribute>>,
    pub(crate) carried: Vec<Carried<'a>>,
    pub(crate) body: Vec<Stmt<'a>>,
}

/// What stands behind a loop's range.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LoopAttribute {
    Parallel,
    Sequential,
    Reduce,
    Pipelined(i128),
}

/// `%sum: type = %init` or `%sum (fill 0.0)`
#[derive(Clone, Debug)]
pub(crate) struct Carried<'a> {
    pub(crate) binding: Binding<'a>,
    pub(crate) init: Operand<'a>,
}

/// A tile: by name, or what defines it.
#[derive(Clone, Debug)]
pub(crate) enum Operand<'a> {
    Named(Name<'a>),
    Nested(Box<At<Op<'a>>>),
}

/// `%x[%i + 1, 0]`
#[derive(Clone, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) operand: Name<'a>,
    pub(crate) at: Vec<At<Affine<'a>>>,
}

/// A sum of products of a number and a name, or a number alone.
pub(crate) type Affine<'a> = Vec<(i128, Atom<'a>)>;

/// What a term varies with.
#[derive(Clone, Debug)]
pub(crate) enum Atom<'a> {
    One,
    Axis(Name<'a>),
    Value(Name<'a>),
}

/// What defines tiles.
#[derive(Clone, Debug)]
pub(crate) enum Op<'a> {
    Load {
        access: Access<'a>,
        pad: Option<At<Literal<'a>>>,
    },
    Gather {
        access: Access<'a>,
    },
    Fill {
        value: At<Literal<'a>>,
        dims: Option<Vec<Dim<'a>>>,
    },
    View {
        tile: Operand<'a>,
        dims: Option<Vec<Dim<'a>>>,
        at: Vec<(Name<'a>, Option<At<Affine<'a>>>)>,
    },
    Contract {
        tiles: Vec<Operand<'a>>,
        over: Vec<Name<'a>>,
        accumulate: Option<At<&'a str>>,
    },
    Map {
        operands: Vec<Operand<'a>>,
        named: Vec<(Name<'a>, At<Expr<'a>>)>,
        expr: At<Expr<'a>>,
    },
    Reduce {
        combine: At<&'a str>,
        tiles: Vec<Operand<'a>>,
        over: Vec<Name<'a>>,
        accumulate: Option<At<&'a str>>,
    },
    ArgReduce {
        combine: At<&'a str>,
        tile: Operand<'a>,
        over: Name<'a>,
        last: bool,
    },
    Scan {
        combine: At<&'a str>,
        tile: Operand<'a>,
        over: Name<'a>,
        flags: Vec<At<&'a str>>,
        accumulate: Option<At<&'a str>>,
    },
    Sort {
        tile: Operand<'a>,
        over: Name<'a>,
        descending: bool,
    },
    Rearrange {
        tile: Operand<'a>,
    },
}

/// A constant without its type.
#[derive(Clone, Debug)]
pub(crate) enum Literal<'a> {
    Int(i128),
    Float(f64),
    Word { negative: bool, word: &'a str },
}

/// A scalar expression. Chains of operators are flat, so that its depth is that of its brackets.
#[derive(Clone, Debug)]
pub(crate) enum Expr<'a> {
    Value(Cow<'a, str>),
    Literal(Literal<'a>),
    Negative(Box<At<Expr<'a>>>),
    Call { function: &'a str, inputs: Vec<At<Expr<'a>>> },
    Chain { first: Box<At<Expr<'a>>>, rest: Vec<(&'static str, At<Expr<'a>>)> },
}

/// A part of a schedule.
#[derive(Clone, Debug)]
pub(crate) enum Clause<'a> {
    Tile(Vec<(Name<'a>, i128)>),
    Order(Vec<Name<'a>>),
    Parallel(Vec<Name<'a>>),
    Pipeline(Vec<(Name<'a>, i128)>),
    Hoist(Cow<'a, str>, Option<Name<'a>>),
}

/// `module @name(%x) -> ("y": %y) { … }`
#[derive(Clone, Debug)]
pub(crate) struct Module<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) inputs: Vec<Name<'a>>,
    pub(crate) outputs: Vec<Output<'a>>,
    pub(crate) arena: Option<At<i128>>,
    pub(crate) buffers: Vec<Buffer<'a>>,
    pub(crate) kernels: Vec<Kernel<'a>>,
    pub(crate) load: Vec<At<Step<'a>>>,
    pub(crate) run: Vec<At<Step<'a>>>,
}

/// `"y": %y state %x`
#[derive(Clone, Debug)]
pub(crate) struct Output<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) buffer: Name<'a>,
    pub(crate) states: Vec<Name<'a>>,
}

/// `%w: near f32[64, 32] layout [1/16, 0, 1%16] loaded alias %v at 64`
#[derive(Clone, Debug)]
pub(crate) struct Buffer<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) is_near: bool,
    pub(crate) dtype: At<&'a str>,
    pub(crate) shape: Vec<i128>,
    pub(crate) layout: Option<Vec<At<Piece<'a>>>>,
    pub(crate) lifetime: At<Lifetime<'a>>,
    pub(crate) alias: Option<Name<'a>>,
    pub(crate) offset: Option<At<i128>>,
}

/// `1/16%4`: the digit of 4 values of dimension 1 above its lowest 16 values.
#[derive(Clone, Debug)]
pub(crate) struct Piece<'a> {
    pub(crate) dim: i128,
    pub(crate) below: Option<i128>,
    pub(crate) size: Option<Cow<'a, str>>,
}

/// How long a buffer lives.
#[derive(Clone, Debug)]
pub(crate) enum Lifetime<'a> {
    Input,
    Constant(Value<'a>),
    Parameter(Cow<'a, str>),
    Loaded,
    State,
    Temporary,
}

/// One thing that is done.
#[derive(Clone, Debug)]
pub(crate) enum Step<'a> {
    Call {
        kernel: Name<'a>,
        operands: Vec<Name<'a>>,
        scalars: Vec<Scalar<'a>>,
        origins: Vec<Cow<'a, str>>,
    },
    Copy {
        from: Name<'a>,
        to: Name<'a>,
    },
    Exchange {
        op: At<&'a str>,
        operands: Vec<Name<'a>>,
        result: Name<'a>,
        attributes: Vec<(At<&'a str>, Value<'a>)>,
        origins: Vec<Cow<'a, str>>,
    },
    If {
        condition: Name<'a>,
        then: Vec<At<Step<'a>>>,
        otherwise: Vec<At<Step<'a>>>,
    },
    While {
        condition: Name<'a>,
        before: Vec<At<Step<'a>>>,
        body: Vec<At<Step<'a>>>,
    },
    For {
        counter: Name<'a>,
        start: At<i128>,
        end: At<i128>,
        body: Vec<At<Step<'a>>>,
    },
}

/// A scalar argument.
#[derive(Clone, Debug)]
pub(crate) enum Scalar<'a> {
    Number(At<i128>),
    Buffer(Name<'a>),
}
