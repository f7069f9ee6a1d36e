//! Calls to the API server.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec};

use super::{FINE_BUCKETS, Registrar};

/// Counters of API calls; handed to [`crate::api::Api`].
#[derive(Clone, Debug)]
pub struct ApiMetrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    sent: IntCounterVec,
}

impl ApiMetrics {
    pub(super) fn register(new: &Registrar<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            requests: new.counters(
                "agent_sandbox_api_requests_total",
                "Calls to the API server by verb, resource and outcome.",
                &["verb", "resource", "code"],
            )?,
            seconds: new.histogram(
                "agent_sandbox_api_request_duration_seconds",
                "Time to the headers of the API server's answer.",
                &["verb", "resource"],
                &FINE_BUCKETS,
            )?,
            sent: new.counters(
                "rest_client_requests_total",
                "HTTP requests by status code, method and host.",
                &["code", "method", "host"],
            )?,
        })
    }

    /// Counts a call by what became of it.
    pub fn count(&self, verb: &str, resource: &str, code: &str) {
        self.requests
            .with_label_values(&[verb, resource, code])
            .inc();
    }

    /// Counts an HTTP request; `code` is 0 when there was no answer.
    pub fn sent(&self, method: &str, host: &str, code: u16) {
        let mut digits = [0; 3];
        let code = match code {
            0 => "<error>",
            code => text_of(code, &mut digits),
        };
        self.sent.with_label_values(&[code, method, host]).inc();
    }

    /// Records how long a call took.
    pub fn observe(&self, verb: &str, resource: &str, took: Duration) {
        self.seconds
            .with_label_values(&[verb, resource])
            .observe(took.as_secs_f64());
    }
}

/// The three digits of a status code, without allocating.
fn text_of(code: u16, digits: &mut [u8; 3]) -> &str {
    for (digit, power) in digits.iter_mut().zip([100, 10, 1]) {
        *digit = b'0' + u8::try_from(code / power % 10).unwrap_or_default();
    }
    std::str::from_utf8(digits).unwrap_or_default()
}
