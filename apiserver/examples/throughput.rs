//! Measures the server in one process, without sockets: writes, reads, watch fan-out, memory.
//!
//! ```text
//! cargo run --profile quick -p agent-sandbox-apiserver --example throughput -- DEFINITION.json
//! ```
//!
//! The definition is any namespaced CRD of a kind whose objects may hold `spec.replicas`; without
//! one, a small kind is used. Numbers depend on the machine; they are for comparing two builds.

#![allow(
    clippy::naive_bytecount,
    clippy::print_stdout,
    clippy::similar_names,
    clippy::disallowed_methods,
    reason = "a measuring program prints, and its watchers end with it"
)]

use std::error::Error;
use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_service::shutdown::Shutdown;
use axum::Router;
use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;

const OBJECTS: usize = 2000;
const WATCHERS: usize = 200;
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let started = Instant::now();
    let shutdown = Shutdown::new();
    let server = Server::builder().start(&shutdown)?;
    let router = server.router();
    println!("start                    {:>10.1?}", started.elapsed());
    println!("resident                 {:>10} KiB", resident()?);
    let definition = match std::env::args().nth(1) {
        Some(path) => serde_json::from_slice(&std::fs::read(path)?)?,
        None => small_definition(),
    };
    let kind = establish(&router, &definition).await?;
    println!("resident with definition {:>10} KiB", resident()?);

    let pods = Kind {
        collection: "/api/v1/namespaces/default/pods".to_owned(),
        template: json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {
            "containers": [{"name": "main", "image": "busybox:1", "env": [{"name": "A", "value": "b"}],
                "ports": [{"containerPort": 8080}],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}}}]}}),
        status: json!({"status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
    };
    for (name, kind) in [("custom", &kind), ("pod", &pods)] {
        measure(&router, name, kind).await?;
        println!("resident                 {:>10} KiB", resident()?);
    }
    fan_out(&router, &kind).await?;
    shutdown.trigger();
    server.stop(Duration::from_secs(1)).await;
    Ok(())
}

/// What is measured.
struct Kind {
    collection: String,
    template: Value,
    status: Value,
}

impl Kind {
    fn object(&self, name: &str) -> Value {
        let mut object = self.template.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("name".to_owned(), name.into());
            metadata.insert("labels".to_owned(), json!({ "app": "load", "pool": "one" }));
        }
        object
    }
}

async fn measure(router: &Router, name: &str, kind: &Kind) -> Outcome<()> {
    let path = |n: usize| format!("{}/load-{n}", kind.collection);
    let merge = "application/merge-patch+json";
    let started = Instant::now();
    for n in 0..OBJECTS {
        let object = kind.object(&format!("load-{n}"));
        send(
            router,
            Method::POST,
            &kind.collection,
            "application/json",
            &object,
        )
        .await?;
    }
    report(name, "create", started, OBJECTS);
    let started = Instant::now();
    for n in 0..OBJECTS {
        let status = format!("{}/status", path(n));
        send(router, Method::PATCH, &status, merge, &kind.status).await?;
    }
    report(name, "status patch", started, OBJECTS);
    let started = Instant::now();
    let labels = json!({ "metadata": { "labels": { "pool": null, "claimed": "yes" } } });
    for n in 0..OBJECTS {
        send(router, Method::PATCH, &path(n), merge, &labels).await?;
    }
    report(name, "label patch", started, OBJECTS);
    let started = Instant::now();
    for n in 0..OBJECTS {
        send(router, Method::PATCH, &path(n), merge, &labels).await?;
    }
    report(name, "patch without change", started, OBJECTS);
    let started = Instant::now();
    for n in 0..OBJECTS {
        read(router, &path(n)).await?;
    }
    report(name, "get", started, OBJECTS);
    let started = Instant::now();
    let bytes = read(router, &kind.collection).await?.len();
    println!(
        "{name:<8} list of {OBJECTS}: {:.1?}, {} KiB",
        started.elapsed(),
        bytes >> 10
    );
    Ok(())
}

