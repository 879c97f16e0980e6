//! A product agrees with the plain loop in f64, whatever its sizes, offsets and instruction set.

use super::cranelift_leaf::{Fused, host_leaf};
use super::tile::Leaf;
use super::{ContractPlan, Cpu, Narrow, Scale, Side, contract, pack, panel_widths};
use crate::pool::{Team, lend};
use std::sync::LazyLock;

/// A small deterministic generator; the numbers only need to be varied.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mixed = (self.0 >> 29) ^ self.0;
        mixed.wrapping_mul(0xbf58476d1ce4e5b9) >> 24
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(super) fn value(&mut self) -> f32 {
        (self.next() % 20001) as f32 / 10000.0 - 1.0
    }
}

/// How a side's elements lie in its buffer.
#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Consecutive outer elements lie side by side; rows of k are apart.
    OuterUnit,
    /// Consecutive elements along k lie side by side.
    SummedUnit,
    /// Both axes have strides.
    Strided,
    /// Pieces of four along the outer axis, as a window over an image has.
    OuterPieces,
    /// Pieces of five along k.
    SummedPieces,
    /// Every second element along the outer axis.
    OuterTwo,
    /// No order at all.
    Scattered,
    /// Packed ahead.
    Panels,
}

const LAYOUTS: [Layout; 8] = [
    Layout::OuterUnit,
    Layout::SummedUnit,
    Layout::Strided,
    Layout::OuterPieces,
    Layout::SummedPieces,
    Layout::OuterTwo,
    Layout::Scattered,
    Layout::Panels,
];

/// Outer offsets, offsets along k, and the extent of the buffer that they lead into.
fn offsets(
    layout: Layout,
    outer: usize,
    k: usize,
    random: &mut Random,
) -> (Vec<isize>, Vec<isize>, usize) {
    let gap = random.below(4);
    let stride =
        |extent: usize, step: usize| (0..extent).map(|i| (i * step) as isize).collect::<Vec<_>>();
    let pieces = |extent: usize, piece: usize, step: usize| {
        (0..extent).map(|i| (i / piece * step + i % piece) as isize).collect::<Vec<_>>()
    };
    let (outer_offsets, k_offsets) = match layout {
        Layout::OuterUnit | Layout::Panels => (stride(outer, 1), stride(k, outer + gap)),
        Layout::SummedUnit => (stride(outer, k + gap), stride(k, 1)),
        Layout::Strided => (stride(outer, 3), stride(k, 3 * outer + gap)),
        Layout::OuterPieces => (pieces(outer, 4, 6), stride(k, outer.div_ceil(4) * 6 + gap)),
        Layout::SummedPieces => (stride(outer, k.div_ceil(5) * 7 + gap), pieces(k, 5, 7)),
        Layout::OuterTwo => (stride(outer, 2), stride(k, 2 * outer + gap)),
        Layout::Scattered => (
            (0..outer).map(|_| random.below(500) as isize).collect(),
            (0..k).map(|_| random.below(500) as isize - 250).map(|offset| offset + 250).collect(),
        ),
    };
    let last = |offsets: &[isize]| offsets.iter().copied().max().unwrap_or(0) as usize;
    let extent = last(&outer_offsets) + last(&k_offsets) + 1;
    (outer_offsets, k_offsets, extent)
}

pub(super) fn cpus() -> Vec<Cpu> {
    [Cpu::Baseline, Cpu::Neon, Cpu::Avx2, Cpu::Avx512]
        .into_iter()
        .filter(|cpu| cpu.is_supported())
        .collect()
}

/// Runs one product and compares it with the plain loop.
fn check(cpu: Cpu, sizes: [usize; 3], a_layout: Layout, b_layout: Layout, random: &mut Random) {
    check_with_leaf(cpu, None, sizes, a_layout, b_layout, random);
}

