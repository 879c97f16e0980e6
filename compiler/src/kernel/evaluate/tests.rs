//! The evaluator against plain loops.

use super::super::{Affine, Axis, Dims, Kernel, Operand, Role, Stmt, TileId, TileOp};
use crate::evaluate::Budget;
use crate::expr::Scalar;
use crate::kernel::evaluate;
use crate::tensor::Tensor;
use crate::types::DType;
use smallvec::smallvec;

fn operand(
    kernel: &mut Kernel,
    name: &str,
    role: Role,
    dims: &[(Axis, usize)],
) -> super::OperandId {
    let dims = Dims::from_slice(dims);
    kernel.operands.push(Operand { name: name.to_owned(), role, dtype: DType::F32, dims })
}

fn define(kernel: &mut Kernel, dims: &[(Axis, usize)], op: TileOp) -> TileId {
    let tile = kernel.tile("t", DType::F32, dims);
    kernel.body.push(Stmt::Define { results: smallvec![tile], op });
    tile
}

/// Small integers, so that sums are exact in any order.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|index| ((index * 7 + seed * 13) % 11) as f32 - 5.0).collect()
}

/// `y[b, m, n] = Σ a[b, k, m] · w[b, n, k]`, the operands turned so that nothing is contiguous.
fn check_product(b: usize, m: usize, n: usize, k: usize) {
    let mut kernel = Kernel::default();
    let (ab, am, an, ak) = (kernel.axis("b"), kernel.axis("m"), kernel.axis("n"), kernel.axis("k"));
    let x = operand(&mut kernel, "x", Role::Input, &[(ab, b), (ak, k), (am, m)]);
    let w = operand(&mut kernel, "w", Role::Input, &[(ab, b), (an, n), (ak, k)]);
    let y = operand(&mut kernel, "y", Role::Output, &[(ab, b), (am, m), (an, n)]);
    let at = |axes: &[Axis]| axes.iter().map(|&axis| Affine::axis(axis)).collect::<Vec<_>>();
    let load = |operand, axes: &[Axis]| TileOp::Load { operand, at: at(axes), pad: None };
    let left = define(&mut kernel, &[(ab, b), (ak, k), (am, m)], load(x, &[ab, ak, am]));
    let right = define(&mut kernel, &[(ab, b), (an, n), (ak, k)], load(w, &[ab, an, ak]));
    let init = define(&mut kernel, &[], TileOp::Fill { value: Scalar::new(DType::F32, 1.0) });
    let product =
        TileOp::Contract { init, a: left, b: right, over: vec![ak], accumulate: DType::F32 };
    let tile = define(&mut kernel, &[(ab, b), (am, m), (an, n)], product);
    kernel.body.push(Stmt::Store { operand: y, at: at(&[ab, am, an]), tile });
    let (left, right) = (numbers(b * k * m, 1), numbers(b * n * k, 2));
    let mut operands = [
        Tensor::from_slice(&[b, k, m], &left),
        Tensor::from_slice(&[b, n, k], &right),
        Tensor::from_slice(&[b, m, n], &vec![0f32; b * m * n]),
    ];
    evaluate(&kernel, &mut operands, &[], &Budget::UNLIMITED).expect("it runs");
    let found = operands[2].as_slice::<f32>().expect("f32");
    for (at, &found) in found.iter().enumerate() {
        let (batch, row, column) = (at / (m * n), at / n % m, at % n);
        let products = (0..k).map(|depth| {
            left[(batch * k + depth) * m + row] * right[(batch * n + column) * k + depth]
        });
        assert_eq!(
            found,
            1.0 + products.sum::<f32>(),
            "[{batch}, {row}, {column}] of {b} {m} {n} {k}"
        );
    }
}

#[test]
fn products_of_every_shape_are_those_of_plain_loops() {
    for (b, m, n, k) in [
        (1, 1, 1, 1),
        (1, 3, 5, 7),
        (2, 67, 9, 13),
        (3, 2, 300, 5),
        (1, 130, 1, 270),
        (40, 1, 1, 9),
        (33, 3, 2, 5),
        (1, 5, 520, 6),
        (2, 4, 4, 0),
        (0, 4, 4, 2),
    ] {
        check_product(b, m, n, k);
    }
}

#[test]
fn the_budget_limits_memory_and_cancels() {
    let mut kernel = Kernel::default();
    let i = kernel.axis("i");
    let y = operand(&mut kernel, "y", Role::Output, &[(i, 1000)]);
    let tile =
        define(&mut kernel, &[(i, 1000)], TileOp::Fill { value: Scalar::new(DType::F32, 1.0) });
    kernel.body.push(Stmt::Store { operand: y, at: vec![Affine::axis(i)], tile });
    let mut operands = [Tensor::from_slice(&[1000], &[0f32; 1000])];
    let tight = Budget { cancelled: &|| false, bytes: 3999 };
    let error = evaluate(&kernel, &mut operands, &[], &tight).expect_err("4000 bytes are needed");
    assert_eq!(error, crate::evaluate::EvaluateError::Memory { needed: 4000, limit: 3999 });
    let cancelled = Budget { cancelled: &|| true, bytes: usize::MAX };
    let error = evaluate(&kernel, &mut operands, &[], &cancelled).expect_err("it is cancelled");
    assert_eq!(error, crate::evaluate::EvaluateError::Cancelled);
    evaluate(&kernel, &mut operands, &[], &Budget::UNLIMITED).expect("it runs");
    assert_eq!(operands[0].as_slice::<f32>().expect("f32")[999], 1.0);
}
