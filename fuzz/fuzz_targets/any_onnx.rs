//! Any bytes as an ONNX model, without end.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| systole_tests::fuzz::any_onnx(data));
