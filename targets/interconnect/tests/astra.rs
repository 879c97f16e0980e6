//! What ASTRA-sim's analytical backends give, under their units: a "GB/s" there is 2^30 bytes a second.

use systole_interconnect::{Group, Kind, Options, System, collective_time};

fn time_ns(system: &str, sets: &[&str], kind: Kind, group: &Group, bytes: u64, name: &str) -> f64 {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    let system = System::named(system, &sets).expect("there is one").expect("it reads");
    let options = Options { algorithm: Some(name.to_owned()), ..Options::default() };
    let told = collective_time(&system, kind, group, bytes, &options).expect("it applies");
    told.time_us * 1e3
}

fn near(found: f64, expected: f64, tolerance: f64) {
    assert!((found / expected - 1.0).abs() <= tolerance, "{found} is not {expected}");
}

const MIB: u64 = 1 << 20;

#[test]
fn one_directional_rings_of_chunks_one_after_another() {
    let ring = |system, sets: &[&str], ranks, bytes| {
        time_ns(system, sets, Kind::AllReduce, &Group::first(ranks), bytes, "ring")
    };
    near(ring("astra-ring8", &[], 8, 100 * MIB), 3_618_592.0, 1e-3);
    near(ring("astra-ring8", &[], 8, MIB), 64_440.0, 1e-3);
    near(ring("astra-ring64", &[], 64, 100 * MIB), 4_295_632.0, 1e-3);
    // The same from parameters of the other preset.
    near(ring("astra-ring8", &["sizes=64"], 64, 100 * MIB), 4_295_632.0, 1e-3);
}

#[test]
fn chunks_that_follow_one_another_hide_latency_and_additions() {
    let sets = ["chunks=64", "tier.link.protocol.copy.chunk_order=pipelined"];
    let found = time_ns("astra-ring8", &sets, Kind::AllReduce, &Group::first(8), 100 * MIB, "ring");
    near(found, 3_417_864.0, 1e-3);
}

#[test]
fn messages_between_two_of_three_dimensions() {
    let message = |from: u32, to: u32| {
        let group = Group::of(vec![from, to]);
        time_ns("astra-3d", &[], Kind::PointToPoint, &group, MIB, "direct")
    };
    near(message(0, 1), 4_932.0, 1e-3);
    near(message(37, 41), 10_265.0, 1e-3);
    near(message(26, 42), 23_531.0, 1e-3);
}
