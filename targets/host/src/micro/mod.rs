//! Products of f32 tiles, and of bytes, for generated code, by vector micro-kernels over packed panels.
//!
//! Everything but the addresses is known when a [`ContractPlan`] is made: sizes, how the elements of each operand lie,
//! the instruction set, the blocking. Generated code calls [`contract`] with the plan and the addresses of a run.
//! A plan's results depend on the plan alone, never on the number of threads or on the addresses.
#![expect(
    unsafe_code,
    reason = "micro-kernels read and write through the raw addresses that generated code passes"
)]

mod arithmetic;
mod codes;
mod cranelift_leaf;
mod dots;
mod drive;
mod pack;
mod plan;
pub(crate) mod polynomials;
mod tile;
mod vector;
pub mod wide;
mod widen;
#[cfg(target_arch = "x86_64")]
mod zmm;
#[cfg(target_arch = "x86_64")]
mod zmm_codes;

pub use codes::{Sign, TOGETHER};
pub use pack::pack;
pub use widen::{Narrow, Scale};

use codes::Codes;
use cranelift_leaf::{Fused, host_leaf};
use drive::Operands;
use plan::Method;
use tile::Leaf;

/// The instruction set that micro-kernels may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cpu {
    /// What every machine of the architecture has; no fused multiply-add on x86-64.
    Baseline,
    /// 128-bit vectors of AArch64 with fused multiply-add.
    Neon,
    /// 256-bit vectors with fused multiply-add.
    Avx2,
    /// 512-bit vectors (AVX-512 F, DQ, BW, VL).
    Avx512,
}

impl Cpu {
    /// The best instruction set of the machine that runs this.
    pub fn detect() -> Cpu {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
            {
                return Cpu::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Cpu::Avx2;
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            return Cpu::Neon;
        }
        #[cfg(not(target_arch = "aarch64"))]
        Cpu::Baseline
    }

    /// Whether the machine that runs this has the instruction set.
    pub fn is_supported(self) -> bool {
        match self {
            Cpu::Baseline => true,
            // It is plain Rust here, so that tests can run it anywhere.
            Cpu::Neon => cfg!(any(target_arch = "aarch64", test)),
            Cpu::Avx2 => matches!(Cpu::detect(), Cpu::Avx2 | Cpu::Avx512),
            Cpu::Avx512 => Cpu::detect() == Cpu::Avx512,
        }
    }
}

/// Rows of a panel of `A` and columns of a panel of `B`, when packed ahead of a call.
pub fn panel_widths(cpu: Cpu) -> (usize, usize) {
    match cpu {
        Cpu::Baseline | Cpu::Neon => (6, 8),
        Cpu::Avx2 => (6, 16),
        Cpu::Avx512 => (14, 32),
    }
}

/// How the elements of one operand lie. `outer` is `m` for `A` and `n` for `B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// Element `(outer, k)` lies `outer_offsets[outer] + k_offsets[k]` elements after the base address.
    Gather {
        /// One offset, in elements, for every index of the outer axis.
        outer_offsets: Vec<isize>,
        /// One offset, in elements, for every index of the summed axis.
        k_offsets: Vec<isize>,
    },
    /// Packed ahead: element `(outer, k)` lies `outer / width * panel_stride + k * width + outer % width` elements after
    /// the base address, with the [`panel_widths`] of the plan's instruction set. Lanes beyond the extent are readable.
    Panels {
        /// Elements from one panel to the next; `k * width` when the whole summed extent is taken.
        panel_stride: usize,
    },
    /// The right operand alone: panels as above of narrow elements, which are widened to f32 and scaled when they are
    /// used. Scales of columns beyond the extent are not read.
    Narrow {
        /// Elements from one panel to the next.
        panel_stride: usize,
        /// The type of the elements.
        narrow: Narrow,
        /// What they are multiplied with.
        scale: Scale,
    },
}

/// A product `acc[m, n] (+)= A[m, k] · B[k, n]` with everything known but the addresses.
#[derive(Clone, Debug)]
pub struct ContractPlan {
    m: usize,
    n: usize,
    k: usize,
    method: Method,
}

impl ContractPlan {
    /// Plans a product. The lengths of gathered offsets must be the extents, and the left operand must not be narrow.
    ///
    /// # Panics
    /// If that does not hold, or if the machine lacks `cpu`.
    pub fn new(m: usize, n: usize, k: usize, a: Side, b: Side, cpu: Cpu) -> ContractPlan {
        ContractPlan::with_leaf([m, n, k], a, b, cpu, leaf(cpu))
    }

    /// Plans a product of bytes, summed in i32: rows of `A` are `a_stride` bytes apart, and panels of `B`, in which
    /// [`TOGETHER`] elements along `k` lie together, `panel_stride` bytes.
    ///
    /// # Panics
    /// If the machine lacks `cpu`.
    pub fn of_bytes(
        [m, n, k]: [usize; 3],
        signs: [Sign; 2],
        a_stride: usize,
        panel_stride: usize,
        cpu: Cpu,
    ) -> ContractPlan {
        assert!(cpu.is_supported(), "this machine lacks {cpu:?}");
        let codes = Codes::new([m, n, k], signs, a_stride, panel_stride, cpu);
        ContractPlan { m, n, k, method: Method::Codes(codes) }
    }

