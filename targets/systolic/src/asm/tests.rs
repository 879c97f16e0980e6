//! Programs as text and back.

use super::{parse, print};
use crate::isa::{Alu, Function, Op, Pace};
use crate::program::*;
use smallvec::smallvec;
use systole_compiler::expr::{Expr, Scalar};
use systole_compiler::kernel::Combine;
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::DType;

/// A small source of choices.
struct Choice(u64);

impl Choice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn index(&mut self) -> Index {
        let mut index = Index::constant(self.below(5000) as i64 - 1000);
        for _ in 0..self.below(3) {
            let var = Var(self.below(3) as u16);
            let term = match self.below(2) {
                0 => Term::Var(var),
                _ => Term::Turn(var, 1 + self.below(4) as u8),
            };
            let one = Index { constant: 0, terms: smallvec![(term, 1)] };
            index = index.plus(&one, self.below(900) as i64 - 300);
        }
        index
    }

    fn access(&mut self) -> Access {
        let all = DType::ALL;
        let dims = (0..self.below(4)).map(|_| (self.below(9) as i32 - 2, self.below(600) as u32));
        let dims = dims.collect();
        Access {
            space: if self.below(2) == 0 { Space::Sbuf } else { Space::Psum },
            dtype: all[self.below(all.len() as u64) as usize],
            partition: self.index(),
            partitions: self.below(129) as u16,
            offset: self.index(),
            dims,
        }
    }

    fn operand(&mut self) -> Operand1 {
        let values = [0.0, -0.0, 1.5, f32::INFINITY, f32::NEG_INFINITY, 1e-40, -3.25e30];
        match self.below(2) {
            0 => Operand1::Immediate(values[self.below(7) as usize]),
            _ => Operand1::Partition(self.access()),
        }
    }

    fn first(&mut self) -> (Alu, Operand1, bool) {
        let alus = [Alu::Add, Alu::NotEqual, Alu::GreaterEqual, Alu::AbsMax, Alu::Bypass];
        (alus[self.below(5) as usize], self.operand(), self.below(2) == 0)
    }

    fn side(&mut self) -> Side {
        if self.below(2) == 0 {
            let bounds = (0..self.below(3)).map(|_| Bound {
                at: self.index(),
                dims: smallvec![(0, 2), (1, -1)],
                extent: 77,
            });
            let bounds = bounds.collect();
            let strides = smallvec![1 << 40, -3];
            return Side::Far {
                operand: self.below(2) as u16,
                offset: self.index(),
                strides,
                bounds,
            };
        }
        Side::Near {
            space: Space::Sbuf,
            partition: self.index(),
            offset: self.index(),
            steps: smallvec![(1, 0), (0, -4)],
        }
    }

    fn op(&mut self) -> Op {
        let combine = [Combine::Sum, Combine::Or][self.below(2) as usize];
        let mut x = || self.access();
        let (a, b, c, d) = (x(), x(), x(), x());
        match self.below(29) {
            0 => Op::Matmul {
                stationary: a,
                moving: b,
                out: c,
                accumulate: true,
                pace: Pace::DoubleRow,
                scales: Some(Box::new((d, self.access()))),
            },
            1 => Op::Transpose { input: a, out: b },
            2 => Op::Activation {
                function: Function::GeluTanh,
                input: a,
                scale: self.operand(),
                bias: self.operand(),
                out: b,
                reduce: Some((combine, c)),
            },
            3 => Op::Copy { input: a, out: b },
            4 => Op::Memset { out: a, value: Scalar::from_i64(DType::I64, -7) },
            5 => Op::TensorTensor { alu: Alu::Power, a, b, out: c },
            6 => Op::TensorScalar {
                input: a,
                first: self.first(),
                second: Some(self.first()),
                out: b,
                reduce: None,
            },
            7 => Op::ScalarTensorTensor { a, first: self.first(), second: Alu::Xor, b, out: c },
            8 => Op::Select { predicate: a, on_true: b, on_false: c, out: d },
            9 => Op::Reduce { combine, input: a, dims: 2, out: b },
            10 => Op::Scan { combine, input: a, initial: self.operand(), out: b },
            11 => Op::Reciprocal { input: a, out: b },
            12 => Op::Exponential { input: a, bias: self.operand(), out: b },
            13 => Op::BnStats { input: a, out: b },
            14 => Op::BnAggregate { input: a, out: b },
            15 => Op::Max8 { input: a, out: b },
            16 => Op::FindIndex8 { input: a, values: b, out: c },
            17 => Op::MatchReplace8 { input: a, values: b, value: -0.0, out: c },
            18 => Op::TransposeBlocks { input: a, out: b },
            19 => Op::Shuffle { input: a, mask: Box::new([3; 32]), out: b },
            20 => Op::QuantizeMx { input: a, out: b, scales: c },
            21 => Op::Iota { base: self.index(), channel: -3, steps: smallvec![1, 0, 7], out: a },
            22 => Op::AffineSelect {
                input: a,
                base: self.index(),
                channel: 1,
                steps: smallvec![],
                fill: f32::NEG_INFINITY,
                out: b,
            },
            23 => Op::Gather { input: a, index: b, out: c },
            24 => Op::PartitionReduce { combine, input: a, out: b },
            25 => Op::PartitionBroadcast { input: a, out: b },
            26 => {
                let mut expr = Expr::new();
                let x = expr.operand(0, DType::I32);
                let two = expr.constant(Scalar::from_i64(DType::I32, 2));
                let sum = expr.call(ScalarFn::Mul, &[x, two]);
                expr.convert(sum, DType::F32);
                Op::Custom { expr: Box::new(expr), inputs: vec![a, b], out: c }
            }
            27 => Op::TensorTensorScan {
                first: Alu::Multiply,
                second: Alu::Max,
                a,
                b,
                initial: self.operand(),
                out: c,
            },
            _ => Op::Dma(Box::new(Dma {
                dtype: DType::U8,
                sizes: smallvec![4, 9],
                from: self.side(),
                to: self.side(),
                combine: Some(combine),
                indirect: Some(Indirect { rows: a, stride: 12, extent: 100 }),
                transpose: true,
            })),
        }
    }

    fn items(&mut self, depth: u64) -> Vec<Item> {
        let count = 1 + self.below(4);
        let item = |_| {
            if depth > 0 && self.below(3) == 0 {
                let (start, end) = (self.index(), self.index());
                let var = Var(self.below(3) as u16);
                return Item::Loop { var, start, end, step: 2, body: self.items(depth - 1) };
            }
            let tests = [Test::Zero, Test::NonZero, Test::Negative, Test::NonNegative];
            Item::Instruction(Instruction {
                op: if self.below(9) == 0 { Op::Nop } else { self.op() },
                when: (self.below(2) == 0).then(|| (self.index(), tests[self.below(4) as usize])),
                waits: smallvec![Semaphore(0), Semaphore(1)],
                calls: if self.below(2) == 0 { smallvec![1] } else { smallvec![] },
                after: self.below(2) == 0,
                signals: if self.below(2) == 0 { smallvec![Semaphore(2)] } else { smallvec![] },
                source: self.below(3) as u16,
            })
        };
        (0..count).map(item).collect()
    }
}

