//! The connection loop: accepting, telling protocols apart, parking idle connections, draining.
//!
//! A connection with nothing to do is *parked*: its task, HTTP state and buffers are dropped and only
//! the socket and a deadline remain, in a [`Lot`], until the next byte comes. That is what lets one
//! router hold very many idle clients. The loop never looks inside a request; what is answered is the
//! business of the [`App`] it serves.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_sandbox_service::shutdown::Shutdown;
use agent_sandbox_service::tasks::Tasks;
use arc_swap::ArcSwap;
use http::HeaderValue;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Limits, Time};
use crate::metrics::RouterMetrics;
use crate::stack::App;
use crate::tls::Certificates;

pub(crate) use self::io_state::State;
use self::io_state::Stream;
use self::lot::{Attendant, Lot, Park};

mod connection;
mod io_state;
mod lot;

/// How long to pause after `accept` failed for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a connection with a request is looked at, at least, whatever happens on it.
pub(crate) const TICK: Duration = Duration::from_secs(1);
/// How long a new connection may take to say something before it is parked. Most do so at once.
const LINGER: Duration = Duration::from_secs(1);
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

    /// Accepts until the server is told to stop. Connections that are being served go on
    /// afterwards; see [`Self::finish`].
    pub(crate) async fn accept(&self, listener: TcpListener) {
        tokio::select! {
            () = self.shared.stopping.triggered() => {}
            () = self.accept_and_wake(listener) => {}
        }
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    /// Serves who comes, and who comes back from being parked. Runs until cancelled, which ends
    /// whoever is parked.
    async fn accept_and_wake(&self, listener: TcpListener) {
        let mut attendant = self.open_lot().await;
        let lot = attendant.lot().clone();
        let mut pause = None;
        loop {
            tokio::select! {
                accepted = accept(&listener, &self.permits, pause) => match accepted {
                    Ok((stream, address, permit)) => {
                        pause = None;
                        let place = Place::take(permit, self.shared.metrics.connections());
                        let shared = self.shared.clone();
                        self.spawn(&lot, address, async move {
                            welcome(&shared, stream, address, place).await
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        pause = Some(Instant::now() + ACCEPT_PAUSE);
                    }
                },
                woken = attendant.next() => match woken {
                    Ok(woken) => {
                        for client in woken {
                            let shared = self.shared.clone();
                            self.spawn(&lot, client.address, async move {
                                connection::serve(&shared, client).await
                            });
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot look after idle connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn open_lot(&self) -> Attendant<Client> {
        loop {
            match Lot::open(self.shared.metrics.parked().clone()) {
                Ok(attendant) => return attendant,
                Err(error) => tracing::warn!(%error, "cannot accept connections yet"),
            }
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    }

    /// Waits for connections to end and cuts those that outlive `deadline`.
    pub(crate) async fn finish(&self, deadline: Duration) {
        self.connections.shutdown(deadline).await;
    }

    /// Serves a connection until it ends, or is idle and can be parked.
    fn spawn<F>(&self, lot: &Arc<Lot<Client>>, peer: IpAddr, serving: F)
    where
        F: Future<Output = io::Result<Option<Idle>>> + Send + 'static,
    {
        let lot = lot.clone();
        self.connections.spawn("connection", async move {
            match serving.await {
                Ok(Some(Idle { client, until })) => {
                    if let Err(error) = lot.park(client, until) {
                        tracing::warn!(%peer, %error, "an idle connection cannot be kept");
                    }
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%peer, %error, "connection ended early"),
            }
        });
    }
}

/// A client's connection, when nothing happens on it.
#[derive(Debug)]
struct Client {
    stream: Stream,
    address: IpAddr,
    /// Whether it is known to speak HTTP/1.1.
    is_http1: bool,
    place: Place,
}

/// A connection that can be parked.
#[derive(Debug)]
struct Idle {
    client: Client,
    /// When it ends if nothing happens.
    until: Instant,
}

impl Park for Client {
    fn socket(&self) -> BorrowedFd<'_> {
        self.stream.socket().as_fd()
    }

    fn let_go(&self) {
        self.stream.let_go();
    }
}

/// A place under the limit on connections, and in their number.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    connections: IntGauge,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit, connections: &IntGauge) -> Self {
        connections.inc();
        Self {
            _permit: permit,
            connections: connections.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

/// Serves a connection just made.
async fn welcome(
    shared: &Arc<Shared>,
    stream: TcpStream,
    address: IpAddr,
    place: Place,
) -> io::Result<Option<Idle>> {
    // Small responses must not wait for an acknowledgement of the one before.
    stream.set_nodelay(true)?;
    let until = Instant::now() + shared.settings.header_timeout;
    let is_tls = shared.tls.is_some();
    let stream = match &shared.tls {
        Some(tls) => Stream::Tls(Box::pin(handshake(tls, stream)).await?),
        None => Stream::Plain(stream),
    };
    let client = Client {
        stream,
        address,
        is_http1: false,
        place,
    };
    // The first request may have come with the end of the TLS handshake, and then the socket has
    // nothing more to say.
    if !is_tls {
        let mut seen = [0];
        tokio::select! {
            spoken = client.stream.socket().peek(&mut seen) => drop(spoken?),
            () = tokio::time::sleep_until(until.min(Instant::now() + LINGER)) => {
                return Ok(Some(Idle { client, until }));
            }
            () = shared.stopping.triggered() => return Ok(None),
        }
    }
    connection::serve(shared, client).await
}

async fn handshake(tls: &Certificates, stream: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
    // Asked for each connection, so that a reloaded certificate serves the next one.
    let accepting = TlsAcceptor::from(tls.current()).accept(stream);
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, accepting).await;
    let late = || io::Error::new(io::ErrorKind::TimedOut, "TLS handshake timed out");
    Ok(Box::new(accepted.map_err(|_| late())??))
}

/// The next connection and its place under the limit, not before `pause` is over.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    pause: Option<Instant>,
) -> io::Result<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    if let Some(pause) = pause {
        tokio::time::sleep_until(pause).await;
    }
    let permit = permits
        .clone()
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((stream, address.ip(), permit))
}
