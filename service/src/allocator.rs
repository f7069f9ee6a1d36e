//! The allocator of the programs. Many small objects live and die in them; the allocator of the system keeps
//! their pages, and that of static builds is slow where several threads allocate.
//!
//! Only a program chooses: its `main.rs` names [`Allocator`] as its global one.

use std::cell::Cell;
use std::ffi::{c_int, c_long};
use std::time::{Duration, Instant};

pub use mimalloc::MiMalloc as Allocator;

#[allow(
    unsafe_code,
    reason = "functions of the allocator that its crate does not declare"
)]
// SAFETY: the signatures are those of `mimalloc.h`; any thread may call them at any time.
unsafe extern "C" {
    safe fn mi_option_set(option: c_int, value: c_long);
    safe fn mi_collect(force: bool);
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

/// How often a thread gives memory back at most. Each time costs it some microseconds.
const GIVE_BACK: Duration = Duration::from_millis(100);

/// Gives memory that the calling thread has freed back to the operating system, unless it did so a moment
/// ago. To be called when a thread runs out of work: what thousands of connections used once would
/// otherwise stay until the thread needs memory again.
pub fn give_back_now_and_then() {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of the machine: an allocator knows no other"
    )]
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now - last >= GIVE_BACK) {
        LAST.set(Some(now));
        mi_collect(true);
    }
}
