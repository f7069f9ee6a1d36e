//! Whole connections: whatever a client sends, what reaches a sandbox is well-formed, is for that
//! sandbox, and carries no credential.
//!
//! The bytes go to a router on loopback in this process, in front of a sandbox that reads with a
//! parser of its own, which accepts nothing that could be read in two ways.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agent_sandbox_router::authz::Authorizer;
use agent_sandbox_router::resolve::fixed::Fixed;
use agent_sandbox_router::{Config, Router};
use agent_sandbox_service::listen;
use agent_sandbox_service::shutdown::Shutdown;
use parking_lot::{Mutex, const_mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// What stands for the sandbox's port in an input.
const PORT: &[u8] = b"PORT";
/// Longest anything may take: longer is a hang.
const PATIENCE: Duration = Duration::from_secs(20);
/// After which a client takes it that nothing more is coming.
const SILENCE: Duration = Duration::from_millis(3);
/// What no request may bring to a sandbox.
const CREDENTIALS: [&str; 2] = ["authorization", "proxy-authorization"];

/// A router and its sandbox, on a thread of their own that runs only while a check does.
struct Rig {
    runtime: Runtime,
    router: std::net::SocketAddr,
    sandbox: Arc<Sandbox>,
}

/// What the sandbox saw.
struct Sandbox {
    port: u16,
    open: AtomicUsize,
    served: AtomicUsize,
    fault: Mutex<Option<String>>,
}

static RIG: Mutex<Option<Rig>> = const_mutex(None);

pub(crate) fn check(bytes: &[u8]) {
    check_until(bytes, 0);
}

/// The client waits, however long it takes, until the sandbox has served so many requests.
fn check_until(bytes: &[u8], served: usize) {
    let mut rig = RIG.lock();
    let rig = rig.get_or_insert_with(Rig::start);
    rig.runtime.block_on(exchange(rig, bytes, served));
    let fault = rig.sandbox.fault.lock().take();
    assert_eq!(fault, None, "{:?}", String::from_utf8_lossy(bytes));
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
        let (router, port) = (address(&front), address(&back).port());
        let sandbox = Arc::new(Sandbox {
            port,
            open: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            fault: Mutex::new(None),
        });
        let mut config = Config::new(Authorizer::AllowAll);
        // A connection ends with its request, so that all is seen when a check is over.
        config.pool.idle = 0;
        config.retry.max = 0;
        config.resolution.wait = Duration::ZERO;
        config.time.request = Duration::from_secs(1);
        config.time.idle = Duration::from_secs(1);
        config.time.upgrade_idle = Duration::from_secs(1);
        let table = Fixed::new().sandbox("ns", "box", [127, 0, 0, 1].into());
        let served = Router::builder(config)
            .resolver(table.into_table())
            .access_log_to(std::io::sink())
            .build()
            .expect("the router is complete");
        runtime.spawn(served.serve(front, Shutdown::new()));
        runtime.spawn(sandbox.clone().accept(back));
        Self {
            runtime,
            router,
            sandbox,
        }
    }
}

async fn exchange(rig: &Rig, bytes: &[u8], wanted: usize) {
    let before = rig.sandbox.served.load(Ordering::SeqCst);
    let satisfied = || rig.sandbox.served.load(Ordering::SeqCst) >= before + wanted;
    let port = rig.sandbox.port.to_string();
    let talk = async {
        let mut stream = TcpStream::connect(rig.router)
            .await
            .expect("the router accepts");
        let request = replaced(bytes, port.as_bytes());
        let mut answer = Vec::new();
        let conversation = converse(&mut stream, &request, &mut answer, satisfied);
        let whole = conversation.await.is_ok();
        drop(stream);
        while rig.sandbox.open.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
        (answer, whole)
    };
    let (answer, whole) = tokio::time::timeout(PATIENCE, talk)
        .await
        .expect("everything ends");
    let http2 = bytes.starts_with(b"PRI ");
    assert!(
        answer.is_empty() || http2 || !whole || answer.starts_with(b"HTTP/1."),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
}

/// Sends everything and reads until the router closes. A client that has nothing more to say ends its
/// side only when it is satisfied, and after a moment of silence: to the router, one that does so early
/// has left.
async fn converse(
    stream: &mut TcpStream,
    request: &[u8],
    answer: &mut Vec<u8>,
    satisfied: impl Fn() -> bool,
) -> std::io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    // The router may close, or wait for its answer to be read, before it has read everything.
    let sending = async {
        writer.write_all(request).await?;
        std::future::pending::<std::io::Result<()>>().await
    };
    let reading = async {
        loop {
            match tokio::time::timeout(SILENCE, reader.read_buf(answer)).await {
                Ok(read) => {
                    if read? == 0 {
                        return Ok(true);
                    }
                }
                Err(_) if satisfied() => return Ok(false),
                Err(_) => {}
            }
        }
    };
    let ended = tokio::select! {
        biased;
        failed = sending => failed.map(|()| true),
        ended = reading => ended,
    }?;
    if !ended {
        writer.shutdown().await?;
        reader.read_to_end(answer).await?;
    }
    Ok(())
}

