//! One core of the accelerator as data: engines, memories, costs. Every number comes from a description file, where its
//! source and its mark stand beside it.

use systole_catalog::{Allowed, File, Problems, Reader};

use crate::program::Engine;

/// A core with its share of the chip.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// What it is called on the command line.
    pub name: String,
    /// What it is, for reports.
    pub title: String,
    /// Which generation of instructions it has: 2, 3 or 4.
    pub generation: u8,
    /// Whether its numbers are announced ratios alone. Every report says so.
    pub announced: bool,
    /// The chip around the core.
    pub chip: Chip,
    /// Clocks.
    pub clocks: Clocks,
    /// The systolic array of TensorE.
    pub array: Array,
    /// The state buffer.
    pub sbuf: Sbuf,
    /// The accumulators.
    pub psum: Psum,
    /// VectorE.
    pub vector: VectorEngine,
    /// ScalarE.
    pub scalar: ScalarEngine,
    /// GpSimdE.
    pub gpsimd: GpSimdEngine,
    /// Semaphores and sequencers.
    pub sync: Sequencers,
    /// What engines cannot do at once.
    pub ports: Ports,
    /// DMA.
    pub dma: DmaEngines,
    /// High-bandwidth memory.
    pub hbm: Hbm,
    /// The limit on changes of current.
    pub throttle: Throttle,
    /// From the call of a program to its first instruction, in µs.
    pub start_us: f64,
    /// Energy.
    pub energy: Energy,
}

