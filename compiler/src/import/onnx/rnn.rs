//! Recurrent layers.

use super::table::Row;

/// The operators of this file.
pub(super) const ROWS: &[Row] = &[];
