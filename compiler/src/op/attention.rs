//! `attention`: operands are queries `[batch, heads, i, d]`, keys `[batch, groups, j, d]`, values `[batch, groups, j, e]`,
//! and perhaps a mask whose dimensions are those of `[batch, heads, i, j]` or 1: bool keeps what is true, a number is
//! added to the score. Each group of keys and values serves `heads / groups` heads.
//!
//! What a bool mask or `causal` hides has the lowest finite score, so that a query that sees nothing gets the mean of
//! all values. Scores and weights are of the type in which sums are kept; the weights round to the values' type.

use crate::graph::{Builder, ValueId};
use crate::op::formula::{converted, number, with_number};
use crate::op::{
    AttrReader, AttrWriter, Broadcast, Composite, Contract, Iota, Reshape, Softmax, TypeError,
    rules,
};
use crate::scalar::ScalarFn;
use crate::types::{DType, TensorType};
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// What the products of queries and keys are multiplied with.
    pub scale: f64,
    /// Whether query `i` sees only keys up to `i` + (number of keys − number of queries).
    pub causal: bool,
}

impl Composite for Attention {
    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let scale = attributes.required("scale");
        let causal = attributes.optional("causal").unwrap_or(false);
        Some(Attention { scale: scale?, causal })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("scale", self.scale);
        attributes.put_unless("causal", self.causal, &false);
    }

    fn expand(
        &self,
        builder: &mut Builder<'_>,
        operands: &[ValueId],
    ) -> Result<Vec<ValueId>, TypeError> {
        let [q, k, v, ref mask @ ..] = *operands else {
            return rules::fail("takes queries, keys, values, and perhaps a mask");
        };
        let dtype = builder.ty(q).dtype;
        let accumulate = dtype.accumulator();
        let dims = |builder: &Builder<'_>, x: ValueId| -> Result<[usize; 4], TypeError> {
            let ty = builder.ty(x);
            let wanted = || TypeError::new(format!("takes operands of rank 4, not {ty}"));
            ty.shape.as_slice().try_into().map_err(|_| wanted())
        };
        let [batch, heads, queries, depth] = dims(builder, q)?;
        let ([_, groups, keys, _], [_, _, _, width]) = (dims(builder, k)?, dims(builder, v)?);
        if groups == 0 || heads % groups != 0 {
            return rules::fail(format!("{heads} heads do not divide into {groups} groups"));
        }
        let grouped = vec![batch, groups, heads / groups, queries, depth];
        let grouped = builder.add(Reshape { shape: grouped }, &[q])?;
        let pairs = vec![vec![0, 0], vec![1, 1]];
        let score = Contract {
            batch: pairs.clone(),
            over: vec![vec![4, 3]],
            accumulate,
            dtype: accumulate,
        };
        let score = builder.add(score, &[grouped, k])?;
        let shape = vec![batch, heads, queries, keys];
        let score = builder.add(Reshape { shape: shape.clone() }, &[score])?;
        let mut score = with_number(builder, ScalarFn::Mul, score, self.scale)?;
        if self.causal {
            let ty = TensorType::new(DType::I64, &shape);
            let query = builder.add(Iota { ty: ty.clone(), axis: 2 }, &[])?;
            let shift = keys as f64 - queries as f64;
            let last = with_number(builder, ScalarFn::Add, query, shift)?;
            let key = builder.add(Iota { ty, axis: 3 }, &[])?;
            let seen = builder.map(ScalarFn::Le, &[key, last])?;
            score = kept(builder, seen, score)?;
        }
        match *mask {
            [] => {}
            [mask] => {
                let dims = vec![0, 1, 2, 3];
                let mask = builder.add(Broadcast { shape, dims }, &[mask])?;
                score = if builder.ty(mask).dtype == DType::Bool {
                    kept(builder, mask, score)?
                } else {
                    let mask = converted(builder, mask, accumulate)?;
                    builder.map(ScalarFn::Add, &[score, mask])?
                };
            }
            _ => return rules::fail("takes at most 4 operands"),
        }
        let weight = builder.add(Softmax { axis: 3 }, &[score])?;
        let weight = converted(builder, weight, dtype)?;
        let grouped = vec![batch, groups, heads / groups, queries, keys];
        let weight = builder.add(Reshape { shape: grouped }, &[weight])?;
        let sum = Contract { batch: pairs, over: vec![vec![4, 2]], accumulate, dtype };
        let sum = builder.add(sum, &[weight, v])?;
        Ok(vec![builder.add(Reshape { shape: vec![batch, heads, queries, width] }, &[sum])?])
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let dtype = *u.choose(&[DType::F32, DType::BF16])?;
        let (batch, groups) = (u.int_in_range(1..=2)?, u.int_in_range(1..=2)?);
        let heads = groups * u.int_in_range(1..=2)?;
        let (queries, keys) = (u.int_in_range(1..=4)?, u.int_in_range(1..=5)?);
        let (depth, width) = (u.int_in_range(1..=4)?, u.int_in_range(1..=3)?);
        let mut types = vec![
            TensorType::new(dtype, &[batch, heads, queries, depth]),
            TensorType::new(dtype, &[batch, groups, keys, depth]),
            TensorType::new(dtype, &[batch, groups, keys, width]),
        ];
        match u.int_in_range(0..=2)? {
            0 => types.push(TensorType::new(DType::Bool, &[batch, 1, queries, keys])),
            1 => types.push(TensorType::new(DType::F32, &[1, heads, 1, keys])),
            _ => {}
        }
        Ok((Attention { scale: 0.5, causal: u.arbitrary()? }, types))
    }
}

/// The score where `seen` says so, else the lowest finite one.
fn kept(builder: &mut Builder<'_>, seen: ValueId, score: ValueId) -> Result<ValueId, TypeError> {
    let lowest = if builder.ty(score).dtype == DType::F64 { f64::MIN } else { f64::from(f32::MIN) };
    let lowest = number(builder, score, lowest)?;
    builder.map(ScalarFn::Select, &[seen, score, lowest])
}
