//! The bytes of a core, and which of them have been written.
//!
//! What nothing has written is poison. Transfers carry poison along; a compute instruction that reads it is an error.

use super::SimulateError;
use crate::machine::Machine;
use crate::program::{Program, Space};
use bytes::Bytes;
use systole_compiler::tensor::Tensor;
use systole_compiler::types::{DType, TensorType};

/// Bytes with a mark for each that has been written.
#[derive(Clone, Debug)]
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    /// One bit a byte; `None` where all have been written.
    pub(super) written: Option<Vec<u64>>,
}

impl Block {
    /// Bytes that nothing has written.
    pub(super) fn poison(size: usize) -> Block {
        Block { bytes: vec![0; size], written: Some(vec![0; size.div_ceil(64)]) }
    }

    /// Marks a range as written.
    pub(super) fn mark(&mut self, start: usize, len: usize) {
        if let Some(bits) = &mut self.written {
            for_words(start, len, |word, mask| bits[word] |= mask);
        }
    }

    /// Marks a range as poison.
    pub(super) fn spoil(&mut self, start: usize, len: usize) {
        let size = self.bytes.len();
        let bits = self.written.get_or_insert_with(|| vec![u64::MAX; size.div_ceil(64)]);
        for_words(start, len, |word, mask| bits[word] &= !mask);
    }

    /// The first byte of a range that nothing has written.
    pub(super) fn first_poison(&self, start: usize, len: usize) -> Option<usize> {
        let bits = self.written.as_ref()?;
        let mut found = None;
        for_words(start, len, |word, mask| {
            let missing = mask & !bits[word];
            if missing != 0 && found.is_none() {
                found = Some(word * 64 + missing.trailing_zeros() as usize);
            }
        });
        found
    }
}

fn for_words(start: usize, len: usize, mut each: impl FnMut(usize, u64)) {
    let end = start + len;
    let mut at = start;
    while at < end {
        let word = at / 64;
        let stop = end.min((word + 1) * 64);
        let width = stop - at;
        let mask = if width == 64 { u64::MAX } else { ((1 << width) - 1) << (at % 64) };
        each(word, mask);
        at = stop;
    }
}

/// All memory of a core.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) sbuf: Block,
    pub(super) psum: Block,
    pub(super) sbuf_row: usize,
    pub(super) psum_row: usize,
    pub(super) partitions: usize,
    /// The tensors' memory: a block for each tensor that is no alias.
    pub(super) far: Vec<Option<Block>>,
    pub(super) roots: Vec<u32>,
}

impl Memory {
    /// Memory with the inputs in it.
    pub(super) fn new(
        program: &Program,
        machine: &Machine,
        inputs: &[Tensor],
        max_bytes: u64,
    ) -> Result<Memory, SimulateError> {
        if inputs.len() != program.inputs.len() {
            let (given, wanted) = (inputs.len(), program.inputs.len());
            return Err(SimulateError::Input(format!(
                "{given} inputs are given, but the program takes {wanted}"
            )));
        }
        let roots: Vec<u32> =
            (0..program.tensors.len() as u32).map(|t| super::feed::root(program, t)).collect();
        let mut sizes = vec![0u64; program.tensors.len()];
        for (tensor, &root) in program.tensors.iter().zip(&roots) {
            let bytes = tensor.elements.saturating_mul(tensor.dtype.bytes() as u64);
            sizes[root as usize] = sizes[root as usize].max(bytes);
        }
        let needed = sizes.iter().fold(0u64, |all, &size| all.saturating_add(size));
        if needed > max_bytes {
            return Err(SimulateError::Memory { needed, limit: max_bytes });
        }
        let mut far: Vec<Option<Block>> = sizes.iter().map(|_| None).collect();
        for (&at, input) in program.inputs.iter().zip(inputs) {
            let tensor = &program.tensors[at as usize];
            if input.dtype() != tensor.dtype || input.count() as u64 != tensor.elements {
                return Err(SimulateError::Input(format!(
                    "input %{} has {} elements of {}, but the program takes {} of {}",
                    tensor.name,
                    input.count(),
                    input.dtype(),
                    tensor.elements,
                    tensor.dtype
                )));
            }
            let root = roots[at as usize] as usize;
            let mut block = Block::poison(sizes[root] as usize);
            let bytes = input.bytes();
            block.bytes[..bytes.len()].copy_from_slice(bytes);
            block.mark(0, bytes.len());
            if bytes.len() == block.bytes.len() {
                block.written = None;
            }
            far[root] = Some(block);
        }
        for (root, block) in far.iter_mut().enumerate() {
            if block.is_none() && roots[root] as usize == root {
                *block = Some(Block::poison(sizes[root] as usize));
            }
        }
        let partitions = machine.sbuf.partition_count as usize;
        let (sbuf_row, psum_row) =
            (machine.sbuf.usable_bytes as usize, machine.psum_bytes() as usize);
        Ok(Memory {
            sbuf: Block::poison(partitions * sbuf_row),
            psum: Block::poison(partitions * psum_row),
            sbuf_row,
            psum_row,
            partitions,
            far,
            roots,
        })
    }

