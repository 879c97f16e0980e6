//! Copies elements from one affine position to another, by their bytes: what transposes, slices, broadcasts, reversals
//! and pads are made of.

use crate::tensor::Tensor;
use crate::types::{TensorType, strides};
use bytes::Bytes;
use smallvec::SmallVec;

/// Where elements lie in a tensor's data: at `start + Σ i·step`, counted in elements.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// The position of the first element.
    pub(crate) start: usize,
    /// The distance between neighbours along each dimension; negative where they are reversed, 0 where repeated.
    pub(crate) steps: SmallVec<[isize; 6]>,
}

impl View {
    /// All elements of a row-major tensor of that shape.
    pub(crate) fn of(shape: &[usize]) -> View {
        View { start: 0, steps: strides(shape).iter().map(|&step| step as isize).collect() }
    }
}

/// A tensor of type `ty` whose elements are those of `source` at `from`.
pub(crate) fn viewed(source: &Tensor, from: &View, ty: TensorType) -> Tensor {
    let mut target = vec![0; ty.bytes()];
    let to = View::of(&ty.shape);
    copy(ty.dtype.bytes(), &ty.shape, source.bytes(), from, &mut target, &to);
    Tensor::new(ty, Bytes::from(target)).expect("the target has the type's size")
}

/// The tensor with its dimensions in another order.
pub(crate) fn transposed(source: &Tensor, perm: &[usize]) -> Tensor {
    if perm.iter().enumerate().all(|(to, &from)| to == from) {
        return source.clone();
    }
    let all = View::of(source.shape());
    let from = View { start: 0, steps: perm.iter().map(|&dim| all.steps[dim]).collect() };
    let shape = perm.iter().map(|&dim| source.shape()[dim]).collect();
    viewed(source, &from, TensorType { dtype: source.dtype(), shape })
}

/// Copies a box of elements of `element_bytes` each.
pub(crate) fn copy(
    element_bytes: usize,
    shape: &[usize],
    source: &[u8],
    from: &View,
    target: &mut [u8],
    to: &View,
) {
    if shape.contains(&0) {
        return;
    }
    let dims = merged(shape, from, to);
    match element_bytes {
        1 => copy_elements(&dims, source, from.start, target, to.start),
        2 => copy_arrays::<2>(&dims, source, from.start, target, to.start),
        4 => copy_arrays::<4>(&dims, source, from.start, target, to.start),
        8 => copy_arrays::<8>(&dims, source, from.start, target, to.start),
        _ => unreachable!("elements have 1, 2, 4 or 8 bytes"),
    }
}

/// A dimension of a copy: its size, and the distance between neighbours on both sides.
#[derive(Clone, Copy)]
struct Dim {
    size: usize,
    from: isize,
    to: isize,
}

/// The dimensions without those of size 1, neighbours joined where both sides allow it.
fn merged(shape: &[usize], from: &View, to: &View) -> SmallVec<[Dim; 6]> {
    let mut dims: SmallVec<[Dim; 6]> = SmallVec::new();
    for (axis, &size) in shape.iter().enumerate().filter(|&(_, &size)| size != 1) {
        let dim = Dim { size, from: from.steps[axis], to: to.steps[axis] };
        if let Some(outer) = dims.last_mut() {
            let extent = size as isize;
            if outer.from == dim.from * extent && outer.to == dim.to * extent {
                *outer = Dim { size: outer.size * size, ..dim };
                continue;
            }
        }
        dims.push(dim);
    }
    dims
}

fn copy_arrays<const N: usize>(
    dims: &[Dim],
    source: &[u8],
    from: usize,
    target: &mut [u8],
    to: usize,
) {
    copy_elements(dims, source.as_chunks::<N>().0, from, target.as_chunks_mut::<N>().0, to);
}

fn copy_elements<E: Copy>(dims: &[Dim], source: &[E], from: usize, target: &mut [E], to: usize) {
    let Some((row, outer)) = dims.split_last() else {
        target[to] = source[from];
        return;
    };
    let mut index: SmallVec<[usize; 6]> = SmallVec::from_elem(0, outer.len());
    let (mut from, mut to) = (from as isize, to as isize);
    loop {
        copy_row(row, source, from, target, to);
        let mut axis = outer.len();
        loop {
            if axis == 0 {
                return;
            }
            axis -= 1;
            let dim = outer[axis];
            index[axis] += 1;
            from += dim.from;
            to += dim.to;
            if index[axis] < dim.size {
                break;
            }
            index[axis] = 0;
            from -= dim.from * dim.size as isize;
            to -= dim.to * dim.size as isize;
        }
    }
}

fn copy_row<E: Copy>(row: &Dim, source: &[E], from: isize, target: &mut [E], to: isize) {
    let (first, begin) = (from as usize, to as usize);
    match (row.from, row.to) {
        (1, 1) => target[begin..begin + row.size].copy_from_slice(&source[first..first + row.size]),
        (0, 1) => target[begin..begin + row.size].fill(source[first]),
        (step_from, step_to) => {
            for i in 0..row.size as isize {
                target[(to + i * step_to) as usize] = source[(from + i * step_from) as usize];
            }
        }
    }
}
