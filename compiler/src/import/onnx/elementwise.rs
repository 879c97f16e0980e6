//! Elementwise operators: numpy's broadcast, then a function of the scalar table.

use super::context::{Converted, NodeContext};
use super::table::{Row, row};
use crate::scalar::ScalarFn;

/// The operators of this file.
pub(super) const ROWS: &[Row] =
    &[row("Add", 1, |c| binary(c, ScalarFn::Add)), row("Relu", 1, relu)];

fn binary(context: &mut NodeContext<'_, '_, '_>, function: ScalarFn) -> Converted {
    let operands = [context.input(0)?, context.input(1)?];
    Ok(vec![context.map(function, &operands)?])
}

fn relu(context: &mut NodeContext<'_, '_, '_>) -> Converted {
    let x = context.input(0)?;
    Ok(vec![context.map_scalar(ScalarFn::Max, x, 0.0)?])
}
