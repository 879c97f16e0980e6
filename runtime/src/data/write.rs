//! Files appear whole or not at all: they are written under a temporary name in the same folder and then renamed.

use crate::error::Error;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

/// Reads a text file.
pub fn read_text(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::file(format!("cannot read {}: {error}", path.display())))
}

/// Writes a text file.
pub fn write_text(path: &Path, text: &str) -> Result<(), Error> {
    replace(path, text.as_bytes())
}

/// A name of a tensor or pass as part of a file name: path separators become `_`.
pub fn file_stem(name: &str) -> String {
    name.chars().map(|c| if matches!(c, '/' | '\\' | '\0') { '_' } else { c }).collect()
}

pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    replace_with(path, |file| file.write_all(contents))
}

pub(crate) fn replace_with(
    path: &Path,
    fill: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> Result<(), Error> {
    let problem = |error| Error::file(format!("cannot write {}: {error}", path.display()));
    // A device or a pipe is written in place: renaming would replace it by a file.
    let is_special = std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        let mut file = OpenOptions::new().write(true).open(path).map_err(problem)?;
        return fill(&mut file).map_err(problem);
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("output");
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = File::create(&temporary)
        .and_then(|mut file| fill(&mut file))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The error that is reported is the first one; a temporary file that cannot be removed either stays.
        let _ = std::fs::remove_file(&temporary);
    }
    written.map_err(problem)
}
