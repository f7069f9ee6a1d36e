//! libFuzzer over `tests/fuzz/src/messages.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(
    init: agent_sandbox_fuzz_targets::prepare(),
    |bytes: &[u8]| agent_sandbox_fuzz::check("messages", bytes)
);
