//! What instruction selection knows of a core: sizes, clocks and costs, as plain numbers.

use systole_compiler::machine::{ContractTile, Machine as Tiled};
use systole_compiler::scalar::ScalarFn;

/// A core as the back end sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// What the machine is called.
    pub name: String,
    /// Bytes of each SBUF partition that programs may use.
    pub sbuf_bytes: u32,
    /// PSUM banks.
    pub psum_banks: u8,
    /// Bytes of a PSUM bank in each partition.
    pub psum_bank_bytes: u32,
    /// Columns of a product: what the array takes at once and a bank holds in f32.
    pub product_columns: usize,
    /// Partitions of both memories, and rows and columns of the array.
    pub partitions: [u64; 3],
    /// Clock of TensorE.
    pub tensor_ghz: f64,
    /// Clock of VectorE.
    pub vector_ghz: f64,
    /// Clock of ScalarE.
    pub scalar_ghz: f64,
    /// Whether DMA engines transpose two-byte elements.
    pub dma_transposes: bool,
}

/// Partitions of both memories, rows and columns of the array: for others nothing is compiled.
pub(crate) const PARTITIONS: usize = 128;

impl Limits {
    /// The core of a description.
    pub fn of(machine: &crate::machine::Machine) -> Limits {
        Limits {
            name: machine.name.clone(),
            sbuf_bytes: u32::try_from(machine.sbuf.usable_bytes).unwrap_or(u32::MAX),
            psum_banks: u8::try_from(machine.psum.bank_count).unwrap_or(u8::MAX),
            psum_bank_bytes: u32::try_from(machine.psum.bank_bytes).unwrap_or(u32::MAX),
            product_columns: usize::try_from(
                machine.array.moving_elements_max.min(machine.psum.bank_bytes / 4),
            )
            .unwrap_or(usize::MAX)
            .max(1),
            partitions: [
                machine.sbuf.partition_count,
                machine.array.row_count,
                machine.array.column_count,
            ],
            tensor_ghz: machine.clocks.tensor_ghz,
            vector_ghz: machine.clocks.vector_ghz,
            scalar_ghz: machine.clocks.scalar_ghz,
            dma_transposes: machine.generation >= 3,
        }
    }

    /// The core as the shared passes see it. The back end schedules kernels by itself.
    pub fn tiled(&self) -> Tiled {
        let near = PARTITIONS * self.sbuf_bytes as usize / 2;
        Tiled {
            name: self.name.clone(),
            near_rows: PARTITIONS,
            near_bytes: near,
            vector_elements: PARTITIONS,
            contract: ContractTile {
                m: (PARTITIONS, 2048),
                n: (self.product_columns.min(2048), 2048),
                k: (PARTITIONS, 4096),
            },
            attention: None,
            map_elements: PARTITIONS * 2048,
            reduce_elements: PARTITIONS * 2048,
            native: ScalarFn::CATALOG.iter().map(|&(function, _)| function).collect(),
            schedules: true,
            widens: Vec::new(),
            bytes_together: 0,
            weights: None,
        }
    }
}
