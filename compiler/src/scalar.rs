//! The scalar table: every elementwise function, once. Name, operands, meaning, and how it expands into simpler ones.
//!
//! Values are those of libm, so they are the same on every machine. A function on a narrow float computes in f32 and
//! rounds once; on a narrow integer it computes in 64 bits and wraps. Integer division by zero gives zero, and shifts
//! by the width or more give zero (or the sign), so that no input can trap.

use crate::expr::{Expr, ExprId};
use crate::tensor::Values;
use crate::types::{Class, DType};

/// How the result's type follows from the operands' types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// All operands and the result have one numeric type.
    Number,
    /// All operands and the result have one floating-point type.
    Float,
    /// All operands and the result have one integer type, or are bool.
    Bits,
    /// One floating-point operand; the result is bool.
    Predicate,
    /// Two operands of one type; the result is bool.
    Compare,
    /// A bool, then two operands of one type, which is the result's.
    Select,
}

/// The meaning of a function in each arithmetic; `None` where the rule does not admit it.
struct Meaning {
    f32: Option<Function<f32>>,
    f64: Option<Function<f64>>,
    int: Option<Function<i64>>,
    uint: Option<Function<u64>>,
    bool: Option<Function<bool>>,
}

enum Function<T> {
    One(fn(T) -> T),
    Two(fn(T, T) -> T),
    Test(fn(T) -> bool),
    Relation(fn(T, T) -> bool),
}

/// A Rust type in which decoded elements are computed with.
pub trait Arithmetic: Copy {
    /// The meaning of a function of two operands and a result of this type, where it has one.
    fn pair(function: ScalarFn) -> Option<fn(Self, Self) -> Self>;
}

macro_rules! arithmetics {
    ($($rust:ty: $field:ident),*) => {
        $(impl Arithmetic for $rust {
            fn pair(function: ScalarFn) -> Option<fn(Self, Self) -> Self> {
                match function.meaning().$field? {
                    Function::Two(pair) => Some(pair),
                    Function::One(_) | Function::Test(_) | Function::Relation(_) => None,
                }
            }
        })*
    };
}
arithmetics! { f32: f32, f64: f64, i64: int, u64: uint, bool: bool }

type Expansion = fn(&mut Expr, &[ExprId], DType) -> ExprId;

/// What a change of one operand is worth, by the worth of the result: the expression, the operands, the worth of the
/// result, the element type, and which operand. All are of one floating-point type, but for the condition of `select`.
pub type Pullback = fn(&mut Expr, &[ExprId], ExprId, DType, usize) -> ExprId;

macro_rules! scalars {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal ($arity:literal, $rule:ident)
        { $($class:ident: $form:ident($function:expr)),* $(,)? } $(expand $expansion:expr)? $(, derivative $derivative:expr)?;)*) => {
        /// An elementwise function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ScalarFn { $($(#[doc = $doc])+ $variant,)* }

        impl ScalarFn {
            /// Every function with its documentation.
            pub const CATALOG: &[(ScalarFn, &str)] = &[$((ScalarFn::$variant, concat!($($doc, "\n"),+)),)*];

            /// How the function is written.
            pub fn name(self) -> &'static str {
                match self { $(ScalarFn::$variant => $name,)* }
            }

            /// How many operands it takes.
            pub fn arity(self) -> usize {
                match self { $(ScalarFn::$variant => $arity,)* }
            }

            /// How its result's type follows from its operands'.
            pub fn rule(self) -> Rule {
                match self { $(ScalarFn::$variant => Rule::$rule,)* }
            }

            /// How it is written in simpler functions, for targets without it.
            pub fn expansion(self) -> Option<Expansion> {
                match self { $(ScalarFn::$variant => { let found: &[Expansion] = &[$($expansion)?]; found.first().copied() })* }
            }

            /// Its derivative; `None` where it is zero almost everywhere, or the result is no number.
            pub fn derivative(self) -> Option<Pullback> {
                match self { $(ScalarFn::$variant => { let found: &[Pullback] = &[$($derivative)?]; found.first().copied() })* }
            }

            fn meaning(self) -> Meaning {
                match self {
                    $(ScalarFn::$variant => {
                        #[allow(unused_mut, reason = "select has one meaning for all")]
                        let mut meaning = Meaning { f32: None, f64: None, int: None, uint: None, bool: None };
                        $(meaning.$class = Some(Function::$form($function));)*
                        meaning
                    })*
                }
            }
        }
    };
}

