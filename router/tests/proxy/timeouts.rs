//! How long things may take.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::rig::{self, LONG, Rig, StoppedClock};
use crate::sandbox::{Sandbox, ok};
use crate::wire::Reply;

/// Short enough to wait for, where nothing has to happen within it.
const SHORT: Duration = Duration::from_millis(200);

/// A sandbox that reads requests, tells of each, and never answers.
fn silent() -> (Sandbox, UnboundedReceiver<()>) {
    let (asked, questions) = unbounded_channel();
    let sandbox = Sandbox::start(move |mut wire| {
        let asked = asked.clone();
        async move {
            while let Some(head) = wire.head().await {
                wire.body(&head).await;
                asked.send(()).unwrap();
            }
        }
    });
    (sandbox, questions)
}

/// Sends a request to a silent sandbox, lets `time` pass once it has it, and returns the answer.
async fn answer_after(
    time: Duration,
    rig: &Rig,
    questions: &mut UnboundedReceiver<()>,
    request: &str,
) -> Reply {
    let mut wire = rig.connect().await;
    wire.write(request).await;
    questions.recv().await.unwrap();
    StoppedClock::skip(time).await;
    wire.reply().await
}

#[tokio::test]
async fn a_slow_answer_is_a_504() {
    let mut config = rig::config();
    config.time.request = LONG;
    let rig = Rig::start(config);
    let (stub, mut questions) = silent();
    for request in [stub.get("/"), stub.post("/", "body")] {
        let reply = answer_after(LONG, &rig, &mut questions, &request).await;
        assert_eq!(
            (reply.status, reply.detail().as_str()),
            (504, "Timed out waiting for the backend sandbox: box")
        );
    }
    let timeouts =
        r#"sandbox_router_upstream_errors_total{reason="timeout",sandbox_namespace="ns"}"#;
    assert!(rig.metric(timeouts) == 2.0);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_may_wait_shorter() {
    let rig = Rig::start(rig::config());
    let (stub, mut questions) = silent();
    let request = stub
        .get("/")
        .replace("Host:", "X-Sandbox-Timeout: 99.5\r\nHost:");
    let patience = Duration::from_millis(99_500);
    let reply = answer_after(patience, &rig, &mut questions, &request).await;
    assert_eq!(reply.status, 504);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_may_not_wait_longer() {
    let mut config = rig::config();
    config.time.request = LONG;
    let rig = Rig::start(config);
    let (stub, mut questions) = silent();
    for wish in ["9999", "abc", "nan", "0", "-1"] {
        let header = format!("X-Sandbox-Timeout: {wish}\r\nHost:");
        let request = stub.get("/").replace("Host:", &header);
        let reply = answer_after(LONG, &rig, &mut questions, &request).await;
        assert_eq!(reply.status, 504, "{wish}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_tighter_bound_for_the_head_is_possible() {
    let mut config = rig::config();
    let bound = config.time.request / 2;
    config.time.response_header = Some(bound);
    let rig = Rig::start(config);
    let (stub, mut questions) = silent();
    let reply = answer_after(bound, &rig, &mut questions, &stub.get("/")).await;
    assert_eq!(reply.status, 504);
    rig.stop().await;
}

#[tokio::test]
async fn a_client_that_stops_sending_is_told_so() {
    let mut config = rig::config();
    config.time.request = LONG;
    let rig = Rig::start(config);
    let (report, mut arrived) = unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let report = report.clone();
        async move {
            wire.head().await.unwrap();
            report.send(wire.bytes(3).await).unwrap();
            wire.rest().await;
        }
    });
    let mut wire = rig.connect().await;
    wire.write(format!(
        "POST / HTTP/1.1\r\n{}Content-Length: 10\r\n\r\nabc",
        stub.route()
    ))
    .await;
    assert_eq!(arrived.recv().await.unwrap(), b"abc");
    StoppedClock::skip(LONG).await;
    let reply = wire.reply().await;
    assert_eq!(
        (reply.status, reply.detail().as_str()),
        (408, "The request body stopped arriving.")
    );
    rig.stop().await;
}

#[tokio::test]
async fn an_upload_that_makes_progress_may_take_longer_than_an_answer() {
    let mut config = rig::config();
    config.time.request = LONG;
    let rig = Rig::start(config);
    let (report, mut arrived) = unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let report = report.clone();
        async move {
            wire.head().await.unwrap();
            report.send(b"head".to_vec()).unwrap();
            for _ in "progress".chars() {
                report.send(wire.bytes(1).await).unwrap();
            }
            wire.write(ok(b"all of it")).await;
        }
    });
    let mut wire = rig.connect().await;
    wire.write(format!(
        "POST / HTTP/1.1\r\n{}Content-Length: 8\r\n\r\n",
        stub.route()
    ))
    .await;
    assert_eq!(arrived.recv().await.unwrap(), b"head");
    // Each byte comes within the bound, all of them together do not.
    let clock = StoppedClock::now();
    for byte in "progress".chars() {
        clock.pass(LONG * 3 / 4).await;
        wire.write(byte.to_string()).await;
        assert_eq!(arrived.recv().await.unwrap(), [byte as u8]);
    }
    assert_eq!(wire.reply().await.text(), "all of it");
    drop(clock);
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_outlives_the_bound_for_its_head() {
    let mut config = rig::config();
    config.time.request = LONG;
    let rig = Rig::start(config);
    let (go, gone) = tokio::sync::watch::channel(false);
    let stub = Sandbox::start(move |mut wire| {
        let mut gone = gone.clone();
        async move {
            wire.head().await;
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
                .await;
            gone.wait_for(|gone| *gone).await.unwrap();
            wire.write("bc").await;
        }
    });
    let mut wire = rig.connect().await;
    wire.write(stub.get("/")).await;
    wire.head().await.unwrap();
    assert_eq!(wire.bytes(1).await, b"a");
    StoppedClock::skip(LONG * 3).await;
    go.send(true).unwrap();
    assert_eq!(wire.bytes(2).await, b"bc");
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_in_which_nothing_moves_is_ended() {
    let mut config = rig::config();
    config.time.idle = LONG;
    let rig = Rig::start(config);
    let stub = Sandbox::start(|mut wire| async move {
        wire.head().await;
        wire.write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na")
            .await;
        assert!(wire.is_closed().await);
    });
    let mut wire = rig.connect().await;
    wire.write(stub.get("/idle")).await;
    wire.head().await.unwrap();
    assert_eq!(wire.bytes(1).await, b"a");
    StoppedClock::skip(LONG).await;
    assert_eq!(wire.rest().await, b"");
    assert_eq!(rig.logged("/idle").await["outcome"], "timed-out");
    rig.stop().await;
}

#[tokio::test]
async fn a_stream_that_lives_too_long_is_ended() {
    let mut config = rig::config();
    config.time.stream = Some(LONG);
    let rig = Rig::start(config);
    let (go, beats) = tokio::sync::watch::channel(0);
    let stub = Sandbox::start(move |mut wire| {
        let mut beats = beats.clone();
        async move {
            wire.head().await;
            wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            while beats.changed().await.is_ok() {
                wire.write("1\r\nx\r\n").await;
            }
        }
    });
    let mut wire = rig.connect().await;
    let clock = StoppedClock::now();
    wire.write(stub.get("/long")).await;
    wire.head().await.unwrap();
    // It moves all the time, and ends nevertheless.
    for beat in 1..4 {
        clock.pass(LONG / 4).await;
        go.send(beat).unwrap();
        assert_eq!(wire.chunk().await.as_deref(), Some(b"x".as_slice()));
    }
    clock.pass(LONG / 2).await;
    assert_eq!(wire.rest().await, b"");
    drop(clock);
    assert_eq!(rig.logged("/long").await["outcome"], "timed-out");
    rig.stop().await;
}

#[tokio::test]
async fn a_slow_request_head_is_given_up() {
    let mut config = rig::config();
    config.time.request_header = SHORT;
    let rig = Rig::start(config);
    for beginning in ["", "GET / HT", "PRI * HTT"] {
        let mut wire = rig.connect().await;
        wire.write(beginning).await;
        assert!(wire.rest().await.is_empty(), "{beginning:?}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_parked_and_then_closed() {
    let mut config = rig::config();
    config.time.request_header = LONG / 10;
    config.time.keep_alive = LONG;
    let rig = Rig::start(config);
    let stub = Sandbox::answering(ok(b"x"));
    let mut wire = rig.connect().await;
    for _ in 0..3 {
        wire.write(stub.get("/")).await;
        assert_eq!(wire.reply().await.text(), "x");
        rig.metric_is("sandbox_router_parked_connections", 1.0)
            .await;
        // Longer than a head may take: nobody is sending one.
        StoppedClock::skip(LONG / 2).await;
    }
    StoppedClock::skip(LONG).await;
    assert!(wire.is_closed().await);
    rig.metric_is("sandbox_router_client_connections", 0.0)
        .await;
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_parked_and_then_closed() {
    let mut config = rig::config();
    config.time.request_header = LONG;
    let rig = Rig::start(config);
    let stub = Sandbox::answering(ok(b"x"));
    let (mut late, mut never) = (rig.connect().await, rig.connect().await);
    rig.metric_is("sandbox_router_parked_connections", 2.0)
        .await;
    late.write(stub.get("/")).await;
    assert_eq!(late.reply().await.text(), "x");
    StoppedClock::skip(LONG).await;
    assert!(never.is_closed().await);
    rig.stop().await;
}

#[tokio::test]
async fn half_a_request_that_came_early_survives_parking() {
    let mut config = rig::config();
    config.time.request_header = LONG;
    let rig = Rig::start(config);
    let stub = Sandbox::answering(ok(b"x"));
    let mut wire = rig.connect().await;
    let request = stub.get("/");
    let (early, late) = request.split_at(20);
    wire.write([request.as_str(), early].concat()).await;
    assert_eq!(wire.reply().await.text(), "x");
    StoppedClock::skip(LONG * 4 / 5).await;
    wire.write(late).await;
    assert_eq!(wire.reply().await.text(), "x");
    rig.stop().await;
}

#[tokio::test]
async fn waiting_for_a_sandbox_counts_towards_the_clients_patience() {
    let mut config = rig::config();
    config.resolution.wait = rig::DEADLINE;
    let rig = Rig::start(config);
    let request =
        "GET / HTTP/1.1\r\nHost: r\r\nX-Sandbox-ID: nobody\r\nX-Sandbox-Timeout: 0.05\r\n\r\n";
    assert_eq!(rig.send(request).await.status, 404);
    rig.stop().await;
}
