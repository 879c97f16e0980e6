//! What the example programs share: where the models lie, and a pass that is not one of the compiler's own.
#![forbid(unsafe_code)]

pub mod double_negation;

use std::path::PathBuf;

/// A file of this folder.
pub fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}