scalars! {
    /// Changes the sign.
    Neg = "neg" (1, Number) { f32: One(|x| -x), f64: One(|x| -x), int: One(i64::wrapping_neg), uint: One(u64::wrapping_neg) }, derivative |e, _, g, _, _| e.call(ScalarFn::Neg, &[g]);
    /// The magnitude.
    Abs = "abs" (1, Number) { f32: One(f32::abs), f64: One(f64::abs), int: One(i64::wrapping_abs), uint: One(|x| x) }, derivative |e, x, g, d, _| {
        let zero = e.constant_of(d, 0.0);
        let below = e.call(ScalarFn::Lt, &[x[0], zero]);
        let minus = e.call(ScalarFn::Neg, &[g]);
        e.call(ScalarFn::Select, &[below, minus, g])
    };
    /// −1, 0 or 1 with the sign of the operand; NaN stays NaN.
    Sign = "sign" (1, Number) {
        f32: One(|x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }),
        f64: One(|x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }),
        int: One(i64::signum), uint: One(|x| u64::from(x > 0)),
    } expand |e, x, d| {
        let zero = e.constant_of(d, 0.0);
        let one = e.constant_of(d, 1.0);
        let minus = e.call(ScalarFn::Neg, &[one]);
        let less = e.call(ScalarFn::Lt, &[x[0], zero]);
        let greater = e.call(ScalarFn::Gt, &[x[0], zero]);
        let low = e.call(ScalarFn::Select, &[less, minus, x[0]]);
        e.call(ScalarFn::Select, &[greater, one, low])
    };
    /// The largest integer not above.
    Floor = "floor" (1, Float) { f32: One(libm::floorf), f64: One(libm::floor) };
    /// The smallest integer not below.
    Ceil = "ceil" (1, Float) { f32: One(libm::ceilf), f64: One(libm::ceil) };
    /// The nearest integer, ties to even.
    Round = "round" (1, Float) { f32: One(libm::rintf), f64: One(libm::rint) };
    /// The integer part.
    Trunc = "trunc" (1, Float) { f32: One(libm::truncf), f64: One(libm::trunc) };
    /// The square root.
    Sqrt = "sqrt" (1, Float) { f32: One(libm::sqrtf), f64: One(libm::sqrt) }, derivative |e, x, g, d, _| {
        let root = e.call(ScalarFn::Sqrt, x);
        let half = scaled(e, g, 0.5, d);
        e.call(ScalarFn::Div, &[half, root])
    };
    /// One over the square root.
    Rsqrt = "rsqrt" (1, Float) { f32: One(|x| 1.0 / libm::sqrtf(x)), f64: One(|x| 1.0 / libm::sqrt(x)) } expand |e, x, d| {
        let one = e.constant_of(d, 1.0);
        let root = e.call(ScalarFn::Sqrt, x);
        e.call(ScalarFn::Div, &[one, root])
    }, derivative |e, x, g, d, _| {
        let y = e.call(ScalarFn::Rsqrt, x);
        let part = scaled(e, g, -0.5, d);
        let part = e.call(ScalarFn::Mul, &[part, y]);
        e.call(ScalarFn::Div, &[part, x[0]])
    };
    /// One over the operand.
    Reciprocal = "reciprocal" (1, Float) { f32: One(|x| 1.0 / x), f64: One(|x| 1.0 / x) } expand |e, x, d| {
        let one = e.constant_of(d, 1.0);
        e.call(ScalarFn::Div, &[one, x[0]])
    }, derivative |e, x, g, _, _| {
        let square = e.call(ScalarFn::Mul, &[x[0], x[0]]);
        let part = e.call(ScalarFn::Div, &[g, square]);
        e.call(ScalarFn::Neg, &[part])
    };
    /// e to the operand.
    Exp = "exp" (1, Float) { f32: One(libm::expf), f64: One(libm::exp) }, derivative |e, x, g, _, _| times(e, x, g, ScalarFn::Exp);
    /// 2 to the operand.
    Exp2 = "exp2" (1, Float) { f32: One(libm::exp2f), f64: One(libm::exp2) }, derivative |e, x, g, d, _| {
        let part = times(e, x, g, ScalarFn::Exp2);
        scaled(e, part, std::f64::consts::LN_2, d)
    };
    /// e to the operand, minus one, exact near zero.
    Expm1 = "expm1" (1, Float) { f32: One(libm::expm1f), f64: One(libm::expm1) }, derivative |e, x, g, _, _| times(e, x, g, ScalarFn::Exp);
    /// The natural logarithm.
    Log = "log" (1, Float) { f32: One(libm::logf), f64: One(libm::log) }, derivative |e, x, g, _, _| e.call(ScalarFn::Div, &[g, x[0]]);
    /// The natural logarithm of one plus the operand, exact near zero.
    Log1p = "log1p" (1, Float) { f32: One(libm::log1pf), f64: One(libm::log1p) }, derivative |e, x, g, d, _| {
        let sum = shifted(e, x[0], 1.0, d);
        e.call(ScalarFn::Div, &[g, sum])
    };
    /// The sine.
    Sin = "sin" (1, Float) { f32: One(libm::sinf), f64: One(libm::sin) }, derivative |e, x, g, _, _| times(e, x, g, ScalarFn::Cos);
    /// The cosine.
    Cos = "cos" (1, Float) { f32: One(libm::cosf), f64: One(libm::cos) }, derivative |e, x, g, _, _| {
        let part = times(e, x, g, ScalarFn::Sin);
        e.call(ScalarFn::Neg, &[part])
    };
    /// The tangent.
    Tan = "tan" (1, Float) { f32: One(libm::tanf), f64: One(libm::tan) }, derivative |e, x, g, _, _| {
        let y = e.call(ScalarFn::Cos, x);
        let square = e.call(ScalarFn::Mul, &[y, y]);
        e.call(ScalarFn::Div, &[g, square])
    };
    /// The inverse sine.
    Asin = "asin" (1, Float) { f32: One(libm::asinf), f64: One(libm::asin) }, derivative |e, x, g, d, _| {
        let rest = one_less_square(e, x[0], d);
        let root = e.call(ScalarFn::Sqrt, &[rest]);
        e.call(ScalarFn::Div, &[g, root])
    };
    /// The inverse cosine.
    Acos = "acos" (1, Float) { f32: One(libm::acosf), f64: One(libm::acos) }, derivative |e, x, g, d, _| {
        let rest = one_less_square(e, x[0], d);
        let root = e.call(ScalarFn::Sqrt, &[rest]);
        let part = e.call(ScalarFn::Div, &[g, root]);
        e.call(ScalarFn::Neg, &[part])
    };
    /// The inverse tangent.
    Atan = "atan" (1, Float) { f32: One(libm::atanf), f64: One(libm::atan) }, derivative |e, x, g, d, _| {
        let sum = square_and(e, x[0], 1.0, d);
        e.call(ScalarFn::Div, &[g, sum])
    };
    /// The hyperbolic sine.
    Sinh = "sinh" (1, Float) { f32: One(libm::sinhf), f64: One(libm::sinh) }, derivative |e, x, g, _, _| times(e, x, g, ScalarFn::Cosh);
    /// The hyperbolic cosine.
    Cosh = "cosh" (1, Float) { f32: One(libm::coshf), f64: One(libm::cosh) }, derivative |e, x, g, _, _| times(e, x, g, ScalarFn::Sinh);
    /// The hyperbolic tangent.
    Tanh = "tanh" (1, Float) { f32: One(libm::tanhf), f64: One(libm::tanh) }, derivative |e, x, g, d, _| {
        let y = e.call(ScalarFn::Tanh, x);
        let rest = one_less_square(e, y, d);
        e.call(ScalarFn::Mul, &[g, rest])
    };
    /// The inverse hyperbolic sine.
    Asinh = "asinh" (1, Float) { f32: One(libm::asinhf), f64: One(libm::asinh) }, derivative |e, x, g, d, _| {
        let sum = square_and(e, x[0], 1.0, d);
        let root = e.call(ScalarFn::Sqrt, &[sum]);
        e.call(ScalarFn::Div, &[g, root])
    };
    /// The inverse hyperbolic cosine.
    Acosh = "acosh" (1, Float) { f32: One(libm::acoshf), f64: One(libm::acosh) }, derivative |e, x, g, d, _| {
        let rest = square_and(e, x[0], -1.0, d);
        let root = e.call(ScalarFn::Sqrt, &[rest]);
        e.call(ScalarFn::Div, &[g, root])
    };
    /// The inverse hyperbolic tangent.
    Atanh = "atanh" (1, Float) { f32: One(libm::atanhf), f64: One(libm::atanh) }, derivative |e, x, g, d, _| {
        let rest = one_less_square(e, x[0], d);
        e.call(ScalarFn::Div, &[g, rest])
    };
    /// The error function.
    Erf = "erf" (1, Float) { f32: One(libm::erff), f64: One(libm::erf) }, derivative |e, x, g, d, _| {
        let square = e.call(ScalarFn::Mul, &[x[0], x[0]]);
        let minus = e.call(ScalarFn::Neg, &[square]);
        let part = times(e, &[minus], g, ScalarFn::Exp);
        scaled(e, part, std::f64::consts::FRAC_2_SQRT_PI, d)
    };
    /// 1 / (1 + e^−x).
    Sigmoid = "sigmoid" (1, Float) {
        f32: One(|x| 1.0 / (1.0 + libm::expf(-x))), f64: One(|x| 1.0 / (1.0 + libm::exp(-x))),
    } expand |e, x, d| {
        let one = e.constant_of(d, 1.0);
        let minus = e.call(ScalarFn::Neg, x);
        let power = e.call(ScalarFn::Exp, &[minus]);
        let sum = e.call(ScalarFn::Add, &[one, power]);
        e.call(ScalarFn::Div, &[one, sum])
    }, derivative |e, x, g, d, _| {
        let y = e.call(ScalarFn::Sigmoid, x);
        let one = e.constant_of(d, 1.0);
        let rest = e.call(ScalarFn::Sub, &[one, y]);
        let part = e.call(ScalarFn::Mul, &[g, y]);
        e.call(ScalarFn::Mul, &[part, rest])
    };
    /// Whether the operand is not a number.
    IsNan = "is-nan" (1, Predicate) { f32: Test(f32::is_nan), f64: Test(f64::is_nan) } expand |e, x, _| e.call(ScalarFn::Ne, &[x[0], x[0]]);
    /// Whether the operand is an infinity.
    IsInf = "is-inf" (1, Predicate) { f32: Test(f32::is_infinite), f64: Test(f64::is_infinite) } expand |e, x, d| {
        let infinity = e.constant_of(d, f64::INFINITY);
        let magnitude = e.call(ScalarFn::Abs, x);
        e.call(ScalarFn::Eq, &[magnitude, infinity])
    };
    /// Every bit inverted; of bool, the other value.
    Not = "not" (1, Bits) { int: One(|x| !x), uint: One(|x| !x), bool: One(|x| !x) };
    /// The sum.
    Add = "add" (2, Number) { f32: Two(|x, y| x + y), f64: Two(|x, y| x + y), int: Two(i64::wrapping_add), uint: Two(u64::wrapping_add) }, derivative |_, _, g, _, _| g;
    /// The difference.
    Sub = "sub" (2, Number) { f32: Two(|x, y| x - y), f64: Two(|x, y| x - y), int: Two(i64::wrapping_sub), uint: Two(u64::wrapping_sub) }, derivative |e, _, g, _, i| if i == 0 { g } else { e.call(ScalarFn::Neg, &[g]) };
    /// The product.
    Mul = "mul" (2, Number) { f32: Two(|x, y| x * y), f64: Two(|x, y| x * y), int: Two(i64::wrapping_mul), uint: Two(u64::wrapping_mul) }, derivative |e, x, g, _, i| e.call(ScalarFn::Mul, &[g, x[1 - i]]);
    /// The quotient; integers truncate, and division by zero gives zero.
    Div = "div" (2, Number) {
        f32: Two(|x, y| x / y), f64: Two(|x, y| x / y),
        int: Two(|x, y| if y == 0 { 0 } else { x.wrapping_div(y) }), uint: Two(|x, y| x.checked_div(y).unwrap_or(0)),
    }, derivative |e, x, g, _, i| {
        let part = e.call(ScalarFn::Div, &[g, x[1]]);
        if i == 0 {
            return part;
        }
        let ratio = e.call(ScalarFn::Div, &[x[0], x[1]]);
        let part = e.call(ScalarFn::Mul, &[part, ratio]);
        e.call(ScalarFn::Neg, &[part])
    };
    /// The remainder with the sign of the dividend; of integers by zero, zero.
    Rem = "rem" (2, Number) {
        f32: Two(libm::fmodf), f64: Two(libm::fmod),
        int: Two(|x, y| if y == 0 { 0 } else { x.wrapping_rem(y) }), uint: Two(|x, y| x.checked_rem(y).unwrap_or(0)),
    }, derivative |e, x, g, _, i| remainder(e, x, g, i, ScalarFn::Trunc);
    /// The remainder with the sign of the divisor; of integers by zero, zero.
    Mod = "mod" (2, Number) {
        f32: Two(|x, y| { let r = libm::fmodf(x, y); if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r } }),
        f64: Two(|x, y| { let r = libm::fmod(x, y); if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r } }),
        int: Two(|x, y| {
            if y == 0 { return 0; }
            let r = x.wrapping_rem(y);
            if r != 0 && (r < 0) != (y < 0) { r.wrapping_add(y) } else { r }
        }),
        uint: Two(|x, y| x.checked_rem(y).unwrap_or(0)),
    } expand |e, x, d| {
        let zero = e.constant_of(d, 0.0);
        let r = e.call(ScalarFn::Rem, x);
        let inexact = e.call(ScalarFn::Ne, &[r, zero]);
        let negative = e.call(ScalarFn::Lt, &[r, zero]);
        let below = e.call(ScalarFn::Lt, &[x[1], zero]);
        let differ = e.call(ScalarFn::Ne, &[negative, below]);
        let wrong = e.call(ScalarFn::And, &[inexact, differ]);
        let right = e.call(ScalarFn::Add, &[r, x[1]]);
        e.call(ScalarFn::Select, &[wrong, right, r])
    }, derivative |e, x, g, _, i| remainder(e, x, g, i, ScalarFn::Floor);
    /// The first operand to the power of the second; of integers, a negative exponent truncates.
    Pow = "pow" (2, Number) {
        f32: Two(libm::powf), f64: Two(libm::pow), int: Two(integer_power),
        uint: Two(|x, y| integer_power(x as i64, y.min(i64::MAX as u64) as i64) as u64),
    }, derivative |e, x, g, d, i| {
        let zero = e.constant_of(d, 0.0);
        if i == 0 {
            let less = shifted(e, x[1], -1.0, d);
            let power = e.call(ScalarFn::Pow, &[x[0], less]);
            let part = e.call(ScalarFn::Mul, &[x[1], power]);
            let part = e.call(ScalarFn::Mul, &[g, part]);
            let flat = e.call(ScalarFn::Eq, &[x[1], zero]);
            return e.call(ScalarFn::Select, &[flat, zero, part]);
        }
        let power = e.call(ScalarFn::Pow, &[x[0], x[1]]);
        let part = times(e, &[x[0]], power, ScalarFn::Log);
        let part = e.call(ScalarFn::Mul, &[g, part]);
        let above = e.call(ScalarFn::Gt, &[x[0], zero]);
        e.call(ScalarFn::Select, &[above, part, zero])
    };
    /// The angle of the point (second, first).
    Atan2 = "atan2" (2, Float) { f32: Two(libm::atan2f), f64: Two(libm::atan2) }, derivative |e, x, g, _, i| {
        let squares = [0, 1].map(|k| e.call(ScalarFn::Mul, &[x[k], x[k]]));
        let sum = e.call(ScalarFn::Add, &squares);
        let ratio = e.call(ScalarFn::Div, &[x[1 - i], sum]);
        let part = e.call(ScalarFn::Mul, &[g, ratio]);
        if i == 0 { part } else { e.call(ScalarFn::Neg, &[part]) }
    };
    /// The smaller; NaN where either is NaN.
    Min = "min" (2, Number) {
        f32: Two(|x, y| if x.is_nan() || y.is_nan() { f32::NAN } else if y < x { y } else { x }),
        f64: Two(|x, y| if x.is_nan() || y.is_nan() { f64::NAN } else if y < x { y } else { x }),
        int: Two(i64::min), uint: Two(u64::min),
    }, derivative |e, x, g, d, i| extreme(e, x, g, d, i, ScalarFn::Lt);
    /// The larger; NaN where either is NaN.
    Max = "max" (2, Number) {
        f32: Two(|x, y| if x.is_nan() || y.is_nan() { f32::NAN } else if y > x { y } else { x }),
        f64: Two(|x, y| if x.is_nan() || y.is_nan() { f64::NAN } else if y > x { y } else { x }),
        int: Two(i64::max), uint: Two(u64::max),
    }, derivative |e, x, g, d, i| extreme(e, x, g, d, i, ScalarFn::Gt);
    /// Both bits; of bool, both.
    And = "and" (2, Bits) { int: Two(|x, y| x & y), uint: Two(|x, y| x & y), bool: Two(|x, y| x & y) };
    /// Either bit; of bool, either.
    Or = "or" (2, Bits) { int: Two(|x, y| x | y), uint: Two(|x, y| x | y), bool: Two(|x, y| x | y) };
    /// Bits that differ; of bool, whether they differ.
    Xor = "xor" (2, Bits) { int: Two(|x, y| x ^ y), uint: Two(|x, y| x ^ y), bool: Two(|x, y| x ^ y) };
    /// The first operand's bits moved up by the second; zero from 64 on.
    Shl = "shl" (2, Bits) {
        int: Two(|x, y| if (0..64).contains(&y) { x << y } else { 0 }), uint: Two(|x, y| if y < 64 { x << y } else { 0 }),
    };
    /// The first operand's bits moved down by the second, keeping the sign.
    Shr = "shr" (2, Bits) {
        int: Two(|x, y| if (0..64).contains(&y) { x >> y } else { x >> 63 }), uint: Two(|x, y| if y < 64 { x >> y } else { 0 }),
    };
    /// Whether both are equal.
    Eq = "eq" (2, Compare) { f32: Relation(|x, y| x == y), f64: Relation(|x, y| x == y), int: Relation(|x, y| x == y), uint: Relation(|x, y| x == y), bool: Relation(|x, y| x == y) };
    /// Whether they differ.
    Ne = "ne" (2, Compare) { f32: Relation(|x, y| x != y), f64: Relation(|x, y| x != y), int: Relation(|x, y| x != y), uint: Relation(|x, y| x != y), bool: Relation(|x, y| x != y) };
    /// Whether the first is less.
    Lt = "lt" (2, Compare) { f32: Relation(|x, y| x < y), f64: Relation(|x, y| x < y), int: Relation(|x, y| x < y), uint: Relation(|x, y| x < y), bool: Relation(|x, y| !x & y) };
    /// Whether the first is less or equal.
    Le = "le" (2, Compare) { f32: Relation(|x, y| x <= y), f64: Relation(|x, y| x <= y), int: Relation(|x, y| x <= y), uint: Relation(|x, y| x <= y), bool: Relation(|x, y| !x | y) };
    /// Whether the first is greater.
    Gt = "gt" (2, Compare) { f32: Relation(|x, y| x > y), f64: Relation(|x, y| x > y), int: Relation(|x, y| x > y), uint: Relation(|x, y| x > y), bool: Relation(|x, y| x & !y) };
    /// Whether the first is greater or equal.
    Ge = "ge" (2, Compare) { f32: Relation(|x, y| x >= y), f64: Relation(|x, y| x >= y), int: Relation(|x, y| x >= y), uint: Relation(|x, y| x >= y), bool: Relation(|x, y| x | !y) };
    /// The second operand where the first is true, else the third.
    Select = "select" (3, Select) {}, derivative |e, x, g, d, i| {
        let zero = e.constant_of(d, 0.0);
        let [yes, no] = if i == 1 { [g, zero] } else { [zero, g] };
        e.call(ScalarFn::Select, &[x[0], yes, no])
    };
}

