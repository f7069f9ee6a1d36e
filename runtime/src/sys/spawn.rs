//! Starting a program without copying this process.
//!
//! `fork` copies the page tables of a grown server and costs tens of milliseconds. Here the child
//! shares this process's memory and runs on a stack of its own until the program is loaded, while the
//! calling thread waits, as in `posix_spawn`: it costs the same at any size. The call is made here
//! because `posix_spawn` can neither set resource limits nor another user nor a controlling terminal.
//! It returns after the program has been loaded, or with the error of whatever step failed.
#![allow(
    unsafe_code,
    reason = "a child on shared memory with a session, limits, a user and a terminal has no safe binding"
)]

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::process::{Pid, Resource, WaitId, WaitIdOptions};

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
    /// Standard input, output and error; none of them is below 3.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether standard input is a terminal, which becomes the controlling one.
    pub(crate) terminal: bool,
    /// Limits that differ from those of this process.
    pub(crate) limits: &'a [Limit],
    /// Who the program runs as, if not as this process's user.
    pub(crate) user: Option<&'a Identity>,
    /// Holds the child's number while it is being made, 0 else. A child that is stopped before it has
    /// loaded its program keeps the caller waiting, until somebody kills it.
    pub(crate) making: &'a AtomicI32,
}

/// One resource limit, both values in the kernel's unit; `u64::MAX` is no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Limit {
    pub(crate) resource: Resource,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// A user as the kernel knows one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
}

/// The part of a start that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// The child was not made: no memory, too many processes.
    Fork,
    Session,
    Limits,
    Stdio,
    Terminal,
    Directory,
    User,
    /// Loading the program.
    Load,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
#[error("{step:?}")]
pub(crate) struct LaunchError {
    pub(crate) step: Step,
    pub(crate) source: io::Error,
}

/// Starts the program as leader of a new session (and so of a new process group), with default
/// signal dispositions and an empty signal mask. The caller must keep others from taking the
/// status of unknown children meanwhile.
///
/// # Errors
/// The step that failed, with what the system said. No process is left then.
pub(crate) fn launch(launch: &Launch<'_>) -> Result<Pid, LaunchError> {
    let arguments = pointers(launch.arguments);
    let environment = pointers(launch.environment);
    let mut order = Order {
        launch,
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        step: Step::Fork,
        error: 0,
    };
    let mut stack = Stack::new();
    // Handlers of this process must not run in the child, which shares its memory.
    let mask = block_signals();
    // SAFETY: the child runs `child` on a stack of its own. This thread waits until the child has
    // loaded a program or ended (CLONE_VFORK), so what `order` points to outlives its use, and nothing
    // else touches `order` or the stack meanwhile.
    let pid = unsafe {
        libc::clone(
            child,
            stack.top(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PARENT_SETTID | libc::SIGCHLD,
            (&raw mut order).cast(),
            launch.making.as_ptr(),
        )
    };
    let fork_error = io::Error::last_os_error();
    launch.making.store(0, Ordering::Release);
    set_mask(mask);
    let Some(pid) = Pid::from_raw(pid).filter(|_| pid > 0) else {
        return Err(LaunchError {
            step: Step::Fork,
            source: fork_error,
        });
    };
    // SAFETY: both are initialised; they are read as volatile because the child wrote them.
    let (step, error) = unsafe {
        (
            ptr::read_volatile(&raw const order.step),
            ptr::read_volatile(&raw const order.error),
        )
    };
    if error == 0 {
        return Ok(pid);
    }
    // The child is gone or about to be, and its status is of no use to anybody.
    let waited = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    if let Err(error) = waited {
        tracing::debug!(%error, "the child of a failed start was not there to be waited for");
    }
    Err(LaunchError {
        step,
        source: io::Error::from_raw_os_error(error),
    })
}

fn pointers(strings: &[&CStr]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// The child's stack. It calls a handful of functions with small frames.
struct Stack(Box<[MaybeUninit<u128>]>);

const STACK_BYTES: usize = 64 << 10;

impl Stack {
    fn new() -> Self {
        Self(Box::new_uninit_slice(STACK_BYTES / size_of::<u128>()))
    }

    /// Stacks grow downwards on every architecture this is built for, and are aligned to 16 bytes.
    fn top(&mut self) -> *mut c_void {
        self.0.as_mut_ptr_range().end.cast()
    }
}

/// A set of all 64 signals as the kernel takes it.
type Mask = u64;

fn block_signals() -> Mask {
    set_mask(Mask::MAX)
}

/// Sets this thread's signal mask and returns the one before. The system call itself, because the
/// library's function leaves out signals that the library uses.
fn set_mask(mask: Mask) -> Mask {
    let mut before: Mask = 0;
    // SAFETY: both pointers are valid for the size given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            c_long::from(libc::SIG_SETMASK),
            &raw const mask,
            &raw mut before,
            size_of::<Mask>(),
        );
    }
    before
}

