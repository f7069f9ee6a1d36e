//! The thread that starts every init helper.
//!
//! One thread for the node's whole life, for two reasons. The kernel's parent-death signal means
//! the parent *thread*: were helpers started from a pool, containers would die whenever a worker
//! thread is retired. And starting is a `posix_spawn` of a few hundred microseconds during which
//! the calling thread stands still; here nothing else waits for it. The thread ends with the last
//! [`Spawner`] and the last container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::sync::oneshot;

/// The program that becomes the init helper, and the argument that tells it so.
#[derive(Debug, Clone)]
pub struct InitProgram {
    path: PathBuf,
    argument: Option<&'static str>,
}

impl InitProgram {
    /// This very program, whose `main` must ask [`crate::init::requested`] before anything else.
    pub fn current() -> Self {
        Self {
            // The link stays valid when the file is replaced or removed while we run.
            path: PathBuf::from("/proc/self/exe"),
            argument: Some(crate::init::ARGUMENT),
        }
    }

    /// Another program, such as `agent-sandbox-node-init`. It is given [`crate::init::ARGUMENT`]
    /// too, so any host program will do.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            argument: Some(crate::init::ARGUMENT),
        }
    }
}

/// Hands jobs to the spawning thread. Clones share the thread.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    jobs: mpsc::Sender<Job>,
    init: InitProgram,
}

/// Work for the thread.
#[derive(Debug)]
pub(super) enum Job {
    /// Start a program.
    Start(Box<Command>, oneshot::Sender<io::Result<Pid>>),
    /// Collect the status of a child that nobody waits for any more.
    Reap(OwnedFd),
}

/// A helper that was started: its process id and our end of its control socket.
#[derive(Debug)]
pub(super) struct Helper {
    pub(super) pid: Pid,
    pub(super) control: UnixStream,
    /// Where a child goes that nobody waits for.
    pub(super) jobs: mpsc::Sender<Job>,
}

impl Spawner {
    /// Starts the thread.
    pub(crate) fn new(init: InitProgram) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        std::thread::Builder::new()
            .name("node-spawn".into())
            .stack_size(256 << 10)
            .spawn(move || serve(&queue))?;
        Ok(Self { jobs, init })
    }

    /// Starts a helper that is labelled `label` in the process list.
    pub(super) async fn start(
        &self,
        label: &str,
        stdout: OwnedFd,
        stderr: OwnedFd,
    ) -> io::Result<Helper> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&self.init.path);
        command
            .args(self.init.argument)
            .arg(label)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        let (reply, answer) = oneshot::channel();
        let stopped = || io::Error::other("the node is stopping");
        self.jobs
            .send(Job::Start(Box::new(command), reply))
            .map_err(|_| stopped())?;
        let pid = answer.await.map_err(|_| stopped())??;
        Ok(Helper {
            pid,
            control: ours,
            jobs: self.jobs.clone(),
        })
    }
}

/// How often abandoned children are looked at.
const REAP_INTERVAL: Duration = Duration::from_millis(100);

/// Runs jobs until the last sender and the last abandoned child are gone.
fn serve(queue: &mpsc::Receiver<Job>) {
    let mut abandoned: Vec<OwnedFd> = Vec::new();
    loop {
        let job = if abandoned.is_empty() {
            queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            queue.recv_timeout(REAP_INTERVAL)
        };
        match job {
            Ok(Job::Start(command, reply)) => start(command, reply),
            Ok(Job::Reap(pidfd)) => abandoned.push(pidfd),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if abandoned.is_empty() => return,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(REAP_INTERVAL),
        }
        abandoned.retain(|pidfd| {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            matches!(
                rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options),
                Ok(None)
            )
        });
    }
}

fn start(mut command: Box<Command>, reply: oneshot::Sender<io::Result<Pid>>) {
    let started = command.spawn().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("start {}: {error}", command.get_program().display()),
        )
    });
    // The child is waited for through its pidfd; dropping the handle neither waits nor kills.
    let pid = started.and_then(|child| {
        i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("impossible process id"))
    });
    // The command holds our copies of the child's descriptors; close them before answering so
    // that an end of file means what it says.
    drop(command);
    // A caller that gave up has closed the control socket, which ends the helper.
    reply.send(pid).ok();
}
