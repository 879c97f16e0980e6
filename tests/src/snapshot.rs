//! Snapshots beside their cases: `NAME.WHAT.snap`, by insta. They hold no path, time, address or thread count. Those of the
//! examples are in `tests/pipeline`, so that the examples stay easy to read.

use crate::case::Case;
use std::path::Path;

/// Compares with the snapshot of that name; panics with the difference, which the runner reports.
pub fn check(case: &Case, what: &str, text: &str) {
    let folder = case.path.parent().expect("a case lies in a folder");
    let stem = case.path.file_stem().expect("a case has a name").to_string_lossy();
    if folder.starts_with(crate::data()) {
        check_in(folder, &format!("{stem}.{what}"), text);
    } else {
        check_in(&crate::data().join("pipeline"), &format!("{stem}.{what}"), text);
    }
}

/// Compares with a snapshot in a folder.
pub fn check_in(folder: &Path, name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}
