//! Counting the writes a client makes, by resource.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{Method, Request};
use parking_lot::Mutex;

/// Counts requests that change something. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct Writes {
    log: Arc<Mutex<Vec<String>>>,
}

impl Writes {
    /// Notes a request if it is a write.
    pub fn note<B>(&self, request: &Request<B>) {
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            return;
        }
        let line = format!("{} {}", request.method(), resource(request.uri().path()));
        self.log.lock().push(line);
    }

    /// Forgets what was counted.
    pub fn clear(&self) {
        self.log.lock().clear();
    }

    /// How often each kind of write was made, as in `PATCH sandboxclaims/status`.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        count(self.log.lock().iter())
    }

    /// The same, of the writes up to the first of this kind.
    pub fn counts_up_to(&self, kind: &str) -> BTreeMap<String, usize> {
        let log = self.log.lock();
        let end = log.iter().position(|line| line == kind);
        count(log.iter().take(end.map_or(log.len(), |last| last + 1)))
    }

    /// Whether a resource was first written before another, which was written too.
    pub fn first_before(&self, resource: &str, other: &str) -> bool {
        let log = self.log.lock();
        let first = |resource: &str| {
            log.iter()
                .position(|line| line.split_once(' ').is_some_and(|(_, of)| of == resource))
        };
        first(resource).is_some_and(|at| first(other).is_some_and(|later| at < later))
    }

    /// How many writes were made.
    pub fn total(&self) -> usize {
        self.log.lock().len()
    }
}

fn count<'a>(lines: impl Iterator<Item = &'a String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        *counts.entry(line.clone()).or_insert(0) += 1;
    }
    counts
}

/// Resource and subresource of an API path.
fn resource(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let rest = match parts.as_slice() {
        ["api", _, "namespaces", _, rest @ ..] | ["apis", _, _, "namespaces", _, rest @ ..]
            if !rest.is_empty() =>
        {
            rest
        }
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        other => other,
    };
    match rest {
        [resource, _, subresource, ..] => format!("{resource}/{subresource}"),
        [resource, ..] => (*resource).to_owned(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_resources() {
        let cases = [
            ("/api/v1/namespaces/default/pods", "pods"),
            ("/api/v1/namespaces/default/pods/a/status", "pods/status"),
            ("/api/v1/namespaces/default", "namespaces"),
            (
                "/apis/agents.x-k8s.io/v1beta1/namespaces/a/sandboxes/b",
                "sandboxes",
            ),
            (
                "/apis/e/v1/namespaces/a/sandboxclaims/b/status",
                "sandboxclaims/status",
            ),
        ];
        for (path, expected) in cases {
            assert_eq!(resource(path), expected);
        }
    }

    #[test]
    fn writes_have_an_order() {
        let writes = Writes::default();
        for path in [
            "/api/v1/namespaces/a/pods/b/status",
            "/api/v1/pods",
            "/api/v1/secrets",
        ] {
            writes.note(&Request::post(path).body(()).unwrap());
        }
        assert!(writes.first_before("pods", "secrets"));
        assert!(!writes.first_before("secrets", "pods"));
        assert!(!writes.first_before("pods", "services"));
        assert!(!writes.first_before("services", "pods"));
        assert_eq!(writes.counts_up_to("POST pods").len(), 2);
        assert_eq!(writes.counts_up_to("POST services"), writes.counts());
    }

    #[test]
    fn reads_do_not_count() {
        let writes = Writes::default();
        for method in [Method::GET, Method::POST, Method::PATCH] {
            let request = Request::builder()
                .method(method)
                .uri("/api/v1/namespaces/a/pods/b");
            writes.note(&request.body(()).unwrap());
        }
        assert_eq!(writes.total(), 2);
        assert_eq!(writes.counts().get("PATCH pods"), Some(&1));
        writes.clear();
        assert_eq!(writes.total(), 0);
    }
}
