//! Object files for other machines: the kernels of a module as functions `kernel0`, `kernel1` …, in the order of the
//! module's kernels, with row-major operands and without micro-kernels. They refer to the helpers by name.

use crate::function;
use crate::jit::declare_helpers;
use crate::machine;
use crate::micro::Cpu;
use crate::plan;
use cranelift_codegen::Context;
use cranelift_module::{Linkage, Module as _, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use systole_compiler::module::{Layout, Module};

/// The object file of a module's kernels for an architecture, `x86_64` or `aarch64`.
pub fn object(module: &Module, architecture: &str) -> Result<Vec<u8>, String> {
    let cpu = match architecture {
        "x86_64" => Cpu::Baseline,
        "aarch64" => Cpu::Neon,
        other => return Err(format!("no object files for {other}: known are x86_64, aarch64")),
    };
    let isa = machine::isa(architecture, cpu, true)?;
    let builder = ObjectBuilder::new(isa.clone(), module.name.clone(), default_libcall_names())
        .map_err(|error| error.to_string())?;
    let mut object = ObjectModule::new(builder);
    declare_helpers(&mut object)?;
    for (index, (_, kernel)) in module.kernels.iter().enumerate() {
        let layouts: Vec<Layout> = kernel
            .operands
            .iter()
            .map(|(_, operand)| Layout::row_major(&operand.ty().shape))
            .collect();
        let signature = function::signature(isa.default_call_conv());
        let id = object
            .declare_function(&format!("kernel{index}"), Linkage::Export, &signature)
            .map_err(|error| error.to_string())?;
        let plan = plan::plan(kernel, &layouts, None);
        let code = function::build(kernel, plan, isa.as_ref(), machine::has_fma(cpu), id.as_u32());
        object
            .define_function(id, &mut Context::for_function(code))
            .map_err(|error| error.to_string())?;
    }
    object.finish().emit().map_err(|error| error.to_string())
}
