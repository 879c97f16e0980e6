//! Cores as ranks: a system with a place for every core of its chips.

use crate::system::{Axis, System, Tier, TierKind};

/// What one core does to reach another one of its chip: a write and a read of the memory that they share.
const HOP_US: f64 = 0.1;

impl System {
    /// The same system by cores: a tier more, innermost, where each core moves what its share of the chip's memory reads and
    /// writes; and of each chip's links, memory, peak, power and price, a core has its part. What one core sends alone is
    /// therefore as slow as if all of the chip's were sending. Where a chip has one core, nothing changes.
    pub fn by_cores(&self) -> System {
        let mut system = self.clone();
        let Some((_, cores)) = system.device.machine.as_mut() else { return system };
        let count = std::mem::replace(cores, 1);
        let Some(inner) = self.tiers.first().filter(|_| count > 1) else { return system };
        let share = |value: &mut f64| *value /= count as f64;
        let tiers = system.tiers.iter_mut().chain(&mut system.scale_out);
        for axis in tiers.flat_map(|tier| &mut tier.axes) {
            share(&mut axis.link_gbs);
        }
        let device = &mut system.device;
        device.peaks.iter_mut().for_each(|peak| share(&mut peak.tflops));
        share(&mut device.memory_gib);
        share(&mut device.memory_gbs);
        let economy = &mut system.economy;
        share(&mut economy.chip_w);
        share(&mut economy.usd_per_chip_hour);
        share(&mut economy.failures_per_chip_hour);
        let axis =
            Axis { size: count, link_gbs: device.memory_gbs / 2.0, wraps: true, both_ways: true };
        let chip = Tier {
            name: "chip".to_owned(),
            kind: TierKind::Switch,
            axes: vec![axis],
            hop_us: HOP_US,
            crossings: 1.0,
            oversubscription: 1.0,
            in_switch: None,
            protocols: inner.protocols.clone(),
            library: Vec::new(),
            overlap: 0.0,
            pj_per_bit: 2.0 * economy.memory_pj_per_bit,
        };
        system.tiers.insert(0, chip);
        system
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Group, Kind, Options, collective_time};

    #[test]
    fn cores_of_one_chip_are_nearer_than_chips_and_all_together_have_what_the_chips_have() {
        let chips = System::named("trn2.48xl", &[]).expect("there is one").expect("it reads");
        let cores = chips.by_cores();
        assert_eq!(cores.chips(), 8 * chips.chips());
        assert_eq!(cores.power_kw(), chips.power_kw());
        let sum = |system: &System| system.chips() as f64 * system.device.memory_gbs;
        assert_eq!(sum(&cores), sum(&chips));
        let time = |group: Group| {
            let options = Options::default();
            let told = collective_time(&cores, Kind::AllReduce, &group, 1 << 24, &options);
            told.expect("it is possible").time_us
        };
        assert!(time(Group::first(8)) < time(Group::strided(0, 8, 8)));
        let whole = time(Group::first(128));
        let options = Options::default();
        let group = Group::first(16);
        let by_chips = collective_time(&chips, Kind::AllReduce, &group, 1 << 24, &options);
        assert!(whole > by_chips.expect("it is possible").time_us);
    }

    #[test]
    fn devices_without_cores_of_their_own_stay() {
        let system = System::named("dgx-h100", &[]).expect("there is one").expect("it reads");
        assert_eq!(system.by_cores(), system);
    }
}
