//! The system calls for which neither `std` nor `rustix` has a safe form.
//!
//! Called by the rest of `init` only, in a process of one thread (see [`ensure_single_threaded`]),
//! which is what makes forking and changing the identity of "the thread" sound here. Nothing in
//! this file may be called from the program that hosts the node.

#![allow(
    unsafe_code,
    reason = "fork, clone, signalfd, mount_setattr and close_range have no safe wrapper"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a fork this is.
#[derive(Debug)]
pub(super) enum Forked {
    Parent(Pid),
    Child,
}

/// Refuses to go on when the process has a second thread: after a fork such a thread's locks would
/// stay held for ever, and a new user namespace is denied to a process with threads.
pub(super) fn ensure_single_threaded() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "the init helper must run before any thread is started, but there are {threads} threads"
    )))
}

/// `fork(2)`.
pub(super) fn fork() -> io::Result<Forked> {
    // SAFETY: the process has one thread (checked at entry), so no lock can be left held in the
    // child and every function may be called there.
    forked(unsafe { libc::fork() }.into())
}

/// A fork whose child becomes a child of *our parent*: this process can then exit, and the
/// program that started it waits for the child itself. That leaves no process of ours behind
/// between the node and a container.
pub(super) fn fork_for_parent() -> io::Result<Forked> {
    let flags = libc::c_long::from(libc::CLONE_PARENT | libc::SIGCHLD);
    let zero: libc::c_long = 0;
    // SAFETY: without CLONE_VM and with a null stack this is a fork: the child runs on a copy of
    // the stack. The argument order of clone differs between architectures only in arguments that
    // are all null here. The process has one thread, see `fork`.
    forked(unsafe { libc::syscall(libc::SYS_clone, flags, zero, zero, zero, zero) })
}

fn forked(result: libc::c_long) -> io::Result<Forked> {
    match result {
        0 => Ok(Forked::Child),
        pid if pid > 0 => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .map(Forked::Parent)
            .ok_or_else(|| io::Error::other("the kernel returned an impossible process id")),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `unshare(2)` for namespaces.
pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    debug_assert!(!flags.contains(UnshareFlags::FILES));
    // SAFETY: the call is unsafe only with UnshareFlags::FILES, which no caller passes.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// Marks every descriptor from `first` on close-on-exec, whoever opened it.
pub(super) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: plain integers; the call closes nothing, it only sets a flag.
    let result = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Which mounts a change applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The one mount.
    One,
    /// The mount and everything mounted beneath it.
    Tree,
}

/// Adds attributes to the mount behind `mount`; never takes one away.
pub(super) fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    attributes: MountAttrFlags,
    reach: Reach,
) -> io::Result<()> {
    #[repr(C)]
    struct MountAttr {
        attr_set: u64,
        attr_clr: u64,
        propagation: u64,
        userns_fd: u64,
    }
    let attr = MountAttr {
        attr_set: attributes.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = match reach {
        Reach::One => libc::AT_EMPTY_PATH,
        Reach::Tree => libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
    };
    // SAFETY: the path is a NUL-terminated empty string, `attr` lives across the call, its layout
    // is the kernel's `struct mount_attr`, and the size passed is the size of that struct.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Blocks SIGCHLD and returns a descriptor that is readable while one is pending.
pub(super) fn child_signal_fd() -> io::Result<OwnedFd> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before it is used; the pointers live across the
    // calls; the descriptor returned is new and owned by nobody else.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Unblocks every signal, as a program expects to be started.
pub(super) fn unblock_signals() -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before it is used; the pointer lives across the call.
    let result = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
