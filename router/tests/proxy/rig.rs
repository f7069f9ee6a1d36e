//! A running router and what a test may look at.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent_sandbox_router::authz::Authorizer;
use agent_sandbox_router::resolve::Resolve;
use agent_sandbox_router::resolve::fixed::Fixed;
use agent_sandbox_router::{Config, Listener, Router, RouterBuilder};
use agent_sandbox_service::listen;
use agent_sandbox_service::metrics::Metrics;
use agent_sandbox_service::readiness::Readiness;
use agent_sandbox_service::shutdown::Shutdown;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::wire::Wire;

/// Longest a test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Longer than any test takes: what is bounded by this ends only when a [`StoppedClock`] says so.
pub(crate) const LONG: Duration = Duration::from_secs(600);
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A running router.
pub(crate) struct Rig {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
    shutdown: Shutdown,
    served: JoinHandle<()>,
    log: Log,
}

/// Everybody passes, a drain takes no time, and connections are kept however slow the machine is.
pub(crate) fn config() -> Config {
    with(Authorizer::AllowAll)
}

pub(crate) fn with(authorizer: Authorizer) -> Config {
    let mut config = Config::new(authorizer);
    config.drain.timeout = Duration::from_secs(5);
    config.resolution.wait = Duration::from_millis(50);
    config.retry.initial_delay = Duration::from_millis(5);
    config.retry.max_delay = Duration::from_millis(20);
    config.pool.idle_timeout = LONG;
    config.time.request_header = LONG;
    config.time.connect = DEADLINE;
    config
}

/// The sandbox `ns/box` on loopback.
pub(crate) fn one_box() -> Arc<dyn Resolve> {
    Fixed::new().sandbox("ns", "box", LOOPBACK).into_table()
}

impl Rig {
    /// A router that knows `ns/box`.
    pub(crate) fn start(config: Config) -> Self {
        Self::build(Router::builder(config).resolver(one_box()))
    }

    pub(crate) fn build(builder: RouterBuilder) -> Self {
        Self::listen(builder, Listener::plain)
    }

    pub(crate) fn listen(
        builder: RouterBuilder,
        listener: impl FnOnce(tokio::net::TcpListener) -> Listener,
    ) -> Self {
        Self::listen_on(LOOPBACK, builder, listener)
    }

    pub(crate) fn listen_on(
        ip: IpAddr,
        builder: RouterBuilder,
        listener: impl FnOnce(tokio::net::TcpListener) -> Listener,
    ) -> Self {
        let (metrics, readiness, log) = (Metrics::new(), Readiness::new(), Log::default());
        let router = builder
            .metrics(&metrics)
            .readiness(&readiness)
            .access_log_to(log.clone())
            .build()
            .unwrap();
        let socket = listen::bind((ip, 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let served = tokio::spawn(router.serve_all(vec![listener(socket)], shutdown.clone()));
        Self {
            address,
            metrics,
            readiness,
            shutdown,
            served,
            log,
        }
    }

    /// A connection to the router.
    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// One exchange on a connection of its own.
    pub(crate) async fn send(&self, request: &str) -> crate::wire::Reply {
        let mut wire = self.connect().await;
        wire.write(request).await;
        wire.reply().await
    }

    /// Tells the router to stop.
    pub(crate) fn trigger(&self) {
        self.shutdown.trigger();
    }

    /// Waits until nothing of the router runs any more.
    pub(crate) async fn stop(self) {
        self.shutdown.trigger();
        tokio::time::timeout(DEADLINE, self.served)
            .await
            .expect("the router stops in time")
            .unwrap();
    }

    /// The value of a series, 0 if it does not exist.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        self.metrics
            .encode()
            .lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
            .unwrap_or(0.0)
    }

    /// Waits until a series has a value.
    pub(crate) async fn metric_is(&self, series: &str, value: f64) {
        eventually(&format!("{series} = {value}"), async || {
            (self.metric(series) - value).abs() < f64::EPSILON
        })
        .await;
    }

    /// How many requests have been logged.
    pub(crate) fn log_lines(&self) -> usize {
        self.log.lines().len()
    }

    /// The access log as it was written.
    pub(crate) fn log_text(&self) -> String {
        String::from_utf8(self.log.0.lock().clone()).unwrap()
    }

    /// Waits for the line of the access log that has this path.
    pub(crate) async fn logged(&self, path: &str) -> Value {
        let find = || {
            self.log
                .lines()
                .into_iter()
                .find(|line| line["path"] == path)
        };
        eventually(&format!("an access log line for {path}"), async || {
            find().is_some()
        })
        .await;
        find().unwrap()
    }
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// A clock that moves only when told to, while bytes keep flowing.
///
/// A paused clock jumps to the next timer whenever nothing runs, which sockets do not count for;
/// a blocking task, held here, keeps it from that. It is let go after [`DEADLINE`], so that what
/// never comes fails the test instead of hanging it.
pub(crate) struct StoppedClock {
    _hold: std::sync::mpsc::Sender<()>,
}

impl StoppedClock {
    pub(crate) fn now() -> Self {
        let (hold, release) = std::sync::mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || release.recv_timeout(DEADLINE));
        tokio::time::pause();
        Self { _hold: hold }
    }

    /// Lets time pass in a moment, for whoever waits for it.
    pub(crate) async fn skip(time: Duration) {
        Self::now().pass(time).await;
    }

    /// Lets time pass, and the timers that are due fire.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }
}

impl Drop for StoppedClock {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

/// An access log kept in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<Value> {
        String::from_utf8(self.0.lock().clone())
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