fn program(seed: u64) -> Program {
    let mut choice = Choice(seed);
    let tensor = |name: &str, alias| Tensor {
        name: name.to_owned(),
        dtype: DType::BF16,
        elements: 99,
        alias,
        constant: alias.is_none(),
    };
    let operand = |name: &str, reads, writes| Operand {
        name: name.to_owned(),
        dtype: DType::F32,
        elements: 12,
        reads,
        writes,
    };
    let semaphore = |name: &str| SemaphoreInfo { name: name.to_owned(), initial: 2 };
    let call = |base| Step::Call {
        kernel: 0,
        operands: vec![0, 2],
        scalars: vec![Value::Constant(-4), Value::Tensor(1)],
        sbuf_base: base,
        psum_base: base as u8,
        origins: vec!["/layer/0 \"x\"".to_owned()],
    };
    let engines = [Engine::Tensor, Engine::Vector, Engine::Scalar, Engine::GpSimd, Engine::Sync];
    Program {
        name: "a \\ b".to_owned(),
        machine: "trn2".to_owned(),
        // Two of the same name, and one that must be quoted.
        tensors: vec![tensor("x", Some(2)), tensor("/a:0", None), tensor("x", None)],
        kernels: vec![Kernel {
            name: "k.0".to_owned(),
            operands: vec![operand("p", true, false), operand("q", true, true)],
            vars: vec![
                VarInfo { name: "i".to_owned(), range: None },
                VarInfo { name: "i".to_owned(), range: Some((0, 9)) },
                VarInfo { name: "j".to_owned(), range: None },
            ],
            semaphores: vec![semaphore("full"), semaphore("0"), semaphore("a b")],
            streams: engines.map(|engine| (engine, choice.items(3))).into_iter().collect(),
            exchange: None,
            sbuf_bytes: 1000,
            psum_banks: 3,
            sources: vec!["one".to_owned(), "two\n".to_owned()],
            origins: vec!["n".to_owned()],
        }],
        load: vec![call(7)],
        steps: vec![
            call(0),
            Step::If { condition: 1, then: vec![call(1)], otherwise: vec![] },
            Step::While {
                before: vec![call(2)],
                condition: 1,
                body: vec![Step::For { count: 3, counter: 0, body: vec![call(3)] }],
            },
        ],
        inputs: vec![0, 1],
        outputs: vec![("y".to_owned(), 2)],
    }
}

