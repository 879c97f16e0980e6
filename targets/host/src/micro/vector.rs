//! One vector of f32 in each instruction set. Kernels are written once over [`Vector`] and compiled for each set inside
//! functions that enable its features, into which these methods are inlined.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64 as arch;

/// A register of `LANES` f32.
///
/// # Safety
/// Every method needs the machine to have the implementor's instructions; pointers need only be readable or writable
/// for the lanes that are named, at any alignment.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// Says which lanes a masked access touches.
    type Mask: Copy;

    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Lanes `first..end`.
    unsafe fn mask(first: usize, end: usize) -> Self::Mask;
    /// The lanes of the mask, the others zero. `from` is where lane zero would lie.
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self;
    /// Lanes of the mask from memory, the others from `self`.
    unsafe fn or_masked(self, from: *const f32, mask: Self::Mask) -> Self;
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask);
    unsafe fn add(self, other: Self) -> Self;
    /// `self * factor + term`, fused where the set can.
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self;
    /// The sum of all lanes.
    unsafe fn sum(self) -> f32;
    /// Transposes the block whose rows are the first `LANES` vectors.
    unsafe fn transpose(rows: &mut [Self; MOST_LANES]);
}

/// Asks for the line of an address, which need not be readable.
#[inline(always)]
pub(super) fn prefetch(address: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch has no effect that a program sees, whatever the address; every x86-64 has it.
    unsafe {
        arch::_mm_prefetch::<{ arch::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The widest vector's lanes.
pub(super) const MOST_LANES: usize = 16;

#[cfg(target_arch = "x86_64")]
impl Vector for arch::__m512 {
    const LANES: usize = 16;
    type Mask = arch::__mmask16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { arch::_mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { arch::_mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { arch::_mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { arch::_mm512_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn mask(first: usize, end: usize) -> Self::Mask {
        (((1u32 << end) - 1) & !((1u32 << first) - 1)) as u16
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self {
        unsafe { arch::_mm512_maskz_loadu_ps(mask, from) }
    }
    #[inline(always)]
    unsafe fn or_masked(self, from: *const f32, mask: Self::Mask) -> Self {
        unsafe { arch::_mm512_mask_loadu_ps(self, mask, from) }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask) {
        unsafe { arch::_mm512_mask_storeu_ps(to, mask, self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { arch::_mm512_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        unsafe { arch::_mm512_fmadd_ps(self, factor, term) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { arch::_mm512_reduce_add_ps(self) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; MOST_LANES]) {
        use arch::{
            _mm512_castpd_ps, _mm512_castps_pd, _mm512_shuffle_f32x4, _mm512_unpackhi_pd,
            _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
        };
        // Pairs of rows, then fours of rows within each 128-bit lane, then the lanes themselves.
        unsafe {
            let mut pairs = *rows;
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            let mut fours = pairs;
            for i in 0..4 {
                for half in 0..2 {
                    let low = _mm512_castps_pd(pairs[4 * i + half]);
                    let high = _mm512_castps_pd(pairs[4 * i + 2 + half]);
                    fours[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                    fours[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
                }
            }
            // `fours[4 * i + j]` holds, in 128-bit lane `l`, rows 4i..4i+4 of column 4l + j.
            for j in 0..4 {
                let even_low = _mm512_shuffle_f32x4::<0x88>(fours[j], fours[4 + j]);
                let odd_low = _mm512_shuffle_f32x4::<0xdd>(fours[j], fours[4 + j]);
                let even_high = _mm512_shuffle_f32x4::<0x88>(fours[8 + j], fours[12 + j]);
                let odd_high = _mm512_shuffle_f32x4::<0xdd>(fours[8 + j], fours[12 + j]);
                rows[j] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
                rows[8 + j] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
                rows[4 + j] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
                rows[12 + j] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for arch::__m256 {
    const LANES: usize = 8;
    type Mask = arch::__m256i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { arch::_mm256_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { arch::_mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { arch::_mm256_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { arch::_mm256_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn mask(first: usize, end: usize) -> Self::Mask {
        unsafe {
            let lanes = arch::_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let from_first =
                arch::_mm256_cmpgt_epi32(lanes, arch::_mm256_set1_epi32(first as i32 - 1));
            let before_end = arch::_mm256_cmpgt_epi32(arch::_mm256_set1_epi32(end as i32), lanes);
            arch::_mm256_and_si256(from_first, before_end)
        }
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self {
        unsafe { arch::_mm256_maskload_ps(from, mask) }
    }
    #[inline(always)]
    unsafe fn or_masked(self, from: *const f32, mask: Self::Mask) -> Self {
        unsafe {
            let loaded = arch::_mm256_maskload_ps(from, mask);
            arch::_mm256_blendv_ps(self, loaded, arch::_mm256_castsi256_ps(mask))
        }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask) {
        unsafe { arch::_mm256_maskstore_ps(to, mask, self) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { arch::_mm256_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        unsafe { arch::_mm256_fmadd_ps(self, factor, term) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let half = arch::_mm_add_ps(
                arch::_mm256_castps256_ps128(self),
                arch::_mm256_extractf128_ps::<1>(self),
            );
            half.sum()
        }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; MOST_LANES]) {
        use arch::{
            _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
        };
        unsafe {
            let mut pairs = *rows;
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            let mut fours = pairs;
            for i in 0..2 {
                for half in 0..2 {
                    let (low, high) = (pairs[4 * i + half], pairs[4 * i + 2 + half]);
                    fours[4 * i + 2 * half] = _mm256_shuffle_ps::<0x44>(low, high);
                    fours[4 * i + 2 * half + 1] = _mm256_shuffle_ps::<0xee>(low, high);
                }
            }
            for j in 0..4 {
                rows[j] = _mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]);
                rows[4 + j] = _mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Vector for arch::__m128 {
    const LANES: usize = 4;
    type Mask = (usize, usize);

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { arch::_mm_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { arch::_mm_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { arch::_mm_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { arch::_mm_storeu_ps(to, self) }
    }
    #[inline(always)]
    unsafe fn mask(first: usize, end: usize) -> Self::Mask {
        (first, end)
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self {
        unsafe { Self::zero().or_masked(from, mask) }
    }
    #[inline(always)]
    unsafe fn or_masked(self, from: *const f32, mask: Self::Mask) -> Self {
        if mask == (0, 4) {
            return unsafe { Self::load(from) };
        }
        let mut lanes = [0.0f32; 4];
        unsafe {
            self.store(lanes.as_mut_ptr());
            for (lane, value) in lanes.iter_mut().enumerate().take(mask.1).skip(mask.0) {
                *value = *from.wrapping_add(lane);
            }
            Self::load(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask) {
        if mask == (0, 4) {
            return unsafe { self.store(to) };
        }
        let mut lanes = [0.0f32; 4];
        unsafe {
            self.store(lanes.as_mut_ptr());
            for (lane, value) in lanes.iter().enumerate().take(mask.1).skip(mask.0) {
                *to.wrapping_add(lane) = *value;
            }
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { arch::_mm_add_ps(self, other) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        unsafe { arch::_mm_add_ps(arch::_mm_mul_ps(self, factor), term) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let pairs = arch::_mm_add_ps(self, arch::_mm_movehl_ps(self, self));
            let both = arch::_mm_add_ss(pairs, arch::_mm_shuffle_ps::<1>(pairs, pairs));
            arch::_mm_cvtss_f32(both)
        }
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; MOST_LANES]) {
        let [a, b, c, d, ..] = rows;
        unsafe { arch::_MM_TRANSPOSE4_PS(a, b, c, d) }
    }
}

/// Four lanes in plain Rust, for architectures without kernels of their own; compilers make vector code of it.
#[derive(Clone, Copy)]
pub(super) struct Portable(pub(super) [f32; 4]);

impl Vector for Portable {
    const LANES: usize = 4;
    type Mask = (usize, usize);

    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([0.0; 4])
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Portable([value; 4])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Portable(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn mask(first: usize, end: usize) -> Self::Mask {
        (first, end)
    }
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self {
        unsafe { Portable([0.0; 4]).or_masked(from, mask) }
    }
    #[inline(always)]
    unsafe fn or_masked(mut self, from: *const f32, mask: Self::Mask) -> Self {
        for (lane, value) in self.0.iter_mut().enumerate().take(mask.1).skip(mask.0) {
            *value = unsafe { *from.wrapping_add(lane) };
        }
        self
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask) {
        for (lane, value) in self.0.iter().enumerate().take(mask.1).skip(mask.0) {
            unsafe { *to.wrapping_add(lane) = *value };
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Portable(core::array::from_fn(|lane| self.0[lane] + other.0[lane]))
    }
    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        Portable(core::array::from_fn(|lane| {
            if cfg!(target_arch = "aarch64") {
                self.0[lane].mul_add(factor.0[lane], term.0[lane])
            } else {
                self.0[lane] * factor.0[lane] + term.0[lane]
            }
        }))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let [a, b, c, d] = self.0;
        (a + c) + (b + d)
    }
    #[inline(always)]
    unsafe fn transpose(rows: &mut [Self; MOST_LANES]) {
        let old = *rows;
        for (i, row) in rows.iter_mut().enumerate().take(4) {
            row.0 = core::array::from_fn(|j| old[j].0[i]);
        }
    }
}
