//! Large files up and down, in memory and on a disk, beside `cp` of the same file on the same file system.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{statvfs, syncfs};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::small::path;
use super::{Found, MEBIBYTE, Setting, compare};
use crate::bench::client::{Connection, LARGE_BUFFER};
use crate::bench::figures::number;
use crate::bench::installed::installed;
use crate::bench::rounds::Gate;
use crate::runtime_bench::args::Leg;
use crate::runtime_bench::peers::Kind;
use crate::runtime_bench::report::Report;
use crate::runtime_bench::server::Server;
use crate::runtime_bench::stage::{Cast, Stage, temporary};

/// By the clock; 10^9 bytes.
pub const SPEED: &str = "GB/s";
/// What the server spends.
pub const COST: &str = "CPU-s/GiB";
/// By how much the largest resident set exceeds the one before.
pub const GROWTH: &str = "peak MiB over idle";
/// 256 MiB to a file in memory.
pub const UP_MEMORY: &str = "256 MiB up, memory";
/// 256 MiB from there.
pub const DOWN_MEMORY: &str = "256 MiB down, memory";
/// 256 MiB to a file on the disk.
pub const UP_DISK: &str = "256 MiB up, disk";
/// 256 MiB from there; it is cached.
pub const DOWN_DISK: &str = "256 MiB down, disk";
/// What is moved. Those of a gibibyte are at the end of each storage's.
const MOVES: [Move; 8] = [
    Move::new(UP_MEMORY, 256, true, false),
    Move::new(DOWN_MEMORY, 256, false, false),
    Move::new("1 GiB up, memory", 1024, true, false),
    Move::new("1 GiB down, memory", 1024, false, false),
    Move::new(UP_DISK, 256, true, true),
    Move::new(DOWN_DISK, 256, false, true),
    Move::new("1 GiB up, disk", 1024, true, true),
    Move::new("1 GiB down, disk", 1024, false, true),
];
/// MiB that are moved at once, in as many files as it takes: processor time is counted in hundredths
/// of a second.
const AT_ONCE: u64 = 1024;
/// Space there must be, in bytes, unless files are small.
const SPACE: u64 = 8 << 30;
/// What one file may take.
const FILE: Duration = Duration::from_secs(120);
/// The name of a file that is downloaded.
const SOURCE: &str = "source";
/// The name of a file that is uploaded, or copied.
const TARGET: &str = "target";
const BOUNDARY: &str = "a-line-that-files-here-do-not-have";
/// Large files are made of this, again and again.
static BLOCK: [u8; LARGE_BUFFER] = [b'x'; LARGE_BUFFER];

#[derive(Clone, Copy)]
struct Move {
    name: &'static str,
    mebibytes: u64,
    is_up: bool,
    is_disk: bool,
}

impl Move {
    const fn new(name: &'static str, mebibytes: u64, is_up: bool, is_disk: bool) -> Self {
        Self {
            name,
            mebibytes,
            is_up,
            is_disk,
        }
    }
}

/// Where files are, and how large.
struct Site {
    root: PathBuf,
    bytes: u64,
    files: u64,
    is_up: bool,
    sees_memory: bool,
}

/// Measures everybody.
pub async fn run(stage: &Stage, gate: &mut Gate, report: &mut Report) -> Result<()> {
    let kinds = [Kind::Cp, Kind::Runtime, Kind::Legacy, Kind::Python];
    for is_disk in [false, true] {
        let Some(directory) = storage(stage, is_disk, report)? else {
            continue;
        };
        let cast = stage.cast(&kinds, directory.path(), &[], report).await?;
        let moves = MOVES.iter().filter(|it| it.is_disk == is_disk);
        for step in moves.filter(|it| stage.plan.largest || it.mebibytes < AT_ONCE) {
            let site = Site {
                root: directory.path().to_owned(),
                bytes: (step.mebibytes << 20) / stage.plan.divisor,
                files: AT_ONCE / step.mebibytes,
                is_up: step.is_up,
                sees_memory: stage.sees_memory,
            };
            site.prepare()?;
            let setting = Setting {
                leg: Leg::Transfer,
                name: step.name,
                rounds: stage.plan.long_rounds,
            };
            compare(&cast, setting, gate, report, async |kind| {
                measure(stage, &cast, kind, &site).await
            })
            .await?;
            // Dirty pages of one step are not the next one's.
            site.settle()?;
        }
    }
    Ok(())
}

