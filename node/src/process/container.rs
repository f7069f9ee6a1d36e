//! A running container as the node holds it: start, wait, signal, run one more program inside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::init::message::{
    self, Command, Confinement, Enter, FailureKind, Launch, Process, Report, Request, Root,
};
use super::leftovers::Records;
use super::spawn::{Helper, Job, Spawner};
use super::{pidfd, proc_stat};

/// Longest time from the start of a helper to the running program.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Why a container, or a program inside one, was not started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Its confinement or file tree could not be set up.
    #[error("{0}")]
    Setup(String),
    /// Its program could not be executed.
    #[error("{0}")]
    Exec(String),
    /// The helper could not be started or did not keep to the protocol.
    #[error("init helper: {0}")]
    Helper(#[source] io::Error),
    /// Files on the host's side could not be prepared.
    #[error("prepare files: {0}")]
    Files(#[source] io::Error),
}

/// A child process, waited for through its pidfd. One that is dropped before its status was
/// collected is killed and left to the spawning thread.
#[derive(Debug)]
struct Child {
    pidfd: AsyncFd<OwnedFd>,
    jobs: mpsc::Sender<Job>,
    collected: AtomicBool,
    /// Whether killing it kills all its descendants too, or it must be given time to do so itself.
    kill_on_drop: bool,
}

impl Child {
    fn open(pid: Pid, jobs: mpsc::Sender<Job>, kill_on_drop: bool) -> io::Result<Self> {
        // The child has not been waited for, so its id cannot belong to anybody else.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        Ok(Self {
            pidfd: pidfd::register(pidfd)?,
            jobs,
            collected: AtomicBool::new(false),
            kill_on_drop,
        })
    }

    /// Waits for the end, collects the status (which frees the process id) and returns it as a
    /// shell would. Only the first caller learns it.
    async fn wait(&self) -> u8 {
        loop {
            let mut ready = match self.pidfd.readable().await {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(%error, "waiting for a container failed");
                    return u8::MAX;
                }
            };
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options) {
                Ok(Some(status)) => {
                    self.collected.store(true, Ordering::Release);
                    let code = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => code,
                        (None, Some(signal)) => 128 + signal,
                        (None, None) => 255,
                    };
                    return u8::try_from(code & 0xff).unwrap_or(u8::MAX);
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => ready.clear_ready(),
                Err(error) => {
                    tracing::error!(%error, "collecting the status of a container failed");
                    return u8::MAX;
                }
            }
        }
    }

    fn signal(&self, signal: Signal) {
        match rustix::process::pidfd_send_signal(self.pidfd.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!(%error, "signalling a container failed"),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.collected.load(Ordering::Acquire) {
            return;
        }
        if self.kill_on_drop {
            self.signal(Signal::KILL);
        }
        match self.pidfd.get_ref().try_clone() {
            // The thread lives as long as this sender, so the message arrives.
            Ok(pidfd) => drop(self.jobs.send(Job::Reap(pidfd))),
            Err(error) => tracing::warn!(%error, "a child is left uncollected"),
        }
    }
}

/// A started container. Dropping it kills what is left of it.
#[derive(Debug)]
pub(crate) struct Container {
    /// Where commands go while an init of ours runs; `None` when the program is its own PID 1.
    /// Declared first: its end reaches the init before anything else does.
    control: Option<UnixStream>,
    child: Child,
    pid: i32,
    start_time: u64,
    confinement: Confinement,
    root: Root,
    records: Arc<Records>,
}

/// The result of a program that ran inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExecOutcome {
    pub(crate) code: u8,
    /// Standard output and error, as far as [`OUTPUT_LIMIT`].
    pub(crate) output: String,
}

/// Bytes of output kept from a program that runs inside a container; the kubelet's own bound.
pub(crate) const OUTPUT_LIMIT: usize = 10 << 10;

impl Spawner {
    /// Starts a container; returns when its program runs.
    pub(crate) async fn launch(
        &self,
        label: &str,
        launch: &Launch,
        stdout: OwnedFd,
        stderr: OwnedFd,
        records: &Arc<Records>,
    ) -> Result<Container, StartError> {
        let helper = self
            .start(label, stdout, stderr)
            .await
            .map_err(StartError::Helper)?;
        let mut start = Starting::new(helper, &launch.confinement).map_err(StartError::Helper)?;
        let request = Request::Launch(Box::new(launch.clone()));
        tokio::time::timeout(START_DEADLINE, start.run(&request))
            .await
            .map_err(|_| {
                let limit = START_DEADLINE.as_secs();
                StartError::Setup(format!("the program is not running after {limit} s"))
            })??;
        start.into_container(launch, records.clone()).await
    }

