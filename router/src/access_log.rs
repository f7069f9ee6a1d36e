//! One JSON line per request, written off the data path.
//!
//! Requests append to a buffer under a short lock; a task writes it out, what came within a few
//! milliseconds at once, because to wake the thread that writes costs more than the lines. When the reader of
//! the log is slower than the traffic, lines are dropped and counted instead of slowing requests down.
//! Query strings, bodies and credentials are never logged.

use std::fmt;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_sandbox_service::shutdown::Shutdown;
use parking_lot::Mutex;
use prometheus::IntCounter;
use serde::Serialize;
use tokio::sync::Notify;

use crate::resolve::Address;

/// Bytes that may wait to be written.
const CAPACITY: usize = 1024 * 1024;
/// How long a line waits for others.
const GATHER: Duration = Duration::from_millis(10);
/// So many bytes wait no longer.
const MANY: usize = CAPACITY / 4;
/// Memory that is kept for the next lines.
const KEPT: usize = 64 * 1024;

/// Where lines go; `off` drops them. Clones share one buffer.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Option<Arc<Buffer>>);

struct Buffer {
    lines: Mutex<Vec<u8>>,
    /// Told of the first line.
    more: Notify,
    /// Told of many.
    many: Notify,
    dropped: IntCounter,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").finish_non_exhaustive()
    }
}

/// What a line says.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) duration: Duration,
    pub(crate) client: IpAddr,
    pub(crate) sandbox_id: &'a str,
    pub(crate) sandbox_namespace: &'a str,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) user_agent: &'a str,
    pub(crate) request_id: &'a str,
    pub(crate) traceparent: &'a str,
    pub(crate) source: Option<&'static str>,
    pub(crate) upstream: Option<&'a Address>,
    pub(crate) retries: u32,
    pub(crate) outcome: &'static str,
}

/// The line as written: the field names of earlier routers first, ours after them.
#[derive(Serialize)]
struct Wire<'a> {
    level: &'static str,
    ts: f64,
    logger: &'static str,
    msg: &'static str,
    method: &'a str,
    path: &'a str,
    status: u16,
    duration_ms: u64,
    client_ip: IpAddr,
    sandbox_id: &'a str,
    sandbox_namespace: &'a str,
    bytes_out: u64,
    user_agent: &'a str,
    bytes_in: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a Address>,
    #[serde(skip_serializing_if = "is_zero")]
    retries: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    request_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    trace_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    span_id: &'a str,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl AccessLog {
    /// No log.
    pub fn off() -> Self {
        Self(None)
    }

    /// A log whose lines wait for [`Self::run`]. Lines that find no room count in `dropped`.
    pub fn buffered(dropped: IntCounter) -> Self {
        Self(Some(Arc::new(Buffer {
            lines: Mutex::new(Vec::new()),
            more: Notify::new(),
            many: Notify::new(),
            dropped,
        })))
    }

    /// Whether lines are kept at all.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn write(&self, line: &Line<'_>) {
        let Some(buffer) = &self.0 else {
            return;
        };
        let (trace_id, span_id) = trace(line.traceparent);
        let wire = Wire {
            level: "info",
            ts: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
            logger: "sandbox-router.access",
            msg: "request",
            method: line.method,
            path: line.path,
            status: line.status,
            duration_ms: u64::try_from(line.duration.as_millis()).unwrap_or(u64::MAX),
            client_ip: line.client,
            sandbox_id: line.sandbox_id,
            sandbox_namespace: line.sandbox_namespace,
            bytes_out: line.bytes_out,
            user_agent: line.user_agent,
            bytes_in: line.bytes_in,
            outcome: line.outcome,
            source: line.source,
            upstream: line.upstream,
            retries: line.retries,
            request_id: line.request_id,
            trace_id,
            span_id,
        };
        let mut lines = buffer.lines.lock();
        let length = lines.len();
        if length >= CAPACITY {
            buffer.dropped.inc();
            return;
        }
        if serde_json::to_writer(&mut *lines, &wire).is_err() {
            lines.truncate(length);
            buffer.dropped.inc();
            return;
        }
        lines.push(b'\n');
        let are_many = lines.len() >= MANY;
        drop(lines);
        if length == 0 {
            buffer.more.notify_one();
        }
        if are_many && length < MANY {
            buffer.many.notify_one();
        }
    }

    /// Writes lines to `sink` until told to stop, and then the last ones.
    pub(crate) async fn run(self, mut sink: Box<dyn Write + Send>, end: Shutdown) {
        let Some(buffer) = self.0 else {
            return;
        };
        let mut empty = Vec::new();
        loop {
            let gathered = async {
                buffer.more.notified().await;
                tokio::select! {
                    () = tokio::time::sleep(GATHER) => {}
                    () = buffer.many.notified() => {}
                }
            };
            let ending = tokio::select! {
                () = gathered => false,
                () = end.triggered() => true,
            };
            let mut lines = std::mem::replace(&mut *buffer.lines.lock(), empty);
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
                        tracing::warn!(%error, "cannot write the access log");
                    }
                }
                Err(_) => return,
            }
            if ending {
                return;
            }
        }
    }

    #[cfg(test)]
    fn take(&self) -> Vec<u8> {
        self.0
            .as_ref()
            .map(|buffer| std::mem::take(&mut *buffer.lines.lock()))
            .unwrap_or_default()
    }
}

