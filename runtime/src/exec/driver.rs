//! The task that drives a command: its output into the journal, its exit to whoever waits, its end when
//! its time is up.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::journal::{Journal, Stream};
use super::leftovers::Leftovers;
use super::process::{Cause, Ended, Exit, Process};
use super::reaper::Children;
use crate::sys::children::ExitHandle;

/// How long after the leader's exit output of others that share its pipes still counts as the
/// command's: a `tee` behind a shell's process substitution ends a moment after the shell.
const GRACE: Duration = Duration::from_millis(100);
/// How many bytes after the exit still count at most: more than any pipe holds, so everything the
/// leader wrote itself is among them.
const GRACE_BYTES: usize = 2 << 20;
/// The first and the largest read buffer.
const BUFFER: (usize, usize) = (4 << 10, 64 << 10);

/// Where a command's output comes from.
#[derive(Debug)]
pub(super) enum Output {
    /// Standard output and standard error.
    Pipes(pipe::Receiver, pipe::Receiver),
    /// A terminal, which knows no difference.
    Terminal(pipe::Receiver),
}

/// What the driver of a command holds.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) process: Arc<Process>,
    pub(super) children: Arc<Children>,
    pub(super) output: Output,
    pub(super) exit: watch::Sender<Option<Ended>>,
    pub(super) timeout: Option<Duration>,
    pub(super) leftovers: Leftovers,
}

impl Driver {
    /// Runs until the command has exited and nobody writes to its pipes any more. `ended` is called
    /// once, at the exit: a reader that takes its time for the last output keeps no place in the table.
    pub(super) async fn run(self, ended: impl FnOnce()) {
        let Self {
            process,
            children,
            output,
            exit,
            timeout,
            leftovers,
        } = self;
        let journal = process.journal().clone();
        let gone = CancellationToken::new();
        let pumps = async {
            match output {
                Output::Pipes(stdout, stderr) => tokio::join!(
                    pump(stdout, Stream::Stdout, &journal, &gone),
                    pump(stderr, Stream::Stderr, &journal, &gone),
                ),
                Output::Terminal(output) => {
                    (pump(output, Stream::Stdout, &journal, &gone).await, None)
                }
            }
        };
        let wait = async {
            let how = wait_for_exit(process.leader(), &children).await;
            let at = SystemTime::now();
            exit.send_replace(Some(Ended { exit: how, at }));
            ended();
            gone.cancel();
            process.release().await;
        };
        let limit = async {
            if let Some(timeout) = timeout
                && tokio::time::timeout(timeout, gone.cancelled())
                    .await
                    .is_err()
            {
                process.end(Cause::TimedOut).await;
            }
        };
        let ((stdout, stderr), (), ()) = tokio::join!(pumps, wait, limit);
        journal.end();
        // What is left behind may stay for hours, the output must not.
        drop((process, journal));
        leftovers.drain([stdout, stderr]).await;
    }
}

/// Copies a pipe into the journal until its end, or until the grace after the exit is over; then the
/// pipe is returned.
async fn pump(
    mut pipe: pipe::Receiver,
    stream: Stream,
    journal: &Journal,
    gone: &CancellationToken,
) -> Option<pipe::Receiver> {
    let mut buffer = BytesMut::with_capacity(BUFFER.0);
    let mut size = BUFFER.0;
    let mut grace = Grace::default();
    loop {
        if grace.bytes == 0 {
            return Some(pipe);
        }
        buffer.reserve(size);
        let read = tokio::select! {
            biased;
            read = pipe.read_buf(&mut buffer) => Some(read),
            () = grace.over(gone) => None,
        };
        match read {
            None => return Some(pipe),
            // How a terminal says that nobody has its other end open.
            Some(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return None,
            Some(Err(error)) => {
                tracing::warn!(%error, "reading a command's output failed");
                return None;
            }
            Some(Ok(0)) => return None,
            Some(Ok(count)) => {
                if count >= size {
                    size = (size * 4).min(BUFFER.1);
                }
                grace.received(count, gone);
                let bytes = if count * 2 < buffer.capacity() {
                    // An entry that kept the whole buffer would cost a multiple of what it counts for.
                    let bytes = Bytes::copy_from_slice(&buffer);
                    buffer.clear();
                    bytes
                } else {
                    buffer.split().freeze()
                };
                // Waiting for a slow reader is not counted: what is in the pipe stays there.
                journal.append(stream, bytes).await;
            }
        }
    }
}

/// What is left of the time and the bytes after the exit.
#[derive(Debug)]
struct Grace {
    time: Duration,
    bytes: usize,
}

impl Default for Grace {
    fn default() -> Self {
        Self {
            time: GRACE,
            bytes: GRACE_BYTES,
        }
    }
}

impl Grace {
    /// Completes when the leader is gone and the grace used up. Time runs only while this is awaited.
    async fn over(&mut self, gone: &CancellationToken) {
        gone.cancelled().await;
        // What was written before the exit may only wait for its turn: no timer is needed then.
        tokio::task::yield_now().await;
        let deadline = Instant::now() + self.time;
        let _spent = Spent {
            time: &mut self.time,
            deadline,
        };
        tokio::time::sleep_until(deadline).await;
    }

    fn received(&mut self, count: usize, gone: &CancellationToken) {
        if gone.is_cancelled() {
            self.bytes = self.bytes.saturating_sub(count);
        }
    }
}

/// Takes the time that passed off the grace, also when the wait is cancelled by data.
struct Spent<'a> {
    time: &'a mut Duration,
    deadline: Instant,
}