    /// Runs a program inside `container` and waits for it. Dropping the future kills the program.
    pub(crate) async fn exec(
        &self,
        label: &str,
        container: &Container,
        process: Process,
    ) -> Result<ExecOutcome, StartError> {
        let (output, stdout) = io::pipe().map_err(StartError::Helper)?;
        let stderr = stdout.try_clone().map_err(StartError::Helper)?;
        let helper = self
            .start(label, stdout.into(), stderr.into())
            .await
            .map_err(StartError::Helper)?;
        let mut running =
            Starting::new(helper, &container.confinement).map_err(StartError::Helper)?;
        let request = Request::Enter(Box::new(Enter {
            confinement: container.confinement.clone(),
            pid: container.pid,
            start_time: container.start_time,
            root: container.root.clone(),
            process,
        }));
        running.run(&request).await?;
        let output = collect_output(output.into(), running.stage0.wait())
            .await
            .map_err(StartError::Helper)?;
        // The program could not be executed after all if there is one more report.
        match running.report().await.map_err(StartError::Helper)? {
            Some(Report::Failed { kind, message }) => Err(failed(kind, message)),
            Some(Report::Placed { .. } | Report::Started) | None => Ok(output),
        }
    }
}

fn failed(kind: FailureKind, message: String) -> StartError {
    match kind {
        FailureKind::Setup => StartError::Setup(message),
        FailureKind::Exec => StartError::Exec(message),
    }
}

/// Reads what a program writes until it ends, keeps the beginning, and lets the rest go so that it
/// never blocks. A process it leaves in the container may keep the pipe open, or go on writing; nobody
/// waits for that.
async fn collect_output(pipe: OwnedFd, ended: impl Future<Output = u8>) -> io::Result<ExecOutcome> {
    let pipe = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe)?;
    let mut output = Beginning::default();
    let mut open = true;
    let mut ended = pin!(ended);
    let code = loop {
        tokio::select! {
            code = &mut ended => break code,
            ready = pipe.readable(), if open => {
                ready?;
                open = output.take(|buffer| pipe.try_read(buffer))? != Some(0);
            }
        }
    };
    // The end may be known before the reactor has heard of the last bytes, so the pipe itself is asked.
    let last = |buffer: &mut [u8]| rustix::io::read(&pipe, buffer).map_err(io::Error::from);
    while open && output.has_room() {
        open = output.take(last)?.is_some_and(|read| read > 0);
    }
    Ok(ExecOutcome {
        code,
        output: String::from_utf8_lossy(&output.kept).into_owned(),
    })
}

/// The first [`OUTPUT_LIMIT`] bytes of a stream.
#[derive(Default)]
struct Beginning {
    kept: Vec<u8>,
}

impl Beginning {
    fn has_room(&self) -> bool {
        self.kept.len() < OUTPUT_LIMIT
    }

