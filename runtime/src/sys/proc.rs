//! What `/proc` says about processes: who is whose child, group, session, and what marks they carry.
//!
//! Processes come and go while the directory is read; one that vanished is simply not reported.

use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal};

/// One process as `/proc/PID/stat` shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// Start time in clock ticks since boot; with the pid it identifies a process for good.
    pub(crate) started: u64,
    /// Whether it has exited and only waits to be reaped.
    pub(crate) dead: bool,
}

/// Every process this one can see.
///
/// # Errors
/// When `/proc` is not mounted or not readable.
pub(crate) fn entries() -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
            && let Some(entry) = entry_of(pid)
        {
            found.push(entry);
        }
    }
    Ok(found)
}

/// When the process was started, as in [`Entry::started`]; `None` when there is none.
pub(crate) fn started(pid: i32) -> Option<u64> {
    entry_of(pid).map(|entry| entry.started)
}

/// Whether the environment the process was started with holds exactly this `NAME=value`. `false` when
/// it may not be read.
pub(crate) fn environment_holds(pid: i32, assignment: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|text| text.split(|byte| *byte == 0).any(|item| item == assignment))
}

/// Like [`environment_holds`] for the beginning of an assignment.
pub(crate) fn environment_starts(pid: i32, prefix: &[u8]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| {
        text.split(|byte| *byte == 0)
            .any(|item| item.starts_with(prefix))
    })
}

/// Sends a signal to exactly the process of `entry`, never to a later one with its pid.
pub(crate) fn signal(entry: &Entry, signal: Signal) {
    let Some(pid) = Pid::from_raw(entry.pid) else {
        return;
    };
    // Where handles do not exist (old kernels, some user-space kernels) the check alone must do.
    let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
    if entry_of(entry.pid).is_none_or(|now| now.started != entry.started) {
        return;
    }
    let sent = match handle {
        Some(handle) => rustix::process::pidfd_send_signal(&handle, signal),
        None => rustix::process::kill_process(pid, signal),
    };
    if let Err(error) = sent {
        tracing::debug!(pid = entry.pid, %error, "process could not be signalled");
    }
}

fn entry_of(pid: i32) -> Option<Entry> {
    // A program may name itself with bytes that are no text.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(pid, &String::from_utf8_lossy(&stat))
}

/// The program name in parentheses may hold anything, parentheses and blanks included, so fields are
/// counted from the last closing one.
fn parse(pid: i32, stat: &str) -> Option<Entry> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Entry {
        pid,
        parent,
        group,
        session,
        started,
        dead: matches!(state, "Z" | "X" | "x"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_and_blanks_do_not_shift_fields() {
        let stat = "7 (a) b (c) Z 3 4 5 0 -1 4194304 1 0 0 0 1 2 3 4 20 0 1 0 987654 100 7";
        let entry = parse(7, stat).unwrap();
        assert_eq!(
            entry,
            Entry {
                pid: 7,
                parent: 3,
                group: 4,
                session: 5,
                started: 987_654,
                dead: true
            }
        );
        assert!(parse(7, "7 (x) S 1").is_none());
    }

    #[test]
    fn this_process_is_listed_with_its_environment() {
        let me = i32::try_from(std::process::id()).unwrap();
        let all = entries().unwrap();
        assert!(all.iter().any(|entry| entry.pid == me && !entry.dead));
        let (name, value) = std::env::vars_os().next().unwrap();
        let mut assignment = name.into_encoded_bytes();
        assignment.push(b'=');
        assert!(environment_starts(me, &assignment));
        assignment.extend(value.into_encoded_bytes());
        assert!(environment_holds(me, &assignment));
        assignment.push(b'!');
        assert!(!environment_holds(me, &assignment));
    }
}
