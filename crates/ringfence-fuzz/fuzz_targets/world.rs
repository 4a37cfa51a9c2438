//! The executable for libFuzzer; what it does is in `ringfence_fuzz::world`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringfence_fuzz::world::run(data));
