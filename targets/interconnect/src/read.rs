//! Reads a system from its description file.

use crate::algorithms;
use crate::kind::Kind;
use crate::presets;
use crate::system::{
    Axis, ChunkOrder, Device, Economy, InSwitch, Peak, Protocol, System, Tier, TierKind,
};
use systole_catalog::{Allowed, File, Problems, Reader};

/// No system has more chips than this; larger fabrics are several systems.
const MAX_CHIPS: usize = 1 << 20;

impl System {
    /// Reads a description; presets may be inherited from. `sets` are overrides such as `tier.node.hop_us=0.2`.
    pub fn parse(text: &str, name: &str, sets: &[String]) -> Result<System, Problems> {
        let find = |name: &str| presets::text(name).map(str::to_owned);
        let mut file = File::parse_with(text, name, &find)?;
        let mut problems = Vec::new();
        for set in sets {
            if let Err(told) = file.set(set) {
                problems.extend(told.0);
            }
        }
        if problems.is_empty() { system(&file) } else { Err(Problems(problems)) }
    }
}

fn system(file: &File) -> Result<System, Problems> {
    let reader = file.read();
    let tiers: Vec<Tier> =
        reader.tables("tier").iter().enumerate().map(|(at, reader)| tier(reader, at > 0)).collect();
    let system = System {
        name: reader.text("name").to_owned(),
        summary: reader.text("summary").to_owned(),
        device: device(&reader.table("device")),
        scale_out: reader.optional_table("scale_out").map(|reader| tier(&reader, true)),
        economy: economy(&reader.table("economy")),
        tiers,
        numbers: file.numbers(),
    };
    if system.tiers.is_empty() {
        reader.problem("tier", "a system has at least one `[[tier]]`");
    }
    let chips = system.tiers.iter().try_fold(1usize, |chips, tier| {
        tier.axes.iter().try_fold(chips, |chips, axis| chips.checked_mul(axis.size))
    });
    if chips.is_none_or(|chips| chips > MAX_CHIPS) {
        reader.problem("tier", format!("the tiers have more than {MAX_CHIPS} chips"));
    }
    reader.finish()?;
    Ok(system)
}

fn device(reader: &Reader<'_>) -> Device {
    let peaks = reader.table("peak_tflops");
    Device {
        name: reader.text("name").to_owned(),
        peaks: peaks
            .keys()
            .into_iter()
            .map(|dtype| Peak {
                dtype: dtype.to_owned(),
                tflops: peaks.number(dtype, Allowed::Positive),
            })
            .collect(),
        compute_efficiency: reader.number("compute_efficiency", Allowed::Efficiency),
        memory_gib: reader.number("memory_gib", Allowed::Positive),
        memory_gbs: reader.number("memory_gbs", Allowed::Positive),
        memory_efficiency: reader.number("memory_efficiency", Allowed::Efficiency),
        kernel_us: reader.optional_number("kernel_us", Allowed::NonNegative).unwrap_or(0.0),
        machine: reader
            .optional_text("machine")
            .map(|name| (name.to_owned(), reader.integer("cores", 1..=1024) as usize)),
    }
}

fn economy(reader: &Reader<'_>) -> Economy {
    let any = |key| reader.number(key, Allowed::NonNegative);
    Economy {
        chip_w: any("chip_w"),
        idle_fraction: reader.number("idle_fraction", Allowed::Fraction),
        hosts: any("hosts"),
        host_w: any("host_w"),
        other_kw: any("other_kw"),
        racks: any("racks"),
        pue: reader.number("pue", Allowed::Between(1.0, 10.0)),
        electricity_usd_per_kwh: any("electricity_usd_per_kwh"),
        usd_per_chip_hour: any("usd_per_chip_hour"),
        failures_per_chip_hour: reader.number("failures_per_chip_hour", Allowed::Positive),
        compute_energy_fraction: reader.number("compute_energy_fraction", Allowed::Fraction),
        memory_pj_per_bit: any("memory_pj_per_bit"),
    }
}

const KINDS: &[(&str, TierKind)] =
    &[("torus", TierKind::Torus), ("switch", TierKind::Switch), ("mesh", TierKind::Mesh)];

