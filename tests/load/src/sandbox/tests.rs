//! A scripted sandbox does what its table says, without a router in between.

use std::net::Ipv4Addr;

use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use tokio::net::TcpStream;

use super::*;

fn identity() -> Identity {
    Identity::first("ns", "box")
}

fn start() -> (Sandbox, SocketAddr) {
    let sandbox = Sandbox::start(identity(), (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = sandbox.address();
    (sandbox, address)
}

struct Got {
    status: u16,
    by: Option<Identity>,
    body: Vec<u8>,
    whole: bool,
}

async fn send(address: SocketAddr, path: &str, body: Bytes) -> Got {
    let tasks = Tasks::new("test");
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tasks.spawn("connection", async move { drop(connection.await) });
    let request = Request::post(path).body(Full::new(body)).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status().as_u16();
    let by = Identity::of(response.headers()).unwrap();
    let mut body = response.into_body();
    let (mut bytes, mut whole) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(frame.data_ref().unwrap()),
            Err(_) => whole = false,
        }
    }
    Got {
        status,
        by,
        body: bytes,
        whole,
    }
}

#[tokio::test]
async fn every_answer_says_who_gave_it() {
    let (sandbox, address) = start();
    for path in [
        "/",
        "/bytes?n=1",
        "/status?code=404",
        "/events?n=1",
        "/wait?ms=1",
    ] {
        let got = send(address, path, Bytes::new()).await;
        assert_eq!(got.by, Some(identity()), "{path}");
    }
    let who = send(address, "/x", Bytes::new()).await;
    assert_eq!(who.body, identity().to_string().as_bytes());
    assert_eq!(
        send(address, "/status?code=404", Bytes::new()).await.status,
        404
    );
    assert_eq!((sandbox.accepted(), sandbox.requests()), (7, 7));
    sandbox.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn bodies_are_the_pattern() {
    let (_sandbox, address) = start();
    let sound = |body: &[u8]| {
        let mut check = Check::default();
        check.take(body);
        check.is_sound().then_some(check.bytes())
    };
    for path in [
        "/bytes?n=200000",
        "/bytes?n=200000&chunked=1",
        "/bytes?n=200000&pace=100000000",
    ] {
        let got = send(address, path, Bytes::new()).await;
        assert_eq!(
            (sound(&got.body), got.whole),
            (Some(200_000), true),
            "{path}"
        );
    }
    let broken = send(address, "/bytes?n=200000&break=70000", Bytes::new()).await;
    assert!(!broken.whole && broken.body.len() == 70_000);
    let sent = crate::pattern::chunk(0, 50_000);
    assert_eq!(
        send(address, "/upload", sent.clone()).await.body,
        b"50000 sound"
    );
    assert_eq!(
        send(address, "/upload", sent.slice(1..)).await.body,
        b"49999 broken"
    );
    let events = send(address, "/events?n=2&every=1", Bytes::new()).await;
    let text = String::from_utf8(events.body).unwrap();
    assert_eq!(
        text,
        format!("id: 0\ndata: {0}\n\nid: 1\ndata: {0}\n\n", identity())
    );
}

#[tokio::test]
async fn a_call_ends_with_its_status() {
    let (_sandbox, address) = start();
    let tasks = Tasks::new("test");
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tasks.spawn("connection", async move { drop(connection.await) });
    let request = Request::post(format!("http://{address}/echo"))
        .header(CONTENT_TYPE, "application/grpc")
        .body(Full::new(Bytes::from_static(b"message")))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(collected.to_bytes(), "message");
}

#[tokio::test]
async fn a_websocket_echoes_until_it_is_closed() {
    let (sandbox, address) = start();
    let mut client = crate::client::WebSocket::open(address, &crate::client::Way::default())
        .await
        .unwrap();
    assert_eq!(client.identity(), &identity());
    for payload in [&b"one"[..], &vec![7; 70_000]] {
        assert_eq!(client.echo(payload).await.unwrap(), payload);
    }
    client.close().await.unwrap();
    drop(sandbox);
}

#[tokio::test]
async fn who_retires_answers_on_open_connections_only() {
    let (sandbox, address) = start();
    let mut client = crate::client::WebSocket::open(address, &crate::client::Way::default())
        .await
        .unwrap();
    sandbox.retire().await;
    assert!(TcpStream::connect(address).await.is_err());
    let heir = Sandbox::start(Identity::first("ns", "heir"), address).unwrap();
    assert_eq!(client.echo(b"still").await.unwrap(), b"still");
    let by = send(address, "/", Bytes::new()).await.by.unwrap();
    assert_eq!(by, Identity::first("ns", "heir"));
    sandbox.stop().await;
    assert!(client.echo(b"gone").await.is_err());
    assert_eq!(heir.requests(), 1);
}
