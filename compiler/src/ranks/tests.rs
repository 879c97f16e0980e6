//! How ranks meet, and how they end where they do not.

use super::*;
use crate::op::{AllGather, AllReduce, AllToAll, Permute, ReduceScatter};

fn values(ranks: usize, op: &Op, operand: impl Fn(usize) -> Tensor + Sync) -> Vec<Vec<f32>> {
    let program = |rank: usize, exchange: &dyn Exchange| exchange.exchange(op, &operand(rank));
    let found = run(ranks, |why| why, &program).expect("the ranks meet");
    found.iter().map(|tensor| tensor.as_slice::<f32>().expect("f32").to_vec()).collect()
}

fn pair(rank: usize) -> Tensor {
    Tensor::from_slice(&[2], &[rank as f32, 10.0 + rank as f32])
}

#[test]
fn collectives_join_in_the_order_of_the_group() {
    let groups = vec![vec![2, 0], vec![1, 3]];
    let reduce = AllReduce { combine: Combine::Sum, groups: groups.clone() }.into();
    assert_eq!(
        values(4, &reduce, pair),
        [vec![2.0, 22.0], vec![4.0, 24.0], vec![2.0, 22.0], vec![4.0, 24.0]]
    );
    let gather = AllGather { axis: 0, groups: groups.clone() }.into();
    assert_eq!(values(4, &gather, pair)[0], [2.0, 12.0, 0.0, 10.0]);
    let scatter = ReduceScatter { combine: Combine::Max, axis: 0, groups: groups.clone() }.into();
    assert_eq!(values(4, &scatter, pair), [[12.0], [3.0], [2.0], [13.0]].map(Vec::from));
    let all = AllToAll { split: 0, concat: 0, groups }.into();
    assert_eq!(
        values(4, &all, pair),
        [vec![12.0, 10.0], vec![1.0, 3.0], vec![2.0, 0.0], vec![11.0, 13.0]]
    );
    let shift = Permute { pairs: vec![vec![0, 1], vec![1, 2]] }.into();
    assert_eq!(values(3, &shift, pair), [vec![0.0, 0.0], vec![0.0, 10.0], vec![1.0, 11.0]]);
}

#[test]
fn a_rank_that_fails_ends_the_others() {
    let op = Op::from(AllReduce { combine: Combine::Sum, groups: vec![vec![0, 1, 2]] });
    let program = |rank: usize, exchange: &dyn Exchange| match rank {
        1 => Err("no more paper".to_owned()),
        _ => exchange.exchange(&op, &pair(rank)).map(|_| ()),
    };
    let error = run(3, |why| why, &program).expect_err("rank 1 fails");
    assert_eq!(error, "no more paper");
}

#[test]
fn ranks_that_wait_in_vain_say_where_they_stand() {
    let reduce = Op::from(AllReduce { combine: Combine::Sum, groups: vec![vec![0, 1]] });
    let send = Op::from(Permute { pairs: vec![vec![0, 1]] });
    let program = |rank: usize, exchange: &dyn Exchange| match rank {
        0 => exchange.exchange(&reduce, &pair(0)),
        _ => exchange.exchange(&send, &pair(1)),
    };
    let error = run(2, |why| why, &program).expect_err("they never meet");
    assert_eq!(
        error,
        "no rank can go on: rank 0 waits for ranks [0, 1] in all-reduce f32[2] combine = sum; rank 1 waits \
         for a message of rank 0"
    );
}

#[test]
fn ranks_that_disagree_are_told() {
    let op = |combine| Op::from(AllReduce { combine, groups: vec![vec![0, 1]] });
    let program = |rank: usize, exchange: &dyn Exchange| {
        let combine = if rank == 0 { Combine::Sum } else { Combine::Max };
        exchange.exchange(&op(combine), &pair(rank))
    };
    let error = run(2, |why| why, &program).expect_err("sum is not max");
    assert!(error.contains("where another rank of the group [0, 1] issues"), "{error}");
}

#[test]
fn narrow_sums_round_once() {
    let half = |value: f32| {
        Tensor::from_values(
            crate::types::DType::BF16,
            &[1],
            &crate::tensor::Values::F32(vec![value]),
        )
    };
    let operands: Vec<Tensor> = [256.0, 1.0, 1.0, 1.0].map(half).to_vec();
    let op = AllReduce { combine: Combine::Sum, groups: vec![vec![0, 1, 2, 3]] }.into();
    let sum = join(&op, &operands).swap_remove(0);
    assert_eq!(sum.values().to_f64(), [260.0]);
}