impl Drop for Spent<'_> {
    fn drop(&mut self) {
        *self.time = self.deadline.saturating_duration_since(Instant::now());
    }
}

/// Waits until the leader has exited and takes its status.
async fn wait_for_exit(leader: Pid, children: &Children) -> Exit {
    // A short command is over by now.
    if let Some(exit) = children.reap(leader) {
        return exit;
    }
    match ExitHandle::open(leader) {
        Ok(handle) => loop {
            if let Some(exit) = children.reap(leader) {
                return exit;
            }
            if let Err(error) = handle.exited().await {
                tracing::error!(%error, "process handle failed");
                return blocking_wait(leader, children).await;
            }
        },
        Err(error) => {
            tracing::debug!(%error, "no process handles here, waiting in a thread");
            blocking_wait(leader, children).await
        }
    }
}

/// The way out where process handles do not exist: a thread waits without taking the status.
async fn blocking_wait(leader: Pid, children: &Children) -> Exit {
    loop {
        if let Some(exit) = children.reap(leader) {
            return exit;
        }
        let (exited, over) = oneshot::channel();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        // Not the runtime's pool: it is bounded and shared with file work, commands may run for days.
        let thread = std::thread::Builder::new()
            .name(format!("wait-{}", leader.as_raw_nonzero()))
            .stack_size(64 << 10)
            .spawn(move || {
                let waited = rustix::process::waitid(WaitId::Pid(leader), options);
                // Nobody listens any more if the server is going down.
                exited.send(waited.map(drop)).ok();
            });
        if let Err(error) = thread {
            tracing::error!(%error, "no thread to wait for a command");
            tokio::time::sleep(GRACE).await;
        } else if let Ok(Err(error)) = over.await {
            tracing::debug!(%error, "waiting for a command was interrupted");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::File;
    use std::io;
    use std::os::fd::AsFd;
    use std::sync::atomic::AtomicI32;

    use rustix::process::Signal;

    use super::*;
    use crate::exec::journal::Item;
    use crate::sys::spawn::{Launch, launch};

    fn start(script: &str) -> (Pid, Children) {
        let null = File::open("/dev/null").unwrap();
        let here = File::open("/").unwrap();
        let script = CString::new(script).unwrap();
        let children = Children::default();
        let pid = children
            .spawn(&Launch {
                program: c"/bin/sh",
                arguments: &[c"sh", c"-c", &script],
                environment: &[],
                directory: here.as_fd(),
                stdio: [null.as_fd(), null.as_fd(), null.as_fd()],
                terminal: false,
                limits: &[],
                user: None,
                making: &AtomicI32::new(0),
            })
            .unwrap();
        (pid, children)
    }

    #[tokio::test]
    async fn the_status_arrives_with_and_without_process_handles() {
        for (script, exit) in [
            ("exit 3", Exit::Code(3)),
            ("kill -9 $$", Exit::Signal(9)),
            ("exit 0", Exit::Code(0)),
        ] {
            let (pid, children) = start(script);
            assert_eq!(wait_for_exit(pid, &children).await, exit);
            assert!(!children.signal_group(pid, Signal::KILL), "id is free now");
            let (pid, children) = start(script);
            assert_eq!(blocking_wait(pid, &children).await, exit);
        }
    }

    #[tokio::test]
    async fn a_status_taken_by_others_is_unknown_and_not_waited_for_forever() {
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
            making: &AtomicI32::new(0),
        })
        .unwrap();
        rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED).unwrap();
        assert_eq!(
            blocking_wait(pid, &Children::default()).await,
            Exit::Unknown
        );
    }

    #[tokio::test]
    async fn an_entry_keeps_no_more_memory_than_twice_what_it_counts_for() {
        let (sender, receiver) = pipe::pipe().unwrap();
        let journal = Arc::new(Journal::new(usize::MAX >> 1));
        let gone = CancellationToken::new();
        let write = async {
            // Growing reads first, so that the buffer is as large as it gets when the bytes come singly.
            for count in [BUFFER.1, BUFFER.1, BUFFER.1, 1, 1, 1, 5000, 1, 40_000, 3] {
                let before = journal.kept();
                let mut bytes = &vec![b'x'; count][..];
                while !bytes.is_empty() {
                    sender.writable().await.unwrap();
                    match sender.try_write(bytes) {
                        Ok(written) => bytes = &bytes[written..],
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => panic!("{error}"),
                    }
                }
                // Each is read by itself.
                while journal.kept() < before + count {
                    tokio::task::yield_now().await;
                }
            }
            drop(sender);
        };
        tokio::join!(pump(receiver, Stream::Stdout, &journal, &gone), write);
        journal.end();
        let mut follow = journal.follow(0);
        let mut entries = Vec::new();
        while let Some(Item::Entry(entry)) = follow.ready() {
            entries.push(entry.bytes);
        }
        drop((follow, journal));
        assert!(entries.iter().filter(|bytes| bytes.len() == 1).count() >= 4);
        for bytes in entries {
            let counts = bytes.len();
            // Whoever has it alone gets the whole of what it holds.
            let keeps = bytes
                .try_into_mut()
                .expect("no entry shares another's")
                .capacity();
            assert!(keeps <= counts * 2 + 64, "{keeps} bytes for {counts}");
        }
    }
}
