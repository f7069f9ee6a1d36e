//! The connection loop: HTTP/1.1 and HTTP/2 on one port, upgrades, header and idle deadline,
//! connection limit, optional TLS, and a drain with a deadline.
//!
//! `axum::serve` offers none of the limits, so every listener of the platform is served from here.
//! The loop never touches a request: routes, layers and errors belong to the `axum::Router`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use http::header::UPGRADE;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use self::opening::Opened;
use self::requests::{Requests, Traffic};
pub use self::upgrades::Upgrade;
use self::upgrades::Upgrades;
use crate::shutdown::Shutdown;
use crate::tasks::Tasks;

mod opening;
mod requests;
mod upgrades;

/// How long a TLS handshake may take before the connection is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client of HTTP/2 may take to let go of a connection that is over and has no request.
const PARTING: Duration = Duration::from_secs(10);
/// How long to pause after `accept` failed for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves one [`Router`] on one listener.
#[derive(Clone, Debug)]
pub struct Server {
    router: Router,
    header_timeout: Duration,
    max_connections: usize,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Server {
    /// A server with a 30 s header deadline, 65,536 connections at most, and no TLS.
    ///
    /// Each request carries a [`ConnectInfo`] with the peer's socket address in its extensions.
    pub fn new(router: Router) -> Self {
        Self {
            router,
            header_timeout: Duration::from_secs(30),
            max_connections: 65_536,
            tls: None,
        }
    }

    /// How long a client may take to send the head of a request, and a connection may stay without one.
    #[must_use]
    pub fn header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// How many connections are served at once, upgraded ones included; further ones wait in the kernel's
    /// queue.
    #[must_use]
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Serves TLS with this configuration.
    #[must_use]
    pub fn tls(mut self, config: Arc<rustls::ServerConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Accepts until `shutdown`, then finishes what is in flight and cuts what still runs after
    /// `drain`. The listener is closed as soon as the order to stop comes. Upgraded connections are waited
    /// for where their holder keeps the [`Upgrade`] of the request.
    pub async fn serve(self, listener: TcpListener, shutdown: Shutdown, drain: Duration) {
        let connections = Tasks::new("connections");
        let upgrades = Upgrades::default();
        let permits = Arc::new(Semaphore::new(self.max_connections));
        loop {
            let accepted = tokio::select! {
                () = shutdown.triggered() => break,
                accepted = accept(&listener, &permits) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                tokio::select! {
                    () = shutdown.triggered() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                }
            };
            let server = self.clone();
            let (shutdown, upgrades) = (shutdown.clone(), upgrades.clone());
            connections.spawn("connection", async move {
                let arrival = Arrival {
                    peer,
                    permit,
                    shutdown,
                    upgrades,
                };
                server.connection(stream, arrival).await;
            });
        }
        drop(listener);
        let deadline = Instant::now() + drain;
        tokio::join!(connections.shutdown(drain), upgrades.finish(deadline));
    }

    async fn connection(&self, stream: TcpStream, arrival: Arrival) {
        let peer = arrival.peer;
        // A peer that is gone without a word would keep a quiet stream for ever.
        let probes = TcpKeepalive::new()
            .with_time(Duration::from_secs(60))
            .with_interval(Duration::from_secs(10))
            .with_retries(3);
        if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&probes) {
            tracing::debug!(%peer, %error, "cannot set SO_KEEPALIVE");
        }
        // Small responses must not wait for an acknowledgement of the one before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
        }
        let Some(config) = &self.tls else {
            return self.http(stream, arrival).await;
        };
        let handshake = TlsAcceptor::from(config.clone()).accept(stream);
        let time = HANDSHAKE_TIMEOUT.min(self.header_timeout);
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(time, handshake) => shaken,
            () = arrival.shutdown.triggered() => return,
        };
        match shaken {
            Ok(Ok(stream)) => self.http(stream, arrival).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
        }
    }

    async fn http<S>(&self, mut stream: S, arrival: Arrival)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Arrival {
            peer,
            permit,
            shutdown,
            upgrades,
        } = arrival;
        let opening = tokio::time::timeout(self.header_timeout, opening::read(&mut stream));
        let first = tokio::select! {
            first = opening => first,
            () = shutdown.triggered() => return,
        };
        let first = match first {
            Ok(Ok(first)) if first.is_empty() => return,
            Ok(Ok(first)) => first,
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "connection broke off before its first request");
                return;
            }
            Err(_) => {
                tracing::debug!(%peer, "no request came in time");
                return;
            }
        };
        // Only there does the library look after connections without requests.
        let traffic = Arc::<Traffic>::default();
        let requests = opening::is_http2(&first).then(|| Requests::new(traffic.clone()));
        // The place goes where the stream goes, also when the connection is upgraded.
        let stream = Opened::new(first, stream, traffic, permit);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_timeout)
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(Duration::from_secs(30)));
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            let open = requests.as_ref().map(Requests::begin);
            request.extensions_mut().insert(ConnectInfo(peer));
            if request.headers().contains_key(UPGRADE) {
                request.extensions_mut().insert(upgrades.expect());
            }
            let call = self
                .router
                .clone()
                .oneshot(request.map(axum::body::Body::new) as Request);
            async move {
                let response = call.await.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(match open {
                    Some(open) => open.until_answered(response),
                    None => response,
                })
            }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut parting = false;
        let outcome = loop {
            let idle = async {
                match &requests {
                    Some(requests) if parting => {
                        requests.none_for(PARTING.min(self.header_timeout)).await;
                    }
                    Some(requests) => requests.none_for(self.header_timeout).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                outcome = connection.as_mut() => break outcome,
                () = shutdown.triggered(), if !parting => {}
                () = idle => if parting {
                    tracing::debug!(%peer, "connection without a request is cut");
                    return;
                }
            }
            parting = true;
            connection.as_mut().graceful_shutdown();
        };
        if let Err(error) = outcome {
            tracing::debug!(%peer, error, "connection ended early");
        }
    }
}

/// A connection that was accepted, and what it has to do with its server.
struct Arrival {
    peer: std::net::SocketAddr,
    /// Its place under the limit.
    permit: OwnedSemaphorePermit,
    shutdown: Shutdown,
    upgrades: Upgrades,
}

/// The next connection and its place under the limit; `None` when `accept` failed and the caller
/// should pause (a process out of file descriptors fails at once, again and again).
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, std::net::SocketAddr, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

#[cfg(test)]
mod tests;
