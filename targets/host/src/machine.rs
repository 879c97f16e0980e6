//! The host as data for the tiler, and the choice of its instruction set.

use crate::micro::{Cpu, TOGETHER, panel_widths};
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use systole_compiler::machine::{AttentionTile, ContractTile, Machine};
use systole_compiler::scalar::ScalarFn;
use systole_compiler::types::DType;

/// The functions that a caller may force an instruction set by.
const NAMES: [(&str, Cpu); 4] =
    [("sse", Cpu::Baseline), ("neon", Cpu::Neon), ("avx2", Cpu::Avx2), ("avx512", Cpu::Avx512)];

/// The instruction set of that name, or the best of this machine. It must be one that the machine has.
pub(crate) fn cpu(name: Option<&str>) -> Result<Cpu, String> {
    let Some(name) = name else { return Ok(Cpu::detect()) };
    let Some(&(_, cpu)) = NAMES.iter().find(|(other, _)| *other == name) else {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        return Err(format!("unknown cpu {name}: known are {}", names.join(", ")));
    };
    if !cpu.is_supported() {
        return Err(format!("this machine lacks {name}"));
    }
    Ok(cpu)
}

/// The name of an instruction set that this machine has: the best one, or the one named.
pub fn cpu_name(name: Option<&str>) -> Result<&'static str, String> {
    let cpu = cpu(name)?;
    let found = NAMES.iter().find(|(_, other)| *other == cpu);
    found.map(|(name, _)| *name).ok_or_else(|| format!("{cpu:?} has no name"))
}

/// This machine as a target, with the best instruction set that it has or the one named (`sse`, `neon`, `avx2`, `avx512`).
pub fn machine(name: Option<&str>) -> Result<Machine, String> {
    let cpu = cpu(name)?;
    let (rows, columns) = panel_widths(cpu);
    let vector_elements = match cpu {
        Cpu::Baseline | Cpu::Neon => 4,
        Cpu::Avx2 => 8,
        Cpu::Avx512 => 16,
    };
    Ok(Machine {
        name: "host".to_owned(),
        near_rows: 1,
        near_bytes: 1 << 20,
        vector_elements,
        contract: ContractTile { m: (rows, rows * 20), n: (columns, columns * 32), k: (8, 4096) },
        attention: Some(AttentionTile { queries: 128, keys: 256, most_scores: 128 * 512 }),
        map_elements: 16_384,
        reduce_elements: 4096,
        schedules: false,
        widens: vec![DType::I8, DType::U8, DType::BF16],
        bytes_together: TOGETHER,
        weights: None,
        native: ScalarFn::CATALOG.iter().map(|&(function, _)| function).collect(),
    })
}

/// Whether generated code multiplies and adds with one rounding.
pub(crate) fn has_fma(cpu: Cpu) -> bool {
    match cpu {
        Cpu::Baseline => false,
        Cpu::Neon | Cpu::Avx2 | Cpu::Avx512 => true,
    }
}

/// Cranelift's target for an instruction set of an architecture (`x86_64` or `aarch64`).
pub(crate) fn isa(
    architecture: &str,
    cpu: Cpu,
    position_independent: bool,
) -> Result<OwnedTargetIsa, String> {
    let mut flags = settings::builder();
    let set = |flags: &mut settings::Builder, name: &str, value: &str| {
        flags.set(name, value).map_err(|error| error.to_string())
    };
    set(&mut flags, "opt_level", "speed")?;
    set(&mut flags, "is_pic", if position_independent { "true" } else { "false" })?;
    set(&mut flags, "use_colocated_libcalls", "false")?;
    set(&mut flags, "enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" })?;
    let mut builder = isa::lookup_by_name(&format!("{architecture}-unknown-linux-gnu"))
        .map_err(|error| format!("no code for {architecture}: {error}"))?;
    let features: &[&str] = match cpu {
        Cpu::Neon => &[],
        Cpu::Baseline => &["has_sse3", "has_ssse3", "has_sse41"],
        Cpu::Avx2 | Cpu::Avx512 => &[
            "has_sse3",
            "has_ssse3",
            "has_sse41",
            "has_sse42",
            "has_avx",
            "has_avx2",
            "has_fma",
            "has_bmi1",
            "has_bmi2",
            "has_popcnt",
            "has_lzcnt",
        ],
    };
    for feature in features {
        builder.enable(feature).map_err(|error| error.to_string())?;
    }
    builder.finish(settings::Flags::new(flags)).map_err(|error| error.to_string())
}
