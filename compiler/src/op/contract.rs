//! `contract`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules};
use crate::tensor::{Tensor, shape_text};
use crate::types::{TensorType, DType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    /// Pairs of dimensions of both operands that are kept once: first in the result.
    pub batch: Vec<Vec<usize>>,
    /// Pairs of dimensions of both operands that are summed.
    pub over: Vec<Vec<usize>>,
    /// The type of products and partial sums.
    pub accumulate: DType,
    /// The result's element type.
    pub dtype: DType,
}

impl OpDef for Contract {
    const KIND: Kind = Kind::Contract;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let batch = attributes.required("batch");
        let over = attributes.required("over");
        let accumulate = attributes.required("accumulate");
        let dtype = attributes.required("dtype");
        Some(Contract { batch: batch?, over: over?, accumulate: accumulate?, dtype: dtype? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("batch", self.batch.clone());
        attributes.put("over", self.over.clone());
        attributes.put("accumulate", self.accumulate);
        attributes.put("dtype", self.dtype);
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [a, b] = context.operands()?;
        if let Some(pair) = self.batch.iter().chain(&self.over).find(|pair| pair.len() != 2) {
            return rules::fail(format!("batch and over hold pairs, not {}", shape_text(pair)));
        }
        let (a_dims, b_dims) = self.dims();
        rules::distinct(&a_dims, a.rank())?;
        rules::distinct(&b_dims, b.rank())?;
        for (&i, &j) in a_dims.iter().zip(&b_dims) {
            if a.shape[i] != b.shape[j] {
                let (left, right) = (a.shape[i], b.shape[j]);
                return rules::fail(format!("paired dimensions have one size, not {left} and {right}"));
            }
        }
        product_types(a, b, self.accumulate, self.dtype)?;
        let batch = self.batch.iter().map(|pair| a.shape[pair[0]]);
        let left = (0..a.rank()).filter(|dim| !a_dims.contains(dim)).map(|dim| a.shape[dim]);
        let right = (0..b.rank()).filter(|dim| !b_dims.contains(dim)).map(|dim| b.shape[dim]);
        let shape = batch.chain(left).chain(right).collect();
        Ok(vec![TensorType { dtype: self.dtype, shape }])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        Vec::new()
    }

    fn sample(_u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        Err(arbitrary::Error::IncorrectFormat)
    }
}

impl Contract {
    /// The dimensions of each operand that have a partner: batch first, then summed.
    pub fn dims(&self) -> (Vec<usize>, Vec<usize>) {
        let pairs = || self.batch.iter().chain(&self.over);
        (pairs().map(|pair| pair[0]).collect(), pairs().map(|pair| pair[1]).collect())
    }
}

/// Products of elements of `a` and `b` can be summed in `accumulate` and given as `dtype`.
pub(super) fn product_types(
    a: &TensorType,
    b: &TensorType,
    accumulate: DType,
    dtype: DType,
) -> Result<(), TypeError> {
    if a.dtype.is_float() != b.dtype.is_float() || [a.dtype, b.dtype, dtype].contains(&DType::Bool)
    {
        return rules::fail(format!(
            "products are of two floating-point types or two integer types, not {} and {} giving {dtype}",
            a.dtype, b.dtype
        ));
    }
    rules::accumulate(a.dtype, accumulate)?;
    rules::accumulate(b.dtype, accumulate)?;
    if accumulate.is_float() && !dtype.is_float() {
        return rules::fail(format!("sums in {accumulate} are not given as {dtype}"));
    }
    Ok(())
}
