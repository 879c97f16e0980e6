//! `reduce`.

use crate::op::movement::transposed;
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, Values};
use crate::types::{TensorType, DType};
use crate::kernel::Combine;
use crate::scalar::{Arithmetic, by_arithmetic};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    /// How elements join.
    pub combine: Combine,
    /// The dimensions that vanish, ascending.
    pub axes: Vec<usize>,
    /// The type of partial results; the result has the operand's.
    pub accumulate: DType,
}

impl OpDef for Reduce {
    const KIND: Kind = Kind::Reduce;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let combine = attributes.required("combine");
        let axes = attributes.required("axes");
        let accumulate = attributes.required("accumulate");
        Some(Reduce { combine: combine?, axes: axes?, accumulate: accumulate? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("combine", self.combine);
        attributes.put("axes", self.axes.clone());
        attributes.put("accumulate", self.accumulate);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        rules::ascending(&self.axes, x.rank())?;
        rules::combine(self.combine, x.dtype, self.accumulate)?;
        let kept = (0..x.rank()).filter(|axis| !self.axes.contains(axis));
        Ok(vec![TensorType { dtype: x.dtype, shape: kept.map(|axis| x.shape[axis]).collect() }])
    }

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        let [x] = operands else { unreachable!("the type rule counts operands") };
        let rank = x.shape().len();
        let kept: Vec<usize> = (0..rank).filter(|axis| !self.axes.contains(axis)).collect();
        let shape: Vec<usize> = kept.iter().map(|&axis| x.shape()[axis]).collect();
        let perm: Vec<usize> = kept.iter().chain(&self.axes).copied().collect();
        let values = transposed(x, &perm).values().convert(x.dtype(), self.accumulate);
        let length: usize = self.axes.iter().map(|&axis| x.shape()[axis]).product();
        let count = shape.iter().product();
        let start = start(self.combine, x.dtype(), self.accumulate);
        let function = self.combine.function();
        let values = by_arithmetic!(&values, &start, |values, start| {
            let join = Arithmetic::pair(function).expect("the type rule was checked");
            let row = |row: usize| &values[row * length..(row + 1) * length];
            (0..count).map(|i| row(i).iter().fold(start[0], |sum, &x| join(sum, x))).collect()
        });
        vec![Tensor::from_values(x.dtype(), &shape, &values.rounded(self.accumulate))]
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let shape = sample::shape(u, 0, 4)?;
        let axes = sample::axes(u, shape.len())?;
        let (combine, dtype, accumulate) = joined(u)?;
        Ok((Reduce { combine, axes, accumulate }, vec![TensorType { dtype, shape }]))
    }
}

/// What a reduction of elements of that type starts from, in the accumulation type.
pub(super) fn start(combine: Combine, dtype: DType, accumulate: DType) -> Values {
    combine.identity(dtype).values(1).convert(dtype, accumulate)
}

/// A way to join elements, with a type of elements and of partial results that suits it.
pub(super) fn joined(u: &mut Unstructured<'_>) -> arbitrary::Result<(Combine, DType, DType)> {
    let (combine, _) = *u.choose(&Combine::ALL)?;
    let (dtype, accumulate) = match combine {
        Combine::Sum | Combine::Product | Combine::Min | Combine::Max => sample::accumulated(u)?,
        Combine::And | Combine::Or => *u.choose(&[
            (DType::Bool, DType::Bool),
            (DType::Bool, DType::I64),
            (DType::U8, DType::U32),
            (DType::I32, DType::I32),
        ])?,
    };
    Ok((combine, dtype, accumulate))
}