    pub(super) fn near(&self, space: Space) -> (&Block, usize) {
        match space {
            Space::Sbuf => (&self.sbuf, self.sbuf_row),
            Space::Psum => (&self.psum, self.psum_row),
        }
    }

    pub(super) fn near_mut(&mut self, space: Space) -> (&mut Block, usize) {
        match space {
            Space::Sbuf => (&mut self.sbuf, self.sbuf_row),
            Space::Psum => (&mut self.psum, self.psum_row),
        }
    }

    pub(super) fn tensor(&self, tensor: u32) -> Option<&Block> {
        self.far.get(*self.roots.get(tensor as usize)? as usize)?.as_ref()
    }

    pub(super) fn tensor_mut(&mut self, tensor: u32) -> Option<&mut Block> {
        self.far.get_mut(*self.roots.get(tensor as usize)? as usize)?.as_mut()
    }

    /// A tensor's elements as a flat tensor; bytes that nothing has written are zero.
    pub(super) fn read(&self, program: &Program, tensor: u32) -> Tensor {
        let info = &program.tensors[tensor as usize];
        let ty = TensorType::new(info.dtype, &[info.elements as usize]);
        let bytes = info.elements as usize * info.dtype.bytes();
        let data = self.tensor(tensor).map(|block| Bytes::copy_from_slice(&block.bytes[..bytes]));
        data.and_then(|data| Tensor::new(ty.clone(), data)).unwrap_or_else(|| Tensor::zeros(ty))
    }
}

/// Decodes one run of equally spaced elements to f32.
pub(super) fn decode(dtype: DType, bytes: &[u8], stride: usize, out: &mut [f32]) {
    let size = dtype.bytes();
    macro_rules! each {
        (|$chunk:ident| $value:expr) => {
            if stride == 1 {
                for (out, $chunk) in out.iter_mut().zip(bytes.chunks_exact(size)) {
                    *out = $value;
                }
            } else {
                for (position, out) in out.iter_mut().enumerate() {
                    let at = position * stride * size;
                    let $chunk = &bytes[at..at + size];
                    *out = $value;
                }
            }
        };
    }
    match dtype {
        DType::F32 => each!(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])),
        DType::BF16 => each!(|c| f32::from_bits(u32::from(u16::from_le_bytes([c[0], c[1]])) << 16)),
        DType::F16 => each!(|c| half::f16::from_le_bytes([c[0], c[1]]).to_f32()),
        DType::I32 => each!(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]]) as f32),
        DType::U32 => each!(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]) as f32),
        DType::U8 => each!(|c| f32::from(c[0])),
        DType::Bool => each!(|c| f32::from(u8::from(c[0] != 0))),
        DType::I8 => each!(|c| f32::from(c[0] as i8)),
        DType::I16 => each!(|c| f32::from(i16::from_le_bytes([c[0], c[1]]))),
        DType::U16 => each!(|c| f32::from(u16::from_le_bytes([c[0], c[1]]))),
        DType::F8E4M3 | DType::F8E5M2 | DType::F4E2M1 => {
            let table = small_table(dtype);
            each!(|c| table[usize::from(c[0])]);
        }
        DType::I4 | DType::I64 | DType::U4 | DType::U64 | DType::F64 => {
            use systole_compiler::narrow;
            each!(|c| narrow::decode(dtype, c).to_f64().first().map_or(0.0, |&v| v as f32));
        }
    }
}

