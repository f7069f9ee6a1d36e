//! The loop against raw clients: protocols, limits and the drain.

use std::net::SocketAddr;

use axum::routing::get;
use http::Response;
use http_body_util::BodyExt;
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

/// A client that says no more than `beginning` over HTTP/2, and what it is told until the end.
async fn says_no_more(address: SocketAddr, beginning: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(beginning).await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, client.read_to_end(&mut answer));
    let ended = ended.await.expect("the server hangs up by itself");
    // It may also be reset.
    drop(ended);
    answer
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// The beginning of a request's head, to be continued.
const HALF_A_HEAD: &[u8] = &[0, 0, 1, 1, 1, 0, 0, 0, 1, 0x82];

#[tokio::test]
async fn a_connection_of_http2_without_a_request_is_ended() {
    let server = Server::new(hello()).header_timeout(Duration::from_millis(50));
    let running = start(server, Duration::from_millis(10));
    for beginning in [
        PREFACE.to_vec(),
        [PREFACE, SETTINGS].concat(),
        [PREFACE, SETTINGS, HALF_A_HEAD].concat(),
    ] {
        let told = says_no_more(running.address, &beginning).await;
        // Frames of kind 7 say goodbye.
        let goodbye = told.windows(9).any(|head| head[3] == 7 && head[0] == 0);
        assert!(goodbye || beginning == PREFACE, "{told:?}");
    }
}

#[tokio::test]
async fn a_request_over_http2_may_take_as_long_as_it_takes() {
    let idle = Duration::from_millis(50);
    let router = Router::new().route(
        "/",
        get(move || async move {
            tokio::time::sleep(idle * 6).await;
            "hello"
        }),
    );
    let running = start(Server::new(router).header_timeout(idle), ENDLESS);
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, axum::body::Body>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .unwrap();
    let ask = || {
        let request = http::Request::get("http://test/");
        request.body(axum::body::Body::empty()).unwrap()
    };
    let talk = async {
        let response = sender.send_request(ask()).await.unwrap();
        assert_eq!(response.status(), 200);
        let body = axum::body::Body::new(response.into_body());
        assert_eq!(axum::body::to_bytes(body, 9).await.unwrap(), "hello");
        // Kept open by the sender alone, until the server has had enough.
        std::future::pending::<()>().await;
    };
    let ended = tokio::time::timeout(DEADLINE, async {
        tokio::select! {
            ended = connection => ended,
            () = talk => unreachable!(),
        }
    });
    ended.await.expect("the end in time").unwrap();
}

#[tokio::test]
async fn an_answer_over_http2_may_be_taken_as_slowly_as_one_likes() {
    const LENGTH: usize = 100_000;
    let idle = Duration::from_millis(50);
    let router = Router::new().route("/", get(async || vec![b'x'; LENGTH]));
    let running = start(Server::new(router).header_timeout(idle), ENDLESS);
    let stream = TcpStream::connect(running.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(20_000)
        .handshake::<_, axum::body::Body>(TokioIo::new(stream))
        .await
        .unwrap();
    let talk = async {
        let request = http::Request::get("http://test/");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let mut body = sender.send_request(request).await.unwrap().into_body();
        let mut left = LENGTH;
        while left > 0 {
            let piece = body.frame().await.expect("more").expect("no break");
            left -= piece.into_data().unwrap().len();
            // Longer than an idle connection lives, its parting included.
            tokio::time::sleep(idle * 4).await;
        }
    };
    // The connection may be over before the client has looked at what came last.
    let both = async { tokio::join!(talk, async { connection.await.unwrap() }) };
    tokio::time::timeout(DEADLINE, both).await.unwrap();
}

#[tokio::test]
async fn a_tls_client_that_says_nothing_is_dropped() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = made.signing_key.serialize_pem();
    let config =
        crate::tls::from_pem(made.cert.pem().as_bytes(), "crt", key.as_bytes(), "key").unwrap();
    let server = Server::new(hello()).tls(config);
    let hasty = server.clone().header_timeout(Duration::from_millis(50));
    let running = start(hasty, Duration::from_millis(10));
    assert!(says_no_more(running.address, b"").await.is_empty());
    // One that still may speak holds up no end.
    let running = start(server.header_timeout(ENDLESS), ENDLESS);
    let _client = TcpStream::connect(running.address).await.unwrap();
    running.shutdown.trigger();
    tokio::time::timeout(DEADLINE, running.finished)
        .await
        .unwrap()
        .unwrap();
}

