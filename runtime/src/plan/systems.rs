//! Systems from their description files, as the planner sees them.

use super::platform::{Exchange, Fabric, Platform};
use std::path::Path;
use systole_interconnect::{Group, Kind, Options, PRESETS, System, collective_time};

/// The system of that name (several of one as `trn3-gen2-144*64`), or of that description file, with overrides.
pub fn load(name: &str, sets: &[String]) -> Result<System, String> {
    if name.ends_with(".toml") {
        let text = std::fs::read_to_string(Path::new(name))
            .map_err(|error| format!("cannot read `{name}`: {error}"))?;
        return System::parse(&text, name, sets).map_err(|problems| problems.to_string());
    }
    match System::named(name, sets) {
        Some(Ok(system)) => Ok(system),
        Some(Err(problems)) => Err(problems.to_string()),
        None => {
            let unit = name.rsplit_once(['*', 'x']).map_or(name, |(unit, _)| unit);
            let nearest = PRESETS
                .iter()
                .filter(|preset| preset.name.contains(unit) || unit.contains(preset.name))
                .map(|preset| format!("`{}`", preset.name));
            let nearest: Vec<String> = nearest.collect();
            let help = if nearest.is_empty() {
                let all: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
                format!("the systems are {}", all.join(", "))
            } else {
                format!("there is {}, and several of one as NAME*COUNT", nearest.join(", "))
            };
            Err(format!("there is no system `{name}`, or not so many of it; {help}"))
        }
    }
}

/// The system as the planner sees it.
pub fn platform(system: &System) -> Platform {
    let (device, economy) = (system.device.clone(), &system.economy);
    let chips = system.chips();
    let peaks = device.clone();
    Platform {
        name: system.name.clone(),
        device: device.name.clone(),
        chips,
        peak: Box::new(move |dtype| peaks.peak_tflops(dtype).map(|tflops| tflops * 1e12)),
        compute_efficiency: device.compute_efficiency,
        memory_bytes: device.memory_gib * GIB,
        memory_rate: device.memory_gbs * 1e9,
        memory_efficiency: device.memory_efficiency,
        chip_w: economy.chip_w,
        idle_fraction: economy.idle_fraction,
        compute_energy_fraction: economy.compute_energy_fraction,
        memory_j_per_bit: economy.memory_pj_per_bit * 1e-12,
        other_w: economy.hosts * economy.host_w + economy.other_kw * 1e3,
        racks: economy.racks,
        pue: economy.pue,
        usd_per_kwh: economy.electricity_usd_per_kwh,
        usd_per_chip_hour: economy.usd_per_chip_hour,
        failures_per_chip_hour: economy.failures_per_chip_hour,
        kernel_s: device.kernel_us * 1e-6,
        fabric: Box::new(Modeled { by_cores: system.by_cores(), system: system.clone() }),
    }
}

/// 2^30 bytes.
pub const GIB: f64 = 1_073_741_824.0;

/// A system's tiers, by the closed form.
struct Modeled {
    system: System,
    by_cores: System,
}

impl Modeled {
    fn time(
        system: &System,
        exchange: Exchange,
        axes: &[(usize, usize)],
        bytes: u64,
    ) -> Result<f64, String> {
        let kind = match exchange {
            Exchange::AllReduce => Kind::AllReduce,
            Exchange::AllGather => Kind::AllGather,
            Exchange::ReduceScatter => Kind::ReduceScatter,
            Exchange::AllToAll => Kind::AllToAll,
            Exchange::Send => Kind::PointToPoint,
        };
        let group = Group::mesh(0, axes);
        let found = collective_time(system, kind, &group, bytes, &Options::default());
        found.map(|found| found.time_us * 1e-6).map_err(|error| error.to_string())
    }
}

impl Fabric for Modeled {
    fn seconds(
        &self,
        exchange: Exchange,
        axes: &[(usize, usize)],
        bytes: u64,
    ) -> Result<f64, String> {
        Modeled::time(&self.system, exchange, axes, bytes)
    }

    fn seconds_by_cores(
        &self,
        exchange: Exchange,
        axes: &[(usize, usize)],
        bytes: u64,
    ) -> Result<f64, String> {
        let cores = self.cores();
        let within = std::iter::once((cores, 1));
        let across = axes.iter().map(|&(count, stride)| (count, stride * cores));
        let axes: Vec<(usize, usize)> = within.chain(across).collect();
        Modeled::time(&self.by_cores, exchange, &axes, bytes)
    }

    fn cores(&self) -> usize {
        self.system.device.machine.as_ref().map_or(1, |(_, cores)| *cores)
    }

    fn joules(&self, axes: &[(usize, usize)], bytes: f64) -> f64 {
        let reach: usize = axes.iter().map(|&(count, stride)| (count - 1) * stride).sum();
        let mut below = 1;
        for tier in &self.system.tiers {
            below *= tier.size();
            if reach < below {
                return bytes * 8.0 * tier.pj_per_bit * 1e-12;
            }
        }
        self.system.tiers.last().map_or(0.0, |tier| bytes * 8.0 * tier.pj_per_bit * 1e-12)
    }
}
