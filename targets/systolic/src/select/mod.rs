//! From a kernel to instructions on the engines.

use crate::limits::Limits;
use crate::program;
use systole_compiler::kernel::Kernel;

/// The kernel on the engines, or why it cannot be there.
pub(crate) fn select(_kernel: &Kernel, _limits: &Limits) -> Result<program::Kernel, String> {
    Err("nothing is selected yet".to_owned())
}
