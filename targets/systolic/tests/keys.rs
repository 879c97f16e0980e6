//! Each key of a machine's description moves some result the right way.

use std::cmp::Ordering::{self, Greater, Less};
use std::collections::BTreeSet;
use systole_catalog::File;
use systole_systolic::asm::parse;
use systole_systolic::isa::check_program;
use systole_systolic::machine::{Machine, preset_text};
use systole_systolic::simulate::{Mode, Options, run};

/// What is looked at.
enum Result {
    /// The time of a kernel with these streams.
    Time(&'static str),
    /// The same with all cores busy.
    Shared(&'static str),
    /// Its energy.
    Energy(&'static str),
    /// How many limits it breaks.
    Limits(&'static str),
    /// A figure of the machine.
    Figure(fn(&Machine) -> f64),
}
use Result::{Energy, Figure, Limits, Shared, Time};

const WIDE: &str = "stream tensor { matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 0, [1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=single scales=none }";
const THIN: &str = "stream tensor { matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 0, [1:8]) out=psum(f32, 0, 128, 0, [1:8]) accumulate=no pace=single scales=none }";
/// A third of the array, for longer than a ramp.
const THIRD: &str = "var %i stream tensor { loop %i from 0 to 100 step 1 { matmul stationary=sbuf(bf16, 0, 128, 0, [1:42]) moving=sbuf(bf16, 0, 128, 0, [1:512]) out=psum(f32, 0, 42, 0, [1:512]) accumulate=no pace=single scales=none } }";
/// All of it for most of the time, with pauses that are shorter than the window.
const RARE: &str = "var %i stream tensor { loop %i from 0 to 100 step 1 { matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 0, [1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=single scales=none matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 0, [1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=single scales=none matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 0, [1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=single scales=none matmul stationary=sbuf(bf16, 0, 128, 0, [1:128]) moving=sbuf(bf16, 0, 128, 0, [1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=single scales=none after } }";
const FOUR: &str = "stream tensor { matmul stationary=sbuf(f32, 0, 128, 0, [1:128]) moving=sbuf(f32, 0, 128, 0, [1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=four scales=none }";
const DOUBLE: &str = "stream tensor { matmul stationary=sbuf(f8e4m3, 0, 128, 0, [128:2, 1:128]) moving=sbuf(f8e4m3, 0, 128, 0, [512:2, 1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=double-row scales=none }";
const BLOCK: &str = "stream tensor { matmul stationary=sbuf(f4e2m1, 0, 128, 0, [128:4, 1:128]) moving=sbuf(f4e2m1, 0, 128, 0, [512:4, 1:512]) out=psum(f32, 0, 128, 0, [1:512]) accumulate=no pace=block scales=none }";
const COPY: &str = "stream vector { copy input=sbuf(f32, 0, 128, 0, [1:512]) out=sbuf(f32, 0, 128, 4096, [1:512]) }";
const STRIDED: &str = "stream vector { copy input=sbuf(f32, 0, 128, 0, [4:512]) out=sbuf(f32, 0, 128, 16384, [1:512]) }";
const TINY: &str =
    "stream vector { copy input=sbuf(f32, 0, 128, 0, [1:1]) out=sbuf(f32, 0, 128, 4096, [1:1]) }";
const DYNAMIC: &str = "var %at from 0 to 64 stream vector { copy input=sbuf(f32, 0, 128, 0 + 4*%at, [1:64]) out=sbuf(f32, 0, 128, 4096, [1:64]) }";
const COPY_16: &str = "stream vector { copy input=sbuf(bf16, 0, 128, 0, [1:512]) out=sbuf(bf16, 0, 128, 4096, [1:512]) }";
const PSUM_16: &str = "stream vector { copy input=psum(bf16, 0, 128, 0, [1:512]) out=sbuf(bf16, 0, 128, 4096, [1:512]) }";
const FAR_BANK: &str = "stream vector { copy input=psum(f32, 0, 128, 2048, [1:512]) out=sbuf(f32, 0, 128, 4096, [1:512]) }";
const PAIR_16: &str = "stream vector { tensor-tensor alu=add a=sbuf(bf16, 0, 128, 0, [1:512]) b=sbuf(bf16, 0, 128, 1024, [1:512]) out=sbuf(bf16, 0, 128, 4096, [1:512]) }";
const REDUCING: &str = "stream vector { tensor-scalar input=sbuf(f32, 0, 128, 0, [1:512]) first=add(1.0) second=none out=sbuf(f32, 0, 128, 4096, [1:512]) reduce=sum into sbuf(f32, 0, 128, 0, [1:1]) }";
const FAST_EXP: &str = "stream vector { exponential input=sbuf(f32, 0, 128, 0, [1:512]) bias=0.0 out=sbuf(f32, 0, 128, 4096, [1:512]) }";
const QUANTIZE: &str = "stream vector { quantize-mx input=sbuf(bf16, 0, 128, 0, [1:512]) out=sbuf(f8e4m3, 0, 128, 4096, [1:512]) scales=sbuf(u8, 0, 16, 8192, [1:128]) }";
const EXP: &str = "stream scalar { activation function=exp input=sbuf(f32, 0, 128, 0, [1:512]) scale=1.0 bias=0.0 out=sbuf(f32, 0, 128, 4096, [1:512]) reduce=sum into sbuf(f32, 0, 128, 0, [1:1]) }";
const TINY_EXP: &str = "stream scalar { activation function=exp input=sbuf(f32, 0, 128, 0, [1:1]) scale=1.0 bias=0.0 out=sbuf(f32, 0, 128, 4096, [1:1]) reduce=none }";
const SCALAR_16: &str = "stream scalar { copy input=sbuf(bf16, 0, 128, 0, [1:512]) out=sbuf(bf16, 0, 128, 4096, [1:512]) }";
const IOTA: &str =
    "stream gpsimd { iota base=0 channel=1 steps=[1] out=sbuf(i32, 0, 128, 0, [1:512]) }";
const TINY_CLEAR: &str = "stream gpsimd { memset out=sbuf(f32, 0, 128, 0, [1:1]) value=f32(1.0) }";
const CODE: &str = "stream gpsimd { custom expr=[operand(0): i32, call(mul, 0, 0): i32] root 1 inputs=[sbuf(i32, 0, 128, 0, [1:512])] out=sbuf(i32, 0, 128, 4096, [1:512]) }";
const WAKE: &str = "semaphore $s = 0 stream vector { memset out=sbuf(f32, 0, 128, 0, [1:512]) value=f32(1.0) signal [$s] } stream gpsimd { copy input=sbuf(f32, 0, 128, 0, [1:512]) out=sbuf(f32, 0, 128, 8192, [1:512]) wait [$s] }";
const LOADS: &str = "stream sync { dma f32 [128, 1024] from far(%x, 0, [1024, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) dma f32 [128, 1024] from far(%x, 0, [1024, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) }";
const SHORT: &str =
    "stream sync { dma bf16 [128, 512] from far(%x, 0, [512, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) }";
const SMALL: &str = "stream sync { dma f32 [1, 1] from far(%x, 0, [1, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) dma f32 [1, 1] from far(%x, 0, [1, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) }";
const QUEUES: &str = "stream sync { dma f32 [1, 1] from far(%x, 0, [1, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) } stream scalar { dma f32 [1, 1] from far(%x, 0, [1, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) }";
const SOFTWARE: &str = "stream gpsimd { dma f32 [1, 1] from far(%x, 0, [1, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) dma f32 [1, 1] from far(%x, 0, [1, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) }";
const TURNED: &str = "stream sync { dma bf16 [128, 1024] from far(%x, 0, [1024, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) transposed }";
const TURNED_NEAR: &str = "stream sync { dma bf16 [128, 1024] from near(sbuf, 0, 0, [1:0, 0:1]) to near(sbuf, 0, 4096, [1:0, 0:1]) transposed }";
const ADDED: &str = "stream sync { dma f32 [128, 1024] from near(sbuf, 0, 0, [1:0, 0:1]) to far(%x, 0, [1024, 1]) combine sum }";
const SBUF_PORT: &str = "stream vector { copy input=sbuf(f32, 0, 128, 0, [1:512]) out=sbuf(f32, 0, 128, 4096, [1:512]) } stream gpsimd { copy input=sbuf(f32, 0, 128, 0, [1:512]) out=sbuf(f32, 0, 128, 8192, [1:512]) }";
const PSUM_PORT: &str = "stream vector { copy input=psum(f32, 0, 128, 0, [1:512]) out=sbuf(f32, 0, 128, 4096, [1:512]) } stream scalar { copy input=psum(f32, 0, 128, 0, [1:512]) out=sbuf(f32, 0, 128, 8192, [1:512]) }";

/// The machine, the key, another value, what is looked at, and how it moves.
const ROWS: &[(&str, &str, &str, Result, Ordering)] = &[
    ("trn2", "chip.cores", "16", Figure(Machine::chip_flops), Greater),
    ("trn2", "chip.tdp_watts", "1000", Figure(Machine::chip_flops_per_watt), Less),
    ("trn2", "clocks.tensor_ghz", "4.8", Time(WIDE), Less),
    ("trn2", "clocks.vector_ghz", "1.92", Time(COPY), Less),
    ("trn2", "clocks.scalar_ghz", "2.4", Time(EXP), Less),
    ("trn2", "clocks.gpsimd_ghz", "2.4", Time(IOTA), Less),
    ("trn2", "clocks.sync_ghz", "0.012", Time(SMALL), Greater),
    ("trn2", "array.row_count", "64", Limits(WIDE), Greater),
    ("trn2", "array.column_count", "64", Limits(WIDE), Greater),
    ("trn2", "array.moving_elements_max", "256", Limits(WIDE), Greater),
    ("trn2", "array.min_stationary_cycles", "128", Time(THIN), Greater),
    ("trn2", "array.f32_pass_count", "2", Time(FOUR), Less),
    ("trn2", "array.double_row_count", "1", Limits(DOUBLE), Greater),
    ("trn3", "array.block_row_count", "0", Limits(BLOCK), Greater),
    ("trn3", "array.f4_pass_count", "0.5", Time(BLOCK), Less),
    ("trn2", "array.load_columns_per_cycle", "1", Time(WIDE), Greater),
    ("trn2", "array.latency_cycles", "1000", Time(WIDE), Greater),
    ("trn2", "sbuf.partition_count", "256", Time(LOADS), Greater),
    ("trn2", "sbuf.partition_bytes", "229377", Figure(|m| m.sbuf.partition_bytes as f64), Greater),
    ("trn2", "sbuf.usable_bytes", "4096", Limits(COPY), Greater),
    ("trn2", "psum.bank_count", "1", Limits(FAR_BANK), Greater),
    ("trn2", "psum.bank_bytes", "1024", Limits(WIDE), Greater),
    ("trn2", "vector.min_interval_cycles", "600", Time(TINY), Greater),
    ("trn2", "vector.overhead_cycles", "200", Time(COPY), Greater),
    ("trn2", "vector.latency_cycles", "200", Time(COPY), Greater),
    ("trn2", "vector.copy_speedup", "1", Time(COPY_16), Greater),
    ("trn2", "vector.copy_partial_speedup", "1", Time(PSUM_16), Greater),
    ("trn2", "vector.pair_speedup", "1", Time(PAIR_16), Greater),
    ("trn3", "vector.exponential_elements_per_cycle", "1", Time(FAST_EXP), Greater),
    ("trn3", "vector.quantize_elements_per_cycle", "1", Time(QUANTIZE), Greater),
    ("trn2", "vector.reduce_read_cycles", "100", Time(REDUCING), Greater),
    ("trn2", "scalar.min_interval_cycles", "600", Time(TINY_EXP), Greater),
    ("trn2", "scalar.overhead_cycles", "200", Time(EXP), Greater),
    ("trn2", "scalar.latency_cycles", "400", Time(EXP), Greater),
    ("trn2", "scalar.copy_speedup", "2", Time(SCALAR_16), Less),
    ("trn2", "scalar.table_load_ns", "2000", Time(EXP), Greater),
    ("trn2", "scalar.reduce_read_cycles", "100", Time(EXP), Greater),
    ("trn2", "gpsimd.min_interval_cycles", "600", Time(TINY_CLEAR), Greater),
    ("trn2", "gpsimd.start_cycles", "300", Time(IOTA), Greater),
    ("trn2", "gpsimd.overhead_cycles", "200", Time(IOTA), Greater),
    ("trn2", "gpsimd.latency_cycles", "200", Time(IOTA), Greater),
    ("trn2", "gpsimd.code_lanes", "64", Time(CODE), Greater),
    ("trn2", "gpsimd.code_cycles", "8", Time(CODE), Greater),
    ("trn2", "sync.semaphore_ns", "100", Time(WAKE), Greater),
    ("trn2", "sync.trigger_cycles", "2000", Time(SMALL), Greater),
    ("trn2", "sync.dynamic_interval_cycles", "0", Time(DYNAMIC), Less),
    ("trn1", "ports.vector_gpsimd_share_sbuf", "false", Time(SBUF_PORT), Less),
    ("trn1", "ports.vector_scalar_share_psum", "false", Time(PSUM_PORT), Less),
    ("trn1", "ports.stride_bytes", "0", Time(STRIDED), Less),
    ("trn1", "ports.stride_slowdown", "4", Time(STRIDED), Greater),
    ("trn2", "dma.engine_count", "8", Time(LOADS), Greater),
    ("trn2", "dma.engine_gbs", "47", Time(LOADS), Less),
    ("trn2", "dma.practical_gbs", "500", Figure(|m| m.bounds_us(0.0, 1e6).1), Less),
    ("trn2", "dma.descriptor_ns", "50", Time(LOADS), Greater),
    ("trn1", "dma.short_row_bytes", "0", Time(SHORT), Less),
    ("trn1", "dma.short_row_gbs", "3", Time(SHORT), Greater),
    ("trn2", "dma.issue_ns", "1200", Time(SMALL), Greater),
    ("trn2", "dma.issue_queue_count", "1", Time(QUEUES), Greater),
    ("trn2", "dma.software_issue_ns", "1700", Time(SOFTWARE), Greater),
    ("trn2", "dma.trigger_ns", "2000", Time(LOADS), Greater),
    ("trn2", "dma.complete_ns", "600", Time(LOADS), Greater),
    ("trn2", "dma.transpose_efficiency", "0.5", Time(TURNED), Greater),
    ("trn2", "dma.near_transpose_efficiency", "0.25", Time(TURNED_NEAR), Greater),
    ("trn2", "dma.accumulate_efficiency", "1.0", Time(ADDED), Less),
    ("trn2", "hbm.capacity_gib", "24", Figure(|m| m.hbm.capacity_gib), Greater),
    ("trn2", "hbm.chip_gbs", "4000", Figure(|m| m.hbm.chip_gbs), Greater),
    ("trn2", "hbm.stack_gbs", "100", Time(LOADS), Greater),
    ("trn2", "hbm.stack_core_count", "8", Shared(LOADS), Greater),
    ("trn2", "throttle.start_rate", "1.0", Time(WIDE), Less),
    ("trn2", "throttle.ramp_us", "0", Time(WIDE), Less),
    ("trn2", "throttle.least_use", "0.2", Time(THIRD), Less),
    ("trn2", "throttle.window_us", "0.01", Time(RARE), Greater),
    ("trn2", "program.start_us", "10", Time(WIDE), Greater),
    ("trn2", "energy.flop_pj", "1", Energy(WIDE), Greater),
    ("trn2", "energy.hbm_byte_pj", "100", Energy(LOADS), Greater),
    ("trn2", "energy.static_watts", "100", Energy(WIDE), Greater),
];

fn machine(name: &str, settings: &[&str]) -> Machine {
    let text = preset_text(name).unwrap_or_else(|| panic!("no preset {name}"));
    Machine::with_settings(&text, name, settings).unwrap_or_else(|problems| panic!("{problems}"))
}

fn figure(result: &Result, machine: &Machine) -> f64 {
    let program = |streams: &str| {
        let scalars = if streams.contains("var %at") { " with [8]" } else { "" };
        let text = format!(
            "program \"p\" for \"m\"\ntensor %t: f32 1048576\nkernel @k(updates %x: f32 1048576) sbuf 0 psum 0 {{\n{streams}\n}}\nrun {{\n  call @k(%t){scalars}\n}}\n"
        );
        parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    };
    let report = |streams, busy_cores| {
        let options = Options { busy_cores, ..Options::default() };
        run(&program(streams), machine, Mode::Time, &[], options)
            .unwrap_or_else(|error| panic!("{error}"))
    };
    match result {
        Time(streams) => report(streams, 1).time_us,
        Shared(streams) => report(streams, u64::MAX).time_us,
        Energy(streams) => report(streams, 1).energy_j,
        Limits(streams) => {
            check_program(&program(streams), machine).map_or_else(|all| all.len(), |()| 0) as f64
        }
        Figure(of) => of(machine),
    }
}

#[test]
fn each_key_moves_a_result_the_right_way() {
    for (name, key, value, result, direction) in ROWS {
        let before = figure(result, &machine(name, &[]));
        let setting = format!("{key}={value}");
        let after = figure(result, &machine(name, &[&setting]));
        assert_eq!(
            after.total_cmp(&before),
            *direction,
            "{name} {key}={value}: {before} to {after}"
        );
    }
}

#[test]
fn no_key_is_forgotten() {
    let known: BTreeSet<&str> = ROWS.iter().map(|(_, key, ..)| *key).collect();
    for name in ["trn1", "trn2", "trn3", "trn4"] {
        let text = preset_text(name).unwrap_or_default();
        let file = File::parse_with(&text, name, &preset_text).unwrap_or_else(|e| panic!("{e}"));
        for number in file.numbers().iter().filter(|number| number.path != "generation") {
            assert!(known.contains(number.path.as_str()), "{}", number.path);
        }
    }
}
