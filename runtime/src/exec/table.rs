//! The table of commands: starting, finding, ending them.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Resource, Signal};
use tokio::sync::{Semaphore, watch};

use super::budget::Budget;
use super::command::Command;
use super::driver::Driver;
use super::environment::Environment;
use super::journal::{Follow, Journal};
use super::leftovers::Leftovers;
use super::limits::ResourceLimits;
use super::lookup;
use super::process::{Leash, Parts, Process, ProcessId};
use super::reaper::Children;
use super::start::{Started, Undriven, Watch};
use super::streams::Streams;
use super::tree::{Hunt, Mark};
use crate::sys::spawn::{Launch, Limit, Step};

/// How the engine is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What every command's environment starts from.
    pub environment: Environment,
    /// How many commands may run at once.
    pub max_processes: usize,
    /// How many commands that have ended stay in the table, of those that asked for it.
    pub kept: usize,
    /// Of how many commands that have ended the outputs of their children in the background are taken and
    /// thrown away; those of others are closed. Never more than a quarter of the descriptors this process
    /// may have is used for them.
    pub leftovers: usize,
    /// The soft limit of open files a command gets, if not that of this process.
    pub open_files: Option<u64>,
    /// What each command may use; a command may ask for less.
    pub limits: ResourceLimits,
    /// How many bytes of output the journal of one command keeps.
    pub journal_bytes: usize,
    /// How many bytes of output all commands together may have collected for their callers, beyond a
    /// small share that each has of its own.
    pub collected_bytes: usize,
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
    /// The program cannot be loaded: there is none, or it may not be executed.
    #[error("cannot start {program:?}")]
    Program {
        /// The program as it was asked for.
        program: CString,
        /// What the system said.
        source: io::Error,
    },
    /// What a program needs to start cannot be had.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
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
    /// Whether this process starts nothing but commands.
    alone: AtomicBool,
    null: OwnedFd,
    children: Arc<Children>,
    table: Arc<Mutex<Table>>,
    collected: Budget,
    /// Starts in threads at once: more than there are processors only wait for each other.
    starts: Arc<Semaphore>,
    leftovers: Leftovers,
    /// The hard limit of open files of this process.
    open_files: u64,
    tasks: Tasks,
}

