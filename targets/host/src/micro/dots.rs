//! Products of which one side is a few vectors: dot products along `k`, where the elements of the other side lie side by
//! side along `k`. That side streams from memory once and is never packed.

use super::drive::Operands;
use super::plan::stride;
use super::vector::{Portable, Vector};
use super::{Cpu, Side, panel_widths};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m128, __m256, __m512};

/// The most vectors that the small side has.
pub(super) const MOST_VECTORS: usize = 8;
/// Vectors of the small side that a function takes at once.
const FEW_AT_ONCE: usize = 4;
/// Vectors of the other side that a function takes with a single one of the small side; half as many with more.
const MOST_AT_ONCE: usize = 8;

/// A product as dot products.
#[derive(Clone, Debug)]
pub(super) struct Dots {
    /// Where each vector of the small side starts.
    few: Few,
    /// Offsets of the vectors of the other side, whose elements lie side by side.
    many: Vec<isize>,
    /// Whether the few are rows of `A` or columns of `B`.
    few_are: Operand,
    k: usize,
    /// The small side in parts that fit registers.
    parts: Vec<Part>,
    /// Vectors of the other side that are taken at once.
    at_once: usize,
}

/// Some vectors of the small side.
#[derive(Clone, Debug)]
struct Part {
    begin: usize,
    count: usize,
    /// Functions for several vectors of the other side at once, and for one.
    functions: [DotsFunction; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    A,
    B,
}

#[derive(Clone, Debug)]
enum Few {
    /// Read where they lie.
    Direct(Vec<isize>),
    /// Copied to scratch first, from these offsets, vector after vector.
    Copy(Vec<isize>),
}

/// The operands of a group of dot products.
struct Group<'a> {
    few: [*const f32; FEW_AT_ONCE],
    many: &'a [isize],
    many_base: *const f32,
    k: usize,
    acc: *mut f32,
    /// Elements from the result of one of the few to the next, and of one of the many to the next.
    few_step: usize,
    many_step: usize,
    add: bool,
}

/// # Safety
/// The machine has the instruction set, and what the group addresses is readable and writable.
type DotsFunction = unsafe fn(&Group);

impl Dots {
    /// Plans a product whose shape and offsets suit, if they do.
    pub(super) fn new([m, n, k]: [usize; 3], a: &Side, b: &Side, cpu: Cpu) -> Option<Dots> {
        if matches!(b, Side::Narrow { .. }) {
            return None;
        }
        let (m_width, n_width) = panel_widths(cpu);
        let (few, many, few_are) = if let Some(many) = unit_vectors(b).filter(|_| m <= MOST_VECTORS)
        {
            (few(a, m, k, m_width), many, Operand::A)
        } else if let Some(many) = unit_vectors(a).filter(|_| n <= MOST_VECTORS) {
            (few(b, n, k, n_width), many, Operand::B)
        } else {
            return None;
        };
        let count = match few_are {
            Operand::A => m,
            Operand::B => n,
        };
        let share = count.div_ceil(count.div_ceil(FEW_AT_ONCE).max(1)).max(1);
        let part = |begin| {
            let count = share.min(count - begin);
            Part { begin, count, functions: functions(cpu, count) }
        };
        let parts = (0..count).step_by(share).map(part).collect();
        let at_once = if count == 1 { MOST_AT_ONCE } else { MOST_AT_ONCE / 2 };
        Some(Dots { few, many, few_are, k, parts, at_once })
    }

    /// Elements of scratch for the small side.
    pub(super) fn scratch_elements(&self) -> usize {
        match &self.few {
            Few::Direct(_) => 0,
            Few::Copy(offsets) => offsets.len(),
        }
    }

    /// # Safety
    /// As for [`super::contract`]; `scratch` holds [`Dots::scratch_elements`].
    pub(super) unsafe fn run(&self, operands: Operands, scratch: *mut f32) {
        let (few_base, many_base, few_step, many_step) = match self.few_are {
            Operand::A => (operands.a, operands.b, operands.acc_row_stride, 1),
            Operand::B => (operands.b, operands.a, 1, operands.acc_row_stride),
        };
        let mut few = [few_base; MOST_VECTORS];
        match &self.few {
            Few::Direct(offsets) => {
                for (pointer, offset) in few.iter_mut().zip(offsets) {
                    *pointer = few_base.wrapping_offset(*offset);
                }
            }
            Few::Copy(offsets) => {
                for (index, offset) in offsets.iter().enumerate() {
                    // SAFETY: the offsets are elements of the operand, and scratch holds as many.
                    unsafe { *scratch.add(index) = *few_base.offset(*offset) };
                }
                for (index, pointer) in
                    few.iter_mut().enumerate().take(offsets.len() / self.k.max(1))
                {
                    *pointer = scratch.wrapping_add(index * self.k);
                }
            }
        }
        let whole = self.many.len() / self.at_once * self.at_once;
        for (which, range, at_once) in [(0, 0..whole, self.at_once), (1, whole..self.many.len(), 1)]
        {
            for first in range.step_by(at_once) {
                for part in &self.parts {
                    let mut part_few = [few_base; FEW_AT_ONCE];
                    part_few[..part.count]
                        .copy_from_slice(&few[part.begin..part.begin + part.count]);
                    let group = Group {
                        few: part_few,
                        many: &self.many[first..first + at_once],
                        many_base,
                        k: self.k,
                        acc: operands.acc.wrapping_add(first * many_step + part.begin * few_step),
                        few_step,
                        many_step,
                        add: operands.add,
                    };
                    // SAFETY: the caller vouches for the operands and the result.
                    unsafe { part.functions[which](&group) };
                }
            }
        }
    }
}

