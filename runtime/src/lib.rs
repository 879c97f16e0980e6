//! Systole compiles tensor models and runs them: for the host CPU, or level by level for whoever wants to see.
#![deny(unsafe_code)]

mod accelerator;
mod cache;
mod compiler;
pub mod data;
mod engine;
mod error;
mod inputs;
mod levels;
mod limits;
mod mapping;
mod model;
mod options;
mod outputs;
pub mod plan;
mod profile;
mod program;
mod ranks;
mod report;
mod saved;
mod signature;
mod state;
mod target;
mod workspace;
mod written;

pub use compiler::Compiler;
pub use error::{Error, ErrorKind};
pub use inputs::{Inputs, IntoTensor};
pub use levels::{Contents, Operator, first_word};
pub use model::Model;
pub use options::{Cancel, RunOptions};
pub use outputs::{Output, Outputs};
pub use profile::{EngineProfile, OpProfile, Profile, ProfileEvent};
pub use program::Program;
pub use report::{CompileTimes, MemoryPlan};
pub use saved::SavedProgram;
pub use signature::{Dim, Port, Signature};
pub use state::State;
pub use systole_compiler::diagnostic::{Code, Diagnostic, Severity, Span};
pub use systole_compiler::mesh::Mesh;
pub use systole_compiler::tensor::{Element, Tensor};
pub use systole_compiler::types::{DType, TensorType};
pub use systole_host::{Pool, Team};
pub use target::{Listing, Mode, Precision, Target, TargetRow};
pub use workspace::{BorrowedOutput, BorrowedOutputs, Workspace};
pub use written::Written;
