//! Being the init of a container: start the main program, reap whatever ends, pass signals on,
//! end with the program or with the node.
//!
//! Inside a pid namespace ending is enough, because the kernel then kills everything in it. Without
//! one this process is a subreaper, so every orphan of the container becomes its child, and it
//! kills children until none is left.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::message::{Command, FailureKind, Main, Process, Report};
use super::sys::Forked;
use super::{Control, Failure, Step, restrict, sys};

/// How far the container's processes reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// A pid namespace of which this process is PID 1.
    PidNamespace,
    /// Whatever descends from this process.
    Descendants,
}

/// Runs the main program to its end and returns the container's exit status: the program's own, or
/// 128 plus the number of the signal that killed it.
pub(super) fn run(
    main: Main,
    process: &Process,
    control: &mut Control,
    scope: Scope,
) -> Result<u8, Failure> {
    let signals = sys::child_signal_fd().step(|| "open a signal descriptor".into())?;
    let program = match main {
        Main::Pause => None,
        Main::Probe => {
            control
                .send(&Report::Started)
                .step(|| "report success".into())?;
            return Ok(0);
        }
        Main::Supervised | Main::PidOne => match start(process)? {
            Start::Running(pid) => Some(pid),
            Start::NotExecuted => return Ok(NOT_EXECUTED),
            Start::Failed(message) => {
                let kind = FailureKind::Exec;
                control
                    .send(&Report::Failed { kind, message })
                    .step(|| "report the failure".into())?;
                return Ok(super::SETUP_FAILED);
            }
        },
    };
    control
        .send(&Report::Started)
        .step(|| "report the start".into())?;
    let code = watch(program, &signals, control).step(|| "supervise the container".into())?;
    if scope == Scope::Descendants {
        kill_descendants().step(|| "end what the program left behind".into())?;
    }
    Ok(code)
}

/// Exit status of a child that could not become the program.
const NOT_EXECUTED: u8 = 127;

enum Start {
    Running(Pid),
    Failed(String),
    /// This is the child, and it could not execute the program.
    NotExecuted,
}

/// Forks and executes the program. The pipe is close-on-exec: its end without a byte means that the
/// program runs.
fn start(process: &Process) -> Result<Start, Failure> {
    let (outcome, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .step(|| "create a pipe".into())?;
    match sys::fork().step(|| "fork the program".into())? {
        Forked::Parent(pid) => {
            drop(report);
            let mut message = String::new();
            File::from(outcome)
                .read_to_string(&mut message)
                .step(|| "learn whether the program runs".into())?;
            if message.is_empty() {
                return Ok(Start::Running(pid));
            }
            Ok(Start::Failed(message))
        }
        Forked::Child => {
            // The program must not outlive its supervisor even where no pid namespace sees to it.
            let failure = prepare_child()
                .err()
                .unwrap_or_else(|| restrict::execute(process));
            // Nobody is left to hear of a broken pipe; the exit status says the rest.
            File::from(report)
                .write_all(failure.to_string().as_bytes())
                .ok();
            Ok(Start::NotExecuted)
        }
    }
}

fn prepare_child() -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .step(|| "ask to end with the supervisor".into())?;
    rustix::process::setsid().step(|| "start a session".into())?;
    sys::unblock_signals().step(|| "unblock signals".into())
}

/// Waits for children, commands and the end of the node, until the main program has ended.
fn watch(program: Option<Pid>, signals: &OwnedFd, control: &mut Control) -> io::Result<u8> {
    loop {
        let mut set = [
            PollFd::new(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(control.as_fd(), PollFlags::IN),
        ];
        match poll(&mut set, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [child, command] = set.map(|fd| !fd.revents().is_empty());
        if child {
            drain(signals)?;
            if let Some(code) = reap(program)? {
                return Ok(code);
            }
        }
        if command {
            match control.receive()? {
                Some(Command::Signal(number)) => match program {
                    Some(pid) => send(pid, number),
                    None => return Ok(128_u8.saturating_add(number.try_into().unwrap_or(0))),
                },
                // Either the node wants the container gone or the node itself is gone.
                Some(Command::Kill) | None => return Ok(128 + 9),
            }
        }
    }
}

fn send(pid: Pid, number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        // A program that has just ended is noticed by the next SIGCHLD.
        rustix::process::kill_process(pid, signal).ok();
    }
}

fn drain(signals: &OwnedFd) -> io::Result<()> {
    let mut buffer = [0_u8; 1024];
    loop {
        match rustix::io::read(signals.as_fd(), &mut buffer) {
            Ok(0) | Err(Errno::AGAIN) => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps every ended child; the exit status if the main program is among them.
fn reap(program: Option<Pid>) -> io::Result<Option<u8>> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == program => code = Some(exit_code(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(code),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The exit status a shell would show.
pub(super) fn exit_code(status: WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 128,
    };
    u8::try_from(code & 0xff).unwrap_or(u8::MAX)
}

/// Kills every child, including those that are re-parented to this subreaper as their parents die,
/// until there is none.
fn kill_descendants() -> io::Result<()> {
    loop {
        for child in children()? {
            rustix::process::kill_process(child, Signal::KILL).ok();
        }
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The children of this process, from the parent field of every process.
fn children() -> io::Result<Vec<Pid>> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let parent = crate::process::proc_stat::read(pid).map(|stat| stat.parent);
        if parent.is_ok_and(|parent| parent == own) {
            found.extend(Pid::from_raw(pid));
        }
    }
    Ok(found)
}
