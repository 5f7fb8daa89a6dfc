#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| token_authority_fuzz::token(text));
