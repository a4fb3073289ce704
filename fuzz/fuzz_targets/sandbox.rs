#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| keystead_fuzz::sandbox_holds(data));
