//! What is told about a process.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;

use crate::exec::{Cause, Ended, Exit, Process};

/// A process as the API shows it.
#[derive(Debug, Serialize)]
pub(super) struct Description {
    id: u64,
    /// Bytes that are no text are shown as U+FFFD.
    command: Vec<String>,
    pty: bool,
    started_at: Option<String>,
    state: &'static str,
    #[serde(flatten)]
    end: Option<End>,
    /// The numbers of the oldest entry of the output that is still there, and of the next one.
    output: Output,
}

/// How a process ended.
#[derive(Debug, Serialize)]
pub(super) struct End {
    ended_at: Option<String>,
    /// The status, or 128 and the number of the signal; -1 if nobody knows.
    exit_code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i32>,
    /// Why it was ended, if it did not end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_by: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Output {
    first_entry: u64,
    next_entry: u64,
}

pub(super) fn describe(process: &Process) -> Description {
    let journal = process.journal();
    let ended = process.ended();
    let text = |argument: &std::ffi::CString| argument.to_string_lossy().into_owned();
    Description {
        id: process.id().0,
        command: process.arguments().iter().map(text).collect(),
        pty: process.has_terminal(),
        started_at: timestamp(process.began()),
        state: if ended.is_some() { "exited" } else { "running" },
        end: ended.map(|ended| end(ended, process.cause())),
        output: Output {
            first_entry: journal.oldest_number(),
            next_entry: journal.next_number(),
        },
    }
}

/// How a process ended that has.
pub(super) fn end_of(process: &Process) -> Option<End> {
    process.ended().map(|ended| end(ended, process.cause()))
}

fn end(ended: Ended, cause: Option<Cause>) -> End {
    let Ended { exit, at } = ended;
    End {
        ended_at: timestamp(at),
        exit_code: exit.shell_code(),
        signal: exit.signal(),
        ended_by: match (cause, exit) {
            (Some(Cause::TimedOut), _) => Some("timeout"),
            (Some(Cause::Cancelled), _) => Some("cancel"),
            (None, Exit::Code(_) | Exit::Signal(_) | Exit::Unknown) => None,
        },
    }
}

fn timestamp(time: SystemTime) -> Option<String> {
    Timestamp::try_from(time).ok().map(|time| time.to_string())
}
