//! A program with everything it started: what all of its processes together spend, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::machine;

/// The process at the root, and with it all that descend from it.
#[derive(Clone, Copy, Debug)]
pub struct Tree(i32);

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// In the program's own code.
    pub user: Duration,
    /// In the kernel, on its behalf.
    pub system: Duration,
}

impl Cpu {
    /// Both.
    pub fn all(self) -> Duration {
        self.user + self.system
    }

    /// What was spent since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
        }
    }
}

impl Tree {
    /// The tree below a process that lives.
    pub fn of(root: u32) -> Result<Self> {
        Ok(Self(i32::try_from(root)?))
    }

    /// The processes, the root first.
    pub fn members(self) -> Result<Vec<i32>> {
        let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("cannot list /proc")? {
            let entry = entry.context("cannot list /proc")?;
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // Processes come and go meanwhile.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
                continue;
            };
            if let Some(parent) = parent(&stat) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut members = vec![self.0];
        let mut next = 0;
        while let Some(pid) = members.get(next) {
            members.extend(children.remove(pid).unwrap_or_default());
            next += 1;
        }
        Ok(members)
    }

    /// Processor time of all of them. That of members which ended is not in it.
    pub fn cpu(self) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        for pid in self.members()? {
            let path = format!("/proc/{pid}/stat");
            let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            let (user, system) =
                machine::process_times(&stat).with_context(|| format!("{path} is unknown"))?;
            cpu.user += user;
            cpu.system += system;
        }
        Ok(cpu)
    }

    /// Processor time of the root alone, and the same with the children it has waited for.
    pub fn root_time(self) -> Result<(Duration, Duration)> {
        let path = format!("/proc/{}/stat", self.0);
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        machine::process_times(&stat)
            .map(|(user, system)| user + system)
            .zip(machine::whole_time(&stat))
            .with_context(|| format!("{path} is unknown"))
    }

    /// Processor time of all of them and of the children they have waited for.
    pub fn whole_time(self) -> Result<Duration> {
        self.members()?
            .into_iter()
            .try_fold(Duration::ZERO, |sum, pid| {
                let path = format!("/proc/{pid}/stat");
                // A child may end meanwhile, and then its parent's time has it soon.
                let Ok(stat) = fs::read_to_string(&path) else {
                    return Ok(sum);
                };
                let time =
                    machine::whole_time(&stat).with_context(|| format!("{path} is unknown"))?;
                Ok(sum + time)
            })
    }

    /// The proportional set size of all of them, in bytes.
    pub fn memory(self) -> Result<u64> {
        self.members()?.into_iter().map(machine::memory).sum()
    }

    /// The resident set size of all of them, in bytes.
    pub fn resident(self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The sum of the largest resident sets each has had since [`Self::forget_peak`], in bytes.
    pub fn peak(self) -> Result<u64> {
        self.status("VmHWM:")
    }

    /// Lets the kernel watch for the largest resident set anew.
    pub fn forget_peak(self) -> Result<()> {
        for pid in self.members()? {
            let path = format!("/proc/{pid}/clear_refs");
            fs::write(&path, "5").with_context(|| format!("cannot write {path}"))?;
        }
        Ok(())
    }

    /// Moves every thread of every member to a processor. Threads they start later stay there too.
    pub fn pin(self, processor: usize) -> Result<()> {
        self.place(&[processor])
    }

    /// The same for several processors.
    pub fn place(self, processors: &[usize]) -> Result<()> {
        let mut set = CpuSet::new();
        for processor in processors {
            set.set(*processor);
        }
        for pid in self.members()? {
            let tasks = Path::new("/proc").join(pid.to_string()).join("task");
            let list =
                fs::read_dir(&tasks).with_context(|| format!("cannot list {}", tasks.display()))?;
            for task in list {
                let name = task?.file_name();
                let thread = name.to_str().and_then(|name| name.parse().ok());
                match sched_setaffinity(thread.and_then(Pid::from_raw), &set) {
                    // A thread that ended meanwhile needs no place.
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => {
                        return Err(error).with_context(|| {
                            format!("cannot move process {pid} to processors {processors:?}")
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn status(self, key: &str) -> Result<u64> {
        let mut bytes = 0;
        for pid in self.members()? {
            let path = format!("/proc/{pid}/status");
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
            bytes += kibibytes(&text, key).with_context(|| format!("{path} has no {key}"))? * 1024;
        }
        Ok(bytes)
    }
}

/// The parent in a process's `stat`; the name before it may contain anything but ends with the last
/// parenthesis.
fn parent(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn kibibytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn parents_are_found_behind_any_name() {
        assert_eq!(parent("12 (a) 7) b) S 34 12 12 0"), Some(34));
        assert_eq!(parent("12 (a"), None);
    }

    #[test]
    fn sizes_are_in_kibibytes() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t     100 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(2048));
        assert_eq!(kibibytes(status, "VmRSS:"), Some(100));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
    }

    #[test]
    fn a_child_belongs_to_the_tree_and_follows_it() {
        // The shell waits for its own child, and both for the pipe to close.
        let mut shell = Command::new("sh")
            .args(["-c", "echo started; cat; true"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let tree = Tree::of(shell.id()).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let members = loop {
            let members = tree.members().unwrap();
            if members.len() == 2 {
                break members;
            }
            assert!(tokio::time::Instant::now() < deadline, "{members:?}");
            std::thread::yield_now();
        };
        assert_eq!(members[0], tree.0);
        assert!(tree.memory().unwrap() > 0);
        assert!(tree.peak().unwrap() >= tree.resident().unwrap());
        tree.forget_peak().unwrap();
        assert!(tree.cpu().unwrap().all() < Duration::from_secs(20));
        let allowed = rustix::thread::sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|it| allowed.is_set(*it)).unwrap();
        tree.pin(first).unwrap();
        for pid in members {
            let set = rustix::thread::sched_getaffinity(Pid::from_raw(pid)).unwrap();
            assert!(set.is_set(first) && set.count() == 1);
        }
        drop(shell.stdin.take());
        shell.wait().unwrap();
        assert!(tree.cpu().is_err());
    }
}
