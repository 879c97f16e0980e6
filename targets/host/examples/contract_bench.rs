//! Prints the speed of products of f32 tiles, with weights of other types too, and of bytes, beside the register peak of the machine, measured in the same run.
//!
//! `cargo run --release -p systole-host --example contract_bench [FILTER]`
#![expect(unsafe_code, reason = "calls the micro-kernels as generated code does")]
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

use std::hint::black_box;
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
use std::time::Instant;
use systole_host::micro::wide::{self, Wide};
use systole_host::micro::{
    ContractPlan, Cpu, Narrow, Scale, Side, Sign, TOGETHER, contract, pack, panel_widths,
};

/// Seconds that this thread has run: what else the machine does should not count.
fn thread_seconds() -> f64 {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    {
        const CLOCK_GETTIME: u64 = 228;
        const CLOCK_THREAD_CPUTIME_ID: u64 = 3;
        let mut time = [0u64; 2];
        // SAFETY: the call writes two words to `time`; it clobbers what is declared.
        unsafe {
            core::arch::asm!("syscall", inout("rax") CLOCK_GETTIME => _, in("rdi") CLOCK_THREAD_CPUTIME_ID,
                in("rsi") &mut time, out("rcx") _, out("r11") _);
        }
        time[0] as f64 + time[1] as f64 * 1e-9
    }
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_secs_f64()
    }
}

/// Seconds of the fastest of several batches.
fn fastest(mut run: impl FnMut()) -> f64 {
    run();
    let start = thread_seconds();
    run();
    let once = (thread_seconds() - start).max(1e-9);
    let repeats = ((0.0005 / once) as usize).clamp(1, 1_000_000);
    // Short batches, so that some run undisturbed on a shared machine.
    let mut best = f64::INFINITY;
    let deadline = thread_seconds() + 0.05;
    while thread_seconds() < deadline {
        let start = thread_seconds();
        for _ in 0..repeats {
            run();
        }
        best = best.min((thread_seconds() - start) / repeats as f64);
    }
    best
}

/// Multiply-adds in registers alone: GFLOP/s.
fn peak(cpu: Cpu) -> f64 {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::asm;
        const TURNS: u64 = 20_000;
        macro_rules! chain {
            ($op:literal, $register:literal, $($i:literal)*) => {
                // SAFETY: registers only, all declared; the caller checked the instruction set.
                unsafe {
                    asm!(
                        "2:",
                        $(concat!($op, " ", $register, $i, ", ", $register, "0, ", $register, "0"),)*
                        "dec {turns}",
                        "jnz 2b",
                        turns = inout(reg) TURNS => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                        out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _,
                    )
                }
            };
        }
        let flops = |lanes: u64| (TURNS * 12 * lanes * 2) as f64;
        let (lanes, seconds) = match cpu {
            Cpu::Avx512 => (
                16,
                fastest(
                    || chain!("vfmadd231ps", "zmm", "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11" "12"),
                ),
            ),
            Cpu::Avx2 => (
                8,
                fastest(
                    || chain!("vfmadd231ps", "ymm", "1" "2" "3" "4" "5" "6" "7" "8" "9" "10" "11" "12"),
                ),
            ),
            Cpu::Baseline | Cpu::Neon => {
                let seconds = fastest(|| {
                    // SAFETY: registers only, all declared.
                    unsafe {
                        asm!(
                            "2:",
                            "mulps xmm1, xmm0", "addps xmm2, xmm0", "mulps xmm3, xmm0", "addps xmm4, xmm0",
                            "mulps xmm5, xmm0", "addps xmm6, xmm0", "mulps xmm7, xmm0", "addps xmm8, xmm0",
                            "mulps xmm9, xmm0", "addps xmm10, xmm0", "mulps xmm11, xmm0", "addps xmm12, xmm0",
                            "mulps xmm1, xmm0", "addps xmm2, xmm0", "mulps xmm3, xmm0", "addps xmm4, xmm0",
                            "mulps xmm5, xmm0", "addps xmm6, xmm0", "mulps xmm7, xmm0", "addps xmm8, xmm0",
                            "mulps xmm9, xmm0", "addps xmm10, xmm0", "mulps xmm11, xmm0", "addps xmm12, xmm0",
                            "dec {turns}",
                            "jnz 2b",
                            turns = inout(reg) TURNS => _,
                            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                            out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _,
                            out("xmm11") _, out("xmm12") _,
                        )
                    }
                });
                (4, seconds)
            }
        };
        flops(lanes) / seconds / 1e9
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = cpu;
        f64::NAN
    }
}

/// How an operand is given.
enum Given {
    /// Packed before the clock starts.
    Packed,
    /// As it lies, with its offsets.
    AsItLies,
}

