//! What processes and the machine spend, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// Programs whose time is reported when they run on this machine.
const KNOWN: [&str; 5] = [
    "kube-apiserver",
    "etcd",
    "kube-controller-manager",
    "kube-scheduler",
    "kwok",
];
/// The API server's name among them.
pub const API_SERVER: &str = "kube-apiserver";
/// The operator's name in [`Times`].
pub const CONTROLLER: &str = "controller";
/// This program's name in [`Times`].
pub const BENCH: &str = "bench";

/// The processes that are looked at, by name.
#[derive(Clone, Debug, Default)]
pub struct Processes(BTreeMap<&'static str, i32>);

/// Processor time used so far, by name, and by the machine as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Times {
    by_name: BTreeMap<&'static str, Duration>,
    busy: Duration,
    idle: Duration,
}

impl Processes {
    /// Finds the cluster's programs by name. One that runs twice is left out: nothing tells which is
    /// meant.
    pub fn find(api_server: Option<i32>) -> Result<Self> {
        let mut found: BTreeMap<&'static str, Vec<i32>> = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("cannot list /proc")? {
            let entry = entry.context("cannot list /proc")?;
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // Processes come and go meanwhile.
            let Ok(line) = fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            if let Some(name) = program(&line) {
                found.entry(name).or_default().push(pid);
            }
        }
        let mut processes: BTreeMap<&'static str, i32> = found
            .into_iter()
            .filter_map(|(name, pids)| match pids.as_slice() {
                [pid] => Some((name, *pid)),
                _ => None,
            })
            .collect();
        if let Some(pid) = api_server {
            anyhow::ensure!(
                Path::new("/proc").join(pid.to_string()).exists(),
                "--apiserver-pid {pid}: there is no such process"
            );
            processes.insert(API_SERVER, pid);
        }
        processes.insert(BENCH, i32::try_from(std::process::id())?);
        Ok(Self(processes))
    }

    /// The same with the operator.
    #[must_use]
    pub fn with_controller(&self, pid: i32) -> Self {
        let mut processes = self.clone();
        processes.0.insert(CONTROLLER, pid);
        processes
    }

    /// Whether this process is looked at.
    pub fn knows(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Reads the clocks.
    pub fn times(&self) -> Result<Times> {
        let machine = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let (busy, idle) = machine_times(&machine).context("/proc/stat has an unknown form")?;
        let mut by_name = BTreeMap::new();
        for (name, pid) in &self.0 {
            let path = format!("/proc/{pid}/stat");
            let text = fs::read_to_string(&path)
                .with_context(|| format!("{name} is gone: cannot read {path}"))?;
            let (user, system) =
                process_times(&text).with_context(|| format!("{path} has an unknown form"))?;
            by_name.insert(*name, user + system);
        }
        Ok(Times {
            by_name,
            busy,
            idle,
        })
    }
}

impl Times {
    /// What was spent since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let by_name = self
            .by_name
            .iter()
            .filter_map(|(name, now)| Some((*name, now.saturating_sub(*before.by_name.get(name)?))))
            .collect();
        Self {
            by_name,
            busy: self.busy.saturating_sub(before.busy),
            idle: self.idle.saturating_sub(before.idle),
        }
    }

    /// What one of the processes spent.
    pub fn of(&self, name: &str) -> Option<Duration> {
        self.by_name.get(name).copied()
    }

    /// What each process spent.
    pub fn by_name(&self) -> impl Iterator<Item = (&'static str, Duration)> {
        self.by_name.iter().map(|(name, time)| (*name, *time))
    }

    /// Shares of the machine's whole capacity: each process, then `other` for everybody else.
    pub fn shares(&self) -> BTreeMap<String, f64> {
        let whole = (self.busy + self.idle).as_secs_f64();
        if whole == 0.0 {
            return BTreeMap::new();
        }
        let known: Duration = self.by_name.values().sum();
        let mut shares: BTreeMap<String, f64> = self
            .by_name
            .iter()
            .map(|(name, time)| ((*name).to_owned(), time.as_secs_f64() / whole))
            .collect();
        let other = self.busy.saturating_sub(known).as_secs_f64() / whole;
        shares.insert("other".to_owned(), other);
        shares
    }

    /// Time in which some processor worked, for anybody.
    pub fn busy(&self) -> Duration {
        self.busy
    }

    /// Time in which some processor had nothing to do.
    pub fn idle(&self) -> Duration {
        self.idle
    }

    /// The share of the machine that was idle.
    pub fn idle_share(&self) -> f64 {
        let whole = (self.busy + self.idle).as_secs_f64();
        if whole == 0.0 {
            return 1.0;
        }
        self.idle.as_secs_f64() / whole
    }
}

