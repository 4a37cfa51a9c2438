//! The executable for libFuzzer; what it does is in `ringfence_fuzz::arguments`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringfence_fuzz::arguments::run(data));