struct Case {
    name: String,
    /// Offsets of A along m and k, of B along n and k.
    a: [Vec<isize>; 2],
    b: [Vec<isize>; 2],
    given: [Given; 2],
}

fn run_case(case: &Case, cpu: Cpu) -> f64 {
    let [m, n, k] = [case.a[0].len(), case.b[0].len(), case.a[1].len()];
    let (m_width, n_width) = panel_widths(cpu);
    let side = |[outer, k]: &[Vec<isize>; 2], given: &Given, width: usize| {
        let extent = outer.iter().max().unwrap_or(&0) + k.iter().max().unwrap_or(&0) + 1;
        let values: Vec<f32> =
            (0..extent).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
        match given {
            Given::Packed => {
                (Side::Panels { panel_stride: k.len() * width }, pack(&values, outer, k, width))
            }
            Given::AsItLies => {
                (Side::Gather { outer_offsets: outer.clone(), k_offsets: k.clone() }, values)
            }
        }
    };
    let (a_side, a) = side(&case.a, &case.given[0], m_width);
    let (b_side, b) = side(&case.b, &case.given[1], n_width);
    let plan = ContractPlan::new(m, n, k, a_side, b_side, cpu);
    let mut scratch = vec![0u8; plan.scratch_bytes()];
    let mut acc = vec![0.0f32; m * n];
    let seconds = fastest(|| {
        // SAFETY: the buffers hold every addressed element, and scratch what the plan asks for.
        unsafe {
            let (a, b, to) = (a.as_ptr(), b.as_ptr(), acc.as_mut_ptr());
            contract(&plan, a, b, std::ptr::null(), to, n, 0, scratch.as_mut_ptr());
        }
        black_box(&mut acc);
    });
    2.0 * (m * n * k) as f64 / seconds / 1e9
}

/// The type of packed weights.
#[derive(Clone, Copy, Debug)]
enum Weights {
    /// Widened to f32 as they are used, with a scale for each column.
    Widened(Narrow),
    /// Multiplied with bytes and summed in i32.
    Bytes,
}

fn run_narrow([m, n, k]: [usize; 3], weights: Weights, cpu: Cpu) -> f64 {
    let width = panel_widths(cpu).1;
    let depth = k.next_multiple_of(TOGETHER);
    let (element_bytes, plan) = match weights {
        Weights::Widened(narrow) => {
            let a = Side::Gather { outer_offsets: line(m, k), k_offsets: line(k, 1) };
            let b = Side::Narrow { panel_stride: k * width, narrow, scale: Scale::Columns };
            (narrow.bytes(), ContractPlan::new(m, n, k, a, b, cpu))
        }
        Weights::Bytes => {
            let signs = [Sign::Unsigned, Sign::Signed];
            (1, ContractPlan::of_bytes([m, n, k], signs, k, depth * width, cpu))
        }
    };
    let a: Vec<f32> = (0..m * k).map(|i| (i * 7919 % 1000) as f32 / 500.0 - 1.0).collect();
    // Halves of such bytes are ordinary numbers.
    let count = n.next_multiple_of(width) * depth * element_bytes;
    let b: Vec<u8> = (0..count).map(|i| (i * 7919 % 31) as u8 + 32).collect();
    let scales = vec![0.5f32; n];
    let mut scratch = vec![0u8; plan.scratch_bytes()];
    let mut acc = vec![0.0f32; m * n];
    let seconds = fastest(|| {
        // SAFETY: the buffers hold every addressed element, and scratch what the plan asks for.
        unsafe {
            let (a, b, to) = (a.as_ptr().cast(), b.as_ptr().cast(), acc.as_mut_ptr());
            contract(&plan, a, b, scales.as_ptr(), to, n, 0, scratch.as_mut_ptr());
        }
        black_box(&mut acc);
    });
    2.0 * (m * n * k) as f64 / seconds / 1e9
}

/// Elements a nanosecond of a function over runs in the first-level cache.
fn wide_speed(cpu: Cpu, wide: Wide) -> f64 {
    let source: Vec<f32> = (0..768).map(|i| (i % 97) as f32 / 12.0 - 4.0).collect();
    let mut target = vec![0.0f32; source.len()];
    let function = wide::function(cpu, wide);
    let seconds = fastest(|| {
        // SAFETY: the instruction set is this machine's, and both slices have as many elements.
        unsafe { function(target.as_mut_ptr(), source.as_ptr(), source.len()) };
        black_box(&mut target);
    });
    source.len() as f64 / seconds / 1e9
}

fn line(extent: usize, step: usize) -> Vec<isize> {
    (0..extent).map(|i| (i * step) as isize).collect()
}

