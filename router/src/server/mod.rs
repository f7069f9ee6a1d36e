//! The connection loop: accepting, telling protocols apart, parking idle connections, draining.
//!
//! A keep-alive connection with nothing to do is *parked*: its HTTP state and buffers are dropped and
//! only the socket and a deadline remain, until the next byte comes. That is what lets one router
//! hold very many idle clients. The loop never looks inside a request; what is answered is the
//! business of the [`App`] it serves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Limits, Time};
use crate::metrics::RouterMetrics;
use crate::stack::App;
use crate::tls::Certificates;

pub(crate) use self::io_state::State;
use self::io_state::Stream;

mod connection;
mod io_state;

/// How long to pause after `accept` failed for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection with a request is looked at, at least, whatever happens on it.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its address.
    pub(crate) address: IpAddr,
    /// The same as text, which every request of the connection carries on.
    pub(crate) text: HeaderValue,
    /// Whether it came over TLS.
    pub(crate) tls: bool,
}

impl Peer {
    pub(crate) fn new(address: IpAddr, tls: bool) -> Self {
        // An address consists of digits, letters, dots and colons.
        let text = HeaderValue::try_from(address.to_string());
        Self {
            address,
            text: text.unwrap_or(HeaderValue::from_static("unknown")),
            tls,
        }
    }
}

/// Serves one [`App`] on any number of listeners. Clones share the connection limit.
#[derive(Clone)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    connections: Tasks,
    permits: Arc<Semaphore>,
}

struct Shared {
    /// Taken anew whenever a connection becomes active.
    app: ArcSwap<App>,
    settings: Settings,
    tls: Option<Certificates>,
    metrics: RouterMetrics,
    /// Given when connections must finish what they are doing and close.
    stopping: Shutdown,
    /// Whether that was given; cheaper to ask.
    stopped: AtomicBool,
}

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// For the head of a request.
    pub(crate) header_timeout: Duration,
    /// Between requests.
    pub(crate) keep_alive: Duration,
    /// Without the client taking a byte of a response.
    pub(crate) write_stall: Duration,
    /// Bytes of a request head.
    pub(crate) head: usize,
    /// Connections at once.
    pub(crate) connections: usize,
}

impl Settings {
    pub(crate) fn new(time: &Time, limits: &Limits) -> Self {
        Self {
            header_timeout: time.request_header,
            keep_alive: time.keep_alive,
            write_stall: time.idle,
            head: limits.head,
            connections: limits.connections,
        }
    }
}

impl Server {
    pub(crate) fn new(
        app: App,
        settings: Settings,
        tls: Option<Certificates>,
        metrics: RouterMetrics,
        stopping: Shutdown,
    ) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(settings.connections)),
            shared: Arc::new(Shared {
                app: ArcSwap::from_pointee(app),
                settings,
                tls,
                metrics,
                stopping,
                stopped: AtomicBool::new(false),
            }),
            connections: Tasks::new("client connections"),
        }
    }

    /// Has requests answered by another application, on connections that become active from now on.
    pub(crate) fn replace(&self, app: App) {
        self.shared.app.store(Arc::new(app));
    }

    /// Accepts until the server is told to stop. Connections go on afterwards; see
    /// [`Self::finish`].
    pub(crate) async fn accept(&self, listener: TcpListener) {
        self.accept_until_stopped(listener).await;
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    async fn accept_until_stopped(&self, listener: TcpListener) {
        let stopping = &self.shared.stopping;
        loop {
            let accepted = tokio::select! {
                () = stopping.triggered() => return,
                accepted = accept(&listener, &self.permits) => accepted,
            };
            match accepted {
                Ok((stream, address, permit)) => self.spawn(stream, address, permit),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::select! {
                        () = stopping.triggered() => return,
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }
    }

    /// Waits for connections to end and cuts those that outlive `deadline`.
    pub(crate) async fn finish(&self, deadline: Duration) {
        self.connections.shutdown(deadline).await;
    }

    fn spawn(&self, stream: TcpStream, address: SocketAddr, permit: OwnedSemaphorePermit) {
        let shared = self.shared.clone();
        self.connections.spawn("connection", async move {
            let connections = shared.metrics.connections().clone();
            connections.inc();
            if let Err(error) = serve(shared, stream, address).await {
                tracing::debug!(peer = %address, %error, "connection ended early");
            }
            connections.dec();
            drop(permit);
        });
    }
}

/// One connection from first byte to last.
async fn serve(shared: Arc<Shared>, stream: TcpStream, address: SocketAddr) -> io::Result<()> {
    // Small responses must not wait for an acknowledgement of the one before.
    stream.set_nodelay(true)?;
    let Some(tls) = &shared.tls else {
        let peer = Peer::new(address.ip(), false);
        return connection::serve(&shared, Stream::Plain(stream), peer).await;
    };
    // Boxed, because the state of TLS is large, and plain connections should not carry room for it.
    let stream = Box::pin(handshake(tls, stream)).await?;
    let peer = Peer::new(address.ip(), true);
    connection::serve(&shared, Stream::Tls(stream), peer).await
}

async fn handshake(tls: &Certificates, stream: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
    // Asked for each connection, so that a reloaded certificate serves the next one.
    let accepting = TlsAcceptor::from(tls.current()).accept(stream);
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out");
    Ok(Box::new(accepted.map_err(|_| late())??))
}

/// The next connection and its place under the limit.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address, permit))
}
