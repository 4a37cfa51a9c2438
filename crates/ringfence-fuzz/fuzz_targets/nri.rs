//! The executable for libFuzzer; what it does is in `ringfence_fuzz::nri`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringfence_fuzz::nri::run(data));
