//! HTTP/2 on the same port, and gRPC through it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use agent_sandbox_service::listen;
use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::rig::{self, LOOPBACK, Rig, StoppedClock};
use crate::sandbox::{Sandbox, ok, reserved};

type Frames = StreamBody<futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

fn stream(frames: mpsc::UnboundedReceiver<Frame<Bytes>>) -> Frames {
    let frames = futures::stream::unfold(frames, |mut frames| async move {
        frames.recv().await.map(|frame| (Ok(frame), frames))
    });
    StreamBody::new(frames.boxed())
}

async fn connect<B>(address: SocketAddr) -> http2::SendRequest<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    sender
}

/// A gRPC server: echoes each message, ends with the status in trailers.
fn grpc() -> (SocketAddr, mpsc::UnboundedReceiver<http::request::Parts>) {
    let listener = listen::bind((LOOPBACK, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let heard = heard.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let heard = heard.clone();
                async move { Ok::<_, Infallible>(echo(request, &heard)) }
            });
            tokio::spawn(
                hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(socket), service),
            );
        }
    });
    (address, heads)
}

fn echo(
    request: Request<Incoming>,
    heard: &mpsc::UnboundedSender<http::request::Parts>,
) -> Response<Frames> {
    let (parts, mut body) = request.into_parts();
    heard.send(parts).unwrap();
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if send.send(frame).is_err() {
                return;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("grpc-message", "fine".parse().unwrap());
        send.send(Frame::trailers(trailers)).ok();
    });
    Response::builder()
        .header("content-type", "application/grpc")
        .body(stream(receive))
        .unwrap()
}

fn call(port: u16, id: &str) -> http::request::Builder {
    Request::post("http://router/process.ProcessService/Start")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("x-sandbox-id", id)
        .header("x-sandbox-namespace", "ns")
        .header("x-sandbox-port", port)
        .header("authorization", "Bearer secret")
}

#[tokio::test]
async fn a_grpc_stream_is_carried_with_its_trailers() {
    let (address, mut heads) = grpc();
    let rig = Rig::start(rig::config());
    let mut client = connect(rig.address).await;
    let (send, receive) = mpsc::unbounded_channel();
    let request = call(address.port(), "box").body(stream(receive)).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let head = heads.recv().await.unwrap();
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.uri.path(), "/process.ProcessService/Start");
    assert_eq!(head.uri.authority().unwrap().as_str(), address.to_string());
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(head.headers["x-forwarded-host"], "router");
    assert!(!head.headers.contains_key("authorization") && !head.headers.contains_key("host"));
    // Messages go back and forth one at a time, so nothing can be waiting for more.
    let mut body = response.into_body();
    for message in ["one", "two", "three"] {
        send.send(Frame::data(Bytes::from(message))).unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), message);
    }
    drop(send);
    let trailers = body
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_trailers()
        .unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["grpc-message"], "fine");
    assert!(body.frame().await.is_none());
    rig.stop().await;
}

#[tokio::test]
async fn grpc_calls_share_connections_on_both_sides() {
    let (address, mut heads) = grpc();
    let rig = Rig::start(rig::config());
    let client = connect::<Full<Bytes>>(rig.address).await;
    let calls = (0..20).map(|n| {
        let mut client = client.clone();
        let request = call(address.port(), "box")
            .body(Full::from(format!("message {n}")))
            .unwrap();
        async move {
            let response = client.send_request(request).await.unwrap();
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
            assert_eq!(body.to_bytes(), format!("message {n}"));
        }
    });
    futures::future::join_all(calls).await;
    for _ in 0..20 {
        heads.recv().await.unwrap();
    }
    // They came at once, and one of them dialled for all.
    rig.metric_is("sandbox_router_upstream_connect_seconds_count", 1.0)
        .await;
    rig.stop().await;
}

