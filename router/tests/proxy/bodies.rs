//! Bodies stream both ways, at the pace of the slower side, and are never collected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};
use crate::wire::Reply;

#[tokio::test]
async fn bodies_with_and_without_a_length_arrive_whole() {
    let stub = Sandbox::mirror();
    let rig = Rig::start(rig::config());
    let body = "x".repeat(56 * 1024);
    let reply = rig.send(&stub.post("/sized", &body)).await;
    assert!(
        reply
            .text()
            .contains(&format!("content-length: {}\n", body.len()))
    );
    assert!(reply.text().ends_with(&body));

    let mut wire = rig.connect().await;
    wire.write(format!(
        "POST /chunked HTTP/1.1\r\n{}Transfer-Encoding: chunked\r\n\r\n",
        stub.route()
    ))
    .await;
    for part in ["Hello", ", ", "World"] {
        wire.write(format!("{:x}\r\n{part}\r\n", part.len())).await;
    }
    wire.write("0\r\n\r\n").await;
    let reply = wire.reply().await;
    assert!(
        reply.text().contains("transfer-encoding: chunked\n"),
        "{}",
        reply.text()
    );
    assert!(reply.text().ends_with("\nHello, World"));
    rig.stop().await;
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let stub = Sandbox::start(|mut wire| async move {
        let head = wire.head().await.unwrap();
        assert_eq!(head.get("trailer"), Some("x-up"));
        let (body, trailers) = wire.body(&head).await;
        assert_eq!(body, b"up");
        assert_eq!(trailers, [("x-up".to_owned(), "1".to_owned())]);
        wire.write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-down\r\n\r\n\
             4\r\ndown\r\n0\r\nx-down: 2\r\n\r\n",
        )
        .await;
    });
    let rig = Rig::start(rig::config());
    let request = format!(
        "POST / HTTP/1.1\r\n{}TE: trailers\r\nTrailer: x-up\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nup\r\n0\r\nx-up: 1\r\n\r\n",
        stub.route()
    );
    let reply = rig.send(&request).await;
    assert_eq!(reply.text(), "down");
    assert_eq!(reply.trailers, [("x-down".to_owned(), "2".to_owned())]);
    rig.stop().await;
}

#[tokio::test]
async fn every_event_of_a_stream_arrives_when_it_is_sent() {
    let (next, events) = tokio::sync::mpsc::unbounded_channel::<&str>();
    let events = Arc::new(tokio::sync::Mutex::new(events));
    let stub = Sandbox::start(move |mut wire| {
        let events = events.clone();
        async move {
            wire.head().await;
            wire.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            while let Some(event) = events.lock().await.recv().await {
                wire.write(format!("{:x}\r\n{event}\r\n", event.len()))
                    .await;
            }
            wire.write("0\r\n\r\n").await;
        }
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    wire.write(stub.get("/events")).await;
    wire.head().await.unwrap();
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        next.send(event).unwrap();
        assert_eq!(wire.chunk().await.unwrap(), event.as_bytes());
    }
    drop(next);
    assert_eq!(wire.chunk().await, None);
    rig.stop().await;
}

#[tokio::test]
async fn an_upload_and_its_response_overlap() {
    // The sandbox answers while the request is still being sent, and echoes as it goes.
    let stub = Sandbox::start(|mut wire| async move {
        let head = wire.head().await.unwrap();
        assert_eq!(head.get("transfer-encoding"), Some("chunked"));
        wire.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        while let Some(chunk) = wire.chunk().await {
            let text = String::from_utf8(chunk).unwrap();
            wire.write(format!("{:x}\r\n{text}\r\n", text.len())).await;
        }
        wire.write("0\r\n\r\n").await;
    });
    let rig = Rig::start(rig::config());
    let mut wire = rig.connect().await;
    wire.write(format!(
        "POST / HTTP/1.1\r\n{}Transfer-Encoding: chunked\r\n\r\n",
        stub.route()
    ))
    .await;
    wire.head().await.unwrap();
    for part in ["one", "two", "three"] {
        wire.write(format!("{:x}\r\n{part}\r\n", part.len())).await;
        assert_eq!(wire.chunk().await.unwrap(), part.as_bytes());
    }
    wire.write("0\r\n\r\n").await;
    assert_eq!(wire.chunk().await, None);
    rig.stop().await;
}

/// More than all buffers between two sockets and a router hold together.
const PLENTY: usize = 64 * 1024 * 1024;

/// Writes [`PLENTY`] and counts what the socket took.
async fn pour(stream: &mut (impl AsyncWrite + Unpin), sent: &AtomicUsize) {
    let block = vec![b'x'; 64 * 1024];
    while sent.load(Ordering::SeqCst) < PLENTY {
        stream.write_all(&block).await.unwrap();
        sent.fetch_add(block.len(), Ordering::SeqCst);
    }
}

/// A sandbox that answers with [`PLENTY`], and how much of it was sent.
fn pouring() -> (Sandbox, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let stub = Sandbox::start(move |mut wire| {
        let counted = counted.clone();
        async move {
            wire.head().await.unwrap();
            wire.write(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {PLENTY}\r\n\r\n"
            ))
            .await;
            pour(&mut wire.stream, &counted).await;
        }
    });
    (stub, sent)
}

