//! The bench's own sandbox: answers of any size, a sink for uploads, a WebSocket echo, and what became
//! of a request's headers. It runs on a thread of this process, beside the generator, and unlike the
//! [scripted sandbox](crate::sandbox) it makes and checks nothing, so that proxies are what is measured.
//!
//! * `GET /N` answers N bytes.
//! * `POST /upload` answers how many bytes came.
//! * `GET /tunnel` echoes WebSocket messages of clients with [the one key](websocket::KEY).
//! * `GET /seen` answers what a proxy changed: see [`Seen`].

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::thread::JoinHandle;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::BufStream;
use tokio::net::{TcpListener, TcpStream};

use crate::websocket::{self, End};

/// How much of a large answer is written at once.
const CHUNK: usize = 256 * 1024;
/// Room for a message of a tunnel, each way.
const BUFFER: usize = 512;

type Answer = Response<BoxBody<Bytes, Infallible>>;

/// The server. Dropping it ends it with all its connections.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    order: Shutdown,
    thread: Option<JoinHandle<()>>,
}

/// What a proxy did to a request's headers, as the sandbox saw them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Seen {
    /// Whether the caller's credentials came through.
    pub authorization: bool,
    /// Whether the caller's address is named.
    pub forwarded_for: bool,
}

impl Backend {
    /// Listens on a free port of the loopback device.
    pub fn start() -> Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("cannot listen on the loopback device")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the backend's runtime")?;
        let order = Shutdown::new();
        let stop = order.clone();
        let thread = std::thread::Builder::new()
            .name("backend".to_owned())
            .spawn(move || {
                let served = runtime.block_on(serve(listener, &stop));
                if let Err(error) = served {
                    crate::bench::say(&format!("the backend ended: {error:#}"));
                }
            })
            .context("cannot start the backend's thread")?;
        Ok(Self {
            address,
            order,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.order.trigger();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            crate::bench::say("the backend's thread panicked");
        }
    }
}

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        Self {
            authorization: headers.contains_key(AUTHORIZATION),
            forwarded_for: headers.contains_key("x-forwarded-for"),
        }
    }

    fn text(self) -> String {
        format!(
            "authorization={} x-forwarded-for={}",
            self.authorization, self.forwarded_for
        )
    }

    /// Reads the answer of `/seen`.
    pub fn parse(text: &str) -> Option<Self> {
        let both = [true, false];
        both.into_iter()
            .flat_map(|authorization| {
                both.map(|forwarded_for| Self {
                    authorization,
                    forwarded_for,
                })
            })
            .find(|seen| seen.text() == text)
    }
}

async fn serve(listener: std::net::TcpListener, order: &Shutdown) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let tasks = Tasks::new("backend");
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = order.triggered() => break,
        };
        let (stream, _) = accepted.context("cannot accept")?;
        stream.set_nodelay(true)?;
        let more = tasks.clone();
        tasks.spawn("connection", connection(stream, more));
    }
    tasks.shutdown(std::time::Duration::ZERO).await;
    Ok(())
}

async fn connection(stream: TcpStream, tasks: Tasks) {
    let service = service_fn(move |request| answer(request, tasks.clone()));
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    // A client that leaves is the usual end, and a broken exchange is noticed by the client.
    drop(served);
}

