//! Random graphs on every engine, without end.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| systole_tests::fuzz::random_graph(data));
