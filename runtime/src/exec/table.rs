//! The table of running commands: starting, finding, ending them.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::command::{Command, Environment};
use super::journal::{Follow, Journal};
use super::lookup;
use super::process::{Driver, Process, ProcessId};
use super::reaper::Children;
use super::tree::{Hunt, Mark};
use crate::sys::spawn::Launch;

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every command's environment starts from.
    pub environment: Environment,
    /// How many commands may run at once.
    pub max_processes: usize,
    /// The soft limit of open files a command gets, if not that of this process.
    pub open_files: Option<u64>,
    /// How many bytes of output the journal of one command keeps.
    pub journal_bytes: usize,
}

/// Why a command was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The argument list is empty.
    #[error("the command is empty")]
    Empty,
    /// As many commands as allowed are running. A later try may succeed.
    #[error("{limit} commands are running, which is the limit")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Closing,
    /// The system refused: no such program, no permission, no resources.
    #[error("cannot start {program:?}")]
    System {
        /// The program as it was asked for.
        program: CString,
        /// What the system said.
        source: io::Error,
    },
}

/// All commands of one server. Clones share the table; when the last is dropped, commands are no
/// longer driven, so call [`Self::shutdown`] before.
#[derive(Clone, Debug)]
pub struct Processes {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    /// Tells this server's commands from those of others on the same machine.
    server: u64,
    next: AtomicU64,
    closing: AtomicBool,
    null: OwnedFd,
    children: Arc<Children>,
    running: Arc<Mutex<BTreeMap<ProcessId, Arc<Process>>>>,
    tasks: Tasks,
}

/// How long killed processes may take to go.
pub(super) const KILL_TIME: Duration = Duration::from_secs(5);

