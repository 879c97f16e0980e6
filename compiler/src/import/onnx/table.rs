//! Which conversion an operator of which version has.

use super::context::{Converted, Items, NodeContext};
use std::collections::BTreeMap;

/// How a node is converted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Convert {
    /// Every output is a tensor.
    Values(fn(&mut NodeContext<'_, '_, '_>) -> Converted),
    /// Outputs may be sequences, or stay known.
    Items(fn(&mut NodeContext<'_, '_, '_>) -> Items),
}

/// An operator from some version of its set on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// The operator's name.
    pub(crate) name: &'static str,
    /// The first version of the operator set that it is for. The last row that is not too new holds.
    pub(crate) since: i64,
    /// The conversion.
    pub(crate) convert: Convert,
}

/// A row for an operator whose outputs are tensors.
pub(crate) const fn row(
    name: &'static str,
    since: i64,
    convert: fn(&mut NodeContext<'_, '_, '_>) -> Converted,
) -> Row {
    Row { name, since, convert: Convert::Values(convert) }
}

/// A row for an operator whose outputs may be something else.
pub(crate) const fn items(
    name: &'static str,
    since: i64,
    convert: fn(&mut NodeContext<'_, '_, '_>) -> Items,
) -> Row {
    Row { name, since, convert: Convert::Items(convert) }
}

/// The operators of each domain.
const DOMAINS: &[(&str, &[&[Row]])] = &[
    (
        "",
        &[
            super::elementwise::ROWS,
            super::shape::ROWS,
            super::pad::ROWS,
            super::ranges::ROWS,
            super::blocks::ROWS,
            super::index::ROWS,
            super::reduce::ROWS,
            super::control::ROWS,
            super::scan::ROWS,
            super::sequence::ROWS,
            super::attention::ROWS,
            super::loss::ROWS,
            super::signal::ROWS,
            super::sample::ROWS,
            super::vision::ROWS,
            super::matrix::ROWS,
            super::features::ROWS,
            super::microsoft::STANDARD,
            super::nn::CONVOLUTION,
            super::nn::POOL,
            super::nn::NORMALIZATION,
            super::nn::RESIZE,
            super::nn::EINSUM,
            super::nn::QUANTIZATION,
            super::rnn::ROWS,
        ],
    ),
    (
        "com.microsoft",
        &[super::elementwise::MICROSOFT, super::reduce::MICROSOFT, super::microsoft::ROWS],
    ),
    ("ai.onnx.ml", &[super::index::ML, super::features::ML]),
    ("ai.onnx.preview.training", &[super::loss::TRAINING]),
];

/// All rows, by domain and name.
#[derive(Debug)]
pub(crate) struct Table {
    rows: BTreeMap<(&'static str, &'static str), Vec<Row>>,
}

impl Table {
    pub(crate) fn new() -> Table {
        let mut rows: BTreeMap<_, Vec<Row>> = BTreeMap::new();
        for (domain, lists) in DOMAINS {
            for row in lists.iter().copied().flatten() {
                rows.entry((*domain, row.name)).or_default().push(*row);
            }
        }
        Table { rows }
    }

    /// The conversion of an operator at a version of its set.
    pub(crate) fn find(&self, domain: &str, name: &str, opset: i64) -> Option<Convert> {
        let rows = self.rows.get(&(domain, name) as &(&str, &str))?;
        let row = rows.iter().filter(|row| row.since <= opset).max_by_key(|row| row.since)?;
        Some(row.convert)
    }
}
