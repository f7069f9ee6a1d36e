//! Load is shed, not queued.

use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";

#[tokio::test]
async fn a_declared_body_that_is_too_large_is_refused_at_once() {
    let mut config = rig::config();
    config.limits.body = Some(10);
    let rig = Rig::start(config);
    let stub = Sandbox::mirror();
    let reply = rig.send(&stub.post("/", &"x".repeat(11))).await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (413, "The request body is larger than 10 bytes.")
    );
    assert_eq!(stub.connections(), 0);
    assert_eq!(rig.send(&stub.post("/", &"x".repeat(10))).await.status, 200);
    rig.stop().await;
}

#[tokio::test]
async fn a_streamed_body_that_becomes_too_large_is_refused_and_the_sandbox_let_go() {
    let mut config = rig::config();
    config.limits.body = Some(10);
    let rig = Rig::start(config);
    let (ended, mut noticed) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let ended = ended.clone();
        async move {
            wire.head().await.unwrap();
            wire.rest().await;
            ended.send(()).unwrap();
        }
    });
    let mut wire = rig.connect().await;
    wire.write(format!(
        "POST / HTTP/1.1\r\n{}Transfer-Encoding: chunked\r\n\r\n",
        stub.route()
    ))
    .await;
    wire.write("8\r\n12345678\r\n").await;
    wire.write("8\r\n12345678\r\n").await;
    let reply = wire.reply().await;
    assert_eq!((reply.status, reply.reason()), (413, "body-too-large"));
    noticed.recv().await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let mut config = rig::config();
    config.limits.head = 16 * 1024;
    let rig = Rig::start(config);
    let stub = Sandbox::answering(ok(b"x"));
    let padded = |n: usize| {
        stub.get("/")
            .replace("Host:", &format!("X-Pad: {}\r\nHost:", "p".repeat(n)))
    };
    assert_eq!(rig.send(&padded(12 * 1024)).await.status, 200);
    assert_eq!(rig.send(&padded(20 * 1024)).await.status, 431);
    rig.stop().await;
}

#[tokio::test]
async fn requests_in_flight_are_bounded_in_all_and_per_sandbox() {
    for per_sandbox in [false, true] {
        let mut config = rig::config();
        if per_sandbox {
            config.limits.requests_per_sandbox = Some(1);
        } else {
            config.limits.requests = Some(1);
        }
        let rig = Rig::start(config);
        let (go, wait) = tokio::sync::watch::channel(false);
        let stub = Sandbox::start(move |mut wire| {
            let mut wait = wait.clone();
            async move {
                wire.head().await.unwrap();
                wait.wait_for(|go| *go).await.unwrap();
                wire.write(&ok(b"done")).await;
            }
        });
        let mut first = rig.connect().await;
        first.write(stub.get("/")).await;
        rig::eventually("the first request is under way", async || {
            stub.connections() == 1
        })
        .await;
        let reply = rig.send(&stub.get("/")).await;
        assert_eq!((reply.status, reply.reason()), (503, "overloaded"));
        assert_eq!(reply.head.get("retry-after"), Some("1"));
        go.send(true).unwrap();
        assert_eq!(first.reply().await.text(), "done");
        assert_eq!(
            rig.send(&stub.get("/")).await.text(),
            "done",
            "the place is free again"
        );
        rig.stop().await;
    }
}

#[tokio::test]
async fn upgraded_connections_have_limits_of_their_own() {
    type Set = fn(&mut agent_sandbox_router::config::Limits);
    let sets: [Set; 3] = [
        |limits| limits.upgrades = Some(1),
        |limits| limits.upgrades_per_sandbox = Some(1),
        |limits| limits.upgrades_per_client = Some(1),
    ];
    for set in sets {
        let mut config = rig::config();
        set(&mut config.limits);
        let rig = Rig::start(config);
        let stub = Sandbox::start(|mut wire| async move {
            while let Some(head) = wire.head().await {
                if head.get("upgrade").is_some() {
                    wire.write(SWITCH).await;
                    wire.rest().await;
                } else {
                    wire.write(ok(b"x")).await;
                }
            }
        });
        let upgrade = stub
            .get("/")
            .replace("Host:", "Connection: Upgrade\r\nUpgrade: x\r\nHost:");
        let mut first = rig.connect().await;
        first.write(&upgrade).await;
        assert!(first.head().await.unwrap().line.contains("101"));
        let reply = rig.send(&upgrade).await;
        assert_eq!((reply.status, reply.reason()), (503, "overloaded"));
        assert_eq!(
            rig.send(&stub.get("/")).await.status,
            200,
            "requests still pass"
        );
        drop(first);
        rig.metric_is("sandbox_router_upgraded_connections", 0.0)
            .await;
        rig.metric_is("sandbox_router_inflight_requests", 0.0).await;
        let mut next = rig.connect().await;
        next.write(&upgrade).await;
        assert!(next.head().await.unwrap().line.contains("101"));
        drop(next);
        rig.stop().await;
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let mut config = rig::config();
    config.limits.connections = 1;
    let rig = Rig::start(config);
    let stub = Sandbox::answering(ok(b"x"));
    let mut first = rig.connect().await;
    first.write(stub.get("/")).await;
    assert_eq!(first.reply().await.status, 200);
    let mut second = rig.connect().await;
    second.write(stub.get("/")).await;
    drop(first);
    assert_eq!(second.reply().await.status, 200);
    rig.stop().await;
}
