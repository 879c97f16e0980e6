//! What a system is: one kind of chip, joined by tiers of fabric, innermost first.

use crate::kind::Kind;
use systole_catalog::Number;

/// A system: what a description file says, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct System {
    /// Its name.
    pub name: String,
    /// One line on it.
    pub summary: String,
    /// What stands at each place of the fabric.
    pub device: Device,
    /// The fabric, innermost first. Chips are numbered with the first axis of the first tier running fastest.
    pub tiers: Vec<Tier>,
    /// How several of these systems are joined; absent where nobody says how.
    pub scale_out: Option<Tier>,
    /// Power, money and failures.
    pub economy: Economy,
    /// Every number of the file with its mark and sources.
    pub numbers: Vec<Number>,
}

/// A chip as a **roofline device**: peaks and bandwidths with stated efficiencies. It says when a chip that we do not compile
/// for would be done at best, so that systems can be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Peaks by element type.
    pub peaks: Vec<Peak>,
    /// The part of the peak that large products reach.
    pub compute_efficiency: f64,
    /// Memory of one chip.
    pub memory_gib: f64,
    /// Its bandwidth.
    pub memory_gbs: f64,
    /// The part of it that streams reach.
    pub memory_efficiency: f64,
    /// What a kernel takes that waits for the one before, besides operations and bytes; nothing where the file does not say.
    pub kernel_us: f64,
    /// The machine file that simulates a core of it, where there is one, and how many cores a chip has.
    pub machine: Option<(String, usize)>,
}

/// The peak rate of one element type.
#[derive(Clone, Debug, PartialEq)]
pub struct Peak {
    /// The element type, as the compiler names it; `f8` and `f4` stand for all of that width.
    pub dtype: String,
    /// 10^12 operations a second, an addition and a multiplication being two.
    pub tflops: f64,
}

/// One tier of the fabric.
#[derive(Clone, Debug, PartialEq)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// How it joins what is below it.
    pub kind: TierKind,
    /// Its axes: one for a switch or a mesh.
    pub axes: Vec<Axis>,
    /// What one crossing of a link or a switch takes.
    pub hop_us: f64,
    /// How many crossings there are from chip to chip: 1 for neighbours on a torus.
    pub crossings: f64,
    /// By how much the switches above a chip offer less than the chip can send.
    pub oversubscription: f64,
    /// Reduction inside the switch.
    pub in_switch: Option<InSwitch>,
    /// The ways that its library has to move data; at least one.
    pub protocols: Vec<Protocol>,
    /// The algorithms that its library has, by collective; all that apply where a collective is not listed.
    pub library: Vec<(Kind, Vec<String>)>,
    /// How much of this tier's work hides behind that of the tiers below, from 0 (nothing) to 1 (all).
    pub overlap: f64,
    /// What a bit costs from end to end.
    pub pj_per_bit: f64,
}

/// How a tier joins its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierKind {
    /// Each member has links to its neighbours on every axis.
    Torus,
    /// Each member has one port into a switch that blocks nothing (but for `oversubscription`).
    Switch,
    /// Each member has a link to every other.
    Mesh,
}

/// One axis of a tier.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// How many members it has.
    pub size: usize,
    /// What one chip sends in one direction: to one neighbour (torus, mesh) or into the switch.
    pub link_gbs: f64,
    /// Whether its last member is joined to its first.
    pub wraps: bool,
    /// Whether links work both ways; a torus that does not is a one-directional ring.
    pub both_ways: bool,
}

/// What a switch adds.
#[derive(Clone, Debug, PartialEq)]
pub struct InSwitch {
    /// The part of the line rate that reduced data moves at.
    pub efficiency: f64,
    /// What the adders take in through one port: (n-1)/n of the vector for a sum over n ports.
    pub adder_gbs: f64,
    /// What it takes to set up.
    pub launch_us: f64,
    /// Overhead of a chunk, in stages: as for a protocol.
    pub fill_us: f64,
}