/// Passes when others have been served, which takes longer than what is wrongly done at once.
async fn others_are_served() {
    let running = start(Server::new(hello()), Duration::from_millis(10));
    for _ in 0..20 {
        let mut client = TcpStream::connect(running.address).await.unwrap();
        assert!(exchange(&mut client, GET).await.starts_with("HTTP/1.1 200"));
    }
}

/// Answers with an upgrade and says "over" when it is told to go.
fn upgrading() -> Router {
    async fn take(request: Request) -> Response<axum::body::Body> {
        let (mut head, _) = request.into_parts();
        let upgrade = head.extensions.remove::<Upgrade>().unwrap();
        let tasks = Tasks::new("upgraded");
        let upgraded = hyper::upgrade::on(http::Request::from_parts(head, ()));
        let talk = tasks.clone();
        tasks.spawn("talk", async move {
            let _talk = talk;
            let mut stream = TokioIo::new(upgraded.await.unwrap());
            stream.write_all(b"hello").await.unwrap();
            tokio::select! {
                () = upgrade.over() => stream.write_all(b"over").await.unwrap(),
                _ = stream.read_u8() => {}
            }
        });
        Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "test")
            .body(axum::body::Body::empty())
            .unwrap()
    }
    Router::new()
        .route("/up", get(take))
        .route("/", get(|| async { "hello" }))
}

const UP: &str = "GET /up HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: test\r\n\r\n";

#[tokio::test]
async fn an_upgraded_connection_keeps_its_place_until_it_ends() {
    let server = Server::new(upgrading()).max_connections(1);
    let running = start(server, Duration::from_millis(10));
    let mut first = TcpStream::connect(running.address).await.unwrap();
    let answer = exchange(&mut first, UP).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let mut second = TcpStream::connect(running.address).await.unwrap();
    let mut waiting = std::pin::pin!(exchange(&mut second, GET));
    tokio::select! {
        biased;
        answer = &mut waiting => panic!("served beside the first: {answer}"),
        () = others_are_served() => {}
    }
    drop(first);
    let answer = tokio::time::timeout(DEADLINE, waiting).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn upgraded_connections_are_waited_for_and_told_that_it_is_over() {
    // One that ends by itself is waited for, however long.
    let running = start(Server::new(upgrading()), ENDLESS);
    let mut client = TcpStream::connect(running.address).await.unwrap();
    exchange(&mut client, UP).await;
    running.shutdown.trigger();
    let mut finished = running.finished;
    tokio::select! {
        biased;
        _ = &mut finished => panic!("the end does not wait"),
        () = others_are_served() => {}
    }
    client.write_all(b"x").await.unwrap();
    tokio::time::timeout(DEADLINE, finished)
        .await
        .unwrap()
        .unwrap();
    // One that does not is told while there is time.
    let running = start(Server::new(upgrading()), Duration::from_millis(500));
    let mut client = TcpStream::connect(running.address).await.unwrap();
    exchange(&mut client, UP).await;
    running.shutdown.trigger();
    let mut rest = String::new();
    tokio::time::timeout(DEADLINE, client.read_to_string(&mut rest))
        .await
        .expect("the end in time")
        .unwrap();
    assert_eq!(rest, "over");
    tokio::time::timeout(DEADLINE, running.finished)
        .await
        .unwrap()
        .unwrap();
}
