//! The account of one request: opened when it arrives, closed exactly once however it ends.
//!
//! It lives with whatever currently carries the request (the handler, a response body, a tunnel).
//! Dropping it unfinished is how a client that went away is noticed, so aborted streams appear in
//! metrics and in the access log like any other.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent_sandbox_service::otlp::{Exporter, Span, SpanContext, SpanId, SpanKind};
use http::header::{HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, StatusCode, Uri};
use tokio::time::Instant;

use super::Shared;
use super::flow::Flow;
use super::headers::{REQUEST_ID, TRACEPARENT};
use crate::access_log::{AccessLog, Line};
use crate::limits::Permit;
use crate::metrics::RouterMetrics;
use crate::resolve::table::Row;
use crate::resolve::{Address, Route};
use crate::target::{SANDBOX_ID, SANDBOX_NAMESPACE};

/// What a request counts as whose client left before it was answered.
pub(crate) const CLIENT_CLOSED_REQUEST: u16 = 499;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The whole response was handed over.
    Complete,
    /// The router answered itself, for this reason.
    Refused(&'static str),
    /// The sandbox broke off its response.
    SandboxBroke,
    /// The response stalled, or took longer than it may.
    TimedOut,
    /// The client went away.
    ClientGone,
    /// An upgraded connection was closed by the router, for this reason.
    Closed(&'static str),
}

impl Outcome {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Refused(reason) | Self::Closed(reason) => reason,
            Self::SandboxBroke => "sandbox-broke-off",
            Self::TimedOut => "timed-out",
            Self::ClientGone => "client-gone",
        }
    }
}

/// What the record reports to.
#[derive(Clone, Debug)]
pub(crate) struct Reporters {
    pub(crate) metrics: RouterMetrics,
    pub(crate) access_log: AccessLog,
    pub(crate) traces: Option<Exporter>,
}

/// The account of one request.
#[derive(Debug)]
pub(crate) struct Record {
    shared: Arc<Shared>,
    flow: Arc<Flow>,
    method: Method,
    status: Option<StatusCode>,
    outcome: Outcome,
    row: Option<Arc<Row>>,
    logged: Option<Box<Logged>>,
    traced: Option<Box<Traced>>,
    permits: [Option<Permit>; 3],
}

/// The request's place in a trace; there only when traces are exported.
#[derive(Debug)]
struct Traced {
    context: SpanContext,
    parent: Option<SpanId>,
    start: SystemTime,
    path: String,
    sandbox: [Option<HeaderValue>; 2],
}

/// What only the access log needs; not collected when there is none.
#[derive(Debug)]
struct Logged {
    uri: Uri,
    client: IpAddr,
    sandbox_id: Option<HeaderValue>,
    sandbox_namespace: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    trace: Option<HeaderValue>,
    source: Option<&'static str>,
    upstream: Option<Address>,
    retries: u32,
}

