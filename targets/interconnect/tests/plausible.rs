//! Predictions for machines that nobody measured here are plausible over the whole grid of questions: more bytes never take
//! less time, bandwidth stays under the port's, and newer machines are no slower where bytes count.

use systole_interconnect::{Element, Group, Kind, Options, Prediction, System, collective_time};

/// The measured families and their siblings.
const FAMILY: &[&str] =
    &["dgx-a100", "dgx-h100", "dgx-h200", "dgx-b200", "dgx-b300", "gb200-nvl72", "gb300-nvl72"];
const KINDS: &[Kind] = &[Kind::AllReduce, Kind::AllGather, Kind::ReduceScatter, Kind::AllToAll];
const TYPES: &[&str] = &["f16", "bf16", "f32", "i8"];

fn told(system: &System, kind: Kind, ranks: usize, bytes: u64, dtype: &str) -> Prediction {
    let element = Element::named(dtype).expect("it is a type");
    let options = Options { element, ..Options::default() };
    let group = Group::first(ranks);
    collective_time(system, kind, &group, bytes, &options)
        .unwrap_or_else(|error| panic!("{}: {error}", system.name))
}

fn ranks(system: &System) -> Vec<usize> {
    let all = [2, 4, 8, 16, 32, 64, 72];
    all.into_iter().filter(|&ranks| ranks <= system.chips()).collect()
}

fn system(name: &str) -> System {
    System::named(name, &[]).expect("there is one").expect("it reads")
}

#[test]
fn more_bytes_never_take_less_time() {
    for name in FAMILY {
        let system = system(name);
        for &kind in KINDS {
            for &dtype in TYPES {
                for ranks in ranks(&system) {
                    let mut before = 0.0;
                    for bits in 9..=33 {
                        for bytes in [1u64 << bits, 3 << (bits - 1)] {
                            let now = told(&system, kind, ranks, bytes, dtype).time_us;
                            assert!(
                                now >= before * (1.0 - 1e-9),
                                "{name} {} {dtype} {ranks} ranks {bytes} bytes: {now} after {before}",
                                kind.name()
                            );
                            before = now;
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn more_ranks_never_take_less_time_for_small_reductions() {
    for name in FAMILY {
        let system = system(name);
        for bytes in [512, 4096] {
            let times: Vec<f64> = ranks(&system)
                .into_iter()
                .map(|ranks| told(&system, Kind::AllReduce, ranks, bytes, "bf16").time_us)
                .collect();
            assert!(
                times.windows(2).all(|pair| pair[0] <= pair[1] * (1.0 + 1e-9)),
                "{name} {times:?}"
            );
        }
    }
}

#[test]
fn bandwidth_stays_under_that_of_a_port() {
    for name in FAMILY {
        let system = system(name);
        let port = system.tiers[0].axes[0].link_gbs;
        for &kind in KINDS {
            for ranks in ranks(&system) {
                let large = told(&system, kind, ranks, 8 << 30, "bf16");
                // A switch that adds carries each vector once where rings carry it nearly twice.
                let most = if kind == Kind::AllReduce { 2.0 * port } else { port };
                let rate = large.busbw_gbs();
                // What each of two keeps for itself counts among the bytes, but crosses no port.
                let least = match kind {
                    Kind::AllToAll => 0.4 * port,
                    Kind::AllReduce => 0.6 * port,
                    Kind::AllGather
                    | Kind::ReduceScatter
                    | Kind::Broadcast
                    | Kind::Permute
                    | Kind::PointToPoint => 0.5 * port,
                };
                assert!((least..most).contains(&rate), "{name} {} {ranks}: {rate}", kind.name());
            }
        }
    }
}

#[test]
fn newer_machines_are_no_slower_where_bytes_count() {
    let pairs = [
        ("dgx-h100", "dgx-a100"),
        ("dgx-h200", "dgx-h100"),
        ("dgx-b200", "dgx-h200"),
        ("dgx-b300", "dgx-b200"),
        ("gb300-nvl72", "gb200-nvl72"),
    ];
    for (newer, older) in pairs {
        let (newer, older) = (system(newer), system(older));
        for &kind in KINDS {
            for ranks in [2, 4, 8] {
                for bytes in [1 << 26, 1 << 30] {
                    let (new, old) = (
                        told(&newer, kind, ranks, bytes, "bf16").time_us,
                        told(&older, kind, ranks, bytes, "bf16").time_us,
                    );
                    assert!(
                        new <= old * 1.001,
                        "{} {} {ranks} {bytes}: {new}, but {old} on {}",
                        newer.name,
                        kind.name(),
                        older.name
                    );
                }
            }
        }
    }
}

/// What rides on one board is one family: its smallest messages take what those of its measured sibling take.
#[test]
fn latencies_carry_over_within_a_family() {
    for (sibling, measured) in
        [("dgx-h200", "dgx-h100"), ("dgx-b300", "dgx-b200"), ("gb300-nvl72", "gb200-nvl72")]
    {
        let (sibling, measured) = (system(sibling), system(measured));
        for &kind in KINDS {
            for ranks in [2, 4, 8] {
                let (a, b) = (
                    told(&sibling, kind, ranks, 512, "bf16").time_us,
                    told(&measured, kind, ranks, 512, "bf16").time_us,
                );
                assert!((a / b - 1.0).abs() < 0.15, "{} {}: {a}, {b}", sibling.name, kind.name());
            }
        }
    }
}
