//! What the benchmarks share: programs with a workspace, ready to run again and again.

use systole::{
    Compiler, Error, Inputs, Model, Program, RunOptions, Target, Tensor, Workspace, data,
};

/// A program that has run once, with the inputs of that run.
#[derive(Debug)]
pub struct Ready {
    program: Program,
    workspace: Workspace,
    inputs: Inputs,
}

impl Ready {
    /// Compiles a model for the host on some threads, with an instruction set by name or the best, and runs it on random
    /// inputs. Every size must be known.
    pub fn new(model: &Model, threads: usize, cpu: Option<&str>) -> Result<Ready, Error> {
        let target = cpu.map_or_else(Target::host, Target::host_with_cpu);
        let program = Compiler::new().target(target).threads(threads).compile(model)?;
        let ports = program.signature().inputs.iter();
        let given = ports.enumerate().map(|(index, port)| {
            let ty = port.ty().expect("every size is known");
            (port.name.clone(), data::random(&ty, index as u64, None))
        });
        let inputs: Inputs = given.collect::<Vec<(String, Tensor)>>().into_iter().collect();
        let mut ready = Ready { program, workspace: Workspace::new(), inputs };
        ready.run()?;
        Ok(ready)
    }

    /// Runs it once more.
    pub fn run(&mut self) -> Result<(), Error> {
        let options = RunOptions::default();
        self.program.run_in(&mut self.workspace, &options, &self.inputs).map(|_| ())
    }
}
