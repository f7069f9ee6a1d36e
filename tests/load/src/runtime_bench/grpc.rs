//! A command by gRPC, `process.v1.ProcessService/Execute`, over a connection that is kept. The few bytes
//! of its messages are made by hand.

use std::net::SocketAddr;
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// What one series of commands may take.
const SERIES: Duration = Duration::from_secs(300);
const SHUTDOWN: Duration = Duration::from_secs(1);
const PATH: &str = "/process.v1.ProcessService/Execute";
/// The status of a method that a server does not have.
const UNIMPLEMENTED: u32 = 12;
/// An embedded message or a string as field 1.
const FIELD_1: u8 = 0x0a;
/// Bytes as field 2.
const FIELD_2: u8 = 0x12;

/// What came of a call.
#[derive(Debug, PartialEq)]
enum Answer {
    /// What the command wrote; it exited with 0.
    Output(Vec<u8>),
    /// There is no such service.
    NotServed(String),
}

/// One connection.
struct Client {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
    tasks: Tasks,
}

/// Why the service cannot be measured, if so.
pub async fn missing(address: SocketAddr) -> Result<Option<String>> {
    let mut client = Client::open(address).await?;
    let answer = client.execute(&["true"]).await;
    client.close().await;
    Ok(match answer? {
        Answer::Output(_) => None,
        Answer::NotServed(why) => Some(why),
    })
}

/// How long each of so many takes, one after the other.
pub async fn one_at_a_time(
    address: SocketAddr,
    words: &[&str],
    output: &str,
    runs: usize,
) -> Result<Vec<Duration>> {
    let mut client = Client::open(address).await?;
    let samples = timeout(SERIES, client.series(words, output, runs)).await;
    client.close().await;
    samples.with_context(|| format!("not within {} s", SERIES.as_secs()))?
}

