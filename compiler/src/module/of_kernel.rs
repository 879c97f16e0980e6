//! A module around a single kernel, so that what takes modules takes kernels as they are written.

use super::{Buffer, Layout, Lifetime, Module, ScalarSource, Step};
use crate::kernel::{Kernel, Place, Role};

impl Module {
    /// The module that runs a kernel once, on these values of its scalar parameters, in their order. Its inputs are the
    /// operands that the kernel reads, its outputs those that it writes, by their names. An operand that it updates is copied
    /// first, so that the input stays.
    pub fn of_kernel(kernel: &Kernel, scalars: &[i64]) -> Module {
        let mut module = Module { name: kernel.name.clone(), ..Module::default() };
        let mut operands = Vec::new();
        for (_, operand) in kernel.operands.iter() {
            let ty = operand.ty();
            let mut buffer = |name: String, lifetime| {
                module.buffers.push(Buffer {
                    name,
                    layout: Layout::row_major(&ty.shape),
                    ty: ty.clone(),
                    place: Place::Far,
                    lifetime,
                    alias: None,
                    offset: None,
                })
            };
            let name = operand.name.clone();
            operands.push(match operand.role {
                Role::Input => {
                    let input = buffer(name, Lifetime::Input);
                    module.inputs.push(input);
                    input
                }
                Role::Output => {
                    let output = buffer(name.clone(), Lifetime::Temporary);
                    module.outputs.push((name, output));
                    output
                }
                Role::Update => {
                    let input = buffer(format!("{name}_before"), Lifetime::Input);
                    let output = buffer(name.clone(), Lifetime::Temporary);
                    module.inputs.push(input);
                    module.outputs.push((name, output));
                    module.steps.push(Step::Copy { from: input, to: output });
                    output
                }
            });
        }
        let scalars = scalars.iter().map(|&value| ScalarSource::Constant(value)).collect();
        let origins = kernel.origins.clone();
        let kernel = module.kernels.push(kernel.clone());
        module.steps.push(Step::Kernel { kernel, operands, scalars, origins });
        module
    }
}
