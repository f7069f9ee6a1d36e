//! Reaching every descendant of a command, to signal it.
//!
//! A process belongs to a command if it is a child of one that does, shares its session, or was
//! started with the command's mark in its environment. The mark finds daemons: they leave
//! session, group and parent behind, but the environment goes along. Sessions met on the way stay
//! known, so that a child forked between two looks is found by the next one; but only while nobody else
//! can have got their numbers.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::time::Instant;

use crate::sys::proc::{self, Entry};

/// The variable that marks the processes of a command.
const VARIABLE: &str = "AGENT_SANDBOX_PROCESS";
/// The pause between two looks while killed processes are still going.
const PAUSE: Duration = Duration::from_millis(2);

/// Numbers are given out in turn, so one that became free is given out again only after all others. To come
/// round within this time takes 130,000 new processes and threads a second where there are only 32768
/// numbers, and 16 million where there are as many as on usual machines.
const ROUND: Duration = Duration::from_millis(250);

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
    /// For what carries `mark`.
    pub(super) fn new(mark: Mark) -> Self {
        Self {
            mark,
            kin: Kin::new(Instant::now()),
            clean: HashSet::new(),
        }
    }

    /// And for what belongs to `leader`, a command that has still not been waited for after this call.
    pub(super) fn led_by(mut self, leader: Pid) -> Self {
        let leader = leader.as_raw_nonzero().get();
        if let Some(started) = proc::started(leader) {
            self.kin.lead(leader, started);
        }
        self
    }

    /// For what carries `mark`, and for all children of this process, orphans that became its own
    /// included: also a daemon that threw its environment away.
    pub(super) fn of_all_children(mark: Mark) -> Self {
        let mut hunt = Self::new(mark);
        hunt.kin.children = true;
        hunt
    }

    /// Sends a signal to every live member there is now and returns how many those were; `None` when
    /// there is no way to look.
    pub(super) fn strike(&mut self, signal: Signal) -> Option<usize> {
        let began = Instant::now();
        let entries = match proc::entries() {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "/proc is not readable, only process groups are signalled");
                return None;
            }
        };
        let Self { mark, kin, clean } = self;
        let look = Look {
            entries: &entries,
            began,
            ended: Instant::now(),
            myself: std::process::id(),
        };
        let members = kin.members(look, |entry| {
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

/// What there was when all processes were looked at.
#[derive(Clone, Copy, Debug)]
struct Look<'a> {
    entries: &'a [Entry],
    began: Instant,
    ended: Instant,
    /// The number of this process.
    myself: u32,
}

/// What is known to belong to the command.
#[derive(Debug)]
struct Kin {
    /// Sessions of the tree, and when each was last known to be there.
    sessions: HashMap<i32, Instant>,
    /// Processes of the last look and when they were started, which tells them from later ones of their
    /// number.
    members: HashMap<i32, u64>,
    /// When the last look began.
    looked: Instant,
    /// Whether everything this process has for a child belongs.
    children: bool,
}

impl Kin {
    fn new(now: Instant) -> Self {
        Self {
            sessions: HashMap::new(),
            members: HashMap::new(),
            looked: now,
            children: false,
        }
    }

    fn lead(&mut self, leader: i32, started: u64) {
        self.members.insert(leader, started);
        // The leader leads the session of the same number.
        self.sessions.insert(leader, self.looked);
    }

    /// The live processes of the look that belong to the command, which are remembered.
    fn members(&mut self, look: Look<'_>, mut marked: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        self.forget(look);
        let is_myself = |number: i32| u32::try_from(number).ok() == Some(look.myself);
        let mut open: Vec<&Entry> = look
            .entries
            .iter()
            .filter(|entry| !is_myself(entry.pid))
            .collect();
        let mut found = Vec::new();
        // Repeated because a child may be listed before its parent.
        loop {
            let before = open.len();
            open.retain(|entry| {
                let belongs = self.sessions.contains_key(&entry.session)
                    || self.members.contains_key(&entry.parent)
                    || (self.children && is_myself(entry.parent))
                    || self.members.get(&entry.pid) == Some(&entry.started)
                    || (!entry.dead && marked(entry));
                if belongs {
                    self.members.insert(entry.pid, entry.started);
                    // Only a session that began inside the tree is the tree's.
                    if self.sessions.contains_key(&entry.session)
                        || entry.session == entry.pid
                        || self.members.contains_key(&entry.session)
                    {
                        self.sessions.insert(entry.session, look.began);
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
        let listed: HashSet<i32> = look.entries.iter().map(|entry| entry.pid).collect();
        self.members.retain(|pid, _| listed.contains(pid));
        self.looked = look.began;
        found
    }

    /// Forgets the numbers that may be somebody else's by now. That of a process is its own while its time
    /// of start is the same. That of a session is while one of its members is in it still: the kernel gives
    /// out no number that a session bears. Where nobody is left who was seen before, it is trusted for
    /// as long as it cannot have been given out again.
    fn forget(&mut self, look: Look<'_>) {
        let listed: HashMap<i32, u64> = look
            .entries
            .iter()
            .map(|entry| (entry.pid, entry.started))
            .collect();
        let fresh = |seen: Instant| look.ended.saturating_duration_since(seen) < ROUND;
        let looked = self.looked;
        self.members.retain(|pid, started| match listed.get(pid) {
            Some(now) => now == started,
            None => fresh(looked),
        });
        let witnessed: HashSet<i32> = look
            .entries
            .iter()
            .filter(|entry| self.members.get(&entry.pid) == Some(&entry.started))
            .map(|entry| entry.session)
            .collect();
        let members = &self.members;
        self.sessions.retain(|number, seen| {
            // A process with the session's number that is not the one that began it began another.
            let began_it = listed
                .get(number)
                .is_none_or(|now| members.get(number) == Some(now));
            witnessed.contains(number) || (fresh(*seen) && began_it)
        });
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

    /// The kin of the command that process 10 leads.
    fn kin() -> Kin {
        let mut kin = Kin::new(Instant::now());
        kin.lead(10, 1);
        kin
    }

    /// A look by process 5, which is this server, so long after the last one.
    fn look_after<'a>(kin: &Kin, pause: Duration, entries: &'a [Entry]) -> Look<'a> {
        Look {
            entries,
            began: kin.looked + pause,
            ended: kin.looked + pause,
            myself: 5,
        }
    }

    fn members(kin: &mut Kin, entries: &[Entry], marked: impl FnMut(&Entry) -> bool) -> Vec<Entry> {
        let look = look_after(kin, Duration::from_millis(1), entries);
        kin.members(look, marked)
    }

    const NOBODY: fn(&Entry) -> bool = |_| false;

    #[test]
    fn members_are_found_by_session_group_parentage_and_mark() {
        let mut kin = kin();
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
        let found = members(&mut kin, &table, |entry| entry.pid == 14);
        assert_eq!(pids(&found), [10, 11, 12, 13, 14, 15, 21]);
    }

    #[test]
    fn a_session_met_before_is_followed_after_its_leader_is_gone() {
        let mut kin = kin();
        members(
            &mut kin,
            &entries(&[(10, 5, 10, 10), (12, 10, 12, 12)]),
            NOBODY,
        );
        let later = entries(&[(30, 1, 12, 12), (31, 1, 31, 31)]);
        assert_eq!(pids(&members(&mut kin, &later, NOBODY)), [30]);
    }

    #[test]
    fn a_marked_process_in_a_foreign_session_does_not_claim_that_session() {
        let mut kin = Kin::new(Instant::now());
        let table = entries(&[(40, 39, 39, 38), (38, 1, 38, 38), (41, 38, 41, 38)]);
        let found = members(&mut kin, &table, |entry| entry.pid == 40);
        assert_eq!(pids(&found), [40]);
    }

    #[test]
    fn the_dead_pass_membership_on_but_are_not_killed() {
        let mut kin = kin();
        let mut table = entries(&[(10, 5, 10, 10), (11, 10, 11, 11), (12, 11, 12, 12)]);
        table[1].dead = true;
        assert_eq!(pids(&members(&mut kin, &table, NOBODY)), [10, 12]);
    }

    #[test]
    fn a_reused_pid_is_a_stranger() {
        let mut kin = kin();
        members(
            &mut kin,
            &entries(&[(10, 5, 10, 10), (11, 10, 10, 10)]),
            NOBODY,
        );
        let mut table = entries(&[(11, 1, 99, 99)]);
        table[0].started = 2;
        assert!(members(&mut kin, &table, NOBODY).is_empty());
    }

    #[test]
    fn a_parent_of_a_reused_pid_passes_nothing_on() {
        let mut kin = kin();
        members(
            &mut kin,
            &entries(&[(10, 5, 10, 10), (11, 10, 11, 11)]),
            NOBODY,
        );
        let mut table = entries(&[(10, 5, 10, 10), (11, 1, 90, 90), (12, 11, 90, 90)]);
        table[1].started = 2;
        assert_eq!(pids(&members(&mut kin, &table, NOBODY)), [10]);
    }

    #[test]
    fn a_group_that_got_the_number_of_a_session_is_a_stranger() {
        let mut kin = kin();
        members(
            &mut kin,
            &entries(&[(10, 5, 10, 10), (12, 10, 12, 12)]),
            NOBODY,
        );
        let table = entries(&[(10, 5, 10, 10), (40, 1, 12, 38)]);
        assert_eq!(pids(&members(&mut kin, &table, NOBODY)), [10]);
    }

    #[test]
    fn a_session_of_a_reused_number_is_a_strangers() {
        for (table, pause, expected) in [
            // Another process began it, whenever that was.
            (&[(12, 1, 12, 12), (13, 1, 12, 12)][..], 1, &[][..]),
            // Nobody of before is left, and the number may have been given out again.
            (&[(13, 1, 12, 12)], 1000, &[]),
            // It cannot have been.
            (&[(13, 1, 12, 12)], 1, &[13]),
            // One who was in it before still is.
            (&[(13, 1, 12, 12), (14, 1, 12, 12)], 1000, &[13, 14]),
        ] {
            let mut kin = kin();
            let mut before = entries(&[(10, 5, 10, 10), (12, 10, 12, 12)]);
            if expected.contains(&14) {
                before.extend(entries(&[(14, 12, 12, 12)]));
            }
            members(&mut kin, &before, NOBODY);
            let mut table = entries(table);
            for entry in &mut table {
                entry.started = if entry.pid == 14 { 1 } else { 2 };
            }
            let look = look_after(&kin, Duration::from_millis(pause), &table);
            let found = kin.members(look, NOBODY);
            assert_eq!(pids(&found), expected, "{table:?} after {pause} ms");
        }
    }

    #[test]
    fn the_leader_is_met_only_while_its_number_is_its_own() {
        for (started, expected) in [(1, &[10, 11][..]), (2, &[])] {
            let mut kin = kin();
            let mut table = entries(&[(10, 5, 10, 10), (11, 1, 10, 10)]);
            table[0].started = started;
            let look = look_after(&kin, Duration::from_secs(1), &table);
            assert_eq!(pids(&kin.members(look, NOBODY)), expected);
        }
    }

    #[test]
    fn the_server_itself_is_never_a_member() {
        let mut kin = kin();
        let table = entries(&[(5, 10, 10, 10)]);
        assert!(members(&mut kin, &table, |_| true).is_empty());
    }

    #[test]
    fn all_children_are_members_only_where_that_is_asked_for() {
        let table = entries(&[
            (5, 1, 5, 5),
            (30, 5, 30, 30),
            (31, 30, 31, 31),
            (32, 1, 32, 32),
        ]);
        assert!(members(&mut Kin::new(Instant::now()), &table, NOBODY).is_empty());
        let mut kin = Kin {
            children: true,
            ..Kin::new(Instant::now())
        };
        assert_eq!(pids(&members(&mut kin, &table, NOBODY)), [30, 31]);
    }

    #[test]
    fn marks_name_server_and_command() {
        let (name, value) = Mark::command(0xabc, 7).variable();
        assert_eq!((name, value.as_str()), (VARIABLE, "0000000000000abc.7"));
    }
}
