//! The functions of the engines in f32, those of libm.

use crate::isa::{Alu, Function};
use systole_compiler::kernel::Combine;

/// A function of ScalarE.
pub(super) fn function(which: Function) -> fn(f32) -> f32 {
    match which {
        Function::Copy => |x| x,
        Function::Exp => libm::expf,
        Function::Log => libm::logf,
        Function::Sqrt => libm::sqrtf,
        Function::Rsqrt => |x| 1.0 / libm::sqrtf(x),
        Function::Reciprocal => |x| 1.0 / x,
        Function::Square => |x| x * x,
        Function::Abs => f32::abs,
        Function::Sign => |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        },
        Function::Relu => |x| if x.is_nan() || x > 0.0 { x } else { 0.0 },
        Function::Sigmoid => sigmoid,
        Function::Tanh => libm::tanhf,
        Function::Erf => libm::erff,
        Function::Gelu => |x| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
        Function::GeluTanh => |x| {
            // The square root of 2 / π.
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + libm::tanhf(inner))
        },
        Function::Silu => |x| x * sigmoid(x),
        Function::Softplus => |x| libm::fmaxf(x, 0.0) + libm::log1pf(libm::expf(-x.abs())),
        Function::Sin => libm::sinf,
        Function::Cos => libm::cosf,
        Function::Arctan => libm::atanf,
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + libm::expf(-x))
}

/// An elementwise function of two operands; tests give 1 or 0.
pub(super) fn alu(which: Alu) -> fn(f32, f32) -> f32 {
    fn truth(test: bool) -> f32 {
        f32::from(u8::from(test))
    }
    match which {
        Alu::Add => |x, y| x + y,
        Alu::Subtract => |x, y| x - y,
        Alu::Multiply => |x, y| x * y,
        Alu::Divide => |x, y| x / y,
        Alu::Max => max,
        Alu::Min => min,
        Alu::Power => libm::powf,
        Alu::Equal => |x, y| truth(x == y),
        Alu::NotEqual => |x, y| truth(x != y),
        Alu::Less => |x, y| truth(x < y),
        Alu::LessEqual => |x, y| truth(x <= y),
        Alu::Greater => |x, y| truth(x > y),
        Alu::GreaterEqual => |x, y| truth(x >= y),
        Alu::And => |x, y| truth(x != 0.0 && y != 0.0),
        Alu::Or => |x, y| truth(x != 0.0 || y != 0.0),
        Alu::Xor => |x, y| truth((x != 0.0) != (y != 0.0)),
        Alu::AbsMax => |x, y| max(x.abs(), y.abs()),
        Alu::Bypass => |x, _| x,
    }
}

/// How two values join.
pub(super) fn combine(how: Combine) -> fn(f32, f32) -> f32 {
    match how {
        Combine::Sum => |x, y| x + y,
        Combine::Product => |x, y| x * y,
        Combine::Min => min,
        Combine::Max => max,
        Combine::And => alu(Alu::And),
        Combine::Or => alu(Alu::Or),
    }
}

fn max(x: f32, y: f32) -> f32 {
    if x.is_nan() || y.is_nan() {
        f32::NAN
    } else if y > x {
        y
    } else {
        x
    }
}

fn min(x: f32, y: f32) -> f32 {
    if x.is_nan() || y.is_nan() {
        f32::NAN
    } else if y < x {
        y
    } else {
        x
    }
}
