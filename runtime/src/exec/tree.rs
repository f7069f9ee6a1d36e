//! Reaching every descendant of a command, to signal it.
//!
//! A process belongs to a command if it is a child of one that does, shares its session or group, or
//! was started with the command's mark in its environment. The mark finds daemons: they leave
//! session, group and parent behind, but the environment goes along. Sessions met on the way stay
//! known, so that a child forked between two looks is found by the next one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use crate::sys::proc::{self, Entry};

/// The variable that marks the processes of a command.
const VARIABLE: &str = "AGENT_SANDBOX_PROCESS";
/// The pause between two looks while killed processes are still going.
const PAUSE: Duration = Duration::from_millis(2);

/// What the environment of a command's processes carries: which server, which command.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    assignment: Vec<u8>,
    scope: Scope,
}

#[derive(Clone, Copy, Debug)]
enum Scope {
    Command,
    Server,
}

impl Mark {
    /// The mark of one command of the server called `server`.
    pub(super) fn command(server: u64, command: u64) -> Self {
        Self {
            assignment: format!("{VARIABLE}={server:016x}.{command}").into_bytes(),
            scope: Scope::Command,
        }
    }

    /// The mark of every command of a server.
    pub(super) fn server(server: u64) -> Self {
        Self {
            assignment: format!("{VARIABLE}={server:016x}.").into_bytes(),
            scope: Scope::Server,
        }
    }

    /// The variable's name and value, for the environment.
    pub(super) fn variable(&self) -> (&'static str, String) {
        let value = self
            .assignment
            .get(VARIABLE.len() + 1..)
            .unwrap_or_default();
        (VARIABLE, String::from_utf8_lossy(value).into_owned())
    }

    fn is_on(&self, pid: i32) -> bool {
        match self.scope {
            Scope::Command => proc::environment_holds(pid, &self.assignment),
            Scope::Server => proc::environment_starts(pid, &self.assignment),
        }
    }
}

/// The search for what belongs to a command, to signal it. Every method blocks.
#[derive(Debug)]
pub(super) struct Hunt {
    mark: Mark,
    kin: Kin,
    /// Processes whose environment was seen without the mark; it is fixed when a program starts.
    clean: HashSet<(i32, u64)>,
}

impl Hunt {
    /// For what carries `mark` or belongs to `leader`, a command that has not been waited for.
    pub(super) fn new(mark: Mark, leader: Option<Pid>) -> Self {
        Self {
            mark,
            kin: Kin::of(leader),
            clean: HashSet::new(),
        }
    }

    /// For what carries `mark`, and for all children of this process, orphans that became its own
    /// included: also a daemon that threw its environment away.
    pub(super) fn of_all_children(mark: Mark) -> Self {
        let mut hunt = Self::new(mark, None);
        hunt.kin.children = true;
        hunt
    }

