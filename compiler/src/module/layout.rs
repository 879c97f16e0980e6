//! Layouts: how a tensor's elements lie in memory. Each dimension adds to an element's position on its own, so a layout
//! is a table of offsets a dimension, and packing is a walk over tables.

use crate::tensor::Tensor;
use crate::types::TensorType;
use bytes::Bytes;
use smallvec::SmallVec;

/// How a tensor's elements lie in memory: pieces of dimensions from outermost to innermost. The pieces of one dimension
/// are digits of its index, in the order in which they stand; their product may exceed the size, which is padding.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// The pieces.
    pub pieces: SmallVec<[Piece; 6]>,
}

/// A digit of a dimension's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Piece {
    /// The dimension.
    pub dim: usize,
    /// How many values the digit has.
    pub size: usize,
}

impl Layout {
    /// Row-major.
    pub fn row_major(shape: &[usize]) -> Layout {
        Layout {
            pieces: shape.iter().enumerate().map(|(dim, &size)| Piece { dim, size }).collect(),
        }
    }

    /// Whether it is row-major without padding.
    pub fn is_row_major(&self, shape: &[usize]) -> bool {
        *self == Layout::row_major(shape)
    }

    /// How many elements of memory there are, padding included; of a layout that was checked.
    pub fn elements(&self) -> usize {
        self.pieces.iter().map(|piece| piece.size).product()
    }

    /// How many bytes of memory a tensor of that type takes, padding included; `None` where that is more than any memory.
    pub fn checked_bytes(&self, ty: &TensorType) -> Option<usize> {
        let sizes: SmallVec<[usize; 6]> = self.pieces.iter().map(|piece| piece.size).collect();
        let padded = TensorType { dtype: ty.dtype, shape: sizes };
        padded.checked_count().map(|count| count * ty.dtype.bytes())
    }

    /// Whether every index of the shape has a position of its own: the digits of each dimension cover its size.
    pub fn covers(&self, shape: &[usize]) -> bool {
        let covered = |dim: usize| {
            let digits = self.pieces.iter().filter(|piece| piece.dim == dim);
            digits.fold(1usize, |covered, piece| covered.saturating_mul(piece.size))
        };
        self.pieces.iter().all(|piece| piece.dim < shape.len())
            && shape.iter().enumerate().all(|(dim, &size)| covered(dim) >= size)
    }

    /// For each dimension, what each of its indices adds to the position, in elements; of a layout that covers `shape`.
    pub fn offsets(&self, shape: &[usize]) -> Vec<Vec<usize>> {
        let mut offsets: Vec<Vec<usize>> = shape.iter().map(|&size| vec![0; size]).collect();
        // For each dimension, how many indices share a value of the digit that comes next.
        let mut inner = vec![1; shape.len()];
        let mut stride = 1;
        for piece in self.pieces.iter().rev() {
            let below = inner[piece.dim];
            for (index, offset) in offsets[piece.dim].iter_mut().enumerate() {
                *offset += index / below % piece.size.max(1) * stride;
            }
            inner[piece.dim] = below * piece.size.max(1);
            stride *= piece.size;
        }
        offsets
    }

    /// The position in memory, in elements, of an index of a tensor that the layout covers.
    pub fn position(&self, index: &[usize]) -> usize {
        let mut rest: SmallVec<[usize; 6]> = SmallVec::from_slice(index);
        let (mut position, mut stride) = (0, 1);
        for piece in self.pieces.iter().rev() {
            position += rest[piece.dim] % piece.size * stride;
            rest[piece.dim] /= piece.size;
            stride *= piece.size;
        }
        position
    }

    /// The bytes of a tensor as they lie in memory; padding is zero.
    pub fn pack(&self, tensor: &Tensor) -> Bytes {
        if self.is_row_major(tensor.shape()) {
            return tensor.bytes().clone();
        }
        let width = tensor.dtype().bytes();
        let mut memory = vec![0; self.elements() * width];
        let from = tensor.bytes();
        self.each(tensor.shape(), |index, position| {
            memory[position * width..][..width].copy_from_slice(&from[index * width..][..width]);
        });
        Bytes::from(memory)
    }

