//! Packing of operands into panels: `[panel][k][width]`, lanes beyond the extent zero.
//!
//! What an operand's offsets have in common is found once, when the plan is made. Where neighbours along the outer axis
//! lie side by side, a vector of a panel is the union of a few masked loads (one for a matrix, a few for a window over
//! an image). Where neighbours along `k` do, square blocks are loaded along `k` and transposed.

use super::Cpu;
use super::vector::{MOST_LANES, Portable, Vector, prefetch};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m128, __m256, __m512};

/// Packs a whole operand: element `(outer, k)` is `source[outer_offsets[outer] + k_offsets[k]]`. For load time and tests.
///
/// # Panics
/// If an offset leads outside `source`.
pub fn pack(
    source: &[f32],
    outer_offsets: &[isize],
    k_offsets: &[isize],
    width: usize,
) -> Vec<f32> {
    let mut panels =
        Vec::with_capacity(outer_offsets.len().div_ceil(width) * width * k_offsets.len());
    for lanes in outer_offsets.chunks(width) {
        for k_offset in k_offsets {
            for lane in lanes {
                let index =
                    usize::try_from(lane + k_offset).expect("offsets lead inside the source");
                panels.push(source[index]);
            }
            panels.resize(panels.len() + width - lanes.len(), 0.0);
        }
    }
    panels
}

/// Knows how to pack any panel of one operand.
#[derive(Clone, Debug)]
pub(super) struct Packer {
    /// Lanes of a panel.
    width: usize,
    outer_offsets: Vec<isize>,
    k_offsets: Vec<isize>,
    method: Method,
    function: PackFunction,
}

/// # Safety
/// The machine has the instruction set, the addressed elements are readable from the base, and the output is writable for
/// `count * width` elements, and [`Packer::OVERRUN`] more where `width` is not a multiple of the vector.
type PackFunction = unsafe fn(&Packer, usize, (usize, usize), *const f32, *mut f32);

#[derive(Clone, Debug)]
enum Method {
    /// `pieces[starts[i]..starts[i + 1]]` make vector `i` of the operand, counted over panels.
    Lanes { pieces: Vec<Piece>, starts: Vec<usize> },
    /// Ends of the runs of `k` whose elements lie side by side.
    Transpose { run_ends: Vec<usize> },
}

/// Lanes `first..end` of a vector, of which lane zero would lie at `offset`.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: usize,
    end: usize,
    offset: isize,
}

impl Packer {
    /// Elements beyond a panel that packing it may overwrite.
    pub(super) const OVERRUN: usize = MOST_LANES;

    pub(super) fn new(
        width: usize,
        outer_offsets: Vec<isize>,
        k_offsets: Vec<isize>,
        cpu: Cpu,
    ) -> Packer {
        let lanes = lanes(cpu);
        let (pieces, starts) = lane_pieces(width, &outer_offsets, lanes);
        let run_ends = unit_runs(&k_offsets);
        // Rough instructions for a vector of packed elements: a load for every piece, against a share of a transposition.
        let (part_cost, block_cost) = match cpu {
            Cpu::Avx512 => (1.0, 5.0),
            Cpu::Avx2 => (1.5, 4.0),
            // These have no masked loads.
            Cpu::Baseline | Cpu::Neon => (6.0, 3.0),
        };
        let vectors = (starts.len() - 1).max(1);
        let parts = pieces.iter().filter(|piece| piece.end - piece.first < lanes).count();
        let lanes_cost =
            ((pieces.len() - parts) as f64 + parts as f64 * part_cost) / vectors as f64;
        let mut begin = 0;
        let mut blocks = 0;
        for end in &run_ends {
            blocks += (end - begin).div_ceil(lanes);
            begin = *end;
        }
        let transpose_cost = block_cost * (blocks * lanes) as f64 / k_offsets.len().max(1) as f64;
        let method = if lanes_cost <= transpose_cost {
            Method::Lanes { pieces, starts }
        } else {
            Method::Transpose { run_ends }
        };
        Packer { width, outer_offsets, k_offsets, method, function: pack_function(cpu) }
    }

    /// Packs one panel for `k.0 .. k.0 + k.1` as `[k][width]`.
    ///
    /// # Safety
    /// See [`PackFunction`].
    #[inline]
    pub(super) unsafe fn pack_panel(
        &self,
        panel: usize,
        k: (usize, usize),
        base: *const f32,
        out: *mut f32,
    ) {
        // SAFETY: the caller's promise is the function's.
        unsafe { (self.function)(self, panel, k, base, out) }
    }
}