    /// Reads once and keeps what fits. `Some(0)` is the end of the stream, `None` that nothing is
    /// there now.
    fn take(
        &mut self,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<Option<usize>> {
        let mut buffer = [0; 4096];
        match read(&mut buffer) {
            Ok(read) => {
                let room = OUTPUT_LIMIT.saturating_sub(self.kept.len()).min(read);
                self.kept
                    .extend_from_slice(buffer.get(..room).unwrap_or(&[]));
                Ok(Some(read))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A helper between its start and the running program.
#[derive(Debug)]
struct Starting {
    /// Declared first: the end of the socket reaches a helper before its own end does.
    control: UnixStream,
    stage0: Child,
    stage0_pid: i32,
    placed: Option<Placed>,
    jobs: mpsc::Sender<Job>,
    /// Whether processes outlive the one we can kill, see [`Child::kill_on_drop`].
    tree_dies_at_once: bool,
    /// The program was executed in the helper's own process, which closed the socket.
    executed: bool,
}

/// Which process is the container's first.
#[derive(Debug)]
enum Placed {
    /// The helper itself stays as supervisor.
    Helper,
    /// A child that the helper left to us.
    Child(Child, i32),
}

impl Starting {
    fn new(helper: Helper, confinement: &Confinement) -> io::Result<Self> {
        let tree_dies_at_once = matches!(confinement, Confinement::Namespaces(_));
        let stage0 = Child::open(helper.pid, helper.jobs.clone(), tree_dies_at_once)?;
        helper.control.set_nonblocking(true)?;
        Ok(Self {
            control: UnixStream::from_std(helper.control)?,
            stage0,
            stage0_pid: helper.pid.as_raw_nonzero().get(),
            placed: None,
            jobs: helper.jobs,
            tree_dies_at_once,
            executed: false,
        })
    }

    /// Sends the request and follows the reports until the program runs. A program that runs
    /// inside another container counts as running from its fork on.
    async fn run(&mut self, request: &Request) -> Result<(), StartError> {
        let frame = message::encode_frame(request).map_err(StartError::Helper)?;
        let sent = self.control.write_all(&frame).await;
        // A helper that failed early has said why; its words matter more than a broken pipe.
        if let Err(error) = sent
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(StartError::Helper(error));
        }
        let entering = matches!(request, Request::Enter(_));
        loop {
            match self.report().await.map_err(StartError::Helper)? {
                Some(Report::Placed { .. }) if entering => return Ok(()),
                Some(Report::Placed { pid }) => self.place(pid).map_err(StartError::Helper)?,
                Some(Report::Started) => return Ok(()),
                Some(Report::Failed { kind, message }) => return Err(failed(kind, message)),
                None if self.placed.is_some() => {
                    self.executed = true;
                    return Ok(());
                }
                None => {
                    return Err(StartError::Helper(io::Error::other(
                        "it ended without saying why; is the init program the right one?",
                    )));
                }
            }
        }
    }

    fn place(&mut self, pid: i32) -> io::Result<()> {
        if self.placed.is_some() {
            return Err(io::Error::other("it reported two processes"));
        }
        if pid == self.stage0_pid {
            self.placed = Some(Placed::Helper);
            return Ok(());
        }
        let checked =
            Pid::from_raw(pid).ok_or_else(|| io::Error::other("it reported no process id"))?;
        let child = Child::open(checked, self.jobs.clone(), self.tree_dies_at_once)?;
        self.placed = Some(Placed::Child(child, pid));
        Ok(())
    }

    async fn report(&mut self) -> io::Result<Option<Report>> {
        let mut prefix = [0; 4];
        match self.control.read_exact(&mut prefix).await {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        let mut body = vec![0; message::frame_length(prefix)?];
        self.control.read_exact(&mut body).await?;
        Ok(Some(serde_json::from_slice(&body)?))
    }

    async fn into_container(
        self,
        launch: &Launch,
        records: Arc<Records>,
    ) -> Result<Container, StartError> {
        let Self {
            control,
            stage0,
            stage0_pid,
            placed,
            executed,
            ..
        } = self;
        let (child, pid) = match placed {
            Some(Placed::Child(child, pid)) => {
                stage0.wait().await;
                (child, pid)
            }
            Some(Placed::Helper) | None => (stage0, stage0_pid),
        };
        // An instant exit leaves a zombie until it is waited for, so the entry is there.
        let start_time = proc_stat::read(pid).map_err(StartError::Helper)?.start_time;
        records.add(pid, start_time).map_err(StartError::Files)?;
        Ok(Container {
            control: (!executed).then_some(control),
            child,
            pid,
            start_time,
            confinement: launch.confinement.clone(),
            root: launch.root.clone(),
            records,
        })
    }
}

impl Container {
    /// Waits for the main program and returns its exit status, 128 plus the signal's number when a
    /// signal ended it. Everything the container ran is gone then. Call it once.
    pub(crate) async fn wait(&self) -> u8 {
        let code = self.child.wait().await;
        self.records.remove(self.pid);
        code
    }

    /// Sends a signal to the main program.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.control.is_some() {
            self.command(&Command::Signal(signal.as_raw()));
        } else {
            self.child.signal(signal);
        }
    }

    /// Kills the whole process tree.
    pub(crate) fn kill(&self) {
        if matches!(self.confinement, Confinement::Namespaces(_)) {
            self.child.signal(Signal::KILL);
        } else {
            self.command(&Command::Kill);
        }
    }

    /// The id of the first process, as the host sees it.
    #[cfg(test)]
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    fn command(&self, command: &Command) {
        let Some(control) = &self.control else { return };
        let sent = message::encode_frame(command).and_then(|frame| {
            let written = control.try_write(&frame)?;
            if written == frame.len() {
                Ok(())
            } else {
                Err(io::ErrorKind::WriteZero.into())
            }
        });
        match sent {
            Ok(()) => {}
            // The container ended on its own.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                tracing::warn!(%error, pid = self.pid, "commanding a container failed");
            }
        }
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // What is still running is killed by the drop of the parts.
        if !self.child.collected.load(Ordering::Acquire) {
            self.records.remove(self.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn output_is_complete_when_the_end_is_known_first() {
        let (output, mut program) = io::pipe().unwrap();
        program.write_all(b"last words").unwrap();
        // Something left behind keeps the pipe open; the reactor has not looked at it yet.
        let outcome = collect_output(output.into(), std::future::ready(4))
            .await
            .unwrap();
        assert_eq!((outcome.code, &*outcome.output), (4, "last words"));
        drop(program);
    }

    #[tokio::test]
    async fn a_flood_that_goes_on_after_the_end_is_not_waited_for() {
        let (output, mut flood) = io::pipe().unwrap();
        let written = Arc::new(AtomicUsize::new(0));
        let count = written.clone();
        let writer = std::thread::spawn(move || {
            while flood.write_all(&[b'y'; 4096]).is_ok() {
                count.fetch_add(4096, Ordering::Relaxed);
            }
        });
        // Far more than a pipe holds, so that much was let go.
        let ended = async {
            while written.load(Ordering::Relaxed) < 1 << 20 {
                tokio::task::yield_now().await;
            }
            0
        };
        let outcome = collect_output(output.into(), ended).await.unwrap();
        assert_eq!(outcome.output.len(), OUTPUT_LIMIT);
        writer.join().unwrap();
    }
}
