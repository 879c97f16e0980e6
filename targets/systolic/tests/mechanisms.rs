//! What slows instructions and transfers down, each as a closed form, to the unit of time.

use systole_systolic::asm::parse;
use systole_systolic::machine::Machine;
use systole_systolic::simulate::{Mode, Options, run};

/// A machine without start-up and throttle.
fn bare(name: &str) -> Machine {
    let mut machine = Machine::preset(name).unwrap_or_else(|| panic!("no preset {name}"));
    machine.start_us = 0.0;
    machine.throttle.start_rate = 1.0;
    machine
}

fn ticks_shared(streams: &str, machine: &Machine, busy_cores: u64) -> u64 {
    let scalars = if streams.contains("var %at") { " with [8]" } else { "" };
    let text = format!(
        "program \"p\" for \"m\"\ntensor %t: f32 1048576\nkernel @k(updates %x: f32 1048576) sbuf 0 psum 0 {{\n{streams}\n}}\nrun {{\n  call @k(%t){scalars}\n}}\n"
    );
    let program = parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let options = Options { busy_cores, ..Options::default() };
    run(&program, machine, Mode::Time, &[], options)
        .unwrap_or_else(|error| panic!("{error}"))
        .time_ticks
}

fn ticks(streams: &str, machine: &Machine) -> u64 {
    ticks_shared(streams, machine, 1)
}

/// Of trn2: units to a nanosecond, to a cycle of VectorE, of ScalarE and GpSimdE.
const NS: f64 = 24.0;
const VECTOR: u64 = 25;
const SCALAR: u64 = 20;

#[test]
fn wide_strides_halve_the_rate_of_the_second_generation() {
    let copy = |stride: u32| {
        format!(
            "stream vector {{ copy input=sbuf(f32, 0, 128, 0, [{stride}:512]) out=sbuf(f32, 0, 128, 16384, [1:512]) }}"
        )
    };
    let rest = 120 + 100;
    assert_eq!(ticks(&copy(3), &bare("trn1")), (512 + rest) * VECTOR);
    assert_eq!(ticks(&copy(4), &bare("trn1")), (2 * 512 + rest) * VECTOR);
    assert_eq!(ticks(&copy(4), &bare("trn2")), (512 + rest) * VECTOR);
}

#[test]
fn engines_of_the_second_generation_take_turns_at_shared_ports() {
    let copy = |engine: &str, from: &str, to: u32| {
        format!(
            "stream {engine} {{ copy input={from}(f32, 0, 128, 0, [1:512]) out=sbuf(f32, 0, 128, {to}, [1:512]) }}"
        )
    };
    let vector_hold = (512 + 120) * VECTOR;
    let both =
        |engine: &str, from: &str| copy("vector", from, 4096) + " " + &copy(engine, from, 8192);
    let gpsimd = (512 + 120 + 100) * SCALAR;
    assert_eq!(ticks(&both("gpsimd", "sbuf"), &bare("trn1")), vector_hold + gpsimd);
    let scalar = (512 + 120 + 80) * SCALAR;
    assert_eq!(ticks(&both("scalar", "psum"), &bare("trn1")), vector_hold + scalar);
    // From the third generation on they work side by side.
    let slower = vector_hold + 100 * VECTOR;
    assert_eq!(ticks(&both("gpsimd", "sbuf"), &bare("trn2")), slower.max(gpsimd));
}

#[test]
fn addresses_that_data_decide_take_the_least_interval_of_dynamic_instructions() {
    let copy = |columns: u32| {
        format!(
            "var %at from 0 to 64 stream vector {{ copy input=sbuf(f32, 0, 128, 0 + 4*%at, [1:{columns}]) out=sbuf(f32, 0, 128, 16384, [1:{columns}]) }}"
        )
    };
    assert_eq!(ticks(&copy(64), &bare("trn2")), (600 + 220) * VECTOR);
    assert_eq!(ticks(&copy(1000), &bare("trn2")), (1000 + 220) * VECTOR);
}

#[test]
fn another_set_of_functions_is_loaded_first() {
    let apply = |function: &str| {
        format!(
            "activation function={function} input=sbuf(f32, 0, 128, 0, [1:512]) scale=1.0 bias=0.0 out=sbuf(f32, 0, 128, 4096, [1:512]) reduce=none"
        )
    };
    let functions = ["exp", "exp", "tanh", "copy"].map(apply).join(" ");
    let table = (1300.0 * NS) as u64;
    let expected = 4 * (512 + 120) * SCALAR + 2 * table + 228 * SCALAR;
    assert_eq!(ticks(&format!("stream scalar {{ {functions} }}"), &bare("trn2")), expected);
}