fn check_with_leaf(
    cpu: Cpu,
    leaf: Option<Leaf>,
    [m, n, k]: [usize; 3],
    a_layout: Layout,
    b_layout: Layout,
    random: &mut Random,
) {
    let (a_outer, a_k, a_extent) = offsets(a_layout, m, k, random);
    let (b_outer, b_k, b_extent) = offsets(b_layout, n, k, random);
    let a_values: Vec<f32> = (0..a_extent).map(|_| random.value()).collect();
    let b_values: Vec<f32> = (0..b_extent).map(|_| random.value()).collect();
    let (m_width, n_width) = panel_widths(cpu);
    let side =
        |layout: Layout, values: &[f32], outer: &[isize], k: &[isize], width: usize| match layout {
            Layout::Panels => (
                Side::Panels { panel_stride: k.len() * width },
                pack(values, outer, k, width).into_boxed_slice(),
            ),
            Layout::OuterUnit
            | Layout::SummedUnit
            | Layout::Strided
            | Layout::OuterPieces
            | Layout::SummedPieces
            | Layout::OuterTwo
            | Layout::Scattered => (
                Side::Gather { outer_offsets: outer.to_vec(), k_offsets: k.to_vec() },
                values.into(),
            ),
        };
    let (a_side, a_data) = side(a_layout, &a_values, &a_outer, &a_k, m_width);
    let (b_side, b_data) = side(b_layout, &b_values, &b_outer, &b_k, n_width);
    let plan = ContractPlan::with_leaf([m, n, k], a_side, b_side, cpu, leaf);
    let mut scratch = vec![0u8; plan.scratch_bytes()];
    let row_stride = n + random.below(5);
    for add in [0, 1] {
        const GUARD: f32 = 12345.0;
        let mut acc = vec![GUARD; m * row_stride + 16];
        let before: Vec<f32> = (0..m * n).map(|_| random.value()).collect();
        for row in 0..m {
            acc[row * row_stride..][..n].copy_from_slice(&before[row * n..][..n]);
        }
        let mut shared = acc.clone();
        let mut run = |acc: &mut [f32]| {
            // SAFETY: the buffers hold every addressed element, and scratch what the plan asks for.
            unsafe {
                contract(
                    &plan,
                    a_data.as_ptr(),
                    b_data.as_ptr(),
                    std::ptr::null(),
                    acc.as_mut_ptr(),
                    row_stride,
                    add,
                    scratch.as_mut_ptr(),
                );
            }
        };
        run(&mut acc);
        if plan.is_worth_sharing() {
            lend(&*TEAM, 3, || run(&mut shared));
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(
                bits(&acc) == bits(&shared),
                "{cpu:?} {m}x{n}x{k} {a_layout:?} {b_layout:?} differs on several threads"
            );
        }
        for row in 0..m {
            for column in 0..n {
                let terms = (0..k).map(|i| {
                    f64::from(a_values[(a_outer[row] + a_k[i]) as usize])
                        * f64::from(b_values[(b_outer[column] + b_k[i]) as usize])
                });
                let sum: f64 = terms.sum::<f64>()
                    + if add == 0 { 0.0 } else { f64::from(before[row * n + column]) };
                let found = f64::from(acc[row * row_stride + column]);
                let allowed = 1e-6 * (k as f64 + 4.0);
                assert!(
                    (found - sum).abs() <= allowed,
                    "{cpu:?} {m}x{n}x{k} {a_layout:?} {b_layout:?} add {add} at [{row}, {column}]: {found}, not {sum}"
                );
            }
            assert!(
                acc[row * row_stride + n..(row + 1) * row_stride]
                    .iter()
                    .all(|value| *value == GUARD),
                "{cpu:?} {m}x{n}x{k} {a_layout:?} {b_layout:?} wrote between rows"
            );
        }
        assert!(
            acc[m * row_stride..].iter().all(|value| *value == GUARD),
            "{cpu:?} {m}x{n}x{k} wrote past the end"
        );
    }
}

/// Threads for products that are shared.
static TEAM: LazyLock<Team> = LazyLock::new(|| Team::new(3));

