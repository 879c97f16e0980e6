//! Standard output and standard error. Results go to the first, everything else to the second.

use super::failure::Failure;
use std::io::{ErrorKind, Write};

/// Writes a result. A reader that has gone away is no error: what it wanted, it has.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::usage(format!("cannot write standard output: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes to standard error, where there is one.
pub(super) fn note(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
