//! Stopping: not ready first, then nothing new, then the end.

use std::time::Duration;

use agent_sandbox_router::{Listener, Router};
use tokio::net::TcpStream;

use crate::rig::{self, LONG, Rig, StoppedClock};
use crate::sandbox::{Sandbox, ok};

#[tokio::test]
async fn readiness_ends_first_and_the_listener_after_the_delay() {
    let mut config = rig::config();
    config.drain.delay = LONG;
    // Nobody else listens on this address, so nobody takes the port over.
    let alone = [127, 3, 0, 9].into();
    let builder = Router::builder(config).resolver(rig::one_box());
    let rig = Rig::listen_on(alone, builder, Listener::plain);
    let stub = Sandbox::answering(ok(b"still here"));
    rig::eventually("the router is ready", async || {
        rig.readiness.check().is_ok()
    })
    .await;
    rig.trigger();
    rig::eventually("the router is not ready", async || {
        rig.readiness.check().is_err()
    })
    .await;
    assert_eq!(rig.readiness.check().unwrap_err(), ["serving: draining"]);
    assert_eq!(rig.send(&stub.get("/")).await.text(), "still here");
    StoppedClock::skip(LONG).await;
    let address = rig.address;
    rig.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_request_in_flight_is_finished_and_idle_connections_are_closed_at_once() {
    let mut config = rig::config();
    config.drain.timeout = LONG;
    let rig = Rig::start(config);
    let (go, wait) = tokio::sync::watch::channel(false);
    let stub = Sandbox::start(move |mut wire| {
        let mut wait = wait.clone();
        async move {
            wire.head().await.unwrap();
            wait.wait_for(|go| *go).await.unwrap();
            wire.write(&ok(b"finished")).await;
        }
    });
    let mut idle = rig.connect().await;
    let mut kept = rig.connect().await;
    kept.write("GET /healthz HTTP/1.1\r\nHost: r\r\n\r\n").await;
    assert_eq!(kept.reply().await.status, 200);
    let mut busy = rig.connect().await;
    busy.write(stub.get("/")).await;
    rig::eventually("the request is under way", async || stub.connections() == 1).await;
    rig.trigger();
    assert!(idle.is_closed().await);
    assert!(kept.is_closed().await);
    go.send(true).unwrap();
    let reply = busy.reply().await;
    assert_eq!(reply.text(), "finished");
    assert!(busy.is_closed().await);
    rig.stop().await;
}

#[tokio::test]
async fn what_outlives_the_drain_is_cut() {
    let mut config = rig::config();
    config.drain.timeout = Duration::from_millis(100);
    let rig = Rig::start(config);
    let stub = Sandbox::start(|mut wire| async move {
        wire.head().await.unwrap();
        wire.rest().await;
    });
    let mut wire = rig.connect().await;
    wire.write(stub.get("/cut")).await;
    rig::eventually("the request is under way", async || stub.connections() == 1).await;
    rig.stop().await;
    assert!(wire.rest().await.is_empty());
}

#[tokio::test]
async fn a_websocket_lives_through_the_drain_and_is_closed_properly_at_its_end() {
    let mut config = rig::config();
    config.drain.timeout = LONG;
    let rig = Rig::start(config);
    let stub = Sandbox::start(|mut wire| async move {
        wire.head().await.unwrap();
        wire.write("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        assert_eq!(wire.bytes(4).await, b"ping");
        wire.write([0x81, 4]).await;
        wire.write("pong").await;
        wire.rest().await;
    });
    let mut wire = rig.connect().await;
    wire.write(stub.get("/ws").replace(
        "Host:",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nHost:",
    ))
    .await;
    assert!(wire.head().await.unwrap().line.contains("101"));
    rig.metric_is("sandbox_router_upgraded_connections", 1.0)
        .await;
    rig.trigger();
    rig::eventually("draining", async || rig.readiness.check().is_err()).await;
    wire.write("ping").await;
    assert_eq!(
        wire.bytes(6).await[2..],
        *b"pong",
        "tunnels go on while draining"
    );
    StoppedClock::skip(LONG).await;
    let goodbye = wire.rest().await;
    assert_eq!(goodbye[..4], [0x88, 25, 0x03, 0xe9], "{goodbye:?}");
    assert_eq!(&goodbye[4..], b"router is shutting down");
    rig.stop().await;
}

#[tokio::test]
async fn a_router_with_nothing_to_do_stops_at_once() {
    let mut config = rig::config();
    config.drain.timeout = Duration::from_secs(3600);
    let rig = Rig::start(config);
    let stub = Sandbox::answering(ok(b"x"));
    rig.send(&stub.get("/")).await;
    rig.stop().await;
}