    /// Sends a signal to every live member there is now and returns how many those were; `None` when
    /// there is no way to look.
    pub(super) fn strike(&mut self, signal: Signal) -> Option<usize> {
        let entries = match proc::entries() {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "/proc is not readable, only process groups are signalled");
                return None;
            }
        };
        let Self { mark, kin, clean } = self;
        let members = kin.members(&entries, std::process::id(), |entry| {
            let seen = (entry.pid, entry.started);
            !clean.contains(&seen) && (mark.is_on(entry.pid) || !clean.insert(seen))
        });
        for member in &members {
            proc::signal(member, signal);
        }
        Some(members.len())
    }

    /// Strikes until nothing alive is left or `within` has passed.
    pub(super) fn finish(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let left = self.strike(Signal::KILL).unwrap_or_default();
            if left == 0 {
                return;
            }
            if Instant::now() >= deadline {
                tracing::warn!(left, "processes outlived their command's end");
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

/// What is known to belong to the command.
#[derive(Debug, Default)]
struct Kin {
    sessions: HashSet<i32>,
    members: HashMap<i32, u64>,
    /// Whether everything this process has for a child belongs.
    children: bool,
}

impl Kin {
    fn of(leader: Option<Pid>) -> Self {
        let mut kin = Self::default();
        if let Some(leader) = leader {
            // The leader leads the session and the group of the same number.
            kin.sessions.insert(leader.as_raw_nonzero().get());
        }
        kin
    }

    /// The live processes of `entries` that belong to the command, which are remembered.
    fn members(
        &mut self,
        entries: &[Entry],
        myself: u32,
        mut marked: impl FnMut(&Entry) -> bool,
    ) -> Vec<Entry> {
        let mut open: Vec<&Entry> = entries
            .iter()
            .filter(|entry| u32::try_from(entry.pid).ok() != Some(myself))
            .collect();
        let mut found = Vec::new();
        // Repeated because a child may be listed before its parent.
        loop {
            let before = open.len();
            open.retain(|entry| {
                let belongs = self.sessions.contains(&entry.session)
                    || self.sessions.contains(&entry.group)
                    || self.members.contains_key(&entry.parent)
                    || (self.children && u32::try_from(entry.parent).ok() == Some(myself))
                    || self.members.get(&entry.pid) == Some(&entry.started)
                    || (!entry.dead && marked(entry));
                if belongs {
                    self.members.insert(entry.pid, entry.started);
                    // Only a session that began inside the tree is the tree's.
                    if entry.session == entry.pid || self.members.contains_key(&entry.session) {
                        self.sessions.insert(entry.session);
                    }
                    found.push(**entry);
                }
                !belongs
            });
            if open.len() == before {
                break;
            }
        }
        found.retain(|entry| !entry.dead);
        // A pid of the dead may be given to a stranger between two looks.
        let live: HashSet<i32> = entries.iter().map(|entry| entry.pid).collect();
        self.members.retain(|pid, _| live.contains(pid));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `pid parent group session`, all started at tick 1.
    fn entries(rows: &[(i32, i32, i32, i32)]) -> Vec<Entry> {
        rows.iter()
            .map(|&(pid, parent, group, session)| Entry {
                pid,
                parent,
                group,
                session,
                started: 1,
                dead: false,
            })
            .collect()
    }

    fn pids(found: &[Entry]) -> Vec<i32> {
        let mut pids: Vec<i32> = found.iter().map(|entry| entry.pid).collect();
        pids.sort_unstable();
        pids
    }

    const NOBODY: fn(&Entry) -> bool = |_| false;

    #[test]
    fn members_are_found_by_session_group_parentage_and_mark() {
        let mut kin = Kin::of(Pid::from_raw(10));
        let table = entries(&[
            (1, 0, 1, 1),
            (5, 1, 5, 5),     // this server
            (12, 11, 12, 12), // listed before its parent, in a session of its own
            (10, 5, 10, 10),  // the leader
            (11, 10, 10, 10),
            (13, 1, 10, 10),  // orphan in the session
            (14, 1, 14, 14),  // daemon, marked
            (15, 14, 15, 15), // its child
            (20, 5, 20, 20),  // another command
            (21, 1, 12, 12),  // joined a session of the tree after its parent died
        ]);
        let found = kin.members(&table, 5, |entry| entry.pid == 14);
        assert_eq!(pids(&found), [10, 11, 12, 13, 14, 15, 21]);
    }

    #[test]
    fn a_session_met_before_is_followed_after_its_leader_is_gone() {
        let mut kin = Kin::of(Pid::from_raw(10));
        kin.members(&entries(&[(10, 5, 10, 10), (12, 10, 12, 12)]), 5, NOBODY);
        let later = entries(&[(30, 1, 12, 12), (31, 1, 31, 31)]);
        assert_eq!(pids(&kin.members(&later, 5, NOBODY)), [30]);
    }

    #[test]
    fn a_marked_process_in_a_foreign_session_does_not_claim_that_session() {
        let mut kin = Kin::of(None);
        let table = entries(&[(40, 39, 39, 38), (38, 1, 38, 38), (41, 38, 41, 38)]);
        let found = kin.members(&table, 5, |entry| entry.pid == 40);
        assert_eq!(pids(&found), [40]);
    }

    #[test]
    fn the_dead_pass_membership_on_but_are_not_killed() {
        let mut kin = Kin::of(Pid::from_raw(10));
        let mut table = entries(&[(10, 5, 10, 10), (11, 10, 11, 11), (12, 11, 12, 12)]);
        table[1].dead = true;
        assert_eq!(pids(&kin.members(&table, 5, NOBODY)), [10, 12]);
    }

    #[test]
    fn a_reused_pid_is_a_stranger() {
        let mut kin = Kin::of(Pid::from_raw(10));
        kin.members(&entries(&[(10, 5, 10, 10), (11, 10, 10, 10)]), 5, NOBODY);
        let mut table = entries(&[(11, 1, 99, 99)]);
        table[0].started = 2;
        assert!(kin.members(&table, 5, NOBODY).is_empty());
    }

    #[test]
    fn the_server_itself_is_never_a_member() {
        let mut kin = Kin::of(Pid::from_raw(10));
        let table = entries(&[(5, 10, 10, 10)]);
        assert!(kin.members(&table, 5, |_| true).is_empty());
    }

    #[test]
    fn all_children_are_members_only_where_that_is_asked_for() {
        let table = entries(&[
            (5, 1, 5, 5),
            (30, 5, 30, 30),
            (31, 30, 31, 31),
            (32, 1, 32, 32),
        ]);
        assert!(Kin::of(None).members(&table, 5, NOBODY).is_empty());
        let mut kin = Kin {
            children: true,
            ..Kin::default()
        };
        assert_eq!(pids(&kin.members(&table, 5, NOBODY)), [30, 31]);
    }

    #[test]
    fn marks_name_server_and_command() {
        let (name, value) = Mark::command(0xabc, 7).variable();
        assert_eq!((name, value.as_str()), (VARIABLE, "0000000000000abc.7"));
    }
}
