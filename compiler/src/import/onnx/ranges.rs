//! Operators that make or choose elements by their position.

use super::context::{Converted, ImportError, NodeContext, invalid};
use super::table::{Row, row};
use crate::graph::ValueId;
use crate::scalar::ScalarFn;
use crate::tensor::{Tensor, Values};
use crate::types::DType;

/// The operators of this file.
pub(super) const ROWS: &[Row] =
    &[row("Range", 1, range), row("EyeLike", 1, eye_like), row("Trilu", 1, trilu)];

fn range(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let (start, limit, delta) = (context.constant(0)?, context.constant(1)?, context.constant(2)?);
    if [&start, &limit, &delta].iter().any(|tensor| tensor.count() != 1) {
        return invalid("start, limit and delta are scalars");
    }
    let dtype = start.dtype();
    const MOST: usize = 1 << 24;
    let values = if dtype.is_float() {
        let first = |tensor: &Tensor| tensor.values().to_f64()[0];
        let (start, limit, delta) = (first(&start), first(&limit), first(&delta));
        let count = libm::ceil((limit - start) / delta);
        if !count.is_finite() || count > MOST as f64 {
            return invalid(format!("a range of {count} elements"));
        }
        let count = count.max(0.0) as usize;
        if dtype == DType::F64 {
            Values::F64((0..count).map(|index| start + index as f64 * delta).collect())
        } else {
            Values::F32(
                (0..count).map(|index| start as f32 + index as f32 * delta as f32).collect(),
            )
        }
    } else {
        let first = |tensor: &Tensor| i128::from(tensor.to_i64()[0]);
        let (start, limit, delta) = (first(&start), first(&limit), first(&delta));
        if delta == 0 {
            return invalid("a step of 0");
        }
        let distance = if delta > 0 { limit - start } else { start - limit };
        let count = usize::try_from((distance.max(0) as u128).div_ceil(delta.unsigned_abs()))
            .unwrap_or(usize::MAX);
        if count > MOST {
            return invalid(format!("a range of {count} elements"));
        }
        Values::Int((0..count as i128).map(|index| (start + index * delta) as i64).collect())
    };
    let count = values.len();
    Ok(vec![context.known(Tensor::from_values(dtype, &[count], &values))])
}

/// Whether the column is at most `k` to the right of the row.
fn below_diagonal(
    context: &mut NodeContext<'_, '_, '_>,
    shape: &[usize],
    relation: ScalarFn,
    k: i64,
) -> Result<ValueId, ImportError> {
    let rank = shape.len();
    let rows = context.iota(DType::I64, shape, rank - 2)?;
    let columns = context.iota(DType::I64, shape, rank - 1)?;
    let k = context.known(Tensor::scalar(k));
    let k = context.broadcast_to(k, shape)?;
    let limit = context.builder.map(ScalarFn::Add, &[rows, k])?;
    Ok(context.builder.map(relation, &[columns, limit])?)
}

fn eye_like(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    if shape.len() != 2 {
        return invalid(format!("a matrix is wanted, not {} dimensions", shape.len()));
    }
    let dtype = context.dtype_attribute("dtype")?.unwrap_or(context.dtype(x));
    let k = context.int("k", 0);
    let on = below_diagonal(context, &shape, ScalarFn::Eq, k)?;
    Ok(vec![context.convert(on, dtype)?])
}

fn trilu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    let shape = context.shape(x);
    if shape.len() < 2 {
        return invalid("a matrix is wanted");
    }
    let k = match context.optional_constant(1)? {
        Some(k) => k.to_i64().first().copied().unwrap_or(0),
        None => 0,
    };
    let relation = if context.int("upper", 1) != 0 { ScalarFn::Ge } else { ScalarFn::Le };
    let kept = below_diagonal(context, &shape[shape.len() - 2..], relation, k)?;
    let kept = context.broadcast_to(kept, &shape)?;
    let zero = context.scalar(context.dtype(x), 0.0);
    let zero = context.broadcast_to(zero, &shape)?;
    Ok(vec![context.builder.map(ScalarFn::Select, &[kept, x, zero])?])
}
