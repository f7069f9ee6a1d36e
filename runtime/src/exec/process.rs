//! One command that was started: what it is, how it ended, and what can be done to it.

use std::ffi::CString;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent_sandbox_service::tasks::Tasks;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal};
use tokio::sync::watch;

use super::input::{InputError, Writer};
use super::journal::Journal;
use super::reaper::Children;
use super::table::KILL_TIME;
use super::terminal::{Terminal, TerminalSize};
use super::tree;

/// A command's number: 1, 2, 3 ... per server start, never reused, unrelated to system process ids.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProcessId(pub u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It ended, but something else in this program took its status.
    Unknown,
}

impl Exit {
    /// One number for both, as shells have it: a signal is 128 more than its number. An unknown end
    /// is -1, which no program can exit with.
    pub fn shell_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
            Self::Unknown => -1,
        }
    }

    /// The signal that killed it.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Signal(signal) => Some(signal),
            Self::Code(_) | Self::Unknown => None,
        }
    }
}

/// Why a command was ended from outside.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Its time was up.
    TimedOut,
    /// Nobody waited for it any more, or somebody asked for it.
    Cancelled,
}

/// A command that was started. Dropping the handle leaves it running.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    leader: Pid,
    mark: tree::Mark,
    arguments: Vec<CString>,
    began: SystemTime,
    journal: Arc<Journal>,
    exit: watch::Receiver<Option<Ended>>,
    cause: Mutex<Option<Cause>>,
    input: Writer,
    terminal: Option<Arc<Terminal>>,
    children: Arc<Children>,
}

/// The end of a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// When that was noticed.
    pub at: SystemTime,
}

/// What a [`Process`] is made of.
pub(super) struct Parts {
    pub(super) id: ProcessId,
    pub(super) leader: Pid,
    pub(super) mark: tree::Mark,
    pub(super) arguments: Vec<CString>,
    pub(super) journal: Arc<Journal>,
    pub(super) exit: watch::Receiver<Option<Ended>>,
    pub(super) input: Writer,
    pub(super) terminal: Option<Arc<Terminal>>,
    pub(super) children: Arc<Children>,
}

