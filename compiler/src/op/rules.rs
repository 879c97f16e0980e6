//! What type rules have in common: each function rejects one kind of malformed attribute or operand.

use crate::kernel::Combine;
use crate::op::{InferContext, TypeError};
use crate::tensor::shape_text;
use crate::types::{Class, DType, TensorType};

/// An error with that message, as a result.
pub(super) fn fail<T>(message: impl Into<String>) -> Result<T, TypeError> {
    Err(TypeError::new(message))
}

/// `axis` is a dimension of a tensor of that rank.
pub(super) fn axis(axis: usize, rank: usize) -> Result<(), TypeError> {
    if axis < rank { Ok(()) } else { fail(format!("axis {axis} is out of range for rank {rank}")) }
}

/// Every axis is a dimension, and none comes twice.
pub(super) fn distinct(axes: &[usize], rank: usize) -> Result<(), TypeError> {
    let mut seen = vec![false; rank];
    for &dim in axes {
        axis(dim, rank)?;
        if std::mem::replace(&mut seen[dim], true) {
            return fail(format!("axis {dim} appears twice"));
        }
    }
    Ok(())
}

/// Every axis is a dimension, and each is greater than the one before.
pub(super) fn ascending(axes: &[usize], rank: usize) -> Result<(), TypeError> {
    distinct(axes, rank)?;
    match axes.windows(2).find(|pair| pair[0] > pair[1]) {
        Some(pair) => fail(format!("axes ascend, but {} comes before {}", pair[0], pair[1])),
        None => Ok(()),
    }
}

/// An attribute has one entry for each of `dims` dimensions.
pub(super) fn one_each<T>(name: &str, entries: &[T], dims: usize) -> Result<(), TypeError> {
    if entries.len() == dims {
        return Ok(());
    }
    fail(format!("{name} has {} entries for {dims} dimensions", entries.len()))
}

/// Every entry of an attribute is at least one.
pub(super) fn positive(name: &str, entries: &[usize]) -> Result<(), TypeError> {
    match entries.iter().position(|&entry| entry == 0) {
        Some(dim) => fail(format!("{name} of dimension {dim} is 0, but at least 1 is needed")),
        None => Ok(()),
    }
}

/// The sum of sizes, where it is not larger than any memory.
pub(super) fn sum(sizes: &[usize]) -> Result<usize, TypeError> {
    let sum = sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size));
    match sum.filter(|&sum| sum <= crate::types::MAX_TENSOR_BYTES) {
        Some(sum) => Ok(sum),
        None => {
            fail(format!("the sum of the sizes {} is larger than any memory", shape_text(sizes)))
        }
    }
}

/// The product of sizes, where it is not larger than any memory.
pub(super) fn product(sizes: &[usize]) -> Result<usize, TypeError> {
    let product = sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
    match product.filter(|&product| product <= crate::types::MAX_TENSOR_BYTES) {
        Some(product) => Ok(product),
        None => fail(format!(
            "the product of the sizes {} is larger than any memory",
            shape_text(sizes)
        )),
    }
}

/// A value without dimensions, of an integer type.
pub(super) fn integer_scalar(what: &str, ty: &TensorType) -> Result<(), TypeError> {
    if ty.rank() == 0 && ty.dtype.is_integer() {
        return Ok(());
    }
    fail(format!("{what} is an integer scalar, not {ty}"))
}

/// Elements of type `dtype` can be summed up in `accumulate`: floats in f32 or f64, integers in 32 or 64 bits.
pub(super) fn accumulate(dtype: DType, accumulate: DType) -> Result<(), TypeError> {
    let integers: &[DType] = &[DType::I32, DType::I64];
    let all: &[DType] = &[DType::I32, DType::I64, DType::U32, DType::U64];
    let any: &[DType] = &[DType::Bool, DType::I32, DType::I64, DType::U32, DType::U64];
    let fitting = match dtype.class() {
        Class::Float => &[DType::F32, DType::F64],
        Class::Signed => integers,
        Class::Unsigned => all,
        Class::Bool => any,
    };
    if fitting.contains(&accumulate) {
        return Ok(());
    }
    let names: Vec<&str> = fitting.iter().map(|dtype| dtype.name()).collect();
    fail(format!("{dtype} accumulates in {}, not in {accumulate}", names.join(", ")))
}

/// Elements of type `dtype` can be joined by `combine` in `accumulated`.
pub(super) fn combine(combine: Combine, dtype: DType, accumulated: DType) -> Result<(), TypeError> {
    accumulate(dtype, accumulated)?;
    joins(combine, accumulated)
}

/// Elements of type `dtype` can be joined by `combine`.
pub(super) fn joins(combine: Combine, dtype: DType) -> Result<(), TypeError> {
    match combine.function().result(&[dtype, dtype]) {
        Ok(_) => Ok(()),
        Err(_) => fail(format!("{} does not join elements of type {dtype}", combine.name())),
    }
}

/// The number of positions of a window of `window` elements, `dilation` apart, that moves by `stride` over a dimension
/// with that many elements added before and after.
pub(super) fn window(
    size: usize,
    [low, high]: [usize; 2],
    [window, stride, dilation]: [usize; 3],
) -> Result<usize, TypeError> {
    let padded = sum(&[size, low, high])?;
    if window == 0 || stride == 0 || dilation == 0 {
        return fail("window, stride and dilation are at least 1");
    }
    let extent = sum(&[product(&[window - 1, dilation])?, 1])?;
    if extent > padded {
        return fail(format!("a window of {extent} does not fit into a dimension of {padded}"));
    }
    Ok((padded - extent) / stride + 1)
}

/// The number of ranks of each group: all groups have as many, and no rank is twice in any.
pub(super) fn group_size(groups: &[Vec<usize>]) -> Result<usize, TypeError> {
    let Some(size) = groups.first().map(Vec::len).filter(|&size| size > 0) else {
        return fail("there is no group with a rank");
    };
    if let Some(other) = groups.iter().find(|group| group.len() != size) {
        return fail(format!("groups have one size, not {size} and {}", other.len()));
    }
    let mut ranks: Vec<usize> = groups.concat();
    ranks.sort_unstable();
    match ranks.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => fail(format!("rank {} is in the groups twice", pair[0])),
        None => Ok(size),
    }
}

/// Two lists of types are equal, with names for the message.
pub(super) fn equal_types(
    what: &str,
    found: &[TensorType],
    wanted: &[TensorType],
) -> Result<(), TypeError> {
    if found == wanted {
        return Ok(());
    }
    let list = |types: &[TensorType]| {
        types.iter().map(TensorType::to_string).collect::<Vec<_>>().join(", ")
    };
    fail(format!("{what} are ({}), not ({})", list(wanted), list(found)))
}

impl InferContext<'_> {
    /// The op has exactly `N` blocks.
    pub(super) fn blocks<const N: usize>(&self) -> Result<&[crate::op::BlockType; N], TypeError> {
        self.blocks
            .as_slice()
            .try_into()
            .map_err(|_| TypeError::new(format!("takes {N} blocks, not {}", self.blocks.len())))
    }
}
