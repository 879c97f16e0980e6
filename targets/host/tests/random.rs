//! Random programs on the host give what the reference gives. Transcendental functions are left out: what follows from
//! their last bits may be anything.

mod common;

use arbitrary::Unstructured;
use systole_compiler::generate::{self, Options};
use systole_compiler::op::Op;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::TensorType;

#[expect(clippy::wildcard_enum_match_arm, reason = "all other ops of these families")]
fn is_wanted(op: &Op, _operands: &[TensorType]) -> bool {
    use ScalarFn as F;
    match op {
        Op::Map(map) => !matches!(
            map.function,
            F::Exp
                | F::Exp2
                | F::Expm1
                | F::Log
                | F::Log1p
                | F::Sin
                | F::Cos
                | F::Tan
                | F::Asin
                | F::Acos
                | F::Atan
                | F::Sinh
                | F::Cosh
                | F::Tanh
                | F::Asinh
                | F::Acosh
                | F::Atanh
                | F::Erf
                | F::Sigmoid
                | F::Pow
                | F::Atan2
        ),
        op => {
            op.kind() != systole_compiler::op::Kind::Collective
                && op.kind() != systole_compiler::op::Kind::Composite
        }
    }
}

#[test]
fn random_programs_agree() {
    let count =
        std::env::var("COUNT").ok().map_or(60, |count| count.parse().expect("COUNT is a number"));
    let first =
        std::env::var("FIRST").ok().map_or(0, |first| first.parse().expect("FIRST is a number"));
    for seed in first..first + count {
        let mut state = (seed + 1u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let data: Vec<u8> = (0..4096)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 32) as u8
            })
            .collect();
        let options = Options { nodes: 5, depth: 1, accept: &is_wanted };
        let Ok(graph) = generate::graph(&mut Unstructured::new(&data), &options) else { continue };
        common::check_graph(&graph, &[None]);
    }
}