/// The values of all codes of an 8-bit type.
fn small_table(dtype: DType) -> &'static [f32] {
    use std::sync::OnceLock;
    static TABLES: [OnceLock<Vec<f32>>; 3] = [OnceLock::new(), OnceLock::new(), OnceLock::new()];
    let table = if dtype == DType::F8E4M3 {
        &TABLES[0]
    } else if dtype == DType::F8E5M2 {
        &TABLES[1]
    } else {
        &TABLES[2]
    };
    table.get_or_init(|| {
        let codes: Vec<u8> = (0..=255).collect();
        let values = systole_compiler::narrow::decode(dtype, &codes).to_f64();
        values.into_iter().map(|value| value as f32).collect()
    })
}

/// Encodes f32 as elements of a type: floats round to nearest even, integers truncate and wrap.
pub(super) fn encode(dtype: DType, values: &[f32], stride: usize, bytes: &mut [u8]) {
    let size = dtype.bytes();
    macro_rules! each {
        (|$value:ident| $encoded:expr) => {
            if stride == 1 {
                for (&$value, chunk) in values.iter().zip(bytes.chunks_exact_mut(size)) {
                    chunk.copy_from_slice(&$encoded);
                }
            } else {
                for (position, &$value) in values.iter().enumerate() {
                    let at = position * stride * size;
                    bytes[at..at + size].copy_from_slice(&$encoded);
                }
            }
        };
    }
    match dtype {
        DType::F32 => each!(|v| v.to_le_bytes()),
        DType::BF16 => each!(|v| round_bf16(v).to_le_bytes()),
        DType::F16 => each!(|v| half::f16::from_f32(v).to_le_bytes()),
        DType::I32 => each!(|v| (v as i64 as i32).to_le_bytes()),
        DType::U32 => each!(|v| (v as i64 as u32).to_le_bytes()),
        DType::U8 => each!(|v| (v as i64 as u8).to_le_bytes()),
        DType::I8 => each!(|v| (v as i64 as i8).to_le_bytes()),
        DType::Bool => each!(|v| [u8::from(v != 0.0)]),
        DType::I16 => each!(|v| (v as i64 as i16).to_le_bytes()),
        DType::U16 => each!(|v| (v as i64 as u16).to_le_bytes()),
        DType::F8E4M3
        | DType::F8E5M2
        | DType::F4E2M1
        | DType::I4
        | DType::I64
        | DType::U4
        | DType::U64
        | DType::F64 => {
            let all = systole_compiler::tensor::Values::F32(values.to_vec());
            let encoded = systole_compiler::narrow::encode(dtype, &all);
            for (position, element) in encoded.chunks_exact(size).enumerate() {
                let at = position * stride * size;
                bytes[at..at + size].copy_from_slice(element);
            }
        }
    }
}

/// The bf16 nearest to a number, ties to even; NaN stays NaN.
fn round_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return ((bits >> 16) as u16) | 0x40;
    }
    let rounding = 0x7fff + ((bits >> 16) & 1);
    ((bits + rounding) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bf16_rounding_is_that_of_the_compiler() {
        for bits in (0..=u32::MAX).step_by(65_521) {
            let value = f32::from_bits(bits);
            let wanted = half::bf16::from_f32(value).to_bits();
            assert_eq!(round_bf16(value), wanted, "{value} ({bits:#x})");
        }
    }

    #[test]
    fn poison_is_found_where_it_is() {
        let mut block = Block::poison(300);
        block.mark(10, 200);
        assert_eq!(block.first_poison(10, 200), None);
        assert_eq!(block.first_poison(10, 201), Some(210));
        block.spoil(64, 1);
        assert_eq!(block.first_poison(10, 200), Some(64));
        assert_eq!(block.first_poison(65, 100), None);
    }
}