/// A directory for large files, if there is a place for it.
fn storage(stage: &Stage, is_disk: bool, report: &mut Report) -> Result<Option<TempDir>> {
    let (what, parent) = if is_disk {
        ("disk", &stage.plan.disk)
    } else {
        ("memory", &stage.plan.memory)
    };
    let kind = file_system(parent);
    let free = statvfs(parent)
        .with_context(|| format!("cannot look at {}", parent.display()))
        .map(|it| it.f_bavail.saturating_mul(it.f_frsize));
    let why = match (free, kind.as_deref()) {
        (Err(error), _) => format!("{error:#}"),
        (Ok(free), _) if free < SPACE / stage.plan.divisor => {
            format!("{} MiB are free, and 8 GiB must be", free >> 20)
        }
        (_, Some("tmpfs" | "ramfs")) if is_disk => {
            format!(
                "{} is in memory; --disk DIR names another",
                parent.display()
            )
        }
        (_, kind) => {
            let about = format!("{} ({})", parent.display(), kind.unwrap_or("unknown"));
            report.about(
                if is_disk {
                    "files on disk"
                } else {
                    "files in memory"
                },
                about,
            );
            return Ok(Some(temporary(parent)?));
        }
    };
    report.about(what, format!("large files are left out there: {why}"));
    Ok(None)
}

/// The type of the file system a directory is on: that of the longest mount point above it.
fn file_system(directory: &Path) -> Option<String> {
    let directory = directory.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mount_type(&mounts, &directory)
}

fn mount_type(mounts: &str, directory: &Path) -> Option<String> {
    let points = mounts.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        Some((words.next()?, words.next()?))
    });
    // Of two on the same point the later one hides the other.
    points
        .filter(|(point, _)| directory.starts_with(point))
        .max_by_key(|(point, _)| point.len())
        .map(|(_, kind)| kind.to_owned())
}

impl Site {
    fn source(&self) -> PathBuf {
        self.root.join(SOURCE)
    }

    fn target(&self) -> PathBuf {
        self.root.join(TARGET)
    }

    /// Writes the file that is copied and downloaded.
    fn prepare(&self) -> Result<()> {
        let path = self.source();
        let file = std::fs::File::create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        let block = u64::try_from(BLOCK.len())?;
        for number in 0..self.bytes / block {
            file.write_all_at(&BLOCK, number * block)?;
        }
        ensure!(
            self.bytes.is_multiple_of(block),
            "{} bytes are no whole blocks",
            self.bytes
        );
        self.settle()
    }

    /// Waits until everything is on the disk, so that nobody pays for what was written before.
    fn settle(&self) -> Result<()> {
        let directory = std::fs::File::open(&self.root)?;
        syncfs(&directory).with_context(|| format!("cannot sync {}", self.root.display()))
    }

    /// Makes room for the next file: everybody writes a new one.
    fn clear(&self) -> Result<()> {
        match std::fs::remove_file(self.target()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove a copy")
            }
            _ => Ok(()),
        }
    }

    /// Fails unless the file is whole: its length, its first block and its last.
    fn check(&self) -> Result<()> {
        let path = self.target();
        let file = std::fs::File::open(&path)
            .with_context(|| format!("{} is not there", path.display()))?;
        let length = file.metadata()?.len();
        ensure!(length == self.bytes, "{length} of {} bytes", self.bytes);
        let last = self.bytes.saturating_sub(u64::try_from(BLOCK.len())?);
        for offset in [0, last] {
            let mut block = vec![0; BLOCK.len()];
            file.read_exact_at(&mut block, offset)?;
            ensure!(block == BLOCK, "other bytes than were sent");
        }
        Ok(())
    }
}

async fn measure(stage: &Stage, cast: &Cast, kind: Kind, site: &Site) -> Result<Found> {
    let bytes = number(site.bytes * site.files);
    let speed = |time: Duration| (SPEED, bytes / 1e9 / time.as_secs_f64());
    site.clear()?;
    site.settle()?;
    if kind == Kind::Cp {
        let mut whole = Duration::ZERO;
        for _ in 0..site.files {
            site.clear()?;
            whole += stage.placement.with_measured(|| copy(site))??;
        }
        site.check()?;
        return Ok(vec![speed(whole)]);
    }
    let server = cast.server(kind)?;
    let tree = server.tree()?;
    let mut resident = None;
    if site.sees_memory {
        tree.forget_peak()?;
        resident = Some(tree.resident()?);
    }
    let (before, _) = tree.root_time()?;
    let mut whole = Duration::ZERO;
    for _ in 0..site.files {
        site.clear()?;
        let start = Instant::now();
        if site.is_up {
            timeout(FILE, upload(server, kind, site.bytes)).await??;
        } else {
            timeout(FILE, download(server, kind, site.bytes)).await??;
        }
        whole += start.elapsed();
    }
    if site.is_up {
        site.check()?;
    }
    let (after, _) = tree.root_time()?;
    let gibibytes = bytes / MEBIBYTE / 1024.0;
    let spent = after.saturating_sub(before).as_secs_f64() / gibibytes;
    let mut found = vec![speed(whole), (COST, spent)];
    if let Some(resident) = resident {
        let growth = tree.peak()?.saturating_sub(resident);
        found.push((GROWTH, number(growth) / MEBIBYTE));
    }
    Ok(found)
}