impl ScalarFn {
    /// The function of that name.
    pub fn from_name(name: &str) -> Option<ScalarFn> {
        ScalarFn::CATALOG
            .iter()
            .map(|&(function, _)| function)
            .find(|function| function.name() == name)
    }

    /// The result's type for operands of those types, or what does not fit.
    pub fn result(self, operands: &[DType]) -> Result<DType, String> {
        let name = self.name();
        if operands.len() != self.arity() {
            return Err(format!("{name} takes {} operands, not {}", self.arity(), operands.len()));
        }
        let same = |types: &[DType]| match types.iter().find(|&&dtype| dtype != types[0]) {
            Some(other) => {
                Err(format!("{name} takes operands of one type, not {} and {other}", types[0]))
            }
            None => Ok(types[0]),
        };
        let (first, wanted, ok) = match self.rule() {
            Rule::Number => {
                let first = same(operands)?;
                (first, "a number", first.class() != Class::Bool)
            }
            Rule::Float => {
                let first = same(operands)?;
                (first, "a floating-point number", first.is_float())
            }
            Rule::Bits => {
                let first = same(operands)?;
                let shift = matches!(self, ScalarFn::Shl | ScalarFn::Shr);
                (first, "an integer", first.is_integer() || (first == DType::Bool && !shift))
            }
            Rule::Predicate => (operands[0], "a floating-point number", operands[0].is_float()),
            Rule::Compare => (same(operands)?, "", true),
            Rule::Select => {
                same(&operands[1..])?;
                (operands[0], "bool first", operands[0] == DType::Bool)
            }
        };
        if !ok {
            return Err(format!("{name} takes {wanted}, not {first}"));
        }
        Ok(match self.rule() {
            Rule::Number | Rule::Float | Rule::Bits => first,
            Rule::Predicate | Rule::Compare => DType::Bool,
            Rule::Select => operands[1],
        })
    }