/// What runs from one description to the reader of the next: a table of numbers.
macro_rules! table {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $field_doc:literal])+ $field:ident: $kind:ident $(($($limit:expr),+))?,)* }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $name { $($(#[doc = $field_doc])+ pub $field: table!(@type $kind),)* }
        impl $name {
            fn read(reader: &Reader<'_>) -> $name {
                $name { $($field: table!(@read $kind, reader, stringify!($field) $(, $($limit),+)?),)* }
            }
        }
    };
    (@type positive) => { f64 };
    (@type amount) => { f64 };
    (@type efficiency) => { f64 };
    (@type share) => { f64 };
    (@type count) => { u64 };
    (@type flag) => { bool };
    (@read positive, $reader:ident, $key:expr) => { $reader.number($key, Allowed::Between(1e-6, 1e6)) };
    (@read amount, $reader:ident, $key:expr) => { $reader.number($key, Allowed::Between(0.0, 1e6)) };
    (@read efficiency, $reader:ident, $key:expr) => { $reader.number($key, Allowed::Between(1e-3, 1.0)) };
    (@read share, $reader:ident, $key:expr) => { $reader.number($key, Allowed::Between(0.0, 1.0)) };
    (@read count, $reader:ident, $key:expr, $low:expr, $high:expr) => {
        u64::try_from($reader.integer($key, $low..=$high)).unwrap_or($low)
    };
    (@read flag, $reader:ident, $key:expr) => { $reader.flag($key) };
}

table! {
    /// The chip around the core.
    Chip {
        /// Physical cores.
        cores: count(1, 4096),
        /// What it draws at most.
        tdp_watts: positive,
    }
}
table! {
    /// Clocks of the engines.
    Clocks {
        /// TensorE.
        tensor_ghz: positive,
        /// VectorE.
        vector_ghz: positive,
        /// ScalarE.
        scalar_ghz: positive,
        /// GpSimdE.
        gpsimd_ghz: positive,
        /// SyncE.
        sync_ghz: positive,
    }
}
table! {
    /// The systolic array of TensorE.
    Array {
        /// Rows: what is summed in one pass.
        row_count: count(1, 1024),
        /// Columns: partitions of the result.
        column_count: count(1, 1024),
        /// The widest moving operand.
        moving_elements_max: count(1, 65536),
        /// A product holds the array at least for as many cycles, or for as many as the stationary operand has columns.
        min_stationary_cycles: count(0, 65536),
        /// Passes of a product of f32.
        f32_pass_count: count(1, 64),
        /// Rows of f8 that one row of the array takes in double-row products; 1 where there are none.
        double_row_count: count(1, 16),
        /// Elements that one row takes in block-scaled products; 0 where there are none.
        block_row_count: count(0, 64),
        /// Passes of a block-scaled product of f4 for one of f8; 0 where there are none.
        f4_pass_count: amount,
        /// Columns of the stationary operand loaded in a cycle. A load is hidden behind a product that is under way.
        load_columns_per_cycle: count(1, 1024),
        /// From the last moving column to the result.
        latency_cycles: count(0, 100_000),
    }
}
table! {
    /// The state buffer.
    Sbuf {
        /// Partitions.
        partition_count: count(1, 1024),
        /// Bytes of each.
        partition_bytes: count(1, 16_777_216),
        /// Bytes of each that programs may use.
        usable_bytes: count(1, 16_777_216),
    }
}
table! {
    /// The accumulators. They have as many partitions as the state buffer.
    Psum {
        /// Banks.
        bank_count: count(1, 64),
        /// Bytes of each bank in each partition.
        bank_bytes: count(4, 1_048_576),
    }
}
table! {
    /// VectorE. An instruction holds it for its interval and the overhead; its result can be used `latency_cycles` later.
    VectorEngine {
        /// No instruction takes less.
        min_interval_cycles: count(0, 65536),
        /// Added to every instruction.
        overhead_cycles: count(0, 100_000),
        /// From the end of an instruction to the use of its result.
        latency_cycles: count(0, 100_000),
        /// Copies and operations with scalars, 16-bit, contiguous, SBUF alone.
        copy_speedup: count(1, 64),
        /// The same where something is not contiguous, or one side is PSUM.
        copy_partial_speedup: count(1, 64),
        /// Operations on two tensors, all 16-bit in SBUF.
        pair_speedup: count(1, 64),
        /// Of the instruction `exponential`.
        exponential_elements_per_cycle: count(1, 64),
        /// Of the instruction `quantize-mx`.
        quantize_elements_per_cycle: count(1, 64),
        /// Added for the reduction beside a result.
        reduce_read_cycles: count(0, 65536),
    }
}
table! {
    /// ScalarE. An instruction holds it for its interval and the overhead; its result can be used `latency_cycles` later.
    ScalarEngine {
        /// No instruction takes less.
        min_interval_cycles: count(0, 65536),
        /// Added to every instruction.
        overhead_cycles: count(0, 100_000),
        /// From the end of an instruction to the use of its result.
        latency_cycles: count(0, 100_000),
        /// Copies and operations with scalars, 16-bit.
        copy_speedup: count(1, 64),
        /// Loading another set of functions.
        table_load_ns: amount,
        /// Added for the reduction beside a result.
        reduce_read_cycles: count(0, 65536),
    }
}
table! {
    /// GpSimdE. An instruction holds it for its interval and the overhead; its result can be used `latency_cycles` later.
    GpSimdEngine {
        /// No instruction takes less.
        min_interval_cycles: count(0, 65536),
        /// Before the first element of `iota`, `affine-select`, `gather` and all code.
        start_cycles: count(0, 100_000),
        /// Added to every instruction.
        overhead_cycles: count(0, 100_000),
        /// From the end of an instruction to the use of its result.
        latency_cycles: count(0, 100_000),
        /// Elements of 32 bits that exact code computes at once.
        code_lanes: count(1, 4096),
        /// Cycles for one operation of exact code.
        code_cycles: count(1, 4096),
    }
}
table! {
    /// Semaphores and sequencers.
    Sequencers {
        /// From a signal to the instruction that waits for it.
        semaphore_ns: amount,
        /// How long a sequencer takes to start a transfer.
        trigger_cycles: count(0, 100_000),
        /// No instruction takes less whose addresses vary with a number that data decide, in cycles of its engine.
        dynamic_interval_cycles: count(0, 100_000),
    }
}
table! {
    /// What engines cannot do at once, and what slows memory.
    Ports {
        /// VectorE and GpSimdE cannot use SBUF at the same time.
        vector_gpsimd_share_sbuf: flag,
        /// VectorE and ScalarE cannot use PSUM at the same time.
        vector_scalar_share_psum: flag,
        /// An innermost stride from which on SBUF and PSUM are slow; 0 where none is.
        stride_bytes: count(0, 65536),
        /// How much longer such an instruction takes.
        stride_slowdown: count(1, 64),
    }
}
table! {
    /// DMA. An instruction waits for its issue queue; its data moves on the engines of the partitions that it touches.
    DmaEngines {
        /// Engines; each serves as many partitions as the others.
        engine_count: count(1, 256),
        /// What one engine moves.
        engine_gbs: positive,
        /// What all engines of a core move in practice: for bounds alone.
        practical_gbs: positive,
        /// Added for each contiguous row.
        descriptor_ns: amount,
        /// Rows of fewer bytes are slow to read from HBM …
        short_row_bytes: count(0, 1_048_576),
        /// … as slow as this on one engine.
        short_row_gbs: positive,
        /// How long an instruction holds its issue queue.
        issue_ns: amount,
        /// Issue queues, shared by the sequencers that trigger transfers.
        issue_queue_count: count(1, 256),
        /// How long GpSimdE takes to write the descriptors of an indirect transfer.
        software_issue_ns: amount,
        /// From trigger to data.
        trigger_ns: amount,
        /// From the last data to the semaphore.
        complete_ns: amount,
        /// The rate of transposing transfers from or to HBM, of that of copies.
        transpose_efficiency: efficiency,
        /// The same within SBUF.
        near_transpose_efficiency: efficiency,
        /// The rate of transfers that combine with what is there.
        accumulate_efficiency: efficiency,
    }
}
table! {
    /// High-bandwidth memory.
    Hbm {
        /// What a core may hold.
        capacity_gib: positive,
        /// Of the chip, for reports.
        chip_gbs: positive,
        /// Of the stack that the core uses.
        stack_gbs: positive,
        /// Cores that share the stack.
        stack_core_count: count(1, 4096),
    }
}
table! {
    /// The limit on changes of current: TensorE starts slowly after it was used too little.
    Throttle {
        /// The rate after that.
        start_rate: efficiency,
        /// Time until the full rate.
        ramp_us: amount,
        /// The share of the array's cells and time that must be used …
        least_use: share,
        /// … over so long, or it starts slowly again.
        window_us: amount,
    }
}
table! {
    /// Energy.
    Energy {
        /// For a bf16 operation of TensorE; others by the time they hold it.
        flop_pj: amount,
        /// For a byte from or to HBM.
        hbm_byte_pj: amount,
        /// All the time, for the core's share.
        static_watts: amount,
    }
}

/// The presets by name, with their texts.
pub const PRESETS: &[(&str, &str)] = &[
    ("trn1", include_str!("../machines/trn1.toml")),
    ("trn2", include_str!("../machines/trn2.toml")),
    ("trn3", include_str!("../machines/trn3.toml")),
    ("trn4", include_str!("../machines/trn4.toml")),
];

/// The text of a preset, which files may inherit from.
pub fn preset_text(name: &str) -> Option<String> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
}

