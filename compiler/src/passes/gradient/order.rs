//! Elements that are sorted: each worth goes to the position that its element came from.

use super::rule::{along, positions};
use super::values::{kept, summed};
use crate::graph::{Builder, ValueId};
use crate::op::TypeError;
use crate::scalar::ScalarFn;

/// The worth of `x`, of whose elements along `axis` those at positions `from` were taken, which are worth `g`.
pub(super) fn placed(
    builder: &mut Builder<'_>,
    x: ValueId,
    from: ValueId,
    axis: usize,
    g: ValueId,
) -> Result<ValueId, TypeError> {
    // A matrix of those taken and of all positions stands in the place of the axis.
    let mut shape = builder.shape(g).to_vec();
    shape.insert(axis + 1, builder.ty(x).shape[axis]);
    let every = positions(builder, &shape, axis + 1)?;
    let from = along(builder, from, &shape, axis + 1)?;
    let is = builder.map(ScalarFn::Eq, &[every, from])?;
    let each = along(builder, g, &shape, axis + 1)?;
    let each = kept(builder, is, each)?;
    summed(builder, each, &[axis])
}
