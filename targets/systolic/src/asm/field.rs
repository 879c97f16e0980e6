//! How each kind of field of an instruction is written and read, in one place each.

use super::lexer::{TokenKind, quote};
use super::parse::{Failed, Parser};
use super::print::Names;
use crate::isa::{Alu, Function, Op, Pace};
use crate::program::{Access, Index, Operand1, Space, Term, Var};
use smallvec::SmallVec;
use std::fmt::Write as _;
use systole_compiler::expr::{Expr, ExprNode, Scalar};
use systole_compiler::kernel::{Combine, Kernel};
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::{Class, DType};

/// Something that stands behind `name=`.
pub(super) trait Field: Sized {
    fn write(&self, out: &mut String, names: &Names);
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed>;
}

macro_rules! operations {
    ($($variant:ident { $($field:ident),* })*) => {
        /// Writes the fields of a compute instruction.
        pub(super) fn write_operation(op: &Op, out: &mut String, names: &Names) {
            match op {
                $(Op::$variant { $($field),* } => {
                    $(write_field(stringify!($field), $field, out, names);)*
                })*
                Op::Dma(_) | Op::Nop => {}
            }
        }

        /// Reads the fields of the compute instruction of that mnemonic; `None` where there is none.
        pub(super) fn read_operation(
            mnemonic: &str,
            parser: &mut Parser<'_>,
        ) -> Option<Result<Op, Failed>> {
            $(if mnemonic == name_of(stringify!($variant)) {
                let mut read = || {
                    $(let $field = read_field(stringify!($field), parser)?;)*
                    Ok(Op::$variant { $($field),* })
                };
                return Some(read());
            })*
            None
        }
    };
}

operations! {
    Matmul { stationary, moving, out, accumulate, pace, scales }
    Transpose { input, out }
    Activation { function, input, scale, bias, out, reduce }
    Copy { input, out }
    Memset { out, value }
    TensorTensor { alu, a, b, out }
    TensorScalar { input, first, second, out, reduce }
    ScalarTensorTensor { a, first, second, b, out }
    Select { predicate, on_true, on_false, out }
    Reduce { combine, input, dims, out }
    Scan { combine, input, initial, out }
    TensorTensorScan { first, second, a, b, initial, out }
    Reciprocal { input, out }
    Exponential { input, bias, out }
    BnStats { input, out }
    BnAggregate { input, out }
    Max8 { input, out }
    FindIndex8 { input, values, out }
    MatchReplace8 { input, values, value, out }
    TransposeBlocks { input, out }
    Shuffle { input, mask, out }
    QuantizeMx { input, out, scales }
    Iota { base, channel, steps, out }
    AffineSelect { input, base, channel, steps, fill, out }
    Gather { input, index, out }
    PartitionReduce { combine, input, out }
    PartitionBroadcast { input, out }
    Custom { expr, inputs, out }
    Fallback { kernel }
}

/// `TensorTensor` as `tensor-tensor`: how the table of instructions writes it.
fn name_of(variant: &str) -> String {
    let mut name = String::new();
    for c in variant.chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

fn write_field<F: Field>(name: &str, field: &F, out: &mut String, names: &Names) {
    out.push(' ');
    out.push_str(&name.replace('_', "-"));
    out.push('=');
    field.write(out, names);
}

fn read_field<F: Field>(name: &str, parser: &mut Parser<'_>) -> Result<F, Failed> {
    parser.word(&name.replace('_', "-"))?;
    parser.sign("=")?;
    F::read(parser)
}

macro_rules! named {
    ($type:ty { $($variant:path = $name:literal,)* } $what:literal) => {
        impl Field for $type {
            fn write(&self, out: &mut String, _names: &Names) {
                out.push_str(match self { $($variant => $name,)* });
            }
            fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
                let word = parser.any_word($what)?;
                match word.as_str() {
                    $($name => Ok($variant),)*
                    _ => Err(parser.wrong_before(format!("there is no {} `{word}`", $what))),
                }
            }
        }
    };
}