#[test]
fn shared_products_agree_to_the_bit() {
    let mut random = Random(9);
    for cpu in cpus() {
        for (index, a_layout) in LAYOUTS.into_iter().enumerate() {
            let b_layout = LAYOUTS[(index * 3 + 1) % LAYOUTS.len()];
            // Many columns, few columns, one, and several blocks of the summed axis.
            for sizes in [[33, 500, 41], [300, 40, 50], [600, 30, 40], [20, 70, 800]] {
                check(cpu, sizes, a_layout, b_layout, &mut random);
            }
        }
        // Several blocks of rows.
        check(cpu, [700, 90, 400], Layout::SummedUnit, Layout::OuterUnit, &mut random);
    }
}

#[test]
fn small_products_agree() {
    let mut random = Random(1);
    for cpu in cpus() {
        for a_layout in LAYOUTS {
            for b_layout in LAYOUTS {
                for _ in 0..12 {
                    let sizes = [1 + random.below(40), 1 + random.below(80), 1 + random.below(50)];
                    check(cpu, sizes, a_layout, b_layout, &mut random);
                }
            }
        }
    }
}

#[test]
fn every_edge_agrees() {
    let mut random = Random(2);
    for cpu in cpus() {
        let (m_width, n_width) = panel_widths(cpu);
        for m in 1..=2 * m_width + 1 {
            for n in [1, 2, n_width / 2, n_width - 1, n_width, n_width + 1, 2 * n_width + 3] {
                let a_layout = LAYOUTS[random.below(LAYOUTS.len())];
                let b_layout = LAYOUTS[random.below(LAYOUTS.len())];
                let k = 1 + random.below(40);
                check(cpu, [m, n, k], a_layout, b_layout, &mut random);
            }
        }
    }
}

#[test]
fn few_rows_agree() {
    let mut random = Random(3);
    for cpu in cpus() {
        for m in 1..=9 {
            for a_layout in LAYOUTS {
                for b_layout in LAYOUTS {
                    let sizes = [m, 1 + random.below(200), 1 + random.below(300)];
                    check(cpu, sizes, a_layout, b_layout, &mut random);
                }
            }
        }
    }
}

#[test]
fn blocked_products_agree() {
    let mut random = Random(4);
    for cpu in cpus() {
        for [m, n, k] in [[37, 70, 1100], [600, 20, 700], [30, 2500, 530]] {
            let a_layout = LAYOUTS[random.below(LAYOUTS.len())];
            let b_layout = LAYOUTS[random.below(LAYOUTS.len())];
            check(cpu, [m, n, k], a_layout, b_layout, &mut random);
        }
    }
}

#[test]
fn empty_sum_is_zero() {
    let mut random = Random(5);
    for cpu in cpus() {
        check(cpu, [3, 5, 0], Layout::SummedUnit, Layout::OuterUnit, &mut random);
        check(cpu, [0, 5, 3], Layout::SummedUnit, Layout::OuterUnit, &mut random);
        check(cpu, [3, 0, 3], Layout::SummedUnit, Layout::OuterUnit, &mut random);
    }
}

#[test]
fn leaves_of_cranelift_agree() {
    let mut random = Random(6);
    let mut leaves = vec![host_leaf(Fused::No)];
    if Cpu::Avx2.is_supported() || Cpu::detect() == Cpu::Neon {
        leaves.push(host_leaf(Fused::Yes));
    }
    for leaf in leaves {
        let leaf = leaf.expect("Cranelift has code for this architecture");
        for a_layout in LAYOUTS {
            for b_layout in LAYOUTS {
                let sizes = [6 + random.below(40), 8 + random.below(80), 1 + random.below(50)];
                check_with_leaf(Cpu::Baseline, Some(leaf), sizes, a_layout, b_layout, &mut random);
            }
        }
    }
}