/// Trace and span id of a W3C `traceparent`.
fn trace(traceparent: &str) -> (&str, &str) {
    let mut parts = traceparent.split('-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(trace), Some(span)) if trace.len() == 32 && span.len() == 16 => {
            (trace, span)
        }
        _ => ("", ""),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

    use agent_sandbox_service::tasks::Tasks;
    use serde_json::Value;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    static UPSTREAM: Address = Address::Ip(SocketAddr::V4(SocketAddrV4::new(
        Ipv4Addr::new(10, 0, 0, 1),
        8888,
    )));

    fn line() -> Line<'static> {
        Line {
            method: "POST",
            path: "/execute",
            status: 200,
            duration: Duration::from_millis(12),
            client: "192.0.2.1".parse().unwrap(),
            sandbox_id: "box\"\n",
            sandbox_namespace: "",
            bytes_in: 22,
            bytes_out: 7,
            user_agent: "curl",
            request_id: "",
            traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            source: Some("cache-name"),
            upstream: Some(&UPSTREAM),
            retries: 0,
            outcome: "complete",
        }
    }

    #[test]
    fn a_line_is_one_json_object() {
        let log = AccessLog::buffered(IntCounter::new("d", "d").unwrap());
        log.write(&line());
        let text = String::from_utf8(log.take()).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["logger"], "sandbox-router.access");
        assert_eq!(value["sandbox_id"], "box\"\n");
        assert_eq!(value["duration_ms"], 12);
        assert_eq!(value["client_ip"], "192.0.2.1");
        assert_eq!(value["upstream"], "10.0.0.1:8888");
        assert_eq!(value["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        assert!(value.get("request_id").is_none() && value.get("retries").is_none());
    }

    #[test]
    fn lines_without_room_are_counted_not_kept() {
        let dropped = IntCounter::new("d", "d").unwrap();
        let log = AccessLog::buffered(dropped.clone());
        for _ in 0..10_000 {
            log.write(&line());
        }
        assert!(dropped.get() > 0);
        assert!(log.take().len() < CAPACITY + 1024);
        log.write(&line());
        assert!(!log.take().is_empty());
    }

    /// Tells how many lines are written at a time.
    struct Sink(mpsc::UnboundedSender<usize>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let lines = memchr::memchr_iter(b'\n', bytes).count();
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
        let log = AccessLog::buffered(IntCounter::new("d", "d").unwrap());
        let (sink, mut written) = mpsc::unbounded_channel();
        let (tasks, end) = (Tasks::new("test"), Shutdown::new());
        tasks.spawn("log", log.clone().run(Box::new(Sink(sink)), end.clone()));
        let start = Instant::now();
        for _ in 0..3 {
            log.write(&line());
            tokio::time::sleep(GATHER / 5).await;
        }
        assert_eq!(written.recv().await, Some(3));
        assert!(start.elapsed() >= GATHER);

        let start = Instant::now();
        let mut number = 0;
        while log.0.as_ref().unwrap().lines.lock().len() < MANY {
            log.write(&line());
            number += 1;
        }
        assert_eq!(written.recv().await, Some(number));
        assert!(start.elapsed() < GATHER);

        log.write(&line());
        end.trigger();
        assert_eq!(written.recv().await, Some(1));
        assert_eq!(written.recv().await, None);
        assert_eq!(tasks.shutdown(Duration::from_secs(60)).await, 0);
    }
}
