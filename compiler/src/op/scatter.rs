//! `scatter`.

use crate::op::gather::{indexed, positions, sample_indices};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};
use crate::kernel::Combine;
use crate::narrow;
use arbitrary::Unstructured;
use bytes::Bytes;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Scatter {
    /// The dimension that is indexed.
    pub axis: usize,
    /// How an update joins what is there; overwrites where not given.
    pub combine: Option<Combine>,
}

impl OpDef for Scatter {
    const KIND: Kind = Kind::Index;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let axis = attributes.required("axis");
        let combine = attributes.optional("combine");
        Some(Scatter { axis: axis?, combine })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("axis", self.axis);
        if let Some(combine) = self.combine {
            attributes.put("combine", combine);
        }
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x, indices, updates] = context.operands()?;
        rules::axis(self.axis, x.rank())?;
        if let Some(combine) = self.combine {
            rules::joins(combine, x.dtype)?;
        }
        let wanted = indexed(x, indices, self.axis)?;
        if *updates != wanted {
            return rules::fail(format!("the updates are {wanted}, not {updates}"));
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x, indices, updates] = operands else {
            unreachable!("the type rule counts operands")
        };
        let (dtype, size) = (x.dtype(), x.shape()[self.axis]);
        let row = x.shape()[self.axis + 1..].iter().product::<usize>() * dtype.bytes();
        let mut data = x.bytes().to_vec();
        let positions = positions(indices);
        if !data.is_empty() && !updates.bytes().is_empty() {
            let news = updates.bytes().chunks_exact(positions.len() * row);
            for (slab, news) in data.chunks_exact_mut(size * row).zip(news) {
                for (&position, new) in positions.iter().zip(news.chunks_exact(row)) {
                    let Some(position) = usize::try_from(position).ok().filter(|&at| at < size)
                    else {
                        continue;
                    };
                    let old = &mut slab[position * row..(position + 1) * row];
                    match self.combine {
                        Some(combine) => old.copy_from_slice(&joined(combine, dtype, old, new)),
                        None => old.copy_from_slice(new),
                    }
                }
            }
        }
        vec![Tensor::new(x.ty().clone(), Bytes::from(data)).expect("the size is unchanged")]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 1, 3)?;
        let axis = sample::axis(u, shape.len())?;
        let (combine, dtype) = *u.choose(&[
            (None, DType::F32),
            (None, DType::U8),
            (Some(Combine::Sum), DType::F32),
            (Some(Combine::Sum), DType::BF16),
            (Some(Combine::Max), DType::I32),
            (Some(Combine::Or), DType::Bool),
        ])?;
        let x = TensorType { dtype, shape };
        let indices = sample_indices(u)?;
        let updates = indexed(&x, &indices, axis).expect("the indices are integers");
        Ok((Scatter { axis, combine }, vec![x, indices, updates]))
    }
}

/// Elements joined one by one, each rounded to their type.
fn joined(combine: Combine, dtype: DType, old: &[u8], new: &[u8]) -> Vec<u8> {
    let (old, new) = (narrow::decode(dtype, old), narrow::decode(dtype, new));
    narrow::encode(dtype, &combine.function().evaluate(&[&old, &new]))
}