/// Where the vectors of a side start, if their elements lie side by side.
fn unit_vectors(side: &Side) -> Option<Vec<isize>> {
    match side {
        Side::Panels { .. } | Side::Narrow { .. } => None,
        Side::Gather { outer_offsets, k_offsets } => {
            let first = k_offsets.first()?;
            (stride(k_offsets) == Some(1))
                .then(|| outer_offsets.iter().map(|offset| offset + first).collect())
        }
    }
}

fn few(side: &Side, outer: usize, k: usize, width: usize) -> Few {
    if let Some(offsets) = unit_vectors(side) {
        return Few::Direct(offsets);
    }
    Few::Copy(
        (0..outer).flat_map(|outer| (0..k).map(move |k| side.offset(outer, k, width))).collect(),
    )
}

#[inline(always)]
unsafe fn dots<V: Vector, const FEW: usize, const MANY: usize>(group: &Group) {
    // SAFETY: the caller vouches for everything that the group addresses; see `DotsFunction`.
    unsafe {
        let many: [*const f32; MANY] =
            core::array::from_fn(|i| group.many_base.wrapping_offset(group.many[i]));
        let mut sums = [[V::zero(); FEW]; MANY];
        let mut k = 0;
        while k + V::LANES <= group.k {
            let few: [V; FEW] = core::array::from_fn(|i| V::load(group.few[i].wrapping_add(k)));
            for (sums, many) in sums.iter_mut().zip(many) {
                let vector = V::load(many.wrapping_add(k));
                for (sum, few) in sums.iter_mut().zip(few) {
                    *sum = vector.multiply_add(few, *sum);
                }
            }
            k += V::LANES;
        }
        if k < group.k {
            let mask = V::mask(0, group.k - k);
            let few: [V; FEW] =
                core::array::from_fn(|i| V::load_masked(group.few[i].wrapping_add(k), mask));
            for (sums, many) in sums.iter_mut().zip(many) {
                let vector = V::load_masked(many.wrapping_add(k), mask);
                for (sum, few) in sums.iter_mut().zip(few) {
                    *sum = vector.multiply_add(few, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let target = group.acc.wrapping_add(i * group.many_step + j * group.few_step);
                let sum = sum.sum();
                *target = if group.add { *target + sum } else { sum };
            }
        }
    }
}

macro_rules! instruction_set {
    ($module:ident, $vector:ty $(, #[$features:meta])?) => {
        mod $module {
            use super::*;

            $(#[$features])?
            unsafe fn run<const FEW: usize, const MANY: usize>(group: &Group) {
                // SAFETY: the features are enabled, and the caller vouches for the addresses.
                unsafe { dots::<$vector, FEW, MANY>(group) }
            }

            pub(super) fn functions(few: usize) -> [DotsFunction; 2] {
                match few {
                    1 => [run::<1, MOST_AT_ONCE>, run::<1, 1>],
                    2 => [run::<2, { MOST_AT_ONCE / 2 }>, run::<2, 1>],
                    3 => [run::<3, { MOST_AT_ONCE / 2 }>, run::<3, 1>],
                    _ => [run::<FEW_AT_ONCE, { MOST_AT_ONCE / 2 }>, run::<FEW_AT_ONCE, 1>],
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
instruction_set!(avx512, __m512, #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]);
#[cfg(target_arch = "x86_64")]
instruction_set!(avx2, __m256, #[target_feature(enable = "avx2,fma")]);
#[cfg(target_arch = "x86_64")]
instruction_set!(sse, __m128);
instruction_set!(portable, Portable);

/// The functions for `few` vectors.
fn functions(cpu: Cpu, few: usize) -> [DotsFunction; 2] {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 => avx512::functions(few),
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2 => avx2::functions(few),
        #[cfg(target_arch = "x86_64")]
        Cpu::Baseline => sse::functions(few),
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Avx512 | Cpu::Avx2 | Cpu::Baseline => portable::functions(few),
        Cpu::Neon => portable::functions(few),
    }
}
