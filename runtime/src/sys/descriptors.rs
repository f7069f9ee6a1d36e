//! The descriptors a program is started with.
#![allow(
    unsafe_code,
    reason = "close_range has no safe binding: it acts on descriptors by number"
)]

use std::io;

/// Keeps every descriptor but the standard three from being inherited by programs started later.
///
/// # Errors
/// `NOSYS` or `INVAL` before Linux 5.11.
pub(crate) fn close_on_exec() -> io::Result<()> {
    let flags = libc::c_long::from(libc::CLOSE_RANGE_CLOEXEC);
    let first: libc::c_long = 3;
    let last = libc::c_long::from(libc::c_uint::MAX);
    // SAFETY: no descriptor is closed or changed for this process; only the close-on-exec flag is set.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