named! { Alu {
    Alu::Add = "add", Alu::Subtract = "subtract", Alu::Multiply = "multiply", Alu::Divide = "divide",
    Alu::Max = "max", Alu::Min = "min", Alu::Power = "power", Alu::Equal = "equal",
    Alu::NotEqual = "not-equal", Alu::Less = "less", Alu::LessEqual = "less-equal",
    Alu::Greater = "greater", Alu::GreaterEqual = "greater-equal", Alu::And = "and", Alu::Or = "or",
    Alu::Xor = "xor", Alu::AbsMax = "abs-max", Alu::Bypass = "bypass",
} "function of two operands" }
named! { Function {
    Function::Copy = "copy", Function::Exp = "exp", Function::Log = "log", Function::Sqrt = "sqrt",
    Function::Rsqrt = "rsqrt", Function::Reciprocal = "reciprocal", Function::Square = "square",
    Function::Abs = "abs", Function::Sign = "sign", Function::Relu = "relu",
    Function::Sigmoid = "sigmoid", Function::Tanh = "tanh", Function::Erf = "erf",
    Function::Gelu = "gelu", Function::GeluTanh = "gelu-tanh", Function::Silu = "silu",
    Function::Softplus = "softplus", Function::Sin = "sin", Function::Cos = "cos",
    Function::Arctan = "arctan",
} "function" }
named! { Pace {
    Pace::Single = "single", Pace::Four = "four", Pace::DoubleRow = "double-row", Pace::Block = "block",
} "pace" }
named! { Combine {
    Combine::Sum = "sum", Combine::Product = "product", Combine::Min = "min", Combine::Max = "max",
    Combine::And = "and", Combine::Or = "or",
} "way to combine" }
named! { Space { Space::Sbuf = "sbuf", Space::Psum = "psum", } "memory" }

impl Field for bool {
    fn write(&self, out: &mut String, _names: &Names) {
        out.push_str(if *self { "yes" } else { "no" });
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let word = parser.any_word("yes or no")?;
        match word.as_str() {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(parser.wrong_before(format!("yes or no, not `{word}`"))),
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Field for $type {
            fn write(&self, out: &mut String, _names: &Names) {
                write!(out, "{self}").expect("strings take all");
            }
            fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
                let text = parser.number()?;
                text.parse().map_err(|_| {
                    parser.wrong_before(format!("`{text}` is not from {} to {}", <$type>::MIN, <$type>::MAX))
                })
            }
        })*
    };
}
integers! { u8, u16, u32, u64, i32, i64 }

impl Field for f32 {
    fn write(&self, out: &mut String, _names: &Names) {
        if self.is_nan() {
            write!(out, "bits({})", self.to_bits()).expect("strings take all");
        } else {
            write!(out, "{self:?}").expect("strings take all");
        }
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        if parser.accept_word("bits") {
            parser.sign("(")?;
            let bits = u32::read(parser)?;
            parser.sign(")")?;
            return Ok(f32::from_bits(bits));
        }
        let text = parser.number_or_infinity()?;
        text.parse().map_err(|_| parser.wrong_before(format!("`{text}` is not a number")))
    }
}

impl Field for DType {
    fn write(&self, out: &mut String, _names: &Names) {
        out.push_str(self.name());
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let word = parser.any_word("element type")?;
        DType::from_name(&word)
            .ok_or_else(|| parser.wrong_before(format!("there is no element type `{word}`")))
    }
}

impl Field for Scalar {
    fn write(&self, out: &mut String, names: &Names) {
        self.dtype.write(out, names);
        out.push('(');
        let value = f64::from_bits(self.bits);
        let written = match self.dtype.class() {
            Class::Float if value.is_nan() => write!(out, "bits {}", self.bits),
            Class::Float => write!(out, "{value:?}"),
            Class::Signed => write!(out, "{}", self.bits as i64),
            Class::Unsigned | Class::Bool => write!(out, "{}", self.bits),
        };
        written.expect("strings take all");
        out.push(')');
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let dtype = DType::read(parser)?;
        parser.sign("(")?;
        let bits = if parser.accept_word("bits") {
            u64::read(parser)?
        } else {
            match dtype.class() {
                Class::Float => {
                    let text = parser.number_or_infinity()?;
                    let value: Result<f64, _> = text.parse();
                    let wrong = |_| parser.wrong_before(format!("`{text}` is not a number"));
                    value.map_err(wrong)?.to_bits()
                }
                Class::Signed => i64::read(parser)? as u64,
                Class::Unsigned | Class::Bool => u64::read(parser)?,
            }
        };
        parser.sign(")")?;
        Ok(Scalar { dtype, bits })
    }
}

