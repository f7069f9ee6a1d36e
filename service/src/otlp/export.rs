//! Queueing spans and posting them to the collector.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::Notify;

use super::context::{SpanContext, SpanId};
use super::settings::{OtlpSettings, Protocol};
use super::wire::{self, KeyValue, STATUS_ERROR, Value};
use crate::shutdown::Shutdown;

/// Spans that may wait to be sent.
const QUEUE: usize = 8192;
/// Spans in one request.
const BATCH: usize = 512;
/// How long spans wait for company.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A finished span.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its place in the trace.
    pub context: SpanContext,
    /// The span it belongs to.
    pub parent: Option<SpanId>,
    /// What was done.
    pub name: String,
    /// From whose side.
    pub kind: SpanKind,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is known about it.
    pub texts: Vec<(&'static str, String)>,
    /// What is counted about it.
    pub numbers: Vec<(&'static str, i64)>,
    /// What happened meanwhile.
    pub events: Vec<SpanEvent>,
    /// What went wrong, if anything did.
    pub error: Option<&'static str>,
}

/// Something that happened during a span.
#[derive(Clone, Debug)]
pub struct SpanEvent {
    /// When.
    pub time: SystemTime,
    /// What.
    pub name: &'static str,
    /// What is known about it.
    pub texts: Vec<(&'static str, String)>,
}

/// From whose side a span is seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SpanKind {
    /// Work within a program.
    Internal,
    /// A request being answered.
    Server,
    /// A request being made.
    Client,
}

/// Takes spans and sends them. Clones share one queue.
#[derive(Clone)]
pub struct Exporter {
    inner: Arc<Inner>,
}

struct Inner {
    settings: OtlpSettings,
    queue: Mutex<Vec<Span>>,
    full: Notify,
    dropped: AtomicU64,
}

impl Exporter {
    /// An exporter that sends once [`Self::run`] runs.
    pub fn new(settings: OtlpSettings) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                queue: Mutex::default(),
                full: Notify::new(),
                dropped: AtomicU64::new(0),
            }),
        }
    }

    /// The place of a new span: below `parent`, or at the root of a trace that is recorded as often
    /// as the settings say.
    pub fn context(&self, parent: Option<SpanContext>) -> SpanContext {
        parent.map_or_else(
            || SpanContext {
                trace: super::TraceId::random(),
                span: SpanId::random(),
                sampled: fastrand::f64() < self.inner.settings.ratio,
            },
            SpanContext::child,
        )
    }

    /// Queues a span, if its trace is recorded and there is room.
    pub fn push(&self, span: Span) {
        if !span.context.sampled {
            return;
        }
        let mut queue = self.inner.queue.lock();
        if queue.len() >= QUEUE {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.push(span);
        if queue.len() == BATCH {
            self.inner.full.notify_one();
        }
    }

    /// Sends spans until told to stop, and then the last ones.
    pub async fn run(self, end: Shutdown) {
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new())
            .http2_only(self.inner.settings.protocol == Protocol::Grpc)
            .build_http();
        let mut failing = false;
        loop {
            let ending = tokio::select! {
                biased;
                () = end.triggered() => true,
                () = self.inner.full.notified() => false,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            let mut waiting = std::mem::take(&mut *self.inner.queue.lock());
            while !waiting.is_empty() {
                let batch: Vec<Span> = waiting.drain(..BATCH.min(waiting.len())).collect();
                let lost = batch.len();
                match self.send(&client, batch).await {
                    Ok(()) => failing = false,
                    Err(error) => {
                        // Said once per outage.
                        if !failing {
                            tracing::warn!(%error, lost, "traces cannot be sent to the collector");
                        }
                        failing = true;
                    }
                }
            }
            let dropped = self.inner.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(dropped, "spans dropped because the collector is slow");
            }
            if ending {
                return;
            }
        }
    }

    async fn send(
        &self,
        client: &Client<HttpConnector, Full<Bytes>>,
        spans: Vec<Span>,
    ) -> Result<(), ExportError> {
        let settings = &self.inner.settings;
        let message = request(settings, spans).encode_to_vec();
        let (body, kind) = match settings.protocol {
            Protocol::Grpc => (frame(&message)?, "application/grpc"),
            Protocol::HttpProtobuf => (message, "application/x-protobuf"),
        };
        let mut request = Request::post(settings.url.clone()).body(Full::from(body))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        for (name, value) in &settings.headers {
            headers.insert(name.clone(), value.clone());
        }
        if settings.protocol == Protocol::Grpc {
            headers.insert(TE, HeaderValue::from_static("trailers"));
            *request.version_mut() = Version::HTTP_2;
        }
        let exchange = async {
            let response = client.request(request).await?;
            let (head, body) = response.into_parts();
            let body = body.collect().await?;
            let code = head
                .headers
                .get("grpc-status")
                .or_else(|| body.trailers()?.get("grpc-status"))
                .and_then(|code| code.to_str().ok()?.parse().ok());
            match (settings.protocol, head.status, code) {
                (Protocol::Grpc, StatusCode::OK, Some(0)) => Ok(()),
                (Protocol::HttpProtobuf, status, _) if status.is_success() => Ok(()),
                (_, status, code) => Err(ExportError::Refused { status, code }),
            }
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| ExportError::TimedOut)?
    }
}