fn replaced(bytes: &[u8], port: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = find(rest, PORT) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(port);
        rest = after.get(PORT.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

impl Sandbox {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            self.open.fetch_add(1, Ordering::SeqCst);
            let sandbox = self.clone();
            #[expect(
                clippy::disallowed_methods,
                reason = "every check waits for the connections of its sandbox to end"
            )]
            tokio::spawn(async move {
                if let Err(fault) = sandbox.serve(stream).await {
                    *sandbox.fault.lock() = Some(fault);
                }
                sandbox.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    /// Answers one request after it has been read to its end, and then only listens.
    async fn serve(&self, mut stream: TcpStream) -> Result<(), String> {
        let mut bytes = Vec::new();
        let mut answered = false;
        loop {
            if !answered {
                if bytes.starts_with(b"PRI * HTTP/2.0\r\n\r\n") {
                    // gRPC goes over HTTP/2, which this sandbox does not speak.
                    return Ok(());
                }
                if let Some(end) = find(&bytes, b"\r\n\r\n") {
                    let (head, body) = bytes.split_at(end);
                    let framing = self.read_head(head)?;
                    if framing.is_complete(body.get(4..).unwrap_or_default())? {
                        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                        if stream.write_all(ok).await.is_err() {
                            return Ok(());
                        }
                        self.served.fetch_add(1, Ordering::SeqCst);
                        answered = true;
                    }
                }
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) if answered => return Err("something follows the request".to_owned()),
                Ok(_) => {}
            }
        }
    }

    /// Reads a head as strictly as can be.
    fn read_head(&self, head: &[u8]) -> Result<Framing, String> {
        let wrong = |what: &str| {
            let head = String::from_utf8_lossy(head);
            Err(format!("{what}: {head:?}"))
        };
        if head
            .iter()
            .any(|byte| matches!(byte, 0..=8 | 11 | 12 | 14..=31 | 127))
        {
            return wrong("a control character");
        }
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut request = lines.next().unwrap_or_default().split(' ');
        let (method, target, version) = (request.next(), request.next(), request.next());
        if method.is_none_or(str::is_empty)
            || target.is_none_or(|target| !(target.starts_with('/') || target == "*"))
            || version != Some("HTTP/1.1")
            || request.next().is_some()
        {
            return wrong("the request line");
        }
        let (mut hosts, mut lengths, mut chunked, mut ids) = (0, Vec::new(), false, 0);
        for line in lines {
            let Some((name, value)) = line.split_once(": ") else {
                // A field without a value ends with its colon.
                if line.strip_suffix(':').is_some_and(is_token) {
                    continue;
                }
                return wrong("a line that is no field");
            };
            if !is_token(name) || value.contains(['\r', '\n']) {
                return wrong("a field that is none");
            }
            match name {
                "host" => {
                    hosts += 1;
                    if value != format!("127.0.0.1:{}", self.port) {
                        return wrong("the host");
                    }
                }
                "content-length" => lengths.push(value.parse::<u64>()),
                "transfer-encoding" => {
                    if chunked || value != "chunked" {
                        return wrong("the transfer coding");
                    }
                    chunked = true;
                }
                "x-sandbox-id" => {
                    ids += 1;
                    if value != "box" {
                        return wrong("another sandbox");
                    }
                }
                "connection" if value != "Upgrade" => return wrong("a field of a connection"),
                "keep-alive" | "proxy-connection" => return wrong("a field of a connection"),
                name if CREDENTIALS.contains(&name) => return wrong("a credential"),
                _ => {}
            }
        }
        if hosts != 1 || ids != 1 {
            return wrong("how often the host and the sandbox are named");
        }
        match (lengths.as_slice(), chunked) {
            ([], true) => Ok(Framing::Chunked),
            ([], false) => Ok(Framing::Length(0)),
            ([Ok(length)], false) => Ok(Framing::Length(*length)),
            _ => wrong("the length"),
        }
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "!#$%&'*+-.^_`|~".contains(c))
}

/// How the end of a body is told.
enum Framing {
    Length(u64),
    Chunked,
}

impl Framing {
    /// Whether this is all of the body. More than that is a fault.
    fn is_complete(&self, body: &[u8]) -> Result<bool, String> {
        match self {
            Self::Length(length) => {
                let got = body.len() as u64;
                if got > *length {
                    return Err(format!("{} bytes after the request", got - length));
                }
                Ok(got == *length)
            }
            Self::Chunked => chunks_end(body),
        }
    }
}

fn chunks_end(mut body: &[u8]) -> Result<bool, String> {
    let wrong = |what: &str, at: &[u8]| Err(format!("{what}: {:?}", String::from_utf8_lossy(at)));
    loop {
        let Some(end) = find(body, b"\r\n") else {
            return Ok(false);
        };
        let (size, rest) = body.split_at(end);
        let rest = rest.get(2..).unwrap_or_default();
        let Some(length) = std::str::from_utf8(size)
            .ok()
            .filter(|size| size.chars().all(|c| c.is_ascii_hexdigit()))
            .and_then(|size| usize::from_str_radix(size, 16).ok())
        else {
            return wrong("the size of a chunk", body);
        };
        if length == 0 {
            return trailers_end(rest);
        }
        let Some(after) = rest.get(length..).filter(|after| after.len() >= 2) else {
            return Ok(false);
        };
        let Some(next) = after.strip_prefix(b"\r\n") else {
            return wrong("the end of a chunk", after);
        };
        body = next;
    }
}

fn trailers_end(mut rest: &[u8]) -> Result<bool, String> {
    loop {
        let Some(end) = find(rest, b"\r\n") else {
            return Ok(false);
        };
        let (line, after) = rest.split_at(end);
        rest = after.get(2..).unwrap_or_default();
        if line.is_empty() {
            return if rest.is_empty() {
                Ok(true)
            } else {
                Err("something follows the trailers".to_owned())
            };
        }
        let text = String::from_utf8_lossy(line).to_ascii_lowercase();
        let name = text.split(':').next().unwrap_or_default();
        let refused = [
            "content-length",
            "transfer-encoding",
            "host",
            "connection",
            "cookie",
        ];
        if refused.contains(&name)
            || CREDENTIALS.contains(&name)
            || name.starts_with("x-sandbox-")
            || name.starts_with("x-forwarded-")
        {
            return Err(format!("a trailer that may not come so late: {text:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many requests reach the sandbox with these bytes, if it is at least so many.
    fn served(bytes: &[u8], wanted: usize) -> usize {
        let count = || {
            let rig = RIG.lock();
            rig.as_ref()
                .map_or(0, |rig| rig.sandbox.served.load(Ordering::SeqCst))
        };
        let before = count();
        check_until(bytes, wanted);
        count() - before
    }

    #[test]
    fn whole_requests_reach_the_sandbox_and_others_do_not() {
        for (bytes, requests) in [
            (&include_bytes!("../seeds/requests/post")[..], 1),
            (include_bytes!("../seeds/requests/chunked"), 1),
            (include_bytes!("../seeds/requests/pipelined"), 2),
            (include_bytes!("../seeds/requests/http2-trailers"), 1),
            (include_bytes!("../seeds/requests/folded"), 0),
            (b"GET / HTTP/1.1\r\nHost: r\r\n", 0),
        ] {
            assert_eq!(
                served(bytes, requests),
                requests,
                "{}",
                bytes.escape_ascii()
            );
        }
    }

    #[test]
    fn the_sandbox_accepts_nothing_that_could_be_read_in_two_ways() {
        let sandbox = Sandbox {
            port: 1,
            open: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            fault: Mutex::new(None),
        };
        let good = "GET / HTTP/1.1\r\nhost: 127.0.0.1:1\r\nx-sandbox-id: box";
        assert!(sandbox.read_head(good.as_bytes()).is_ok());
        for wrong in [
            "\r\nauthorization: Bearer x",
            "\r\nx-sandbox-id: box",
            "\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "\r\ncontent-length: 1\r\ncontent-length: 1",
            "\r\nx-a: b\nc",
            "\r\n folded",
            "\r\nconnection: x-sandbox-id",
        ] {
            let head = format!("{good}{wrong}");
            assert!(sandbox.read_head(head.as_bytes()).is_err(), "{wrong:?}");
        }
        assert_eq!(chunks_end(b"2\r\nok\r\n0\r\n\r\n"), Ok(true));
        assert_eq!(chunks_end(b"2\r\nok\r\n0\r\n"), Ok(false));
        assert!(chunks_end(b"2\r\nokkk\r\n").is_err());
        assert!(chunks_end(b"0\r\nauthorization: x\r\n\r\n").is_err());
    }
}
