//! Noticing that children have exited, without taking their status.
#![allow(
    unsafe_code,
    reason = "no safe binding of waitid tells which child it is about, and polling a descriptor is unsafe"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A handle of a process that tells when it has exited.
#[derive(Debug)]
pub(crate) struct ExitHandle(AsyncFd<OwnedFd>);

impl ExitHandle {
    /// Opens a handle of a child that has not been waited for.
    ///
    /// # Errors
    /// `NOSYS` or `PERM` where the kernel has no process handles.
    pub(crate) fn open(child: Pid) -> io::Result<Self> {
        let handle = rustix::process::pidfd_open(child, PidfdFlags::empty())?;
        // SAFETY: the descriptor is owned, valid, and neither replaced nor closed before the `AsyncFd`
        // that owns it goes.
        let polled = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) };
        Ok(Self(polled?))
    }

    /// Completes when the process has exited; it may also complete early.
    ///
    /// # Errors
    /// When the event loop is shutting down.
    pub(crate) async fn exited(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}

/// A child of this process that has exited and has not been waited for, if there is one. Its status
/// stays where it is.
pub(crate) fn exited_child() -> io::Result<Option<Pid>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is valid for writes.
    if unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), options) } != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: all zeroes is a valid `siginfo_t`, and the call may have filled it in; either way the
    // process id field of a child event is readable, 0 when there was no event.
    Ok(Pid::from_raw(unsafe { info.assume_init().si_pid() }))
}
