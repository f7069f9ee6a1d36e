//! What goes with time.

use std::time::Duration;

use agent_sandbox_apiserver::Server;
use agent_sandbox_apiserver::background::ExpiryLimits;
use agent_sandbox_service::clock::Clock;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::harness::*;

const EVENTS: &str = "/api/v1/namespaces/default/events";

fn event(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "reason": "Test",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}})
}

fn limits() -> ExpiryLimits {
    ExpiryLimits {
        events: SignedDuration::from_mins(60),
        history: SignedDuration::from_mins(5),
        interval: Duration::from_millis(5),
    }
}

#[tokio::test]
async fn events_expire_an_hour_after_their_last_update() {
    let (clock, hand) = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
    let api = Api::with(Server::builder().clock(clock).expiry(limits()));
    for name in ["a", "b"] {
        api.post(EVENTS, &event(name)).await.ok();
    }
    hand.advance(SignedDuration::from_mins(30));
    api.merge(&format!("{EVENTS}/b"), &json!({"count": 2}))
        .await
        .ok();
    hand.advance(SignedDuration::from_mins(30));
    api.gone(&format!("{EVENTS}/a")).await;
    assert!(
        api.exists(&format!("{EVENTS}/b")).await,
        "it was updated half an hour ago"
    );
    hand.advance(SignedDuration::from_mins(30));
    api.gone(&format!("{EVENTS}/b")).await;
}

#[tokio::test]
async fn history_is_forgotten_after_its_time() {
    let (clock, hand) = Clock::manual("2026-01-01T00:00:00Z".parse().unwrap());
    let api = Api::with(Server::builder().clock(clock).expiry(limits()));
    let from = api.revision();
    api.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?resourceVersion={from}"))
        .await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    eventually("a watch from then is refused", || async {
        hand.advance(SignedDuration::from_mins(1));
        let mut watch = api
            .watch(&format!("{CONFIG_MAPS}?resourceVersion={from}"))
            .await;
        watch.next().await.unwrap()["object"]["code"] == 410
    })
    .await;
    let now = api.revision();
    let mut watch = api
        .watch(&format!("{CONFIG_MAPS}?resourceVersion={now}"))
        .await;
    api.post(CONFIG_MAPS, &config_map("b")).await.ok();
    assert_eq!(watch.step().await, step("ADDED", "b"));
}
