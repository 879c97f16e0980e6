//! Chains of elementwise functions over rows of f32, and reductions of rows, by the widest vectors of the machine.
//!
//! Generated code has 128-bit vectors, which a chain with a transcendental function keeps busy for longer than memory does.
//! Such a chain becomes a [`Program`]: steps that each go over a block of a row, from registers in scratch (blocks that stay
//! in the first-level cache) to the next. The rows of a program end in memory or in one number each.
//!
//! Every step rounds as generated code does, and the transcendental functions are those of [`super::wide`], with its bounds.
//! Only a division by what a whole row shares, and is no constant, is a multiplication by its reciprocal, where that is a
//! normal number: it is within two units in the last place. Sums are added in a fixed order that the row's length gives.

use super::Cpu;
use super::arithmetic::Arithmetic;
use super::vector::Vector;
use super::wide::{erf, exp, sigmoid, tanh};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m256, __m512};

/// Elements of a block.
pub(crate) const BLOCK: usize = 512;
/// The most registers of a program.
pub(crate) const MOST_REGISTERS: usize = 16;
/// The most memory accesses of a program, its target among them.
pub(crate) const MOST_ACCESSES: usize = 16;
/// Bytes for the addresses of a program's accesses.
pub(crate) const ADDRESS_BYTES: usize = MOST_ACCESSES * 8;
/// Bytes of scratch that a run needs beside those.
pub(crate) const SCRATCH_BYTES: usize = MOST_REGISTERS * BLOCK * 4;

/// Where a step reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Source {
    /// Neighbours in memory: the access of that number.
    Memory(usize),
    /// One element for the whole row.
    Row(usize),
    /// A block that an earlier step wrote.
    Register(usize),
    /// The one element that a step before the row's blocks wrote.
    RowRegister(usize),
    /// A number.
    Constant(f32),
}

/// Where a step writes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    /// A block of scratch.
    Register(usize),
    /// The program's target in memory.
    Memory,
}

/// A function of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum One {
    Copy,
    Abs,
    Sqrt,
    Exp,
    Tanh,
    Erf,
    Sigmoid,
}

/// A function of two operands. For `Max` and `Min` the second is a number; NaN stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Two {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
}

/// One pass over a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Step {
    /// A function of one operand.
    One(One, Source, Target),
    /// A function of two operands.
    Two(Two, Source, Source, Target),
}

/// How a row becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// The sum.
    Sum,
    /// The largest; NaN where there is one.
    Max,
    /// The smallest; NaN where there is one.
    Min,
}

/// What a program does with a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// Its last step writes to memory.
    Store,
    /// What the source gives is joined, with a start where there is one.
    Reduce(Join, Source, Option<Source>),
}

/// What is done with each row. Access 0 is the target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Program {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Bytes from an access's row to the next.
    pub(crate) row_strides: Vec<isize>,
    /// Steps on the one element of what a whole row shares.
    pub(crate) row_steps: Vec<Step>,
    /// Steps on each block.
    pub(crate) steps: Vec<Step>,
    pub(crate) end: End,
    pub(crate) cpu: Cpu,
}

