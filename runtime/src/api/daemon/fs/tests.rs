//! Whose turn it is, and that the description knows every member.

use std::collections::BTreeSet;
use std::io;

use futures::poll;
use futures::stream::pending;
use http_body_util::BodyExt;
use serde_json::Value;

use super::*;
use crate::api::docs::OPENAPI;
use crate::{Config, Runtime};

#[test]
fn every_operation_is_described_with_its_members() {
    let described: Value = serde_json::from_str(OPENAPI).unwrap();
    let schema = "post/requestBody/content/application~1json/schema/properties";
    for operation in OPERATIONS {
        let pointer = format!("/paths/~1v1~1fs~1{}/{schema}", operation.name);
        let members = described.pointer(&pointer).and_then(Value::as_object);
        let members: BTreeSet<&str> = members.unwrap().keys().map(String::as_str).collect();
        let known: BTreeSet<&str> = operation.members.iter().copied().collect();
        assert_eq!(members, known, "{}", operation.name);
    }
}

#[tokio::test]
async fn long_work_waits_for_its_turn_and_other_work_does_not() {
    let outer = tempfile::tempdir().unwrap();
    let config = Config::new(outer.path().join("root"));
    let runtime = Runtime::builder(config).build().unwrap();
    let turns = Turns {
        accepted: Arc::new(Semaphore::new(2)),
        running: Arc::new(Semaphore::new(1)),
    };
    let send = |name: &str, body: Body| {
        let request = Request::post("/").body(body).unwrap();
        let (app, turns) = (runtime.app().clone(), turns.clone());
        operation(State(app), Extension(turns), Path(name.to_owned()), request)
    };
    let ask = |name: &str, body: &'static str| send(name, Body::from(body));
    // Who is slow to ask takes nobody's place.
    let mut slow = Vec::new();
    for _ in 0..3 {
        let body = Body::from_stream(pending::<io::Result<Bytes>>());
        let mut request = Box::pin(send("glob", body));
        assert!(poll!(&mut request).is_pending());
        slow.push(request);
    }
    assert_eq!(turns.accepted.available_permits(), 2);
    let busy = turns.running.clone().acquire_owned().await.unwrap();
    let mut waiting = [
        Box::pin(ask("glob", "{\"pattern\": \"*\"}")),
        Box::pin(ask("search", "{\"pattern\": \"x\"}")),
    ];
    for request in &mut waiting {
        assert!(poll!(request).is_pending());
    }
    let refused = ask("copy", "{\"from\": \"a\", \"to\": \"b\"}").await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(text.starts_with(b"{\"code\":\"UNAVAILABLE\""));
    for (name, body) in [("stat", "{\"path\": \"\"}"), ("mkdir", "{\"path\": \"d\"}")] {
        assert_eq!(ask(name, body).await.status(), StatusCode::OK, "{name}");
    }
    let [first, second] = waiting;
    // Who goes away waits no more.
    drop(second);
    assert_eq!(turns.accepted.available_permits(), 1);
    drop(busy);
    assert_eq!(first.await.status(), StatusCode::OK);
    assert_eq!(turns.accepted.available_permits(), 2);
    assert_eq!(turns.running.available_permits(), 1);
}
