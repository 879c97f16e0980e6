//! The systems that come with the crate.

use crate::system::System;
use systole_catalog::Problems;

/// A description file that comes with the crate.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
}

macro_rules! presets {
    ($($name:literal),* $(,)?) => {
        /// Every system that comes with the crate, by name.
        pub const PRESETS: &[Preset] = &[
            $(Preset { name: $name, text: include_str!(concat!("../systems/", $name, ".toml")) }),*
        ];
    };
}

presets![
    "aifactory-gb300",
    "aifactory-trn3",
    "astra-3d",
    "astra-ring64",
    "astra-ring8",
    "dgx-a100",
    "dgx-b200",
    "dgx-b300",
    "dgx-h100",
    "dgx-h200",
    "gb200-nvl72",
    "gb300-nvl72",
    "host-graviton4",
    "host-graviton5",
    "inf2.48xl",
    "nvl1152-optical",
    "nvlf-cpu",
    "nvlf-xpu",
    "nvlink1",
    "nvlink2",
    "nvlink3",
    "nvlink4",
    "nvlink5",
    "nvlink6",
    "p5.48xl",
    "pcie3",
    "pcie4",
    "pcie5",
    "pcie6",
    "rainier",
    "rubin-ultra-kyber",
    "tpu-v4",
    "tpu-v5e",
    "tpu-v5p",
    "tpu-v6e",
    "tpu-v7",
    "trn1.32xl",
    "trn1.32xl-cores",
    "trn1n.32xl",
    "trn2-ultra64",
    "trn2.48xl",
    "trn3-gen1-64",
    "trn3-gen2-144",
    "trn3-gen2-144-conservative",
    "trn4-nvlf144",
    "trn4-nvlf72",
    "ualink",
    "vr-nvl72",
];

/// What presets inherit from, without being systems of their own.
const FRAGMENTS: &[Preset] =
    &[Preset { name: "base-pair", text: include_str!("../systems/base-pair.toml") }];

pub(crate) fn text(name: &str) -> Option<&'static str> {
    let all = PRESETS.iter().chain(FRAGMENTS);
    all.into_iter().find(|preset| preset.name == name).map(|preset| preset.text)
}

impl System {
    /// A system that comes with the crate, or several of one, as `trn3-gen2-144*64` (`x` is as good as `*`) and as
    /// `rainier-N` for N chips. Nothing where there is none of that name, or not so many of it.
    pub fn named(name: &str, sets: &[String]) -> Option<Result<System, Problems>> {
        if let Some(preset) = PRESETS.iter().find(|preset| preset.name == name) {
            return Some(System::parse(preset.text, name, sets));
        }
        if let Some(chips) = name.strip_prefix("rainier-") {
            let chips: usize = chips.parse().ok()?;
            let unit = System::named("rainier", sets)?;
            return several(unit, |unit| {
                chips.is_multiple_of(unit.chips()).then(|| chips / unit.chips())
            });
        }
        let (unit, count) = name.rsplit_once(['*', 'x'])?;
        let count: usize = count.parse().ok()?;
        several(System::named(unit, sets)?, |_| Some(count))
    }
}

fn several(
    unit: Result<System, Problems>,
    count: impl Fn(&System) -> Option<usize>,
) -> Option<Result<System, Problems>> {
    match unit {
        Ok(unit) => unit.times(count(&unit)?).map(Ok),
        Err(problems) => Some(Err(problems)),
    }
}
