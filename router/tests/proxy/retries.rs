//! Dialling again, but only while nothing was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_sandbox_router::Router;
use agent_sandbox_router::resolve::table::{Addresses, Kind, PodFacts, Table, Trust, Uid};
use agent_sandbox_service::listen;

use crate::rig::{self, LOOPBACK, Rig};
use crate::sandbox::{Sandbox, ok, reserved};

fn route(port: u16) -> String {
    format!("Host: r\r\nX-Sandbox-ID: box\r\nX-Sandbox-Namespace: ns\r\nX-Sandbox-Port: {port}\r\n")
}

const RETRIES: &str = r#"sandbox_router_upstream_retries_total{sandbox_namespace="ns"}"#;

#[tokio::test]
async fn a_sandbox_that_listens_late_is_reached_also_with_a_body() {
    for request_line in [
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 4\r\n",
    ] {
        let (socket, port) = reserved();
        let mut config = rig::config();
        config.retry.max = 1000;
        let rig = Rig::start(config);
        let mut wire = rig.connect().await;
        wire.write(format!("{request_line}{}\r\n", route(port)))
            .await;
        if request_line.starts_with("POST") {
            wire.write("body").await;
        }
        rig::eventually("the first repetition", async || rig.metric(RETRIES) >= 1.0).await;
        let _stub = Sandbox::on(socket.listen(16).unwrap(), |mut wire| async move {
            let head = wire.head().await.unwrap();
            let (body, _) = wire.body(&head).await;
            wire.write(&ok(&body)).await;
        });
        let reply = wire.reply().await;
        assert_eq!(reply.status, 200);
        if request_line.starts_with("POST") {
            assert_eq!(reply.text(), "body");
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn attempts_are_counted() {
    for (max, retries) in [(0, 0.0), (3, 3.0)] {
        let (_socket, port) = reserved();
        let mut config = rig::config();
        config.retry.max = max;
        let rig = Rig::start(config);
        let reply = rig
            .send(&format!("GET /tries HTTP/1.1\r\n{}\r\n", route(port)))
            .await;
        assert_eq!((reply.status, reply.reason()), (502, "dial"));
        assert!((rig.metric(RETRIES) - retries).abs() < f64::EPSILON);
        rig.stop().await;
    }
}

#[tokio::test]
async fn the_clients_patience_ends_the_repetitions() {
    let (_socket, port) = reserved();
    let mut config = rig::config();
    config.retry.max = u32::MAX;
    config.retry.initial_delay = Duration::from_secs(3600);
    config.retry.max_delay = Duration::from_secs(3600);
    let rig = Rig::start(config);
    let request = format!(
        "GET / HTTP/1.1\r\nX-Sandbox-Timeout: 1\r\n{}\r\n",
        route(port)
    );
    assert_eq!(
        rig.send(&request).await.status,
        502,
        "the reason is the failed dial"
    );
    rig.stop().await;
}

#[tokio::test]
async fn what_was_sent_is_never_sent_again() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = requests.clone();
    let stub = Sandbox::start(move |mut wire| {
        let counted = counted.clone();
        async move {
            // Breaks off instead of answering.
            if wire.head().await.is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let rig = Rig::start(rig::config());
    assert_eq!(rig.send(&stub.get("/")).await.status, 502);
    assert_eq!(rig.send(&stub.post("/", "body")).await.status, 502);
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced_unnoticed() {
    let (closed, mut noticed) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let closed = closed.clone();
        async move {
            let head = wire.head().await.unwrap();
            let (body, _) = wire.body(&head).await;
            wire.write(&ok(&body)).await;
            drop(wire);
            closed.send(()).unwrap();
        }
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    for n in 1..=20 {
        wire.write(stub.post("/", "same")).await;
        assert_eq!(wire.reply().await.text(), "same");
        noticed.recv().await.unwrap();
        assert_eq!(stub.connections(), n);
    }
    rig.stop().await;
}

#[tokio::test]
async fn idle_connections_are_closed_before_the_sandbox_does() {
    let mut config = rig::config();
    config.pool.idle_timeout = Duration::from_millis(100);
    let rig = Rig::start(config);
    let (closed, mut noticed) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let closed = closed.clone();
        async move {
            wire.head().await.unwrap();
            wire.write(&ok(b"x")).await;
            closed.send(wire.is_closed().await).unwrap();
        }
    });
    rig.send(&stub.get("/")).await;
    assert_eq!(noticed.recv().await, Some(true));
    rig.metric_is("sandbox_router_idle_upstream_connections", 0.0)
        .await;
    rig.stop().await;
}

#[tokio::test]
async fn only_so_many_idle_connections_are_kept() {
    let mut config = rig::config();
    config.pool.idle_per_target = 2;
    let rig = Rig::start(config);
    let all_here = Arc::new(tokio::sync::Barrier::new(5));
    let stub = Sandbox::on(
        listen::bind((LOOPBACK, 0).into()).unwrap(),
        move |mut wire| {
            let all_here = all_here.clone();
            async move {
                wire.head().await.unwrap();
                all_here.wait().await;
                wire.write(&ok(b"x")).await;
                wire.rest().await;
            }
        },
    );
    let requests = (0..5).map(|_| {
        let (rig, request) = (&rig, stub.get("/"));
        async move { rig.send(&request).await }
    });
    for reply in futures::future::join_all(requests).await {
        assert_eq!(reply.status, 200);
    }
    assert_eq!(stub.connections(), 5);
    rig.metric_is("sandbox_router_idle_upstream_connections", 2.0)
        .await;
    rig.stop().await;
}

#[tokio::test]
async fn a_sandbox_that_moves_while_it_is_dialled_is_found_where_it_went() {
    let (_socket, port) = reserved();
    // The same port at another address, where the pod after it is.
    let there = listen::bind(([127, 0, 0, 13], port).into()).unwrap();
    let _stub = Sandbox::on(there, |mut wire| async move {
        let head = wire.head().await.unwrap();
        let (body, _) = wire.body(&head).await;
        wire.write(&ok(&body)).await;
    });
    let pod = |uid: &str, address: [u8; 4]| PodFacts {
        uid: Uid::parse(uid).unwrap(),
        namespace: "ns".into(),
        name: "box".into(),
        sandbox_uid: Uid::parse("sandbox").unwrap(),
        sandbox_name: "box".into(),
        addresses: Addresses::new([address.into()]),
        ready: true,
        deleting: false,
        pooled: false,
    };
    let table = Arc::new(Table::new(Trust::Pods, None));
    table.set_loaded(Kind::Pods);
    table.update(|index| index.apply_pod(pod("old", [127, 0, 0, 1])));
    let mut config = rig::config();
    config.retry.max = 1000;
    let rig = Rig::build(Router::builder(config).resolver(table.clone()));
    let mut wire = rig.connect().await;
    wire.write(format!(
        "POST / HTTP/1.1\r\n{}Content-Length: 4\r\n\r\nbody",
        route(port)
    ))
    .await;
    rig::eventually("the first repetition", async || rig.metric(RETRIES) >= 1.0).await;
    table.update(|index| {
        index.delete_pod(&Uid::parse("old").unwrap());
        index.apply_pod(pod("new", [127, 0, 0, 13]));
    });
    assert_eq!(wire.reply().await.text(), "body");
    rig.stop().await;
}
