//! One JSON line per request, gathered and written off the data path. Lines that find no room are counted.
//! Query strings, bodies and credentials are never logged.

use std::io::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use agent_sandbox_service::gather::Gathered;
use agent_sandbox_service::shutdown::Shutdown;
use prometheus::IntCounter;
use serde::Serialize;

use crate::resolve::Address;

/// Where lines go; `off` drops them. Clones share one log.
#[derive(Clone, Debug, Default)]
pub struct AccessLog(Option<Buffer>);

#[derive(Clone, Debug)]
struct Buffer {
    lines: Gathered,
    dropped: IntCounter,
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
        Self(Some(Buffer {
            lines: Gathered::new(),
            dropped,
        }))
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
        let kept = buffer.lines.append(|to| {
            serde_json::to_writer(&mut *to, &wire)?;
            to.push(b'\n');
            Ok::<_, serde_json::Error>(())
        });
        if !kept {
            buffer.dropped.inc();
        }
    }

    /// Writes lines to `sink` until told to stop, and then the last ones.
    pub(crate) async fn run(self, sink: Box<dyn Write + Send>, end: Shutdown) {
        if let Some(Buffer { lines, .. }) = self.0 {
            lines.write_out(sink, end).await;
        }
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

    use serde_json::Value;

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
        let text = String::from_utf8(log.0.unwrap().lines.take()).unwrap();
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
        let kept = log.0.unwrap().lines.take();
        let kept = u64::try_from(memchr::memchr_iter(b'\n', &kept).count()).unwrap();
        assert_eq!(kept + dropped.get(), 10_000);
    }
}