#[test]
fn what_is_printed_parses_back_to_the_same() {
    for seed in 0..200 {
        let program = program(seed);
        let text = print(&program);
        let parsed = parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
        assert_eq!(parsed, program, "{text}");
        assert_eq!(print(&parsed), text);
    }
}

#[test]
fn every_mistake_is_told_with_its_place() {
    let text = "program \"p\" for \"trn2\"\ntensor %x: f33 4\nkernel @k(reads %a: f32 4) sbuf 0 psum 0 {\n  stream vector {\n    \
                copy input=sbuf(f32, 0, 1, 0, [1:4]) out=sbuf(f32, 0, 1)\n    jump\n    nop wait [$gone]\n  }\n}\nrun { call @m() }\n";
    let problems = parse(text).expect_err("five mistakes").0;
    let found: Vec<(&str, &str)> = problems
        .iter()
        .map(|problem| {
            let span = problem.span.unwrap_or_default();
            (problem.message.as_str(), &text[span.start..span.end])
        })
        .collect();
    assert_eq!(
        found,
        [
            ("there is no element type `f33`", "f33"),
            ("expected `,`, found `)`", ")"),
            ("there is no instruction `jump`", "jump"),
            ("there is no semaphore $gone", "$gone"),
            ("there is no kernel @m", "@m"),
        ]
    );
}

#[test]
fn exchanges_are_lines_of_text_that_read_back() {
    let text = "program \"p\" for \"trn2\"
tensor %x: f32 8
tensor %y: f32 16
tensor %r: i64 1
input %x
output \"y\" = %y
kernel @gather(reads %x: f32 8, writes %y: f32 16) sbuf 0 psum 0 {
  exchange all-gather f32[2, 4] to f32[4, 4] {axis = 0, groups = [[0, 1], [2, 3]]}
}
kernel @rank(writes %y: i64 1) sbuf 0 psum 0 {
  exchange rank to i64[] {}
}
run {
  call @gather(%x, %y)
  call @rank(%r)
}
";
    let program = parse(text).expect("it reads");
    let machine = crate::machine::Machine::preset("trn2").expect("there is one");
    assert_eq!(crate::isa::check_structure(&program, &machine), Ok(()));
    assert_eq!(parse(&print(&program)).expect("it reads back"), program);
    let wrong = text
        .replace("to f32[4, 4]", "to f32[2, 8]")
        .replace("groups = [[0, 1], [2, 3]]", "groups = [[0]]");
    let wrong = parse(&wrong).expect("it reads");
    assert!(crate::isa::check_structure(&wrong, &machine).is_err());
    for (from, to) in [("all-gather", "gather"), ("axis = 0, ", ""), ("[2, 4]", "[99999999999]")] {
        assert!(parse(&text.replace(from, to)).is_err(), "{from}");
    }
}

#[test]
fn broken_texts_are_errors_and_never_panics() {
    let text = print(&program(3));
    for cut in (0..text.len()).step_by(97).filter(|&cut| text.is_char_boundary(cut)) {
        let shortened = parse(&text[..cut]);
        let mixed = parse(&format!("{}{}", &text[cut..], &text[..cut]));
        assert!(shortened.is_err() || mixed.is_err() || cut == 0, "{cut}");
    }
    for text in ["%", "\"", "$#99999999999999", "kernel @k(", "run { while {", "é", "{{{{"] {
        assert!(parse(text).is_err(), "{text}");
    }
}