    /// The values, element by element, of operands of equal length and fitting types. The result is in the wide
    /// arithmetic: the caller rounds it to the result's type.
    pub fn evaluate(self, operands: &[&Values]) -> Values {
        fn apply<T: Copy>(
            function: Option<Function<T>>,
            x: &[T],
            y: Option<&[T]>,
            wrap: fn(Vec<T>) -> Values,
        ) -> Values {
            let pairs = || x.iter().zip(y.expect("arity was checked"));
            match function.expect("the rule admits only arithmetics with a meaning") {
                Function::One(f) => wrap(x.iter().map(|&x| f(x)).collect()),
                Function::Two(f) => wrap(pairs().map(|(&x, &y)| f(x, y)).collect()),
                Function::Test(f) => Values::Bool(x.iter().map(|&x| f(x)).collect()),
                Function::Relation(f) => Values::Bool(pairs().map(|(&x, &y)| f(x, y)).collect()),
            }
        }
        fn choose<T: Copy>(condition: &[bool], x: &[T], y: &[T]) -> Vec<T> {
            condition
                .iter()
                .zip(x.iter().zip(y))
                .map(|(&c, (&x, &y))| if c { x } else { y })
                .collect()
        }
        if self == ScalarFn::Select {
            return match (operands[0], operands[1], operands[2]) {
                (Values::Bool(c), Values::Bool(x), Values::Bool(y)) => {
                    Values::Bool(choose(c, x, y))
                }
                (Values::Bool(c), Values::Int(x), Values::Int(y)) => Values::Int(choose(c, x, y)),
                (Values::Bool(c), Values::Uint(x), Values::Uint(y)) => {
                    Values::Uint(choose(c, x, y))
                }
                (Values::Bool(c), Values::F32(x), Values::F32(y)) => Values::F32(choose(c, x, y)),
                (Values::Bool(c), Values::F64(x), Values::F64(y)) => Values::F64(choose(c, x, y)),
                (condition, _, _) => unreachable!("select's types were checked, not {condition:?}"),
            };
        }
        let meaning = self.meaning();
        macro_rules! dispatch {
            ($($class:ident => $field:ident,)*) => {
                match operands[0] {
                    $(Values::$class(x) => {
                        let y = operands.get(1).map(|second| match second {
                            Values::$class(y) => y.as_slice(),
                            other => unreachable!("operands' types were checked, not {other:?}"),
                        });
                        apply(meaning.$field, x, y, Values::$class)
                    })*
                }
            };
        }
        dispatch! { Bool => bool, Int => int, Uint => uint, F32 => f32, F64 => f64, }
    }
}

