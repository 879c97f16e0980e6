//! `dynamic-slice`.

use crate::op::gather::{clamped, positions};
use crate::op::movement::{View, viewed};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType, strides};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct DynamicSlice {
    /// The result's shape.
    pub sizes: Vec<usize>,
}

impl OpDef for DynamicSlice {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let sizes = attributes.required("sizes");
        Some(DynamicSlice { sizes: sizes? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("sizes", self.sizes.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let Some((x, starts)) = context.operands.split_first() else {
            return rules::fail("takes an operand and a start for each of its dimensions");
        };
        rules::one_each("sizes", &self.sizes, x.rank())?;
        start_types(x, &self.sizes, starts)?;
        Ok(vec![TensorType::new(x.dtype, &self.sizes)])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let (x, starts) = operands.split_first().expect("the type rule counts operands");
        let mut from = View::of(x.shape());
        from.start = start(x.shape(), &self.sizes, starts);
        vec![viewed(x, &from, TensorType::new(x.dtype(), &self.sizes))]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 3)?;
        let sizes =
            shape.iter().map(|&size| u.int_in_range(1..=size)).collect::<arbitrary::Result<_>>()?;
        let mut types = vec![TensorType::new(DType::I64, &[]); shape.len() + 1];
        types[0] = TensorType { dtype: sample::dtype(u)?, shape };
        Ok((DynamicSlice { sizes }, types))
    }
}

/// A part of those sizes fits into `x`, and there is an integer scalar for each dimension.
pub(super) fn start_types(
    x: &TensorType,
    sizes: &[usize],
    starts: &[&TensorType],
) -> Result<(), TypeError> {
    for (dim, (&part, &size)) in sizes.iter().zip(&x.shape).enumerate() {
        if part > size {
            return rules::fail(format!("a part of {part} does not fit into dimension {dim} of {size}"));
        }
    }
    if starts.len() != x.rank() {
        return rules::fail(format!("{} starts are given for {} dimensions", starts.len(), x.rank()));
    }
    starts.iter().try_for_each(|ty| rules::integer_scalar("a start", ty))
}

/// The first element of the part of those sizes that starts where the scalars say, or as near as it fits.
pub(super) fn start(shape: &[usize], sizes: &[usize], starts: &[Tensor]) -> usize {
    let steps = strides(shape);
    let along = |dim: usize| {
        clamped(positions(&starts[dim])[0], shape[dim] - sizes[dim]) * steps[dim]
    };
    (0..shape.len()).map(along).sum()
}
