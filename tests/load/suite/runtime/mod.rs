//! The runtime at its edges: many commands, much output, trees that will not end. The program is in a
//! process of its own, so that its memory and its descriptors are its own.

mod commands;
mod output;
mod trees;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};
use std::time::Duration;

use agent_sandbox_load::programs::{Program, built, eventually};
use agent_sandbox_runtime::proto::process::v1::process_service_client::ProcessServiceClient;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Far longer than anything here takes; reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running runtime with a root of its own.
struct Runtime {
    program: Program,
    address: SocketAddr,
    root: tempfile::TempDir,
}

impl Runtime {
    async fn start(arguments: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        // Commands may run as other users.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(root.path(), open).unwrap();
        let mut command = Command::new(built("agent-sandbox-runtime").unwrap());
        command
            .args(["--address=127.0.0.1", "--port=0", "--root-dir"])
            .arg(root.path())
            .args(arguments)
            .env("AGENT_SANDBOX_LOG", "warn,agent_sandbox_runtime::app=info")
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut program = Program::start("agent-sandbox-runtime", &mut command).unwrap();
        let stderr = program.child().stderr.take().unwrap();
        let mut lines = BufReader::new(stderr).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("it serves");
            let found = line
                .split_whitespace()
                .find_map(|word| word.strip_prefix("address="));
            if let Some(address) = found {
                break address.parse().unwrap();
            }
            println!("{line}");
        };
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                println!("{line}");
            }
        });
        Self {
            program,
            address,
            root,
        }
    }

    /// One request on a connection of its own.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "sandbox")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(
                body.map_or(String::new(), |body| body.to_string()),
            )))
            .unwrap();
        let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
        let answer = answer.expect("an answer in time").unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn execute(&self, command: &str, seconds: f64) -> Value {
        let body = json!({"command": command, "timeout_seconds": seconds});
        let (status, answer) = self.call(Method::POST, "/execute", Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Starts a command and leaves it; its number.
    async fn detach(&self, request: Value) -> u64 {
        let (status, answer) = self
            .call(Method::POST, "/v1/processes", Some(request))
            .await;
        assert_eq!(status, 201, "{answer}");
        answer["id"].as_u64().unwrap()
    }

    async fn process(&self, id: u64) -> Value {
        let path = format!("/v1/processes/{id}");
        self.call(Method::GET, &path, None).await.1
    }

    /// Ends a command with everything it started.
    async fn forget(&self, id: u64) {
        let path = format!("/v1/processes/{id}");
        let (status, _) = self.call(Method::DELETE, &path, None).await;
        assert_eq!(status, 204);
    }

    async fn grpc(&self) -> ProcessServiceClient<Channel> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let origin = format!("http://{}", self.address).parse().unwrap();
        ProcessServiceClient::with_origin(Channel(sender), origin)
    }

    /// How many commands it says are running.
    async fn running(&self) -> usize {
        let (_, list) = self.call(Method::GET, "/v1/processes", None).await;
        let list = list["processes"].as_array().unwrap().iter();
        list.filter(|process| process["state"] == "running").count()
    }

    /// MiB that are its own, or its share of what others use too.
    fn memory(&self) -> u64 {
        self.program.memory().unwrap() >> 20
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The live processes whose working directory is the root, the runtime aside.
    fn members(&self) -> Vec<i32> {
        let root = self.root.path().canonicalize().unwrap();
        processes(|pid| {
            pid != self.program.pid()
                && std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place == root)
        })
    }

    /// Its children that have exited and were not waited for.
    fn zombies(&self) -> usize {
        let own = self.program.pid().to_string();
        let stats = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| std::fs::read_to_string(entry.ok()?.path().join("stat")).ok());
        stats
            .filter(|stat| {
                let (_, fields) = stat.rsplit_once(')').unwrap();
                let mut fields = fields.split_whitespace();
                fields.next() == Some("Z") && fields.next() == Some(&own)
            })
            .count()
    }

    /// Ends it, and sees that it goes by itself and leaves nobody behind.
    async fn stop(self) {
        let Self { program, root, .. } = self;
        program.stop().await.unwrap();
        let place = root.path().canonicalize().unwrap();
        let left = processes(|pid| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == place)
        });
        assert_eq!(left, Vec::<i32>::new(), "processes outlived the runtime");
    }
}

/// The live processes of the machine that are meant.
fn processes(meant: impl Fn(i32) -> bool) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| meant(*pid))
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                let (_, fields) = stat.rsplit_once(')').unwrap();
                !fields.trim_start().starts_with(['Z', 'X'])
            })
        })
        .collect()
}

/// Waits until a condition holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    eventually(what, PATIENCE, async || Ok(holds().await))
        .await
        .unwrap();
}

/// One HTTP/2 connection for the generated client.
#[derive(Clone)]
struct Channel(http2::SendRequest<tonic::body::Body>);

type Answer = http::Response<hyper::body::Incoming>;

impl tower::Service<Request<tonic::body::Body>> for Channel {
    type Response = Answer;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
