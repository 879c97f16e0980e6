//! The modeled Trainium-like systolic accelerator: instruction set, compiler back end, checker and simulator.
#![forbid(unsafe_code)]

pub mod isa;
pub mod limits;
pub mod lower;
pub mod program;
mod select;
