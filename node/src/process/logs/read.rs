//! Reading a log back: the options of `kubectl logs`, with or without following.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use super::{Log, Progress, Stream};

/// Bytes handed on at a time.
const CHUNK: usize = 32 << 10;

/// Which part of a log is wanted, and in which form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// Go on as the container prints.
    pub(crate) follow: bool,
    /// Only this many lines from the end.
    pub(crate) tail_lines: Option<usize>,
    /// Begin each line with its time.
    pub(crate) timestamps: bool,
    /// Only what was printed at or after this time.
    pub(crate) since: Option<Timestamp>,
    /// At most this many bytes.
    pub(crate) limit_bytes: Option<usize>,
    /// Only this stream.
    pub(crate) stream: Option<Stream>,
}

/// One record of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) time: &'a [u8],
    pub(crate) stream: &'a [u8],
    pub(crate) full: bool,
    pub(crate) text: &'a [u8],
}

impl<'a> Record<'a> {
    /// Parses a line without its end.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        Some(Self {
            time: parts.next().filter(|time| !time.is_empty())?,
            stream: parts.next()?,
            full: parts.next()? == b"F",
            text: parts.next()?,
        })
    }

    fn is_wanted(&self, options: &LogOptions) -> bool {
        let stream = options
            .stream
            .is_none_or(|stream| stream.name().as_bytes() == self.stream);
        let since = options.since.is_none_or(|since| {
            let time = std::str::from_utf8(self.time)
                .ok()
                .and_then(|time| time.parse().ok());
            time.is_none_or(|time: Timestamp| time >= since)
        });
        stream && since
    }
}

/// Why sending a log stopped early.
enum Stop {
    /// The reader has gone, or the byte limit is reached.
    Done,
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Sends the wanted part of a log, and then what follows if asked. Ends when the log is closed and
/// read, or when the receiver is dropped.
pub(crate) async fn send(log: Log, options: LogOptions, out: mpsc::Sender<io::Result<Bytes>>) {
    let mut sender = Sender {
        room: options.limit_bytes,
        options,
        out,
        pending: Vec::new(),
        line_begins: true,
    };
    match sender.run(&log).await {
        Ok(()) | Err(Stop::Done) => {}
        Err(Stop::Io(error)) => {
            // A receiver that has gone does not want to know.
            sender.out.send(Err(error)).await.ok();
        }
    }
}

struct Sender {
    options: LogOptions,
    out: mpsc::Sender<io::Result<Bytes>>,
    room: Option<usize>,
    pending: Vec<u8>,
    /// Whether the next record begins a line, which is where a timestamp goes.
    line_begins: bool,
}

impl Sender {
    async fn run(&mut self, log: &Log) -> Result<(), Stop> {
        let mut progress = log.progress();
        let mut seen = *progress.borrow_and_update();
        let mut skip = match self.options.tail_lines {
            Some(lines) => self.count_lines(log)?.saturating_sub(lines),
            None => 0,
        };
        if let Some(older) = open(&log.older())? {
            self.copy(&mut BufReader::new(older), &mut skip).await?;
        }
        let mut current = match open(log.path())? {
            Some(file) => BufReader::new(file),
            None => return self.flush().await,
        };
        self.copy(&mut current, &mut skip).await?;
        self.flush().await?;
        while self.options.follow && !seen.closed {
            if !self.wait(&mut progress).await? {
                return Ok(());
            }
            seen = *progress.borrow_and_update();
            self.copy(&mut current, &mut skip).await?;
            if let Some(file) = replaced(&current, log)? {
                // The old file may have got more lines between the copy and its renaming.
                self.copy(&mut current, &mut skip).await?;
                current = BufReader::new(file);
                self.copy(&mut current, &mut skip).await?;
            }
            self.flush().await?;
        }
        Ok(())
    }

    /// Waits for more; false when there will be none or nobody wants it.
    async fn wait(&self, progress: &mut watch::Receiver<Progress>) -> Result<bool, Stop> {
        tokio::select! {
            changed = progress.changed() => Ok(changed.is_ok()),
            () = self.out.closed() => Err(Stop::Done),
        }
    }

    fn count_lines(&self, log: &Log) -> io::Result<usize> {
        let mut count = 0;
        let mut line = Vec::new();
        for path in [log.older(), log.path().to_path_buf()] {
            let Some(file) = open(&path)? else { continue };
            let mut reader = BufReader::new(file);
            while read_line(&mut reader, &mut line)? {
                let record = Record::parse(&line);
                if record.is_some_and(|record| record.full && record.is_wanted(&self.options)) {
                    count += 1;
                }
            }
        }
        Ok(count)
    }