#[test]
fn copies_of_narrow_types_are_faster() {
    let copy = |dtype: &str, from: &str, stride: u32| {
        format!(
            "stream vector {{ copy input={from}({dtype}, 0, 128, 0, [{stride}:512]) out=sbuf({dtype}, 0, 128, 4096, [1:512]) }}"
        )
    };
    let trn2 = bare("trn2");
    for (dtype, from, stride, speed) in [
        ("bf16", "sbuf", 1, 4),
        ("bf16", "sbuf", 2, 2),
        ("bf16", "psum", 1, 2),
        ("f32", "sbuf", 1, 1),
        ("f8e4m3", "sbuf", 1, 1),
    ] {
        let expected = (512 / speed + 220) * VECTOR;
        assert_eq!(ticks(&copy(dtype, from, stride), &trn2), expected, "{dtype} {from} {stride}");
    }
    // Units of trn3 are half as fine, and its cycle of VectorE is 10 of them.
    assert_eq!(ticks(&copy("f8e4m3", "sbuf", 1), &bare("trn3")), (512 / 4 + 220) * 10);
}

#[test]
fn transfers_that_add_or_transpose_move_at_their_share_of_the_rate() {
    let copy = |rest: &str| {
        format!(
            "stream sync {{ dma f32 [128, 1024] from near(sbuf, 0, 0, [1:0, 0:1]) to far(%x, 0, [1024, 1]){rest} }}"
        )
    };
    // 8 rows of 4096 bytes on each of 16 engines, each row with a descriptor.
    let rows_ns = |machine: &Machine| 8.0 * (4096.0 / machine.dma.engine_gbs + 7.0);
    let trn2 = bare("trn2");
    let whole = |share: f64| ((1300.0 + rows_ns(&trn2) / share) * NS).round() as u64;
    assert_eq!(ticks(&copy(""), &trn2), whole(1.0));
    assert_eq!(ticks(&copy(" combine sum"), &trn2), whole(0.5));
    assert_eq!(ticks(&copy(" transposed"), &trn2), whole(0.9));
    // The fourth generation adds at the full rate.
    let trn3 = bare("trn3");
    assert_eq!(ticks(&copy(" combine sum"), &trn3), ticks(&copy(""), &trn3));
}

#[test]
fn descriptors_made_by_software_hold_gpsimd() {
    let copy = "dma f32 [1, 1] from far(%x, 0, [1, 1]) to near(sbuf, 0, 0, [1:0, 0:1])";
    let streams = format!("stream gpsimd {{ {copy} {copy} }}");
    let row_ns = 4.0 / 23.6 + 7.0;
    let expected =
        ((850.0 + 1000.0) * NS) as u64 + (row_ns * NS).round() as u64 + (300.0 * NS) as u64;
    assert_eq!(ticks(&streams, &bare("trn2")), expected);
}

#[test]
fn cores_of_a_stack_share_its_bandwidth() {
    let mut machine = bare("trn2");
    // Slow enough that memory decides.
    machine.hbm.stack_gbs = 200.0;
    let load = "stream sync { dma f32 [128, 1024] from far(%x, 0, [1024, 1]) to near(sbuf, 0, 0, [1:0, 0:1]) }";
    for (cores, share) in [(1, 200.0), (2, 100.0), (8, 100.0)] {
        let expected = ((1300.0 + 128.0 * 4096.0 / share) * NS).round() as u64;
        assert_eq!(ticks_shared(load, &machine, cores), expected, "{cores} cores");
    }
}

#[test]
fn an_array_that_is_hardly_used_starts_over_and_over() {
    let mut machine = bare("trn2");
    machine.throttle.start_rate = 0.5;
    let products = |columns: u32, count: u64| {
        format!(
            "var %i stream tensor {{ loop %i from 0 to {count} step 1 {{ matmul stationary=sbuf(bf16, 0, 128, 0, [1:{columns}]) moving=sbuf(bf16, 0, 128, 0, [1:512]) out=psum(f32, 0, {columns}, 0, [1:512]) accumulate=no pace=single scales=none }} }}"
        )
    };
    let (hold, ramp) = (5120u64, 72_000u64);
    // The rate rises from a half to the whole in 3 us. Where the array was used by less than a half over that, or none of it
    // is full, it starts again; a quarter of the columns is too little, all of them is not.
    for (columns, again) in [(32, true), (128, false)] {
        let count = 400;
        let (mut time, mut began) = (columns as u64 / 4 * 10, columns as u64 / 4 * 10);
        for _ in 0..count {
            if again && time - began >= ramp {
                began = time;
            }
            let since = (time - began).min(ramp);
            time += (hold * 1000).div_ceil(500 + 500 * since / ramp);
        }
        let found = ticks(&products(columns, count), &machine);
        assert_eq!(found, time + 432 * 10, "{columns} columns");
    }
}
