//! Any bytes as a text, without end.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| systole_tests::fuzz::any_text(data));