/// What the child works off, and where it says how far it got.
struct Order<'a> {
    launch: &'a Launch<'a>,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    step: Step,
    error: c_int,
}

/// Runs in the child. It must not allocate, lock, panic or return.
extern "C" fn child(order: *mut c_void) -> c_int {
    let order: *mut Order<'_> = order.cast();
    // SAFETY: `order` is the valid `Order` of the parent, which waits; nobody else uses it.
    unsafe {
        let order = &mut *order;
        let error = become_program(order);
        ptr::write_volatile(&raw mut order.error, error);
        libc::_exit(127)
    }
}

/// Returns only when something failed: the error number. The step is in the order.
///
/// # Safety
/// Only in a child that shares its memory with a waiting parent.
unsafe fn become_program(order: &mut Order<'_>) -> c_int {
    // SAFETY: every call below is a plain system call on valid arguments: the descriptors and texts
    // are borrowed by the launch, the vectors end with null. The library's own wrappers of setuid and
    // its kin are avoided because they would reach for the parent's other threads.
    unsafe {
        default_signals();
        order.step = Step::Session;
        if libc::syscall(libc::SYS_setsid) < 0 {
            return errno();
        }
        order.step = Step::Limits;
        for limit in order.launch.limits {
            let values = libc::rlimit64 {
                rlim_cur: limit.soft,
                rlim_max: limit.hard,
            };
            let none = ptr::null_mut::<libc::rlimit64>();
            if libc::syscall(
                libc::SYS_prlimit64,
                0,
                limit.resource as c_int,
                &raw const values,
                none,
            ) < 0
            {
                return errno();
            }
        }
        order.step = Step::Stdio;
        for (target, source) in (0..).zip(&order.launch.stdio) {
            if libc::dup2(source.as_raw_fd(), target) < 0 {
                return errno();
            }
        }
        order.step = Step::Terminal;
        if order.launch.terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
            return errno();
        }
        order.step = Step::Directory;
        if libc::fchdir(order.launch.directory.as_raw_fd()) < 0 {
            return errno();
        }
        order.step = Step::User;
        if let Some(user) = order.launch.user {
            let (groups, uid, gid) = (&user.groups, user.uid, user.gid);
            if libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) < 0
                || libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0
                || libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0
            {
                return errno();
            }
        }
        order.step = Step::Load;
        set_mask(0);
        libc::execve(
            order.launch.program.as_ptr(),
            order.arguments,
            order.environment,
        );
        errno()
    }
}

/// Gives every signal its default meaning: handlers must not run here, and what this process or its
/// parents ignore (Rust programs SIGPIPE, `nohup` SIGHUP) would be ignored by the program as well.
///
/// # Safety
/// Only in a child that does not share its table of handlers.
unsafe fn default_signals() {
    // SAFETY: all zeroes is a valid action: the default one, with an empty mask. Signals whose action
    // cannot be changed are refused without effect.
    unsafe {
        let default: libc::sigaction = MaybeUninit::zeroed().assume_init();
        for signal in 1..=64 {
            libc::sigaction(signal, &raw const default, ptr::null_mut());
        }
    }
}