/// Many watchers of everything, and as many of one name each, during a burst of writes.
async fn fan_out(router: &Router, kind: &Kind) -> Outcome<()> {
    let merge = "application/merge-patch+json";
    for named in [false, true] {
        let mut watches = Vec::new();
        for n in 0..WATCHERS {
            let selector = if named {
                format!("&fieldSelector=metadata.name%3Dload-{n}")
            } else {
                String::new()
            };
            let query = format!(
                "{}?watch=true&resourceVersion={}{selector}",
                kind.collection,
                revision(router, kind).await?
            );
            let request = Request::get(query).body(Body::empty())?;
            let mut stream = router
                .clone()
                .oneshot(request)
                .await?
                .into_body()
                .into_data_stream();
            let expected = if named { 1 } else { WATCHERS };
            watches.push(tokio::spawn(async move {
                let mut events = 0;
                while events < expected {
                    let Some(Ok(chunk)) = stream.next().await else {
                        break;
                    };
                    events += chunk.iter().filter(|byte| **byte == b'\n').count();
                }
                events
            }));
        }
        let started = Instant::now();
        for n in 0..WATCHERS {
            let path = format!("{}/load-{n}", kind.collection);
            let patch = json!({ "metadata": { "annotations": { "seen": named.to_string() } } });
            send(router, Method::PATCH, &path, merge, &patch).await?;
        }
        let wrote = started.elapsed();
        let mut events = 0;
        for watch in watches {
            events += watch.await?;
        }
        let scope = if named { "one name each" } else { "everything" };
        println!(
            "{WATCHERS} watchers of {scope}: {WATCHERS} writes in {wrote:.1?}, {events} events delivered in {:.1?}",
            started.elapsed()
        );
    }
    Ok(())
}

async fn establish(router: &Router, definition: &Value) -> Outcome<Kind> {
    send(
        router,
        Method::POST,
        DEFINITIONS,
        "application/json",
        definition,
    )
    .await?;
    let text = |path: &str| {
        definition
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    let versions = definition
        .pointer("/spec/versions")
        .and_then(Value::as_array);
    let version = versions
        .into_iter()
        .flatten()
        .find(|version| version.get("storage") == Some(&json!(true)))
        .and_then(|version| version.get("name")?.as_str())
        .ok_or("the definition stores no version")?;
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    let collection = format!("/apis/{group}/{version}/namespaces/default/{plural}");
    let started = Instant::now();
    while read(router, &collection).await.is_err() {
        if started.elapsed() > Duration::from_secs(10) {
            return Err("the definition is not served".into());
        }
        tokio::task::yield_now().await;
    }
    Ok(Kind {
        collection,
        template: json!({"apiVersion": format!("{group}/{version}"), "kind": text("/spec/names/kind"),
            "metadata": {}, "spec": {"replicas": 1, "podTemplate": {"spec": {"containers": [
                {"name": "main", "image": "busybox:1", "env": [{"name": "A", "value": "b"}],
                 "ports": [{"containerPort": 8080}]}]}}}}),
        status: json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}),
    })
}

async fn revision(router: &Router, kind: &Kind) -> Outcome<String> {
    let list: Value =
        serde_json::from_slice(&read(router, &format!("{}?limit=1", kind.collection)).await?)?;
    let revision = list
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str);
    Ok(revision.unwrap_or("0").to_owned())
}

async fn send(
    router: &Router,
    method: Method,
    path: &str,
    media: &str,
    body: &Value,
) -> Outcome<()> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", media)
        .body(Body::from(body.to_string()))?;
    let response = router.clone().oneshot(request).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    if status.is_success() {
        return Ok(());
    }
    Err(format!("{path}: {status}: {}", String::from_utf8_lossy(&bytes)).into())
}

async fn read(router: &Router, path: &str) -> Outcome<bytes::Bytes> {
    let response = router
        .clone()
        .oneshot(Request::get(path).body(Body::empty())?)
        .await?;
    if !response.status().is_success() {
        return Err(format!("{path}: {}", response.status()).into());
    }
    Ok(response.into_body().collect().await?.to_bytes())
}

fn report(name: &str, what: &str, started: Instant, count: usize) {
    let elapsed = started.elapsed();
    let each = elapsed / u32::try_from(count).unwrap_or(u32::MAX);
    println!("{name:<8} {what:<22} {each:>10.1?} each");
}

fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse()?)
}

fn small_definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}}}]}})
}
