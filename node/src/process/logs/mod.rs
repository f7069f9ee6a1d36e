//! What containers print: collected from their pipes, kept in files of bounded size, read back.
//!
//! One line per record, in the format that container runtimes write for the kubelet:
//! `TIME STREAM TAG TEXT`, where the tag is `F` for a full line and `P` for a part of one.
//! A container has at most two files; when the current one is full it becomes the older one.

pub(crate) mod read;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent_sandbox_service::clock::Clock;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// Size at which a file is full; two of them bound a container's log.
pub(crate) const MAX_FILE: u64 = 10 << 20;

/// Longest text in one record; longer lines are split, as container runtimes do.
const MAX_TEXT: usize = 16 << 10;

/// Bytes and lines that a termination message taken from the log may have.
const TAIL_BYTES: usize = 2048;
const TAIL_LINES: usize = 80;

/// The stream a line was printed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// How far a log has got; readers that follow wait for it to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Bytes written to the current file.
    pub(crate) written: u64,
    /// How often the file was replaced.
    pub(crate) rotations: u64,
    /// Whether nothing will follow.
    pub(crate) closed: bool,
}

/// The log of one run of one container, for readers.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: Arc<Path>,
    progress: watch::Receiver<Progress>,
}

impl Log {
    /// The current file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The older file.
    pub(crate) fn older(&self) -> PathBuf {
        older(&self.path)
    }

    /// How far the log has got.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// The end of the log as a termination message.
    pub(crate) fn tail(&self) -> String {
        let text = fs::read(&self.path).unwrap_or_default();
        let lines: Vec<read::Record<'_>> = text
            .split(|byte| *byte == b'\n')
            .filter_map(read::Record::parse)
            .collect();
        let mut tail = Vec::new();
        let from = lines.len().saturating_sub(TAIL_LINES);
        for record in lines.get(from..).unwrap_or(&[]) {
            tail.extend_from_slice(record.text);
            if record.full {
                tail.push(b'\n');
            }
        }
        let from = tail.len().saturating_sub(TAIL_BYTES);
        String::from_utf8_lossy(tail.get(from..).unwrap_or(&[])).into_owned()
    }

    /// Removes the files. Readers that have them open read on.
    pub(crate) fn remove(&self) {
        for path in [self.path.to_path_buf(), self.older()] {
            if let Err(error) = crate::state_dir::remove_tree(&path) {
                tracing::warn!(path = %path.display(), %error, "removing a log failed");
            }
        }
    }
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// The writing end of a log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    path: Arc<Path>,
    file: File,
    progress: watch::Sender<Progress>,
    limit: u64,
    clock: Clock,
}

