//! What the programs of libFuzzer have in common.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Does what Rust does before `main`, which these programs have from libFuzzer: a write to a socket that
/// is closed is an error, and not the end of the process.
pub fn prepare() {
    let ignored = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGPIPE, ignored)
        .expect("a signal can be handled");
}