/// Why spans were lost.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("the collector cannot be reached")]
    Unreachable(#[from] hyper_util::client::legacy::Error),
    #[error("the collector broke off")]
    Broken(#[from] hyper::Error),
    #[error("the request cannot be built")]
    Request(#[from] http::Error),
    #[error("the batch is too large")]
    TooLarge(#[from] std::num::TryFromIntError),
    #[error("the collector refused them: HTTP {status}, gRPC status {code:?}")]
    Refused {
        status: StatusCode,
        code: Option<u16>,
    },
    #[error("the collector took too long")]
    TimedOut,
}

/// A gRPC message: uncompressed, its length, itself.
fn frame(message: &[u8]) -> Result<Vec<u8>, std::num::TryFromIntError> {
    let length = u32::try_from(message.len())?;
    let mut frame = Vec::with_capacity(message.len() + 5);
    frame.push(0);
    frame.extend(length.to_be_bytes());
    frame.extend(message);
    Ok(frame)
}

fn request(settings: &OtlpSettings, spans: Vec<Span>) -> wire::ExportTraceServiceRequest {
    let resource = wire::Resource {
        attributes: settings
            .resource
            .iter()
            .map(|(key, value)| KeyValue::new(key.clone(), Value::Text(value.clone())))
            .collect(),
    };
    let scope = wire::Scope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    wire::ExportTraceServiceRequest {
        resource_spans: vec![wire::ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![wire::ScopeSpans {
                scope: Some(scope),
                spans: spans.into_iter().map(encode).collect(),
            }],
        }],
    }
}

fn encode(span: Span) -> wire::Span {
    let texts = span
        .texts
        .into_iter()
        .map(|(key, text)| KeyValue::new(key, Value::Text(text)));
    let numbers = span
        .numbers
        .into_iter()
        .map(|(key, number)| KeyValue::new(key, Value::Number(number)));
    wire::Span {
        trace: span.context.trace.to_bytes().to_vec(),
        id: span.context.span.to_bytes().to_vec(),
        trace_state: String::new(),
        parent: span
            .parent
            .map(|parent| parent.to_bytes().to_vec())
            .unwrap_or_default(),
        name: span.name,
        kind: match span.kind {
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
        start_time_unix_nano: nanos(span.start),
        end_time_unix_nano: nanos(span.end),
        attributes: texts.chain(numbers).collect(),
        events: span
            .events
            .into_iter()
            .map(|event| wire::Event {
                time_unix_nano: nanos(event.time),
                name: event.name.to_owned(),
                attributes: event
                    .texts
                    .into_iter()
                    .map(|(key, text)| KeyValue::new(key, Value::Text(text)))
                    .collect(),
            })
            .collect(),
        status: span.error.map(|message| wire::Status {
            message: message.to_owned(),
            code: STATUS_ERROR,
        }),
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter")
            .field("settings", &self.inner.settings)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::extract::State;
    use axum::http::HeaderMap;
    use axum::routing::post;
    use tokio::sync::mpsc;

    use super::*;
    use crate::otlp::OtlpArgs;
    use crate::server::Server;
    use crate::tasks::Tasks;

    type Received = mpsc::UnboundedSender<(HeaderMap, Bytes)>;

    /// A collector that keeps what it gets.
    fn collector(
        tasks: &Tasks,
        end: &Shutdown,
    ) -> (u16, mpsc::UnboundedReceiver<(HeaderMap, Bytes)>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let take = |State(sender): State<Received>, headers: HeaderMap, body: Bytes| async move {
            sender.send((headers, body)).unwrap();
            [("grpc-status", "0")]
        };
        let router = Router::new().fallback(post(take)).with_state(sender);
        let listener = crate::listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = Server::new(router).serve(listener, end.clone(), Duration::ZERO);
        tasks.spawn("collector", serving);
        (port, receiver)
    }

    fn span(exporter: &Exporter) -> Span {
        Span {
            context: exporter.context(None),
            parent: Some(SpanId::random()),
            name: "HTTP GET".to_owned(),
            kind: SpanKind::Server,
            start: UNIX_EPOCH + Duration::from_nanos(5),
            end: UNIX_EPOCH + Duration::from_nanos(9),
            texts: vec![("sandbox.id", "box".to_owned())],
            numbers: vec![("http.status_code", 502)],
            events: vec![SpanEvent {
                time: UNIX_EPOCH + Duration::from_nanos(7),
                name: "retried",
                texts: vec![("why", "refused".to_owned())],
            }],
            error: Some("dial"),
        }
    }

    #[tokio::test]
    async fn spans_arrive_over_both_protocols() {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let (tasks, end) = (Tasks::new("test"), Shutdown::new());
            let (port, mut received) = collector(&tasks, &end);
            let settings = OtlpArgs {
                otlp_endpoint: format!("http://127.0.0.1:{port}"),
                otlp_protocol: protocol,
                otlp_headers: "x-tenant=t".to_owned(),
                otel_traces_sampler_arg: "1".to_owned(),
                ..OtlpArgs::default()
            };
            let exporter = Exporter::new(settings.settings("router").unwrap().unwrap());
            let sent = span(&exporter);
            exporter.push(sent.clone());
            let stop = Shutdown::new();
            tasks.spawn("export", exporter.run(stop.clone()));
            // The last spans are sent on the way out.
            stop.trigger();
            let (headers, body) = received.recv().await.unwrap();
            assert_eq!(headers["x-tenant"], "t");
            let message = match protocol {
                Protocol::Grpc => body.slice(5..),
                Protocol::HttpProtobuf => body,
            };
            let request = wire::ExportTraceServiceRequest::decode(message).unwrap();
            let resource = &request.resource_spans[0];
            let got = &resource.scope_spans[0].spans[0];
            assert_eq!(got.trace, sent.context.trace.to_bytes());
            assert_eq!(got.id, sent.context.span.to_bytes());
            assert_eq!((got.start_time_unix_nano, got.end_time_unix_nano), (5, 9));
            assert_eq!((got.name.as_str(), got.kind), ("HTTP GET", 2));
            assert_eq!(got.status.as_ref().unwrap().message, "dial");
            assert_eq!(got.attributes.len(), 2);
            let event = &got.events[0];
            assert_eq!((event.name.as_str(), event.time_unix_nano), ("retried", 7));
            assert_eq!(event.attributes[0].key, "why");
            let service = &resource.resource.as_ref().unwrap().attributes[0];
            assert_eq!(service.key, "service.name");
            end.trigger();
            tasks.shutdown(Duration::from_secs(10)).await;
        }
    }

    #[test]
    fn unrecorded_traces_are_not_queued_and_the_queue_is_bounded() {
        let args = OtlpArgs {
            otlp_endpoint: "http://127.0.0.1:1".to_owned(),
            otel_traces_sampler_arg: "0".to_owned(),
            ..OtlpArgs::default()
        };
        let exporter = Exporter::new(args.settings("router").unwrap().unwrap());
        exporter.push(span(&exporter));
        assert!(exporter.inner.queue.lock().is_empty(), "the ratio is 0");
        let recorded = SpanContext {
            sampled: true,
            ..exporter.context(None)
        };
        for _ in 0..QUEUE + 10 {
            let mut span = span(&exporter);
            span.context = exporter.context(Some(recorded));
            exporter.push(span);
        }
        assert_eq!(exporter.inner.queue.lock().len(), QUEUE);
        assert_eq!(exporter.inner.dropped.load(Ordering::Relaxed), 10);
    }
}
