//! The loop against raw clients: protocols, limits and the drain.

use std::net::SocketAddr;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::listen;

/// Far longer than anything here takes; reached only by a failure.
const DEADLINE: Duration = Duration::from_secs(60);
/// A drain that nobody waits for.
const ENDLESS: Duration = Duration::from_secs(3600);

struct Running {
    address: SocketAddr,
    shutdown: Shutdown,
    finished: JoinHandle<()>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "the test joins the handle itself"
)]
fn start_on(ip: [u8; 4], server: Server, drain: Duration) -> Running {
    let listener = listen::bind((ip, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let finished = tokio::spawn(server.serve(listener, shutdown.clone(), drain));
    Running {
        address,
        shutdown,
        finished,
    }
}

fn start(server: Server, drain: Duration) -> Running {
    start_on([127, 0, 0, 1], server, drain)
}

async fn exchange(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        if stream.read_buf(&mut answer).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(answer).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[tokio::test]
async fn serves_and_drains_idle_connections_at_once() {
    // Nobody else listens on this address, so nobody takes the port over.
    let running = start_on([127, 3, 0, 10], Server::new(hello()), ENDLESS);
    let mut client = TcpStream::connect(running.address).await.unwrap();
    assert!(exchange(&mut client, GET).await.starts_with("HTTP/1.1 200"));
    running.shutdown.trigger();
    tokio::time::timeout(DEADLINE, running.finished)
        .await
        .unwrap()
        .unwrap();
    assert!(
        TcpStream::connect(running.address).await.is_err(),
        "the listener is closed"
    );
}

#[tokio::test]
async fn a_request_in_flight_is_finished_within_the_drain() {
    let (release, released) = tokio::sync::watch::channel(false);
    let (entered, mut inside) = tokio::sync::mpsc::channel(1);
    let router = Router::new().route(
        "/",
        get(move || {
            let (mut released, entered) = (released.clone(), entered.clone());
            async move {
                entered.send(()).await.unwrap();
                released.wait_for(|open| *open).await.unwrap();
                "hello"
            }
        }),
    );
    let running = start(Server::new(router), ENDLESS);
    let mut client = TcpStream::connect(running.address).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    inside.recv().await.unwrap();
    running.shutdown.trigger();
    release.send(true).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"),
        "{answer}"
    );
    tokio::time::timeout(DEADLINE, running.finished)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_outlives_the_drain_is_cut() {
    let router = Router::new().route("/", get(std::future::pending::<&'static str>));
    let running = start(Server::new(router), Duration::from_millis(10));
    let mut client = TcpStream::connect(running.address).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    running.shutdown.trigger();
    tokio::time::timeout(DEADLINE, running.finished)
        .await
        .unwrap()
        .unwrap();
    let mut answer = Vec::new();
    // The peer may close or reset; either way nothing was answered.
    drop(client.read_to_end(&mut answer).await);
    assert!(answer.is_empty());
}

#[tokio::test]
async fn a_slow_head_is_dropped() {
    let server = Server::new(hello()).header_timeout(Duration::from_millis(20));
    let running = start(server, Duration::from_millis(10));
    for beginning in ["", "GET / HT", "PRI * HTT"] {
        let mut client = TcpStream::connect(running.address).await.unwrap();
        client.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(DEADLINE, client.read_to_end(&mut answer));
        assert!(
            ended.await.is_ok(),
            "the server hangs up by itself after {beginning:?}"
        );
    }
}

#[tokio::test]
async fn tls_serves_with_alpn() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let config =
        crate::tls::from_pem(made.cert.pem().as_bytes(), "crt", key.as_bytes(), "key").unwrap();
    let running = start(Server::new(hello()).tls(config), Duration::from_millis(10));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(running.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let mut stream = connector
        .connect("localhost".try_into().unwrap(), stream)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
}
