//! `permute`.

use crate::op::{AttrReader, AttrWriter, InferContext, Kind, OpDef, TypeError, rules, sample};
use crate::tensor::{Tensor, shape_text};
use crate::types::TensorType;
use arbitrary::Unstructured;

/// See the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub struct Permute {
    /// Sender and receiver of each message.
    pub pairs: Vec<Vec<usize>>,
}

impl OpDef for Permute {
    const KIND: Kind = Kind::Collective;

    fn read(attributes: &mut AttrReader<'_>) -> Option<Self> {
        let pairs = attributes.required("pairs");
        Some(Permute { pairs: pairs? })
    }

    fn write(&self, attributes: &mut AttrWriter) {
        attributes.put("pairs", self.pairs.clone());
    }

    fn infer(&self, context: &InferContext<'_>) -> Result<Vec<TensorType>, TypeError> {
        let [x] = context.operands()?;
        if let Some(pair) = self.pairs.iter().find(|pair| pair.len() != 2) {
            return rules::fail(format!("pairs hold a sender and a receiver, not {}", shape_text(pair)));
        }
        for (side, what) in ["sends", "receives"].into_iter().enumerate() {
            let mut ranks: Vec<usize> = self.pairs.iter().map(|pair| pair[side]).collect();
            ranks.sort_unstable();
            if let Some(twice) = ranks.windows(2).find(|pair| pair[0] == pair[1]) {
                return rules::fail(format!("rank {} {what} twice", twice[0]));
            }
        }
        Ok(vec![x.clone()])
    }

    fn evaluate(&self, _operands: &[Tensor]) -> Vec<Tensor> {
        unreachable!("the evaluator runs collectives")
    }

    fn sample(u: &mut Unstructured<'_>) -> arbitrary::Result<(Self, Vec<TensorType>)> {
        let x = TensorType { dtype: sample::dtype(u)?, shape: sample::shape(u, 0, 3)? };
        Ok((Permute { pairs: vec![vec![0, 0]] }, vec![x]))
    }
}
