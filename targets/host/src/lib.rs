//! The host CPU target: compiles modules to machine code through Cranelift and runs their products on micro-kernels.
//!
//! A kernel is planned (which tiles exist where), its nests are scheduled and emitted as code, each distinct kernel once.
//! An [`Executable`] holds the code, the constants and the steps, and runs from many threads at once; results depend on
//! the instruction set that was chosen, never on the number of threads or on addresses.

mod code;
mod emit;
mod executable;
mod function;
mod functions;
mod helpers;
mod jit;
mod machine;
mod math;
mod memory;
pub mod micro;
mod nest;
mod object;
mod plan;
mod pool;
mod run;
mod shape;
mod workspace;

pub use executable::{CompileTimes, Executable, HostError, Options, compile};
pub use jit::Listing;
pub use machine::{cpu_name, machine};
pub use object::object;
pub use pool::{Pool, Team, Threads};
pub use run::{Given, KernelTime, RunOptions};
pub use workspace::Workspace;
