//! A process over a WebSocket.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::{PATIENCE, Server, eventually, runs, settled, start, start_with};

struct Attached(WebSocketStream<TcpStream>);

async fn attach(server: &Server, id: u64, query: &str) -> Attached {
    let url = format!("ws://{}/v1/processes/{id}/attach{query}", server.address);
    let mut request = url.into_client_request().unwrap();
    let protocol = "v5.channel.k8s.io".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (socket, answer) = tokio_tungstenite::client_async(request, stream)
        .await
        .unwrap();
    assert_eq!(
        answer.headers()["sec-websocket-protocol"],
        "v5.channel.k8s.io"
    );
    Attached(socket)
}

impl Attached {
    async fn send(&mut self, channel: u8, bytes: &[u8]) {
        let message = [&[channel], bytes].concat();
        self.0.send(Message::Binary(message.into())).await.unwrap();
    }

    /// The next message with content: its channel and its bytes.
    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.0.next()).await;
            match message.expect("a message in time") {
                Some(Ok(Message::Binary(bytes))) => return Some((bytes[0], bytes[1..].to_vec())),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Everything of a channel until the end, and what was said about the end.
    async fn finish(mut self, wanted: u8) -> (String, Value) {
        let mut bytes = Vec::new();
        while let Some((channel, more)) = self.next().await {
            if channel == 3 {
                assert_eq!(self.next().await, None, "nothing after the end");
                let status = serde_json::from_slice(&more).unwrap();
                return (String::from_utf8(bytes).unwrap(), status);
            }
            if channel == wanted {
                bytes.extend(more);
            }
        }
        panic!("no word about the end after {bytes:?}");
    }

    async fn until(&mut self, text: &str) {
        let mut seen = String::new();
        while !seen.contains(text) {
            let (_, bytes) = self.next().await.expect("more output");
            seen += &String::from_utf8_lossy(&bytes);
        }
    }
}