    /// The tensor whose elements lie so in memory.
    pub fn unpack(&self, ty: &TensorType, memory: &[u8]) -> Tensor {
        let width = ty.dtype.bytes();
        let data = if self.is_row_major(&ty.shape) {
            Bytes::copy_from_slice(&memory[..ty.bytes()])
        } else {
            let mut data = vec![0; ty.bytes()];
            self.each(&ty.shape, |index, position| {
                data[index * width..][..width]
                    .copy_from_slice(&memory[position * width..][..width]);
            });
            Bytes::from(data)
        };
        Tensor::new(ty.clone(), data).expect("as many bytes as the type has")
    }

    /// Calls `visit` with the row-major number and the position of every element, in row-major order.
    fn each(&self, shape: &[usize], mut visit: impl FnMut(usize, usize)) {
        if shape.contains(&0) {
            return;
        }
        let offsets = self.offsets(shape);
        let Some((inner, outer)) = offsets.split_last() else { return visit(0, 0) };
        let mut index = vec![0; outer.len()];
        let mut number = 0;
        loop {
            let base: usize = outer.iter().zip(&index).map(|(offsets, &at)| offsets[at]).sum();
            for offset in inner {
                visit(number, base + offset);
                number += 1;
            }
            let Some(dim) = (0..outer.len()).rev().find(|&dim| index[dim] + 1 < shape[dim]) else {
                return;
            };
            index[dim] += 1;
            index[dim + 1..].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn layout(pieces: &[(usize, usize)]) -> Layout {
        Layout { pieces: pieces.iter().map(|&(dim, size)| Piece { dim, size }).collect() }
    }

    /// Every layout with up to three pieces a dimension and digits of up to four values, in an order told by `seed`.
    fn some_layout(shape: &[usize], seed: usize) -> Layout {
        let mut state = seed as u64 * 2 + 1;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut pieces: Vec<Piece> = Vec::new();
        for (dim, &size) in shape.iter().enumerate() {
            let mut covered = 1;
            while covered < size {
                let digit = if next(3) == 0 { size.div_ceil(covered) } else { 2 + next(3) };
                pieces.insert(next(pieces.len() + 1), Piece { dim, size: digit });
                covered *= digit;
            }
        }
        Layout { pieces: pieces.into() }
    }

    #[test]
    fn distinct_indices_have_distinct_positions() {
        for seed in 0..300 {
            let shape = [1 + seed % 7, 1 + seed / 7 % 5, 1 + seed / 35 % 9];
            let layout = some_layout(&shape, seed);
            assert!(layout.covers(&shape), "{layout:?}");
            let offsets = layout.offsets(&shape);
            let mut seen = BTreeSet::new();
            let mut number = 0;
            layout.each(&shape, |index, position| {
                assert_eq!(index, number);
                number += 1;
                let index =
                    [index / (shape[1] * shape[2]), index / shape[2] % shape[1], index % shape[2]];
                assert_eq!(position, layout.position(&index), "{layout:?} at {index:?}");
                assert_eq!(position, (0..3).map(|dim| offsets[dim][index[dim]]).sum::<usize>());
                assert!(position < layout.elements(), "{layout:?} at {index:?}");
                assert!(seen.insert(position), "{layout:?} at {index:?}");
            });
            assert_eq!(number, shape.iter().product::<usize>());
        }
    }

    #[test]
    fn packing_and_unpacking_give_the_tensor_back() {
        for seed in 0..60 {
            let shape = [1 + seed % 5, 1 + seed % 11];
            let numbers: Vec<i16> = (0..shape[0] * shape[1]).map(|index| index as i16).collect();
            let tensor = Tensor::from_slice(&shape, &numbers);
            let layout = some_layout(&shape, seed);
            let memory = layout.pack(&tensor);
            assert_eq!(memory.len(), layout.elements() * 2);
            assert_eq!(layout.unpack(tensor.ty(), &memory), tensor, "{layout:?}");
        }
    }

    #[test]
    fn a_panel_keeps_its_columns_together() {
        // `[n/4, k, n%4]` of a [3, 6] tensor.
        let panels = layout(&[(1, 2), (0, 3), (1, 4)]);
        assert!(panels.covers(&[3, 6]));
        assert_eq!(panels.elements(), 24);
        assert_eq!(panels.position(&[0, 1]), 1);
        assert_eq!(panels.position(&[1, 0]), 4);
        assert_eq!(panels.position(&[2, 5]), 12 + 8 + 1);
        assert!(!layout(&[(1, 1), (0, 3), (1, 4)]).covers(&[3, 6]));
    }
}