/// Runs the same code for every arithmetic, on the vectors of two lists of values of one arithmetic.
macro_rules! by_arithmetic {
    ($x:expr, $y:expr, |$a:ident, $b:ident| $body:expr) => {
        match ($x, $y) {
            (Values::Bool($a), Values::Bool($b)) => Values::Bool($body),
            (Values::Int($a), Values::Int($b)) => Values::Int($body),
            (Values::Uint($a), Values::Uint($b)) => Values::Uint($body),
            (Values::F32($a), Values::F32($b)) => Values::F32($body),
            (Values::F64($a), Values::F64($b)) => Values::F64($body),
            (_, _) => unreachable!("both are of one arithmetic"),
        }
    };
}
pub(crate) use by_arithmetic;

fn integer_power(base: i64, exponent: i64) -> i64 {
    match (base, exponent) {
        (1, _) => 1,
        (-1, negative) if negative < 0 => {
            if negative % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, negative) if negative < 0 => 0,
        (_, _) => base.wrapping_pow(u32::try_from(exponent).unwrap_or(u32::MAX)),
    }
}

/// The worth of a result times a function of its operand.
fn times(e: &mut Expr, x: &[ExprId], g: ExprId, function: ScalarFn) -> ExprId {
    let y = e.call(function, x);
    e.call(ScalarFn::Mul, &[g, y])
}