/// Splits every vector of every panel into pieces whose lanes lie side by side.
fn lane_pieces(width: usize, outer_offsets: &[isize], lanes: usize) -> (Vec<Piece>, Vec<usize>) {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut starts = vec![0];
    for panel in outer_offsets.chunks(width) {
        for begin in (0..width).step_by(lanes) {
            let end = panel.len().min(begin + lanes);
            for (lane, outer_offset) in panel.iter().take(end).skip(begin).enumerate() {
                let offset = outer_offset.wrapping_sub(lane.cast_signed());
                let start = starts[starts.len() - 1];
                match pieces[start..].last_mut() {
                    Some(piece) if piece.offset == offset => piece.end = lane + 1,
                    Some(_) | None => pieces.push(Piece { first: lane, end: lane + 1, offset }),
                }
            }
            starts.push(pieces.len());
        }
    }
    (pieces, starts)
}

/// Ends of the longest runs of consecutive offsets.
pub(super) fn unit_runs(offsets: &[isize]) -> Vec<usize> {
    let mut ends: Vec<usize> =
        (1..offsets.len()).filter(|&i| offsets[i] != offsets[i - 1].wrapping_add(1)).collect();
    if !offsets.is_empty() {
        ends.push(offsets.len());
    }
    ends
}

fn lanes(cpu: Cpu) -> usize {
    match cpu {
        Cpu::Avx512 => 16,
        Cpu::Avx2 => 8,
        Cpu::Baseline | Cpu::Neon => 4,
    }
}

#[inline(always)]
unsafe fn pack_panel<V: Vector>(
    packer: &Packer,
    panel: usize,
    (k_begin, k_count): (usize, usize),
    base: *const f32,
    out: *mut f32,
) {
    // SAFETY: the caller vouches for what the offsets lead to and for the output; see `PackFunction`.
    unsafe {
        match &packer.method {
            Method::Lanes { pieces, starts } => {
                let k_offsets = &packer.k_offsets[k_begin..k_begin + k_count];
                let vectors = packer.width.div_ceil(V::LANES);
                // The last vector may overrun the panel's width, so it comes first.
                for vector in (0..vectors).rev() {
                    let index = panel * vectors + vector;
                    let pieces = &pieces[starts[index]..starts[index + 1]];
                    let out = out.add(vector * V::LANES);
                    let target = Target { width: packer.width, out };
                    match pieces {
                        [] => target.fill::<V, 0>(&[], k_offsets, base),
                        [a] => target.fill::<V, 1>(&[*a], k_offsets, base),
                        [a, b] => target.fill::<V, 2>(&[*a, *b], k_offsets, base),
                        [a, b, c] => target.fill::<V, 3>(&[*a, *b, *c], k_offsets, base),
                        [a, b, c, d] => target.fill::<V, 4>(&[*a, *b, *c, *d], k_offsets, base),
                        pieces => target.fill_many::<V>(pieces, k_offsets, base),
                    }
                }
            }
            Method::Transpose { run_ends } => {
                let mut run = run_ends.partition_point(|&end| end <= k_begin);
                let mut k = k_begin;
                while k < k_begin + k_count {
                    let end = run_ends[run].min(k_begin + k_count);
                    while k < end {
                        let count = V::LANES.min(end - k);
                        transpose_block::<V>(
                            packer,
                            panel,
                            k,
                            count,
                            base,
                            out.add((k - k_begin) * packer.width),
                        );
                        k += count;
                    }
                    run += 1;
                }
            }
        }
    }
}

/// How many `k` ahead a row is asked for.
const K_AHEAD: usize = 16;
/// How many blocks ahead a block to transpose is asked for.
const BLOCKS_AHEAD: usize = 3;

/// Where vectors of one column of a panel go, `width` elements apart.
struct Target {
    width: usize,
    out: *mut f32,
}

impl Target {
    /// Writes a whole vector, though the panel may be narrower: what it overruns is written afterwards.
    #[inline(always)]
    unsafe fn put<V: Vector>(&self, k: usize, vector: V) {
        // SAFETY: `PackFunction` makes the panel and its overrun writable.
        unsafe { vector.store(self.out.add(k * self.width)) }
    }