/// How long `cp` takes, from before its start to its end.
fn copy(site: &Site) -> Result<Duration> {
    let mut command = installed("cp")?;
    command
        .arg(site.source())
        .arg(site.target())
        .stdin(Stdio::null());
    run_to_end(&mut command)
}

fn run_to_end(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    let status = command.status().context("cp does not start")?;
    ensure!(status.success(), "cp failed ({status})");
    Ok(start.elapsed())
}

async fn download(server: &Server, kind: Kind, bytes: u64) -> Result<()> {
    let request = server.request(&path(kind, SOURCE));
    let mut connection = Connection::open(request.address).await?;
    connection.enlarge();
    let head = request.head("GET", "");
    let answer = connection.exchange(head.as_bytes()).await?;
    ensure!(
        answer.status == 200 && answer.length == bytes,
        "answered {} with {} of {bytes} bytes",
        answer.status,
        answer.length
    );
    Ok(())
}

async fn upload(server: &Server, kind: Kind, bytes: u64) -> Result<()> {
    let (head, tail) = if kind == Kind::Runtime {
        let head = format!("Content-Length: {bytes}\r\n");
        let request = server.request(&path(kind, TARGET)).head("PUT", &head);
        (request, String::new())
    } else {
        form(server, bytes)?
    };
    let mut connection = Connection::open(server.address).await?;
    connection.send(head.as_bytes()).await?;
    let mut missing = usize::try_from(bytes)?;
    while missing > 0 {
        let length = missing.min(BLOCK.len());
        connection
            .send(BLOCK.get(..length).unwrap_or_default())
            .await?;
        missing -= length;
    }
    connection.send(tail.as_bytes()).await?;
    let (status, text) = connection.text().await?;
    ensure!((200..300).contains(&status), "answered {status}: {text}");
    Ok(())
}

/// What comes before a file and after it in a form.
fn form(server: &Server, bytes: u64) -> Result<(String, String)> {
    let part = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{TARGET}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    );
    let tail = format!("\r\n--{BOUNDARY}--\r\n");
    let length = bytes + u64::try_from(part.len() + tail.len())?;
    let more = format!(
        "Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n"
    );
    let head = server.request("/upload").head("POST", &more);
    Ok((head + &part, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts() {
        let mounts =
            "/dev/vda / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/vdb /tmp/a xfs rw 0 0\n";
        let kind = |path| mount_type(mounts, Path::new(path));
        assert_eq!(kind("/home").as_deref(), Some("ext4"));
        assert_eq!(kind("/tmp/b").as_deref(), Some("tmpfs"));
        assert_eq!(kind("/tmp/a/b").as_deref(), Some("xfs"));
        assert_eq!(kind("/tmpfile").as_deref(), Some("ext4"));
        assert_eq!(mount_type("", Path::new("/")), None);
    }

    #[test]
    fn copies_are_checked() {
        let directory = tempfile::tempdir().unwrap();
        let block = u64::try_from(BLOCK.len()).unwrap();
        let site = Site {
            root: directory.path().to_owned(),
            bytes: 2 * block,
            files: 1,
            is_up: true,
            sees_memory: false,
        };
        site.prepare().unwrap();
        site.clear().unwrap();
        assert!(site.check().is_err());
        copy(&site).unwrap();
        site.check().unwrap();
        let file = std::fs::File::options().write(true).open(site.target());
        file.as_ref().unwrap().write_all_at(b"y", block).unwrap();
        let error = site.check().unwrap_err().to_string();
        assert!(error.contains("other bytes"), "{error}");
        file.unwrap().set_len(block).unwrap();
        let error = site.check().unwrap_err().to_string();
        assert!(error.contains(&block.to_string()), "{error}");
        site.clear().unwrap();
        assert!(!site.target().exists());
    }
}
