//! Lines of a log, gathered and written off the data path.
//!
//! Whoever has a line appends it under a short lock; a task writes out what came within a few
//! milliseconds at once, because a system call for each line, or waking a thread for it, costs more than
//! the line. When the reader of the log is slower than the traffic, lines are dropped and counted
//! instead of slowing requests down.

use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::shutdown::Shutdown;

/// Bytes that may wait to be written.
const CAPACITY: usize = 1024 * 1024;
/// How long a line waits for others.
const GATHER: Duration = Duration::from_millis(10);
/// So many bytes wait no longer.
const MANY: usize = CAPACITY / 4;
/// Bytes that may wait beyond those, of lines that should not wait at all.
const URGENT: usize = CAPACITY / 4;
/// Memory that is kept for the next lines.
const KEPT: usize = 64 * 1024;

/// Lines that wait to be written. Clones share them.
#[derive(Clone, Default)]
pub struct Gathered(Arc<Inner>);

#[derive(Default)]
struct Inner {
    lines: Mutex<Vec<u8>>,
    /// Told of the first line.
    more: Notify,
    /// Told of many.
    many: Notify,
    dropped: AtomicU64,
    /// Whether somebody writes them out.
    is_written: AtomicBool,
}

impl fmt::Debug for Gathered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathered").finish_non_exhaustive()
    }
}

impl Gathered {
    /// Nothing yet. Lines wait until [`Self::write_out`] runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what `line` appends, which should end in a line feed. `false`, and nothing is added, when
    /// there is no room or when `line` says that it failed; both are counted.
    pub fn append<E>(&self, line: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> bool {
        self.add(line, CAPACITY, false)
    }

    /// Adds a line that should not wait, in the room of its own that such lines have. `None`, and nothing is
    /// done or counted, while nobody writes lines out.
    pub(crate) fn append_urgent<E>(
        &self,
        line: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Option<bool> {
        let is_written = self.0.is_written.load(Ordering::Acquire);
        is_written.then(|| self.add(line, CAPACITY + URGENT, true))
    }

    fn add<E>(
        &self,
        line: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
        room: usize,
        is_urgent: bool,
    ) -> bool {
        let inner = &self.0;
        let mut lines = inner.lines.lock();
        let length = lines.len();
        if length >= room || line(&mut lines).is_err() {
            lines.truncate(length);
            inner.dropped.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        let are_many = lines.len() >= MANY;
        drop(lines);
        if length == 0 {
            inner.more.notify_one();
        }
        if is_urgent || (are_many && length < MANY) {
            inner.many.notify_one();
        }
        true
    }

    /// The lines that wait now. Whoever takes them writes them.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lines.lock())
    }

    /// Writes lines to `sink` until told to stop, and then the last ones. That some were dropped is
    /// said in the log itself.
    pub async fn write_out(self, mut sink: Box<dyn Write + Send>, end: Shutdown) {
        let inner = &self.0;
        inner.is_written.store(true, Ordering::Release);
        // Also when this is cancelled.
        let _until_here = Unwritten(inner);
        let mut empty = Vec::new();
        loop {
            let gathered = async {
                inner.more.notified().await;
                tokio::select! {
                    () = tokio::time::sleep(GATHER) => {}
                    () = inner.many.notified() => {}
                }
            };
            let ending = tokio::select! {
                () = gathered => false,
                () = end.triggered() => true,
            };
            let mut lines = std::mem::replace(&mut *inner.lines.lock(), empty);
            // The sink may block (a pipe nobody reads), which must not stall the data path.
            let written = tokio::task::spawn_blocking(move || {
                let outcome = sink.write_all(&lines).and_then(|()| sink.flush());
                lines.clear();
                lines.shrink_to(KEPT);
                (sink, lines, outcome)
            })
            .await;
            match written {
                Ok((returned, lines, outcome)) => {
                    sink = returned;
                    empty = lines;
                    if let Err(error) = outcome {
                        tracing::warn!(%error, "cannot write the log");
                    }
                }
                Err(_) => return,
            }
            let dropped = inner.dropped.swap(0, Ordering::Relaxed);
            if ending {
                inner.is_written.store(false, Ordering::Release);
            }
            if dropped > 0 {
                tracing::warn!(
                    dropped,
                    "lines of the log are dropped, because its reader is too slow"
                );
            }
            if ending {
                return;
            }
        }
    }
}

/// Says that nobody writes lines out any more.
struct Unwritten<'a>(&'a Inner);

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        self.0.is_written.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::tasks::Tasks;

    fn line(to: &mut Vec<u8>) -> std::io::Result<()> {
        to.write_all(b"a line that is as long as lines are, more or less\n")
    }

    #[test]
    fn lines_without_room_are_dropped_and_so_are_halves() {
        let log = Gathered::new();
        assert!(!log.append(|to| {
            to.extend_from_slice(b"half");
            Err(())
        }));
        assert!(log.take().is_empty());
        while log.append(line) {}
        assert!(log.0.lines.lock().len() < CAPACITY + 1024);
        assert_eq!(log.0.dropped.load(Ordering::Relaxed), 2);
    }

    /// Tells how many lines are written at a time.
    struct Sink(mpsc::UnboundedSender<usize>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let lines = bytes.split(|byte| *byte == b'\n').count() - 1;
            self.0.send(lines).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The clock is paused: it goes on only to the next deadline, and only when nothing else is to be done.
    #[tokio::test(start_paused = true)]
    async fn what_comes_soon_after_each_other_is_written_at_once_and_many_lines_do_not_wait() {
        let log = Gathered::new();
        let (sink, mut written) = mpsc::unbounded_channel();
        let (tasks, end) = (Tasks::new("test"), Shutdown::new());
        tasks.spawn(
            "log",
            log.clone().write_out(Box::new(Sink(sink)), end.clone()),
        );
        let start = Instant::now();
        for _ in 0..3 {
            log.append(line);
            tokio::time::sleep(GATHER / 5).await;
        }
        assert_eq!(written.recv().await, Some(3));
        assert!(start.elapsed() >= GATHER);

        let start = Instant::now();
        let mut number = 0;
        while log.0.lines.lock().len() < MANY {
            log.append(line);
            number += 1;
        }
        assert_eq!(written.recv().await, Some(number));
        assert!(start.elapsed() < GATHER);

        let start = Instant::now();
        assert_eq!(log.append_urgent(line), Some(true));
        assert_eq!(written.recv().await, Some(1));
        assert!(start.elapsed() < GATHER);

        log.append(line);
        end.trigger();
        assert_eq!(written.recv().await, Some(1));
        assert_eq!(written.recv().await, None);
        assert_eq!(tasks.shutdown(Duration::from_secs(60)).await, 0);
        assert_eq!(log.append_urgent(line), None);
    }
}
