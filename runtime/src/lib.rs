//! Systole compiles tensor models and runs them: for the host CPU, or level by level for whoever wants to see.
#![deny(unsafe_code)]

pub mod data;
mod error;
mod inputs;
mod outputs;
mod signature;
mod target;

pub use error::{Error, ErrorKind};
pub use inputs::{Inputs, IntoTensor};
pub use outputs::{Output, Outputs};
pub use signature::{Dim, Port, Signature};
pub use systole_compiler::diagnostic::{Code, Diagnostic, Severity, Span};
pub use systole_compiler::tensor::{Element, Tensor};
pub use systole_compiler::types::{DType, TensorType};
pub use target::{Target, TargetRow};
