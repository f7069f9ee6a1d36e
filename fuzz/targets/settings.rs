//! libFuzzer over `tests/fuzz/src/settings.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| agent_sandbox_fuzz::check("settings", bytes));