/// A sandbox that takes [`PLENTY`] once it may.
fn swallowing(may: watch::Receiver<bool>) -> Sandbox {
    Sandbox::start(move |mut wire| {
        let mut may = may.clone();
        async move {
            let head = wire.head().await.unwrap();
            may.wait_for(|may| *may).await.unwrap();
            let length = head.get("content-length").unwrap().parse().unwrap();
            assert_eq!(wire.rest_of(length).await, PLENTY);
            wire.write(&ok(b"got it")).await;
        }
    })
}

/// A client that uploads [`PLENTY`] and reads the answer, and how much of it was sent.
async fn upload(rig: &Rig, stub: &Sandbox) -> (JoinHandle<Reply>, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let mut wire = rig.connect().await;
    wire.write(format!(
        "POST / HTTP/1.1\r\n{}Content-Length: {PLENTY}\r\n\r\n",
        stub.route()
    ))
    .await;
    let upload = tokio::spawn(async move {
        pour(&mut wire.stream, &counted).await;
        wire.reply().await
    });
    (upload, sent)
}

/// Waits until the first bytes of a body were sent.
async fn under_way(sent: &AtomicUsize) {
    rig::eventually("the body is under way", async || {
        sent.load(Ordering::SeqCst) > 0
    })
    .await;
}

// In both, a body as long passes through the same router from beginning to end, which began later:
// that is time enough for the one that nobody reads, were it collected on its way.

#[tokio::test]
async fn a_slow_reader_slows_the_sandbox_down() {
    let ((slow, sent), (fast, _)) = (pouring(), pouring());
    let rig = Rig::start(rig::config());
    let mut unread = rig.connect().await;
    unread.write(slow.get("/")).await;
    unread.head().await.unwrap();
    under_way(&sent).await;
    let mut read = rig.connect().await;
    read.write(fast.get("/")).await;
    read.head().await.unwrap();
    assert_eq!(read.rest_of(PLENTY).await, PLENTY);
    let ahead = sent.load(Ordering::SeqCst);
    assert!(ahead < PLENTY, "back-pressure reaches the sandbox");
    assert_eq!(unread.rest_of(PLENTY).await, PLENTY);
    rig.stop().await;
}

#[tokio::test]
async fn a_slow_sandbox_slows_the_client_down() {
    let (go, wait) = watch::channel(false);
    let (_, at_once) = watch::channel(true);
    let rig = Rig::start(rig::config());
    let (held, sent) = upload(&rig, &swallowing(wait)).await;
    under_way(&sent).await;
    let (passing, _) = upload(&rig, &swallowing(at_once)).await;
    assert_eq!(passing.await.unwrap().text(), "got it");
    let ahead = sent.load(Ordering::SeqCst);
    assert!(ahead < PLENTY, "back-pressure reaches the client");
    go.send(true).unwrap();
    assert_eq!(held.await.unwrap().text(), "got it");
    rig.stop().await;
}

#[tokio::test]
async fn a_body_is_asked_for_only_when_the_sandbox_asks() {
    let rig = Rig::start(rig::config());
    let request = |stub: &Sandbox| {
        format!(
            "PUT / HTTP/1.1\r\n{}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            stub.route()
        )
    };
    // The sandbox asks, so the client is asked.
    let asking = Sandbox::start(|mut wire| async move {
        let head = wire.head().await.unwrap();
        assert_eq!(head.get("expect"), Some("100-continue"));
        wire.write("HTTP/1.1 100 Continue\r\n\r\n").await;
        let (body, _) = wire.body(&head).await;
        wire.write(&ok(&body)).await;
    });
    let mut wire = rig.connect().await;
    wire.write(request(&asking)).await;
    assert_eq!(wire.head().await.unwrap().line, "HTTP/1.1 100 Continue");
    wire.write("body").await;
    assert_eq!(wire.reply().await.text(), "body");

    // The sandbox refuses, so the client is not asked at all.
    let refusing = Sandbox::start(|mut wire| async move {
        wire.head().await.unwrap();
        wire.write("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            .await;
        assert!(wire.is_closed().await, "no byte of the body is sent");
    });
    let mut wire = rig.connect().await;
    wire.write(request(&refusing)).await;
    assert_eq!(wire.reply().await.status, 413);
    rig.stop().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_the_request_off() {
    let rig = Rig::start(rig::config());
    let (broke, mut noticed) = tokio::sync::mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let broke = broke.clone();
        async move {
            wire.head().await.unwrap();
            assert_eq!(wire.bytes(3).await, b"abc");
            broke.send(wire.is_closed().await).unwrap();
        }
    });
    let mut wire = rig.connect().await;
    wire.write(format!(
        "POST / HTTP/1.1\r\n{}Content-Length: 10\r\n\r\nabc",
        stub.route()
    ))
    .await;
    drop(wire);
    assert_eq!(
        noticed.recv().await,
        Some(true),
        "the sandbox never sees a complete body"
    );
    rig.stop().await;
}

#[tokio::test]
async fn a_connection_whose_request_ended_in_trailers_is_parked_like_others() {
    let rig = Rig::start(rig::config());
    let stub = Sandbox::mirror();
    let mut wire = rig.connect().await;
    for _ in 0..2 {
        wire.write(format!(
            "POST / HTTP/1.1\r\n{}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0\r\nX-Sum: 1\r\n\r\n",
            stub.route()
        ))
        .await;
        assert!(wire.reply().await.text().ends_with("\nx-sum: 1"));
        rig.metric_is("sandbox_router_parked_connections", 1.0)
            .await;
    }
    rig.stop().await;
}