impl Machine {
    /// A machine that comes with the compiler.
    pub fn preset(name: &str) -> Option<Machine> {
        let text = preset_text(name)?;
        Some(Machine::from_text(&text, name).expect("the tests read every preset"))
    }

    /// The machine that a description file says; `name` is for messages.
    pub fn from_text(text: &str, name: &str) -> Result<Machine, Problems> {
        Machine::with_settings(text, name, &[])
    }

    /// The machine of a description file with some values replaced, each written `key=value`.
    pub fn with_settings(text: &str, name: &str, settings: &[&str]) -> Result<Machine, Problems> {
        let mut file = File::parse_with(text, name, &preset_text)?;
        for setting in settings {
            file.set(setting)?;
        }
        Machine::from_file(&file)
    }

    /// The machine that a parsed description says.
    pub fn from_file(file: &File) -> Result<Machine, Problems> {
        let top = file.read();
        let program = top.table("program");
        let machine = Machine {
            name: top.text("name").to_owned(),
            title: top.text("title").to_owned(),
            generation: u8::try_from(top.integer("generation", 2..=4)).unwrap_or(2),
            announced: top.optional_flag("announced").unwrap_or(false),
            chip: Chip::read(&top.table("chip")),
            clocks: Clocks::read(&top.table("clocks")),
            array: Array::read(&top.table("array")),
            sbuf: Sbuf::read(&top.table("sbuf")),
            psum: Psum::read(&top.table("psum")),
            vector: VectorEngine::read(&top.table("vector")),
            scalar: ScalarEngine::read(&top.table("scalar")),
            gpsimd: GpSimdEngine::read(&top.table("gpsimd")),
            sync: Sequencers::read(&top.table("sync")),
            ports: Ports::read(&top.table("ports")),
            dma: DmaEngines::read(&top.table("dma")),
            hbm: Hbm::read(&top.table("hbm")),
            throttle: Throttle::read(&top.table("throttle")),
            start_us: program.number("start_us", Allowed::Between(0.0, 1e6)),
            energy: Energy::read(&top.table("energy")),
        };
        if machine.sbuf.usable_bytes > machine.sbuf.partition_bytes {
            let most = machine.sbuf.partition_bytes;
            let usable = machine.sbuf.usable_bytes;
            top.table("sbuf").problem(
                "usable_bytes",
                format!("`usable_bytes` is {usable}, but a partition has {most} bytes"),
            );
        }
        if machine.array.row_count.max(machine.array.column_count) > machine.sbuf.partition_count {
            let most = machine.sbuf.partition_count;
            top.table("array").problem(
                "row_count",
                format!("the array has more rows or columns than there are partitions ({most})"),
            );
        }
        top.finish()?;
        Ok(machine)
    }