/// The values of narrow elements, and their bytes.
fn narrow_values(narrow: Narrow, count: usize, random: &mut Random) -> (Vec<f32>, Vec<u8>) {
    let mut values = Vec::new();
    let mut bytes = Vec::new();
    for _ in 0..count {
        match narrow {
            Narrow::I8 => {
                let code = random.below(256) as u8;
                values.push(f32::from(code.cast_signed()));
                bytes.push(code);
            }
            Narrow::U8 => {
                let code = random.below(256) as u8;
                values.push(f32::from(code));
                bytes.push(code);
            }
            Narrow::BF16 => {
                let half = (random.value().to_bits() >> 16) as u16;
                values.push(f32::from_bits(u32::from(half) << 16));
                bytes.extend(half.to_ne_bytes());
            }
        }
    }
    (values, bytes)
}

#[test]
fn narrow_panels_give_what_wide_ones_give() {
    let mut random = Random(10);
    for cpu in cpus() {
        let (_, width) = panel_widths(cpu);
        for narrow in [Narrow::I8, Narrow::U8, Narrow::BF16] {
            for scale in [Scale::None, Scale::One, Scale::Columns] {
                let sizes: [[usize; 3]; 7] = [
                    [1, 1, 1],
                    [1, 45, 70],
                    [2, 70, 33],
                    [3, 40, 801],
                    [9, 33, 40],
                    [40, 70, 900],
                    [700, 40, 400],
                ];
                for [m, n, k] in sizes {
                    let panels = n.div_ceil(width);
                    let (values, bytes) = narrow_values(narrow, panels * k * width, &mut random);
                    let scales: Vec<f32> = match scale {
                        Scale::None => Vec::new(),
                        Scale::One => vec![random.value()],
                        Scale::Columns => (0..n).map(|_| random.value()).collect(),
                    };
                    let factor = |column: usize| match scale {
                        Scale::None => 1.0,
                        Scale::One => scales[0],
                        Scale::Columns => scales.get(column).copied().unwrap_or(0.0),
                    };
                    let wide: Vec<f32> = values
                        .iter()
                        .enumerate()
                        .map(|(at, value)| value * factor(at / (k * width) * width + at % width))
                        .collect();
                    let a: Vec<f32> = (0..m * k).map(|_| random.value()).collect();
                    let offsets = |extent, step: usize| {
                        (0..extent).map(|i: usize| (i * step) as isize).collect()
                    };
                    let run = |b: Side, data: *const f32, threads: usize| {
                        // Rows lie side by side along `k`, or the elements of one `k` do.
                        let [row_step, k_step] = if k % 2 == 0 { [k, 1] } else { [1, m] };
                        let rows = Side::Gather {
                            outer_offsets: offsets(m, row_step),
                            k_offsets: offsets(k, k_step),
                        };
                        let plan = ContractPlan::new(m, n, k, rows, b, cpu);
                        let mut scratch = vec![0u8; plan.scratch_bytes()];
                        let mut acc = vec![0.0f32; m * n];
                        let mut call = || {
                            // SAFETY: the buffers hold every addressed element, and scratch what the plan asks for.
                            unsafe {
                                contract(
                                    &plan,
                                    a.as_ptr(),
                                    data,
                                    scales.as_ptr(),
                                    acc.as_mut_ptr(),
                                    n,
                                    0,
                                    scratch.as_mut_ptr(),
                                );
                            }
                        };
                        match threads {
                            1 => call(),
                            threads => lend(&*TEAM, threads, call),
                        }
                        acc.iter().map(|value| value.to_bits()).collect::<Vec<_>>()
                    };
                    let panel_stride = k * width;
                    let expected = run(Side::Panels { panel_stride }, wide.as_ptr(), 1);
                    for threads in [1, 3] {
                        let side = Side::Narrow { panel_stride, narrow, scale };
                        assert!(
                            run(side, bytes.as_ptr().cast(), threads) == expected,
                            "{cpu:?} {m}x{n}x{k} {narrow:?} {scale:?} on {threads} threads"
                        );
                    }
                }
            }
        }
    }
}
