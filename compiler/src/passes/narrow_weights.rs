//! Rounds the large constant right factors of products to a narrower float, as the caller asked for it and not otherwise.
//! Sums stay f32, and so does everything else: the products widen what they read.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a form that is not named is none of those asked for"
)]

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::graph::{Graph, ValueId};
use crate::op::{Convert, Op};
use crate::pass::{Changed, Context, Pass};
use crate::rewrite::{Rewrite, rewrite};
use crate::types::DType;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
pub const PASS: Pass<Graph> = Pass {
    name: "narrow-weights",
    summary: "Rounds constant factors of products to a narrower float, where the caller asked for it.",
    run,
};

/// Smaller constants stay as they are: they cost nothing.
const SMALL_BYTES: usize = 1 << 16;

fn run(graph: &mut Graph, context: &Context<'_>) -> Result<Changed, Diagnostics> {
    let to = match context.options.iter().find(|(key, _)| key == "to") {
        None => context.machine.weights,
        Some((_, name)) => match name.as_str() {
            "bf16" => Some(DType::BF16),
            "f16" => Some(DType::F16),
            _ => {
                let message = format!("weights are narrowed to bf16 or f16, not to {name}");
                return Err(Diagnostic::error(Code::Input, message).into());
            }
        },
    };
    let Some(to) = to else { return Ok(Changed::No) };
    Ok(super::each_function(graph, |function| {
        let mut weights: BTreeSet<ValueId> = BTreeSet::new();
        let mut narrowed: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let result = rewrite(function, &mut |builder, node, operands| {
            let is_weight = match &node.op {
                Op::Constant(_) | Op::Parameter(_) => {
                    let ty = function.ty(node.results[0]);
                    ty.dtype == DType::F32 && ty.bytes() > SMALL_BYTES
                }
                Op::Transpose(_) | Op::Reshape(_) => weights.contains(&operands[0]),
                _ => false,
            };
            if is_weight {
                let value = builder.add(node.op.clone(), operands)?;
                weights.insert(value);
                return Ok(Rewrite::Replace(smallvec::smallvec![value]));
            }
            let Op::Contract(_) = node.op else { return Ok(Rewrite::Keep) };
            let (left, right) = (operands[0], operands[1]);
            if !weights.contains(&right) {
                return Ok(Rewrite::Keep);
            }
            let wide = match narrowed.get(&right) {
                Some(&wide) => wide,
                None => {
                    let narrow = builder.add(Convert { dtype: to }, &[right])?;
                    let wide = builder.add(Convert { dtype: DType::F32 }, &[narrow])?;
                    narrowed.insert(right, wide);
                    wide
                }
            };
            let value = builder.add(node.op.clone(), &[left, wide])?;
            Ok(Rewrite::Replace(smallvec::smallvec![value]))
        });
        let result = result.expect("conversions of floats have types");
        (!narrowed.is_empty()).then_some(result)
    }))
}