/// What this machine is: processors and kernel.
pub fn description() -> Result<String> {
    let processors = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let value = |line: &str| Some(line.split_once(':')?.1.trim().to_owned());
    let model = processors
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(value);
    let count = processors
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    Ok(format!(
        "{count} processors, {}, Linux {}",
        model.as_deref().unwrap_or("of an unknown model"),
        rustix::system::uname().release().to_string_lossy()
    ))
}

/// The proportional set size of a process in bytes: its own pages, and its part of shared ones.
pub fn memory(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    proportional(&text).with_context(|| format!("{path} names no Pss"))
}

fn proportional(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Which of the known programs a command line belongs to.
fn program(line: &[u8]) -> Option<&'static str> {
    let first = line.split(|byte| *byte == 0).next()?;
    let name = first.rsplit(|byte| *byte == b'/').next()?;
    KNOWN.into_iter().find(|known| known.as_bytes() == name)
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(count.saturating_mul(1000) / per_second)
}

/// User and system time in the text of a process's `stat`; its name, which may contain anything, ends
/// with the last parenthesis. `None` if the text has another form.
pub fn process_times(stat: &str) -> Option<(Duration, Duration)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((ticks(user), ticks(system)))
}

/// User and system time in the text of a process's `stat`, with that of the children it has waited
/// for. `None` if the text has another form.
pub fn whole_time(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> = rest
        .split_whitespace()
        .skip(11)
        .take(4)
        .map_while(|field| field.parse().ok())
        .collect();
    (fields.len() == 4).then(|| ticks(fields.iter().sum()))
}

/// Busy and idle time of all processors together. Waiting for a disk is idle, and so is nothing a
/// hypervisor gave to others.
fn machine_times(stat: &str) -> Option<(Duration, Duration)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let [
        user,
        nice,
        system,
        idle,
        waiting,
        interrupts,
        soft,
        stolen,
        ..,
    ] = *fields.as_slice()
    else {
        return None;
    };
    Some((
        ticks(user + nice + system + interrupts + soft + stolen),
        ticks(idle + waiting),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_their_file() {
        assert_eq!(program(b"/cache/bin/etcd\0--name\0e\0"), Some("etcd"));
        assert_eq!(program(b"kube-apiserver\0"), Some(API_SERVER));
        assert_eq!(program(b"/usr/bin/vim\0/etc/etcd\0"), None);
        assert_eq!(program(b""), None);
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "12 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(process_times(stat), Some((ticks(150), ticks(50))));
        assert_eq!(process_times("12 (a"), None);
        let stat = "12 (a) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 7 3 20 0 1 0 1 1 1";
        assert_eq!(whole_time(stat), Some(ticks(210)));
        assert_eq!(whole_time("12 (a) S 1 1 1 0 -1 0 0 0 0 0 150 50 7"), None);
    }

    #[test]
    fn the_machine_is_busy_or_idle() {
        let stat = "cpu  10 1 4 80 5 1 2 3 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(machine_times(stat), Some((ticks(21), ticks(85))));
        assert_eq!(machine_times("intr 1\n"), None);
    }

    #[test]
    fn memory_is_in_kibibytes() {
        let rollup = "5555-7fff ---p 00000000 00:00 0 [rollup]\nRss:    9000 kB\nPss:    8192 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(proportional(rollup), Some(8192 * 1024));
        assert_eq!(proportional("Rss: 1 kB\n"), None);
        assert!(memory(i32::try_from(std::process::id()).unwrap()).unwrap() > 0);
    }

    #[test]
    fn shares_add_up() {
        let times = |bench: u64, busy: u64, idle: u64| Times {
            by_name: BTreeMap::from([(BENCH, Duration::from_secs(bench))]),
            busy: Duration::from_secs(busy),
            idle: Duration::from_secs(idle),
        };
        let spent = times(3, 20, 30).since(&times(1, 12, 18));
        assert_eq!(spent.of(BENCH), Some(Duration::from_secs(2)));
        assert_eq!(spent.of(API_SERVER), None);
        let shares = spent.shares();
        assert!((shares["bench"] - 0.1).abs() < 1e-9, "{shares:?}");
        assert!((shares["other"] - 0.3).abs() < 1e-9, "{shares:?}");
        assert!((spent.idle_share() - 0.6).abs() < 1e-9);
    }

    #[test]
    fn own_time_passes() {
        let processes = Processes::find(None).unwrap();
        assert!(processes.knows(BENCH) && !processes.knows(CONTROLLER));
        let before = processes.times().unwrap();
        let mut value = 1_u64;
        // Ends as soon as one tick was counted.
        while processes.times().unwrap().since(&before).of(BENCH) == Some(Duration::ZERO) {
            value = std::hint::black_box(value.wrapping_mul(31));
        }
    }
}
