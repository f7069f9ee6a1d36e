//! The init helper: a second life of the host binary, one per container.
//!
//! ```text
//! node (many threads) --posix_spawn--> stage 0 (one thread): user and pid namespaces
//!                                        `- child of the node: mounts, new root, ids, limits
//!                                             `- the program (or, for `PidOne`, the same process)
//! ```
//!
//! Everything that must happen between a fork and an exec happens here, in a small process of one
//! thread, so the node itself never forks and never runs code in a copy of its address space.
//! The helper ends with the node: the first process of a container dies by the parent-death signal
//! and by the end of the control socket, and its pid namespace takes every descendant with it.
//!
//! This module must never be entered from a process that has started a thread.

mod enter;
mod launch;
pub(crate) mod message;
mod restrict;
mod rootfs;
mod supervise;
mod sys;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use self::message::{FailureKind, Report, Request};

/// The hidden first argument with which a host program re-executes itself as init helper.
pub const ARGUMENT: &str = "node-init";

/// Exit status when the helper itself failed; the reason went over the control socket.
const SETUP_FAILED: u8 = 128;

/// Whether the arguments (without the program's name) ask for the init helper. A host asks this
/// first thing in `main`, before it starts a runtime or any other thread.
pub fn requested(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.next().is_some_and(|first| first == ARGUMENT)
}

/// Runs the init helper. Arguments are ignored: they only label the process in `ps`.
///
/// Standard input is the control socket; standard output and error are the container's.
pub fn main() -> ExitCode {
    ExitCode::from(run())
}

/// The helper's work; returns its exit status.
pub(crate) fn run() -> u8 {
    let mut control = match Control::from_stdin() {
        Ok(control) => control,
        Err(error) => return complain(&error),
    };
    let outcome = match control.receive() {
        Ok(Some(Request::Launch(launch))) => launch::run(&launch, &mut control),
        Ok(Some(Request::Enter(enter))) => enter::run(&enter, &mut control),
        Ok(None) => return SETUP_FAILED,
        Err(error) => return complain(&error),
    };
    outcome.unwrap_or_else(|failure| {
        let report = Report::Failed {
            kind: failure.kind,
            message: failure.to_string(),
        };
        match control.send(&report) {
            Ok(()) => SETUP_FAILED,
            Err(error) => complain(&error),
        }
    })
}

/// Last resort when even the control socket does not work: the container's standard error.
#[expect(
    clippy::print_stderr,
    reason = "there is no other channel left, and the log of the container is the right place"
)]
fn complain(error: &io::Error) -> u8 {
    eprintln!("init helper: {error}");
    SETUP_FAILED
}

/// Why a container could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub(crate) struct Failure {
    kind: FailureKind,
    step: String,
    source: io::Error,
}

impl Failure {
    fn exec(step: impl Into<String>, source: io::Error) -> Self {
        Self {
            kind: FailureKind::Exec,
            step: step.into(),
            source,
        }
    }
}

/// Adds to an error what was being done.
trait Step<T> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure {
            kind: FailureKind::Setup,
            step: step(),
            source: error.into(),
        })
    }
}

/// The helper's end of the control socket.
#[derive(Debug)]
struct Control {
    socket: UnixStream,
}

impl Control {
    /// Takes the socket from standard input, puts `/dev/null` there instead, and makes sure that
    /// no descriptor survives an exec.
    fn from_stdin() -> io::Result<Self> {
        sys::ensure_single_threaded()?;
        let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        sys::close_on_exec_from(3)?;
        rustix::process::umask(Mode::empty());
        Ok(Self {
            socket: UnixStream::from(socket),
        })
    }

    fn send(&mut self, report: &Report) -> io::Result<()> {
        message::write_frame(&mut self.socket, report)
    }

    fn receive<T: serde::de::DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        message::read_frame(&mut self.socket)
    }

    /// Whether the node has closed its end, which means that it is gone.
    fn is_cut(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut set = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut set, Some(&now))?;
        Ok(set.iter().any(|fd| {
            fd.revents()
                .intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
        }))
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks the kernel to kill this process when the one that started it ends. The node starts helpers
/// from one thread that lives as long as the node, because the kernel means the parent *thread*.
/// The setting is lost when credentials change, so it is asked for after the last such change; the
/// control socket covers a node that ended in between.
fn die_with_parent(control: &Control) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .step(|| "ask to end with the node".into())?;
    if control.is_cut().step(|| "look for the node".into())? {
        return Err(Failure {
            kind: FailureKind::Setup,
            step: "look for the node".into(),
            source: io::Error::other("it ended while the container was being started"),
        });
    }
    Ok(())
}
