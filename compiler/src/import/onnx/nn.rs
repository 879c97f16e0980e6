//! Convolutions, pools, normalizations, resizing and quantization.

use super::table::Row;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[];
