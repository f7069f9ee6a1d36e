//! Starting a program with `posix_spawn`.
//!
//! `fork` copies the page tables of a grown server and costs tens of milliseconds; `posix_spawn`
//! shares them until the program is loaded and costs the same at any size. The standard library
//! falls back to `fork` as soon as a session, a directory handle or an own `PATH` is asked for, so
//! the call is made here. It returns after the program has been loaded, with the error of whatever
//! step failed.
#![allow(
    unsafe_code,
    reason = "posix_spawn with a new session and a directory handle has no safe binding"
)]

use std::ffi::{CStr, c_char, c_int, c_short};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::process::Pid;

/// A program to start. Every descriptor of this process that is not close-on-exec leaks into the
/// program, so all of them must be (Rust opens them that way).
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    /// The file to execute, looked up in `directory` if relative; `PATH` is not searched.
    pub(crate) program: &'a CStr,
    /// The argument list, its first item included.
    pub(crate) arguments: &'a [&'a CStr],
    /// The complete environment, `NAME=value` each.
    pub(crate) environment: &'a [&'a CStr],
    /// The working directory.
    pub(crate) directory: BorrowedFd<'a>,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
}

/// Starts the program as leader of a new session (and so of a new process group), with default
/// signal dispositions and an empty signal mask.
///
/// # Errors
/// What loading the program or entering the directory failed with.
pub(crate) fn launch(launch: &Launch<'_>) -> io::Result<Pid> {
    let mut actions = FileActions::new()?;
    for (target, source) in (0..).zip(launch.stdio) {
        actions.duplicate(source, target)?;
    }
    actions.enter(launch.directory)?;
    let attributes = Attributes::new()?;
    let arguments = pointers(launch.arguments);
    let environment = pointers(launch.environment);
    let mut pid: libc::pid_t = 0;
    // SAFETY: `program` is a C string; both vectors end with a null pointer and point to C strings
    // that outlive the call; `actions` and `attributes` are initialised.
    check(unsafe {
        libc::posix_spawn(
            &raw mut pid,
            launch.program.as_ptr(),
            &raw const actions.0,
            &raw const attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    })?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn pointers(strings: &[&CStr]) -> Vec<*mut c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr().cast_mut())
        .chain([ptr::null_mut()])
        .collect()
}

/// These functions return an error number instead of setting `errno`.
fn check(code: c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn duplicate(&mut self, source: BorrowedFd<'_>, target: c_int) -> io::Result<()> {
        // SAFETY: `self.0` is initialised; the descriptor outlives the spawn call.
        check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&raw mut self.0, source.as_raw_fd(), target)
        })
    }

    fn enter(&mut self, directory: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: `self.0` is initialised; the descriptor outlives the spawn call.
        check(unsafe {
            libc::posix_spawn_file_actions_addfchdir_np(&raw mut self.0, directory.as_raw_fd())
        })
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once. It cannot fail on an initialised object.
        unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the call initialises what it is given.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: initialised by the call above, which succeeded.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let mut none = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initialises the set it is given and cannot fail on a valid pointer.
        let none = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            none.assume_init()
        };
        // Handled signals are reset by loading a program; these are the ones Rust programs, their
        // parents or `nohup` leave ignored, which would be inherited.
        let mut ignored = none;
        for signal in [
            libc::SIGPIPE,
            libc::SIGXFSZ,
            libc::SIGHUP,
            libc::SIGINT,
            libc::SIGQUIT,
            libc::SIGTERM,
            libc::SIGCHLD,
        ] {
            // SAFETY: the set is initialised and the numbers are valid signals.
            unsafe { libc::sigaddset(&raw mut ignored, signal) };
        }
        let flags = libc::POSIX_SPAWN_SETSID
            | c_short::try_from(libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        // SAFETY: `attributes` and both sets are initialised.
        unsafe {
            check(libc::posix_spawnattr_setsigmask(
                &raw mut attributes.0,
                &raw const none,
            ))?;
            check(libc::posix_spawnattr_setsigdefault(
                &raw mut attributes.0,
                &raw const ignored,
            ))?;
            check(libc::posix_spawnattr_setflags(&raw mut attributes.0, flags))?;
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once. It cannot fail on an initialised object.
        unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}