/// Runs a program on the memory that `accesses` lists.
///
/// # Safety
/// - `program` points at a live program, and the machine has its instruction set;
/// - every element of every access is readable, those of access 0 writable, and none of the others overlaps them but for
///   the same element;
/// - `scratch` has [`SCRATCH_BYTES`] writable bytes that nobody else uses during the call.
pub(crate) unsafe extern "C" fn run(
    program: *const Program,
    accesses: *const *mut f32,
    scratch: *mut f32,
) {
    // SAFETY: the caller keeps the program alive, and vouches for the rest.
    unsafe {
        let program = &*program;
        match program.cpu {
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx512 => run_avx512(program, accesses, scratch),
            #[cfg(target_arch = "x86_64")]
            Cpu::Avx2 => run_avx2(program, accesses, scratch),
            #[cfg(not(target_arch = "x86_64"))]
            Cpu::Avx512 | Cpu::Avx2 => {
                rows::<super::vector::Portable>(program, accesses, scratch);
            }
            Cpu::Baseline | Cpu::Neon => {
                rows::<super::vector::Portable>(program, accesses, scratch);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn run_avx512(program: &Program, accesses: *const *mut f32, scratch: *mut f32) {
    // SAFETY: the features are enabled, and the caller vouches for the addresses.
    unsafe { rows::<__m512>(program, accesses, scratch) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn run_avx2(program: &Program, accesses: *const *mut f32, scratch: *mut f32) {
    // SAFETY: as above.
    unsafe { rows::<__m256>(program, accesses, scratch) }
}

/// The addresses of a row's block.
struct Place {
    accesses: [*mut f32; MOST_ACCESSES],
    scratch: *mut f32,
    /// The first column.
    first: usize,
    count: usize,
}

/// What a step reads: neighbours, or the same everywhere.
#[derive(Clone, Copy)]
enum Operand {
    Many(*const f32),
    Same(f32),
}

#[inline(always)]
unsafe fn rows<V: Arithmetic>(program: &Program, accesses: *const *mut f32, scratch: *mut f32) {
    // SAFETY: see `run`, here and below.
    unsafe {
        let mut place =
            Place { accesses: [core::ptr::null_mut(); MOST_ACCESSES], scratch, first: 0, count: 1 };
        for row in 0..program.rows {
            for (index, stride) in program.row_strides.iter().enumerate() {
                let bytes = row.cast_signed().wrapping_mul(*stride);
                place.accesses[index] = (*accesses.add(index)).wrapping_byte_offset(bytes);
            }
            place.first = 0;
            place.count = 1;
            for step in &program.row_steps {
                run_step::<V>(*step, &place);
            }
            let mut joined = Joined::<V>::new(program.end);
            while place.first < program.columns {
                place.count = BLOCK.min(program.columns - place.first);
                for step in &program.steps {
                    run_step::<V>(*step, &place);
                }
                if let End::Reduce(join, source, _) = program.end {
                    joined.take(join, place.operand(source), place.count);
                }
                place.first += BLOCK;
            }
            if let End::Reduce(join, _, start) = program.end {
                place.first = 0;
                let mut value = joined.value(join);
                if let Some(start) = start {
                    let start = match place.operand(start) {
                        Operand::Same(start) => start,
                        Operand::Many(from) => *from,
                    };
                    value = join.both(start, value);
                }
                *place.accesses[0] = value;
            }
        }
    }
}

impl Place {
    #[inline(always)]
    unsafe fn operand(&self, source: Source) -> Operand {
        // SAFETY: see `run`.
        unsafe {
            match source {
                Source::Memory(access) => {
                    Operand::Many(self.accesses[access].wrapping_add(self.first))
                }
                Source::Row(access) => Operand::Same(*self.accesses[access]),
                Source::Register(register) => {
                    Operand::Many(self.scratch.wrapping_add(register * BLOCK))
                }
                Source::RowRegister(register) => {
                    Operand::Same(*self.scratch.wrapping_add(register * BLOCK))
                }
                Source::Constant(value) => Operand::Same(value),
            }
        }
    }

    #[inline(always)]
    fn target(&self, target: Target) -> *mut f32 {
        match target {
            Target::Register(register) => self.scratch.wrapping_add(register * BLOCK),
            Target::Memory => self.accesses[0].wrapping_add(self.first),
        }
    }
}

/// Calls `body` for every vector of a block: its first element, and the lanes where these are not all.
macro_rules! each_vector {
    ($vector:ty, $count:expr, |$index:ident, $mask:ident| $body:expr) => {{
        let mut $index = 0;
        while $index + <$vector>::LANES <= $count {
            let $mask: Option<<$vector>::Mask> = None;
            $body;
            $index += <$vector>::LANES;
        }
        if $index < $count {
            let $mask = Some(<$vector>::mask(0, $count - $index));
            $body;
        }
    }};
}

#[inline(always)]
unsafe fn load<V: Vector>(from: *const f32, mask: Option<V::Mask>) -> V {
    // SAFETY: the caller's lanes are readable.
    unsafe {
        match mask {
            None => V::load(from),
            Some(mask) => V::load_masked(from, mask),
        }
    }
}

#[inline(always)]
unsafe fn store<V: Vector>(vector: V, to: *mut f32, mask: Option<V::Mask>) {
    // SAFETY: the caller's lanes are writable.
    unsafe {
        match mask {
            None => vector.store(to),
            Some(mask) => vector.store_masked(to, mask),
        }
    }
}

#[inline(always)]
unsafe fn run_step<V: Arithmetic>(step: Step, place: &Place) {
    // SAFETY: see `run`.
    unsafe {
        match step {
            Step::One(function, x, to) => {
                let (x, to) = (place.operand(x), place.target(to));
                match function {
                    One::Copy => one::<V>(x, to, place.count, |x| x),
                    One::Abs => one::<V>(x, to, place.count, |x| x.magnitude()),
                    One::Sqrt => one::<V>(x, to, place.count, |x| x.root()),
                    One::Exp => one::<V>(x, to, place.count, |x| exp(x)),
                    One::Tanh => one::<V>(x, to, place.count, |x| tanh(x)),
                    One::Erf => one::<V>(x, to, place.count, |x| erf(x)),
                    One::Sigmoid => one::<V>(x, to, place.count, |x| sigmoid(x)),
                }
            }
            Step::Two(function, x, y, to) => {
                let is_shared = !matches!(y, Source::Constant(_));
                let (x, y, to) = (place.operand(x), place.operand(y), place.target(to));
                let count = place.count;
                match function {
                    Two::Add => two::<V>(x, y, to, count, |x, y| x.add(y)),
                    Two::Sub => two::<V>(x, y, to, count, |x, y| x.subtract(y)),
                    Two::Mul => two::<V>(x, y, to, count, |x, y| x.multiply(y)),
                    Two::Div => match (x, y) {
                        (Operand::Many(_), Operand::Same(divisor))
                            if is_shared && (1.0 / divisor).is_normal() =>
                        {
                            let y = Operand::Same(1.0 / divisor);
                            two::<V>(x, y, to, count, |x, y| x.multiply(y));
                        }
                        _ => two::<V>(x, y, to, count, |x, y| x.divide(y)),
                    },
                    Two::Max => two::<V>(x, y, to, count, |x, y| x.at_least(y)),
                    Two::Min => two::<V>(x, y, to, count, |x, y| x.at_most(y)),
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn one<V: Arithmetic>(x: Operand, to: *mut f32, count: usize, f: impl Fn(V) -> V) {
    // SAFETY: see `run`.
    unsafe {
        match x {
            Operand::Many(x) => each_vector!(V, count, |index, mask| {
                store(f(load(x.wrapping_add(index), mask)), to.wrapping_add(index), mask);
            }),
            Operand::Same(x) => {
                let value = f(V::splat(x));
                each_vector!(V, count, |index, mask| store(value, to.wrapping_add(index), mask));
            }
        }
    }
}

#[inline(always)]
unsafe fn two<V: Arithmetic>(
    x: Operand,
    y: Operand,
    to: *mut f32,
    count: usize,
    f: impl Fn(V, V) -> V,
) {
    // SAFETY: see `run`.
    unsafe {
        match (x, y) {
            (Operand::Many(x), Operand::Many(y)) => each_vector!(V, count, |index, mask| {
                let (x, y) = (load(x.wrapping_add(index), mask), load(y.wrapping_add(index), mask));
                store(f(x, y), to.wrapping_add(index), mask);
            }),
            (Operand::Many(x), Operand::Same(y)) => {
                let y = V::splat(y);
                each_vector!(V, count, |index, mask| {
                    store(f(load(x.wrapping_add(index), mask), y), to.wrapping_add(index), mask);
                });
            }
            (Operand::Same(x), Operand::Many(y)) => {
                let x = V::splat(x);
                each_vector!(V, count, |index, mask| {
                    store(f(x, load(y.wrapping_add(index), mask)), to.wrapping_add(index), mask);
                });
            }
            (Operand::Same(x), Operand::Same(y)) => {
                let value = f(V::splat(x), V::splat(y));
                each_vector!(V, count, |index, mask| store(value, to.wrapping_add(index), mask));
            }
        }
    }
}

/// Partial results of a row.
struct Joined<V> {
    parts: [V; 4],
    /// Not zero where there was a NaN; only extremes need it.
    missing: V,
}

impl Join {
    fn start(self) -> f32 {
        match self {
            Join::Sum => 0.0,
            Join::Max => f32::NEG_INFINITY,
            Join::Min => f32::INFINITY,
        }
    }

    fn both(self, x: f32, y: f32) -> f32 {
        match self {
            Join::Sum => x + y,
            Join::Max | Join::Min if x.is_nan() || y.is_nan() => f32::NAN,
            Join::Max => x.max(y),
            Join::Min => x.min(y),
        }
    }
}

impl<V: Arithmetic> Joined<V> {
    #[inline(always)]
    unsafe fn new(end: End) -> Joined<V> {
        let start = match end {
            End::Store => 0.0,
            End::Reduce(join, _, _) => join.start(),
        };
        // SAFETY: see `run`.
        unsafe { Joined { parts: [V::splat(start); 4], missing: V::zero() } }
    }

    #[inline(always)]
    unsafe fn take(&mut self, join: Join, element: Operand, count: usize) {
        // SAFETY: see `run`.
        unsafe {
            match join {
                Join::Sum => self.each(join, element, count, |part, _, x| part.add(x)),
                Join::Max => self.each(join, element, count, |part, missing, x| {
                    *missing = missing.add(x.missing());
                    part.at_least(x)
                }),
                Join::Min => self.each(join, element, count, |part, missing, x| {
                    *missing = missing.add(x.missing());
                    part.at_most(x)
                }),
            }
        }
    }

    #[inline(always)]
    unsafe fn each(
        &mut self,
        join: Join,
        element: Operand,
        count: usize,
        f: impl Fn(V, &mut V, V) -> V,
    ) {
        // SAFETY: see `run`.
        unsafe {
            let rest = V::splat(join.start());
            each_vector!(V, count, |index, mask| {
                let x = match (element, mask) {
                    (Operand::Many(from), None) => V::load(from.wrapping_add(index)),
                    (Operand::Many(from), Some(mask)) => {
                        rest.or_masked(from.wrapping_add(index), mask)
                    }
                    (Operand::Same(value), None) => V::splat(value),
                    (Operand::Same(value), Some(mask)) => {
                        let values = [value; super::vector::MOST_LANES];
                        rest.or_masked(values.as_ptr(), mask)
                    }
                };
                let which = index / V::LANES % 4;
                self.parts[which] = f(self.parts[which], &mut self.missing, x);
            });
        }
    }

    #[inline(always)]
    unsafe fn value(&self, join: Join) -> f32 {
        // SAFETY: see `run`.
        unsafe {
            let [a, b, c, d] = self.parts;
            match join {
                Join::Sum => a.add(c).add(b.add(d)).sum(),
                Join::Max | Join::Min if self.missing.sum() != 0.0 => f32::NAN,
                Join::Max => a.at_least(c).at_least(b.at_least(d)).largest(),
                Join::Min => {
                    let least = a.at_most(c).at_most(b.at_most(d));
                    -V::zero().subtract(least).largest()
                }
            }
        }
    }
}
