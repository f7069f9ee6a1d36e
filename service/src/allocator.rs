//! The allocator of the programs. Many small objects live and die in them; the allocator of the system keeps
//! their pages, and that of static builds is slow where several threads allocate.
//!
//! Only a program chooses: its `main.rs` names [`Allocator`] as its global one.

use std::ffi::{c_int, c_long};
use std::time::Duration;

pub use mimalloc::MiMalloc as Allocator;

#[allow(
    unsafe_code,
    reason = "a function of the allocator that its crate does not declare"
)]
// SAFETY: the signature is that of `mimalloc.h`; any thread may call it at any time.
unsafe extern "C" {
    safe fn mi_option_set(option: c_int, value: c_long);
}

/// `mi_option_purge_delay` of `mimalloc.h`.
const PURGE_DELAY: c_int = 15;

/// How long memory that became free is kept for reuse before it goes back to the operating system, in whole
/// milliseconds; a second, unless set. Only later calls of the allocator look at that clock, and an idle process
/// makes few.
pub fn keep_free_memory_for(time: Duration) {
    let time = c_long::try_from(time.as_millis()).unwrap_or(c_long::MAX);
    mi_option_set(PURGE_DELAY, time);
}
