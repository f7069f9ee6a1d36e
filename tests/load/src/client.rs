//! Clients of scripted sandboxes, through a router or not: connections that are held, and what came
//! over them.

use std::io;
use std::net::SocketAddr;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use agent_sandbox_service::tasks::Tasks;

use crate::sandbox::{Identity, NoIdentity};
use crate::websocket::{self, End, Kind, Message};

/// Why there is no answer of a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// No connection could be made.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// The exchange broke.
    #[error("the exchange broke")]
    Exchange(#[from] hyper::Error),
    /// There was another answer.
    #[error("answered {status} ({reason})")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Which error of the router it is, if it is one.
        reason: String,
    },
    /// The answer says that several sandboxes gave it, or none.
    #[error("nobody says who answered")]
    Anonymous,
    /// The answer is no sandbox's.
    #[error(transparent)]
    Identity(#[from] NoIdentity),
    /// The answer is not what was asked for.
    #[error("{0}")]
    Wrong(String),
}

/// The header in which the router says why it answers itself.
pub const ROUTER_ERROR: &str = "x-sandbox-router-error";
/// Buffer of a WebSocket; most of them are idle.
const BUFFER: usize = 512;

/// The headers that lead to a sandbox.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Way(Vec<(HeaderName, HeaderValue)>);

impl Way {
    /// The sandbox of this name.
    pub fn to(namespace: &str, name: &str) -> Self {
        Self::default()
            .with("x-sandbox-namespace", namespace)
            .with("x-sandbox-id", name)
    }

    /// With one more header. Values that no header can have are left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::try_from(value) {
            self.0.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Its headers.
    pub fn headers(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Its headers as lines of a head.
    pub(crate) fn lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for (name, value) in self.headers() {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        lines
    }
}

/// A WebSocket to a sandbox.
#[derive(Debug)]
pub struct WebSocket {
    stream: BufReader<TcpStream>,
    identity: Identity,
}

impl WebSocket {
    /// Opens one.
    ///
    /// # Errors
    /// When there is no connection, or the answer is not the expected.
    pub async fn open(address: SocketAddr, way: &Way) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect(address)
            .await
            .map_err(Failure::Connect)?;
        stream.set_nodelay(true).map_err(Failure::Connect)?;
        let mut head = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            websocket::KEY
        )
        .into_bytes();
        head.extend(way.lines());
        head.extend_from_slice(b"\r\n");
        stream.write_all(&head).await.map_err(Failure::Broken)?;
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        let (status, headers) = head_of(&mut stream).await?;
        let identity = Identity::of(&headers)?;
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refused(status, &headers));
        }
        let accept = headers.get("sec-websocket-accept");
        if accept.map(HeaderValue::as_bytes) != Some(websocket::ACCEPT.as_bytes()) {
            return Err(Failure::Wrong(format!("accepted with {accept:?}")));
        }
        Ok(Self {
            stream,
            identity: identity.ok_or(Failure::Anonymous)?,
        })
    }

    /// Who is at the other end.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Sends a message and returns what comes back.
    ///
    /// # Errors
    /// When the connection breaks, or something else comes.
    pub async fn echo(&mut self, payload: &[u8]) -> Result<Vec<u8>, Failure> {
        self.send(Kind::Binary, payload).await?;
        match self.receive().await? {
            Some(Message {
                kind: Kind::Binary,
                payload,
            }) => Ok(payload),
            None => Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into())),
            Some(other) => Err(Failure::Wrong(format!("{other:?} instead of an echo"))),
        }
    }

    /// Says goodbye and waits for the answer to it.
    ///
    /// # Errors
    /// When the connection breaks, or something else comes.
    pub async fn close(mut self) -> Result<(), Failure> {
        self.send(Kind::Close, &[0x03, 0xe8]).await?;
        match self.receive().await? {
            Some(Message {
                kind: Kind::Close, ..
            }) => Ok(()),
            None => Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into())),
            Some(other) => Err(Failure::Wrong(format!("{other:?} instead of a goodbye"))),
        }
    }

    async fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Failure> {
        websocket::write(&mut self.stream, kind, payload, End::Client)
            .await
            .map_err(Failure::Broken)
    }

    /// What the other end sends next; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn receive(&mut self) -> Result<Option<Message>, Failure> {
        websocket::read(&mut self.stream, End::Server)
            .await
            .map_err(Failure::Broken)
    }
}