/// Offsets of a nest of axes, outermost first, as (extent, step).
fn nest(axes: &[(usize, usize)]) -> Vec<isize> {
    let mut offsets = vec![0];
    for (extent, step) in axes {
        offsets = offsets
            .iter()
            .flat_map(|base| (0..*extent).map(move |i| base + (i * step) as isize))
            .collect();
    }
    offsets
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut dense = |m: usize, n: usize, k: usize| {
        let name = format!("{m}x{n}x{k}");
        let row_major = || [line(m, k), line(k, 1)];
        let right = || [line(n, 1), line(k, n)];
        let transposed = || [line(n, k), line(k, 1)];
        cases.push(Case {
            name: format!("{name} B packed"),
            a: row_major(),
            b: right(),
            given: [Given::AsItLies, Given::Packed],
        });
        cases.push(Case {
            name: format!("{name} as it lies"),
            a: row_major(),
            b: right(),
            given: [Given::AsItLies, Given::AsItLies],
        });
        cases.push(Case {
            name: format!("{name} B transposed"),
            a: row_major(),
            b: transposed(),
            given: [Given::AsItLies, Given::AsItLies],
        });
    };
    for size in [64, 128, 256, 512, 1024] {
        dense(size, size, size);
    }
    for m in [1, 2, 4, 8, 16, 32, 128] {
        dense(m, 3072, 768);
    }
    // Attention of one head: 128 queries or one, 64 wide, 512 keys.
    for m in [1, 128] {
        dense(m, 512, 64);
        dense(m, 64, 512);
    }
    // Convolutions: NCHW has the image as B, NHWC as A.
    for (image, c, o, window, stride) in [
        (56, 64, 64, 3, 1),
        (28, 128, 128, 3, 1),
        (14, 256, 256, 3, 1),
        (7, 512, 512, 3, 1),
        (56, 64, 256, 1, 1),
        (56, 128, 128, 3, 2),
        (224, 3, 64, 7, 2),
    ] {
        let out = image / stride;
        let padded = image + window - 1;
        let name = format!("conv {image} {c}->{o} {window}x{window}/{stride}");
        let taps = c * window * window;
        cases.push(Case {
            name: format!("{name} nchw"),
            a: [line(o, taps), line(taps, 1)],
            b: [
                nest(&[(out, padded * stride), (out, stride)]),
                nest(&[(c, padded * padded), (window, padded), (window, 1)]),
            ],
            given: [Given::Packed, Given::AsItLies],
        });
        cases.push(Case {
            name: format!("{name} nhwc"),
            a: [
                nest(&[(out, padded * stride * c), (out, stride * c)]),
                nest(&[(window, padded * c), (window, c), (c, 1)]),
            ],
            b: [line(o, 1), line(taps, o)],
            given: [Given::AsItLies, Given::Packed],
        });
    }
    cases
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cpus: Vec<Cpu> = [Cpu::Avx512, Cpu::Avx2, Cpu::Baseline]
        .into_iter()
        .filter(|cpu| cpu.is_supported())
        .collect();
    let cpus = if arguments.iter().any(|word| word == "all") { cpus } else { vec![Cpu::detect()] };
    let words: Vec<&String> = arguments.iter().filter(|word| *word != "all").collect();
    for cpu in cpus {
        let peak_here = peak(cpu).max(peak(cpu));
        println!("{cpu:?}: register peak {peak_here:.1} GFLOP/s");
        for case in cases() {
            if words.iter().all(|word| case.name.contains(word.as_str())) {
                let speed = run_case(&case, cpu);
                println!(
                    "{:40} {speed:8.1} GFLOP/s {:5.1} %",
                    case.name,
                    100.0 * speed / peak_here
                );
            }
        }
        let kinds = [
            ("i8 weights", Weights::Widened(Narrow::I8)),
            ("bf16 weights", Weights::Widened(Narrow::BF16)),
            ("bytes", Weights::Bytes),
        ];
        for m in [1, 4, 32, 128] {
            for (name, weights) in kinds {
                let name = format!("{m}x3072x768 {name}");
                if words.iter().all(|word| name.contains(word.as_str())) {
                    let speed = run_narrow([m, 3072, 768], weights, cpu);
                    println!("{name:40} {speed:8.1} GOP/s   {:5.1} %", 100.0 * speed / peak_here);
                }
            }
        }
        for wide in
            [Wide::Exp, Wide::Tanh, Wide::Erf, Wide::Sigmoid, Wide::Gelu, Wide::Silu, Wide::Softmax]
        {
            let name = format!("{wide:?}");
            if words.iter().all(|word| name.contains(word.as_str()) || word.as_str() == "wide") {
                println!("{name:40} {:8.2} elements/ns in runs of 768", wide_speed(cpu, wide));
            }
        }
        println!("{cpu:?}: register peak {:.1} GFLOP/s afterwards", peak(cpu));
    }
}
