//! stub
use crate::kernel::Kernel;
use crate::pass::{Changed, Context, Pass};
/// See the module.
pub const PASS: Pass<Kernel> = Pass { name: "place", summary: "x", run };
fn run(
    _kernel: &mut Kernel,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(Changed::No)
}
