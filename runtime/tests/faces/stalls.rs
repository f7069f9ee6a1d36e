//! Clients that announce more than they send.

use std::time::Duration;

use futures::StreamExt;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::grpc;
use crate::harness::{FORM, PATIENCE, Server, eventually, form, start_with};

/// A server that waits for a fifth of a second.
async fn impatient() -> Server {
    start_with(|config| config.body_timeout = Duration::from_millis(200)).await
}

/// Sends the head of a request and as much of its body as there is, and returns all that is answered until
/// the server hangs up.
async fn stall(server: &Server, request: &str, kind: &str, body: &[u8]) -> (StatusCode, Value) {
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "{request} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: 100000\r\n\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(body).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer))
        .await
        .expect("the end in time")
        .unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("connection: close"), "{head}");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

fn names(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir(server.root()).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

const TEXT: &str = "No byte of the request body came for 0.2 seconds";

#[tokio::test]
async fn a_body_that_does_not_come_on_is_given_up_in_the_words_of_each_face() {
    let server = impatient().await;
    let much = vec![b'x'; 40_000];
    let half = form("half", &much);
    let half = &half[..half.len() - 10];
    for (request, kind, body, member) in [
        ("POST /execute", "application/json", &b""[..], "detail"),
        (
            "POST /execute",
            "application/json",
            b"{\"command\": ",
            "detail",
        ),
        ("POST /upload", FORM, half, "detail"),
        ("PUT /v1/files/half", "", &much, "message"),
        ("PUT /v1/files/half", FORM, half, "message"),
        ("POST /v1/fs/stat", "", b"{", "message"),
        ("POST /v1/processes", "", b"{", "message"),
    ] {
        let (status, answer) = stall(&server, request, kind, body).await;
        assert_eq!(status, StatusCode::REQUEST_TIMEOUT, "{request}: {answer}");
        assert_eq!(answer[member], TEXT, "{request}: {answer}");
        if member == "message" {
            assert_eq!(answer["code"], "TIMEOUT", "{request}: {answer}");
        }
        let left = names(&server);
        assert!(left.is_empty(), "{request} left {left:?}");
    }
    assert_eq!(server.runtime.processes().running(), 0);
}

#[tokio::test]
async fn half_an_archive_is_given_up_and_told_how_much_of_it_is_stored() {
    let server = impatient().await;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    archive
        .append_data(&mut header, "whole", &b"whole"[..])
        .unwrap();
    let archive = archive.into_inner().unwrap();
    let begun = &archive[..1024];
    let (status, answer) = stall(&server, "PUT /v1/archive/", "", begun).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT, "{answer}");
    assert_eq!(answer["code"], "TIMEOUT", "{answer}");
    let text = answer["message"].as_str().unwrap();
    assert!(text.contains(TEXT), "{text}");
    assert_eq!(names(&server), ["whole"]);
}

#[tokio::test]
async fn half_a_message_over_grpc_is_given_up() {
    let server = impatient().await;
    for sent in [&[][..], &[0, 0], &[0, 0, 0, 0, 100, 10]] {
        let mut channel = grpc::channel(&server).await;
        let piece = Frame::data(Bytes::copy_from_slice(sent));
        let pieces = futures::stream::iter([Ok::<_, tonic::Status>(piece)]);
        let body = StreamBody::new(pieces.chain(futures::stream::pending()));
        let request = Request::post(format!(
            "http://{}/process.v1.ProcessService/Execute",
            server.address
        ))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(body))
        .unwrap();
        let answer = tower::Service::call(&mut channel, request);
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.expect("an answer in time").unwrap();
        assert_eq!(answer.headers()["grpc-status"], "4", "{answer:?}");
        let text = answer.headers()["grpc-message"].to_str().unwrap();
        assert!(text.contains("No%20byte"), "{text}");
    }
}

#[tokio::test]
async fn input_may_pause_for_as_long_as_its_process_runs() {
    let server = impatient().await;
    let request = json!({"shell": "cat > typed", "stdin": true}).to_string();
    let answer = server.post("/v1/processes", "", request).await;
    let id = answer.json()["id"].as_u64().unwrap();
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /v1/processes/{id}/stdin?eof=true HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
    );
    client.write_all(head.as_bytes()).await.unwrap();
    // As long as a body may pause.
    let (status, _) = stall(&server, "POST /execute", "", b"").await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    let (status, _) = stall(&server, "POST /execute", "", b"").await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    client.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, client.read_exact(&mut answer))
        .await
        .expect("an answer in time")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 204");
    eventually("it took both", || {
        std::fs::read(server.root().join("typed")).is_ok_and(|text| text == b"onetwo")
    })
    .await;
}

#[tokio::test]
async fn input_for_a_process_that_has_ended_is_not_waited_for() {
    let server = impatient().await;
    let request = json!({"shell": "head -c 3 > typed", "stdin": true}).to_string();
    let answer = server.post("/v1/processes", "", request).await;
    let id = answer.json()["id"].as_u64().unwrap();
    let request = format!("POST /v1/processes/{id}/stdin");
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let head = format!("{request} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\none");
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer))
        .await
        .expect("the end in time")
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 409"), "{answer}");
}
