//! Small programs, built by hand.
#![allow(dead_code, reason = "each test file uses a part")]

use smallvec::smallvec;
use std::collections::BTreeMap;
use systole_compiler::types::DType;
use systole_systolic::isa::{Op, Pace};
use systole_systolic::machine::Machine;
use systole_systolic::program::*;

pub(crate) fn machine(name: &str) -> Machine {
    Machine::preset(name).unwrap_or_else(|| panic!("no preset {name}"))
}

pub(crate) fn at(space: Space, dtype: DType, partitions: u16, offset: i64, free: u32) -> Access {
    Access {
        space,
        dtype,
        partition: Index::constant(0),
        partitions,
        offset: Index::constant(offset),
        dims: smallvec![(1, free)],
    }
}

pub(crate) fn plain(op: Op) -> Instruction {
    Instruction {
        op,
        when: None,
        waits: smallvec![],
        calls: smallvec![],
        after: false,
        signals: smallvec![],
        source: 0,
    }
}

pub(crate) fn linked(op: Op, waits: &[u16], signals: &[u16]) -> Item {
    let all = |list: &[u16]| list.iter().map(|&at| Semaphore(at)).collect();
    Item::Instruction(Instruction { waits: all(waits), signals: all(signals), ..plain(op) })
}

pub(crate) fn repeat(var: u16, count: i64, body: Vec<Item>) -> Item {
    let (start, end) = (Index::constant(0), Index::constant(count));
    Item::Loop { var: Var(var), start, end, step: 1, body }
}

pub(crate) fn semaphores(initial: &[u16]) -> Vec<SemaphoreInfo> {
    let infos = initial.iter().enumerate();
    infos.map(|(at, &initial)| SemaphoreInfo { name: format!("s{at}"), initial }).collect()
}

pub(crate) fn matmul(k: u16, columns: u32, width: u32, dtype: DType, pace: Pace) -> Op {
    Op::Matmul {
        stationary: at(Space::Sbuf, dtype, k, 0, columns),
        moving: at(Space::Sbuf, dtype, k, 4096, width),
        out: at(Space::Psum, DType::F32, columns as u16, 0, width),
        accumulate: false,
        pace,
        scales: None,
    }
}

/// A transfer of rows from or to a far operand, one row in each partition.
pub(crate) fn rows(dtype: DType, partitions: u32, free: u32, operand: u16, load: bool) -> Op {
    let far = Side::Far {
        operand,
        offset: Index::constant(0),
        strides: smallvec![1 << 20, 1],
        bounds: smallvec![],
    };
    let near = Side::Near {
        space: Space::Sbuf,
        partition: Index::constant(0),
        offset: Index::constant(8192),
        steps: smallvec![(1, 0), (0, 1)],
    };
    let (from, to) = if load { (far, near) } else { (near, far) };
    Op::Dma(Box::new(Dma {
        dtype,
        sizes: smallvec![partitions, free],
        from,
        to,
        combine: None,
        indirect: None,
        transpose: false,
    }))
}

pub(crate) fn program(
    streams: Vec<(Engine, Vec<Item>)>,
    vars: usize,
    semaphores: Vec<SemaphoreInfo>,
) -> Program {
    let tensor = |name: &str| Tensor {
        name: name.to_owned(),
        dtype: DType::F32,
        elements: 1 << 30,
        alias: None,
        constant: false,
    };
    let operand = |name: &str, writes: bool| Operand {
        name: name.to_owned(),
        dtype: DType::F32,
        elements: 1 << 30,
        reads: !writes,
        writes,
    };
    Program {
        name: "test".to_owned(),
        machine: "trn2".to_owned(),
        tensors: vec![tensor("x"), tensor("y")],
        kernels: vec![Kernel {
            name: "k".to_owned(),
            operands: vec![operand("x", false), operand("y", true)],
            vars: (0..vars).map(|at| VarInfo { name: format!("v{at}"), range: None }).collect(),
            semaphores,
            streams: streams.into_iter().collect::<BTreeMap<_, _>>(),
            exchange: None,
            sbuf_bytes: 180_000,
            psum_banks: 8,
            sources: vec!["all".to_owned()],
            origins: vec![],
        }],
        load: vec![],
        steps: vec![Step::Call {
            kernel: 0,
            operands: vec![0, 1],
            scalars: vec![],
            sbuf_base: 0,
            psum_base: 0,
            origins: vec![],
        }],
        inputs: vec![0],
        outputs: vec![("y".to_owned(), 1)],
    }
}