impl Field for Index {
    fn write(&self, out: &mut String, names: &Names) {
        write!(out, "{}", self.constant).expect("strings take all");
        for &(term, factor) in &self.terms {
            write!(out, " + {factor}*").expect("strings take all");
            match term {
                Term::Var(var) => out.push_str(&names.var(var)),
                Term::Turn(var, turns) => {
                    write!(out, "turn({}, {turns})", names.var(var)).expect("strings take all");
                }
            }
        }
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let mut sum = Index::default();
        loop {
            let mut factor = 1;
            let mut alone = false;
            if parser.at_number() {
                factor = i64::read(parser)?;
                alone = !parser.accept_sign("*");
            }
            if alone {
                sum.constant = sum.constant.saturating_add(factor);
            } else {
                let term = if parser.accept_word("turn") {
                    parser.sign("(")?;
                    let var = parser.var()?;
                    parser.sign(",")?;
                    let turns = u8::read(parser)?;
                    parser.sign(")")?;
                    Term::Turn(var, turns)
                } else {
                    Term::Var(parser.var()?)
                };
                let one = Index { constant: 0, terms: SmallVec::from_slice(&[(term, 1)]) };
                let known = sum.terms.iter().find(|(other, _)| *other == term);
                if known.is_some_and(|(_, old)| old.checked_add(factor).is_none()) {
                    return Err(parser.wrong_before("the number is too large"));
                }
                sum = sum.plus(&one, factor);
            }
            if !parser.accept_sign("+") {
                return Ok(sum);
            }
        }
    }
}

/// A list in brackets.
pub(super) fn write_list<T>(items: &[T], out: &mut String, mut each: impl FnMut(&T, &mut String)) {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        each(item, out);
    }
    out.push(']');
}

impl<F: Field, const N: usize> Field for SmallVec<[F; N]>
where
    [F; N]: smallvec::Array<Item = F>,
{
    fn write(&self, out: &mut String, names: &Names) {
        write_list(self, out, |item, out| item.write(out, names));
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        parser.list(F::read).map(|items| items.into_iter().collect())
    }
}

impl Field for Vec<Access> {
    fn write(&self, out: &mut String, names: &Names) {
        write_list(self, out, |item, out| item.write(out, names));
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        parser.list(Access::read)
    }
}

/// `stride:size`
impl<A: Field, B: Field> Field for (A, B)
where
    A: Copy,
    B: Copy,
{
    fn write(&self, out: &mut String, names: &Names) {
        self.0.write(out, names);
        out.push(':');
        self.1.write(out, names);
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let first = A::read(parser)?;
        parser.sign(":")?;
        Ok((first, B::read(parser)?))
    }
}

impl Field for Access {
    fn write(&self, out: &mut String, names: &Names) {
        self.space.write(out, names);
        write!(out, "({}, ", self.dtype).expect("strings take all");
        self.partition.write(out, names);
        write!(out, ", {}, ", self.partitions).expect("strings take all");
        self.offset.write(out, names);
        out.push_str(", ");
        self.dims.write(out, names);
        out.push(')');
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let space = Space::read(parser)?;
        parser.sign("(")?;
        let dtype = DType::read(parser)?;
        parser.sign(",")?;
        let partition = Index::read(parser)?;
        parser.sign(",")?;
        let partitions = u16::read(parser)?;
        parser.sign(",")?;
        let offset = Index::read(parser)?;
        parser.sign(",")?;
        let dims = SmallVec::read(parser)?;
        parser.sign(")")?;
        Ok(Access { space, dtype, partition, partitions, offset, dims })
    }
}

impl Field for Operand1 {
    fn write(&self, out: &mut String, names: &Names) {
        match self {
            Operand1::Immediate(value) => value.write(out, names),
            Operand1::Partition(access) => access.write(out, names),
        }
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        if parser.at_word("sbuf") || parser.at_word("psum") {
            return Access::read(parser).map(Operand1::Partition);
        }
        f32::read(parser).map(Operand1::Immediate)
    }
}

/// `add(1.0)`, or `add(1.0, reversed)` with the scalar left.
impl Field for (Alu, Operand1, bool) {
    fn write(&self, out: &mut String, names: &Names) {
        self.0.write(out, names);
        out.push('(');
        self.1.write(out, names);
        out.push_str(if self.2 { ", reversed)" } else { ")" });
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let alu = Alu::read(parser)?;
        parser.sign("(")?;
        let scalar = Operand1::read(parser)?;
        let reversed = parser.accept_sign(",");
        if reversed {
            parser.word("reversed")?;
        }
        parser.sign(")")?;
        Ok((alu, scalar, reversed))
    }
}

impl<F: Field> Field for Option<F> {
    fn write(&self, out: &mut String, names: &Names) {
        match self {
            Some(field) => field.write(out, names),
            None => out.push_str("none"),
        }
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        if parser.accept_word("none") {
            return Ok(None);
        }
        F::read(parser).map(Some)
    }
}

