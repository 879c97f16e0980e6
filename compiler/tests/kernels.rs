//! Rules of the kernel's verifier that no text can break, because names are resolved when it is read. The others have data
//! files in `tests/verify/kernel`, and what kernels compute in `tests/kernels`.

use systole_compiler::kernel::{self, Kernel, Loop, Stmt};

/// A kernel that copies a vector in a loop inside a loop, changed by `spoil`, breaks these rules.
fn check(spoil: impl FnOnce(&mut Kernel), wanted: &str) {
    let source = "kernel @copy(%x: f32[i: 8, j: 4]) -> (%y: f32[i, j]) {
      for %i in 0..8 parallel {
        for %j in 0..4 parallel {
          %t: f32[] = load %x[%i, %j]
          %u: f32[] = map %t { exp(%0) }
          store %y[%i, %j] = %u
        }
      }
    }";
    let mut kernel = kernel::parse(source).expect("it parses");
    kernel::verify(&kernel).expect("it verifies");
    spoil(&mut kernel);
    let found = kernel::verify(&kernel).err().unwrap_or_default();
    let messages: Vec<&str> = found
        .0
        .iter()
        .map(|found| found.message.split_once(": `").map_or(&*found.message, |(what, _)| what))
        .collect();
    assert_eq!(messages.join("; "), wanted);
}

/// The loop in a body.
fn looped(body: &mut [Stmt]) -> &mut Loop {
    match body {
        [Stmt::For(inner)] => inner,
        other => panic!("{other:?} is no loop"),
    }
}

/// The statements of the loop inside.
fn inside(kernel: &mut Kernel) -> &mut Vec<Stmt> {
    &mut looped(&mut looped(&mut kernel.body).body).body
}

#[test]
fn tiles_are_defined_before_they_are_read() {
    check(|kernel| inside(kernel).swap(0, 1), "rule 2: %t is read where it is not defined");
}

#[test]
fn tiles_are_defined_once() {
    let spoil = |kernel: &mut Kernel| {
        let again = inside(kernel)[0].clone();
        inside(kernel).insert(1, again);
    };
    check(spoil, "rule 2: %t_2 is defined twice");
}

#[test]
fn tiles_of_a_loop_stay_in_it() {
    let spoil = |kernel: &mut Kernel| {
        let last = inside(kernel).remove(1);
        kernel.body.push(last);
    };
    check(
        spoil,
        "rule 2: %u is read where it is not defined; rule 2: %t is read where it is not defined",
    );
}

#[test]
fn variables_belong_to_one_loop() {
    let spoil = |kernel: &mut Kernel| {
        let outer = looped(&mut kernel.body);
        looped(&mut outer.body).var = outer.var;
    };
    check(
        spoil,
        "rule 2: the variable belongs to another loop or is a parameter; rule 13: two iterations may meet in %y",
    );
}