    async fn copy(&mut self, reader: &mut BufReader<File>, skip: &mut usize) -> Result<(), Stop> {
        let mut line = Vec::new();
        while read_line(reader, &mut line)? {
            let Some(record) = Record::parse(&line) else {
                continue;
            };
            if !record.is_wanted(&self.options) {
                continue;
            }
            if *skip > 0 {
                *skip -= usize::from(record.full);
                continue;
            }
            if self.options.timestamps && self.line_begins {
                self.pending.extend_from_slice(record.time);
                self.pending.push(b' ');
            }
            self.pending.extend_from_slice(record.text);
            if record.full {
                self.pending.push(b'\n');
            }
            self.line_begins = record.full;
            if self.pending.len() >= CHUNK {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Stop> {
        let mut chunk = std::mem::take(&mut self.pending);
        if let Some(room) = &mut self.room {
            chunk.truncate(*room);
            *room -= chunk.len();
        }
        let empty = chunk.is_empty();
        if !empty && self.out.send(Ok(Bytes::from(chunk))).await.is_err() {
            return Err(Stop::Done);
        }
        if self.room == Some(0) {
            return Err(Stop::Done);
        }
        Ok(())
    }
}

fn open(path: &std::path::Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file that has taken the place of the open one, if any.
fn replaced(current: &BufReader<File>, log: &Log) -> io::Result<Option<File>> {
    let Some(file) = open(log.path())? else {
        return Ok(None);
    };
    let same = current.get_ref().metadata()?.ino() == file.metadata()?.ino();
    Ok((!same).then_some(file))
}

/// Reads one whole line without its end. A line whose end has not been written yet is left alone.
fn read_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = reader.read_until(b'\n', line)?;
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        return Ok(true);
    }
    if read > 0 {
        let back = i64::try_from(read).unwrap_or(0);
        reader.seek(SeekFrom::Current(-back))?;
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use agent_sandbox_service::clock::{Clock, ManualClock};
    use jiff::SignedDuration;

    use super::super::LogWriter;
    use super::*;

    struct Fixture {
        writer: LogWriter,
        log: Log,
        hand: ManualClock,
        _directory: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
        let (writer, log) = LogWriter::create(&directory.path().join("log"), clock).unwrap();
        Fixture {
            writer,
            log,
            hand,
            _directory: directory,
        }
    }

    impl Fixture {
        fn line(&mut self, text: &str) {
            self.writer
                .record(Stream::Stdout, text.as_bytes(), true)
                .unwrap();
            self.hand.advance(SignedDuration::from_secs(1));
        }

        async fn read(&self, options: LogOptions) -> String {
            let (out, mut chunks) = mpsc::channel(64);
            send(self.log.clone(), options, out).await;
            let mut text = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                text.extend_from_slice(&chunk.unwrap());
            }
            String::from_utf8(text).unwrap()
        }
    }

    #[tokio::test]
    async fn options_choose_and_decorate() {
        let mut fixture = fixture();
        for text in ["a", "b", "c"] {
            fixture.line(text);
        }
        fixture
            .writer
            .record(Stream::Stderr, b"par", false)
            .unwrap();
        fixture
            .writer
            .record(Stream::Stderr, b"tial", true)
            .unwrap();
        let options = LogOptions::default;
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        for (options, expected) in [
            (options(), "a\nb\nc\npartial\n"),
            (
                LogOptions {
                    tail_lines: Some(2),
                    ..options()
                },
                "c\npartial\n",
            ),
            (
                LogOptions {
                    tail_lines: Some(0),
                    ..options()
                },
                "",
            ),
            (
                LogOptions {
                    tail_lines: Some(9),
                    ..options()
                },
                "a\nb\nc\npartial\n",
            ),
            (
                LogOptions {
                    limit_bytes: Some(3),
                    ..options()
                },
                "a\nb",
            ),
            (LogOptions { since, ..options() }, "c\npartial\n"),
            (
                LogOptions {
                    stream: Some(Stream::Stderr),
                    ..options()
                },
                "partial\n",
            ),
            (
                LogOptions {
                    timestamps: true,
                    tail_lines: Some(2),
                    ..options()
                },
                "2026-01-01T00:00:02.000000000Z c\n2026-01-01T00:00:03.000000000Z partial\n",
            ),
        ] {
            assert_eq!(fixture.read(options.clone()).await, expected, "{options:?}");
        }
    }

    #[tokio::test]
    async fn a_follower_sees_every_line_once_across_rotations() {
        let mut fixture = fixture();
        fixture.writer.limit = 2000;
        fixture.line("first");
        let (out, mut chunks) = mpsc::channel(1);
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let reading = send(fixture.log.clone(), options, out);
        let check = async {
            let mut text = String::new();
            let mut number = 0;
            while let Some(chunk) = chunks.recv().await {
                text += std::str::from_utf8(&chunk.unwrap()).unwrap();
                // The next lines are written only after the earlier ones arrived, so the reader
                // keeps up and nothing may be lost.
                if text.ends_with("first\n") || text.ends_with(&format!("line {number}\n")) {
                    number += 1;
                    if number <= 200 {
                        fixture.line(&format!("line {number}"));
                    } else {
                        fixture
                            .writer
                            .progress
                            .send_modify(|progress| progress.closed = true);
                    }
                }
            }
            text
        };
        let (text, ()) = tokio::join!(check, reading);
        let expected: Vec<String> = (1..=200).map(|number| format!("line {number}\n")).collect();
        assert_eq!(text, format!("first\n{}", expected.concat()));
        assert!(fixture.log.progress().borrow().rotations >= 3);
    }

    #[tokio::test]
    async fn a_follower_ends_when_nobody_listens() {
        let mut fixture = fixture();
        fixture.line("x");
        let (out, mut chunks) = mpsc::channel::<io::Result<Bytes>>(1);
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let leave = async {
            chunks.recv().await.unwrap().unwrap();
            drop(chunks);
        };
        let both = async { tokio::join!(send(fixture.log.clone(), options, out), leave) };
        crate::test_wait::within(both).await;
    }

    #[test]
    fn broken_records_are_skipped() {
        for line in ["", " ", "a b", "a b c"] {
            assert_eq!(Record::parse(line.as_bytes()), None, "{line:?}");
        }
        let record = Record::parse(b"t stdout F a b").unwrap();
        assert_eq!((record.full, record.text), (true, &b"a b"[..]));
    }
}
