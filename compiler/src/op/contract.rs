//! `contract`.

use crate::op::movement::transposed;
use crate::op::product::{Pair, multiply, rounded};
use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, Values, shape_text};
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

    fn evaluate(&self, operands: &[Tensor]) -> Vec<Tensor> {
        self.evaluate_within(operands, &|| false).expect("nothing cancels it")
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let (dtype, accumulate) = sample::accumulated(u)?;
        let batch = u.int_in_range(0..=1)?;
        let over = u.int_in_range(0..=2)?;
        let shared = sample::shape(u, batch + over, batch + over)?;
        let (left, right) = (sample::shape(u, 0, 2)?, sample::shape(u, 0, 2)?);
        // Both operands have all shared dimensions first or last.
        let at = |free: usize, last: bool| if last { free } else { 0 };
        let (a_last, b_last) = (u.arbitrary()?, u.arbitrary()?);
        let (a_first, b_first) = (at(left.len(), a_last), at(right.len(), b_last));
        let pairs: Vec<Vec<usize>> =
            (0..shared.len()).map(|dim| vec![a_first + dim, b_first + dim]).collect();
        let joined = |free: &[usize], last: bool| {
            let parts = if last { [free, &shared] } else { [&shared, free] };
            TensorType::new(dtype, &parts.concat())
        };
        let operands = vec![joined(&left, a_last), joined(&right, b_last)];
        let (batch, over) = (pairs[..batch].to_vec(), pairs[batch..].to_vec());
        Ok((Contract { batch, over, accumulate, dtype }, operands))
    }
}

impl Contract {
    /// The dimensions of each operand that have a partner: batch first, then summed.
    pub fn dims(&self) -> (Vec<usize>, Vec<usize>) {
        let pairs = || self.batch.iter().chain(&self.over);
        (pairs().map(|pair| pair[0]).collect(), pairs().map(|pair| pair[1]).collect())
    }

    /// The value of the result; nothing where `cancelled` says so.
    pub(crate) fn evaluate_within(
        &self,
        operands: &[Tensor],
        cancelled: &dyn Fn() -> bool,
    ) -> Option<Vec<Tensor>> {
        let [a, b] = operands else { unreachable!("the type rule counts operands") };
        let (a_dims, b_dims) = self.dims();
        let free = |x: &Tensor, dims: &[usize]| -> Vec<usize> {
            (0..x.shape().len()).filter(|dim| !dims.contains(dim)).collect()
        };
        let (a_free, b_free) = (free(a, &a_dims), free(b, &b_dims));
        let (a_batch, a_over) = a_dims.split_at(self.batch.len());
        let sizes = |x: &Tensor, dims: &[usize]| -> Vec<usize> {
            dims.iter().map(|&dim| x.shape()[dim]).collect()
        };
        let shape = [sizes(a, a_batch), sizes(a, &a_free), sizes(b, &b_free)].concat();
        let extent = |x: &Tensor, dims: &[usize]| sizes(x, dims).iter().product();
        let extents =
            [extent(a, a_batch), extent(a, &a_free), extent(a, a_over), extent(b, &b_free)];
        let a = transposed(a, &[a_batch, &a_free, a_over].concat());
        let b = transposed(b, &[b_dims.as_slice(), &b_free].concat());
        let sums = match Pair::new(&a, &b, self.accumulate) {
            Pair::F32(a, b) => Values::F32(multiply(&a, &b, extents, cancelled)?),
            Pair::F64(a, b) => Values::F64(multiply(&a, &b, extents, cancelled)?),
            Pair::Int(a, b) => Values::Int(multiply(&a, &b, extents, cancelled)?),
        };
        Some(vec![rounded(sums, self.accumulate, self.dtype, &shape)])
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
