#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tailwater_receivers::loki::fuzzing::pushes(data));