/// `sum into sbuf(…)`
impl Field for (Combine, Access) {
    fn write(&self, out: &mut String, names: &Names) {
        self.0.write(out, names);
        out.push_str(" into ");
        self.1.write(out, names);
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let combine = Combine::read(parser)?;
        parser.word("into")?;
        Ok((combine, Access::read(parser)?))
    }
}

/// The scales of both operands of a product.
impl Field for Box<(Access, Access)> {
    fn write(&self, out: &mut String, names: &Names) {
        out.push('(');
        self.0.write(out, names);
        out.push_str(", ");
        self.1.write(out, names);
        out.push(')');
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        parser.sign("(")?;
        let left = Access::read(parser)?;
        parser.sign(",")?;
        let right = Access::read(parser)?;
        parser.sign(")")?;
        Ok(Box::new((left, right)))
    }
}

impl Field for Box<[u8; 32]> {
    fn write(&self, out: &mut String, _names: &Names) {
        write_list(self.as_slice(), out, |item, out| {
            write!(out, "{item}").expect("strings take all");
        });
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let items = parser.list(u8::read)?;
        let count = items.len();
        <[u8; 32]>::try_from(items)
            .map(Box::new)
            .map_err(|_| parser.wrong_before(format!("a mask has 32 sources, not {count}")))
    }
}

/// `[operand(0): f32, constant(f32(1.0)): f32, call(add, 0, 1): f32, convert(2): i32] root 3`
impl Field for Box<Expr> {
    fn write(&self, out: &mut String, names: &Names) {
        write_list(&self.nodes, out, |(node, dtype), out| {
            match node {
                ExprNode::Operand(at) => write!(out, "operand({at})").expect("strings take all"),
                ExprNode::Constant(value) => {
                    out.push_str("constant(");
                    value.write(out, names);
                    out.push(')');
                }
                ExprNode::Index(axis) => {
                    write!(out, "index({})", axis.0).expect("strings take all")
                }
                // Exact code has no variables; the check of the program rejects what stands here instead.
                ExprNode::Var(_) => out.push_str("index(0)"),
                ExprNode::Call(function, operands) => {
                    write!(out, "call({}", function.name()).expect("strings take all");
                    for operand in operands {
                        write!(out, ", {operand}").expect("strings take all");
                    }
                    out.push(')');
                }
                ExprNode::Convert(at) => write!(out, "convert({at})").expect("strings take all"),
            }
            write!(out, ": {dtype}").expect("strings take all");
        });
        write!(out, " root {}", self.root).expect("strings take all");
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let nodes = parser.list(|parser| {
            let word = parser.any_word("node of an expression")?;
            parser.sign("(")?;
            let node = match word.as_str() {
                "operand" => ExprNode::Operand(u32::read(parser)? as usize),
                "constant" => ExprNode::Constant(Scalar::read(parser)?),
                "index" => ExprNode::Index(systole_compiler::kernel::Axis(u32::read(parser)?)),
                "convert" => ExprNode::Convert(u32::read(parser)? as usize),
                "call" => {
                    let name = parser.any_word("function")?;
                    let function = ScalarFn::from_name(&name).ok_or_else(|| {
                        parser.wrong_before(format!("there is no function `{name}`"))
                    })?;
                    let mut operands = SmallVec::new();
                    while parser.accept_sign(",") {
                        operands.push(u32::read(parser)? as usize);
                    }
                    ExprNode::Call(function, operands)
                }
                _ => return Err(parser.wrong_before(format!("there is no node `{word}`"))),
            };
            parser.sign(")")?;
            parser.sign(":")?;
            Ok((node, DType::read(parser)?))
        })?;
        parser.word("root")?;
        let root = u32::read(parser)? as usize;
        Ok(Box::new(Expr { nodes, root }))
    }
}

/// The kernel's own text in quotes.
impl Field for Box<Kernel> {
    fn write(&self, out: &mut String, _names: &Names) {
        out.push_str(&quote(&self.to_string()));
    }
    fn read(parser: &mut Parser<'_>) -> Result<Self, Failed> {
        let text = parser.text()?;
        systole_compiler::kernel::parse(&text).map(Box::new).map_err(|problems| {
            let first = problems.0.first().map(|problem| problem.message.clone());
            parser.wrong_before(format!("in the kernel: {}", first.unwrap_or_default()))
        })
    }
}

impl Parser<'_> {
    /// A variable of the kernel.
    pub(super) fn var(&mut self) -> Result<Var, Failed> {
        let at = self.reference('%', "variable", |scope| &scope.vars)?;
        u16::try_from(at).map(Var).map_err(|_| self.wrong_before("too many variables"))
    }

    fn at_number(&self) -> bool {
        matches!(self.peek(), TokenKind::Number(_))
    }
}
