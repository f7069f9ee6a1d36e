//! What the process itself uses, read from `/proc` when the metrics are asked for, under the names
//! that Prometheus clients of all languages share. Only a program's own `serve` registers it: programs
//! that share a process would each claim all of it.

use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, Opts, Registry};

/// Registers the `process_*` metrics.
///
/// # Errors
/// When the registry already has one of the names.
pub fn register(registry: &Registry) -> prometheus::Result<()> {
    registry.register(Box::new(Process::new()?))
}

struct Process {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    threads: IntGauge,
    files: IntGauge,
    most_files: IntGauge,
    start: Gauge,
}

/// The members of `/proc/self/stat` that are shown.
#[derive(Debug, PartialEq)]
struct Stat {
    /// Processor time in clock ticks.
    ticks: u64,
    threads: i64,
    /// Clock ticks between the machine's start and the process's.
    start: u64,
    virtual_bytes: i64,
    resident_pages: i64,
}

impl Stat {
    /// Reads the one line of the file. The program's name, which may hold anything, is in parentheses;
    /// what follows is numbers, the first of them being the third member.
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.rsplit_once(')')?;
        let members: Vec<&str> = rest.split_whitespace().collect();
        let member = |number: usize| members.get(number - 3).copied();
        let count = |number| member(number)?.parse::<u64>().ok();
        let signed = |number| member(number)?.parse::<i64>().ok();
        Some(Self {
            ticks: count(14)? + count(15)?,
            threads: signed(20)?,
            start: count(22)?,
            virtual_bytes: signed(23)?,
            resident_pages: signed(24)?,
        })
    }
}

impl Process {
    fn new() -> prometheus::Result<Self> {
        Ok(Self {
            cpu: Counter::with_opts(Opts::new(
                "process_cpu_seconds_total",
                "Processor time used, of user and system.",
            ))?,
            resident: IntGauge::new("process_resident_memory_bytes", "Memory in use.")?,
            virtual_memory: IntGauge::new("process_virtual_memory_bytes", "Memory mapped.")?,
            threads: IntGauge::new("process_threads", "Threads of the operating system.")?,
            files: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            most_files: IntGauge::new("process_max_fds", "Most open file descriptors.")?,
            start: Gauge::new(
                "process_start_time_seconds",
                "When the process began, in seconds since 1970.",
            )?,
        })
    }

    fn parts(&self) -> [&dyn Collector; 7] {
        [
            &self.cpu,
            &self.resident,
            &self.virtual_memory,
            &self.threads,
            &self.files,
            &self.most_files,
            &self.start,
        ]
    }

    #[allow(
        clippy::cast_precision_loss,
        reason = "seconds and ticks are far below the 52 bits of a float"
    )]
    fn look(&self) {
        let stat = fs::read_to_string("/proc/self/stat").ok();
        if let Some(stat) = stat.as_deref().and_then(Stat::parse) {
            let per_second = rustix::param::clock_ticks_per_second() as f64;
            let cpu = stat.ticks as f64 / per_second;
            self.cpu.inc_by((cpu - self.cpu.get()).max(0.0));
            let page = i64::try_from(rustix::param::page_size()).unwrap_or(4096);
            self.resident.set(stat.resident_pages.saturating_mul(page));
            self.virtual_memory.set(stat.virtual_bytes);
            self.threads.set(stat.threads);
            if let Some(boot) = boot_time() {
                self.start.set(boot as f64 + stat.start as f64 / per_second);
            }
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // Looking takes one itself.
            let open = files.count().saturating_sub(1);
            self.files.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let most = limit.current.and_then(|most| i64::try_from(most).ok());
        self.most_files.set(most.unwrap_or(i64::MAX));
    }
}

/// When the machine began, in seconds since 1970.
fn boot_time() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look();
        self.parts()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_confuses_nobody() {
        let line =
            "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 30 12 0 0 20 0 5 0 1000 4096000 250 1 1";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(
            stat,
            Stat {
                ticks: 42,
                threads: 5,
                start: 1000,
                virtual_bytes: 4_096_000,
                resident_pages: 250,
            }
        );
        assert_eq!(Stat::parse("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let registry = Registry::new();
        register(&registry).unwrap();
        let families = registry.gather();
        let value = |name: &str| {
            let family = families
                .iter()
                .find(|family| family.name() == name)
                .unwrap();
            let metric = family.get_metric().first().unwrap();
            if name.ends_with("_total") {
                metric.get_counter().get_value()
            } else {
                metric.get_gauge().get_value()
            }
        };
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_resident_memory_bytes") > 65536.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let start = value("process_start_time_seconds");
        assert!(start > 1.0e9 && start < now.as_secs_f64() + 60.0, "{start}");
    }
}