/// One way to move data: low latency at half the rate, say, or full rate after a long start.
#[derive(Clone, Debug, PartialEq)]
pub struct Protocol {
    /// Its name.
    pub name: String,
    /// What a collective takes before anything moves.
    pub launch_us: f64,
    /// The same where every rank talks to every other at once.
    pub direct_launch_us: f64,
    /// What one dependent step takes, besides crossings and bytes.
    pub step_us: f64,
    /// What one more peer takes, where every rank talks to every other at once.
    pub peer_us: f64,
    /// The part of a link's rate that is payload.
    pub efficiency: f64,
    /// The same where every rank talks to every other at once.
    pub direct_efficiency: f64,
    /// Whether it is used where every rank talks to every other at once.
    pub direct: bool,
    /// What one flow from one rank to one other can move; no limit where absent.
    pub flow_gbs: Option<f64>,
    /// Filling of the pipeline inside a chip: a collective of bandwidth time V takes 2·√(fill·V) longer, the least of
    /// V·(stages/chunks) + chunks·overhead over the number of chunks. `fill` is stages times overhead.
    pub fill_us: f64,
    /// How much of it each step adds.
    pub fill_step_us: f64,
    /// Copies inside a chip (its own part of a gather); free where absent.
    pub copy_gbs: Option<f64>,
    /// Additions inside a chip, for elements of 16 bits and more; free where absent.
    pub reduce_gbs: Option<f64>,
    /// Additions inside a chip, for elements of 8 bits; as for wider ones where absent.
    pub reduce_narrow_gbs: Option<f64>,
    /// What sending or receiving one message takes at each end.
    pub endpoint_us: f64,
    /// In how many chunks the buffer goes through the whole algorithm.
    pub chunks: u32,
    /// Whether those chunks run one after another or overlap.
    pub order: ChunkOrder,
}

/// How the chunks of a buffer go through an algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkOrder {
    /// Each begins when the one before is done.
    Sequential,
    /// Each follows the one before as soon as links are free.
    Pipelined,
}

/// Power, money and failures.
#[derive(Clone, Debug, PartialEq)]
pub struct Economy {
    /// One chip at full load.
    pub chip_w: f64,
    /// The part of that which it takes when idle.
    pub idle_fraction: f64,
    /// Hosts of the whole system.
    pub hosts: f64,
    /// One host.
    pub host_w: f64,
    /// Switches, NICs, fans and power supplies of the whole system.
    pub other_kw: f64,
    /// Racks of the whole system.
    pub racks: f64,
    /// Power of the building over power of the machines.
    pub pue: f64,
    /// Electricity.
    pub electricity_usd_per_kwh: f64,
    /// Rent of a chip.
    pub usd_per_chip_hour: f64,
    /// Unplanned failures.
    pub failures_per_chip_hour: f64,
    /// What an operation takes, as a part of chip power over peak.
    pub compute_energy_fraction: f64,
    /// What a bit from memory takes.
    pub memory_pj_per_bit: f64,
}

impl Tier {
    /// How many members it joins.
    pub fn size(&self) -> usize {
        self.axes.iter().map(|axis| axis.size).product()
    }

    /// What one chip sends in all directions together.
    pub fn injection_gbs(&self) -> f64 {
        let axis = |axis: &Axis| match self.kind {
            TierKind::Torus => {
                let neighbours = if axis.both_ways && axis.size > 2 { 2.0 } else { 1.0 };
                axis.link_gbs * neighbours
            }
            TierKind::Switch => axis.link_gbs / self.oversubscription,
            TierKind::Mesh => axis.link_gbs * (axis.size - 1) as f64,
        };
        self.axes.iter().map(axis).sum()
    }
}

impl System {
    /// How many chips it has.
    pub fn chips(&self) -> usize {
        self.tiers.iter().map(Tier::size).product()
    }

