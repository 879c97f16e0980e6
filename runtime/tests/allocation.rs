//! The second run of a program in a workspace allocates nothing. A program of its own without the test harness, whose main
//! thread allocates when it likes.

mod counting;

use systole::{Compiler, Inputs, Model, RunOptions, Tensor, Workspace, inputs};

/// Products, a softmax, a reduction, a concatenation, a loop, a
/// branch, a sort, and a result that is an input.
const MIXED: &str = "func @main(%x: f32[64, 48], %w: f32[48, 32], %n: i64[]) -> (y: f32[64, 32], s: f32[64], z: f32[128, 32], x: f32[64, 48], l: f32[64, 32], m: f32[64, 32], r: f32[64], q: i64[64]) {
  %a = contract %x, %w {batch = [], over = [[1, 0]], accumulate = f32, dtype = f32}
  %b = tanh %a
  %y = softmax %b {axis = 1}
  %s: f32[64] = reduce %b {combine = sum, axes = [1], accumulate = f32}
  %z = concat %a, %y {axis = 0}
  %l = for %y {count = 3} do (%i: i64[], %v: f32[64, 32]) { %e = add %v, %b yield %e }
  %zero: i64[] = constant {value = 0}
  %more: bool[] = gt %n, %zero
  %m: f32[64, 32] = if %more do () { yield %y } do () { yield %b }
  (%r, %q) = sort %s {axis = 0}
  return %y, %s, %z, %x, %l, %m, %r, %q
}
";

fn values(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let elements: Vec<f32> = (0..count).map(|index| (index % 17) as f32 / 8.0 - 1.0).collect();
    Tensor::from_slice(shape, &elements)
}

fn given(n: i64) -> Inputs {
    inputs! { "x" => values(&[64, 48]), "w" => values(&[48, 32]), "n" => n }
}

/// How many threads the process has, where the system says.
fn threads() -> Option<usize> {
    std::fs::read_dir("/proc/self/task").ok().map(Iterator::count)
}

#[expect(clippy::print_stdout, reason = "a line as the harness prints it")]
fn main() {
    a_second_run_in_a_workspace_allocates_nothing();
    println!("test a_second_run_in_a_workspace_allocates_nothing ... ok");
}

fn a_second_run_in_a_workspace_allocates_nothing() {
    let model = Model::from_text(MIXED).expect("a model");
    let at_first = threads();
    for threads in [1, 2] {
        let program = Compiler::new().threads(threads).compile(&model).expect("a program");
        let (inputs, other) = (given(1), given(0));
        let mut workspace = Workspace::new();
        let options = RunOptions::default();
        let found = || self::threads().zip(at_first).map(|(now, before)| now - before);
        let first: Vec<Tensor> = {
            let outputs = program.run_in(&mut workspace, &options, &inputs).expect("outputs");
            outputs.iter().map(|output| output.to_tensor()).collect()
        };
        for inputs in [&inputs, &other, &inputs] {
            let before = counting::allocations();
            let outputs = program.run_in(&mut workspace, &options, inputs).expect("outputs");
            let y = outputs.get("y").expect("y").as_slice::<f32>().expect("f32")[0];
            let during = counting::allocations() - before;
            assert_eq!(during, 0, "allocations on {threads} threads");
            assert_eq!(y, first[0].as_slice::<f32>().expect("f32")[0]);
        }
        assert!(found().is_none_or(|started| started == threads - 1), "threads were started");
        let outputs = program.run_in(&mut workspace, &options, &inputs).expect("outputs");
        let again: Vec<Tensor> = outputs.iter().map(|output| output.to_tensor()).collect();
        assert_eq!(first, again);
        let expected = program.run(inputs.clone()).expect("outputs").into_entries();
        let expected: Vec<Tensor> = expected.into_iter().map(|(_, tensor)| tensor).collect();
        assert_eq!(first, expected);
        // The count counts: a run that gives tensors away must take memory for them.
        let before = counting::allocations();
        drop(program.run(inputs.clone()).expect("outputs"));
        assert!(counting::allocations() > before);
    }
}
