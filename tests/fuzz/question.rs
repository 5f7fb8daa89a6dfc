#![no_main]

libfuzzer_sys::fuzz_target!(|message: &[u8]| token_authority_fuzz::question(message));