/// What is known of commands, by number.
#[derive(Debug, Default)]
pub(super) struct Table {
    processes: BTreeMap<ProcessId, Arc<Process>>,
    /// Those of `processes` that have ended, in the order they did.
    ended: VecDeque<ProcessId>,
    /// How many are about to start.
    starting: usize,
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
        let open_files = rustix::process::getrlimit(Resource::Nofile)
            .maximum
            .unwrap_or(u64::MAX);
        Ok(Self {
            inner: Arc::new(Inner {
                server,
                next: AtomicU64::new(1),
                closing: AtomicBool::new(false),
                alone: AtomicBool::new(false),
                null: rustix::fs::open("/dev/null", flags, Mode::empty())?,
                children: Arc::default(),
                table: Arc::default(),
                collected: Budget::new(settings.collected_bytes),
                starts: Arc::new(Semaphore::new(
                    std::thread::available_parallelism().map_or(2, |count| count.get() * 2),
                )),
                leftovers: Leftovers::new(settings.leftovers, open_files),
                open_files,
                tasks: Tasks::new("commands"),
                settings,
            }),
        })
    }

    /// Starts a command in a session of its own. It runs until it exits or is ended, whatever becomes
    /// of the handle.
    ///
    /// # Errors
    /// See [`SpawnError`]. Nothing is left running then, nor when the call is cancelled.
    pub async fn spawn(&self, command: Command) -> Result<Arc<Process>, SpawnError> {
        let (leash, ()) = self.start(command, |_| ()).await?;
        Ok(leash.release())
    }

    /// Starts a command that is ended when the leash is dropped before its exit, and with a follower that
    /// holds it back while it is not read.
    ///
    /// # Errors
    /// See [`SpawnError`]. Nothing is left running then, nor when the call is cancelled.
    pub async fn spawn_held(&self, command: Command) -> Result<(Leash, Follow), SpawnError> {
        self.start(command, Journal::follow_holding).await
    }

    /// A command that runs, or was kept after its end.
    pub fn get(&self, id: ProcessId) -> Option<Arc<Process>> {
        self.inner.table.lock().processes.get(&id).cloned()
    }

    /// Every command that runs or was kept, in the order they were started.
    pub fn list(&self) -> Vec<Arc<Process>> {
        self.inner
            .table
            .lock()
            .processes
            .values()
            .cloned()
            .collect()
    }

    /// How many commands run.
    pub fn running(&self) -> usize {
        self.inner.table.lock().running()
    }

    /// Ends a command with everything it started and left behind, and forgets it. `false` when there is
    /// none of that number.
    pub async fn forget(&self, id: ProcessId) -> bool {
        let Some(process) = self.get(id) else {
            return false;
        };
        process.end(super::Cause::Cancelled).await;
        process.end_tree(KILL_TIME).await;
        self.inner.table.lock().remove(id);
        true
    }

    /// Whether [`Self::shutdown`] was called.
    pub fn is_closing(&self) -> bool {
        self.inner.closing.load(Ordering::Acquire)
    }

    /// Says that every child of this process is a command's, also orphans that became its own: a
    /// shutdown then ends them all, whatever they did to be forgotten.
    pub fn own_all_children(&self) {
        self.inner.alone.store(true, Ordering::Release);
    }

    /// Takes the exit status of every exited child that is no command: orphans that became this
    /// process's because it is process 1 or a subreaper. Exits of commands are never taken.
    pub fn reap_orphans(&self) -> usize {
        self.inner.children.reap_orphans()
    }

    /// Ends everything: no new commands, SIGTERM to every command, after `patience` SIGKILL to what
    /// is left of their trees, background children included.
    pub async fn shutdown(&self, patience: Duration) {
        let running: Vec<Arc<Process>> = {
            // A command that is starting is either among these or sees that it comes too late.
            let table = self.inner.table.lock();
            self.inner.closing.store(true, Ordering::Release);
            table.processes.values().cloned().collect()
        };
        for process in &running {
            process.signal_group(Signal::TERM);
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
            process.signal_group(Signal::KILL);
        }
        let alone = self.inner.alone.load(Ordering::Acquire);
        let hunt = tokio::task::spawn_blocking(move || {
            let mut hunt = if alone {
                Hunt::of_all_children(mark)
            } else {
                Hunt::new(mark)
            };
            hunt.finish(KILL_TIME);
        });
        if let Err(error) = hunt.await {
            tracing::error!(%error, "ending the remaining processes failed");
        }
        self.inner.tasks.shutdown(KILL_TIME).await;
    }

    /// What collected output is taken from.
    pub(super) fn collected(&self) -> &Budget {
        &self.inner.collected
    }

    /// Starts a command in a thread: loading a program takes as long as it takes, and other requests must
    /// not. One that takes too long, because somebody stopped it or a disk does not answer, is given up.
    async fn start<T: Send + 'static>(
        &self,
        command: Command,
        attach: impl FnOnce(&Arc<Journal>) -> T + Send + 'static,
    ) -> Result<(Leash, T), SpawnError> {
        // What can never be run is told as such, also when there is no place.
        if command.arguments().next().is_none() {
            return Err(SpawnError::Empty);
        }
        let place = self.reserve()?;
        let permit = self.inner.starts.clone().acquire_owned().await;
        let (watch, under_way) = Watch::new(self.inner.tasks.clone());
        let this = self.clone();
        let started = tokio::task::spawn_blocking(move || {
            let started = this.start_now(place, &command, &under_way.making, attach);
            drop((under_way, permit));
            started
        });
        match watch.over(started).await {
            // Driven from here and not from the thread, which would have to wake the event loop for it.
            Ok(started) => started.map(Started::drive),
            Err(error) => Err(SpawnError::System {
                what: "start the command",
                source: io::Error::other(error),
            }),
        }
    }

    /// Takes a place under the limit for a command that is about to start.
    fn reserve(&self) -> Result<Place, SpawnError> {
        let inner = &self.inner;
        let mut table = inner.table.lock();
        if inner.closing.load(Ordering::Acquire) {
            return Err(SpawnError::Closing);
        }
        let limit = inner.settings.max_processes;
        if table.running() + table.starting >= limit {
            return Err(SpawnError::Busy { limit });
        }
        table.starting += 1;
        Ok(Place {
            table: inner.table.clone(),
            filled: false,
        })
    }

    fn start_now<T>(
        &self,
        place: Place,
        command: &Command,
        making: &AtomicI32,
        attach: impl FnOnce(&Arc<Journal>) -> T,
    ) -> Result<Started<T>, SpawnError> {
        let inner = &self.inner;
        let program = command.arguments().next().ok_or(SpawnError::Empty)?;
        let streams = Streams::open(command.reads(), &inner.null)
            .map_err(SpawnError::system("open the command's pipes"))?;
        let id = ProcessId(inner.next.fetch_add(1, Ordering::Relaxed));
        let mark = Mark::command(inner.server, id.0);
        let leader = inner.launch(command, program, &mark, &streams, making)?;
        let (input, terminal, output) = streams.keep();
        let journal = Arc::new(Journal::new(inner.settings.journal_bytes));
        let (exit, exits) = watch::channel(None);
        let attached = attach(&journal);
        let process = Arc::new(Process::new(Parts {
            id,
            leader,
            mark,
            arguments: command.arguments().map(CStr::to_owned).collect(),
            journal,
            exit: exits,
            input,
            terminal,
            children: inner.children.clone(),
        }));
        let in_time = place.fill(&process, &inner.closing);
        let driver = Driver {
            process: process.clone(),
            children: inner.children.clone(),
            output,
            exit,
            timeout: command.time_limit(),
            leftovers: inner.leftovers.clone(),
        };
        let started = Started {
            leash: Leash::new(process, inner.tasks.clone()),
            attached,
            driver: Undriven {
                driver: Some(driver),
                table: inner.table.clone(),
                kept: if command.is_kept() {
                    inner.settings.kept
                } else {
                    0
                },
                tasks: inner.tasks.clone(),
            },
        };
        if !in_time {
            // The leash ends what the signal does not reach.
            started.leash.process().signal_group(Signal::KILL);
            return Err(SpawnError::Closing);
        }
        Ok(started)
    }
}