impl Process {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            id,
            leader,
            mark,
            arguments,
            journal,
            exit,
            input,
            terminal,
            children,
        } = parts;
        Self {
            id,
            leader,
            mark,
            arguments,
            began: SystemTime::now(),
            journal,
            exit,
            cause: Mutex::new(None),
            input,
            terminal,
            children,
        }
    }

    /// The command's number.
    pub fn id(&self) -> ProcessId {
        self.id
    }

    /// The system's process id of the leader. It may name another process once the command exited.
    pub fn leader(&self) -> Pid {
        self.leader
    }

    /// The argument list, program first.
    pub fn arguments(&self) -> &[CString] {
        &self.arguments
    }

    /// When it was started.
    pub fn began(&self) -> SystemTime {
        self.began
    }

    /// Whether it has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// The command's output.
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The end, if it happened.
    pub fn ended(&self) -> Option<Ended> {
        *self.exit.borrow()
    }

    /// The exit, if it happened.
    pub fn exit(&self) -> Option<Exit> {
        self.ended().map(|ended| ended.exit)
    }

    /// Why it was ended from outside, if it was.
    pub fn cause(&self) -> Option<Cause> {
        *self.cause.lock()
    }

    /// Waits for the exit of the leader. Output may still be on its way to the journal.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(ended) => ended.map_or(Exit::Unknown, |ended| ended.exit),
            // The driver was aborted by a shutdown before the exit.
            Err(_) => Exit::Unknown,
        }
    }

    /// Writes all of `bytes` to its standard input, waiting while the command does not read. A call
    /// that is cancelled may have written a part.
    ///
    /// # Errors
    /// See [`InputError`].
    pub async fn write(&self, bytes: &[u8]) -> Result<(), InputError> {
        tokio::select! {
            biased;
            written = self.input.write(bytes) => written,
            // Somebody in the background may hold the other side open and never read it.
            _ = self.exited() => Err(InputError::Unread),
        }
    }

    /// Ends its standard input. At a terminal this is the key for the end of input, and more may follow.
    ///
    /// # Errors
    /// See [`InputError`].
    pub async fn finish_input(&self) -> Result<(), InputError> {
        tokio::select! {
            biased;
            finished = self.input.finish() => finished,
            _ = self.exited() => Err(InputError::Unread),
        }
    }

    /// Changes the size of its terminal; `false` when it has none or has ended.
    ///
    /// # Errors
    /// What the system said.
    pub fn resize(&self, size: TerminalSize) -> io::Result<bool> {
        match &self.terminal {
            Some(terminal) => terminal.resize(size),
            None => Ok(false),
        }
    }

    /// Lets go of what only a running command needs.
    pub(super) async fn release(&self) {
        self.input.close().await;
        if let Some(terminal) = &self.terminal {
            terminal.close();
        }
    }

    /// Signals the command's process group; `false` when the leader has exited.
    pub(super) fn signal_group(&self, signal: Signal) -> bool {
        self.children.signal_group(self.leader, signal)
    }

    /// Sends a signal to every process of the command, once each, those in sessions of their own
    /// included. `false`, and nothing is done, when the command has exited: what it left in the
    /// background is no longer its business.
    pub async fn signal(&self, signal: Signal) -> bool {
        if self.exit().is_some() {
            return false;
        }
        let (mark, children, leader) = (self.mark.clone(), self.children.clone(), self.leader);
        let work = tokio::task::spawn_blocking(move || {
            let mut hunt = tree::Hunt::new(mark).led_by(leader);
            if !children.holds(leader) {
                return false;
            }
            match hunt.strike(signal) {
                Some(_) => true,
                None => children.signal_group(leader, signal),
            }
        });
        work.await.unwrap_or_else(|error| {
            tracing::error!(%error, "signalling a process tree failed");
            false
        })
    }

    /// Kills the command and every descendant of it for this reason, unless it has exited by itself.
    /// Returns when no live one is left or a few seconds have passed.
    pub async fn end(&self, cause: Cause) {
        if self.exit().is_some() {
            return;
        }
        self.cause.lock().get_or_insert(cause);
        self.end_tree(KILL_TIME).await;
    }

    /// Kills the command and every descendant of it, those in sessions of their own included and those
    /// it left behind at its exit, and returns when no live one is left or `within` has passed.
    pub async fn end_tree(&self, within: Duration) {
        // Who left the group is found through the parents that are still in it, so look before the
        // kill; the group call then reaches what was forked meanwhile.
        let mark = self.mark.clone();
        let children = self.children.clone();
        let leader = self.leader;
        let work = tokio::task::spawn_blocking(move || {
            let mut hunt = tree::Hunt::new(mark.clone()).led_by(leader);
            if !children.holds(leader) {
                hunt = tree::Hunt::new(mark);
            }
            hunt.strike(Signal::KILL);
            children.signal_group(leader, Signal::KILL);
            hunt.finish(within);
        });
        if let Err(error) = work.await {
            tracing::error!(%error, "ending a process tree failed");
        }
    }
}

/// Ends a command when its caller goes away before it has exited.
#[derive(Debug)]
pub struct Leash {
    process: Arc<Process>,
    released: bool,
    tasks: Tasks,
}

impl Leash {
    pub(super) fn new(process: Arc<Process>, tasks: Tasks) -> Self {
        Self {
            process,
            released: false,
            tasks,
        }
    }

    /// The command.
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// Lets the command go.
    pub fn release(mut self) -> Arc<Process> {
        self.released = true;
        self.process.clone()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        if self.released || self.process.exit().is_some() {
            return;
        }
        let process = self.process.clone();
        self.tasks.spawn("end a cancelled command", async move {
            process.end(Cause::Cancelled).await;
        });
    }
}