/// `above` says whether there is a tier below it, which its work could hide behind.
fn tier(reader: &Reader<'_>, above: bool) -> Tier {
    let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
    let kind = KINDS[reader.choice("kind", &names)].1;
    let sizes = reader.integers("sizes", 1..=MAX_CHIPS as i64);
    let links = reader.numbers("link_gbs", Allowed::Between(1e-3, 1e6));
    let count = reader.optional_number("links", Allowed::Between(1.0, 1e4)).unwrap_or(1.0);
    if sizes.is_empty() || (links.len() != sizes.len() && links.len() != 1) {
        reader.problem("link_gbs", "`link_gbs` has one number an axis, or one for all");
    }
    if kind != TierKind::Torus && sizes.len() != 1 {
        reader.problem("sizes", "only a torus has several axes");
    }
    let wraps = reader.optional_flag("wraps").unwrap_or(true);
    let both_ways = reader.optional_flag("both_ways").unwrap_or(true);
    let axes = sizes.iter().enumerate().map(|(at, size)| Axis {
        size: usize::try_from(*size).unwrap_or(1),
        link_gbs: links.get(at).or(links.first()).copied().unwrap_or(1.0) * count,
        wraps: wraps && kind == TierKind::Torus,
        both_ways,
    });
    let protocols: Vec<Protocol> = reader.tables("protocol").iter().map(protocol).collect();
    if protocols.is_empty() {
        reader.problem("protocol", "a tier has at least one `protocol`");
    }
    Tier {
        name: reader.text("name").to_owned(),
        kind,
        axes: axes.collect(),
        hop_us: reader.number("hop_us", Allowed::Between(0.0, 1e6)),
        crossings: reader.optional_number("crossings", Allowed::Between(1.0, 64.0)).unwrap_or(1.0),
        oversubscription: reader
            .optional_number("oversubscription", Allowed::Between(1.0, 1e3))
            .unwrap_or(1.0),
        in_switch: reader.optional_table("in_switch").map(|reader| {
            if kind != TierKind::Switch {
                reader.problem("efficiency", "only a switch reduces");
            }
            in_switch(&reader)
        }),
        protocols,
        library: reader
            .optional_table("library")
            .map(|reader| library(&reader))
            .unwrap_or_default(),
        overlap: if above {
            reader.optional_number("overlap", Allowed::Fraction).unwrap_or(0.0)
        } else {
            0.0
        },
        pj_per_bit: reader.number("pj_per_bit", Allowed::Between(0.0, 1e6)),
    }
}

fn in_switch(reader: &Reader<'_>) -> InSwitch {
    InSwitch {
        efficiency: reader.number("efficiency", Allowed::Between(1e-3, 1.0)),
        adder_gbs: reader.number("adder_gbs", Allowed::Between(1e-3, 1e6)),
        launch_us: reader.number("launch_us", Allowed::Between(0.0, 1e6)),
        fill_us: reader.number("fill_us", Allowed::Between(0.0, 1e6)),
    }
}

fn library(reader: &Reader<'_>) -> Vec<(Kind, Vec<String>)> {
    let mut library = Vec::new();
    for kind in Kind::ALL {
        let Some(names) = reader.optional_texts(kind.name()) else { continue };
        for name in &names {
            if algorithms::named(name).is_none() {
                let known = algorithms::names();
                reader.problem(kind.name(), format!("no algorithm `{name}`; they are {known}"));
            }
        }
        library.push((*kind, names.into_iter().map(str::to_owned).collect()));
    }
    library
}

fn protocol(reader: &Reader<'_>) -> Protocol {
    let time = Allowed::Between(0.0, 1e6);
    let rate = Allowed::Between(1e-3, 1e9);
    let number = |key, allowed| reader.optional_number(key, allowed);
    let launch_us = reader.number("launch_us", time);
    // Protocols are framing: none moves bytes at a thousandth of the line.
    let efficiency = reader.number("efficiency", Allowed::Between(1e-3, 1.0));
    Protocol {
        name: reader.text("name").to_owned(),
        launch_us,
        direct_launch_us: number("direct_launch_us", time).unwrap_or(launch_us),
        step_us: reader.number("step_us", time),
        peer_us: number("peer_us", time).unwrap_or(0.0),
        efficiency,
        direct_efficiency: number("direct_efficiency", Allowed::Between(1e-3, 1.0))
            .unwrap_or(efficiency),
        direct: reader.optional_flag("direct").unwrap_or(true),
        flow_gbs: number("flow_gbs", rate),
        fill_us: number("fill_us", time).unwrap_or(0.0),
        fill_step_us: number("fill_step_us", time).unwrap_or(0.0),
        copy_gbs: number("copy_gbs", rate),
        reduce_gbs: number("reduce_gbs", rate),
        reduce_narrow_gbs: number("reduce_narrow_gbs", rate),
        endpoint_us: number("endpoint_us", time).unwrap_or(0.0),
        chunks: reader.optional_integer("chunks", 1..=65_536).unwrap_or(1) as u32,
        order: match reader.optional_choice("chunk_order", &["sequential", "pipelined"]) {
            Some(1) => ChunkOrder::Pipelined,
            Some(_) | None => ChunkOrder::Sequential,
        },
    }
}