fn errno() -> c_int {
    // SAFETY: the location is this thread's own.
    unsafe { *libc::__errno_location() }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::sync::atomic::AtomicBool;

    use rustix::process::Signal;

    use super::*;

    /// Runs a shell script with these settings and returns what it wrote.
    fn run(script: &CStr, limits: &[Limit], user: Option<&Identity>) -> Result<String, Step> {
        let null = File::open("/dev/null").unwrap();
        let (mut ours, theirs) = io::pipe().unwrap();
        let pid = launch(&Launch {
            program: c"/bin/sh",
            arguments: &[c"sh", c"-c", script],
            environment: &[c"PATH=/usr/bin:/bin"],
            directory: File::open("/").unwrap().as_fd(),
            stdio: [null.as_fd(), theirs.as_fd(), theirs.as_fd()],
            terminal: false,
            limits,
            user,
            making: &AtomicI32::new(0),
        })
        .map_err(|error| error.step)?;
        drop(theirs);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).unwrap();
        Ok(text)
    }

    #[test]
    fn limits_are_in_force_when_the_program_starts() {
        let limit = Limit {
            resource: Resource::Nofile,
            soft: 17,
            hard: 23,
        };
        assert_eq!(
            run(c"ulimit -Sn; ulimit -Hn", &[limit], None).unwrap(),
            "17\n23\n"
        );
    }

    #[test]
    fn a_step_that_fails_is_named_and_nothing_is_left() {
        let upside_down = Limit {
            resource: Resource::Nofile,
            soft: 2,
            hard: 1,
        };
        assert_eq!(run(c"true", &[upside_down], None), Err(Step::Limits));
        let null = File::open("/dev/null").unwrap();
        let failed = |program: &CStr, directory: &File, terminal| {
            launch(&Launch {
                program,
                arguments: &[c"x"],
                environment: &[],
                directory: directory.as_fd(),
                stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
                terminal,
                limits: &[],
                user: None,
                making: &AtomicI32::new(0),
            })
            .map_err(|error| (error.step, error.source.raw_os_error()))
        };
        let here = File::open("/").unwrap();
        let enoent = Some(libc::ENOENT);
        assert_eq!(failed(c"/none", &here, false), Err((Step::Load, enoent)));
        assert_eq!(
            failed(c"/bin/true", &null, false),
            Err((Step::Directory, Some(libc::ENOTDIR)))
        );
        assert_eq!(
            failed(c"/bin/true", &here, true),
            Err((Step::Terminal, Some(libc::ENOTTY)))
        );
    }

    #[test]
    fn signals_have_their_default_meaning_and_none_is_blocked() {
        // This program ignores SIGPIPE, as Rust programs do.
        let text = run(c"grep -E '^Sig(Blk|Ign)' /proc/self/status", &[], None).unwrap();
        let sets: Vec<u64> = text
            .lines()
            .map(|line| u64::from_str_radix(line.split_once('\t').unwrap().1, 16).unwrap())
            .collect();
        // Signals 32 and 33 are the C library's own, which it lets nobody change.
        let [blocked, ignored] = sets.try_into().unwrap();
        assert_eq!((blocked, ignored & !(0b11 << 31)), (0, 0), "{text}");
    }

    #[test]
    fn a_child_that_is_stopped_on_its_way_can_be_killed_by_its_number() {
        // Whether the signal comes before the program is loaded is luck, so it is tried until it does.
        let stopped = (0..10_000).any(|_| {
            let making = AtomicI32::new(0);
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let stopper = scope.spawn(|| stop_and_kill(&making, &over));
                let null = File::open("/dev/null").unwrap();
                let pid = launch(&Launch {
                    program: c"/bin/true",
                    arguments: &[c"true"],
                    environment: &[],
                    directory: File::open("/").unwrap().as_fd(),
                    stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
                    terminal: false,
                    limits: &[],
                    user: None,
                    making: &making,
                })
                .unwrap();
                over.store(true, Ordering::Release);
                let hit = stopper.join().unwrap();
                rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).unwrap();
                hit
            })
        });
        assert!(
            stopped,
            "no child was ever stopped before its program was loaded"
        );
    }

    /// Stops the child that is being made and kills it once it stands still while its maker still waits.
    /// Whether it came to that.
    fn stop_and_kill(making: &AtomicI32, over: &AtomicBool) -> bool {
        let child = loop {
            if over.load(Ordering::Acquire) {
                return false;
            }
            if let Some(child) = Pid::from_raw(making.load(Ordering::Acquire)) {
                break child;
            }
        };
        rustix::process::kill_process(child, Signal::STOP).unwrap();
        let stat = format!("/proc/{}/stat", child.as_raw_nonzero());
        let stands = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.starts_with(" T"))
        };
        while !stands() && !over.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let waits = making.load(Ordering::Acquire) != 0;
        // A program that was loaded meanwhile must not stay stopped either.
        rustix::process::kill_process(child, Signal::KILL).unwrap();
        waits
    }

    #[test]
    fn the_mask_of_the_caller_is_as_before() {
        let before = set_mask(0);
        set_mask(before);
        run(c"true", &[], None).unwrap();
        assert_eq!(set_mask(before), before);
    }

    #[test]
    fn a_user_is_taken_on_whole() {
        let user = Identity {
            uid: 12_345,
            gid: 23_456,
            groups: vec![34_567],
        };
        let ids = c"grep -E '^(Uid|Gid|Groups)' /proc/self/status";
        if rustix::process::geteuid().is_root() {
            let text = run(ids, &[], Some(&user)).unwrap();
            assert_eq!(
                text,
                "Uid:\t12345\t12345\t12345\t12345\nGid:\t23456\t23456\t23456\t23456\nGroups:\t34567 \n"
            );
        } else {
            assert_eq!(run(ids, &[], Some(&user)), Err(Step::User));
        }
    }
}
