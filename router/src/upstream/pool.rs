//! Connections to sandboxes that wait for a request, and those that many requests share.
//!
//! A pool belongs to one listener. An idle HTTP/1.1 connection is looked at when it is taken and when the
//! pool is swept. Connections are kept by address *and* incarnation of the pod, so that one made to a pod
//! is never used for another that got the same address later.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_service::tasks::Tasks;
use foldhash::fast::RandomState;
use http::HeaderValue;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::connection::Http1;
use super::dial::{DialError, connect};
use super::shared::{Sender, Shared};
use crate::config::PoolLimits;
use crate::metrics::RouterMetrics;
use crate::resolve::{Address, Route};

/// Flow-control windows of HTTP/2 connections to sandboxes: how much of a response may be under way
/// to a slow client.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Idle and shared connections of one listener.
#[derive(Debug)]
pub(crate) struct Pool {
    limits: PoolLimits,
    idle: Mutex<Idle>,
    shared: Shared,
    tasks: Tasks,
    metrics: RouterMetrics,
}

/// What makes two connections interchangeable.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Key {
    address: Address,
    incarnation: u64,
}

/// An HTTP/2 connection that was waited for.
#[derive(Debug)]
pub(crate) enum Dialled {
    /// Opened by this request, so that it has carried none before.
    Here(Sender),
    /// Opened by another.
    Elsewhere(Sender),
}

#[derive(Debug, Default)]
struct Idle {
    by_key: HashMap<Key, Vec<Parked>, RandomState>,
    count: usize,
}

#[derive(Debug)]
struct Parked {
    connection: Box<Http1>,
    since: Instant,
}

impl Key {
    pub(crate) fn of(route: &Route) -> Self {
        Self {
            address: route.address.clone(),
            incarnation: route.incarnation(),
        }
    }

    /// The value of `Host`.
    pub(crate) fn host(&self) -> Result<HeaderValue, DialError> {
        let address = self.address.to_string();
        HeaderValue::try_from(&address).map_err(|source| DialError::Host { address, source })
    }
}

impl Pool {
    pub(crate) fn new(limits: PoolLimits, tasks: Tasks, metrics: RouterMetrics) -> Arc<Self> {
        Arc::new(Self {
            shared: Shared::new(limits.idle, metrics.clone()),
            limits,
            idle: Mutex::default(),
            tasks,
            metrics,
        })
    }

    /// An idle connection that looks alive.
    pub(crate) fn take(&self, key: &Key) -> Option<Box<Http1>> {
        loop {
            let parked = {
                let mut idle = self.idle.lock();
                let parked = idle.by_key.get_mut(key)?.pop()?;
                idle.count -= 1;
                self.metrics.pooled().dec();
                parked
            };
            if parked.since.elapsed() < self.limits.idle_timeout && parked.connection.is_open() {
                return Some(parked.connection);
            }
        }
    }

    /// Keeps a connection for the next request, if it can carry one.
    pub(crate) fn put(&self, mut connection: Box<Http1>) {
        if !connection.rest() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.count >= self.limits.idle {
            return;
        }
        if !idle.by_key.contains_key(connection.key()) {
            let key = connection.key().clone();
            idle.by_key.insert(key, Vec::with_capacity(1));
        }
        let Some(parked) = idle.by_key.get_mut(connection.key()) else {
            return;
        };
        if parked.len() < self.limits.idle_per_target {
            parked.push(Parked {
                connection,
                since: Instant::now(),
            });
            idle.count += 1;
            self.metrics.pooled().inc();
        }
    }

    /// Lets go of connections that were idle for too long or were closed by the sandbox. Runs until
    /// cancelled.
    pub(crate) async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let stale = self.take_stale();
            // Closed outside the lock.
            drop(stale);
            self.shared.sweep();
        }
    }

    fn take_stale(&self) -> Vec<Parked> {
        let mut stale = Vec::new();
        let mut idle = self.idle.lock();
        let limit = self.limits.idle_timeout;
        idle.by_key.retain(|_, parked| {
            stale.extend(parked.extract_if(.., |parked| {
                parked.since.elapsed() >= limit || !parked.connection.is_open()
            }));
            !parked.is_empty()
        });
        idle.count -= stale.len();
        self.metrics
            .pooled()
            .sub(i64::try_from(stale.len()).unwrap_or(i64::MAX));
        stale
    }

    /// Opens an HTTP/1.1 connection.
    pub(crate) async fn dial(&self, key: &Key, timeout: Duration) -> Result<Box<Http1>, DialError> {
        let host = key.host()?;
        let stream = self.connect(&key.address, timeout).await?;
        Ok(Box::new(Http1::new(key.clone(), host, stream)))
    }

    /// An HTTP/2 connection that other requests use already.
    pub(crate) fn shared(&self, key: &Key) -> Option<Sender> {
        self.shared.get(key)
    }

    /// Opens an HTTP/2 connection with prior knowledge, to be shared with other requests. If one of them
    /// opens it meanwhile, it is that one.
    pub(crate) async fn dial_shared(
        &self,
        key: &Key,
        timeout: Duration,
    ) -> Result<Dialled, DialError> {
        // For all of it together: the turn, the connection and the handshake.
        let by = Instant::now() + timeout;
        let address = || key.address.to_string();
        let turn = self.shared.turn(key);
        let Ok(_turn) = tokio::time::timeout_at(by, turn.lock()).await else {
            return Err(DialError::Queued {
                address: address(),
                timeout,
            });
        };
        if let Some(sender) = self.shared.get(key) {
            return Ok(Dialled::Elsewhere(sender));
        }
        let left = by.saturating_duration_since(Instant::now());
        let stream = self.connect(&key.address, left).await?;
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .handshake(TokioIo::new(stream));
        let (sender, driver) = match tokio::time::timeout_at(by, handshake).await {
            Ok(Ok(made)) => made,
            Ok(Err(source)) => {
                return Err(DialError::Handshake {
                    address: address(),
                    source,
                });
            }
            Err(_) => {
                return Err(DialError::TimedOut {
                    address: address(),
                    timeout,
                });
            }
        };
        self.tasks.spawn("upstream http2", async move {
            if let Err(error) = driver.await {
                tracing::debug!(%error, "HTTP/2 connection to a sandbox ended");
            }
        });
        Ok(Dialled::Here(self.shared.insert(key.clone(), sender)))
    }

    /// Forgets a shared connection that failed.
    pub(crate) fn unshare(&self, key: &Key, failed: &Sender) {
        self.shared.remove(key, failed);
    }

    async fn connect(&self, address: &Address, timeout: Duration) -> Result<TcpStream, DialError> {
        let start = Instant::now();
        let outcome = match tokio::time::timeout(timeout, connect(address)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::TimedOut {
                address: address.to_string(),
                timeout,
            }),
        };
        self.metrics.connected(start.elapsed(), outcome.is_ok());
        outcome
    }
}
