//! Waiting for a process descriptor without a thread.

#![allow(
    unsafe_code,
    reason = "registering a descriptor needs a promise about its life"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a process descriptor, which becomes readable when the process ends.
pub(super) fn register(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the `AsyncFd` owns the descriptor: it stays open, valid and the same until the
    // `AsyncFd` is dropped or taken apart, because nothing else can close an `OwnedFd`.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(Into::into)
}
