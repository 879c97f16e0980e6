//! What several tests need: the measured files, the published points, systems by name.

use systole_interconnect::measured::{self, Measurement};
use systole_interconnect::{Element, Group, Kind, Options, Prediction, System, collective_time};

/// The sizes whose rows the presets were fitted to: seven of 21.
pub(crate) const CALIBRATED: &[u64] =
    &[1 << 10, 1 << 13, 1 << 16, 1 << 19, 1 << 22, 1 << 25, 1 << 28];

/// Measured collectives by preset.
pub(crate) const MEASURED: &[(&str, &str)] = &[
    ("dgx-a100", include_str!("../measured/dgx-a100.csv")),
    ("dgx-h100", include_str!("../measured/dgx-h100.csv")),
    ("gb200-nvl72", include_str!("../measured/gb200-nvl72.csv")),
];

pub(crate) fn rows(text: &str) -> Vec<Measurement> {
    measured::parse(text).expect("the measurements read")
}

pub(crate) fn system(name: &str) -> System {
    System::named(name, &[]).expect("there is one").expect("it reads")
}

/// A published measurement.
pub(crate) struct Point {
    pub(crate) system: &'static str,
    pub(crate) kind: Kind,
    pub(crate) dtype: &'static str,
    pub(crate) group: Group,
    pub(crate) bytes: u64,
    pub(crate) measured_us: f64,
    /// How far off the prediction may be.
    pub(crate) tolerance: f64,
    pub(crate) source: &'static str,
    /// Which number of the preset the point gave, where it gave one.
    pub(crate) gave: &'static str,
}

const GIB: u64 = 1 << 30;
const NCCOM: &str = "nccom-test guide of the Neuron SDK";

pub(crate) fn points() -> Vec<Point> {
    let point = |system, kind, dtype, group, bytes| Point {
        system,
        kind,
        dtype,
        group,
        bytes,
        measured_us: 0.0,
        tolerance: 0.1,
        source: NCCOM,
        gave: "",
    };
    vec![
        Point {
            measured_us: 20_300.0,
            source: "nccl-tests of CoreWeave",
            gave: "`adder_gbs` of NVLink 5",
            ..point("gb200-nvl72", Kind::AllReduce, "f16", Group::first(72), 8 * GIB)
        },
        Point {
            // 487 GB/s of bus bandwidth over 16 ranks.
            measured_us: 16.0 * GIB as f64 * (2.0 * 15.0 / 16.0) / 487e3,
            source: "awsome-distributed-training",
            gave: "`overlap` of its network",
            ..point("p5.48xl*2", Kind::AllReduce, "f16", Group::first(16), 16 * GIB)
        },
        Point {
            measured_us: 22_050.0,
            tolerance: 0.15,
            source: "ml-engineering of Stas Bekman",
            gave: "`overlap` of InfiniBand",
            ..point("dgx-b200*4", Kind::AllReduce, "f16", Group::first(32), 4 * GIB)
        },
        Point {
            measured_us: 6.2,
            gave: "`launch_us` of trn1",
            ..point("trn1.32xl-cores", Kind::AllGather, "f32", Group::first(32), 1 << 10)
        },
        Point {
            measured_us: 23.2,
            tolerance: 0.25,
            gave: "`fill_us` of trn1",
            ..point("trn1.32xl-cores", Kind::AllGather, "f32", Group::first(32), 1 << 19)
        },
        Point {
            measured_us: 41_800.0,
            gave: "`efficiency` of trn1",
            ..point("trn1.32xl-cores*2", Kind::AllReduce, "f32", Group::first(64), GIB)
        },
        Point {
            measured_us: 680.0,
            source: "scaling-book",
            gave: "`efficiency` of TPUs",
            ..point("tpu-v5e", Kind::AllGather, "bf16", Group::strided(0, 4, 16), 34_000_000)
        },
    ]
}

pub(crate) fn predicted(point: &Point) -> Prediction {
    let element = Element::named(point.dtype).expect("there is one");
    let options = Options { element, ..Options::default() };
    let system = system(point.system);
    collective_time(&system, point.kind, &point.group, point.bytes, &options).expect("it applies")
}
