//! A whole training run: days, energy, money, failures, and how often to write a checkpoint.

use super::platform::Platform;
use super::{Figures, Plan};

/// What writing and reading checkpoints takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Checkpoints {
    /// How long training stands still to write one, in seconds.
    pub write_s: f64,
    /// How long it takes to go on after a failure, in seconds.
    pub restart_s: f64,
}

impl Default for Checkpoints {
    /// Those with which the published 16,384-chip run has its published share of useful time.
    fn default() -> Checkpoints {
        Checkpoints { write_s: 20.0, restart_s: 300.0 }
    }
}

/// A training run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingRun {
    /// How many tokens.
    pub tokens: f64,
    /// How long, failures considered.
    pub days: f64,
    /// Energy, the building included.
    pub mwh: f64,
    /// Rent.
    pub usd: f64,
    /// What the energy alone costs.
    pub energy_usd: f64,
    /// Expected failures.
    pub failures: f64,
    /// The time between checkpoints that loses least, in seconds.
    pub checkpoint_interval_s: f64,
}

/// The useful part of the time and the best interval between checkpoints, in seconds, by Young and Daly: an interval τ
/// loses `write/τ` to writing, and half of itself and the restart with each failure.
pub(super) fn goodput(platform: &Platform, checkpoints: &Checkpoints) -> (f64, f64) {
    let between_s = 3600.0 / (platform.chips as f64 * platform.failures_per_chip_hour);
    if !between_s.is_finite() {
        return (1.0, f64::INFINITY);
    }
    let interval = (2.0 * checkpoints.write_s * between_s).sqrt().max(checkpoints.write_s);
    let writing = if interval > 0.0 { checkpoints.write_s / interval } else { 0.0 };
    let lost = writing + (interval / 2.0 + checkpoints.restart_s) / between_s;
    ((1.0 - lost).max(0.0), interval)
}

/// The run of a plan over that many tokens.
pub fn training_run(
    platform: &Platform,
    plan: &Plan,
    checkpoints: &Checkpoints,
    tokens: f64,
) -> TrainingRun {
    let Figures { tokens_per_s, power_kw, .. } = plan.best;
    let (goodput, interval) = goodput(platform, checkpoints);
    let hours = tokens / (tokens_per_s * goodput) / 3600.0;
    let chips = platform.chips as f64;
    let mwh = power_kw * hours / 1e3;
    TrainingRun {
        tokens,
        days: hours / 24.0,
        mwh,
        usd: chips * hours * platform.usd_per_chip_hour,
        energy_usd: mwh * 1e3 * platform.usd_per_kwh,
        failures: chips * hours * platform.failures_per_chip_hour,
        checkpoint_interval_s: interval,
    }
}
