//! Snapshots beside their cases: `NAME.WHAT.snap`, by insta. They hold no path, time, address or thread count.

use crate::case::Case;

/// Compares with the snapshot of that name beside the case; panics with the difference, which the runner reports.
pub fn check(case: &Case, what: &str, text: &str) {
    let folder = case.path.parent().expect("a case lies in a folder");
    let stem = case.path.file_stem().expect("a case has a name").to_string_lossy();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(folder);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("{stem}.{what}"), text));
}
