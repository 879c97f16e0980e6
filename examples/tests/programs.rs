//! Runs the example programs, as a user would.

use std::process::Command;

fn output_of(program: &str) -> String {
    let output = Command::new(program).output().expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} failed: {errors}");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[test]
fn digits_are_read() {
    let text = output_of(env!("CARGO_BIN_EXE_read_digits"));
    let digits: Vec<&str> = text.lines().filter_map(|line| line.split(',').next()).collect();
    assert_eq!(digits, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"], "{text}");
}

#[test]
fn threads_share_a_program() {
    let text = output_of(env!("CARGO_BIN_EXE_share_program"));
    assert_eq!(text.trim(), "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]");
}
