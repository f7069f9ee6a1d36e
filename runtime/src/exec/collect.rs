//! Running a command to its end for a caller that wants everything at once.

use std::time::Duration;

use super::budget::Share;
use super::capture::{Capture, Captured};
use super::command::Command;
use super::journal::{Follow, Item, Stream};
use super::process::{Cause, Exit};
use super::table::{KILL_TIME, Processes, SpawnError};

/// What a command may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How long it may run before its whole tree is killed.
    pub timeout: Duration,
    /// How many bytes are kept of each output; the middle of the rest is omitted.
    pub stream_bytes: usize,
}

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    /// How its leader ended. `None` if a killed command had not gone in time, which only a process
    /// stuck inside the kernel does.
    pub exit: Option<Exit>,
    /// Whether it was killed because its time was up.
    pub timed_out: bool,
    /// What it wrote to standard output, up to the end of its time.
    pub stdout: Captured,
    /// What it wrote to standard error, up to the end of its time.
    pub stderr: Captured,
    /// The outputs' place in the budget.
    pub held: Held,
}

/// As long as this is there, the outputs it came with count as collected. To be kept until nobody holds
/// them any more, in whatever form.
#[derive(Debug)]
pub struct Held {
    shares: [Share; 2],
}

impl Held {
    /// Whether the outputs fit what every command has of its own, so that they count for nothing.
    pub fn is_nothing(&self) -> bool {
        self.shares.iter().all(Share::is_empty)
    }
}

/// Starts `command`, collects its output and waits for its exit. When its time is up, or when the
/// returned future is dropped, the command's whole tree is killed. Children it leaves in the
/// background by itself do not delay the outcome and keep running.
///
/// # Errors
/// See [`SpawnError`].
pub async fn run_to_end(
    processes: &Processes,
    command: Command,
    limits: Limits,
) -> Result<Outcome, SpawnError> {
    let (leash, follow) = processes.spawn_held(command).await?;
    let process = leash.process().clone();
    let budget = processes.collected();
    let mut stdout = Capture::new(limits.stream_bytes, budget.share());
    let mut stderr = Capture::new(limits.stream_bytes, budget.share());
    let mut follow = follow;
    let in_time = async {
        collect(&mut follow, &mut stdout, &mut stderr).await;
        process.exited().await
    };
    let (exit, timed_out) = match tokio::time::timeout(limits.timeout, in_time).await {
        Ok(exit) => (Some(exit), false),
        // It exited in time and only the last output is being read.
        Err(_) if process.exit().is_some() => {
            collect(&mut follow, &mut stdout, &mut stderr).await;
            (process.exit(), false)
        }
        Err(_) => {
            let rest = async {
                process.end(Cause::TimedOut).await;
                collect(&mut follow, &mut stdout, &mut stderr).await;
                process.exited().await
            };
            (tokio::time::timeout(KILL_TIME, rest).await.ok(), true)
        }
    };
    leash.release();
    let (stdout, first) = stdout.finish();
    let (stderr, second) = stderr.finish();
    Ok(Outcome {
        exit,
        timed_out,
        stdout,
        stderr,
        held: Held {
            shares: [first, second],
        },
    })
}

async fn collect(follow: &mut Follow, stdout: &mut Capture, stderr: &mut Capture) {
    while let Some(item) = follow.next().await {
        match item {
            Item::Entry(entry) => match entry.stream {
                Stream::Stdout => stdout.push(entry.bytes),
                Stream::Stderr => stderr.push(entry.bytes),
            },
            // A holding follower misses nothing.
            Item::Missed { .. } => {}
        }
    }
}