impl LogWriter {
    /// Creates the log at `path`.
    pub(crate) fn create(path: &Path, clock: Clock) -> io::Result<(Self, Log)> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = open(path)?;
        let (progress, receiver) = watch::channel(Progress::default());
        let path: Arc<Path> = path.into();
        let log = Log {
            path: path.clone(),
            progress: receiver,
        };
        let writer = Self {
            path,
            file,
            progress,
            limit: MAX_FILE,
            clock,
        };
        Ok((writer, log))
    }

    /// Copies both pipes into the log until they end. Idle pipes hold no buffer.
    pub(crate) async fn collect(mut self, stdout: OwnedFd, stderr: OwnedFd) {
        if let Err(error) = self.copy(stdout, stderr).await {
            tracing::warn!(path = %self.path.display(), %error, "keeping a log failed");
        }
        self.progress.send_modify(|progress| progress.closed = true);
    }

    async fn copy(&mut self, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<()> {
        let mut stdout = Lines::new(Receiver::from_owned_fd(stdout)?, Stream::Stdout);
        let mut stderr = Lines::new(Receiver::from_owned_fd(stderr)?, Stream::Stderr);
        while stdout.open || stderr.open {
            tokio::select! {
                ready = stdout.pipe.readable(), if stdout.open => {
                    ready?;
                    stdout.copy_available(self)?;
                }
                ready = stderr.pipe.readable(), if stderr.open => {
                    ready?;
                    stderr.copy_available(self)?;
                }
            }
        }
        Ok(())
    }

    /// Appends one record.
    fn record(&mut self, stream: Stream, text: &[u8], full: bool) -> io::Result<()> {
        let tag = if full { "F" } else { "P" };
        let mut record = format!("{:.9} {} {tag} ", self.clock.now(), stream.name()).into_bytes();
        record.extend_from_slice(text);
        record.push(b'\n');
        let length = record.len() as u64;
        if self.progress.borrow().written + length > self.limit {
            self.rotate()?;
        }
        self.file.write_all(&record)?;
        self.progress
            .send_modify(|progress| progress.written += length);
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        fs::rename(&self.path, older(&self.path))?;
        self.file = open(&self.path)?;
        self.progress.send_modify(|progress| {
            progress.written = 0;
            progress.rotations += 1;
        });
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(true)
        .open(path)
}

/// One pipe and the line that has not ended yet.
#[derive(Debug)]
struct Lines {
    pipe: Receiver,
    stream: Stream,
    partial: Vec<u8>,
    open: bool,
}

impl Lines {
    fn new(pipe: Receiver, stream: Stream) -> Self {
        Self {
            pipe,
            stream,
            partial: Vec::new(),
            open: true,
        }
    }

    fn copy_available(&mut self, log: &mut LogWriter) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match self.pipe.try_read(&mut buffer) {
            Ok(0) => {
                self.open = false;
                if self.partial.is_empty() {
                    return Ok(());
                }
                let rest = std::mem::take(&mut self.partial);
                log.record(self.stream, &rest, true)
            }
            Ok(read) => self.append(buffer.get(..read).unwrap_or(&[]), log),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn append(&mut self, bytes: &[u8], log: &mut LogWriter) -> io::Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            self.partial.extend_from_slice(text);
            while self.partial.len() > MAX_TEXT {
                let rest = self.partial.split_off(MAX_TEXT);
                let part = std::mem::replace(&mut self.partial, rest);
                log.record(self.stream, &part, false)?;
            }
            if ended {
                let line = std::mem::take(&mut self.partial);
                log.record(self.stream, &line, true)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn writer(directory: &Path) -> (LogWriter, Log) {
        let start = "2026-01-02T03:04:05.5Z".parse().unwrap();
        let (clock, _) = Clock::manual(start);
        LogWriter::create(&directory.join("0.log"), clock).unwrap()
    }

    #[tokio::test]
    async fn lines_are_kept_with_time_and_stream() {
        let directory = tempfile::tempdir().unwrap();
        let (writer, log) = writer(directory.path());
        let (out_reader, mut out) = io::pipe().unwrap();
        let (err_reader, mut err) = io::pipe().unwrap();
        out.write_all(b"one\ntwo\n\nunfinished").unwrap();
        err.write_all(b"\xff\xfe\n").unwrap();
        drop((out, err));
        writer.collect(out_reader.into(), err_reader.into()).await;
        let text = fs::read(log.path()).unwrap();
        let text = String::from_utf8_lossy(&text);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_by_key(|line| line.contains("stderr"));
        let time = "2026-01-02T03:04:05.500000000Z";
        let expected = [
            "stdout F one",
            "stdout F two",
            "stdout F ",
            "stdout F unfinished",
            "stderr F \u{fffd}\u{fffd}",
        ];
        assert_eq!(lines, expected.map(|rest| format!("{time} {rest}")));
        assert!(log.progress().borrow().closed);
        let texts = text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap());
        assert!(log.tail().lines().eq(texts), "{}", log.tail());
    }

    #[tokio::test]
    async fn long_lines_are_split_and_long_logs_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (mut writer, log) = writer(directory.path());
        writer.limit = 100 << 10;
        let (out_reader, mut out) = io::pipe().unwrap();
        let (err_reader, err) = io::pipe().unwrap();
        drop(err);
        let feed = std::thread::spawn(move || {
            out.write_all(&vec![b'x'; MAX_TEXT + 5]).unwrap();
            for number in 0..20_000 {
                writeln!(out, "\nline {number}").unwrap();
            }
        });
        writer.collect(out_reader.into(), err_reader.into()).await;
        feed.join().unwrap();
        let sizes =
            [log.path().to_path_buf(), log.older()].map(|path| fs::metadata(path).unwrap().len());
        assert!(sizes.iter().all(|size| *size <= 100 << 10), "{sizes:?}");
        assert!(log.progress().borrow().rotations > 5);
        assert!(log.tail().ends_with("line 19999\n"), "{}", log.tail());
        assert!(log.tail().len() <= TAIL_BYTES);
    }
}
