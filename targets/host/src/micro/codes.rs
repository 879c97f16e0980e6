//! Products of bytes, summed exactly in i32, with `B` packed ahead in panels `[k / 4][columns][k % 4]`.
//!
//! The machine's instruction multiplies unsigned by signed bytes, so that `A`, which is copied anyway, is moved to the
//! signs that `B` has not; the sums of the columns take that back.

use super::{Cpu, panel_widths};
use crate::pool;

/// The signs of a side's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// From -128 to 127.
    Signed,
    /// From 0 to 255.
    Unsigned,
}

/// Summed elements that lie together in a panel.
pub const TOGETHER: usize = 4;

/// A product with everything known but the addresses.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    /// Rows, columns, and the summed extent.
    sizes: [usize; 3],
    /// The signs of `A` and of `B`.
    signs: [Sign; 2],
    /// Bytes from one row of `A` to the next; elements along `k` lie side by side.
    a_stride: usize,
    /// Bytes from one panel of `B` to the next.
    panel_stride: usize,
    width: usize,
    tile: TileFunction,
}

/// The addresses of one run.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// The first element of `A`.
    pub(super) a: *const u8,
    /// The first panel of `B`.
    pub(super) b: *const u8,
    /// The result.
    pub(super) acc: *mut i32,
    /// Elements from one row of the result to the next.
    pub(super) acc_row_stride: usize,
    /// Whether it is added to what is there.
    pub(super) add: bool,
}

/// Rows of a tile.
const ROWS: usize = 14;
/// The fewest multiplications that are worth sharing.
const WORTH_SHARING: usize = 1 << 20;

/// Up to [`ROWS`] rows against one panel.
pub(super) struct Tile {
    /// Groups of [`TOGETHER`] along `k`; there is one at least.
    pub(super) groups: usize,
    pub(super) rows: usize,
    pub(super) a: *const u8,
    /// Bytes from one row to the next, a multiple of [`TOGETHER`].
    pub(super) a_stride: usize,
    pub(super) b: *const u8,
    /// The sums of a whole panel's columns, row after row.
    pub(super) sums: *mut i32,
    /// Which side is unsigned.
    pub(super) a_is_unsigned: bool,
    pub(super) width: usize,
}

/// Computes the sums of one tile.
///
/// # Safety
/// The machine has the instruction set, and what the tile addresses is readable and writable.
pub(super) type TileFunction = unsafe fn(&Tile);

impl Codes {
    pub(super) fn new(
        sizes: [usize; 3],
        signs: [Sign; 2],
        a_stride: usize,
        panel_stride: usize,
        cpu: Cpu,
    ) -> Codes {
        let width = panel_widths(cpu).1;
        Codes { sizes, signs, a_stride, panel_stride, width, tile: tile_function(cpu) }
    }

    /// Bytes of a copied row of `A`.
    fn row_bytes(&self) -> usize {
        // A gap keeps rows from meeting in the same set of the cache.
        self.sizes[2].next_multiple_of(64) + 64
    }

    /// Bytes of scratch that a run needs: the rows, and one of ones.
    pub(super) fn scratch_bytes(&self) -> usize {
        (self.sizes[0] + 1) * self.row_bytes()
    }

    /// Computes the product; `k` is not zero.
    ///
    /// # Safety
    /// The operands hold every element that the plan addresses, `acc` has rows of writable elements that no operand
    /// overlaps, and `scratch` has [`Codes::scratch_bytes`] writable bytes that nobody else uses during the call.
    pub(super) unsafe fn run(&self, operands: Operands, scratch: *mut u8) {
        let [m, n, k] = self.sizes;
        let work = Work { plan: self, operands, rows: scratch };
        let whole = &work;
        // SAFETY: the scratch holds one row more than there are.
        let ones = unsafe {
            std::slice::from_raw_parts_mut(scratch.add(m * self.row_bytes()), self.row_bytes())
        };
        ones[..k].fill(1);
        ones[k..].fill(0);
        let is_shared = m.saturating_mul(n).saturating_mul(k) >= WORTH_SHARING;
        let most = if is_shared { usize::MAX } else { 1 };
        // SAFETY: every row is copied once, then every panel computed once.
        pool::share_among(most, m, m.div_ceil(8), &|row, _| unsafe { whole.copy_row(row) });
        let panels = n.div_ceil(self.width);
        // SAFETY: as above.
        pool::share_among(most, panels, panels.div_ceil(16), &|panel, _| unsafe {
            whole.panel(panel);
        });
    }
}

