//! Simulated time: integers of a unit in which every clock of the machine and a nanosecond are whole numbers.
//!
//! For the presets the unit is exact (trn2: 24 to a nanosecond, 10 to a cycle of TensorE). For clocks without such a unit
//! of more than a femtosecond or so, a cycle is rounded to the nearest of 16 million units to the microsecond.

use crate::machine::Machine;
use crate::program::Engine;

/// A time or a duration, in units of [`Clock::units_per_us`].
pub(super) type Ticks = u64;

/// The unit of time of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Units in a microsecond.
    pub units_per_us: u64,
    /// Units in a cycle of each engine, in the order of [`Engine`].
    cycles: [u64; 5],
}

/// No finer unit than this is used.
const MAX_UNITS_PER_US: u64 = 1_000_000_000;

impl Clock {
    /// The unit for a machine.
    pub fn of(machine: &Machine) -> Clock {
        let engines =
            [Engine::Tensor, Engine::Vector, Engine::Scalar, Engine::GpSimd, Engine::Sync];
        // In kHz, so that a clock may have six decimals; then a cycle is `units / khz` of the common multiple.
        let khz = engines.map(|engine| (machine.clock_ghz(engine) * 1e6).round().max(1.0) as u64);
        let common = khz.iter().try_fold(1_000_000, |all: u64, &clock| {
            let multiple = all.checked_mul(clock / gcd(all, clock))?;
            (multiple / 1000 <= MAX_UNITS_PER_US).then_some(multiple)
        });
        let units_per_us = common.map_or(16_000_000, |common| common / 1000);
        let cycles = khz.map(|clock| {
            let per_ms = units_per_us * 1000;
            ((per_ms + clock / 2) / clock).max(1)
        });
        Clock { units_per_us, cycles }
    }

    /// A number of cycles of an engine.
    pub fn cycles(&self, engine: Engine, cycles: u64) -> Ticks {
        self.cycles[engine as usize].saturating_mul(cycles)
    }

    /// A number of nanoseconds, to the nearest unit.
    pub fn nanoseconds(&self, nanoseconds: f64) -> Ticks {
        (nanoseconds * self.units_per_us as f64 / 1000.0).round() as Ticks
    }

    /// A duration in microseconds.
    pub fn microseconds(&self, ticks: Ticks) -> f64 {
        ticks as f64 / self.units_per_us as f64
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_of_the_presets_are_exact() {
        for (name, units, tensor, vector, scalar) in [
            ("trn1", 28_000, 10, 25, 20),
            ("trn2", 24_000, 10, 25, 20),
            ("trn3", 12_000, 5, 10, 10),
        ] {
            let machine = Machine::preset(name).unwrap_or_else(|| panic!("no preset {name}"));
            let clock = Clock::of(&machine);
            assert_eq!(clock.units_per_us, units, "{name}");
            assert_eq!(clock.cycles(Engine::Tensor, 1), tensor, "{name}");
            assert_eq!(clock.cycles(Engine::Vector, 1), vector, "{name}");
            assert_eq!(clock.cycles(Engine::Scalar, 1), scalar, "{name}");
            assert_eq!(clock.nanoseconds(1.0) * 1000, units, "{name}");
        }
    }
}