/// A place under the limit of commands; given back unless it is filled.
struct Place {
    table: Arc<Mutex<Table>>,
    filled: bool,
}

impl Place {
    /// Puts the command in its place; `false` when a shutdown has begun, which will not see it.
    fn fill(mut self, process: &Arc<Process>, closing: &AtomicBool) -> bool {
        let mut table = self.table.lock();
        table.starting -= 1;
        table.processes.insert(process.id(), process.clone());
        let in_time = !closing.load(Ordering::Acquire);
        drop(table);
        self.filled = true;
        in_time
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.filled {
            self.table.lock().starting -= 1;
        }
    }
}

impl Inner {
    fn launch(
        &self,
        command: &Command,
        program: &CStr,
        mark: &Mark,
        streams: &Streams<'_>,
        making: &AtomicI32,
    ) -> Result<Pid, SpawnError> {
        let refused = |source: io::Error| SpawnError::Program {
            program: program.to_owned(),
            source,
        };
        let overlaid;
        let mut variables = command.variables();
        if streams.are_terminal() && self.settings.environment.value("TERM").is_none() {
            // Without it programs take the terminal for a typewriter.
            variables.insert(0, ("TERM".into(), "xterm".into()));
        }
        let environment = if variables.is_empty() {
            &self.settings.environment
        } else {
            overlaid = self.settings.environment.with(&variables);
            &overlaid
        };
        let path = environment.value("PATH");
        let file = lookup::find(program, path, command.directory())
            .map_err(|error| refused(error.into()))?;
        let (name, value) = mark.variable();
        let mark = CString::new(format!("{name}={value}"))
            .map_err(|error| refused(io::Error::other(error)))?;
        let arguments: Vec<&CStr> = command.arguments().collect();
        let assignments: Vec<&CStr> = environment.assignments().chain([mark.as_c_str()]).collect();
        self.children
            .spawn(&Launch {
                program: &file,
                arguments: &arguments,
                environment: &assignments,
                directory: command.directory().as_fd(),
                stdio: streams.ends(),
                terminal: streams.are_terminal(),
                limits: &self.limits(command),
                user: command.runs_as().map(super::user::User::identity),
                making,
            })
            .map_err(|error| match error.step {
                Step::Load => refused(error.source),
                step => SpawnError::System {
                    what: describe(step),
                    source: error.source,
                },
            })
    }

    fn limits(&self, command: &Command) -> Vec<Limit> {
        let mut limits = Vec::new();
        if let Some(soft) = self.settings.open_files {
            limits.push(Limit {
                resource: Resource::Nofile,
                soft,
                hard: self.open_files,
            });
        }
        let strictest = self.settings.limits.strictest(command.resource_limits());
        limits.extend(strictest.kernel());
        limits
    }
}

impl Table {
    fn running(&self) -> usize {
        self.processes.len() - self.ended.len()
    }

    fn remove(&mut self, id: ProcessId) {
        self.processes.remove(&id);
        self.ended.retain(|ended| *ended != id);
    }

    /// A command has ended and stays as one of the last `kept` of its kind.
    pub(super) fn end(&mut self, id: ProcessId, kept: usize) {
        if kept == 0 || !self.processes.contains_key(&id) {
            self.processes.remove(&id);
            return;
        }
        self.ended.push_back(id);
        while self.ended.len() > kept
            && let Some(oldest) = self.ended.pop_front()
        {
            self.processes.remove(&oldest);
        }
    }
}

fn describe(step: Step) -> &'static str {
    match step {
        Step::Fork => "start another process",
        Step::Session => "begin a session for the command",
        Step::Limits => "limit what the command may use",
        Step::Stdio => "hand the command its pipes",
        Step::Terminal => "make the terminal the command's",
        Step::Directory => "enter the working directory",
        Step::User => "run the command as the user asked for",
        Step::Load => "load the program",
    }
}

impl SpawnError {
    fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }

    /// The system's error number, if the system refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Program { source, .. } | Self::System { source, .. } => {
                Errno::from_io_error(source)
            }
            Self::Empty | Self::Busy { .. } | Self::Closing => None,
        }
    }
}
