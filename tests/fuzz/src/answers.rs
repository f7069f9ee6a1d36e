//! Answers of a sandbox: whatever it sends, its client gets one well-formed answer or a broken one, and
//! the next request gets its own.
//!
//! A router on loopback in this process stands before a sandbox that answers the first request of each
//! connection with the bytes in question, and every further one as it should. What the router makes of
//! the bytes is compared with what a client of hyper does.

use std::net::SocketAddr;
use std::time::Duration;

use agent_sandbox_router::authz::Authorizer;
use agent_sandbox_router::error::ROUTER_ERROR;
use agent_sandbox_router::resolve::fixed::Fixed;
use agent_sandbox_router::{Config, Router};
use agent_sandbox_service::listen;
use agent_sandbox_service::shutdown::Shutdown;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use parking_lot::{Mutex, const_mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Longest anything may take: longer is a hang.
const PATIENCE: Duration = Duration::from_secs(20);
/// After which an answer that goes on is given up. What is cut short by a slow machine is only not compared.
const SILENCE: Duration = Duration::from_millis(20);
/// What the sandbox answers as it should.
const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";

/// A router and its sandbox, on a thread of their own that runs only while a check does.
struct Rig {
    runtime: Runtime,
    router: SocketAddr,
    sandbox: SocketAddr,
    answer: watch::Sender<Vec<u8>>,
}

static RIG: Mutex<Option<Rig>> = const_mutex(None);

pub(crate) fn check(bytes: &[u8]) {
    // A protocol of the sandbox's own has no end that could be compared.
    if bytes.windows(4).any(|window| window == b" 101") {
        return;
    }
    let mut rig = RIG.lock();
    let rig = rig.get_or_insert_with(Rig::start);
    let compared = async {
        // Connections from before belong to another answer, and end with it.
        rig.answer.send_replace(bytes.to_vec());
        while rig.answer.receiver_count() > 1 {
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(PATIENCE, compare(rig, bytes)).await
    };
    let ended = rig.runtime.block_on(compared);
    ended.expect("everything ends");
}

/// Asks through the router and directly, and then again through the router.
async fn compare(rig: &Rig, bytes: &[u8]) {
    let shown = || String::from_utf8_lossy(bytes).into_owned();
    let through = ask(rig.router, rig.sandbox.port()).await;
    let direct = ask(rig.sandbox, rig.sandbox.port()).await;
    if let (Some(passed), Some(expected)) = (&through, &direct) {
        assert_eq!(passed, expected, "{:?}", shown());
    }
    for _ in 0..2 {
        let next = ask(rig.router, rig.sandbox.port()).await;
        // The first request of a connection gets the bytes, a later one does not.
        let fresh = next == through || next.is_none() || through.is_none();
        let good = next
            .as_ref()
            .is_some_and(|(status, body)| *status == 200 && body == "good");
        assert!(fresh || good, "{next:?} after {through:?}: {:?}", shown());
    }
}

/// The status and body of an answer of the sandbox; `None` if there is no whole one.
async fn ask(address: SocketAddr, port: u16) -> Option<(u16, Bytes)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .ok()?;
    let request = http::Request::get("/")
        .header("host", "r")
        .header("x-sandbox-id", "box")
        .header("x-sandbox-namespace", "ns")
        .header("x-sandbox-port", port)
        .body(Empty::new())
        .ok()?;
    let exchange = async {
        let response = sender.send_request(request).await.ok()?;
        // What the router refuses to pass on, or had no time for, is no answer of the sandbox.
        if response.headers().contains_key(ROUTER_ERROR) {
            return None;
        }
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, body))
    };
    // The connection may end with the answer.
    let driven = async {
        drop(connection.await);
        std::future::pending::<Option<(u16, Bytes)>>().await
    };
    let quiet = tokio::time::sleep(SILENCE * 2);
    tokio::select! {
        biased;
        answer = exchange => answer,
        never = driven => never,
        () = quiet => None,
    }
}

impl Rig {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let _inside = runtime.enter();
        let loopback = || listen::bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
        let (front, back) = (loopback(), loopback());
        let address = |listener: &TcpListener| listener.local_addr().expect("it is bound");
        let (router, sandbox) = (address(&front), address(&back));
        let (answer, given) = watch::channel(Vec::new());
        let mut config = Config::new(Authorizer::AllowAll);
        config.retry.max = 0;
        config.resolution.wait = Duration::ZERO;
        config.time.request = SILENCE;
        config.time.idle = SILENCE;
        let table = Fixed::new().sandbox("ns", "box", [127, 0, 0, 1].into());
        let served = Router::builder(config)
            .resolver(table.into_table())
            .access_log_to(std::io::sink())
            .build()
            .expect("the router is complete");
        runtime.spawn(served.serve(front, Shutdown::new()));
        runtime.spawn(accept(back, given));
        Self {
            runtime,
            router,
            sandbox,
            answer,
        }
    }
}

async fn accept(listener: TcpListener, given: watch::Receiver<Vec<u8>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let mut given = given.clone();
        let answer = given.borrow_and_update().clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the connection, and both sides of that are this check's"
        )]
        tokio::spawn(async move {
            tokio::select! {
                () = serve(stream, answer) => {}
                _ = given.changed() => {}
            }
        });
    }
}

/// Answers with the bytes once, and ends there unless the other side asks again.
async fn serve(mut stream: TcpStream, answer: Vec<u8>) {
    let mut bytes = Vec::new();
    let mut answered = false;
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            bytes.drain(..end + 4);
            let sent = if answered { GOOD } else { &answer };
            if stream.write_all(sent).await.is_err() {
                return;
            }
            // What is read until the end needs one.
            if !answered && !says_its_length(&answer) && stream.shutdown().await.is_err() {
                return;
            }
            answered = true;
        }
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn says_its_length(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_ascii_lowercase();
    text.contains("content-length") || text.contains("chunked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_answers_arrive() {
        let seed = include_bytes!("../seeds/answers/length");
        check(seed);
        let rig = RIG.lock();
        let rig = rig.as_ref().unwrap();
        // On a slow machine an answer may come too late to be compared.
        let answers = rig.runtime.block_on(async {
            let mut answers = Vec::new();
            for _ in 0..50 {
                answers.extend(ask(rig.router, rig.sandbox.port()).await);
            }
            answers
        });
        let bodies: Vec<&[u8]> = answers.iter().map(|(_, body)| &body[..]).collect();
        assert!(bodies.contains(&&b"hello"[..]) || bodies.contains(&&b"good"[..]));
        assert!(
            bodies
                .iter()
                .all(|body| [&b"hello"[..], b"good"].contains(body))
        );
    }
}
