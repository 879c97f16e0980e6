//! The case runner: data files in, one test per case and engine out. See `tests/README.md`.
#![forbid(unsafe_code)]

pub mod case;
pub mod docs;
pub mod engine;
pub mod execute;
pub mod fuzz;
pub mod levels;
pub mod marks;
pub mod random;
pub mod skips;
pub mod snapshot;
pub mod suite;
pub mod tolerance;
pub mod validation;
pub mod values;

use std::path::PathBuf;

/// The folder of this crate, which holds the data.
pub fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    data().parent().expect("the crate lies in the workspace").to_path_buf()
}