    /// The clock of an engine, in GHz.
    pub fn clock_ghz(&self, engine: Engine) -> f64 {
        match engine {
            Engine::Tensor => self.clocks.tensor_ghz,
            Engine::Vector => self.clocks.vector_ghz,
            Engine::Scalar => self.clocks.scalar_ghz,
            Engine::GpSimd => self.clocks.gpsimd_ghz,
            Engine::Sync => self.clocks.sync_ghz,
        }
    }

    /// Bytes of each PSUM partition.
    pub fn psum_bytes(&self) -> u64 {
        self.psum.bank_count * self.psum.bank_bytes
    }

    /// Operations a second of all TensorE of the chip at bf16.
    pub fn chip_flops(&self) -> f64 {
        self.tensor_flops() * self.chip.cores as f64
    }

    /// The same for each watt that the chip may draw.
    pub fn chip_flops_per_watt(&self) -> f64 {
        self.chip_flops() / self.chip.tdp_watts
    }

    /// What one core gets of the memory when as many cores of the chip are busy.
    pub fn hbm_gbs(&self, busy_cores: u64) -> f64 {
        self.hbm.stack_gbs / busy_cores.clamp(1, self.hbm.stack_core_count) as f64
    }

    /// The least time of a program on one core, in µs: as TensorE alone takes at bf16, and as moving its bytes takes in
    /// practice.
    pub fn bounds_us(&self, flops: f64, hbm_bytes: f64) -> (f64, f64) {
        (flops / self.tensor_flops() * 1e6, hbm_bytes / self.dma.practical_gbs * 1e-3)
    }

    /// Operations a second of TensorE at bf16: what utilisation is measured against.
    pub fn tensor_flops(&self) -> f64 {
        let cells = self.array.row_count * self.array.column_count;
        2.0 * cells as f64 * self.clocks.tensor_ghz * 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_reads_and_marks_every_number() {
        for (name, text) in PRESETS {
            let machine = Machine::from_text(text, name).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(machine.name, *name);
            let file = File::parse_with(text, name, &preset_text).unwrap_or_else(|e| panic!("{e}"));
            let bare: Vec<String> = file.unmarked();
            assert_eq!(bare, ["generation"], "numbers without a mark in {name}");
        }
        assert!(Machine::preset("trn4").is_some_and(|machine| machine.announced));
    }

    #[test]
    fn settings_replace_values_and_unknown_keys_are_told_with_their_place() {
        let text = preset_text("trn2").expect("a preset");
        let changed = Machine::with_settings(&text, "trn2", &["hbm.stack_gbs=4000"]);
        assert_eq!(changed.map(|machine| machine.hbm.stack_gbs), Ok(4000.0));
        let error =
            Machine::with_settings(&text, "trn2", &["dma.engine_gb=1"]).expect_err("unknown");
        assert!(error.to_string().contains("engine_gb"), "{error}");
        let wrong = "inherit = \"trn2\"\n[dma]\nengine_count = \"many\"\n";
        let error = Machine::from_text(wrong, "mine.toml").expect_err("ill-typed");
        assert!(error.to_string().contains("mine.toml:3"), "{error}");
    }

    #[test]
    fn peaks_are_those_of_the_core_pages() {
        let peak = |name| Machine::preset(name).map(|m: Machine| (m.tensor_flops() / 1e12).round());
        assert_eq!(
            [peak("trn1"), peak("trn2"), peak("trn3")],
            [Some(92.0), Some(79.0), Some(79.0)]
        );
    }
}