#[tokio::test]
async fn a_shared_connection_that_nobody_uses_is_let_go() {
    let (address, mut heads) = grpc();
    let rig = Rig::start(rig::config());
    let mut client = connect::<Full<Bytes>>(rig.address).await;
    let request = call(address.port(), "box").body(Full::from("m")).unwrap();
    let response = client.send_request(request).await.unwrap();
    response.into_body().collect().await.unwrap();
    heads.recv().await.unwrap();
    let shared = "sandbox_router_shared_upstream_connections";
    rig.metric_is(shared, 1.0).await;
    StoppedClock::skip(Duration::from_secs(60)).await;
    rig.metric_is(shared, 0.0).await;
    rig.stop().await;
}

#[tokio::test]
async fn errors_reach_grpc_clients_as_a_status() {
    let rig = Rig::start(rig::config());
    let mut client = connect::<Full<Bytes>>(rig.address).await;
    let (_socket, unused) = reserved();
    for (id, code, message) in [
        (
            "nobody",
            "5",
            "Sandbox nobody was not found in namespace ns.",
        ),
        ("box", "14", "Could not connect to the backend sandbox: box"),
        ("B_X", "3", "Invalid sandbox ID format."),
    ] {
        let request = call(unused, id).body(Full::default()).unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], code);
        assert_eq!(response.headers()["grpc-message"], message);
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_grpc_call_to_a_server_of_another_protocol_fails_cleanly() {
    let stub = Sandbox::answering(ok(b"HTTP/1.1 here"));
    let mut config = rig::config();
    config.time.connect = Duration::from_millis(500);
    let rig = Rig::start(config);
    let mut client = connect::<Full<Bytes>>(rig.address).await;
    let request = call(stub.port(), "box").body(Full::default()).unwrap();
    let response = client.send_request(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "14");
    rig.stop().await;
}

#[tokio::test]
async fn ordinary_requests_over_http_2_reach_http_1_1_sandboxes() {
    let stub = Sandbox::mirror();
    let rig = Rig::start(rig::config());
    let mut client = connect::<Full<Bytes>>(rig.address).await;
    let request = Request::post("http://router/a%2Fb?x")
        .version(Version::HTTP_2)
        .header("x-sandbox-id", "box")
        .header("x-sandbox-namespace", "ns")
        .header("x-sandbox-port", stub.port())
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(Full::from("body"))
        .unwrap();
    let response = client.send_request(request).await.unwrap();
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    let seen = std::str::from_utf8(&seen).unwrap();
    assert!(seen.starts_with("POST /a%2Fb?x HTTP/1.1\n"), "{seen}");
    assert!(seen.contains("cookie: a=1; b=2\n"), "{seen}");
    assert!(
        seen.contains("content-length: 4\n") && seen.ends_with("\nbody"),
        "{seen}"
    );
    assert!(seen.contains("x-forwarded-host: router\n"), "{seen}");
    rig.stop().await;
}

#[tokio::test]
async fn a_cancelled_stream_is_cancelled_at_the_sandbox() {
    let (left, mut noticed) = mpsc::unbounded_channel();
    let stub = Sandbox::start(move |mut wire| {
        let left = left.clone();
        async move {
            wire.head().await.unwrap();
            left.send(false).unwrap();
            left.send(wire.is_closed().await).unwrap();
        }
    });
    let rig = Rig::start(rig::config());
    let mut client = connect::<Full<Bytes>>(rig.address).await;
    let request = Request::get("http://router/cancelled")
        .header("x-sandbox-id", "box")
        .header("x-sandbox-namespace", "ns")
        .header("x-sandbox-port", stub.port())
        .body(Full::default())
        .unwrap();
    let call = tokio::spawn(client.send_request(request));
    assert_eq!(noticed.recv().await, Some(false));
    call.abort();
    assert_eq!(noticed.recv().await, Some(true));
    assert_eq!(rig.logged("/cancelled").await["outcome"], "client-gone");
    rig.stop().await;
}
