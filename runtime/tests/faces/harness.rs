//! A runtime on a free port, and a client that sends requests byte for byte.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_sandbox_runtime::{Config, Runtime};
use agent_sandbox_service::shutdown::Shutdown;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Far longer than anything here takes; reached only by a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) runtime: Runtime,
    pub(crate) shutdown: Shutdown,
    pub(crate) serving: JoinHandle<()>,
    /// Holds the root, and what is outside of it.
    outer: tempfile::TempDir,
}

/// A server whose root is `root` in a fresh directory.
pub(crate) async fn start() -> Server {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Server {
    let outer = tempfile::tempdir().unwrap();
    let mut config = Config::new(outer.path().join("root"));
    config.address = [127, 0, 0, 1].into();
    config.ports = vec![0];
    config.environment = vec![(
        "PATH".into(),
        std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()),
    )];
    adjust(&mut config);
    let runtime = Runtime::builder(config).build().unwrap();
    let listeners = runtime.bind().unwrap();
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap())
        .collect();
    let shutdown = Shutdown::new();
    let serving = tokio::spawn(runtime.clone().serve(listeners, shutdown.clone()));
    Server {
        address: addresses[0],
        addresses,
        runtime,
        shutdown,
        serving,
        outer,
    }
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    pub(crate) fn root(&self) -> PathBuf {
        self.outer.path().join("root")
    }

    /// The directory around the root.
    pub(crate) fn outside(&self) -> &Path {
        self.outer.path()
    }

    pub(crate) async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let mut sender = self.connect().await;
        tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .expect("an answer in time")
            .unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (head, body) = self.open(request).await.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .expect("a body in time")
            .unwrap();
        Answer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        }
    }

    /// `path` is sent as it is.
    pub(crate) async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "sandbox");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::default()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[]).await
    }

    pub(crate) async fn post(&self, path: &str, kind: &str, body: impl Into<Bytes>) -> Answer {
        self.send(post(path, kind, body)).await
    }

    pub(crate) async fn execute(&self, command: &str) -> Value {
        self.execute_request(&serde_json::json!({"command": command}))
            .await
    }

    pub(crate) async fn execute_within(&self, command: &str, seconds: f64) -> Value {
        let request = serde_json::json!({"command": command, "timeout_seconds": seconds});
        self.execute_request(&request).await
    }

    async fn execute_request(&self, request: &Value) -> Value {
        let answer = self
            .post("/execute", "application/json", request.to_string())
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()
    }

    pub(crate) async fn upload(&self, name: &str, data: &[u8]) -> Answer {
        self.post("/upload", FORM, form(name, data)).await
    }

    /// `kind` is the content type; empty for none.
    pub(crate) async fn put(&self, path: &str, kind: &str, data: &[u8]) -> Answer {
        let mut request = Request::put(path).header("host", "sandbox");
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        let body = Full::new(Bytes::copy_from_slice(data));
        self.send(request.body(body).unwrap()).await
    }

    /// Orders the end and waits for it.
    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        tokio::time::timeout(PATIENCE, self.serving)
            .await
            .expect("the end in time")
            .unwrap();
    }
}

pub(crate) fn post(path: &str, kind: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "sandbox")
        .header("content-type", kind)
        .body(Full::new(body.into()))
        .unwrap()
}

pub(crate) const FORM: &str = "multipart/form-data; boundary=BB";

/// A form as the SDKs send it: the file name raw.
pub(crate) fn form(name: &str, data: &[u8]) -> Vec<u8> {
    let mut body = format!(
        "--BB\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(data);
    body.extend_from_slice(b"\r\n--BB--\r\n");
    body
}

/// `sh -c` with the script as one word.
pub(crate) fn sh(script: &str) -> String {
    format!("sh -c '{}'", script.replace('\'', "'\"'\"'"))
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Tries what must come to a certain point before its time is over with ever more seconds, as a slow
/// machine needs. An attempt that did not come so far returns `None`.
pub(crate) async fn with_enough_time(what: &str, attempt: impl AsyncFn(f64) -> Option<()>) {
    for seconds in [0.5, 5.5, 50.5] {
        if attempt(seconds).await.is_some() {
            return;
        }
    }
    panic!("never in time: {what}");
}

/// The pid a command wrote to a file, once it is there.
pub(crate) async fn written_pid(file: &Path) -> i32 {
    let mut pid = None;
    eventually("a pid file", || {
        pid = std::fs::read_to_string(file)
            .ok()
            .filter(|text| text.ends_with('\n'))
            .and_then(|text| text.trim().parse().ok());
        pid.is_some()
    })
    .await;
    pid.unwrap()
}

/// Whether a process runs; one that only waits to be reaped does not.
pub(crate) fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        let (_, fields) = stat.rsplit_once(')').unwrap();
        !fields.trim_start().starts_with(['Z', 'X'])
    })
}

/// The running `sleep` programs that were started in the server's root.
pub(crate) fn sleepers(server: &Server) -> Vec<i32> {
    let root = std::fs::canonicalize(server.root()).unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
            let place = std::fs::read_link(format!("/proc/{pid}/cwd"));
            name.is_ok_and(|name| name == "sleep\n") && place.is_ok_and(|place| place == root)
        })
        .filter(|pid| runs(*pid))
        .collect()
}

/// Waits until `quiet` has held at twenty looks in a row.
pub(crate) async fn settled(what: &str, mut quiet: impl FnMut() -> bool) {
    let mut looks = 0;
    eventually(what, || {
        looks = if quiet() { looks + 1 } else { 0 };
        looks == 20
    })
    .await;
}
