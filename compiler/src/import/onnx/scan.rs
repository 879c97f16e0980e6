//! Scans: a body that runs once for each part of its inputs along an axis, with states from part to part.

use super::context::{Converted, NodeContext, invalid, unsupported};
use super::control::{Place, stack};
use super::convert::Item;
use super::proto::GraphProto;
use super::table::{Row, row};
use crate::graph::{Block, ValueId};
use crate::op;
use crate::scalar::ScalarFn;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[row("Scan", 8, scan_of_batch), row("Scan", 9, scan)];

type Context<'a, 'f, 'm> = NodeContext<'a, 'f, 'm>;

/// A scan, with the axis and direction of each scanned input and of each stacked output.
struct Scan {
    body: GraphProto,
    states: Vec<ValueId>,
    scanned: Vec<(ValueId, Way)>,
    stacked: Vec<Way>,
}

/// How a scan goes through a value.
#[derive(Clone, Copy)]
struct Way {
    axis: i64,
    is_reversed: bool,
}

impl Scan {
    /// What the node says of its values, by the names of its attributes.
    fn read(
        context: &Context<'_, '_, '_>,
        mut values: Vec<ValueId>,
        [axes, turned, out_axes, out_turned]: [&str; 4],
    ) -> Result<Scan, super::context::ImportError> {
        let body = context.graph("body")?;
        let scanned = usize::try_from(context.int("num_scan_inputs", 0)).unwrap_or(usize::MAX);
        let Some(states) = values.len().checked_sub(scanned).filter(|_| scanned > 0) else {
            return invalid(format!("{scanned} scanned inputs of {}", values.len()));
        };
        if body.input.len() != values.len() || body.output.len() < states {
            return invalid("the body does not take and give what the scan does");
        }
        let ways = |axes: &str, turned: &str, count: usize| -> Vec<Way> {
            let list = |name: &str| context.ints(name).unwrap_or_default();
            let (axes, turned) = (list(axes), list(turned));
            let at = |list: &[i64], index: usize| list.get(index).copied().unwrap_or(0);
            (0..count)
                .map(|index| Way { axis: at(&axes, index), is_reversed: at(&turned, index) != 0 })
                .collect()
        };
        let stacked = ways(out_axes, out_turned, body.output.len() - states);
        let scanned_values = values.split_off(states);
        let scanned = scanned_values.into_iter().zip(ways(axes, turned, scanned)).collect();
        Ok(Scan { body, states: values, scanned, stacked })
    }

    fn convert(&self, context: &mut Context<'_, '_, '_>) -> Converted {
        let mut axes = Vec::new();
        for &(value, way) in &self.scanned {
            axes.push(context.axis(way.axis, context.rank(value))?);
        }
        let count = context.shape(self.scanned[0].0)[axes[0]];
        let number = context.param(TensorType::new(DType::I64, &[]));
        let mut params = vec![number];
        for &value in &self.states {
            let ty = context.ty(value);
            params.push(context.param(ty));
        }
        // What every iteration takes of the scanned inputs comes before the body in its block.
        let mut head = Block::default();
        let (parts, back) = context.extend(&mut head, |context| {
            let last = context.known(Tensor::scalar(count as i64 - 1));
            let back = context.builder.map(ScalarFn::Sub, &[last, number])?;
            let mut parts = Vec::new();
            for (&(value, way), &axis) in self.scanned.iter().zip(&axes) {
                let mut shape = context.shape(value).to_vec();
                if shape[axis] != count {
                    return invalid(format!("{count} and {} iterations", shape[axis]));
                }
                shape[axis] = 1;
                let zero = context.known(Tensor::scalar(0i64));
                let place = if way.is_reversed { back } else { number };
                let mut operands = vec![value];
                operands.extend((0..shape.len()).map(|dim| if dim == axis { place } else { zero }));
                let slice = op::DynamicSlice { sizes: shape.clone() };
                let part = context.builder.add(slice, &operands)?;
                shape.remove(axis);
                parts.push(context.reshape(part, &shape)?);
            }
            Ok((parts, back))
        })?;
        let inputs = params[1..].iter().chain(&parts).map(|&value| Item::Value(value)).collect();
        let (mut block, _) = context.block(&self.body, params, inputs)?;
        block.nodes.splice(0..0, head.nodes);
        let stacked = block.results.split_off(self.states.len());
        let mut operands = self.states.clone();
        for (&result, &operand) in block.results.iter().zip(&operands) {
            if context.ty(result) != context.ty(operand) {
                return unsupported("a state changes its type");
            }
        }
        for (value, way) in stacked.into_iter().zip(&self.stacked) {
            let axis = context.axis(way.axis, context.rank(value) + 1)?;
            let number = if way.is_reversed { back } else { number };
            stack(context, &mut block, &mut operands, value, Place { number, axis, count })?;
        }
        let values = context.builder.add_many(op::For { count }, &operands, vec![block])?;
        Ok(values.to_vec())
    }
}

fn scan(context: &mut Context<'_, '_, '_>) -> Converted {
    let values = context.all_inputs()?;
    let names =
        ["scan_input_axes", "scan_input_directions", "scan_output_axes", "scan_output_directions"];
    Scan::read(context, values, names)?.convert(context)
}

/// The first version: every value has a batch in front, each entry of which is scanned on its own.
fn scan_of_batch(context: &mut Context<'_, '_, '_>) -> Converted {
    if context.has_input(0) {
        return unsupported("sequences of different lengths");
    }
    let count = context.inputs.len();
    let values = (1..count).map(|index| context.input(index)).collect::<Result<Vec<_>, _>>()?;
    let batch = match values.first().and_then(|&value| context.shape(value).first().copied()) {
        Some(batch) if values.iter().all(|&value| context.shape(value).first() == Some(&batch)) => {
            batch
        }
        _ => return invalid("values do not have one batch in front"),
    };
    const MOST_ENTRIES: usize = 1 << 10;
    if batch == 0 || batch > MOST_ENTRIES {
        return unsupported(format!("a batch of {batch}"));
    }
    let mut columns: Vec<Vec<ValueId>> = Vec::new();
    for entry in 0..batch {
        let mut own = Vec::new();
        for &value in &values {
            let part = context.slice_axis(value, 0, entry, entry + 1, 1)?;
            let shape = context.shape(part)[1..].to_vec();
            own.push(context.reshape(part, &shape)?);
        }
        let results = Scan::read(context, own, ["", "directions", "", ""])?.convert(context)?;
        columns.resize(results.len(), Vec::new());
        for (column, value) in columns.iter_mut().zip(results) {
            column.push(context.unsqueeze(value, &[0])?);
        }
    }
    columns.iter().map(|column| context.concat(column, 0)).collect()
}
