//! The host CPU target: compiles modules to machine code through Cranelift and runs their products on micro-kernels.

pub mod micro;
