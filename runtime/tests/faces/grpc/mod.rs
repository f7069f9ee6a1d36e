//! The gRPC face, called with the generated client over a connection of its own.

mod execute;
mod services;
mod start;
mod terminal;

use std::pin::Pin;
use std::task::{Context, Poll};

use agent_sandbox_runtime::proto::process::v1::process_service_client::ProcessServiceClient;
use agent_sandbox_runtime::proto::process::v1::start_response::Event;
use agent_sandbox_runtime::proto::process::v1::{
    ExecuteRequest, ExecuteResponse, ProcessConfig, Pty, StartRequest, StartResponse,
    WriteStdinRequest, write_stdin_request::Payload,
};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::{Status, Streaming};

use crate::harness::{PATIENCE, Server};

/// One HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Channel(SendRequest<tonic::body::Body>);

type Answer = hyper::Response<hyper::body::Incoming>;

impl tower::Service<hyper::Request<tonic::body::Body>> for Channel {
    type Response = Answer;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

pub(crate) type Client = ProcessServiceClient<Channel>;

pub(crate) async fn channel(server: &Server) -> Channel {
    let stream = TcpStream::connect(server.address).await.unwrap();
    let io = TokioIo::new(stream);
    let (sender, connection) = handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    Channel(sender)
}

pub(crate) async fn client(server: &Server) -> Client {
    let origin = format!("http://{}", server.address).parse().unwrap();
    ProcessServiceClient::with_origin(channel(server).await, origin)
}

#[expect(clippy::unnecessary_wraps, reason = "requests take options")]
pub(crate) fn config(command: &[&str]) -> Option<ProcessConfig> {
    Some(ProcessConfig {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        ..ProcessConfig::default()
    })
}

pub(crate) fn sh(script: &str) -> Option<ProcessConfig> {
    config(&["/bin/sh", "-c", script])
}

pub(crate) async fn execute(
    client: &mut Client,
    config: Option<ProcessConfig>,
) -> Result<ExecuteResponse, Status> {
    let call = client.execute(ExecuteRequest { config });
    let answer = tokio::time::timeout(PATIENCE, call).await;
    answer
        .expect("an answer in time")
        .map(tonic::Response::into_inner)
}

/// A `Start` call whose first event was read.
pub(crate) struct Started {
    pub(crate) id: i32,
    pub(crate) events: Streaming<StartResponse>,
}

pub(crate) async fn start(
    client: &mut Client,
    config: Option<ProcessConfig>,
    pty: Option<Pty>,
) -> Started {
    let call = client.start(StartRequest { config, pty });
    let answer = tokio::time::timeout(PATIENCE, call).await;
    let mut events = answer.expect("an answer in time").unwrap().into_inner();
    match next(&mut events).await {
        Some(Event::Init(init)) => {
            let id = init.process_id;
            Started { id, events }
        }
        other => panic!("expected the number first, got {other:?}"),
    }
}

pub(crate) async fn next(events: &mut Streaming<StartResponse>) -> Option<Event> {
    let message = tokio::time::timeout(PATIENCE, events.message()).await;
    let message = message.expect("an event in time").unwrap()?;
    Some(message.event.expect("an event in the message"))
}

/// What a command writes and how it exits.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exit: Option<i32>,
}

impl Started {
    /// Reads on until standard output has `text`.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            match next(&mut self.events).await {
                Some(Event::Stdout(bytes)) => seen += &String::from_utf8_lossy(&bytes),
                other => panic!("expected {text:?} after {seen:?}, got {other:?}"),
            }
        }
        seen
    }

    /// Reads to the end: the exit comes last, and nothing after it.
    pub(crate) async fn finish(mut self) -> Seen {
        let mut seen = Seen::default();
        while let Some(event) = next(&mut self.events).await {
            assert!(seen.exit.is_none(), "{event:?} after the exit");
            match event {
                Event::Stdout(bytes) => seen.stdout.extend_from_slice(&bytes),
                Event::Stderr(bytes) => seen.stderr.extend_from_slice(&bytes),
                Event::Exit(exit) => seen.exit = Some(exit.exit_code),
                Event::Init(init) => panic!("a second {init:?}"),
            }
        }
        seen
    }
}

pub(crate) async fn write(
    client: &mut Client,
    id: i32,
    payload: Option<Payload>,
) -> Result<(), Status> {
    let request = WriteStdinRequest {
        process_id: id,
        payload,
    };
    let call = tokio::time::timeout(PATIENCE, client.write_stdin(request)).await;
    call.expect("an answer in time").map(drop)
}

#[expect(clippy::unnecessary_wraps, reason = "requests take options")]
pub(crate) fn input(text: &str) -> Option<Payload> {
    Some(Payload::Input(text.as_bytes().to_vec().into()))
}

pub(crate) const EOF: Option<Payload> = Some(Payload::Eof(()));