impl Record {
    pub(crate) fn open(
        shared: &Arc<Shared>,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Self {
        let reporters = &shared.reporters;
        reporters.metrics.request_started();
        let logged = reporters.access_log.is_on().then(|| {
            Box::new(Logged {
                uri: uri.clone(),
                client,
                sandbox_id: headers.get(&SANDBOX_ID).cloned(),
                sandbox_namespace: headers.get(&SANDBOX_NAMESPACE).cloned(),
                user_agent: headers.get(USER_AGENT).cloned(),
                request_id: headers.get(&REQUEST_ID).cloned(),
                trace: headers.get(&TRACEPARENT).cloned(),
                source: None,
                upstream: None,
                retries: 0,
            })
        });
        let traced = reporters.traces.as_ref().map(|exporter| {
            let parent = headers
                .get(&TRACEPARENT)
                .and_then(|value| SpanContext::parse(value.to_str().ok()?));
            Box::new(Traced {
                context: exporter.context(parent),
                parent: parent.map(|parent| parent.span),
                start: SystemTime::now(),
                path: uri.path().to_owned(),
                sandbox: [
                    headers.get(&SANDBOX_ID).cloned(),
                    headers.get(&SANDBOX_NAMESPACE).cloned(),
                ],
            })
        });
        Self {
            shared: shared.clone(),
            traced,
            flow: Arc::new(Flow::new(Instant::now())),
            method: method.clone(),
            status: None,
            outcome: Outcome::ClientGone,
            row: None,
            logged,
            permits: [const { None }; 3],
        }
    }

    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    pub(crate) fn set_route(&mut self, route: &Route) {
        self.row.clone_from(&route.row);
        if let Some(logged) = &mut self.logged {
            logged.source = Some(route.source.as_str());
            logged.upstream = Some(route.address.clone());
        }
    }

    /// Continues the trace towards the sandbox.
    pub(crate) fn inject(&self, headers: &mut HeaderMap) {
        if let Some(traced) = &self.traced
            && let Ok(value) = HeaderValue::try_from(traced.context.to_string())
        {
            headers.insert(TRACEPARENT, value);
        }
    }

    pub(crate) fn set_status(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    pub(crate) fn retried(&mut self) {
        if let Some(logged) = &mut self.logged {
            logged.retries += 1;
        }
    }

    /// Keeps a permit, if there is one, until the request is over: one of the router, one of the
    /// sandbox, one of the client.
    pub(crate) fn hold(&mut self, permit: Option<Permit>) {
        let free = self.permits.iter_mut().find(|held| held.is_none());
        if let Some(free) = free {
            *free = permit;
        }
    }

    /// Closes the account.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }

    /// Hands the finished span over.
    fn export(&mut self, status: u16) {
        let (Some(traced), Some(exporter)) = (self.traced.take(), &self.shared.reporters.traces)
        else {
            return;
        };
        let [id, namespace] = &traced.sandbox;
        exporter.push(Span {
            context: traced.context,
            parent: traced.parent,
            name: format!("HTTP {}", self.method),
            kind: SpanKind::Server,
            start: traced.start,
            end: SystemTime::now(),
            texts: vec![
                ("http.method", self.method.to_string()),
                ("http.target", traced.path),
                ("sandbox.id", text(id.as_ref()).to_owned()),
                ("sandbox.namespace", text(namespace.as_ref()).to_owned()),
                ("sandbox_router.outcome", self.outcome.as_str().to_owned()),
            ],
            numbers: vec![("http.status_code", i64::from(status))],
            events: Vec::new(),
            error: (self.outcome != Outcome::Complete || status >= 500)
                .then(|| self.outcome.as_str()),
        });
    }

    /// How long the request has taken so far.
    fn elapsed(&self) -> Duration {
        self.flow.start().elapsed()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.elapsed();
        let status = self
            .status
            .map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        let namespace = self.row.as_ref().map(|row| &*row.namespace);
        let (bytes_in, bytes_out) = (self.flow.bytes_in(), self.flow.bytes_out());
        let metrics = &self.shared.reporters.metrics;
        metrics.request_finished(namespace, &self.method, status, elapsed);
        metrics.bytes(bytes_in, bytes_out);
        let context = self
            .traced
            .as_ref()
            .map(|traced| traced.context.to_string());
        self.export(status);
        let Some(logged) = &self.logged else {
            return;
        };
        self.shared.reporters.access_log.write(&Line {
            method: self.method.as_str(),
            path: logged.uri.path(),
            status,
            duration: elapsed,
            client: logged.client,
            sandbox_id: text(logged.sandbox_id.as_ref()),
            sandbox_namespace: text(logged.sandbox_namespace.as_ref()),
            bytes_in,
            bytes_out,
            user_agent: text(logged.user_agent.as_ref()),
            request_id: text(logged.request_id.as_ref()),
            traceparent: context
                .as_deref()
                .unwrap_or_else(|| text(logged.trace.as_ref())),
            source: logged.source,
            upstream: logged.upstream.as_ref(),
            retries: logged.retries,
            outcome: self.outcome.as_str(),
        });
    }
}

/// Header values that are not text are logged as nothing.
fn text(value: Option<&HeaderValue>) -> &str {
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
