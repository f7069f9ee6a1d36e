//! A scripted sandbox: what it answers is up to the test, byte by byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use agent_sandbox_service::listen;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket};

use crate::rig::LOOPBACK;
use crate::wire::{Head, Wire};

/// A listening sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// A sandbox that keeps every byte it gets.
pub(crate) struct Recording {
    pub(crate) sandbox: Sandbox,
    heard: Heard,
}

/// What was heard, by connection.
type Heard = Arc<Mutex<Vec<Arc<Mutex<Vec<u8>>>>>>;

impl Recording {
    /// What came over each connection that said anything.
    pub(crate) fn heard(&self) -> Vec<String> {
        let connections = self.heard.lock();
        let texts = connections
            .iter()
            .map(|bytes| String::from_utf8_lossy(&bytes.lock()).into_owned());
        texts.filter(|text| !text.is_empty()).collect()
    }
}

impl Sandbox {
    /// Plays `script` on every connection.
    pub(crate) fn start<F, Fut>(script: F) -> Self
    where
        F: Fn(Wire) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::on(listen::bind((LOOPBACK, 0).into()).unwrap(), script)
    }

    pub(crate) fn on<F, Fut>(listener: TcpListener, script: F) -> Self
    where
        F: Fn(Wire) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(Wire::over(stream).patient()));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// Answers every request with what it looked like: the head as text, then the body.
    pub(crate) fn mirror() -> Self {
        Self::start(|mut wire| async move {
            while let Some(head) = wire.head().await {
                let (body, trailers) = wire.body(&head).await;
                let mut seen = show(&head).into_bytes();
                seen.extend_from_slice(b"\n");
                seen.extend(body);
                for (name, value) in trailers {
                    seen.extend(format!("\n{name}: {value}").into_bytes());
                }
                wire.write(&ok(&seen)).await;
            }
        })
    }

    /// Answers every request with `ok` and keeps every byte it gets.
    pub(crate) fn recording() -> Recording {
        let heard = Heard::default();
        let kept = heard.clone();
        let sandbox = Self::start(move |wire| {
            let transcript = Arc::<Mutex<Vec<u8>>>::default();
            kept.lock().push(transcript.clone());
            let mut wire = wire.transcribed(transcript);
            async move {
                while let Some(head) = wire.head().await {
                    if wire.try_body(&head).await.is_none() {
                        return;
                    }
                    wire.write(&ok(b"ok")).await;
                }
            }
        });
        Recording { sandbox, heard }
    }

    /// Answers every request with `response`, as it is.
    pub(crate) fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response: Arc<[u8]> = response.into().into();
        Self::start(move |mut wire| {
            let response = response.clone();
            async move {
                while let Some(head) = wire.head().await {
                    wire.body(&head).await;
                    wire.write(&response).await;
                }
            }
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The routing headers that lead here through `ns/box`.
    pub(crate) fn route(&self) -> String {
        format!(
            "Host: router\r\nX-Sandbox-ID: box\r\nX-Sandbox-Namespace: ns\r\nX-Sandbox-Port: {}\r\n",
            self.port()
        )
    }

    /// A request without a body.
    pub(crate) fn get(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\n{}\r\n", self.route())
    }

    /// A request with a body.
    pub(crate) fn post(&self, path: &str, body: &str) -> String {
        format!(
            "POST {path} HTTP/1.1\r\n{}Content-Length: {}\r\n\r\n{body}",
            self.route(),
            body.len()
        )
    }
}

/// A port that is taken, so that nobody else gets it, and refuses connections until it listens.
pub(crate) fn reserved() -> (TcpSocket, u16) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((LOOPBACK, 0).into()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

/// A head as text, names in lower case.
pub(crate) fn show(head: &Head) -> String {
    use std::fmt::Write;
    let mut text = format!("{}\n", head.line);
    for (name, value) in &head.fields {
        writeln!(text, "{}: {value}", name.to_ascii_lowercase()).unwrap();
    }
    text
}

/// A response with this body.
pub(crate) fn ok(body: &[u8]) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut bytes = std::mem::take(&mut response).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