async fn answer(request: Request<Incoming>, tasks: Tasks) -> Result<Answer, hyper::Error> {
    let path = request.uri().path();
    if let Some(length) = path.strip_prefix('/').and_then(|rest| rest.parse().ok()) {
        return Ok(plain(StatusCode::OK, Zeros(length).boxed()));
    }
    match (request.method(), path) {
        (&Method::POST, "/upload") => {
            let mut body = request.into_body();
            let mut received = 0;
            while let Some(frame) = body.frame().await {
                received += frame?.data_ref().map_or(0, Bytes::len);
            }
            Ok(text(StatusCode::OK, received.to_string()))
        }
        (&Method::GET, "/seen") => {
            let seen = Seen::of(request.headers());
            Ok(text(StatusCode::OK, seen.text()))
        }
        (&Method::GET, "/tunnel") if request.headers().contains_key(UPGRADE) => {
            tasks.spawn("tunnel", async move {
                if let Ok(upgraded) = hyper::upgrade::on(request).await {
                    // It ends when the client leaves, however that looks here.
                    drop(
                        echo(BufStream::with_capacity(
                            BUFFER,
                            BUFFER,
                            TokioIo::new(upgraded),
                        ))
                        .await,
                    );
                }
            });
            let mut switch = text(StatusCode::SWITCHING_PROTOCOLS, String::new());
            let headers = switch.headers_mut();
            headers.insert(CONNECTION, http::HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, http::HeaderValue::from_static("websocket"));
            headers.insert(
                "sec-websocket-accept",
                http::HeaderValue::from_static(websocket::ACCEPT),
            );
            Ok(switch)
        }
        _ => Ok(text(StatusCode::NOT_FOUND, "no such path".to_owned())),
    }
}

fn text(status: StatusCode, text: String) -> Answer {
    plain(status, Full::new(Bytes::from(text)).boxed())
}

fn plain(status: StatusCode, body: BoxBody<Bytes, Infallible>) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer
}

async fn echo(mut stream: BufStream<TokioIo<Upgraded>>) -> std::io::Result<()> {
    while let Some(message) = websocket::read(&mut stream, End::Client).await? {
        websocket::write(&mut stream, message.kind, &message.payload, End::Server).await?;
    }
    Ok(())
}

/// A body of this many zeros, from static memory.
struct Zeros(u64);

static ZEROS: [u8; CHUNK] = [0; CHUNK];

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = usize::try_from(self.0).map_or(CHUNK, |left| left.min(CHUNK));
        if length == 0 {
            return Poll::Ready(None);
        }
        let chunk = Bytes::from_static(ZEROS.get(..length).unwrap_or_default());
        self.0 -= u64::try_from(length).unwrap_or(self.0);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0 == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::client::{Connection, Request};

    fn request(backend: &Backend) -> Request {
        Request {
            address: backend.address(),
            path: "/2".to_owned(),
            headers: vec![("Authorization", "Bearer x".to_owned())],
        }
    }

    #[tokio::test]
    async fn answers_have_the_size_that_is_asked_for() {
        let backend = Backend::start().unwrap();
        let request = request(&backend);
        let mut connection = Connection::open(request.address).await.unwrap();
        for size in [0, 2, 4096, 1 << 20] {
            let bytes = request.at(&format!("/{size}")).head("GET", "");
            let answer = connection.exchange(bytes.as_bytes()).await.unwrap();
            assert_eq!((answer.status, answer.length), (200, size));
        }
        let absent = request.at("/nowhere").head("GET", "");
        let answer = connection.exchange(absent.as_bytes()).await.unwrap();
        assert_eq!(answer.status, 404);
    }

    #[tokio::test]
    async fn uploads_are_counted_and_headers_reported() {
        let backend = Backend::start().unwrap();
        let request = request(&backend);
        let mut connection = Connection::open(request.address).await.unwrap();
        let head = request.at("/upload").head("POST", "Content-Length: 5\r\n");
        connection.send(head.as_bytes()).await.unwrap();
        connection.send(b"12345").await.unwrap();
        assert_eq!(connection.text().await.unwrap(), (200, "5".to_owned()));
        let head = request.at("/seen").head("GET", "");
        connection.send(head.as_bytes()).await.unwrap();
        let (_, text) = connection.text().await.unwrap();
        let expected = Seen {
            authorization: true,
            forwarded_for: false,
        };
        assert_eq!(Seen::parse(&text), Some(expected));
        assert_eq!(Seen::parse("authorization=maybe"), None);
    }
}
