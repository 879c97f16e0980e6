//! The modeled Trainium-like systolic accelerator: instruction set, compiler back end, checker and simulator.
#![forbid(unsafe_code)]

pub mod array;
pub mod asm;
pub mod check;
pub mod isa;
pub mod limits;
pub mod lower;
pub mod machine;
mod precision;
pub mod program;
mod relayout;
mod schedule;
mod select;
pub mod simulate;
