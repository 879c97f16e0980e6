//! Programs of one kernel by hand: tensors, semaphores, and instruction streams with their loops.

use smallvec::{SmallVec, smallvec};
use systole_compiler::types::DType;
use systole_systolic::isa::{Alu, Function, Op, Pace};
use systole_systolic::program::{
    Access, Dma, Engine, Index, Instruction, Item, Kernel, Operand, Operand1, Program, Semaphore,
    SemaphoreInfo, Side, Space, Step, Tensor, Term, Test, Var, VarInfo,
};

/// A kernel under construction.
#[derive(Debug, Default)]
pub struct Builder {
    kernel: Kernel,
}

impl Builder {
    /// An empty kernel.
    pub fn new(name: &str) -> Builder {
        let kernel = Kernel { name: name.to_owned(), ..Kernel::default() };
        Builder { kernel }
    }

    /// A tensor that is read.
    pub fn input(&mut self, name: &str, dtype: DType, elements: i64) -> u16 {
        self.operand(name, dtype, elements, true)
    }

    /// A tensor that is written.
    pub fn output(&mut self, name: &str, dtype: DType, elements: i64) -> u16 {
        self.operand(name, dtype, elements, false)
    }

    fn operand(&mut self, name: &str, dtype: DType, elements: i64, reads: bool) -> u16 {
        let elements = u64::try_from(elements).expect("tensors have elements");
        let name = name.to_owned();
        self.kernel.operands.push(Operand { name, dtype, elements, reads, writes: !reads });
        (self.kernel.operands.len() - 1) as u16
    }

    /// A loop variable. Every engine counts in its own register, so that all may use the same.
    pub fn var(&mut self, name: &str) -> Var {
        self.kernel.vars.push(VarInfo { name: name.to_owned(), range: None });
        Var((self.kernel.vars.len() - 1) as u16)
    }

    /// A semaphore with tokens at the start.
    pub fn semaphore(&mut self, name: &str, initial: u16) -> Semaphore {
        self.kernel.semaphores.push(SemaphoreInfo { name: name.to_owned(), initial });
        Semaphore((self.kernel.semaphores.len() - 1) as u16)
    }

    /// Room in SBUF: bytes of each partition. Gives where it begins.
    pub fn sbuf(&mut self, bytes: i64) -> i64 {
        let start = i64::from(self.kernel.sbuf_bytes);
        self.kernel.sbuf_bytes = u32::try_from(start + bytes).expect("a few hundred KiB");
        start
    }

    /// PSUM banks, from 0.
    pub fn banks(&mut self, count: u8) {
        self.kernel.psum_banks = count;
    }

    /// What an engine does.
    pub fn stream(&mut self, engine: Engine, items: Vec<Item>) {
        self.kernel.streams.entry(engine).or_default().extend(items);
    }

    /// A program that calls the kernel once.
    pub fn program(mut self, machine: &str) -> Program {
        self.kernel.sources = vec![self.kernel.name.clone()];
        self.kernel.origins = vec![self.kernel.name.clone()];
        // Tensors are free from the start, but each engine that reaches one says that it has looked.
        let calls: SmallVec<[u16; 1]> = (0..self.kernel.operands.len() as u16).collect();
        for items in self.kernel.streams.values_mut() {
            if uses_tensors(items) {
                let mut first = instruction(Op::Nop);
                first.calls.clone_from(&calls);
                items.insert(0, Item::Instruction(first));
            }
        }
        let operands = self.kernel.operands.iter();
        let tensors = operands.clone().map(|operand| Tensor {
            name: operand.name.clone(),
            dtype: operand.dtype,
            elements: operand.elements,
            alias: None,
            constant: false,
        });
        let numbers = 0..self.kernel.operands.len() as u32;
        let reads = |at: &u32| self.kernel.operands[*at as usize].reads;
        let written = numbers.clone().filter(|at| !reads(at));
        Program {
            name: self.kernel.name.clone(),
            machine: machine.to_owned(),
            tensors: tensors.collect(),
            inputs: numbers.clone().filter(reads).collect(),
            outputs: written
                .map(|at| (self.kernel.operands[at as usize].name.clone(), at))
                .collect(),
            steps: vec![Step::Call {
                kernel: 0,
                operands: numbers.collect(),
                scalars: Vec::new(),
                sbuf_base: 0,
                psum_base: 0,
                origins: vec![self.kernel.name.clone()],
            }],
            load: Vec::new(),
            kernels: vec![self.kernel],
        }
    }
}

