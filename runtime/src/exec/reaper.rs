//! Who may take a child's exit status, and who may signal it.
//!
//! A process id is only safe to signal while its status has not been taken, and a server that is
//! process 1 (or a subreaper) inherits orphans whose status nobody else takes. Both need one owner of
//! all waiting: this registry. Orphans are reaped without ever taking the status of a command.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::process::Exit;
use crate::sys::children::exited_child;
use crate::sys::spawn::{Launch, LaunchError, launch};

/// The children this process started and has not waited for.
#[derive(Debug, Default)]
pub(super) struct Children {
    known: Mutex<HashSet<Pid>>,
    /// Held shared while a child is started that is not known yet, alone while unknown ones are reaped.
    starting: RwLock<()>,
    /// Whether unknown ones were not reaped because some child was starting.
    put_off: AtomicBool,
}

impl Children {
    /// Starts a program; from here on its status belongs to [`Self::reap`].
    pub(super) fn spawn(&self, program: &Launch<'_>) -> Result<Pid, LaunchError> {
        let starting = self.starting.read();
        let launched = launch(program);
        if let Ok(pid) = &launched {
            self.known.lock().insert(*pid);
        }
        drop(starting);
        if self.put_off.swap(false, Ordering::AcqRel) {
            self.reap_orphans();
        }
        launched
    }

    /// The exit of a child that has exited, once. `None` while it runs.
    pub(super) fn reap(&self, pid: Pid) -> Option<Exit> {
        let mut known = self.known.lock();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let exit = match rustix::process::waitid(WaitId::Pid(pid), options) {
            Ok(None) | Err(Errno::INTR) => return None,
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Unknown,
            },
            Err(error) => {
                tracing::error!(pid = pid.as_raw_nonzero(), %error, "exit status is lost");
                Exit::Unknown
            }
        };
        known.remove(&pid);
        Some(exit)
    }

    /// Whether the child has not been waited for, so that its id is its own.
    pub(super) fn holds(&self, pid: Pid) -> bool {
        self.known.lock().contains(&pid)
    }

    /// Signals the process group a child leads. `false` when the child has been waited for, after
    /// which its id may be somebody else's.
    pub(super) fn signal_group(&self, leader: Pid, signal: Signal) -> bool {
        let known = self.known.lock();
        if !known.contains(&leader) {
            return false;
        }
        match rustix::process::kill_process_group(leader, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(leader = leader.as_raw_nonzero(), %error, "cannot signal a group");
            }
        }
        true
    }

    /// Takes the status of every exited child nobody here started, and returns how many those were.
    /// It stops at an exited command, whose own waiter comes next, and leaves the work to the end of a
    /// start that is under way: programs may take long to load, and the caller waits for nothing.
    pub(super) fn reap_orphans(&self) -> usize {
        self.put_off.store(true, Ordering::Release);
        let Some(_none_starting) = self.starting.try_write() else {
            return 0;
        };
        self.put_off.store(false, Ordering::Release);
        let known = self.known.lock();
        let mut reaped = 0;
        while let Ok(Some(pid)) = exited_child() {
            if known.contains(&pid) {
                break;
            }
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            if rustix::process::waitid(WaitId::Pid(pid), options).is_err() {
                break;
            }
            reaped += 1;
        }
        reaped
    }
}