    /// `count` of these systems, joined by the scale-out tier: nothing where the file states none.
    pub fn times(&self, count: usize) -> Option<System> {
        if count == 1 {
            return Some(self.clone());
        }
        let mut tier = self.scale_out.clone()?;
        let most = tier.axes.first().map_or(1, |axis| axis.size);
        if count == 0 || count > most {
            return None;
        }
        tier.axes.first_mut()?.size = count;
        let mut system = self.clone();
        let times = count as f64;
        system.name = format!("{}*{count}", self.name);
        system.tiers.push(tier);
        system.scale_out = None;
        system.economy.hosts *= times;
        system.economy.other_kw *= times;
        system.economy.racks *= times;
        Some(system)
    }

    /// How many of these systems the scale-out tier joins at most; 1 where there is none.
    pub fn most(&self) -> usize {
        self.scale_out.as_ref().and_then(|tier| tier.axes.first()).map_or(1, |axis| axis.size)
    }

    /// Power of the machines at full load, without the building.
    pub fn power_kw(&self) -> f64 {
        let economy = &self.economy;
        let chips = self.chips() as f64 * economy.chip_w;
        (chips + economy.hosts * economy.host_w) / 1e3 + economy.other_kw
    }

    /// Power that the building takes at full load.
    pub fn facility_kw(&self) -> f64 {
        self.power_kw() * self.economy.pue
    }

    /// The rent of the whole for an hour.
    pub fn usd_per_hour(&self) -> f64 {
        self.chips() as f64 * self.economy.usd_per_chip_hour
    }

    /// The mean time between unplanned failures.
    pub fn mean_hours_between_failures(&self) -> f64 {
        1.0 / (self.chips() as f64 * self.economy.failures_per_chip_hour)
    }

    /// The energy of work done by one chip at a time: operations at a peak, bytes of memory, bytes over a tier's links, and
    /// what the chip takes for being on. Joules, without the building.
    pub fn energy_j(&self, work: &Work) -> f64 {
        let economy = &self.economy;
        let peak = self.device.peak_tflops(&work.dtype).unwrap_or(f64::INFINITY);
        let compute = economy.compute_energy_fraction * economy.chip_w * work.tflop / peak;
        let memory = work.memory_bytes * 8.0 * economy.memory_pj_per_bit * 1e-12;
        let tiers = self.tiers.iter().zip(&work.tier_bytes);
        let links: f64 = tiers.map(|(tier, bytes)| bytes * 8.0 * tier.pj_per_bit * 1e-12).sum();
        compute + memory + links + economy.chip_w * economy.idle_fraction * work.seconds
    }
}

/// What one chip did, for [`System::energy_j`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Work {
    /// The element type of the operations.
    pub dtype: String,
    /// 10^12 operations.
    pub tflop: f64,
    /// Bytes from and to memory.
    pub memory_bytes: f64,
    /// Bytes sent over each tier, innermost first.
    pub tier_bytes: Vec<f64>,
    /// How long it took.
    pub seconds: f64,
}

impl Device {
    /// The peak for an element type; that of its width where the type itself has none.
    pub fn peak_tflops(&self, dtype: &str) -> Option<f64> {
        let find = |name: &str| self.peaks.iter().find(|peak| peak.dtype == name);
        let wider = match dtype {
            "f16" => &["f16", "bf16"][..],
            "bf16" => &["bf16", "f16"],
            "f8e4m3" | "f8e5m2" | "f8" => &["f8", "bf16"],
            "f4e2m1" | "f4" => &["f4", "f8", "bf16"],
            "i8" | "u8" => &["i8", "f8"],
            _ => &[],
        };
        let own = std::iter::once(dtype).chain(wider.iter().copied());
        own.filter_map(find).map(|peak| peak.tflops).next()
    }

    /// How long work of so many operations and so many bytes of memory takes at best: whichever of the two takes longer.
    /// Nothing where the chip has no peak for the type.
    pub fn roofline_us(&self, dtype: &str, operations: f64, bytes: f64) -> Option<f64> {
        let rate = self.peak_tflops(dtype)? * 1e6 * self.compute_efficiency;
        let memory = self.memory_gbs * 1e3 * self.memory_efficiency;
        Some((operations / rate).max(bytes / memory))
    }
}