impl Client {
    async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .context("no HTTP/2")?;
        let tasks = Tasks::new("grpc");
        tasks.spawn("connection", async {
            // A connection that breaks fails its calls, which say so.
            drop(connection.await);
        });
        Ok(Self {
            address,
            sender,
            tasks,
        })
    }

    async fn close(self) {
        drop(self.sender);
        self.tasks.shutdown(SHUTDOWN).await;
    }

    async fn series(&mut self, words: &[&str], output: &str, runs: usize) -> Result<Vec<Duration>> {
        let mut samples = Vec::with_capacity(runs);
        // The first on a connection pays for the connection.
        for run in 0..=runs {
            let start = Instant::now();
            match self.execute(words).await? {
                Answer::Output(found) => ensure!(
                    found == output.as_bytes(),
                    "the command wrote {:?}",
                    String::from_utf8_lossy(&found)
                ),
                Answer::NotServed(why) => bail!("not served any more: {why}"),
            }
            if run > 0 {
                samples.push(start.elapsed());
            }
        }
        Ok(samples)
    }

    async fn execute(&mut self, words: &[&str]) -> Result<Answer> {
        let request = Request::post(format!("http://{}{PATH}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(framed(&execute_request(words)?)?))?;
        self.sender.ready().await.context("the connection ended")?;
        let response = self.sender.send_request(request).await?;
        let (head, body) = response.into_parts();
        let collected = body.collect().await.context("the answer broke off")?;
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = grpc_status(&trailers).or_else(|| grpc_status(&head.headers));
        read(head.status.as_u16(), status, &collected.to_bytes())
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What an answer means.
fn read(status: u16, grpc: Option<u32>, body: &[u8]) -> Result<Answer> {
    match (status, grpc) {
        (404, _) => Ok(Answer::NotServed("HTTP 404".to_owned())),
        (200, Some(UNIMPLEMENTED)) => Ok(Answer::NotServed("UNIMPLEMENTED".to_owned())),
        (200, Some(0)) => Ok(Answer::Output(standard_output(unframed(body)?)?)),
        _ => bail!("answered {status} with gRPC status {grpc:?}"),
    }
}

/// `ExecuteRequest { 1: ProcessConfig { 1: repeated string command } }`.
fn execute_request(words: &[&str]) -> Result<Vec<u8>> {
    let mut config = Vec::new();
    for word in words {
        config.extend(field(FIELD_1, word.as_bytes())?);
    }
    field(FIELD_1, &config)
}

/// A field with a length, all of which are short here.
fn field(tag: u8, bytes: &[u8]) -> Result<Vec<u8>> {
    let length = u8::try_from(bytes.len()).ok().filter(|it| *it < 0x80);
    let length = length.context("a field of 128 bytes or more is not needed here")?;
    Ok([&[tag, length], bytes].concat())
}

/// A message with the five bytes before it.
fn framed(message: &[u8]) -> Result<Bytes> {
    let length = u32::try_from(message.len())?.to_be_bytes();
    Ok([&[0], length.as_slice(), message].concat().into())
}

fn unframed(body: &[u8]) -> Result<&[u8]> {
    let (head, message) = body.split_at_checked(5).context("no message came")?;
    let length = u32::try_from(message.len())?.to_be_bytes();
    ensure!(
        head == [&[0], length.as_slice()].concat(),
        "not one plain message: {head:?}"
    );
    Ok(message)
}

/// `ExecuteResponse { 1: int32 exit_code, 2: bytes stdout, 3: bytes stderr }` of a command that exited
/// with 0, which is not written, and said little.
fn standard_output(message: &[u8]) -> Result<Vec<u8>> {
    match message {
        [] => Ok(Vec::new()),
        [FIELD_2, length, output @ ..] if usize::from(*length) == output.len() => {
            Ok(output.to_vec())
        }
        other => bail!("the command failed, or wrote errors: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;

    use http::{HeaderValue, Response};
    use http_body::Frame;
    use http_body_util::StreamBody;
    use hyper::body::Incoming;
    use hyper::server::conn::http2;
    use hyper::service::service_fn;
    use tokio::net::TcpListener;

    use super::*;

    /// Answers `echo` with its argument and a line's end, and everything else as unknown.
    async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        assert_eq!(request.uri().path(), PATH);
        assert_eq!(request.headers()["te"], "trailers");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        let is_echo = asked == framed(&execute_request(&["echo", "hi"]).unwrap()).unwrap();
        let mut frames = Vec::new();
        if is_echo {
            let message = field(FIELD_2, b"hi\n").unwrap();
            frames.push(Ok(Frame::data(framed(&message).unwrap())));
        }
        let status = HeaderValue::from_static(if is_echo { "0" } else { "12" });
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), status)]);
        frames.push(Ok(Frame::trailers(trailers)));
        Ok(Response::new(StreamBody::new(futures::stream::iter(
            frames,
        ))))
    }

    type Body =
        StreamBody<futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

    /// A server for so many connections.
    async fn serve(connections: usize, tasks: &Tasks) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn("server", async move {
            for _ in 0..connections {
                let (stream, _) = listener.accept().await.unwrap();
                http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer))
                    .await
                    .unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_server_is_asked_again_and_again() {
        let tasks = Tasks::new("test");
        let address = serve(3, &tasks).await;
        let times = one_at_a_time(address, &["echo", "hi"], "hi\n", 3).await;
        assert_eq!(times.unwrap().len(), 3);
        let other = one_at_a_time(address, &["echo", "hi"], "ho\n", 3).await;
        assert!(other.unwrap_err().to_string().contains("hi"));
        let why = missing(address).await.unwrap();
        assert_eq!(why.as_deref(), Some("UNIMPLEMENTED"));
        tasks.shutdown(SHUTDOWN).await;
    }

    #[test]
    fn messages_are_as_the_schema_says() {
        let request = execute_request(&["echo", "hi"]).unwrap();
        assert_eq!(request, b"\x0a\x0a\x0a\x04echo\x0a\x02hi");
        assert_eq!(&framed(b"ab").unwrap()[..], b"\0\0\0\0\x02ab");
        assert!(execute_request(&["x".repeat(200).as_str()]).is_err());
    }

    #[test]
    fn answers_are_output_absence_or_faults() {
        let output = |text: &str| Answer::Output(text.as_bytes().to_vec());
        assert_eq!(read(200, Some(0), b"\0\0\0\0\0").unwrap(), output(""));
        let hi = b"\0\0\0\0\x05\x12\x03hi\n";
        assert_eq!(read(200, Some(0), hi).unwrap(), output("hi\n"));
        for (status, grpc) in [(404, None), (200, Some(12))] {
            let answer = read(status, grpc, b"").unwrap();
            assert!(matches!(answer, Answer::NotServed(_)), "{answer:?}");
        }
        for (status, grpc, body) in [
            (500, None, &b""[..]),
            (200, None, b"\0\0\0\0\0"),
            (200, Some(3), b""),
            (200, Some(0), b""),
            // An exit code of 1.
            (200, Some(0), b"\0\0\0\0\x02\x08\x01"),
            (200, Some(0), b"\x01\0\0\0\0"),
        ] {
            assert!(
                read(status, grpc, body).is_err(),
                "{status} {grpc:?} {body:?}"
            );
        }
    }
}