struct Work<'p> {
    plan: &'p Codes,
    operands: Operands,
    /// The copied rows of `A`.
    rows: *mut u8,
}

// SAFETY: shares write to different rows of scratch and to different columns of the result, and read what was written
// before they began.
unsafe impl Sync for Work<'_> {}

/// What is added to signed bytes to make them unsigned, and the other way.
const SHIFT: i32 = 128;

impl Work<'_> {
    /// What the bytes of `A` are moved by, so that their signs are not those of `B`.
    fn shift(&self) -> i32 {
        match self.plan.signs {
            [Sign::Signed, Sign::Signed] => SHIFT,
            [Sign::Unsigned, Sign::Unsigned] => -SHIFT,
            [Sign::Signed, Sign::Unsigned] | [Sign::Unsigned, Sign::Signed] => 0,
        }
    }

    fn a_is_unsigned(&self) -> bool {
        self.plan.signs[1] == Sign::Signed
    }

    /// Copies a row of `A`, moved to the right signs, with zeros behind it.
    ///
    /// # Safety
    /// The row is readable, and nobody else copies it.
    unsafe fn copy_row(&self, row: usize) {
        let k = self.plan.sizes[2];
        let bytes = self.plan.row_bytes();
        // SAFETY: the caller's promise.
        let (from, to) = unsafe {
            (
                std::slice::from_raw_parts(self.operands.a.add(row * self.plan.a_stride), k),
                std::slice::from_raw_parts_mut(self.rows.add(row * bytes), bytes),
            )
        };
        let flip = if self.shift() == 0 { 0 } else { 0x80 };
        for (to, from) in to.iter_mut().zip(from) {
            *to = from ^ flip;
        }
        to[k..].fill(0);
    }

    /// The result's columns of one panel.
    ///
    /// # Safety
    /// The rows have been copied, and nobody else writes these columns.
    unsafe fn panel(&self, panel: usize) {
        let plan = self.plan;
        let [m, n, k] = plan.sizes;
        let column = panel * plan.width;
        let columns = plan.width.min(n - column);
        let mut sums = [0i32; ROWS * MOST_WIDTH];
        // What the move of `A` has added to every row.
        let mut less = [0i32; MOST_WIDTH];
        let tile = Tile {
            groups: k.div_ceil(TOGETHER),
            rows: 1,
            a: self.rows.wrapping_add(m * plan.row_bytes()),
            a_stride: plan.row_bytes(),
            b: self.operands.b.wrapping_add(panel * plan.panel_stride),
            sums: sums.as_mut_ptr(),
            a_is_unsigned: self.a_is_unsigned(),
            width: plan.width,
        };
        // SAFETY: the panel and the copied rows are readable, the last of which is of ones; see the caller's promise.
        unsafe {
            if self.shift() != 0 {
                (plan.tile)(&tile);
                for (less, sum) in less.iter_mut().zip(&sums) {
                    *less = sum.wrapping_mul(self.shift());
                }
            }
            for row in (0..m).step_by(ROWS) {
                let rows = ROWS.min(m - row);
                let a = self.rows.wrapping_add(row * plan.row_bytes());
                (plan.tile)(&Tile { rows, a, sums: sums.as_mut_ptr(), ..tile });
                for index in 0..rows {
                    let start = (row + index) * self.operands.acc_row_stride + column;
                    let to = std::slice::from_raw_parts_mut(self.operands.acc.add(start), columns);
                    let sums = &sums[index * plan.width..][..columns];
                    for ((to, sum), less) in to.iter_mut().zip(sums).zip(&less) {
                        let before = if self.operands.add { *to } else { 0 };
                        *to = before.wrapping_add(sum.wrapping_sub(*less));
                    }
                }
            }
        }
    }
}

/// The columns of the widest panels.
const MOST_WIDTH: usize = 32;

fn tile_function(cpu: Cpu) -> TileFunction {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 if is_x86_feature_detected!("avx512vnni") => super::zmm_codes::tile,
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 | Cpu::Avx2 => avx2,
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Avx512 | Cpu::Avx2 => plain,
        Cpu::Baseline | Cpu::Neon => plain,
    }
}

