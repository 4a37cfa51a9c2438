//! The executable for libFuzzer; what it does is in `ringfence_fuzz::listing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringfence_fuzz::listing::run(data));
