//! A server, requests, watches, and the definition most tests use.

use std::future::Future;
use std::time::Duration;

use agent_sandbox_apiserver::{Builder, Server};
use agent_sandbox_service::shutdown::Shutdown;
use axum::body::{Body, BodyDataStream};
use futures::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// The longest that anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where objects of [`definition`] live.
pub(crate) const THINGS: &str = "/apis/example.org/v1/namespaces/default/things";
/// Config maps of the default namespace.
pub(crate) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A running server that ends with the test.
pub(crate) struct Api {
    pub(crate) server: Server,
    shutdown: Shutdown,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

/// An answer, read completely.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// Asserts success and returns the body.
    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{}: {}", self.status, self.body);
        self.body
    }

    /// Asserts a failure with this code and reason, and returns its message.
    #[track_caller]
    pub(crate) fn refused(self, code: u16, reason: &str) -> String {
        assert_eq!(self.status, code, "{}", self.body);
        assert_eq!(self.body["kind"], "Status", "{}", self.body);
        assert_eq!(self.body["status"], "Failure", "{}", self.body);
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert_eq!(self.body["reason"], reason, "{}", self.body);
        self.body["message"].as_str().unwrap_or("").to_owned()
    }

    /// Texts of the `Warning` headers.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let values = self.headers.get_all("warning").iter();
        values
            .map(|value| value.to_str().unwrap().to_owned())
            .collect()
    }
}

impl Api {
    pub(crate) fn start() -> Self {
        Self::with(Server::builder())
    }

    pub(crate) fn with(builder: Builder) -> Self {
        let shutdown = Shutdown::new();
        let server = builder.start(&shutdown).unwrap();
        Self { server, shutdown }
    }

    /// A server that knows [`definition`].
    pub(crate) async fn with_things() -> Self {
        let api = Self::start();
        api.define(&definition()).await;
        api
    }

    /// Creates a definition and waits until it is established.
    pub(crate) async fn define(&self, definition: &Value) {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.post(path, definition).await.ok();
        let name = definition["metadata"]["name"].as_str().unwrap();
        let path = format!("{path}/{name}");
        eventually("the definition is established", || async {
            let conditions = self.get(&path).await.ok()["status"]["conditions"].clone();
            condition(&conditions, "Established") == Some("True".to_owned())
        })
        .await;
    }

    /// Ends the server and waits for that.
    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        self.server.stop(DEADLINE).await;
    }

    pub(crate) fn trigger_shutdown(&self) {
        self.shutdown.trigger();
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.server.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&bytes).into_owned()));
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn typed(&self, method: Method, path: &str, media_type: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media_type)
            .header("user-agent", "tester/1.0")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.typed(Method::POST, path, "application/json", body)
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.typed(Method::PUT, path, "application/json", body)
            .await
    }

    pub(crate) async fn merge(&self, path: &str, patch: &Value) -> Answer {
        self.typed(Method::PATCH, path, "application/merge-patch+json", patch)
            .await
    }

    pub(crate) async fn patch(&self, path: &str, media_type: &str, patch: &Value) -> Answer {
        self.typed(Method::PATCH, path, media_type, patch).await
    }

    /// Server-side apply; `query` starts with the manager.
    pub(crate) async fn apply(&self, path: &str, query: &str, body: &Value) -> Answer {
        let path = format!("{path}?fieldManager={query}");
        self.typed(Method::PATCH, &path, "application/apply-patch+yaml", body)
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Request::delete(path).body(Body::empty()).unwrap())
            .await
    }

    pub(crate) async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.typed(Method::DELETE, path, "application/json", options)
            .await
    }

    /// Whether the object at a path exists.
    pub(crate) async fn exists(&self, path: &str) -> bool {
        self.get(path).await.status != StatusCode::NOT_FOUND
    }

    /// Waits until the object at a path is gone.
    pub(crate) async fn gone(&self, path: &str) {
        let what = format!("{path} is gone");
        eventually(&what, || async { !self.exists(path).await }).await;
    }

    /// The latest revision.
    pub(crate) fn revision(&self) -> u64 {
        self.server.engine().store.revision().get()
    }

    /// Starts a watch; `path` has a query.
    pub(crate) async fn watch(&self, path: &str) -> Watch {
        let request = Request::get(format!("{path}&watch=true"))
            .body(Body::empty())
            .unwrap();
        let response = self.server.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Watch {
            stream: response.into_body().into_data_stream(),
            buffer: Vec::new(),
            deadline: DEADLINE,
        }
    }
}

/// A running watch.
pub(crate) struct Watch {
    stream: BodyDataStream,
    buffer: Vec<u8>,
    deadline: Duration,
}

impl Watch {
    /// Waits long for each event, for tests that pause the time.
    pub(crate) fn patient(mut self) -> Self {
        self.deadline = Duration::from_secs(3600);
        self
    }

    /// The next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let chunk = tokio::time::timeout(self.deadline, self.stream.next())
                .await
                .expect("the watch delivers or ends in time")?;
            self.buffer.extend_from_slice(&chunk.unwrap());
        }
    }

    /// The next event as type and name.
    pub(crate) async fn step(&mut self) -> (String, String) {
        let event = self.next().await.expect("the watch goes on");
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        (
            text(&event["type"]),
            text(&event["object"]["metadata"]["name"]),
        )
    }
}

/// Waits until a condition holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(DEADLINE, waiting).await.is_ok(),
        "not in time: {what}"
    );
}

/// The status of a condition.
pub(crate) fn condition(conditions: &Value, kind: &str) -> Option<String> {
    let found = conditions
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)?;
    Some(found["status"].as_str()?.to_owned())
}

/// Shorthand for an expected event.
pub(crate) fn step(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

/// A namespaced kind with status, scale, defaults, rules, columns and a selectable field, in two
/// versions with one schema.
pub(crate) fn definition() -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "x-kubernetes-validations": [
                {"rule": "self.size <= 100", "message": "size must be at most 100"},
                {"rule": "!has(oldSelf.fixed) || self.fixed == oldSelf.fixed",
                 "message": "fixed is immutable"},
            ],
            "properties": {
                "size": {"type": "integer", "minimum": 0},
                "color": {"type": "string", "default": "red"},
                "fixed": {"type": "string"},
                "replicas": {"type": "integer"},
                "list": {"type": "array", "items": {"type": "object", "required": ["name"],
                    "properties": {"name": {"type": "string"}, "value": {"type": "string"}}},
                    "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            },
        },
        "status": {"type": "object", "properties": {
            "replicas": {"type": "integer"}, "phase": {"type": "string"},
            "selector": {"type": "string"},
        }},
    }}});
    let version = |name: &str, storage: bool| {
        json!({
            "name": name, "served": true, "storage": storage, "schema": schema,
            "selectableFields": [{"jsonPath": ".spec.color"}],
            "additionalPrinterColumns": [
                {"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
        })
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.org"},
        "spec": {
            "group": "example.org", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "shortNames": ["th"]},
            "versions": [version("v1", true), version("v1alpha1", false)],
        },
    })
}

/// An object of [`definition`].
pub(crate) fn thing(name: &str, size: i64) -> Value {
    json!({
        "apiVersion": "example.org/v1", "kind": "Thing",
        "metadata": {"name": name}, "spec": {"size": size},
    })
}

/// A config map.
pub(crate) fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
}

/// A config map with labels.
pub(crate) fn labelled(name: &str, labels: Value) -> Value {
    let mut object = config_map(name);
    object["metadata"]["labels"] = labels;
    object
}

/// A pod.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "busybox:1"}]},
    })
}

/// The names in a list.
pub(crate) fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}