/// The status and the fields of an answer's head.
async fn head_of(stream: &mut BufReader<TcpStream>) -> Result<(StatusCode, HeaderMap), Failure> {
    let mut status = None;
    let mut headers = HeaderMap::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.map_err(Failure::Broken)? == 0 {
            return Err(Failure::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let line = line.trim_end();
        let wrong = || Failure::Wrong(format!("{line:?} in the head of an answer"));
        if line.is_empty() {
            return status.map(|status| (status, headers)).ok_or_else(wrong);
        }
        if status.is_none() {
            let code = line.split(' ').nth(1).ok_or_else(wrong)?;
            status = Some(code.parse().map_err(|_| wrong())?);
        } else {
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            let name = HeaderName::try_from(name).map_err(|_| wrong())?;
            headers.append(name, value.trim().parse().map_err(|_| wrong())?);
        }
    }
}

/// What an answer other than the expected means.
pub fn refused(status: StatusCode, headers: &HeaderMap) -> Failure {
    let reason = headers.get(ROUTER_ERROR).map(HeaderValue::as_bytes);
    Failure::Refused {
        status,
        reason: String::from_utf8_lossy(reason.unwrap_or_default()).into_owned(),
    }
}

/// An HTTP connection that is kept between requests.
#[derive(Debug)]
pub struct Connection<B> {
    address: SocketAddr,
    sender: Sender<B>,
    driver: AbortHandle,
}

#[derive(Debug)]
enum Sender<B> {
    Http1(http1::SendRequest<B>),
    Http2(http2::SendRequest<B>),
}

impl<B> Connection<B>
where
    B: Body<Data: Send> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Opens one for HTTP/1.1; `tasks` drive it.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn http1(address: SocketAddr, tasks: &Tasks) -> Result<Self, Failure> {
        let (sender, driver) = http1::handshake(connect(address).await?).await?;
        let driver = tasks.spawn("client http1", async move { drop(driver.await) });
        Ok(Self {
            address,
            sender: Sender::Http1(sender),
            driver,
        })
    }

    /// Opens one for HTTP/2 with prior knowledge; `tasks` drive it.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn http2(address: SocketAddr, tasks: &Tasks) -> Result<Self, Failure> {
        let io = connect(address).await?;
        let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
        let driver = tasks.spawn("client http2", async move { drop(driver.await) });
        Ok(Self {
            address,
            sender: Sender::Http2(sender),
            driver,
        })
    }

    /// Whether it can carry another request.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request and returns its answer once the head is there.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn send(
        &mut self,
        mut request: Request<B>,
        way: &Way,
    ) -> Result<http::Response<Incoming>, Failure> {
        let headers = request.headers_mut();
        for (name, value) in way.headers() {
            headers.append(name, value.clone());
        }
        match &mut self.sender {
            Sender::Http1(sender) => {
                let host = HeaderValue::try_from(self.address.to_string());
                if let Ok(host) = host {
                    headers.insert(HOST, host);
                }
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                let path = request.uri().path_and_query();
                let path = path.map_or("/", http::uri::PathAndQuery::as_str);
                let uri = format!("http://{}{path}", self.address);
                let wrong = |_| Failure::Wrong(format!("{uri} is no URI"));
                *request.uri_mut() = uri.parse().map_err(wrong)?;
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }
}

impl<B> Drop for Connection<B> {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn connect(address: SocketAddr) -> Result<TokioIo<TcpStream>, Failure> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(Failure::Connect)?;
    stream.set_nodelay(true).map_err(Failure::Connect)?;
    Ok(TokioIo::new(stream))
}