/// The tile in plain code, of which compilers make vector code.
#[inline(always)]
unsafe fn sums<const WIDTH: usize>(tile: &Tile) {
    for row in 0..tile.rows {
        let mut sums = [0i32; WIDTH];
        for group in 0..tile.groups {
            // SAFETY: the caller makes the row and the panel readable.
            let (a, b) = unsafe {
                (
                    &*tile.a.add(row * tile.a_stride + group * TOGETHER).cast::<[u8; TOGETHER]>(),
                    &*tile.b.add(group * TOGETHER * WIDTH).cast::<[[u8; TOGETHER]; WIDTH]>(),
                )
            };
            for (sum, b) in sums.iter_mut().zip(b) {
                for (a, b) in a.iter().zip(b) {
                    let product = if tile.a_is_unsigned {
                        i32::from(*a) * i32::from(b.cast_signed())
                    } else {
                        i32::from(a.cast_signed()) * i32::from(*b)
                    };
                    *sum = sum.wrapping_add(product);
                }
            }
        }
        // SAFETY: there is a row of sums for every row.
        unsafe { tile.sums.add(row * WIDTH).cast::<[i32; WIDTH]>().write(sums) };
    }
}

unsafe fn plain(tile: &Tile) {
    // SAFETY: the caller vouches for what the tile addresses; a panel has one of these widths.
    unsafe {
        match tile.width {
            8 => sums::<8>(tile),
            16 => sums::<16>(tile),
            _ => sums::<32>(tile),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn avx2(tile: &Tile) {
    // SAFETY: as for `plain`.
    unsafe {
        match tile.width {
            16 => sums::<16>(tile),
            _ => sums::<32>(tile),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Random, cpus};
    use super::super::{ContractPlan, contract};
    use super::*;
    use crate::pool::{Team, lend};

    #[test]
    fn products_of_bytes_are_exact() {
        let mut random = Random(11);
        let team = Team::new(3);
        let value = |code: u8, sign: Sign| match sign {
            Sign::Signed => i64::from(code.cast_signed()),
            Sign::Unsigned => i64::from(code),
        };
        for cpu in cpus() {
            let width = panel_widths(cpu).1;
            for turn in 0..120 {
                let mut size = |most| 1 + random.below(most);
                let [m, n, k] = [size(40), size(80), size(90)];
                let [m, n, k] = if turn % 20 == 0 { [m, n + 300, k + 1500] } else { [m, n, k] };
                let mut pick = || [Sign::Signed, Sign::Unsigned][random.below(2)];
                let signs = [pick(), pick()];
                let a_stride = k + random.below(9);
                // Often bytes at the ends of their range, where sums of two products would not fit 16 bits.
                let mut bytes = |count: usize| -> Vec<u8> {
                    let code = |random: &mut Random| match random.below(4) {
                        0 => 255,
                        1 => 128,
                        _ => random.below(256) as u8,
                    };
                    (0..count).map(|_| code(&mut random)).collect()
                };
                let (a, b) = (bytes(m * a_stride), bytes(k * n));
                let panel_stride = k.div_ceil(TOGETHER) * TOGETHER * width;
                let mut panels = vec![0u8; n.div_ceil(width) * panel_stride];
                for i in 0..k {
                    for j in 0..n {
                        let at = (i / TOGETHER * width + j % width) * TOGETHER + i % TOGETHER;
                        panels[j / width * panel_stride + at] = b[i * n + j];
                    }
                }
                let plan = ContractPlan::of_bytes([m, n, k], signs, a_stride, panel_stride, cpu);
                let row_stride = n + random.below(4);
                let mut scratch = vec![0u8; plan.scratch_bytes()];
                let add = i64::from(turn % 3 == 0);
                let mut acc = vec![7i32; m * row_stride];
                let mut call = || {
                    // SAFETY: the buffers hold every addressed element, and scratch what the plan asks for.
                    unsafe {
                        contract(
                            &plan,
                            a.as_ptr().cast(),
                            panels.as_ptr().cast(),
                            std::ptr::null(),
                            acc.as_mut_ptr().cast(),
                            row_stride,
                            add,
                            scratch.as_mut_ptr(),
                        );
                    }
                };
                match turn % 2 {
                    0 => call(),
                    _ => lend(&team, 3, call),
                }
                for (row, found) in acc.chunks(row_stride).enumerate() {
                    for (column, found) in found.iter().enumerate() {
                        let term = |i: usize| {
                            value(a[row * a_stride + i], signs[0])
                                * value(b[i * n + column], signs[1])
                        };
                        let sum = || (0..k).map(term).sum::<i64>() + 7 * add;
                        let expected = if column < n { sum() } else { 7 };
                        assert_eq!(
                            i64::from(*found),
                            expected,
                            "{cpu:?} {m}x{n}x{k} {signs:?} at [{row}, {column}]"
                        );
                    }
                }
            }
        }
    }
}
