//! Tensor graphs, fusion and tiling to kernels, kernels over buffers: the pure part of Systole.
//!
//! Bytes come in, IR goes out. There is no IO, no clock, no target name and no unsafe code here.
#![forbid(unsafe_code)]

pub mod arena;
pub mod diagnostic;
pub mod evaluate;
pub mod expr;
pub mod generate;
pub mod graph;
pub mod import;
pub mod kernel;
pub mod lower;
pub mod machine;
pub mod mesh;
pub mod module;
pub mod narrow;
pub mod op;
pub mod pass;
pub mod passes;
pub mod pipeline;
pub mod ranks;
pub mod rewrite;
pub mod scalar;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;