fn uses_tensors(items: &[Item]) -> bool {
    items.iter().any(|item| match item {
        Item::Instruction(instruction) => matches!(instruction.op, Op::Dma(_)),
        Item::Loop { body, .. } => uses_tensors(body),
    })
}

fn instruction(op: Op) -> Instruction {
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

/// A number, or a sum of multiples of variables.
pub fn index(constant: i64, terms: &[(Term, i64)]) -> Index {
    let one = |&(term, by): &(Term, i64)| Index { constant: 0, terms: smallvec![(term, by)] };
    terms.iter().fold(Index::constant(constant), |sum, term| sum.plus(&one(term), 1))
}

/// A variable's value.
pub fn value(var: Var) -> Term {
    Term::Var(var)
}

/// Which of `turns` buffers it is the turn of.
pub fn turn(var: Var, turns: u8) -> Term {
    Term::Turn(var, turns)
}

/// An instruction with what it waits for and what it signals.
pub fn run(op: Op, waits: &[Semaphore], signals: &[Semaphore]) -> Item {
    let mut made = instruction(op);
    made.waits = waits.iter().copied().collect();
    made.signals = signals.iter().copied().collect();
    Item::Instruction(made)
}

/// The instruction, where the index is zero or not.
pub fn when(item: Item, at: Index, test: Test) -> Item {
    edit(item, |made| made.when = Some((at, test)))
}

/// The instruction, behind all earlier ones of its engine.
pub fn after(item: Item) -> Item {
    edit(item, |made| made.after = true)
}

fn edit(mut item: Item, change: impl FnOnce(&mut Instruction)) -> Item {
    match &mut item {
        Item::Instruction(made) => change(made),
        Item::Loop { .. } => unreachable!("only instructions are edited"),
    }
    item
}

/// A loop from 0.
pub fn repeat(var: Var, count: i64, body: Vec<Item>) -> Item {
    let (start, end) = (Index::constant(0), Index::constant(count));
    Item::Loop { var, start, end, step: 1, body }
}

/// The first partitions of SBUF from a byte, `columns` neighbours in each.
pub fn near(dtype: DType, partitions: u16, offset: Index, columns: u32) -> Access {
    Access {
        space: Space::Sbuf,
        dtype,
        partition: Index::constant(0),
        partitions,
        offset,
        dims: smallvec![(1, columns)],
    }
}

/// The same in PSUM.
pub fn sums(partitions: u16, offset: Index, columns: u32) -> Access {
    Access { space: Space::Psum, ..near(DType::F32, partitions, offset, columns) }
}

/// Rows of a tensor, each to a partition. `row` is the distance between them in elements.
pub fn load(
    dtype: DType,
    (operand, from, row): (u16, Index, i64),
    (rows, columns): (u32, u32),
    to: Index,
) -> Op {
    let far = Side::Far { operand, offset: from, strides: smallvec![row, 1], bounds: smallvec![] };
    copy(dtype, smallvec![rows, columns], far, on_chip(to))
}

/// The same the other way.
pub fn store(
    dtype: DType,
    (operand, to, row): (u16, Index, i64),
    (rows, columns): (u32, u32),
    from: Index,
) -> Op {
    let far = Side::Far { operand, offset: to, strides: smallvec![row, 1], bounds: smallvec![] };
    copy(dtype, smallvec![rows, columns], on_chip(from), far)
}

fn on_chip(offset: Index) -> Side {
    let steps = smallvec![(1, 0), (0, 1)];
    Side::Near { space: Space::Sbuf, partition: Index::constant(0), offset, steps }
}

fn copy(dtype: DType, sizes: SmallVec<[u32; 4]>, from: Side, to: Side) -> Op {
    Op::Dma(Box::new(Dma {
        dtype,
        sizes,
        from,
        to,
        combine: None,
        indirect: None,
        transpose: false,
    }))
}

/// A product; `begins` overwrites, otherwise it adds.
pub fn product(stationary: Access, moving: Access, out: Access, begins: bool) -> Op {
    let pace = if moving.dtype == DType::F32 { Pace::Four } else { Pace::Single };
    Op::Matmul { stationary, moving, out, accumulate: !begins, pace, scales: None }
}

/// A function of each element.
pub fn apply(function: Function, input: Access, out: Access) -> Op {
    let (scale, bias) = (Operand1::Immediate(1.0), Operand1::Immediate(0.0));
    Op::Activation { function, input, scale, bias, out, reduce: None }
}

/// Two tensors into one.
pub fn pair(alu: Alu, a: Access, b: Access, out: Access) -> Op {
    Op::TensorTensor { alu, a, b, out }
}
