//! The text of kernels, both ways.

use super::*;

fn parsed(source: &str) -> Kernel {
    match parse(source) {
        Ok(kernel) => kernel,
        Err(diagnostics) => {
            panic!("{}", crate::text::render(&diagnostics, "kernel.tir", Some(source)))
        }
    }
}

fn check_round_trip(source: &str) -> Kernel {
    let kernel = parsed(source);
    let text = kernel.to_string();
    let again = parsed(&text);
    assert_eq!(again.to_string(), text, "printing is canonical");
    assert_eq!(again, kernel, "{text}");
    if let Err(diagnostics) = crate::kernel::verify(&kernel) {
        panic!("{text}\n{diagnostics}");
    }
    kernel
}

#[test]
fn the_kernels_that_decide_parse_as_they_are_written() {
    for source in [
        include_str!("../../../../tests/parse/kernels/dense.tir"),
        include_str!("../../../../tests/parse/kernels/softmax.tir"),
        include_str!("../../../../tests/parse/kernels/conv.tir"),
        include_str!("../../../../tests/parse/kernels/attention.tir"),
    ] {
        check_round_trip(source);
    }
}