    #[inline(always)]
    unsafe fn fill<V: Vector, const PIECES: usize>(
        &self,
        pieces: &[Piece; PIECES],
        k_offsets: &[isize],
        base: *const f32,
    ) {
        // SAFETY: masked loads touch only lanes that the pieces cover.
        unsafe {
            if PIECES == 1 && pieces[0].first == 0 && pieces[0].end == V::LANES {
                let from = base.wrapping_offset(pieces[0].offset);
                for (k, k_offset) in k_offsets.iter().enumerate() {
                    // Rows are often a page apart, where the machine does not see the order.
                    prefetch(
                        from.wrapping_offset(k_offsets[(k + K_AHEAD).min(k_offsets.len() - 1)]),
                    );
                    self.put(k, V::load(from.wrapping_offset(*k_offset)));
                }
                return;
            }
            let masks: [V::Mask; PIECES] =
                core::array::from_fn(|i| V::mask(pieces[i].first, pieces[i].end));
            for (k, k_offset) in k_offsets.iter().enumerate() {
                let mut vector = V::zero();
                for i in 0..PIECES {
                    vector = vector
                        .or_masked(base.wrapping_offset(pieces[i].offset + k_offset), masks[i]);
                }
                self.put(k, vector);
            }
        }
    }

    #[inline(always)]
    unsafe fn fill_many<V: Vector>(&self, pieces: &[Piece], k_offsets: &[isize], base: *const f32) {
        // SAFETY: masked loads touch only lanes that the pieces cover.
        unsafe {
            for (k, k_offset) in k_offsets.iter().enumerate() {
                let mut vector = V::zero();
                for piece in pieces {
                    let mask = V::mask(piece.first, piece.end);
                    vector = vector.or_masked(base.wrapping_offset(piece.offset + k_offset), mask);
                }
                self.put(k, vector);
            }
        }
    }
}

/// Packs `count` consecutive `k` that lie side by side, for all lanes of a panel.
#[inline(always)]
unsafe fn transpose_block<V: Vector>(
    packer: &Packer,
    panel: usize,
    k: usize,
    count: usize,
    base: *const f32,
    out: *mut f32,
) {
    let first = panel * packer.width;
    let outer = &packer.outer_offsets[first..packer.outer_offsets.len().min(first + packer.width)];
    let k_offset = packer.k_offsets[k];
    // SAFETY: the loads stay within the run of `count` elements; see `PackFunction` for the rest.
    unsafe {
        let run = V::mask(0, count);
        // The last vector may overrun the panel's width, so it comes first.
        for vector in (0..packer.width.div_ceil(V::LANES)).rev() {
            let mut rows = [V::zero(); MOST_LANES];
            let lanes = outer.iter().skip(vector * V::LANES).take(V::LANES);
            if count == V::LANES {
                for (row, offset) in rows.iter_mut().zip(lanes) {
                    let from = base.wrapping_offset(offset + k_offset);
                    prefetch(from.wrapping_add(BLOCKS_AHEAD * V::LANES));
                    *row = V::load(from);
                }
            } else {
                for (row, offset) in rows.iter_mut().zip(lanes) {
                    *row = V::load_masked(base.wrapping_offset(offset + k_offset), run);
                }
            }
            V::transpose(&mut rows);
            let target = Target { width: packer.width, out: out.add(vector * V::LANES) };
            for (step, row) in rows.iter().enumerate().take(count) {
                target.put(step, *row);
            }
        }
    }
}

macro_rules! instruction_set {
    ($name:ident, $vector:ty $(, #[$features:meta])?) => {
        $(#[$features])?
        unsafe fn $name(packer: &Packer, panel: usize, k: (usize, usize), base: *const f32, out: *mut f32) {
            // SAFETY: the features are enabled, and the caller vouches for the addresses.
            unsafe { pack_panel::<$vector>(packer, panel, k, base, out) }
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

fn pack_function(cpu: Cpu) -> PackFunction {
    match cpu {
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx512 => avx512,
        #[cfg(target_arch = "x86_64")]
        Cpu::Avx2 => avx2,
        #[cfg(target_arch = "x86_64")]
        Cpu::Baseline => sse,
        #[cfg(not(target_arch = "x86_64"))]
        Cpu::Avx512 | Cpu::Avx2 | Cpu::Baseline => portable,
        Cpu::Neon => portable,
    }
}