/// A value times a number.
fn scaled(e: &mut Expr, x: ExprId, factor: f64, dtype: DType) -> ExprId {
    let factor = e.constant_of(dtype, factor);
    e.call(ScalarFn::Mul, &[x, factor])
}

/// A value plus a number.
fn shifted(e: &mut Expr, x: ExprId, by: f64, dtype: DType) -> ExprId {
    let by = e.constant_of(dtype, by);
    e.call(ScalarFn::Add, &[x, by])
}

fn square_and(e: &mut Expr, x: ExprId, by: f64, dtype: DType) -> ExprId {
    let square = e.call(ScalarFn::Mul, &[x, x]);
    shifted(e, square, by, dtype)
}

fn one_less_square(e: &mut Expr, x: ExprId, dtype: DType) -> ExprId {
    let one = e.constant_of(dtype, 1.0);
    let square = e.call(ScalarFn::Mul, &[x, x]);
    e.call(ScalarFn::Sub, &[one, square])
}

/// The derivative of a remainder: the quotient, rounded by `round`, is constant.
fn remainder(e: &mut Expr, x: &[ExprId], g: ExprId, operand: usize, round: ScalarFn) -> ExprId {
    if operand == 0 {
        return g;
    }
    let quotient = e.call(ScalarFn::Div, x);
    let whole = e.call(round, &[quotient]);
    let part = e.call(ScalarFn::Mul, &[g, whole]);
    e.call(ScalarFn::Neg, &[part])
}

/// The derivative of a minimum or maximum: of the operand that wins; equal ones share it.
fn extreme(
    e: &mut Expr,
    x: &[ExprId],
    g: ExprId,
    dtype: DType,
    operand: usize,
    wins: ScalarFn,
) -> ExprId {
    let zero = e.constant_of(dtype, 0.0);
    let half = scaled(e, g, 0.5, dtype);
    let won = e.call(wins, &[x[operand], x[1 - operand]]);
    let drawn = e.call(ScalarFn::Eq, &[x[0], x[1]]);
    let rest = e.call(ScalarFn::Select, &[drawn, half, zero]);
    e.call(ScalarFn::Select, &[won, g, rest])
}
