//! stub
use crate::module::Module;
use crate::pass::{Changed, Context, Pass};
/// See the module.
pub const PASS: Pass<Module> = Pass { name: "layout", summary: "x", run };
fn run(
    _module: &mut Module,
    _context: &Context<'_>,
) -> Result<Changed, crate::diagnostic::Diagnostics> {
    Ok(Changed::No)
}
