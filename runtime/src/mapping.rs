//! The one place that maps files into memory, so that weights are shared with the page cache and never copied.
#![expect(
    unsafe_code,
    reason = "a mapping is only as stable as its file; the argument stands at the block"
)]

use crate::error::Error;
use bytes::Bytes;
use std::fs::File;
use std::path::Path;

/// The bytes of a file, mapped where that is possible and worthwhile, else read.
pub(crate) fn map(path: &Path) -> Result<Bytes, Error> {
    let problem = |error| Error::file(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(problem)?;
    let metadata = file.metadata().map_err(problem)?;
    if metadata.is_dir() {
        return Err(Error::file(format!("cannot read {}: it is a folder", path.display())));
    }
    if !metadata.is_file() || metadata.len() < SMALL {
        return crate::data::read_file(path);
    }
    // SAFETY: the slice that the mapping gives is valid as long as nobody truncates or rewrites the file, which no
    // program can rule out alone. The mapping is private and read-only, so we never write through it; no invariant of
    // ours rests on the bytes staying as they are, because every reader checks what it decodes at the time and tensors
    // are plain numbers of which every bit pattern is valid. A file truncated while in use ends the process with
    // SIGBUS, as it does for every program that maps its weights; `Model::from_bytes` is there for who cannot have that.
    match unsafe { memmap2::Mmap::map(&file) } {
        Ok(mapping) => Ok(Bytes::from_owner(mapping)),
        // Some file systems cannot map.
        Err(_) => crate::data::read_file(path),
    }
}

/// Files below this size are read: a mapping costs more than the copy.
const SMALL: u64 = 64 << 10;