#[tokio::test]
async fn a_shell_is_used_left_and_found_again() {
    let server = start().await;
    let request =
        json!({"argv": ["sh"], "pty": {"cols": 80, "rows": 24}, "env": {"PS1": "ready> "}});
    let id = server.detach(&request).await;
    let mut first = attach(&server, id, "").await;
    first.until("ready> ").await;
    first.send(0, b"VALUE=kept; stty size\n").await;
    first.until("24 80").await;
    first.send(4, br#"{"Width": 132, "Height": 50}"#).await;
    first.send(0, b"stty size\n").await;
    first.until("50 132").await;
    let next = server.process(id).await["output"]["next_entry"]
        .as_u64()
        .unwrap();
    drop(first);
    let mut second = attach(&server, id, &format!("?from={next}")).await;
    second.send(0, b"echo still $VALUE\n").await;
    second.until("still kept").await;
    second.send(0, b"exit 3\n").await;
    let (_, status) = second.finish(1).await;
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    // Everything is there from the beginning, also after the end.
    let (all, status) = attach(&server, id, "").await.finish(1).await;
    assert!(
        all.contains("24 80") && all.contains("50 132") && all.contains("still kept"),
        "{all}"
    );
    assert_eq!(status["reason"], "NonZeroExitCode");
}

#[tokio::test]
async fn outputs_are_told_apart_and_input_can_be_ended() {
    let server = start().await;
    let request = json!({"shell": "cat; echo err >&2", "stdin": true});
    let id = server.detach(&request).await;
    let mut attached = attach(&server, id, "").await;
    attached.send(0, b"in").await;
    attached.send(255, &[0]).await;
    // What comes after the end is not taken, and breaks nothing.
    attached.send(0, b"late").await;
    let (out, status) = attached.finish(1).await;
    assert_eq!((out.as_str(), &status["status"]), ("in", &json!("Success")));
    let (err, _) = attach(&server, id, "").await.finish(2).await;
    assert_eq!(err, "err\n");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_process_back_until_it_leaves() {
    let server = start().await;
    let id = server
        .shell("sleep 0.2; head -c 64000000 /dev/zero; touch written; sleep 1000")
        .await;
    let attached = attach(&server, id, "").await;
    let process = server.runtime.processes().list().pop().unwrap();
    eventually("output began", || process.journal().next_number() > 10).await;
    let mut last = 0;
    settled("its output stops", || {
        let now = process.journal().next_number();
        std::mem::replace(&mut last, now) == now
    })
    .await;
    let written = server.root().join("written");
    assert!(!written.exists());
    drop(attached);
    eventually("it goes on alone", || written.exists()).await;
    assert!(runs(process.leader().as_raw_nonzero().get()));
}

#[tokio::test]
async fn pages_of_another_origin_are_refused() {
    let server = start().await;
    let id = server.shell("sleep 1000").await;
    for (origin, status) in [("http://evil.example", 403), ("http://sandbox", 200)] {
        for path in ["/v1/processes", &format!("/v1/processes/{id}"), "/list/"] {
            let answer = server.call("GET", path, &[("origin", origin)]).await;
            assert_eq!(answer.status, status, "{path} {answer:?}");
        }
    }
    let host = server.address;
    let url = format!("ws://{host}/v1/processes/{id}/attach");
    let mut request = url.into_client_request().unwrap();
    request
        .headers_mut()
        .insert("origin", "http://evil.example".parse().unwrap());
    let stream = TcpStream::connect(server.address).await.unwrap();
    assert!(
        tokio_tungstenite::client_async(request, stream)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn who_is_attached_at_the_end_is_told_that_the_runtime_goes_away() {
    let server = start_with(|config| config.shutdown_timeout = Duration::from_secs(1)).await;
    // It does not end before the time of the connections is over.
    let id = server
        .shell("trap \"\" TERM; echo ready; while :; do sleep 0.1; done")
        .await;
    let mut attached = attach(&server, id, "").await;
    attached.until("ready").await;
    server.shutdown.trigger();
    let code = tokio::time::timeout(PATIENCE, async {
        loop {
            match attached.0.next().await {
                Some(Ok(Message::Close(frame))) => return frame.unwrap().code,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(code.await.expect("a close in time"), CloseCode::Away);
    server.stop().await;
}

#[tokio::test]
async fn who_does_not_read_does_not_hold_up_the_end() {
    let server = start_with(|config| config.shutdown_timeout = Duration::from_secs(1)).await;
    let id = server.shell("yes").await;
    let _attached = attach(&server, id, "").await;
    let process = server.runtime.processes().list().pop().unwrap();
    eventually("output began", || process.journal().next_number() > 10).await;
    server.stop().await;
}

#[tokio::test]
async fn an_attached_client_has_a_place_among_the_connections() {
    let server = start_with(|config| config.max_connections = 2).await;
    let id = server.shell("sleep 1000").await;
    // The connection that started it may still be there.
    let first = attach(&server, id, "").await;
    let second = attach(&server, id, "").await;
    let mut waiting = std::pin::pin!(server.get("/healthz"));
    let others = settled("twenty looks", || true);
    tokio::select! {
        biased;
        answer = &mut waiting => panic!("served beside two: {answer:?}"),
        () = others => {}
    }
    drop((first, second));
    assert_eq!(waiting.await.status, 200);
}

#[tokio::test]
async fn what_is_no_websocket_is_told_what_one_is() {
    let server = start().await;
    let id = server.shell("sleep 1000").await;
    let path = format!("/v1/processes/{id}/attach");
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let key = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let version = ("sec-websocket-version", "13");
    for (headers, status, code, says) in [
        (vec![], 426, "UPGRADE_REQUIRED", "Upgrade: websocket"),
        (vec![upgrade[0]], 426, "UPGRADE_REQUIRED", "WebSocket"),
        (vec![upgrade[1]], 426, "UPGRADE_REQUIRED", "WebSocket"),
        (
            vec![upgrade[0], ("upgrade", "h2c"), key, version],
            426,
            "UPGRADE_REQUIRED",
            "WebSocket",
        ),
        (
            vec![upgrade[0], upgrade[1], version],
            400,
            "INVALID_ARGUMENT",
            "sec-websocket-key is missing",
        ),
        (
            vec![
                upgrade[0],
                upgrade[1],
                ("sec-websocket-key", "short"),
                version,
            ],
            400,
            "INVALID_ARGUMENT",
            "sec-websocket-key is not 16 bytes",
        ),
        (
            vec![upgrade[0], upgrade[1], key],
            400,
            "INVALID_ARGUMENT",
            "expected 13",
        ),
        (
            vec![upgrade[0], upgrade[1], key, ("sec-websocket-version", "8")],
            400,
            "INVALID_ARGUMENT",
            "expected 13",
        ),
    ] {
        let answer = server.call("GET", &path, &headers).await;
        assert_eq!(answer.status, status, "{headers:?} {answer:?}");
        let error = answer.json();
        assert_eq!(error["code"], code, "{headers:?}");
        let text = error["message"].as_str().unwrap();
        assert!(text.contains(says), "{headers:?}: {text}");
        if status == 426 {
            assert_eq!(answer.header("upgrade"), "websocket");
        }
        if says == "expected 13" {
            assert_eq!(answer.header("sec-websocket-version"), "13");
        }
    }
    let answer = server.call("POST", &path, &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, "GET")
    );
}