    /// Plans a product whose whole tiles a leaf computes, where the instruction set's tiles are as large.
    fn with_leaf(
        [m, n, k]: [usize; 3],
        a: Side,
        b: Side,
        cpu: Cpu,
        leaf: Option<Leaf>,
    ) -> ContractPlan {
        assert!(cpu.is_supported(), "this machine lacks {cpu:?}");
        assert!(!matches!(a, Side::Narrow { .. }), "the left operand is not narrow");
        check_side(&a, m, k);
        check_side(&b, n, k);
        ContractPlan { m, n, k, method: Method::new([m, n, k], &a, &b, cpu, leaf) }
    }

    /// Whether an operand is packed in every call.
    pub(crate) fn packs(&self) -> bool {
        self.method.packs()
    }

    /// Whether threads that help make it faster.
    pub(crate) fn is_worth_sharing(&self) -> bool {
        self.multiplications() >= plan::WORTH_SHARING
    }

    /// How many multiplications it does.
    pub(crate) fn multiplications(&self) -> usize {
        self.m.saturating_mul(self.n).saturating_mul(self.k)
    }

    /// Bytes of scratch that [`contract`] needs. Any alignment serves.
    pub fn scratch_bytes(&self) -> usize {
        self.method.scratch_elements() * size_of::<f32>() + CACHE_LINE_BYTES
    }
}

impl Side {
    /// Where an element lies, in elements from the base address.
    fn offset(&self, outer: usize, k: usize, width: usize) -> isize {
        match self {
            Side::Gather { outer_offsets, k_offsets } => outer_offsets[outer] + k_offsets[k],
            Side::Panels { panel_stride } | Side::Narrow { panel_stride, .. } => {
                (outer / width * panel_stride + k * width + outer % width).cast_signed()
            }
        }
    }
}

/// The leaf that Cranelift makes, for instruction sets whose kernels in Rust are no faster.
fn leaf(cpu: Cpu) -> Option<Leaf> {
    match cpu {
        Cpu::Baseline => host_leaf(Fused::No),
        Cpu::Neon if cfg!(target_arch = "aarch64") => host_leaf(Fused::Yes),
        Cpu::Neon | Cpu::Avx2 | Cpu::Avx512 => None,
    }
}

fn check_side(side: &Side, outer: usize, k: usize) {
    match side {
        Side::Gather { outer_offsets, k_offsets } => {
            assert_eq!(outer_offsets.len(), outer, "one offset for every outer index");
            assert_eq!(k_offsets.len(), k, "one offset for every summed index");
        }
        Side::Panels { .. } | Side::Narrow { .. } => {}
    }
}

/// Computes `acc[m, n] = A · B` if `add` is zero and `acc[m, n] += A · B` otherwise, in f32. Where the plan is of bytes,
/// `a` and `b` point at bytes and `acc` at i32.
///
/// # Safety
/// - `plan` points at a live plan, and this machine has the plan's instruction set;
/// - every element of `A` and `B` that the plan addresses from `a` and `b` is readable, and every scale from `b_scale`,
///   which is not used otherwise;
/// - `acc` has `m` rows of `n` writable elements, `acc_row_stride` elements apart, that no operand overlaps;
/// - `scratch` has [`ContractPlan::scratch_bytes`] writable bytes that nobody else uses during the call.
pub unsafe extern "C" fn contract(
    plan: *const ContractPlan,
    a: *const f32,
    b: *const f32,
    b_scale: *const f32,
    acc: *mut f32,
    acc_row_stride: usize,
    add: i64,
    scratch: *mut u8,
) {
    // SAFETY: the caller keeps the plan alive.
    let plan = unsafe { &*plan };
    if plan.m == 0 || plan.n == 0 {
        return;
    }
    if plan.k == 0 {
        // SAFETY: the caller makes every row of the result writable.
        return unsafe { empty_sum(plan, acc, acc_row_stride, add != 0) };
    }
    let operands = Operands { a, b, b_scale, acc, acc_row_stride, add: add != 0 };
    let scratch = scratch.wrapping_add(scratch.align_offset(CACHE_LINE_BYTES)).cast::<f32>();
    // SAFETY: the caller's promises, and scratch has a line more than the blocks need.
    unsafe {
        match &plan.method {
            Method::Tiles(tiling) => {
                drive::run(tiling, [plan.m, plan.n, plan.k], operands, scratch)
            }
            Method::Dots(dots) => dots.run(operands, scratch),
            Method::Codes(codes) => {
                let add = operands.add;
                let (a, b, acc) = (a.cast(), b.cast(), acc.cast());
                codes.run(codes::Operands { a, b, acc, acc_row_stride, add }, scratch.cast())
            }
        }
    }
}

const CACHE_LINE_BYTES: usize = 64;

/// A sum of no terms: zero, or what is there already.
///
/// # Safety
/// The result's rows are writable.
unsafe fn empty_sum(plan: &ContractPlan, acc: *mut f32, acc_row_stride: usize, add: bool) {
    if add {
        return;
    }
    for row in 0..plan.m {
        // SAFETY: the row is inside the result.
        unsafe { acc.add(row * acc_row_stride).write_bytes(0, plan.n) };
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wide_tests;