impl Processes {
    /// An empty table.
    ///
    /// # Errors
    /// When `/dev/null`, which commands read, cannot be opened.
    pub fn new(mut settings: Settings) -> io::Result<Self> {
        // A runtime inside a sandbox of another runtime must not hand on the outer mark.
        let server = fastrand::u64(..);
        let (mark, _) = Mark::server(server).variable();
        settings.environment = settings.environment.without(mark);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                server,
                next: AtomicU64::new(1),
                closing: AtomicBool::new(false),
                null: rustix::fs::open("/dev/null", flags, Mode::empty())?,
                children: Arc::default(),
                running: Arc::default(),
                tasks: Tasks::new("commands"),
            }),
        })
    }

    /// Starts a command in a session of its own, with an empty standard input. It runs until it exits
    /// or is ended, whatever becomes of the handle.
    ///
    /// # Errors
    /// See [`SpawnError`]. Nothing is left running then.
    pub fn spawn(&self, command: &Command) -> Result<Arc<Process>, SpawnError> {
        self.start(command, |_| ()).map(|(process, ())| process)
    }

    /// Like [`Self::spawn`], with a follower that holds the command back while it is not read.
    ///
    /// # Errors
    /// See [`SpawnError`]. Nothing is left running then.
    pub fn spawn_held(&self, command: &Command) -> Result<(Arc<Process>, Follow), SpawnError> {
        self.start(command, Journal::follow_holding)
    }

    /// The running command with this number.
    pub fn get(&self, id: ProcessId) -> Option<Arc<Process>> {
        self.inner.running.lock().get(&id).cloned()
    }

    /// The running commands, oldest first.
    pub fn list(&self) -> Vec<Arc<Process>> {
        self.inner.running.lock().values().cloned().collect()
    }

    /// How many commands run.
    pub fn len(&self) -> usize {
        self.inner.running.lock().len()
    }

    /// Whether no command runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether [`Self::shutdown`] has begun.
    pub fn is_closing(&self) -> bool {
        self.inner.closing.load(Ordering::Acquire)
    }

    /// Takes the exit status of orphans that ended up with this process, which happens when it is
    /// process 1 or a subreaper. Exits of commands are never taken.
    pub fn reap_orphans(&self) -> usize {
        self.inner.children.reap_orphans()
    }

    /// Ends everything: no new commands, SIGTERM to every command, after `patience` SIGKILL to what
    /// is left of their trees, background children included.
    pub async fn shutdown(&self, patience: Duration) {
        self.inner.closing.store(true, Ordering::Release);
        let running = self.list();
        for process in &running {
            process.signal(Signal::TERM);
        }
        let exits = async {
            for process in &running {
                process.exited().await;
            }
        };
        if tokio::time::timeout(patience, exits).await.is_err() {
            tracing::info!("killing commands that ignored SIGTERM");
        }
        let mark = Mark::server(self.inner.server);
        for process in &running {
            process.signal(Signal::KILL);
        }
        let hunt = tokio::task::spawn_blocking(|| Hunt::new(mark, None).finish(KILL_TIME));
        if let Err(error) = hunt.await {
            tracing::error!(%error, "ending the remaining processes failed");
        }
        self.inner.tasks.shutdown(KILL_TIME).await;
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.inner.tasks
    }

    fn start<T>(
        &self,
        command: &Command,
        attach: impl FnOnce(&Arc<Journal>) -> T,
    ) -> Result<(Arc<Process>, T), SpawnError> {
        let inner = &self.inner;
        let program = command.arguments().next().ok_or(SpawnError::Empty)?;
        let failed = |source: io::Error| SpawnError::System {
            program: program.to_owned(),
            source,
        };
        // Held until the new command is in: the limit is exact, and a shutdown misses nothing.
        let mut running = inner.running.lock();
        if inner.closing.load(Ordering::Acquire) {
            return Err(SpawnError::Closing);
        }
        let limit = inner.settings.max_processes;
        if running.len() >= limit {
            return Err(SpawnError::Busy { limit });
        }
        let id = ProcessId(inner.next.fetch_add(1, Ordering::Relaxed));
        let mark = Mark::command(inner.server, id.0);
        let (stdout, stdout_end) = output().map_err(failed)?;
        let (stderr, stderr_end) = output().map_err(failed)?;
        let leader = inner
            .launch(command, program, &mark, &stdout_end, &stderr_end)
            .map_err(failed)?;
        drop((stdout_end, stderr_end));
        if let Some(limit) = inner.settings.open_files {
            limit_open_files(leader, limit);
        }
        let journal = Arc::new(Journal::new(inner.settings.journal_bytes));
        let (exit, exits) = watch::channel(None);
        let attached = attach(&journal);
        let process = Arc::new(Process::new(
            id,
            leader,
            mark,
            journal.clone(),
            exits,
            inner.children.clone(),
        ));
        running.insert(id, process.clone());
        let driver = Driver {
            leader,
            children: inner.children.clone(),
            journal,
            stdout,
            stderr,
            exit,
        };
        let table = inner.running.clone();
        inner.tasks.spawn("command", async move {
            driver.run(|| drop(table.lock().remove(&id))).await;
        });
        Ok((process, attached))
    }
}

impl Inner {
    fn launch(
        &self,
        command: &Command,
        program: &CStr,
        mark: &Mark,
        stdout: &OwnedFd,
        stderr: &OwnedFd,
    ) -> io::Result<Pid> {
        let overlaid;
        let environment = if command.variables().is_empty() {
            &self.settings.environment
        } else {
            overlaid = self.settings.environment.with(command.variables());
            &overlaid
        };
        let path = environment.value("PATH");
        let file = lookup::find(program, path, command.directory())?;
        let (name, value) = mark.variable();
        let mark = CString::new(format!("{name}={value}"))?;
        let arguments: Vec<&CStr> = command.arguments().collect();
        let assignments: Vec<&CStr> = environment.assignments().chain([mark.as_c_str()]).collect();
        self.children.spawn(&Launch {
            program: &file,
            arguments: &arguments,
            environment: &assignments,
            directory: command.directory().as_fd(),
            stdio: [self.null.as_fd(), stdout.as_fd(), stderr.as_fd()],
        })
    }
}

/// A moment after the start, because the call that starts a program cannot; programs that care look
/// later than that.
fn limit_open_files(leader: Pid, limit: u64) {
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limits = Rlimit {
        current: Some(limit),
        maximum: hard,
    };
    if let Err(error) = rustix::process::prlimit(Some(leader), Resource::Nofile, limits) {
        tracing::debug!(%error, "a command keeps this program's limit of open files");
    }
}

/// A pipe: our end, the command's end.
fn output() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(ours)?, theirs))
}

impl SpawnError {
    /// The system's error number, if the system refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::System { source, .. } => Errno::from_io_error(source),
            _ => None,
        }
    }
}
